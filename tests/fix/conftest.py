"""Folders of small pictures, and restorers that do something simple enough to check."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from restore.fix.options import FixOptions
from restore.fix.plan import FixPlan, plan_fix
from restore.fix.results import Summary
from restore.fix.run import run_fix
from restore.fix.steps import Detector, Models
from restore.restorers.base import ModelRequirements, Restorer


class Inverter(Restorer):
    """Without a mask; what it did is seen in every pixel."""

    name, purpose = "inverter", "test"
    requirements = ModelRequirements(needs_mask=False)

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        self.calls.append((image.shape[-2], image.shape[-1]))
        return 1 - image


class Identity(Inverter):
    name = "identity"

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        self.calls.append((image.shape[-2], image.shape[-1]))
        return image


class Filler(Inverter):
    """Fills holes with white."""

    name = "filler"
    requirements = ModelRequirements(needs_mask=True)

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        self.calls.append((image.shape[-2], image.shape[-1]))
        return image.new_ones(image.shape)


#: Names that programs mistreat.
ODD_NAMES = ["with space.png", "new\nline.png", "emoji 🙂.png", "x" * 246 + ".png", os.fsdecode(b"raw\xff.png")]


def plan_with(input: Path | str, output: Path | str, **options: Any) -> FixPlan:
    """`plan_fix` with its options as keywords."""
    return plan_fix(input, output, FixOptions(**options))


def fix_with(
    input: Path | str,
    output: Path | str,
    restorer: Restorer | Sequence[Restorer],
    *,
    clean_up: Restorer | Sequence[Restorer] | None = None,
    detector: Detector | Sequence[Detector] | None = None,
    spare_clean: bool = False,
    progress: Any = None,
    **options: Any,
) -> Summary:
    """`fix_folder` with open models and its options as keywords.

    `clean_up` and `detector` are models, one or a sequence; with `spare_clean`, cleaning up is left at its default.
    """
    chosen = FixOptions(**options, clean_up=None if spare_clean else clean_up is not None)
    plan = plan_fix(input, output, chosen)
    return run_with(plan, restorer, chosen, clean_up=clean_up, detector=detector, progress=progress)


def run_with(
    plan: FixPlan,
    restorer: Restorer | Sequence[Restorer],
    options: FixOptions | None = None,
    *,
    clean_up: Restorer | Sequence[Restorer] | None = None,
    detector: Detector | Sequence[Detector] | None = None,
    progress: Any = None,
) -> Summary:
    """`run_fix` with open models."""
    roles = [role if isinstance(role, Sequence) else [role] for role in (restorer, clean_up, detector)]
    count = len(roles[0])
    models = [Models(*together) for together in zip(*(role * count if role == [None] else role for role in roles))]
    return run_fix(plan, models, options, progress=progress)


def photo(height: int, width: int, seed: int = 0, channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    """Noise that stays clear of white and black, so that a filled or inverted pixel differs from the source."""
    limit = np.iinfo(dtype).max
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(limit // 16, limit // 4, shape, dtype=dtype, endpoint=False)


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def load(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def hole(height: int, width: int, *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """A mask, white in boxes of (top, left, bottom, right)."""
    mask = np.zeros((height, width), np.uint8)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = 255
    return mask


def logged(path: Path) -> list[dict[str, Any]]:
    """The lines of a log that are about images, each with the settings of its run."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    settings = {line["run"]: line["settings"] for line in lines if line["event"] == "start"}
    return [line | {"settings": dict(settings[line["run"]])} for line in lines if line["event"] == "image"]


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its bytes: to see that nothing was touched."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors gain nothing from more, and lose much where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """in/a.png, in/sub/b.png, in/sub/deep/c.jpg"""
    save(tmp_path / "in/a.png", photo(20, 30, 1))
    save(tmp_path / "in/sub/b.png", photo(7, 5, 2))
    save(tmp_path / "in/sub/deep/c.jpg", photo(16, 16, 3), quality=95)
    return tmp_path / "in"


@contextmanager
def as_nobody() -> Iterator[None]:
    """As a user without rights: root may read and write everything."""
    if os.geteuid() != 0:
        yield
        return
    for module in ("provenance", "sidecars", "side_outputs"):  # imported late, perhaps from where only root may read
        importlib.import_module(f"restore.fix.{module}")
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True)
    except FileNotFoundError:
        pytest.skip("no mount here")
    if mounted.returncode != 0:
        pytest.skip("no right to mount a disk here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
