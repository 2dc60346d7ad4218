"""Compares the results of all engines with those of PyTorch: scores, differences, tiles, batches and odd sizes.

    python benchmarks/engine_parity.py [--folder DIR] [--count 4] [--side 256] [--engines openvino onnx]
    python benchmarks/engine_parity.py --int8 photo=photo-int8.onnx inpaint=inpaint-int8.onnx
    python benchmarks/engine_parity.py --models detector --real DIR     # hand-checked masks of real damage

Every engine and precision repairs the same degraded images: central squares of scikit-image's photographs, or of the
first photographs of a folder. Prints Markdown. The first row of a table has the scores of PyTorch in fp32. The other
rows, PyTorch's own bf16 among them, have the change of each score, and the largest and the mean difference from the
first row over all images, in levels of 255. int8 is a file of `restore export --int8`; its floating-point layers run in
the precision that `auto` chooses.

- `photo`: PSNR in dB of clean images, with noise, and as JPEG; `inpaint`: PSNR inside holes.
- `detector`: precision, recall and F1 on drawn scratches, over all pixels, with a tolerance of one pixel. `--real`
  names a folder with photographs, their masks NAME_mask.png (white is damaged) and, where there is one, NAME_ignore.png
  (gray is not scored); the tolerance is two pixels where the smaller side is 600, and scores are means over
  photographs.
- Invariance: a result must not depend on tiling, on the other images of a batch, on the order, or on the size (from 1x1
  on, and one large image of `--megapixels` in tiles).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
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
from restore.metrics.segmentation import precision_recall_f1, tolerant_counts
from restore.restorers.base import Restorer, run_restorer
from restore.restorers.detector import Detector, open_detector
from restore.restorers.registry import open_restorer

MODELS = ("photo", "inpaint", "detector")
NOISE = (15, 25, 50)
JPEG_QUALITY = 10
THIN = [{"name": "strokes", "count": [6, 6], "max_width": 4, "max_length": 150}]
MEDIUM = [{"name": "strokes", "count": [4, 4], "max_width": 24, "max_length": 120}]
#: (height, width) of images that are smaller than what a network takes, thin, or odd.
ODD_SIZES = ((1, 1), (1, 40), (3, 200), (2, 5000), (97, 33), (128, 128))
TILE_PX = 256


@dataclass(frozen=True)
class Variant:
    """A model, its engine, and its precision: `fp32`, `bf16` or `int8`.

    Attributes:
        source: the model's name, or the file with its integers.
    """

    source: str
    engine: str
    precision: str

    @property
    def how(self) -> dict[str, Any]:
        """For `open_restorer` and `open_detector`."""
        precision = "auto" if self.precision == "int8" else self.precision
        return {"device": "cpu", "engine": self.engine, "precision": precision}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--folder", type=Path, help="of photographs")
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--engines", nargs="+", default=["openvino", "onnx"])
    parser.add_argument("--int8", nargs="+", default=[], metavar="MODEL=FILE", help="int8 ONNX files")
    parser.add_argument("--real", type=Path, metavar="DIR", help="photographs with hand-checked masks")
    parser.add_argument("--real-megapixels", type=float, default=100.0, help="leave out larger ones")
    parser.add_argument("--megapixels", type=float, default=3.0, help="of the large image; 0: none")
    options = parser.parse_args()
    limit_threads()
    images = list(photographs(options.folder, options.count, options.side))
    print(f"{len(images)} photographs of {options.side}², {torch.get_num_threads()} threads\n", flush=True)
    if "photo" in options.models:
        scores("photo", cleaning(images), images, options)
    if "inpaint" in options.models:
        scores("inpaint", filling(images), images, options)
    if "detector" in options.models:
        drawn = [damaged(image, load_degradation("scratch"), number) for number, image in enumerate(images)]
        detection("drawn scratches", [(image, mask[0].numpy() > 0, None) for image, mask in drawn], options)
        if options.real is not None:
            detection("real damage", list(real_damage(options.real, options.real_megapixels)), options)
    invariance(images, options)


def variants(model: str, options: argparse.Namespace) -> list[Variant]:
    """The variants to compare; PyTorch in fp32 is the first."""
    precisions = ("fp32", "bf16") if cpu_has_fast_bf16() else ("fp32",)
    engines = [engine for engine in options.engines if is_installed(engine)]
    found = [Variant(model, "torch", precision) for precision in precisions]
    found += [Variant(model, e, p) for e in engines for p in precisions if (e, p) != ("onnx", "bf16")]
    files = [file for name, _, file in (text.partition("=") for text in options.int8) if name == model]
    return found + [Variant(file, engine, "int8") for file in files for engine in engines]


def scores(
    model: str, inputs: dict[str, list[tuple[Tensor, Tensor | None]]], images: list[Tensor], options: argparse.Namespace
) -> None:
    """Print the table of a restorer."""
    print(f"| {model} | precision | {' | '.join(inputs)} | largest difference | mean |")
    print("|---|---|" + "---|" * (len(inputs) + 2), flush=True)
    base: dict[str, float] = {}
    exact: list[Tensor] = []
    for variant in variants(model, options):
        restorer = open_restorer(variant.source, **variant.how)
        outs, cells = [], [variant.engine, variant.precision]
        for title, pairs in inputs.items():
            made = [run_restorer(restorer, image, mask, 0, print) for image, mask in pairs]
            score = mean(psnr(out, clean, mask) for out, clean, (_, mask) in zip(made, images, pairs))
            cells.append(f"{score - base[title]:+.3f}" if exact else f"{score:.2f}")
            base.setdefault(title, score)
            outs += made
        cells += differences(outs, exact)
        exact = exact or outs
        print(f"| {' | '.join(cells)} |", flush=True)
    print()


def detection(
    title: str, images: list[tuple[Tensor, np.ndarray, np.ndarray | None]], options: argparse.Namespace
) -> None:
    """Print the table of the detector, on images with their masks and unscored pixels (None: all are scored)."""
    print(f"| detector, {title} ({len(images)}) | type | precision | recall | F1 | masks that differ ", end="")
    print("| largest difference | mean |\n|---|---|---|---|---|---|---|---|", flush=True)
    base: list[float] = []
    exact: list[Tensor] = []
    exact_masks: list[np.ndarray] = []
    for variant in variants("detector", options):
        detector = open_detector(variant.source, **variant.how)
        outs = [probability(detector, image) for image, _, _ in images]
        masks = [detector.mask_of(out.numpy()) > 0 for out in outs]
        found = scored(masks, images)
        cells = [variant.engine, variant.precision]
        cells += [f"{a - b:+.4f}" for a, b in zip(found, base)] if base else [f"{score:.3f}" for score in found]
        pixels = sum(mask.size for mask in masks)
        differ = sum(int((a ^ b).sum()) for a, b in zip(masks, exact_masks)) / pixels
        cells.append(f"{differ:.4%} of pixels" if exact else "-")
        cells += differences(outs, exact)
        base, exact, exact_masks = base or found, exact or outs, exact_masks or masks
        print(f"| {' | '.join(cells)} |", flush=True)
    print()


def invariance(images: list[Tensor], options: argparse.Namespace) -> None:
    """Print the table of invariance."""
    large = f"{options.megapixels:g} megapixels in tiles"
    titles = ("network", "engine", "precision", "tiles and whole image", "batch and alone", "order", "odd sizes", large)
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|", flush=True)
    for model in (name for name in MODELS if name in options.models):
        exact: Any = None
        exact_large: Tensor | None = None
        for variant in variants(model, options):
            cells = [model, variant.engine, variant.precision]
            runner: Any
            if model == "detector":
                runner = open_detector(variant.source, **variant.how)
                cells += [levels(*(probability(runner, doubled(images[0]), px) for px in (0, TILE_PX))), "-", "-"]
            else:
                runner = open_restorer(variant.source, **variant.how)
                cells += [tiled(runner, images[0]), batched(runner, images), ordered(runner, images)]
            exact = exact or runner
            cells.append(odd(runner, exact))
            out = on_large(runner, images[0], options.megapixels) if options.megapixels else None
            exact_large = out if exact_large is None else exact_large
            cells.append("-" if out is None or exact_large is None else levels(out, exact_large))
            print(f"| {' | '.join(cells)} |", flush=True)


def photographs(folder: Path | None, count: int, side: int) -> Iterator[Tensor]:
    """3×side×side in [0, 1]."""
    if folder is None:
        arrays: Any = (data.astronaut(), data.chelsea(), data.coffee(), data.rocket())
    else:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
        arrays = (cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths)
    for array, _ in zip(arrays, range(count)):
        top, left = ((length - side) // 2 for length in array.shape[:2])
        yield as_tensor(array[top : top + side, left : left + side])


def cleaning(images: list[Tensor]) -> dict[str, list[tuple[Tensor, None]]]:
    """Degraded images without masks, by the name of their degradation."""
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
    return as_tensor(cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1])


def real_damage(folder: Path, megapixels: float) -> Iterator[tuple[Tensor, np.ndarray, np.ndarray | None]]:
    """Photographs of a folder that have a mask, the mask, and the unscored pixels."""
    for path in sorted(folder.iterdir()):
        file = path.with_name(f"{path.stem}_mask.png")
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg") or not file.exists():
            continue
        mask = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        if mask.size > megapixels * 1e6:
            continue
        pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        true, ignored = mask > 127, path.with_name(f"{path.stem}_ignore.png")
        gray = cv2.imread(str(ignored), cv2.IMREAD_GRAYSCALE) if ignored.exists() else None
        yield as_tensor(pixels), true, np.zeros_like(true) if gray is None else (gray > 64) & ~true


def scored(masks: list[np.ndarray], images: list[tuple[Tensor, np.ndarray, np.ndarray | None]]) -> list[float]:
    """Precision, recall and F1: of drawn damage over all pixels, of real damage in the mean of the photographs."""
    counts, real = [], any(ignored is not None for _, _, ignored in images)
    for mask, (_, true, ignored) in zip(masks, images):
        if not real:
            counts.append(tolerant_counts(*(torch.from_numpy(one)[None, None] for one in (mask, true)))[0])
            continue
        radius = max(1.0, 2 * min(mask.shape) / 600)
        assert ignored is not None
        counted = ~ignored
        right, there = mask & reached(true, radius) & counted, true & reached(mask, radius) & counted
        counts.append(torch.tensor([float(x.sum()) for x in (mask & counted, right, true & counted, there)]))
    of_all = torch.stack(counts).double()
    return [float(score.mean()) for score in precision_recall_f1(of_all if real else of_all.sum(0))]


def reached(mask: np.ndarray, radius: float) -> np.ndarray:
    """All pixels within a distance of a mask."""
    if not mask.any():
        return mask
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(distance <= radius + 1e-4)


def probability(detector: Detector, image: Tensor, tile_px: int = 0) -> Tensor:
    """H×W in [0, 1]."""
    return torch.from_numpy(detector.probability(as_array(image), tile_px=tile_px))


def as_array(image: Tensor) -> np.ndarray:
    """3×H×W -> H×W×3."""
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def as_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 H×W×3 -> 3×H×W in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float() / 255


def psnr(out: Tensor, clean: Tensor, mask: Tensor | None) -> float:
    """In dB, in the holes if there are any."""
    error = (out - clean) ** 2
    value = error.mean() if mask is None else error[:, mask[0] > 0].mean()
    return float(-10 * torch.log10(value.clamp(min=1e-12)))


def differences(outs: list[Tensor], exact: list[Tensor]) -> list[str]:
    """The largest and the mean difference, in levels of 255."""
    if not exact:
        return ["-", "-"]
    found = torch.cat([(a - b).abs().flatten() for a, b in zip(outs, exact)]) * 255
    return [f"{found.max():.4f}", f"{found.mean():.5f}"]


def levels(a: Tensor, b: Tensor) -> str:
    """The largest difference, in levels of 255."""
    return f"{float((a - b).abs().max()) * 255:.4f}" if bool(a.isfinite().all()) else "not finite"


def doubled(image: Tensor) -> Tensor:
    """A part of the image repeated, so that it needs several tiles."""
    return image.repeat(1, 2, 2)[:, :420, :460]


def mask_for(restorer: Restorer, image: Tensor) -> Tensor | None:
    """A diagonal line, thin enough to be filled by the network alone; None if it needs no mask."""
    if not restorer.requirements.needs_mask:
        return None
    rows, columns = torch.meshgrid(torch.arange(image.shape[-2]), torch.arange(image.shape[-1]), indexing="ij")
    return ((rows - columns).abs() % 97 < 2).float()[None]


def tiled(model: Restorer, image: Tensor) -> str:
    """The largest difference between an image in tiles and as a whole."""
    image = doubled(image)
    mask = mask_for(model, image)
    return levels(*(run_restorer(model, image, mask, px, print) for px in (0, TILE_PX)))


def on_large(model: Restorer | Detector, image: Tensor, megapixels: float) -> Tensor:
    """A large image, in tiles."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    large = as_tensor(cv2.resize((as_array(image) * 255).astype(np.uint8), (width, round(width * 3 / 4))))
    if isinstance(model, Detector):
        return probability(model, large, 4 * TILE_PX)
    return run_restorer(model, large, mask_for(model, large), 4 * TILE_PX, print)


