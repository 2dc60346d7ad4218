"""The result of an evaluation: scores per image, and reasons for missing scores; written as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from restore.errors import printable
from restore.evaluation.report_target import ReportTarget
from restore.evaluation.statistics import interval_or_none
from restore.metrics import FID, METRICS

WORST = 5
"""Number of images listed under "worst" for each metric."""

NO_IMAGES = "there are no images in this folder"

_BASELINE_COLUMNS = ("baseline", "difference")


@dataclass(frozen=True)
class ImageScores:
    """The scores of one pair.

    Attributes:
        name: relative POSIX path without the last suffix.
        scores: by metric; PSNR is infinite where the images are identical. Metrics without a value are absent.
        excluded: for each absent metric, why it has no value.
        problem: why the pair could only be scored in part (its mask is unusable, the device is out of memory).
    """

    name: str
    scores: dict[str, float]
    excluded: dict[str, str] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class Unmatched:
    """Files without a counterpart, as relative POSIX paths.

    Attributes:
        restored: restored images without a reference.
        reference: references without a restored image.
        masks: masks without a pair.
        without_mask: names of pairs without a mask, if there is a folder of masks.
        empty: folders without images.
    """

    restored: list[str] = field(default_factory=list)
    reference: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    without_mask: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Baseline:
    """The scores of a second folder, and how the restored images compare with them.

    Attributes:
        folder: path of the folder as the user wrote it.
        scores: by image, then by metric; only of images that are part of the evaluation.
        missing: names of scored pairs without an image in this folder.
        failed: `{"name", "reason"}` of images in this folder that could not be scored.
        unmatched: files in this folder without a reference, as relative POSIX paths.
        fid: FID of this folder and the number of images it covers; None if FID was not requested.
    """

    folder: str
    scores: dict[str, dict[str, float]]
    missing: list[str]
    failed: list[dict[str, str]]
    unmatched: list[str]
    fid: tuple[float, int] | None = None

    @property
    def complete(self) -> bool:
        """Whether every pair has a scored image here, and every image here belongs to a pair."""
        return not (self.missing or self.failed or self.unmatched)

    def summary(self, report: EvalReport) -> dict[str, dict[str, Any]]:
        """Compare the images that have a score in both folders, per metric.

        Returns:
            `mean` (of the baseline), `difference` (mean of restored − baseline) and its `interval` (`[low, high]`,
            bootstrap over images) cover the images whose two scores are finite; None without any, the interval also
            for a single one. `count` is their number, `infinite` that of the other images. `better`, `worse`, `equal`
            count images, including those with an infinite score; `share_better` is a fraction, or None.
        """
        return {metric: self._compare(metric, report) for metric in report.metrics if metric not in report.unavailable}

    def _compare(self, metric: str, report: EvalReport) -> dict[str, Any]:
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
        """All fields but the scores per image, as plain values."""
        return {
            "folder": printable(self.folder),
            "summary": self.summary(report),
            "missing": self.missing,
            "failed": self.failed,
            "unmatched": self.unmatched,
        }

    def csv_cells(self, image: ImageScores, metrics: Sequence[str]) -> list[float | str]:
        """Two cells per metric: the baseline's score and the difference to it; empty where there is no value."""
        cells: list[float | str] = []
        for metric in metrics:
            ours, theirs = image.scores.get(metric, math.nan), self.scores.get(image.name, {}).get(metric, math.nan)
            difference = ours - theirs if math.isfinite(ours) and math.isfinite(theirs) else ""
            cells += ["" if math.isnan(theirs) else theirs, difference]
        return cells


