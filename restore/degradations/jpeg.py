"""JPEG compression: libjpeg on a CPU, the same steps on tensors elsewhere."""

from __future__ import annotations

import functools
import math
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from restore.degradations.base import Params, Probability, Range, Step, within
from restore.devices import to_device
from restore.hashed_random import bernoulli, integers

# ITU-T T.81 (1992), annex K, tables K.1 and K.2: quantization of luminance and chrominance at quality 50.
_LUMINANCE = [
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
]  # fmt: skip
_CHROMINANCE = [
    [17, 18, 24, 47, 99, 99, 99, 99], [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99], [47, 66, 99, 99, 99, 99, 99, 99],
    *[[99] * 8 for _ in range(4)],
]  # fmt: skip


# Maximum side of a JPEG file (JPEG_MAX_DIMENSION of libjpeg).
_LIBJPEG_LONGEST_SIDE = 65_500


class Jpeg(Step):
    """JPEG compression: block edges, ringing, washed-out color. The result is rounded to 8 bits.

    On a CPU the image is compressed by libjpeg, which is exact and 3 to 6 times as fast as the tensor implementation
    (8 ms against 25 to 70 for 512×512 in one thread). On other devices the tensor implementation avoids transfers.

    The parameters are equal on all devices. The pixels differ, because a DCT coefficient half-way between two multiples
    of its quantization step may be rounded to either. Measured on four photographs at quality 10 to 90, 4:2:0 and
    4:4:4, aligned or not: 0.4 levels of 255 in the mean; 99 % of the values within 4, 99.9 % within 15; single 8×8
    blocks up to 53 levels at quality 10 and up to 16 at quality 90.

    Attributes:
        quality: quality of libjpeg, 1 … 100.
        chroma_subsampling_prob: fraction of images with chroma at half size (4:2:0); the others have 4:4:4.
        misaligned_grid_prob: fraction of images whose 8×8 grid does not start in the corner, as after cropping.
        implementation: `auto`: libjpeg on a CPU, tensors elsewhere. `tensor`: tensors everywhere, as in earlier
            releases, whose training runs resume with it.
    """

    RENAMED: ClassVar[dict[str, str]] = {
        "halved_colour": "chroma_subsampling_prob",
        "shifted": "misaligned_grid_prob",
    }

    name: Literal["jpeg"] = "jpeg"
    quality: Annotated[Range, within(1, 100, whole=True)] = (10, 95)
    chroma_subsampling_prob: Probability = 1.0
    misaligned_grid_prob: Probability = 0.0
    implementation: Literal["auto", "tensor"] = "auto"

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`quality`; `subsampled` as bool; `top` and `left`: number of pixels cut off the first block."""
        misaligned = bernoulli(keys, 2, self.misaligned_grid_prob)
        return {
            "quality": integers(keys, 0, int(self.quality[0]), int(self.quality[1])),
            "subsampled": bernoulli(keys, 1, self.chroma_subsampling_prob),
            "top": torch.where(misaligned, integers(keys, 3, 0, 15), 0),
            "left": torch.where(misaligned, integers(keys, 4, 0, 15), 0),
        }

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, None]:
        """Compress and decompress; see `Step.apply`."""
        through_libjpeg = self.implementation == "auto" and image.device.type == "cpu"
        if through_libjpeg and max(image.shape[-2:]) + 15 <= _LIBJPEG_LONGEST_SIDE:
            columns = (params[name].tolist() for name in ("quality", "subsampled", "top", "left"))
            return torch.stack([libjpeg(*one) for one in zip(image, *columns)]), None
        out = torch.empty_like(image)
        for subsampled in (False, True):
            index = (params["subsampled"] == subsampled).nonzero()[:, 0]
            if len(index):
                on_device = to_device(index, image.device)
                # The choice depends on the setting, not on this batch, so edges never depend on the other images.
                start = (params["top"][index], params["left"][index]) if self.misaligned_grid_prob > 0 else None
                out[on_device] = jpeg(image[on_device], params["quality"][index], subsampled=subsampled, start=start)
        return out, None


def libjpeg(image: Tensor, quality: int, subsampled: bool, top: int = 0, left: int = 0) -> Tensor:
    """Encode and decode one image with libjpeg-turbo, through OpenCV.

    `torchvision.io` always subsamples the chroma, and Pillow refuses to open large images. All three give the same
    pixels.

    Args:
        image: float32, 3×H×W on the CPU; clipped to [0, 1] and rounded to 8 bits first.
        quality: 1 … 100.
        subsampled: 4:2:0, else 4:4:4.
        top: number of rows, 0 … 15, by which the block grid starts above the image.
        left: number of columns by which it starts to the left.

    Returns:
        float32, 3×H×W, multiples of 1/255 in [0, 1].
    """
    bgr = image.clamp(0, 1).mul(255).round_().to(torch.uint8).flip(0).permute(1, 2, 0).numpy()
    bgr = np.ascontiguousarray(np.pad(bgr, ((top, 0), (left, 0), (0, 0)), mode="edge"))
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if subsampled else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    done, file = cv2.imencode(".jpg", bgr, options)
    assert done
    decoded = torch.from_numpy(np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8))
    return decoded[top:, left:].permute(2, 0, 1).flip(0).to(torch.float32).div_(255)


def jpeg(image: Tensor, quality: Tensor, *, subsampled: bool, start: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Encode and decode a batch on its device, following libjpeg; see `Jpeg` for the accuracy.

    YCbCr is rounded. Chroma at 4:2:0 is box-averaged, and interpolated back with a triangle filter.

    Args:
        image: float32, B×3×H×W; clipped to [0, 1] and rounded to 8 bits first.
        quality: int64[B] on the CPU, 1 … 100.
        subsampled: 4:2:0, else 4:4:4.
        start: rows and columns, int64[B] each on the CPU, 0 … 15, by which the block grid starts above and to the left
            of the image; None: in the corner.

    Returns:
        float32, B×3×H×W, multiples of 1/255 in [0, 1].
    """
    height, width = image.shape[-2:]
    unit = 16 if subsampled else 8
    spare = 15 if start else 0
    rows = math.ceil((height + spare) / unit) * unit
    columns = math.ceil((width + spare) / unit) * unit

    ycc = _to_ycc(image.clamp(0, 1).mul(255).round_())
    if start:
        ycc = _window(ycc, rows, columns, -start[0], -start[1])
    else:
        ycc = F.pad(ycc, (0, columns - width, 0, rows - height), mode="replicate")
    luma, chroma = ycc[:, :1], ycc[:, 1:]
    luminance_table, chrominance_table = _tables(quality)
    luma = _quantize_blocks(luma, luminance_table)
    if subsampled:
        # libjpeg's h2v2_downsample: the mean of four, rounded with an alternating bias of 1/4 and 2/4.
        bias = to_device(torch.tensor([0.25, 0.5]), image.device).repeat(columns // 4)
        chroma = torch.floor(F.avg_pool2d(chroma, 2) + bias[: columns // 2])
        chroma = _upsample_chroma(_quantize_blocks(chroma, chrominance_table))
    else:
        chroma = _quantize_blocks(chroma, chrominance_table)
    rgb = _to_rgb(torch.cat([luma, chroma], dim=1))
    rgb = _window(rgb, height, width, *start) if start else rgb[..., :height, :width]
    return rgb.round().clamp_(0, 255).div_(255)


def quantization_tables(quality: int) -> tuple[list[list[int]], list[list[int]]]:
    """libjpeg's 8×8 tables (luminance, chrominance) for a quality of 1 … 100 (`jpeg_quality_scaling`)."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality

    def scaled(table: list[list[int]]) -> list[list[int]]:
        return [[min(255, max(1, (value * scale + 50) // 100)) for value in row] for row in table]

    return scaled(_LUMINANCE), scaled(_CHROMINANCE)


def _tables(quality: Tensor) -> tuple[Tensor, Tensor]:
    luminance, chrominance = _all_tables()
    return luminance[quality], chrominance[quality]


@functools.cache
def _all_tables() -> tuple[Tensor, Tensor]:
    """Both tables at every quality, float32 101×64 each; row 0 is unused."""
    both = [quantization_tables(max(1, quality)) for quality in range(101)]
    luminance, chrominance = (torch.tensor([b[i] for b in both], dtype=torch.float32) for i in (0, 1))
    return luminance.reshape(-1, 64), chrominance.reshape(-1, 64)


def _to_ycc(rgb: Tensor) -> Tensor:
    """JFIF's color transform, rounded as libjpeg stores it."""
    r, g, b = rgb.unbind(1)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return torch.stack([y, (b - y) * (0.5 / 0.886) + 128, (r - y) * (0.5 / 0.701) + 128], dim=1).round_()


def _to_rgb(ycc: Tensor) -> Tensor:
    y, cb, cr = ycc.unbind(1)
    cb, cr = cb - 128, cr - 128
    return torch.stack([y + 1.402 * cr, y - 0.344136286 * cb - 0.714136286 * cr, y + 1.772 * cb], dim=1)


def _window(image: Tensor, height: int, width: int, top: Tensor, left: Tensor) -> Tensor:
    """The window of each image that starts at (top, left), edges repeated outside: B×C×height×width."""
    y = to_device((torch.arange(height) + top[:, None]).clamp(0, image.shape[-2] - 1), image.device)
    x = to_device((torch.arange(width) + left[:, None]).clamp(0, image.shape[-1] - 1), image.device)
    which = torch.arange(image.shape[0], device=image.device)
    return image.permute(0, 2, 3, 1)[which[:, None, None], y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def _quantize_blocks(plane: Tensor, table: Tensor) -> Tensor:
    """DCT of 8×8 blocks, quantization, inverse DCT; rounded and clipped to 0 … 255.

    Args:
        plane: B×C×H×W of 0 … 255, sides multiples of 8.
        table: B×64, on the CPU.
    """
    batch, channels, height, width = plane.shape
    blocks = plane.reshape(batch, channels, height // 8, 8, width // 8, 8).permute(0, 1, 2, 4, 3, 5)
    # A matrix product in float32 may run in TF32, which is too coarse for rounding coefficients. MPS has no float64.
    dtype = torch.float32 if plane.device.type == "mps" else torch.float64
    basis = to_device(_basis().to(dtype), plane.device)
    coefficients = (blocks.reshape(-1, 64).to(dtype) - 128) @ basis.T
    step = to_device(table.to(dtype), plane.device)[:, None, :]
    quantized = (coefficients.reshape(batch, -1, 64) / step).round_() * step
    values = (quantized.reshape(-1, 64) @ basis + 128).round_().clamp_(0, 255).to(plane.dtype)
    blocks = values.reshape(batch, channels, height // 8, width // 8, 8, 8)
    return blocks.permute(0, 1, 2, 4, 3, 5).reshape(batch, channels, height, width)


@functools.cache
def _basis() -> Tensor:
    """The 2-D DCT-II of an 8×8 block as an orthonormal 64×64 matrix (T.81, A.3.3)."""
    n = torch.arange(8, dtype=torch.float64)
    one = torch.cos((2 * n + 1) * n[:, None] * (math.pi / 16)) * 0.5
    one[0] *= math.sqrt(0.5)
    return torch.kron(one, one)


def _upsample_chroma(chroma: Tensor) -> Tensor:
    """libjpeg's "fancy upsampling": new samples are 9/16, 3/16, 3/16, 1/16 of the four nearest."""
    for dim in (-2, -1):
        size = chroma.shape[dim]
        before = torch.cat([chroma.narrow(dim, 0, 1), chroma.narrow(dim, 0, size - 1)], dim)
        after = torch.cat([chroma.narrow(dim, 1, size - 1), chroma.narrow(dim, size - 1, 1)], dim)
        pair = [0.75 * chroma + 0.25 * before, 0.75 * chroma + 0.25 * after]
        # Interleaved: every row (column) becomes two.
        chroma = torch.stack(pair, dim=dim).flatten(dim - 1, dim)
    return (chroma + (0.5 - 1 / 32)).floor_()
