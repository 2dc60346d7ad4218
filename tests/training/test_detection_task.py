"""Training a detector: it learns to mark damage, stops and goes on as others do, and says what it is."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from restore.checkpoints import load_generator, read_description
from restore.config import build
from restore.data.loader import Batch
from restore.errors import RestoreError
from restore.images import read_rgb8
from restore.training.config import TrainConfig
from restore.training.dry_run import preview
from restore.training.loop import TrainCallbacks, train
from restore.training.setup import open_fabric
from restore.training.validation import MARGIN_PX, THRESHOLDS, score_masks
from tests.training.test_loop import _raise_at, state


def config(clean: Path, out: Path, **changes: object) -> TrainConfig:
    values = {
        "out": str(out),
        "task": "detection",
        "total_steps": 6,
        "precision": "fp32",
        "device": "cpu",
        "data": {"folders": [str(clean)], "patch": 32, "batch": 2, "validation_percent": 50, "validation_size": 64},
        "damage": {"clean_probability": 0.2, "steps": [{"name": "dust", "count": [5, 30], "scale_with_image": False}]},
        "model": {"builder": "unet", "args": {"widths": [8, 12], "blocks": [1, 1]}},
        "best_by": "f1", "log_every": 2, "validate_every": 3, "save_every": 2,
    }  # fmt: skip
    return build(TrainConfig, values | changes, where="test")


def test_a_run_leaves_weights_that_say_they_are_a_detectors(clean: Path, tmp_path: Path) -> None:
    assert train(config(clean, tmp_path / "run")).finished
    model, description = load_generator(tmp_path / "run" / "best.safetensors")
    assert description.finds is not None
    assert (description.finds.threshold in THRESHOLDS, description.finds.margin_px) == (True, MARGIN_PX)
    assert not description.needs_mask
    assert model(torch.rand(1, 3, 16, 24)).shape == (1, 1, 16, 24)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"cross_entropy", "dice", "validation_f1", "validation_marked_clean"} <= {k for line in lines for k in line}
    assert all(np.isfinite(v) for line in lines for v in line.values())
    assert read_rgb8(tmp_path / "run" / "samples" / "step_0000006.png").shape[1] == 3 * (64 + 4)


def test_it_learns_to_find_dust_and_to_leave_clean_pictures_alone(clean: Path, tmp_path: Path) -> None:
    scores: list[dict[str, float]] = []
    settings = config(
        clean, tmp_path / "run", total_steps=200, log_every=50, validate_every=200, save_every=200,
        damage={
            "clean_probability": 0.2,
            "steps": [{"name": "dust", "count": [3, 9], "width": [4, 9], "opacity": 1, "scale_with_image": False}],
        },
        optimizer={"lr": 5e-3, "clip_norm": 1.0}, ema=0.9,
    )  # fmt: skip
    train(settings, TrainCallbacks(validated=lambda step, values, best: scores.append(values)))
    assert scores[0]["f1"] < 0.1
    assert scores[-1]["f1"] > 0.3
    assert scores[-1]["marked_clean"] < 0.01
    assert 0 < read_description(tmp_path / "run" / "best.safetensors").overlap_px < 48


def test_a_stopped_run_ends_bit_for_bit_as_one_never_stopped(clean: Path, tmp_path: Path) -> None:
    train(config(clean, tmp_path / "whole"))
    parts = config(clean, tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        train(parts, TrainCallbacks(logged=_raise_at(4)))
    assert train(parts).finished
    for name, tensor in state(tmp_path / "whole").items():
        assert torch.equal(tensor, state(tmp_path / "parts")[name]), name


def test_a_dry_run_shows_what_is_to_be_found(clean: Path, tmp_path: Path) -> None:
    found = preview(config(clean, tmp_path / "run"))
    assert found.facts[0].startswith("G: unet")
    assert found.facts[1].startswith("data: "), "there is no D"
    sheet = read_rgb8(found.image)
    assert sheet.shape[:2] == (2 * 36, 3 * 36)
    assert set(np.unique(sheet[:32, 36:68])) <= {0, 255}
    (tmp_path / "printed.yaml").write_text(found.text())
    from restore.config import load

    assert load(TrainConfig, tmp_path / "printed.yaml") == config(clean, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": {"hole_weight": 2}}, "loss.hole_weight has no effect with task: detection: masks are compared by"),
        ({"loss": {"adversarial": "hinge"}}, "trained without a discriminator"),
        ({"loss": {"perceptual": "lpips"}}, "compares images, not masks"),
        ({"discriminator": {"args": {"ndf": 8}}}, "discriminator has no effect"),
        ({"best_by": "psnr"}, "best_by cannot be psnr with task: detection; use f1, last"),
        ({"model": {"builder": "pix2pix"}}, "needs model.builder: unet"),
        ({"model": {"args": {"mask": True}}}, "model.args.mask cannot be set: it follows from the task"),
        ({"task": "restoration"}, "best_by cannot be f1 with task: restoration"),
        ({"task": "restoration", "best_by": "psnr", "loss": {"dice_weight": 2}}, "it compares masks"),
        (
            {"task": "restoration", "best_by": "psnr", "model": {"args": {"out_channels": 1}}},
            "out_channels cannot be set",
        ),
        ({"damage": None, "data": {"side_by_side": "."}}, "cannot use real pairs, which have no masks"),
    ],
)
def test_what_means_nothing_is_refused_with_a_reason(
    clean: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(RestoreError) as error:
        config(clean, tmp_path / "run", **changes)
    assert words in str(error.value)


def test_a_damage_that_leaves_no_mask_is_refused(clean: Path, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="nothing to detect"):
        train(config(clean, tmp_path / "run", damage="noise"))
    assert not (tmp_path / "run").exists()


class Seer(nn.Module):
    """Says of a pixel what is written in it: red is the probability's logit."""

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return picture[:, :1]


