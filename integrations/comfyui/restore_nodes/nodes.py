"""The nodes. Images are B×H×W×C in [0, 1], masks B×H×W, as everywhere in ComfyUI."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import folder_paths
import spandrel_restore
import torch
import torch.nn.functional as F
from comfy import model_management
from comfy.utils import ProgressBar
from spandrel import MaskedImageModelDescriptor, ModelDescriptor, UnsupportedModelError
from torch import Tensor

from .tiles import count_tiles, dilate, run_tiled

CATEGORY = "restore"
MODEL = "RESTORE_MODEL"
#: The folder `models/restore`, and the weights files in it.
FOLDER = "restore"

#: How far the output of `photo` and `inpaint` depends on pixels beyond a tile, rounded up.
OVERLAP_PX = 64
#: Images are searched in several views, as `restore detect` does it with one network: mirrored along these dimensions,
#: and monochrome ones without color or with it. An image of more pixels than the first number is searched in the first
#: view alone, and in all views after it is halved until it has at most as many as the second.
ALL_VIEWS_MAX_PX, COARSE_MAX_PX = 1 << 21, 1 << 20
VIEWS = (((), False), ((-1,), False), ((-2,), False), ((-2, -1), False))
MONOCHROME_VIEWS = (((), False), ((-1,), True), ((-2, -1), True))
#: Below this mean distance from the median color, a photograph is monochrome.
MONOCHROME_CHROMA = 0.06
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
#: The share of an image that looks damaged is that of the pixels of at least this probability, within these bounds. It
#: changes the odds of damage by its own odds to this power, within these factors.
FOUND, SHARES, POWER, FACTORS = 0.5, (1e-3, 0.5), 1.5, (1 / 3, 4.0)

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_TILE = (
    "INT",
    {"default": 512, "min": 0, "max": 8192, "step": 64, "tooltip": "Side of a tile in pixels; 0: no tiles."},
)

folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))
folder_paths.folder_names_and_paths[FOLDER] = (folder_paths.folder_names_and_paths[FOLDER][0], {".safetensors"})
# ComfyUI's own nodes for upscale models then open these networks, too.
spandrel_restore.install()


class RestoreLoadModel:
    """Loads a network of the restore toolkit."""

    DESCRIPTION = "Loads photo, inpaint, detector, or a network that was trained with the restore toolkit."
    CATEGORY = CATEGORY
    RETURN_TYPES = (MODEL,)
    RETURN_NAMES = ("model",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs, as ComfyUI asks for them."""
        return {"required": {"model_name": (folder_paths.get_filename_list(FOLDER),), "precision": (list(_DTYPES),)}}

    def load(self, model_name: str, precision: str = "fp32") -> tuple[ModelDescriptor]:
        """Open the file; the network stays in the processor's memory until it is used."""
        path = folder_paths.get_full_path_or_raise(FOLDER, model_name)
        try:
            model = spandrel_restore.load(path)
        except UnsupportedModelError as error:
            raise ValueError(f"{model_name} holds no network of the restore toolkit") from error
        return (model.to(_DTYPES[precision]).eval(),)


