"""Files to mutate, and mutations that know where the numbers and the parts of a file are.

Random changes of bytes mostly hit compressed pixels. So the parts of a file (PNG chunks, JPEG segments, boxes, TIFF
entries, ...) and the numbers in its headers are looked up first, as far as its format is known.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyvips
from PIL import Image, ImageCms, PngImagePlugin

from tests.images import tiffs
from tests.images.test_read_only_formats import EXIF, XMP, box, photoshop, resource

#: Larger inputs and results are cut: time is better spent on more files.
MOST_BYTES = 3 << 20
_MOST_PARTS = 4000


@dataclass(frozen=True)
class Seed:
    """A file to mutate; its suffix has the dot."""

    suffix: str
    data: bytes


@dataclass
class Anatomy:
    """Where the parts (start, end) and the numbers (position, bytes, byte order) of a file are."""

    parts: list[tuple[int, int]] = field(default_factory=list)
    numbers: list[tuple[int, int, str]] = field(default_factory=list)


def seeds_of(folders: Sequence[Path]) -> list[Seed]:
    """All files of folders, by name, except tables."""
    paths = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return [Seed(path.suffix, path.read_bytes()) for path in paths if path.suffix not in (".tsv", ".md", ".txt")]


# Files made in code


def small_seeds() -> list[Seed]:
    """A small file of every format, with all kinds of metadata."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (16, 24, 3), np.uint8)
    image, gray = Image.fromarray(pixels), Image.fromarray(pixels[:, :, 0])
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    rich = {"exif": b"Exif\0\0" + EXIF, "icc_profile": icc, "xmp": XMP}
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "a title")
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    for kind, content in (
        (b"gAMA", struct.pack(">I", 45455)),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
        (b"cICP", bytes((12, 13, 0, 1))),
    ):
        text.add(kind, content)
    transparent = image.copy()
    transparent.putalpha(gray)

    def saved(suffix: str, name: str, source: Image.Image, **options: object) -> Seed:
        stream = io.BytesIO()
        source.copy().save(stream, name, **options)  # JPEG leaves its options in the image
        return Seed(suffix, stream.getvalue())

    jpeg = saved(".jpg", "JPEG", image, **rich, comment=b"a comment")
    iptc = b"Photoshop 3.0\0" + resource(1028, b"\x1c\2\x78\0\7wedding") + resource(1005, bytes(16))
    app13 = b"\xff\xed" + struct.pack(">H", 2 + len(iptc)) + iptc
    trailer = saved(".jpg", "JPEG", gray).data
    deep = rng.integers(0, 65536, (16, 24, 3), np.uint16)
    twelve = rng.integers(0, 256, 16 * 36, np.uint8).tobytes()
    below = {34665: {33434: (5, [0.01]), 37510: (7, b"ASCII\0\0\0a comment")}}
    infrared = tiffs.plain(pixels[:, :, :1], t254=(4, [4]))
    frames = {"save_all": True, "append_images": [image.transpose(Image.Transpose.ROTATE_180)]}
    floats = pixels.astype(np.float32) / 255
    lab = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb").colourspace("lab")
    found = [
        jpeg,
        Seed(".jpg", jpeg.data[:2] + app13 + jpeg.data[2:] + trailer),
        saved(".jpg", "JPEG", image, progressive=True, quality=90),
        saved(".jpg", "JPEG", image.convert("CMYK")),
        saved(".mpo", "MPO", image, **frames),
        saved(".png", "PNG", image, pnginfo=text, exif=EXIF),
        saved(".png", "PNG", transparent, icc_profile=icc),
        saved(".png", "PNG", image.quantize(16), transparency=3),
        saved(".png", "PNG", image, **frames),
        saved(".gif", "GIF", image.quantize(16), comment=b"a comment"),
        saved(".gif", "GIF", image, **frames),
        saved(".webp", "WEBP", transparent, **rich),
        saved(".webp", "WEBP", image, lossless=True),
        saved(".webp", "WEBP", image, **frames),
        saved(".bmp", "BMP", image),
        saved(".bmp", "BMP", image.quantize(16)),
        saved(".tga", "TGA", transparent, compression="tga_rle"),
        saved(".pcx", "PCX", image),
        saved(".ico", "ICO", transparent, sizes=[(16, 16), (24, 16)]),
        saved(".sgi", "SGI", image),
        saved(".ppm", "PPM", image),
        Seed(".pgm", b"P5 24 16 65535\n" + deep[:, :, 0].tobytes()),
        saved(".pbm", "PPM", gray.convert("1")),
        saved(".tif", "TIFF", image, compression="tiff_lzw", **rich),
        saved(".tif", "TIFF", image, compression="tiff_adobe_deflate"),
        saved(".tif", "TIFF", image, save_all=True, append_images=[gray]),
        saved(".tif", "TIFF", image, compression="jpeg"),
        saved(".tif", "TIFF", gray.convert("1"), compression="group4"),
        saved(".tif", "TIFF", image.convert("CMYK")),
        saved(".tif", "TIFF", image.quantize(16)),
        Seed(".tif", tiffs.build(tiffs.plain(pixels, t700=(1, XMP), t33723=(7, iptc), t34377=(7, iptc), below=below))),
        Seed(".tif", tiffs.build(tiffs.plain(deep, order=">"), tiffs.plain(pixels, order=">"), order=">")),
        Seed(".tif", tiffs.build(tiffs.plain(pixels, t262=(3, [6]), t530=(3, [1, 1])), big=True)),
        Seed(".tif", tiffs.build(tiffs.plain(pixels[:, :, :1], t258=(3, [12]), strips=[twelve]))),
        Seed(".tif", tiffs.build(tiffs.plain(floats, t339=(3, [3] * 3)))),
        Seed(".tif", tiffs.build(tiffs.plain(pixels), infrared)),
        Seed(".tif", bytes(lab.tiffsave_buffer(tile=True, tile_width=16, tile_height=16))),
        Seed(".psd", photoshop(pixels.transpose(2, 0, 1), 3, layers=3, resources=resource(1039, icc))),
        Seed(".psd", photoshop(pixels.transpose(2, 0, 1), 3, rle=True, big=True, resources=resource(1060, XMP))),
    ]
    with suppress(ImportError):
        import pillow_jxl  # noqa: F401
    with suppress(ImportError):
        import pillow_heif  # not registered with Pillow, which other tests use, too

        stream = io.BytesIO()
        pillow_heif.from_pillow(image).save(stream, quality=50, **rich)
        found.append(Seed(".heic", stream.getvalue()))
    for suffix, name, options in (
        (".jp2", "JPEG2000", {}),
        (".j2k", "JPEG2000", {"no_jp2": True}),
        (".avif", "AVIF", rich),
        (".jxl", "JXL", rich),
        (".pdf", "PDF", {"save_all": True, "append_images": [gray]}),
    ):
        with suppress(KeyError, OSError, ValueError):  # this format is an extra that is not installed
            found.append(saved(suffix, name, image, **options))
    jp2 = next((seed.data for seed in found if seed.suffix == ".jp2"), b"")
    if jp2:
        at = jp2.index(b"jp2c") - 4
        uuid = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
        found.append(Seed(".jp2", jp2[:at] + box(b"uuid", uuid + XMP) + jp2[at:]))
    return found


