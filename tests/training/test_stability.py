"""What goes wrong while training: steps without numbers, collapse, memory; and that normal runs are left alone."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from restore.data.loader import Batch
from restore.errors import RestoreError
from restore.training import loop as loop_module
from restore.training import step as step_module
from restore.training.loop import TrainCallbacks, train
from restore.training.steps import STEPS
from restore.training.validation import is_better
from tests.training.test_loop import SMALL_NET, config, state

TOLD = {"log_every": 1, "validate_every": 100, "save_every": 100}


class Overflows:
    """The pixel loss, infinite at some of its calls, as fp16 makes it now and then."""

    def __init__(self, at: set[int]) -> None:
        self.at, self.calls, self.loss = at, 0, step_module.pixel_loss

    def __call__(self, kind: str, output: torch.Tensor, *rest: object) -> torch.Tensor:
        self.calls += 1
        value = self.loss(kind, output, *rest)
        return value * math.inf if self.calls in self.at else value


def test_one_step_without_numbers_is_skipped_and_counted_and_the_run_goes_on(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_module, "pixel_loss", Overflows({3}))
    seen: list[dict[str, float]] = []
    result = train(
        config(clean, tmp_path / "run", loss={"adversarial": "hinge"}, **TOLD),
        TrainCallbacks(logged=lambda step, total, values: seen.append(values)),
    )
    assert result.finished
    assert [values["skipped"] for values in seen] == [0, 0, 1, 1, 1, 1]
    assert all(tensor.isfinite().all() for tensor in state(tmp_path / "run").values())
    assert (tmp_path / "run" / "best.safetensors").exists()


def test_a_skipped_step_changes_no_weights_and_leaves_no_trace_in_batch_norm(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = step_module._forward
    calls = []

    def overflowing(g: step_module.TrainableNetwork, batch: Batch, context: step_module.StepContext) -> torch.Tensor:
        calls.append(1)
        if len(calls) != 2:
            return outputs(g, batch, context)
        broken = Batch(batch.damaged * math.nan, batch.mask, batch.clean, batch.keys)
        return outputs(g, broken, context)

    monkeypatch.setattr(step_module, "_forward", overflowing)
    for steps in (1, 2):
        calls.clear()
        train(
            config(
                clean, tmp_path / f"run{steps}", total_steps=steps, damage=[{"name": "noise"}],
                model={"builder": "pix2pix", "args": {"num_downs": 5, "ngf": 4, "dropout": False}},
                loss={"adversarial": "vanilla"}, discriminator={"args": {"ndf": 4}},
                optimizer={"schedule": "constant"}, **TOLD,
            )
        )  # fmt: skip
    one, two = state(tmp_path / "run1"), state(tmp_path / "run2")
    kept = [k for k in one if k.startswith(("g.", "d.")) and one[k].is_floating_point()]
    assert any("running_mean" in k for k in kept)
    assert [k for k in kept if not torch.equal(one[k], two[k])] == []


def test_many_steps_in_a_row_without_numbers_end_the_run_in_words(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config(clean, tmp_path / "run", total_steps=6))
    before = (tmp_path / "run" / "last" / "state.safetensors").read_bytes()
    monkeypatch.setattr(step_module, "pixel_loss", Overflows(set(range(1, 100))))
    settings = config(clean, tmp_path / "other", total_steps=40, collapse={"max_nonfinite_steps": 5}, **TOLD)
    with pytest.raises(RestoreError, match="the gradients of the last 5 steps contain NaN or Inf") as error:
        train(settings)
    assert error.value.exit_code == 3
    assert not (tmp_path / "other" / "best.safetensors").exists()
    assert (tmp_path / "run" / "last" / "state.safetensors").read_bytes() == before


def test_a_discriminator_at_a_hundred_times_the_rate_is_called_out(clean: Path, tmp_path: Path) -> None:
    settings = config(
        clean, tmp_path / "run", total_steps=300, log_every=5, validate_every=1000, save_every=1000,
        discriminator={"args": {"ndf": 8}}, loss={"adversarial": "vanilla"}, optimizer={"lr_discriminator": 2e-2},
    )  # fmt: skip
    with pytest.raises(RestoreError, match="the discriminator diverged") as error:
        train(settings)
    assert error.value.exit_code == 3
    assert "lr_discriminator" in str(error.value)


@pytest.mark.parametrize(
    ("adversarial", "norm"), [("vanilla", "batch"), ("lsgan", "batch"), ("hinge", "none"), ("wgan-gp", "none")]
)
def test_every_adversarial_loss_trains_on_finite_numbers_and_the_watch_is_silent(
    clean: Path, tmp_path: Path, adversarial: str, norm: str
) -> None:
    seen: list[dict[str, float]] = []
    settings = config(
        clean, tmp_path / "run", total_steps=16, log_every=1, validate_every=100, save_every=100,
        discriminator={"args": {"ndf": 8, "norm": norm}, "augment": ["color", "translation", "cutout"]},
        loss={"adversarial": adversarial, "r1": 1.0, "r1_interval": 4, "feature_matching": 0.1},
    )  # fmt: skip
    assert train(settings, TrainCallbacks(logged=lambda step, total, values: seen.append(values))).finished
    assert {"d", "d_r1", "d_sensitivity", "g_features", "g_adversarial"} <= set(seen[-1] | seen[-4])
    assert all(math.isfinite(v) for values in seen for v in values.values())
    assert seen[-1]["skipped"] == 0


def test_a_batch_that_does_not_fit_says_what_would(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(g: object, d: object, batches: list[Batch], *rest: object, **more: object) -> dict:
        if len(batches[0].keys) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {}

    monkeypatch.setitem(STEPS, "restoration", step)
    data = {
        "folders": [str(clean)], "patch": 32, "batch": 4, "validation_percent": 50, "validation_size": 64,
    }  # fmt: skip
    with pytest.raises(RestoreError) as error:
        train(config(clean, tmp_path / "run", data=data))
    assert "data.batch = 4, data.patch = 32: out of memory: a batch of 4 × 32² does not fit on cpu" in str(error.value)
    assert "set grad_accumulation=4" in str(error.value)
    assert error.value.exit_code == 1


@pytest.mark.parametrize("by", ["psnr", "ssim", "lpips", "last"])
def test_no_number_is_never_the_best(by: str) -> None:
    none, some = dict.fromkeys(("psnr", "ssim", "lpips"), math.nan), {"psnr": 30.0, "ssim": 0.9, "lpips": 0.1}
    assert not is_better(none, {}, by)
    assert not is_better(none, some, by)
    assert is_better(some, {}, by)


def test_weights_without_numbers_have_no_score(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module.Ema, "update", lambda ema, *_: ema.model.head.weight.fill_(math.nan))
    scores: list[dict[str, float]] = []
    settings = config(clean, tmp_path / "run", total_steps=1, best_by="last", loss={})
    train(settings, TrainCallbacks(validated=lambda step, values, best: scores.append({**values, "best": best})))
    assert math.isnan(scores[-1]["psnr"])
    assert not scores[-1]["best"]
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_going_on_from_good_weights_keeps_what_they_reach(clean: Path, tmp_path: Path) -> None:
    scores: list[float] = []
    told = TrainCallbacks(validated=lambda step, values, best: scores.append(values["psnr"]))
    blind = {"builder": "unet", "args": {**SMALL_NET["args"], "mask": False}}
    noise = [{"name": "noise", "sigma": 25}]
    shape = {"loss": {}, "damage": noise, "model": blind, "log_every": 100, "save_every": 1000}
    train(config(clean, tmp_path / "a", total_steps=120, validate_every=120, optimizer={"lr": 4e-3}, **shape), told)
    init = str(tmp_path / "a" / "best.safetensors")
    train(config(clean, tmp_path / "b", total_steps=1000, validate_every=10, init=init, early_stop=1, **shape), told)
    _, reached, start, first = scores[:4]
    assert start == pytest.approx(reached, abs=0.05), "half precision costs nothing to speak of"
    assert reached > 20.6, "the weights are worth keeping: the damage alone leaves 20.5 dB"
    assert first > reached - 0.05
    assert len(load_file(init)) > 0
    assert np.isfinite(scores).all()
