"""Trains pix2pix twice with several seeds: by `restore train pix2pix`, and by the usual loop.

    python benchmarks/pix2pix_reference.py PHOTOGRAPHS --work DIR --lpips-weights FILE [--lpips-net alex]
        [--pairs 400] [--held-out 64] [--side 64] [--width 64] [--steps 1500] [--seeds 3] [--device cpu]

The task is edges → photographs. Pairs are made from PHOTOGRAPHS, side by side in one image: A, the edges found by
Canny's detector, and B, the central square of the photograph at SIDE pixels. The photographs, and those that are held
out, are chosen by their names.

The usual loop is written here from the paper (Isola et al. 2017) and the behavior of its PyTorch code, without
restore's networks, losses or data: U-Net with batch norm and dropout, 70×70 PatchGAN, weights from N(0, 0.02), images
resized by 286/256, random crops, half of them mirrored, batch 1, D first with its loss halved, λ = 100 for L1 on [-1,
1], Adam with 2e-4 and β₁ 0.5, float32. The 200 epochs of its schedule (100 at the full rate, 100 of linear decay) are
spread over STEPS. Both U-Nets halve the side until it is 1. `restore train` runs with the shipped config; only data,
size, steps, seed and log have other values.

Both networks are tested on the held-out edges without dropout, with the stored statistics of batch norm ("stored") and
with those of the image ("instance"). `restore fix` runs the network of `restore train`.

Results go to DIR: the pairs, a folder for each run, `curves.png` (losses), `samples.png` and `scores.md`, which is also
printed. Runs that are finished are not repeated; a run of `restore train` that was stopped is resumed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

SIDES = ("usual loop", "restore")
MODES = ("stored", "instance")
LOG_STEPS = 10
SHOWN = 8  # held-out pairs on the sheet


# Pairs


def make_pairs(photographs: Path, work: Path, count: int, held_out: int, side: int) -> None:
    """Write `train/` (pairs), `test/A` (edges) and `test/B` (photographs), unless they are there."""
    if (work / "pairs.json").exists():
        return
    suffixes = {".jpg", ".jpeg", ".png", ".webp"}
    files = [path for path in photographs.rglob("*") if path.suffix.lower() in suffixes]
    files.sort(key=lambda path: hashlib.sha256(path.relative_to(photographs).as_posix().encode()).digest())
    if len(files) < count + held_out:
        raise SystemExit(f"{photographs} has {len(files)} photographs; {count + held_out} are needed")
    names: dict[str, str] = {}
    for i, path in enumerate(files[: count + held_out]):
        photograph = central_square(cv2.imread(str(path), cv2.IMREAD_COLOR), side)
        edges = cv2.cvtColor(cv2.Canny(cv2.cvtColor(photograph, cv2.COLOR_BGR2GRAY), 100, 200), cv2.COLOR_GRAY2BGR)
        name = f"{i:04d}.png"
        names[name] = path.relative_to(photographs).as_posix()
        if i < count:
            write(work / "train" / name, np.concatenate([edges, photograph], axis=1))
        else:
            write(work / "test" / "A" / name, edges)
            write(work / "test" / "B" / name, photograph)
            write(work / "test" / "AB" / name, np.concatenate([edges, photograph], axis=1))
    (work / "pairs.json").write_text(json.dumps(names, indent=1))


def central_square(image: np.ndarray, side: int) -> np.ndarray:
    """The central square of H×W×3, at this side."""
    height, width = image.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    return cv2.resize(image[top : top + short, left : left + short], (side, side), interpolation=cv2.INTER_AREA)


def write(path: Path, image: np.ndarray) -> None:
    """Write H×W×3 in OpenCV's order of channels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


# The usual loop


