"""Fill holes with a generator of images: search for the noise from which it draws their surroundings.

Yeh, Chen, Lim, Schwing, Hasegawa-Johnson, Do, "Semantic Image Inpainting with Deep Generative Models", CVPR 2017. A
generator knows one kind of image, of one size, so this fills holes in such images alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from restore import progress
from restore.checkpoints import BEST, load_strictly, read_state
from restore.errors import RestoreError
from restore.models.dcgan import SampleDiscriminator, SampleNetwork
from restore.models.registry import build_discriminator
from restore.models.unet import harmonic_fill
from restore.restorers.base import ModelRequirements, Restorer
from restore.restorers.sampler import SampleOptions, latents

# As published: steps of Adam on the noise, the weight λ of the prior loss (eq. 4), the window of the weights (eq. 2).
STEPS = 1500
PRIOR_WEIGHT = 0.003
WINDOW_PX = 7

#: The noise stays within ± this. The paper's is uniform in ±1 and stays there. Here it is normal, and 95 % lie in ±2.
LIMIT = 2.0
#: Learning rate of Adam, which the paper does not state.
RATE = 0.03
#: The paper starts from one random point. Here, this many points are drawn, and the search starts from the best few.
DRAWN, FOLLOWED = 64, 4


@dataclass(frozen=True)
class Judge:
    """The discriminator of a run, in eval mode, and the adversarial loss that it was trained with."""

    network: SampleDiscriminator
    adversarial: str

    def loss(self, drawn: Tensor, labels: Tensor | None) -> Tensor:
        """The prior loss of each image without its weight λ, B: eq. 4, or the generator's loss in its training."""
        logits: Tensor = self.network(drawn, labels)[:, 0]
        if self.adversarial == "vanilla":
            return -F.softplus(logits)  # log(1 - D)
        return (logits - 1).square() if self.adversarial == "lsgan" else -logits


