"""The examples run as their headers say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

ROOT = Path(__file__).parents[2]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(data.astronaut()[50 * number : 50 * number + 96, 150:246]).save(folder / f"{number}.png")
    return folder


def run(example: str, *arguments: object, place: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "examples" / example, *map(str, arguments)]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_repair_a_folder(photographs: Path, tmp_path: Path) -> None:
    assert "4 / 4" in run("repair_a_folder.py", photographs, tmp_path / "repaired", place=tmp_path)
    assert len(list((tmp_path / "repaired").iterdir())) == 4


def test_train_and_score(photographs: Path, tmp_path: Path) -> None:
    assert "PSNR" in run("train_and_score.py", photographs, tmp_path / "work", 2, place=tmp_path)
