"""The HTML report of an evaluation: every pair with its scores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from restore.errors import printable
from restore.evaluation.pairs import Pair, pair_up
from restore.evaluation.report import EvalReport, ImageScores
from restore.evaluation.tables import baseline_table, score_table
from restore.html import Column, PageTable, Row, write_page
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
    suffix: str = "",
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Write a report and its images as a page.

    Args:
        folder: as in `restore.html.write_page`.
        report: of these folders.
        restored_dir: the restored images.
        reference_dir: the clean images; error maps are differences to them.
        masks: folder of masks; None: no outlines.
        baseline: folder of the report's baseline, if it has one.
        suffix: as in `pair_up`.
        progress: called with the number of pairs written.

    Returns:
        The path of `index.html`.

    Raises:
        RestoreError: as `write_page`.
    """
    pairs = pair_up(restored_dir, reference_dir, masks, suffix=suffix).pairs
    others = [] if baseline is None else pair_up(baseline, reference_dir, None, suffix=suffix).pairs
    scores = {"Scores": score_table(report), "Comparison with the baseline": baseline_table(report)}
    tables = [PageTable(title, table.columns, table.rows) for title, table in scores.items() if table.rows]
    problems = report.problems()
    if problems:
        tables.append(PageTable("Not scored, or scored in part", ["file and reason"], [[line] for line in problems]))
    tables.append(
        PageTable("How the scores were computed", ["score", "convention"], _conventions(report.convention), folded=True)
    )
    notes = [f"Restored: {printable(restored_dir)}", f"True: {printable(reference_dir)}"]
    notes += [f"Baseline: {printable(baseline)}"] if baseline is not None else []
    notes += [f"Masks: {printable(masks)}"] if masks is not None else []
    return write_page(
        folder,
        title=f"{Path(os.path.abspath(restored_dir)).name} against {Path(os.path.abspath(reference_dir)).name}",
        rows=_rows(report, pairs, {pair.name: pair.restored for pair in others}),
        columns=[_column(metric) for metric in report.metrics if metric not in report.unavailable],
        tables=tables,
        notes=notes,
        reference=TRUE,
        progress=progress,
    )


def _rows(report: EvalReport, pairs: list[Pair], others: dict[str, Path]) -> Iterator[Row]:
    """One row per pair, including pairs that could not be scored. `others` are the images of the baseline."""
    scored = {image.name: image for image in report.images}
    reasons = {failure["name"]: failure["reason"] for failure in report.failed}
    for pair in pairs:
        images = {RESTORED: pair.restored, TRUE: pair.reference}
        if pair.name in others:
            images = {BASELINE: others[pair.name], **images}
        image_scores = scored.get(pair.name)
        yield Row(
            name=pair.name,
            scores=image_scores.scores if image_scores is not None else {},
            images=images,
            mask=pair.mask,
            note=_note(image_scores, reasons.get(pair.name, "")),
            group=str(Path(pair.name).parent) if "/" in pair.name else "",
        )


def _note(image: ImageScores | None, reason: str) -> str:
    excluded = [] if image is None else [f"{METRICS[m].title}: {why}" for m, why in image.excluded.items()]
    return "; ".join([*([reason] if reason else []), *excluded])


def _column(metric: str) -> Column:
    definition = METRICS[metric]
    return Column(metric, definition.title, definition.better, definition.decimals)


def _conventions(convention: dict[str, Any]) -> list[list[str]]:
    """Table rows of (score, its convention as `key: value; key: value`)."""
    rows = []
    for key, value in convention.items():
        if isinstance(value, dict):
            text = "; ".join(f"{name.replace('_', ' ')}: {_text(one)}" for name, one in value.items())
        else:
            text = _text(value)
        rows.append([METRICS[key].title if key in METRICS else key, text])
    return rows


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(one)}" for key, one in value.items())
    return "–" if value is None else str(value)
