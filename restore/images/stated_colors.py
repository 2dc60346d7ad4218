"""Color profiles of what a file says about its colors without one: by code points, gamma, primaries or EXIF.

Code points are those of ITU-T H.273, in AVIF, HEIC and the cICP chunk of a PNG; gAMA and cHRM are older chunks of PNG.
The profiles are of ICC.1:2022: a matrix and one curve.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from restore.images.metadata.heif import HeifHeader
from restore.images.metadata.png import PngColors

Primaries = tuple[float, ...]  # x and y of white, red, green and blue, in the order of cHRM

_D65, _C, _E = (0.3127, 0.3290), (0.310, 0.316), (1 / 3, 1 / 3)
_SRGB: Primaries = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ADOBE_RGB: Primaries = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_SMPTE_170M: Primaries = (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)
#: H.273, table 2.
_PRIMARIES: dict[int, Primaries] = {
    1: _SRGB,
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: _SMPTE_170M,
    7: _SMPTE_170M,
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
#: H.273, table 3, as parametric curves: the gamma alone, or g, a, b, c and d of ICC.1:2022, table 68, function 3.
_VIDEO = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_CURVES: dict[int, tuple[float, ...]] = {
    1: _VIDEO, 6: _VIDEO, 11: _VIDEO, 14: _VIDEO, 15: _VIDEO,
    4: (2.2,),
    5: (2.8,),
    7: (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0913),
    8: (1.0,),
    13: _SRGB_CURVE,
    17: (2.6,),
}  # fmt: skip
_PQ, _HLG = 16, 18
_HDR = {_PQ: "PQ", _HLG: "HLG"}
_UNSPECIFIED = 2
#: What AVIF and HEIC mean without a statement (ISO/IEC 23000-22, 7.3.6.4).
_DEFAULT = (1, 13)

#: Gammas within 5 % of sRGB's 1/2.2 stand for sRGB's own curve, as in libpng.
_SRGB_GAMMA, _SAME_GAMMA = 2.2, 0.05
#: Luminance of white in cd/m², and where the compression of brighter light begins, as a part of it (ITU-R BT.2408).
_HDR_WHITE, _KNEE = 203.0, 0.8
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


@dataclass(frozen=True)
class StatedColors:
    """Colors that a file states without a profile.

    Attributes:
        code_points: (color primaries, transfer characteristics) of H.273, if they are stated by these.
        hdr: `PQ`, `HLG` or `film density`; "" for images without highlights brighter than white.
        beyond_srgb: a conversion to sRGB would lose colors.
        by_exif: they are stated in the EXIF block, and lost with it.
    """

    code_points: tuple[int, int] | None = None
    hdr: str = ""
    beyond_srgb: bool = False
    by_exif: bool = False


def colors_of_heif(header: HeifHeader, *, gray: bool, notes: list[str]) -> tuple[bytes, StatedColors] | None:
    """A profile of the code points of an AVIF or HEIC; None: none are stated, or sRGB."""
    if header.code_points is None:
        return None
    return _of_code_points(header.code_points, gray=gray, notes=notes)


def adobe_rgb() -> tuple[bytes, StatedColors]:
    """A profile of Adobe RGB (1998), which cameras state in EXIF alone."""
    icc = _profile(_ADOBE_RGB, _parametric((563 / 256,)), gray=False, name="Compatible with Adobe RGB (1998)")
    return icc, StatedColors(beyond_srgb=True, by_exif=True)


def colors_of_png(stated: PngColors, *, gray: bool, notes: list[str]) -> tuple[bytes, StatedColors] | None:
    """A profile of the chunks of a PNG, cICP before sRGB before gAMA and cHRM (PNG, third edition, 4.3).

    Args:
        stated: the chunks.
        gray: the image has one channel besides alpha.
        notes: gets a note on a statement that is not understood, and on HDR.

    Returns:
        The profile, and what it stands for; None: nothing is stated, or sRGB.
    """
    if stated.code_points is not None:
        if stated.matrix == 0 and stated.full_range:
            return _of_code_points(stated.code_points, gray=gray, notes=notes)
        notes.append("its cICP chunk is for video, not for RGB; the chunk is ignored")
    if stated.srgb or (stated.gamma is None and stated.chromaticities is None):
        return None
    curve: tuple[float, ...] = _SRGB_CURVE
    if stated.gamma is not None:
        gamma = 1 / stated.gamma if stated.gamma else 0.0
        if not 0.1 <= gamma <= 10:
            notes.append("its gAMA chunk is broken; the image is taken as sRGB")
            return None
        curve = _SRGB_CURVE if abs(gamma / _SRGB_GAMMA - 1) <= _SAME_GAMMA else (gamma,)
    primaries = stated.chromaticities or _SRGB
    try:
        icc = _profile(primaries, _parametric(curve), gray=gray, name="Colors of PNG chunks")
    except (ValueError, np.linalg.LinAlgError):
        notes.append("its cHRM chunk is broken; the chunk is ignored")
        primaries = _SRGB
        icc = _profile(primaries, _parametric(curve), gray=gray, name="Colors of PNG chunks")
    return icc, StatedColors(beyond_srgb=not gray and not _is_srgb(primaries))


def colors_of_tiff(primaries: Primaries, notes: list[str]) -> tuple[bytes, StatedColors] | None:
    """A profile of the white point and the primaries of a TIFF, with the curve of sRGB; None: they are those of sRGB.

    Args:
        primaries: x and y of white, red, green and blue.
        notes: gets a note on primaries that make no color space.
    """
    if _is_srgb(primaries):
        return None
    try:
        icc = _profile(primaries, _parametric(_SRGB_CURVE), gray=False, name="Colors of TIFF tags")
    except (ValueError, OverflowError, np.linalg.LinAlgError):
        notes.append("its tags on primary colors are broken; the image is taken as sRGB")
        return None
    return icc, StatedColors(beyond_srgb=True)


def film_density(*, gray: bool) -> tuple[bytes, StatedColors]:
    """A profile of the densities of a scanned negative, as DPX holds them."""
    icc = _profile(_SRGB, _density_curve(), gray=gray, name="Densities of film")
    return icc, StatedColors(hdr="film density", beyond_srgb=True)


def linear_light(*, gray: bool) -> tuple[bytes, StatedColors]:
    """A profile of light with the primaries of sRGB."""
    icc = _profile(_SRGB, _parametric(_CURVES[8]), gray=gray, name="Linear light", code_points=(1, 8))
    return icc, StatedColors((1, 8))


def _is_srgb(primaries: Primaries) -> bool:
    return max(abs(one - other) for one, other in zip(primaries, _SRGB)) <= 0.002


def _of_code_points(code_points: tuple[int, int], *, gray: bool, notes: list[str]) -> tuple[bytes, StatedColors] | None:
    primaries, transfer = (
        default if code == _UNSPECIFIED else code for code, default in zip(code_points, _DEFAULT, strict=True)
    )
    stated = (primaries, transfer)
    if primaries not in _PRIMARIES or (transfer not in _CURVES and transfer not in _HDR):
        notes.append(f"its code points of colors {primaries}/{transfer} are not supported; the image is taken as sRGB")
        return None
    if stated == _DEFAULT:
        return None
    hdr = _HDR.get(transfer, "")
    if hdr:
        notes.append(f"an HDR image ({hdr}): the model sees it with its highlights compressed to the range of sRGB")
    curve = _hdr_curve(transfer) if hdr else _parametric(_CURVES[transfer])
    icc = _profile(_PRIMARIES[primaries], curve, gray=gray, name=f"Colors {primaries}/{transfer}", code_points=stated)
    return icc, StatedColors(stated, hdr, bool(hdr) or (not gray and primaries != 1))


# Profiles


def _profile(
    primaries: Primaries, curve: bytes, *, gray: bool, name: str, code_points: tuple[int, int] | None = None
) -> bytes:
    """A profile of version 4.

    Raises:
        ValueError, LinAlgError: the primaries make no color space.
    """
    tags = [(b"desc", _text(name)), (b"cprt", _text("None")), (b"wtpt", _xyz(_D50))]
    if gray:
        tags.append((b"kTRC", curve))
    else:
        to_xyz, adaptation = _matrices(primaries)
        tags += [(key + b"XYZ", _xyz(column)) for key, column in zip((b"r", b"g", b"b"), to_xyz.T)]
        tags += [(key + b"TRC", curve) for key in (b"r", b"g", b"b")]
        tags.append((b"chad", b"sf32" + bytes(4) + _fixed(adaptation.ravel())))
        if code_points is not None:
            tags.append((b"cicp", b"cicp" + bytes(4) + bytes([*code_points, 0, 1])))
    table, body, positions = b"", b"", dict[bytes, int]()
    start = 128 + 4 + 12 * len(tags)
    for key, content in tags:
        if content not in positions:
            positions[content] = start + len(body)
            body += content + bytes(-len(content) % 4)
        table += struct.pack(">4sII", key, positions[content], len(content))
    space = b"GRAY" if gray else b"RGB "
    head = struct.pack(
        ">I4xI4s4s4s6H4s", start + len(body), 0x04400000, b"mntr", space, b"XYZ ", 2026, 1, 1, 0, 0, 0, b"acsp"
    )
    head = head.ljust(68, b"\0") + _fixed(_D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _matrices(primaries: Primaries) -> tuple[np.ndarray, np.ndarray]:
    """RGB to XYZ of D50, and the adaptation of white to D50 (Bradford)."""
    if min(primaries[1::2]) <= 0:
        raise ValueError("a primary has no luminance")
    white, *columns = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in zip(primaries[::2], primaries[1::2]))
    matrix = np.stack(columns, axis=1)
    matrix = matrix * np.linalg.solve(matrix, white)
    cones = _BRADFORD @ _D50 / (_BRADFORD @ white)
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD
    to_xyz = adaptation @ matrix
    if not (np.isfinite(to_xyz).all() and abs(to_xyz).max() < 100 and abs(np.linalg.det(to_xyz)) > 1e-3):
        raise ValueError("the primaries lie on a line")
    return to_xyz, adaptation


def _hdr_curve(transfer: int) -> bytes:
    """The display light of PQ or HLG per channel, highlights compressed into [0, 1], as a table of 4,096 values.

    Light of less than 80 % of white stays, so that what an SDR image can show looks the same. HLG is shown on a display
    of 1,000 cd/m², its system gamma of 1.2 applied to each channel (ITU-R BT.2100-2, tables 4 and 5).
    """
    signal = np.linspace(0, 1, 4096)
    if transfer == _PQ:
        root = signal ** (1 / 78.84375)
        light = 10000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = 1000 * np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12) ** 1.2
    return _compressed(light / _HDR_WHITE)


def _density_curve() -> bytes:
    """The light of film densities, highlights compressed into [0, 1], as a table of 4,096 values.

    In codes of 10 bits, each step is a density of 0.002 on a negative with a gamma of 0.6; black is 95 and white 685
    (Kodak, "Conversion of 10-bit Log Film Data To 8-bit Linear or Video Data for the Cineon Digital Film System",
    1995).
    """
    black, white = (10 ** (code * 0.002 / 0.6) for code in (95, 685))
    light = (10 ** (np.linspace(0, 1023, 4096) * 0.002 / 0.6) - black) / (white - black)
    return _compressed(np.maximum(light, 0))


def _compressed(light: np.ndarray) -> bytes:
    """A curve of 4,096 values of light, of which those above 80 % of white are compressed into [0.8, 1]."""
    above = np.maximum(light - _KNEE, 0) / (1 - _KNEE)
    shown = np.minimum(light, _KNEE) + (1 - _KNEE) * above / (1 + above) * (1 + above[-1]) / above[-1]
    return b"curv" + struct.pack(">4xI4096H", 4096, *np.rint(shown * 65535).astype(int).tolist())


def _parametric(numbers: tuple[float, ...]) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", 0 if len(numbers) == 1 else 3, 0) + _fixed(np.array(numbers))


def _fixed(values: np.ndarray) -> bytes:
    return struct.pack(f">{len(values)}i", *np.rint(values * 65536).astype(int).tolist())


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(values)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded
