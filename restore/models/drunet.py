"""DRUNet (Zhang et al. 2021): a denoiser that other programs open, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from restore.models.base import RestorationNetwork

#: What the channel of the noise level holds. Programs that open a DRUNet with spandrel fill it with this value, so a
#: network that is trained blind, with this constant, gives the same output there.
NOISE_LEVEL = 15 / 255


class DRUNet(RestorationNetwork):
    """The U-Net of DPIR, without biases, with the published names of the parameters.

    spandrel knows it by those names, and with it chaiNNer and ComfyUI (`restore export --format spandrel`). Against
    `UNet`: the output is the image, not a residual; skips join below the blocks of a level; every level has as many
    blocks. Without biases the network scales with its input, and generalizes to noise levels that it never saw (Mohan
    et al. 2020).

    Args:
        widths: channels of the four levels, from full size down. The original has 64, 128, 256, 512.
        blocks: residual blocks of each level, at least 2; once down and once up. The original has 4.
        channels: of the image: 3, or 1 for gray.

    Raises:
        ValueError: an argument out of range.
    """

    multiple = minimum = 8

    def __init__(self, widths: Sequence[int] = (32, 64, 128, 256), blocks: int = 2, channels: int = 3) -> None:
        super().__init__()
        if len(widths) != 4 or min(widths) < channels:
            raise ValueError(f"widths need four numbers of at least {channels}, not {list(widths)}")
        if not 2 <= blocks <= 256:
            raise ValueError(f"blocks must be 2 to 256, not {blocks}: spandrel knows the network by the second")
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, not {channels}")
        w1, w2, w3, w4 = widths
        self.m_head = nn.Conv2d(channels + 1, w1, 3, padding=1, bias=False)
        self.m_down1 = nn.Sequential(*_blocks(w1, blocks), nn.Conv2d(w1, w2, 2, stride=2, bias=False))
        self.m_down2 = nn.Sequential(*_blocks(w2, blocks), nn.Conv2d(w2, w3, 2, stride=2, bias=False))
        self.m_down3 = nn.Sequential(*_blocks(w3, blocks), nn.Conv2d(w3, w4, 2, stride=2, bias=False))
        self.m_body = nn.Sequential(*_blocks(w4, blocks))
        self.m_up3 = nn.Sequential(nn.ConvTranspose2d(w4, w3, 2, stride=2, bias=False), *_blocks(w3, blocks))
        self.m_up2 = nn.Sequential(nn.ConvTranspose2d(w3, w2, 2, stride=2, bias=False), *_blocks(w2, blocks))
        self.m_up1 = nn.Sequential(nn.ConvTranspose2d(w2, w1, 2, stride=2, bias=False), *_blocks(w1, blocks))
        self.m_tail = nn.Conv2d(w1, channels, 3, padding=1, bias=False)
        self._start_near_identity(channels)

    @classmethod
    def args_for(cls, channels: int, conditions: int) -> dict[str, Any]:
        """See `RestorationNetwork.args_for`."""
        if conditions:
            raise ValueError("it takes no condition images")
        return {} if channels == 3 else {"channels": channels}

    @torch.no_grad()
    def _start_near_identity(self, channels: int) -> None:
        """Carry the image through the first features, and begin with a small contribution of everything else."""
        self.m_tail.weight.mul_(0.1)
        for channel in range(channels):
            for conv in (self.m_head, self.m_tail):
                conv.weight[channel] = 0.0
                conv.weight[channel, channel, 1, 1] = 1.0
        for level in (self.m_up1, self.m_up2, self.m_up3):
            first = level[0]
            assert isinstance(first, nn.ConvTranspose2d)
            first.weight.mul_(0.1)

    def forward(self, image: Tensor, mask: Tensor | None = None, filled: bool = False) -> Tensor:
        """See `RestorationNetwork.forward`; the mask only has its holes filled."""
        if mask is not None and not filled:
            image = self.fill(image, mask)
        # The features of the head hold the image itself, and bf16 has steps of 1/256 near 1: head and tail are float32.
        with torch.autocast(image.device.type, enabled=False):
            image = image.float()
            first = self.m_head(torch.cat([image, torch.full_like(image[:, :1], NOISE_LEVEL)], 1))
        second = self.m_down1(first)
        third = self.m_down2(second)
        fourth = self.m_down3(third)
        x = self.m_body(fourth)
        x = self.m_up3(x + fourth)
        x = self.m_up2(x + third)
        x = self.m_up1(x + second)
        with torch.autocast(image.device.type, enabled=False):
            out: Tensor = self.m_tail(x.float() + first)
        return out


class _Block(nn.Module):
    """x + conv(relu(conv(x))), 3×3, without biases."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.res = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )
        for conv, scale in ((self.res[0], 1.0), (self.res[2], 0.1)):
            assert isinstance(conv, nn.Conv2d)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            conv.weight.data.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W -> B×C×H×W."""
        residual: Tensor = self.res(x)
        return x + residual


def _blocks(width: int, count: int) -> list[_Block]:
    return [_Block(width) for _ in range(count)]
