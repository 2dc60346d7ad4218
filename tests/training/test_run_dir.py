"""A run's folder: what it says of itself, what it keeps, and what a full disk does to it."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from skimage import data as pictures

from restore.checkpoints import read_state
from restore.config import build
from restore.environment import git_revision
from restore.errors import RestoreError
from restore.images import read_rgb8, write_png
from restore.plotting import read_curves
from restore.training.config import TrainConfig
from restore.training.loop import TrainCallbacks, train
from restore.training.run_dir import RunFolder


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    for name in ("astronaut", "coffee", "chelsea"):
        write_png(folder / f"{name}.png", np.ascontiguousarray(getattr(pictures, name)()[60:140, 100:180]))
    return folder


def config(clean: Path, out: Path, **changes: object) -> TrainConfig:
    values = {
        "out": str(out), "total_steps": 6, "precision": "fp32", "device": "cpu",
        "data": {"folders": [str(clean)], "patch": 32, "batch": 1, "validation_size": 32, "validation_count": 1},
        "damage": [{"name": "noise", "sigma": 25}],
        "model": {"builder": "unet", "args": {"widths": [8, 12], "blocks": [1, 1], "mask": False}},
        "lpips_net": "none", "log_every": 1, "validate_every": 100, "save_every": 2,
    }  # fmt: skip
    return build(TrainConfig, values | changes, where="test")


def state(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "last" / "state.safetensors")


def step_of(file: Path) -> int:
    return read_state(file)[1]["step"]


def test_the_environment_names_what_the_run_was_made_with(clean: Path, tmp_path: Path) -> None:
    train(config(clean, tmp_path / "run", total_steps=1))
    found = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert found["torch"] == torch.__version__
    assert found["packages"]["numpy"] == np.__version__
    assert (found["device"], found["precision"]) == ("cpu", "fp32"), "what auto came to"


def test_the_git_revision_is_that_of_the_folder_with_a_word_on_changes(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    assert git_revision(tmp_path) is None

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", *who, *arguments], cwd=tmp_path, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "file").write_text("one")
    git("add", ".")
    git("commit", "-m", "one")
    head = git("rev-parse", "HEAD")
    assert len(head) == 40
    assert git_revision(tmp_path) == {"commit": head, "changed": False}
    (tmp_path / "file").write_text("two")
    assert git_revision(tmp_path) == {"commit": head, "changed": True}


def test_older_states_are_kept_and_can_be_gone_back_to(clean: Path, tmp_path: Path) -> None:
    settings = config(clean, tmp_path / "run", save_every=1, keep_checkpoints=2)
    train(settings)
    kept = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [file.name for file in kept] == ["step_0000004.safetensors", "step_0000005.safetensors"]
    assert [step_of(file) for file in kept] == [4, 5]
    end = {name: tensor.clone() for name, tensor in state(tmp_path / "run").items()}

    shutil.copy(kept[0], tmp_path / "run" / "last" / "state.safetensors")
    said: list[str] = []
    train(settings, TrainCallbacks(on_event=said.append))
    assert any("resumed at step 4" in line for line in said)
    assert all(torch.equal(tensor, state(tmp_path / "run")[name]) for name, tensor in end.items())


def test_nothing_older_is_kept_unasked(clean: Path, tmp_path: Path) -> None:
    train(config(clean, tmp_path / "run", save_every=1))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_what_a_killed_process_was_writing_is_swept_away(clean: Path, tmp_path: Path) -> None:
    script = "from pathlib import Path; from restore.files import temporary_path; print(temporary_path(Path('x')).name)"
    name = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    for folder in ("", "samples", "last"):
        (tmp_path / "run" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / folder / name).write_bytes(b"half of")
        (tmp_path / "run" / folder / ".mine.tmp").write_bytes(b"somebody else's")
    train(config(clean, tmp_path / "run", total_steps=1))
    assert not list((tmp_path / "run").rglob(name))
    assert len(list((tmp_path / "run").rglob(".mine.tmp"))) == 3


@dataclasses.dataclass
class Disk:
    """A folder on a disk that can be filled to the last byte, and emptied again."""

    folder: Path
    patch: pytest.MonkeyPatch | None = None

    def fill(self) -> None:
        if self.patch is None:
            try:
                with open(self.folder / "filler", "wb", buffering=0) as file:
                    while True:
                        file.write(bytes(4096))
            except OSError:
                return
        else:

            def full(handle: int) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            self.patch.setattr(os, "fsync", full)

    def make_room(self) -> None:
        if self.patch is None:
            (self.folder / "filler").unlink()
        else:
            self.patch.undo()


@pytest.fixture(params=["tmpfs", "pretended"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """A real small disk where this user may mount one, and one whose writes are made to fail."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "pretended":
        with pytest.MonkeyPatch.context() as patch:
            yield Disk(folder, patch)
        return
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True
        ).returncode
    except FileNotFoundError:
        mounted = -1
    if mounted != 0:
        pytest.skip("no right to mount a disk here: the pretended one has to do")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("keep", [0, 3])
