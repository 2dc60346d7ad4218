"""`--pix2pix-batch-norm` and `--pix2pix-dropout`: a pix2pix network as the original code tests it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from restore.errors import RestoreError
from restore.fix.options import FixOptions
from restore.fix.run import fix_folder
from restore.fix.run_models import open_models
from restore.images import read_rgb8, write_png
from restore.models.patchgan import init_weights
from restore.models.pix2pix import Pix2Pix


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    network = Pix2Pix(num_downs=5, ngf=4)
    init_weights(network, torch.Generator().manual_seed(0))
    torch.save(network.state_dict(), tmp_path / "a_net_G.pth")
    return tmp_path / "a_net_G.pth"


def test_instance_normalizes_by_the_image(weights: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    (tmp_path / "in").mkdir()
    write_png(tmp_path / "in" / "x.png", image)
    expected = Pix2Pix(num_downs=5, ngf=4, dropout=False)
    expected.load_state_dict(torch.load(weights, weights_only=True))
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    for mode in ("stored", "instance"):
        expected.train(mode == "instance")
        options = FixOptions(pix2pix_batch_norm=mode, device="cpu", precision="fp32")
        fix_folder(tmp_path / "in", tmp_path / mode, weights, options=options)
        with torch.no_grad():
            theirs = expected(pixels)[0].permute(1, 2, 0).numpy() * 255
        assert np.abs(read_rgb8(tmp_path / mode / "x.png") - theirs).max() < 1


@pytest.mark.parametrize("model", ["photo", "telea", "instance"])
def test_other_networks_are_refused(model: str, tmp_path: Path) -> None:
    if model == "instance":
        model = str(tmp_path / "b_net_G.pth")
        torch.save(Pix2Pix(num_downs=5, ngf=4, norm="instance").state_dict(), model)
    with pytest.raises(RestoreError, match="not a pix2pix network with batch norm"):
        open_models(model, FixOptions(pix2pix_batch_norm="instance", device="cpu"))


CHANGES = ({"pix2pix_batch_norm": "instance"}, {"pix2pix_dropout": 0})


@pytest.mark.parametrize("change", CHANGES)
def test_an_open_network_is_not_changed(weights: Path, change: dict[str, object]) -> None:
    (models,) = open_models(weights, FixOptions(device="cpu"))
    with pytest.raises(RestoreError, match="needs a model by name or path"):
        open_models(models, FixOptions(**change, device="cpu"))


def test_dropout_follows_from_the_seed_alone(tmp_path: Path) -> None:
    network = Pix2Pix(num_downs=7, ngf=4)
    init_weights(network, torch.Generator().manual_seed(0))
    torch.save(network.state_dict(), tmp_path / "a_net_G.pth")
    (tmp_path / "in").mkdir()
    for name, seed in (("x", 0), ("y", 1)):
        image = np.random.default_rng(seed).integers(0, 256, (128, 128, 3), np.uint8)
        write_png(tmp_path / "in" / f"{name}.png", image)

    def fixed(out: str, seed: int | None, what: str = "in") -> np.ndarray:
        options = FixOptions(pix2pix_dropout=seed, pix2pix_batch_norm="instance", device="cpu", precision="fp32")
        fix_folder(tmp_path / what, tmp_path / out, tmp_path / "a_net_G.pth", options=options)
        return read_rgb8(tmp_path / out / "y.png")

    without, one, other = fixed("none", None), fixed("one", 1), fixed("two", 2)
    assert not np.array_equal(without, one)
    assert not np.array_equal(one, other)
    (tmp_path / "in" / "x.png").unlink()
    assert np.array_equal(fixed("alone", 1), one), "neither the other image nor the moment counts"


def test_other_networks_have_no_dropout() -> None:
    with pytest.raises(RestoreError, match="is not a pix2pix network"):
        open_models("photo", FixOptions(pix2pix_dropout=0, device="cpu"))
