"""Small pictures that look like something."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from restore.images import write_png


def scene(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    """A smooth random picture with its own perceptual hash: uint8, height×width×3."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of different sizes, none smaller than 32 px."""
    path = tmp_path_factory.mktemp("pictures")
    for i in range(12):
        write_png(path / f"{i:02}.png", scene(i, 36 + 5 * i, 90 - 4 * i))
    return path
