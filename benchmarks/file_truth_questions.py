"""The questions of `file_truth.py`, answered by Pillow, OpenCV, tifffile, LittleCMS and the bytes of the files."""

from __future__ import annotations

import io
import logging
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import tifffile
from file_truth_inputs import (
    CAPTION,
    DESCRIPTION,
    PIXEL_SCALE,
    RESOURCE,
    SEGMENTS,
    TEXTS,
    TITLE,
    VIDEO,
    profile,
    scanner_profile,
    scene,
    twelve_bits,
)
from PIL import ExifTags, Image, ImageCms, ImageOps
from skimage.color import deltaE_ciede2000, rgb2lab

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it complains about files of the other programs

#: What the network changes: the 4×4 pixels in the top left corner. Lossy formats spread it over a block or two.
CORNER = 16


def opened(path: Path) -> Image.Image:
    """Decoded by Pillow."""
    image = Image.open(path)
    image.load()
    return image


def managed(image: Image.Image, icc: bytes | None = None) -> np.ndarray:
    """In sRGB, as a color-managed reader shows it: through the image's profile, relative colorimetric."""
    icc = icc or image.info.get("icc_profile")
    if icc is None:
        return np.asarray(image.convert("RGB"))
    shown = ImageCms.profileToProfile(
        image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB"),
        io.BytesIO(icc),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    )
    assert shown is not None  # not in place
    return np.asarray(shown)


def shown(path: Path) -> np.ndarray:
    """As `managed`, also by what PNG and AVIF state in chunks and code points, and by the profile of a BMP."""
    image, data = opened(path), path.read_bytes()
    icc = image.info.get("icc_profile")
    if path.suffix == ".bmp" and data[14:18] == struct.pack("<I", 124) and data[70:74] == b"DEBM":
        at, size = struct.unpack_from("<II", data, 14 + 112)
        icc = data[14 + at : 14 + at + size]
    if icc is None and (b"nclx\0\x0c\0\x0d" in data or b"cICP\x0c\x0d" in data):
        icc = profile("p3")
    if icc is None and path.suffix == ".png" and image.info.get("gamma") == 1.0:
        light = np.asarray(image.convert("RGB")) / 255.0
        return np.rint(255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))
    return managed(image, icc)


