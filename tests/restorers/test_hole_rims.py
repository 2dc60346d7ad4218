"""The rim of a hole: found where damage has changed it, and not continued into the filling."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from restore.fix.masks import prepare_mask
from restore.fix.steps import repair
from restore.restorers import hybrid_inpainting
from restore.restorers.hole_rims import REACH_PX, dirty_rims
from restore.restorers.hybrid_inpainting import HybridInpainter
from restore.restorers.registry import open_restorer

HEIGHT, WIDTH = 300, 400


@pytest.fixture(scope="module")
def inpaint() -> HybridInpainter:
    restorer = open_restorer("inpaint", device="cpu", precision="fp32")
    assert isinstance(restorer, HybridInpainter)
    return restorer


def backdrop() -> np.ndarray:
    """A studio's backdrop, lighter to the right, with grain."""
    slope = np.linspace(0.35, 0.6, WIDTH, dtype=np.float32)[None, :, None]
    grain = np.random.default_rng(1).normal(0, 0.012, (HEIGHT, WIDTH, 1)).astype(np.float32)
    return np.repeat(slope + grain, 3, axis=2)


def distance_to_chip() -> np.ndarray:
    """Pixels from the edge of a chip of 60 pixels with a tail, negative inside."""
    hole = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(hole, (250, 170), 30, 1, -1)
    cv2.line(hole, (250, 170), (120, 60), 1, 9)
    outside, inside = (cv2.distanceTransform(part, cv2.DIST_L2, 5) for part in (1 - hole, hole))
    return np.where(hole > 0, 0.5 - inside, outside - 0.5)


def scanned(image: np.ndarray) -> np.ndarray:
    """Sharpened, and stored as JPEG."""
    sharp = image + 0.8 * (image - cv2.GaussianBlur(image, (0, 0), 1.2))
    pixels = np.rint(sharp * 255).clip(0, 255).astype(np.uint8)
    file = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.float32) / 255


def chipped(paper: float) -> np.ndarray:
    """The backdrop with a chip that ends over two pixels."""
    share = np.clip(0.5 - distance_to_chip() / 2, 0, 1)[..., None].astype(np.float32)
    return scanned(backdrop() * (1 - share) + share * np.float32(paper))


@pytest.mark.parametrize("paper", [0.95, 0.05])
def test_the_rim_of_a_soft_edged_chip_is_dirty_and_as_wide_as_the_change(paper: float) -> None:
    distance = distance_to_chip()
    changed = np.abs(chipped(paper) - scanned(backdrop())).mean(axis=2) > 10 / 255
    rims = dirty_rims(chipped(paper), distance < 0)
    assert (rims & changed).sum() > 0.85 * (changed & (distance > 0)).sum()
    assert not rims[distance > REACH_PX].any()
    assert not rims[distance < 0].any()


@pytest.mark.parametrize("picture", ["astronaut", "chelsea", "coffee", "rocket"])
def test_a_hole_in_an_intact_photograph_has_no_dirty_rim(picture: str) -> None:
    image = getattr(data, picture)()[:HEIGHT, :WIDTH].astype(np.float32) / 255
    for sharpened in (image, scanned(image)):
        for flip in (1, -1):
            assert not dirty_rims(sharpened, distance_to_chip()[::flip, ::flip] < 0).any()


def test_what_the_hole_hides_is_no_part_of_its_rim() -> None:
    hole = distance_to_chip() < 0
    seen = chipped(0.95)
    assert np.array_equal(dirty_rims(seen, hole), dirty_rims(np.where(hole[..., None], np.float32(np.nan), seen), hole))


def test_a_generous_hole_has_no_dirty_rim() -> None:
    assert not dirty_rims(chipped(0.95), distance_to_chip() < REACH_PX + 1).any()


@pytest.mark.parametrize("hole", [np.zeros((9, 5), bool), np.ones((9, 5), bool), np.eye(9, dtype=bool)])
def test_nothing_everything_and_tiny_holes_have_no_dirty_rim(hole: np.ndarray) -> None:
    assert not dirty_rims(np.random.default_rng(0).random((*hole.shape, 3), np.float32), hole).any()


def test_each_hole_has_its_own_rim() -> None:
    distance = distance_to_chip()
    both = np.concatenate([chipped(0.95), scanned(backdrop())], axis=1)
    rims = dirty_rims(both, np.concatenate([distance, distance], axis=1) < 0)
    assert rims[:, :WIDTH].any()
    assert not rims[:, WIDTH:].any()


@pytest.mark.parametrize("paper", [0.95, 0.05])
def test_a_filling_does_not_continue_the_dirty_rim(
    inpaint: HybridInpainter, paper: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    hole = distance_to_chip() < 0
    seen, truth = chipped(paper), scanned(backdrop())

    def error(filled: np.ndarray) -> float:
        return float(np.abs(cv2.blur(filled, (9, 9)) - cv2.blur(truth, (9, 9)))[distance_to_chip() < -5].mean())

    filled = repair(inpaint, seen, hole.astype(np.float32))
    assert np.array_equal(filled[~hole], seen[~hole])
    monkeypatch.setattr(hybrid_inpainting, "dirty_rims", lambda image, holes: np.zeros_like(holes))
    continued = repair(inpaint, seen, hole.astype(np.float32))
    assert error(filled) < 0.5 * error(continued)


def test_a_narrow_scratch_with_a_dirty_rim_is_filled_from_beyond_it(inpaint: HybridInpainter) -> None:
    image = torch.full((1, 3, 128, 256), 0.5)
    image[..., 61:67, :] = 0.9
    image[..., 62:66, :] = 1
    mask = torch.zeros_like(image[:, :1])
    mask[..., 62:66, :] = 1
    out = inpaint(image, mask)
    assert (out[..., 62:66, :] - 0.5).abs().max() < 0.03
    assert torch.equal(out[..., 61, :], image[..., 61, :])


def test_automatic_dilation_covers_a_halo() -> None:
    """The halo of a light chip is dark: it does not look like the damage."""
    distance, seen = distance_to_chip(), chipped(0.95)
    given = (distance < 1).astype(np.float32)
    mask = prepare_mask(given, dilate_px="auto", feather_px=0, image=lambda: seen)
    changed = np.abs(seen - scanned(backdrop())).mean(axis=2) > 10 / 255
    assert (mask > 0)[changed & (distance >= 1)].mean() > 0.75
    assert set(np.unique(mask)) == {0, 1}
    assert (mask >= given).all()
    assert not (mask > 0)[distance > REACH_PX + 2].any()
