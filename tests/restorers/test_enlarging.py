"""Enlarging by filters, as Pillow does it, and blending with it."""

import numpy as np
import pytest
import torch
from PIL import Image

from restore.models.receptive_field import octaves
from restore.restorers.base import ModelRequirements, Restorer, run_restorer
from restore.restorers.enlarging import INTERPOLATIONS, Softened, interpolated
from restore.restorers.registry import open_restorer

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_filters_are_pillows_but_for_its_rounding(name: str) -> None:
    filter, scale = name.split("-x")
    levels = (octaves(23, 31)[0] * 255).round().byte()
    pixels = levels.permute(1, 2, 0).numpy()
    expected = Image.fromarray(pixels).resize((31 * int(scale), 23 * int(scale)), FILTERS[filter])
    restorer = open_restorer(name, device="cpu")
    out = restorer(levels[None].float() / 255)
    found = (out[0] * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(found - np.asarray(expected, np.float32)).max() <= 1
    assert restorer.requirements == ModelRequirements(
        needs_mask=False, scale=int(scale), overlap_px=3 if filter == "lanczos" else 2
    )


@pytest.mark.parametrize("name", ["bicubic-x2", "lanczos-x4"])
def test_tiles_give_what_the_whole_image_gives(name: str) -> None:
    restorer, image = open_restorer(name, device="cpu"), octaves(90, 130)[0]
    whole, tiled = (run_restorer(restorer, image, None, tile, lambda line: None) for tile in (0, 50))
    assert torch.allclose(whole, tiled, atol=1e-6)


def test_autocast_does_not_round_it() -> None:
    image = torch.full((1, 3, 8, 8), 250 / 255)
    with torch.autocast("cpu", torch.bfloat16):
        assert (interpolated(image, 2) - 250 / 255).abs().max() < 1e-6


class Nearest(Restorer):
    name, purpose = "nearest", "test"
    requirements = ModelRequirements(needs_mask=False, scale=2, overlap_px=0)

    def _restore(self, image: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return image.repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_softened_is_between_the_bicubic_image_and_its_own(strength: float) -> None:
    image = octaves(20, 24)
    own, plain = Nearest()(image), interpolated(image, 2).clamp(0, 1)
    out = Softened(Nearest(), strength)(image)
    assert torch.allclose(out, plain + strength * (own - plain), atol=1e-6)
