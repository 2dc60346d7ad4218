"""What the keys of a training config ask of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from restore.config import known_keys
from restore.models.registry import GENERATORS
from restore.training.network_config import args_from_images
from restore.training.resume_keys import FIXED, is_within

if TYPE_CHECKING:
    from restore.training.config import TrainConfig

# Keys that have no effect for a task, and why.
_NO_ADVERSARY = "masks have one right answer, so detection is trained without a discriminator"
_SEGMENTATION_LOSS = "masks are compared by cross-entropy and Dice (loss.positive_weight, loss.dice_weight)"
_NO_BACKBONE = "the backbone compares images, not masks"
_RESTORATION_ONLY = {
    "loss.pixel": _SEGMENTATION_LOSS,
    "loss.pixel_weight": _SEGMENTATION_LOSS,
    "loss.hole_weight": _SEGMENTATION_LOSS,
    "loss.gradient": _SEGMENTATION_LOSS,
    "loss.frequency": _SEGMENTATION_LOSS,
    "loss.ms_ssim": _SEGMENTATION_LOSS,
    "loss.adversarial": _NO_ADVERSARY,
    "loss.adversarial_weight": _NO_ADVERSARY,
    "loss.adversarial_start": _NO_ADVERSARY,
    "loss.gradient_penalty": _NO_ADVERSARY,
    "loss.r1": _NO_ADVERSARY,
    "loss.r1_interval": _NO_ADVERSARY,
    "loss.feature_matching": _NO_ADVERSARY,
    "loss.perceptual": _NO_BACKBONE,
    "loss.perceptual_weight": _NO_BACKBONE,
    "loss.perceptual_net": _NO_BACKBONE,
    "loss.perceptual_weights": _NO_BACKBONE,
    "discriminator": _NO_ADVERSARY,
    "optimizer.lr_discriminator": _NO_ADVERSARY,
    "optimizer.betas_discriminator": _NO_ADVERSARY,
    "optimizer.clip_norm_discriminator": _NO_ADVERSARY,
    "lpips_weights": _NO_BACKBONE,
}
_DETECTION_ONLY = {
    "loss.positive_weight": "it weighs damaged pixels against intact ones (loss.hole_weight does that for holes)",
    "loss.dice_weight": "it compares masks",
}
_CYCLE = "only CycleGAN has a way back"
_NO_NOISE = "there is no noise to draw images from"
_GENERATION_ONLY = dict.fromkeys(("data.classes", "sample_scores", "fid_weights"), _NO_NOISE)
_UNPAIRED_ONLY = dict.fromkeys(("loss.cycle", "loss.identity", "discriminator.pool"), _CYCLE)
_UNPAIRED_ONLY["loss.supervised"] = "it weighs drawn damage beside images without pairs"
_CONTRASTIVE_ONLY = dict.fromkeys(
    ("loss.contrastive", "loss.contrastive_identity", "loss.contrastive_flip"), "only task: one-sided contrasts patches"
)
_NO_TRUTH = "there is no clean twin to compare an output with"
_WITH_TRUTH = {
    **{key: _NO_TRUTH for key, reason in _RESTORATION_ONLY.items() if reason in (_SEGMENTATION_LOSS, _NO_BACKBONE)},
    "loss.feature_matching": _NO_TRUTH,
}
_WITH_TRUTH.pop("lpips_weights")
_WITHOUT_EFFECT = {
    "restoration": _DETECTION_ONLY | _UNPAIRED_ONLY | _CONTRASTIVE_ONLY | _GENERATION_ONLY,
    "detection": _RESTORATION_ONLY | _UNPAIRED_ONLY | _CONTRASTIVE_ONLY | _GENERATION_ONLY,
    "unpaired": _DETECTION_ONLY | _WITH_TRUTH | _CONTRASTIVE_ONLY | _GENERATION_ONLY,
    "one-sided": _DETECTION_ONLY | _WITH_TRUTH | _UNPAIRED_ONLY | _GENERATION_ONLY,
    "generation": _DETECTION_ONLY | _UNPAIRED_ONLY | _CONTRASTIVE_ONLY | _WITH_TRUTH,
}


def check_consistency(config: TrainConfig) -> None:
    """Refuse values that contradict each other, and keys that have no effect.

    Raises:
        ValueError: the first of them, and why.
    """
    enlarges = GENERATORS[config.model.builder].enlarges
    needs_damage = config.task != "generation" and config.data.masks is None and not enlarges
    if config.data.folders and config.damage is None and needs_damage:
        raise ValueError("data.folders holds clean images, so damage must be set")
    if not config.data.folders and config.damage is not None and config.task != "unpaired":
        kind = "images of a and b" if config.data.is_unpaired else "real pairs"
        raise ValueError(f"damage cannot be combined with {kind}, which are already damaged")
    parts = config.devices * config.nodes * config.grad_accumulation
    if config.data.batch % parts:
        raise ValueError(f"data.batch must be a multiple of devices × nodes × grad_accumulation = {parts}")
    if config.early_stop is not None and config.best_by == "last":
        raise ValueError("early_stop needs a score: set best_by to psnr, ssim, lpips or f1")
    _check_task(config)
    if enlarges:
        _check_enlarging(config)
    _check_channels(config)
    _check_allowed(config)
    _check_stages(config)


def _check_stages(config: TrainConfig) -> None:
    starts = [stage.start for stage in config.stages]
    if starts != sorted(set(starts)):
        raise ValueError("each of the stages must start after the one before")
    if starts and starts[-1] >= config.total_steps:
        raise ValueError(f"a stage starts at step {starts[-1]}, but total_steps is {config.total_steps}")
    config.stage_configs()


def _check_allowed(config: TrainConfig) -> None:
    """Refuse entries of `resume.allow` that are no keys, or that can never change.

    Raises:
        ValueError: the first such entry.
    """
    for key in config.resume.allow:
        if is_within(key, FIXED):
            raise ValueError(f"resume.allow: {key} cannot change, because the saved weights belong to it")
        if key.partition(".")[0] != "damage" and key not in known_keys(type(config)):
            raise ValueError(f"resume.allow: there is no key {key!r}")


def _check_task(config: TrainConfig) -> None:
    """Refuse keys that have no effect for the task.

    Raises:
        ValueError: the first such key, and why.
    """
    detects = config.task == "detection"
    _check_unpaired(config)
    _check_generation(config)
    for key, reason in _WITHOUT_EFFECT[config.task].items():
        if not _is_default(config, key):
            raise ValueError(f"{key} has no effect with task: {config.task}: {reason}")
    for name in ("mask", "prefill", "out_channels") if detects else ("out_channels",):
        if name in config.model.args:
            raise ValueError(f"model.args.{name} cannot be set: it follows from the task")
    if detects and not GENERATORS[config.model.builder].can_detect:
        builders = ", ".join(name for name, network in GENERATORS.items() if network.can_detect)
        raise ValueError(f"task: detection needs model.builder: {builders}, not {config.model.builder}")
    if detects and config.damage is None and config.data.masks is None:
        raise ValueError("task: detection cannot use real pairs, which have no masks; set data.folders and damage")
    if config.task == "one-sided" and not GENERATORS[config.model.builder].has_features:
        builders = ", ".join(name for name, network in GENERATORS.items() if network.has_features)
        raise ValueError(f"task: one-sided needs model.builder: {builders}, not {config.model.builder}")
    scores: tuple[str, ...] = ("f1", "last") if detects else ("psnr", "ssim", "lpips", "last")
    if config.data.is_unpaired and config.data.validation.input is None:
        scores = ("last",)  # without a truth
    if config.task == "generation":
        scores = ("fid", "kid", "last") if config.sample_scores else ("last",)
    if config.best_by not in scores:
        raise ValueError(f"best_by cannot be {config.best_by} with task: {config.task}; use {', '.join(scores)}")


def _check_enlarging(config: TrainConfig) -> None:
    """Refuse keys that a network that enlarges has no use for.

    Raises:
        ValueError: the first such key, and why.
    """
    start = f"model.builder: {config.model.builder}"
    if not config.data.folders:
        raise ValueError(f"{start} makes the small images itself from clean ones: set data.folders, not pairs")
    if config.data.masks is not None or config.loss.hole_weight != 1:
        key = "data.masks" if config.data.masks is not None else "loss.hole_weight"
        raise ValueError(f"{key} has no effect with {start}, which fills no holes")


def _check_unpaired(config: TrainConfig) -> None:
    unpaired = config.task in ("unpaired", "one-sided")
    if unpaired != config.data.is_unpaired:
        raise ValueError("data.a, data.b and task: unpaired or one-sided need each other")
    if not unpaired:
        return
    if config.loss.adversarial == "none":
        raise ValueError(f"task: {config.task} learns from its adversaries alone: set loss.adversarial")
    if config.devices * config.nodes > 1:
        raise ValueError(f"task: {config.task} runs in one process: set devices and nodes to 1")
    if config.damage is None and not _is_default(config, "loss.supervised"):
        raise ValueError("loss.supervised has no effect without damage, which degrades images of data.b")
    if config.task == "unpaired" and any("patch" in stage.data for stage in config.stages):
        raise ValueError("a stage cannot set data.patch with task: unpaired: the pool holds images of one size")


def _check_generation(config: TrainConfig) -> None:
    draws = config.task == "generation"
    builder, judge = config.model.builder, config.discriminator.builder
    if draws != GENERATORS[builder].draws:
        fit = ", ".join(name for name, network in GENERATORS.items() if network.draws == draws)
        raise ValueError(f"task: {config.task} needs model.builder: {fit}, not {builder}")
    if config.loss.adversarial != "none" and draws != (judge != "patchgan"):
        fit = "dcgan, dense-gan" if draws else "patchgan"
        raise ValueError(f"task: {config.task} needs discriminator.builder: {fit}, not {judge}")
    if not draws:
        return
    if config.loss.adversarial == "none" or config.loss.adversarial_start:
        raise ValueError("task: generation learns from D alone: set loss.adversarial, and no adversarial_start")
    if not config.data.folders or config.damage is not None or config.data.masks or config.data.conditions:
        raise ValueError("task: generation takes clean images alone: set data.folders, and no damage or masks")
    if config.data.is_linear or any("patch" in stage.data for stage in config.stages):
        raise ValueError("data.transfer: linear, and stages of data.patch, have no effect with task: generation")
    for key in {"side", "classes"} & {*config.model.args, *config.discriminator.args}:
        raise ValueError(f"args.{key} cannot be set: it follows from data.patch and data.classes")


def _check_channels(config: TrainConfig) -> None:
    """Refuse images that the network cannot have been built for.

    Raises:
        ValueError: the reason.
    """
    if config.data.channels == "gray" and config.task == "detection":
        raise ValueError("data.channels: gray has no effect with task: detection: detectors see gray as color")
    if config.data.is_linear and config.task == "detection":
        raise ValueError("data.transfer: linear has no effect with task: detection: detectors see sRGB")
    if config.data.conditions and config.task == "detection":
        raise ValueError("data.conditions has no effect with task: detection: detectors see the image alone")
    try:
        found = args_from_images(config)
    except ValueError as error:
        raise ValueError(f"model.builder: {config.model.builder}: {error}") from error
    for name in found:
        if name in config.model.args:
            raise ValueError(
                f"model.args.{name} cannot be set: it follows from the images (data.channels, data.conditions)"
            )


def _is_default(config: TrainConfig, key: str) -> bool:
    *parents, last = key.split(".")
    part: Any = config
    for parent in parents:
        part = getattr(part, parent)
    return bool(getattr(part, last) == type(part).model_fields[last].default)
