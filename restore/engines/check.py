"""Whether an engine gives what PyTorch gives: both run a network on a drawn image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from restore.engines.runner import Runner, TorchRunner
from restore.models.base import RestorationNetwork

#: The largest difference in fp32, in fractions of white or of probability: less than a level of 8 bits.
LIMIT = 1 / 255

#: Half precision rounds by more. It may differ by this, or by twice as much as PyTorch's own.
HALF_LIMIT, HALF_FACTOR = 2 / 255, 2.0

#: 8-bit integers round by more still: a level of a layer is up to several of the image.
QUANTIZED_LIMIT = 16 / 255


@dataclass(frozen=True)
class Network:
    """A network, and what an engine needs to know to run it.

    Attributes:
        name: the user's name for it.
        model: on the CPU.
        channels: of the images that it takes, without conditions: 3, or 1 for gray.
        gives_logits: it is a detector.
        sha256: of its weights' file; None: unknown, so only PyTorch runs it.
    """

    name: str
    model: RestorationNetwork
    channels: int
    gives_logits: bool
    sha256: str | None


@dataclass(frozen=True)
class Check:
    """The largest difference from PyTorch in fp32, and the largest that is allowed; both in fractions of white."""

    difference: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the engine may run the network."""
        return self.difference <= self.limit


@torch.inference_mode()
def check(runner: Runner, network: Network) -> Check:
    """Compare an engine with PyTorch in fp32; in half precision also with PyTorch's own.

    Args:
        runner: runs the network.
        network: the same.
    """
    image, mask = drawn(network)
    cpu = torch.device("cpu")
    exact = _shown(TorchRunner(network.model, cpu, "fp32")(image, mask), network)
    difference, limit = _largest(_shown(runner(image, mask), network), exact), LIMIT
    if runner.precision != "fp32":
        half = _shown(TorchRunner(network.model, cpu, runner.precision)(image, mask), network)
        limit = max(HALF_LIMIT, HALF_FACTOR * _largest(half, exact))
    return Check(difference, limit)


@torch.inference_mode()
def check_graph(runner: Runner, exact: Runner, network: Network, *, quantized: bool) -> Check:
    """Compare two engines that run the graph of a file.

    Args:
        runner: one engine.
        exact: the other, in the precision of the file.
        network: whose images they take.
        quantized: it computes in integers, which the engines place and round differently: then the mean difference
            counts, beside `QUANTIZED_LIMIT` for the largest.
    """
    image, mask = drawn(network)
    here, there = (_shown(one(image, mask), network) for one in (runner, exact))
    difference, limit = _largest(here, there), LIMIT if runner.precision == "fp32" else HALF_LIMIT
    if quantized and difference <= QUANTIZED_LIMIT:
        return Check(float((here - there).abs().mean()), LIMIT)
    return Check(difference, QUANTIZED_LIMIT if quantized else limit)


def drawn(network: Network) -> tuple[Tensor, Tensor | None]:
    """An image for a network, with edges, texture, slopes and some noise, and what it takes beside it.

    Returns:
        The image, 1×C×H×W, filled if the network sees masks; and the mask, the logits of the level above, or None.
    """
    model, random = network.model, np.random.default_rng(0)
    height, width = (-(-max(side, model.minimum) // model.multiple) * model.multiple for side in (72, 136))
    rows, columns = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    planes = []
    for plane in range(network.channels + model.conditions):
        values = 0.2 + 0.5 * rows * (1 - columns) + 0.1 * np.sin((40 + 9 * plane) * columns + 25 * rows)
        values[(rows - 0.5) ** 2 + (columns - 0.3) ** 2 < 0.05] = 0.85 - 0.2 * plane / 3
        values[rows > 0.8] = 0.05
        planes.append(values + random.normal(0, 0.02, values.shape))
    image = torch.from_numpy(np.stack(planes)[None].clip(0, 1).astype(np.float32))
    hole = ((rows - 0.6) ** 2 + (columns - 0.6) ** 2 < 0.01) | (abs(rows - columns) < 0.02)
    mask = torch.from_numpy(hole[None, None].astype(np.float32))
    if model.joins_levels:
        return image, mask * 12 - 8  # logits of the level above
    if not model.sees_mask:
        return image, None
    return model.fill(image, mask), mask


def _shown(out: Tensor, network: Network) -> Tensor:
    """An output as people see it: an image, or probabilities."""
    return out.sigmoid() if network.gives_logits else out.clamp(0, 1)


def _largest(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape or not bool(a.isfinite().all()):
        return float("inf")
    return float((a - b).abs().max())
