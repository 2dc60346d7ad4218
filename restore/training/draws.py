"""Which batches of the stream each step uses."""

from __future__ import annotations

from collections.abc import Callable

from restore.data.loader import Batch
from restore.training.config import TrainConfig


def fresh_d_batches(config: TrainConfig, step: int) -> int:
    """How many batches of its own D gets in a step.

    Several updates of D take fresh images each, and G, too (Gulrajani et al. 2017, algorithm 1). A single update takes
    those of G, as in pix2pix.
    """
    joined = config.loss.adversarial != "none" and step >= config.loss.adversarial_start
    return config.discriminator.steps if joined and config.discriminator.steps > 1 else 0


def draw(next_batch: Callable[[], Batch], parts: int, d_batches: int) -> tuple[list[Batch], list[list[Batch]]]:
    """The batches of a step: G's, and those of D's updates; each in parts."""
    of_d = [next_batch().parts(parts) for _ in range(d_batches)]
    return next_batch().parts(parts), of_d