def batched(model: Restorer, images: list[Tensor]) -> str:
    """Whether a batch gives the same results as each image alone."""
    alone = [repaired(model, image[None]) for image in images]
    together = repaired(model, torch.stack(images))
    return same(torch.equal(together[i : i + 1], one) for i, one in enumerate(alone))


def ordered(model: Restorer, images: list[Tensor]) -> str:
    """Whether a result depends on what was repaired before it."""
    first = repaired(model, images[0][None])
    for image in (images[-1][:, :40, :72], images[-1]):
        repaired(model, image[None])
    return same([torch.equal(repaired(model, images[0][None]), first)])


def odd(model: Any, exact: Any) -> str:
    """The largest difference from PyTorch in fp32 over odd sizes."""
    random = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 3, *size, generator=random) for size in ODD_SIZES]
    if isinstance(model, Detector):
        pairs = [[probability(one, image[0]) for one in (model, exact)] for image in images]
    else:
        pairs = [[repaired(one, image) for one in (model, exact)] for image in images]
    return levels(*(torch.cat([one.flatten() for one in side]) for side in zip(*pairs)))


def repaired(model: Restorer, images: Tensor) -> Tensor:
    """A batch, with the same mask for all images if it needs one."""
    mask = mask_for(model, images)
    return model(images, None if mask is None else mask.expand(len(images), -1, -1, -1))


def same(answers: Any) -> str:
    """In words."""
    return "equal" if all(answers) else "differ"


def mean(values: Iterator[float]) -> float:
    """Of some numbers."""
    return float(np.mean(list(values)))


if __name__ == "__main__":
    main()
