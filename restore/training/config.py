"""What a training config may say. Every key is here, with the reason to touch it.

The text below a key is its description in the JSON schema (`restore train --schema`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from restore.config import Settings, find_config, load
from restore.data.config import DataConfig
from restore.degradations.pipeline import rename_old_step_keys
from restore.models import DISCRIMINATORS, GENERATORS

# What a network is to learn, a picture or a mask, and which keys then mean nothing.


_ADVERSARY = "a mask has one right answer, and is learned without an adversary"
_COMPARED = "a mask is compared by cross-entropy and Dice (loss.positive_weight, loss.dice_weight)"
_RECOGNISED = "a recognition network knows pictures, not masks"
_SETTLED = "leave it out: task settles it"

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
    "loss.r1_interval": _ADVERSARY,
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
    masks = config.task == "detection"
    for key, why in (_OF_PICTURES if masks else _OF_MASKS).items():
        if _differs_from_default(config, key):
            raise ValueError(f"{key} means nothing with task: {config.task}: {why}")
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
        raise ValueError(f"best_by cannot be {config.best_by} with task: {config.task}; one of {', '.join(scores)}")


def generator_args(config: TrainConfig) -> dict[str, Any]:
    """The generator's arguments: those of the config, and what the target settles."""
    return {**config.model.args, "mask": False, "out_channels": 1} if config.task == "detection" else config.model.args


def _differs_from_default(config: TrainConfig, key: str) -> bool:
    *parents, last = key.split(".")
    part: Any = config
    for parent in parents:
        part = getattr(part, parent)
    return bool(getattr(part, last) != type(part).model_fields[last].default)


Beta = Annotated[float, Field(ge=0, lt=1)]


class NetworkConfig(Settings):
    """A network: a builder's name and its arguments."""

    builder: str
    """Which kind of network."""
    args: dict[str, Any] = Field(default_factory=dict)
    """The builder's arguments, as its class in `restore/models/` explains them; what is left out keeps its default.
    Touch them for a larger, smaller or steadier network.
    """


class ModelConfig(NetworkConfig):
    """The generator. `purpose` is the line that `restore models` shows."""

    builder: str = "unet"
    """The kind of generator: `unet` takes any size, with or without a mask; `pix2pix` is the published network."""
    purpose: str = ""
    """One line that goes into the weights file, for `restore models` to show. Empty: what it was trained on."""

    @model_validator(mode="after")
    def _known(self) -> ModelConfig:
        if self.builder not in GENERATORS:
            raise ValueError(f"no generator is called {self.builder!r} (known: {', '.join(GENERATORS)})")
        return self


class DiscriminatorConfig(NetworkConfig):
    """The discriminator; its input channels are settled by what it is shown."""

    builder: str = "patchgan"
    """The kind of discriminator; `patchgan` is the only one."""
    steps: int = Field(1, ge=1)
    """Steps of D for each of G: 5 with wgan-gp, more than 1 where D lags behind."""
    augment: tuple[Literal["color", "translation", "cutout"], ...] = ()
    """Changes to what D sees, real and repaired alike, so that it cannot learn few pictures by heart: for under 1000
    pictures.
    """

    @model_validator(mode="after")
    def _known(self) -> DiscriminatorConfig:
        if self.builder not in DISCRIMINATORS:
            raise ValueError(f"no discriminator is called {self.builder!r} (known: {', '.join(DISCRIMINATORS)})")
        if "in_channels" in self.args:
            raise ValueError("leave args.in_channels out: it is settled by what the discriminator is shown")
        return self


