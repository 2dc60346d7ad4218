"""The training images: read, checked, upscaled if they are too small."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from restore.errors import RestoreError, printable

Image = NDArray[np.unsignedinteger[Any] | np.floating[Any]]
"""H×W×C, sRGB, with the channels of a `restore.data.layout.Layout`: uint8, uint16, or float32 in [0, 1]."""

WHITE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""The value of white by dtype, from the lowest depth to the highest."""
_DEPTHS = tuple(WHITE)


def depth_of(image: Image) -> int:
    """0 for 8 bits, 1 for 16, 2 for float."""
    return _DEPTHS.index(image.dtype.name)


def promoted(images: Sequence[Image]) -> list[Image]:
    """The images in the depth of the deepest. The values in [0, 1] stay the same."""
    deepest = max(map(depth_of, images))
    return [_in_depth(image, deepest) for image in images]


def _in_depth(image: Image, depth: int) -> Image:
    own = depth_of(image)
    if own == depth:
        return image
    if depth == 2:
        return np.divide(image, np.float32(WHITE[image.dtype.name]), dtype=np.float32)
    return image.astype(np.uint16) * np.uint16(257)


def as_8_bits(image: Image) -> NDArray[np.uint8]:
    """The image rounded to 8 bits."""
    if image.dtype == np.uint8:
        return image.astype(np.uint8, copy=False)
    levels = image / np.float32(257) if image.dtype == np.uint16 else image * np.float32(255)
    rounded: NDArray[np.uint8] = np.rint(levels).astype(np.uint8)
    return rounded


class ImageStatus(Enum):
    """The result of reading a file."""

    UNKNOWN = 0
    USED = 1
    UPSCALED = 2
    UNREADABLE = 3
    TOO_SMALL = 4
    NEAR_DUPLICATE = 5


_LEFT_OUT = (ImageStatus.UNREADABLE, ImageStatus.TOO_SMALL, ImageStatus.NEAR_DUPLICATE)


