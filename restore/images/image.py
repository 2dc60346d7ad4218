"""A decoded image: its own pixels, and the conversions between them and the sRGB that networks work in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from restore.images.color import Profile, open_profile
from restore.images.decoder_output import GUESSED_WHITE
from restore.images.metadata import png, tiff
from restore.images.metadata.exif import upright_exif, upright_xmp
from restore.images.metadata.jpeg import JpegHeader
from restore.images.stated_colors import StatedColors

#: Pixels that are converted at once, so that intermediate arrays stay in the CPU's cache.
_BLOCK = 1 << 15
#: Colors beyond sRGB (see `DecodedImage.blend`) fade out as the change of a pixel grows, and are gone at this change:
#: the pixel was then replaced, and its old color was the damage.
_REPLACED = 0.25
#: What lies beyond sRGB by less comes from the rounding of profiles.
_BEYOND = 1 / 1024
#: Channels that differ by less are equal: lossy formats and conversions round each of them.
NEUTRAL = 1.01 / 255
#: One of this many rows and columns is enough to tell most colored images.
_SAMPLED = 16


@dataclass(frozen=True)
class DecodedImage:
    """An image with everything its file held: upright, in its own color space and depth. Do not write to the arrays.

    Attributes:
        pixels: H×W×1 (gray) or H×W×3; uint8, uint16 or float32.
        alpha: H×W of the same dtype, or None; colors are not premultiplied.
        white: the value of white: 255 or 65535, or for float images what is taken as white.
        black: the value of black: 0, or for float images what `with_range` says.
        icc: the color profile of `pixels`; None means sRGB (or gray with sRGB's curve).
        stated_colors: `icc` was made here, of what the file states without a profile; None: `icc` is the file's.
        bits: bits per channel in the file (1 to 16, or 32 for float).
        format: the file's format, from `restore.images.format_of`.
        exif: EXIF block, with orientation 1, or None.
        xmp: XMP packet, with orientation 1, or None.
        jpeg: how a JPEG was compressed.
        dpi: pixels per inch across and down, if the file states them.
        pixel_shape: densities across and down where pixels are not square and their size is unknown; else None.
        compression: of a TIFF (`none`, `lzw`, `deflate`), or `lossless` or `lossy` (WebP, AVIF, HEIC); else "".
        quantizer: how coarsely an AVIF (0, without loss, to 255) or a lossy WebP (0 to 127) is quantized; else None.
        passthrough: raw pieces of the file that are copied to an output of the same format: a JPEG's segments, a PNG's
            chunks, a GIF's extensions, a TIFF's tags.
        trailer: bytes behind the image that are copied to an output of the same format, like a motion photo's video.
        transparent: False if `alpha` is a channel of unspecified meaning, in a TIFF or JPEG 2000.
        infrared: the infrared channel of a scanner, in which dust is dark, or None: a gray page of the same size, uint8
            or uint16, with tags of its own. A repair leaves it as it is.
        reoriented: the pixels were rotated or mirrored, because the file's orientation tag said so.
        extra_pages: the pages after the first of a TIFF that was read with all of them.
        notes: for the user: what was changed or left out, like "only the first of 12 frames is read".
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    white: float = 255.0
    black: float = 0.0
    icc: bytes | None = None
    stated_colors: StatedColors | None = None
    bits: int = 8
    format: str = "png"
    exif: bytes | None = None
    xmp: bytes | None = None
    jpeg: JpegHeader | None = None
    dpi: tuple[float, float] | None = None
    pixel_shape: tuple[float, float] | None = None
    compression: str = ""
    quantizer: int | None = None
    passthrough: bytes = b""
    trailer: bytes = b""
    transparent: bool = True
    infrared: DecodedImage | None = None
    reoriented: bool = False
    extra_pages: tuple[DecodedImage, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def gray(self) -> bool:
        """One channel besides alpha."""
        return bool(self.pixels.shape[2] == 1)

    @property
    def profile(self) -> Profile | None:
        """The conversion to sRGB, or None if the pixels are sRGB.

        Raises:
            ValueError: `icc` is not a profile for these pixels. Images read from files have none or a valid one.
        """
        if self.icc is None:
            return None
        return open_profile(self.icc, self.pixels.shape[2])

    def with_range(self, black: float, white: float) -> DecodedImage:
        """The image with other values for black and white, if it is a float image; its pages, too.

        No guess of white is noted any more. Of alpha, nothing is known then: images should have none.
        """
        pages = tuple(page.with_range(black, white) for page in self.extra_pages)
        if self.pixels.dtype != np.float32:
            return replace(self, extra_pages=pages) if pages else self
        notes = [note for note in self.notes if not note.endswith(GUESSED_WHITE)]
        return replace(self, black=black, white=white, notes=notes, extra_pages=pages)

    def values(self) -> np.ndarray:
        """The pixels as float32, black = 0 and white = 1, in the image's own color space."""
        return self._unit(self.pixels)

    def to_srgb(self) -> np.ndarray:
        """The input of a network: float32, H×W×3, sRGB, [0, 1]; gray images have three equal channels."""
        height, width = self.size
        out = np.empty((height, width, 3), np.float32)
        profile = self.profile
        for rows in _row_blocks(height, width):
            values = self._unit(self.pixels[rows])
            if profile is not None:
                values = profile.to_srgb(values.reshape(-1, values.shape[2])).reshape(*values.shape[:2], 3)
            out[rows] = values
        return out

    def in_srgb(self) -> DecodedImage:
        """The image with its pixels converted to sRGB, in the same depth; gray stays gray."""
        values = self.to_srgb()[:, :, : self.pixels.shape[2]]
        pixels = _as_type(self._from_unit(values), self.pixels.dtype)
        return replace(self, pixels=pixels, icc=None, stated_colors=None)

    def in_color(self) -> DecodedImage:
        """The image with three channels, so that a repair can add color; a gray one with a profile becomes sRGB."""
        if not self.gray:
            return self
        if self.icc is None:
            return replace(self, pixels=np.repeat(self.pixels, 3, axis=2))
        pixels = _as_type(self._from_unit(self.to_srgb()), self.pixels.dtype)
        passthrough = self.passthrough
        if self.format == "png" and self.stated_colors is not None:
            passthrough = png.without_colors(passthrough)
        return replace(self, pixels=pixels, icc=None, stated_colors=None, passthrough=passthrough)

    def is_neutral(self, mask: np.ndarray | None = None) -> bool:
        """Whether the channels of all pixels are equal, but for rounding: a black-and-white image stored in color.

        Args:
            mask: H×W; what it covers may be damage and does not count, unless it covers half of the image and more.
        """
        if self.gray:
            return True
        if mask is not None and 2 * np.count_nonzero(mask) >= mask.size:
            mask = None
        few = self.pixels[::_SAMPLED, ::_SAMPLED]
        if not self._is_neutral(few, None if mask is None else mask[::_SAMPLED, ::_SAMPLED]):
            return False
        blocks = _row_blocks(*self.size)
        return all(self._is_neutral(self.pixels[rows], None if mask is None else mask[rows]) for rows in blocks)

    def _is_neutral(self, pixels: np.ndarray, mask: np.ndarray | None) -> bool:
        # NaN counts as colored.
        limit = np.float32(NEUTRAL * (self.white - self.black))
        close = np.abs(pixels[:, :, 1:] - pixels[:, :, :1].astype(np.float32)) <= limit
        return bool((close if mask is None else close[mask == 0]).all())

    def blend(
        self,
        repaired: np.ndarray,
        mask: np.ndarray | None = None,
        *,
        strength: float = 1,
        neutral: bool | None = None,
    ) -> DecodedImage:
        """Blend a repair into this image, in the image's own color space and depth.

        Pixels where the mask is 0 keep their exact values. With a color profile, or in float, the change is added to
        the source, so that colors outside sRGB survive where little changes. Gray images stay gray (the mean of the
        channels), and so do neutral ones.

        Args:
            repaired: float32, H'×W'×3, sRGB, [0, 1]. If its size differs (an upscaled image), alpha is resized to it,
                and no mask is allowed.
            mask: float32, H×W, [0, 1]: 1 = the repair, 0 = the source; None = 1 everywhere.
            strength: [0, 1], multiplies the mask.
            neutral: the channels of changed pixels become equal; None: as `is_neutral` says. For parts of an image.

        Raises:
            ValueError: the shapes do not match, or a mask or strength is given for an upscaled image.
        """
        if repaired.ndim != 3 or repaired.shape[2] != 3:
            raise ValueError(f"a repaired image has shape H×W×3, got {repaired.shape}")
        if repaired.shape[:2] != self.size:
            if mask is not None or strength != 1:
                raise ValueError(f"mask and strength need the size of the image {self.size}, got {repaired.shape[:2]}")
            return self._upscaled(repaired, neutral=self.is_neutral() if neutral is None else neutral)
        if mask is not None and mask.shape != self.size:
            raise ValueError(f"the mask has shape {mask.shape}, the image {self.size}")
        if neutral is None:
            neutral = self.is_neutral(mask)
        if strength != 1:
            mask = np.broadcast_to(np.float32(strength), self.size) if mask is None else mask * np.float32(strength)
        out = self.pixels.copy() if mask is not None else np.empty_like(self.pixels)
        profile = self.profile
        for rows in _row_blocks(*self.size):
            selected = None if mask is None else mask[rows] > 0
            if selected is None or selected.all():
                source = self.pixels[rows].reshape(-1, self.pixels.shape[2])
                values = None if mask is None else mask[rows].reshape(-1)
                mixed = self._mix(source, repaired[rows].reshape(-1, 3), values, profile, neutral=neutral)
                out[rows] = mixed.reshape(self.pixels[rows].shape)
            elif selected.any():
                assert mask is not None
                out[rows][selected] = self._mix(
                    self.pixels[rows][selected],
                    repaired[rows][selected],
                    mask[rows][selected],
                    profile,
                    neutral=neutral,
                )
        return replace(self, pixels=out)

    def _mix(
        self,
        source: np.ndarray,
        repaired: np.ndarray,
        mask: np.ndarray | None,
        profile: Profile | None,
        *,
        neutral: bool,
    ) -> np.ndarray:
        """N×C source values, N×3 repaired sRGB values, N mask values (None = 1) -> N×C values like the source's."""
        colored = source.shape[1] == 3
        if profile is None:
            values = repaired if colored else _mean(repaired)
            if mask is None and source.dtype != np.float32 and not (neutral and colored):
                return _as_type(self._from_unit(values), source.dtype)
            before = self._unit(source)
            seen = np.clip(before, 0, 1) if source.dtype == np.float32 else before
        else:
            before = self._unit(source)
            seen, values = profile.from_srgb(profile.to_srgb(before)), profile.from_srgb(repaired)
        change = values - seen  # the change to what the network saw of the source
        if source.dtype == np.float32 or profile is not None:
            beyond = before - seen  # what the network could not see: colors outside sRGB, values above white
            largest = np.abs(change[:, 0])
            for channel in range(1, change.shape[1]):
                np.maximum(largest, np.abs(change[:, channel]), out=largest)
            beyond *= np.minimum(largest / np.float32(_REPLACED), 1)[:, None]
            change -= beyond
        if mask is not None:
            change *= mask[:, None]
        after = before + change
        if neutral and colored:
            # Channels that differ by rounding keep their differences, so that unchanged pixels stay as they are.
            was_neutral = np.ptp(before, axis=1, keepdims=True) <= np.float32(NEUTRAL)
            after = np.where(was_neutral, before + _mean(change), _mean(after))
        return _as_type(self._from_unit(after), source.dtype)

    def _unit(self, values: np.ndarray) -> np.ndarray:
        """Values as float32, white = 1. In float images NaN and negative infinity become black, infinity white."""
        if self.black:
            values = values - np.float32(self.black)
        unit: np.ndarray = np.divide(values, np.float32(self.white - self.black), dtype=np.float32)
        return np.nan_to_num(unit, copy=False, nan=0.0, posinf=1.0, neginf=0.0) if values.dtype == np.float32 else unit

    def _from_unit(self, values: np.ndarray) -> np.ndarray:
        """The reverse of `_unit`, not rounded."""
        own: np.ndarray = values * np.float32(self.white - self.black)
        return own + np.float32(self.black) if self.black else own

    def _upscaled(self, repaired: np.ndarray, *, neutral: bool) -> DecodedImage:
        height, width = repaired.shape[:2]
        profile = self.profile
        values = repaired.reshape(-1, 3)
        if profile is not None:
            values = profile.from_srgb(values)
        elif self.gray:
            values = _mean(values)
        if (beyond := self._beyond_srgb(profile)) is not None:
            values = values + _resized(beyond, (height, width)).reshape(values.shape)
        if neutral and not self.gray:
            values = np.repeat(_mean(values), 3, axis=1)
        pixels = _as_type(self._from_unit(values), self.pixels.dtype).reshape(height, width, -1)
        alpha = None if self.alpha is None else _resized(self.alpha, (height, width))
        infrared = self.infrared
        if infrared is not None:
            channel = _resized(infrared.pixels[:, :, 0], (height, width))[:, :, None]
            infrared = replace(infrared, pixels=channel).with_metadata_for((height, width))
        return replace(self, pixels=pixels, alpha=alpha, infrared=infrared).with_metadata_for((height, width))

    def _beyond_srgb(self, profile: Profile | None) -> np.ndarray | None:
        """The part that no model sees, H×W×C: colors outside sRGB, values beyond black and white; None: nothing."""
        if profile is None and self.pixels.dtype != np.float32:
            return None
        before = self._unit(self.pixels.reshape(-1, self.pixels.shape[2]))
        beyond = before - (np.clip(before, 0, 1) if profile is None else profile.from_srgb(profile.to_srgb(before)))
        beyond[np.abs(beyond) < np.float32(_BEYOND)] = 0
        return beyond.reshape(self.pixels.shape) if beyond.any() else None

    def with_metadata_for(self, size: tuple[int, int]) -> DecodedImage:
        """The image with metadata for another size, (H, W); its resolution stays, so it is printed larger."""
        passthrough, notes = self.passthrough, self.notes
        if self.format == "tiff" and passthrough != (passthrough := tiff.without_places(passthrough)):
            notes = [*notes, "GeoTIFF tags are left out, because the image has another size"]
        exif = None if self.exif is None else upright_exif(self.exif, size)
        xmp = None if self.xmp is None else upright_xmp(self.xmp, size, reoriented=False)
        return replace(self, exif=exif, xmp=xmp, passthrough=passthrough, notes=notes)


def _mean(rgb: np.ndarray) -> np.ndarray:
    """N×3 -> N×1. The mean of three equal numbers is exactly that number, unlike their sum divided by three."""
    first = rgb[:, :1]
    mean: np.ndarray = first + (rgb[:, 1:] - first).sum(axis=1, keepdims=True) / np.float32(3)
    return mean


def _row_blocks(height: int, width: int) -> list[slice]:
    step = max(_BLOCK // max(width, 1), 1)
    return [slice(top, min(top + step, height)) for top in range(0, height, step)]


def _as_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Rounded and clipped for integer types, unchanged for float."""
    if dtype == np.float32:
        return values.astype(np.float32, copy=False)
    top = np.iinfo(dtype).max
    values = np.rint(values)
    np.fmax(values, 0, out=values)  # unlike np.clip, fmax replaces NaN
    np.fmin(values, top, out=values)
    return values.astype(dtype)


def _resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Values H×W, or H×W×C, interpolated between pixels."""
    import pyvips

    height, width = values.shape[:2]
    image = pyvips.Image.new_from_array(values.astype(np.float32))
    bigger = image.resize(size[1] / width, vscale=size[0] / height, kernel="linear").numpy()
    bigger = bigger.reshape(*bigger.shape[:2], *values.shape[2:])[: size[0], : size[1]]
    return _as_type(np.ascontiguousarray(bigger), values.dtype)