class LossConfig(Settings):
    """What G minimises: the sum of its terms, each times its weight."""

    RENAMED: ClassVar[dict[str, str]] = {"r1_every": "r1_interval"}

    pixel: Literal["l1", "charbonnier"] = "l1"
    """How far the output is from the clean picture. charbonnier is smooth at zero, elsewhere the same as l1; pix2pix:
    l1.
    """
    pixel_weight: float = Field(1.0, ge=0)
    """Weight of the pixel loss: raise it where an adversary makes things up; pix2pix: 100."""
    hole_weight: float = Field(1.0, gt=0)
    """How much more a pixel in the hole counts than one outside. .inf looks at the hole alone: right where known
    pixels are the source's anyway; with 20 the zero error outside held a network at its first guess for a thousand
    steps.
    """
    adversarial: Literal["none", "vanilla", "lsgan", "hinge", "wgan-gp"] = "none"
    """The adversary. hinge with spectral norm is the steadiest; vanilla is pix2pix's; lsgan is gentler where D wins;
    wgan-gp for when the others collapse: slower, and D must not have batch norm.
    """
    adversarial_weight: float = Field(0.01, ge=0)
    """Weight of the adversary in G's loss: more for texture, less where it makes things up; pix2pix: 1 beside
    pixel_weight 100.
    """
    adversarial_start: int = Field(0, ge=0)
    """Steps of pixel loss alone before D joins: D then sees sensible pictures."""
    gradient_penalty: float = Field(10.0, ge=0)
    """Weight of the gradient penalty of wgan-gp; the paper's 10 rarely needs touching."""
    r1: float = Field(0.0, ge=0)
    """Weight of the penalty on D's slope at real pictures: try 1 to 10 where D grows without end; 0: off."""
    r1_interval: int = Field(16, ge=1)
    """Steps between two payments of `r1`, each so many times as dear: saves time; 1 pays at every step."""
    feature_matching: float = Field(0.0, ge=0)
    """Weight of G's matching D's activations, for steadier training: try 10 × adversarial_weight; 0: off."""
    perceptual: Literal["none", "lpips", "features"] = "none"
    """Distance in the features of a recognition network: textures instead of blur. lpips has learned weights,
    features is the plain distance.
    """
    perceptual_weight: float = Field(0.1, ge=0)
    """Weight of the perceptual loss: more for texture, less where it draws patterns that are not there."""
    perceptual_net: Literal["alex", "vgg", "squeeze"] = "vgg"
    """The recognition network of `perceptual`. Score with another one (`lpips_net`) than you train with."""
    perceptual_weights: Path | None = None
    """ImageNet weights of `perceptual_net` as a file, where they cannot be downloaded; null: downloaded."""
    positive_weight: float = Field(3.0, gt=0)
    """Of masks: how much more a damaged pixel counts in the cross-entropy than a sound one. Raise it where damage is
    missed, lower it where sound pixels are marked.
    """
    dice_weight: float = Field(1.0, ge=0)
    """Of masks: weight of Dice's overlap beside the cross-entropy: higher for small marks, 0 for none."""


class OptimizerConfig(Settings):
    """AdamW for both networks."""

    lr: float = Field(2e-4, gt=0)
    """Learning rate of G at its highest: lower it where the loss jumps or steps are skipped."""
    lr_discriminator: float | None = Field(None, gt=0)
    """Learning rate of D at its highest: a faster D (TTUR) for when it lags behind; null: as G's."""
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    """How much of AdamW's two running averages of G's gradients is kept per step: a lower first one where an adversary
    makes training swing; pix2pix: [0.5, 0.999].
    """
    betas_discriminator: tuple[Beta, Beta] | None = None
    """The same for D; null: as G's; [0, 0.99] suits wgan-gp."""
    weight_decay: float = Field(0.0, ge=0)
    """Pull of both networks' weights towards zero, against overfitting on few pictures; 0: none."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest gradient norm of G, against single bad batches; null: any."""
    clip_norm_discriminator: float | None = Field(None, gt=0)
    """Largest gradient norm of D, against single bad batches; null: any."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the rate falls over the run. cosine falls to zero, the best for a fixed budget; linear is flat for one half,
    then falls, as pix2pix; constant for runs without an end.
    """
    warmup_steps: int = Field(0, ge=0)
    """Steps in which the rate rises from zero: for large rates. After `init` there are 100 where this says 0."""


