"""The files of `file_truth.py`, one per question, as other programs write them. Some bytes are built here, because few
libraries write such files.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pyvips
import tifffile
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, TiffTags
from skimage.color import rgb2lab

DESCRIPTION = "Großmutter, Łódź 1938".encode()
#: A caption as IPTC-IIM has it, of a length that fills words of four bytes.
CAPTION = b"\x1c\2\x78\0\x07wedding"
TITLE = "Hochzeit, Łódź".encode("utf-16-le")
#: One of Photoshop's resources: a URL.
RESOURCE = b"8BIM" + struct.pack(">HHI", 1035, 0, 18) + b"https://example.eu"
PIXEL_SCALE = (0.5, 0.5, 0.0)
XMP = (
    b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
    b"<rdf:Description rdf:about='' xmlns:xmp='http://ns.adobe.com/xap/1.0/' xmp:Label='attic' %s/>"
    b"</rdf:RDF></x:xmpmeta>"
)
#: The beginning of a video, which phones append to a photograph.
VIDEO = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\0\x10mdat" + b"12345678"
#: Segments of programs and cameras: marker, contents.
SEGMENTS = (
    (0xE0, b"II\x1a\0\0\0HEAPJPGM" + bytes(16)),
    (0xE1, b"FLIR\0\1\0\0" + bytes(16)),
    (0xEC, b"Ducky\0\1\0\4\0\0\0\x50\0\0"),
    (0xFE, b"a comment"),
)
TEXTS = (
    (b"tEXt", b"Author\0J\xfcrgen"),
    (b"zTXt", b"Description\0\0" + zlib.compress(b"found in an attic")),
    (b"iTXt", b"Title\0\0\0de\0Titel\0" + DESCRIPTION),
    (b"prVt", b"a chunk that its name declares safe to copy"),
)


def scene(height: int = 96, width: int = 128) -> np.ndarray:
    """An image that JPEG keeps well."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 250 / width, y * 250 / height, (x + y) * 250 / (width + height)], -1).astype(np.uint8)


