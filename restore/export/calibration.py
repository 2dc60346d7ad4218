"""What calibrates and judges a network of 8-bit integers: images of a folder, with noise, holes or scratches."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from restore.degradations import key, load_degradation
from restore.engines.onnx_graph import input_names
from restore.engines.runner import Runner
from restore.errors import RestoreError
from restore.export.onnx import runner
from restore.export.source import Source
from restore.images import find_images, read_rgb8
from restore.linear_light import to_linear
from restore.metrics.segmentation import precision_recall_f1, tolerant_counts
from restore.models.base import RestorationNetwork
from restore.restorers.detector import Detector
from restore.restorers.network import requirements_of

SIGMA = 25

#: The largest loss that passes unasked: in dB at σ = 25 (of networks that fill holes: inside them), and of F1.
MAX_LOSS_DB, MAX_LOSS_F1 = 0.1, 0.01

#: The loss on clean images that is aimed at. It is larger by nature: they pass almost unchanged, at 40 dB and more.
CLEAN_GOAL_DB = 0.5

#: Noise of the images that the ranges are taken from; the strongest sets the ranges of the first layers.
_CALIBRATION_SIGMAS = (0, 5, 15, 25, 50, 75)
_MAX_IMAGES, _MAX_SIDE_PX = 48, 256

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Loss:
    """What a quantized network loses against float32; negative: it gains.

    Attributes:
        damaged: in dB of PSNR at σ = 25, or inside holes; of detectors, of F1 on drawn scratches.
        clean: in dB on clean images; None of a network that fills holes, or detects.
        detects: it is a detector.
    """

    damaged: float
    clean: float | None = None
    detects: bool = False

    @property
    def passes(self) -> bool:
        """Whether the file may be written unasked."""
        return self.damaged <= (MAX_LOSS_F1 if self.detects else MAX_LOSS_DB)

    @property
    def is_small(self) -> bool:
        """Whether no more layers need to stay in float32."""
        return self.passes and (self.clean is None or self.clean <= CLEAN_GOAL_DB)

    def in_words(self) -> str:
        """As a note for people."""
        if self.detects:
            return f"{self.damaged:.3f} of F1 on drawn scratches"
        if self.clean is None:
            return f"{self.damaged:.2f} dB inside holes"
        return f"{self.damaged:.2f} dB at noise of {SIGMA}, {self.clean:.2f} dB on clean images"


class Judge(ABC):
    """Calibrates a network, and measures what a quantized one loses.

    Attributes:
        seen: the inputs of the network that calibration sees.
        images: how many others it is judged by.
    """

    seen: list[Inputs]
    images: int

    @abstractmethod
    def loss(self, data: bytes) -> Loss:
        """What a serialized graph in other numbers loses."""


def judge_of(source: Source, model: RestorationNetwork, plain: bytes, folder: Path) -> Judge:
    """What calibrates and judges a network by the images of a folder; every fourth is held out.

    Args:
        source: says what the network is.
        model: the network.
        plain: its serialized graph in float32.
        folder: of clean images.

    Raises:
        RestoreError: there are fewer than two images, or one is smaller than what the network takes.
    """
    files = [folder / name for name in find_images(folder)][:_MAX_IMAGES]
    if len(files) < 2:
        raise RestoreError(f"has {len(files)} images; calibration needs two at least", where=folder)
    held_out = files[3::4] or files[1:2]
    seen = [file for file in files if file not in held_out]
    kind = _DetectorJudge if source.description.finds is not None else _RestorerJudge
    return kind(source, model, plain, seen, held_out)


@dataclass(frozen=True)
class _Sample:
    """What the network sees, what it should give, and where that counts (B×1×H×W of 0 and 1)."""

    inputs: Inputs
    clean: Tensor
    counts: Tensor | None
    damaged: bool


class _RestorerJudge(Judge):
    def __init__(
        self, source: Source, model: RestorationNetwork, plain: bytes, seen: Sequence[Path], held_out: Sequence[Path]
    ) -> None:
        channels, linear = source.description.channels or 3, source.description.transfer == "linear"
        generator = torch.Generator().manual_seed(0)
        self.seen, self._held_out, self._reference = [], list[_Sample](), runner(plain)
        for number, file in enumerate(seen):
            image = _cropped(file, model, channels)
            for sigma in (_CALIBRATION_SIGMAS[number % 3], _CALIBRATION_SIGMAS[3 + number % 3]):
                self.seen.append(_sample(image, model, sigma, generator, linear).inputs)
        for file in held_out:
            image = _cropped(file, model, channels)
            for sigma in (SIGMA,) if model.takes_mask else (SIGMA, 0):
                self._held_out.append(_sample(image, model, sigma, generator, linear))
        self.images = len(held_out)

    def loss(self, data: bytes) -> Loss:
        quantized = runner(data)
        losses: dict[bool, list[float]] = {True: [], False: []}
        for sample in self._held_out:
            scores = [_psnr(run(sample.inputs), sample) for run in (self._reference, quantized)]
            losses[sample.damaged].append(scores[0] - scores[1])
        clean = float(np.mean(losses[False])) if losses[False] else None
        return Loss(float(np.mean(losses[True])), clean)


class _DetectorJudge(Judge):
    """Draws scratches. The levels of the pyramid are what the network sees."""

    def __init__(
        self, source: Source, model: RestorationNetwork, plain: bytes, seen: Sequence[Path], held_out: Sequence[Path]
    ) -> None:
        self._source, self._model = source, model
        self.seen, reference = [], _Recorder(runner(plain))
        for file in seen:
            self._found(reference, _scratched(file, model)[0])
        self.seen = reference.seen
        # The finest levels first: layers are compared on those.
        self.seen.sort(key=lambda inputs: -inputs[0].numel())
        self._held_out = [_scratched(file, model) for file in held_out]
        self.images = len(held_out)
        self._f1 = self._score(reference)

    def loss(self, data: bytes) -> Loss:
        return Loss(self._f1 - self._score(_Recorder(runner(data))), detects=True)

    def _score(self, run: Runner) -> float:
        """F1 over the pixels of all images."""
        counts = [tolerant_counts(self._found(run, image), mask)[0] for image, mask in self._held_out]
        return float(precision_recall_f1(torch.stack(counts).sum(0))[2])

    def _found(self, run: Runner, image: Tensor) -> Tensor:
        """3×H×W -> bool, 1×1×H×W."""
        description = self._source.description
        assert description.finds is not None
        detector = Detector(
            description.finds, "detector", self._model, requirements_of(description, self._model), "",
            torch.device("cpu"), "fp32", runner=run,
        )  # fmt: skip
        likely = detector.logits(image, tile_px=0).sigmoid()[0].numpy()
        return torch.from_numpy(detector.mask_of(likely))[None, None] > 0


class _Recorder:
    """A graph as `restore.engines.runner.Runner`, which keeps what it was given."""

    engine, precision = "onnx", "fp32"

    def __init__(self, run: Callable[[Sequence[Tensor]], Tensor]) -> None:
        self._run, self.seen = run, list[Inputs]()

    def __call__(self, image: Tensor, mask: Tensor | None) -> Tensor:
        self.seen.append((image,) if mask is None else (image, mask))
        return self._run(self.seen[-1])


def _scratched(file: Path, model: RestorationNetwork) -> tuple[Tensor, Tensor]:
    """The middle of an image with scratches, 3×H×W, and where they are: bool, 1×1×H×W."""
    image, damage = _cropped(file, model, 3), load_degradation("scratch")
    size = (image.shape[-2], image.shape[-1])
    shown, mask = damage.apply(image, damage.sample(torch.tensor([key(0, file.stem)]), size))
    return shown[0].clamp(0, 1), mask > 0


def _cropped(file: Path, model: RestorationNetwork, channels: int) -> Tensor:
    """The middle of an image, 1×C×H×W in [0, 1], of a size that the network takes."""
    pixels = torch.from_numpy(read_rgb8(file)).permute(2, 0, 1)[None].float() / 255
    if channels == 1:
        pixels = pixels.mean(1, keepdim=True)
    side = model.smallest_side
    most = max(_MAX_SIDE_PX // side, 1) * side
    height, width = (min(size // side * side, most) for size in pixels.shape[-2:])
    if not height or not width:
        raise RestoreError(f"is smaller than the network takes ({side} pixels)", where=file)
    top, left = (pixels.shape[-2] - height) // 2, (pixels.shape[-1] - width) // 2
    return pixels[..., top : top + height, left : left + width].contiguous()


def _sample(
    image: Tensor, model: RestorationNetwork, sigma: float, generator: torch.Generator, linear: bool
) -> _Sample:
    """An image with noise, or, for a network that fills holes, with holes instead."""
    if model.takes_mask:
        coarse = torch.rand(1, 1, -(-image.shape[-2] // 8), -(-image.shape[-1] // 8), generator=generator)
        mask = nn.functional.interpolate((coarse < 0.15).float(), scale_factor=8)
        mask = mask[..., : image.shape[-2], : image.shape[-1]]
        seen, counts = (to_linear(image) if linear else image), mask
        inputs = (model.fill(seen, mask), mask)
    else:
        noisy = image + torch.randn(image.shape, generator=generator) * (sigma / 255)
        seen, counts, mask = (to_linear(noisy.clamp(0, 1)) if linear else noisy), None, torch.zeros_like(image[:, :1])
        inputs = (seen, mask)
    clean = to_linear(image) if linear else image
    return _Sample(inputs[: len(input_names(model))], clean, counts, sigma > 0 or model.takes_mask)


def _psnr(output: Tensor, sample: _Sample) -> float:
    error = (output.clamp(0, 1) - sample.clean).double().square()
    if sample.counts is not None:
        error = error[(sample.counts > 0).expand_as(error)]
    # No output of a network is closer to the original than 80 dB.
    return -10 * math.log10(max(float(error.mean()), 1e-8))
