"""Two processes that share a batch do what one does with the whole of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.test_loop import SMALL_NET, config

STEPS = 20


def losses(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "pixel" in line]


@pytest.fixture(scope="module")
def alone(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(clean, tmp_path_factory.mktemp("alone") / "run", [])


def run(clean: Path, out: Path, extra: list[str], launcher: tuple[str, ...] = ()) -> Path:
    settings = config(
        clean, out, total_steps=STEPS, log_every=1, validate_every=STEPS, save_every=STEPS, model=SMALL_NET,
        # Holes of different sizes, and patches of 16 px: the processes count unequal numbers of patches.
        damage=[{"name": "boxes", "count": [1, 2], "side": [60, 300]}],
        discriminator={"args": {"ndf": 8, "n_layers": 1, "norm": "none", "spectral_norm": True}},
        loss={"adversarial": "hinge", "adversarial_start": 5, "hole_weight": 6},
    )  # fmt: skip
    file = out.parent / "small.yaml"
    file.write_text(settings.model_dump_json())
    command = [sys.executable, "-m", *launcher, "restore.cli", "train", str(file), *extra]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best.safetensors") == 1, "one process speaks"
    return out


@pytest.mark.parametrize(
    "launcher",
    [(), ("torch.distributed.run", "--nproc_per_node=2", "--master_port=29533", "-m")],
    ids=["own", "torchrun"],
)
def test_two_processes_with_half_the_batch_lose_as_one(
    alone: Path, clean: Path, tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    shared = run(clean, tmp_path / "run", ["devices=2"], launcher)
    ours, theirs = losses(alone), losses(shared)
    assert len(ours) == len(theirs) == STEPS
    for one, two in zip(ours, theirs):
        assert one.keys() == two.keys()
        assert ("d" in one) == (one["step"] > 5)
        for name in ("pixel", "d", "g_adversarial"):
            if name in one:
                # Once D has been updated, Adam has made steps of rounding.
                tolerance = 1e-5 if name == "d" and one["step"] == 6 else 1e-4
                assert two[name] == pytest.approx(one[name], abs=tolerance), f"{name} at step {one['step']}"
    validated = [
        [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines() if "validation_psnr" in line]
        for out in (alone, shared)
    ]
    assert validated[1][-1]["validation_psnr"] == pytest.approx(validated[0][-1]["validation_psnr"], abs=1e-3)


def test_two_processes_resume_what_they_were_doing(clean: Path, tmp_path: Path) -> None:
    shared = ["devices=2", "optimizer.schedule=constant", "validate_every=100"]
    whole = run(clean, tmp_path / "whole", [*shared, "total_steps=12"])
    run(clean, tmp_path / "parts", [*shared, "total_steps=9"])
    parts = run(clean, tmp_path / "parts", [*shared, "total_steps=12"])
    seen = [[{k: v for k, v in line.items() if k != "images_per_second"} for line in losses(o)] for o in (whole, parts)]
    assert seen[0] == seen[1]
    assert "diversity" in seen[0][-1], "each process remembers its own images"
    states = [load_file(out / "last" / "state.safetensors") for out in (whole, parts)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
