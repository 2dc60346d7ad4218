"""A picture in memory: its own pixels, and the two ways between them and what a network sees."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from restore.images.color import Profile, open_profile
from restore.images.metadata.exif import upright_exif, upright_xmp
from restore.images.metadata.jpeg import JpegHeader

_BLOCK = 1 << 15  # pixels at once, so that intermediates stay in the cache
# What sRGB cannot hold of a pixel is kept while the repair changes it little, and gone at a change of this
# size: there the pixel was replaced, and what it held before was the damage.
_REPLACED = 0.25


@dataclass(frozen=True)
class DecodedImage:
    """One picture, upright, in its own colour space and depth. Arrays are not to be written to.

    Attributes:
        pixels: H×W×1 (gray) or H×W×3; uint8, uint16 or float32.
        alpha: H×W of the same dtype, or None; colours are not multiplied by it.
        white: the value of white: 255, 65535, or what it is taken to be in a float picture.
        icc: the colour profile of `pixels`; None means sRGB (or gray with sRGB's curve).
        bits: bits per channel as stored in the file (1 to 16, or 32 for float).
        format: the file's format by content, as in `restore.images.formats.format_of`.
        exif: EXIF block, already with orientation 1, or None.
        xmp: XMP packet, already with orientation 1, or None.
        jpeg: how it was compressed, if it was a JPEG.
        dpi: resolution across and down in pixels per inch, where the file states one.
        compression: of a TIFF (`none`, `lzw`, `deflate`) or a WebP (`lossless`, `lossy`); else "".
        passthrough: raw pieces of the file that go into an output of the same format.
        transparent: False where `alpha` is a channel of a TIFF that does not say what it is.
        turned: the pixels lie otherwise than in the file, as its orientation tag asked.
        further: the pages after the first, of a TIFF that was read whole.
        notes: what the user should be told, like "first of 12 frames".
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    white: float = 255.0
    icc: bytes | None = None
    bits: int = 8
    format: str = "png"
    exif: bytes | None = None
    xmp: bytes | None = None
    jpeg: JpegHeader | None = None
    dpi: tuple[float, float] | None = None
    compression: str = ""
    passthrough: bytes = b""
    transparent: bool = True
    reoriented: bool = False
    extra_pages: tuple[DecodedImage, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def gray(self) -> bool:
        """One channel, alpha apart."""
        return self.pixels.shape[2] == 1

    @property
    def profile(self) -> Profile | None:
        """The conversion to sRGB, or None where the pixels are sRGB as they stand.

        Raises:
            ValueError: `icc` is no profile for these pixels (never so in a picture that was read from a file).
        """
        if self.icc is None:
            return None
        return open_profile(self.icc, self.pixels.shape[2])

    def to_srgb(self) -> np.ndarray:
        """What a network is shown: float32, H×W×3, sRGB, [0, 1]; gray fills the three channels alike."""
        height, width = self.size
        out = np.empty((height, width, 3), np.float32)
        profile = self.profile
        for rows in _row_blocks(height, width):
            values = self._unit(self.pixels[rows])
            if profile is not None:
                values = profile.to_srgb(values.reshape(-1, values.shape[2])).reshape(*values.shape[:2], 3)
            out[rows] = values
        return out

    def blend(self, repaired: np.ndarray, weight: np.ndarray | None = None, *, strength: float = 1) -> DecodedImage:
        """This picture with a repair put in, in its own colour space and depth.

        Pixels of weight 0 keep their exact values. In a picture with a profile of its own the change is added
        to the source, so that colours outside sRGB survive where little was changed; gray stays gray (mean).

        Args:
            repaired: float32, H'×W'×3, sRGB, [0, 1]. Another size than the picture's (an enlarged one) scales
                alpha along, and takes no weight.
            weight: float32, H×W, [0, 1]: 1 takes the repair, 0 the source; None means 1 everywhere.
            strength: [0, 1], how much of the repair is taken: every weight is multiplied by it.

        Raises:
            ValueError: shapes that do not fit; a strength below 1 of another size.
        """
        if repaired.ndim != 3 or repaired.shape[2] != 3:
            raise ValueError(f"a repaired picture is H×W×3, got {repaired.shape}")
        if repaired.shape[:2] != self.size:
            if weight is not None or strength != 1:
                raise ValueError(f"no weight can be given for {repaired.shape[:2]}, the picture is {self.size}")
            return self._enlarged(repaired)
        if weight is not None and weight.shape != self.size:
            raise ValueError(f"the weight is {weight.shape}, the picture {self.size}")
        if strength != 1:
            share = np.float32(strength)
            weight = np.broadcast_to(share, self.size) if weight is None else weight * share
        out = self.pixels.copy() if weight is not None else np.empty_like(self.pixels)
        profile = self.profile
        for rows in _row_blocks(*self.size):
            where = None if weight is None else weight[rows] > 0
            if where is None or where.all():
                part = self._repaired(self.pixels[rows], repaired[rows], weight, rows, profile)
                out[rows] = part
            elif where.any():
                assert weight is not None
                out[rows][where] = self._mixed(
                    self.pixels[rows][where], repaired[rows][where], weight[rows][where], profile
                )
        return replace(self, pixels=out)

    def _repaired(
        self,
        source: np.ndarray,
        repaired: np.ndarray,
        weight: np.ndarray | None,
        rows: slice,
        profile: Profile | None,
    ) -> np.ndarray:
        flat = source.reshape(-1, source.shape[2])
        parts = None if weight is None else weight[rows].reshape(-1)
        return self._mixed(flat, repaired.reshape(-1, 3), parts, profile).reshape(source.shape)

    def _mixed(
        self, source: np.ndarray, repaired: np.ndarray, weight: np.ndarray | None, profile: Profile | None
    ) -> np.ndarray:
        """N×C source values, N×3 repaired sRGB and N weights (None = 1) -> N×C values of the source."""
        if profile is None:
            values = repaired if source.shape[1] == 3 else _mean(repaired)
            if weight is None and source.dtype != np.float32:
                return _as_type(values * np.float32(self.white), source.dtype)
            before = self._unit(source)
            shown = np.clip(before, 0, 1) if source.dtype == np.float32 else before
        else:
            before = self._unit(source)
            shown_srgb = profile.to_srgb(before)
            shown, values = profile.from_srgb(shown_srgb), profile.from_srgb(repaired)
        change = values - shown
        if source.dtype == np.float32 or profile is not None:
            beyond = before - shown
            largest = np.abs(change[:, 0])
            for channel in range(1, change.shape[1]):
                np.maximum(largest, np.abs(change[:, channel]), out=largest)
            beyond *= np.minimum(largest / np.float32(_REPLACED), 1)[:, None]
            change -= beyond
        if weight is not None:
            change *= weight[:, None]
        return _as_type((before + change) * np.float32(self.white), source.dtype)

    def _unit(self, values: np.ndarray) -> np.ndarray:
        """Own values as float32, white = 1; what is not finite in a float picture becomes black."""
        unit = np.divide(values, np.float32(self.white), dtype=np.float32)
        return np.nan_to_num(unit, copy=False, nan=0.0, posinf=1.0, neginf=0.0) if values.dtype == np.float32 else unit

    def _enlarged(self, repaired: np.ndarray) -> DecodedImage:
        height, width = repaired.shape[:2]
        profile = self.profile
        values = repaired.reshape(-1, 3)
        if profile is not None:
            values = profile.from_srgb(values)
        elif self.gray:
            values = _mean(values)
        pixels = _as_type(values * np.float32(self.white), self.pixels.dtype).reshape(height, width, -1)
        alpha = None if self.alpha is None else _resized(self.alpha, (height, width))
        exif = None if self.exif is None else upright_exif(self.exif, (height, width))
        xmp = None if self.xmp is None else upright_xmp(self.xmp, (height, width), reoriented=False)
        return replace(self, pixels=pixels, alpha=alpha, exif=exif, xmp=xmp)


def _mean(rgb: np.ndarray) -> np.ndarray:
    """N×3 -> N×1; of three equal numbers exactly that number, which a sum over three is not."""
    first = rgb[:, :1]
    return first + (rgb[:, 1:] - first).sum(axis=1, keepdims=True) / np.float32(3)


def _row_blocks(height: int, width: int) -> list[slice]:
    step = max(_BLOCK // max(width, 1), 1)
    return [slice(top, min(top + step, height)) for top in range(0, height, step)]


def _as_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Rounded and clipped for integers; as they are for floats."""
    if dtype == np.float32:
        return values.astype(np.float32, copy=False)
    top = np.iinfo(dtype).max
    values = np.rint(values)
    np.fmax(values, 0, out=values)  # unlike clip, turns NaN into a number
    np.fmin(values, top, out=values)
    return values.astype(dtype)


def _resized(alpha: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import pyvips

    height, width = alpha.shape
    image = pyvips.Image.new_from_array(alpha.astype(np.float32))
    bigger = image.resize(size[1] / width, vscale=size[0] / height, kernel="linear").numpy()
    return _as_type(np.ascontiguousarray(bigger.reshape(bigger.shape[:2])[: size[0], : size[1]]), alpha.dtype)
