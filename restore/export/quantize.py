"""ONNX files of 8-bit integers, with their loss measured and written into them.

Post-training static quantization as in Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018: weights per channel, activations by the smallest and largest value that
calibration saw.
"""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from restore.engines.onnx_check import INSTALL
from restore.engines.onnx_fill import with_fill
from restore.engines.onnx_graph import OPSET, facts, input_names, onnx_bytes
from restore.errors import RestoreError
from restore.export.onnx import fills_itself, inputs_of, runner
from restore.export.source import Source
from restore.files import write_atomically
from restore.images import find_images, read_rgb8
from restore.linear_light import to_linear
from restore.models.base import RestorationNetwork

#: The largest loss, in dB at σ = 25 (of networks that fill holes: inside them), that passes unasked.
MAX_LOSS_DB = 0.1
SIGMA = 25

#: Noise of the images that the ranges are taken from; the strongest sets the ranges of the first layers.
_CALIBRATION_SIGMAS = (0, 5, 15, 25, 50, 75)
_MAX_IMAGES, _MAX_SIDE_PX = 48, 256

#: The side of the images on which layers are compared.
_SENSITIVITY_PX = 96

#: The loss on clean images that is aimed at. It is larger by nature: they pass almost unchanged, at 40 dB and more.
CLEAN_GOAL_DB = 0.5

#: How many of the most sensitive convolutions stay in float32, beside the first and the last, in the order of trial.
#: Of `photo`, 0 lose 0.4 dB at σ = 25 and 9 dB on clean images; 8 lose 0.01 and 0.07 dB: those of full size.
_KEPT = (0, 4, 8, 12)

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_QUANTIZED = [*_CONVOLUTIONS, "Relu", "LeakyRelu"]


@dataclass(frozen=True)
class Quantization:
    """What an int8 file is made and judged with.

    Attributes:
        folder: clean images. Every fourth is held out for the measurement; there must be two at least.
        accept_loss: write the file even if it loses more than `MAX_LOSS_DB`.
    """

    folder: Path
    accept_loss: bool = False


@dataclass(frozen=True)
class Loss:
    """What a quantized network loses against float32, in dB of PSNR; negative: it gains.

    Attributes:
        damaged: at σ = 25, or inside holes.
        clean: on clean images; None of a network that fills holes.
    """

    damaged: float
    clean: float | None

    @property
    def is_small(self) -> bool:
        """Whether no more layers need to stay in float32."""
        return self.damaged <= MAX_LOSS_DB and (self.clean is None or self.clean <= CLEAN_GOAL_DB)

    def in_words(self) -> str:
        """As a note for people."""
        if self.clean is None:
            return f"{self.damaged:.2f} dB inside holes"
        return f"{self.damaged:.2f} dB at noise of {SIGMA}, {self.clean:.2f} dB on clean images"


def write_int8(source: Source, out: Path, quantization: Quantization) -> list[str]:
    """Write an ONNX file of 8-bit integers. Sensitive layers stay in float32 until the loss is small enough.

    Returns:
        Notes for the user.

    Raises:
        RestoreError: packages are missing; there are too few images; the network is a detector, or takes condition
            images; exit code 1: the loss is too large, and nothing is written.
    """
    description, model = source.description, source.network()
    if description.finds is not None or description.conditions:
        kind = "detectors" if description.finds is not None else "networks with condition images"
        raise RestoreError(f"of {kind} is not supported", where="--int8", hint="leave it out")
    channels = description.channels or 3
    seen, held_out = _samples(quantization.folder, model, channels, description.transfer == "linear")
    plain = onnx_bytes(model, channels)
    ranked = _by_sensitivity(model, [_cut(sample, model) for sample in seen[:4]])
    reference = runner(plain)
    loss, data, kept = Loss(math.inf, None), b"", 0
    for count in sorted({min(count, len(ranked)) for count in _KEPT}):
        tried = _quantized(plain, model, seen, ranked[:count])
        found = _loss(held_out, runner(tried), reference)
        if found.damaged < loss.damaged:
            loss, data, kept = found, tried, count
        if loss.is_small:
            break
    if loss.damaged > MAX_LOSS_DB and not quantization.accept_loss:
        raise RestoreError(
            f"8-bit integers lose {loss.in_words()}, more than {MAX_LOSS_DB:g} dB; nothing is written",
            where="--int8",
            hint="--accept-loss writes the file all the same",
            exit_code=1,
        )
    fills = fills_itself(source)
    said = facts(description, sha256=source.sha256, license=source.license, fills=fills)
    said["precision"] = "int8"
    said["loss_db"] = loss.in_words()
    data = with_fill(data, model, channels) if fills else data
    write_atomically(out, _with_facts(data, said))
    images = f"{len(held_out)} images that calibration did not see"
    return [
        f"ONNX opset {OPSET} in 8-bit integers ({kept + 2} layers in float32), "
        f"inputs {', '.join(inputs_of(source, model))}",
        f"loses {loss.in_words()}, on {images}",
    ]


@dataclass(frozen=True)
class _Sample:
    """What the network sees, what it should give, and where that counts (B×1×H×W of 0 and 1)."""

    inputs: tuple[Tensor, ...]
    clean: Tensor
    counts: Tensor | None
    damaged: bool


