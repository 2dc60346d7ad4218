"""Images from noise: networks, runs, samples, scores."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import truncnorm
from typer.testing import CliRunner

from restore.checkpoints import read_description
from restore.cli.main import app
from restore.errors import RestoreError
from restore.export import export
from restore.hashed_random import keys, normal
from restore.images import read_image, write_png
from restore.metrics.sample_scores import covered, inception_score, kernel_distance, sample_scores
from restore.models.dcgan import DCDiscriminator, DCGenerator, DenseDiscriminator, DenseGenerator
from restore.restorers.sampler import SampleOptions, latents, open_sampler
from restore.training import dry_run
from restore.training.collapse_monitor import CollapseMonitor
from restore.training.config import CollapseConfig, TrainConfig, load_train_config
from restore.training.loop import train
from restore.training.setup import build_networks, open_data, with_condition_channels
from restore.training.step import deviations, labels_of
from tests.training.killed import assert_same_end, kill_after_a_save

SMALL = [
    "data.resize=28", "data.patch=28", "data.batch=4", "data.validation_percent=40", "model.args={ngf: 2, latents: 4}",
    "discriminator.args={ndf: 2}", "total_steps=3", "validate_every=3", "save_every=1", "log_every=1", "device=cpu",
    "threads=1", "ema=0.9",
]  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and light images, in a folder each."""
    folder = tmp_path_factory.mktemp("kinds")
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (folder / name).mkdir()
        for i in range(8):
            pixels = level + rng.normal(0, 15, (28, 28, 3))
            write_png(folder / name / f"{i}.png", pixels.clip(0, 255).astype(np.uint8))
    return folder


def settings(images: Path, out: Path, *overrides: str) -> TrainConfig:
    return load_train_config("dcgan", [*SMALL, f"data.folders=[{images}]", f"out={out}", *overrides])


# The networks


@pytest.mark.parametrize("side", [28, 32, 64, 128])
@pytest.mark.parametrize(("channels", "classes"), [(3, 0), (1, 3)])
def test_networks_of_every_side_train(side: int, channels: int, classes: int) -> None:
    g = DCGenerator(side, channels, latents=4, classes=classes, ngf=2)
    d = DCDiscriminator(channels, side, classes, ndf=2)
    labels = torch.tensor([0, 1]) if classes else None
    drawn = g(torch.randn(2, 4), labels)
    assert drawn.shape == (2, channels, side, side)
    assert (drawn.clamp(0, 1) == drawn).all()
    logits = d(drawn * 2 - 1, labels)
    assert logits.shape == (2, 1)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for n in (g, d) for p in n.parameters())


