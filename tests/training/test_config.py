"""The configs that come with the package: each trains as it stands."""

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data as pictures

from restore.config import config_names, configs_dir
from restore.errors import RestoreError
from restore.images import write_png
from restore.models.registry import build_discriminator, build_generator
from restore.training.config import load_train_config
from restore.training.loop import TrainCallbacks, train
from restore.training.setup import build_networks

NAMES = config_names("train")
PROMISED = {
    "pix2pix", "pix2pix-inpaint", "inpaint", "photo", "colorize", "detector", "detector-plain",
    "enlarge-x2", "enlarge-x2-clean", "enlarge-x4", "enlarge-x4-clean", "cyclegan", "cut", "dcgan",
}  # fmt: skip

# Smaller pictures and networks, so that a step takes a moment; all else is as shipped.
SMALL = [
    "total_steps=3", "log_every=1", "data.batch=1", "data.patch=32", "data.validation_count=1",
    "data.validation_size=64", "device=cpu", "precision=fp32", "lpips_net=none",
]  # fmt: skip
SMALL_PIX2PIX = ["data.patch=64", "model.args.num_downs=6", "model.args.ngf=8"]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    for name in ("astronaut", "coffee", "chelsea"):
        write_png(folder / f"{name}.png", np.ascontiguousarray(getattr(pictures, name)()[60:160, 100:260]))
    return folder


def test_every_promised_config_is_there() -> None:
    assert set(NAMES) >= PROMISED


@pytest.mark.parametrize("name", NAMES)
def test_a_config_says_what_it_is_for(name: str) -> None:
    assert (configs_dir() / "train" / f"{name}.yaml").read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_config_trains(clean: Path, tmp_path: Path, name: str) -> None:
    source = {
        "pix2pix": [f"data.side_by_side={clean}", "data.resize=72", *SMALL_PIX2PIX],
        "pix2pix-inpaint": [f"data.folders=[{clean}]", *SMALL_PIX2PIX],
        "cyclegan": [
            f"data.a=[{clean}]", f"data.b=[{clean}]", "data.resize=40",
            "model.args.ngf=4", "model.args.blocks=6", "discriminator.args.ndf=4",
        ],
        "cut": [
            f"data.a=[{clean}]", f"data.b=[{clean}]", "data.resize=40",
            "model.args.ngf=4", "model.args.blocks=5", "discriminator.args.ndf=4",
        ],
        "dcgan": [  # the diversity of one image is no number
            f"data.folders=[{clean}]", "data.resize=32", "model.args.ngf=8", "discriminator.args.ndf=8",
            "data.validation_count=2",
        ],
    }.get(name, [f"data.folders=[{clean}]"])  # fmt: skip
    joins_later = name not in ("cyclegan", "cut", "dcgan") and not name.startswith("detector")
    joins = ["loss.adversarial_start=1"] if joins_later else []
    settings = load_train_config(name, [*SMALL, *source, *joins, f"out={tmp_path / name}"])
    seen: list[dict[str, float]] = []
    assert train(settings, TrainCallbacks(logged=lambda step, total, values: seen.append(values))).finished
    assert (tmp_path / name / "best.safetensors").exists()
    assert all(np.isfinite(value) for values in seen for value in values.values())
    adversary = settings.loss.adversarial != "none"
    assert ["d" in values for values in seen] == [
        adversary and not joins_later,
        adversary,
        adversary,
    ], "the adversary joins when it should"


def test_folders_in_an_override_replace_the_pairs_of_the_config() -> None:
    config = load_train_config("pix2pix", ["data.folders=[mine]", "damage=inpaint-medium"])
    assert [str(folder.path) for folder in config.data.folders] == ["mine"]
    assert config.data.side_by_side is None
    with pytest.raises(RestoreError, match="damage must be set"):
        load_train_config("pix2pix", ["data.folders=[mine]"])


@pytest.mark.parametrize("name", ["pix2pix", "photo"])
def test_pairs_in_an_override_replace_the_data_and_the_damage_of_the_config(name: str) -> None:
    config = load_train_config(name, ["data.input=damaged", "data.target=clean"])
    assert (config.data.folders, config.data.side_by_side, config.damage) == ((), None, None)
    assert load_train_config(name, ["data.side_by_side=pairs"]).data.side_by_side == Path("pairs")


def test_two_sources_in_overrides_are_refused() -> None:
    with pytest.raises(RestoreError, match="exactly one of folders, input"):
        load_train_config("photo", ["data.folders=[a]", "data.side_by_side=b"])


def test_pix2pix_is_that_of_the_paper() -> None:
    config = load_train_config("pix2pix", [])
    pictures_in_facades, epochs = 400, 100 + 100
    assert config.total_steps * config.data.batch == epochs * pictures_in_facades
    assert (config.data.batch, config.data.resize, config.data.patch, config.data.flip) == (1, 286, 256, True)
    assert (config.loss.adversarial, config.loss.pixel, config.loss.pixel_weight) == ("vanilla", "l1", 200)
    assert config.loss.adversarial_weight == 1
    assert config.loss.adversarial_start == 0
    assert (config.optimizer.lr, config.optimizer.lr_discriminator) == (2e-4, None)
    assert (config.optimizer.betas, config.optimizer.betas_discriminator) == ((0.5, 0.999), None)
    assert (config.optimizer.weight_decay, config.optimizer.warmup_steps, config.ema) == (0, 0, 0)
    assert (config.optimizer.clip_norm, config.optimizer.schedule) == (None, "linear")
    assert sum(p.numel() for p in build_generator("pix2pix", config.model.args).parameters()) == 54_413_955
    discriminator = build_discriminator("patchgan", config.discriminator.args)
    assert sum(p.numel() for p in discriminator.parameters()) == 2_768_705


def test_pix2pix_starts_from_narrow_normal_weights() -> None:
    g, d = build_networks(load_train_config("pix2pix", ["model.args.ngf=16"]))
    assert d is not None
    for network in (g, d):
        weights = torch.cat([p.flatten() for n, p in network.named_parameters() if p.ndim == 4])
        assert weights.std().item() == pytest.approx(0.02, rel=0.02)
        assert weights.mean().item() == pytest.approx(0, abs=2e-4)
