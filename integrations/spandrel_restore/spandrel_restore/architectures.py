"""The architectures as spandrel wants them: which weights are theirs, and what these tell of their network."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
from spandrel import (
    Architecture,
    ImageModelDescriptor,
    MaskedImageModelDescriptor,
    ModelTiling,
    StateDict,
)
from torch import Tensor

from spandrel_restore.networks import HYPERPARAMETERS, RestorePyramidUNet, RestoreUNet

Network = TypeVar("Network", RestoreUNet, RestorePyramidUNet)

#: A network that halves the image more often is none of ours, and would need images of 64 thousand pixels.
_MAX_HALVINGS = 15


class _Arch(Architecture[Network], Generic[Network]):
    """What both architectures share. They detect by all keys and shapes, so no other network is mistaken for theirs.

    Attributes:
        network: the class of its networks.
        invisible: hyperparameters that no shape tells, and their types.
    """

    network: type[Network]
    invisible: Mapping[str, type]

    def __init__(self, id: str, name: str) -> None:
        super().__init__(id=id, name=name, detect=lambda state: self.infer(state) is not None)

    @abstractmethod
    def infer_channels(self, takes: int, gives: int) -> dict[str, Any] | None:
        """The hyperparameters that follow from the channels of the first and the last convolution; None: not ours."""

    def infer(self, state: Mapping[str, object]) -> dict[str, Any] | None:
        """The hyperparameters of the network that has exactly these keys and shapes; None: there is none."""
        shapes = {key: tuple(value.shape) for key, value in state.items() if isinstance(value, Tensor)}
        if len(shapes) != len(state):
            return None
        try:
            args = self._infer(state, shapes)
            if args is None:
                return None
            with torch.device("meta"):
                network = self.network(**args)
            expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        except (KeyError, IndexError, ValueError, TypeError, RuntimeError):  # whatever foreign shapes cause
            return None
        # What the optional tensor says is taken; its length is not compared.
        same = {key: shape for key, shape in shapes.items() if key != HYPERPARAMETERS}
        expected.pop(HYPERPARAMETERS, None)
        return args if same == expected else None

    def _infer(self, state: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
        head, tail = shapes["head.weight"], shapes["tail.weight"]
        args = self.infer_channels(head[1], tail[0])
        if args is None:
            return None
        levels = _count(shapes, "downs.{}.weight")
        if levels > _MAX_HALVINGS:
            return None
        args["widths"] = (head[0], *(shapes[f"downs.{level}.weight"][0] for level in range(levels)))
        counts = [_count(shapes, f"encoder.{level}.{{}}.conv1.weight") for level in range(levels)]
        args["blocks"] = (*counts, _count(shapes, "bottom.{}.conv1.weight"))
        args["norm"] = "batch" if "bottom.0.norm1.weight" in shapes else "none"
        if HYPERPARAMETERS in state:
            args |= self._read(state[HYPERPARAMETERS])
        return args

    def _read(self, stored: Tensor) -> dict[str, Any]:
        """The hyperparameters in the optional tensor.

        Raises:
            ValueError: it holds something else.
        """
        values = json.loads(bytes(stored.flatten().tolist()))
        if not isinstance(values, dict) or values.keys() - self.invisible.keys():
            raise ValueError("unknown hyperparameters")
        for key, value in values.items():
            if type(value) is not self.invisible[key]:
                raise ValueError(f"{key} is no {self.invisible[key].__name__}")
        if "dilations" in values:
            if not all(type(one) is int and 1 <= one <= 256 for one in values["dilations"]):
                raise ValueError("dilations are numbers from 1 to 256")
            values["dilations"] = tuple(values["dilations"])
        if values.get("coarsest_px", 1) < 1:
            raise ValueError("coarsest_px must be at least 1")
        return values

    def with_hyperparameters(self, state: StateDict, args: Mapping[str, Any]) -> StateDict:
        """The state dict with those of `args` that no shape tells; unchanged if it is another architecture's."""
        inferred = self.infer(state)
        if inferred is None or HYPERPARAMETERS in state:
            return state
        told = {key: args[key] for key in self.invisible if key in args}
        if "dilations" in told:
            told["dilations"] = tuple(told["dilations"])
        with torch.device("meta"):
            kept = self.network(**{**inferred, **told}).state_dict()
        if HYPERPARAMETERS not in kept:
            return state
        text = json.dumps({key: list(one) if isinstance(one, tuple) else one for key, one in told.items()})
        return {**state, HYPERPARAMETERS: torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)}

    def build(self, state_dict: StateDict) -> tuple[Network, StateDict, dict[str, Any]]:
        """The network, the state dict that it loads, and its hyperparameters.

        Raises:
            ValueError: these are no weights of this architecture.
        """
        args = self.infer(state_dict)
        if args is None:
            raise ValueError(f"no weights of {self.name}")
        network = self.network(**args)
        state = dict(state_dict)
        own = network.state_dict()
        state.pop(HYPERPARAMETERS, None)
        if HYPERPARAMETERS in own:  # in the network's own words
            state[HYPERPARAMETERS] = own[HYPERPARAMETERS]
        return network, state, args


