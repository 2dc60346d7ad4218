"""The shipped weights, opened by spandrel with `spandrel_restore` alone, give what this package's networks give."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

from restore.checkpoints import save_weights, shipped_weights
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
    ours = open_detector(device="cpu", precision="fp32")._logits(scratched[0], 0, print).sigmoid()
    found = opened(shipped_weights()["detector"])(scratched)[0]
    assert (found > 0.5).sum() > 100
    assert torch.allclose(found, ours, rtol=0, atol=TOLERANCE)


def test_exported_weights_of_other_shapes(tmp_path: Path) -> None:
    args = {"widths": [8, 12, 16], "blocks": [2, 1, 2], "mask": True, "prefill": True}
    network = build_generator("unet", args).eval()
    from restore.checkpoints import Description

    mine, exported = tmp_path / "mine.safetensors", tmp_path / "exported.safetensors"
    save_weights(mine, network.state_dict(), Description(builder="unet", args=args, needs_mask=True), half=False)
    export(mine, exported, "safetensors")
    image, mask = photograph(40, 48)
    ours = open_restorer(str(exported), device="cpu", precision="fp32")
    assert isinstance(ours, HybridInpainter)
    assert torch.allclose(opened(exported)(image, mask), ours.filler(image, mask), rtol=0, atol=TOLERANCE)


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
