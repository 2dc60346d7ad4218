"""A report as tables to print: the scores, the worst pictures, the comparison with a baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from restore.errors import printable
from restore.evaluate.report import Report
from restore.evaluate.statistics import LEVEL
from restore.metrics import FID, METRICS

_INTERVAL = f"{100 * LEVEL:g} % interval"
_NONE = "-"


@dataclass(frozen=True)
class Table:
    """Rows to print, every cell a string."""

    columns: list[str]
    rows: list[list[str]]


def report_tables(report: Report) -> list[Table]:
    """The tables that a report has rows for, in the order in which they are read."""
    tables = [report_table(report), worst_table(report), baseline_table(report)]
    return [table for table in tables if table.rows]


def report_table(report: Report) -> Table:
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
    return Table(["metric", "mean", _INTERVAL, "median", "pictures", "remarks"], rows)


def worst_table(report: Report) -> Table:
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
    return Table(["metric", "worst pictures", *("" for _ in range(width - 2))], filled)


def baseline_table(report: Report) -> Table:
    """A row per metric: the baseline's mean, the mean difference to it with its interval, how many got better."""
    columns = ["metric", "baseline", "difference", _INTERVAL, "better", "pictures", "remarks"]
    if report.baseline is None:
        return Table(columns, [])
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
    return Table(columns, rows)


def _number(value: float | None, digits: int, sign: str = "") -> str:
    return _NONE if value is None or math.isnan(value) else f"{value:{sign}.{digits}f}"


def _interval(ends: Sequence[float] | None, digits: int, sign: str = "") -> str:
    return _NONE if ends is None else f"{ends[0]:{sign}.{digits}f} to {ends[1]:{sign}.{digits}f}"


def _fid(fid: tuple[float, int]) -> str:
    return _number(fid[0], 2)
