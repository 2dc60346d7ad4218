import torch

from restore.degradations import degradation_from, keys
from restore.degradations.drawing import visible_pixels


def line_on(before: torch.Tensor, tone: float, opacity: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Before, after, and where a line of two pixels' width lies."""
    covered = torch.zeros(1, 1, *before.shape[-2:], dtype=torch.bool)
    covered[..., 30:32, :] = True
    return before, torch.where(covered, before + opacity * (tone - before), before), covered


def noisy(level: float, sigma: float) -> torch.Tensor:
    noise = torch.randn(1, 1, 64, 200, generator=torch.Generator().manual_seed(0))
    return (level + sigma / 255 * noise).expand(1, 3, -1, -1)


def share_seen(before: torch.Tensor, tone: float, opacity: float) -> float:
    before, after, covered = line_on(before, tone, opacity)
    mask = visible_pixels(before, after, covered)
    assert not (mask & ~covered).any()
    return (mask.sum() / covered.sum()).item()


def test_the_faintest_line_that_is_seen_is_stronger_where_grain_is() -> None:
    # a line 10 steps brighter than what it lies on
    assert share_seen(noisy(0.5, 0), 0.5 + 20 / 255, 0.5) == 1
    assert share_seen(noisy(0.5, 4), 0.5 + 20 / 255, 0.5) > 0.95
    assert share_seen(noisy(0.5, 30), 0.5 + 20 / 255, 0.5) < 0.05


def test_a_strong_line_is_seen_whole_through_grain() -> None:
    # also where single pixels happen to have its tone
    assert share_seen(noisy(0.4, 25), 0.95, 0.9) == 1


def test_a_change_below_what_a_file_shows_is_not_seen() -> None:
    assert share_seen(noisy(0.5, 0), 0.5 + 4 / 255, 1) == 0
    assert share_seen(noisy(0.5, 0), 0.5 + 6 / 255, 1) == 1


def test_the_rule_is_that_of_rose() -> None:
    """Contrast times the root of the area, over the noise: seen from 5 on; of two pixels' width, 22 in the window."""
    for times, is_seen in ((0.75, False), (1.35, True)):
        contrast = times * 5 * 10 / 22**0.5
        before, after, covered = line_on(noisy(0.5, 10), 0, 0)
        assert (
            visible_pixels(before, after + contrast / 255 * covered, covered).sum() / covered.sum() > 0.5
        ) == is_seen


def test_a_white_scratch_ends_where_it_runs_into_white() -> None:
    before = torch.full((1, 3, 64, 200), 0.4)
    before[..., 100:] = 0.96
    before, after, covered = line_on(before, 0.96, 1.0)
    mask = visible_pixels(before, after, covered)
    assert mask[..., 30:32, :95].all()
    assert not mask[..., 110:].any()


def test_what_is_not_seen_is_not_drawn() -> None:
    grainy = noisy(0.5, 60).clamp(0, 1)
    faint = degradation_from([{"name": "scratch", "opacity": 0.05, "count": 8, "scale_with_image": False}], "test")
    damaged, mask = faint(grainy, keys(0, last=[0]))
    assert not mask.any()
    assert torch.equal(damaged, grainy)