def far(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """CIEDE2000 between two images in sRGB of 0 to 255, without the corner."""
    if one.shape != other.shape:
        raise ValueError("another size")
    return np.asarray(deltaE_ciede2000(*(rgb2lab(values / 255.0) for values in (one, other)))[CORNER:, CORNER:])


def delta_e(name: str, target: str = "", *, worst: bool = True) -> Callable[[Path, Path], str]:
    """The largest CIEDE2000 between two files in a color-managed reader, or the mean."""

    def check(a: Path, b: Path) -> str:
        difference = far(shown(a / name), shown(b / (target or name)))
        return f"{difference.max() if worst else difference.mean():.1f}"

    return check


def numbered_profile(_: Path, b: Path) -> str:
    """The pieces of the source's profile all have the number 1; it is that of Display P3."""
    meant = managed(Image.fromarray(scene()), profile("p3"))
    return f"{far(meant, shown(b / 'numbers.jpg')).mean():.1f}"


def scanner_colors(_: Path, b: Path) -> str:
    """Through a table that leads one way."""
    meant = managed(Image.fromarray(scene()), scanner_profile())
    return f"{far(meant, shown(b / 'scanner.png')).max():.1f}"


def yes(answer: bool) -> str:
    """For the table."""
    return "yes" if answer else "no"


def same_orientation(a: Path, b: Path) -> str:
    """JPEG loses a little; a turned image is far off."""
    before, after = (
        np.asarray(ImageOps.exif_transpose(opened(folder / "turned.jpg")).convert("RGB")).astype(int)
        for folder in (a, b)
    )
    return yes(before.shape == after.shape and np.abs(before - after).mean() < 4)


def same_exif(_: Path, b: Path) -> str:
    """Tags of both directories."""
    exif = opened(b / "turned.jpg").getexif()
    return yes(exif.get(0x010F) == "A maker" and 0x9003 in exif.get_ifd(ExifTags.IFD.Exif))


def same_compression(a: Path, b: Path) -> str:
    """Quantisation tables and sampling factors."""
    before, after = opened(a / "turned.jpg"), opened(b / "turned.jpg")
    layers = [[part[1:3] for part in image.layer] for image in (before, after)]  # type: ignore[attr-defined]
    return yes(before.quantization == after.quantization and layers[0] == layers[1])  # type: ignore[attr-defined]


def levels(name: str) -> Callable[[Path, Path], str]:
    """Distinct values."""

    def check(_: Path, b: Path) -> str:
        data = np.frombuffer((b / name).read_bytes(), np.uint8)
        return f"{len(np.unique(cv2.imdecode(data, cv2.IMREAD_UNCHANGED))):,}"

    return check


def same_alpha(name: str) -> Callable[[Path, Path], str]:
    """A question about one file."""

    def check(a: Path, b: Path) -> str:
        before, after = (np.asarray(opened(folder / name).convert("RGBA"))[..., 3] for folder in (a, b))
        return yes(bool((before == after).all()))

    return check


def neutral(_: Path, b: Path) -> str:
    """How far the channels are apart."""
    values = np.asarray(opened(b / "neutral.png").convert("RGB")).astype(int)
    return str(np.ptp(values, axis=2).max())


def holds(name: str, part: bytes) -> Callable[[Path, Path], str]:
    """Whether the bytes are in the file."""
    return lambda _, b: yes(part in (b / name).read_bytes())


def same_tags(_: Path, b: Path) -> str:
    """IPTC of type LONG in either byte order, a title of Windows, a resource of Photoshop, a tag of GeoTIFF."""
    data = (b / "tags.tif").read_bytes()
    swapped = struct.pack(">3I", *struct.unpack("<3I", CAPTION))
    with tifffile.TiffFile(b / "tags.tif") as file:
        tag = file.pages[0].tags.get(33550)  # type: ignore[union-attr]
        scale = None if tag is None else tag.value
    found = CAPTION in data or swapped in data, TITLE in data, RESOURCE in data, scale == PIXEL_SCALE
    return str(sum(found))


def same_infrared(a: Path, b: Path) -> str:
    """The second page, which is marked as a mask."""
    with tifffile.TiffFile(a / "dust.tif") as before, tifffile.TiffFile(b / "dust.tif") as after:
        pages = [file.pages[1].asarray() for file in (before, after) if len(file.pages) > 1]
        return yes(len(pages) == 2 and np.array_equal(*pages))


def same_fourth(_: Path, b: Path) -> str:
    """The same values, and not declared as alpha."""
    with tifffile.TiffFile(b / "four.tif") as file:
        page = file.pages[0]
        extra = page.tags.get(338)  # type: ignore[union-attr]
        fourth = page.asarray()[..., 3] if page.samplesperpixel == 4 else None  # type: ignore[union-attr]
    if fourth is None or not np.array_equal(fourth, scene()[::-1, :, 0]):
        return "lost"
    return "transparency" if extra is not None and np.atleast_1d(extra.value)[0] in (1, 2) else "kept"


def deep_gray(_: Path, b: Path) -> str:
    """The largest difference of a gray TIFF, in levels of 4,095; a file of 12 bits is unpacked here."""
    with tifffile.TiffFile(b / "twelve.tif") as file:
        page = file.pages[0]
        bits = page.bitspersample  # type: ignore[union-attr]
        if bits != 12:
            values = page.asarray().astype(float)
        else:
            data = (b / "twelve.tif").read_bytes()
            strips = [data[at : at + size] for at, size in zip(page.dataoffsets, page.databytecounts)]
            if page.compression in (8, 32946):
                strips = [zlib.decompress(strip) for strip in strips]
            rows = np.frombuffer(b"".join(strips), np.uint8).reshape(96, -1)
            pairs = rows.reshape(96, -1, 3).astype(int)
            values = np.stack([pairs[..., 0] << 4 | pairs[..., 1] >> 4, (pairs[..., 1] & 15) << 8 | pairs[..., 2]], -1)
            values = values.reshape(96, 128).astype(float)
    values = values.reshape(96, 128, -1)[:, :, 0] * 4095 / ((1 << bits) - 1)
    return f"{np.abs(values - twelve_bits())[CORNER:, CORNER:].max():.0f}"


def deviation(name: str) -> Callable[[Path, Path], str]:
    """The largest difference from the scene, in levels; an image of another size has none."""

    def check(_: Path, b: Path) -> str:
        after = np.asarray(opened(b / name).convert("RGB")).astype(int)
        if after.shape != scene().shape:
            return "another image"
        return str(np.abs(after - scene())[CORNER:, CORNER:].max())

    return check


def gray_deviation(_: Path, b: Path) -> str:
    """The largest difference of a gray AVIF."""
    after = np.asarray(opened(b / "gray.avif").convert("L")).astype(int)
    return str(np.abs(after - scene()[:, :, 0])[CORNER:, CORNER:].max())


def unchanged(name: str) -> Callable[[Path, Path], str]:
    """The largest difference between two files."""

    def check(a: Path, b: Path) -> str:
        before, after = (np.asarray(opened(folder / name).convert("RGB")).astype(int) for folder in (a, b))
        return str(np.abs(after - before)[CORNER:, CORNER:].max())

    return check


def avif_bits(_: Path, b: Path) -> str:
    """What the `pixi` box of the first item says."""
    found = re.search(rb"pixi....[\1\3](.)", (b / "ten.avif").read_bytes(), re.DOTALL)
    return "?" if found is None else str(found[1][0])


def same_segments(_: Path, b: Path) -> str:
    """The markers with their contents."""
    data = (b / "segments.jpg").read_bytes()
    parts = (struct.pack(">BBH", 255, marker, len(body) + 2) + body for marker, body in SEGMENTS)
    return str(sum(part in data for part in parts))


def chunk_contents(path: Path) -> set[bytes]:
    """What the chunks of a PNG hold, texts without their compression; a text may have become another kind of text."""
    data, at, found = path.read_bytes(), 8, set()
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + size]
        if kind == b"zTXt":
            keyword, _, text = body.partition(b"\0")
            body = keyword + b"\0" + zlib.decompress(text[1:])
        elif kind == b"iTXt":
            keyword, _, rest = body.partition(b"\0")
            text = rest[2:].split(b"\0", 2)[2]
            body = keyword + b"\0" + (zlib.decompress(text) if rest[:1] == b"\1" else text)
        found.add(body)
        at += 12 + size
    return found


