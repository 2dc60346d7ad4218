"""Pictures too large for memory: their rows on the disk, in bands (`restore.images.unspool` writes them)."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyvips

from restore.errors import RestoreError
from restore.files import temporary_beside
from restore.images import png, raw_tiff, tiff, tiff_pages
from restore.images.decode import facts_of, opened, reason_of, to_rgb_or_gray
from restore.images.decoded import Damaged, Decoded
from restore.images.exif import orientation_of
from restore.images.picture import Picture
from restore.images.read import assembled
from restore.images.sniff import format_of

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
        return raw_tiff.header(self.size, self.bands, self.dtype)

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
        other = temporary_beside(self.path)
        try:
            turned = Spool.of(image.autorot(), other)
            os.replace(other, self.path)
        finally:
            other.unlink(missing_ok=True)
        return replace(turned, path=self.path)


@dataclass(frozen=True)
class SpooledPicture:
    """A picture whose pixels lie in a spool, upright.

    Attributes:
        header: everything but the pixels, of which it has no row.
        spool: the pixels, alpha last.
    """

    header: Picture
    spool: Spool

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.spool.size

    def part(self, rows: slice, columns: slice) -> Picture:
        """A part as a picture."""
        values = self.spool.read(rows, columns)
        channels = self.header.pixels.shape[2]
        alpha = None if self.header.alpha is None else np.ascontiguousarray(values[:, :, channels])
        return replace(self.header, pixels=np.ascontiguousarray(values[:, :, :channels]), alpha=alpha)

    def put(self, rows: slice, columns: slice, part: Picture) -> None:
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


def spool_picture(source: Path, spool: Path, *, max_pixels: int, times: int = 1) -> SpooledPicture | None:
    """Decode a picture into a spool, in bands.

    Args:
        source: the file.
        spool: where the rows go. Where the picture has to be turned, that file is written twice.
        max_pixels: as for `read_picture`.
        times: how often the raw picture will be on that disk.

    Returns:
        None where a picture has to be in memory to be read: other formats, floating point, rare kinds of integers; and
        where there is nothing to read, which `read_picture` explains.

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
                complaint = reason_of(error)
                if NO_ROOM in complaint:
                    raise OSError(errno.ENOSPC, NO_ROOM, os.fspath(spool)) from error
        else:
            raise Damaged(
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
        header = assembled(data, kind, decoded, tiff_header, size=rows.size)
    empty = np.empty((0, rows.size[1], decoded.channels), rows.dtype)  # turned empty rows have become columns
    return SpooledPicture(replace(header, pixels=empty, alpha=None if header.alpha is None else empty[:, :, 0]), rows)


def _decoded(
    source: Path, data: Any, kind: str, spool: Path, *, max_pixels: int, times: int, fail_on: str
) -> tuple[Decoded, Spool] | None:
    """The rows of a picture in a spool, upright; what was decoded beside them, with no row. As `spool_picture`."""
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
