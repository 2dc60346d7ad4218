"""The log of a run whose place is a URL, and lines of local logs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

from restore.fix.log import Segment
from restore.places.store import NotThere, StoreError, store_of
from restore.places.urls import bucket_of

#: A log in a store is written at most this often, and when the run ends: stores cannot append, so all of it is written.
PUSH_SECONDS = 60.0


class RemoteLog:
    """A log in a store: a copy on this disk, which the run appends to and `push` writes.

    Args:
        url: its place.
        path: of the copy.
        version: of the object, as a run that is started again knows it; None: ask the store.

    Attributes:
        version: of the object, as this run has read or written it; "": there was none.

    Raises:
        StoreError: exit code 2; it cannot be read, or there is no such bucket.
    """

    def __init__(self, url: str, path: Path, version: str | None = None) -> None:
        self.url, self.path = url, path
        self._store, self._pushed = store_of(url), time.monotonic()
        if version is None:
            try:
                version = self._read()
            except StoreError as error:
                error.exit_code = 2
                raise
        self.version = version

    def _read(self) -> str:
        """Bring the log, if there is one. Returns its version."""
        try:
            return self._store.download(self.url, self.path).version
        except NotThere:
            self._store.kind(bucket_of(self.url))  # it is there
            return ""

    def push(self, *, now: bool = False) -> None:
        """Write the log, if it is time or `now`.

        Raises:
            StoreError: exit code 1; it cannot be written, or another run has written it.
        """
        if not now and time.monotonic() - self._pushed < PUSH_SECONDS:
            return
        if self._version() != self.version:
            what = "another program has written this log meanwhile"
            raise StoreError(what, where=self.url, hint="give each run its own log", exit_code=1)
        kind = "application/x-ndjson"
        self._store.upload(self.path, self.url, overwrite=bool(self.version), content_type=kind)
        self.version, self._pushed = self._version(), time.monotonic()

    def _version(self) -> str:
        try:
            return self._store.info(self.url).version
        except NotThere:
            return ""


def segments_of(log: Path) -> Iterator[Segment]:
    """The segments of videos in a log; none if there is no log."""
    if not log.is_file():
        return
    with open(log, encoding="utf-8") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:  # torn, as the disk was full
                continue
            if entry.get("event") == "segment":
                yield Segment(**entry)
