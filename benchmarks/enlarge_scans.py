"""Compares enlarging soft, noisy, compressed photographs by `enlarge-x2` and `enlarge-x4` with `photo` and Lanczos.

    python benchmarks/enlarge_scans.py FOLDER --lpips-weights squeezenet1_1.pth [--net squeeze] [--count 68]

Each photograph is downscaled with Pillow's bicubic filter, and degraded by the steps that the model was trained with,
seeded by its name. Prints Markdown: PSNR of luma without a border of the factor's width, and LPIPS, as means over the
photographs with 95 % bootstrap intervals. `--save DIR` also writes the degraded image and all results side by side.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restore.degradations import key
from restore.degradations.pipeline import degradation_from
from restore.degradations.resize import downscaled
from restore.evaluation.statistics import bootstrap_interval
from restore.images import find_images, read_rgb8, stem_key, write_png
from restore.metrics.lpips import open_lpips
from restore.restorers.enlarging import interpolated
from restore.restorers.registry import open_restorer
from restore.training.config import load_train_config

LUMA = torch.tensor([65.481, 128.553, 24.966]) / 255  # ITU-R BT.601, of values in [0, 1]


def rounded(image: Tensor) -> Tensor:
    """B×3×H×W as 8 bits store it."""
    return (image.clamp(0, 1) * 255).round() / 255


def psnr(a: Tensor, b: Tensor, border_px: int) -> float:
    """PSNR of luma in dB, without a border."""
    difference = ((a - b)[..., border_px:-border_px, border_px:-border_px] * LUMA.view(1, 3, 1, 1)).sum(1)
    return float(-10 * torch.log10(difference.square().mean()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=68, help="number of photographs, evenly spread over the folder")
    parser.add_argument("--lpips-weights", type=Path, required=True)
    parser.add_argument("--net", default="squeeze", help="backbone of LPIPS")
    parser.add_argument("--save", type=Path, help="folder for the images")
    parser.add_argument("--models", nargs=2, default=["enlarge-x2", "enlarge-x4"], help="for the factors 2 and 4")
    args = parser.parse_args()
    names = find_images(args.folder)
    names = names[:: max(len(names) // args.count, 1)][: args.count]
    lpips, photo = open_lpips(args.net, args.lpips_weights), open_restorer("photo", device="cpu")
    print("| factor | enlarged by | PSNR, luma | LPIPS |\n|---|---|---|---|")
    for scale, model in zip((2, 4), args.models):
        enlarge = open_restorer(model, device="cpu")
        damage = load_train_config(f"enlarge-x{scale}", ["data.folders=[.]"]).damage
        assert damage is not None
        degradation = degradation_from(damage, f"enlarge-x{scale}")
        scores: dict[str, list[tuple[float, float]]] = {}
        for name in names:
            clean = torch.from_numpy(read_rgb8(args.folder / name)).permute(2, 0, 1)[None].float() / 255
            height, width = (side - side % scale for side in clean.shape[-2:])
            clean = clean[..., :height, :width]
            small = downscaled(clean, scale)
            sample = degradation.sample(torch.tensor([key(0, stem_key(name))]), tuple(small.shape[-2:]))
            small = rounded(degradation.apply(small, sample)[0])
            shown = [small.repeat_interleave(scale, -1).repeat_interleave(scale, -2)]
            ways = {
                "Lanczos": interpolated(small, scale, "lanczos"),
                "photo, then Lanczos": interpolated(rounded(photo(small, None)), scale, "lanczos"),
                f"enlarge-x{scale}": enlarge(small, None),
            }
            for way, out in ways.items():
                out = rounded(out)
                values = psnr(out, clean, scale), float(lpips(out, clean))
                scores.setdefault(way, []).append(values)
                shown.append(out)
            if args.save is not None:
                sheet = (torch.cat([*shown, clean], -1)[0].permute(1, 2, 0) * 255).round().byte().numpy()
                args.save.mkdir(parents=True, exist_ok=True)
                write_png(args.save / f"{Path(name).stem}_x{scale}.png", np.ascontiguousarray(sheet))
        for way, found in scores.items():
            cells = []
            for values, decimals in zip(zip(*found), (2, 4)):
                low, high = bootstrap_interval(values)
                cells.append(f"{np.mean(values):.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]")
            print(f"| {scale} | {way} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
