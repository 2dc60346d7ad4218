"""ΔE2000: scikit-image against the pairs that the formula was published with, and our mean over pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import skimage
import torch

from restore.metrics import CONVENTIONS, delta_e, score_batch

# Sharma, Wu, Dalal 2005, table 1: L, a, b twice, ΔE00
SHARMA = """
50.0000 2.6772 -79.7751 50.0000 0.0000 -82.7485 2.0425
50.0000 3.1571 -77.2803 50.0000 0.0000 -82.7485 2.8615
50.0000 2.8361 -74.0200 50.0000 0.0000 -82.7485 3.4412
50.0000 -1.3802 -84.2814 50.0000 0.0000 -82.7485 1.0000
50.0000 -1.1848 -84.8006 50.0000 0.0000 -82.7485 1.0000
50.0000 -0.9009 -85.5211 50.0000 0.0000 -82.7485 1.0000
50.0000 0.0000 0.0000 50.0000 -1.0000 2.0000 2.3669
50.0000 -1.0000 2.0000 50.0000 0.0000 0.0000 2.3669
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0009 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0010 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0011 7.2195
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0012 7.2195
50.0000 -0.0010 2.4900 50.0000 0.0009 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0010 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0011 -2.4900 4.7461
50.0000 2.5000 0.0000 50.0000 0.0000 -2.5000 4.3065
50.0000 2.5000 0.0000 73.0000 25.0000 -18.0000 27.1492
50.0000 2.5000 0.0000 61.0000 -5.0000 29.0000 22.8977
50.0000 2.5000 0.0000 56.0000 -27.0000 -3.0000 31.9030
50.0000 2.5000 0.0000 58.0000 24.0000 15.0000 19.4535
50.0000 2.5000 0.0000 50.0000 3.1736 0.5854 1.0000
50.0000 2.5000 0.0000 50.0000 3.2972 0.0000 1.0000
50.0000 2.5000 0.0000 50.0000 1.8634 0.5757 1.0000
50.0000 2.5000 0.0000 50.0000 3.2592 0.3350 1.0000
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
"""


@pytest.fixture(scope="module")
def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """Photographs with noise, a photograph in gray, and colours drawn anywhere; float32, 4×3×90×120."""
    random = np.random.default_rng(0)
    clean = [getattr(skimage.data, name)()[:90, :120] / 255 for name in ("astronaut", "chelsea", "coffee")]
    clean.append(random.random((90, 120, 3)))
    restored = [
        np.clip(clean[0] + random.normal(0, 0.1, clean[0].shape), 0, 1),
        np.clip(clean[1] + random.normal(0, 0.01, clean[1].shape), 0, 1),
        np.repeat(clean[2].mean(-1, keepdims=True), 3, -1),
        random.random((90, 120, 3)),
    ]
    return tuple(torch.from_numpy(np.stack(x).transpose(0, 3, 1, 2)).float() for x in (restored, clean))


def test_the_published_pairs_have_their_published_differences() -> None:
    table = np.loadtxt(SHARMA.splitlines())
    assert table.shape == (34, 7)
    first, second = table[:, :3], table[:, 3:6]
    for found in (skimage.color.deltaE_ciede2000(first, second), skimage.color.deltaE_ciede2000(second, first)):
        np.testing.assert_allclose(found, table[:, 6], atol=6e-5)


def test_the_mean_over_pixels_is_that_of_an_independent_implementation(pairs) -> None:
    # Values of an earlier release, which computed CIELAB and the formula on tensors; 3e-7 apart for random colors.
    earlier = [15.0066813253, 1.9031517749, 13.0427228656, 44.8245843334]
    np.testing.assert_allclose(delta_e(*pairs).numpy(), earlier, rtol=0, atol=5e-7)


def test_identical_pictures_are_at_zero_and_gray_is_as_gray_in_three_channels(pairs) -> None:
    assert delta_e(pairs[0], pairs[0]).tolist() == [0] * 4
    gray = [x[:, :1] for x in pairs]
    assert torch.equal(delta_e(*gray), delta_e(*(x.expand(-1, 3, -1, -1) for x in gray)))


def test_it_is_the_same_alone_and_in_a_batch_and_keeps_to_the_border(pairs) -> None:
    alone = torch.cat([delta_e(x[None], y[None]) for x, y in zip(*pairs)])
    torch.testing.assert_close(delta_e(*pairs), alone, atol=1e-9, rtol=0)
    how = replace(CONVENTIONS["skimage"], border_px=7)
    found = score_batch(*pairs, metrics=("delta_e",), convention=how)
    assert set(found) == {"delta_e"}
    torch.testing.assert_close(found["delta_e"], delta_e(*(x[..., 7:-7, 7:-7] for x in pairs)), atol=1e-9, rtol=0)
    assert delta_e(*pairs, convention=replace(how, border_px=45)).isnan().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_scores_as_the_cpu_does(pairs) -> None:
    there = delta_e(*(x.cuda() for x in pairs)).cpu()
    torch.testing.assert_close(there, delta_e(*pairs), atol=1e-6, rtol=0)
