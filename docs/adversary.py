"""Draw the images of `docs/research/adversary.md` from what the playground has trained.

python examples/gan_playground/playground.py build/playground
python docs/adversary.py build/playground
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from restore.restorers.classical import Telea
from restore.restorers.registry import open_restorer
from restore.restorers.sampler import SampleOptions, open_sampler, sheet

OUT = Path(__file__).parent / "research" / "adversary"
LOSSES = ("vanilla", "vanilla-r1", "lsgan", "hinge", "wgan-gp")
GAP_PX, TITLE_PX = 12, 16
HELD = (2, 3, 5, 8)  # digits with a hole


def titled(blocks: list[tuple[str, Image.Image]], columns: int) -> Image.Image:
    """Gray images of one size with a title above each, in rows, on white."""
    width, height = (side + GAP_PX for side in blocks[0][1].size)
    height += TITLE_PX
    whole = Image.new("L", (columns * width - GAP_PX, -(-len(blocks) // columns) * height - GAP_PX), 255)
    pen = ImageDraw.Draw(whole)
    for number, (title, image) in enumerate(blocks):
        left, top = number % columns * width, number // columns * height
        pen.text((left, top), title, fill=0)
        whole.paste(image, (left, top + TITLE_PX))
    return whole


def drawn(run: Path, count: int, seed: int = 1) -> Image.Image:
    """Samples of a run, ten in a row, one of each class."""
    images = open_sampler(str(run), "cpu").draw(SampleOptions(count, seed))
    return Image.fromarray(sheet(images, 10)[..., 0])


def progress(run: Path) -> Image.Image:
    """The same noise at the first, an early and the last validation."""
    grids = sorted((run / "samples").glob("*.png"))
    chosen = [grids[0], grids[len(grids) // 5], grids[-1]]
    blocks = [(f"step {int(grid.stem.split('_')[1])}", Image.open(grid).convert("L")) for grid in chosen]
    return titled(blocks, 3)


def collapse(runs: Path) -> Image.Image:
    """What two networks draw, one of which has collapsed, and the diversity that was logged in both runs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((4.2, 2.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    for color, name in (("black", "hinge"), ("darkgray", "strong-g")):
        lines = [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text("utf-8").splitlines()]
        points = [(line["step"], line["diversity"]) for line in lines if "diversity" in line]
        axes.plot(*zip(*points), color=color, label=name)
    axes.axhline(0.2, color="gray", linewidth=1, linestyle="--")
    axes.set(xlabel="step", ylabel="diversity", ylim=(0, None))
    axes.legend(frameon=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    curves = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).convert("L")
    grids = titled([("hinge", drawn(runs / "hinge", 30)), ("strong-g", drawn(runs / "strong-g", 30))], 1)
    whole = Image.new("L", (grids.width + GAP_PX + curves.width, max(grids.height, curves.height)), 255)
    whole.paste(grids, (0, 0))
    whole.paste(curves, (grids.width + GAP_PX, 0))
    return whole


def holes(digits: Path, run: Path) -> Image.Image:
    """Digits, their holes, and the holes filled: by Telea's method, and by the generator."""
    prior = open_restorer(str(run), device="cpu")
    rows: list[list[np.ndarray]] = [[], [], [], []]
    hole = torch.zeros(1, 1, 32, 32)
    hole[..., 10:22, 4:28] = 1
    for kind in HELD:
        file = sorted((digits / str(kind)).glob("*.png"))[0]
        image = torch.from_numpy(np.asarray(Image.open(file), np.float32) / 255).expand(1, 3, 32, 32)
        shown = [image, torch.where(hole > 0, 0.5, image), Telea()(image, hole), prior(image, hole)]
        for row, one in zip(rows, shown):
            row.append((one[0, :1].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    small = Image.fromarray(sheet([image for row in rows for image in row], len(HELD))[..., 0])
    return small.resize((2 * small.width, 2 * small.height), Image.Resampling.NEAREST)


def main() -> None:
    """Write all images, or those that are named."""
    out = Path(sys.argv[1])
    runs = out / "runs"
    OUT.mkdir(exist_ok=True)
    images = {
        "progress": lambda: progress(runs / "hinge"),
        "losses": lambda: titled([(name, drawn(runs / name, 30)) for name in LOSSES], 2),
        "collapse": lambda: collapse(runs),
        "holes": lambda: holes(out / "digits", runs / "hinge"),
    }
    for name in sys.argv[2:] or images:
        images[name]().quantize(16).save(OUT / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
