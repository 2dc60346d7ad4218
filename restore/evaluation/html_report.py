"""A report as a page to look at: every pair with its scores, from the files that were scored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from restore.errors import printable
from restore.evaluation.pairs import Pair, pair_up
from restore.evaluation.report import EvalReport, ImageScores, baseline_table, report_table
from restore.html import Column, PageTable, Row, write_page
from restore.images import find_images, stem_key
from restore.metrics import METRICS

BASELINE, RESTORED, TRUE = "baseline", "restored", "true"


def write_report_page(
    folder: str | os.PathLike[str],
    report: EvalReport,
    restored_dir: Path,
    reference_dir: Path,
    *,
    masks: Path | None = None,
    baseline: Path | None = None,
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Write a report and its pictures as a page.

    Args:
        folder: as in `restore.html.write_page`.
        report: of these folders.
        restored_dir: the restored pictures.
        reference_dir: the true ones; error maps are against them.
        masks: the masks; None: no outlines.
        baseline: the folder of the report's baseline; None: none.
        progress: called with the number of pairs that are written.

    Returns:
        The path of `index.html`.

    Raises:
        RestoreError: as `write_page`.
    """
    pairs = pair_up(restored_dir, reference_dir, masks).pairs
    found = {"Scores": report_table(report), "Beside the baseline": baseline_table(report)}
    tables = [PageTable(title, table.columns, table.rows) for title, table in found.items() if table.rows]
    problems = report.problems()
    if problems:
        tables.append(PageTable("Left out, or scored in part", ["file and reason"], [[line] for line in problems]))
    tables.append(
        PageTable("How it was computed", ["score", "convention"], _conventions(report.convention), folded=True)
    )
    notes = [f"Restored: {printable(restored_dir)}", f"True: {printable(reference_dir)}"]
    notes += [f"Baseline: {printable(baseline)}"] if baseline is not None else []
    notes += [f"Masks: {printable(masks)}"] if masks is not None else []
    return write_page(
        folder,
        title=f"{Path(os.path.abspath(restored_dir)).name} against {Path(os.path.abspath(reference_dir)).name}",
        rows=_rows(report, pairs, baseline),
        columns=[_column(metric) for metric in report.metrics if metric not in report.unavailable],
        tables=tables,
        notes=notes,
        reference=TRUE,
        progress=progress,
    )


def _rows(report: EvalReport, pairs: list[Pair], baseline: Path | None) -> Iterator[Row]:
    """All pairs, those without scores too: what went wrong with them is what one wants to see."""
    scored = {image.name: image for image in report.images}
    reasons = {failure["name"]: failure["reason"] for failure in report.failed}
    others: dict[str, Path] = {}
    if baseline is not None:
        others = {stem_key(path): baseline / path for path in find_images(baseline)}
    for pair in pairs:
        pictures = {RESTORED: pair.restored, TRUE: pair.reference}
        if pair.name in others:
            pictures = {BASELINE: others[pair.name], **pictures}
        image = scored.get(pair.name)
        yield Row(
            name=pair.name,
            scores=image.scores if image is not None else {},
            pictures=pictures,
            mask=pair.mask,
            note=_note(image, reasons.get(pair.name, "")),
            group=str(Path(pair.name).parent) if "/" in pair.name else "",
        )


def _note(image: ImageScores | None, reason: str) -> str:
    excluded = [] if image is None else [f"{METRICS[m].title}: {why}" for m, why in image.excluded.items()]
    return "; ".join([*([reason] if reason else []), *excluded])


def _column(metric: str) -> Column:
    known = METRICS[metric]
    return Column(metric, known.title, known.better, known.decimals)


def _conventions(convention: dict[str, Any]) -> list[list[str]]:
    """Plain values as text: a line per score, `key: value` after `key: value`."""
    rows = []
    for key, value in convention.items():
        if isinstance(value, dict):
            text = "; ".join(f"{name.replace('_', ' ')}: {_plain(one)}" for name, one in value.items())
        else:
            text = _plain(value)
        rows.append([METRICS[key].title if key in METRICS else key, text])
    return rows


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items())
    return "–" if value is None else str(value)
