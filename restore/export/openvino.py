"""OpenVINO's own format: a graph (`.xml`) with its weights beside it (`.bin`)."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restore.engines.onnx_graph import facts
from restore.engines.openvino_engine import import_openvino
from restore.errors import RestoreError
from restore.export.onnx import fills_itself, graph_of, inputs_of
from restore.export.parity import check_parity
from restore.export.source import Source
from restore.files import write_atomically

INSTALL = 'pip install "restore-toolkit[cpu,onnx]"'


def write_openvino(source: Source, out: Path) -> list[str]:
    """Write NAME.xml and NAME.bin, in float32, with the facts under `restore` in the graph's `rt_info`.

    Returns:
        Notes for the user.

    Raises:
        RestoreError: packages are missing; the outputs differ from PyTorch's, and nothing is written.
    """
    try:
        openvino = import_openvino()
    except ImportError as error:
        raise RestoreError("this format needs OpenVINO", hint=INSTALL) from error
    model = source.network()
    channels = source.description.channels or 3
    core = openvino.Core()
    fills = fills_itself(source)
    graph = core.read_model(io.BytesIO(graph_of(source, model)))
    said = facts(source.description, sha256=source.sha256, license=source.license, fills=fills)
    for key, value in said.items():
        graph.set_rt_info(value, ["restore", key])
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "model.xml"
        openvino.save_model(graph, xml, compress_to_fp16=False)
        # What is checked is what the files hold.
        parity = check_parity(model, channels, _runner(core, xml), "OpenVINO", fills=fills)
        write_atomically(out.with_suffix(".bin"), xml.with_suffix(".bin").read_bytes())
        write_atomically(out, xml.read_bytes())
    return [f"OpenVINO, inputs {', '.join(inputs_of(source, model))}: {parity}"]


def _runner(core: Any, xml: Path) -> Callable[[Sequence[Tensor]], Tensor]:
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = core.compile_model(core.read_model(xml), "CPU", settings)

    def run(inputs: Sequence[Tensor]) -> Tensor:
        result = compiled([np.ascontiguousarray(one.numpy()) for one in inputs])[0]
        return torch.from_numpy(np.array(result))

    return run