def test_dcgan_has_the_layers_of_the_paper() -> None:
    """Figure 1 at 64 px: 4×4×1024, 8×8×512, 16×16×256, 32×32×128, 64×64×3."""
    with torch.device("meta"):
        g, d = DCGenerator(64, ngf=128), DCDiscriminator(3, 64)
    made = [tuple(layer.weight.shape[:2]) for layer in g.model if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert made == [(100, 1024), (1024, 512), (512, 256), (256, 128), (128, 3)]
    seen = [tuple(layer.weight.shape[:2]) for layer in d.features if isinstance(layer, torch.nn.Conv2d)]
    assert seen == [(64, 3), (128, 64), (256, 128), (512, 256)]


def test_dense_networks_train() -> None:
    g, d = DenseGenerator(8, 1, 4, 2, width=4), DenseDiscriminator(1, 8, 2, width=4, spectral_norm=True)
    labels = torch.tensor([0, 1, 1])
    drawn = g(torch.randn(3, 4), labels)
    assert drawn.shape == (3, 1, 8, 8)
    assert d(drawn, labels).shape == (3, 1)


def test_projection_is_that_of_the_paper() -> None:
    d = DenseDiscriminator(1, 4, classes=3, width=4).eval()
    x, labels = torch.rand(2, 1, 4, 4), torch.tensor([2, 0])
    features = d.features(x)
    embedded = d.of_class.weight.T[labels]
    expected = d.last(features) + (embedded * features).sum(1, keepdim=True)
    assert torch.allclose(d(x, labels), expected)


# The noise


def test_noise_is_normal_and_truncated() -> None:
    some = keys(3, last=range(400))
    drawn = normal(some, 1, 50)
    assert drawn.mean().abs() < 0.03
    assert (drawn.std() - 1).abs() < 0.02
    inside = normal(some, 1, 50, truncation=0.8)
    assert inside.abs().max() <= 0.8
    assert inside.std().item() == pytest.approx(truncnorm(-0.8, 0.8).std(), abs=0.01)
    assert torch.equal(inside.sign(), drawn.sign())


def test_noise_of_an_image_does_not_depend_on_the_count() -> None:
    assert torch.equal(latents(SampleOptions(3, seed=5), 4), latents(SampleOptions(9, seed=5), 4)[:3])
    assert not torch.equal(latents(SampleOptions(3, seed=6), 4), latents(SampleOptions(3, seed=5), 4))


def test_interpolation_goes_along_the_sphere() -> None:
    ends = latents(SampleOptions(4, seed=1), 64)
    row = latents(SampleOptions(10, seed=1, interpolate=5), 64)
    assert torch.allclose(row[[0, 4, 5, 9]], ends, atol=1e-4)
    assert row[2].norm() > 0.95 * min(ends[0].norm(), ends[1].norm())
    steps = (row[1:5] - row[:4]).norm(dim=1)
    assert steps.max() < 1.6 * steps.min()


# Runs


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss.adversarial=hinge", "discriminator.args={ndf: 2, norm: none, spectral_norm: true}"],
        ["loss.adversarial=lsgan", "loss.r1=1", "loss.r1_interval=1", "optimizer.lr_discriminator=4e-4"],
        ["loss.adversarial=wgan-gp", "discriminator.args={ndf: 2, norm: none}", "discriminator.steps=2"],
        ["data.classes=folders", "data.channels=gray", "discriminator.augment=[color,translation,cutout]"],
        [
            "model.builder=dense-gan", "model.args={width: 4}", "discriminator.builder=dense-gan",
            "discriminator.args={width: 4}", "data.channels=gray", "grad_accumulation=2", "loss.adversarial=wgan-gp",
        ],
    ],
    ids=["hinge", "lsgan", "wgan-gp", "classes", "dense"],
)  # fmt: skip
def test_adversaries_and_kinds_of_images_run(images: Path, tmp_path: Path, overrides: list[str]) -> None:
    assert train(settings(images, tmp_path / "run", *overrides)).finished
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert {"g_adversarial", "d", "d_norm", "g_norm"} <= lines[-2].keys()
    assert "validation_diversity" in lines[-1]


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "drawn"
    assert train(settings(images, out, "data.classes=folders")).finished
    return out


def test_run_describes_what_it_draws(run: Path) -> None:
    description = read_description(run / "best.safetensors")
    assert description.draws == ["dark", "light"]
    assert description.args["side"] == 28
    assert len(list((run / "samples").glob("*.png"))) == 1


