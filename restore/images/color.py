"""Color conversion to sRGB: of images with a color profile in both directions, of CMYK images on reading.

Profiles made of a matrix and three curves (Display P3, Adobe RGB, ProPhoto, ...), or of one curve of gray, are computed
here in floating point, because LittleCMS would round every image twice, to 8 or 16 bits. Profiles made of tables go
through LittleCMS (in libvips) at 16 bits; those with tables for the conversion to sRGB alone are inverted numerically.
Everything is relative colorimetric. The structure of profiles is that of ICC.1:2022, sections 8 to 10.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import pyvips
from PIL import Image, ImageCms

from restore.images.inverse_profile import InverseProfile

Curve = Callable[[np.ndarray], np.ndarray]

#: sRGB's primaries adapted to D50, as in the ICC's own sRGB v4 profiles (s15Fixed16 numbers).
SRGB_TO_XYZ = np.array(
    [
        [0.43606567, 0.38514709, 0.14306641],
        [0.22248840, 0.71687317, 0.06060791],
        [0.01391602, 0.09707642, 0.71409607],
    ]
)
#: Entries of the tables that decode (by the encoded value) and encode (by the square root of linear light). Tables of
#: 256 KiB stay in the CPU's cache. Encoding by the root keeps neighboring entries within 1.5 steps of 16 bits, because
#: the root is close to the curves of all known profiles.
_CODES = _ROOTS = 1 << 16
#: Pixels that are converted at once, so that intermediate arrays stay in the CPU's cache.
_BLOCK = 1 << 14
#: A profile that differs from sRGB by less than this is taken as sRGB.
_SAME = 0.5 / 255


class Profile(Protocol):
    """Converts N×C values in [0, 1] (C = 1 or 3) to N×3 sRGB values in [0, 1] and back, float32."""

    def to_srgb(self, values: np.ndarray) -> np.ndarray:
        """To sRGB; colors outside sRGB are clipped."""

    def from_srgb(self, srgb: np.ndarray) -> np.ndarray:
        """From sRGB; gray profiles take the mean of the channels."""


@lru_cache(maxsize=32)
def open_profile(icc: bytes, channels: int) -> Profile | None:
    """The conversion for a profile, or None if it is sRGB (within half an 8-bit step).

    Args:
        icc: the profile's bytes.
        channels: 1 (gray) or 3 (RGB).

    Raises:
        ValueError: the profile is broken, or is for images with other channels.
    """
    if len(icc) < 132 or icc[36:40] != b"acsp":
        raise ValueError("the color profile is broken")
    if icc[16:20] != {1: b"GRAY", 3: b"RGB "}[channels]:
        kind = icc[16:20].decode("latin-1").strip()
        known = kind.isascii() and kind.isalnum()  # as all color spaces of the specification
        raise ValueError(f"the color profile is for {kind} images" if known else "the color profile is broken")
    levels = np.linspace(0, 1, 9, dtype=np.float32)
    grid = np.stack(np.meshgrid(*[levels] * channels, indexing="ij"), axis=-1).reshape(-1, channels)
    try:
        with np.errstate(all="ignore"):  # whose results are checked below
            profile = _profile_of(icc, channels)
            in_srgb = profile.to_srgb(grid)
            if not isinstance(profile, _OneWayProfile):  # its inversion takes a second
                profile.from_srgb(in_srgb)
    except (KeyError, struct.error, IndexError, np.linalg.LinAlgError) as error:
        raise ValueError("the color profile is broken") from error
    if not np.isfinite(in_srgb).all():
        raise ValueError("the color profile is broken")
    return None if np.abs(in_srgb - grid).max() < _SAME else profile


def _profile_of(icc: bytes, channels: int) -> Profile:
    tags = _tags(icc)
    if any(name in tags for name in (b"A2B0", b"A2B1", b"D2B1")) or icc[20:24] != b"XYZ ":
        both_ways = any(name[:3] in (b"B2A", b"B2D") for name in tags)
        return _TableProfile(icc, channels) if both_ways else _OneWayProfile(icc, channels)
    if channels == 1:
        return _GrayProfile(_curve(tags[b"kTRC"]))
    matrix = np.stack([_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], axis=1)
    return _MatrixProfile(matrix, [tags[name] for name in (b"rTRC", b"gTRC", b"bTRC")])


class _MatrixProfile:
    def __init__(self, to_xyz: np.ndarray, curve_tags: list[bytes]) -> None:
        to_linear_srgb = np.linalg.inv(SRGB_TO_XYZ) @ to_xyz
        self._matrix = np.ascontiguousarray(to_linear_srgb.T, dtype=np.float32)
        self._back = np.ascontiguousarray(np.linalg.inv(to_linear_srgb).T, dtype=np.float32)
        # Most profiles have three equal curves. Then the tables are one object, looked up for all channels at once.
        tables = {tag: (_decoding_table(_curve(tag)), _encoding_table(_curve(tag))) for tag in set(curve_tags)}
        self._decoding = [tables[tag][0] for tag in curve_tags]
        self._encoding = [tables[tag][1] for tag in curve_tags]

    def to_srgb(self, values: np.ndarray) -> np.ndarray:
        encode = [_srgb_tables()[1]] * 3
        return _in_blocks(values, 3, lambda block: _encode(_decode(block, self._decoding) @ self._matrix, encode))

    def from_srgb(self, srgb: np.ndarray) -> np.ndarray:
        decode = [_srgb_tables()[0]] * 3
        return _in_blocks(srgb, 3, lambda block: _encode(_decode(block, decode) @ self._back, self._encoding))


class _GrayProfile:
    def __init__(self, curve: Curve) -> None:
        self._decoding, self._encoding = [_decoding_table(curve)], [_encoding_table(curve)]

    def to_srgb(self, values: np.ndarray) -> np.ndarray:
        encode = [_srgb_tables()[1]]
        gray = _in_blocks(values, 1, lambda block: _encode(_decode(block, self._decoding), encode))
        return np.repeat(gray, 3, axis=1)

    def from_srgb(self, srgb: np.ndarray) -> np.ndarray:
        decode = [_srgb_tables()[0]]
        gray = srgb.mean(axis=1, keepdims=True)
        return _in_blocks(gray, 1, lambda block: _encode(_decode(block, decode), self._encoding))


class _TableProfile:
    """A profile made of tables, converted by LittleCMS at 16 bits."""

    def __init__(self, icc: bytes, channels: int) -> None:
        self._icc, self._channels = icc, channels

    def to_srgb(self, values: np.ndarray) -> np.ndarray:
        return _in_blocks(values, 3, self._import)

    def from_srgb(self, srgb: np.ndarray) -> np.ndarray:
        return _in_blocks(srgb, self._channels, self._export)

    def _import(self, block: np.ndarray) -> np.ndarray:
        with _as_value_error():
            image = _with_profile(_as_image(block), self._icc)
            in_srgb = image.icc_transform("srgb", embedded=True, intent="relative", depth=16)
            return _as_values(in_srgb, len(block))

    def _export(self, block: np.ndarray) -> np.ndarray:
        with _as_value_error():
            lab = _as_image(block).icc_import(input_profile="srgb", intent="relative")
            own = _with_profile(lab, self._icc).icc_export(intent="relative", depth=16)
            return _as_values(own, len(block))


class _OneWayProfile(_TableProfile):
    """A profile with tables for the way to sRGB alone, as those of scanners and cameras."""

    def __init__(self, icc: bytes, channels: int) -> None:
        super().__init__(icc, channels)
        self._inverse = InverseProfile(self._import, self._to_lab, _srgb_to_lab, channels)

    def from_srgb(self, srgb: np.ndarray) -> np.ndarray:
        return _in_blocks(srgb, self._channels, self._inverse)

    def _to_lab(self, values: np.ndarray) -> np.ndarray:
        with _as_value_error():
            image = _with_profile(_as_image(values), self._icc)
            lab: np.ndarray = image.icc_import(embedded=True, intent="relative", pcs="lab").numpy()
            return lab.reshape(-1, 3)[: len(values)].astype(np.float64)


def _srgb_to_lab(srgb: np.ndarray) -> np.ndarray:
    """N×3 sRGB values in [0, 1] to CIE Lab of D50."""
    xyz = _decode(srgb.astype(np.float32), [_srgb_tables()[0]] * 3).astype(np.float64) @ SRGB_TO_XYZ.T
    xyz /= SRGB_TO_XYZ.sum(axis=1)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@contextmanager
def _as_value_error() -> Iterator[None]:
    try:
        yield
    except (pyvips.Error, UnicodeDecodeError) as error:
        raise ValueError("the color profile is broken") from error


def _as_image(block: np.ndarray) -> Any:
    codes = np.rint(np.clip(block, 0, 1) * 65535).astype(np.uint16)
    rows = -(-len(codes) // 256)
    codes = np.concatenate([codes, np.zeros((rows * 256 - len(codes), codes.shape[1]), np.uint16)])
    image = pyvips.Image.new_from_memory(codes.tobytes(), 256, rows, codes.shape[1], "ushort")
    return image.copy(interpretation="rgb16" if codes.shape[1] == 3 else "grey16")


def _with_profile(image: Any, icc: bytes) -> Any:
    image = image.copy()
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    return image


def _as_values(image: Any, count: int) -> np.ndarray:
    values: np.ndarray = image.numpy().reshape(-1, image.bands)
    return values[:count].astype(np.float32) / np.float32(65535)


def _in_blocks(values: np.ndarray, channels: int, convert: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    out = np.empty((len(values), channels), np.float32)
    for start in range(0, len(values), _BLOCK):
        out[start : start + _BLOCK] = convert(values[start : start + _BLOCK])
    return out


def _decode(values: np.ndarray, tables: list[np.ndarray]) -> np.ndarray:
    return _looked_up(np.multiply(values, np.float32(_CODES - 1)), tables)


def _encode(linear: np.ndarray, tables: list[np.ndarray]) -> np.ndarray:
    roots = np.fmax(linear, 0, out=linear)
    np.sqrt(roots, out=roots)
    roots *= np.float32(_ROOTS - 1)
    return _looked_up(roots, tables)


def _looked_up(steps: np.ndarray, tables: list[np.ndarray]) -> np.ndarray:
    """Table values at N×C steps, which are rounded and clipped to the tables. Overwrites `steps`."""
    steps += np.float32(0.5)
    np.fmax(steps, 0, out=steps)
    np.fmin(steps, np.float32(_CODES - 1), out=steps)
    codes = steps.astype(np.intp)
    if all(table is tables[0] for table in tables):
        return tables[0].take(codes, mode="clip")
    out = np.empty(steps.shape, np.float32)
    for i, table in enumerate(tables):
        out[:, i] = table.take(codes[:, i], mode="clip")
    return out


def _decoding_table(curve: Curve) -> np.ndarray:
    """Table from the encoded value to linear light."""
    return np.clip(curve(np.linspace(0, 1, _CODES)), 0, 1).astype(np.float32)


def _encoding_table(curve: Curve) -> np.ndarray:
    """Table from the square root of linear light to the encoded value: the inverse of the curve."""
    values = np.linspace(0, 1, _CODES)
    linear = np.maximum.accumulate(np.clip(curve(values), 0, 1))
    return np.interp(np.linspace(0, 1, _ROOTS) ** 2, linear, values).astype(np.float32)


@lru_cache(maxsize=1)
def _srgb_tables() -> tuple[np.ndarray, np.ndarray]:
    def curve(x: np.ndarray) -> np.ndarray:  # IEC 61966-2-1
        return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)

    return _decoding_table(curve), _encoding_table(curve)


def _tags(icc: bytes) -> dict[bytes, bytes]:
    count = min(struct.unpack_from(">I", icc, 128)[0], 200)
    tags = {}
    for i in range(count):
        if 132 + 12 * i + 12 > len(icc):
            break
        name, at, size = struct.unpack_from(">4sII", icc, 132 + 12 * i)
        tags[name] = icc[at : at + size]
    return tags


def _xyz(tag: bytes) -> np.ndarray:
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


def _curve(tag: bytes) -> Curve:
    """A tone curve, encoded -> linear: `curv` (a gamma or a table) or `para` (ICC.1:2022, 10.6 and 10.18)."""
    if tag[:4] == b"curv":
        count = struct.unpack_from(">I", tag, 8)[0]
        if count == 0:
            return lambda x: x
        if count == 1:
            gamma = struct.unpack_from(">H", tag, 12)[0] / 256
            return lambda x: x**gamma
        table = np.array(struct.unpack_from(f">{count}H", tag, 12)) / 65535
        return lambda x: np.interp(x, np.linspace(0, 1, count), table)
    if tag[:4] != b"para":
        raise KeyError("curve")
    kind = struct.unpack_from(">H", tag, 8)[0]
    g, a, b, c, d, e, f = (*_numbers(tag, (1, 3, 4, 5, 7)[kind]), *[0.0] * 7)[:7]

    def parametric(x: np.ndarray) -> np.ndarray:
        if kind == 0:
            return x**g
        power = np.maximum(a * x + b, 0) ** g
        if kind in (1, 2):
            rest = c if kind == 2 else 0.0
            return np.where(a * x >= -b, power + rest, rest)
        return np.where(x >= d, power + (e if kind == 4 else 0.0), c * x + (f if kind == 4 else 0.0))

    return parametric


def _numbers(tag: bytes, count: int) -> tuple[float, ...]:
    return tuple(value / 65536 for value in struct.unpack_from(f">{count}i", tag, 12))


# CMYK to sRGB by LittleCMS: relative colorimetric, without black point compensation


def cmyk8_to_srgb(image: Any, icc: bytes) -> Any:
    """Convert CMYK of 8 bits to sRGB.

    This uses Pillow's LittleCMS, because that of libvips is off by one in a pixel of 200. In dark colors, one step is
    a ΔE of more than 1.

    Args:
        image: a `pyvips.Image` with four bands or more, 8 bits; other bands stay unchanged.
        icc: a profile for CMYK.

    Raises:
        ValueError: the profile is broken, or not for CMYK.
    """
    inks = np.ascontiguousarray(image[:4].numpy())
    size = (image.width, image.height)
    try:
        converted = ImageCms.profileToProfile(
            Image.frombuffer("CMYK", size, inks.tobytes(), "raw", "CMYK", 0, 1),
            io.BytesIO(icc),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError) as error:
        raise ValueError("the color profile is broken") from error
    assert converted is not None  # it returns None only for a conversion in place
    rgb = pyvips.Image.new_from_memory(converted.tobytes(), *size, 3, "uchar").copy(interpretation="srgb")
    return rgb.bandjoin(image[4:]) if image.bands > 4 else rgb


def cmyk16_to_srgb(image: Any, icc: bytes) -> Any:
    """`cmyk8_to_srgb` for 16 bits, which Pillow does not support, with the LittleCMS of libvips."""
    image = image.copy()
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    try:
        return image.icc_transform("srgb", embedded=True, intent="relative", depth=16)
    except pyvips.Error as error:
        raise ValueError("the color profile is broken") from error
