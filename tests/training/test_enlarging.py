"""Training a network that enlarges: small images made of clean ones, scores, weights that open, an exact resume."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from restore.checkpoints import load_generator
from restore.config import build
from restore.data.build import open_source
from restore.data.config import DataConfig
from restore.degradations import degradation_from
from restore.degradations.resize import downscaled
from restore.errors import RestoreError
from restore.images import read_rgb8
from restore.metrics import psnr
from restore.metrics.conventions import Convention
from restore.training.config import TrainConfig
from restore.training.loop import TrainCallbacks, train


def config(clean: Path, out: Path, **changes: object) -> TrainConfig:
    values = {
        "out": str(out),
        "total_steps": 4,
        "precision": "fp32",
        "device": "cpu",
        "data": {"folders": [str(clean)], "patch": 32, "batch": 2, "validation_percent": 50, "validation_size": 63},
        "model": {"builder": "enlarge", "args": {"scale": 2, "width": 8, "blocks": 1}},
        "lpips_net": "none", "log_every": 2, "validate_every": 2, "save_every": 2,
    }  # fmt: skip
    return build(TrainConfig, values | changes, where="test")


@pytest.mark.parametrize("factor", [2, 4])
def test_images_are_made_smaller_as_pillow_does(clean: Path, factor: int) -> None:
    pixels = read_rgb8(next(clean.iterdir()))
    expected = Image.fromarray(pixels).resize(
        (pixels.shape[1] // factor, pixels.shape[0] // factor), Image.Resampling.BICUBIC
    )
    small = downscaled(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255, factor)
    levels = (small[0].permute(1, 2, 0) * 255).round().int().numpy()
    difference = np.abs(levels - np.asarray(expected).astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.2, "Pillow rounds twice"


def test_batches_hold_small_images_and_clean_ones(clean: Path) -> None:
    data = DataConfig(folders=(str(clean),), patch=32, batch=2, validation_percent=50, validation_size=63)
    damage = degradation_from([{"name": "noise", "sigma": 20}], "test")
    for added in (None, damage):
        source, validation = open_source(
            data, added, multiple=4, shrink=4, device=torch.device("cpu"), on_event=lambda line: None
        )
        batch = source.batch(0, 0, 2)
        assert batch.clean.shape == (2, 3, 32, 32)
        assert batch.damaged.shape == (2, 3, 8, 8)
        assert batch.mask.shape == (2, 1, 8, 8)
        off = (batch.damaged - downscaled(batch.clean, 4)).abs().mean()
        assert (off == 0) == (added is None)
        assert validation[0].clean.shape == (1, 3, 60, 60)
        assert validation[0].damaged.shape == (1, 3, 15, 15)


def test_a_run_scores_luma_and_leaves_weights_that_tell_their_scale(clean: Path, tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []
    run = config(clean, tmp_path / "run")
    train(run, TrainCallbacks(validated=lambda step, scores, best: seen.append(scores)))
    model, description = load_generator(tmp_path / "run" / "best.safetensors")
    assert (description.scale, description.overlap_px, description.needs_mask) == (2, 4, False)
    assert description.purpose == "trained on images made smaller"

    best = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert "validation_psnr" in best
    _, validation = open_source(
        run.data, None, multiple=2, shrink=2, device=torch.device("cpu"), on_event=lambda line: None
    )
    luma = Convention("test", psnr_color="y-channel", border_px=2)
    with torch.no_grad():
        scores = [
            psnr((model(b.damaged).clamp(0, 1) * 255).round() / 255, b.clean, convention=luma) for b in validation
        ]
    expected = float(torch.cat(scores).mean())
    assert max(s["psnr"] for s in seen) == pytest.approx(expected, abs=0.02)
    grid = read_rgb8(tmp_path / "run" / "samples" / "step_0000004.png")
    assert grid.shape[1] == 3 * (62 + 4)


def test_a_stopped_run_ends_bit_for_bit_as_one_never_stopped(clean: Path, tmp_path: Path) -> None:
    noise = [{"name": "noise", "sigma": 10}]
    train(config(clean, tmp_path / "whole", damage=noise))

    def stop(step: int, total: int, values: dict[str, float]) -> None:
        if step == 4:
            raise KeyboardInterrupt

    parts = config(clean, tmp_path / "parts", damage=noise)
    with pytest.raises(KeyboardInterrupt):
        train(parts, TrainCallbacks(logged=stop))
    assert train(parts).finished
    whole = load_file(tmp_path / "whole" / "last" / "state.safetensors")
    for name, tensor in load_file(tmp_path / "parts" / "last" / "state.safetensors").items():
        assert torch.equal(tensor, whole[name]), name


def test_four_times_starts_from_two_times_and_trains_with_a_discriminator(clean: Path, tmp_path: Path) -> None:
    train(config(clean, tmp_path / "two", total_steps=2))
    four = {"builder": "enlarge", "args": {"scale": 4, "width": 8, "blocks": 1}}
    adversary = {"loss": {"adversarial": "hinge"}, "discriminator": {"args": {"ndf": 8, "n_layers": 1, "norm": "none"}}}
    run = config(clean, tmp_path / "four", total_steps=2, model=four, init=str(tmp_path / "two"), **adversary)
    assert train(run).finished
    _, description = load_generator(tmp_path / "four" / "best.safetensors")
    assert description.scale == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"input": "a", "target": "b"}}, "makes the small images itself"),
        ({"loss": {"hole_weight": 2}}, "loss.hole_weight has no effect"),
        ({"task": "detection"}, "needs model.builder"),
        ({"data": {"folders": ["x"], "conditions": ["depth"]}}, "without condition images"),
    ],
)
def test_refuses_what_has_no_effect(clean: Path, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(RestoreError, match=message):
        config(clean, tmp_path, **changes)


def test_a_patch_must_divide_by_the_scale(clean: Path, tmp_path: Path) -> None:
    data = {"folders": [str(clean)], "patch": 33, "batch": 2}
    with pytest.raises(RestoreError, match="multiple of 2"):
        train(config(clean, tmp_path / "run", data=data))
