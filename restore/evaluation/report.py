"""What an evaluation found: scores per picture, what has none and why; as JSON and as CSV."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import os
import stat
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np

from restore.errors import RestoreError, printable
from restore.files import write_atomically, write_error_message
from restore.metrics import FID, METRICS

# How sure a mean is: bootstrap intervals, the same numbers in every run.


RESAMPLES = 10_000
LEVEL = 0.95
SEED = 0

_NUMBERS_AT_ONCE = 2**20


def bootstrap_interval(
    values: Sequence[float], *, seed: int = SEED, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[float, float]:
    """Where the mean lies: percentile bootstrap (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13).

    Args:
        values: finite numbers, one per picture; their order does not matter.
        seed: the same seed gives the same interval.
        resamples: how many sets of pictures are drawn with replacement.
        level: how often such intervals hold the true mean.

    Returns:
        The lower and the upper end; NaN for fewer than two values, of which nothing can be said.
    """
    if len(values) < 2:
        return math.nan, math.nan
    return _bootstrap_interval(tuple(sorted(values)), seed, resamples, level)


@functools.lru_cache(maxsize=256)  # a report is asked for the same ones by its table and by its file
def _bootstrap_interval(values: tuple[float, ...], seed: int, resamples: int, level: float) -> tuple[float, float]:
    numbers = np.asarray(values, np.float64)
    generator = np.random.Generator(np.random.PCG64(seed))
    at_once = max(_NUMBERS_AT_ONCE // len(numbers), 1)
    means = []
    for start in range(0, resamples, at_once):
        drawn = generator.integers(0, len(numbers), (min(at_once, resamples - start), len(numbers)))
        means.append(numbers[drawn].mean(axis=1))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def interval_or_none(values: Sequence[float]) -> list[float] | None:
    """`bootstrap_interval` for a report: None where nothing can be said."""
    return list(bootstrap_interval(values)) if len(values) > 1 else None


# One method against another, picture by picture.


NO_PICTURES = "there are no pictures in this folder"


@dataclass(frozen=True)
class Baseline:
    """What the pictures of another folder score, and how those in question differ from them.

    Attributes:
        folder: where they are, as the user named it.
        scores: by picture, then by metric; of the pictures that are in question, and no others.
        missing: names of scored pairs that have no picture here.
        failed: `{"name", "reason"}` of pictures here that could not be used.
        unmatched: files here without a reference, as relative POSIX paths.
        fid: this folder's own, and of how many pictures; None where it was not asked for.
    """

    folder: str
    scores: dict[str, dict[str, float]]
    missing: list[str]
    failed: list[dict[str, str]]
    unmatched: list[str]
    fid: tuple[float, int] | None = None

    @property
    def complete(self) -> bool:
        """Every pair in question has a picture here that could be scored, and there are no others."""
        return not (self.missing or self.failed or self.unmatched)

    def summary(self, report: EvalReport) -> dict[str, dict[str, Any]]:
        """Per metric, over the pictures that have a score in both.

        Returns:
            `mean` (the baseline's), `difference` (mean of restored − baseline) and its `interval` (`[low, high]`,
            bootstrap over pictures), over the pictures whose two scores are finite, None where there are none, or too
            few; `count` of those, `infinite` of the others; `better`, `worse`, `equal`: numbers of pictures, also of
            those with an infinite score; `share_better`, or None.
        """
        return {metric: self._line(metric, report) for metric in report.metrics if metric not in report.unavailable}

    def _line(self, metric: str, report: EvalReport) -> dict[str, Any]:
        pairs = [
            (image.scores[metric], self.scores[image.name][metric])
            for image in report.images
            if metric in image.scores and metric in self.scores.get(image.name, {})
        ]
        finite = [(ours, theirs) for ours, theirs in pairs if math.isfinite(ours) and math.isfinite(theirs)]
        differences = [ours - theirs for ours, theirs in finite]
        sign = 1 if METRICS[metric].better == "higher" else -1
        better = sum(sign * ours > sign * theirs for ours, theirs in pairs)
        worse = sum(sign * ours < sign * theirs for ours, theirs in pairs)
        return {
            "mean": statistics.fmean(theirs for _, theirs in finite) if finite else None,
            "difference": statistics.fmean(differences) if finite else None,
            "interval": interval_or_none(differences),
            "count": len(finite),
            "infinite": len(pairs) - len(finite),
            "better": better,
            "worse": worse,
            "equal": len(pairs) - better - worse,
            "share_better": better / len(pairs) if pairs else None,
        }

    def to_json(self, report: EvalReport) -> dict[str, Any]:
        """Everything but the scores per picture, as plain values."""
        return {
            "folder": printable(self.folder),
            "summary": self.summary(report),
            "missing": self.missing,
            "failed": self.failed,
            "unmatched": self.unmatched,
        }

    def problems(self) -> list[str]:
        """What a person must know, one line each."""
        return [
            *(f"{failure['name']}: baseline: {failure['reason']}" for failure in self.failed),
            *(f"{name}: not in the baseline" for name in self.missing),
            *(f"{name}: in the baseline, but without a reference" for name in self.unmatched),
        ]


def compare(report: EvalReport, other: EvalReport, folder: Path) -> Baseline:
    """The baseline's part of a report.

    Args:
        report: of the pictures in question.
        other: of the baseline's, against the same references and masks; what failed in both alike (a reference, a
            mask) is named once.
        folder: the baseline's.
    """
    known = {(failure["name"], failure["reason"]) for failure in report.failed}
    failed = [failure for failure in other.failed if (failure["name"], failure["reason"]) not in known]
    failed += [
        {"name": name, "reason": NO_PICTURES} for name in other.unmatched.empty if name not in report.unmatched.empty
    ]
    scores = {image.name: image.scores for image in other.images}
    there = scores.keys() | {failure["name"] for failure in other.failed}
    return Baseline(
        folder=os.fspath(folder),
        scores=scores,
        missing=[image.name for image in report.images if image.name not in there],
        failed=failed,
        unmatched=other.unmatched.restored,
        fid=other.fid,
    )


# Where a report may be written: checked before the scoring, so that no hour's work ends at a closed door.


Kind = Literal["json", "csv"]

JSON_KEYS = ("convention", "summary", "images", "unmatched", "failed")
"""The keys of every report as JSON; by them an earlier one is known, which a new one may replace."""

FURTHER_JSON_KEYS = ("sets", "baseline")
"""Those of some reports."""

STDOUT = "-"


@dataclass(frozen=True)
class ReportTarget:
    """A place that a report can be written to.

    Attributes:
        given: as the user named it.
        path: the file, links resolved; None: standard output.
        whole: it is a regular file, or will be one: it is there complete, or as it was. Others (pipes, devices) are
            written straight.
    """

    given: Path
    path: Path | None
    whole: bool

    @classmethod
    def check(cls, given: Path, kind: Kind) -> ReportTarget:
        """Look, and write nothing.

        Args:
            given: a file in a folder that is there, new, empty, or an earlier report of this kind; a pipe or a
                device; or `-` for standard output.
            kind: which report.

        Raises:
            RestoreError: exit code 2; it is something else, or cannot be written to.
        """
        if os.fspath(given) == STDOUT:
            return cls(given, None, False)
        path = Path(os.path.realpath(given))
        try:
            found = os.stat(given)
        except FileNotFoundError:
            _check_folder(given, path.parent)
            return cls(given, path, True)
        except (OSError, ValueError) as error:
            raise RestoreError(f"cannot be written: {getattr(error, 'strerror', error)}", where=given) from error
        if _is_stdout(found):
            return cls(given, None, False)
        if stat.S_ISDIR(found.st_mode):
            raise RestoreError("is a folder", where=given, hint="name a file in it")
        if not os.access(given, os.W_OK):
            raise RestoreError("no permission to write this file", where=given, hint="choose another name")
        if not stat.S_ISREG(found.st_mode):
            return cls(given, Path(given), False)
        _check_folder(given, path.parent)
        if found.st_size and not _is_report(path, kind):
            raise RestoreError(
                f"exists, and is no {kind.upper()} report of `restore eval`", where=given, hint="choose another name"
            )
        return cls(given, path, True)

    def write(self, data: bytes) -> None:
        """Write a report there.

        Raises:
            RestoreError: exit code 1; it cannot be written.
            BrokenPipeError: nobody reads standard output any more.
        """
        if self.path is None:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        elif self.whole:
            write_atomically(self.path, data, parents=False)
        else:
            try:
                with open(self.path, "wb") as file:
                    file.write(data)
            except OSError as error:
                raise RestoreError(write_error_message(error), where=self.given, exit_code=1) from error


def check_targets(json_file: Path | None, csv_file: Path | None) -> tuple[ReportTarget | None, ReportTarget | None]:
    """Both targets of `restore eval`, which must not be one.

    Raises:
        RestoreError: exit code 2.
    """
    as_json = None if json_file is None else ReportTarget.check(json_file, "json")
    as_csv = None if csv_file is None else ReportTarget.check(csv_file, "csv")
    if as_json is not None and as_csv is not None and as_json.path == as_csv.path:
        raise RestoreError("--json and --csv name the same place", where=csv_file, hint="name two")
    return as_json, as_csv


def _check_folder(given: Path, folder: Path) -> None:
    if not folder.is_dir():
        raise RestoreError("there is no such folder to write into", where=given, hint=f"make {folder} first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RestoreError("no permission to write in this folder", where=given, hint="choose another")


def _is_stdout(found: os.stat_result) -> bool:
    """Whether it is what standard output goes to, by whatever name (`/dev/stdout`, or the file behind it)."""
    try:
        return os.path.samestat(found, os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # closed, or no file at all
        return False


def _is_report(path: Path, kind: Kind) -> bool:
    try:
        if kind == "csv":
            with open(path, "rb") as file:
                header = file.readline(1000).rstrip(b"\r\n")
            return header.startswith(b"name,") and header.endswith(b",note")
        with open(path, "rb") as file:
            if file.read(1) != b"{":
                return False
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):  # unreadable, or no JSON: then it is none of ours
        return False
    return isinstance(values, dict) and set(JSON_KEYS) <= values.keys() <= {*JSON_KEYS, *FURTHER_JSON_KEYS}


WORST = 5
"""How many pictures with the worst scores are named."""


@dataclass(frozen=True)
class ImageScores:
    """One pair's scores.

    Attributes:
        name: relative POSIX path without the last suffix.
        scores: by metric; infinite PSNR where the pictures are identical. What has no value is not in here.
        excluded: why a metric has no value, by metric.
        problem: what was wrong with the pair although it was scored as far as possible (its mask, the memory).
    """

    name: str
    scores: dict[str, float]
    excluded: dict[str, str] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class Unmatched:
    """Files without a counterpart, as relative POSIX paths; nothing is paired by order or left out.

    Attributes:
        restored: no reference.
        reference: no restored picture.
        masks: no pair.
        without_mask: pairs that have no mask though a folder of masks was given (by name).
        empty: folders without pictures.
    """

    restored: list[str] = field(default_factory=list)
    reference: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    without_mask: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)


@dataclass
class EvalReport:
    """The outcome of an evaluation.

    Attributes:
        convention: how every metric was computed, as plain values.
        metrics: names in the order of the columns.
        images: pairs that were scored, by name.
        unmatched: files without a counterpart.
        failed: `{"name", "reason"}` of pairs, or of their masks, that could not be used.
        unavailable: metrics that could not be computed at all, and why.
        fid: the distance of the two sets, and of how many pictures; None where it was not asked for or cannot be had.
        baseline: other pictures, to compare with.
    """

    convention: dict[str, Any]
    metrics: tuple[str, ...]
    images: list[ImageScores] = field(default_factory=list)
    unmatched: Unmatched = field(default_factory=Unmatched)
    failed: list[dict[str, str]] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    fid: tuple[float, int] | None = None
    baseline: Baseline | None = None

    @property
    def exit_code(self) -> int:
        """0 where everything was paired and scored, also in the baseline, else 1.

        FID without its weights counts, since it was asked for; LPIPS, which is there by itself, does not.
        """
        incomplete = self.failed or any(vars(self.unmatched).values()) or FID in self.unavailable
        return int(bool(incomplete) or not (self.baseline is None or self.baseline.complete))

    def summary(self) -> dict[str, dict[str, Any]]:
        """Per metric: mean and median of the finite values, how many those are, and what is not among them.

        Returns:
            `mean`, `median` (None without a finite value), `interval` (of the mean, `[low, high]`; None below two
            values), `count` (finite), `infinite` (identical pictures), `excluded` (no value), `worst` (up to `WORST`
            of `{"name", "value"}`, the worst first), and `unavailable` (why) where the metric could not be computed.
        """
        out: dict[str, dict[str, Any]] = {}
        for metric in self.metrics:
            values = {image.name: image.scores[metric] for image in self.images if metric in image.scores}
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            largest_first = METRICS[metric].better == "lower"
            worst = sorted(finite.items(), key=itemgetter(1), reverse=largest_first)[:WORST]
            out[metric] = {
                "mean": statistics.fmean(finite.values()) if finite else None,
                "median": statistics.median(finite.values()) if finite else None,
                "interval": interval_or_none(list(finite.values())),
                "count": len(finite),
                "infinite": len(values) - len(finite),
                "excluded": len(self.images) - len(values),
                "worst": [{"name": name, "value": value} for name, value in worst],
            }
            if metric in self.unavailable:
                out[metric]["unavailable"] = self.unavailable[metric]
        return out

    def to_json(self) -> dict[str, Any]:
        """The whole report as plain values; an infinite score is the string `"inf"`, none is null."""
        images = []
        for image in self.images:
            row: dict[str, Any] = {"name": image.name} | self._plain(image.scores)
            if self.baseline is not None:
                row["baseline"] = self._plain(self.baseline.scores.get(image.name, {}))
            if image.excluded:
                row["excluded"] = image.excluded
            images.append(row)
        out: dict[str, Any] = {
            "convention": self.convention,
            "summary": self.summary(),
            "images": images,
            "unmatched": vars(self.unmatched),
            "failed": self.failed,
        }
        if self.fid is not None or FID in self.unavailable:
            out["sets"] = {FID: self._plain_fid(self.fid)}
        if self.baseline is not None:
            out["baseline"] = self.baseline.to_json(self)
            if self.baseline.fid is not None:
                out["baseline"]["sets"] = {FID: self._plain_fid(self.baseline.fid)}
        return out

    def _plain(self, scores: dict[str, float]) -> dict[str, float | str | None]:
        values = {metric: scores.get(metric) for metric in self.metrics}
        return {metric: "inf" if value == math.inf else value for metric, value in values.items()}

    def _plain_fid(self, fid: tuple[float, int] | None) -> dict[str, Any]:
        if fid is None:
            return {"value": None, "pictures": 0, "unavailable": self.unavailable[FID]}
        value, pictures = fid
        return {"value": value if math.isfinite(value) else None, "pictures": pictures}

    def write_json(self, target: Path | ReportTarget) -> None:
        """Write `to_json`; a reader of a file sees the old one or the new one, never half of it.

        Raises:
            RestoreError: it cannot be written, or is something else than a report (see `ReportTarget`).
        """
        text = json.dumps(self.to_json(), indent=2, allow_nan=False)
        place = target if isinstance(target, ReportTarget) else ReportTarget.check(target, "json")
        place.write(f"{text}\n".encode())

    def write_csv(self, target: Path | ReportTarget) -> None:
        """One line per pair: name, every metric (`inf`; empty where there is none), a note that says why.

        With a baseline every metric has two more columns, `METRIC_baseline` and `METRIC_difference`.

        Raises:
            RestoreError: as `write_json`.
        """
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        others = [] if self.baseline is None else [f"{m}_{part}" for m in self.metrics for part in _COMPARED]
        writer.writerow(["name", *self.metrics, *others, "note"])
        for image in self.images:
            notes = "; ".join(f"{metric}: {why}" for metric, why in {**self.unavailable, **image.excluded}.items())
            compared = [] if self.baseline is None else _compared(image, self.baseline, self.metrics)
            writer.writerow([image.name, *(image.scores.get(m, "") for m in self.metrics), *compared, notes])
        scored = {image.name for image in self.images}
        for failure in self.failed:
            if failure["name"] not in scored:
                writer.writerow([failure["name"], *("" for _ in (*self.metrics, *others)), failure["reason"]])
        place = target if isinstance(target, ReportTarget) else ReportTarget.check(target, "csv")
        place.write(text.getvalue().encode("utf-8", "surrogateescape"))

    def problems(self) -> list[str]:
        """What a person must know beside the table, one line each: failures, files without a counterpart; a count."""
        u = self.unmatched
        lines = [f"{failure['name']}: {failure['reason']}" for failure in self.failed]
        for what, names in (
            (NO_PICTURES, u.empty),
            ("restored, but without a reference", u.restored),
            ("reference without a restored picture", u.reference),
            ("mask without a pair", u.masks),
            ("pair without a mask", u.without_mask),
        ):
            lines += [f"{name}: {what}" for name in names]
        if self.baseline is not None:
            lines += self.baseline.problems()
        scored = {image.name for image in self.images}
        counts = {
            "failed": len({failure["name"] for failure in self.failed} - scored),
            "without a counterpart": len(u.restored) + len(u.reference),
        }
        left_out = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
        if left_out:
            lines.append(f"in the table: {len(self.images)} pairs; not in it: {left_out}")
        return lines


_COMPARED = ("baseline", "difference")


def _compared(image: ImageScores, baseline: Baseline, metrics: tuple[str, ...]) -> list[float | str]:
    """A row's cells of the baseline: its score, and what there is more in this one; empty where there is none."""
    cells: list[float | str] = []
    for metric in metrics:
        ours, theirs = image.scores.get(metric, math.nan), baseline.scores.get(image.name, {}).get(metric, math.nan)
        difference = ours - theirs if math.isfinite(ours) and math.isfinite(theirs) else ""
        cells += ["" if math.isnan(theirs) else theirs, difference]
    return cells