def same_texts(a: Path, b: Path) -> str:
    """Three texts, and a chunk that is safe to copy."""
    chunks = chunk_contents(b / "texts.png")
    wanted = chunk_contents(a / "texts.png")
    author = {b"Author\0J\xfcrgen", "Author\0Jürgen".encode()}  # Latin-1, or the same in UTF-8
    names = (b"Description", b"Title", TEXTS[3][1])
    same = [body for body in wanted if body.startswith(names)]
    return str(bool(author & chunks) + sum(body in chunks for body in same))


def same_gif(_: Path, b: Path) -> str:
    """A comment and an XMP packet, of two."""
    data = (b / "words.gif").read_bytes()
    return str((DESCRIPTION in data) + (b"XMP DataXMP" in data and b"attic" in data))


def motion(_: Path, b: Path) -> str:
    """The video lies where XMP says."""
    data = (b / "motion.jpg").read_bytes()
    promise = re.search(rb"MicroVideoOffset(?:>|=.)(\d+)", data)
    if promise is None:
        return "kept, XMP lost" if VIDEO in data else "lost"
    return "kept" if data[-int(promise[1]) :] == VIDEO else "lost, still named in XMP"


def densities(path: Path) -> list[tuple[int, float, float]]:
    """Unit, across and down, as JFIF and EXIF of a JPEG state them."""
    data, image = path.read_bytes(), opened(path)
    found = [] if data[6:11] != b"JFIF\0" else [struct.unpack_from(">BHH", data, 13)]
    exif = image.getexif()
    if 282 in exif:
        found.append((exif.get(296, 2) - 1, float(exif[282]), float(exif[283])))
    return found


def resolution(_: Path, b: Path) -> str:
    """All that are stated."""
    found = dict.fromkeys(f"{across:g}" for unit, across, _ in densities(b / "dpi.jpg") if unit == 1)
    return " and ".join(found) or "none"


def pixel_shape(_: Path, b: Path) -> str:
    """2:1 by JFIF."""
    return yes(any(across == 2 * down for _, across, down in densities(b / "aspect.jpg")))