def twelve_bits() -> np.ndarray:
    """A gray gradient of 12 bits, H×W."""
    return (np.arange(96 * 128).reshape(96, 128) * 4095 // (96 * 128 - 1)).astype(np.uint16)


def all_levels() -> np.ndarray:
    """A gray gradient of 16 bits with every level, below rows for the network's change."""
    return np.concatenate([np.zeros((4, 256), np.uint16), np.arange(65536, dtype=np.uint16).reshape(256, 256)])


def profile(name: str) -> bytes:
    """The profile `p3` or `cmyk` that libvips contains."""
    image = pyvips.Image.black(1, 1, bands=3).copy(interpretation="srgb").icc_transform(name)
    return bytes(image.get("icc-profile-data"))


def scanner_profile() -> bytes:
    """A profile of a scanner: a table from its values to Lab, none back (ICC.1:2001-04, 6.5.9)."""
    steps = np.linspace(0, 1, 9)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1)
    lab = rgb2lab(grid[..., [0, 1, 2]] ** 1.3 * 0.9 + grid[..., [1, 2, 0]] * 0.1)
    table = np.rint(np.clip(lab * [2.55, 1, 1] + [0, 128, 128], 0, 255)).astype(np.uint8)
    same = bytes(range(256)) * 3
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    lut = b"mft1" + bytes(4) + bytes([3, 3, 9, 0]) + identity + same + table.tobytes() + same
    name = b"desc" + bytes(4) + struct.pack(">I", 8) + b"Scanner\0" + bytes(78)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = [(b"desc", name), (b"cprt", b"text" + bytes(4) + b"None\0"), (b"wtpt", white), (b"A2B0", lut)]
    at, table_of_tags, body = 132 + 12 * len(tags), b"", b""
    for key, content in tags:
        table_of_tags += struct.pack(">4sII", key, at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s6H4s", at + len(body), b"", 0x02400000, b"scnr", b"RGB ", b"Lab ", *[1] * 6, b"acsp")
    head = head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table_of_tags + body


def make(folder: Path, to_convert: Path) -> None:
    """Write one file per question, and the files to convert to TIFF."""
    folder.mkdir()
    to_convert.mkdir()
    _jpegs(folder)
    _pngs(folder)
    _tiffs(folder)
    _others(folder)
    rgb = Image.fromarray(scene())
    rgb.save(to_convert / "linear.png", pnginfo=_info((b"gAMA", struct.pack(">I", 100_000))))
    rgb.save(to_convert / "codes.png", pnginfo=_info((b"cICP", bytes([12, 13, 0, 1]))))
    _jpeg(to_convert / "words.jpg", (0xE1, b"Exif\0\0" + _exif([(315, 2, DESCRIPTION + b"\0")])))
    for path in (*folder.iterdir(), *to_convert.iterdir()):
        os.utime(path, (10**9, 10**9))


def _jpegs(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "A maker"
    exif.get_ifd(ExifTags.IFD.Exif)[0x9003] = "2001:02:03 04:05:06"
    Image.fromarray(scene()).save(folder / "turned.jpg", exif=exif, quality=93, subsampling=0)
    _jpeg(folder / "segments.jpg", *SEGMENTS)
    promise = b"xmlns:GCamera='http://ns.google.com/photos/1.0/camera/' GCamera:MicroVideoOffset='%d'" % len(VIDEO)
    _jpeg(folder / "motion.jpg", (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP % promise), after=VIDEO)
    wide = profile("p3")
    pieces = [(0xE2, b"ICC_PROFILE\0\1\1" + wide[at : at + 200]) for at in range(0, len(wide), 200)]
    _jpeg(folder / "numbers.jpg", *pieces)
    resolution = [(282, 5, struct.pack("<2I", 72, 1)), (283, 5, struct.pack("<2I", 72, 1)), (296, 3, b"\2\0")]
    _jpeg(folder / "dpi.jpg", (0xE1, b"Exif\0\0" + _exif(resolution)), density=(1, 600, 600))
    _jpeg(folder / "aspect.jpg", density=(0, 2, 1))


def _jpeg(
    path: Path, *segments: tuple[int, bytes], after: bytes = b"", density: tuple[int, int, int] = (0, 1, 1)
) -> None:
    stream = io.BytesIO()
    Image.fromarray(scene()).save(stream, "JPEG", quality=93, subsampling=0)
    data = stream.getvalue()
    head = data[:13] + struct.pack(">BHH", *density) + data[18:20]
    added = b"".join(struct.pack(">BBH", 255, marker, len(body) + 2) + body for marker, body in segments)
    path.write_bytes(head + added + data[20:] + after)


def _pngs(folder: Path) -> None:
    rgb = Image.fromarray(scene())
    rgb.save(folder / "wide.png", icc_profile=profile("p3"))
    rgb.save(folder / "scanner.png", icc_profile=scanner_profile())
    rgb.save(folder / "linear.png", pnginfo=_info((b"gAMA", struct.pack(">I", 100_000))))
    rgb.save(folder / "texts.png", pnginfo=_info(*TEXTS))
    cv2.imwrite(str(folder / "deep.png"), all_levels())
    Image.fromarray(scene()[:, :, 0]).save(folder / "gray.png")
    Image.fromarray(np.repeat(scene()[:, :, :1], 3, axis=2)).save(folder / "neutral.png")
    Image.fromarray(np.dstack([scene(), scene()[:, :, 0]])).save(folder / "alpha.png")
    rgb.quantize(16).save(folder / "palette.png", transparency=3)


def _info(*chunks: tuple[bytes, bytes]) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for kind, body in chunks:
        info.add(kind, body)
    return info


def _tiffs(folder: Path) -> None:
    rgb = Image.fromarray(scene())
    inks = np.dstack([scene(), scene()[:, ::-1, 0] // 4])
    Image.fromarray(inks, "CMYK").save(folder / "inks.tif", icc_profile=profile("cmyk"))
    rgb.save(folder / "pages.tif", save_all=True, append_images=[rgb.rotate(180)])
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype |= {270: TiffTags.ASCII, 33723: TiffTags.UNDEFINED}
    tags[270], tags[33723] = DESCRIPTION, CAPTION
    rgb.save(folder / "words.tif", tiffinfo=tags)
    layout = [(258, 3, struct.pack("<3H", 8, 8, 8)), (262, 3, b"\2\0"), (277, 3, b"\3\0")]
    marks = [
        (33723, 4, CAPTION), (40091, 1, TITLE + b"\0\0"), (34377, 7, RESOURCE),
        (33550, 12, struct.pack("<3d", *PIXEL_SCALE)),
    ]  # fmt: skip
    _tiff(folder / "tags.tif", [*layout, *marks], scene().tobytes())
    rgb.convert("YCbCr").save(folder / "ycbcr.tif")
    planes = np.asarray(rgb.convert("YCbCr")).transpose(2, 0, 1)
    meaning = [(258, 3, struct.pack("<3H", 8, 8, 8)), (262, 3, b"\6\0"), (277, 3, b"\3\0"), (284, 3, b"\2\0")]
    ranges = struct.pack("<12I", 0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1)
    meaning += [(530, 3, struct.pack("<2H", 1, 1)), (532, 5, ranges)]
    _tiff(folder / "planes.tif", meaning, *(plane.tobytes() for plane in planes))
    bits = (twelve_bits()[:, :, None] >> np.arange(11, -1, -1) & 1).astype(np.uint8)
    packed = np.packbits(bits.reshape(96, -1), axis=1).tobytes()
    _tiff(folder / "twelve.tif", [(258, 3, b"\x0c\0"), (262, 3, b"\1\0"), (277, 3, b"\1\0")], packed)
    four = np.dstack([scene(), scene()[::-1, :, 0]])
    _tiff(
        folder / "four.tif",
        [(258, 3, struct.pack("<4H", 8, 8, 8, 8)), (262, 3, b"\2\0"), (277, 3, b"\4\0")],
        four.tobytes(),
    )
    tifffile.imwrite(folder / "small_first.tif", scene()[::4, ::4], photometric="rgb", subfiletype=1, metadata=None)
    tifffile.imwrite(folder / "small_first.tif", scene(), photometric="rgb", append=True, metadata=None)
    infrared = scene()[:, :, 1].astype(np.uint16) * 257
    tifffile.imwrite(folder / "dust.tif", scene(), photometric="rgb", metadata=None)
    tifffile.imwrite(folder / "dust.tif", infrared, photometric="minisblack", subfiletype=2, append=True, metadata=None)
    with tifffile.TiffFile(folder / "dust.tif", mode="r+b") as file:
        file.pages[1].tags["NewSubfileType"].overwrite(4)  # type: ignore[union-attr]


_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 12: 8}


def _directory(tags: list[tuple[int, int, bytes]], at: int) -> bytes:
    """Number, type and bytes of each tag as a directory that lies at a position of the file."""
    entries, more = b"", b""
    behind = at + 2 + 12 * len(tags) + 4
    for tag, kind, value in sorted(tags):
        place = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", behind + len(more))
        entries += struct.pack("<HHI", tag, kind, len(value) // _SIZES[kind]) + place
        more += value + bytes(len(value) % 2) if len(value) > 4 else b""
    return struct.pack("<H", len(tags)) + entries + bytes(4) + more


def _exif(tags: list[tuple[int, int, bytes]]) -> bytes:
    return b"II*\0\x08\0\0\0" + _directory(tags, 8)


def _tiff(path: Path, tags: list[tuple[int, int, bytes]], *strips: bytes) -> None:
    starts = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    size = [(256, 4, struct.pack("<I", 128)), (257, 4, struct.pack("<I", 96)), (278, 4, struct.pack("<I", 96))]
    count = len(strips)
    places = [(273, 4, struct.pack(f"<{count}I", *starts)), (279, 4, struct.pack(f"<{count}I", *map(len, strips)))]
    at = 8 + sum(map(len, strips))
    body = _directory([*tags, *size, *places, (259, 3, b"\1\0")], at)
    path.write_bytes(b"II*\0" + struct.pack("<I", at) + b"".join(strips) + body)


def _others(folder: Path) -> None:
    rgb = Image.fromarray(scene())
    stream = io.BytesIO()
    rgb.quantize(64).save(stream, "GIF", comment=DESCRIPTION)
    data = stream.getvalue()
    at = 13 + 3 * (2 << (data[10] & 7))
    trailer = b"\1" + bytes(range(255, -1, -1)) + b"\0"
    (folder / "words.gif").write_bytes(data[:at] + b"\x21\xff\x0bXMP DataXMP" + XMP % b"" + trailer + data[at:])

    rows = scene()[::-1, :, ::-1].tobytes()  # from below, blue first; rows of 384 bytes need no padding
    wide = profile("p3")
    header = struct.pack("<IiiHHIIiiII", 124, 128, 96, 1, 24, 0, len(rows), 0, 0, 0, 0).ljust(56, b"\0") + b"DEBM"
    header = header.ljust(108, b"\0") + struct.pack("<IIII", 4, 124 + len(rows), len(wide), 0)
    start = struct.pack("<2sIHHI", b"BM", 14 + 124 + len(rows) + len(wide), 0, 0, 14 + 124)
    (folder / "wide.bmp").write_bytes(start + header + rows + wide)

    (folder / "deep.pgm").write_bytes(b"P5\n256 260\n65535\n" + all_levels().astype(">u2").tobytes())

    rgb.save(stream := io.BytesIO(), "AVIF", quality=95, subsampling="4:4:4")
    named = stream.getvalue().replace(b"nclx\0\1\0\x0d", b"nclx\0\x0c\0\x0d")  # sRGB's primaries become those of P3
    (folder / "codes.avif").write_bytes(named)
    Image.fromarray(scene()[:, :, 0]).save(folder / "gray.avif", range="limited", subsampling="4:0:0", quality=100)
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    image = pyvips.Image.new_from_array(noise)
    image.heifsave(str(folder / "lossless.avif"), compression="av1", lossless=True, keep="none")
    deep = pyvips.Image.new_from_array(scene().astype(np.uint16) << 8).copy(interpretation="rgb16")
    deep.heifsave(str(folder / "ten.avif"), compression="av1", bitdepth=10, Q=90, keep="none")
