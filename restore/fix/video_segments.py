"""The finished parts of a video that is being repaired, kept in files beside its output until all are there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from restore import __version__
from restore.files import write_atomically
from restore.video.encode import EncodedPacket


@dataclass
class SegmentHeader:
    """What a segment holds.

    Attributes:
        first: the number of its first frame.
        pts: when each frame is shown, in the time base of the source.
        last_duration: how long the last frame is shown, as the source says; 0: it does not.
        masked, damaged: pixels in masks, and pixels that were found damaged; None: there are no masks, or no detector.
        changed: pixels that changed.
        steps: what was done up to its end, as the log names it.
        order: the numbers of the frames in coded order.
        keyframes: which of these decoding can begin with.
        sizes: the bytes of each packet.
    """

    first: int
    pts: list[int] = field(default_factory=list)
    last_duration: int = 0
    masked: int | None = None
    damaged: int | None = None
    changed: int = 0
    steps: list[str] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    keyframes: list[bool] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def add(self, pts: int, duration: int | None, masked: int | None, damaged: int | None, changed: int) -> None:
        """Count a frame."""
        self.pts.append(pts)
        self.last_duration = duration or 0
        self.masked = self.masked if masked is None else (self.masked or 0) + masked
        self.damaged = self.damaged if damaged is None else (self.damaged or 0) + damaged
        self.changed += changed


class SegmentFolder:
    """The folder of the segments of one video. A segment is written as a whole or not at all.

    Args:
        target: the output of the video.
        fingerprint: what must be the same for segments of an earlier run to be used, as JSON holds it.
    """

    def __init__(self, target: Path, fingerprint: dict[str, Any]) -> None:
        self.path = target.with_name(f".restore-{target.name}.segments")
        text = json.dumps({"version": __version__, **fingerprint}, sort_keys=True)
        self._fingerprint = hashlib.sha256(text.encode()).hexdigest()

    def finished(self) -> tuple[list[SegmentHeader], bool]:
        """The segments of an earlier run that did the same, in order, and whether they are all. Others are removed."""
        try:
            same = (self.path / "run").read_text() == self._fingerprint
        except OSError:
            same = False
        if not same:
            self.remove()
            write_atomically(self.path / "run", self._fingerprint.encode())
            return [], False
        headers: list[SegmentHeader] = []
        while (place := self._place(len(headers))).is_file():
            with open(place, "rb") as file:
                headers.append(SegmentHeader(**json.loads(file.readline())))
        complete = self.path / "complete"
        return headers, complete.is_file() and complete.read_text() == str(len(headers))

    def save(self, header: SegmentHeader, packets: list[EncodedPacket], number: int) -> None:
        """Write the next segment.

        Raises:
            RestoreError: exit code 1; it cannot be written.
        """
        header.order = [packet.number for packet in packets]
        header.keyframes = [packet.keyframe for packet in packets]
        header.sizes = [len(packet.data) for packet in packets]
        line = json.dumps(asdict(header)).encode() + b"\n"
        write_atomically(self._place(number), line + b"".join(packet.data for packet in packets))

    def complete(self, count: int) -> None:
        """Note that these are all segments."""
        write_atomically(self.path / "complete", str(count).encode())

    def packets(self, count: int) -> Iterator[EncodedPacket]:
        """The packets of all segments, in coded order."""
        for number in range(count):
            with open(self._place(number), "rb") as file:
                header = SegmentHeader(**json.loads(file.readline()))
                for frame, keyframe, size in zip(header.order, header.keyframes, header.sizes):
                    yield EncodedPacket(frame, keyframe, file.read(size))

    def remove(self) -> None:
        """Remove the folder."""
        if os.path.isdir(self.path) and not os.path.islink(self.path):
            shutil.rmtree(self.path, ignore_errors=True)

    def _place(self, number: int) -> Path:
        return self.path / f"{number:06d}"
