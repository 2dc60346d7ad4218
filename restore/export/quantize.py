"""ONNX files of 8-bit integers, with their loss measured and written into them.

Post-training static quantization as in Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018: weights per channel, activations by the smallest and largest value that
calibration saw.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restore.engines.onnx_check import INSTALL
from restore.engines.onnx_fill import with_fill
from restore.engines.onnx_graph import OPSET, facts, input_names, onnx_bytes
from restore.errors import RestoreError
from restore.export.calibration import Inputs, Loss, judge_of
from restore.export.onnx import fills_itself, inputs_of
from restore.export.source import Source
from restore.files import write_atomically
from restore.models.base import RestorationNetwork

#: The side of the images on which layers are compared.
_SENSITIVITY_PX = 96

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
        accept_loss: write the file even if its loss does not pass (`restore.export.calibration.Loss`).
    """

    folder: Path
    accept_loss: bool = False


def write_int8(source: Source, out: Path, quantization: Quantization) -> list[str]:
    """Write an ONNX file of 8-bit integers. Sensitive layers stay in float32 until the loss is small enough.

    Returns:
        Notes for the user.

    Raises:
        RestoreError: packages are missing; there are too few images; the network takes condition images, or enlarges;
            exit code 1: the loss is too large, and nothing is written.
    """
    description, model = source.description, source.network()
    if description.conditions or description.scale > 1:
        kind = "networks with condition images" if description.conditions else "networks that enlarge"
        raise RestoreError(f"of {kind} is not supported", where="--int8", hint="leave it out")
    channels = description.channels or 3
    plain = onnx_bytes(model, channels)
    judge = judge_of(source, model, plain, quantization.folder)
    ranked = _by_sensitivity(model, [_cut(inputs, model) for inputs in judge.seen[:4]])
    best: tuple[Loss, bytes, int] | None = None
    for count in sorted({min(count, len(ranked)) for count in _KEPT}):
        tried = _quantized(plain, model, judge.seen, ranked[:count])
        loss = judge.loss(tried)
        if best is None or loss.is_small or loss.damaged < best[0].damaged:
            best = loss, tried, count
        if loss.is_small:
            break
    assert best is not None
    loss, data, kept = best
    if not loss.passes and not quantization.accept_loss:
        raise RestoreError(
            f"8-bit integers lose {loss.in_words()}, which is too much; nothing is written",
            where="--int8",
            hint="--accept-loss writes the file all the same",
            exit_code=1,
        )
    fills = fills_itself(source)
    said = facts(description, sha256=source.sha256, license=source.license, fills=fills)
    said["precision"], said["loss"] = "int8", loss.in_words()
    data = with_fill(data, model, channels) if fills else data
    write_atomically(out, _with_facts(data, said))
    return [
        f"ONNX opset {OPSET} in 8-bit integers ({kept + 2} layers in float32), "
        f"inputs {', '.join(inputs_of(source, model))}",
        f"loses {loss.in_words()}, on {judge.images} image{'s'[: judge.images != 1]} that calibration did not see",
    ]


def _cut(inputs: Inputs, model: RestorationNetwork) -> Inputs:
    """A corner of what the network sees: which layers are sensitive shows there, too."""
    side = max(_SENSITIVITY_PX // model.smallest_side, 1) * model.smallest_side
    return tuple(one[..., :side, :side] for one in inputs)


def _by_sensitivity(model: RestorationNetwork, samples: Sequence[Inputs]) -> list[int]:
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
def _output(model: RestorationNetwork, inputs: Inputs) -> Tensor:
    out: Tensor = model(*inputs, filled=True)
    return out


def _rounded(x: Tensor) -> Tensor:
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    step = ((high - low) / 255).clamp(min=1e-12)
    return (x / step).round() * step


def _rounded_per_channel(weight: Tensor, dim: int) -> Tensor:
    others = [number for number in range(weight.ndim) if number != dim]
    step = (weight.abs().amax(others, keepdim=True) / 127).clamp(min=1e-12)
    return (weight / step).round() * step


def _quantized(plain: bytes, model: RestorationNetwork, seen: Sequence[Inputs], kept: Sequence[int]) -> bytes:
    """The graph in 8-bit integers, but for the first and the last convolution and those of `kept`."""
    try:
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    except ImportError as error:
        raise RestoreError("int8 needs onnx and onnxruntime", hint=INSTALL) from error
    graph = onnx.load_from_string(plain).graph
    names = [node.name for node in graph.node if node.op_type in _CONVOLUTIONS]
    left_out = {names[0], names[-1], *(names[number] for number in kept)}
    names_in = input_names(model)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        before.write_bytes(plain)
        quantize_static(
            before,
            after,
            _Reader({name: one.numpy() for name, one in zip(names_in, one_seen)} for one_seen in seen),
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