class RestoreRepair:
    """Cleans up a photograph: noise, JPEG, mild blur."""

    DESCRIPTION = "Cleans up whole photographs with a network such as photo. A mask limits it to a region."
    CATEGORY = CATEGORY
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "repair"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs, as ComfyUI asks for them."""
        required = {"model": (MODEL,), "image": ("IMAGE",), "tile_px": _TILE}
        return {"required": required, "optional": {"mask": ("MASK",)}}

    def repair(self, model: ModelDescriptor, image: Tensor, tile_px: int, mask: Tensor | None = None) -> tuple[Tensor]:
        """B×H×W×C -> the same; outside of the mask, if there is one, pixels stay as they are."""
        if isinstance(model, MaskedImageModelDescriptor) or model.output_channels != model.input_channels:
            raise ValueError("this model does not repair whole photographs; load photo, or one like it")
        region = None if mask is None else fitted(mask, image)

        def repair_one(colors: Tensor, number: int, on_tile: Callable[[], None]) -> Tensor:
            out = run_tiled(
                lambda part, _: each_channel(model, part),
                colors,
                None,
                tile_px,
                OVERLAP_PX,
                model.model.multiple,
                on_tile,
            )
            if region is None:
                return out
            share = region[number : number + 1].to(out)
            return torch.where(share > 0, share * out + (1 - share) * colors, colors)

        return (for_each(model, image, tile_px, repair_one),)


class RestoreFindDamage:
    """Finds scratches, dust, cracks, tears and lost edges."""

    DESCRIPTION = "Makes a mask of the damage in photographs, for the node that fills it."
    CATEGORY = CATEGORY
    RETURN_TYPES = ("MASK", "MASK")
    RETURN_NAMES = ("mask", "probability")
    FUNCTION = "find"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs, as ComfyUI asks for them."""
        threshold = {
            "default": 0.0,
            "min": 0.0,
            "max": 0.99,
            "step": 0.01,
            "tooltip": "Lower finds more; 0: the threshold in the weights file.",
        }
        margin = {"default": 0, "min": 0, "max": 100, "tooltip": "How far the mask reaches around the damage."}
        required = {
            "model": (MODEL,),
            "image": ("IMAGE",),
            "threshold": ("FLOAT", threshold),
            "margin_px": ("INT", margin),
        }
        return {"required": required}

    def find(
        self, model: ModelDescriptor, image: Tensor, threshold: float = 0.0, margin_px: int = 0
    ) -> tuple[Tensor, Tensor]:
        """B×H×W×C -> B×H×W of 0 and 1, and B×H×W in [0, 1]. Never in tiles: the coarsest level sees it all."""
        if isinstance(model, MaskedImageModelDescriptor) or (model.input_channels, model.output_channels) != (3, 1):
            raise ValueError("this model does not find damage; load detector, or one like it")

        def find_one(colors: Tensor, number: int, on_tile: Callable[[], None]) -> Tensor:
            image, network = colors.float(), model.model
            coarse = coarse_of(image, network.coarsest_px)
            contrast = network.monochrome_contrast if is_monochrome(coarse) else 1.0
            seen = [(dims, model(view.to(model.dtype)).float()) for dims, view in views_of(coarse, contrast)]
            probability = [torch.stack([view.flip(dims) for dims, view in seen]).mean(0)]
            if coarse is not image:
                probability.append(model(next(views_of(image, contrast))[1].to(model.dtype)).float())
            on_tile()
            adjusted = with_prior(probability, network.expected_share)
            sized = [F.interpolate(one, image.shape[-2:], mode="bilinear") for one in adjusted]
            return torch.stack(sized).amax(0)

        probability = for_each(model, image, 0, find_one)[..., 0]
        mask = dilate((probability >= (threshold or model.model.threshold)).float()[:, None], margin_px)[:, 0]
        return (mask, probability)


