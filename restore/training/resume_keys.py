"""Which keys of a config may change when a run resumes."""

from __future__ import annotations

from collections.abc import Iterable

LOSS_WEIGHTS = (
    "loss.pixel_weight",
    "loss.hole_weight",
    "loss.gradient",
    "loss.frequency",
    "loss.ms_ssim",
    "loss.adversarial_weight",
    "loss.adversarial_start",
    "loss.gradient_penalty",
    "loss.r1",
    "loss.r1_interval",
    "loss.feature_matching",
    "loss.cycle",
    "loss.identity",
    "loss.supervised",
    "loss.contrastive",
    "loss.contrastive_identity",
    "loss.perceptual_weight",
    "loss.positive_weight",
    "loss.dice_weight",
)
"""Weights of the terms of the loss, and when and how often they count. A stage may set them, too."""

MAY_CHANGE = (
    # How and where the run is computed. The weights are equal up to rounding.
    "out",
    "device",
    "devices",
    "nodes",
    "timeout_minutes",
    "precision",
    "threads",
    "compile",
    "cuda_graph",
    "grad_accumulation",
    "data.cache",
    "data.on_error",
    "model.purpose",
    # How long it takes, and what is logged and saved.
    "total_steps",
    "budget",
    "early_stop",
    "log_every",
    "save_every",
    "keep_checkpoints",
    "trackers",
    "resume",
    "stages",
    # How it is validated. Other training images than before are refused.
    "validate_every",
    "best_by",
    "lpips_net",
    "lpips_weights",
    "sample_scores",
    "fid_weights",
    "data.validation",
    "data.validation_count",
    "data.validation_size",
    # When it is stopped, and what helps against a collapse: rates, schedule, clipping, and the weights of the loss.
    "collapse",
    "optimizer",
    "ema",
    *LOSS_WEIGHTS,
    "loss.perceptual_weights",
)
"""Keys, or sections of keys, that may change when a run resumes. Each change is logged.

All others decide what the network is or learns from. Those in `resume.allow` may change all the same.
"""

FIXED = (
    "model.builder",
    "model.args",
    "discriminator.builder",
    "discriminator.args",
    "discriminator.pool",
    "optimizer.kind",
    "task",
    "init",
    "init_strict",
    "discriminator.init",
    "data.channels",
    "data.classes",
    "data.transfer",
)
"""Keys that can never change on resume: the saved weights would not fit, or the key only matters at the start."""


IMAGE_KEYS = (
    "data.folders",
    "data.input",
    "data.target",
    "data.side_by_side",
    "data.a",
    "data.b",
    "data.masks",
    "data.conditions",
    "data.validation",
    "data.validation_percent",
)
"""Keys that decide which images a run trains on."""


def is_fixed(key: str) -> bool:
    """Whether a dotted key can never change on resume; the channels of condition images are among them."""
    return is_within(key, FIXED) or (is_within(key, ("data.conditions",)) and key.endswith(".channels"))


def is_within(key: str, sections: Iterable[str]) -> bool:
    """Whether a dotted key is one of `sections`, or in one of them."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)