def test_resume_is_exact_after_a_kill(images: Path, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    kill_after_a_save("dcgan", [*SMALL, f"data.folders=[{images}]", "data.classes=folders"], out)
    assert train(settings(images, out, "data.classes=folders")).finished
    assert_same_end(run, out)


@pytest.mark.parametrize("channels", ["gray", "color"])
def test_labels_are_those_of_the_folders(images: Path, tmp_path: Path, channels: str) -> None:
    config = with_condition_channels(
        settings(images, tmp_path / "run", "data.classes=folders", f"data.channels={channels}", "data.scale=[0.5, 1]")
    )
    generator, _ = build_networks(config)
    source, validation = open_data(config, generator, torch.device("cpu"), print)
    for batch in (source.batch(0, 3, 16), *validation):
        labels = labels_of(batch)
        assert labels is not None
        assert torch.equal(labels == 1, batch.clean.mean((1, 2, 3)) > 0.5)


def test_networks_depend_on_labels(images: Path, tmp_path: Path) -> None:
    config = with_condition_channels(settings(images, tmp_path / "run", "data.classes=folders"))
    generator, discriminator = (network.eval() for network in build_networks(config))
    noise, zero, one = torch.randn(1, 4), torch.tensor([0]), torch.tensor([1])
    assert not torch.equal(generator(noise, zero), generator(noise, one))
    image = torch.rand(1, 3, 28, 28)
    assert not torch.equal(discriminator(image, zero), discriminator(image, one))


def test_collapse_is_told(tmp_path: Path) -> None:
    monitor = CollapseMonitor(CollapseConfig(patience=1), "vanilla", tmp_path)
    for _ in range(8):
        monitor.add_thumbnails(torch.full((1, 1, 8, 8), 0.5), torch.rand(1, 1, 8, 8))
    values = {name: float(value) for name, value in monitor.diversity().items()}
    with pytest.raises(RestoreError, match="the generator collapsed"):
        monitor.check(600, {**values, "d": 0.0, "d_sensitivity": 1.0, "d_real": 0.0, "d_fake": 0.0}, 0)


@pytest.mark.parametrize(
    "labels", [None, [0, 1, 0, 1], [0, 1, 1, 1], [0, 1, 2, 3]], ids=["none", "of two", "first alone", "all alone"]
)
def test_one_image_of_each_class_is_no_diversity(tmp_path: Path, labels: list[int] | None) -> None:
    """Nor are images that change from step to step, but are the same for all noise."""
    kinds = torch.zeros(4) if labels is None or len({*labels}) == 4 else torch.tensor(labels)
    monitor = CollapseMonitor(CollapseConfig(), "vanilla", tmp_path)
    for step in range(8):
        drawn = (kinds * 0.5 + step / 20).reshape(4, 1, 1, 1).expand(-1, 1, 16, 16)
        terms = deviations(drawn, torch.rand(4, 1, 16, 16), None if labels is None else torch.tensor(labels))
        assert terms["output_thumbnail"].shape == (1, 1, 8, 8)
        monitor.add_thumbnails(terms["output_thumbnail"], terms["clean_thumbnail"])
    assert float(monitor.diversity()["diversity"]) < 1e-3


def test_samples_that_differ_as_the_images_do_have_a_diversity_of_1(tmp_path: Path) -> None:
    made = torch.Generator().manual_seed(0)
    monitor = CollapseMonitor(CollapseConfig(), "vanilla", tmp_path)
    for _ in range(8):
        drawn, clean = (torch.rand(6, 1, 16, 16, generator=made) for _ in range(2))
        terms = deviations(drawn, clean, torch.tensor([0, 1, 0, 1, 0, 1]))
        monitor.add_thumbnails(terms["output_thumbnail"], terms["clean_thumbnail"])
    assert float(monitor.diversity()["diversity"]) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("classes", ["[]", "folders"])
def test_dry_run_measures_it(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: str) -> None:
    monkeypatch.setattr(dry_run, "MEASURED_SECONDS", 0)
    config = settings(images, tmp_path / "run", f"data.classes={classes}")
    text = dry_run.preview(config).text()
    assert "G: dcgan" in text
    assert "D: dcgan" in text
    with pytest.raises(RestoreError, match="G alone has no loss"):
        dry_run.preview(config, lr_finder=True)


def test_export_refuses_a_graph(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="draws images from noise"):
        export(run, tmp_path / "x.pt", "torchscript")


# `restore sample`


def sample(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["sample", *map(str, arguments)])
    if isinstance(result.exception, RestoreError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_sample_writes_files_and_a_grid(run: Path, tmp_path: Path) -> None:
    sample(run, tmp_path / "out", "--count", 5, "--seed", 1, "--grid", tmp_path / "grid.png", "--device", "cpu")
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == [f"{i:04}.png" for i in range(5)]
    grid = read_image(tmp_path / "grid.png").pixels
    assert grid.shape == (60, 90, 3)
    assert np.array_equal(grid[:28, 30:58], read_image(files[1]).pixels)
    assert np.array_equal(grid[30:58, 30:58], read_image(files[4]).pixels)
    again = open_sampler(str(run), "cpu").draw(SampleOptions(2, seed=1))
    assert np.array_equal(again[1], read_image(files[1]).pixels)
    with pytest.raises(RestoreError, match=r"exist"):
        sample(run, tmp_path / "out", "--count", 1)


def test_samples_of_a_row_are_of_one_class(run: Path) -> None:
    sampler = open_sampler(str(run), "cpu")
    assert sampler._labels(SampleOptions(6, interpolate=3)).tolist() == [0, 0, 0, 1, 1, 1]
    assert sampler._labels(SampleOptions(3)).tolist() == [0, 1, 0]
    assert sampler._labels(SampleOptions(2, label="light")).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing would be written"),
        (["--grid", "a.jpg"], r"must end with \.png"),
        (["--grid", "a.png", "--truncation", "0"], "above 0"),
        (["--grid", "a.png", "--interpolate", "1"], "at least 2"),
        (["--grid", "a.png", "--label", "drak"], "no class 'drak'"),
    ],
)
def test_sample_refuses(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RestoreError, match=message):
        sample(run, *arguments)