# A report as tables to print: the scores, the worst pictures, the comparison with a baseline.


_INTERVAL = f"{100 * LEVEL:g} % interval"
_NONE = "-"


@dataclass(frozen=True)
class TextTable:
    """Rows to print, every cell a string."""

    columns: list[str]
    rows: list[list[str]]


def report_tables(report: EvalReport) -> list[TextTable]:
    """The tables that a report has rows for, in the order in which they are read."""
    tables = [report_table(report), worst_table(report), baseline_table(report)]
    return [table for table in tables if table.rows]


def report_table(report: EvalReport) -> TextTable:
    """A row per metric: mean, its interval, median, how many pictures, and what is not among them."""
    rows = []
    for metric, line in report.summary().items():
        remarks = []
        if "unavailable" in line:
            remarks.append(line["unavailable"])
        elif line["excluded"]:
            reasons = sorted({i.excluded[metric] for i in report.images if metric in i.excluded})
            remarks.append(f"{line['excluded']} without a value ({'; '.join(reasons)})")
        if line["infinite"]:
            remarks.append(f"{line['infinite']} identical (inf), not in the mean")
        digits = METRICS[metric].decimals
        rows.append([
            METRICS[metric].title, _number(line["mean"], digits), _interval(line["interval"], digits),
            _number(line["median"], digits), str(line["count"]), "; ".join(remarks),
        ])  # fmt: skip
    if FID in report.unavailable:
        rows.append(["FID", _NONE, _NONE, _NONE, "0", report.unavailable[FID]])
    elif report.fid is not None:
        rows.append(["FID", _fid(report.fid), _NONE, _NONE, str(report.fid[1]), "one number for the two sets"])
    return TextTable(["metric", "mean", _INTERVAL, "median", "pictures", "remarks"], rows)


