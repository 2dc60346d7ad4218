"""CycleGAN: networks, steps, pool, runs, weights."""

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from restore.checkpoints import load_generator, read_state
from restore.data.loader import Batch
from restore.data.sampler import sample_crops
from restore.data.unpaired import open_unpaired
from restore.degradations import degradation_from
from restore.errors import RestoreError
from restore.export import export
from restore.hashed_random import key as seed_of
from restore.images import write_png
from restore.models.cycle import DiscriminatorPair, GeneratorPair, ImagePool
from restore.models.patchgan import PatchGAN
from restore.models.pix2pix import Pix2Pix
from restore.models.resnet import ResNet
from restore.restorers.registry import open_restorer
from restore.training import dry_run
from restore.training.compute import ComputeSettings
from restore.training.config import TrainConfig, load_train_config
from restore.training.loop import train
from restore.training.setup import build_networks, make_step_context, make_trainable, set_learning_rates
from restore.training.unpaired import cycle_step
from tests.training.cyclegan_reference import Generator, Reference
from tests.training.killed import assert_same_end, kill_after_a_save

SIDE = 16
SMALL = [
    "data.resize=null", f"data.patch={SIDE}", "data.validation_size=32", "data.near_duplicates=0", "data.batch=2",
    "model.args={blocks: 1, ngf: 4}",
    "discriminator.args={ndf: 4, n_layers: 1, norm: instance}", "discriminator.pool=3",
    "ema=0.9",
    "total_steps=4", "validate_every=2", "save_every=1", "log_every=1", "device=cpu", "threads=1",
    "data.validation_percent=50", "data.cache=memory",
]  # fmt: skip


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Dark blue images, and light red ones; 6 of each."""
    folder = tmp_path_factory.mktemp("kinds")
    rng = np.random.default_rng(0)
    for name, color in (("a", (30, 40, 90)), ("b", (220, 160, 150))):
        (folder / name).mkdir()
        for i in range(6):
            grain = rng.normal(0, 12, (40, 48 + 4 * (name == "b"), 3))
            write_png(folder / name / f"{i}.png", (np.array(color) + grain).clip(0, 255).astype(np.uint8))
    return folder / "a", folder / "b"


def settings(kinds: tuple[Path, Path], out: Path, *overrides: str) -> TrainConfig:
    sources = [f"data.a={kinds[0]}", f"data.b={kinds[1]}", f"out={out}"]
    return load_train_config("cyclegan", [*SMALL, *sources, *overrides])


def batches_of(count: int, steps: int) -> list[Batch]:
    made = torch.Generator().manual_seed(5)
    a, b = (torch.rand(steps, count, 3, SIDE, SIDE, generator=made) for _ in range(2))
    keys = torch.arange(steps * count).reshape(steps, count)
    return [Batch(a[i], torch.zeros(count, 1, SIDE, SIDE), b[i], keys[i]) for i in range(steps)]


# The networks


@pytest.mark.parametrize("blocks", [6, 9])
def test_resnet_gives_what_the_reference_gives(blocks: int) -> None:
    torch.manual_seed(0)
    reference, network = Generator(blocks, 4).eval(), ResNet(blocks=blocks, ngf=4).eval()
    assert list(network.state_dict()) == list(reference.state_dict())
    network.load_state_dict(reference.state_dict())
    image = torch.rand(1, 3, 32, 24)
    with torch.no_grad():
        expected = reference(image * 2 - 1) * 0.5 + 0.5
        assert torch.allclose(network(image), expected, atol=1e-6)


def test_full_size_network_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in ResNet().parameters()) == 11_378_179
        assert sum(p.numel() for p in PatchGAN(3, norm="instance").parameters()) == 2_764_737


# The pool


def test_pool_returns_new_images_until_it_is_full() -> None:
    pool = ImagePool(3, (1, 1, 1))
    images = torch.arange(1.0, 4.0).reshape(3, 1, 1, 1)
    assert torch.equal(pool.exchange(images, torch.full((3, 2), 0.9)), images)
    assert pool.filled == 3


def test_pool_is_drawn_as_by_the_published_code() -> None:
    """Against lists of Python: half of the images take the place of an image of the pool, which D sees."""
    pool, plain, draws = ImagePool(4, (1, 1, 1)), [], random.Random(1)
    for number in range(60):
        swaps, which = draws.random(), draws.random()
        shown = pool.exchange(torch.full((1, 1, 1, 1), float(number)), torch.tensor([[swaps, which]]))
        expected = number
        if len(plain) < 4:
            plain.append(number)
        elif swaps > 0.5:
            at = int(which * 4)
            expected, plain[at] = plain[at], number
        assert shown.item() == expected
    assert pool.images.flatten().tolist() == plain


def test_pool_of_none_shows_new_images() -> None:
    images = torch.rand(2, 1, 1, 1)
    assert torch.equal(ImagePool(0, (1, 1, 1)).exchange(images, torch.ones(2, 2)), images)


# The step


def trainable(config: TrainConfig, reference: Reference | None = None):
    fabric, compute = Fabric(accelerator="cpu", devices=1), ComputeSettings("fp32")
    generator, discriminator = build_networks(config)
    assert isinstance(generator, GeneratorPair)
    assert isinstance(discriminator, DiscriminatorPair)
    if reference is not None:
        states = reference.states()
        for name, network in (("A", "a"), ("B", "b")):
            generator.get_submodule(network).load_state_dict(states[f"G_{name}"])
            discriminator.get_submodule(network).load_state_dict(states[f"D_{name}"])
    g = make_trainable(generator, fabric, config, compute, is_discriminator=False)
    d = make_trainable(discriminator, fabric, config, compute, is_discriminator=True)
    return g, d, make_step_context(config, fabric, "fp32", generator)


@pytest.mark.parametrize("damage", [[], ["damage=noise", "loss.supervised=7"]], ids=["unpaired", "with drawn damage"])
def test_steps_equal_those_of_the_reference(kinds: tuple[Path, Path], tmp_path: Path, damage: list[str]) -> None:
    torch.manual_seed(3)
    reference = Reference(blocks=1, ngf=4, ndf=4, layers=1)
    config = settings(kinds, tmp_path / "run", "discriminator.pool=50", "total_steps=100", *damage)
    g, d, context = trainable(config, reference)
    set_learning_rates(g, d, config.optimizer, 0, 100, from_init=False)
    for batch in batches_of(2, 2):
        more: list = []
        if damage:
            batch = replace(batch, degraded=(batch.clean + 0.1).clamp(0, 1))
            more = [batch.degraded * 2 - 1, 7.0]
        expected = reference.step(batch.damaged * 2 - 1, batch.clean * 2 - 1, *more)
        terms = cycle_step(g, d, [batch], context)
        for name, value in expected.items():
            assert terms[name].item() == pytest.approx(value, abs=1e-5), name
        for name, state in reference.states().items():
            own = (g if name[0] == "G" else d).network.get_submodule(name[-1].lower()).state_dict()
            for key, value in state.items():
                # Adam's first steps are the sign of the gradient: a gradient of nearly zero may have the other one.
                # Such are the biases before an instance norm, which have no effect.
                if not key.endswith("bias"):
                    assert torch.allclose(own[key], value, atol=1e-5), (name, key)


def test_parts_of_a_batch_give_the_step_of_the_whole(kinds: tuple[Path, Path], tmp_path: Path) -> None:
    config = settings(kinds, tmp_path / "run")
    (batch,) = batches_of(2, 1)
    results = []
    for parts in (1, 2):
        g, d, context = trainable(config)
        terms = cycle_step(g, d, batch.parts(parts), context)
        results.append((terms["cycle"], terms["d"], d.network.pool_a.images.clone()))
    for whole, split in zip(*results):
        assert torch.allclose(whole, split, atol=1e-5)


def test_skipped_step_leaves_the_pools_as_they_were(kinds: tuple[Path, Path], tmp_path: Path) -> None:
    g, d, context = trainable(settings(kinds, tmp_path / "run"))
    good, bad = batches_of(2, 2)
    cycle_step(g, d, [good], context)
    before = {name: value.clone() for name, value in d.network.state_dict().items()}
    bad.damaged[0, 0, 0, 0] = torch.nan
    cycle_step(g, d, [bad], context)
    assert g.skipped[0] == d.skipped[0] == 1
    assert all(torch.equal(value, before[name]) for name, value in d.network.state_dict().items())


# Runs


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss.adversarial=hinge", "discriminator.args={ndf: 4, n_layers: 1, norm: instance, spectral_norm: true}"],
        ["loss.adversarial=vanilla", "loss.r1=1", "loss.r1_interval=1", "discriminator.augment=[color,translation]"],
        ["loss.adversarial=wgan-gp", "discriminator.args={ndf: 4, n_layers: 1, norm: none}", "discriminator.steps=2"],
        ["data.channels=gray", "grad_accumulation=2", "loss.adversarial_start=1"],
        ["damage=print", "grad_accumulation=2", "discriminator.steps=2"],
        ["model.builder=pix2pix", "model.args={num_downs: 5, ngf: 2, norm: instance, dropout: false}", "data.patch=32"],
    ],
    ids=["hinge", "vanilla", "wgan-gp", "gray", "drawn damage", "unet"],
)
def test_adversaries_and_kinds_of_images_run(kinds: tuple[Path, Path], tmp_path: Path, overrides: list[str]) -> None:
    config = settings(kinds, tmp_path / "run", "total_steps=2", *overrides)
    assert train(config).finished
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert {"cycle", "identity", "d", "d_norm", "g_norm"} <= lines[-2].keys()


@pytest.fixture(scope="module")
def run(kinds: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "cycle"
    assert train(settings(kinds, out)).finished
    return out


def test_run_writes_both_directions_and_a_grid(run: Path) -> None:
    image = torch.rand(1, 3, 20, 24)
    outputs = []
    for name in ("best.safetensors", "best_b_to_a.safetensors"):
        network, description = load_generator(run / name)
        assert description.builder == "resnet"
        restorer = open_restorer(str(run / name), device="cpu", precision="fp32", engine="torch")
        restored = restorer(image, None)
        with torch.no_grad():
            assert torch.allclose(restored, network(image), atol=1e-5)
        outputs.append(restored)
    assert not torch.equal(*outputs)
    assert torch.equal(open_restorer(str(run), device="cpu", precision="fp32", engine="torch")(image, None), outputs[0])
    assert len(list((run / "samples").glob("*.png"))) == 2
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert "validation_cycle" in last


def test_pairs_for_validation_give_scores(kinds: tuple[Path, Path], tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    truth.mkdir()
    for file in kinds[0].iterdir():
        write_png(truth / file.name, np.full((40, 48, 3), 200, np.uint8))
    pairs = f"data.validation={{input: {kinds[0]}, target: {truth}}}"
    config = settings(kinds, tmp_path / "run", pairs, "total_steps=1", f"data.a={kinds[1]}", "best_by=psnr")
    assert train(config).best.keys() >= {"psnr", "ssim", "cycle"}


def test_resume_is_exact_after_a_kill(kinds: tuple[Path, Path], run: Path, tmp_path: Path) -> None:
    """`kill -9` in the middle of a run: the resumed run has the state of one that was not killed."""
    out = tmp_path / "killed"
    kill_after_a_save("cyclegan", [*SMALL, f"data.a={kinds[0]}", f"data.b={kinds[1]}", "total_steps=4"], out)
    assert train(settings(kinds, out)).finished
    assert_same_end(run, out)


def test_resume_draws_the_damage_that_was_to_come(kinds: tuple[Path, Path], tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(settings(kinds, whole, "damage=noise", "optimizer.schedule=constant"))
    for steps in (2, 4):
        train(settings(kinds, stopped, "damage=noise", "optimizer.schedule=constant", f"total_steps={steps}"))
    assert_same_end(whole, stopped)


def test_drawn_damage_follows_from_the_keys_of_b_and_leaves_a_alone(kinds: tuple[Path, Path], tmp_path: Path) -> None:
    config = settings(kinds, tmp_path / "run", "damage=noise")
    damage = degradation_from("noise", "damage")
    how = {"multiple": 4, "device": torch.device("cpu"), "expected": None, "on_event": print}
    sources = [open_unpaired(config.data, drawn, **how)[0] for drawn in (None, damage)]
    plain, batch = (source.batch(3, 5, 4) for source in sources)
    assert torch.equal(batch.damaged, plain.damaged)
    assert torch.equal(batch.clean, plain.clean)
    keys = sample_crops(sources[1].plan, seed_of(3, 11), 5, 4, 0).keys  # 11: images of B
    expected, _ = damage.apply(batch.clean, damage.sample(keys, (SIDE, SIDE)))
    assert torch.equal(batch.degraded, expected)


@pytest.mark.parametrize(
    ("name", "what"), [("nowhere", "there is no such folder"), ("empty", "no images in this folder")]
)
def test_a_place_without_images_is_refused_with_the_keys_that_name_it(
    kinds: tuple[Path, Path], tmp_path: Path, name: str, what: str
) -> None:
    (tmp_path / "empty").mkdir()
    config = settings(kinds, tmp_path / "run", f"data.b={tmp_path / name}")
    with pytest.raises(RestoreError, match=f"{name}: {what}; set data.a=FOLDER and data.b=FOLDER"):
        open_unpaired(config.data, None, expected=None, on_event=print, multiple=4, device=torch.device("cpu"))


def test_init_takes_a_run_with_its_pools_left_out(kinds: tuple[Path, Path], run: Path, tmp_path: Path) -> None:
    config = settings(kinds, tmp_path / "next", f"init={run}", f"discriminator.init={run}")
    generator, discriminator = build_networks(config)
    state, _ = read_state(run / "last" / "state.safetensors")
    assert torch.equal(generator.state_dict()["b.model.1.weight"], state["ema.b.model.1.weight"])
    assert torch.equal(discriminator.state_dict()["a.model.0.weight"], state["d.a.model.0.weight"])
    assert discriminator.pool_a.filled == 0


def test_dry_run_measures_it(kinds: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "MEASURED_SECONDS", 0)
    text = dry_run.preview(settings(kinds, tmp_path / "run"), lr_finder=True).text()
    assert "G: resnet" in text
    assert re.search(r"data: (\d) and (\d) images", text)
    assert "learning rate" in text


# Published files


def test_export_writes_files_of_the_reference(kinds: tuple[Path, Path], run: Path, tmp_path: Path) -> None:
    """They load strictly into the reference, which gives the same images; and open as models and as `init`."""
    out = tmp_path / "checkpoints"
    written = export(run, out, "cyclegan")
    names = ["latest_net_D_A.pth", "latest_net_D_B.pth", "latest_net_G_A.pth", "latest_net_G_B.pth"]
    assert sorted(file.name for file in written.files) == names
    reference = Reference(blocks=1, ngf=4, ndf=4, layers=1)
    networks = {"G_A": reference.g_a, "G_B": reference.g_b, "D_A": reference.d_a, "D_B": reference.d_b}
    for name, network in networks.items():
        network.load_state_dict(torch.load(out / f"latest_net_{name}.pth", weights_only=True), strict=True)
    image = torch.rand(1, 3, 24, 32)
    for name, network in (("G_A", reference.g_a), ("G_B", reference.g_b)):
        restorer = open_restorer(str(out / f"latest_net_{name}.pth"), device="cpu", precision="fp32")
        with torch.no_grad():
            expected = network.eval()(image * 2 - 1) * 0.5 + 0.5
        assert (restorer(image, None) - expected).abs().max() < 2 / 255
    start = settings(kinds, tmp_path / "next", f"init={out}", f"discriminator.init={out}")
    generator, discriminator = build_networks(start)
    assert torch.equal(generator.b.model[1].weight, reference.g_b.model[1].weight)
    assert torch.equal(discriminator.b.model[0].weight, reference.d_b.model[0].weight)
    single = tmp_path / "single.safetensors"
    export(out / "latest_net_G_A.pth", single, "safetensors")
    with torch.no_grad():
        assert torch.allclose(load_generator(single)[0](image), reference.g_a(image * 2 - 1) * 0.5 + 0.5, atol=1e-5)


def test_export_refuses_one_direction(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="both directions"):
        export(run / "best.safetensors", tmp_path / "out", "cyclegan")
    with pytest.raises(RestoreError, match="both directions") as error:
        export(run, tmp_path / "out", "pix2pix")
    assert "cyclegan" in error.value.hint


def test_old_file_with_running_statistics_opens(tmp_path: Path) -> None:
    state = ResNet(blocks=1, ngf=4).state_dict()
    state |= {"model.2.running_mean": torch.zeros(4), "model.2.running_var": torch.ones(4)}
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "old_net_G.pth")
    assert open_restorer(str(tmp_path / "old_net_G.pth"), device="cpu").purpose == "published CycleGAN generator"


def test_incomplete_file_is_refused(tmp_path: Path) -> None:
    state = ResNet(blocks=1, ngf=4).state_dict()
    del state["model.11.weight"]
    torch.save(state, tmp_path / "latest_net_G_A.pth")
    with pytest.raises(RestoreError, match=r"missing: model\.11\.weight"):
        open_restorer(str(tmp_path / "latest_net_G_A.pth"), device="cpu")


# Errors


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task=restoration", "task: unpaired or one-sided need each other"),
        ("loss.adversarial=none", "set loss.adversarial"),
        ("loss.pixel_weight=3", "loss.pixel_weight has no effect with task: unpaired"),
        ("best_by=psnr", "best_by cannot be psnr"),
        ("loss.supervised=3", "loss.supervised has no effect without damage"),
        ("data.transfer=linear", "have no effect with a and b"),
        ("devices=2", "one process"),
        ("data.b=[]", "a and b must be set together"),
        ("stages=[{start: 1, data: {patch: 32}}]", "pool holds images of one size"),
    ],
)
def test_unfit_config_is_refused(kinds: tuple[Path, Path], tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(RestoreError, match=message):
        settings(kinds, tmp_path / "run", override)


def test_a_network_that_sees_a_mask_is_refused_with_drawn_damage_too(kinds: tuple[Path, Path], tmp_path: Path) -> None:
    config = settings(
        kinds, tmp_path / "run", "damage=scratch", "model.builder=unet", "model.args={widths: [4, 4], blocks: [1, 1]}"
    )
    with pytest.raises(RestoreError, match="this network sees a mask"):
        train(config)


def test_folders_in_an_override_keep_the_damage_of_the_config(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "task: unpaired\ntotal_steps: 1\ndamage: noise\nloss: {adversarial: lsgan}\n"
        "data: {a: x, b: y}\nmodel: {args: {mask: false}}\nbest_by: last\n"
    )
    assert load_train_config(str(tmp_path / "own.yaml"), ["data.a=v", "data.b=w"]).damage == "noise"


def test_keys_of_unpaired_training_are_refused_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match=r"loss\.cycle has no effect with task: restoration"):
        load_train_config("photo", ["data.folders=x", "loss.cycle=3"])


def test_empty_folder_is_named(kinds: tuple[Path, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(RestoreError) as error:
        train(settings((kinds[0], empty), tmp_path / "run"))
    assert str(empty) in str(error.value)


def test_other_images_are_refused_on_resume(kinds: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(settings(kinds, out, "total_steps=1"))
    more = [kinds[1] / f"more{i}.png" for i in range(5)]  # some are for training
    for file in more:
        write_png(file, np.full((40, 40, 3), 200, np.uint8))
    try:
        with pytest.raises(RestoreError, match="other training images"):
            train(settings(kinds, out, "total_steps=2"))
    finally:
        for file in more:
            file.unlink()


def test_one_direction_is_no_start_for_both(kinds: tuple[Path, Path], tmp_path: Path) -> None:
    torch.save(ResNet(blocks=1, ngf=4).state_dict(), tmp_path / "latest_net_G_A.pth")
    with pytest.raises(RestoreError, match=r"no latest_net_G_B\.pth beside it"):
        build_networks(settings(kinds, tmp_path / "run", f"init={tmp_path}"))


def test_unet_of_cyclegan_has_the_names_of_the_reference() -> None:
    names = list(Pix2Pix(num_downs=5, ngf=2, norm="instance", dropout=False).state_dict())
    assert names[:3] == ["model.model.0.weight", "model.model.0.bias", "model.model.1.model.1.weight"]
