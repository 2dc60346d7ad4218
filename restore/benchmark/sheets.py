"""The images of a benchmark: one sheet per degradation, and an HTML page with all images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from restore.benchmark.degradations import BenchDegradation
from restore.benchmark.report import TITLES, TableLine, header_and_rows, table_notes
from restore.benchmark.run import INPUT, BenchResults, to_uint8
from restore.evaluation.comparison import Version, comparison_rows, crop_size, largest_differences, score_caption
from restore.html import Column, PageTable, Row, write_page
from restore.images import pair_key, read_rgb8, stem_key
from restore.images.contact_sheet import Cell, draw_sheet, save_sheet
from restore.metrics import METRICS

IMAGES_PER_SHEET = 4
_ZOOM = 3


def write_sheets(results: BenchResults) -> list[Path]:
    """Write `sheets/LABEL.png` for every degradation: degraded | every model | clean.

    A sheet has a few images, evenly spread over the set, each with an enlarged crop where the models differ most from
    the clean image.

    Raises:
        RestoreError: exit code 1; a sheet cannot be written.
    """
    folder = results.plan.out / "sheets"
    written = []
    for degradation in results.plan.degradations:
        rows: list[list[Cell]] = []
        for relative in _chosen_images(results, degradation):
            rows += _sheet_rows(results, degradation, relative)
        if rows:
            description = f"{degradation.description[:1].upper()}{degradation.description[1:]}."
            note = f"{description} Frames: the largest differences from the clean image, enlarged {_ZOOM} times."
            path = folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', degradation.label)}.png"
            save_sheet(path, draw_sheet(rows, heading=degradation.label, note=note))
            written.append(path)
    return written


def _chosen_images(results: BenchResults, degradation: BenchDegradation) -> list[Path]:
    """Images that every model has restored, evenly spread over the set."""
    label = degradation.label
    names = [s.image for s in results.samples if (s.degradation, s.model) == (label, INPUT)]
    for cell_degradation, model in results.plan.cells:
        if cell_degradation is degradation:
            restored = {s.image for s in results.samples if (s.degradation, s.model) == (label, model.label)}
            names = [name for name in names if name in restored] or names
    count = min(IMAGES_PER_SHEET, len(names))
    chosen = {names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count)}
    return [relative for relative in results.plan.images if stem_key(relative) in chosen]


def _sheet_rows(results: BenchResults, degradation: BenchDegradation, relative: Path) -> list[list[Cell]]:
    key = (degradation.label, stem_key(relative))
    samples = {s.model: s for s in results.samples if (s.degradation, s.image) == key}
    original = degradation.degrade(read_rgb8(results.plan.clean_dir / relative), pair_key(relative))
    restored = {s.model: read_rgb8(s.result.path) for s in samples.values() if s.result is not None}
    clean = to_uint8(original.clean)
    captions = {label: _ascii(score_caption(sample.scores)) for label, sample in samples.items()}
    models = [Version(label, image, captions[label]) for label, image in restored.items()]
    degraded = Version("damaged", to_uint8(original.degraded), captions[INPUT])
    versions = [degraded, *models, Version("clean", clean, relative.name)]
    compared: list[np.ndarray] = [version.image for version in models] or [degraded.image]
    boxes = largest_differences(compared, clean, 1, crop_size(len(versions), clean.shape[:2], _ZOOM))
    return comparison_rows(versions, boxes, _ZOOM)


def _ascii(text: str) -> str:
    """Replace other characters, which Pillow's built-in font lacks."""
    return text.encode("ascii", "replace").decode()


def write_bench_page(results: BenchResults, lines: Sequence[TableLine]) -> Path:
    """Write `page/index.html`: the table, and every image for every degradation and model, damaged | restored | clean.

    Raises:
        RestoreError: exit code 1; the page cannot be written.
    """
    header, rows = header_and_rows(lines)
    return write_page(
        results.plan.out / "page",
        title=f"Benchmark of {results.plan.clean_dir.name}",
        rows=_page_rows(results),
        columns=[
            Column(metric, title, METRICS[metric].better, METRICS[metric].decimals)
            for metric, title in TITLES.items()
            if any(metric in line.means for line in lines)
        ],
        tables=[PageTable("Means", header, rows)],
        notes=table_notes(results, lines),
        reference="clean",
    )


def _page_rows(results: BenchResults) -> Iterator[Row]:
    """One row for every image restored by a model."""
    degradations = {degradation.label: degradation for degradation in results.plan.degradations}
    files = {stem_key(relative): relative for relative in results.plan.images}
    for scored in results.samples:
        if scored.result is None:
            continue
        clean = read_rgb8(results.plan.clean_dir / files[scored.image])
        sample = degradations[scored.degradation].degrade(clean, scored.image)
        yield Row(
            name=scored.image,
            scores=scored.scores,
            images={
                "damaged": to_uint8(sample.degraded), scored.model: scored.result.path, "clean": to_uint8(sample.clean),
            },
            mask=None if sample.mask is None else sample.mask[0, 0].numpy() > 0,
            note="; ".join(scored.result.stats["notes"]),
            group=f"{scored.degradation} · {scored.model}",
        )  # fmt: skip