def test_sample_refuses_a_restorer() -> None:
    with pytest.raises(RestoreError, match="draws no images from noise"):
        open_sampler("photo", "cpu")


# Errors


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.builder=unet", "needs model.builder: dcgan, dense-gan, not unet"),
        ("discriminator.builder=patchgan", "needs discriminator.builder: dcgan"),
        ("loss.adversarial=none", "learns from D alone"),
        ("loss.pixel_weight=2", "loss.pixel_weight has no effect"),
        ("damage=print", "clean images alone"),
        ("best_by=fid", "best_by cannot be fid"),
        ("model.args.side=32", "args.side cannot be set"),
    ],
)
def test_unfit_config_is_refused(images: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(RestoreError, match=message):
        settings(images, tmp_path / "run", override)


def test_other_tasks_refuse_its_networks(images: Path) -> None:
    with pytest.raises(RestoreError, match=r"task: restoration needs model\.builder"):
        load_train_config("photo", [f"data.folders={images}", "model.builder=dcgan", "model.args={}"])


def test_side_that_does_not_exist_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="side is 28, 32, 64, 128, not 48"):
        build_networks(settings(images, tmp_path / "run", "data.patch=48", "data.resize=48"))


def test_class_without_images_is_named(images: Path, tmp_path: Path) -> None:
    config = settings(images, tmp_path / "run", "data.classes=[dark, light, gray]")
    with pytest.raises(RestoreError, match="no image of the class gray"):
        train(config)


def test_image_outside_of_classes_is_named(images: Path, tmp_path: Path) -> None:
    config = settings(images / "dark", tmp_path / "run", "data.classes=folders")
    with pytest.raises(RestoreError, match="lies in no folder of a class"):
        train(config)


# Scores


class ReducedInception:
    """In place of Inception v3, whose weights are not here: mean colors."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.double().mean((2, 3))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        return features * 20


def test_scores_tell_good_samples_from_bad_ones() -> None:
    pytest.importorskip("torchmetrics")
    pytest.importorskip("torch_fidelity")
    made = torch.Generator().manual_seed(0)
    real, good = (torch.rand(40, 3, 4, 4, generator=made) for _ in range(2))
    bad = good * 0.2
    right, wrong = (sample_scores(x, real, ReducedInception()) for x in (good, bad))
    assert right["fid"] < wrong["fid"]
    assert right["kid"] < wrong["kid"]
    assert right["precision"] > 0.7
    assert right["recall"] > 0.7
    assert wrong["precision"] == wrong["recall"] == 0


def test_kernel_distance_is_that_of_the_paper() -> None:
    """Against sums over pairs, one by one."""
    made = torch.Generator().manual_seed(1)
    a, b = torch.rand(4, 3, generator=made).double(), torch.rand(5, 3, generator=made).double()

    def k(x: torch.Tensor, y: torch.Tensor) -> float:
        return (float(x @ y) / 3 + 1) ** 3

    same_a = sum(k(a[i], a[j]) for i in range(4) for j in range(4) if i != j) / 12
    same_b = sum(k(b[i], b[j]) for i in range(5) for j in range(5) if i != j) / 20
    across = sum(k(x, y) for x in a for y in b) / 20
    assert kernel_distance(a, b) == pytest.approx(same_a + same_b - 2 * across)


def test_inception_score_of_known_cases() -> None:
    sure = torch.eye(5).double() * 1000
    assert inception_score(sure) == pytest.approx(5)
    assert inception_score(torch.zeros(5, 4).double()) == pytest.approx(1)


def test_coverage_of_known_points() -> None:
    line = torch.arange(5.0).double()[:, None]
    assert covered(line, torch.tensor([[0.5], [30.0]]).double()) == 0.5
    assert math.isnan(covered(line[:3], line))
