"""The mean of a network's outputs over an image and its mirror images."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

#: The dimensions along which an image is mirrored. Rotations are left out: photographs have an up and a down, and a
#: network that never saw one lying on its side detects less in it.
FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))


def self_ensemble(f: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """Run `f` on an image and its mirror images, mirror the outputs back, and average them.

    The "self-ensemble" of Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPR
    Workshops 2017, section 3.4, without its rotations.

    Args:
        f: ...×H×W -> ...×H×W, of the same H and W.
        image: ...×H×W.
    """
    first, *others = (f(image.flip(dims)).flip(dims) for dims in FLIPS)
    return sum(others, start=first) / len(FLIPS)
