"""Configs and runs of the release before, whose keys had other names."""

import logging
from pathlib import Path

import pytest
import yaml

from restore import config as config_module
from restore.config import build
from restore.training import loop as loop_module
from restore.training.config import TrainConfig
from restore.training.loop import train
from restore.training.resume import resolved
from tests.training.test_loop import SMALL_NET, config
from tests.training.test_resume import QUICK, assert_same_end

OLD = {
    "total_steps": 5,
    "target": "picture",
    "data": {"folders": ["photos"], "tiny": "skip"},
    "damage": [{"name": "noise"}],
    "loss": {"r1_every": 4},
    "watch": {"blind": 0.02, "slope": 0, "growth": 2, "logits": 100, "diversity": 0, "pixel_rise": 3},
    "accumulate": 2,
    "keep": 1,
}
NEW = {
    "total_steps": 5,
    "task": "restoration",
    "data": {"folders": ["photos"], "small_images": "skip"},
    "damage": [{"name": "noise"}],
    "loss": {"r1_interval": 4},
    "collapse": {
        "min_d_sensitivity": 0.02, "max_gradient_penalty": 0, "max_d_growth": 2, "max_logit": 100,
        "min_diversity": 0, "max_pixel_loss_ratio": 3,
    },
    "grad_accumulation": 2,
    "keep_checkpoints": 1,
}  # fmt: skip


def test_a_config_with_the_old_keys_means_the_same(caplog: pytest.LogCaptureFixture) -> None:
    config_module._warn_renamed.cache_clear()
    with caplog.at_level(logging.WARNING, "restore.config"):
        assert build(TrainConfig, OLD, where="old.yaml") == build(TrainConfig, NEW, where="new.yaml")
    assert "watch.blind is now called collapse.min_d_sensitivity" in caplog.text
    assert "target: picture is now called task: restoration" in caplog.text


def test_a_run_begun_with_the_old_keys_resumes_bit_for_bit(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = (config(clean, tmp_path / name, **QUICK) for name in ("whole", "parts"))
    train(whole)
    asked = iter([False, True])
    monkeypatch.setattr(loop_module, "any_rank", lambda fabric, here: next(asked, False))
    assert not train(parts).finished
    file = tmp_path / "parts" / "config.yaml"
    file.write_text(yaml.safe_dump(_with_old_keys(resolved(parts))))
    parts = config(clean, tmp_path / "parts", **QUICK, model={**SMALL_NET, "purpose": "reworded"})
    assert train(parts).finished
    assert_same_end(whole, parts)
    assert yaml.safe_load(file.read_text())["task"] == "restoration"


def _with_old_keys(values: dict) -> dict:
    old = {**values, "target": "picture", "accumulate": values["grad_accumulation"], "watch": {"blind": 0.1}}
    old["loss"] = {**values["loss"], "r1_every": values["loss"]["r1_interval"]}
    old["data"] = {**values["data"], "tiny": values["data"]["small_images"]}
    for key in ("task", "grad_accumulation", "collapse"):
        del old[key]
    del old["loss"]["r1_interval"]
    del old["data"]["small_images"]
    return old
