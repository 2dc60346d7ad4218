"""A run over two machines: who does what, and what happens when one of them fails."""

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from restore.errors import RestoreError
from restore.training.launchers import find_environment
from restore.training.run_dir import RunFolder
from tests.training.machines import Machine, Machines, free_port, srun, torchrun
from tests.training.test_loop import config

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forks")

STEPS = 24
HERE = socket.gethostname()


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    machines = Machines(tmp_path_factory.mktemp("told"))
    yield machines
    machines.close()


@pytest.fixture(scope="module")
def settings(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("config") / "small.yaml"
    values = config(
        clean, Path("unused"), total_steps=STEPS, nodes=2, log_every=1, validate_every=12, save_every=6,
        model={"builder": "unet", "args": {"widths": [8, 12], "blocks": [1, 1]}},
        discriminator={"args": {"ndf": 8, "n_layers": 1, "norm": "none"}},
    )  # fmt: skip
    file.write_text(values.model_copy(update={"out": None}).model_dump_json())
    return file


def start(
    machines: Machines,
    settings: Path,
    place: Path,
    *changes: str,
    launcher: Callable[[int, int], dict[str, str]] = torchrun,
    own_disks: bool = False,
) -> list[Machine]:
    port = free_port()
    started = []
    for rank in (0, 1):
        folder = place / f"machine{rank}" if own_disks else place
        folder.mkdir(exist_ok=True)
        started.append(machines.start(["train", str(settings), *changes], launcher(rank, port), folder))
    return started


def wait_for_step(out: Path, step: int) -> None:
    log, deadline = out / "metrics.jsonl", time.monotonic() + 60
    while not log.exists() or f'"step": {step},' not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def log(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


@pytest.fixture(scope="module")
def whole(machines: Machines, settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happens to, on machines with disks of their own."""
    place = tmp_path_factory.mktemp("whole")
    first, second = start(machines, settings, place, "out=run", own_disks=True)
    assert (first.wait(), second.wait()) == (0, 0), first.stderr + second.stderr
    assert "2 × cpu" in first.stderr
    assert (second.stdout, second.stderr) == ("", ""), "rank 0 alone speaks"
    return place


def test_rank_0_alone_validates_and_writes(whole: Path) -> None:
    assert list((whole / "machine1").iterdir()) == []
    validated = [line["step"] for line in log(whole / "machine0" / "run") if "validation_psnr" in line]
    assert validated == [0, 12, 24]


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_run_in_words_and_it_resumes_bit_for_bit(
    machines: Machines, settings: Path, whole: Path, tmp_path: Path, killed: int
) -> None:
    pair = start(machines, settings, tmp_path, "out=run")
    wait_for_step(tmp_path / "run", 10)
    pair[killed].send(signal.SIGKILL)
    pair[killed].wait()
    survivor = pair[1 - killed]
    assert survivor.wait(60) == 4
    (words,) = [line for line in survivor.stderr.splitlines() if line.startswith("error")]
    assert words.startswith(f"error: process {killed} on {HERE} is gone: it ")
    assert "was killed, or its machine or the network failed; the same command resumes from step" in words

    pair = start(machines, settings, tmp_path, "out=run")
    assert (pair[0].wait(), pair[1].wait()) == (0, 0)
    assert "resumed at step" in pair[0].stderr
    one, other = whole / "machine0" / "run", tmp_path / "run"
    assert log(one) == log(other)
    for name in ("last/state.safetensors", "best.safetensors"):
        expected, found = load_file(one / name), load_file(other / name)
        assert expected.keys() == found.keys()
        assert all(torch.equal(tensor, found[key]) for key, tensor in expected.items())


def test_sigterm_to_one_process_saves_and_stops_all(machines: Machines, settings: Path, tmp_path: Path) -> None:
    pair = start(machines, settings, tmp_path, "out=run", "validate_every=10000", "total_steps=10000")
    wait_for_step(tmp_path / "run", 8)
    pair[1].send(signal.SIGTERM)
    assert (pair[0].wait(), pair[1].wait()) == (130, 0)
    step = log(tmp_path / "run")[-1]["step"]
    assert f"stopped at step {step}; the same command resumes the run" in pair[0].stderr
    assert RunFolder.facts(tmp_path / "run")["step"] == step


@pytest.mark.parametrize("stopped", [0, 1])
def test_a_process_that_hangs_ends_the_run_within_the_time_limit(
    machines: Machines, settings: Path, tmp_path: Path, stopped: int
) -> None:
    pair = start(
        machines, settings, tmp_path, "out=run", "timeout_minutes=0.25", "validate_every=10000", "total_steps=10000"
    )
    wait_for_step(tmp_path / "run", 10)
    pair[stopped].send(signal.SIGSTOP)
    assert pair[1 - stopped].wait(60) == 4
    words = pair[1 - stopped].stderr.splitlines()[-1]
    if stopped == 1:  # process 0 holds the store
        assert f"process 1 on {HERE} has not answered for 0.25 minutes; the same command resumes from step" in words
        assert words.endswith("raise timeout_minutes if it was only slow")
    else:
        assert f"process 0 on {HERE}" in words
    pair[stopped].send(signal.SIGCONT)
    assert pair[stopped].wait(60) == 4, "it has been left alone"


def test_a_failure_of_one_process_is_reported_by_the_others(
    machines: Machines, settings: Path, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole / "machine0" / "run", tmp_path / "machine0" / "run")
    pair = start(machines, settings, tmp_path, "out=run", "total_steps=30", own_disks=True)
    assert (pair[0].wait(), pair[1].wait()) == (2, 2)
    assert "not visible on every machine" in pair[1].stderr
    assert f"process 1 on {HERE} failed: run: not visible on every machine" in pair[0].stderr
    assert "the same command resumes from step 24" in pair[0].stderr


@pytest.mark.parametrize("there", [0, 1])
def test_a_process_that_stays_alone_says_so(machines: Machines, settings: Path, tmp_path: Path, there: int) -> None:
    arguments = ["train", str(settings), "out=run", "timeout_minutes=0.03"]
    alone = machines.start(arguments, torchrun(there, free_port()), tmp_path)
    assert alone.wait(60) == 4
    assert "nodes = 2: the other processes did not arrive within 0.03 minutes" in alone.stderr
    assert not (tmp_path / "run").exists()


def test_tasks_of_slurm_share_a_run(machines: Machines, settings: Path, whole: Path, tmp_path: Path) -> None:
    pair = start(machines, settings, tmp_path, "out=run", launcher=srun)
    assert (pair[0].wait(), pair[1].wait()) == (0, 0), pair[0].stderr
    assert log(tmp_path / "run") == log(whole / "machine0" / "run")


@pytest.fixture
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {*torchrun(0, 0), *srun(0, 0), "NODE_RANK", "SLURM_JOB_NAME", "SLURM_NTASKS_PER_NODE"}:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("launcher", "name"), [(torchrun, "torchrun"), (srun, "srun")])
@pytest.mark.usefixtures("no_launcher")
def test_other_processes_than_the_config_says_are_refused(
    monkeypatch: pytest.MonkeyPatch, launcher: Callable[[int, int], dict[str, str]], name: str
) -> None:
    for key, value in launcher(1, 29500).items():
        monkeypatch.setenv(key, value)
    assert find_environment(1, 2).global_rank() == 1
    for devices, nodes in ((2, 1), (2, 2), (1, 4)):
        with pytest.raises(RestoreError, match=f"{name} started 2 processes, 1 on this machine; set devices=1 nodes=2"):
            find_environment(devices, nodes)


@pytest.mark.usefixtures("no_launcher")
def test_several_machines_need_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_environment(2, 1).creates_processes_externally is False
    with pytest.raises(RestoreError, match="nodes = 2: was started without a launcher"):
        find_environment(1, 2)
    monkeypatch.setenv("NODE_RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    assert find_environment(1, 2).node_rank() == 1


@pytest.mark.usefixtures("no_launcher")
def test_the_script_of_a_slurm_job_starts_its_own_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_NNODES", "1")
    assert find_environment(2, 1).creates_processes_externally is False
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert find_environment(1, 1).world_size() == 1
