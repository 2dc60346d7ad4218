"""CUT: loss, step, runs, weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from restore.checkpoints import load_generator, read_state
from restore.data.loader import Batch
from restore.errors import RestoreError
from restore.images import read_rgb8, write_png
from restore.losses.contrastive import PATCHES, TEMPERATURE
from restore.losses.contrastive import patch_nce as own_patch_nce
from restore.models.contrastive import ContrastiveGenerator
from restore.models.resnet import ResNet
from restore.restorers.registry import open_restorer
from restore.training.compute import ComputeSettings
from restore.training.config import TrainConfig, load_train_config
from restore.training.contrastive import contrastive_loss, drawn_places
from restore.training.loop import TrainCallbacks, train
from restore.training.setup import build_networks, make_step_context, make_trainable, set_learning_rates
from restore.training.step import train_step
from tests.training.cut_reference import Reference, patch_nce

SIDE = 16  # 256 places: as many as are compared
SMALL = [
    "data.resize=null", f"data.patch={SIDE}", "data.validation_size=32", "data.near_duplicates=0", "data.batch=2",
    "model.args={blocks: 5, ngf: 4}", "discriminator.args={ndf: 4, n_layers: 1, norm: instance}",
    "ema=0.9", "total_steps=4", "validate_every=4", "save_every=2", "log_every=1", "device=cpu", "threads=1",
    "data.validation_percent=50", "data.cache=memory",
]  # fmt: skip
FAST = ["loss.contrastive=10", "loss.contrastive_identity=0", "loss.contrastive_flip=true"]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Dark blue images, and light red ones; 4 of each."""
    folder = tmp_path_factory.mktemp("kinds")
    rng = np.random.default_rng(0)
    for name, color in (("a", (30, 40, 90)), ("b", (220, 160, 150))):
        (folder / name).mkdir()
        for i in range(4):
            grain = rng.normal(0, 12, (40, 48, 3))
            write_png(folder / name / f"{i}.png", (np.array(color) + grain).clip(0, 255).astype(np.uint8))
    return folder / "a", folder / "b"


def settings(kinds: tuple[Path, Path], out: Path, *overrides: str) -> TrainConfig:
    return load_train_config("cut", [*SMALL, f"data.a={kinds[0]}", f"data.b={kinds[1]}", f"out={out}", *overrides])


def batch_of(count: int, first_key: int = 0) -> Batch:
    a, b = torch.rand(2, count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5 + first_key))
    return Batch(a, torch.zeros(count, 1, SIDE, SIDE), b, torch.arange(first_key, first_key + count))


def trainable(config: TrainConfig, reference: Reference):
    fabric, compute = Fabric(accelerator="cpu", devices=1), ComputeSettings("fp32")
    generator, discriminator = build_networks(config)
    assert isinstance(generator, ContrastiveGenerator)
    generator.a.load_state_dict(reference.g.state_dict())
    generator.mlps.load_state_dict(reference.f.state_dict())
    discriminator.load_state_dict(reference.d.state_dict())
    g = make_trainable(generator, fabric, config, compute, is_discriminator=False)
    d = make_trainable(discriminator, fabric, config, compute, is_discriminator=True)
    return g, d, make_step_context(config, fabric, "fp32", generator)


# The loss


def test_constants_are_those_of_the_paper() -> None:
    config = load_train_config("cut", [])
    assert (TEMPERATURE, PATCHES) == (0.07, 256)
    assert (config.loss.contrastive, config.loss.contrastive_identity, config.loss.contrastive_flip) == (1, 1, False)
    assert config.loss.adversarial == "lsgan"
    assert config.loss.adversarial_weight == 1
    with torch.device("meta"):
        sizes = [x.shape[1:] for x in ResNet().features(torch.zeros(1, 3, 256, 256))]
    assert sizes == [(3, 256, 256), (128, 128, 128), (256, 64, 64), (256, 64, 64), (256, 64, 64)]
    assert load_train_config("cut", FAST).loss.contrastive == 10


