"""What a training config may say. Every key is here, with the reason to touch it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from restore.datasets.config import DataConfig
from restore.models import DISCRIMINATORS, GENERATORS
from restore.settings import Settings, find_config, load

Beta = Annotated[float, Field(ge=0, lt=1)]


class NetworkConfig(Settings):
    """A network: a builder's name and its arguments."""

    builder: str
    args: dict[str, Any] = Field(default_factory=dict)


class ModelConfig(NetworkConfig):
    """The generator. `purpose` is the line that `restore models` shows."""

    builder: str = "unet"
    purpose: str = ""

    @model_validator(mode="after")
    def _known(self) -> ModelConfig:
        if self.builder not in GENERATORS:
            raise ValueError(f"no generator is called {self.builder!r} (known: {', '.join(GENERATORS)})")
        return self


class DiscriminatorConfig(NetworkConfig):
    """The discriminator; its input channels are settled by what it is shown."""

    builder: str = "patchgan"
    steps: int = Field(1, ge=1)  # of D for each of G: 5 with wgan-gp, more than 1 where D lags behind
    # Of what D sees, real and repaired alike, so that it cannot learn few pictures by heart: for under 1000 pictures.
    augment: tuple[Literal["color", "translation", "cutout"], ...] = ()

    @model_validator(mode="after")
    def _known(self) -> DiscriminatorConfig:
        if self.builder not in DISCRIMINATORS:
            raise ValueError(f"no discriminator is called {self.builder!r} (known: {', '.join(DISCRIMINATORS)})")
        if "in_channels" in self.args:
            raise ValueError("leave args.in_channels out: it is settled by what the discriminator is shown")
        return self


class LossConfig(Settings):
    """What G minimises: the sum of its terms, each times its weight."""

    pixel: Literal["l1", "charbonnier"] = "l1"  # charbonnier is smooth at zero; elsewhere the same
    pixel_weight: float = Field(1.0, ge=0)  # pix2pix: 100
    # How much more a pixel in the hole counts than one outside. .inf looks at the hole alone: right where known
    # pixels are the source's anyway; with 20 the zero error outside held a network at its first guess for a
    # thousand steps.
    hole_weight: float = Field(1.0, gt=0)
    # The adversary. hinge with spectral norm is the steadiest; vanilla is pix2pix's; lsgan is gentler where D wins;
    # wgan-gp for when the others collapse: slower, and D must not have batch norm.
    adversarial: Literal["none", "vanilla", "lsgan", "hinge", "wgan-gp"] = "none"
    adversarial_weight: float = Field(0.01, ge=0)  # pix2pix: 1 beside pixel_weight 100
    adversarial_start: int = Field(0, ge=0)  # steps of pixel loss alone before D joins: D then sees sensible pictures
    gradient_penalty: float = Field(10.0, ge=0)  # of wgan-gp; the paper's 10 rarely needs touching
    r1: float = Field(0.0, ge=0)  # slope of D on real pictures; try 1 to 10 where D grows without end
    r1_every: int = Field(16, ge=1)  # steps between two payments of r1, each so many times as dear: saves time
    feature_matching: float = Field(0.0, ge=0)  # G matches D's activations: steadier; try 10 x adversarial_weight
    # Distance in the features of a recognition network: textures instead of blur. lpips has learned weights, features
    # is the plain distance. Score with another backbone than you train with.
    perceptual: Literal["none", "lpips", "features"] = "none"
    perceptual_weight: float = Field(0.1, ge=0)
    perceptual_net: Literal["alex", "vgg", "squeeze"] = "vgg"
    perceptual_weights: Path | None = None  # the backbone as a file, where it cannot be downloaded


class OptimizerConfig(Settings):
    """AdamW for both networks."""

    lr: float = Field(2e-4, gt=0)  # of G
    lr_discriminator: float | None = Field(None, gt=0)  # a faster D (TTUR) for when it lags behind; None: as G's
    betas: tuple[Beta, Beta] = (0.9, 0.99)  # of G; pix2pix: [0.5, 0.999]
    betas_discriminator: tuple[Beta, Beta] | None = None  # None: as G's; [0, 0.99] suits wgan-gp
    weight_decay: float = Field(0.0, ge=0)  # against overfitting on few pictures
    clip_norm: float | None = Field(None, gt=0)  # largest gradient norm of G, against single bad batches; None: any
    clip_norm_discriminator: float | None = Field(None, gt=0)  # likewise of D
    # cosine falls to zero, the best for a fixed budget; linear is flat for one half, then falls, as pix2pix; constant
    # for runs without an end.
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_steps: int = Field(0, ge=0)  # the rate rises from zero: for large rates, and after `init`