def coarse_of(image: Tensor, coarsest_px: int) -> Tensor:
    """The level of a large image, 1×3×H×W, that is searched in all views; of a small one, the image itself."""
    if image.shape[-2] * image.shape[-1] <= ALL_VIEWS_MAX_PX:
        return image
    while image.shape[-2] * image.shape[-1] > COARSE_MAX_PX and min(image.shape[-2:]) // 2 >= coarsest_px:
        image = F.interpolate(image, (image.shape[-2] // 2, image.shape[-1] // 2), mode="area")
    return image


def is_monochrome(image: Tensor) -> bool:
    """Whether an image, 1×3×H×W, has next to no color, or the same everywhere."""
    step = max(1, math.isqrt(image.shape[-2] * image.shape[-1] // ALL_VIEWS_MAX_PX))
    few = image[..., ::step, ::step]
    gray = (image.new_tensor(LUMA)[:, None, None] * few).sum(-3)
    chroma = torch.stack([few[..., 2, :, :] - gray, few[..., 0, :, :] - gray]).flatten(-2)
    distance = (chroma - chroma.median(-1, keepdim=True).values).norm(dim=0).mean()
    return bool(distance < MONOCHROME_CHROMA)


def views_of(image: Tensor, contrast: float) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """The views of an image, 1×3×H×W, in which damage is searched, and the dimensions along which they are mirrored.
    A contrast below 1 means that it is monochrome.
    """
    views = MONOCHROME_VIEWS if contrast < 1 else VIEWS
    for dims, without_color in views if image.shape[-2] * image.shape[-1] <= ALL_VIEWS_MAX_PX else views[:1]:
        view = image.flip(dims)
        if without_color:
            view = (view.new_tensor(LUMA)[:, None, None] * view).sum(-3, keepdim=True).expand_as(view)
        mean = view.mean((-3, -2, -1), keepdim=True)
        yield dims, mean + contrast * (view - mean) if contrast < 1 else view


def with_prior(probabilities: list[Tensor], expected_share: float | None) -> list[Tensor]:
    """Adjust the probabilities of the levels of an image: raise them if any level looks more damaged than expected, and
    lower them otherwise.
    """
    if expected_share is None:
        return probabilities
    share = max(float((one >= FOUND).float().mean()) for one in probabilities)
    share = min(max(share, SHARES[0]), SHARES[1])
    factor = (share / (1 - share) / (expected_share / (1 - expected_share))) ** POWER
    factor = min(max(factor, FACTORS[0]), FACTORS[1])
    return [factor * one / (factor * one + 1 - one) for one in probabilities]


class RestoreFill:
    """Fills holes."""

    DESCRIPTION = "Fills what a mask marks, with a network such as inpaint. Everything else stays as it is."
    CATEGORY = CATEGORY
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "fill"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs, as ComfyUI asks for them."""
        return {"required": {"model": (MODEL,), "image": ("IMAGE",), "mask": ("MASK",), "tile_px": _TILE}}

    def fill(self, model: ModelDescriptor, image: Tensor, mask: Tensor, tile_px: int) -> tuple[Tensor]:
        """B×H×W×C and B×H×W, 1 = fill -> B×H×W×C; a mask between 0 and 1 blends."""
        if not isinstance(model, MaskedImageModelDescriptor):
            raise ValueError("this model does not fill holes; load inpaint, or one like it")
        holes = fitted(mask, image)

        def fill_one(colors: Tensor, number: int, on_tile: Callable[[], None]) -> Tensor:
            hole = holes[number : number + 1].to(colors)
            network = model.model
            # The first guess comes from the whole image; only the network runs on tiles.
            start = network.fill(colors, hole)
            out = run_tiled(network.repair, start, hole, tile_px, OVERLAP_PX, network.multiple, on_tile).clamp(0, 1)
            return torch.where(hole > 0, hole * out + (1 - hole) * colors, colors)

        return (for_each(model, image, tile_px, fill_one),)


def for_each(
    model: ModelDescriptor,
    image: Tensor,
    tile_px: int,
    run: Callable[[Tensor, int, Callable[[], None]], Tensor],
) -> Tensor:
    """Run a network on the images of a batch one by one, on ComfyUI's device, with its progress bar and interruption.

    Args:
        model: it is moved to the device, and back afterwards.
        image: B×H×W×C. Channels beyond the model's (alpha) are kept.
        tile_px: side of a tile, for the progress.
        run: (1×C×H×W float32 on the device, number in the batch, to call after each tile) -> 1×C'×H×W.

    Returns:
        B×H×W×C', float32, on the device of intermediate results.
    """
    device, back = model_management.get_torch_device(), model_management.intermediate_device()
    batch, height, width, channels = image.shape
    colored = 3 if channels >= 3 else channels
    bar = ProgressBar(batch * count_tiles(height, width, tile_px, OVERLAP_PX, model.model.multiple))

    def on_tile() -> None:
        model_management.throw_exception_if_processing_interrupted()
        bar.update(1)

    results = []
    with torch.inference_mode(), on_device(model, device):
        for number in range(batch):
            one = image[number : number + 1].movedim(-1, 1).to(device, torch.float32)
            out = run(one[:, :colored], number, on_tile).float().clamp(0, 1)
            if out.shape[1] == colored and channels > colored:
                out = torch.cat([out, one[:, colored:]], 1)
            results.append(out.movedim(1, -1).to(back))
    return torch.cat(results)


@contextmanager
def on_device(model: ModelDescriptor, device: torch.device) -> Iterator[None]:
    """Move a network to a device, after ComfyUI has made room there, and back to the processor at the end."""
    size = sum(values.numel() * values.element_size() for values in model.model.parameters())
    # Activations: about 4 kB per pixel of a tile with its context.
    model_management.free_memory(size + 4096 * (512 + 2 * OVERLAP_PX) ** 2, device)
    model.to(device)
    try:
        yield
    finally:
        model.to(torch.device("cpu"))


def each_channel(model: ModelDescriptor, image: Tensor) -> Tensor:
    """Run a network on 1×C×H×W; one for gray images gets the channels one by one."""
    image = image.to(model.dtype)
    if model.input_channels == image.shape[1]:
        return model(image).float()
    if model.input_channels == 1:
        return torch.cat([model(channel).float() for channel in image.split(1, dim=1)], 1)
    return model(image.expand(-1, model.input_channels, -1, -1)).float().mean(1, keepdim=True)


def fitted(mask: Tensor, image: Tensor) -> Tensor:
    """A mask of ComfyUI (H×W, B×H×W or B×1×H×W, one for all or one for each image) as B×1×H×W for a batch.

    A mask of another size is scaled: "Load Image" gives 64×64 zeros for an image without alpha.

    Raises:
        ValueError: it is for a batch of another length.
    """
    batch, height, width = image.shape[:3]
    mask = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    if mask.shape[-2:] != (height, width):
        mask = (torch.nn.functional.interpolate(mask, (height, width), mode="bilinear") > 0.5).float()
    if len(mask) == 1:
        mask = mask.expand(batch, -1, -1, -1)
    if len(mask) != batch:
        raise ValueError(f"there are {len(mask)} masks for {batch} images")
    return mask.clamp(0, 1)


NODE_CLASS_MAPPINGS = {
    "RestoreLoadModel": RestoreLoadModel,
    "RestoreRepair": RestoreRepair,
    "RestoreFindDamage": RestoreFindDamage,
    "RestoreFill": RestoreFill,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "RestoreLoadModel": "Load Restore Model",
    "RestoreRepair": "Repair Photograph",
    "RestoreFindDamage": "Find Damage",
    "RestoreFill": "Fill Holes",
}
