"""What a training config may say. Every key is here, with the reason to touch it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from restore.models import DISCRIMINATORS, GENERATORS
from restore.settings import Settings, find_config, load

Range = Annotated[tuple[float, float], Field(description="[low, high]")]


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

    @model_validator(mode="after")
    def _known(self) -> DiscriminatorConfig:
        if self.builder not in DISCRIMINATORS:
            raise ValueError(f"no discriminator is called {self.builder!r} (known: {', '.join(DISCRIMINATORS)})")
        return self


class DataConfig(Settings):
    """Where pictures come from: exactly one of `folders`, `input` + `target`, `side_by_side`."""

    folders: tuple[Path, ...] = ()  # clean photographs; pairs are made by `damage`
    input: Path | None = None  # real pairs: damaged pictures, ...
    target: Path | None = None  # ... and the clean ones under the same relative names
    side_by_side: Path | None = None  # real pairs in one picture each, A on the left, B on the right
    direction: Literal["AtoB", "BtoA"] = "AtoB"  # of side_by_side
    patch: int = Field(128, ge=16, le=4096)  # side of a training crop in pixels
    batch: int = Field(8, ge=1)  # crops a step
    scale: Range = (
        1.0,
        1.0,
    )  # make pictures smaller by a factor from this range: hides JPEG traces, adds variety
    resize: int | None = Field(
        None, ge=16
    )  # every picture to this square when loaded, as pix2pix does; None = as it is
    flip: bool = True  # mirrored left-right half of the time
    rotate: bool = False  # quarter turns too
    validation_percent: float = Field(3.0, ge=0, le=50)  # of the pictures, chosen by file name, never trained on
    validation_count: int = Field(32, ge=1)  # how many of those are scored
    validation_size: int = Field(256, ge=32)  # centre crop that is scored
    on_error: Literal["skip", "fail"] = "skip"  # what a picture that cannot be read does

    @model_validator(mode="after")
    def _one_source(self) -> DataConfig:
        given = [
            bool(self.folders),
            self.input is not None or self.target is not None,
            self.side_by_side is not None,
        ]
        if sum(given) != 1:
            raise ValueError("needs exactly one of folders, input + target, side_by_side")
        if (self.input is None) != (self.target is None):
            raise ValueError("input and target come together")
        if not 0.05 <= self.scale[0] <= self.scale[1] <= 1:
            raise ValueError("scale is [low, high] within 0.05 to 1")
        if self.resize is not None and self.resize < self.patch:
            raise ValueError("resize must be at least patch")
        return self


class LossConfig(Settings):
    """What G minimises: `pixel_weight` × pixel + `adversarial_weight` × adversarial."""

    pixel: Literal["l1", "charbonnier"] = "l1"  # charbonnier is smooth at zero; elsewhere the same
    pixel_weight: float = Field(1.0, ge=0)  # pix2pix: 100
    hole_weight: float = Field(1.0, gt=0)  # how much more a pixel in the hole counts than one outside
    adversarial: Literal["none", "vanilla", "lsgan", "hinge"] = "none"  # hinge with spectral norm is the steadiest
    adversarial_weight: float = Field(0.01, ge=0)  # pix2pix: 1 beside pixel_weight 100
    adversarial_start: int = Field(0, ge=0)  # steps of pixel loss alone before D joins: D then sees sensible pictures


class OptimizerConfig(Settings):
    """AdamW for both networks."""

    lr: float = Field(2e-4, gt=0)  # of G
    lr_discriminator: float | None = Field(None, gt=0)  # None: as G's
    betas: tuple[float, float] = (0.9, 0.99)  # pix2pix: [0.5, 0.999]
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float | None = Field(None, gt=0)  # largest gradient norm of G; None: no clipping
    schedule: Literal["constant", "linear", "cosine"] = (
        "cosine"  # to zero; linear: flat for one half, then down, as pix2pix
    )
    warmup_steps: int = Field(0, ge=0)  # the rate rises from zero


class TrainConfig(Settings):
    """A whole run."""

    out: Path | None = None  # None: runs/<config name>
    seed: int = Field(0, ge=0)
    total_steps: int = Field(..., ge=1)
    init: str | None = None  # start from these weights (a model's name or a file) with a fresh optimizer
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    data: DataConfig
    damage: str | list[Any] | dict[str, Any] | None = None  # a named damage, a file, or the steps themselves
    model: ModelConfig = ModelConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    ema: float = Field(0.999, ge=0, lt=1)  # decay a step of the weights that are scored and shipped
    # The validation score that `best.safetensors` is chosen by; `last` takes the newest: an adversary lowers PSNR while
    # pictures get better.
    best_by: Literal["psnr", "ssim", "lpips", "last"] = "psnr"
    lpips_net: Literal["none", "alex", "vgg", "squeeze"] = "alex"  # backbone of validation's LPIPS
    lpips_weights: Path | None = None  # the backbone as a file, where it cannot be downloaded
    log_every: int = Field(20, ge=1)
    validate_every: int = Field(500, ge=1)
    save_every: int = Field(500, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.data.folders and self.damage is None:
            raise ValueError("clean folders need a damage: what is to be repaired?")
        if not self.data.folders and self.damage is not None:
            raise ValueError("real pairs are damaged already: leave damage out")
        return self


# On resume these may differ; everything else decides the weights.
FREE_ON_RESUME = ("out", "device", "log_every", "validate_every", "save_every", "total_steps")


def load_train_config(name_or_path: str, overrides: list[str]) -> TrainConfig:
    """A training config by name or path, `out` settled to `runs/<config name>` where it says nothing.

    Raises:
        RestoreError: no such config, an unknown key, a value out of range.
    """
    path = find_config(name_or_path, "train")
    config = load(TrainConfig, path, overrides)
    return config if config.out is not None else config.model_copy(update={"out": Path("runs") / path.stem})