class CollapseConfig(Settings):
    """When a run is stopped because it goes nowhere. Counts are of log lines, except `max_nonfinite_steps`."""

    RENAMED: ClassVar[dict[str, str]] = {
        "nonfinite_steps": "max_nonfinite_steps",
        "diversity": "min_diversity",
        "pixel_rise": "max_pixel_loss_ratio",
        "growth": "max_d_growth",
        "blind": "min_d_sensitivity",
        "slope": "max_gradient_penalty",
        "logits": "max_logit",
    }

    max_nonfinite_steps: int = Field(20, ge=1)
    """Stop after so many steps in a row whose gradient is no number (each is skipped); fp16 skips some at the start."""
    patience: int = Field(5, ge=1)
    """Stop after so many log lines in a row that look collapsed: raise it where a run would have recovered."""
    min_diversity: float = Field(0.1, ge=0, lt=1)
    """Collapsed: outputs differ less than this share of how clean pictures do. Lower it where repaired pictures are
    alike by right; 0: off.
    """
    max_pixel_loss_ratio: float = Field(4.0, ge=0)
    """Collapsed: the pixel loss is so many times its best since D plays. Raise it where the adversary may cost more;
    0: off.
    """
    max_d_growth: float = Field(1.25, ge=0)
    """Runs away: D's filters are so many times their size of 200 steps ago: faster than G can follow; 0: off. Seen:
    1.00 to 1.06 at usual rates, 1.3 to 27 at a hundred times D's rate.
    """
    min_d_sensitivity: float = Field(0.1, ge=0, lt=1)
    """Collapsed: D's sensitivity, in the median of `patience` log lines, is less: it gives the same answers whatever it
    sees; 0: off. Seen: 0.2 and more at usual rates, 0.01 to 0.1 at a hundred times D's rate.
    """
    max_gradient_penalty: float = Field(10.0, ge=0)
    """Runs away: the gradient penalty of wgan-gp is more, before its weight; 0: off. Healthy: below 1."""
    max_logit: float = Field(200.0, ge=0)
    """Collapsed: D's answers grow beyond this (wgan-gp's have no scale: not watched). Raise it where G still learns;
    0: off.
    """


