"""onnxruntime: networks on CPUs, in fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from restore.engines.onnx_graph import onnx_bytes
from restore.engines.runner import FloatArray, GraphRunner
from restore.models.base import RestorationNetwork


def version() -> str:
    """The version of the library.

    Raises:
        ImportError: it is not installed, or does not run on this system.
    """
    import onnxruntime

    return str(onnxruntime.__version__)


def compile_network(model: RestorationNetwork, channels: int, precision: str) -> bytes:
    """A network as a serialized ONNX model, which `OnnxRunner` loads.

    Args:
        model: on the CPU, in float32 and eval mode.
        channels: of the image, without conditions.
        precision: `fp32`.

    Raises:
        RestoreError: as `onnx_bytes`.
    """
    assert precision == "fp32"
    return onnx_bytes(model, channels)


class OnnxRunner(GraphRunner):
    """A network that onnxruntime runs.

    Args:
        payload: gives the serialized ONNX model, whenever the number of threads changes.
        precision: `fp32`.

    Raises:
        RuntimeError: it cannot be loaded.
    """

    engine = "onnx"

    def __init__(self, payload: Callable[[], bytes], precision: str = "fp32") -> None:
        self._payload = payload
        self._threads, self._session = 0, None
        super().__init__(self._load(torch.get_num_threads()), precision)

    def _load(self, threads: int) -> int:
        """Make it ready for a number of threads; returns the number of inputs."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3  # errors, which are raised anyway
        options.enable_mem_pattern = False  # it plans memory for a fixed size
        # Waiting threads sleep: others read and write images meanwhile.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(self._payload(), options, providers=["CPUExecutionProvider"])
        self._threads, self._session = threads, session
        self._names = [place.name for place in session.get_inputs()]
        return len(self._names)

    def _run(self, arrays: Sequence[FloatArray], threads: int) -> FloatArray:
        if threads != self._threads:
            self._load(threads)
        session: Any = self._session
        output: FloatArray = session.run(None, dict(zip(self._names, arrays)))[0]
        return output