def test_loss_is_that_of_the_published_pseudo_code() -> None:
    queries, keys = torch.nn.functional.normalize(torch.randn(2, 2, 9, 5), dim=3).requires_grad_().unbind()
    assert own_patch_nce(queries, keys).item() == pytest.approx(patch_nce(queries, keys).item(), abs=1e-6)
    (gradient,) = torch.autograd.grad(own_patch_nce(queries, keys), keys, allow_unused=True)
    assert gradient is None


def test_features_are_those_that_make_the_output() -> None:
    network, image = ResNet(blocks=6, ngf=4).eval(), torch.rand(1, 3, 32, 24)
    x = network.features(image)[-1]
    for layer in network.model[15:]:
        x = layer(x)
    assert torch.equal(x * 0.5 + 0.5, network(image))


def test_each_image_has_its_own_places_in_each_layer() -> None:
    keys, features = torch.tensor([3, 4]), torch.zeros(2, 1, 20, 30)
    places = drawn_places(keys, 0, features)
    assert places.shape == (2, PATCHES)
    assert all(len(row.unique()) == PATCHES and row.max() < 600 for row in places)
    assert not torch.equal(places[0], places[1])
    assert not torch.equal(places, drawn_places(keys, 1, features))
    assert torch.equal(places[1:], drawn_places(keys[1:], 0, features[1:]))
    assert drawn_places(keys, 0, features[:, :, :4, :4]).shape == (2, 16)


def test_steps_equal_those_of_the_reference(kinds: tuple[Path, Path], tmp_path: Path) -> None:
    torch.manual_seed(3)
    reference = Reference(ngf=4, ndf=4, layers=1)
    config = settings(kinds, tmp_path / "run", "total_steps=100")
    g, d, context = trainable(config, reference)
    set_learning_rates(g, d, config.optimizer, 0, 100, from_init=False)
    for batch in (batch_of(2), batch_of(2, 2)):
        expected = reference.step(batch.damaged * 2 - 1, batch.clean * 2 - 1)
        terms = train_step(g, d, [batch], context)
        for name, value in expected.items():
            assert terms[name].item() == pytest.approx(value, abs=1e-5), name
    of_g = {f"a.{k}": v for k, v in reference.g.state_dict().items()}
    of_g |= {f"mlps.{k}": v for k, v in reference.f.state_dict().items()}
    for network, state in ((g, of_g), (d, reference.d.state_dict())):
        own = network.network.state_dict()
        for name, value in state.items():
            # Adam's first steps are the sign of the gradient: a gradient of nearly zero may have the other one, as
            # those of the biases before an instance norm, which have no effect.
            if name.startswith("mlps") or not name.endswith("bias"):
                assert ((own[name] - value).abs() < 1e-5).float().mean() > 0.999, name


def test_flip_equivariance_is_that_of_fastcut(kinds: tuple[Path, Path], tmp_path: Path) -> None:
    """The published code mirrors the input and, before they are compared, the features of the output."""
    reference = Reference(ngf=4, ndf=4, layers=1)
    config = settings(kinds, tmp_path / "run", *FAST)
    g, _, _ = trainable(config, reference)
    ways = set()
    for number in range(6):
        batch = batch_of(1, number)
        with torch.no_grad():
            output = g.network(batch.damaged)
            loss, terms = contrastive_loss(g.network, output, None, batch, config.loss, "fp32")
            a, to_b = batch.damaged * 2 - 1, output * 2 - 1
            expected = [reference.nce(torch.flip(a, [3]) if flip else a, to_b, flip).item() for flip in (False, True)]
        assert abs(expected[0] - expected[1]) > 1e-4
        way = [abs(terms["contrastive"].item() - value) < 1e-5 for value in expected]
        assert sum(way) == 1
        assert loss.item() == pytest.approx(10 * terms["contrastive"].item())
        assert "contrastive_identity" not in terms
        ways.add(way.index(True))
    assert ways == {0, 1}