def test_a_full_disk_leaves_the_last_state_whole_and_says_so(
    clean: Path, tmp_path: Path, disk: Disk, keep: int
) -> None:
    whole = config(clean, tmp_path / "whole", keep_checkpoints=keep)
    train(whole)
    settings = config(clean, disk.folder / "run", keep_checkpoints=keep)
    before = {}

    def fill(step: int, total: int, values: dict[str, float]) -> None:
        if step == 3:
            before["state"] = (settings.out / "last" / "state.safetensors").read_bytes()
            disk.fill()

    with pytest.raises(RestoreError) as error:
        train(settings, TrainCallbacks(logged=fill))
    line = str(error.value)
    assert "No space left" in line or "disk is full" in line
    assert "the state of step 2 is safe" in line
    assert "\n" not in line
    assert error.value.exit_code == 1
    assert (settings.out / "last" / "state.safetensors").read_bytes() == before["state"]
    assert [p.name for p in (settings.out / "last").iterdir()] == ["state.safetensors"], "nothing half-written stays"

    disk.make_room()
    assert train(settings).finished
    assert all(torch.equal(tensor, state(settings.out)[name]) for name, tensor in state(whole.out).items())


def test_a_disk_full_from_the_start_says_that_nothing_was_saved(clean: Path, disk: Disk) -> None:
    def fill(step: int, total: int, values: dict[str, float]) -> None:
        if step == 1:
            disk.fill()

    with pytest.raises(RestoreError, match="no state was saved yet"):
        train(config(clean, disk.folder / "run"), TrainCallbacks(logged=fill))


def test_curves_are_drawn_at_each_validation(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # `quick_curves`
    train(config(clean, tmp_path / "run", validate_every=3))
    names = read_curves(tmp_path / "run" / "metrics.jsonl")
    assert names["pixel"][0].tolist() == [1, 2, 3, 4, 5, 6]
    assert names["validation_psnr"][0].tolist() == [0, 3, 6]
    assert read_rgb8(tmp_path / "run" / "curves.png").std() > 0


def test_tensorboard_is_told_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            told.append((Path(folder).name, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, value, step))

        def close(self) -> None:
            told.append(("closed",))

    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    with RunFolder(tmp_path / "run") as run:
        run.truncate_log(10)
        run.log({"step": 12, "pixel": 0.5, "validation_psnr": 30.0})
    assert told == [
        ("tensorboard", 11), ("training/pixel", 0.5, 12), ("validation/psnr", 30.0, 12), ("closed",),
    ]  # fmt: skip


def test_without_tensorboard_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with RunFolder(tmp_path / "run") as run:
        run.truncate_log(0)
        run.log({"step": 1, "pixel": 0.5})
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text()) == {"step": 1, "pixel": 0.5}
