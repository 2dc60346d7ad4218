"""Measures the loss of PSNR and the gain in LPIPS by `restore fix --match-grain`, on photographs with grain.

    python benchmarks/grain.py FOLDER [--count 6] [--lpips-net squeeze --lpips-weights FILE]

Adds grain to clean images (half of it gray, half colored, slightly correlated), cuts the holes of the damage
`inpaint-medium`, fills them with `inpaint` without and with grain, and compares with the grainy images. Prints
Markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from restore.degradations import key, load_degradation
from restore.degradations.noise import Noise
from restore.fix.grain import pixels_key
from restore.fix.steps import repair
from restore.images import find_images, read_rgb8
from restore.metrics import score_batch
from restore.metrics.lpips import open_lpips
from restore.restorers.registry import open_restorer

SIGMAS = (0, 5, 12)
METRICS = ("psnr_hole", "lpips", "lpips_hole")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=6, help="number of images, evenly spread over the folder")
    parser.add_argument("--lpips-net", default="alex")
    parser.add_argument("--lpips-weights", type=Path)
    args = parser.parse_args()
    names = find_images(args.folder)
    names = names[:: max(len(names) // args.count, 1)][: args.count]
    lpips, restorer = open_lpips(args.lpips_net, args.lpips_weights), open_restorer("inpaint")
    holes = load_degradation("inpaint-medium")
    print("| grain σ | | PSNR in the hole, dB | LPIPS | LPIPS in the hole |\n|---|---|---|---|---|")
    for sigma in SIGMAS:
        noise = Noise(sigma=(sigma, sigma), correlation=(0.5, 0.5), gray=0.5)
        rows: dict[str, list[list[float]]] = {"without": [], "with": []}
        for number, name in enumerate(names):
            clean = torch.from_numpy(read_rgb8(args.folder / name)).permute(2, 0, 1)[None].float() / 255
            size, keys = (clean.shape[-2], clean.shape[-1]), torch.tensor([key(0, str(number))])
            true = noise.apply(clean, noise.sample(keys, size))[0].mul(255).round().div(255)
            _, mask = holes.apply(true, holes.sample(keys, size))
            assert mask is not None
            shown = np.ascontiguousarray(torch.where(mask > 0, 0.0, true)[0].permute(1, 2, 0).numpy())
            for way, grain_key in (("without", None), ("with", pixels_key([shown]))):
                out = repair(restorer, shown, mask[0, 0].numpy(), grain_key=grain_key)
                tensor = torch.from_numpy(out.transpose(2, 0, 1).copy())[None]
                scores = score_batch(tensor, true, mask, lpips, metrics=("psnr",))
                rows[way].append([float(scores[metric]) for metric in METRICS])
        for way, scored in rows.items():
            print("| {} | {} | {:.2f} | {:.4f} | {:.4f} |".format(sigma, way, *np.mean(scored, axis=0)), flush=True)


if __name__ == "__main__":
    main()
