"""Tiny networks with random weights, as files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data as pictures

from restore.checkpoints import Description, save_weights
from restore.images import write_png
from restore.models.registry import build_generator

ARGS: dict[str, dict[str, Any]] = {
    "plain": {"builder": "unet", "args": {"widths": [8, 16], "blocks": [1, 1], "mask": False}},
    "fill": {
        "builder": "unet",
        "args": {"widths": [8, 16], "blocks": [1, 1], "mask": True, "prefill": True},
        "needs_mask": True,
    },
    "pix2pix that fills": {"builder": "pix2pix", "args": {"num_downs": 5, "ngf": 4}, "needs_mask": True},
    "detector": {
        "builder": "pyramid-unet",
        "args": {"widths": [4, 8], "blocks": [1, 1]},
        "finds": {"threshold": 0.4, "margin_px": 1},
    },
    "linear gray": {
        "builder": "unet",
        "args": {"widths": [8, 16], "blocks": [1, 1], "mask": False, "channels": 1},
        "channels": 1,
        "transfer": "linear",
    },
    "pix2pix": {"builder": "pix2pix", "args": {"num_downs": 5, "ngf": 4}},
}


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights files by the name of their network."""
    folder, files = tmp_path_factory.mktemp("weights"), {}
    for name, values in ARGS.items():
        torch.manual_seed(1)
        model = build_generator(values["builder"], values["args"])
        if name == "detector":
            model.tail.weight.data.mul_(30)  # an untrained one finds the same everywhere
        rest = {key: value for key, value in values.items() if key not in ("builder", "args")}
        said = {"needs_mask": False, "multiple": model.multiple, "minimum": model.minimum, "overlap_px": 8, **rest}
        files[name] = folder / f"{name}.safetensors"
        description = Description(builder=values["builder"], args=values["args"], purpose=f"a {name}", **said)
        save_weights(files[name], model.state_dict(), description, half=False)
    return files


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four small images."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(4):
        write_png(folder / f"{number}.png", np.ascontiguousarray(pictures.astronaut()[60 * number :][:64, 100:164]))
    return folder
