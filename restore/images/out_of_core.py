"""Pictures too large for memory: their rows on the disk, in bands (`restore.images.out_of_core` writes them)."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyvips

from restore.errors import RestoreError
from restore.files import temporary_path
from restore.images.decode import DamagedFile, Decoded, decoder_message, facts_of, opened, to_rgb_or_gray
from restore.images.encode import DEFAULT_QUALITY, PNG_LEVEL, described, without_metadata
from restore.images.formats import format_of
from restore.images.image import DecodedImage
from restore.images.metadata import jpeg, png, tiff
from restore.images.metadata import tiff as tiff_pages
from restore.images.metadata.exif import orientation_of
from restore.images.read import assemble_image

# An uncompressed TIFF whose rows lie one after the other, so that they can be changed in place.


_STRIP_BYTES = 1 << 20
_SHORT, _LONG, _LONG8 = 3, 4, 16  # types of values in a TIFF


@cache
def tiff_header(size: tuple[int, int], bands: int, dtype: np.dtype) -> bytes:
    """A BigTIFF up to its first row; as long as so many rows.

    Args:
        size: (H, W).
        bands: 1 to 4.
        dtype: uint8 or uint16.
    """
    height, width = size
    row = width * bands * dtype.itemsize
    rows = min(max(_STRIP_BYTES // row, 1), height)
    count = -(-height // rows)
    bits = struct.pack("=4H", *[dtype.itemsize * 8] * bands, *[0] * (4 - bands))
    colours = 1 if bands < 3 else 3
    entries = [
        (256, _LONG, 1, width), (257, _LONG, 1, height), (258, _SHORT, bands, bits), (259, _SHORT, 1, 1),
        (262, _SHORT, 1, 1 if colours == 1 else 2), (273, _LONG8, count, None), (277, _SHORT, 1, bands),
        (278, _LONG, 1, rows), (279, _LONG8, count, None), (284, _SHORT, 1, 1),
    ]  # fmt: skip
    if bands > colours:
        entries.append((338, _SHORT, 1, 0))
    lists = 16 + 8 + 20 * len(entries) + 8
    first = -(-(lists + 16 * count) // row) * row
    starts = [first + number * rows * row for number in range(count)]
    lengths = [min(rows, height - number * rows) * row for number in range(count)]
    behind = {273: (lists, starts), 279: (lists + 8 * count, lengths)}
    out = (b"II" if sys.byteorder == "little" else b"MM") + struct.pack("=HHHQQ", 43, 8, 0, 16, len(entries))
    for tag, kind, number, value in entries:
        if tag in behind:
            place, values = behind[tag]
            value = values[0] if count == 1 else place
        if isinstance(value, bytes):
            field = value
        else:
            field = struct.pack({_SHORT: "=H6x", _LONG: "=L4x", _LONG8: "=Q"}[kind], value)
        out += struct.pack("=HHQ", tag, kind, number) + field
    return (out + bytes(8) + struct.pack(f"={2 * count}Q", *starts, *lengths)).ljust(first, b"\0")


#: Formats that can be read and written without being in memory as a whole.
SPOOLED_FORMATS = frozenset(("tiff", "png", "jpeg"))
_DTYPES: dict[str, np.dtype] = {"uchar": np.dtype(np.uint8), "ushort": np.dtype(np.uint16)}
_VIPS_TYPES = {dtype: name for name, dtype in _DTYPES.items()}
NO_ROOM = os.strerror(errno.ENOSPC)


@dataclass(frozen=True)
class Spool:
    """Rows of a picture in a file, one after the other, behind a header that makes it a TIFF.

    Attributes:
        path: the file.
        size: (H, W).
        bands: channels, alpha among them.
        dtype: uint8 or uint16.
    """

    path: Path
    size: tuple[int, int]
    bands: int
    dtype: np.dtype

    @classmethod
    def of(cls, image: Any, path: Path) -> Spool:
        """Write a pyvips image into a file, from the top down."""
        spool = cls(path, (image.height, image.width), image.bands, _DTYPES[str(image.format)])
        above = spool._header()
        room = pyvips.Image.black(image.width, len(above) // spool._row, bands=image.bands).cast(image.format)
        room.join(image, "vertical").rawsave(os.fsencode(path))
        with open(path, "r+b") as file:
            file.write(above)
        return spool

    @property
    def _row(self) -> int:
        return self.size[1] * self.bands * self.dtype.itemsize

    def _header(self) -> bytes:
        return tiff_header(self.size, self.bands, self.dtype)

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """A part: (rows)×(columns)×bands."""
        width = self.size[1]
        if (columns.start, columns.stop) == (0, width):  # without mapping pages, which would count as resident
            count = (rows.stop - rows.start) * width * self.bands
            offset = len(self._header()) + rows.start * self._row
            return np.fromfile(self.path, self.dtype, count, offset=offset).reshape(-1, width, self.bands)
        return np.array(self._mapped("r")[rows, columns])

    def write(self, rows: slice, columns: slice, values: np.ndarray) -> None:
        """Put a part in place. Whole rows may also come from the top down into a file that grows with them."""
        if (columns.start, columns.stop) == (0, self.size[1]):
            new = not self.path.exists()
            with open(self.path, "w+b" if new else "r+b") as file:
                if new:
                    file.write(self._header())
                file.seek(len(self._header()) + rows.start * self._row)
                file.write(np.ascontiguousarray(values, self.dtype).data)
            return
        whole = self._mapped("r+")
        whole[rows, columns] = values
        whole.flush()

    def _mapped(self, mode: Literal["r", "r+"]) -> np.memmap[Any, Any]:
        shape = (*self.size, self.bands)
        return np.memmap(self.path, self.dtype, mode, offset=len(self._header()), shape=shape)

    def image(self) -> Any:
        """The file as a pyvips image, to be read once from the top down."""
        image = pyvips.Image.tiffload(os.fsencode(self.path), access="sequential").copy()
        for name in set(image.get_fields()) - set(pyvips.Image.black(1, 1).get_fields()):
            image.remove(name)  # nothing of this file is of the picture
        return image

    def upright(self, orientation: int) -> Spool:
        """The same turned as a person sees it, under the same name."""
        if orientation == 1:
            return self
        height, width = self.size
        # Columns become rows: for this the file is mapped.
        image = pyvips.Image.rawload(
            os.fsencode(self.path), width, height, self.bands,
            format=_VIPS_TYPES[self.dtype], access="random", offset=len(self._header()),
        ).copy()  # fmt: skip
        image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
        other = temporary_path(self.path)
        try:
            reoriented = Spool.of(image.autorot(), other)
            os.replace(other, self.path)
        finally:
            other.unlink(missing_ok=True)
        return replace(reoriented, path=self.path)


@dataclass(frozen=True)
class SpooledImage:
    """A picture whose pixels lie in a spool, upright.

    Attributes:
        header: everything but the pixels, of which it has no row.
        spool: the pixels, alpha last.
    """

    header: DecodedImage
    spool: Spool

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.spool.size

    def part(self, rows: slice, columns: slice) -> DecodedImage:
        """A part as a picture."""
        values = self.spool.read(rows, columns)
        channels = self.header.pixels.shape[2]
        alpha = None if self.header.alpha is None else np.ascontiguousarray(values[:, :, channels])
        return replace(self.header, pixels=np.ascontiguousarray(values[:, :, :channels]), alpha=alpha)

    def put(self, rows: slice, columns: slice, part: DecodedImage) -> None:
        """Write a part; see `Spool.write`."""
        values = part.pixels
        if part.alpha is not None:
            values = np.concatenate([values, part.alpha[:, :, None]], axis=2)
        self.spool.write(rows, columns, values)

    def fits(self, kind: str) -> bool:
        """Whether `write_spooled` can write it in this format."""
        plain = self.header.alpha is None and self.spool.dtype == np.uint8
        if self.header.alpha is not None and not self.header.transparent and kind != "tiff":
            return False
        return kind in SPOOLED_FORMATS and (kind != "jpeg" or (plain and max(self.size) <= 65535))


def pixels_in_header(path: Path) -> int:
    """W·H as a file's header tells; 0 where it cannot be told without decoding."""
    try:
        image = pyvips.Image.new_from_file(os.fsencode(path), access="sequential")
    except (pyvips.Error, UnicodeDecodeError):
        pyvips.vips_lib.vips_error_clear()
        return 0
    return int(image.height) * int(image.width)


