"""Runs that are killed after their first save, and whether they end as if they were not."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from restore.checkpoints import read_state


def kill_after_a_save(config: str, overrides: Sequence[str], out: Path) -> None:
    """Start a run by the command line, and `kill -9` it as soon as it has saved its state."""
    command = [sys.executable, "-m", "restore.cli", "train", config, *overrides, f"out={out}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (out / "last" / "state.safetensors").exists():
        assert process.poll() is None, "it ended before it saved anything"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()


def assert_same_end(run: Path, other: Path) -> None:
    """Compare the last states of two runs, bit for bit."""
    (expected, facts), (found, found_facts) = (read_state(f / "last" / "state.safetensors") for f in (run, other))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert found_facts["monitor"] == facts["monitor"]