def converted_words(_: Path, b: Path) -> str:
    """Artist in UTF-8, as exiftool writes it."""
    with tifffile.TiffFile(b / "words.tiff") as file:
        tag = file.pages[0].tags.get(315)  # type: ignore[union-attr]
        if tag is None:
            return "no"
        file.filehandle.seek(tag.valueoffset)
        return yes(file.filehandle.read(len(DESCRIPTION)) == DESCRIPTION)


QUESTIONS: tuple[tuple[str, Callable[[Path, Path], str]], ...] = (
    ("EXIF orientation 6: displayed the same way up", same_orientation),
    ("EXIF (maker, date) kept", same_exif),
    ("JPEG quality and subsampling as the source's", same_compression),
    ("application segments and comment of a JPEG kept, of 4", same_segments),
    ("a motion photo's video", motion),
    ("JFIF states 600 dpi, EXIF the default of 72: dpi in the output", resolution),
    ("pixel aspect ratio of 2:1 (JFIF) kept", pixel_shape),
    ("text chunks and another chunk of a PNG kept, of 4", same_texts),
    ("comment and XMP of a GIF kept, of 2", same_gif),
    ("Display P3 profile: largest ΔE in a color-managed reader", delta_e("wide.png")),
    ("a scanner's profile, with a table for one direction only: largest ΔE, likewise", scanner_colors),
    ("a JPEG's profile in wrongly numbered segments: mean ΔE", numbered_profile),
    ("a BMP's profile: largest ΔE", delta_e("wide.bmp")),
    ("Display P3 by code points in an AVIF: mean ΔE", delta_e("codes.avif", worst=False)),
    ("a PNG's gamma (gAMA): largest ΔE", delta_e("linear.png")),
    ("a PNG's gamma, to TIFF: largest ΔE", delta_e("linear.png", "linear.tiff")),
    ("Display P3 by code points in a PNG, to TIFF: largest ΔE", delta_e("codes.png", "codes.tiff")),
    ("CMYK with a profile: largest ΔE", delta_e("inks.tif")),
    ("levels left of a 16-bit gradient's 65,536 (PNG)", levels("deep.png")),
    ("levels left of a 16-bit gradient's 65,536 (PGM)", levels("deep.pgm")),
    ("bits left of an AVIF's 10", avif_bits),
    ("a lossless AVIF: largest difference, in levels", unchanged("lossless.avif")),
    ("a gray AVIF of limited range: largest difference, in levels", gray_deviation),
    ("gray stays gray", lambda a, b: yes(opened(b / "gray.png").mode == "L")),
    ("black and white, stored in color: largest difference between channels after a network that adds color", neutral),
    ("alpha kept", same_alpha("alpha.png")),
    ("transparency of a palette kept", same_alpha("palette.png")),
    ("pages left of a TIFF's 2", lambda a, b: str(getattr(opened(b / "pages.tif"), "n_frames", 1))),
    ("a TIFF's description in UTF-8 kept", holds("words.tif", DESCRIPTION)),
    ("a TIFF's IPTC record kept", holds("words.tif", CAPTION)),
    ("IPTC of type LONG, Windows title, Photoshop resource and GeoTIFF tag kept, of 4", same_tags),
    ("an artist in UTF-8 in a JPEG's EXIF kept, to TIFF", converted_words),
    ("a 12-bit TIFF: largest difference, in levels of 4,095", deep_gray),
    ("a TIFF in YCbCr: largest difference, in levels", deviation("ycbcr.tif")),
    ("a TIFF in YCbCr, stored in planes: largest difference, in levels", deviation("planes.tif")),
    ("a TIFF whose first page is a thumbnail: largest difference, in levels", deviation("small_first.tif")),
    ("a film scanner's infrared page kept", same_infrared),
    ("a TIFF's fourth channel of unspecified meaning", same_fourth),
    ("modification time kept", lambda a, b: yes((b / "gray.png").stat().st_mtime == 10**9)),
)


def answer(check: Callable[[Path, Path], str], source: Path, target: Path) -> str:
    """The answer for one program; `no file` if it wrote none."""
    try:
        return check(source, target)
    except FileNotFoundError:
        return "no file"
    except (OSError, ValueError, SyntaxError, ImageCms.PyCMSError):
        return "unreadable"
