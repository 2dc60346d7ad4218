"""The networks of a training config, and the arguments that follow from the rest of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from restore.config import Settings
from restore.models.registry import DISCRIMINATORS, GENERATORS

if TYPE_CHECKING:
    from restore.training.config import TrainConfig


class NetworkConfig(Settings):
    """A network: the name of its builder and its arguments."""

    builder: str
    """Which kind of network."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the builder, documented at its class in `restore/models/`. Arguments that are left out keep their
    defaults. Change them for a larger, smaller or more stable network.
    """


class ModelConfig(NetworkConfig):
    """The generator (G)."""

    builder: str = "unet"
    """Kind of generator. `unet` takes any size, with or without a mask; `enlarge` enlarges `args.scale` times;
    `pix2pix` is the published network.
    """
    purpose: str = ""
    """One line that is stored in the weights file and printed by `restore models`. Empty: names the training damage."""

    @model_validator(mode="after")
    def _known(self) -> ModelConfig:
        if self.builder not in GENERATORS:
            raise ValueError(f"unknown generator {self.builder!r} (known: {', '.join(GENERATORS)})")
        return self


class DiscriminatorConfig(NetworkConfig):
    """The discriminator (D). Its input channels follow from the generator's."""

    builder: str = "patchgan"
    """Kind of discriminator: `patchgan`; to draw images from noise `dcgan` or `dense-gan`."""
    init: str | None = None
    """Start D from these weights: the folder of a run or its `last/` (the last state), a state, a folder with pix2pix's
    `latest_net_D.pth`, or a file. If `init` names the same run, G starts from its last state, too, instead of the best
    step. null: random weights.
    """
    steps: int = Field(1, ge=1)
    """Updates of D for each of G: 5 with wgan-gp; more than 1 if D is too weak. With more than 1, each takes a batch of
    its own, and so does G's; logged values are means over them.
    """
    pool: int = Field(50, ge=0)
    """Unpaired only: how many earlier outputs of each generator are kept, half of which D sees in place of new ones.
    Raise it if training oscillates. CycleGAN uses 50. 0: D sees new outputs alone.
    """
    augment: tuple[Literal["color", "translation", "cutout"], ...] = ()
    """Differentiable augmentation of D's inputs, clean and restored alike. Keeps D from memorizing a small data set
    (fewer than 1000 images).
    """

    @model_validator(mode="after")
    def _known(self) -> DiscriminatorConfig:
        if self.builder not in DISCRIMINATORS:
            raise ValueError(f"unknown discriminator {self.builder!r} (known: {', '.join(DISCRIMINATORS)})")
        if "in_channels" in self.args:
            raise ValueError("args.in_channels cannot be set: it follows from the generator")
        return self


def generator_args(config: TrainConfig) -> dict[str, Any]:
    """Arguments of the generator: those of the config, and those that follow from the task and the images."""
    if config.task == "detection":
        return {**config.model.args, "mask": False, "out_channels": 1}
    return {**config.model.args, **args_from_images(config), **sample_args(config)}


def sample_args(config: TrainConfig) -> dict[str, Any]:
    """Arguments of G and D that follow from the images which G draws; none for other tasks."""
    return {"side": config.data.patch, "classes": len(config.data.classes)} if config.task == "generation" else {}


def args_from_images(config: TrainConfig) -> dict[str, Any]:
    """Arguments of the generator that follow from the channels of the images."""
    return GENERATORS[config.model.builder].args_for(config.data.image_channels, config.data.condition_channels)
