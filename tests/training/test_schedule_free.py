"""Schedule-free AdamW for G: its averages are validated, and stopping costs nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from restore.errors import RestoreError
from restore.training import loop as loop_module
from restore.training.compute import ComputeSettings
from restore.training.config import TrainConfig
from restore.training.loop import train
from restore.training.schedule_free import averaged_weights
from restore.training.setup import build_networks, make_trainable, open_fabric, set_learning_rates
from tests.training.test_loop import config, state
from tests.training.test_resume import QUICK, assert_same_end


def settings(clean: Path, out: Path, **changes: object) -> TrainConfig:
    return config(clean, out, **{**QUICK, "optimizer": {"kind": "schedule-free", "lr": 1e-3}, **changes})


def test_the_averages_are_those_of_the_package(clean: Path, tmp_path: Path) -> None:
    pytest.importorskip("schedulefree")
    run = settings(clean, tmp_path / "run")
    generator, _ = build_networks(run)
    g = make_trainable(generator, open_fabric(run), run, ComputeSettings("fp32"), is_discriminator=False)
    before = [p.detach().clone() for p in generator.parameters()]
    found = averaged_weights(g.optimizer)
    assert found is not None
    assert all(torch.equal(one, other) for one, other in zip(found, before, strict=True))
    for seed in range(3):
        torch.manual_seed(seed)
        for p in generator.parameters():
            p.grad = torch.randn_like(p)
        g.step()
    found = averaged_weights(g.optimizer)
    assert found is not None
    g.optimizer.eval()  # type: ignore[attr-defined]
    for one, other in zip(found, generator.parameters(), strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=0, atol=1e-6)


def test_g_has_no_schedule_and_d_has_one(clean: Path, tmp_path: Path) -> None:
    pytest.importorskip("schedulefree")
    run = settings(clean, tmp_path / "run", optimizer={"kind": "schedule-free", "lr": 1e-3, "warmup_steps": 10})
    fabric = open_fabric(run)
    generator, discriminator = build_networks(run)
    assert discriminator is not None
    g = make_trainable(generator, fabric, run, ComputeSettings("fp32"), is_discriminator=False)
    d = make_trainable(discriminator, fabric, run, ComputeSettings("fp32"), is_discriminator=True)
    for step, rates in ((4, (5e-4, 5e-4)), (50, (1e-3, 5e-4))):
        set_learning_rates(g, d, run.optimizer, step, 100, from_init=False)
        assert [n.param_groups[0]["lr"] for n in (g, d)] == pytest.approx(rates, rel=0.01)


def test_a_run_goes_on_bit_for_bit(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("schedulefree")
    whole, parts = (settings(clean, tmp_path / name) for name in ("whole", "parts"))
    train(whole)
    asked = iter([False, True])
    monkeypatch.setattr(loop_module, "any_rank", lambda fabric, here: next(asked, False))
    assert train(parts).step == 2
    assert train(parts).finished
    assert_same_end(whole, parts)
    tensors = state(tmp_path / "whole")
    assert any(not torch.equal(tensors[k], tensors[f"ema.{k[2:]}"]) for k in tensors if k.startswith("g."))


def test_without_the_package_it_is_refused(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    with pytest.raises(RestoreError, match=r"needs the package schedulefree; .*restore-toolkit\[schedule-free\]"):
        train(settings(clean, tmp_path / "run"))