# Where things are in a file


def anatomy(data: bytes) -> Anatomy:
    """The parts and numbers of a file, as far as its format is known; also of the TIFFs and profiles inside it."""
    found = Anatomy()
    try:
        if data.startswith(b"\xff\xd8"):
            _jpeg(data, found)
        elif data.startswith(b"\x89PNG"):
            _png(data, found)
        elif data.startswith(b"RIFF"):
            _chunks(data, 12, len(data), found, order="<", title_first=True)
        elif data.startswith(b"GIF8"):
            found.numbers += [(6, 2, "<"), (8, 2, "<"), (10, 1, "<")]
            _gif(data, found)
        elif data[4:8] in (b"ftyp", b"jP  ", b"JXL "):
            _boxes(data, 0, len(data), found)
        elif data.startswith(b"8BPS"):
            found.numbers += [(4, 2, ">"), (12, 2, ">"), (14, 4, ">"), (18, 4, ">"), (22, 2, ">"), (24, 2, ">")]
            _resources(data, found)
        elif data.startswith(b"BM"):
            found.numbers += [(at, 4, "<") for at in range(2, min(len(data) - 4, 138), 4)]
            found.numbers += [(26, 2, "<"), (28, 2, "<")]
        elif data.startswith(b"\xff\x4f\xff\x51"):
            found.numbers += [(at, 4, ">") for at in range(8, 40, 4)] + [(4, 2, ">"), (40, 2, ">")]
        for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            at = data.find(magic)
            if at >= 0:
                _tiff(data, at, found)
        profile = data.find(b"acsp")
        if profile >= 36:
            _profile(data, profile - 36, found)
    except (struct.error, IndexError, OverflowError):
        pass  # what was found before the broken part serves as well
    found.parts = [(start, end) for start, end in found.parts if 0 <= start < end <= len(data)][:_MOST_PARTS]
    found.numbers = [n for n in found.numbers if 0 <= n[0] <= len(data) - n[1]][:_MOST_PARTS]
    return found


