"""Measurements of drawn marks."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label
from skimage.morphology import skeletonize

from restore.degradations import degradation_from, keys
from restore.degradations.base import Params
from restore.degradations.registry import STEPS

GRAY = 0.3
# One opaque mark of white paper, and nothing else, in pixels of the image itself.
LONE = {"count": 1, "opacity": 1, "bright": 1, "light": 1, "warmth": 0, "gaps": 0, "scale_with_image": False}
PLAIN = {
    "fissure": {**LONE, "name": "fissure", "branches": 0, "reversed": 0, "relief": 0, "length": 150},
    "crease": {**LONE, "name": "crease", "relief": 0, "length": 150},
    "line-scratch": {**LONE, "name": "line-scratch", "dashed": 0, "dotted": 0, "outlier": 0, "length": 150},
    "abrasion": {**LONE, "name": "abrasion", "dashes": 1, "length": 100, "size": 1},
    "speck": {**LONE, "name": "speck", "edges": 0, "long": 1},
    "glass-crack": {**LONE, "name": "glass-crack", "against": False, "halo": 0},
}


def drawn(step: dict, count: int = 12, side: int = 200, gray: float = GRAY, seed: int = 5) -> torch.Tensor:
    """The step on flat gray, count×3×side×side."""
    return degradation_from([step], "test")(torch.full((count, 3, side, side), gray), keys(seed, last=range(count)))[0]


def masks(step: dict, count: int = 12, side: int = 200, gray: float = GRAY, seed: int = 5) -> NDArray[np.bool_]:
    """The masks of the step on flat gray, count×side×side."""
    clean = torch.full((count, 3, side, side), gray)
    return degradation_from([step], "test")(clean, keys(seed, last=range(count)))[1][:, 0].numpy() > 0


def covers(step: dict, count: int = 12, side: int = 200, **settings: object) -> NDArray[np.float32]:
    """The opacity of white marks on gray, count×side×side, from the red channel: pinkish paper has less green."""
    return ((drawn({**step, **settings}, count, side)[:, 0] - GRAY) / (1 - GRAY)).numpy()


def painted(
    segment: list[float], count: int = 8, side: int = 100, gray: float = GRAY, **settings: object
) -> torch.Tensor:
    """The one segment (ends, radii, opacity) in the look of painted marks on flat gray, count×3×side×side."""
    step = STEPS["speck"](**{**LONE, "name": "speck", **settings})
    params = step.sample(keys(7, last=range(count)), (side, side))
    params["segments"] = torch.tensor(segment, dtype=torch.float64).expand(count, 1, 7)
    return step.apply(torch.full((count, 3, side, side), gray), params)[0]


def sampled(step: dict, count: int = 500, size: tuple[int, int] = (512, 512)) -> Params:
    """The parameters of `count` images."""
    kind = STEPS[step["name"]]
    return kind(**step).sample(keys(3, last=range(count)), size)


def ridge_widths(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Twice the distance to the edge, along the middle line."""
    inside = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return 2 * inside[skeletonize(mask)] - 0.5


def pieces(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """The pixels [n, 2] (y, x) of each connected part."""
    labels, count = label(mask, np.ones((3, 3)))
    for i in range(1, count + 1):
        yield np.argwhere(labels == i)


def angle_between(a: torch.Tensor, b: torch.Tensor | float) -> torch.Tensor:
    """The angle between two undirected lines, in radians, [0, pi/2]."""
    apart = (a - b).remainder(torch.pi)
    return torch.minimum(apart, torch.pi - apart)
