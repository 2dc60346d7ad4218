"""The log of a run whose place is a URL, and lines of local logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from restore.fix.log import Segment


def segments_of(log: Path) -> Iterator[Segment]:
    """The segments of videos in a log; none if there is no log."""
    if not log.is_file():
        return
    with open(log, encoding="utf-8") as file:
        for line in file:
            entry = json.loads(line)
            if entry.get("event") == "segment":
                yield Segment(**entry)