def _jpeg(data: bytes, found: Anatomy) -> None:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        (length,) = struct.unpack_from(">H", data, at + 2)
        found.parts.append((at, at + 2 + length))
        found.numbers.append((at + 2, 2, ">"))
        if data[at + 1] in (0xC0, 0xC1, 0xC2, 0xC3):
            found.numbers += [(at + 4, 1, ">"), (at + 5, 2, ">"), (at + 7, 2, ">"), (at + 9, 1, ">")]
        if data[at + 1] == 0xDA:
            return
        at += 2 + length


def _png(data: bytes, found: Anatomy) -> None:
    found.numbers += [(16, 4, ">"), (20, 4, ">"), (24, 1, ">"), (25, 1, ">"), (28, 1, ">")]
    at = 8
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found.parts.append((at, at + 12 + length))
        found.numbers.append((at, 4, ">"))
        if length <= 64 and data[at + 4 : at + 8] != b"IDAT":
            found.numbers += [(place, 4, ">") for place in range(at + 8, at + 8 + length - 3, 4)]
        at += 12 + length


def _chunks(data: bytes, at: int, end: int, found: Anatomy, *, order: str, title_first: bool) -> None:
    found.numbers.append((4, 4, order))
    while at + 8 <= end:
        place = at + 4 if title_first else at
        (length,) = struct.unpack_from(order + "I", data, place)
        found.parts.append((at, at + 8 + length + length % 2))
        found.numbers += [(place, 4, order), *((p, 3, order) for p in range(at + 8, at + 18, 3))]
        at += 8 + length + length % 2


def _gif(data: bytes, found: Anatomy) -> None:
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 128 else 0)
    while at < len(data) and data[at] in (0x21, 0x2C):
        start = at
        if data[at] == 0x2C:
            found.numbers += [(at + 1 + 2 * number, 2, "<") for number in range(4)]
            flags = data[at + 9]
            at += 11 + (3 << (flags & 7) + 1 if flags & 128 else 0)
        else:
            at += 2
        while data[at]:
            found.numbers.append((at, 1, "<"))
            at += 1 + data[at]
        at += 1
        found.parts.append((start, at))


#: Boxes that hold boxes, and where these begin behind the header.
_INSIDE = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"moov": 0, b"trak": 0, b"iinf": 6, b"jp2h": 0, b"iref": 4, b"dinf": 0}


def _boxes(data: bytes, at: int, end: int, found: Anatomy) -> None:
    while at + 8 <= end and len(found.parts) < _MOST_PARTS:
        (length,) = struct.unpack_from(">I", data, at)
        kind = data[at + 4 : at + 8]
        stop = end if length == 0 else at + length
        found.parts.append((at, min(stop, end)))
        found.numbers.append((at, 4, ">"))
        if kind in _INSIDE:
            _boxes(data, at + 8 + _INSIDE[kind], min(stop, end), found)
        elif stop - at <= 400:
            found.numbers += [(place, size, ">") for size in (2, 4) for place in range(at + 8, stop - 3, size)]
        if length < 8:
            return
        at = stop


