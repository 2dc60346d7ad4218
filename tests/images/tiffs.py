"""TIFFs built byte by byte, as the specification has them."""

import struct

import numpy as np

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 12: 8, 13: 4, 16: 8}
CODES = {3: "H", 4: "I", 12: "d", 13: "I", 16: "Q"}


def entry_bytes(kind, values, order):
    if isinstance(values, bytes):
        return values, len(values) // SIZES[kind]
    if kind == 5:
        parts = [part for value in values for part in (round(value * 100), 100)]
        return struct.pack(f"{order}{len(parts)}I", *parts), len(values)
    return struct.pack(f"{order}{len(values)}{CODES[kind]}", *values), len(values)


def build(*directories, order="<", big=False):
    """A file of directories: each a dict of tag -> (type, values), with the pixels (strips) under "strips", and
    directories inside it under "below": a dict of tag -> directory."""
    word, inline, count_code = ("Q", 8, "Q") if big else ("I", 4, "H")
    out = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42))
    out += struct.pack(order + "HH", 8, 0) if big else b""
    links = [len(out)]
    out += bytes(inline)

    def place(directory):
        entries = {tag: value for tag, value in directory.items() if isinstance(tag, int)}
        strips = directory.get("strips", ())
        if strips:
            places = []
            for strip in strips:
                places.append(len(out))
                out.extend(strip + bytes(len(strip) % 2))
            at, size = (324, 325) if 322 in entries else (273, 279)
            entries[at], entries[size] = (4, places), (4, [len(strip) for strip in strips])
        for tag, below in directory.get("below", {}).items():
            entries[tag] = (4, [place(below)[0]])
        packed = {}
        for tag, (kind, values) in entries.items():
            value, count = entry_bytes(kind, values, order)
            if len(value) > inline:
                at = len(out)
                out.extend(value + bytes(len(value) % 2))
                value = struct.pack(order + word, at)
            packed[tag] = struct.pack(order + "HH" + word, tag, kind, count) + value.ljust(inline, b"\0")
        at = len(out)
        out.extend(struct.pack(order + count_code, len(packed)) + b"".join(packed[tag] for tag in sorted(packed)))
        link = len(out)
        out.extend(bytes(inline))
        return at, link

    for directory in directories:
        at, link = place(directory)
        struct.pack_into(order + word, out, links[-1], at)
        links.append(link)
    return bytes(out)


def plain(pixels, order="<", **more):
    """The directory of an uncompressed image: H×W×C; `more`: t270=(2, b"text\\0") replaces a tag, None removes it."""
    height, width, channels = pixels.shape
    stored = pixels.astype(pixels.dtype.newbyteorder(order))
    directory = {
        256: (3, [width]),
        257: (3, [height]),
        258: (3, [8 * pixels.dtype.itemsize] * channels),
        259: (3, [1]),
        262: (3, [2 if channels >= 3 else 1]),
        277: (3, [channels]),
        278: (3, [height]),
        "strips": [stored.tobytes()],
    }
    for name, value in more.items():
        key = int(name[1:]) if name[1:].isdigit() else name
        if value is None:
            del directory[key]
        else:
            directory[key] = value
    return directory


def noise(height=12, width=16, channels=3, dtype=np.uint8, seed=1):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype)


def tags_of(data):
    """tag -> (type, bytes) of the first directory of a classic little-endian TIFF, and those of EXIF and GPS."""
    assert data[:4] == b"II*\0"

    def read(at):
        found = {}
        (count,) = struct.unpack_from("<H", data, at)
        for here in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, length = struct.unpack_from("<HHI", data, here)
            size = {8: 2, 9: 4, 10: 8, 11: 4}.get(kind) or SIZES[kind]
            where = here + 8 if size * length <= 4 else struct.unpack_from("<I", data, here + 8)[0]
            value = data[where : where + size * length]
            found[tag] = read(struct.unpack("<I", value)[0]) if tag in (34665, 34853) else (kind, value)
        return found

    return read(struct.unpack_from("<I", data, 4)[0])
