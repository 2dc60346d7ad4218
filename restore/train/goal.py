"""What a network is to learn, a picture or a mask, and which keys then mean nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restore.train.config import TrainConfig

_ADVERSARY = "a mask has one right answer, and is learned without an adversary"
_COMPARED = "a mask is compared by cross-entropy and Dice (loss.positive_weight, loss.dice_weight)"
_RECOGNISED = "a recognition network knows pictures, not masks"
_SETTLED = "leave it out: target settles it"

#: Keys that mean nothing where a mask is learned, and why.
_OF_PICTURES = {
    "loss.pixel": _COMPARED,
    "loss.pixel_weight": _COMPARED,
    "loss.hole_weight": _COMPARED,
    "loss.adversarial": _ADVERSARY,
    "loss.adversarial_weight": _ADVERSARY,
    "loss.adversarial_start": _ADVERSARY,
    "loss.gradient_penalty": _ADVERSARY,
    "loss.r1": _ADVERSARY,
    "loss.r1_every": _ADVERSARY,
    "loss.feature_matching": _ADVERSARY,
    "loss.perceptual": _RECOGNISED,
    "loss.perceptual_weight": _RECOGNISED,
    "loss.perceptual_net": _RECOGNISED,
    "loss.perceptual_weights": _RECOGNISED,
    "discriminator": _ADVERSARY,
    "optimizer.lr_discriminator": _ADVERSARY,
    "optimizer.betas_discriminator": _ADVERSARY,
    "optimizer.clip_norm_discriminator": _ADVERSARY,
    "lpips_weights": _RECOGNISED,
}
#: And the other way round.
_OF_MASKS = {
    "loss.positive_weight": "a picture's pixels are not rare (loss.hole_weight weighs those in holes)",
    "loss.dice_weight": "it compares masks",
}


def check_goal(config: TrainConfig) -> None:
    """That nothing is asked for that means nothing for what is learned.

    Raises:
        ValueError: the first such key, and why.
    """
    masks = config.target == "mask"
    for key, why in (_OF_PICTURES if masks else _OF_MASKS).items():
        if _differs_from_default(config, key):
            raise ValueError(f"{key} means nothing with target: {config.target}: {why}")
    settled = ("mask", "prefill", "out_channels") if masks else ("out_channels",)
    for name in settled:
        if name in config.model.args:
            raise ValueError(f"model.args.{name}: {_SETTLED}")
    if masks and config.model.builder != "unet":
        raise ValueError(f"only unet learns masks, not {config.model.builder}")
    if masks and config.damage is None:
        raise ValueError("real pairs have no masks to learn from: give clean folders and a damage")
    scores = ("f1", "last") if masks else ("psnr", "ssim", "lpips", "last")
    if config.best_by not in scores:
        raise ValueError(f"best_by cannot be {config.best_by} with target: {config.target}; one of {', '.join(scores)}")


def generator_args(config: TrainConfig) -> dict[str, Any]:
    """The generator's arguments: those of the config, and what the target settles."""
    return {**config.model.args, "mask": False, "out_channels": 1} if config.target == "mask" else config.model.args


def _differs_from_default(config: TrainConfig, key: str) -> bool:
    *parents, last = key.split(".")
    part: Any = config
    for parent in parents:
        part = getattr(part, parent)
    return bool(getattr(part, last) != type(part).model_fields[last].default)
