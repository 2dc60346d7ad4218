"""The table of a benchmark: means with intervals per degradation and model, as Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from restore.benchmark.plan import MACS_AT_PX, BenchModel
from restore.benchmark.run import INPUT, BenchResults, ScoredSample
from restore.environment import environment
from restore.evaluation.statistics import bootstrap_interval
from restore.files import write_atomically
from restore.metrics import METRICS

TITLES = {
    "psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS", "psnr_hole": "PSNR, hole", "lpips_hole": "LPIPS, hole",
}  # fmt: skip

_TOLD = ", by methods that know the level of the noise"


@dataclass(frozen=True)
class MeanScore:
    """The mean of finite scores.

    Attributes:
        mean: infinite if all scores are.
        low, high: its 95 % bootstrap interval; NaN for fewer than two scores.
        count: number of finite scores.
        infinite: number of infinite scores, of identical images.
    """

    mean: float
    low: float
    high: float
    count: int
    infinite: int


@dataclass(frozen=True)
class TableLine:
    """One line of the table: a degradation and a model.

    Attributes:
        degradation, model: labels.
        means: by metric, if there is a value.
        images: number of scored images; 0 for a published figure.
        seconds_per_megapixel, peak_bytes, gpu_bytes, idle_bytes: None for the input and for published figures.
        cpu_seconds_per_megapixel: of all processors, likewise.
        machines: descriptions of the machines of the timings.
        bench_model: None for the input and for published figures.
        source: of a published figure; otherwise "".
    """

    degradation: str
    model: str
    means: dict[str, MeanScore]
    images: int
    seconds_per_megapixel: float | None = None
    peak_bytes: int | None = None
    gpu_bytes: int | None = None
    idle_bytes: int | None = None
    machines: tuple[str, ...] = ()
    bench_model: BenchModel | None = None
    source: str = ""
    cpu_seconds_per_megapixel: float | None = None


def table_lines(results: BenchResults) -> list[TableLine]:
    """The lines of the table: for each degradation the input, the models, then published figures.

    Published figures are left out if images failed, because they cover the whole test set.
    """
    lines = []
    models = {model.label: model for model in results.plan.models()}
    for degradation in results.plan.degradations:
        for label in (INPUT, *models):
            samples = [s for s in results.samples if (s.degradation, s.model) == (degradation.label, label)]
            if samples:
                lines.append(_line(degradation.label, label, samples, models.get(label)))
        for figure in () if results.failures else results.plan.published:
            if figure.degradation == degradation.label:
                means = {"psnr": MeanScore(figure.psnr, math.nan, math.nan, 0, 0)}
                name = f"{figure.model} (published)"
                lines.append(TableLine(degradation.label, name, means, 0, source=figure.source))
    return lines


def _line(degradation: str, label: str, samples: Sequence[ScoredSample], model: BenchModel | None) -> TableLine:
    means = {metric: mean for metric in TITLES if (mean := _mean(samples, metric)) is not None}
    runs = [sample.result.stats for sample in samples if sample.result is not None]
    if not runs:
        return TableLine(degradation, label, means, len(samples), bench_model=model)
    megapixels = sum(run["megapixels"] for run in runs)
    gpu = [run["gpu_bytes"] for run in runs if run["gpu_bytes"] is not None]
    return TableLine(
        degradation, label, means, len(samples), sum(run["seconds"] for run in runs) / megapixels,
        peak_bytes=max(run["peak_bytes"] for run in runs),
        gpu_bytes=max(gpu) if gpu else None,
        idle_bytes=max(run["idle_bytes"] for run in runs),
        machines=tuple(dict.fromkeys(run["machine"] for run in runs)),
        bench_model=model,
        cpu_seconds_per_megapixel=sum(run["cpu_seconds"] for run in runs) / megapixels,
    )  # fmt: skip


def _mean(samples: Sequence[ScoredSample], metric: str) -> MeanScore | None:
    values = [sample.scores[metric] for sample in samples if metric in sample.scores]
    finite = [value for value in values if math.isfinite(value)]
    infinite = sum(value == math.inf for value in values)
    if not finite:
        return MeanScore(math.inf, math.nan, math.nan, 0, infinite) if infinite else None
    return MeanScore(statistics.fmean(finite), *bootstrap_interval(finite), len(finite), infinite)


def header_and_rows(lines: Sequence[TableLine], *, intervals: bool = True) -> tuple[list[str], list[list[str]]]:
    """The table as strings, without empty columns."""
    metrics = [metric for metric in TITLES if any(metric in line.means for line in lines)]
    gpu = any(line.gpu_bytes is not None for line in lines)
    header = ["damage", "model", *(TITLES[metric] for metric in metrics)]
    header += ["s/megapixel", "peak GPU, MB" if gpu else "peak, MB", "parameters, M", f"GMACs at {MACS_AT_PX}²"]
    rows = []
    for line in lines:
        scores = [format_score(line.means.get(metric), metric, intervals=intervals) for metric in metrics]
        peak = line.gpu_bytes if gpu else line.peak_bytes
        model = line.bench_model
        rows.append(
            [
                line.degradation,
                line.model,
                *scores,
                "-" if line.seconds_per_megapixel is None else f"{line.seconds_per_megapixel:.3g}",
                "-" if not peak else f"{peak / 1e6:.0f}",
                "-" if model is None or model.parameters is None else f"{model.parameters / 1e6:.2f}",
                "-" if model is None or model.macs is None else f"{model.macs / 1e9:.2f}",
            ]
        )
    return header, rows


def format_score(score: MeanScore | None, metric: str, *, intervals: bool = True) -> str:
    """`30.87 [30.20, 31.55]`; `inf` if all images are identical, `-` without a value."""
    if score is None:
        return "-"
    if score.mean == math.inf:
        return "inf"
    digits = METRICS[metric].decimals
    text = f"{score.mean:.{digits}f}"
    if intervals and math.isfinite(score.low):
        text += f" [{score.low:.{digits}f}, {score.high:.{digits}f}]"
    return text


def table_notes(results: BenchResults, lines: Sequence[TableLine]) -> list[str]:
    """What a reader needs to know about the table, one or more sentences each."""
    plan = results.plan
    count = len({sample.image for sample in results.samples})
    lpips = f"LPIPS with {plan.lpips.net}." if plan.lpips is not None else f"No LPIPS: {plan.why_no_lpips}."
    notes = [
        f"{count} images; means over images, with 95 % bootstrap intervals (10,000 resamples, seed 0). "
        f"Convention {plan.convention.name}; outputs are rounded to 8 bits before they are scored. {lpips}"
    ]
    notes += [f"{degradation.label}: {degradation.description}." for degradation in plan.degradations]
    machines = list(dict.fromkeys(machine for line in lines for machine in line.machines))
    used = list(
        dict.fromkeys(f"{m.device}, {m.precision}, {m.engine}" for m in plan.models() if m.parameters is not None)
    )
    notes.append(
        "Images are processed one after the other; seconds are of the run that restored the image, on: "
        + (" | ".join(machines) or results.machine)
        + (f"; networks on {', '.join(used)}." if used else ".")
    )
    notes.append(
        "Peak memory is that of a process which runs only this model on this degradation, including Python, PyTorch "
        "and the model"
        + ("; on the GPU, that of all tensors." if any(line.gpu_bytes is not None for line in lines) else ".")
    )
    if any(line.source for line in lines):
        sources = {line.source: None for line in lines if line.source}
        told = any(line.source and line.degradation.startswith("awgn") for line in lines)
        notes.append(f"(published): printed in papers, not measured here{_TOLD if told else ''}: {'; '.join(sources)}.")
    elif plan.published:
        notes.append("Published figures are left out because they cover the whole test set, and images failed.")
    others = dict.fromkeys(n for s in results.samples if s.result is not None for n in s.result.stats["notes"])
    notes += [f"{other[:1].upper()}{other[1:]}." for other in others]
    identical = [
        f"{line.model} on {line.degradation}: {line.means['psnr'].infinite}"
        for line in lines
        if "psnr" in line.means and line.means["psnr"].infinite
    ]
    if identical:
        notes.append(f"Identical to the clean image, and in no mean of PSNR: {'; '.join(identical)}.")
    notes += [f"{skipped.format()}." for skipped in plan.skipped]
    notes += [f"Failed, and in no mean: {failure.format()}." for failure in results.failures]
    return notes


def write_tables(results: BenchResults, lines: Sequence[TableLine]) -> None:
    """Write `table.md`, `bench.json` and `images.csv` to the output folder.

    Raises:
        RestoreError: exit code 1; a file cannot be written.
    """
    out = results.plan.out
    write_atomically(out / "table.md", _markdown(results, lines).encode())
    write_atomically(out / "images.csv", _csv(results).encode("utf-8", "surrogateescape"))
    write_atomically(
        out / "bench.json", f"{json.dumps(_to_dict(results, lines), indent=1, allow_nan=False)}\n".encode()
    )


def _markdown(results: BenchResults, lines: Sequence[TableLine]) -> str:
    header, rows = header_and_rows(lines)
    text = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    text += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([*text, "", *(f"- {note}" for note in table_notes(results, lines)), ""])


def _csv(results: BenchResults) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["damage", "model", "image", *TITLES, "seconds", "megapixels", "restored"])
    for sample in results.samples:
        scores = [sample.scores.get(metric, math.nan) for metric in TITLES]
        result = sample.result
        writer.writerow(
            [
                sample.degradation, sample.model, sample.image,
                *("" if math.isnan(score) else score for score in scores),
                "" if result is None else result.stats["seconds"], sample.megapixels,
                "" if result is None else result.path.relative_to(results.plan.out).as_posix(),
            ]
        )  # fmt: skip
    return text.getvalue()


def _to_dict(results: BenchResults, lines: Sequence[TableLine]) -> dict[str, Any]:
    plan = results.plan
    return {
        "settings": plan.settings,
        "convention": plan.describe(),
        "damages": [{"damage": d.label, "how": d.description} for d in plan.degradations],
        "models": [model.to_dict() for model in plan.models()],
        "table": [_line_to_dict(line) for line in lines],
        "left_out": [{"damage": s.degradation, "model": s.model, "why": s.why} for s in plan.skipped],
        "failed": [
            {"image": f.image, "reason": f.reason, "damage": f.degradation, "model": f.model} for f in results.failures
        ],
        "images": len({sample.image for sample in results.samples}),
        "machine": results.machine,
        "environment": environment(plan.settings["device"], plan.settings["precision"]),
    }


def _line_to_dict(line: TableLine) -> dict[str, Any]:
    means = {
        metric: {
            "mean": "inf" if score.mean == math.inf else score.mean,
            "interval_95": [score.low, score.high] if math.isfinite(score.low) else None,
            "count": score.count,
            "infinite": score.infinite,
        }
        for metric, score in line.means.items()
    }
    return {
        "damage": line.degradation, "model": line.model, "published": line.source or None, "images": line.images,
        "scores": means, "seconds_per_megapixel": line.seconds_per_megapixel,
        "cpu_seconds_per_megapixel": line.cpu_seconds_per_megapixel, "peak_bytes": line.peak_bytes,
        "idle_bytes": line.idle_bytes, "gpu_bytes": line.gpu_bytes, "machines": list(line.machines),
    }  # fmt: skip
