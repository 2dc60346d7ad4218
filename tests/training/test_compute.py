"""How a run computes is chosen when it begins and kept when it resumes."""

import json
import os
from pathlib import Path

import pytest
import torch

from restore import devices
from restore.devices import restored_threads
from restore.models.registry import build_generator
from restore.training import compute
from restore.training.compute import ComputeSettings, candidates, fastest, time_candidates, usual_settings
from restore.training.loop import TrainCallbacks, train
from restore.training.network_config import generator_args
from tests.training.test_loop import config, state

FP32, FP32_LAST = ComputeSettings("fp32"), ComputeSettings("fp32", channels_last=True)
BF16, BF16_LAST = ComputeSettings("bf16"), ComputeSettings("bf16", channels_last=True)
ALL = (FP32, FP32_LAST, BF16, BF16_LAST)


@pytest.fixture(autouse=True)
def _time_short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "_LEAST_STEPS", 1)


SHORT = {"total_steps": 2, "log_every": 1, "validate_every": 1, "save_every": 1, "loss": {}}


@pytest.mark.parametrize(
    ("usual", "seconds", "chosen"),
    [
        (BF16_LAST, (4.0, 3.8, 2.4, 2.0), BF16_LAST),
        (BF16_LAST, (1.7, 3.8, 2.4, 2.0), FP32),
        (BF16_LAST, (1.9, 3.8, 2.4, 2.0), BF16_LAST),  # not a tenth faster: it may be noise
        (FP32, (4.0, 3.0, 2.4, 2.0), BF16_LAST),
        (FP32, (4.0, 3.0, 9.4, 9.0), FP32_LAST),
        (FP32, (4.0, 4.0, 4.0, 4.0), FP32),
    ],
)
def test_the_fastest_settings_win_clearly_or_not_at_all(
    usual: ComputeSettings, seconds: tuple[float, ...], chosen: ComputeSettings
) -> None:
    assert fastest(usual, dict(zip(ALL, seconds))) == chosen


def test_bf16_is_timed_only_where_it_has_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert candidates(BF16_LAST) == [BF16_LAST, FP32, FP32_LAST, BF16]
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert candidates(FP32) == [FP32, FP32_LAST]


@pytest.mark.parametrize("channels", ["color", "gray"])
def test_timing_leaves_no_trace(clean: Path, tmp_path: Path, channels: str) -> None:
    settings = config(clean, tmp_path / "run")
    settings = settings.model_copy(update={"data": settings.data.model_copy(update={"channels": channels})})
    generator = build_generator("unet", generator_args(settings), where="model")
    weights = {name: value.clone() for name, value in generator.state_dict().items()}
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    found = time_candidates(generator, [FP32, FP32_LAST], settings)
    assert found.keys() == {FP32, FP32_LAST}
    assert min(found.values()) > 0
    assert all(torch.equal(weights[name], value) for name, value in generator.state_dict().items())
    assert all(parameter.grad is None for parameter in generator.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == threads


def test_a_run_keeps_the_precision_that_was_fastest_when_it_began(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(fast: ComputeSettings) -> None:
        def times(*_: object) -> dict[ComputeSettings, float]:
            return {way: 1.0 if way == fast else 2.0 for way in ALL}

        monkeypatch.setattr(compute, "time_candidates", times)

    out, said = tmp_path / "run", []
    timed(FP32_LAST)
    train(config(clean, out, **SHORT, precision="auto"), TrainCallbacks(on_event=said.append))
    facts = json.loads((out / "environment.json").read_text())
    assert (facts["precision"], facts["channels_last"]) == ("fp32", True)
    assert [line.partition(":")[0] for line in said if "processor seconds" in line] == [
        "fp32 channels last, by processor seconds of a forward and a backward pass"
    ]

    timed(BF16_LAST)
    said.clear()
    longer = SHORT | {"total_steps": 3}
    train(config(clean, out, **longer, precision="auto"), TrainCallbacks(on_event=said.append))
    facts = json.loads((out / "environment.json").read_text())
    assert (facts["precision"], facts["channels_last"]) == ("fp32", True)
    assert not [line for line in said if "processor seconds" in line]

    named = SHORT | {"total_steps": 4}
    train(config(clean, out, **named, precision="bf16"))
    facts = json.loads((out / "environment.json").read_text())
    assert (facts["precision"], facts["channels_last"]) == ("bf16", True)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"device": "cpu", "precision": "bf16", "threads": 3}, {"precision": "bf16", "threads": 3}),
        ({"device": "cuda:0", "precision": "fp16", "threads": 3}, {}),
        ({"device": "cpu", "precision": "fp16", "threads": "all", "channels_last": None}, {}),
        ([], {}),
    ],
)
def test_what_a_run_of_before_has_recorded(tmp_path: Path, found: object, expected: dict[str, object]) -> None:
    assert compute.recorded(tmp_path) == compute.recorded(None) == {}
    (tmp_path / "environment.json").write_text(json.dumps(found))
    assert compute.recorded(tmp_path) == expected
    (tmp_path / "environment.json").write_text("{")
    assert compute.recorded(tmp_path) == {}


