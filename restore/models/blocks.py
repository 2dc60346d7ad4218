"""The few parts that the networks are made of."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Norm = Literal["none", "batch"]


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), 3×3: what a tile sees is what the whole picture sees.

    Normalisation is left out by default, as in EDSR (Lim et al. 2017) and DRUNet (Zhang et al. 2021): it costs a
    regression fidelity. A classifier of pixels learns several times faster with it (Ioffe & Szegedy 2015), and batch
    normalisation is one scale and one offset once it has learned, the same in every tile. Either way the second
    convolution starts at a tenth of the usual size, so that a deep stack begins close to the identity.

    Args:
        width: channels in and out.
        dilation: of both convolutions; larger ones look further for the same cost.
        norm: `batch` normalises after each convolution.
    """

    def __init__(self, width: int, dilation: int = 1, norm: Norm = "none") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        nn.init.kaiming_normal_(self.conv1.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.conv2.weight, nonlinearity="relu")
        for name, values in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(values)
        self.norm1, self.norm2 = (nn.BatchNorm2d(width) if norm == "batch" else nn.Identity() for _ in range(2))
        # Behind a normalisation the size of a convolution's weights means nothing: its scale is set instead.
        last = self.conv2 if norm == "none" else self.norm2
        last.get_parameter("weight").data.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W -> B×C×H×W."""
        return x + self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))


def down(wide_in: int, wide_out: int) -> nn.Module:
    """Half the size by a 2×2 convolution of stride 2: every input pixel counts once."""
    return nn.Conv2d(wide_in, wide_out, 2, stride=2)


def up(wide_in: int, wide_out: int) -> nn.Module:
    """Twice the size by a 1×1 convolution and a pixel shuffle (Shi et al. 2016): no checkerboard from overlaps.

    The four pixels that come of one start alike, so that the convolution begins without a lattice of its own (Aitken et
    al. 2017, "Checkerboard artifact free sub-pixel convolution").
    """
    expand = nn.Conv2d(wide_in, wide_out * 4, 1)
    for values in (expand.weight.data, expand.get_parameter("bias").data):
        values.copy_(values[::4].repeat_interleave(4, dim=0))
    return nn.Sequential(expand, nn.PixelShuffle(2))
