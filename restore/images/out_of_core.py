"""Images too large for memory: a file (the spool) holds their rows, which are read, changed and written in bands."""

from __future__ import annotations

import errno
import functools
import mmap
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyvips

from restore.errors import RestoreError
from restore.files import temporary_path
from restore.images import tiff_pixels
from restore.images.assemble import assemble_image
from restore.images.decode import decoder_message, header_fields, open_sequential, to_rgb_or_gray
from restore.images.decoder_output import DamagedFile, DecoderOutput, add_own_fields, damage_note
from restore.images.encode import (
    BIGTIFF_BYTES,
    DEFAULT_QUALITY,
    PNG_LEVEL,
    with_header,
)
from restore.images.fit_to_format import without_foreign_parts, without_metadata
from restore.images.formats import format_of
from restore.images.image import DecodedImage
from restore.images.metadata import jpeg, png, tiff, tiff_pages
from restore.images.metadata.exif import orientation_of
from restore.images.output_colors import becomes_srgb, profile_for
from restore.images.vips_errors import with_own_errors

#: Formats that can be read and written without the whole image in memory.
SPOOLED_FORMATS = frozenset(("tiff", "png", "jpeg"))

_DTYPES: dict[str, np.dtype[Any]] = {"uchar": np.dtype(np.uint8), "ushort": np.dtype(np.uint16)}
_VIPS_TYPES = {dtype: name for name, dtype in _DTYPES.items()}
_STRIP_BYTES = 1 << 20
#: Everything before the pixels of a PNG or JPEG fits into this.
_HEAD_BYTES = 1 << 24
#: What libvips says when the disk is full.
_NO_SPACE = os.strerror(errno.ENOSPC)


