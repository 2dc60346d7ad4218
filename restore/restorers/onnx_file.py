"""Restorers from ONNX files: those of `restore export`, and those of other projects."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from restore.checkpoints import Description
from restore.config import build as build_settings
from restore.engines.check import Network
from restore.engines.choice import OnEvent, open_graph
from restore.engines.onnx_check import INSTALL, read_onnx
from restore.engines.onnx_engine import OnnxRunner
from restore.engines.onnx_fill import without_fill
from restore.engines.onnx_graph import DESCRIPTION_KEY, input_names
from restore.engines.runner import Runner
from restore.errors import RestoreError
from restore.models.registry import build_generator
from restore.restorers.base import Restorer
from restore.restorers.detector import Detector, open_second
from restore.restorers.foreign_onnx import open_foreign
from restore.restorers.network import NetworkRestorer, requirements_of


def open_onnx(
    name: str,
    path: Path,
    device: torch.device,
    sha256: str | None,
    args: Sequence[str] = (),
    *,
    precision: str = "fp32",
    engine: str = "onnx",
    on_event: OnEvent = lambda line: None,
) -> Restorer:
    """A restorer around an ONNX file. It is run on the CPU: by onnxruntime in the file's own precision, or by OpenVINO.

    Args:
        name: how the user calls it.
        path: the file. One that `restore export` wrote describes itself.
        device: must be the CPU.
        sha256: of the file.
        args: `KEY=VALUE`: what a foreign file does not say; see `KEYS`.
        precision: of OpenVINO.
        engine: `openvino`, `onnx`, or `auto`, which takes OpenVINO if it is installed and gives what onnxruntime gives.
            Files of other projects are run by onnxruntime.
        on_event: called with a line when the network is prepared for OpenVINO, and if that cannot run it.

    Raises:
        RestoreError: onnxruntime is not installed; the file is damaged or refused (`read_onnx`), holds a detector, or
            is not understood.
    """
    if device.type != "cpu":
        raise RestoreError("ONNX files run on the CPU", where=path, hint="use --device cpu, or the weights themselves")
    proto = read_onnx(path)
    said = {entry.key: entry.value for entry in proto.metadata_props}
    if DESCRIPTION_KEY in said:
        if args:
            raise RestoreError("this file describes itself", where="--model-args", hint="leave it out")
        return _open_own(name, path, said[DESCRIPTION_KEY], proto, sha256, precision, engine, on_event)
    if engine not in ("auto", "onnx"):
        what = "ONNX files of other projects are run by onnxruntime"
        raise RestoreError(what, where=f"engine {engine}", hint="leave it out")
    return open_foreign(name, path, proto, args, sha256)


class _OwnRestorer(NetworkRestorer):
    """A network of this package whose weights are in an ONNX file."""

    def __init__(self, *given: Any, graph: Callable[[], bytes]) -> None:
        super().__init__(*given)
        self._graph, self._given = graph, given

    def in_precision(self, precision: str) -> NetworkRestorer:
        """Itself, or for fp32 run by onnxruntime, in the precision of the file."""
        if self.engine == "onnx" or precision != "fp32":
            return self
        *others, _, sha256, _ = self._given
        return _OwnRestorer(*others, "fp32", sha256, OnnxRunner(self._graph), graph=self._graph)


def open_onnx_detector(
    name: str, path: Path, device: torch.device, sha256: str | None, *, precision: str, engine: str, on_event: OnEvent
) -> Detector:
    """A detector from a file of `restore export`; arguments as for `open_onnx`.

    Raises:
        RestoreError: as `open_onnx`; or the file holds another network, or one of another project.
    """
    if device.type != "cpu":
        raise RestoreError("ONNX files run on the CPU", where=path, hint="use --device cpu, or the weights themselves")
    proto = read_onnx(path)
    said = {entry.key: entry.value for entry in proto.metadata_props}
    if DESCRIPTION_KEY not in said:
        raise RestoreError(
            "does not describe a detector", where=path, hint="`restore export` writes ONNX files that do"
        )
    own = _OwnFile(name, path, said[DESCRIPTION_KEY], proto, sha256)
    if own.description.finds is None:
        raise RestoreError(f"{name} is a restorer, not a detector")
    runner = own.open(precision, engine, on_event)
    return Detector(
        own.description.finds,
        name,
        own.model,
        requirements_of(own.description, own.model),
        own.description.purpose,
        device,
        runner.precision,
        sha256,
        runner,
        exact=lambda: OnnxRunner(own.graph),
        second=open_second(own.description.finds, path, device, precision=precision, engine=engine, on_event=on_event),
    )


def _open_own(
    name: str, path: Path, text: str, proto: Any, sha256: str | None, precision: str, engine: str, on_event: OnEvent
) -> Restorer:
    own = _OwnFile(name, path, text, proto, sha256)
    description = own.description
    if description.finds is not None:
        raise RestoreError(f"{name} is a detector, not a restorer", hint="`restore detect` takes it")
    runner = own.open(precision, engine, on_event)
    network = _OwnRestorer(
        name,
        own.model,
        requirements_of(description, own.model),
        description.purpose,
        torch.device("cpu"),
        runner.precision,
        sha256,
        runner,
        graph=own.graph,
    )
    if not description.needs_mask or description.conditions:
        return network
    from restore.restorers.hybrid_inpainting import HybridInpainter

    return HybridInpainter(network)


class _OwnFile:
    """A file of `restore export`, which describes itself.

    Attributes:
        description: of the network.
        model: fills holes, and knows what the network needs; its own weights are never used.
        graph: gives the graph that takes filled images: holes are filled before an image is cut into tiles.

    Raises:
        RestoreError: the description cannot be read, or is of another network.
    """

    def __init__(self, name: str, path: Path, text: str, proto: Any, sha256: str | None) -> None:
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RestoreError("the description inside this file is not JSON", where=path) from error
        self.description = build_settings(Description, values, where=path)
        self.model = build_generator(self.description.builder, self.description.args, where=str(path)).eval()
        self._shown = Network(
            name, self.model, self.description.channels or 3, self.description.finds is not None, sha256
        )
        self._path = path
        graph = without_fill(proto)
        expected = [self._shown.channels + self.model.conditions, 1][: len(input_names(self.model))]
        if [_sizes(place)[1:2] for place in graph.graph.input] != [[channels] for channels in expected]:
            raise RestoreError("the description inside this file is of another network", where=path)
        self._quantized = any(node.op_type == "QuantizeLinear" for node in graph.graph.node)
        self.graph: Callable[[], bytes] = graph.SerializeToString

    def open(self, precision: str, engine: str, on_event: OnEvent) -> Runner:
        """Run it by the engine that was chosen.

        Raises:
            RestoreError: the engine cannot run it.
        """
        data, quantized = bytes(self.graph()), self._quantized
        try:
            return open_graph(self._shown, data, precision, engine, quantized=quantized, on_event=on_event)
        except ImportError as error:
            raise RestoreError("ONNX files need more packages", where=self._path, hint=INSTALL) from error
        except RestoreError:
            raise
        except Exception as error:  # onnxruntime's errors share no class
            reason = " ".join(str(error).split())[-200:]
            raise RestoreError(f"onnxruntime cannot load it: {reason}", where=self._path) from error


def _sizes(place: Any) -> list[int]:
    """The sizes of an input; 0 where it is free."""
    return [size.dim_value for size in place.type.tensor_type.shape.dim]
