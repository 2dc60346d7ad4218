"""A watch on the adversary: what a person would look at in the curves, and a plain word when it goes wrong."""

from __future__ import annotations

import math
import statistics
from collections import deque
from pathlib import Path

import torch
from torch import Tensor, nn

from restore.errors import RestoreError
from restore.training.config import CollapseConfig

_REMEMBERED = 8  # steps whose first picture is compared with the others'
_GROWTH_STEPS = 200  # over a long run, any D grows
_PATIENT_STEPS = 500  # for a network to make different pictures of different inputs


class CollapseMonitor:
    """Counts what looks wrong at every log line, and stops a run that goes nowhere.

    Args:
        config: the limits.
        adversarial: the kind of adversary; a Wasserstein critic's answers have no scale and are not watched.
        out: the run's folder, for the message.
        discriminator: as it starts or goes on; None where there is none.
        begins: the step at which it does.
    """

    def __init__(
        self,
        config: CollapseConfig,
        adversarial: str,
        out: Path,
        discriminator: nn.Module | None = None,
        begins: int = 0,
    ) -> None:
        self.config, self.adversarial, self.out = config, adversarial, out
        self._filters = [] if discriminator is None else [p for p in discriminator.parameters() if p.ndim > 1]
        self._sizes: deque[tuple[int, Tensor]] = deque([(begins, self._size())] if self._filters else [])
        self._outputs: deque[Tensor] = deque(maxlen=_REMEMBERED)
        self._cleans: deque[Tensor] = deque(maxlen=_REMEMBERED)
        self._in_a_row: dict[str, int] = {}
        self._pixels: deque[float] = deque(maxlen=4 * config.patience)
        self._best_pixel = math.inf
        self._sensitivity: deque[float] = deque(maxlen=config.patience)

    def see(self, output: Tensor, clean: Tensor) -> None:
        """Remember the thumbnails of a step's first picture, as the network made it and as it is."""
        self._outputs.append(output.clone())
        self._cleans.append(clean.clone())

    def diversity(self) -> dict[str, Tensor]:
        """How much outputs of different inputs differ, as a share of how much the clean pictures do; 1 is healthy.

        Returns:
            Under `diversity`; nothing before enough pictures have been seen; 1 where the clean ones are all alike.
        """
        if len(self._outputs) < _REMEMBERED:
            return {}
        ours, theirs = (torch.cat(list(seen)).std(dim=0).mean() for seen in (self._outputs, self._cleans))
        return {"diversity": torch.where(theirs > 0, ours / theirs, 1.0)}

    def growth(self, step: int) -> dict[str, Tensor]:
        """The size (norm) of D's filters as a multiple of that 200 steps ago (or when D began), under `d_growth`.

        Called at log lines while D plays; where these lie further apart, it is the rate of growth. Nothing without D.
        """
        if not self._filters:
            return {}
        self._sizes.append((step, self._size()))
        while len(self._sizes) > 2 and step - self._sizes[1][0] >= _GROWTH_STEPS:
            self._sizes.popleft()
        (then, before), (_, now) = self._sizes[0], self._sizes[-1]
        return {"d_growth": (now / before) ** min(1.0, _GROWTH_STEPS / max(step - then, 1))}

    def _size(self) -> Tensor:
        return torch.nn.utils.get_total_norm([p.detach() for p in self._filters])

    def look(self, step: int, values: dict[str, float], skipped_in_a_row: int) -> None:
        """Look at a log line.

        Args:
            step: of the log line.
            values: its values, `diversity` and `d_growth` among them.
            skipped_in_a_row: steps until now that did nothing, because a gradient was no number.

        Raises:
            RestoreError: exit code 3: the run goes nowhere, and why.
        """
        limits = self.config
        if skipped_in_a_row >= limits.max_nonfinite_steps:
            self._stop(
                step,
                f"the gradients of the last {skipped_in_a_row} steps were not numbers",
                "lower optimizer.lr, set optimizer.clip_norm=1, or use precision=fp32",
            )
        diversity = values.get("diversity", 1.0)
        # A network that has not learned much yet makes the same of everything, too.
        alike = step > _PATIENT_STEPS and diversity < limits.min_diversity
        self._count("diversity", limits.min_diversity > 0 and alike)
        if self._held("diversity"):
            self._stop(
                step,
                f"the generator collapsed: different inputs give almost the same picture (diversity {diversity:.2g})",
                "lower loss.adversarial_weight or optimizer.lr, or start the adversary later",
            )
        if "d" not in values:
            return
        # Single batches differ by a factor of ten: only means of many are compared.
        self._pixels.append(values["pixel"])
        mean = statistics.fmean(self._pixels)
        if len(self._pixels) == self._pixels.maxlen:
            self._best_pixel = min(self._best_pixel, mean)
        rise = mean / max(self._best_pixel, 1e-8)
        if limits.max_pixel_loss_ratio > 0 and rise > limits.max_pixel_loss_ratio:
            self._stop(
                step,
                f"the adversary destroys the picture: the pixel loss is {rise:.1f} times what it was",
                "lower loss.adversarial_weight or optimizer.lr_discriminator, or set loss.r1=10",
            )
        grown = values.get("d_growth", 1.0)
        self._count("growth", limits.max_d_growth > 0 and grown > limits.max_d_growth)
        if self._held("growth"):
            self._stop(
                step,
                f"the discriminator ran away: within {_GROWTH_STEPS} steps its filters grew to {grown:.2f} times their "
                "size; what it had learned is gone, faster than the generator can follow",
                "lower optimizer.lr_discriminator",
            )
        if not math.isnan(values["d_sensitivity"]):
            self._sensitivity.append(values["d_sensitivity"])
        middle = statistics.median(self._sensitivity) if self._sensitivity else 1.0
        if len(self._sensitivity) == limits.patience and middle < limits.min_d_sensitivity:
            self._stop(
                step,
                "the discriminator collapsed: it gives the same answers to true and to repaired pictures (sensitivity "
                f"{middle:.2g}) and teaches the generator nothing",
                "lower optimizer.lr_discriminator",
            )
        penalty = values.get("d_gradient_penalty", 0.0)
        self._count("slope", limits.max_gradient_penalty > 0 and penalty > limits.max_gradient_penalty)
        if self._held("slope"):
            self._stop(
                step,
                f"the discriminator ran away: its slope is out of hand (gradient penalty {penalty:.3g})",
                "lower optimizer.lr_discriminator, or raise loss.gradient_penalty",
            )
        size = max(abs(values["d_real"]), abs(values["d_fake"]))
        watched = limits.max_logit > 0 and self.adversarial != "wgan-gp"
        self._count("logits", watched and size > limits.max_logit)
        if self._held("logits"):
            self._stop(
                step,
                f"the discriminator ran away: its answers are {size:.3g} in size and teach the generator nothing",
                "lower optimizer.lr_discriminator, or set discriminator.args.spectral_norm=true or loss.r1=10",
            )

    def _count(self, what: str, wrong: bool) -> None:
        self._in_a_row[what] = self._in_a_row.get(what, 0) + 1 if wrong else 0

    def _held(self, what: str) -> bool:
        return self._in_a_row[what] >= self.config.patience

    def _stop(self, step: int, what: str, hint: str) -> None:
        raise RestoreError(
            f"stopped at step {step}: {what}",
            where=self.out,
            hint=f"{hint}; the last saved state and the best weights are in place",
            exit_code=3,
        )
