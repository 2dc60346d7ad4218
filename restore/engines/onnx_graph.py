"""A network as an ONNX graph of any height, width and batch, with the facts that its user needs inside."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from restore.checkpoints import Description
from restore.errors import RestoreError
from restore.models.base import RestorationNetwork

OPSET = 20

#: The key of the metadata under which `Description` lies as JSON, as in a weights file.
DESCRIPTION_KEY = "restore"

IMAGE, MASK, ABOVE, OUTPUT = "image", "mask", "above", "output"

#: A serialized graph is one message of protobuf, which cannot be larger.
_MAX_BYTES = (1 << 31) - 1


def input_names(model: RestorationNetwork) -> tuple[str, ...]:
    """The inputs of a network's graph, in order.

    `image`; then `mask` if the mask is an input channel, or `above`, the logits of the level above, if the network
    detects on the levels of a pyramid. A network that only has its holes filled takes `image` alone.
    """
    if model.joins_levels:
        return IMAGE, ABOVE
    return (IMAGE, MASK) if model.sees_mask else (IMAGE,)


def onnx_bytes(model: RestorationNetwork, channels: int, metadata: Mapping[str, str] | None = None) -> bytes:
    """A network as a serialized ONNX model, with its weights in float32 inside.

    The graph computes `model(image, mask, filled=True)`: B×C×H×W to an image or logits, float32, not clamped. Batch,
    height and width are free; height and width must divide by the network's `multiple`.

    Args:
        model: in float32, on the CPU; it is put into eval mode.
        channels: of the image: 3, or 1 for gray, without conditions.
        metadata: keys and values that are written into the file, such as those of `facts`.

    Raises:
        RestoreError: a package is missing, or the network has no ONNX graph.
    """
    try:
        import onnxscript  # noqa: F401 - PyTorch exports by it
    except ImportError as error:
        raise RestoreError("ONNX graphs need more packages", hint='pip install "restore-toolkit[onnx]"') from error
    names = input_names(model)
    side = model.smallest_side
    # Sizes of 0 and 1 would become constants of the graph, and equal ones one variable.
    image = torch.zeros(2, channels + model.conditions, 2 * side, 3 * side)
    inputs = (image, torch.zeros_like(image[:, :1]))[: len(names)]
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                Filled(model.eval()),
                inputs,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(names),
                output_names=[OUTPUT],
                dynamic_shapes=(free,) * len(names),
                custom_translation_table={torch.ops.aten.logaddexp.default: _log_add_exp},
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter's errors are of many kinds, and say nothing to a user
        reason = " ".join(str(error).split())[:160]
        raise RestoreError(f"this network cannot be written as an ONNX graph: {reason}", exit_code=1) from error
    assert program is not None
    proto = program.model_proto
    _make_portable(proto, names)
    for key, value in (metadata or {}).items():
        proto.metadata_props.add(key=key, value=value)
    if proto.ByteSize() > _MAX_BYTES:
        raise RestoreError("the network is too large for one ONNX file (2 GB)", exit_code=1)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def facts(
    description: Description, *, sha256: str | None = None, license: str | None = None, fills: bool = False
) -> dict[str, str]:
    """What a file says of its network: for programs under one key as JSON, and for people in words.

    Args:
        description: of the weights.
        sha256: of the weights' file.
        license: of the weights; None: not stated.
        fills: the graph fills holes itself; see `restore.engines.onnx_fill`.
    """
    of_detector = description.finds is not None
    takes = "gray" if description.channels == 1 else "RGB"
    light = "linear light" if description.transfer == "linear" else "sRGB"
    values = {
        DESCRIPTION_KEY: description.model_dump_json(exclude_none=True),
        "purpose": description.purpose,
        "image": f"float32, B x C x H x W, {takes}, {light}, 0 is black and 1 is white",
        "mask": "float32, B x 1 x H x W, 1 = hole, 0 = keep" if description.needs_mask else "none",
        "output": "logits of damage, B x 1 x H x W" if of_detector else "as the image, not clamped",
        "range": "0 1",
        "multiple": str(description.multiple),
        "minimum": str(description.minimum),
        "scale": str(description.scale),
        "overlap_px": str(description.overlap_px),
    }
    for condition in description.conditions or ():
        values["image"] += f", then {condition.channels} of {condition.name}"
    if description.needs_mask:
        before = "filled by the graph: the values of the image under the mask are ignored"
        values["holes"] = before if fills else "the image is filled under the mask before it comes in"
    if description.finds is not None:
        values["threshold"] = f"{description.finds.threshold:g}"
    if sha256:
        values["sha256"] = sha256
    if license:
        values["license"] = license
    return values


class Filled(nn.Module):
    """The network as engines run it: the image comes filled. The mask is given only if the network sees it."""

    def __init__(self, model: RestorationNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """See `RestorationNetwork.forward`."""
        out: Tensor = self.model(image, mask, filled=True)
        return out


def _log_add_exp(a: Any, b: Any) -> Any:
    """log(exp(a) + exp(b)) for any a and b; the exporter's own translation overflows above 88."""
    from onnxscript import opset20

    largest = opset20.Max(a, b)
    return opset20.Add(largest, opset20.Softplus(opset20.Neg(opset20.Abs(opset20.Sub(a, b)))))


def _make_portable(proto: Any, names: tuple[str, ...]) -> None:
    """Remove what names this machine (stack traces with paths), and name the free dimensions."""
    graph = proto.graph
    graph.name = "restore"
    proto.producer_name, proto.producer_version = "restore-toolkit", ""
    del proto.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    proto.doc_string = graph.doc_string = ""
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    for value in (*graph.input, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        for index, name in ((0, "batch"), (2, "height"), (3, "width")):
            sizes[index].dim_param = name


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own progress lines and warnings."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [one.level for one in loggers]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            for one in loggers:
                one.setLevel(logging.ERROR)
            yield
    finally:
        for one, level in zip(loggers, levels):
            one.setLevel(level)
