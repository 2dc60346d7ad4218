"""Kills training runs at random moments, resumes them, and compares them with runs that were never stopped.

    python benchmarks/kill_resume.py [--count 50] [--seed 0] [--settings r1,stages]

The runs train tiny networks on drawn images of 96 px for 12 steps on patches of 32 px, and keep two checkpoints. A run
is killed (`kill -9`) at a random moment, resumed, killed again, and so on until it ends; then the next run begins. At
the end, its weights and whole state, `best.safetensors`, `samples/`, `checkpoints/`, and `metrics.jsonl` without its
timings must equal those of an uninterrupted run. Prints Markdown, and ends with exit code 1 if anything differs.

Runs of one process are forks of this one, which has imported everything, because an import takes longer than a run. The
moments therefore lie between the start of `restore.training.train` and the end of the process. They are drawn by
processor time, so that other work on the machine does not move them. Runs of two processes are whole commands. One of
the two is killed after the run has written its config; the other must end by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image

import restore.plotting
import restore.training.loop
from restore.checkpoints import read_state
from restore.config import build
from restore.training.config import TrainConfig

TIMINGS = ("images_per_second",)
D = {"ndf": 4, "n_layers": 1, "norm": "none"}
SETTINGS: dict[str, dict[str, Any]] = {
    "accumulate": {"grad_accumulation": 2, "loss": {"adversarial": "hinge", "adversarial_start": 2}},
    "D steps": {"discriminator": {"args": D, "steps": 2}, "loss": {"adversarial": "vanilla", "adversarial_start": 2}},
    "wgan-gp": {
        "discriminator": {"args": D, "steps": 3}, "loss": {"adversarial": "wgan-gp"},
        "optimizer": {"betas_discriminator": [0, 0.9]},
    },
    "r1": {
        "discriminator": {"args": {**D, "spectral_norm": True}, "augment": ["color", "translation"]},
        "loss": {"adversarial": "hinge", "r1": 1, "r1_interval": 4},
    },
    "ema off": {"ema": 0, "best_by": "last", "model": {"builder": "pix2pix", "args": {"num_downs": 5, "ngf": 4}},
                "damage": [{"name": "noise"}], "loss": {"adversarial": "lsgan"}},
    "stages": {
        "loss": {"adversarial": "hinge", "adversarial_start": 3}, "discriminator": {"args": D, "steps": 2},
        "stages": [
            {"start": 5, "data": {"patch": 48, "batch": 2}},
            {"start": 9, "data": {"patch": 64}, "optimizer": {"lr": 1e-3}, "ema": 0.5},
        ],
    },
    "two processes": {"devices": 2, "loss": {"adversarial": "hinge", "adversarial_start": 2}},
}  # fmt: skip
MOMENTS_OF_TWO_PROCESSES = 2  # of all; each costs the imports of a command
PATIENCE_SECONDS = 120  # for the other process to end
HANG_SECONDS = 900
_TICKS = os.sysconf("SC_CLK_TCK")


def draw_images(folder: Path, seed: int) -> None:
    """Six images for training, and two for validation: smooth colors."""
    rng = np.random.default_rng(seed)
    for number in range(8):
        coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 12, 12)))
        image = torch.nn.functional.interpolate(coarse, size=96, mode="bicubic").clamp(0, 255)[0].permute(1, 2, 0)
        file = folder / ("validation" if number < 2 else "training") / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(image.numpy().astype(np.uint8)).save(file)  # libvips would start threads before the forks


def config_of(setting: str, images: Path, out: Path) -> TrainConfig:
    """The config of a run."""
    values: dict[str, Any] = {
        "out": str(out), "total_steps": 12, "precision": "fp32", "device": "cpu", "damage": "inpaint-medium",
        "data": {
            "folders": [str(images / "training")], "validation": str(images / "validation"), "near_duplicates": 0,
            "patch": 32, "batch": 4, "validation_size": 64,
        },
        "model": {"builder": "unet", "args": {"widths": [4, 6], "blocks": [1, 1]}},
        "discriminator": {"args": D}, "lpips_net": "none",
        "log_every": 1, "validate_every": 3, "save_every": 4, "keep_checkpoints": 2,
    }  # fmt: skip
    return build(TrainConfig, values | SETTINGS[setting], where=setting)


class Run:
    """A run that has been started.

    Args:
        config: of the run.
        told: a file for its output.
    """

    def __init__(self, config: TrainConfig, told: Path) -> None:
        assert config.out is not None
        self._written = config.out / "config.yaml"
        self._before = self._time_written()
        self._alone = config.devices == 1
        self.began = 0.0
        if self._alone:
            self.process = os.fork()
            if not self.process:
                _train_and_exit(config, told)
            return
        file = told.with_suffix(".yaml")
        file.write_text(config.model_dump_json())
        command = [sys.executable, "-m", "restore.cli", "train", str(file)]
        with open(told, "a") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True).pid

    def _time_written(self) -> int:
        return self._written.stat().st_mtime_ns if self._written.exists() else 0

    def wait_until_begun(self) -> None:
        """Wait until the run has reached the time from which moments are drawn."""
        while not self._alone and self._time_written() == self._before and not self.ends_within(0):
            time.sleep(0.01)
        self.began = self.cpu_seconds()

    def cpu_seconds(self) -> float:
        """The processor time that the process has used, also of one that has ended and was not waited for."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def ends_within(self, cpu_seconds: float) -> bool:
        """Wait until the process has ended, or has used this processor time since it began; whether it has ended."""
        deadline = time.monotonic() + HANG_SECONDS
        while not os.waitid(os.P_PID, self.process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if self.cpu_seconds() - self.began >= cpu_seconds:
                return False
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.process} hangs")
            time.sleep(0.001)
        return True

    def kill(self, rng: random.Random) -> bool:
        """Kill the process, or one of the two, and wait for all of them. Returns whether the other ended by itself."""
        children = Path(f"/proc/{self.process}/task/{self.process}/children").read_text().split()
        everyone = [self.process, *map(int, children)]
        os.kill(rng.choice(everyone), signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(map(_is_alive, everyone)) and time.monotonic() < deadline:
            time.sleep(0.005)
        left = [process for process in everyone if _is_alive(process)]
        for process in left:
            os.kill(process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        return not left

    def wait(self) -> int:
        """Wait for the process; its exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def _train_and_exit(config: TrainConfig, told: Path) -> None:
    handle = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    code = 1
    try:
        code = 0 if restore.training.loop.train(config).finished else 2
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def differences(whole: Path, parts: Path) -> Iterator[str]:
    """The differences between the folders of two runs."""
    logs = [_lines(folder / "metrics.jsonl") for folder in (whole, parts)]
    if logs[0] != logs[1]:
        yield "metrics.jsonl"
    (tensors, facts), (others, other_facts) = (read_state(f / "last" / "state.safetensors") for f in (whole, parts))
    if json.dumps(facts, sort_keys=True) != json.dumps(other_facts, sort_keys=True):
        yield "facts of the state"
    yield from (name for name in tensors.keys() | others.keys() if not _same(tensors.get(name), others.get(name)))
    for pattern in ("best.safetensors", "samples/*", "checkpoints/*"):
        files = [{p.name: p.read_bytes() for p in folder.glob(pattern)} for folder in (whole, parts)]
        if files[0] != files[1]:
            yield pattern
    yield from (f"left over: {path.name}" for path in parts.rglob(".restore-*"))


def _lines(file: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other)


def try_setting(setting: str, count: int, rng: random.Random, folder: Path) -> tuple[int, list[str]]:
    """Kill runs of a setting `count` times.

    Returns:
        The number of runs that ended, and the errors.
    """
    whole, told, wrong = folder / setting / "whole", folder / setting / "told", []
    whole.parent.mkdir()
    run = Run(config_of(setting, folder, whole), told)
    run.wait_until_begun()
    run.ends_within(float("inf"))
    seconds = run.cpu_seconds() - run.began
    if code := run.wait():
        return 0, [f"the run never stopped: exit code {code}: {_last_words(told)}"]
    killed = ended = 0
    while killed < count or run is not None:
        parts = whole.with_name(f"run {ended}")
        run = Run(config_of(setting, folder, parts), told)
        run.wait_until_begun()
        if killed == count or run.ends_within(rng.uniform(0, seconds)):
            code = run.wait()
            found = [f"exit code {code}: {_last_words(told)}"] if code else list(differences(whole, parts))
            wrong += [f"run {ended}: {what}" for what in found]
            ended += 1
            run = None
        else:
            killed += 1
            if not run.kill(rng):
                wrong.append(f"run {ended}: the other process did not end within {PATIENCE_SECONDS} s")
    return ended, wrong


def _last_words(told: Path) -> str:
    lines = told.read_text().split("\n") if told.exists() else []
    return " / ".join(line.strip() for line in lines[-4:] if line.strip())


def main() -> int:
    """Kill, resume, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="number of kills, over all settings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", default=",".join(SETTINGS), help="some of them, separated by commas")
    args = parser.parse_args()
    torch.set_num_threads(1)  # no thread may have started before a fork
    settings = args.settings.split(",")
    alone = [setting for setting in settings if "devices" not in SETTINGS[setting]]
    of_two = min(args.count, MOMENTS_OF_TWO_PROCESSES) if len(alone) < len(settings) else 0
    share, rest = divmod(args.count - of_two, max(1, len(alone)))
    failed = False
    print("| setting | kills | runs | seconds | what differs |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as temporary, suppress(KeyboardInterrupt):
        draw_images(Path(temporary), args.seed)
        for setting in settings:
            count = of_two if setting not in alone else share + (alone.index(setting) < rest)
            began = time.monotonic()
            ended, wrong = try_setting(setting, count, random.Random(f"{args.seed} {setting}"), Path(temporary))
            failed |= bool(wrong)
            what = "; ".join(wrong) or "nothing"
            print(f"| {setting} | {count} | {ended} | {time.monotonic() - began:.0f} | {what} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
