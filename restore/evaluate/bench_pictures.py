"""A benchmark to look at: a picture sheet for every damage, and a page with all pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from restore.evaluate.bench import INPUT, Results, Sample, as_pixels
from restore.evaluate.bench_damage import BenchDamage
from restore.evaluate.bench_table import TITLES, Line, header_and_rows, notes_of
from restore.evaluate.sheets import Cell, draw_sheet, save_sheet
from restore.evaluate.show import Version, caption_of, comparison_rows, crop_size, where_they_differ
from restore.images import read_rgb8, stem_key
from restore.metrics import METRICS

if TYPE_CHECKING:
    from restore.page import Row

PICTURES_ON_A_SHEET = 4
_ZOOM = 3


def write_sheets(results: Results) -> list[Path]:
    """`sheets/DAMAGE.png` for every damage: damaged | every model | clean, some pictures spread over the set, each with
    the place where the models are furthest from the truth.

    Raises:
        RestoreError: exit code 1; they cannot be written.
    """
    folder = results.plan.out / "sheets"
    written = []
    for damage in results.plan.damages:
        rows: list[list[Cell]] = []
        for relative in _chosen(results, damage):
            rows += _rows_of(results, damage, relative)
        if rows:
            how = f"{damage.says[:1].upper()}{damage.says[1:]}."
            note = f"{how} Frames: where the models are furthest from the truth, enlarged {_ZOOM} times."
            path = folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', damage.label)}.png"
            save_sheet(path, draw_sheet(rows, heading=damage.label, note=note))
            written.append(path)
    return written


def _chosen(results: Results, damage: BenchDamage) -> list[Path]:
    """Some pictures that every model has restored, evenly spread over the set."""
    names = [s.picture for s in results.samples if (s.damage, s.model) == (damage.label, INPUT)]
    for of, contender in results.plan.cells:
        if of is damage:
            done = {s.picture for s in results.samples if (s.damage, s.model) == (damage.label, contender.label)}
            names = [name for name in names if name in done] or names
    count = min(PICTURES_ON_A_SHEET, len(names))
    wanted = {names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count)}
    return [relative for relative in results.plan.pictures if stem_key(relative) in wanted]


def _rows_of(results: Results, damage: BenchDamage, relative: Path) -> list[list[Cell]]:
    samples = {s.model: s for s in _samples(results, damage, stem_key(relative))}
    pictures = _versions(results, damage, relative, list(samples.values()))
    clean = pictures.pop("clean")
    versions = []
    for label, picture in pictures.items():
        model = INPUT if label == "damaged" else label
        versions.append(Version(label, picture, _ascii(caption_of(samples[model].scores))))
    versions.append(Version("clean", clean, relative.name))
    rivals = [version.picture for version in versions[1:-1]] or [versions[0].picture]
    places = where_they_differ(rivals, clean, 1, crop_size(len(versions), clean.shape[:2], _ZOOM))
    return comparison_rows(versions, places, _ZOOM)


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _samples(results: Results, damage: BenchDamage, picture: str) -> list[Sample]:
    return [s for s in results.samples if s.damage == damage.label and s.picture == picture]


def _versions(
    results: Results, damage: BenchDamage, relative: Path, samples: Sequence[Sample]
) -> dict[str, np.ndarray]:
    """By label: `damaged`, the models in their order, `clean`; uint8 of one size."""
    case = damage.case(read_rgb8(results.plan.clean_dir / relative), stem_key(relative))
    restored = {s.model: read_rgb8(s.kept.path) for s in samples if s.kept is not None}
    return {"damaged": as_pixels(case.shown), **restored, "clean": as_pixels(case.clean)}


def write_bench_page(results: Results, lines: Sequence[Line]) -> Path:
    """`page/index.html`: the table, and every picture under every damage and model, damaged | restored | clean.

    Raises:
        RestoreError: exit code 1; it cannot be written.
    """
    from restore.page import Column, Table, write_page

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
        tables=[Table("Means", header, rows)],
        notes=notes_of(results, lines),
        reference="clean",
    )


def _page_rows(results: Results) -> Iterator[Row]:
    """One for every sample that a model made; the damaged picture is the first in each."""
    from restore.page import Row

    damages = {damage.label: damage for damage in results.plan.damages}
    files = {stem_key(relative): relative for relative in results.plan.pictures}
    for sample in results.samples:
        if sample.kept is None:
            continue
        clean = read_rgb8(results.plan.clean_dir / files[sample.picture])
        case = damages[sample.damage].case(clean, sample.picture)
        yield Row(
            name=sample.picture,
            scores=sample.scores,
            pictures={
                "damaged": as_pixels(case.shown), sample.model: sample.kept.path, "clean": as_pixels(case.clean),
            },
            mask=None if case.mask is None else case.mask[0, 0].numpy() > 0,
            note="; ".join(sample.kept.facts["notes"]),
            group=f"{sample.damage} · {sample.model}",
        )  # fmt: skip
