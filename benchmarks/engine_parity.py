"""Measures what changes if another engine runs the networks: scores, differences, tiles, batches and odd sizes.

    python benchmarks/engine_parity.py [--folder DIR] [--count 4] [--side 256] [--engines openvino onnx]

On photographs (of scikit-image, or the first of a folder, cut to a square in their middle), every engine and precision
repairs the same degraded images. Prints Markdown: the change of PSNR against PyTorch in fp32 (for the detector, of F1),
and the largest and the mean difference from it, in levels of 255. PyTorch's own bf16 is a row, too. A second table has
what must not change a result: tiles, the other images of a batch, the order, and sizes from 1×1 on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from skimage import data
from torch import Tensor

from restore.degradations import degradation_from, key, load_degradation
from restore.devices import cpu_has_fast_bf16, limit_threads
from restore.engines.choice import is_installed
from restore.restorers.base import Restorer, run_restorer
from restore.restorers.detector import Detector, open_detector
from restore.restorers.registry import open_restorer

NOISE = (15, 25, 50)
JPEG_QUALITY = 10
THIN = [{"name": "strokes", "count": [6, 6], "max_width": 4, "max_length": 150}]
MEDIUM = [{"name": "strokes", "count": [4, 4], "max_width": 24, "max_length": 120}]
#: (height, width) of images that are smaller than what a network takes, thin, or odd.
ODD_SIZES = ((1, 1), (1, 40), (3, 200), (97, 33), (128, 128))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="of photographs")
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--engines", nargs="+", default=["openvino", "onnx"])
    args = parser.parse_args()
    limit_threads()
    precisions = ("fp32", "bf16") if cpu_has_fast_bf16() else ("fp32",)
    variants = [("torch", precision) for precision in precisions]
    variants += [(e, p) for e in args.engines if is_installed(e) for p in precisions if (e, p) != ("onnx", "bf16")]
    images = list(photographs(args.folder, args.count, args.side))
    print(f"{len(images)} photographs of {args.side}²\n", flush=True)
    print(
        "| network | input | engine | precision | change | largest difference | mean |\n|---|---|---|---|---|---|---|"
    )
    for name in ("photo", "inpaint"):
        models = {variant: opened(name, *variant) for variant in variants}
        for title, inputs in (cleaning(images) if name == "photo" else filling(images)).items():
            restored = {
                variant: [run_restorer(model, image, mask, 0, print) for image, mask in inputs]
                for variant, model in models.items()
            }
            exact = restored["torch", "fp32"]
            base = mean(psnr(out, clean, mask) for out, clean, (_, mask) in zip(exact, images, inputs))
            for variant in variants[1:]:
                outs = restored[variant]
                score = mean(psnr(out, clean, mask) for out, clean, (_, mask) in zip(outs, images, inputs))
                row(name, title, variant, f"{score - base:+.4f} dB (of {base:.2f})", outs, exact)
    detectors = {variant: open_detector(device="cpu", engine=variant[0], precision=variant[1]) for variant in variants}
    scratched = [damaged(image, load_degradation("scratch"), number) for number, image in enumerate(images)]
    found = {variant: [probability(model, image) for image, _ in scratched] for variant, model in detectors.items()}
    scores = {
        variant: mean(f1(detectors[variant], out, mask) for out, (_, mask) in zip(outs, scratched))
        for variant, outs in found.items()
    }
    for variant in variants[1:]:
        base = scores["torch", "fp32"]
        change = f"{scores[variant] - base:+.4f} (of F1 {base:.3f})"
        row("detector", "scratches", variant, change, found[variant], found["torch", "fp32"])
    print("\n| network | engine | precision | tiles and whole image | batch and alone | order | odd sizes |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for variant in variants:
        model = opened("photo", *variant)
        exact_model = opened("photo", "torch", "fp32")
        cells = [tiled(model, images[0]), batched(model, images), ordered(model, images), odd(model, exact_model)]
        print(f"| photo | {' | '.join([*variant, *cells])} |", flush=True)


def opened(name: str, engine: str, precision: str) -> Restorer:
    """A restorer on the CPU."""
    return open_restorer(name, device="cpu", engine=engine, precision=precision)


def photographs(folder: Path | None, count: int, side: int) -> Iterator[Tensor]:
    """3×side×side in [0, 1]."""
    if folder is None:
        arrays: Any = (data.astronaut(), data.chelsea(), data.coffee(), data.rocket())
    else:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
        arrays = (cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths)
    for array, _ in zip(arrays, range(count)):
        top, left = ((length - side) // 2 for length in array.shape[:2])
        part = array[top : top + side, left : left + side]
        yield torch.from_numpy(np.ascontiguousarray(part.transpose(2, 0, 1))).float() / 255


def cleaning(images: list[Tensor]) -> dict[str, list[tuple[Tensor, None]]]:
    """Degraded images without masks, by the name of what degrades them."""
    random = torch.Generator().manual_seed(0)
    inputs = {
        f"noise, σ {sigma}": [
            ((image + torch.randn(image.shape, generator=random) * sigma / 255).clamp(0, 1), None) for image in images
        ]
        for sigma in NOISE
    }
    return {"clean": [(image, None) for image in images], **inputs, "JPEG 10": [(jpeg(i), None) for i in images]}


def filling(images: list[Tensor]) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Images with holes and their masks, by the kind of holes."""
    return {
        title: [damaged(image, degradation_from(steps, title), number) for number, image in enumerate(images)]
        for title, steps in (("thin holes", THIN), ("medium holes", MEDIUM))
    }


