"""A network run by an engine: the seam between restorers, detectors and what computes."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from restore.devices import AUTOCAST_DTYPE
from restore.errors import RestoreError

FloatArray = npt.NDArray[np.float32]


class Runner(Protocol):
    """A network on a device, run in one precision.

    Attributes:
        engine: `torch`, `openvino` or `onnx`.
        precision: `fp32`, `bf16` or `fp16`.
    """

    engine: str
    precision: str

    def __call__(self, image: Tensor, mask: Tensor | None) -> Tensor:
        """The network's output for images whose holes are filled (`RestorationNetwork.fill`).

        Args:
            image: float32, B×C×H×W, with the channels and of a size that the network takes.
            mask: float32, B×1×H×W or None; of a detector that joins levels, the logits of the level above.

        Returns:
            float32, B×C×H×W, on the device of `image`, not clamped. No image depends on the others of the batch.
        """


class TorchRunner:
    """A network run by PyTorch; images may come from another device and return to it.

    Args:
        model: takes (image, mask, filled=True); it is put into eval mode and moved to the device.
        device: where it runs.
        precision: `fp32`, `bf16` or `fp16`, by autocast.
    """

    engine = "torch"

    def __init__(self, model: nn.Module, device: torch.device, precision: str) -> None:
        self.device, self.precision = device, precision
        # Half precision is fastest in channels_last; fp32 on a CPU is slower in it.
        half_or_gpu = precision != "fp32" or device.type != "cpu"
        self._format = torch.channels_last if half_or_gpu else torch.contiguous_format
        self.model = model.eval().requires_grad_(False).to(device).to(memory_format=self._format)

    def __call__(self, image: Tensor, mask: Tensor | None) -> Tensor:
        """See `Runner`."""
        on_device = image.to(self.device).contiguous(memory_format=self._format)
        mask_on_device = None if mask is None else mask.to(self.device)
        with torch.autocast(self.device.type, AUTOCAST_DTYPE[self.precision], enabled=self.precision != "fp32"):
            out: Tensor = self.model(on_device, mask_on_device, filled=True)
            return out.float().to(image.device)


class GraphRunner(ABC):
    """A network that another library than PyTorch runs on the CPU.

    It computes one image at a time, so that no result depends on a batch. It uses as many threads as PyTorch may use in
    the thread that calls it. Several threads may call it; they take turns.

    Args:
        inputs: how many the graph takes: the image, and the mask or what stands in its place.
        precision: `fp32` or `bf16`.
    """

    engine: str

    def __init__(self, inputs: int, precision: str) -> None:
        self.precision, self._inputs = precision, inputs
        self._lock = threading.Lock()

    def __call__(self, image: Tensor, mask: Tensor | None) -> Tensor:
        """See `Runner`.

        Raises:
            MemoryError: memory ran out.
            RestoreError: exit code 1; the library failed for another reason.
        """
        tensors = [image]
        if self._inputs > 1:
            tensors.append(torch.zeros_like(image[:, :1]) if mask is None else mask)
        arrays = [np.ascontiguousarray(tensor.detach().float().cpu().numpy()) for tensor in tensors]
        threads = torch.get_num_threads()
        with self._lock:
            outputs = [
                self._safely([array[number : number + 1] for array in arrays], threads) for number in range(len(image))
            ]
        return torch.from_numpy(outputs[0] if len(outputs) == 1 else np.concatenate(outputs)).to(image.device)

    def _safely(self, arrays: Sequence[FloatArray], threads: int) -> FloatArray:
        try:
            return self._run(arrays, threads)
        except Exception as error:  # onnxruntime's are of no common class
            message = " ".join(str(error).split())
            if any(phrase in message.lower() for phrase in _OUT_OF_MEMORY):
                raise MemoryError(message[:200]) from error
            raise RestoreError(
                f"{self.engine} failed: {message[-200:]}", hint="try --engine torch", exit_code=1
            ) from error

    @abstractmethod
    def _run(self, arrays: Sequence[FloatArray], threads: int) -> FloatArray:
        """The output for one image, 1×C×H×W, in an array that is not used again."""


#: Messages of OpenVINO, oneDNN and onnxruntime when memory runs out.
_OUT_OF_MEMORY = ("bad_alloc", "out of memory", "failed to allocate", "allocate memory", "not enough memory")