class TrainingImages:
    """The training files. Each is checked when it is first read; the result depends on the file alone.

    Args:
        files: in order.
        read: reads a file as an `Image`.
        patch: minimum of the shorter side.
        small_images: `upscale` or `skip` images with a shorter side.
        on_error: `skip` or `fail` if a file cannot be read.
        held_out: images that are similar to one of these are left out.
        clean_channels: of the clean image, which comes last: 3, or 1 for gray.
        on_event: called once for each unreadable file.
        announce: also call `on_event` for the first file that is upscaled, and for the first one left out for each
            other reason.

    Attributes:
        files: see above.
        announce: see above; may be set later.
        statuses: one per file.
    """

    def __init__(
        self,
        files: Sequence[Path],
        read: Callable[[Path], Image],
        *,
        patch: int = 1,
        small_images: str = "upscale",
        on_error: str = "skip",
        held_out: DuplicateIndex | None = None,
        clean_channels: int = 3,
        on_event: Callable[[str], None] = lambda line: None,
        announce: bool = False,
    ) -> None:
        self.files = list(files)
        self.announce = announce
        self.statuses = [ImageStatus.UNKNOWN] * len(self.files)
        self._read, self._patch, self._small_images, self._on_error = read, patch, small_images, on_error
        self._held_out, self._clean_channels = held_out or DuplicateIndex(), clean_channels
        self._on_event = on_event
        self._announced: set[ImageStatus] = set()
        self._lock = threading.Lock()
        self._first_error: RestoreError | None = None

    def load(self, index: int) -> Image | None:
        """Read a file. Thread-safe.

        Returns:
            The image, both sides at least `patch`, contiguous; None if it is left out.

        Raises:
            RestoreError: the file cannot be read, and `on_error` is `fail`, or it could be read before, or it
                disappeared.
        """
        path, status = self.files[index], self.statuses[index]
        if status in _LEFT_OUT:
            return None
        try:
            image = self._read(path)
        except RestoreError as error:
            # A file that disappears or breaks during training must not be skipped: a resumed run would skip it from the
            # start, and see other images than a run that was never stopped.
            if status is not ImageStatus.UNKNOWN or not os.path.lexists(path):
                raise RestoreError(
                    f"was readable when training began, but now: {error.what}",
                    where=path,
                    hint="put it back; the same command resumes the run",
                    exit_code=1,
                ) from error
            if self._on_error == "fail":
                raise
            self._leave_out_unreadable(index, error)
            return None
        if status is ImageStatus.UNKNOWN:
            status = self._check(image)
            with self._lock:
                if self.announce and status is not ImageStatus.USED and status not in self._announced:
                    self._announced.add(status)
                    self._on_event(f"{printable(path)}: {self._describe(status)}; further ones are not reported")
                self.statuses[index] = status
            if status in _LEFT_OUT:
                return None
        return np.ascontiguousarray(upscaled(image, self._patch) if status is ImageStatus.UPSCALED else image)

    def leave_out_missing(self) -> None:
        """Leave out files that a list names but that do not exist, so that files that disappear later are errors.

        Raises:
            RestoreError: there is one, and `on_error` is `fail`.
        """
        for index, path in enumerate(self.files):
            if self.statuses[index] is ImageStatus.UNKNOWN and not os.path.lexists(path):
                missing = RestoreError("there is no such file", where=path, exit_code=1)
                if self._on_error == "fail":
                    raise missing
                self._leave_out_unreadable(index, missing)

    def is_usable(self, index: int) -> bool:
        """Whether a file is used, or was not read yet."""
        return self.statuses[index] not in _LEFT_OUT

    def require_usable(self, indices: Sequence[int]) -> None:
        """Check that at least one of these files is usable.

        Raises:
            RestoreError: there is none; the reasons are counted.
        """
        if any(self.is_usable(i) for i in indices):
            return
        statuses = [self.statuses[i] for i in indices]
        unreadable, too_small, similar = (statuses.count(status) for status in _LEFT_OUT)
        where = Path(os.path.commonpath([self.files[i].parent for i in indices])) if indices else None
        if unreadable == len(statuses) and self._first_error is not None:
            raise RestoreError(f"none of the {unreadable} images can be read; the first: {self._first_error}")
        if too_small == len(statuses):
            raise RestoreError(
                f"all {too_small} images are smaller than the patch of {self._patch} px",
                where=where,
                hint="lower data.patch, or set data.small_images=upscale",
            )
        counts = ((unreadable, "unreadable"), (too_small, "too small"), (similar, "similar to validation images"))
        listed = ", ".join(f"{count} {reason}" for count, reason in counts if count)
        raise RestoreError(
            f"no image is left to train on with a patch of {self._patch} px: {listed}",
            where=where,
            hint="see data.patch, data.small_images and data.near_duplicates",
        )

    def summary(self) -> list[str]:
        """One line for each reason why files were upscaled or left out, except unreadable ones."""
        lines = []
        for status in (ImageStatus.UPSCALED, ImageStatus.TOO_SMALL, ImageStatus.NEAR_DUPLICATE):
            names = [printable(f.name) for f, its in zip(self.files, self.statuses) if its is status]
            if names:
                listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                lines.append(f"{len(names)} image{'s' * (len(names) > 1)} {self._describe(status)}: {listed}")
        return lines

    def _describe(self, status: ImageStatus) -> str:
        return {
            ImageStatus.UPSCALED: f"smaller than the patch of {self._patch} px: upscaled (data.small_images: upscale)",
            ImageStatus.TOO_SMALL: f"smaller than the patch of {self._patch} px: left out (data.small_images: skip)",
            ImageStatus.NEAR_DUPLICATE: "similar to a validation image: left out (data.near_duplicates)",
        }[status]

    def _check(self, image: Image) -> ImageStatus:
        small = min(image.shape[:2]) < self._patch
        if small and self._small_images == "skip":
            return ImageStatus.TOO_SMALL
        if image[:, :, -self._clean_channels :] in self._held_out:
            return ImageStatus.NEAR_DUPLICATE
        return ImageStatus.UPSCALED if small else ImageStatus.USED

    def _leave_out_unreadable(self, index: int, error: RestoreError) -> None:
        with self._lock:
            if self.statuses[index] is ImageStatus.UNREADABLE:  # another thread read it at the same time
                return
            self.statuses[index] = ImageStatus.UNREADABLE
            self._first_error = self._first_error or error
            self._on_event(f"left out: {error}")