@dataclass(frozen=True)
class Spool:
    """An uncompressed TIFF whose rows lie in order without gaps, so that they can be changed in place.

    Attributes:
        path: the file.
        size: (H, W).
        bands: the number of channels, with alpha.
        dtype: uint8 or uint16.
        offset: the position of the first row.
    """

    path: Path
    size: tuple[int, int]
    bands: int
    dtype: np.dtype[Any]
    offset: int

    @classmethod
    def create(cls, path: Path, size: tuple[int, int], bands: int, dtype: np.dtype[Any]) -> Spool:
        """Create a file of zeros, as a hole that takes no disk space until it is written."""
        import tifffile

        height, width = size
        colors = 1 if bands < 3 else 3
        rows = tifffile.memmap(
            path,
            shape=size if bands == 1 else (*size, bands),
            dtype=dtype,
            bigtiff=True,
            photometric="minisblack" if colors == 1 else "rgb",
            planarconfig=None if bands == 1 else "contig",
            extrasamples=["unspecified"] if bands > colors else None,
            rowsperstrip=min(max(_STRIP_BYTES // (width * bands * dtype.itemsize), 1), height),
            metadata=None,
            software=False,
        )
        return cls(path, size, bands, dtype, rows.offset)

    @classmethod
    def from_vips(cls, image: Any, path: Path) -> Spool:
        """Write the rows of a `pyvips.Image` to a new file, from the top down."""
        spool = cls.create(path, (image.height, image.width), image.bands, _DTYPES[str(image.format)])
        with open(path, "r+b") as file:
            file.seek(spool.offset)
            image.rawsave_target(pyvips.Target.new_to_descriptor(file.fileno()))
        return spool

    def empty_copy(self, path: Path) -> Spool:
        """Create a file of zeros for an image of the same size and type."""
        return self.create(path, self.size, self.bands, self.dtype)

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Read a region: (rows)×(columns)×bands."""
        width = self.size[1]
        if (columns.start, columns.stop) == (0, width):  # read, because mapped pages count as memory of the process
            count = (rows.stop - rows.start) * width * self.bands
            values = np.fromfile(self.path, self.dtype, count, offset=self._position(rows.start))
            return values.reshape(-1, width, self.bands)
        return np.array(self._mapped("r")[rows, columns])

    def write(self, rows: slice, columns: slice, values: np.ndarray) -> None:
        """Write a region in place."""
        if (columns.start, columns.stop) == (0, self.size[1]):
            with open(self.path, "r+b") as file:
                file.seek(self._position(rows.start))
                file.write(np.ascontiguousarray(values, self.dtype).data)
            return
        whole = self._mapped("r+")
        whole[rows, columns] = values
        whole.flush()

    def _position(self, row: int) -> int:
        return self.offset + row * self.size[1] * self.bands * self.dtype.itemsize

    def _mapped(self, mode: Literal["r", "r+"]) -> np.memmap[Any, Any]:
        return np.memmap(self.path, self.dtype, mode, offset=self.offset, shape=(*self.size, self.bands))

    def to_vips(self) -> Any:
        """The file as a `pyvips.Image`, to be read once from the top down."""
        image = pyvips.Image.tiffload(os.fsencode(self.path), access="sequential").copy()
        for name in set(image.get_fields()) - set(pyvips.Image.black(1, 1).get_fields()):
            image.remove(name)  # the header of the spool says nothing about the image
        return image

    def upright(self, orientation: int) -> Spool:
        """Turn the rows upright; the file keeps its name."""
        if orientation == 1:
            return self
        height, width = self.size
        # Rows may become columns, so the file is mapped for random access.
        image = pyvips.Image.rawload(
            os.fsencode(self.path), width, height, self.bands,
            format=_VIPS_TYPES[self.dtype], access="random", offset=self.offset,
        ).copy()  # fmt: skip
        image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
        other = temporary_path(self.path)
        try:
            reoriented = Spool.from_vips(image.autorot(), other)
            os.replace(other, self.path)
        finally:
            other.unlink(missing_ok=True)
        return replace(reoriented, path=self.path)


@dataclass(frozen=True)
class SpooledImage:
    """An image whose pixels lie in a spool, upright.

    Attributes:
        header: the image without its pixels (an array of no rows).
        spool: the pixels; alpha is the last channel.
    """

    header: DecodedImage
    spool: Spool

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.spool.size

    def part(self, rows: slice, columns: slice) -> DecodedImage:
        """Read a region as an image."""
        values = self.spool.read(rows, columns)
        channels = self.header.pixels.shape[2]
        alpha = None if self.header.alpha is None else np.ascontiguousarray(values[:, :, channels])
        return replace(self.header, pixels=np.ascontiguousarray(values[:, :, :channels]), alpha=alpha)

    def put(self, rows: slice, columns: slice, part: DecodedImage) -> None:
        """Write a region."""
        values = part.pixels
        if part.alpha is not None:
            values = np.concatenate([values, part.alpha[:, :, None]], axis=2)
        self.spool.write(rows, columns, values)

    def empty_copy(self, path: Path, scale: int = 1) -> SpooledImage:
        """An image of zeros like this one in a new file, `scale` times as high and as wide, with metadata for that."""
        height, width = (side * scale for side in self.size)
        header, spool = self.header, replace(self.spool, size=(height, width)).empty_copy(path)
        if scale > 1:
            empty = np.empty((0, width, header.pixels.shape[2]), spool.dtype)
            alpha = None if header.alpha is None else empty[:, :, 0]
            header = replace(header, pixels=empty, alpha=alpha).with_metadata_for((height, width))
        return SpooledImage(header, spool)

    def fits(self, kind: str) -> bool:
        """Whether `write_spooled` can write the image in a format."""
        plain = self.header.alpha is None and self.spool.dtype == np.uint8
        if self.header.alpha is not None and not self.header.transparent and kind != "tiff":
            return False
        if becomes_srgb(self.header, kind):
            return False
        return kind in SPOOLED_FORMATS and (kind != "jpeg" or (plain and max(self.size) <= 65535))


# Reading


def spool_image(source: Path, spool: Path, *, max_pixels: int, times: int = 1) -> SpooledImage | None:
    """Decode an image into a spool, in bands.

    Args:
        source: the file.
        spool: the file for the rows. To turn an image upright, a second file is written beside it.
        max_pixels: as for `read_image`.
        times: how many such files the caller needs on that disk.

    Returns:
        None if the image must be in memory to be read (other formats, several pages, float, rare types of integers), or
        if the file cannot be opened; `read_image` then reports why.

    Raises:
        RestoreError: exit code 1: the file cannot be decoded, with the reason; the image is too large, also for the
            disk.
        OSError: the disk is full, or the spool cannot be written.
    """
    if not source.is_file() or not os.access(source, os.R_OK) or not source.stat().st_size:
        return None
    with open(source, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        kind = format_of(data[:1024], source)
        if kind not in SPOOLED_FORMATS:
            return None
        tiff_header = _plain_tiff(data) if kind == "tiff" else None
        if kind == "tiff" and tiff_header is None:
            return None
        # As in `decode`: libjpeg only warns about damaged data, so the first try treats warnings as errors.
        complaint = ""
        for fail_on in ("warning", "error") if kind == "jpeg" else ("error",):
            try:
                spooling = functools.partial(_decode_to_spool, max_pixels=max_pixels, times=times, fail_on=fail_on)
                decoded = with_own_errors(functools.partial(spooling, source, data, kind, spool))
                break
            except (pyvips.Error, UnicodeDecodeError) as error:
                complaint = decoder_message(error)
                if _NO_SPACE in complaint:
                    raise OSError(errno.ENOSPC, _NO_SPACE, os.fspath(spool)) from error
        else:
            what = f"the {kind.upper()} cannot be decoded: {complaint}"
            raise DamagedFile(what, where=source, hint="the file is damaged or truncated", exit_code=1)
        if decoded is None:
            return None
        output, rows = decoded
        if complaint:
            output.notes.append(damage_note(complaint))
        if kind == "tiff":
            output.notes.extend([*tiff_pages.find_pages(data).notes, *tiff_pages.missing_pages(data, 1)])
        header = assemble_image(data, kind, output, tiff_header, size=rows.size)
    # `assemble_image` has turned the array of no rows too, into one of no columns.
    empty = np.empty((0, rows.size[1], output.channels), rows.dtype)
    return SpooledImage(replace(header, pixels=empty, alpha=None if header.alpha is None else empty[:, :, 0]), rows)


def _plain_tiff(data: Any) -> tiff.TiffHeader | None:
    """The header of a TIFF whose first directory is its only page, as libvips reads it; otherwise None."""
    found = tiff_pages.find_pages(data)
    header = tiff.read_header(data, found.pages[0])
    if header.raw or found.pages != [found.first] or found.masks or not tiff_pixels.by_vips(header):
        return None
    return header


def _decode_to_spool(
    source: Path, data: Any, kind: str, spool: Path, *, max_pixels: int, times: int, fail_on: str
) -> tuple[DecoderOutput, Spool] | None:
    """The rows of an image in a spool, upright, and what else the decoder found; for arguments see `spool_image`."""
    notes: list[str] = []
    image = open_sequential(source, kind, source, max_pixels, fail_on)
    header = header_fields(image)
    add_own_fields(header.fields, data, kind)
    image, color_channels = to_rgb_or_gray(image, header.fields, notes)
    channels = color_channels or (3 if image.bands >= 3 else 1)
    if str(image.format) not in _DTYPES or image.bands > channels + 1:
        return None
    _check_disk_space(spool.parent, image, times, source)
    rows = Spool.from_vips(image, spool)
    # libvips finds no EXIF block behind the pixels of a PNG, or in a text.
    exif = png.read_header(data).exif if kind == "png" else header.fields.get("exif-data")
    orientation = header.orientation if kind == "tiff" else None if exif is None else orientation_of(exif)
    rows = rows.upright(orientation or 1)
    output = DecoderOutput(
        values=np.empty((0, rows.size[1], rows.bands), rows.dtype),
        channels=channels,
        bits=header.bits or rows.dtype.itemsize * 8,
        white=float(np.iinfo(rows.dtype).max),
        orientation=header.orientation,
        frames=header.frames,
        fields=header.fields,
        dpi=header.dpi,
        notes=notes,
    )
    return output, rows


def _check_disk_space(folder: Path, image: Any, times: int, name: Path) -> None:
    """Check that a disk has room for the uncompressed image, before filling it.

    Raises:
        RestoreError: exit code 1.
    """
    height, width = image.height, image.width
    raw = height * width * image.bands * _DTYPES[str(image.format)].itemsize
    needed, free = times * raw, shutil.disk_usage(folder).free
    if needed > free:
        raise RestoreError(
            f"{width}×{height} needs {needed / 1e9:.1f} GB of temporary disk space, but {free / 1e9:.1f} GB are free",
            where=name,
            hint="free disk space, or choose another output folder",
            exit_code=1,
        )


# Writing


def write_spooled(
    image: SpooledImage, path: Path, kind: str, name: Path, *, quality: int | None, metadata: str
) -> list[str]:
    """Encode an image from its spool to a file, in bands.

    Args:
        image: to write; `image.fits(kind)` is true.
        path: the file to write.
        kind: its format.
        name: for messages.
        quality: of a JPEG; None: the source's.
        metadata: `keep` or `strip`.

    Returns:
        Notes for the user on what the file could not hold.

    Raises:
        RestoreError: exit code 1: the image cannot be encoded, with the reason.
        OSError: the disk is full, or the file cannot be written.
    """
    header = image.header
    if metadata == "strip":
        header = without_metadata(header)
    notes: list[str] = []
    header = without_foreign_parts(header, kind, notes)
    encoders = {"tiff": _write_tiff, "png": _write_png, "jpeg": _write_jpeg}
    try:
        encoders[kind](image.spool, header, path, quality, notes)
    except (pyvips.Error, UnicodeDecodeError) as error:
        reason = decoder_message(error)
        if _NO_SPACE in reason:
            raise OSError(errno.ENOSPC, _NO_SPACE, os.fspath(path)) from error
        raise RestoreError(
            f"the image cannot be written as {kind.upper()}: {reason}", where=name, exit_code=1
        ) from error
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise RestoreError(
            f"the image cannot be written as {kind.upper()}: {reason}", where=name, exit_code=1
        ) from error
    if header.trailer:
        with open(path, "ab") as file:
            file.write(header.trailer)
    return notes


def _write_tiff(spool: Spool, header: DecodedImage, path: Path, _quality: int | None, _notes: list[str]) -> None:
    big = spool.size[0] * spool.size[1] * spool.bands * spool.dtype.itemsize > BIGTIFF_BYTES
    with_header(spool.to_vips(), header, icc=profile_for(header, "tiff"), xmp=header.xmp).tiffsave(
        os.fsencode(path),
        compression=header.compression if header.format == "tiff" and header.compression else "deflate",
        predictor="horizontal",
        bigtiff=big,
    )
    with open(path, "r+b") as file:
        tiff.add_tags(
            file,
            exif=header.exif,
            passthrough=header.passthrough,
            transparent=header.alpha is None or header.transparent,
            dpi=header.dpi,
            shape=header.pixel_shape,
        )


def _write_png(spool: Spool, header: DecodedImage, path: Path, _quality: int | None, _notes: list[str]) -> None:
    icc = profile_for(header, "png")
    image = with_header(spool.to_vips(), header, icc=icc)
    image.pngsave(os.fsencode(path), compression=PNG_LEVEL, filter="up", keep="icc")
    _rewrite_head(path, lambda data: png.with_chunks(
        data, exif=header.exif, xmp=header.xmp, passthrough=header.passthrough,
        has_icc=bool(icc), dpi=header.dpi, shape=header.pixel_shape,
    ))  # fmt: skip


def _write_jpeg(spool: Spool, header: DecodedImage, path: Path, quality: int | None, notes: list[str]) -> None:
    source = header.jpeg
    own = 0 if source is None else 100 if source.lossless else source.quality
    used = quality or own or DEFAULT_QUALITY
    subsample = source is None or source.subsampling == "4:2:0"
    with_header(spool.to_vips(), header, icc=profile_for(header, "jpeg")).jpegsave(
        os.fsencode(path),
        Q=used,
        keep="icc",
        subsample_mode="on" if subsample else "off",
        interlace=source is not None and source.progressive,
    )
    if quality is None and source is not None:  # libvips takes no quantization tables
        notes.append(f"an image of this size is compressed at quality {used}, without the source's own tables")
    _rewrite_head(path, lambda data: jpeg.with_metadata(
        jpeg.with_density(data, header.dpi, header.pixel_shape), header.exif, header.xmp, header.passthrough, notes
    ))  # fmt: skip


def _rewrite_head(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change the beginning of a file; the rest is copied."""
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
