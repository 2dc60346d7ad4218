import math

import pytest
import torch

from restore.degradations import degradation_from, keys
from restore.degradations.fold import Fold
from tests.degradations.measure import GRAY, angle_between, sampled

ONE = {"name": "fold", "count": 1, "width": 5, "opacity": 0.9, "dark": 0.4, "shade": 0}
#: The worn line of one fold and nothing else, in pixels of the image itself.
BARE = {
    "name": "fold", "count": 1, "width": 12, "opacity": 1, "worn": 1, "dark": 0, "shade": 0, "scale_with_image": False,
}  # fmt: skip
#: The rows of an image of 160 px, as a column.
ROWS = torch.arange(160.0)[:, None]


def marked(step: dict, clean: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return degradation_from([step], "test")(clean, keys(seed, last=range(len(clean))))


def test_a_fold_crosses_the_whole_picture() -> None:
    for mask in marked(ONE, torch.full((16, 3, 200, 280), 0.4))[1][:, 0]:
        rows, columns = mask.any(1).float().mean(), mask.any(0).float().mean()
        assert max(rows, columns) > 0.85
        touched = [mask[:4].any(), mask[-4:].any(), mask[:, :4].any(), mask[:, -4:].any()]
        assert sum(map(bool, touched)) >= 2


def test_a_fold_is_worn_bright_in_places_with_a_darker_line_beside() -> None:
    clean = torch.full((8, 3, 256, 256), 0.4)
    damaged, mask = marked(ONE, clean)
    change = (damaged - clean).mean(1, keepdim=True)[mask > 0]
    assert change.max() > 0.35
    assert change.min() < -0.08
    fresh, worn = (marked({**ONE, "worn": share}, clean)[0].mean() for share in (0, 1))
    assert worn > fresh


def test_the_light_changes_across_and_that_is_in_no_mask() -> None:
    clean = torch.full((8, 3, 256, 256), 0.5)
    step = {"name": "fold", "count": 1, "opacity": 0, "dark": 0, "shade": 0.05}
    damaged, mask = marked(step, clean)
    assert not mask.any()
    assert 0.01 < (damaged - clean).amax() < 0.03
    assert -0.03 < (damaged - clean).amin() < -0.01


def test_two_folds_cross() -> None:
    mask = marked({**ONE, "count": 2}, torch.full((8, 3, 200, 200), 0.4))[1][:, 0]
    assert mask.any(2).float().mean() > 0.8
    assert mask.any(1).float().mean() > 0.8


def level(
    side: float = 1, gray: float = GRAY, count: int = 8, **settings: object
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A level fold through the middle, with the dark line below (`side` 1) or above it, on gray, 160×160: the image,
    the mask, and the tone of the paper."""
    step = Fold(**{**BARE, **settings})
    params = step.sample(keys(7, last=range(count)), (160, 160))
    x_y_angle = torch.tensor([80.0, 80, 0], dtype=torch.float64)
    params["folds"][..., :3], params["folds"][..., 6], params["folds"][..., 8] = x_y_angle, side, 30
    image, mask = step.apply(torch.full((count, 3, 160, 160), gray), params)
    return image, mask, params["paper"][..., None, None].float()


def worn_line(**settings: object) -> torch.Tensor:
    """The opacity of the worn line of `level` folds, count×160×160."""
    image, _, paper = level(**settings)
    return ((image - GRAY) / (paper - GRAY))[:, 0]


def middle(lines: torch.Tensor) -> torch.Tensor:
    """The row of the line in every column of each image."""
    return (lines * ROWS).sum(1) / lines.sum(1)


@pytest.mark.parametrize("width", [6, 12])
def test_the_worn_line_is_about_half_as_wide_as_its_maximum(width: int) -> None:
    cover = worn_line(width=width, count=32)
    assert cover.sum(1).mean().item() == pytest.approx(0.535 * width, rel=0.1)
    across = (cover > 0.5).sum(1).float()
    assert across.mean().item() == pytest.approx(0.6 * width, rel=0.1)
    assert across.amax(1).median().item() == pytest.approx(1.2 * width, abs=0.2 * width)  # uneven
    assert across.diff(dim=1).abs().mean() > 0.2  # flaked


@pytest.mark.parametrize(("worn", "share"), [(0, 0.15), (0.3, 0.34), (0.7, 0.62), (1, 0.81)])
def test_a_fold_is_worn_along_the_asked_share(worn: float, share: float) -> None:
    cover = worn_line(count=24, worn=worn)
    assert (cover.amax(1) > 0.5).float().mean().item() == pytest.approx(share, abs=0.09)
    assert cover.amax(1).min() > 0.01  # the rest is a faint line


@pytest.mark.parametrize("opacity", [0.5, 1])
def test_the_worn_line_is_as_opaque_as_asked(opacity: float) -> None:
    assert worn_line(opacity=opacity).amax((1, 2)).mean().item() == pytest.approx(opacity, abs=0.01)


def test_a_fold_deviates_from_its_line_by_a_pixel_or_two() -> None:
    place = middle(worn_line(width=3)) - 80
    assert 0.3 < place.std(1).mean() < 0.9
    assert 0.8 < place.abs().amax(1).mean() < 2.2


def test_white_paper_shows_that_is_a_little_yellow() -> None:
    paper = sampled(BARE, 1000)["paper"]
    assert paper.mean(0) == pytest.approx([0.895, 0.8875, 0.865], abs=0.006)
    assert 0.82 <= paper[:, 0].min() < 0.83
    assert 0.96 < paper[:, 0].max() <= 0.97
    assert (paper[:, 0] - paper[:, 2]).amin() >= 0
    image, _, tone = level(width=24)
    assert image.amax((2, 3)).numpy() == pytest.approx(tone[..., 0, 0].numpy(), abs=0.01)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("width", [6, 12])
def test_the_dark_line_lies_on_one_side_at_the_edge_of_the_fold(width: int, side: int) -> None:
    image, mask, _ = level(side, width=width, dark=0.4, opacity=0)
    dark = 1 - image[:, 0] / GRAY
    apart = middle(dark) - middle(worn_line(width=width))
    assert apart.mean().item() == pytest.approx(side * (width / 2 + 0.8), abs=0.3)
    assert dark.amax((1, 2)).numpy() == pytest.approx(0.4, abs=0.01)
    assert dark.sum(1).mean().item() == pytest.approx(0.66, abs=0.04)
    assert (dark > 0.2).sum(1).float().mean().item() == pytest.approx(1.7, abs=0.15)
    assert mask.sum(2).mean().item() == pytest.approx(2.4, abs=0.25)


def test_the_light_changes_in_opposite_ways_on_the_two_sides_and_fades_out() -> None:
    image, _, _ = level(gray=0.5, width=3, opacity=0, shade=0.1)
    change = (image - 0.5).mean((1, 3))
    sign = change[:, 88].sign()[:, None]
    assert (change * sign)[:, [50, 72, 88, 110]].mean(0) == pytest.approx([-0.0174, -0.0306, 0.0306, 0.0174], abs=0.001)
    assert (change[:, :70] * sign).max() < 0
    assert (change[:, 90:] * sign).min() > 0


def test_the_mask_is_the_worn_and_the_dark_line() -> None:
    image, mask, _ = level(width=12, dark=0.4)
    seen = (image - GRAY).abs().amax(1, keepdim=True) > 0.035
    wrong = (mask > 0) != seen
    assert wrong.sum() < 0.06 * seen.sum()
    assert not ((mask == 0) & ((image - GRAY).abs().amax(1, keepdim=True) > 0.08)).any()


def test_folds_are_sampled_within_their_ranges() -> None:
    folds = sampled({"name": "fold", "count": [1, 2]}, 1000)["folds"]
    first, second = folds.unbind(1)
    assert (second[:, 9] > 0).double().mean().item() == pytest.approx(0.5, abs=0.05)
    widths = 2 * first[:, 3]
    assert 1.2 <= widths.min() < 1.22
    assert 4.9 < widths.max() <= 5
    assert widths.median().item() == pytest.approx(math.sqrt(1.2 * 5), rel=0.06)
    assert first[:, 4:6].mean(0) == pytest.approx([0.65, 0.275], abs=0.02)  # opacities
    assert (first[:, 6] > 0).double().mean().item() == pytest.approx(0.5, abs=0.05)
    assert (first[:, 7] > 0).double().mean().item() == pytest.approx(0.5, abs=0.05)
    assert first[:, 7].abs().mean().item() == pytest.approx(0.025, abs=0.002)
    assert first[:, 8].mean().item() == pytest.approx(26.5, abs=1.2)
    assert first[:, :2].mean(0) == pytest.approx([256, 256], abs=12)
    assert first[:, :2].std(0) == pytest.approx([103, 103], rel=0.06)


def test_folds_are_nearly_level_or_upright_and_the_second_crosses_the_first() -> None:
    folds = sampled({"name": "fold", "count": 2}, 1000)["folds"][..., 2]
    upright = angle_between(folds, math.pi / 2)
    askew = torch.minimum(upright, math.pi / 2 - upright)
    assert askew.median() < 0.04
    assert (askew > 0.12).double().mean().item() == pytest.approx(0.125 * (1 - 0.15), abs=0.03)
    assert (upright < 0.3).double().mean().item() == pytest.approx(0.46, abs=0.04)
    crossing = angle_between(folds[:, 0], folds[:, 1])
    assert (crossing > 1.3).double().mean().item() == pytest.approx(0.81, abs=0.04)
