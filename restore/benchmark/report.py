"""The table of a benchmark: means with intervals per damage and model; as Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from restore.benchmark.degradations import BenchDamage
from restore.benchmark.plan import MACS_AT_PX, BenchModel
from restore.benchmark.run import INPUT, Results, Sample, as_pixels
from restore.environment import environment
from restore.evaluation.comparison import Version, comparison_rows, crop_size, largest_differences, score_caption
from restore.evaluation.statistics import bootstrap_interval
from restore.files import write_atomically
from restore.images import read_rgb8, stem_key
from restore.images.contact_sheet import Cell, draw_sheet, save_sheet
from restore.metrics import METRICS

if TYPE_CHECKING:
    from restore.html import Row


TITLES = {
    "psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS", "psnr_hole": "PSNR, hole", "lpips_hole": "LPIPS, hole",
}  # fmt: skip


@dataclass(frozen=True)
class Mean:
    """Of the finite scores: the mean, its 95 % bootstrap interval (NaN for a single picture), and how many they are.

    Those that were infinite (identical pictures) are counted apart.
    """

    mean: float
    low: float
    high: float
    count: int
    infinite: int


@dataclass(frozen=True)
class Line:
    """One line of the table: a damage and a model.

    Attributes:
        damage, model: their labels.
        means: by metric, those that have a value.
        pictures: how many were scored; 0 of a published figure.
        seconds_per_megapixel, peak_bytes, gpu_bytes, idle_bytes: None of the input and of published figures.
        machines: what the timings are of.
        contender: None of the input and of published figures.
        source: of a published figure; else "".
    """

    damage: str
    model: str
    means: dict[str, Mean]
    pictures: int
    seconds_per_megapixel: float | None = None
    peak_bytes: int | None = None
    gpu_bytes: int | None = None
    idle_bytes: int | None = None
    machines: tuple[str, ...] = ()
    contender: BenchModel | None = None
    source: str = ""


def lines_of(results: Results) -> list[Line]:
    """The table, damage by damage: the input, the models in their order, then published figures.

    These are left out where pictures failed: they are of the whole set.
    """
    lines = []
    contenders = {contender.label: contender for contender in results.plan.contenders()}
    for damage in results.plan.damages:
        for model in (INPUT, *contenders):
            samples = [s for s in results.samples if (s.damage, s.model) == (damage.label, model)]
            if samples:
                lines.append(_line(damage.label, model, samples, contenders.get(model)))
        for figure in () if results.failures else results.plan.published:
            if figure.damage == damage.label:
                mean = Mean(figure.psnr, math.nan, math.nan, 0, 0)
                lines.append(Line(damage.label, f"{figure.model} (published)", {"psnr": mean}, 0, source=figure.source))
    return lines


def _line(damage: str, model: str, samples: Sequence[Sample], contender: BenchModel | None) -> Line:
    means = {metric: mean for metric in TITLES if (mean := _mean(samples, metric)) is not None}
    made = [sample.kept.facts for sample in samples if sample.kept is not None]
    if not made:
        return Line(damage, model, means, len(samples), contender=contender)
    seconds = sum(facts["seconds"] for facts in made) / sum(facts["megapixels"] for facts in made)
    gpu = [facts["gpu_bytes"] for facts in made if facts["gpu_bytes"] is not None]
    return Line(
        damage, model, means, len(samples), seconds,
        peak_bytes=max(facts["peak_bytes"] for facts in made),
        gpu_bytes=max(gpu) if gpu else None,
        idle_bytes=max(facts["idle_bytes"] for facts in made),
        machines=tuple(dict.fromkeys(facts["machine"] for facts in made)),
        contender=contender,
    )  # fmt: skip


def _mean(samples: Sequence[Sample], metric: str) -> Mean | None:
    values = [sample.scores[metric] for sample in samples if metric in sample.scores]
    finite = [value for value in values if math.isfinite(value)]
    infinite = sum(value == math.inf for value in values)
    if not finite:
        return Mean(math.inf, math.nan, math.nan, 0, infinite) if infinite else None
    return Mean(statistics.fmean(finite), *bootstrap_interval(finite), len(finite), infinite)


def header_and_rows(lines: Sequence[Line], *, intervals: bool = True) -> tuple[list[str], list[list[str]]]:
    """The table as strings; columns that would be empty are left out."""
    metrics = [metric for metric in TITLES if any(metric in line.means for line in lines)]
    gpu = any(line.gpu_bytes is not None for line in lines)
    header = ["damage", "model", *(TITLES[metric] for metric in metrics)]
    header += ["s/megapixel", "peak GPU, MB" if gpu else "peak, MB", "parameters, M", f"GMACs at {MACS_AT_PX}²"]
    rows = []
    for line in lines:
        scores = [format_score(line.means.get(metric), metric, intervals=intervals) for metric in metrics]
        peak = line.gpu_bytes if gpu else line.peak_bytes
        size = line.contender
        rows.append(
            [
                line.damage,
                line.model,
                *scores,
                "-" if line.seconds_per_megapixel is None else f"{line.seconds_per_megapixel:.3g}",
                "-" if not peak else f"{peak / 1e6:.0f}",
                "-" if size is None or size.parameters is None else f"{size.parameters / 1e6:.2f}",
                "-" if size is None or size.macs is None else f"{size.macs / 1e9:.2f}",
            ]
        )
    return header, rows


def format_score(mean: Mean | None, metric: str, *, intervals: bool = True) -> str:
    """`30.87 [30.20, 31.55]`; `inf` where all are identical, `-` without a value."""
    if mean is None:
        return "-"
    if mean.mean == math.inf:
        return "inf"
    digits = METRICS[metric].decimals
    text = f"{mean.mean:.{digits}f}"
    if intervals and math.isfinite(mean.low):
        text += f" [{mean.low:.{digits}f}, {mean.high:.{digits}f}]"
    return text


def notes_of(results: Results, lines: Sequence[Line]) -> list[str]:
    """What must be known to read the table, one sentence or more each."""
    plan = results.plan
    count = len({sample.picture for sample in results.samples})
    notes = [
        f"{count} pictures; means over pictures, with 95 % bootstrap intervals (10,000 resamples, seed 0). "
        f"Convention {plan.convention.name}; outputs are rounded to 8 bits before they are scored"
        + (f"; LPIPS with {plan.lpips.net}." if plan.lpips is not None else f". No LPIPS: {plan.why_no_lpips}.")
    ]
    notes += [f"{damage.label}: {damage.says}." for damage in plan.damages]
    machines = list(dict.fromkeys(machine for line in lines for machine in line.machines))
    used = list(dict.fromkeys(f"{c.device}, {c.precision}" for c in plan.contenders() if c.parameters is not None))
    notes.append(
        "Seconds are of the run that made the picture, one after the other, on: "
        + (" | ".join(machines) or results.machine)
        + (f"; networks on {', '.join(used)}." if used else ".")
    )
    notes.append(
        "Peak memory is the most that a process held which did nothing but run this model on this damage, Python, "
        "PyTorch and the model with it"
        + ("; on the GPU, the most that tensors took." if any(line.gpu_bytes is not None for line in lines) else ".")
    )
    if any(line.source for line in lines):
        sources = {line.source: None for line in lines if line.source}
        notes.append(
            "(published): as the papers print it, not measured here; told how strong the noise is, which is their own: "
            + "; ".join(sources) + "."
        )  # fmt: skip
    elif plan.published:
        notes.append("Published figures are left out: they are of the whole set, and pictures failed.")
    others = dict.fromkeys(n for s in results.samples if s.kept is not None for n in s.kept.facts["notes"])
    notes += [f"{other[:1].upper()}{other[1:]}." for other in others]
    identical = [
        f"{line.model} on {line.damage}: {line.means['psnr'].infinite}"
        for line in lines
        if "psnr" in line.means and line.means["psnr"].infinite
    ]
    if identical:
        notes.append(f"Identical to the clean picture, and in no mean of PSNR: {'; '.join(identical)}.")
    notes += [f"{left.line()}." for left in plan.left_out]
    notes += [f"Failed, and in no mean: {failure.line()}." for failure in results.failures]
    return notes


def write_tables(results: Results, lines: Sequence[Line]) -> None:
    """`table.md`, `bench.json` and `pictures.csv` in the output folder.

    Raises:
        RestoreError: exit code 1; they cannot be written.
    """
    out = results.plan.out
    write_atomically(out / "table.md", _markdown(results, lines).encode())
    write_atomically(out / "pictures.csv", _csv(results).encode("utf-8", "surrogateescape"))
    write_atomically(out / "bench.json", f"{json.dumps(_facts(results, lines), indent=1, allow_nan=False)}\n".encode())


def _markdown(results: Results, lines: Sequence[Line]) -> str:
    header, rows = header_and_rows(lines)
    text = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    text += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([*text, "", *(f"- {note}" for note in notes_of(results, lines)), ""])


def _csv(results: Results) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["damage", "model", "picture", *TITLES, "seconds", "megapixels", "restored"])
    for sample in results.samples:
        scores = [sample.scores.get(metric, math.nan) for metric in TITLES]
        made = sample.kept
        writer.writerow(
            [
                sample.damage, sample.model, sample.picture, *("" if math.isnan(score) else score for score in scores),
                "" if made is None else made.facts["seconds"], sample.megapixels,
                "" if made is None else made.path.relative_to(results.plan.out).as_posix(),
            ]
        )  # fmt: skip
    return text.getvalue()


def _facts(results: Results, lines: Sequence[Line]) -> dict[str, Any]:
    plan = results.plan
    return {
        "settings": plan.settings,
        "convention": plan.described(),
        "damages": [{"damage": damage.label, "how": damage.says} for damage in plan.damages],
        "models": [contender.to_dict() for contender in plan.contenders()],
        "table": [_line_facts(line) for line in lines],
        "left_out": [vars(left) for left in plan.left_out],
        "failed": [vars(failure) for failure in results.failures],
        "pictures": len({sample.picture for sample in results.samples}),
        "machine": results.machine,
        "environment": environment(plan.settings["device"], plan.settings["precision"]),
    }


def _line_facts(line: Line) -> dict[str, Any]:
    means = {
        metric: {
            "mean": "inf" if mean.mean == math.inf else mean.mean,
            "interval_95": [mean.low, mean.high] if math.isfinite(mean.low) else None,
            "count": mean.count,
            "infinite": mean.infinite,
        }
        for metric, mean in line.means.items()
    }
    return {
        "damage": line.damage, "model": line.model, "published": line.source or None, "pictures": line.pictures,
        "scores": means, "seconds_per_megapixel": line.seconds_per_megapixel, "peak_bytes": line.peak_bytes,
        "idle_bytes": line.idle_bytes, "gpu_bytes": line.gpu_bytes, "machines": list(line.machines),
    }  # fmt: skip


# A benchmark to look at: a picture sheet for every damage, and a page with all pictures.


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
        versions.append(Version(label, picture, _ascii(score_caption(samples[model].scores))))
    versions.append(Version("clean", clean, relative.name))
    rivals = [version.image for version in versions[1:-1]] or [versions[0].image]
    places = largest_differences(rivals, clean, 1, crop_size(len(versions), clean.shape[:2], _ZOOM))
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
    from restore.html import Column, PageTable, write_page

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
        notes=notes_of(results, lines),
        reference="clean",
    )


def _page_rows(results: Results) -> Iterator[Row]:
    """One for every sample that a model made; the damaged picture is the first in each."""
    from restore.html import Row

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
