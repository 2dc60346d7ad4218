"""Runs that end within a time: how many steps they take, and that a resume keeps them. The clock is a counter."""

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from restore.config import build
from restore.errors import RestoreError
from restore.training import budget as budget_module
from restore.training import loop as loop_module
from restore.training.budget import Costs, fit
from restore.training.config import TrainConfig, load_train_config
from restore.training.loop import TrainCallbacks, train
from tests.training.test_loop import config
from tests.training.test_resume import assert_same_end

PLAIN = {"loss": {"pixel": "l1"}, "log_every": 5, "validate_every": 10, "save_every": 4, "damage": "noise"}


def plain(clean: Path, out: Path, **changes: object) -> TrainConfig:
    net = {"builder": "unet", "args": {"widths": [8, 12], "blocks": [1, 1], "mask": False}}
    return config(clean, out, **PLAIN | {"model": net} | changes)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set how far the clock goes on whenever it is read, from 0."""

    def start(seconds: float) -> None:
        times = itertools.count()
        for module in (budget_module, loop_module):
            monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(times) * seconds))
        monkeypatch.setattr(budget_module, "_MEASURED_STEPS", 2)

    return start


def test_the_steps_that_are_left_fill_the_time_that_is_left(tmp_path: Path) -> None:
    one = plain(tmp_path, tmp_path, total_steps=1000, validate_every=100)
    assert fit(one, 10, Costs(1.0, 0.0, 90.0), has_d=False).total_steps == 100
    # 990 steps of a second and 9.9 validations of 10: the last validation comes after the last step.
    assert fit(one, 10, Costs(1.0, 10.0, 118.9), has_d=False).total_steps == 109
    assert fit(one, 10, Costs(1.0, 0.0, -5.0), has_d=False).total_steps == 11


def test_larger_patches_and_a_second_network_cost_more(tmp_path: Path) -> None:
    stages = [{"start": 500, "data": {"patch": 64}}]
    one = plain(tmp_path, tmp_path, total_steps=1000, stages=stages)
    fitted = fit(one, 0 + 1, Costs(1.0, 0.0, 499 + 4 * 500), has_d=False)
    assert (fitted.total_steps, fitted.stages[0].start) == (1000, 500)
    fitted = fit(one, 1, Costs(1.0, 0.0, (499 + 4 * 500) / 10), has_d=False)
    assert (fitted.total_steps, fitted.stages[0].start) == (101, 51)
    adversary = {"adversarial": "hinge", "adversarial_start": 600}
    one = plain(tmp_path, tmp_path, total_steps=1000, loss=adversary)
    fitted = fit(one, 100, Costs(1.0, 0.0, (500 + 2 * 400) / 10), has_d=False)
    assert (fitted.total_steps, fitted.loss.adversarial_start) == (190, 150)
    fitted = fit(one, 600, Costs(3.0, 0.0, 3 * 40), has_d=True)
    assert (fitted.total_steps, fitted.loss.adversarial_start) == (640, 600)


def test_every_stage_keeps_a_step(tmp_path: Path) -> None:
    stages = [{"start": 500, "data": {"patch": 48}}, {"start": 501, "data": {"patch": 64}}]
    fitted = fit(plain(tmp_path, tmp_path, total_steps=502, stages=stages), 3, Costs(1.0, 0.0, 0.0), has_d=False)
    assert ([stage.start for stage in fitted.stages], fitted.total_steps) == ([4, 5], 6)
    build(TrainConfig, fitted.model_dump(), where="test")


def test_a_run_ends_with_its_schedule_and_says_how_long_it_is(clean: Path, tmp_path: Path, clock) -> None:
    clock(1.0)
    said: list[str] = []
    rates: list[float] = []
    callbacks = TrainCallbacks(on_event=said.append, logged=lambda step, total, values: rates.append(values["lr"]))
    result = train(plain(clean, tmp_path / "run", total_steps=500, budget="20s"), callbacks)
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert result.finished
    assert 5 < result.step == stored["total_steps"] < 40
    assert stored["budget"] == "20s"
    (line,) = [line for line in said if line.startswith("budget of 20s: ")]
    assert f"{result.step} steps" in line
    assert rates[-1] < 0.1 * rates[0]
    assert train(plain(clean, tmp_path / "run", total_steps=500, budget="20s")).step == result.step
    clock(1.0)
    assert train(plain(clean, tmp_path / "run", total_steps=500, budget="30s")).step > result.step


def test_a_resumed_run_keeps_its_steps(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock) -> None:
    stages = [{"start": 250, "data": {"patch": 48, "batch": 1}}]
    whole, parts = (
        plain(clean, tmp_path / name, total_steps=500, budget="32s", stages=stages) for name in ("whole", "parts")
    )
    clock(1.0)
    said: list[str] = []
    ended = train(whole, TrainCallbacks(on_event=said.append))
    fits = [int(line.split("from step ")[1].split(";")[0].split(" ")[0]) for line in said if line.startswith("budget")]
    assert len(fits) == 2  # at the start, and when the stage began
    clock(1.0)
    asked = iter([False] * fits[1] + [True])
    with monkeypatch.context() as patched:
        patched.setattr(loop_module, "any_rank", lambda fabric, here: next(asked, False))
        assert fits[1] < train(parts).step < ended.step
    clock(50.0)  # a machine that has become slow, and no time left
    said.clear()
    assert train(parts, TrainCallbacks(on_event=said.append)).step == ended.step
    assert not [line for line in said if line.startswith(("budget", "changed"))]
    assert_same_end(whole, parts)
    with pytest.raises(RestoreError, match="has 1 stages"):
        train(parts.model_copy(update={"stages": ()}))


def test_a_budget_is_a_time_and_takes_the_place_of_total_steps(tmp_path: Path) -> None:
    times = {"10min": 600, "2h": 7200, "1h30min": 5400, "0.5 h": 1800, "1d": 86400, "45s": 45}
    assert {text: plain(tmp_path, tmp_path, budget=text).budget_seconds for text in times} == times
    for wrong in ("2", "two hours", "0h", "h"):
        with pytest.raises(RestoreError, match="not a time such as 10min"):
            plain(tmp_path, tmp_path, budget=wrong)
    with pytest.raises(RestoreError, match="total_steps: cannot be given together with a budget"):
        load_train_config("photo", ["data.folders=[a]", "total_steps=5", "budget=2h"])
