"""Networks of other projects in ONNX files: facts that a file does not state are tried out, or declared by the user."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from restore.devices import free_memory
from restore.engines.onnx_check import INSTALL
from restore.errors import RestoreError, did_you_mean
from restore.models.receptive_field import measure_reach_px, octaves
from restore.restorers.base import ModelRequirements, Restorer

#: What `--model-args` may say of a file that does not say it itself.
KEYS = ("range", "output-range", "order", "fourth", "mask", "multiple", "overlap")

#: Nodes whose output depends on nearby pixels alone. With only these, the receptive field is measured; with any
#: other (pooling or norms over the image, attention), it is assumed to see the whole image.
_LOCAL = frozenset(
    (
        "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv",
        "ConvTranspose", "DepthToSpace", "DequantizeLinear", "Div", "Dropout", "Elu", "Erf", "Exp",
        "Expand", "Gather", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log",
        "Max", "MaxPool", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow",
        "QuantizeLinear", "Relu", "Resize", "Selu", "Shape", "Sigmoid", "Slice", "Softplus",
        "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Unsqueeze",
        "Upsample", "Where",
    )
)  # fmt: skip
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128)
_FALLBACK_OVERLAP_PX = 64
_PROBE_HEIGHT_PX, _PROBE_WIDTH_PX = 48, 288
#: How far the values of a repaired probe may lie outside [0, 1] before its range counts as misunderstood.
_PLAUSIBLE = (-1.0, 2.0)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Declared:
    """How the tensors of a foreign file are meant.

    Attributes:
        range, output_range: the values of black and white.
        bgr: blue comes first.
        fourth: the fourth channel: `mask`, `alpha` (opaque), or a number.
        mask_hole: the value of the mask in holes: 1 or 0.
        multiple: of height and width; None: tried out.
        overlap_px: the radius of the receptive field; None: measured, or the whole image.
    """

    range: tuple[float, float] = (0.0, 1.0)
    output_range: tuple[float, float] = (0.0, 1.0)
    bgr: bool = False
    fourth: str | float | None = None
    mask_hole: int = 1
    multiple: int | None = None
    overlap_px: int | None = None


def parse_args(args: Sequence[str]) -> Declared:
    """`KEY=VALUE` of `--model-args` -> what they declare.

    Raises:
        RestoreError: an unknown key, or a value that it does not take.
    """
    values: dict[str, str] = {}
    for text in args:
        key, equals, value = text.partition("=")
        if not equals or key not in KEYS:
            raise RestoreError(f"unknown: {text!r}", where="--model-args", hint=did_you_mean(key, KEYS))
        values[key] = value
    try:
        between = _pair(values.get("range", "0,1"))
        fourth = values.get("fourth")
        return Declared(
            range=between,
            output_range=_pair(values["output-range"]) if "output-range" in values else between,
            bgr=_one_of(values.get("order", "rgb"), ("rgb", "bgr")) == "bgr",
            fourth=fourth if fourth in (None, "mask", "alpha") else float(str(fourth)),
            mask_hole=int(_one_of(values.get("mask", "1"), ("0", "1"))),
            multiple=_natural(values, "multiple", 1),
            overlap_px=_natural(values, "overlap", 0),
        )
    except ValueError as error:
        hint = "as in range=0,255 order=bgr fourth=mask mask=0 multiple=8 overlap=32"
        raise RestoreError(f"not understood: {error}", where="--model-args", hint=hint) from error


def open_foreign(name: str, path: Path, proto: Any, args: Sequence[str], sha256: str | None) -> Restorer:
    """A restorer around another project's network, run by onnxruntime.

    Args:
        name: how the user calls it.
        path: the file.
        proto: its checked model (`restore.engines.onnx_check.read_onnx`).
        args: `KEY=VALUE`: what the file does not say; see `KEYS`.
        sha256: of the file.

    Raises:
        RestoreError: onnxruntime is not installed or does not load it, or the file is not understood.
    """
    run, declared = OnnxSession(proto, path), parse_args(args)
    channels, second = _channels_of(path, run)
    fourth_is_mask = channels == 4 and declared.fourth == "mask"
    if channels == 4 and declared.fourth is None:
        raise RestoreError(
            "takes four channels, and does not say what the fourth is",
            where=path,
            hint="say it: --model-args fourth=mask, fourth=alpha, or a number, such as a noise level",
        )
    if channels != 4 and declared.fourth is not None:
        raise RestoreError(f"the network takes {channels} channels, not four", where="--model-args fourth")
    size = _fixed_size(run)
    if any(isinstance(one, int) and one > 1 for one in (run.inputs[0][2][0],)):
        raise RestoreError(
            "takes batches of a fixed size only", where=path, hint="export it with a free batch, or of 1"
        )
    requirements = ModelRequirements(
        needs_mask=second or fourth_is_mask, tileable=False, overlap_px=_FALLBACK_OVERLAP_PX
    )

    def make(needs: ModelRequirements) -> ForeignOnnxRestorer:
        return ForeignOnnxRestorer(name, needs, run, declared, channels, second, size, sha256)

    requirements = _probed(path, make, requirements, declared, size)
    if size is None and declared.overlap_px is not None:
        return make(replace(requirements, tileable=True, overlap_px=declared.overlap_px))
    local = all(node.op_type in _LOCAL for node in proto.graph.node)
    if size is None and local and not requirements.needs_mask:
        overlap = make(requirements).measured_overlap_px()
        if overlap is not None:
            return make(replace(requirements, tileable=True, overlap_px=overlap))
    return make(requirements)


class OnnxSession:
    """A graph that onnxruntime has loaded: arrays in, one array out.

    Raises:
        RestoreError: onnxruntime is not installed, or does not load the graph.
    """

    def __init__(self, proto: Any, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise RestoreError("ONNX files need more packages", where=path, hint=INSTALL) from error
        self._path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 4
        options.enable_mem_pattern = False  # it plans memory for a fixed size
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            # From memory: no path that the file names is followed.
            self._session = onnxruntime.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors share no class
            raise RestoreError(f"onnxruntime cannot load it: {_short(error)}", where=path) from error
        self.inputs = [(one.name, one.type, list(one.shape)) for one in self._session.get_inputs()]
        self.outputs = [(one.name, one.type, list(one.shape)) for one in self._session.get_outputs()]

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Run the graph on float32 tensors, in the types of its inputs; the first output in float32.

        Raises:
            MemoryError: memory ran out.
            RestoreError: exit code 1; it failed for another reason.
        """
        feeds = {
            name: tensor.cpu().numpy().astype(np.float16 if "float16" in kind else np.float32)
            for (name, kind, _), tensor in zip(self.inputs, tensors)
        }
        try:
            out = self._session.run([self.outputs[0][0]], feeds)[0]
        except Exception as error:
            if "alloc" in str(error).lower():
                raise MemoryError(_short(error)) from error
            raise RestoreError(f"onnxruntime failed: {_short(error)}", where=self._path, exit_code=1) from error
        return torch.from_numpy(np.asarray(out, np.float32))