class UNet(nn.Module):
    """The paper's generator (appendix 6.1.1): the side is halved `depth` times, down to 1×1 for a side of 2^depth."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        wide = [width * min(2**level, 8) for level in range(depth)]
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level in range(depth):
            layers: list[nn.Module] = [] if level == 0 else [nn.LeakyReLU(0.2)]
            layers.append(nn.Conv2d(3 if level == 0 else wide[level - 1], wide[level], 4, 2, 1, bias=False))
            if 0 < level < depth - 1:
                layers.append(nn.BatchNorm2d(wide[level]))
            self.encoder.append(nn.Sequential(*layers))
        for level in reversed(range(depth)):
            inside = wide[level] * (1 if level == depth - 1 else 2)
            if level == 0:
                self.decoder.append(nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(inside, 3, 4, 2, 1), nn.Tanh()))
                continue
            out = wide[level - 1]
            layers = [nn.ReLU(), nn.ConvTranspose2d(inside, out, 4, 2, 1, bias=False), nn.BatchNorm2d(out)]
            if 4 <= level < depth - 1:
                layers.append(nn.Dropout(0.5))
            self.decoder.append(nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        """B×3×H×W in [-1, 1], likewise out."""
        skips = []
        for down in self.encoder:
            x = down(x)
            skips.append(x)
        x = skips.pop()
        for up in self.decoder:
            x = up(x)
            if skips:
                x = torch.cat([skips.pop(), x], dim=1)
        return x


def patch_discriminator(width: int) -> nn.Sequential:
    """The paper's 70×70 discriminator (appendix 6.1.2), of edges and photograph together."""
    layers: list[nn.Module] = [nn.Conv2d(6, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for inside, out, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
        layers += [nn.Conv2d(width * inside, width * out, 4, stride, 1, bias=False), nn.BatchNorm2d(width * out)]
        layers.append(nn.LeakyReLU(0.2))
    return nn.Sequential(*layers, nn.Conv2d(width * 8, 1, 4, 1, 1))


def init_normal(layer: nn.Module) -> None:
    """The paper's weights, for `Module.apply`."""
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
    if getattr(layer, "bias", None) is not None:
        nn.init.zeros_(layer.bias)


def in_unit_range(image: np.ndarray) -> Tensor:
    """uint8 H×W×3 -> 1×3×H×W in [-1, 1]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def crops(folder: Path, side: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch: the pairs in a random order, each resized, cropped at random, and half of them mirrored."""
    load = math.ceil(side * 286 / 256)
    pairs = []
    for path in sorted(folder.iterdir()):
        both = Image.open(path).convert("RGB")
        half = both.width // 2
        boxes = ((0, 0, half, both.height), (half, 0, 2 * half, both.height))
        pairs.append([np.asarray(both.crop(box).resize((load, load), Image.Resampling.BICUBIC)) for box in boxes])
    draw = random.Random(seed)
    while True:
        draw.shuffle(pairs)
        for pair in pairs:
            top, left, mirror = draw.randint(0, load - side), draw.randint(0, load - side), draw.random() < 0.5
            cut = [image[top : top + side, left : left + side][:, :: -1 if mirror else 1] for image in pair]
            yield in_unit_range(cut[0]), in_unit_range(cut[1])


def bce(logits: Tensor, label: float) -> Tensor:
    """The vanilla loss."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def usual_loop(work: Path, out: Path, args: argparse.Namespace, seed: int) -> None:
    """Train, log the losses, and write the outputs for the held-out edges."""
    torch.manual_seed(seed)
    device = torch.device(args.device)
    g, d = UNet(int(math.log2(args.side)), args.width), patch_discriminator(args.width)
    for network in (g, d):
        network.apply(init_normal).to(device)
    g_optimizer, d_optimizer = (torch.optim.Adam(n.parameters(), lr=2e-4, betas=(0.5, 0.999)) for n in (g, d))
    out.mkdir(parents=True, exist_ok=True)
    data = crops(work / "train", args.side, seed)
    lines = []
    for step in range(args.steps):
        epoch = step * 200 // args.steps
        for optimizer in (g_optimizer, d_optimizer):
            optimizer.param_groups[0]["lr"] = 2e-4 * (1 - max(0, epoch + 1 - 100) / 101)
        a, b = (image.to(device) for image in next(data))
        fake = g(a)

        d.requires_grad_(True)
        of_fake, of_real = d(torch.cat([a, fake.detach()], 1)), d(torch.cat([a, b], 1))
        d_loss = 0.5 * (bce(of_fake, 0.0) + bce(of_real, 1.0))
        d_optimizer.zero_grad()
        d_loss.backward()
        d_optimizer.step()

        d.requires_grad_(False)
        adversarial, l1 = bce(d(torch.cat([a, fake], 1)), 1.0), 100 * F.l1_loss(fake, b)
        g_optimizer.zero_grad()
        (adversarial + l1).backward()
        g_optimizer.step()
        if (step + 1) % LOG_STEPS == 0 or step + 1 == args.steps:
            losses = {"step": step + 1, "l1": l1.item(), "adversarial": adversarial.item(), "d": d_loss.item()}
            lines.append(json.dumps(losses) + "\n")
    (out / "metrics.jsonl").write_text("".join(lines))
    g.eval()
    for mode in MODES:
        for layer in g.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.train(mode == "instance")
        for path in sorted((work / "test" / "A").iterdir()):
            with torch.no_grad():
                output = g(in_unit_range(np.asarray(Image.open(path).convert("RGB"))).to(device))[0]
            pixels = ((output + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
            write(out / mode / path.name, pixels[:, :, ::-1])


# restore


def restore_command(*arguments: str) -> None:
    """Run a command of restore. Its output goes to standard error, because the table goes to standard output."""
    subprocess.run([sys.executable, "-m", "restore.cli", *arguments], stdout=sys.stderr, check=True)


def restore_train(work: Path, out: Path, args: argparse.Namespace, seed: int) -> None:
    """Train with the shipped config, and write the outputs for the held-out edges."""
    restore_command(
        "train", "pix2pix", f"out={out / 'run'}", f"seed={seed}", f"device={args.device}", f"total_steps={args.steps}",
        f"data.side_by_side={work / 'train'}", f"data.resize={math.ceil(args.side * 286 / 256)}",
        f"data.patch={args.side}", f"data.validation={work / 'test' / 'AB'}", f"data.validation_size={args.side}",
        "data.near_duplicates=0",  # the usual loop leaves none out
        f"model.args.num_downs={int(math.log2(args.side))}", f"model.args.ngf={args.width}",
        f"discriminator.args.ndf={args.width}", "lpips_net=none", f"log_every={LOG_STEPS}",
    )  # fmt: skip
    for mode in MODES:
        restore_command(
            "fix", str(work / "test" / "A"), str(out / mode), "--model", str(out / "run"), "--pix2pix-batch-norm", mode,
            "--precision", "fp32", "--device", args.device, "--overwrite",
        )  # fmt: skip


# Results


def read_losses(run: Path) -> list[dict[str, float]]:
    """The losses that a run logged, on the scale of the usual loop."""
    if (run / "metrics.jsonl").exists():
        return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = [json.loads(line) for line in (run / "run" / "metrics.jsonl").read_text().splitlines()]
    return [
        {"step": line["step"], "l1": 200 * line["pixel"], "adversarial": line["g_adversarial"], "d": line["d"]}
        for line in logged
        if "pixel" in line
    ]


def score(outputs: Path, truth: Path, args: argparse.Namespace) -> dict[str, float]:
    """Mean PSNR and LPIPS of the outputs, as `restore eval` computes them."""
    from restore.metrics import score_batch
    from restore.metrics.lpips import open_lpips

    lpips = open_lpips(args.lpips_net, args.lpips_weights)
    paths = sorted(truth.iterdir())
    restored, clean = (
        torch.cat([in_unit_range(np.asarray(Image.open(folder / path.name).convert("RGB"))) for path in paths])
        for folder in (outputs, truth)
    )
    scores = score_batch(restored / 2 + 0.5, clean / 2 + 0.5, lpips=lpips, metrics=("psnr",))
    return {name: scores[name].mean().item() for name in ("psnr", "lpips")}


def table(found: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    """Markdown: the scores of every seed, their mean and standard deviation, and how far apart the means are.

    Args:
        found: by side and mode, the scores of each seed.
    """
    usual, ours = (found[side] for side in SIDES)
    seeds = len(usual[MODES[0]])
    head = ["statistics, score", "trained by", *(f"seed {seed}" for seed in range(1, seeds + 1)), "mean ± SD"]
    head += ["difference of the means ± standard error", "restore's mean in the loop's range"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for mode in MODES:
        for name, digits in (("psnr", 2), ("lpips", 4)):
            theirs, its = ([one[name] for one in side[mode]] for side in (usual, ours))
            error = math.sqrt((spread(theirs) ** 2 + spread(its) ** 2) / seeds)
            mean = statistics.fmean(its)
            difference = f"{mean - statistics.fmean(theirs):+.{digits}f} ± {error:.{digits}f}"
            within = "yes" if min(theirs) <= mean <= max(theirs) else "no"
            for side, values, more in ((SIDES[0], theirs, ("", "")), (SIDES[1], its, (difference, within))):
                cells = [f"{mode}, {name.upper()}", side, *(f"{value:.{digits}f}" for value in values)]
                cells += [f"{statistics.fmean(values):.{digits}f} ± {spread(values):.{digits}f}", *more]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> float:
    """The standard deviation; 0 for one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def draw_losses(losses: dict[str, list[list[dict[str, float]]]], out: Path) -> None:
    """The losses of all runs over the steps, as running means; one panel for each loss, one color for each side."""
    from restore.plotting import PanelSize, new_figure, save_figure, style_axes

    titles = {"l1": "100 × L1 on [-1, 1]", "adversarial": "adversarial loss of G", "d": "loss of D"}
    figure, axes = new_figure(1, len(titles), PanelSize(4.2, 3.2))
    for (name, title), panel in zip(titles.items(), axes[0]):
        style_axes(panel, title)
        for side, color in zip(SIDES, ("#d55e00", "#0072b2")):
            for i, run in enumerate(losses[side]):
                window = min(15, len(run))
                if not window:
                    continue
                smooth = np.convolve([line[name] for line in run], np.ones(window) / window, "valid")
                steps = [line["step"] for line in run][window - 1 :]
                panel.plot(steps, smooth, color=color, linewidth=1, alpha=0.8, label=None if i else side)
        panel.legend(fontsize=8, frameon=False)
    save_figure(out, figure)


def draw_samples(work: Path, seeds: int, out: Path) -> None:
    """Held-out edges, photographs, and the outputs of every run."""
    from restore.images.contact_sheet import Cell, draw_sheet

    columns = {"edges": work / "test" / "A", "photograph": work / "test" / "B"}
    for side in SIDES:
        columns |= {f"{side}, {seed}": run_folder(work, side, seed) / MODES[0] for seed in range(1, seeds + 1)}
    names = sorted(path.name for path in (work / "test" / "A").iterdir())[:SHOWN]
    rows = []
    for i, name in enumerate(names):
        images = [np.asarray(Image.open(folder / name).convert("RGB")) for folder in columns.values()]
        large = [np.repeat(np.repeat(image, 2, axis=0), 2, axis=1) for image in images]
        rows.append([Cell(image, "" if i else title) for image, title in zip(large, columns)])
    Image.fromarray(draw_sheet(rows)).save(out)


def run_folder(work: Path, side: str, seed: int) -> Path:
    """Where a run is."""
    return work / f"{side.replace(' ', '_')}_{seed}"


def check_settings(work: Path, args: argparse.Namespace) -> None:
    """Exit if the folder has results with other settings."""
    settings = {name: getattr(args, name) for name in ("pairs", "held_out", "side", "width", "steps")}
    stored = work / "settings.json"
    if stored.exists() and json.loads(stored.read_text()) != settings:
        raise SystemExit(f"{work} has results with other settings: {stored.read_text()}")
    stored.write_text(json.dumps(settings))


def main() -> None:
    """Train, test, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for pairs, runs and results")
    parser.add_argument("--lpips-weights", type=Path, required=True)
    parser.add_argument("--lpips-net", default="alex")
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--held-out", type=int, default=64)
    parser.add_argument("--side", type=int, default=64, choices=(32, 64, 128, 256), help="of a photograph, in pixels")
    parser.add_argument("--width", type=int, default=64, help="channels of the outermost layers of G and D")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    check_settings(work, args)
    make_pairs(args.photographs, work, args.pairs, args.held_out, args.side)
    for seed in range(1, args.seeds + 1):
        for side, train in zip(SIDES, (usual_loop, restore_train)):
            out = run_folder(work, side, seed)
            if not (out / "seconds").exists():
                start = time.perf_counter()
                train(work, out, args, seed)
                (out / "seconds").write_text(f"{time.perf_counter() - start:.1f}\n")
                print(f"{side}, seed {seed}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    runs = {side: [run_folder(work, side, seed) for seed in range(1, args.seeds + 1)] for side in SIDES}
    found = {
        side: {mode: [score(run / mode, work / "test" / "B", args) for run in runs[side]] for mode in MODES}
        for side in SIDES
    }
    losses = {side: [read_losses(run) for run in runs[side]] for side in SIDES}
    draw_losses(losses, work / "curves.png")
    draw_samples(work, args.seeds, work / "samples.png")
    scores = table(found)
    (work / "scores.md").write_text(scores)
    print(scores)


if __name__ == "__main__":
    main()
