"""The seam: what counts as one, by hand and by a loop over pixels."""

from __future__ import annotations

import math

import pytest
import skimage
import torch

from restore.metrics import score_batch, seam

SEAM = ("seam", "seam_ratio")


def by_hand(restored: torch.Tensor, clean: torch.Tensor, mask: torch.Tensor) -> tuple[float, float]:
    """One picture, one pair of neighbours after the other."""
    wrong, own = [], []
    channels, height, width = clean.shape
    for y in range(height):
        for x in range(width):
            for v, u in ((y + 1, x), (y, x + 1)):
                if v < height and u < width and (mask[0, y, x] >= 0.5) != (mask[0, v, u] >= 0.5):
                    for c in range(channels):
                        step = clean[c, v, u] - clean[c, y, x]
                        wrong.append(abs(restored[c, v, u] - restored[c, y, x] - step).item())
                        own.append(abs(step).item())
    return sum(wrong) / len(wrong), sum(own) / len(own)


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two pictures with random errors everywhere, and ragged holes that reach the border."""
    clean = torch.from_numpy(skimage.data.astronaut()[100:124, 200:230].copy()).permute(2, 0, 1).float() / 255
    clean = torch.stack([clean, clean.flip(-1)])
    generator = torch.Generator().manual_seed(0)
    restored = clean + 0.1 * torch.randn(clean.shape, generator=generator)
    mask = (torch.rand((2, 1, 6, 5), generator=generator) > 0.6).float()
    return restored, clean, torch.nn.functional.interpolate(mask, size=(24, 30)) * 0.8


def test_it_is_the_mean_over_pairs_that_straddle_the_edge(pair) -> None:
    mismatch, gradient = seam(*pair)
    for i in range(2):
        assert (mismatch[i].item(), gradient[i].item()) == pytest.approx(by_hand(*(x[i] for x in pair)), abs=1e-6)
    assert mismatch.dtype == gradient.dtype == torch.float64


def test_the_right_filling_has_no_seam_and_a_shifted_one_has_its_shift() -> None:
    clean = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, 1, 20, 20)
    mask[..., 5:12, 6:15] = 1
    assert seam(clean, clean, mask)[0].item() == 0
    assert seam(clean + 0.25 * mask, clean, mask)[0].item() == pytest.approx(0.25, abs=1e-6)
    assert seam(clean + 0.25, clean, mask)[0].item() == pytest.approx(0, abs=1e-6), "all of it brighter: no seam"


def test_only_the_edge_counts(pair) -> None:
    clean = pair[1][:1]
    mask = torch.zeros(1, 1, 24, 30)
    mask[..., 8:16, 8:20] = 1
    restored = clean.clone()
    restored[..., 10:14, 10:18] = 0.5
    restored[..., :5, :] = math.nan
    assert seam(restored, clean, mask)[0].item() == 0


def test_the_ratio_is_to_the_true_pictures_own_gradient(pair) -> None:
    scores = score_batch(*pair, metrics=SEAM)
    mismatch, gradient = seam(*pair)
    assert torch.equal(scores["seam"], mismatch)
    assert torch.equal(scores["seam_ratio"], mismatch / gradient)
    flat = torch.full_like(pair[1], 0.5)
    scores = score_batch(flat + 0.1 * pair[2], flat, pair[2], metrics=SEAM)
    assert scores["seam"].isfinite().all()
    assert scores["seam_ratio"].isnan().all(), "nothing to compare with"


def test_without_an_edge_there_is_no_seam(pair) -> None:
    for mask in (torch.zeros_like(pair[2]), torch.ones_like(pair[2])):
        scores = score_batch(*pair[:2], mask, metrics=SEAM)
        assert scores["seam"].isnan().all()
        assert scores["seam_ratio"].isnan().all()
    assert score_batch(*pair[:2], metrics=SEAM) == {}


def test_it_is_the_same_alone_and_in_a_batch(pair) -> None:
    alone = torch.cat([seam(*(x[i : i + 1] for x in pair))[0] for i in range(2)])
    torch.testing.assert_close(seam(*pair)[0], alone, atol=1e-12, rtol=0)