def seen(values: list[float], true: int, clean: list[float]) -> Batch:
    """One row of pixels far apart, of which the first `true` are damaged; the same places in the clean picture."""
    rows = [torch.full((1, 3, 1, 8 * len(values)), -9.0) for _ in range(2)]
    mask = torch.zeros(1, 1, 1, 8 * len(values))
    for row, logits in zip(rows, (values, clean)):
        row[..., ::8] = torch.tensor(logits)
    mask[..., : 8 * true : 8] = 1
    return Batch(rows[0], mask, rows[1], torch.zeros(1, dtype=torch.int64))


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


def test_the_threshold_is_the_one_with_the_highest_f1(clean: Path, tmp_path: Path) -> None:
    fabric = open_fabric(config(clean, tmp_path))
    batch = seen([logit(0.72), logit(0.68), logit(0.62)], true=2, clean=[-9.0, -9.0, -9.0])
    scores = score_masks(Seer(), [batch], fabric, precision="fp32")
    assert scores["threshold"] == 0.65
    assert (scores["f1"], scores["precision"], scores["recall"], scores["marked_clean"]) == (1, 1, 1, 0)


def test_of_thresholds_that_are_almost_as_good_the_highest_is_taken(clean: Path, tmp_path: Path) -> None:
    fabric = open_fabric(config(clean, tmp_path))
    sure, unsure = [logit(0.72)] * 300, logit(0.52)
    for missed, threshold in ((1, 0.7), (9, 0.5)):  # an F1 of 0.998, or 0.985, without those
        batch = seen([*sure, *[unsure] * missed], true=300 + missed, clean=[-9.0] * (300 + missed))
        scores = score_masks(Seer(), [batch], fabric, precision="fp32")
        assert scores["threshold"] == threshold


def test_a_threshold_that_marks_clean_pictures_is_passed_over(clean: Path, tmp_path: Path) -> None:
    fabric = open_fabric(config(clean, tmp_path))
    batch = seen([logit(0.58), logit(0.3)], true=2, clean=[logit(0.5), -9.0])
    scores = score_masks(Seer(), [batch], fabric, precision="fp32")
    assert scores["threshold"] == 0.55
    assert scores["recall"] == 0.5
    assert scores["marked_clean"] == 0


def test_an_output_that_is_no_number_has_no_score(clean: Path, tmp_path: Path) -> None:
    fabric = open_fabric(config(clean, tmp_path))
    for batch in (seen([np.nan], true=1, clean=[0.0]), seen([0.0], true=1, clean=[np.nan])):
        assert np.isnan(score_masks(Seer(), [batch], fabric, precision="fp32")["f1"])