def context_weights(hole: Tensor) -> Tensor:
    """How much each pixel counts: the share of its window that lies in a hole; nothing in a hole itself (eq. 2).

    Args:
        hole: B×1×H×W, above 0 in holes.
    """
    inside = (hole > 0).float()
    share = F.avg_pool2d(inside, WINDOW_PX, 1, WINDOW_PX // 2, count_include_pad=False)
    return share * (1 - inside)


class LatentPrior(Restorer):
    """Fills holes by a search for the noise from which a generator draws their surroundings.

    The context loss compares what is drawn with the pixels around the hole, the prior loss is the discriminator's
    judgement. Poisson blending then moves the colors of what is drawn to those at the hole's edge (section 3.3).

    Args:
        name: how the user calls it.
        model: the generator. Where it draws several classes, all are tried.
        device: where it computes.
        judge: None: the search goes by the context alone.
        sha256: of the weights' file.
        seed: of the noise that the search starts from; another one ends with another fill.
        steps: of the search; None: as published.
    """

    def __init__(
        self,
        name: str,
        model: SampleNetwork,
        device: torch.device,
        judge: Judge | None = None,
        sha256: str | None = None,
        seed: int = 0,
        steps: int | None = None,
    ) -> None:
        side, self.channels = model.multiple, model.channels
        self.name, self.device, self.sha256, self.engine = name, device, sha256, "torch"
        self.purpose = f"fills holes in images of {side}×{side} px, of the kind that it draws"
        self.requirements = ModelRequirements(needs_mask=True, tileable=False)
        self.model = model.to(device).eval().requires_grad_(False)
        self.judge, self.seed, self.steps = judge, seed, STEPS if steps is None else steps
        if judge is not None:
            judge.network.to(device).eval().requires_grad_(False)

    @property
    def network(self) -> SampleNetwork:
        """The generator."""
        return self.model

    def with_seed(self, seed: int) -> LatentPrior:
        """The same, starting from other noise."""
        return LatentPrior(self.name, self.model, self.device, self.judge, self.sha256, seed, self.steps)

    def prepare(self, image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Check that it is an image like those the generator draws; see `Restorer.prepare`.

        Raises:
            RestoreError: it has another size, or color where the generator draws gray.
        """
        if mask is not None and bool((mask > 0).any()):
            side, (height, width) = self.model.multiple, image.shape[-2:]
            if (height, width) != (side, side):
                raise RestoreError(
                    f"{self.name} fills holes in images of {side}×{side} px alone, not of {width}×{height}",
                    hint=f"cut out what it draws, and resize it to {side}×{side} with its mask; or choose another "
                    "--model",
                )
            if self.channels == 1 and bool((((image[:, 1:3] - image[:, :1]).abs() > 0.5 / 255) & (mask <= 0)).any()):
                raise RestoreError(f"{self.name} draws gray images, and this one has color", hint="make it gray")
        return super().prepare(image, mask)

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return image
        filled = []
        for one, hole, share in zip(image.split(1), mask.split(1), progress.shares([1] * len(image))):
            with progress.part(*share):
                drawn = self.search(one, hole).to(one).expand_as(one)
            blended = drawn if bool((hole > 0).all()) else drawn + harmonic_fill(one - drawn, hole)
            filled.append(torch.where(hole > 0, blended, one))
        return torch.cat(filled)

    def search(self, image: Tensor, hole: Tensor) -> Tensor:
        """The image that the generator draws from the best noise, 1×C×S×S in [0, 1].

        Args:
            image: 1×3×S×S, [0, 1], finite.
            hole: 1×1×S×S, above 0 in holes.
        """
        # The search needs gradients, which nothing that was made in inference mode can have.
        with torch.inference_mode(False), torch.enable_grad():
            target = image[:, : self.channels].detach().clone().float().to(self.device)
            weights = context_weights(hole.detach().clone().to(self.device))
            noise = latents(SampleOptions(DRAWN, self.seed, LIMIT), self.model.latents).to(self.device)
            labels = None
            if self.model.classes:
                labels = torch.arange(DRAWN, device=self.device) % self.model.classes
            with torch.no_grad():
                losses = self._losses(noise, labels, target, weights)
            start = losses.argsort(stable=True)[:FOLLOWED]
            labels = None if labels is None else labels[start]
            best, lowest = noise[start], losses[start]
            noise = best.clone().requires_grad_()
            optimizer = torch.optim.Adam([noise], lr=RATE)
            for step in range(self.steps):
                losses = self._losses(noise, labels, target, weights)
                better = losses.detach() < lowest
                best = torch.where(better[:, None], noise.detach(), best)
                lowest = torch.where(better, losses.detach(), lowest)
                optimizer.zero_grad()
                losses.sum().backward()
                optimizer.step()
                with torch.no_grad():
                    noise.clamp_(-LIMIT, LIMIT)
                progress.done((step + 1) / self.steps)
            at = lowest.argmin(keepdim=True)
            with torch.no_grad():
                drawn: Tensor = self.model(best[at], None if labels is None else labels[at])
            return drawn

    def _losses(self, noise: Tensor, labels: Tensor | None, target: Tensor, weights: Tensor) -> Tensor:
        """The context loss (eq. 3, a sum over pixels in [-1, 1]) and the weighted prior loss of each image, B."""
        drawn = self.model(noise, labels)
        losses: Tensor = 2 * (weights * (drawn - target)).abs().flatten(1).sum(1)
        if self.judge is not None:
            losses = losses + PRIOR_WEIGHT * self.judge.loss(drawn * 2 - 1, labels)
        return losses


def open_latent_prior(
    name: str,
    path: Path,
    model: SampleNetwork,
    device: torch.device,
    sha256: str | None,
    on_event: Callable[[str], None],
) -> LatentPrior:
    """A generator from its weights file, with the discriminator of its run if that is beside it.

    Args:
        name: how the user calls it.
        path: the weights file.
        model: the generator, loaded.
        device: where it will compute.
        sha256: of the file.
        on_event: called if there is no discriminator.

    Raises:
        RestoreError: the discriminator cannot be read.
    """
    judge = _open_judge(path, model)
    if judge is None:
        on_event(f"{name} has no discriminator beside its weights: the search goes by the surroundings of holes alone")
    return LatentPrior(name, model, device, judge, sha256)


def _open_judge(path: Path, model: SampleNetwork) -> Judge | None:
    """The discriminator in the last state of the run that wrote `path`; None if there is none."""
    config_file, state = path.parent / "config.yaml", path.parent / "last" / "state.safetensors"
    if path.name != BEST or not (config_file.is_file() and state.is_file()):
        return None
    try:
        config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
        builder, args = config["discriminator"]["builder"], config["discriminator"]["args"]
        adversarial = config["loss"]["adversarial"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise RestoreError("this run's config does not name its discriminator", where=config_file) from error
    seen = {"side": model.multiple, "classes": model.classes, "in_channels": model.channels}
    network = build_discriminator(builder, {**args, **seen}, where=str(config_file))
    if not isinstance(network, SampleDiscriminator):
        return None
    tensors = {name[2:]: value for name, value in read_state(state)[0].items() if name.startswith("d.")}
    load_strictly(network, tensors, state)
    return Judge(network, str(adversarial))
