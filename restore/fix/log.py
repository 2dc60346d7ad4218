"""The log of a run (`--log`): JSON lines, one for the run and one for every image or video, written as it goes.

    {"event": "start", "time": "2026-01-31T12:00:00.000Z", "run": "9f2c41d07b3a", "version": "0.1.0", ...}
    {"event": "image", "time": "2026-01-31T12:00:01.250Z", "run": "9f2c41d07b3a", "version": "0.1.0", ...}

`RunStart`, `Record` and, for parts of videos, `Segment` are the kinds of lines; their fields are the keys, in this
order. Runs append to a log, and `run` tells which lines belong together. `restore.fix.results.RunLog` writes them,
`read_done` reads them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from restore import __version__
from restore.fix.batch_options import FilePath
from restore.fix.parquet_log import SUFFIX as PARQUET_SUFFIX
from restore.fix.parquet_log import read_rows

Status = Literal["done", "skipped", "failed"]

ReasonCode = Literal[
    "",
    "nothing_to_repair",
    "nothing_changed",
    "unreported",
    "output_exists",
    "no_mask",
    "several_masks",
    "bad_mask",
    "not_an_image",
    "unsupported",
    "too_large",
    "damaged",
    "not_found",
    "no_permission",
    "changed",
    "out_of_memory",
    "disk_full",
    "io_error",
    "crashed",
    "failed",
    "unexpected",
]
"""Why an image has its status. The codes are stable; the wording of reasons is not.

- `nothing_to_repair`: done; the mask is empty, or there is none, and the file was copied.
- `nothing_changed`: done; the repair equals the image, and the file was copied.
- `unreported`: done; repaired by a worker of a cluster that ended before it reported it.
- `output_exists`: skipped, because of `--skip-existing`; failed, if another program wrote the output during a run over
  URLs.
- `no_mask`: skipped or failed; see `--mask-missing`.
- `several_masks`: failed; more than one file could be its mask.
- `bad_mask`: failed; its mask cannot be read, or is of another size.
- `not_an_image`: skipped; failed if its name says that it is an image, or if the user named it.
- `unsupported`: failed; an image of a format that is not read, such as camera raw, or that is only read, without `ext`.
- `too_large`: failed; over `--max-pixels`, or too large for the memory.
- `damaged`: failed; damaged or truncated, see `--allow-truncated`.
- `not_found`, `no_permission`, `changed`: failed; the file vanished, may not be read or written, or changed meanwhile.
- `out_of_memory`, `disk_full`, `io_error`: failed.
- `crashed`: failed; its decoder crashed or exceeded `--decode-timeout`, or the process crashed while repairing it.
  On a cluster: three workers died, each alone with it.
- `failed`: failed for another reason that is known.
- `unexpected`: failed by an error in the program; please report it.
"""

REASON_CODES: tuple[ReasonCode, ...] = get_args(ReasonCode)


@dataclass(frozen=True, kw_only=True)
class LogLine:
    """The keys that every line begins with.

    Attributes:
        event: the kind of line.
        time: when it was written, UTC, ISO 8601 with milliseconds.
        run: identifies the run, 12 hexadecimal digits.
        version: of this package.
    """

    event: str
    time: str = ""
    run: str = ""
    version: str = __version__


@dataclass(frozen=True, kw_only=True)
class RunStart(LogLine):
    """The first line of a run.

    Attributes:
        input, output: as the user gave them; several inputs are a list.
        images: in the plan.
        model: the restorer's name.
        model_sha256: of its weights file; None if it has none.
        settings: all options, with what `auto` and defaults resolved to (as given, where no model was needed); see
            `restore.fix.options.FixOptions`.
    """

    event: Literal["start"] = "start"
    input: str | list[str]
    output: str
    images: int
    model: str
    model_sha256: str | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class Record(LogLine):
    """The result of one image.

    Attributes:
        input, output: paths.
        status: `done`: the output is complete; `skipped`: there was nothing to do; `failed`: nothing was written.
        reason: why, in words; empty if the image was repaired.
        reason_code: why, for programs; see `ReasonCode`.
        seconds: time spent on this image, without waiting for its turn.
        width, height: of the upright image in pixels; None if it was not decoded.
        model: the model that filled holes or restored the image; `fade` if only fading was corrected, and `deflicker`
            if only flicker was removed; None if no model ran.
        model_sha256: of its weights file; None if it has none.
        models: all models that ran, in order, with the SHA-256 of their weights files.
        steps: what was done to the image, in order: `deflicker`, `detect`, `correct_fading`, `fill_holes`, `restore`,
            `clean_up`, `enlarge`. Steps that would not have changed it are left out.
        input_sha256, output_sha256: of the files; None if there is none, or no log.
        damaged_fraction: fraction of pixels that the detector found damaged, in [0, 1]; None if it did not run.
        mask_coverage: fraction of pixels in the mask, in [0, 1]; None without a mask.
        changed_fraction: fraction of pixels that differ from the input's, in [0, 1].
        expected_error: expected absolute error of the repair, the mean over its holes, in [0, 1]; None: not asked.
        warnings: what the user should know about this image.
        worker: of a cluster that did it: machine, node and process; None: the run itself.
    """

    event: Literal["image"] = field(default="image", kw_only=True)
    input: str
    output: str
    status: Status
    reason: str = ""
    reason_code: ReasonCode = ""
    seconds: float = 0.0
    width: int | None = None
    height: int | None = None
    model: str | None = None
    model_sha256: str | None = None
    models: dict[str, str | None] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    input_sha256: str | None = None
    output_sha256: str | None = None
    damaged_fraction: float | None = None
    mask_coverage: float | None = None
    changed_fraction: float | None = None
    expected_error: float | None = None
    warnings: list[str] = field(default_factory=list)
    worker: str | None = None


def reason_of_done(*, touched: bool, copied: bool) -> tuple[str, ReasonCode]:
    """Why a finished file has the status `done`, for the user and for programs; both empty: it was repaired.

    Args:
        touched: there was something to do.
        copied: the output is a copy of the input.
    """
    if not touched:
        return "nothing to repair", "nothing_to_repair"
    return ("nothing was changed", "nothing_changed") if copied else ("", "")


@dataclass(frozen=True, kw_only=True)
class Segment(LogLine):
    """A finished part of a video; the line of the whole video follows when it is written.

    Attributes:
        input, output: paths.
        first_frame: its number, from 0.
        frames: how many the segment holds.
        start_seconds: when the first frame is shown.
        seconds: time spent on the segment.
        damaged_fraction, mask_coverage, changed_fraction: as of a `Record`, over all frames.
    """

    event: Literal["segment"] = "segment"
    input: str
    output: str
    first_frame: int
    frames: int
    start_seconds: float
    seconds: float
    damaged_fraction: float | None
    mask_coverage: float | None
    changed_fraction: float


def read_done(path: FilePath) -> Iterator[dict[str, Any]]:
    """The images that a log says were done, oldest first, with the keys of `Record`. Broken lines are skipped.

    Old names of keys are read, too. A log that cannot be read has no lines.
    """
    if os.fspath(path).endswith(PARQUET_SUFFIX):
        with suppress(OSError, ImportError):
            yield from (row for row in read_rows(Path(path)) if row["status"] == "done")
        return
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict) and entry.get("status") == "done":
                    for old, new in (("changed_share", "changed_fraction"), ("marked_share", "mask_coverage")):
                        if old in entry:
                            entry[new] = entry.pop(old)
                    yield entry
    except OSError:
        return