# Runs


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss.adversarial=hinge", "loss.r1=1", "loss.r1_interval=1", *FAST],
        ["loss.adversarial=wgan-gp", "discriminator.args={ndf: 4, n_layers: 1, norm: none}", "discriminator.steps=2"],
        [
            "data.channels=gray",
            "grad_accumulation=2",
            "loss.adversarial_start=1",
            "model={builder: unet, args: {widths: [4, 8], blocks: [1, 1], mask: false}}",
        ],
    ],
    ids=["fast", "wgan-gp", "gray-unet"],
)
def test_adversaries_and_kinds_of_images_run(kinds: tuple[Path, Path], tmp_path: Path, overrides: list[str]) -> None:
    assert train(settings(kinds, tmp_path / "run", "total_steps=2", *overrides)).finished
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert {"contrastive", "d", "d_norm", "g_norm"} <= lines[-2].keys()


@pytest.fixture(scope="module")
def run(kinds: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "cut"
    assert train(settings(kinds, out)).finished
    return out


def test_run_writes_a_generator_and_a_grid(run: Path) -> None:
    network, description = load_generator(run / "best.safetensors")
    assert description.builder == "resnet"
    assert isinstance(network, ResNet)
    assert not (run / "best_b_to_a.safetensors").exists()
    image = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        expected = network(image)
    restorer = open_restorer(str(run), device="cpu", precision="fp32", engine="torch")
    assert torch.allclose(restorer(image, None), expected, atol=1e-5)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last.keys() >= {"validation_identity"}
    assert read_rgb8(sorted((run / "samples").glob("*.png"))[-1]).shape[1] == 4 * (32 + 4), "A, to B, B, to B"


def test_resume_after_a_crash_is_exact(kinds: tuple[Path, Path], run: Path, tmp_path: Path) -> None:
    config = settings(kinds, tmp_path / "crashed")

    def crash(step: int, total: int, values: dict[str, float]) -> None:
        if step == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(config, TrainCallbacks(logged=crash))
    assert read_state(tmp_path / "crashed" / "last" / "state.safetensors")[1]["step"] == 2
    assert train(config).finished
    expected, found = (read_state(f / "last" / "state.safetensors")[0] for f in (run, tmp_path / "crashed"))
    assert found.keys() == expected.keys()
    assert {"ema.a.model.1.weight", "g.mlps.0.0.weight"} <= found.keys()
    assert not torch.equal(found["ema.a.model.1.weight"], found["g.a.model.1.weight"])
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_init_takes_a_run_or_a_generator_alone(kinds: tuple[Path, Path], run: Path, tmp_path: Path) -> None:
    state, _ = read_state(run / "last" / "state.safetensors")
    both, _ = build_networks(settings(kinds, tmp_path / "next", f"init={run / 'last'}"))
    assert torch.equal(both.state_dict()["mlps.0.0.weight"], state["ema.mlps.0.0.weight"])
    torch.save(ResNet(blocks=5, ngf=4).state_dict(), tmp_path / "latest_net_G_A.pth")
    alone, _ = build_networks(settings(kinds, tmp_path / "next", f"init={tmp_path / 'latest_net_G_A.pth'}"))
    saved = torch.load(tmp_path / "latest_net_G_A.pth", weights_only=True)
    assert torch.equal(alone.state_dict()["a.model.1.weight"], saved["model.1.weight"])


# Errors


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task=restoration", "task: unpaired or one-sided need each other"),
        ("loss.adversarial=none", "set loss.adversarial"),
        ("loss.cycle=3", "loss.cycle has no effect with task: one-sided"),
        ("discriminator.pool=3", "discriminator.pool has no effect with task: one-sided"),
        ("model={builder: pix2pix, args: {}}", "needs model.builder: unet, resnet, not pix2pix"),
        ("devices=2", "one process"),
        ("best_by=psnr", "best_by cannot be psnr"),
    ],
)
def test_unfit_config_is_refused(kinds: tuple[Path, Path], tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(RestoreError, match=message):
        settings(kinds, tmp_path / "run", override)


def test_network_that_sees_a_mask_is_refused(kinds: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="this network sees a mask"):
        train(settings(kinds, tmp_path / "run", "model={builder: unet, args: {widths: [4, 8], blocks: [1, 1]}}"))


def test_keys_of_contrast_are_refused_elsewhere() -> None:
    with pytest.raises(RestoreError, match=r"loss\.contrastive has no effect with task: unpaired"):
        load_train_config("cyclegan", ["loss.contrastive=3"])
