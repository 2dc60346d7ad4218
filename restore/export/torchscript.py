"""TorchScript, which PyTorch opens without this package, also from C++."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch

from restore.engines.onnx_graph import Filled, facts, input_names
from restore.export.parity import check_parity
from restore.export.source import Source
from restore.files import write_atomically


def write_torchscript(source: Source, out: Path) -> list[str]:
    """Write a traced network, with the facts as extra files (`restore`, `purpose`, ...).

    Returns:
        Notes for the user.

    Raises:
        RestoreError: the outputs differ from the network's, and nothing is written.
    """
    model = source.network()
    channels, names = source.description.channels or 3, input_names(model)
    side = model.smallest_side
    image = torch.zeros(2, channels + model.conditions, 2 * side, 3 * side)
    said = facts(source.description, sha256=source.sha256, license=source.license)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a trace takes for a constant, the check below finds
        traced = torch.jit.trace(
            Filled(model), (image, torch.zeros_like(image[:, :1]))[: len(names)], check_trace=False
        )
        file = io.BytesIO()
        torch.jit.save(traced, file, _extra_files={key: value.encode() for key, value in said.items()})
        opened = torch.jit.load(io.BytesIO(file.getvalue()), map_location="cpu")
    with torch.inference_mode():
        parity = check_parity(model, channels, lambda inputs: opened(*inputs), "TorchScript")
    write_atomically(out, file.getvalue())
    return [
        f"TorchScript, inputs {', '.join(names)}: {parity}",
        "a TorchScript file holds code: people should open it only if they trust you (`restore fix` opens none)",
    ]