class TrainConfig(Settings):
    """A whole run."""

    RENAMED: ClassVar[dict[str, str]] = {
        "target": "task",
        "watch": "collapse",
        "accumulate": "grad_accumulation",
        "keep": "keep_checkpoints",
    }
    RENAMED_VALUES: ClassVar[dict[str, dict[str, str]]] = {"task": {"picture": "restoration", "mask": "detection"}}

    out: Path | None = None
    """The run's folder: name another one to start anew instead of going on. null: runs/<config name>."""
    seed: int = Field(0, ge=0)
    """What all randomness follows from: change it for a second run that differs by chance alone."""
    total_steps: int = Field(..., ge=1)
    """Steps of the whole run, of `data.batch` crops each. A finished run goes on when it is raised."""
    init: str | None = None
    """Start from these weights, with a fresh optimizer, to save time or to fit them to other pictures: a model's name,
    a weights file, or a pix2pix `*_net_G.pth`. null: from nothing.
    """
    task: Literal["restoration", "detection"] = "restoration"
    """What is learned: the clean picture; or the mask of the damage, for a detector (`restore detect`), which is shown
    the damaged picture and no mask. Leave clean pictures among the damaged ones, or it finds something everywhere.
    """
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda, cuda:N or mps: touch it where several GPUs are there, or one that
    others need. cuda without a number takes `devices` of them.
    """
    devices: int = Field(1, ge=1)
    """GPUs (or processes, on a CPU) of a machine that share each batch: as many as there are, for speed."""
    nodes: int = Field(1, ge=1)
    """Machines that share each batch, for speed; the command is started on each by torchrun or the like."""
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    """Numbers that the networks compute with: fp32 where steps are skipped or results are compared. tf32: float32 with
    fast matrix products, on NVIDIA; auto: bf16 where it is fast, fp16 on other NVIDIA GPUs, else fp32.
    """
    data: DataConfig
    """Where pictures come from, and what is cut out of them: the first thing to set."""
    damage: str | list[Any] | dict[str, Any] | None = None
    """What is to be repaired: a named damage, a file, or the steps themselves. Clean folders need one; real pairs
    (null) are damaged already.
    """
    model: ModelConfig = ModelConfig()
    """The generator, the network that repairs: touch it for a larger or smaller one, or one without a mask."""
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    """The network that judges, where `loss.adversarial` asks for one: touch it where it lags behind or runs away."""
    loss: LossConfig = LossConfig()
    """What the generator minimises: touch it to trade fidelity for texture."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How both networks descend: touch it where the loss jumps, or stands still."""
    collapse: CollapseConfig = CollapseConfig()
    """When a run is stopped because it goes nowhere: touch it where a healthy run is stopped."""
    grad_accumulation: int = Field(1, ge=1)
    """A batch in so many parts, one after the other: for batches that do not fit."""
    compile: bool = False
    """torch.compile both networks: minutes at the start, then faster on a GPU."""
    cuda_graph: bool = True
    """On one GPU, record a step once and launch it whole: small steps are several times as fast, and the same up to
    rounding; false where memory is short.
    """
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay a step of the average of the weights that is scored and shipped: less for short runs; 0: the newest
    weights.
    """
    best_by: Literal["psnr", "ssim", "lpips", "f1", "last"] = "psnr"
    """The validation score that `best.safetensors` is chosen by, for masks f1; last takes the newest: an adversary
    lowers PSNR while pictures get better.
    """
    lpips_net: Literal["none", "alex", "vgg", "squeeze"] = "alex"
    """Backbone of validation's LPIPS: another one than the loss has; none saves its time and download."""
    lpips_weights: Path | None = None
    """ImageNet weights of `lpips_net` as a file, where they cannot be downloaded; null: downloaded."""
    log_every: int = Field(20, ge=1)
    """Steps between two log lines, at each of which `collapse` looks too: lower it to see more of a short run."""
    validate_every: int = Field(500, ge=1)
    """Steps between two validations, where `best.safetensors` is chosen: raise it where scoring takes long."""
    early_stop: int | None = Field(None, ge=1)
    """Stop after so many validations in a row without a better `best_by` score; null: never."""
    save_every: int = Field(500, ge=1)
    """Steps between two saved states: what a crash may cost (Ctrl-C saves first)."""
    keep_checkpoints: int = Field(0, ge=0)
    """Older states kept beside last/, newest first: each can be gone back to, or exported, and takes as much disk."""

    @field_validator("damage", mode="before")
    @classmethod
    def _with_current_step_keys(cls, damage: Any) -> Any:
        return rename_old_step_keys(damage, where="damage")

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.data.folders and self.damage is None:
            raise ValueError("clean folders need a damage: what is to be repaired?")
        parts = self.devices * self.nodes * self.grad_accumulation
        if self.data.batch % parts:
            raise ValueError(f"data.batch must divide by devices × nodes × grad_accumulation = {parts}")
        if self.early_stop is not None and self.best_by == "last":
            raise ValueError("early_stop needs a score to watch: set best_by to psnr, ssim, lpips or f1")
        if not self.data.folders and self.damage is not None:
            raise ValueError("real pairs are damaged already: leave damage out")
        check_goal(self)
        return self


# On resume these may differ; everything else decides the weights.
FREE_ON_RESUME = (
    "out",
    "device",
    "devices",
    "nodes",
    "cuda_graph",
    "data.cache",
    "log_every",
    "save_every",
    "keep_checkpoints",
    "total_steps",
)


def load_train_config(name_or_path: str, overrides: list[str]) -> TrainConfig:
    """A training config by name or path, `out` settled to `runs/<config name>` where it says nothing.

    Raises:
        RestoreError: no such config, an unknown key, a value out of range.
    """
    path = find_config(name_or_path, "train")
    config = load(TrainConfig, path, overrides)
    return config if config.out is not None else config.model_copy(update={"out": Path("runs") / path.stem})