def spool_image(source: Path, spool: Path, *, max_pixels: int, times: int = 1) -> SpooledImage | None:
    """Decode a picture into a spool, in bands.

    Args:
        source: the file.
        spool: where the rows go. Where the picture has to be turned, that file is written twice.
        max_pixels: as for `read_image`.
        times: how often the raw picture will be on that disk.

    Returns:
        None where a picture has to be in memory to be read: other formats, floating point, rare kinds of integers; and
        where there is nothing to read, which `read_image` explains.

    Raises:
        RestoreError: exit code 1: cannot be decoded, with the reason; too large, for the disk as well.
        OSError: the disk is full, or cannot be written to.
    """
    if not source.is_file() or not os.access(source, os.R_OK) or not source.stat().st_size:
        return None
    with open(source, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        kind = format_of(data[:1024], source)
        if kind not in SPOOLED_FORMATS:
            return None
        pages = tiff_pages.find_pages(data) if kind == "tiff" else [0]
        tiff_header = tiff.read_header(data, pages[0]) if kind == "tiff" else tiff.TiffHeader()
        if tiff_header.raw or len(pages) > 1:
            return None
        # A JPEG decoder only warns of damaged data: the strict try finds out, the second one takes it as it is.
        complaint = ""
        for level in ("warning", "error") if kind == "jpeg" else ("error",):
            try:
                found = _decoded(source, data, kind, spool, max_pixels=max_pixels, times=times, fail_on=level)
                break
            except (pyvips.Error, UnicodeDecodeError) as error:
                complaint = decoder_message(error)
                if NO_ROOM in complaint:
                    raise OSError(errno.ENOSPC, NO_ROOM, os.fspath(spool)) from error
        else:
            raise DamagedFile(
                f"the {kind.upper()} cannot be decoded: {complaint}",
                where=source,
                hint="the file is damaged or cut short",
                exit_code=1,
            )
        if found is None:
            return None
        decoded, rows = found
        if complaint:
            decoded.notes.append(f"damaged data, decoded as far as it goes ({complaint})")
        if kind == "tiff":
            decoded.notes.extend(tiff_pages.missing_pages(data, 1))
        header = assemble_image(data, kind, decoded, tiff_header, size=rows.size)
    empty = np.empty((0, rows.size[1], decoded.channels), rows.dtype)  # turned empty rows have become columns
    return SpooledImage(replace(header, pixels=empty, alpha=None if header.alpha is None else empty[:, :, 0]), rows)


def _decoded(
    source: Path, data: Any, kind: str, spool: Path, *, max_pixels: int, times: int, fail_on: str
) -> tuple[Decoded, Spool] | None:
    """The rows of a picture in a spool, upright; what was decoded beside them, with no row. As `spool_image`."""
    notes: list[str] = []
    image = opened(source, kind, source, max_pixels, fail_on)
    facts = facts_of(image)
    image, colour = to_rgb_or_gray(image, facts.fields, notes)
    channels = colour or (3 if image.bands >= 3 else 1)
    if str(image.format) not in _DTYPES or image.bands > channels + 1:
        return None
    _check_room(spool.parent, image, times, source)
    rows = Spool.of(image, spool)
    # A PNG's block may stand behind the pixels, or in a text: the decoder does not tell of it then.
    exif = png.read_header(data).exif if kind == "png" else facts.fields.get("exif-data")
    rows = rows.upright((facts.orientation if kind == "tiff" else orientation_of(exif)) or 1)
    decoded = Decoded(
        values=np.empty((0, rows.size[1], rows.bands), rows.dtype),
        channels=channels,
        bits=facts.bits or rows.dtype.itemsize * 8,
        white=float(np.iinfo(rows.dtype).max),
        orientation=facts.orientation,
        frames=facts.frames,
        fields=facts.fields,
        dpi=facts.dpi,
        notes=notes,
    )
    return decoded, rows


def _check_room(folder: Path, image: Any, times: int, name: Path) -> None:
    """That a disk has room for the raw picture, so that it is not filled in vain.

    Raises:
        RestoreError: exit code 1.
    """
    height, width = image.height, image.width
    raw = height * width * image.bands * _DTYPES[str(image.format)].itemsize
    needed, free = times * raw, shutil.disk_usage(folder).free
    if needed > free:
        raise RestoreError(
            f"{width}×{height} takes {needed / 1e9:.1f} GB of disk space for a while, and {free / 1e9:.1f} GB are free",
            where=name,
            hint="make room there, or choose another output folder",
            exit_code=1,
        )


# Pictures too large for memory -> files, in bands.


_CLASSIC_TIFF_BYTES = 3_500_000_000
_HEAD_BYTES = 1 << 24  # in which everything of a PNG or JPEG that stands before its pixels has room


def write_spooled(
    picture: SpooledImage, path: Path, kind: str, name: Path, *, quality: int | None, metadata: str
) -> list[str]:
    """Encode a picture from its spool into a file, in bands.

    Args:
        picture: for which `fits(kind)` holds.
        path: the file to write.
        kind: its format.
        name: for messages.
        quality: of a JPEG; None: the source's.
        metadata: `keep` or `strip`.

    Returns:
        Notes on what could not be kept.

    Raises:
        RestoreError: exit code 1: cannot be written, with the reason.
        OSError: the disk is full, or cannot be written to.
    """
    head = picture.header
    if metadata == "strip":
        head = without_metadata(head)
    if kind != head.format:
        head = replace(head, passthrough=b"")
    notes: list[str] = []
    image = described(picture.spool.image(), head, icc=head.icc, xmp=head.xmp if kind == "tiff" else None)
    try:
        if kind == "tiff":
            compression = head.compression if head.format == "tiff" and head.compression else "deflate"
            size = picture.spool.size[0] * picture.spool.size[1] * picture.spool.bands * picture.spool.dtype.itemsize
            big = size > _CLASSIC_TIFF_BYTES
            image.tiffsave(os.fsencode(path), compression=compression, predictor="horizontal", bigtiff=big)
            if big and (head.exif or head.passthrough):
                notes.append("a TIFF of this size is written without EXIF")
            with open(path, "r+b") as file:
                seen = head.alpha is None or head.transparent
                tiff.add_tags(
                    file,
                    exif=head.exif,
                    passthrough=head.passthrough,
                    transparent=seen,
                    has_dpi=head.dpi is not None,
                )
        elif kind == "png":
            image.pngsave(os.fsencode(path), compression=PNG_LEVEL, filter="up", keep="icc")
            _rewrite_head(path, lambda data: png.with_chunks(
                data, exif=head.exif, xmp=head.xmp, passthrough=head.passthrough,
                has_icc=bool(head.icc), has_dpi=head.dpi is not None,
            ))  # fmt: skip
        else:
            source = head.jpeg
            level = quality or (source.quality if source is not None and source.quality else DEFAULT_QUALITY)
            sampled = source is None or source.subsampling == "4:2:0"
            image.jpegsave(
                os.fsencode(path), Q=level, keep="icc", subsample_mode="on" if sampled else "off",
                interlace=bool(source is not None and source.progressive),
            )  # fmt: skip
            if quality is None and source is not None:
                notes.append(f"a picture of this size is compressed at quality {level}, not by its own tables")
            segments = jpeg.metadata_segments(head.exif, head.xmp, notes) + head.passthrough
            _rewrite_head(path, lambda data: jpeg.with_segments(jpeg.with_density(data, head.dpi), segments))
    except (pyvips.Error, UnicodeDecodeError) as error:
        reason = decoder_message(error)
        if NO_ROOM in reason:
            raise OSError(errno.ENOSPC, NO_ROOM, os.fspath(path)) from error
        raise RestoreError(f"cannot be written as {kind.upper()}: {reason}", where=name, exit_code=1) from error
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise RestoreError(f"cannot be written as {kind.upper()}: {reason}", where=name, exit_code=1) from error
    return notes


def _rewrite_head(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change what stands at the beginning of a file; the rest is copied behind it."""
    with open(path, "rb") as source:
        head = source.read(_HEAD_BYTES)
        changed = change(head)
        if changed == head:
            return
        other = temporary_path(path)
        try:
            with open(other, "wb") as target:
                target.write(changed)
                shutil.copyfileobj(source, target, 1 << 22)
            os.replace(other, path)
        finally:
            other.unlink(missing_ok=True)
