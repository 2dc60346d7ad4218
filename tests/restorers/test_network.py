"""Trained networks behind the contract, on a real photograph."""

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from restore.checkpoints import shipped_weights
from restore.degradations import key, load_degradation
from restore.fix.steps import repair
from restore.models.pix2pix import Pix2Pix
from restore.restorers.registry import open_restorer


@pytest.fixture(scope="module")
def photograph() -> torch.Tensor:
    """A cat, 1×3×240×330."""
    return torch.from_numpy(data.chelsea()[30:270, 60:390].copy()).permute(2, 0, 1)[None].float() / 255


def noisy(clean: torch.Tensor) -> torch.Tensor:
    return clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)) * 25 / 255


def holed(clean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    damage = load_degradation("inpaint-thin")
    return damage.apply(clean, damage.sample(torch.tensor([key(0, "cat")]), (clean.shape[-2], clean.shape[-1])))


def as_array(picture: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(picture[0].permute(1, 2, 0).numpy().astype(np.float32))


def test_shipped_weights_are_small_and_say_what_they_are() -> None:
    assert {"photo", "inpaint"} <= shipped_weights().keys()
    for path in shipped_weights().values():
        assert path.stat().st_size <= 12e6


def test_photo_in_tiles_is_photo_in_one_go(photograph: torch.Tensor) -> None:
    restorer = open_restorer("photo", device="cpu", precision="fp32")
    shown = as_array(noisy(photograph).clamp(0, 1))
    whole = repair(restorer, shown, None, tile_px=0)
    tiled = repair(restorer, shown, None, tile_px=192)
    assert restorer.requirements.tileable
    assert np.abs(whole - tiled).max() <= 1 / 255
    assert np.abs(whole - shown).max() > 10 / 255, "it did something"


def test_inpaint_in_tiles_is_inpaint_in_one_go(photograph: torch.Tensor) -> None:
    restorer = open_restorer("inpaint", device="cpu", precision="fp32")
    damaged, mask = holed(photograph)
    arguments = as_array(damaged), mask[0, 0].numpy()
    whole, tiled = (repair(restorer, *arguments, tile_px=tile) for tile in (0, 192))
    assert np.abs(whole - tiled).max() <= 1 / 255
    known = arguments[1] == 0
    assert np.array_equal(tiled[known], arguments[0][known])


@pytest.mark.parametrize(("model", "damage"), [("photo", "noise"), ("inpaint", "holes")])
def test_the_repaired_picture_is_much_closer_to_the_clean_one(
    photograph: torch.Tensor, model: str, damage: str
) -> None:
    damaged, mask = (noisy(photograph), None) if damage == "noise" else holed(photograph)
    restored = open_restorer(model, device="cpu", precision="fp32")(damaged, mask)
    before, after = ((x - photograph).square().mean() for x in (damaged, restored))
    assert after < 0.2 * before


def test_a_network_without_a_mask_never_sees_what_a_mask_hides(photograph: torch.Tensor) -> None:
    restorer = open_restorer("photo", device="cpu", precision="fp32")
    mask = torch.zeros_like(photograph[:, :1])
    mask[..., 50:90, 60:120] = 1
    pink = torch.where(mask > 0, torch.tensor([1.0, 0.1, 0.9]).reshape(1, 3, 1, 1), photograph)
    pictures = [repair(restorer, as_array(x), mask[0, 0].numpy()) for x in (photograph, pink)]
    assert np.array_equal(*pictures)


def test_a_picture_that_is_all_hole_comes_out_gray_not_black() -> None:
    restorer = open_restorer("inpaint", device="cpu", precision="fp32")
    out = restorer(torch.zeros(1, 3, 40, 40), torch.ones(1, 1, 40, 40))
    assert 0.3 < float(out.mean()) < 0.7


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (37, 5)])
def test_any_size_is_repaired(size: tuple[int, int]) -> None:
    for name in ("photo", "inpaint"):
        mask = torch.zeros(1, 1, *size)
        mask[..., :1, :1] = 1
        out = open_restorer(name, device="cpu", precision="fp32")(torch.rand(1, 3, *size), mask)
        assert out.shape == (1, 3, *size)
        assert out.isfinite().all()


def test_a_published_generator_opens_and_gives_the_networks_picture(tmp_path: Path, photograph: torch.Tensor) -> None:
    torch.manual_seed(0)
    network = Pix2Pix(num_downs=5, ngf=8, dropout=False).eval()
    torch.save(network.state_dict(), tmp_path / "latest_net_G.pth")
    restorer = open_restorer(str(tmp_path / "latest_net_G.pth"), device="cpu", precision="fp32")
    picture = photograph[..., :96, :128]
    with torch.no_grad():
        expected = network(picture).clamp(0, 1)
    assert torch.allclose(restorer(picture), expected, atol=1e-6)
    assert not restorer.requirements.tileable
