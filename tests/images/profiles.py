"""Colour profiles for the tests, built from published primaries."""

import struct

import numpy as np

D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

#: (primaries and white as xy, gamma)
ADOBE_RGB = (((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), (0.3127, 0.3290)), 563 / 256)
PROPHOTO = (((0.734699, 0.265301), (0.159597, 0.840403), (0.036598, 0.000105), (0.345704, 0.358540)), 1.8)


def matrix_profile(primaries, gamma):
    """An ICC v2 profile: three primaries and one gamma; a gray one where `primaries` is None."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {b"wtpt": _xyz(D50)}
    if primaries is None:
        tags[b"kTRC"] = curve
    else:
        for name, column in zip((b"r", b"g", b"b"), _colorants(primaries).T):
            tags[name + b"XYZ"] = _xyz(column)
            tags[name + b"TRC"] = curve
    tags[b"desc"] = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78) + b"\0"
    tags[b"cprt"] = b"text" + bytes(4) + b"none\0\0\0\0"
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    space = b"GRAY" if primaries is None else b"RGB "
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02400000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", *np.rint(D50 * 65536).astype(int))
    head = head.ljust(128, b"\0")
    return head + struct.pack(">I", len(tags)) + table + body


def _xyz(values):
    return b"XYZ " + bytes(4) + struct.pack(">iii", *np.rint(np.asarray(values) * 65536).astype(int))


def _colorants(primaries):
    def column(xy):
        return np.array([xy[0] / xy[1], 1.0, (1 - xy[0] - xy[1]) / xy[1]])

    *colours, white = (column(xy) for xy in primaries)
    matrix = np.stack(colours, axis=1)
    matrix = matrix * np.linalg.solve(matrix, white)
    cones = _BRADFORD @ D50 / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ matrix


def table_profile(to_xyz, *, space=b"RGB ", nodes=9, extra=()):
    """A scanner's ICC v2 profile: one table from its values to Lab (lut16Type), and no way back.

    `to_xyz`: N×C values in [0, 1] to N×3 XYZ with the white of D50.
    """
    channels = 3 if space == b"RGB " else 1
    levels = np.linspace(0, 1, nodes)
    grid = np.stack(np.meshgrid(*[levels] * channels, indexing="ij"), -1).reshape(-1, channels)
    ratio = to_xyz(grid) / D50
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)
    codes = np.rint([lab[:, 0] * 652.8, (lab[:, 1] + 128) * 256, (lab[:, 2] + 128) * 256]).T
    table = b"mft2" + bytes(4) + bytes([channels, 3, nodes, 0])
    table += struct.pack(">9i", *(65536 * np.eye(3, dtype=int)).ravel()) + struct.pack(">2H", 2, 2)
    table += struct.pack(">2H", 0, 65535) * channels
    table += codes.clip(0, 65535).astype(">u2").tobytes() + struct.pack(">2H", 0, 65535) * 3
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(79) + b"\0\0",
        b"cprt": b"text" + bytes(4) + b"none",
        b"wtpt": _xyz(D50),
        b"A2B0": table + bytes(-len(table) % 4),
        **dict(extra),
    }
    index, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        index += name + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02400000, b"scnr", space, b"Lab ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", *np.rint(D50 * 65536).astype(int))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + index + body


def colorants(primaries):
    """RGB to XYZ of D50, for primaries and white as xy."""
    return _colorants(primaries)
