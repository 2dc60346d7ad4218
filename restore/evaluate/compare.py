"""One method against another, picture by picture."""

from __future__ import annotations

import math
import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore.errors import printable
from restore.evaluate.statistics import interval_or_none
from restore.metrics import METRICS

if TYPE_CHECKING:
    from restore.evaluate.report import Report

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

    def summary(self, report: Report) -> dict[str, dict[str, Any]]:
        """Per metric, over the pictures that have a score in both.

        Returns:
            `mean` (the baseline's), `difference` (mean of restored − baseline) and its `interval` (`[low, high]`,
            bootstrap over pictures), over the pictures whose two scores are finite, None where there are none, or too
            few; `count` of those, `infinite` of the others; `better`, `worse`, `equal`: numbers of pictures, also of
            those with an infinite score; `share_better`, or None.
        """
        return {metric: self._line(metric, report) for metric in report.metrics if metric not in report.unavailable}

    def _line(self, metric: str, report: Report) -> dict[str, Any]:
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

    def to_json(self, report: Report) -> dict[str, Any]:
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


def compare(report: Report, other: Report, folder: Path) -> Baseline:
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
