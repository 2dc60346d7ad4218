"""What a step of training is, and the step of each task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from restore.data.loader import Batch
from restore.training.step import StepContext, train_step
from restore.training.trainable_network import TrainableNetwork
from restore.training.unpaired import cycle_step


class Step(Protocol):
    """A step of training: an update of G, and of D if there is one and it has joined.

    It does the same however its batches are split into parts and over processes, up to rounding. Only batch norm takes
    its statistics from the images of each part. If a gradient has NaN or Inf, the network stays as it was, and so do
    all statistics.
    """

    def __call__(
        self,
        g: TrainableNetwork,
        d: TrainableNetwork | None,
        batches: list[Batch],
        context: StepContext,
        *,
        d_batches: Sequence[list[Batch]] = (),
        apply_r1: bool = True,
    ) -> dict[str, Tensor]:
        """Make the step.

        Args:
            g: the generator, (image, mask) -> image or logits.
            d: the discriminator; None before it joins, or without adversarial loss.
            batches: the images of the step on this device, in parts over which gradients are accumulated.
            context: see there.
            d_batches: the images of each update of D, in parts likewise; with several updates, each takes images of its
                own (Gulrajani et al. 2017, algorithm 1). Empty: one update, on the images that G is updated on, as in
                pix2pix.
            apply_r1: add the R1 penalty in this step.

        Returns:
            Detached scalars by name, averaged over the parts, and those of D over its updates: the terms of the loss,
            `g_norm`; with D also `g_adversarial`, `d`, `d_norm`, `d_real`, `d_fake` (mean logits), `d_accuracy_real`,
            `d_accuracy_fake`, `d_sensitivity`. Except for detection also `output_thumbnail` and `clean_thumbnail`,
            1×3×8×8 (gray: 1×1×8×8).
        """
        ...


STEPS: dict[str, Step] = {
    "restoration": train_step,
    "detection": train_step,
    "unpaired": cycle_step,
    "one-sided": train_step,
    "generation": train_step,
}
