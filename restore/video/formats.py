"""Which files are videos: by suffix and by content. Nothing here needs PyAV."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path, PurePath

from restore.images import UnsupportedFile

#: Suffix -> the container that is written, in FFmpeg's words.
CONTAINER_OF_SUFFIX = {
    ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".qt": "mov", ".3gp": "3gp",
    ".mkv": "matroska", ".webm": "webm", ".avi": "avi", ".ts": "mpegts", ".mpg": "mpeg", ".mpeg": "mpeg",
}  # fmt: skip

#: Suffixes of videos that are read, but not written.
_READ_ONLY = (".wmv", ".asf", ".flv", ".vob", ".ogv", ".dv", ".mxf", ".m2ts", ".mts")

VIDEO_SUFFIXES = frozenset((*CONTAINER_OF_SUFFIX, *_READ_ONLY))

_SIGNATURES = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"\0\0\x01\xba",  # MPEG program stream
    b"\0\0\x01\xb3",  # MPEG video alone
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF, WMV
    b"FLV\x01",
    b"OggS",
    b"\x1f\x07\0",  # DV
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01",  # MXF
)
#: The first box of a QuickTime file that has no brand.
_QUICKTIME_BOXES = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def is_video(data: bytes, name: str | PurePath) -> bool:
    """Whether a file is a video, by its suffix and its content.

    Args:
        data: the first 1024 bytes, or the whole file.
        name: of the file.
    """
    if PurePath(name).suffix.lower() not in VIDEO_SUFFIXES:
        return False
    if data.startswith(_SIGNATURES) or (data[:4] == b"RIFF" and data[8:12] == b"AVI "):
        return True
    if data[4:8] == b"ftyp" or data[4:8] in _QUICKTIME_BOXES:
        return True
    return any(data[start : start + 1] == b"G" == data[start + step : start + step + 1]  # an MPEG transport stream
               for start, step in ((0, 188), (4, 192)))  # fmt: skip


def is_video_file(path: Path) -> bool:
    """Whether a file is a video. A file that cannot be read is none."""
    if path.suffix.lower() not in VIDEO_SUFFIXES or not path.is_file():
        return False
    try:
        with open(path, "rb") as file:
            return is_video(file.read(1024), path)
    except OSError:
        return False


def check_readable(name: str | os.PathLike[str]) -> None:
    """Check that videos can be read at all.

    Raises:
        UnsupportedFile: exit code 1; the extra is not installed.
    """
    if find_spec("av") is None:
        hint = "video needs an extra package: pip install 'restore-toolkit[video]'"
        raise UnsupportedFile("this is a video", where=name, hint=hint, exit_code=1)