_MAX_ASPECT_RATIO = 16  # of an upscaled image; a strip of 1 × 10000 px would take gigabytes


def upscaled(image: Image, side: int) -> Image:
    """Resize H×W×C by bicubic interpolation so that the shorter side is `side`; only the middle of a long strip."""
    longest = _MAX_ASPECT_RATIO * min(image.shape[:2])
    top, left = (max(0, length - longest) // 2 for length in image.shape[:2])
    image = image[top : top + longest, left : left + longest]
    factor = side / min(image.shape[:2])
    height, width = (max(side, round(length * factor)) for length in image.shape[:2])
    # OpenCV resizes at most four channels at a time, and drops the dimension of a single one.
    parts = np.array_split(image, -(-image.shape[2] // 4), axis=2)
    larger = [cv2.resize(p, (width, height), interpolation=cv2.INTER_CUBIC) for p in parts]
    resized = np.concatenate([p if p.ndim == 3 else p[:, :, None] for p in larger], axis=2)
    return resized.clip(0, 1) if resized.dtype == np.float32 else resized  # integers are clipped by OpenCV


# Near-duplicates: a perceptual hash that survives re-encoding, resizing and small retouches.

_HASHED_SIDE, _HASHED_FREQUENCIES = 32, 8


def perceptual_hash(image: Image) -> int:
    """The 64-bit DCT hash ("pHash") of an image.

    The image is resized to 32×32 and converted to gray. Each of the 8×8 lowest frequencies of its cosine transform
    gives one bit: whether it is above their median (of all but the mean brightness). After Zauner, "Implementation and
    benchmarking of perceptual image hash functions", 2010, section 3.2.1.

    Args:
        image: H×W×3, or H×W×1 (gray), sRGB.

    Returns:
        0 … 2^64 - 1; see `hamming`.
    """
    small = cv2.resize(as_8_bits(image), (_HASHED_SIDE, _HASHED_SIDE), interpolation=cv2.INTER_AREA)
    gray = (cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) if image.shape[2] == 3 else small).astype(np.float32)
    low = cv2.dct(gray)[:_HASHED_FREQUENCIES, :_HASHED_FREQUENCIES].ravel()
    return int.from_bytes(np.packbits(low > np.median(low[1:])).tobytes(), "big")


def hashes_with_mirror(image: Image) -> tuple[int, int]:
    """The hashes of an image (H×W×3 or H×W×1) and of its mirror image, left to right."""
    return perceptual_hash(image), perceptual_hash(np.ascontiguousarray(image[:, ::-1]))


def hamming(a: int, b: int) -> int:
    """The number of differing bits: 0 for the same image, 0 to 8 for copies, about 32 for unrelated images."""
    return (a ^ b).bit_count()


class DuplicateIndex:
    """Hashes of images and of their mirror images; `image in index` tests for near-duplicates.

    Args:
        images: H×W×3 or H×W×1 each.
        bits: hashes that differ in fewer bits are near-duplicates. 0: nothing is.
    """

    def __init__(self, images: Iterable[Image] = (), bits: int = 0) -> None:
        self.bits = bits
        self._hashes = {h for image in images for h in hashes_with_mirror(image)} if bits else set()

    def __contains__(self, image: Image) -> bool:
        """Whether an image (H×W×3 or H×W×1) is a near-duplicate of one in the index."""
        if not self._hashes:
            return False
        own = perceptual_hash(image)
        return any(hamming(own, other) < self.bits for other in self._hashes)
