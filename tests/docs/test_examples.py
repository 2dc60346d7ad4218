"""The examples run as their headers say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
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


def test_hard_negatives(photographs: Path, tmp_path: Path) -> None:
    """What the detector marks is cut out; a photograph without marks gives nothing."""
    plain = np.full((300, 320, 3), 120, np.uint8)
    Image.fromarray(plain).save(photographs / "plain.png")
    lined = plain.copy()
    for column in (60, 64, 250):
        lined[20:280, column : column + 2] = 235
    Image.fromarray(lined).save(photographs / "lined.png")
    assert "crops in" in run("hard_negatives.py", photographs, tmp_path / "hard", place=tmp_path)
    written = sorted((tmp_path / "hard").iterdir())
    assert written
    assert {file.name.split("_")[0] for file in written} == {"lined"}
    for file in written:
        assert Image.open(file).size == (224, 224)
        assert int(file.stem.split("_")[-1]) >= 25


def test_an_exported_file_alone(photographs: Path, tmp_path: Path) -> None:
    """The masked pixels come from the network, and all others from the image."""
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    import cv2

    from restore.export import export
    from restore.restorers.registry import open_restorer

    programs = ("onnx_alone.py", "opencv_alone.py") if cv2.__version__ >= "5" else ("onnx_alone.py",)
    out, source = tmp_path / "out.png", photographs / "0.png"
    export("photo", tmp_path / "photo.onnx", "onnx")
    Image.open(source).crop((0, 0, 61, 50)).save(source)
    pixels = np.asarray(Image.open(source))
    image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None] / 255
    expected = open_restorer("photo", device="cpu", precision="fp32")(image)[0].permute(1, 2, 0).numpy() * 255
    for program in programs:
        run(program, tmp_path / "photo.onnx", source, out, place=tmp_path)
        found = np.asarray(Image.open(out)).astype(float)
        assert found.shape == pixels.shape
        assert np.abs(found - expected)[:40, :50].max() <= 1, f"{program}: the padding differs, at the edges"

    export("inpaint", tmp_path / "inpaint.onnx", "onnx")
    mask = np.zeros(pixels.shape[:2], np.uint8)
    mask[20:24, 10:40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    damaged = pixels.copy()
    damaged[mask > 0] = (255, 0, 255)
    Image.fromarray(damaged).save(source)
    for program in programs:
        run(program, tmp_path / "inpaint.onnx", source, out, tmp_path / "mask.png", place=tmp_path)
        found = np.asarray(Image.open(out)).astype(float)
        assert np.array_equal(found[mask == 0], pixels[mask == 0]), program
        before, after = (np.abs(x[mask > 0] - pixels[mask > 0].astype(float)).mean() for x in (damaged, found))
        assert after < before / 4, program
        out.unlink()


def test_gan_playground(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    out = tmp_path / "out"
    assert "| hinge |" in run("gan_playground/playground.py", out, 2, "hinge", place=tmp_path)
    with Image.open(out / "hinge.gif") as film:
        assert film.size == (288, 216)
    with Image.open(out / "hinge.png") as grid:
        assert grid.size == (340, 272)
    assert "| finished |" in (out / "table.md").read_text(encoding="utf-8")