@dataclass
class EvalReport:
    """The result of an evaluation.

    Attributes:
        convention: how every metric was computed, as plain values.
        metrics: names of the metrics in column order.
        images: the scored pairs, sorted by name.
        unmatched: files without a counterpart.
        failed: `{"name", "reason"}` of pairs or masks that could not be used.
        unavailable: metrics that could not be computed for any image, and why.
        fid: FID of the two sets and the number of images it covers; None if it was not requested or is unavailable.
        baseline: a second folder to compare with.
        warnings: what the folders hold and is left out without being asked for, one line each.
    """

    convention: dict[str, Any]
    metrics: tuple[str, ...]
    images: list[ImageScores] = field(default_factory=list)
    unmatched: Unmatched = field(default_factory=Unmatched)
    failed: list[dict[str, str]] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    fid: tuple[float, int] | None = None
    baseline: Baseline | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 if every file was paired and scored, in the baseline too; otherwise 1.

        Missing FID weights count as a failure because FID is only computed on request. Missing LPIPS weights do not,
        because LPIPS is one of the default metrics.
        """
        incomplete = self.failed or any(vars(self.unmatched).values()) or FID in self.unavailable
        return int(bool(incomplete) or not (self.baseline is None or self.baseline.complete))

    def summary(self) -> dict[str, dict[str, Any]]:
        """Summarize the scores per metric.

        Returns:
            `mean`, `median` (of the finite values; None without any), `interval` (of the mean, `[low, high]`; None
            for fewer than two values), `count` (finite values), `infinite` (identical images), `excluded` (no value),
            `worst` (up to `WORST` of `{"name", "value"}`, worst first), and `unavailable` (the reason) if the metric
            could not be computed.
        """
        out: dict[str, dict[str, Any]] = {}
        for metric in self.metrics:
            values = {image.name: image.scores[metric] for image in self.images if metric in image.scores}
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            lower_is_better = METRICS[metric].better == "lower"
            worst = sorted(finite.items(), key=itemgetter(1), reverse=lower_is_better)[:WORST]
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
        """The report as plain values. An infinite score is the string `"inf"`, a missing one is null."""
        images = []
        for image in self.images:
            row: dict[str, Any] = {"name": image.name} | self._json_scores(image.scores)
            if self.baseline is not None:
                row["baseline"] = self._json_scores(self.baseline.scores.get(image.name, {}))
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
        if self.warnings:
            out["warnings"] = self.warnings
        if self.fid is not None or FID in self.unavailable:
            out["sets"] = {FID: self._json_fid(self.fid)}
        if self.baseline is not None:
            out["baseline"] = self.baseline.to_json(self)
            if self.baseline.fid is not None:
                out["baseline"]["sets"] = {FID: self._json_fid(self.baseline.fid)}
        return out

    def _json_scores(self, scores: dict[str, float]) -> dict[str, float | str | None]:
        values = {metric: scores.get(metric) for metric in self.metrics}
        return {metric: "inf" if value == math.inf else value for metric, value in values.items()}

    def _json_fid(self, fid: tuple[float, int] | None) -> dict[str, Any]:
        if fid is None:
            return {"value": None, "images": 0, "unavailable": self.unavailable[FID]}
        value, count = fid
        return {"value": value if math.isfinite(value) else None, "images": count}

    def write_json(self, target: Path | ReportTarget) -> None:
        """Write `to_json` to a file, atomically.

        Raises:
            RestoreError: the target is not writable, or exists and is not a report (see `ReportTarget`).
        """
        text = json.dumps(self.to_json(), indent=2, allow_nan=False)
        target = target if isinstance(target, ReportTarget) else ReportTarget.check(target, "json")
        target.write(f"{text}\n".encode())

    def write_csv(self, target: Path | ReportTarget) -> None:
        """Write one line per pair: name, every metric (`inf`, or empty without a value), and a note with the reasons.

        With a baseline, every metric has two more columns, `METRIC_baseline` and `METRIC_difference`.

        Raises:
            RestoreError: as `write_json`.
        """
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        extra = [] if self.baseline is None else [f"{m}_{part}" for m in self.metrics for part in _BASELINE_COLUMNS]
        writer.writerow(["name", *self.metrics, *extra, "note"])
        for image in self.images:
            notes = "; ".join(f"{metric}: {why}" for metric, why in {**self.unavailable, **image.excluded}.items())
            compared = [] if self.baseline is None else self.baseline.csv_cells(image, self.metrics)
            writer.writerow([image.name, *(image.scores.get(m, "") for m in self.metrics), *compared, notes])
        scored = {image.name for image in self.images}
        for failure in self.failed:
            if failure["name"] not in scored:
                writer.writerow([failure["name"], *("" for _ in (*self.metrics, *extra)), failure["reason"]])
        target = target if isinstance(target, ReportTarget) else ReportTarget.check(target, "csv")
        target.write(text.getvalue().encode("utf-8", "surrogateescape"))

    def problems(self, limit: int | None = None) -> list[str]:
        """Failures and files without a counterpart, one line each, and a line that counts what is not in the table.

        Args:
            limit: lines per kind of problem; the rest is summarized in one line. None: all lines.
        """
        unmatched = self.unmatched
        kinds = {
            "failed": [f"{failure['name']}: {failure['reason']}" for failure in self.failed],
            NO_IMAGES: unmatched.empty,
            "restored, but without a reference": unmatched.restored,
            "reference without a restored image": unmatched.reference,
            "mask without a pair": unmatched.masks,
            "pair without a mask": unmatched.without_mask,
        }
        if self.baseline is not None:
            failed = [f"{failure['name']}: baseline: {failure['reason']}" for failure in self.baseline.failed]
            kinds |= {
                "baseline failed": failed,
                "not in the baseline": self.baseline.missing,
                "in the baseline, but without a reference": self.baseline.unmatched,
            }
        lines = []
        for kind, items in kinds.items():
            described = items if kind in ("failed", "baseline failed") else [f"{name}: {kind}" for name in items]
            lines += described[:limit]
            if limit is not None and len(items) > limit:
                lines.append(f"and {len(items) - limit:,} more: {kind}")
        scored = {image.name for image in self.images}
        counts = {
            "failed": len({failure["name"] for failure in self.failed} - scored),
            "without a counterpart": len(unmatched.restored) + len(unmatched.reference),
        }
        left_out = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        if left_out:
            lines.append(f"in the table: {len(self.images)} pairs; not in it: {left_out}")
        return lines


def compare(report: EvalReport, other: EvalReport, folder: Path) -> Baseline:
    """The baseline part of a report.

    Args:
        report: of the restored images.
        other: of the baseline's images, against the same references and masks. Failures that both have (a reference
            or a mask) are listed once, in `report`.
        folder: the baseline's folder.
    """
    known = {(failure["name"], failure["reason"]) for failure in report.failed}
    failed = [failure for failure in other.failed if (failure["name"], failure["reason"]) not in known]
    failed += [
        {"name": name, "reason": NO_IMAGES} for name in other.unmatched.empty if name not in report.unmatched.empty
    ]
    scores = {image.name: image.scores for image in other.images}
    present = scores.keys() | {failure["name"] for failure in other.failed}
    return Baseline(
        folder=os.fspath(folder),
        scores=scores,
        missing=[image.name for image in report.images if image.name not in present],
        failed=failed,
        unmatched=other.unmatched.restored,
        fid=other.fid,
    )