class RestoreUNetArch(_Arch[RestoreUNet]):
    """`photo`, `inpaint`, and other networks that were trained with `unet`, without condition images."""

    network = RestoreUNet
    invisible = {"dilations": list, "prefill": bool}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__("RestoreUNet", "restore U-Net")

    def infer_channels(self, takes: int, gives: int) -> dict[str, Any] | None:
        """See `_Arch.infer_channels`: the same channels in and out, or one more in, which is the mask."""
        if gives not in (1, 3) or takes - gives not in (0, 1):
            return None
        return {"channels": gives, "mask": takes > gives}

    def load(
        self, state_dict: StateDict
    ) -> ImageModelDescriptor[RestoreUNet] | MaskedImageModelDescriptor[RestoreUNet]:
        """Open weights: for restoration, or, with a mask, for inpainting."""
        network, state, args = self.build(state_dict)
        tags = [f"{args['widths'][0]}nf", f"{len(args['widths'])} levels"]
        if not args["mask"]:
            return ImageModelDescriptor(
                network,
                state,
                architecture=self,
                purpose="Restoration",
                tags=tags,
                supports_half=True,
                supports_bfloat16=True,
                scale=1,
                input_channels=args["channels"],
                output_channels=args["channels"],
                tiling=ModelTiling.SUPPORTED,
            )
        return MaskedImageModelDescriptor(
            network,
            state,
            architecture=self,
            purpose="Inpainting",
            tags=tags,
            supports_half=True,
            supports_bfloat16=True,
            input_channels=args["channels"],
            output_channels=args["channels"],
            # The first guess in a hole comes from the whole image.
            tiling=ModelTiling.DISCOURAGED,
            call_fn=_without_gradients,
        )


class RestorePyramidUNetArch(_Arch[RestorePyramidUNet]):
    """`detector`, and other networks that were trained with `pyramid-unet`: an image to a gray one, white = damaged."""

    network = RestorePyramidUNet
    invisible = {"dilations": list, "coarsest_px": int}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__("RestorePyramidUNet", "restore damage detector")

    def infer_channels(self, takes: int, gives: int) -> dict[str, Any] | None:
        """See `_Arch.infer_channels`: the image and the level above; logits and a weight."""
        return {} if (takes, gives) == (4, 2) else None

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[RestorePyramidUNet]:
        """Open weights: three channels to one, the probability of damage."""
        network, state, args = self.build(state_dict)
        return ImageModelDescriptor(
            network,
            state,
            architecture=self,
            purpose="Restoration",  # spandrel has no purpose for a mask
            tags=["damage mask", f"{args['widths'][0]}nf", f"{len(args['widths'])} levels"],
            supports_half=True,
            supports_bfloat16=True,
            scale=1,
            input_channels=3,
            output_channels=1,
            # The coarsest level sees the whole image.
            tiling=ModelTiling.DISCOURAGED,
        )


def _without_gradients(model: RestoreUNet, image: Tensor, mask: Tensor) -> Tensor:
    """Run a network that fills holes. spandrel's descriptor leaves gradients on, and does not set the mode."""
    with torch.no_grad():
        return model.eval()(image, mask)


def _count(shapes: Mapping[str, object], pattern: str) -> int:
    """How many of the keys are there, counted from 0 without a gap; so never more than there are keys."""
    count = 0
    while pattern.format(count) in shapes:
        count += 1
    return count