class WatchConfig(Settings):
    """When a run is stopped because it goes nowhere. Counts are of log lines, except `nonfinite_steps`."""

    nonfinite_steps: int = Field(20, ge=1)  # so many steps in a row whose gradient is no number (each is skipped)
    patience: int = Field(5, ge=1)  # so many log lines in a row that look collapsed
    diversity: float = Field(0.1, ge=0, lt=1)  # outputs differ less than this share of how clean pictures do; 0: off
    pixel_rise: float = Field(4.0, ge=0)  # pixel loss so many times its best since D plays; 0: off
    # D's filters are so many times their size at the start: it learns faster than G can follow; 0: off. Seen: at usual
    # rates 1.0 after 20 steps, at a hundred times the rate 6 after 50. Raise it for very long runs.
    growth: float = Field(5.0, ge=0)
    logits: float = Field(200.0, ge=0)  # D's answers grow beyond this (wgan-gp's have no scale: not watched); 0: off


class TrainConfig(Settings):
    """A whole run."""

    out: Path | None = None  # None: runs/<config name>
    seed: int = Field(0, ge=0)
    total_steps: int = Field(..., ge=1)
    init: str | None = None  # start from these weights (a model's name or a file) with a fresh optimizer
    device: str = "auto"  # cuda without a number takes `devices` of them
    devices: int = Field(1, ge=1)  # GPUs (or processes, on a CPU) that share each batch
    nodes: int = Field(1, ge=1)  # machines; started on each by torchrun or the like
    # tf32: float32 with fast matrix products, on NVIDIA; auto: bf16 where it is fast, else fp32
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    data: DataConfig
    damage: str | list[Any] | dict[str, Any] | None = None  # a named damage, a file, or the steps themselves
    model: ModelConfig = ModelConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    watch: WatchConfig = WatchConfig()
    accumulate: int = Field(1, ge=1)  # a batch in so many parts, one after the other: for batches that do not fit
    compile: bool = False  # torch.compile both networks: minutes at the start, then faster on a GPU
    ema: float = Field(0.999, ge=0, lt=1)  # decay a step of the weights that are scored and shipped
    # The validation score that `best.safetensors` is chosen by; `last` takes the newest: an adversary lowers PSNR while
    # pictures get better.
    best_by: Literal["psnr", "ssim", "lpips", "last"] = "psnr"
    lpips_net: Literal["none", "alex", "vgg", "squeeze"] = "alex"  # backbone of validation's LPIPS
    lpips_weights: Path | None = None  # the backbone as a file, where it cannot be downloaded
    log_every: int = Field(20, ge=1)
    validate_every: int = Field(500, ge=1)
    early_stop: int | None = Field(None, ge=1)  # validations in a row without a better `best_by` score; None: never
    save_every: int = Field(500, ge=1)
    keep: int = Field(0, ge=0)  # older states beside last/, newest first: each can be gone back to, or exported

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.data.folders and self.damage is None:
            raise ValueError("clean folders need a damage: what is to be repaired?")
        parts = self.devices * self.nodes * self.accumulate
        if self.data.batch % parts:
            raise ValueError(f"data.batch must divide by devices × nodes × accumulate = {parts}")
        if self.early_stop is not None and self.best_by == "last":
            raise ValueError("early_stop needs a score to watch: set best_by to psnr, ssim or lpips")
        if not self.data.folders and self.damage is not None:
            raise ValueError("real pairs are damaged already: leave damage out")
        return self


# On resume these may differ; everything else decides the weights.
FREE_ON_RESUME = (
    "out",
    "device",
    "devices",
    "nodes",
    "data.cache",
    "early_stop",
    "log_every",
    "validate_every",
    "save_every",
    "keep",
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
