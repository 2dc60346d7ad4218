"""The first guess for holes: smooth, and the image outside them."""

import pytest
import torch

from restore.models.base import harmonic_fill


def test_harmonic_fill_keeps_what_is_outside_the_mask_and_finds_a_plane_inside() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    plane = ((x + y) / 126)[None, None].expand(1, 3, -1, -1)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 24:40, 24:40] = 1
    filled = harmonic_fill(plane * (1 - mask), mask)
    assert torch.equal(filled * (1 - mask), plane * (1 - mask))
    error = (filled - plane).abs()[..., 24:40, 24:40]
    assert error.mean() < 0.02


def test_a_harmonic_fill_is_the_same_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = torch.rand(2, 3, 45, 37), (torch.rand(2, 1, 45, 37) <= 0.6).float()
    mask[..., 8:30, 5:20] = 1
    whole = harmonic_fill(image, mask)
    monkeypatch.setattr("restore.models.base._BAND_PX", 8)
    assert torch.equal(harmonic_fill(image, mask), whole)


def test_harmonic_fill_of_an_image_that_is_all_hole_is_gray() -> None:
    assert harmonic_fill(torch.rand(1, 3, 7, 5), torch.ones(1, 1, 7, 5)).eq(0.5).all()