def worst_table(report: EvalReport) -> TextTable:
    """A row per metric: the pictures with the worst scores, the worst first; none where there is only one."""
    rows = []
    for metric, line in report.summary().items():
        if line["count"] > 1:
            digits = METRICS[metric].decimals
            rows.append(
                [METRICS[metric].title, *(f"{printable(w['name'])} {w['value']:.{digits}f}" for w in line["worst"])]
            )
    width = max((len(row) for row in rows), default=2)
    filled = [row + [""] * (width - len(row)) for row in rows]
    return TextTable(["metric", "worst pictures", *("" for _ in range(width - 2))], filled)


def baseline_table(report: EvalReport) -> TextTable:
    """A row per metric: the baseline's mean, the mean difference to it with its interval, how many got better."""
    columns = ["metric", "baseline", "difference", _INTERVAL, "better", "pictures", "remarks"]
    if report.baseline is None:
        return TextTable(columns, [])
    rows = []
    for metric, line in report.baseline.summary(report).items():
        digits = METRICS[metric].decimals
        of = line["better"] + line["worse"] + line["equal"]
        better = f"{line['better']} of {of} ({100 * line['share_better']:.0f} %)" if of else _NONE
        remarks = [f"{line['equal']} equal"] if line["equal"] else []
        if line["infinite"]:
            remarks.append(f"{line['infinite']} with an identical picture (inf), not in the difference")
        rows.append([
            METRICS[metric].title, _number(line["mean"], digits), _number(line["difference"], digits, "+"),
            _interval(line["interval"], digits, "+"), better, str(line["count"]), "; ".join(remarks),
        ])  # fmt: skip
    if report.baseline.fid is not None and report.fid is not None:
        theirs = report.baseline.fid
        difference = report.fid[0] - theirs[0]
        rows.append(["FID", _fid(theirs), _number(difference, 2, "+"), _NONE, _NONE, str(theirs[1]), ""])
    return TextTable(columns, rows)


def _number(value: float | None, digits: int, sign: str = "") -> str:
    return _NONE if value is None or math.isnan(value) else f"{value:{sign}.{digits}f}"


def _interval(ends: Sequence[float] | None, digits: int, sign: str = "") -> str:
    return _NONE if ends is None else f"{ends[0]:{sign}.{digits}f} to {ends[1]:{sign}.{digits}f}"


def _fid(fid: tuple[float, int]) -> str:
    return _number(fid[0], 2)
