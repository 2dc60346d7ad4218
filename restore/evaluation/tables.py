"""Printable tables of a report: the scores, the worst images, the comparison with a baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from restore.errors import printable
from restore.evaluation.report import EvalReport
from restore.evaluation.statistics import LEVEL
from restore.metrics import FID, METRICS

_INTERVAL = f"{100 * LEVEL:g} % interval"
_NONE = "-"


@dataclass(frozen=True)
class TextTable:
    """Column titles and rows; every cell is a string."""

    columns: list[str]
    rows: list[list[str]]


def report_tables(report: EvalReport) -> list[TextTable]:
    """All tables of a report that have rows, in reading order."""
    tables = [score_table(report), worst_table(report), baseline_table(report)]
    return [table for table in tables if table.rows]


def score_table(report: EvalReport) -> TextTable:
    """One row per metric: mean, interval, median, number of images, and remarks on values outside the mean."""
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
    return TextTable(["metric", "mean", _INTERVAL, "median", "images", "remarks"], rows)


def worst_table(report: EvalReport) -> TextTable:
    """One row per metric: the images with the worst scores, worst first. Metrics with a single score have no row."""
    rows = []
    for metric, line in report.summary().items():
        if line["count"] > 1:
            digits = METRICS[metric].decimals
            worst = [f"{printable(image['name'])} {image['value']:.{digits}f}" for image in line["worst"]]
            rows.append([METRICS[metric].title, *worst])
    width = max((len(row) for row in rows), default=2)
    padded = [row + [""] * (width - len(row)) for row in rows]
    return TextTable(["metric", "worst images", *("" for _ in range(width - 2))], padded)


def baseline_table(report: EvalReport) -> TextTable:
    """One row per metric: mean of the baseline, mean difference with its interval, number of improved images."""
    columns = ["metric", "baseline", "difference", _INTERVAL, "better", "images", "remarks"]
    if report.baseline is None:
        return TextTable(columns, [])
    rows = []
    for metric, line in report.baseline.summary(report).items():
        digits = METRICS[metric].decimals
        total = line["better"] + line["worse"] + line["equal"]
        better = f"{line['better']} of {total} ({100 * line['share_better']:.0f} %)" if total else _NONE
        remarks = [f"{line['equal']} equal"] if line["equal"] else []
        if line["infinite"]:
            remarks.append(f"{line['infinite']} with an identical image (inf), not in the difference")
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