def damaged(image: Tensor, damage: Any, number: int) -> tuple[Tensor, Tensor]:
    """The degraded image, and where."""
    size = (image.shape[-2], image.shape[-1])
    shown, mask = damage.apply(image[None], damage.sample(torch.tensor([key(0, f"{number}")]), size))
    return shown[0].clamp(0, 1), mask[0].float()


def jpeg(image: Tensor) -> Tensor:
    """Compressed and decoded."""
    pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    code = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    back = cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1]
    return torch.from_numpy(np.ascontiguousarray(back.transpose(2, 0, 1))).float() / 255


def probability(detector: Detector, image: Tensor) -> Tensor:
    """H×W in [0, 1]."""
    return torch.from_numpy(detector.probability(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), tile_px=0))


def f1(detector: Detector, found: Tensor, mask: Tensor) -> float:
    """Of the pixels that are damaged."""
    here, there = detector.mask_of(found.numpy()) > 0, mask[0].numpy() > 0
    return float(2 * (here & there).sum() / max(here.sum() + there.sum(), 1))


def psnr(out: Tensor, clean: Tensor, mask: Tensor | None) -> float:
    """In dB, in the holes if there are any."""
    error = (out - clean) ** 2
    value = error.mean() if mask is None else error[:, mask[0] > 0].mean()
    return float(-10 * torch.log10(value.clamp(min=1e-12)))


def row(name: str, title: str, variant: tuple[str, str], change: str, outs: list[Tensor], exact: list[Tensor]) -> None:
    """Print a row of the first table."""
    differences = torch.stack([(a - b).abs() for a, b in zip(outs, exact)]) * 255
    values = (name, title, *variant, change, f"{differences.max():.4f}", f"{differences.mean():.5f}")
    print(f"| {' | '.join(values)} |", flush=True)


def tiled(model: Restorer, image: Tensor) -> str:
    """The largest difference between an image in tiles and as a whole."""
    image = image.repeat(1, 2, 2)[:, :420, :460]
    whole, tiles = (run_restorer(model, image, None, px, print) for px in (0, 256))
    return f"{(whole - tiles).abs().max() * 255:.4f}"


def batched(model: Restorer, images: list[Tensor]) -> str:
    """Whether a batch gives what each image gives alone."""
    together = model(torch.stack(images))
    return same(torch.equal(together[i : i + 1], model(image[None])) for i, image in enumerate(images))


def ordered(model: Restorer, images: list[Tensor]) -> str:
    """Whether a result depends on what was repaired before it."""
    first = model(images[0][None])
    for image in (images[-1][:, :40, :72], images[-1]):
        model(image[None])
    return same([torch.equal(model(images[0][None]), first)])


def odd(model: Restorer, exact: Restorer) -> str:
    """The largest difference from PyTorch in fp32 over odd sizes."""
    random = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 3, *size, generator=random) for size in ODD_SIZES]
    return f"{max(float((model(image) - exact(image)).abs().max()) for image in images) * 255:.4f}"


def same(answers: Any) -> str:
    """In words."""
    return "equal" if all(answers) else "differ"


def mean(values: Iterator[float]) -> float:
    """Of some numbers."""
    return float(np.mean(list(values)))


if __name__ == "__main__":
    main()
