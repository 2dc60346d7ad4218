"""What an evaluation found: scores per picture, what has none and why; as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from restore.evaluate.compare import NO_PICTURES, Baseline
from restore.evaluate.statistics import interval_or_none
from restore.evaluate.target import ReportTarget
from restore.metrics import FID, METRICS

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
class Report:
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
