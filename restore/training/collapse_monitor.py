"""Detects GAN collapse and stops the run with an explanation."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from restore.errors import RestoreError
from restore.training.config import CollapseConfig

_THUMBNAILS = 8  # steps whose first images are compared with each other
_GROWTH_STEPS = 200  # the filters of every D grow over a long run, so growth is measured over a short window
_MIN_DIVERSITY_STEPS = 500  # not checked before: an untrained network gives similar outputs for all inputs


class CollapseMonitor:
    """Checks every log line, and stops a run whose networks have collapsed.

    Args:
        config: the limits.
        adversarial: kind of adversarial loss. The outputs of a wgan-gp critic have no scale, so `max_logit` is not
            checked.
        out: folder of the run, for the message.
        discriminator: with its weights at `d_start`; None without adversarial loss.
        d_start: step at which D joins, or at which the run resumes.
    """

    def __init__(
        self,
        config: CollapseConfig,
        adversarial: str,
        out: Path,
        discriminator: nn.Module | None = None,
        d_start: int = 0,
    ) -> None:
        self.config, self.adversarial, self.out = config, adversarial, out
        # Parameters with several dimensions are filters; biases and norms may grow without harm. So may filters under
        # spectral norm, which divides them by their largest singular value.
        named = [] if discriminator is None else list(discriminator.named_parameters())
        self._filters = [p for name, p in named if p.ndim > 1 and "parametrizations." not in name]
        self._norms: deque[tuple[int, Tensor]] = deque([(d_start, self._filter_norm())] if self._filters else [])
        self._outputs: deque[Tensor] = deque(maxlen=_THUMBNAILS)
        self._cleans: deque[Tensor] = deque(maxlen=_THUMBNAILS)
        self._lines_in_a_row: dict[str, int] = {}
        self._pixel_losses: deque[float] = deque(maxlen=4 * config.patience)
        self._lowest_pixel_loss = math.inf
        self._sensitivities: deque[float] = deque(maxlen=config.patience)

    def state(self, fabric: Fabric) -> dict[str, Any]:
        """What a resumed run needs to log and check the same values, as plain values. Call it on all processes."""
        thumbnails = [torch.cat(list(images)) for images in (self._outputs, self._cleans) if images]
        if fabric.world_size > 1:  # each process has its own
            thumbnails = [fabric.all_gather(images) for images in thumbnails]  # type: ignore[misc]
        else:
            thumbnails = [images[None] for images in thumbnails]
        return {
            "thumbnails": [images.tolist() for images in thumbnails],
            "norms": [[step, norm.item()] for step, norm in self._norms],
            "lines_in_a_row": self._lines_in_a_row,
            "pixel_losses": list(self._pixel_losses),
            "lowest_pixel_loss": self._lowest_pixel_loss if math.isfinite(self._lowest_pixel_loss) else None,
            "sensitivities": list(self._sensitivities),
        }

    def load(self, state: Mapping[str, Any], fabric: Fabric) -> None:
        """Continue from a `state`; of a run with another number of processes, without thumbnails."""
        device = fabric.device
        for images, saved in zip((self._outputs, self._cleans), state["thumbnails"]):
            if len(saved) == fabric.world_size:
                images.extend(torch.tensor(saved[fabric.global_rank], device=device).split(1))
        if self._filters and state["norms"]:
            self._norms = deque((step, torch.tensor(norm, device=device)) for step, norm in state["norms"])
        self._lines_in_a_row = dict(state["lines_in_a_row"])
        self._pixel_losses.extend(state["pixel_losses"])
        self._lowest_pixel_loss = math.inf if state["lowest_pixel_loss"] is None else state["lowest_pixel_loss"]
        self._sensitivities.extend(state["sensitivities"])

    def add_thumbnails(self, output: Tensor, clean: Tensor) -> None:
        """Add the thumbnails of a step's first image, 1×3×h×w each: restored and clean."""
        self._outputs.append(output.clone())
        self._cleans.append(clean.clone())

    def diversity(self) -> dict[str, Tensor]:
        """How much outputs for different inputs differ, relative to the clean images; 1 is healthy.

        Returns:
            A scalar under `diversity`: 1 if the clean images are all alike. Empty until there are enough thumbnails.
        """
        if len(self._outputs) < _THUMBNAILS:
            return {}
        outputs, cleans = (torch.cat(list(images)).std(dim=0).mean() for images in (self._outputs, self._cleans))
        return {"diversity": torch.where(cleans > 0, outputs / cleans, 1.0)}

    def d_growth(self, step: int) -> dict[str, Tensor]:
        """The norm of D's filters relative to 200 steps ago, or to the step at which D joined.

        Call it at log lines while D is trained. If these are further apart, the growth is scaled to 200 steps.

        Returns:
            A scalar under `d_growth`; empty without D, and if all filters of D have spectral norm.
        """
        if not self._filters:
            return {}
        self._norms.append((step, self._filter_norm()))
        while len(self._norms) > 2 and step - self._norms[1][0] >= _GROWTH_STEPS:
            self._norms.popleft()
        (earlier, before), (_, now) = self._norms[0], self._norms[-1]
        return {"d_growth": (now / before) ** min(1.0, _GROWTH_STEPS / max(step - earlier, 1))}

    def _filter_norm(self) -> Tensor:
        return torch.nn.utils.get_total_norm([p.detach() for p in self._filters])

    def check(self, step: int, values: dict[str, float], skipped_in_a_row: int) -> None:
        """Check the values of a log line.

        Args:
            step: of the log line.
            values: with `diversity` and `d_growth`.
            skipped_in_a_row: consecutive steps until now that were skipped because of NaN or Inf.

        Raises:
            RestoreError: exit code 3: a network has collapsed.
        """
        limits = self.config
        if skipped_in_a_row >= limits.max_nonfinite_steps:
            self._stop(
                step,
                f"the gradients of the last {skipped_in_a_row} steps contain NaN or Inf",
                "lower optimizer.lr, set optimizer.clip_norm=1, or use precision=fp32",
            )
        diversity = values.get("diversity", 1.0)
        if self._lasts("diversity", step > _MIN_DIVERSITY_STEPS and diversity < limits.min_diversity):
            self._stop(
                step,
                f"the generator collapsed: different inputs give almost the same image (diversity {diversity:.2g})",
                "lower loss.adversarial_weight or optimizer.lr, or raise loss.adversarial_start",
            )
        if "d" in values:
            self._check_adversary(step, values)

    def _check_adversary(self, step: int, values: dict[str, float]) -> None:
        limits = self.config
        # Losses of single batches differ by a factor of ten, so only means over many lines are compared.
        kind = "pixel" if "pixel" in values else "cycle"
        self._pixel_losses.append(values.get(kind, 1.0))  # with images from noise there is neither
        mean = statistics.fmean(self._pixel_losses)
        if len(self._pixel_losses) == self._pixel_losses.maxlen:
            self._lowest_pixel_loss = min(self._lowest_pixel_loss, mean)
        ratio = mean / max(self._lowest_pixel_loss, 1e-8)
        if 0 < limits.max_pixel_loss_ratio < ratio:
            self._stop(
                step,
                f"the adversarial loss degrades the images: the {kind} loss is {ratio:.1f} times its lowest value",
                "lower loss.adversarial_weight or optimizer.lr_discriminator, or set loss.r1=10",
            )
        growth = values.get("d_growth", 1.0)
        if self._lasts("growth", 0 < limits.max_d_growth < growth):
            self._stop(
                step,
                f"the discriminator diverged: within {_GROWTH_STEPS} steps the norm of its filters grew by a factor of "
                f"{growth:.2f}, faster than the generator can follow",
                "lower optimizer.lr_discriminator",
            )
        if not math.isnan(values["d_sensitivity"]):
            self._sensitivities.append(values["d_sensitivity"])
        median = statistics.median(self._sensitivities) if self._sensitivities else 1.0
        if len(self._sensitivities) == limits.patience and median < limits.min_d_sensitivity:
            self._stop(
                step,
                "the discriminator collapsed: it gives the same output for clean and for restored images (sensitivity "
                f"{median:.2g})",
                "lower optimizer.lr_discriminator",
            )
        penalty = values.get("d_gradient_penalty", 0.0)
        if self._lasts("penalty", 0 < limits.max_gradient_penalty < penalty):
            self._stop(
                step,
                f"the discriminator diverged: its gradient penalty is {penalty:.3g}",
                "lower optimizer.lr_discriminator, or raise loss.gradient_penalty",
            )
        logit = max(abs(values["d_real"]), abs(values["d_fake"]))
        if self._lasts("logit", 0 < limits.max_logit < logit and self.adversarial != "wgan-gp"):
            self._stop(
                step,
                f"the discriminator diverged: its mean logit is {logit:.3g}",
                "lower optimizer.lr_discriminator, or set discriminator.args.spectral_norm=true or loss.r1=10",
            )

    def _lasts(self, name: str, exceeded: bool) -> bool:
        """Whether a limit has been exceeded for `patience` consecutive log lines."""
        self._lines_in_a_row[name] = self._lines_in_a_row.get(name, 0) + 1 if exceeded else 0
        return self._lines_in_a_row[name] >= self.config.patience

    def _stop(self, step: int, what: str, hint: str) -> None:
        raise RestoreError(
            f"stopped at step {step}: {what}",
            where=self.out,
            hint=f"{hint}; {self._kept()}",
            exit_code=3,
        )

    def _kept(self) -> str:
        """What the folder holds of the run."""
        files = (("the last saved state", "last/state.safetensors"), ("the best weights", "best.safetensors"))
        kept = [name for name, file in files if (self.out / file).is_file()]
        return f"the folder keeps {' and '.join(kept)}" if kept else "nothing was saved yet"
