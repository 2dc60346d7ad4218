"""What a file becomes before it is trained on: read, judged, brought to size."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from pathlib import Path

import cv2
import numpy as np

from restore.errors import RestoreError, printable

# Pictures that look alike: a perceptual hash that survives re-encoding, resizing and small retouches.


_SIDE, _KEPT = 32, 8


def perceptual_hash(picture: np.ndarray) -> int:
    """The 64-bit DCT hash ("pHash") of a picture.

    The picture is shrunk to 32×32 and turned gray; of its cosine transform the 8×8 lowest frequencies are kept, and
    each gives one bit: whether it lies above their median (the mean brightness is left out of the median). After
    Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, section 3.2.1.

    Args:
        picture: uint8, H×W×3, sRGB.

    Returns:
        0 … 2^64 - 1; see `hamming`.
    """
    small = cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    low = cv2.dct(gray)[:_KEPT, :_KEPT].ravel()
    return int.from_bytes(np.packbits(low > np.median(low[1:])).tobytes(), "big")


def hashes_with_mirror(picture: np.ndarray) -> tuple[int, int]:
    """The hashes of a picture (uint8, H×W×3) and of its mirror image, left-right."""
    return perceptual_hash(picture), perceptual_hash(np.ascontiguousarray(picture[:, ::-1]))


def hamming(a: int, b: int) -> int:
    """In how many bits two hashes differ: 0 the same picture; 0 to 8 copies of it; around 32 strangers."""
    return (a ^ b).bit_count()


class DuplicateIndex:
    """The hashes of some pictures and of their mirror images, to hold others against.

    Args:
        pictures: uint8, H×W×3 each.
        bits: what differs in fewer bits than this counts as alike; 0: nothing does.
    """

    def __init__(self, pictures: Iterable[np.ndarray] = (), bits: int = 0) -> None:
        self.bits = bits
        self._hashes = {h for picture in pictures for h in hashes_with_mirror(picture)} if bits else set()

    def __contains__(self, picture: np.ndarray) -> bool:
        """Whether a picture (uint8, H×W×3) looks like one of these."""
        if not self._hashes:
            return False
        mine = perceptual_hash(picture)
        return any(hamming(mine, other) < self.bits for other in self._hashes)


_LONGEST = 16  # of a picture that is enlarged: its long side by its short one; the rest of a strip is cut off


class ImageStatus(Enum):
    """What is known of a file."""

    UNKNOWN = 0
    USED = 1
    ENLARGED = 2
    BROKEN = 3
    TINY = 4
    LOOKALIKE = 5


_LEFT_OUT = (ImageStatus.BROKEN, ImageStatus.TINY, ImageStatus.LOOKALIKE)


class TrainingImages:
    """The training files, each judged when it is first read; the verdict depends on the file alone.

    Args:
        files: in order.
        read: a file -> H×W×C uint8, the clean picture in its last three channels.
        patch: the shorter side that a picture must have.
        small_images: `upscale` or `skip` those that have not.
        on_error: `skip` or `fail` where a file cannot be read.
        held_out: what looks like one of these is left out.
        say: told once of each broken file.
        announce: say so, too, when the first picture is met that is enlarged, or left out for another reason.
    """

    def __init__(
        self,
        files: Sequence[Path],
        read: Callable[[Path], np.ndarray],
        *,
        patch: int = 1,
        small_images: str = "upscale",
        on_error: str = "skip",
        held_out: DuplicateIndex | None = None,
        on_event: Callable[[str], None] = lambda line: None,
        announce: bool = False,
    ) -> None:
        self.files = list(files)
        self.announce = announce
        self.fates = [ImageStatus.UNKNOWN] * len(self.files)
        self._read, self._patch, self._small_images, self._on_error = read, patch, small_images, on_error
        self._held_out = held_out or DuplicateIndex()
        self._on_event = on_event
        self._announced: set[ImageStatus] = set()
        self._lock = threading.Lock()
        self._first_error: RestoreError | None = None

    def take(self, index: int) -> np.ndarray | None:
        """The picture of a file, H×W×C uint8, both sides at least `patch`; None where it is left out. Thread-safe.

        Raises:
            RestoreError: it cannot be read and `on_error` is `fail`; or it could be read before, or has vanished.
        """
        path, fate = self.files[index], self.fates[index]
        if fate in _LEFT_OUT:
            return None
        try:
            picture = self._read(path)
        except RestoreError as error:
            if fate is not ImageStatus.UNKNOWN or not os.path.lexists(path):
                raise RestoreError(
                    f"was there when training began, and now: {error.what}",
                    where=path,
                    hint="put it back; the same command goes on",
                    exit_code=1,
                ) from error
            if self._on_error == "fail":
                raise
            self._leave_out_broken(index, error)
            return None
        if fate is ImageStatus.UNKNOWN:
            fate = self._judge(picture)
            with self._lock:
                if self.announce and fate is not ImageStatus.USED and fate not in self._announced:
                    self._announced.add(fate)
                    self._on_event(f"{printable(path)}: {self._what(fate)}; so is every other one like it")
                self.fates[index] = fate
            if fate in _LEFT_OUT:
                return None
        return enlarged(picture, self._patch) if fate is ImageStatus.ENLARGED else picture

    def leave_out_missing(self) -> None:
        """Settle at once what a list names and nobody has, so that what goes missing later is told apart from it.

        Raises:
            RestoreError: there is one, and `on_error` is `fail`.
        """
        for index, path in enumerate(self.files):
            if self.fates[index] is ImageStatus.UNKNOWN and not os.path.lexists(path):
                missing = RestoreError("there is no such file", where=path, exit_code=1)
                if self._on_error == "fail":
                    raise missing
                self._leave_out_broken(index, missing)

    def usable(self, index: int) -> bool:
        """Whether a file is used, or may yet turn out to be."""
        return self.fates[index] not in _LEFT_OUT

    def summary(self) -> list[str]:
        """What was enlarged or left out, a line for each reason."""
        lines = []
        for fate in (ImageStatus.ENLARGED, ImageStatus.TINY, ImageStatus.LOOKALIKE):
            names = [printable(f.name) for f, its in zip(self.files, self.fates) if its is fate]
            if names:
                listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                lines.append(f"{len(names)} picture{'s' * (len(names) > 1)} {self._what(fate)}: {listed}")
        return lines

    def refuse_nothing_left(self, indices: Sequence[int]) -> None:
        """See that one of these files is, or may be, of use.

        Raises:
            RestoreError: there is none; the reasons are counted.
        """
        if any(self.usable(i) for i in indices):
            return
        fates = [self.fates[i] for i in indices]
        broken, tiny, alike = (fates.count(fate) for fate in _LEFT_OUT)
        where = Path(os.path.commonpath([self.files[i].parent for i in indices])) if indices else None
        if broken == len(fates) and self._first_error is not None:
            raise RestoreError(f"none of the {broken} pictures can be read; the first: {self._first_error}")
        counts = [
            f"{count} {what}"
            for count, what in ((broken, "unreadable"), (tiny, "smaller"), (alike, "like validation pictures"))
            if count
        ]
        if tiny == len(fates):
            raise RestoreError(
                f"the patch of {self._patch} px is larger than every one of the {tiny} pictures",
                where=where,
                hint="lower data.patch, or set data.small_images=upscale",
            )
        raise RestoreError(
            f"no picture is left to train on with a patch of {self._patch} px: {', '.join(counts)}",
            where=where,
            hint="see data.patch, data.small_images and data.near_duplicates",
        )

    def _what(self, fate: ImageStatus) -> str:
        return {
            ImageStatus.ENLARGED: f"smaller than the patch of {self._patch} px: enlarged (data.small_images: upscale)",
            ImageStatus.TINY: f"smaller than the patch of {self._patch} px: left out (data.small_images: skip)",
            ImageStatus.LOOKALIKE: "too like a validation picture: kept out of training (data.near_duplicates)",
        }[fate]

    def _judge(self, picture: np.ndarray) -> ImageStatus:
        small = min(picture.shape[:2]) < self._patch
        if small and self._small_images == "skip":
            return ImageStatus.TINY
        if picture[:, :, -3:] in self._held_out:
            return ImageStatus.LOOKALIKE
        return ImageStatus.ENLARGED if small else ImageStatus.USED

    def _leave_out_broken(self, index: int, error: RestoreError) -> None:
        with self._lock:
            if self.fates[index] is ImageStatus.BROKEN:  # two threads drew it at once
                return
            self.fates[index] = ImageStatus.BROKEN
            self._first_error = self._first_error or error
            self._on_event(f"left out: {error}")


def enlarged(picture: np.ndarray, side: int) -> np.ndarray:
    """H×W×C uint8 -> the same, bicubic, so that the shorter side is `side`; of a long strip only the middle."""
    longest = _LONGEST * min(picture.shape[:2])
    top, left = (max(0, length - longest) // 2 for length in picture.shape[:2])
    picture = picture[top : top + longest, left : left + longest]
    factor = side / min(picture.shape[:2])
    height, width = (max(side, round(length * factor)) for length in picture.shape[:2])
    thirds = np.split(picture, picture.shape[2] // 3, axis=2)
    return np.concatenate([cv2.resize(t, (width, height), interpolation=cv2.INTER_CUBIC) for t in thirds], axis=2)
