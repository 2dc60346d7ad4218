"""Ranks models on degraded photographs: the shipped and fetched ones, the classical methods, and any that you name.

    python benchmarks/leaderboard.py FOLDER --out DIR [--model NAME=FILE] [--damage NAME] [--limit N] [--crop PX]
        [--lpips-weights squeeze=squeezenet1_1.pth] [--lpips-weights alex=alexnet.pth] [--without NAME]

`restore bench` degrades, restores and scores. DIR/bench keeps its results, so that the same command continues a run.
`--model` accepts every model that `restore fix --model` opens, networks of other projects among them, and runs it on
every damage that it can repair. The default models run on the damage that they are made for: those that fill holes on
holes, those that enlarge on smaller images, the rest on everything else. Writes DIR/leaderboard.md and
DIR/leaderboard.png.

PSNR and SSIM are over RGB, except that enlarging is scored over luma without a border of the factor's width, as in
papers. LPIPS covers the whole image, with every backbone whose weights are given (alex, squeeze). Intervals are 95 %
bootstraps over images. Seconds are those of all processors, without reading and writing; MB is the size of the weights
file.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from restore.benchmark.degradations import BenchDegradation
from restore.benchmark.plan import BenchModel, BenchPlan, plan_bench
from restore.benchmark.plot import write_ranking
from restore.benchmark.report import MeanScore, TableLine, format_score, table_lines
from restore.benchmark.run import INPUT, BenchResults, run_bench
from restore.checkpoints import find_weights, shipped_weights
from restore.devices import limit_threads
from restore.errors import RestoreError
from restore.files import write_atomically
from restore.images import find_images, read_rgb8, write_png
from restore.metrics import find_convention
from restore.metrics.lpips import open_lpips_if_available
from restore.restorers.registry import list_restorers, open_restorer, parse_model

DAMAGES = ("awgn-25", "jpeg-10", "inpaint-thin", "inpaint-large", "bicubic-x2", "bicubic-x4")
NETS = ("alex", "squeeze")
SCORES = {"psnr": "PSNR", "ssim": "SSIM", "alex": "LPIPS, alex", "squeeze": "LPIPS, squeeze", "vgg": "LPIPS, vgg"}


@dataclass(frozen=True)
class Row:
    """A model on a damage: its line of the benchmark, whose LPIPS goes by the name of the backbone."""

    line: TableLine
    megabytes: float | None

    def cells(self, scores: Sequence[str]) -> list[str]:
        """As cells of the table."""
        line = self.line
        texts = [format_score(line.means.get(name), name if name in ("psnr", "ssim") else "lpips") for name in scores]
        seconds = line.cpu_seconds_per_megapixel
        return [
            line.degradation, line.model, *texts, "-" if seconds is None else f"{seconds:.2g}",
            "-" if self.megabytes is None else f"{self.megabytes:.1f}",
        ]  # fmt: skip


def main() -> None:
    """Run, and write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="clean images")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the table, the plot and the restored images"
    )
    parser.add_argument("--model", action="append", default=[], metavar="[NAME=]MODEL", help="one more (repeatable)")
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="leave one out (repeatable)")
    parser.add_argument("--damage", action="append", metavar="NAME", help=f"default: {', '.join(DAMAGES)}")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N images by name")
    parser.add_argument("--crop", type=int, metavar="PX", help="only the center of each image")
    parser.add_argument("--lpips-weights", action="append", default=[], metavar="NET=FILE", help="(repeatable)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    limit_threads()
    try:
        rank(args)
    except RestoreError as error:
        sys.exit(f"error: {error}")


def rank(args: argparse.Namespace) -> None:
    """The whole run."""
    backbones = dict(text.partition("=")[::2] for text in args.lpips_weights)
    notes: list[str] = []
    defaults = default_models(args.without, notes)
    folder = args.folder if args.crop is None else cropped(args.folder, args.out / "crops", args.crop, args.limit)
    plan = plan_bench(
        folder, args.out / "bench", degradations=args.damage or DAMAGES, models=[*defaults, *args.model],
        limit=args.limit, device=args.device, precision=args.precision, engine=args.engine,
        lpips_weights=Path(backbones["alex"]) if "alex" in backbones else None,
    )  # fmt: skip
    named = {parse_model(model).source for model in args.model}
    cells = tuple(cell for cell in plan.cells if cell[1].source in named or belongs(*cell))
    plan = replace(plan, cells=cells)
    runs: list[tuple[str, BenchResults]] = []
    for net in (*NETS, *(net for net in backbones if net not in NETS)):
        weights = Path(backbones[net]) if net in backbones else None
        lpips, why = (
            (plan.lpips, plan.why_no_lpips)
            if net == "alex"
            else open_lpips_if_available(net, weights, args.device, download=False)
        )
        if lpips is None:
            notes.append(f"No LPIPS with {net}: {why}.")
        if lpips is not None or not runs:
            runs += [(net, run_bench(part, show)) for part in parts_of(replace(plan, lpips=lpips, why_no_lpips=why))]
    rows = ranked(runs)
    scores = [name for name in SCORES if any(name in row.line.means for row in rows)]
    notes = [*facts(plan, runs), *notes]
    args.out.mkdir(parents=True, exist_ok=True)
    text = as_markdown(rows, scores, notes)
    write_atomically(args.out / "leaderboard.md", text.encode())
    write_ranking(
        args.out / "leaderboard.png", [row.line for row in rows], {s: SCORES[s] for s in scores if s != "ssim"}
    )
    print(text)


def default_models(without: Sequence[str], notes: list[str]) -> list[str]:
    """All named models that restore images. Fetched files that do not open are noted."""
    names = []
    for info in list_restorers():
        if info.finds or info.name in without:
            continue
        if info.size_mb is not None and info.name not in shipped_weights():
            try:
                open_restorer(info.name, device="cpu")
            except RestoreError as error:
                notes.append(f"{info.name} is left out: {error}.")
                continue
        names.append(info.name)
    return names


def belongs(degradation: BenchDegradation, model: BenchModel) -> bool:
    """Whether a model is made for a kind of damage."""
    needs = model.requirements
    if degradation.scale > 1 or needs.scale > 1:
        return needs.scale == degradation.scale
    return needs.needs_mask == degradation.only_holes


def parts_of(plan: BenchPlan) -> list[BenchPlan]:
    """The damages that are scored over RGB, and those that are scored over luma as papers on enlarging do."""
    parts = []
    for enlarges, convention in ((False, "skimage"), (True, "y-channel")):
        degradations = tuple(one for one in plan.degradations if (one.scale > 1) == enlarges)
        cells = tuple(cell for cell in plan.cells if cell[0] in degradations)
        if degradations:
            parts.append(replace(plan, degradations=degradations, cells=cells, convention=find_convention(convention)))
    return parts


def cropped(folder: Path, out: Path, side: int, limit: int | None) -> Path:
    """A folder with the center of each image, lossless."""
    for name in find_images(folder)[:limit]:
        image = read_rgb8(folder / name)
        top, left = (max(size - side, 0) // 2 for size in image.shape[:2])
        file = (out / name).with_suffix(".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_png(file, np.ascontiguousarray(image[top : top + side, left : left + side]))
    return out


def ranked(runs: Sequence[tuple[str, BenchResults]]) -> list[Row]:
    """Rows by damage, best first: by LPIPS with the first backbone, or else by PSNR; the input comes last."""
    merged: dict[tuple[str, str], TableLine] = {}
    for net, results in runs:
        for line in table_lines(results):
            key = (line.degradation, line.model)
            means = {name: score for name, score in line.means.items() if name in ("psnr", "ssim")}
            if "lpips" in line.means:
                means[net] = line.means["lpips"]
            before = merged.setdefault(key, replace(line, means={}))
            merged[key] = replace(before, means={**before.means, **means})
    order = list(dict.fromkeys(degradation for degradation, _ in merged))
    net = next((net for net, _ in runs if any(net in line.means for line in merged.values())), None)

    def place(line: TableLine) -> tuple[int, bool, float]:
        score = line.means.get(net) if net is not None else None
        psnr = line.means.get("psnr", MeanScore(-math.inf, 0, 0, 0, 0)).mean
        return order.index(line.degradation), line.model == INPUT, -psnr if score is None else score.mean

    return [Row(line, size_of(line.bench_model)) for line in sorted(merged.values(), key=place)]


def size_of(model: BenchModel | None) -> float | None:
    """Megabytes of its weights; None without any."""
    return None if model is None or model.sha256 is None else find_weights(model.source).stat().st_size / 1e6


def facts(plan: BenchPlan, runs: Sequence[tuple[str, BenchResults]]) -> list[str]:
    """The conditions of the measurement, for the reader of the table."""
    results = [result for _, result in runs]
    count = len({sample.image for sample in results[0].samples})
    used = dict.fromkeys(f"{m.device}, {m.precision}, {m.engine}" for m in plan.models() if m.parameters is not None)
    return [
        f"{count} images; means over images, with 95 % bootstrap intervals (10,000 resamples, seed 0).",
        "PSNR and SSIM over RGB; for images that are enlarged over luma, without a border of the factor's width.",
        *(f"{degradation.label}: {degradation.description}." for degradation in plan.degradations),
        f"CPU s/megapixel: seconds of all processors, on {results[0].machine}; networks on {', '.join(used)}.",
        *dict.fromkeys(f"Failed, and in no mean: {f.format()}." for result in results for f in result.failures),
    ]


def as_markdown(rows: Sequence[Row], scores: Sequence[str], notes: Sequence[str]) -> str:
    """The table with its captions."""
    header = ["damage", "model", *(SCORES[name] for name in scores), "CPU s/megapixel", "MB"]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for row in rows:
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row.cells(scores))} |")
    return "\n".join(lines) + "\n\n" + "".join(f"- {note}\n" for note in notes)


def show(done: int, total: int) -> None:
    """Progress on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{done}/{total}", end="", file=sys.stderr)


if __name__ == "__main__":
    main()