class ForeignOnnxRestorer(Restorer):
    """Another project's network in an ONNX file.

    One with one channel gets red, green and blue separately (once if they are equal: gray images). One of a fixed size
    runs on pieces of that size, which overlap by a quarter.

    Args:
        name: how the user calls it.
        requirements: what it requires of its input.
        run: the graph.
        declared: how its tensors are meant.
        channels: of the image that it takes: 1, 3 or 4.
        takes_mask: its second input is the mask.
        size: height and width, if they are fixed.
        sha256: of the file.
    """

    engine = "onnx"

    def __init__(
        self,
        name: str,
        requirements: ModelRequirements,
        run: Callable[..., Tensor],
        declared: Declared,
        channels: int,
        takes_mask: bool,
        size: tuple[int, int] | None,
        sha256: str | None,
    ) -> None:
        self.name, self.requirements, self.sha256 = name, requirements, sha256
        self.purpose = "ONNX file: " + ("fills holes" if requirements.needs_mask else "restores")
        if requirements.scale > 1:
            self.purpose = f"ONNX file: enlarges {requirements.scale} times"
        self._run, self._declared, self.channels = run, declared, channels
        self._takes_mask, self._size = takes_mask, size

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        needed = image.shape[-2] * image.shape[-1] * self.bytes_per_pixel
        if self._size is None and needed > free_memory(self.device):
            # Linux promises the memory and then kills the process.
            raise MemoryError(f"about {needed / 1e9:.0f} GB are needed")
        hole = image.new_zeros(len(image), 1, *image.shape[-2:]) if mask is None else (mask > 0).float()
        parts = [self._restore_one(image[i : i + 1], hole[i : i + 1]) for i in range(len(image))]
        return torch.cat(parts)

    def _restore_one(self, image: Tensor, hole: Tensor) -> Tensor:
        """1×3×H×W and 1×1×H×W -> 1×3×(H·scale)×(W·scale), not clamped."""
        if self.channels == 1 and self.requirements.adds_color:
            return self._whole((image * image.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True), hole)
        if self.channels == 1:
            channels = image.split(1, dim=1)
            if all(torch.equal(one, channels[0]) for one in channels[1:]):
                channels = channels[:1]
            return torch.cat([self._whole(one, hole) for one in channels], 1).expand(-1, 3, -1, -1)
        return self._whole(image, hole)

    def _whole(self, image: Tensor, hole: Tensor) -> Tensor:
        if self._size is None:
            return self._piece(image, hole)
        height, width = self._size
        scale, out = self.requirements.scale, None
        rows, columns = _places(image.shape[-2], height), _places(image.shape[-1], width)
        for (top, from_row), (left, from_column) in itertools.product(rows, columns):
            part = (..., slice(top, top + height), slice(left, left + width))
            piece = self._piece(image[part], hole[part])
            if out is None:
                out = piece.new_zeros(*piece.shape[:2], image.shape[-2] * scale, image.shape[-1] * scale)
            # The first half of an overlap comes from the piece before, which has more context there.
            inside = piece[..., (from_row - top) * scale :, (from_column - left) * scale :]
            out[
                ...,
                from_row * scale : (top + height) * scale,
                from_column * scale : (left + width) * scale,
            ] = inside
        assert out is not None
        return out

    def _piece(self, image: Tensor, hole: Tensor) -> Tensor:
        said = self._declared
        black, white = said.range
        colors = (image.flip(1) if said.bgr else image) * (white - black) + black
        shown = hole if said.mask_hole == 1 else 1 - hole
        if self.channels == 4:
            fourth = said.fourth
            if fourth == "mask":
                colors = torch.cat([colors, shown], 1)
            else:
                value = white if fourth == "alpha" else float(fourth or 0)
                colors = torch.cat([colors, torch.full_like(hole, value)], 1)
        out = self._run(colors, shown) if self._takes_mask else self._run(colors)
        out = out[:, :3]
        black, white = said.output_range
        out = (out - black) / (white - black)
        return out.flip(1) if said.bgr else out

    def measured_overlap_px(self) -> int | None:
        """Radius of the receptive field in input pixels, plus a margin; None: the whole image."""
        multiple = self.requirements.multiple
        height, width = (-(-side // multiple) * multiple for side in (_PROBE_HEIGHT_PX, _PROBE_WIDTH_PX))
        image = octaves(height, width)
        scale = self.requirements.scale
        overlap = measure_reach_px(
            lambda image, mask: F.pixel_unshuffle(self._restore_one(image, torch.zeros_like(image[:, :1])), scale),
            image,
            None,
        )
        return None if overlap >= width else overlap + max(8, overlap // 4)


def _channels_of(path: Path, run: OnnxSession) -> tuple[int, bool]:
    """The channels of the image, and whether a second input takes the mask.

    Raises:
        RestoreError: these are not the inputs and outputs of a restorer.
    """
    kinds = ("tensor(float)", "tensor(float16)")
    if not 1 <= len(run.inputs) <= 2:
        raise RestoreError(f"takes {len(run.inputs)} inputs, not an image and perhaps a mask", where=path)
    for place, kind, shape in (*run.inputs, run.outputs[0]):
        if kind not in kinds:
            raise RestoreError(f"{place} is of type {kind}, not float", where=path)
        if len(shape) != 4:
            raise RestoreError(f"{place} has {len(shape)} dimensions, not B×C×H×W", where=path)
    channels, gives = run.inputs[0][2][1], run.outputs[0][2][1]
    if channels not in (1, 3, 4) or (isinstance(gives, int) and gives not in (1, 3, 4)):
        raise RestoreError(f"takes {channels} channels and gives {gives}; it is not for images B×C×H×W", where=path)
    if len(run.inputs) == 2 and run.inputs[1][2][1] != 1:
        raise RestoreError(f"its second input has {run.inputs[1][2][1]} channels, not one of a mask", where=path)
    return int(channels), len(run.inputs) == 2


def _fixed_size(run: OnnxSession) -> tuple[int, int] | None:
    height, width = run.inputs[0][2][2:]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _probed(
    path: Path,
    make: Callable[[ModelRequirements], ForeignOnnxRestorer],
    requirements: ModelRequirements,
    declared: Declared,
    size: tuple[int, int] | None,
) -> ModelRequirements:
    """The requirements with multiple and scale, tried out on small images.

    Raises:
        RestoreError: no size works; the output has no whole scale; or its values are not those of an image.
    """
    tried = [declared.multiple] if declared.multiple is not None else list(_MULTIPLES)
    problem: Exception | None = None
    for multiple in [1] if size else tried:
        height, width = size or _odd_sides(multiple)
        image = octaves(height, width)
        hole = torch.zeros_like(image[:, :1])
        try:
            # A piece of its own size; the loop over pieces needs the scale first.
            out = make(requirements)._piece(image[:, :1] if make(requirements).channels == 1 else image, hole)
        except (RestoreError, MemoryError) as error:
            problem = error
            continue
        gives = out.shape[1]
        if gives != 3 and gives != make(requirements).channels:
            raise RestoreError(f"takes {make(requirements).channels} channels and gives {gives}", where=path)
        scale = out.shape[-1] // width
        if scale < 1 or tuple(out.shape[-2:]) != (height * scale, width * scale):
            problem = RestoreError(f"an image of {width}×{height} gives one of {out.shape[-1]}×{out.shape[-2]}")
            continue
        low, high = float(out.min()), float(out.max())
        if not (_PLAUSIBLE[0] <= low and high <= _PLAUSIBLE[1]):
            black, white = declared.output_range
            raise RestoreError(
                f"an image between {black:g} and {white:g} gives values between "
                f"{low * (white - black) + black:.3g} and {high * (white - black) + black:.3g}",
                where=path,
                hint="say what black and white are: --model-args range=0,255 or range=-1,1, and output-range=",
            )
        adds_color = make(requirements).channels == 1 and gives == 3
        found = replace(requirements, scale=scale, adds_color=adds_color)
        return replace(found, minimum=max(size)) if size else replace(found, multiple=multiple, minimum=multiple)
    assert problem is not None
    what = problem.what if isinstance(problem, RestoreError) else str(problem)
    raise RestoreError(
        f"no image runs through it: {what}", where=path, hint="--model-args multiple= may help"
    ) from problem


def _odd_sides(multiple: int) -> tuple[int, int]:
    """Two sides of at least 64 pixels that are odd multiples of `multiple`."""
    count = max(-(-64 // multiple) | 1, 1)
    return count * multiple, (count + 2) * multiple


def _places(length: int, piece: int) -> list[tuple[int, int]]:
    """Where pieces start along a side, and from which pixel on each is used; neighbors overlap by a quarter."""
    step = max(piece - piece // 4, 1)
    starts = [*range(0, max(length - piece, 0), step), max(length - piece, 0)]
    return [
        (start, start if number == 0 else (start + starts[number - 1] + piece) // 2)
        for number, start in enumerate(starts)
    ]


def _pair(text: str) -> tuple[float, float]:
    parts = [float(part) for part in text.split(",")]
    if len(parts) != 2 or not np.isfinite(parts).all() or parts[0] == parts[1]:
        raise ValueError(f"{text!r} is not BLACK,WHITE")
    return parts[0], parts[1]


def _one_of(value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"{value!r} is not one of {', '.join(known)}")
    return value


def _natural(values: Mapping[str, str], key: str, least: int) -> int | None:
    if key not in values:
        return None
    number = int(values[key])
    if not least <= number <= 4096:
        raise ValueError(f"{key} is {least} to 4096, not {number}")
    return number


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[-200:]
