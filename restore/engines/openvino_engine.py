"""OpenVINO: networks on CPUs, in fp32, or in bf16 where the processor multiplies it in hardware."""

from __future__ import annotations

import io
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from restore.engines.onnx_graph import Filled, input_names
from restore.engines.runner import FloatArray, GraphRunner
from restore.models.base import RestorationNetwork

_HINT = {"fp32": "f32", "bf16": "bf16"}

#: Prepared kernels that a compiled network keeps, of all sizes of images together; a size takes about 30. By default it
#: keeps 5000, and images of 150 sizes took 270 MB; with this they take 100 MB.
_KEPT_KERNELS = 256

_importing = threading.Lock()


def import_openvino() -> Any:
    """The library, without the report of its use that its import would send to its makers.

    Raises:
        ImportError: it is not installed, or does not run on this system.
    """
    with _importing:
        if "openvino" in sys.modules:
            return sys.modules["openvino"]
        name = "openvino_telemetry"
        before = sys.modules.get(name)
        # With None, importing it fails, which OpenVINO is prepared for.
        sys.modules[name] = None  # type: ignore[assignment]
        try:
            import openvino
        finally:
            del sys.modules[name]
            if before is not None:
                sys.modules[name] = before
    return openvino


def version() -> str:
    """The version of the library, and the processor that it sees with what it can do: a compiled network needs both.

    Raises:
        ImportError: as `import_openvino`.
    """
    openvino = import_openvino()
    core = openvino.Core()
    processor = core.get_property("CPU", "FULL_DEVICE_NAME")
    abilities = sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return f"{openvino.get_version()} on {processor} ({' '.join(abilities)})"


def compile_network(model: RestorationNetwork, channels: int, precision: str) -> bytes:
    """A network compiled for this processor, images of any size, in the form that `OpenVinoRunner` loads.

    Args:
        model: on the CPU, in float32 and eval mode.
        channels: of the image, without conditions.
        precision: `fp32` or `bf16`.

    Raises:
        RuntimeError: the network cannot be converted, or the processor lacks the precision.
    """
    return compile_graph(_graph_of(model, channels), precision)


def compile_onnx(data: bytes, precision: str) -> bytes:
    """As `compile_network`, of a serialized ONNX model."""
    return compile_graph(import_openvino().Core().read_model(io.BytesIO(data)), precision)


def compile_graph(graph: Any, precision: str) -> bytes:
    """As `compile_network`, of an `openvino.Model`."""
    openvino = import_openvino()
    # One image at a time: the size of the batch is settled, and with it how the work is split.
    shapes = {}
    for place in graph.inputs:
        shape = place.get_partial_shape()
        shapes[place] = openvino.PartialShape([1, shape[1], -1, -1])
    graph.reshape(shapes)
    compiled = openvino.Core().compile_model(graph, "CPU", _settings(precision, 1))
    _check_precision(compiled, precision)
    stream = compiled.export_model()
    return bytes(stream if isinstance(stream, bytes) else stream.getvalue())


class OpenVinoRunner(GraphRunner):
    """A compiled network.

    Args:
        payload: gives what `compile_network` returned, whenever the number of threads changes.
        precision: that it was compiled for.

    Raises:
        RuntimeError: it cannot be loaded.
    """

    engine = "openvino"

    def __init__(self, payload: Callable[[], bytes], precision: str) -> None:
        self._payload, self._settings_for = payload, precision
        self._threads, self._request = 0, None
        super().__init__(self._load(torch.get_num_threads()), precision)

    def _load(self, threads: int) -> int:
        """Make it ready for a number of threads; returns the number of inputs."""
        stream = io.BytesIO(self._payload())
        compiled = import_openvino().Core().import_model(stream, "CPU", _settings(self._settings_for, threads))
        _check_precision(compiled, self._settings_for)
        self._threads, self._request = threads, compiled.create_infer_request()
        return len(compiled.inputs)

    def _run(self, arrays: Sequence[FloatArray], threads: int) -> FloatArray:
        if threads != self._threads:
            self._load(threads)
        request: Any = self._request
        request.infer(list(arrays), share_inputs=True)
        output: FloatArray = request.get_output_tensor(0).data.copy()  # the request writes there again
        return output


def _graph_of(model: RestorationNetwork, channels: int) -> Any:
    """A network as an `openvino.Model`.

    By way of a trace, which takes 0.2 s. An export to ONNX would take 5 s, and need two more packages.
    """
    import_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    side = model.smallest_side
    image = torch.zeros(2, channels + model.conditions, 2 * side, 3 * side)
    examples = (image, torch.zeros_like(image[:, :1]))[: len(input_names(model))]
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # what a trace takes for a constant shows in the check of the network
        traced = torch.jit.trace(Filled(model), examples, check_trace=False)
        front = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(traced)  # must outlive the conversion
        return front.convert(front.load(decoder))


def _settings(precision: str, threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": _HINT[precision],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        # Pinned to their processors, threads wait for those that another program uses: 12 megapixels took 22 s beside
        # one, and 16 s unpinned.
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": str(_KEPT_KERNELS),
    }


def _check_precision(compiled: Any, precision: str) -> None:
    openvino = import_openvino()
    wanted = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}[precision]
    if compiled.get_property("INFERENCE_PRECISION_HINT") != wanted:
        raise RuntimeError(f"the processor does not compute in {precision}")
