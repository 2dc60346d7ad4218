"""What the watch makes of a run's numbers."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from restore.errors import RestoreError
from restore.training.collapse_monitor import CollapseMonitor
from restore.training.config import CollapseConfig

HEALTHY = {"pixel": 0.05, "d": 0.69, "d_real": 0.1, "d_fake": -0.1, "d_sensitivity": 0.8, "d_growth": 1.01}


def looked(watch: CollapseMonitor, lines: int, start: int = 1000, **changes: float) -> None:
    for line in range(lines):
        watch.check(start + 20 * line, {**HEALTHY, "diversity": 0.9, **changes}, 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d_sensitivity": 0.05}, r"gives the same output .* \(sensitivity 0.05\).*lower optimizer.lr_discriminator"),
        ({"d_growth": 2.0}, "the norm of its filters grew by a factor of 2.00"),
        ({"d_gradient_penalty": 1e5}, r"its gradient penalty is 1e\+05"),
        ({"d_fake": -1e4}, "its mean logit is 1e"),
        ({"diversity": 0.01}, "different inputs give almost the same image"),
    ],
)
def test_what_goes_wrong_for_five_log_lines_is_called_out(changes: dict[str, float], words: str) -> None:
    watch = CollapseMonitor(CollapseConfig(), "vanilla", Path("runs/x"))
    looked(watch, 3)
    looked(watch, 4 if "d_sensitivity" not in changes else 2, **changes)
    with pytest.raises(RestoreError, match=words) as error:
        looked(watch, 3, **changes)
    assert error.value.exit_code == 3


def test_a_pixel_loss_that_rises_is_the_adversarys_work() -> None:
    watch = CollapseMonitor(CollapseConfig(), "vanilla", Path("runs/x"))
    looked(watch, 20)
    with pytest.raises(RestoreError, match=r"the pixel loss is 4\.\d times its lowest value"):
        looked(watch, 20, pixel=0.3)


def test_a_healthy_run_and_single_bad_lines_pass() -> None:
    watch = CollapseMonitor(CollapseConfig(), "wgan-gp", Path("runs/x"))
    for _ in range(10):
        looked(watch, 4, d_real=1e4, d_sensitivity=math.nan)
        looked(watch, 2, d_sensitivity=0.01, d_growth=9.0, diversity=0.0)
        looked(watch, 4)


def test_losses_of_single_pictures_may_differ_by_a_factor_of_ten() -> None:
    """As at batch 1: some crops are sky, some are grass."""
    watch = CollapseMonitor(CollapseConfig(), "vanilla", Path("runs/x"))
    losses = 0.03 * torch.randn(4000, generator=torch.Generator().manual_seed(0)).mul(0.7).exp()
    for loss in losses.tolist():
        looked(watch, 1, pixel=loss)


def test_a_network_that_has_learned_nothing_yet_is_given_time() -> None:
    watch = CollapseMonitor(CollapseConfig(), "vanilla", Path("runs/x"))
    looked(watch, 25, start=0, diversity=0.01)
    with pytest.raises(RestoreError, match="generator collapsed"):
        looked(watch, 10, start=500, diversity=0.01)


@pytest.mark.parametrize("log_every", [10, 20, 100])
def test_growth_is_that_of_the_last_two_hundred_steps(log_every: int) -> None:
    d = nn.Conv2d(1, 1, 3)
    watch = CollapseMonitor(CollapseConfig(), "vanilla", Path("runs/x"), d, d_start=1000)
    d.weight.data.mul_(2)
    grown = {
        step: float(watch.d_growth(step)["d_growth"]) for step in range(1000 + log_every, 1500, log_every)
    }  # fmt: skip
    assert grown[1000 + log_every] == pytest.approx(2.0)
    assert grown[1200] == pytest.approx(2.0)
    assert grown[1400] == pytest.approx(1.0)
    assert watch.diversity() == {}


def test_filters_under_spectral_norm_may_grow() -> None:
    """Their effective weights stay as they are; a filter without spectral norm still counts."""
    bounded, free = nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 1, 3)), nn.Conv2d(1, 1, 3)
    watches = [
        CollapseMonitor(CollapseConfig(), "hinge", Path("runs/x"), d) for d in (bounded, nn.Sequential(bounded, free))
    ]
    bounded.parametrizations.weight.original.data.mul_(100)
    free.weight.data.mul_(2)
    alone, both = (watch.d_growth(100) for watch in watches)
    assert alone == {}
    assert float(both["d_growth"]) == pytest.approx(2.0)


def test_growth_between_log_lines_far_apart_is_a_rate() -> None:
    d = nn.Conv2d(1, 1, 3)
    watch = CollapseMonitor(CollapseConfig(), "vanilla", Path("runs/x"), d, d_start=0)
    d.weight.data.mul_(2)
    assert float(watch.d_growth(800)["d_growth"]) == pytest.approx(2 ** (200 / 800))


def test_diversity_is_that_of_the_outputs_over_that_of_the_clean_pictures() -> None:
    watch = CollapseMonitor(CollapseConfig(), "vanilla", Path("runs/x"))
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        clean = torch.rand(1, 3, 8, 8, generator=generator)
        watch.add_thumbnails(0.5 + 0.1 * clean, clean)
    assert float(watch.diversity()["diversity"]) == pytest.approx(0.1, rel=1e-3)


def test_what_is_kept_of_the_run_is_told_as_it_is(tmp_path: Path) -> None:
    for files, words in (
        ((), "nothing was saved yet"),
        (("best.safetensors",), "; the folder keeps the best weights"),
        (
            ("best.safetensors", "last/state.safetensors"),
            "; the folder keeps the last saved state and the best weights",
        ),
    ):
        for file in files:
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).touch()
        watch = CollapseMonitor(CollapseConfig(patience=1), "vanilla", tmp_path)
        with pytest.raises(RestoreError, match=words):
            looked(watch, 3, d_growth=2.0)
