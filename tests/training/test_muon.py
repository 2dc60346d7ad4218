"""Muon for kernels, AdamW for the rest of G; stopping and going on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from restore.errors import RestoreError
from restore.training import loop as loop_module
from restore.training.compute import ComputeSettings
from restore.training.config import TrainConfig
from restore.training.loop import TrainCallbacks, train
from restore.training.muon import KernelMuon
from restore.training.setup import build_networks, make_trainable, open_fabric, set_learning_rates
from tests.training.test_loop import config
from tests.training.test_resume import QUICK, assert_same_end

MUON = {"optimizer": {"kind": "muon", "lr": 1e-3, "lr_kernels": 0.01}}

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs PyTorch 2.9")


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_kernels_are_updated_as_matrices(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3).to(memory_format=memory_format)
    matrix = nn.Parameter(layer.weight.detach().contiguous().flatten(1).clone())
    ours = KernelMuon([layer.weight], lr=0.01, weight_decay=0.1)
    theirs = torch.optim.Muon([matrix], lr=0.01, weight_decay=0.1)
    for _ in range(3):
        slope = torch.randn(6, 4, 3, 3)
        layer.weight.grad = slope.contiguous(memory_format=memory_format)
        matrix.grad = slope.flatten(1)
        ours.step()
        theirs.step()
    # The columns lie in another order with channels_last, and Muon computes in bfloat16.
    torch.testing.assert_close(layer.weight.detach().contiguous().flatten(1), matrix.detach(), rtol=0, atol=5e-4)


def settings(clean: Path, out: Path, **changes: object) -> TrainConfig:
    return config(clean, out, **{**QUICK, **MUON, **changes})


def test_all_parameters_of_g_have_one_optimizer_and_both_follow_the_schedule(clean: Path, tmp_path: Path) -> None:
    run = settings(clean, tmp_path / "run")
    fabric = open_fabric(run)
    generator, discriminator = build_networks(run)
    assert discriminator is not None
    g = make_trainable(generator, fabric, run, ComputeSettings("fp32"), is_discriminator=False)
    d = make_trainable(discriminator, fabric, run, ComputeSettings("fp32"), is_discriminator=True)
    assert g.kernels is not None
    assert d.kernels is None
    count = sum(p.numel() for group in g.param_groups for p in group["params"])
    assert count == sum(p.numel() for p in generator.parameters())
    assert all(p.ndim == 2 for p in g.kernels.optimizer.param_groups[0]["params"])
    set_learning_rates(g, d, run.optimizer, 50, 100, from_init=False)
    assert [group["lr"] for group in g.param_groups] == pytest.approx([5e-4, 5e-3])
    with pytest.raises(RestoreError, match="muon has no fp16"):
        make_trainable(generator, fabric, run, ComputeSettings("fp16"), is_discriminator=False)


def test_a_run_goes_on_bit_for_bit_and_learns(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = (settings(clean, tmp_path / name) for name in ("whole", "parts"))
    values: list[dict[str, float]] = []
    train(whole, TrainCallbacks(logged=lambda step, total, found: values.append(found)))
    assert all(line["skipped"] == 0 for line in values)
    asked = iter([False, True])
    monkeypatch.setattr(loop_module, "any_rank", lambda fabric, here: next(asked, False))
    assert train(parts).step == 2
    assert train(parts).finished
    assert_same_end(whole, parts)
    with pytest.raises(RestoreError, match=r"optimizer\.kind was muon, is adamw"):
        train(settings(clean, tmp_path / "whole", optimizer={"kind": "adamw"}))
