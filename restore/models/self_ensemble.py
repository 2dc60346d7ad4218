"""A network's mean over a picture and its mirror images."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

WAYS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))
"""The dimensions along which a picture is turned over. Not on its side: pictures have an up and a down, and a network
that never saw one lying finds less in it."""


def mean_over_flips(look: Callable[[Tensor], Tensor], picture: Tensor) -> Tensor:
    """What a network says in the mean of a picture and of its mirror images, each answer turned back.

    The "self-ensemble" of Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPR
    Workshops 2017, section 3.4, without its rotations.

    Args:
        look: ...×H×W -> ...×H×W, of the same H and W.
        picture: ...×H×W.
    """
    first, *others = (look(picture.flip(dims)).flip(dims) for dims in WAYS)
    return sum(others, start=first) / len(WAYS)