def test_a_run_of_before_keeps_the_usual_memory_format(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "time_candidates", lambda *_: pytest.fail("there is nothing to choose"))
    (tmp_path / "run").mkdir()
    for precision, last in (("bf16", True), ("fp32", False)):
        facts = {"device": "cpu", "precision": precision, "threads": 1}
        (tmp_path / "run" / "environment.json").write_text(json.dumps(facts))
        train(config(clean, tmp_path / "run", **SHORT, precision="auto"))
        found = json.loads((tmp_path / "run" / "environment.json").read_text())
        assert (found["precision"], found["channels_last"]) == (precision, last)
        (tmp_path / "run" / "last" / "state.safetensors").unlink()
        (tmp_path / "run" / "best.safetensors").unlink()
    assert usual_settings("fp16", torch.device("cuda")).channels_last


def test_a_run_that_resumes_under_another_load_ends_as_one_never_stopped(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(devices, "usable_cpus", lambda: 2)
    monkeypatch.setattr(compute, "usable_cpus", lambda: 2)
    constant = SHORT | {"optimizer": {"schedule": "constant"}}  # the others depend on the number of steps
    whole, parts = (config(clean, tmp_path / name, **constant | {"total_steps": 4}) for name in ("whole", "parts"))
    used: list[int] = []

    def run(idle: float, settings: object, said: list[str]) -> None:
        monkeypatch.setattr(devices, "idle_cpus", lambda: idle)
        noted = TrainCallbacks(on_event=said.append, logged=lambda *_: used.append(torch.get_num_threads()))
        train(settings, noted)

    with restored_threads():
        torch.set_num_threads(2)
        said: list[str] = []
        run(0.9, whole, said)
        assert set(used) == {1}
        assert any(line.startswith("1 of 2 threads, because other programs") for line in said)
        run(1.2, parts.model_copy(update={"total_steps": 2}), [])
        used.clear()
        run(2.0, parts, said)
        assert set(used) == {1}
        assert any(line.startswith("1 of 2 threads, as when the run began") for line in said)
        expected, found = state(tmp_path / "whole"), state(tmp_path / "parts")
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == []

        used.clear()
        longer = config(clean, tmp_path / "parts", **constant | {"total_steps": 5}, threads=2)
        run(0.0, longer, [])
        assert set(used) == {2}, "what the config says wins"
        assert torch.get_num_threads() == 2, "the caller's number is back"
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        used.clear()
        run(2.0, config(clean, tmp_path / "parts", **constant | {"total_steps": 6}), [])
        assert set(used) == {1}
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_a_run_too_short_for_the_timing_takes_the_usual_precision(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "_LEAST_STEPS", 3)
    monkeypatch.setattr(compute, "time_candidates", lambda *_: pytest.fail("it has two steps"))
    train(config(clean, tmp_path / "run", **SHORT, precision="auto"))
    facts = json.loads((tmp_path / "run" / "environment.json").read_text())
    usual = usual_settings(compute.pick_precision("auto", torch.device("cpu")), torch.device("cpu"))
    assert (facts["precision"], facts["channels_last"]) == (usual.precision, usual.channels_last)