def _resources(data: bytes, found: Anatomy) -> None:
    found.numbers += [(26, 4, ">"), (30, 4, ">")]
    at = data.find(b"8BIM")
    while at >= 0:
        (length,) = struct.unpack_from(">I", data, at + 8)
        found.parts.append((at, at + 12 + length + length % 2))
        found.numbers.append((at + 8, 4, ">"))
        at = data.find(b"8BIM", at + 4)


def _tiff(data: bytes, base: int, found: Anatomy) -> None:
    """The entries of all directories of a TIFF that begins at `base`: tag, type, count and value are numbers."""
    order = "<" if data[base : base + 1] == b"I" else ">"
    big = data[base + 2 : base + 4] in (b"+\0", b"\0+")
    word, entry, count_size = (8, 20, 8) if big else (4, 12, 2)
    codes = {2: "H", 4: "I", 8: "Q"}
    first = base + (8 if big else 4)
    found.numbers.append((first, word, order))
    waiting, seen = [first], set()
    while waiting and len(seen) < 50:
        (offset,) = struct.unpack_from(order + codes[word], data, waiting.pop())
        at = base + offset
        if not offset or at in seen or at + count_size > len(data):
            continue
        seen.add(at)
        (count,) = struct.unpack_from(order + codes[count_size], data, at)
        found.numbers.append((at, count_size, order))
        for here in range(at + count_size, at + count_size + entry * min(count, 200), entry):
            tag, kind = struct.unpack_from(order + "HH", data, here)
            found.parts.append((here, here + entry))
            found.numbers += [(here, 2, order), (here + 2, 2, order), (here + 4, word, order)]
            found.numbers += [(here + 4 + word, 2 if kind == 3 else word, order)] * 3
            if tag in (330, 34665, 34853, 40965):
                waiting.append(here + 4 + word)
        link = at + count_size + entry * count
        found.numbers.append((link, word, order))
        waiting.append(link)


def _profile(data: bytes, base: int, found: Anatomy) -> None:
    """The tag table of a color profile, and the beginnings of its tags."""
    found.numbers += [
        (base, 4, ">"),
        (base + 12, 4, ">"),
        (base + 16, 4, ">"),
        (base + 20, 4, ">"),
        (base + 128, 4, ">"),
    ]
    (count,) = struct.unpack_from(">I", data, base + 128)
    for here in range(base + 132, base + 132 + 12 * min(count, 50), 12):
        found.parts.append((here, here + 12))
        found.numbers += [(here, 4, ">"), (here + 4, 4, ">"), (here + 8, 4, ">")]
        (offset,) = struct.unpack_from(">I", data, here + 4)
        found.numbers += [(base + offset + place, 4, ">") for place in range(0, 24, 4)]


# Mutations


