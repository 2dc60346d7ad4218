"""What an evaluation found: scores per picture, what has none and why; as JSON, as CSV and as a table."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from restore.evaluate.target import ReportTarget

TITLES = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "psnr_hole": "PSNR in the hole (dB)",
    "lpips_hole": "LPIPS in the hole",
}
"""Every metric by the name it has in reports, in the order of the columns."""

_DECIMALS = {"psnr": 2, "ssim": 4, "lpips": 4, "psnr_hole": 2, "lpips_hole": 4}


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
    """

    restored: list[str] = field(default_factory=list)
    reference: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    without_mask: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """Rows to print: one per metric, every cell a string."""

    columns: list[str]
    rows: list[list[str]]


@dataclass
class Report:
    """The outcome of an evaluation.

    Attributes:
        convention: how every metric was computed, as plain values.
        metrics: names in the order of the columns.
        images: pairs that were scored, by name.
        unmatched: files without a counterpart.
        failed: `{"name", "reason"}` of pairs, or of their masks, that could not be used.
        unavailable: metrics that could not be computed at all, and why.
    """

    convention: dict[str, Any]
    metrics: tuple[str, ...]
    images: list[ImageScores] = field(default_factory=list)
    unmatched: Unmatched = field(default_factory=Unmatched)
    failed: list[dict[str, str]] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 where everything was paired and scored, else 1. A missing LPIPS backbone does not count."""
        u = self.unmatched
        return int(bool(self.failed or u.restored or u.reference or u.masks or u.without_mask))

    def summary(self) -> dict[str, dict[str, Any]]:
        """Per metric: mean and median of the finite values, how many those are, and what is not among them.

        Returns:
            `mean`, `median` (None without a finite value), `count` (finite), `infinite` (identical pictures),
            `excluded` (no value), and `unavailable` (why) where the metric could not be computed.
        """
        out: dict[str, dict[str, Any]] = {}
        for metric in self.metrics:
            values = [image.scores[metric] for image in self.images if metric in image.scores]
            finite = [value for value in values if math.isfinite(value)]
            out[metric] = {
                "mean": statistics.fmean(finite) if finite else None,
                "median": statistics.median(finite) if finite else None,
                "count": len(finite),
                "infinite": len(values) - len(finite),
                "excluded": len(self.images) - len(values),
            }
            if metric in self.unavailable:
                out[metric]["unavailable"] = self.unavailable[metric]
        return out

    def to_json(self) -> dict[str, Any]:
        """The whole report as plain values; an infinite score is the string `"inf"`, none is null."""
        images = []
        for image in self.images:
            row: dict[str, Any] = {"name": image.name}
            for metric in self.metrics:
                value = image.scores.get(metric)
                row[metric] = "inf" if value == math.inf else value
            if image.excluded:
                row["excluded"] = image.excluded
            images.append(row)
        return {
            "convention": self.convention,
            "summary": self.summary(),
            "images": images,
            "unmatched": vars(self.unmatched),
            "failed": self.failed,
        }

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

        Raises:
            RestoreError: as `write_json`.
        """
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", *self.metrics, "note"])
        for image in self.images:
            notes = "; ".join(f"{metric}: {why}" for metric, why in {**self.unavailable, **image.excluded}.items())
            writer.writerow([image.name, *(image.scores.get(metric, "") for metric in self.metrics), notes])
        scored = {image.name for image in self.images}
        for failure in self.failed:
            if failure["name"] not in scored:
                writer.writerow([failure["name"], *("" for _ in self.metrics), failure["reason"]])
        place = target if isinstance(target, ReportTarget) else ReportTarget.check(target, "csv")
        place.write(text.getvalue().encode("utf-8", "surrogateescape"))

    def problems(self) -> list[str]:
        """What a person must know beside the table, one line each: failures, files without a counterpart."""
        lines = [f"{failure['name']}: {failure['reason']}" for failure in self.failed]
        for what, names in (
            ("restored, but without a reference", self.unmatched.restored),
            ("reference without a restored picture", self.unmatched.reference),
            ("mask without a pair", self.unmatched.masks),
            ("pair without a mask", self.unmatched.without_mask),
        ):
            lines += [f"{name}: {what}" for name in names]
        return lines


def report_table(report: Report) -> Table:
    """The summary as strings: metric, mean, median, how many pictures, and what is not among them."""
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
        shown = ["-" if line[k] is None else f"{line[k]:.{_DECIMALS[metric]}f}" for k in ("mean", "median")]
        rows.append([TITLES[metric], *shown, str(line["count"]), "; ".join(remarks)])
    return Table(["metric", "mean", "median", "pictures", "remarks"], rows)
