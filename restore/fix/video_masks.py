"""Masks of a video's frames: a video of masks, a folder or a sequence of them, or one mask for all frames."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from restore.errors import RestoreError
from restore.images import IMAGE_SUFFIXES, DecodedImage, read_image
from restore.images.formats import suffix_of
from restore.video.formats import VIDEO_SUFFIXES, is_video_file
from restore.video.sequence import files_of, is_sequence, number_of

if TYPE_CHECKING:
    from restore.fix.jobs import Entry
    from restore.fix.masks import MaskSource

#: Codecs of videos whose black and white are not blurred.
_LOSSLESS = frozenset(("ffv1", "huffyuv", "ffvhuff", "utvideo", "rawvideo", "png", "qtrle"))


class FrameMasks(Protocol):
    """The masks of a video's frames.

    Attributes:
        count: how many there are; 0: unknown.
    """

    count: int

    def mask(self, number: int) -> tuple[DecodedImage, Path]:
        """The mask of a frame, upright, as its file holds it, and the file. Numbers rise.

        Raises:
            RestoreError: exit code 1; there is none, or it cannot be read.
        """

    def check_end(self, frames: int) -> None:
        """Check that there are no masks behind those of this number of frames.

        Raises:
            RestoreError: exit code 1.
        """


def holds_frames(mask: Path) -> bool:
    """Whether there is a mask for each frame, instead of one for all."""
    return mask.is_dir() or is_sequence(mask) or is_video_file(mask)


class FrameMaskFinder:
    """Finds the masks of videos and of image sequences, which may have one for each frame.

    Args:
        source: where masks come from; None: there are none.
        sequence: the input is this image sequence; None: it is none.
        alone: there is one input, a file.
    """

    def __init__(self, source: MaskSource | None, sequence: Path | None, *, alone: bool) -> None:
        self._folder = source.path if source is not None and source.folder else None
        self._file = source.path if source is not None and not source.folder else None
        self._sequence, self._alone = sequence, alone
        self._numbered: dict[int, Path] | None = None
        self._of_frames = self._file is not None and holds_frames(self._file)
        if self._of_frames and self._file is not None and is_sequence(self._file):
            self._numbered = files_of(self._file)
        self._used: list[str] = []

    def of(self, entry: Entry, own: list[str]) -> list[str]:
        """The masks of a job: none, one, or several, which is a conflict.

        Args:
            entry: the job.
            own: those that were found by its name.

        Raises:
            RestoreError: exit code 2; masks of frames are given for an image that is no frame.
        """
        if entry.video and self._folder is not None:
            found = [mask for mask in masks_of_video(self._folder, entry.name, alone=self._alone and not own)
                     if os.path.realpath(mask) != os.path.realpath(entry.source)]  # fmt: skip
            self._used += found
            return own + found
        if entry.video or not self._of_frames:
            return own
        if self._sequence is None or self._numbered is None:
            raise RestoreError(
                "are masks of frames, which only videos have", where="--masks",
                hint="name one mask, or a folder of masks that are named after the images",
            )  # fmt: skip
        number = number_of(self._sequence, Path(entry.name))
        mask = None if number is None else self._numbered.get(number)
        return [] if mask is None else [os.fspath(mask)]

    def still_unmatched(self, unmatched: dict[str, str]) -> dict[str, str]:
        """The masks without an image that are not those of frames."""
        inside = tuple(os.path.join(folder, "") for folder in self._used)
        return {mask: reason for mask, reason in unmatched.items() if not mask.startswith(inside)}


def masks_of_video(folder: Path, name: str, *, alone: bool) -> list[str]:
    """The masks for the frames of a video, in a folder of masks: none, one, or several, which is a conflict.

    Args:
        folder: of the masks.
        name: relative path of the video.
        alone: it is the only input. Then the folder itself may hold the masks of its frames.
    """
    found: list[str] = []
    own = (folder / name).with_suffix("")
    for stem in (own.name, f"{own.name}_mask"):
        place = own.with_name(stem)
        found += [os.fspath(place)] if place.is_dir() else []
        videos = (place.with_name(stem + suffix) for suffix in sorted(VIDEO_SUFFIXES))
        found += [os.fspath(video) for video in videos if is_video_file(video)]
    if not found and alone and _images_in(folder):
        found.append(os.fspath(folder))
    return found


def open_masks(mask: Path, decoding: Callable[[], AbstractContextManager[None]] = nullcontext) -> FrameMasks:
    """The masks of frames; see `holds_frames`.

    Args:
        mask: a folder, a sequence or a video.
        decoding: see `restore.video.read.read_frames`.

    Raises:
        RestoreError: exit code 1; there are no masks, or they cannot be read.
    """
    if not mask.is_dir() and not is_sequence(mask):
        return _VideoOfMasks(mask, decoding)
    files = _images_in(mask) if mask.is_dir() else list(files_of(mask).values())
    if not files:
        raise RestoreError("there are no masks in this folder", where=mask, exit_code=1)
    return _FilesOfMasks(mask, files)


def fingerprint(mask: Path) -> str:
    """A value that changes when masks of frames change."""
    files = _images_in(mask) if mask.is_dir() else files_of(mask).values() if is_sequence(mask) else [mask]
    digest = hashlib.sha256()
    for file in files:
        status = os.stat(file)
        digest.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def check_count(masks: FrameMasks, frames: int, where: Path) -> None:
    """Compare the numbers of masks and frames, where both are known.

    Raises:
        RestoreError: exit code 1.
    """
    if masks.count and frames and masks.count != frames:
        raise _differ(masks.count, frames, where)


class _FilesOfMasks:
    def __init__(self, where: Path, files: list[Path]) -> None:
        self._where, self._files, self.count = where, files, len(files)

    def mask(self, number: int) -> tuple[DecodedImage, Path]:
        if number >= self.count:
            raise _ended(self.count, self._where)
        return read_image(self._files[number]), self._files[number]

    def check_end(self, frames: int) -> None:
        if frames != self.count:
            raise _differ(self.count, frames, self._where)


class _VideoOfMasks:
    def __init__(self, where: Path, decoding: Callable[[], AbstractContextManager[None]]) -> None:
        from restore.video.colors import colors_of
        from restore.video.probe import probe
        from restore.video.read import read_frames

        self._where = where
        with decoding():
            facts = probe(where)
        self._colors, _ = colors_of(facts)
        self._facts, self.count = facts, facts.frames
        self._frames: Iterator[Any] = read_frames(where, facts, planes=self._colors.planes, decoding=decoding)
        self._next = 0

    def mask(self, number: int) -> tuple[DecodedImage, Path]:
        one = next(islice(self._frames, number - self._next, None), None)
        if one is None:
            raise _ended(0, self._where)
        self._next = number + 1
        pixels = np.ascontiguousarray(np.rot90(self._colors.to_rgb(one.frame), self._facts.quarter_turns))
        lossy = "" if self._facts.codec in _LOSSLESS else "lossy"
        return DecodedImage(pixels, white=65535.0, bits=16, compression=lossy), self._where

    def check_end(self, frames: int) -> None:
        behind = next(islice(self._frames, frames - self._next, None), None)
        if behind is not None:
            raise _differ(0, frames, self._where)


def _images_in(folder: Path) -> list[Path]:
    """The images of a folder, by name."""
    names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    return [folder / name for name in names if suffix_of(name).lower() in IMAGE_SUFFIXES]


def _ended(masks: int, where: Path) -> RestoreError:
    count = f"{masks} masks are" if masks else "the masks are"
    return RestoreError(f"{count} fewer than the frames of the video", where=where, hint=_HINT, exit_code=1)


def _differ(masks: int, frames: int, where: Path) -> RestoreError:
    there = f"there are {masks} masks" if masks else "there are more masks than frames"
    return RestoreError(f"{there}, but the video has {frames} frames", where=where, hint=_HINT, exit_code=1)


_HINT = "each frame needs a mask of its own, or one image is the mask of all"
