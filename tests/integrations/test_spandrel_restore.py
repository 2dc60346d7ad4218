"""The shipped weights, opened by spandrel with `spandrel_restore` alone, give what this package's networks give."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

from restore.checkpoints import Description, DetectorSettings, load_generator, save_weights, shipped_weights
from restore.errors import RestoreError
from restore.export import export
from restore.models.registry import build_generator
from restore.restorers.detector import open_detector
from restore.restorers.hybrid_inpainting import HybridInpainter
from restore.restorers.registry import open_restorer
from tests.integrations.conftest import INTEGRATIONS

pytest.importorskip("spandrel")

import spandrel
import spandrel_restore

TOLERANCE = 1e-6


def photograph(height: int, width: int) -> tuple[Tensor, Tensor]:
    """A part of a photograph with noise, and a mask with a hole at its border and one inside."""
    part = data.astronaut()[20 : 20 + height, 180 : 180 + width].astype(np.float32) / 255
    noisy = (part + np.random.default_rng(0).normal(0, 0.05, part.shape)).clip(0, 1).astype(np.float32)
    mask = torch.zeros(1, 1, height, width)
    mask[..., height // 2 : height // 2 + 6, width // 3 :] = 1
    mask[..., : height // 4, : width // 6] = 1
    return torch.from_numpy(noisy.transpose(2, 0, 1)[None].copy()), mask


def with_scratches(image: Tensor) -> Tensor:
    """The image with three thin white scratches from top to bottom."""
    out = image.clone()
    height, width = image.shape[-2:]
    for number in range(3):
        for y in range(height):
            x = int(width * (0.15 + 0.27 * number) + 0.15 * y + 2 * np.sin(y / 9)) % (width - 1)
            out[..., y, x : x + 2] = 0.95
    return out


def opened(path: Path) -> spandrel.ModelDescriptor:
    registry = spandrel.MAIN_REGISTRY.copy()
    registry.add(*spandrel_restore.RESTORE_REGISTRY)
    return spandrel.ModelLoader(registry=registry).load_from_file(path)


@pytest.mark.parametrize("size", [(96, 64), (61, 99), (1, 1)])
def test_photo(size: tuple[int, int]) -> None:
    image, _ = photograph(*size)
    ours = open_restorer("photo", device="cpu", precision="fp32")(image)
    assert torch.allclose(opened(shipped_weights()["photo"])(image), ours, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("size", [(96, 64), (61, 99)])
def test_inpaint(size: tuple[int, int]) -> None:
    image, mask = photograph(*size)
    hybrid = open_restorer("inpaint", device="cpu", precision="fp32")
    assert isinstance(hybrid, HybridInpainter)
    ours = hybrid.filler(image, mask)
    assert (ours - image).abs().max() > 0.1
    assert torch.allclose(opened(shipped_weights()["inpaint"])(image, mask), ours, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("size", [(128, 112), (101, 131)])
def test_detector(size: tuple[int, int]) -> None:
    scratched = with_scratches(photograph(*size)[0])
    ours = open_detector(device="cpu", precision="fp32").logits(scratched[0], 0, print).sigmoid()
    found = opened(shipped_weights()["detector"])(scratched)[0]
    assert (found > 0.5).sum() > 100
    assert torch.allclose(found, ours, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("format", ["safetensors", "spandrel"])
def test_exported_weights_of_other_shapes(format: Literal["safetensors", "spandrel"], tmp_path: Path) -> None:
    args = {"widths": [8, 12, 16], "blocks": [2, 1, 2], "mask": True, "prefill": True}
    mine = weights_of("unet", args, tmp_path, needs_mask=True)
    exported = export(mine, tmp_path / "exported.safetensors", format).files[0]
    image, mask = photograph(40, 48)
    rounded = exported if format == "safetensors" else mine
    ours = open_restorer(str(rounded), device="cpu", precision="fp32")
    assert isinstance(ours, HybridInpainter)
    assert torch.allclose(opened(exported)(image, mask), ours.filler(image, mask), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("builder", "args"),
    [
        ("unet", {"widths": [8, 12], "blocks": [1, 3], "mask": False, "dilations": [1, 3]}),
        ("unet", {"widths": [8, 12], "blocks": [1, 2], "mask": True, "prefill": False}),
        ("unet", {"widths": [8, 12], "blocks": [1, 2], "prefill": True, "dilations": [2]}),
        ("pyramid-unet", {"widths": [4, 8], "blocks": [1, 2], "dilations": [1, 1], "coarsest_px": 16}),
    ],
)
def test_what_no_shape_tells_is_in_the_file_for_spandrel(builder: str, args: dict[str, Any], tmp_path: Path) -> None:
    finds = DetectorSettings(threshold=0.5, margin_px=0) if builder == "pyramid-unet" else None
    mine = weights_of(builder, args, tmp_path, needs_mask=bool(args.get("mask", finds is None)), finds=finds)
    exported = export(mine, tmp_path / "exported.safetensors", "spandrel").files[0]
    image, mask = photograph(40, 48)
    model, network = opened(exported), load_generator(mine)[0]
    with torch.inference_mode():
        if finds is not None:
            ours, found = network(image).sigmoid(), model(image)
        elif args.get("mask", True):
            ours, found = torch.where(mask > 0, network(image, mask).clamp(0, 1), image), model(image, mask)
        else:
            ours, found = network(image).clamp(0, 1), model(image)
    assert torch.allclose(found, ours, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("builder", "args", "facts", "words"),
    [
        ("unet", {"conditions": 1}, {"conditions": [{"name": "depth", "channels": 1}]}, "condition images"),
        ("unet", {}, {"transfer": "linear"}, "linear light"),
        ("unet", {"mask": False, "out_channels": 1}, {"finds": {"threshold": 0.5, "margin_px": 0}}, "no pyramid-unet"),
        ("pix2pix", {"num_downs": 5, "ngf": 4}, {}, "a pix2pix"),
        ("drunet", {"widths": [4, 4, 4, 4]}, {"transfer": "linear"}, "linear light"),
        ("drunet", {"widths": [4, 4, 4, 4]}, {"needs_mask": True}, "a drunet that fills holes"),
    ],
)
def test_what_spandrel_cannot_run_is_not_exported(
    builder: str, args: dict[str, Any], facts: dict[str, Any], words: str, tmp_path: Path
) -> None:
    small = {"widths": [4, 8], "blocks": [1, 1]} if builder == "unet" else {}
    mine = weights_of(builder, {**small, **args}, tmp_path, **facts)
    with pytest.raises(RestoreError, match=f"spandrel has no place for .*{words}"):
        export(mine, tmp_path / "exported.safetensors", "spandrel")
    assert not (tmp_path / "exported.safetensors").exists()


def weights_of(builder: str, args: dict[str, Any], folder: Path, needs_mask: bool = False, **facts: Any) -> Path:
    """A weights file of a network with random weights and statistics."""
    torch.manual_seed(0)
    network = build_generator(builder, args)
    for name, values in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            values.copy_(torch.rand_like(values) + 0.5)
    path = folder / "mine.safetensors"
    description = Description(builder=builder, args=args, needs_mask=needs_mask, **facts)
    save_weights(path, network.state_dict(), description, half=False)
    return path


def test_a_clean_process_needs_only_spandrel_and_the_package(tmp_path: Path) -> None:
    """As in chaiNNer's Python: `sitecustomize` installs the architectures, and nothing of `restore` is loaded."""
    (tmp_path / "sitecustomize.py").write_text("import spandrel_restore; spandrel_restore.install()\n")
    program = (
        "import spandrel, sys\n"
        "names = [spandrel.ModelLoader().load_from_file(p).architecture.id for p in sys.argv[1:]]\n"
        "print(names, any(m.partition('.')[0] == 'restore' for m in sys.modules))\n"
    )
    path = os.pathsep.join(map(str, (tmp_path, INTEGRATIONS / "spandrel_restore")))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    files = [str(shipped_weights()[name]) for name in ("photo", "inpaint", "detector")]
    done = subprocess.run(
        [sys.executable, "-c", program, *files], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.strip() == "['RestoreUNet', 'RestoreUNet', 'RestorePyramidUNet'] False", done.stderr
