"""ONNX files, which onnxruntime and most other inference libraries open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restore.engines.onnx_check import INSTALL
from restore.engines.onnx_fill import with_fill
from restore.engines.onnx_graph import IMAGE, MASK, OPSET, facts, input_names, onnx_bytes
from restore.errors import RestoreError
from restore.export.parity import check_parity
from restore.export.source import Source
from restore.files import write_atomically
from restore.models.base import RestorationNetwork


def write_onnx(source: Source, out: Path) -> list[str]:
    """Write an ONNX file whose output is that of PyTorch.

    Returns:
        Notes for the user.

    Raises:
        RestoreError: packages are missing; the network has no such graph; the outputs differ, and nothing is written.
    """
    model, fills = source.network(), fills_itself(source)
    channels = source.description.channels or 3
    data = graph_of(source, model)
    parity = check_parity(model, channels, runner(data), "ONNX", fills=fills)
    write_atomically(out, data)
    return [f"ONNX opset {OPSET}, inputs {', '.join(inputs_of(source, model))}: {parity}"]


def graph_of(source: Source, model: RestorationNetwork) -> bytes:
    """The network as an ONNX graph with its facts; one that fills holes takes them as they are.

    Raises:
        RestoreError: packages are missing, or the network has no such graph.
    """
    fills, channels = fills_itself(source), source.description.channels or 3
    said = facts(source.description, sha256=source.sha256, license=source.license, fills=fills)
    data = onnx_bytes(model, channels, said)
    return with_fill(data, model, channels) if fills else data


def fills_itself(source: Source) -> bool:
    """Whether the graph takes an image with holes. One of condition images takes a filled image."""
    return source.description.needs_mask and not source.description.conditions


def inputs_of(source: Source, model: RestorationNetwork) -> tuple[str, ...]:
    """The names of the graph's inputs."""
    return (IMAGE, MASK) if fills_itself(source) else input_names(model)


def runner(data: bytes) -> Callable[[Sequence[Tensor]], Tensor]:
    """A serialized graph as a function.

    Raises:
        RestoreError: onnxruntime is not installed, or does not load the graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise RestoreError("the check of an ONNX file needs onnxruntime", hint=INSTALL) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 4
    options.enable_mem_pattern = False
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(inputs: Sequence[Tensor]) -> Tensor:
        arrays = {name: np.ascontiguousarray(one.numpy()) for name, one in zip(names, inputs)}
        return torch.from_numpy(np.asarray(session.run(None, arrays)[0]))

    return run