def _samples(
    folder: Path, model: RestorationNetwork, channels: int, linear: bool
) -> tuple[list[_Sample], list[_Sample]]:
    """Samples for calibration, and others for the measurement.

    Raises:
        RestoreError: there are fewer than two images.
    """
    files = [folder / name for name in find_images(folder)][:_MAX_IMAGES]
    if len(files) < 2:
        raise RestoreError(f"has {len(files)} images; calibration needs two at least", where=folder)
    generator = torch.Generator().manual_seed(0)
    held_out_files = files[3::4] or files[1:2]
    seen_files = [file for file in files if file not in held_out_files]
    seen, held_out = [], []
    for number, file in enumerate(seen_files):
        image = _cropped(file, model, channels)
        for sigma in (_CALIBRATION_SIGMAS[number % 3], _CALIBRATION_SIGMAS[3 + number % 3]):
            seen.append(_sample(image, model, sigma, generator, linear))
    for file in held_out_files:
        image = _cropped(file, model, channels)
        held_out.append(_sample(image, model, SIGMA, generator, linear))
        if not model.takes_mask:
            held_out.append(_sample(image, model, 0, generator, linear))
    return seen, held_out


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


def _cut(sample: _Sample, model: RestorationNetwork) -> _Sample:
    """A corner of a sample: which layers are sensitive shows there, too."""
    side = max(_SENSITIVITY_PX // model.smallest_side, 1) * model.smallest_side
    return replace(sample, inputs=tuple(one[..., :side, :side] for one in sample.inputs))


def _by_sensitivity(model: RestorationNetwork, samples: Sequence[_Sample]) -> list[int]:
    """The convolutions but the first and the last by their places in the order of execution, most sensitive first.

    The sensitivity of one is the error of the output if its input and its weights alone have 256 values.
    """
    layers: list[nn.Module] = []
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    hooks = [one.register_forward_pre_hook(lambda layer, _: layers.append(layer)) for one in convolutions]
    plain = [_output(model, sample) for sample in samples[:1]]
    for hook in hooks:
        hook.remove()
    plain += [_output(model, sample) for sample in samples[1:]]
    errors = []
    for layer in layers:
        weight = layer.get_parameter("weight")
        kept = weight.data
        weight.data = _rounded_per_channel(kept, dim=1 if isinstance(layer, nn.ConvTranspose2d) else 0)
        hook = layer.register_forward_pre_hook(lambda _, inputs: (_rounded(inputs[0]),))
        errors.append(sum(float((_output(model, one) - out).square().mean()) for one, out in zip(samples, plain)))
        hook.remove()
        weight.data = kept
    return sorted(range(1, len(layers) - 1), key=lambda number: -errors[number])


@torch.inference_mode()
def _output(model: RestorationNetwork, sample: _Sample) -> Tensor:
    out: Tensor = model(*sample.inputs, filled=True)
    return out


def _rounded(x: Tensor) -> Tensor:
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    step = ((high - low) / 255).clamp(min=1e-12)
    return (x / step).round() * step


def _rounded_per_channel(weight: Tensor, dim: int) -> Tensor:
    others = [number for number in range(weight.ndim) if number != dim]
    step = (weight.abs().amax(others, keepdim=True) / 127).clamp(min=1e-12)
    return (weight / step).round() * step


def _quantized(plain: bytes, model: RestorationNetwork, seen: Sequence[_Sample], kept: Sequence[int]) -> bytes:
    """The graph in 8-bit integers, but for the first and the last convolution and those of `kept`."""
    try:
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    except ImportError as error:
        raise RestoreError("int8 needs onnx and onnxruntime", hint=INSTALL) from error
    graph = onnx.load_from_string(plain).graph
    names = [node.name for node in graph.node if node.op_type in _CONVOLUTIONS]
    left_out = {names[0], names[-1], *(names[number] for number in kept)}
    inputs = input_names(model)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        before.write_bytes(plain)
        quantize_static(
            before,
            after,
            _Reader({name: one.numpy() for name, one in zip(inputs, sample.inputs)} for sample in seen),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_QUANTIZED,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(left_out),
            calibrate_method=CalibrationMethod.MinMax,
        )
        return after.read_bytes()


class _Reader:
    """Calibration data as onnxruntime asks for them."""

    def __init__(self, feeds: Iterator[dict[str, Any]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._feeds

    def __next__(self) -> dict[str, Any]:
        return next(self._feeds)


def _loss(
    samples: Sequence[_Sample],
    quantized: Callable[[Sequence[Tensor]], Tensor],
    reference: Callable[[Sequence[Tensor]], Tensor],
) -> Loss:
    """The mean loss over images, in dB."""
    losses: dict[bool, list[float]] = {True: [], False: []}
    for sample in samples:
        scores = [_psnr(run(sample.inputs), sample) for run in (reference, quantized)]
        losses[sample.damaged].append(scores[0] - scores[1])
    clean = float(np.mean(losses[False])) if losses[False] else None
    return Loss(float(np.mean(losses[True])), clean)


def _psnr(output: Tensor, sample: _Sample) -> float:
    error = (output.clamp(0, 1) - sample.clean).double().square()
    if sample.counts is not None:
        error = error[(sample.counts > 0).expand_as(error)]
    # No output of a network is closer to the original than 80 dB.
    return -10 * math.log10(max(float(error.mean()), 1e-8))


def _with_facts(data: bytes, said: dict[str, str]) -> bytes:
    import onnx

    proto = onnx.load_from_string(data)
    del proto.metadata_props[:]
    proto.producer_name, proto.producer_version = "restore-toolkit", ""
    for key, value in said.items():
        proto.metadata_props.add(key=key, value=value)
    out: bytes = proto.SerializeToString(deterministic=True)
    return out


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without onnxruntime's advice to run its own preprocessing, which the exporter has done already."""
    root = logging.getLogger()
    level = root.level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            root.setLevel(logging.ERROR)
            yield
    finally:
        root.setLevel(level)
