"""Stages: keys that take other values from some step on, exactly, also across a resume."""

import json
from pathlib import Path

import numpy as np
import pytest

from restore.config import build
from restore.errors import RestoreError
from restore.training import loop as loop_module
from restore.training.config import TrainConfig
from restore.training.dry_run import preview
from restore.training.loop import TrainCallbacks, train
from restore.training.lr_finder import steepest
from restore.training.stages import plan_stages
from tests.training.test_loop import config
from tests.training.test_resume import assert_same_end

GROWING = [
    {"start": 2, "data": {"patch": 48, "batch": 1}, "loss": {"pixel_weight": 2}},
    {"start": 4, "data": {"patch": 64}, "optimizer": {"lr": 1e-3, "betas": [0.5, 0.9]}, "ema": 0.5},
]
SHORT = {"total_steps": 6, "log_every": 1, "validate_every": 3, "save_every": 1}


def staged(clean: Path, out: Path, stages: list[dict], **changes: object) -> TrainConfig:
    return config(clean, out, **SHORT | {"stages": stages} | changes)


def test_a_stage_keeps_what_it_does_not_set_and_a_schedule_starts_where_rates_do(clean: Path, tmp_path: Path) -> None:
    plans = plan_stages(staged(clean, tmp_path, GROWING))
    assert [plan.steps for plan in plans] == [range(2), range(2, 4), range(4, 6)]
    assert [plan.schedule for plan in plans] == [range(4), range(4), range(4, 6)]
    assert [(p.config.data.patch, p.config.data.batch) for p in plans] == [(32, 2), (48, 1), (64, 1)]
    assert [p.config.loss.pixel_weight for p in plans] == [1, 2, 2]
    assert [p.config.optimizer.lr for p in plans] == [2e-4, 2e-4, 1e-3]


@pytest.mark.parametrize("when", [1, 2, 3, 4, 5])
def test_a_run_stopped_in_any_stage_ends_as_one_never_stopped(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    # Two batches of its own for D in each step, so that steps and batches are counted apart.
    d = {"args": {"ndf": 8, "norm": "none"}, "steps": 2}
    whole, parts = (staged(clean, tmp_path / name, GROWING, discriminator=d) for name in ("whole", "parts"))
    said: list[str] = []
    train(whole, TrainCallbacks(on_event=said.append))
    assert [line for line in said if line.startswith("stage ")] == [
        "stage 0 from step 0: 2 × 32²", "stage 1 from step 2: 1 × 48²", "stage 2 from step 4: 1 × 64²",
    ]  # fmt: skip
    asked = iter([False] * (when - 1) + [True])
    monkeypatch.setattr(loop_module, "any_rank", lambda fabric, here: next(asked, False))
    assert train(parts).step == when
    assert train(parts).finished
    assert_same_end(whole, parts)


def test_stages_are_what_the_same_changes_on_resume_would_be(clean: Path, tmp_path: Path) -> None:
    constant = {"schedule": "constant"}
    stages = [{"start": 3, "data": {"patch": 48, "batch": 3}, "optimizer": {"lr": 1e-3}}]
    whole = staged(clean, tmp_path / "whole", stages, optimizer=constant)
    train(whole)
    by_hand = config(clean, tmp_path / "parts", **SHORT | {"total_steps": 3}, optimizer=constant)
    train(by_hand)
    values = by_hand.model_dump(mode="json") | {"total_steps": 6, "resume": {"allow": ["data.patch", "data.batch"]}}
    values["data"] |= {"patch": 48, "batch": 3}
    values["optimizer"] |= {"lr": 1e-3}
    by_hand = build(TrainConfig, values, where="test")
    assert train(by_hand).finished
    assert_same_end(whole, by_hand)


def test_a_finished_run_goes_on_in_a_new_stage_and_past_stages_stay(clean: Path, tmp_path: Path) -> None:
    train(config(clean, tmp_path / "run", **SHORT | {"total_steps": 2}))
    more = [{"start": 2, "data": {"patch": 64, "batch": 1}, "optimizer": {"lr": 1e-5}}]
    assert train(staged(clean, tmp_path / "run", more, total_steps=4)).step == 4
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (changed,) = [line["changed"] for line in lines if "changed" in line]
    assert changed["stages"]["is"][0]["data"] == {"patch": 64, "batch": 1}
    assert [line["lr"] for line in lines if "lr" in line][2] == 1e-5
    for stages in ([], [{**more[0], "start": 3}], [{**more[0], "data": {"patch": 48}}]):
        with pytest.raises(RestoreError, match="stages was"):
            train(staged(clean, tmp_path / "run", stages, total_steps=6))
    assert train(staged(clean, tmp_path / "run", [*more, {"start": 5, "ema": 0.9}], total_steps=6)).finished


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([{"start": 2, "data": {"folders": ["a"]}}], "a stage cannot set data.folders"),
        ([{"start": 2, "optimizer": {"kind": "muon"}}], "a stage cannot set optimizer.kind"),
        ([{"start": 2, "loss": {"adversarial": "none"}}], "a stage cannot set loss.adversarial;"),
        ([{"start": 2, "model": {}}], "unknown key 'stages.0.model'"),
        ([{"start": 3}, {"start": 3}], "each of the stages must start after the one before"),
        ([{"start": 6}], "a stage starts at step 6, but total_steps is 6"),
        ([{"start": 2, "data": {"patch": 4}}], "stages.0.data.patch: "),
        ([{"start": 2, "data": {"batch": 3}}, {"start": 4, "grad_accumulation": 2}], "stages.1: data.batch must be a"),
        ([{"start": 2, "optimizer": {"lrr": 1}}], "stages.0.optimizer.lrr: "),
    ],
)
def test_a_wrong_stage_is_named(clean: Path, tmp_path: Path, stages: list[dict], expected: str) -> None:
    with pytest.raises(RestoreError) as error:
        staged(clean, tmp_path, stages)
    assert expected in str(error.value)


def test_patches_of_all_stages_must_suit_the_networks(clean: Path, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="must be a multiple of 4 for this model"):
        train(staged(clean, tmp_path / "run", [{"start": 2, "data": {"patch": 50}}]))


def test_a_dry_run_measures_each_stage_and_finds_a_learning_rate(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restore.training.dry_run.MEASURED_SECONDS", 0)
    monkeypatch.setattr("restore.training.lr_finder.STEPS", 40)
    facts = preview(staged(clean, tmp_path / "run", GROWING), lr_finder=True).facts
    assert sum(fact.startswith("stage 1, from step 2: ") and "1 × 48²" in fact for fact in facts) == 1
    assert sum(fact.startswith("stage 2, from step 4: ") for fact in facts) == 1
    assert sum(fact.startswith("learning rate") and "lr_finder.png" in fact for fact in facts) == 1
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"dry_run.png", "lr_finder.png"}


def test_the_suggested_rate_is_where_the_loss_falls_most_steeply() -> None:
    rates = list(np.geomspace(1e-6, 1, 100))
    # A sigmoid over the logarithm of the rate falls most steeply in its middle, and rises from 0.1 on.
    losses = [1 / (1 + np.exp(2 * np.log(rate / 1e-3))) + max(0.0, rate - 0.1) * 20 for rate in rates]
    found = steepest(rates, losses)
    assert found is not None
    assert 0.8e-3 < found < 1.25e-3
    assert steepest(rates, [1.0 + rate for rate in rates]) is None
