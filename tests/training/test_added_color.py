"""Which networks learn to add color, by what they were validated on."""

import pytest
import torch
from torch import Tensor

from restore.data.loader import Batch
from restore.training.setup import adds_color

COLORED = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
GRAY = COLORED.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
ROUNDED = GRAY + torch.tensor([0, 1, 0]).view(1, 3, 1, 1) / 255  # gray that a lossy format has rounded
SPOT = GRAY.clone()
SPOT[0, 0, 5, 5] += 0.1


def pair(damaged: Tensor, clean: Tensor) -> Batch:
    return Batch(damaged, torch.zeros(1, 1, 32, 32), clean, torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("pairs", "adds"),
    [
        ([(GRAY, COLORED)] * 3, True),
        ([(ROUNDED, COLORED)], True),
        ([(GRAY, COLORED), (GRAY, COLORED), (GRAY, GRAY)], True),  # a gray photograph among the colored ones
        ([(GRAY, COLORED), (GRAY, GRAY)], False),
        ([(GRAY, GRAY), (ROUNDED, ROUNDED)], False),
        ([(GRAY, COLORED), (SPOT, COLORED)], False),  # it restores images in color, too
        ([(COLORED, COLORED)], False),
    ],
)
def test_it_adds_color_if_it_sees_gray_alone_and_learns_color(pairs: list[tuple[Tensor, Tensor]], adds: bool) -> None:
    assert adds_color([pair(*each) for each in pairs]) is adds
