"""Steps that are recorded as a CUDA graph, or compiled, are the steps they would have been."""

import contextlib
import json
from pathlib import Path

import pytest
import torch

from restore.training.cuda_graph import make_stepper
from restore.training.loop import TrainCallbacks, train
from restore.training.setup import open_fabric
from restore.training.step import StepContext, train_step
from tests.training.test_loop import SMALL_NET, config, state

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GAMES = {
    "pixel loss alone": {"loss": {}},
    "hinge, r1, augmentation, D twice": {
        "loss": {"adversarial": "hinge", "r1": 1.0, "r1_interval": 4, "adversarial_start": 8, "feature_matching": 0.1},
        "discriminator": {"args": {"ndf": 8, "norm": "none", "spectral_norm": True}, "steps": 2,
                          "augment": ["color", "translation", "cutout"]},
    },
    "wgan-gp": {"loss": {"adversarial": "wgan-gp"}},
    "dropout and batch norm": {  # of many values: a norm of two turns rounding into signs
        "model": {"builder": "pix2pix", "args": {"num_downs": 5, "ngf": 8}}, "damage": [{"name": "noise"}],
        "data": {"patch": 128, "batch": 8},
        "discriminator": {"args": {"ndf": 8}}, "loss": {"adversarial": "vanilla", "pixel_weight": 200},
    },
    "in two parts": {"loss": {"adversarial": "lsgan"}, "grad_accumulation": 2},
}  # fmt: skip


def losses(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "pixel" in line]


@NEEDS_CUDA
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("game", GAMES)
def test_recorded_steps_lose_as_others_do(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, game: str, precision: str
) -> None:
    said: list[str] = []
    replayed = [0]
    replay = torch.cuda.CUDAGraph.replay

    def counted(graph: torch.cuda.CUDAGraph) -> None:
        replayed[0] += 1
        replay(graph)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", counted)
    data = {"folders": [str(clean)], "validation_percent": 50, "validation_size": 64, "patch": 32, "batch": 2}
    changes = {**GAMES[game], "data": data | GAMES[game].get("data", {})}
    for name, recorded in (("one by one", False), ("recorded", True)):
        settings = config(
            clean, tmp_path / name, device="cuda", precision=precision, cuda_graph=recorded, total_steps=24,
            log_every=1, validate_every=24, save_every=24, **changes,
        )  # fmt: skip
        train(settings, TrainCallbacks(on_event=said.append))
    assert not any("cannot be recorded" in line for line in said), said
    assert replayed[0] >= 10
    ours, theirs = losses(tmp_path / "recorded"), losses(tmp_path / "one by one")
    tolerance = 1e-3 if precision == "fp32" else 0.03
    for one, two in zip(ours, theirs, strict=True):
        for term in ("pixel", "d", "g_adversarial"):
            if term in two:
                assert one[term] == pytest.approx(two[term], rel=tolerance, abs=tolerance), (term, one["step"])
    assert ours[-1]["skipped"] == theirs[-1]["skipped"]


@NEEDS_CUDA
def test_a_recorded_run_goes_on_where_it_was(clean: Path, tmp_path: Path) -> None:
    changes = {"device": "cuda", "loss": {}, "optimizer": {"schedule": "constant"}, "log_every": 1, "save_every": 7}
    train(config(clean, tmp_path / "whole", **changes, total_steps=16))
    for total in (7, 16):
        train(config(clean, tmp_path / "parts", **changes, total_steps=total))
    whole, parts = state(tmp_path / "whole"), state(tmp_path / "parts")
    for name, tensor in whole.items():  # kernels on a GPU may add in another order, and Adam looks at signs
        if name.startswith("g."):
            assert torch.allclose(tensor, parts[name], atol=2e-3), name
    for one, two in zip(losses(tmp_path / "parts"), losses(tmp_path / "whole"), strict=True):
        assert one["pixel"] == pytest.approx(two["pixel"], abs=1e-3), one["step"]


def test_elsewhere_a_step_is_a_step(clean: Path, tmp_path: Path) -> None:
    settings = config(clean, tmp_path / "run")
    context = StepContext(open_fabric(settings), settings.loss, "fp32", with_mask=True)
    assert make_stepper(context, torch.device("cpu"), cuda_graph=True, paused=contextlib.nullcontext) is train_step
    assert make_stepper(context, torch.device("cuda"), cuda_graph=False, paused=contextlib.nullcontext) is train_step


ADVERSARY = {"adversarial": "hinge", "r1": 1.0, "r1_interval": 2, "feature_matching": 0.1}


@pytest.mark.parametrize(
    ("device", "loss", "backend"),
    [
        ("cpu", {}, "inductor"),
        # Traced, differentiated and split as for a compiler, without its half minute of C++ for D.
        ("cpu", ADVERSARY, "aot_eager"),
        pytest.param("cuda", ADVERSARY, "inductor", marks=NEEDS_CUDA),
    ],
    ids=["cpu", "cpu-adversary", "cuda"],
)
def test_compiled_networks_lose_as_others_do(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, loss: dict[str, object], backend: str
) -> None:
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **how: compiler(network, **{"backend": backend, **how}))
    for name, compiled in (("plain", False), ("compiled", True)):
        train(
            config(
                clean, tmp_path / name, device=device, compile=compiled, total_steps=4, log_every=1, validate_every=4,
                model={**SMALL_NET, "args": {"widths": [4, 8], "blocks": [1, 1]}},
                loss=loss,
            )
        )  # fmt: skip
    for one, two in zip(losses(tmp_path / "compiled"), losses(tmp_path / "plain"), strict=True):
        assert one["pixel"] == pytest.approx(two["pixel"], abs=1e-3)
        assert one.get("d") == pytest.approx(two.get("d"), abs=1e-3)
    assert state(tmp_path / "compiled").keys() == state(tmp_path / "plain").keys(), "weights keep their names"