class Mutator:
    """Makes files that are wrong somewhere, the same for the same seed and number.

    Args:
        files: what to mutate.
        seed: any text or number.
    """

    def __init__(self, files: Sequence[Seed], seed: object) -> None:
        self._files = [file for file in files if 8 <= len(file.data) <= MOST_BYTES]
        self._weights = [1 / (1 + len(file.data) / 50_000) for file in self._files]
        self._seed = seed
        self._known: dict[int, Anatomy] = {}

    def make(self, number: int) -> Seed:
        """The mutated file of this number."""
        chance = random.Random(f"{self._seed} {number}")
        (index,) = chance.choices(range(len(self._files)), self._weights)
        source = self._files[index]
        data = source.data
        for step in range(chance.choice((1, 1, 1, 2, 3))):
            data = self._mutate(data, self._anatomy_of(index) if step == 0 else anatomy(data), source, chance)
            if len(data) < 16:
                break
        if data.startswith(b"\x89PNG") and chance.random() < 0.8:
            data = with_sums(data)
        return Seed(source.suffix, data[:MOST_BYTES])

    def _anatomy_of(self, index: int) -> Anatomy:
        if index not in self._known:
            self._known[index] = anatomy(self._files[index].data)
        return self._known[index]

    def _mutate(self, data: bytes, where: Anatomy, source: Seed, chance: random.Random) -> bytes:
        kinds = ["flip", "flip", "bytes", "cut", "splice"]
        if where.numbers:
            kinds += ["number"] * 5
        if where.parts:
            kinds += ["double", "remove", "swap", "flood", "transplant", "inside", "inside"]
        match chance.choice(kinds):
            case "flip":
                return _flipped(data, 0, len(data), chance)
            case "inside":  # a part that is not too large, so not the pixels
                start, end = min((chance.choice(where.parts) for _ in range(2)), key=lambda part: part[1] - part[0])
                return _flipped(data, start, end, chance)
            case "bytes":
                at, length = _place(len(data), chance), chance.randint(1, 16)
                new = chance.choice((b"", b"\0" * length, b"\xff" * length, chance.randbytes(length)))
                return data[:at] + new + data[at + chance.choice((0, length)) :]
            case "cut":
                at = chance.choice((chance.randrange(len(data)), max(len(data) - chance.randint(1, 40), 0)))
                return data[: max(at, 12)] + chance.choice((b"", b"", bytes(chance.randrange(2000))))
            case "splice":
                other = self._other(source, chance).data
                return data[: chance.randrange(len(data))] + other[chance.randrange(len(other)) :]
            case "number":
                for _ in range(chance.choice((1, 1, 2))):
                    data = _with_number(data, chance.choice(where.numbers), chance)
                return data
            case "double":
                start, end = chance.choice(where.parts)
                at = chance.choice((start, end, chance.choice(where.parts)[0]))
                return data[:at] + data[start:end] + data[at:]
            case "flood":
                start, end = chance.choice(where.parts)
                times = min(chance.choice((10, 300, 3000)), max(MOST_BYTES // 2 // (end - start), 1))
                return data[:end] + data[start:end] * times + data[end:]
            case "remove":
                start, end = chance.choice(where.parts)
                return data[:start] + data[end:]
            case "swap":
                (a, b), (c, d) = sorted((chance.choice(where.parts), chance.choice(where.parts)))
                return data if c < b else data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]
            case _:  # a part of another file
                other = self._other(source, chance).data
                parts = anatomy(other).parts
                at = chance.choice(where.parts)[0]
                if not parts:
                    return data[:at] + other
                start, end = chance.choice(parts)
                return data[:at] + other[start:end] + data[at + chance.choice((0, end - start)) :]

    def _other(self, source: Seed, chance: random.Random) -> Seed:
        """Another file, mostly of the same format."""
        same = [file for file in self._files if file.data[:2] == source.data[:2]]
        return chance.choice(same if chance.random() < 0.7 else self._files)


def _place(length: int, chance: random.Random) -> int:
    """A position, near the beginning more often."""
    return min(int(chance.expovariate(4 / length)), length - 1)


def _flipped(data: bytes, start: int, end: int, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 2, 4, 32))):
        changed[start + _place(end - start, chance)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _with_number(data: bytes, where: tuple[int, int, str], chance: random.Random) -> bytes:
    at, size, order = where
    byteorder = "little" if order == "<" else "big"
    old, top = int.from_bytes(data[at : at + size], byteorder), (1 << 8 * size) - 1
    near = (old - 1, old + 1, old * 2, old // 2, len(data), len(data) - at, at)
    large = (top, top - 1, top >> 1, (top >> 1) + 1, top // 16)
    some = (0, 1, 2, 3, 8, chance.randrange(256), chance.randrange(65536), chance.randrange(top + 1))
    new = chance.choice((*near, *large, *some))
    return data[:at] + (new & top).to_bytes(size, byteorder) + data[at + size :]


def with_sums(data: bytes) -> bytes:
    """A PNG with the right checksums: readers refuse most chunks with a wrong one before they look at them."""
    return data[:8] + b"".join(_with_sum(chunk) for chunk in _png_chunks(data))


def _png_chunks(data: bytes) -> Iterator[bytes]:
    at = 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at : at + 12 + length]
        at += 12 + length


def _with_sum(chunk: bytes) -> bytes:
    return chunk[:-4] + struct.pack(">I", zlib.crc32(chunk[4:-4])) if len(chunk) >= 12 else chunk
