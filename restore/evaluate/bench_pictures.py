"""A benchmark to look at: a picture sheet for every damage, and a page with all pictures."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from restore.evaluate.bench import INPUT, Results, Sample, as_pixels
from restore.evaluate.bench_damage import BenchDamage
from restore.evaluate.bench_table import DECIMALS, TITLES, Line, header_and_rows, notes_of
from restore.evaluate.sheets import Cell, draw_sheet
from restore.evaluate.show import Version, caption_of, comparison_rows, crop_size, where_they_differ
from restore.images import read_rgb8, save_png, stem_key

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
    folder.mkdir(exist_ok=True)
    written = []
    for damage in results.plan.damages:
        rows: list[list[Cell]] = []
        for relative in _chosen(results, damage):
            rows += _rows_of(results, damage, relative)
        if rows:
            how = f"{damage.says[:1].upper()}{damage.says[1:]}."
            note = f"{how} Frames: where the models are furthest from the truth, enlarged {_ZOOM} times."
            path = folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', damage.label)}.png"
            save_png(path, draw_sheet(rows, heading=damage.label, note=note))
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
    """`page/index.html`: the table, and every picture under every damage with a slider between its versions.

    Raises:
        RestoreError: exit code 1; it cannot be written.
    """
    from restore.page import Column, Table, write_page

    metrics = [
        metric for metric in ("psnr", "psnr_hole", "lpips", "lpips_hole") if any(metric in x.means for x in lines)
    ]
    models = [contender.label for contender in results.plan.contenders()]
    columns = [
        Column(f"{metric} {model}", f"{TITLES[metric]}: {model}", _better(metric), DECIMALS[metric])
        for metric in metrics
        for model in (INPUT, *models)
        if any(line.model == model and metric in line.means for line in lines)
    ]
    header, rows = header_and_rows(lines)
    return write_page(
        results.plan.out / "page",
        title=f"Benchmark of {results.plan.clean_dir.name}",
        rows=_page_rows(results),
        columns=columns,
        tables=[Table("Means", header, rows)],
        notes=notes_of(results, lines),
        reference="clean",
    )


def _better(metric: str) -> Literal["higher", "lower"]:
    return "lower" if metric.startswith("lpips") else "higher"


def _page_rows(results: Results) -> Iterator[Row]:
    from restore.page import Row

    for damage in results.plan.damages:
        for relative in results.plan.pictures:
            samples = _samples(results, damage, stem_key(relative))
            if not samples:
                continue
            case = damage.case(read_rgb8(results.plan.clean_dir / relative), stem_key(relative))
            restored = {s.model: s.kept.path for s in samples if s.kept is not None}
            failed = [f for f in results.failures if f.picture == relative.as_posix() and f.damage == damage.label]
            yield Row(
                name=stem_key(relative),
                scores={
                    f"{metric} {s.model}": value
                    for s in samples
                    for metric, value in s.scores.items()
                    if not math.isnan(value)
                },
                pictures={"damaged": as_pixels(case.shown), **restored, "clean": as_pixels(case.clean)},
                mask=None if case.mask is None else case.mask[0, 0].numpy() > 0,
                note="; ".join(f"{failure.model}: {failure.reason}" for failure in failed),
                group=damage.label,
            )
