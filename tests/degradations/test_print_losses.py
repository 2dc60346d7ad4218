"""Chips, lost corners and edges, smears and tape, measured on flat gray."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from skimage.measure import regionprops

from restore.degradations import degradation_from, keys
from tests.degradations.measure import drawn, masks, pieces, sampled

CHIP = {
    "name": "chip", "count": 1, "size": 40, "light": 0.9, "warmth": 0, "rim": 0, "ragged": 0, "dented": 0, "tails": 0,
    "scale_with_image": False,
}  # fmt: skip
EDGE = {
    "name": "lost-edge", "count": 1, "size": 60, "border": 0, "rim": 0, "ragged": 0, "light": 0.9,
    "scale_with_image": False,
}  # fmt: skip
SMEAR = {"name": "smear", "count": 1, "size": 120, "opacity": 1, "light": 0, "scale_with_image": False}
TAPE = {"name": "tape", "count": 1, "width": 40, "tint": 0.4, "seam": 0, "scale_with_image": False}


def marked(step: dict, clean: torch.Tensor, seed: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    return degradation_from([step], "test")(clean, keys(seed, last=range(len(clean))))


# Chips.


def chips(**settings: object) -> np.ndarray:
    """Area, solidity, length and width of chips that lie in the image: [n, 4]."""
    rows = []
    for mask in masks({**CHIP, **settings}, 40, 200):
        if mask.any() and not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()):
            part = regionprops(mask.astype(int))[0]
            rows.append((part.area, part.solidity, part.axis_major_length, part.axis_minor_length))
    assert len(rows) > 10
    return np.array(rows)


def test_a_chip_is_an_angular_patch_of_the_asked_size() -> None:
    area, solidity, length, width = np.median(chips(), 0)
    assert 1300 < area < 1900  # a third of the circle: flat and angular
    assert solidity > 0.94  # convex
    assert 1.3 < length / width < 2
    assert chips()[:, 2].max() < 2.5 * 40
    assert np.median(chips(size=20), 0)[0] == pytest.approx(area / 4, rel=0.15)
    corners = sampled(CHIP, 300)["sides"][:, 0]
    turn = torch.atan2(corners[..., 1], corners[..., 0]).sort(1).values
    around = torch.cat([turn, turn[:, :1] + 2 * math.pi], 1).diff(dim=1)
    assert around.mean().item() == pytest.approx(2 * math.pi / 5)
    assert 0.3 < around.std() < 0.6
    assert around.min() > 0.1


def test_the_outline_of_a_chip_is_ragged_as_asked() -> None:
    smooth, rough = (np.median(chips(ragged=ragged)[:, 1]) for ragged in (0, 6))
    assert smooth - rough == pytest.approx(0.1, abs=0.04)


def test_a_chip_is_dented_between_its_points() -> None:
    flat, dented, more = (np.median(chips(dented=dented)[:, 1]) for dented in (0, 0.5, 1))
    assert flat - dented == pytest.approx(0.07, abs=0.025)
    assert dented - more > 0.03
    torn = [mask for mask in masks({**CHIP, "dented": 0.5, "size": 10}, 30, 100) if mask.any()]
    assert np.mean([len(list(pieces(mask))) for mask in torn]) < 1.2  # dents are in proportion to the size


def test_chips_lie_anywhere_and_are_as_many_as_asked() -> None:
    there = (sampled({**CHIP, "count": [1, 8]}, 500)["radius"] > 0).sum(1)
    assert there.min() == 1
    assert there.max() == 8
    found = masks({**CHIP, "size": 12}, 150, 100)
    place = np.array([np.argwhere(mask).mean(0) for mask in found if mask.any()])
    assert place.mean(0) == pytest.approx([50, 50], abs=8)
    assert place.std(0) == pytest.approx([29, 29], abs=5)


def test_the_paper_under_a_chip_is_flat_and_has_the_asked_tone() -> None:
    image = drawn({**CHIP, "light": [0.6, 0.9]}, 40, 100, gray=0.3)
    # One in six is pinkish.
    inside = [one[1][one[1] > 0.55] for one in image if (one[1] > 0.55).sum() > 300]
    levels = torch.stack([one.median() for one in inside])
    assert 0.56 < levels.min() < 0.7
    assert 0.8 < levels.max() < 0.92
    spread = torch.stack([one.std() for one in inside])
    assert 0.008 < spread.median() < 0.03
    warm = drawn({**CHIP, "warmth": 0.1}, 12, 100)
    warmth = (warm[:, 0] - warm[:, 2]).amax((1, 2))
    assert warmth.median().item() == pytest.approx(0.1, abs=0.01)


def test_a_thin_dark_rim_surrounds_a_chip() -> None:
    clean = torch.full((40, 3, 200, 200), 0.6)
    change = marked({**CHIP, "rim": 0.5}, clean)[0].mean(1) - 0.6
    bare = marked(CHIP, clean)[0].mean(1) - 0.6
    assert bare.min() > -0.01
    widths = []
    for with_rim, without in zip(change, bare):
        inside = (without > 0.1).numpy()
        if inside.sum() < 400 or inside[[0, -1]].any() or inside[:, [0, -1]].any():
            continue
        assert with_rim.min().item() == pytest.approx(-0.3, abs=0.02)
        far = distance_transform_edt(~inside)
        widths.append(far[(with_rim < -0.05).numpy()].max())
    assert np.median(widths) == pytest.approx(3.2, abs=0.8)


def test_the_corners_of_a_chip_run_out_into_tails() -> None:
    plain, tailed = (sampled({**CHIP, "tails": tails}, 300)["tails"].reshape(300, 3, 7, 7) for tails in (0, 1))
    assert plain[..., 6].eq(0).all()
    assert tailed[..., 6].eq(1).all()
    share = sampled({**CHIP, "tails": 0.4}, 300)["tails"].reshape(300, 3, 7, 7)[..., 0, 6].mean().item()
    assert share == pytest.approx(0.4, abs=0.06)
    length = (tailed[..., 2:4] - tailed[..., :2]).norm(dim=-1).sum(2)
    assert 0.8 * 40 <= length.min() < 40
    assert 3.7 * 40 < length.max() <= 4 * 40
    begin, end = tailed[..., 0, 4], tailed[..., -1, 5]
    assert end.max() <= 0.51
    assert begin.median().item() == pytest.approx(40 * 0.35 * 0.6, rel=0.15)
    bends = torch.atan2(*(tailed[..., 2:4] - tailed[..., :2]).flip(-1).unbind(-1)).diff(dim=-1)
    bends = torch.remainder(bends + math.pi, 2 * math.pi) - math.pi
    assert 0.14 < bends.abs().mean() < 0.26
    # They are seen, as the same paper, and reach beyond the chip.
    bare, long = (masks({**CHIP, "size": 20, "tails": tails}, 12, 200) for tails in (0, 1))
    assert 1.3 < long.sum() / bare.sum() < 2.4


# Lost corners and edges.


def test_corners_are_lost_to_the_asked_depth() -> None:
    corners, depths, areas = [], [], []
    for mask in masks(EDGE, 60, 200, gray=0.45):
        lost = mask[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert mask[[0, -1]].any() or mask[:, [0, -1]].any()
        if lost.sum() == 1:
            corners.append(int(lost.argmax()))
            line = [mask[0], mask[-1], mask[:, 0], mask[:, -1]]
            depths.append(np.mean(sorted(side.sum() for side in line)[-2:]))
            areas.append(mask.sum())
    assert len(corners) > 25
    assert set(corners) == {0, 1, 2, 3}
    assert np.median(depths) == pytest.approx(64, abs=9)
    assert np.median(areas) == pytest.approx(60 * 60 / 2, rel=0.25)
    sizes = sampled({**EDGE, "size": [20, 80], "count": 4}, 300)["cuts"][..., 2:4]
    corner = (sizes[..., 0] / sizes[..., 1] < 2.6) & (sizes[..., 1] / sizes[..., 0] < 2.6)
    assert corner.double().mean().item() == pytest.approx(0.75, abs=0.04)
    assert sizes[corner].prod(1).sqrt().median().item() == pytest.approx(40, rel=0.1)
    bite = sizes[~corner]
    assert (bite.amax(1) / bite.amin(1)).mean().item() == pytest.approx(1.6 / 0.45)


def test_some_losses_are_bites_out_of_an_edge() -> None:
    cuts = sampled({**EDGE, "count": 4}, 300, (400, 300))["cuts"].flatten(0, 1)
    bite = (cuts[:, 2] / cuts[:, 3] > 2.6) | (cuts[:, 3] / cuts[:, 2] > 2.6)
    x, y = (cuts[:, 0] + 0.5) / 300, (cuts[:, 1] + 0.5) / 400
    at_x, at_y = (x == 0) | (x == 1), (y == 0) | (y == 1)
    assert (at_x & at_y)[~bite].all()
    assert (at_x | at_y)[bite].all()
    assert (at_x & at_y)[bite].double().mean() < 0.05
    wide = cuts[:, 2] > cuts[:, 3]
    assert torch.equal(wide[bite], at_y[bite])  # a bite is wide along its edge
    for along in (x[bite & wide], y[bite & ~wide]):
        assert along.mean().item() == pytest.approx(0.5, abs=0.08)


def test_the_outline_of_a_loss_is_straight_or_bent() -> None:
    power = sampled({**EDGE, "count": 4}, 300)["cuts"][..., 4].flatten()
    assert (power == 1).double().mean().item() == pytest.approx(0.75 * 0.6, abs=0.05)
    assert (power == 1.6).double().mean().item() == pytest.approx(0.25, abs=0.05)
    other = power[(power != 1) & (power != 1.6)]
    assert 0.7 <= other.min() < 0.8
    assert 1.5 < other.max() <= 1.6
    smooth, rough = (masks({**EDGE, "ragged": ragged}, 24, 200, gray=0.45) for ragged in (0, 10))
    assert 2 < (smooth ^ rough).sum() / 24 / 85 < 5  # about 85 px of outline: the mean deviation, in pixels


def test_the_ground_of_the_scanner_shows_where_the_print_is_lost() -> None:
    ground = sampled(EDGE, 3000)["tones"][:, 1]
    level, green = ground.mean(1), ground[:, 1] - ground[:, 0]
    white, black = level > 0.85, level < 0.125
    assert white.double().mean().item() == pytest.approx(0.4, abs=0.03)
    assert (black & (green < 0.02)).double().mean().item() == pytest.approx(0.4, abs=0.04)
    assert (green > 0.023).double().mean().item() == pytest.approx(0.1 + 0.1 * 0.25, abs=0.03)
    dark_green = (green > 0.023) & (level < 0.2)
    assert 0.05 < level[dark_green].mean() < 0.11
    image, mask = marked({**EDGE, "size": 90}, torch.full((24, 3, 200, 200), 0.45))
    step = {**EDGE, "size": 90}
    tones = degradation_from([step], "test").sample(keys(5, last=range(24)), (200, 200)).steps[0].params["tones"][:, 1]
    deep = [distance_transform_edt(one) > 8 for one in mask[:, 0].numpy()]
    for one, inside, tone in zip(image, deep, tones):
        assert one[:, torch.from_numpy(inside)].mean(1).tolist() == pytest.approx(tone.tolist(), abs=1e-3)


def test_bare_paper_lines_a_loss() -> None:
    """Lost corners of prints have a ragged rim of paper of 3 to 12 px."""
    widths = {}
    for rim in (4, 10):
        step = {**EDGE, "rim": rim, "light": 0.9}
        clean = torch.full((30, 3, 200, 200), 0.3)
        image, mask = marked(step, clean)
        sampled_tones = degradation_from([step], "test").sample(keys(5, last=range(30)), (200, 200)).steps[0]
        dark = sampled_tones.params["tones"][:, 1].mean(1) < 0.13
        assert dark.sum() > 5
        measured = []
        for one, hidden in zip(image[dark].mean(1), mask[dark, 0].numpy() > 0):
            paper = (one > 0.6).numpy()
            assert (paper & ~hidden).sum() == 0
            gone = hidden & ~paper & (one < 0.25).numpy()
            outline = (distance_transform_edt(~gone) == 1).sum()
            measured.append(paper.sum() / outline)
        widths[rim] = float(np.median(measured))
    assert widths[4] == pytest.approx(3.6, abs=1)
    assert widths[10] == pytest.approx(8.5, abs=2)
    grain = one[torch.from_numpy(paper & (distance_transform_edt(paper) > 1.5))]
    assert 0.008 < grain.std() < 0.035
    paper = sampled({**EDGE, "light": [0.7, 0.9]}, 500)["tones"][:, 0]
    assert paper.mean().item() == pytest.approx(0.8 - 0.013, abs=0.01)
    assert (paper[:, 0] - paper[:, 2]).mean().item() == pytest.approx(0.07, abs=0.012)


def test_the_straight_edge_of_a_print_is_no_damage() -> None:
    step = {**EDGE, "border": 1, "border_px": 9, "count": 0}
    clean = torch.full((40, 3, 120, 120), 0.45)
    image, mask = marked(step, clean)
    assert not mask.any()
    strips = []
    for one in ((image - clean).abs().amax(1) > 0.05).numpy():
        across = [one[:, 60], one[::-1, 60], one[60], one[60, ::-1]]
        strips += [int(line[:40].sum()) for line in across]
    there = np.array([strip for strip in strips if strip])
    assert (np.array(strips) > 0).mean() == pytest.approx(0.75, abs=0.1)
    assert np.median(there) == pytest.approx(9.5, abs=0.6)
    assert there.min() >= 8
    shown = sampled({**EDGE, "border": 0.3, "border_px": [2, 10]}, 1000)["border"]
    assert (shown > 0).any(1).double().mean().item() == pytest.approx(0.3, abs=0.04)
    assert shown[shown > 0].mean().item() == pytest.approx(6, abs=0.3)


def sampled_strips(step: dict, count: int) -> np.ndarray:
    """The widths of the strips [count, 4] (left, right, top, bottom) of the images that `masks` draws."""
    damage = degradation_from([step], "test").sample(keys(5, last=range(count)), (200, 200))
    return damage.steps[0].params["border"].numpy()


def test_corners_are_those_of_the_print_not_of_the_scan() -> None:
    """With a border of 30 px, a loss of 40 px reaches 70 px into the scan, and only the print's part is masked."""
    step = {**EDGE, "size": 40, "border": 1, "border_px": 30}
    mask = masks(step, 40, 200, gray=0.45)
    depth = [np.argwhere(one) for one in mask if one.any()]
    inner = [int(np.minimum(place, 199 - place).max()) for place in depth]
    assert 62 < np.median(inner) < 90
    # The strip itself is never masked, and a corner of the print is as often lost at the left as at the right.
    strip = sampled_strips(step, 40)
    for one, (left, right, top, bottom) in zip(mask, strip):
        for width, side in zip((left, right, top, bottom), (one, one[:, ::-1], one.T, one.T[:, ::-1])):
            assert not side[:, : int(width)].any()
    left, right, top, bottom = (strip > 0).T
    corner = mask[:, [31, 31, 168, 168], [31, 168, 31, 168]]
    for lost, sides in zip(corner.T, (left & top, right & top, left & bottom, right & bottom)):
        assert lost[sides].mean() > 0.1


# Smears.


def test_a_smear_is_dark_purple_brown_ink_in_dry_strokes() -> None:
    """Ink on prints has a luminance of 58 to 80 of 255."""
    tones = sampled(SMEAR, 1000)["tone"]
    assert tones.mean().item() == pytest.approx(0.19, abs=0.01)
    assert (tones[:, 0] - tones[:, 1]).mean().item() == pytest.approx(0.035, abs=0.006)
    assert tones.amax(1).max() < 0.4
    light = sampled({**SMEAR, "light": 0.3}, 1000)["tone"].mean(1) > 0.6
    assert light.double().mean().item() == pytest.approx(0.3, abs=0.05)
    dry = sampled(SMEAR, 500)["dry"]
    assert dry.min() >= 0
    assert dry.mean().item() == pytest.approx(0.35, abs=0.02)
    assert dry.max() <= 0.7


def test_dry_smears_have_holes() -> None:
    clean = torch.full((16, 3, 160, 160), 0.8)
    step = degradation_from([SMEAR], "test").sample(keys(5, last=range(16)), (160, 160)).steps[0]
    covered = []
    for dry in (0.0, 0.7):
        image, _ = step.step.apply(clean, {**step.params, "dry": torch.full((16,), dry)})
        covered.append((image.mean(1) < 0.5).float().mean().item())
    assert 0.3 < covered[1] / covered[0] < 0.65


def test_bristles_streak_along_the_stroke() -> None:
    clean = torch.full((8, 3, 120, 120), 0.8)
    step = degradation_from([SMEAR], "test").sample(keys(5, last=range(8)), (120, 120)).steps[0]
    everywhere = torch.tensor([60.0, 60, 60, 60, 200, 200, 1], dtype=torch.float64).expand(8, 1, 7)
    level = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(8, 2)
    image, _ = step.step.apply(clean, {**step.params, "segments": everywhere, "direction": level})
    along, across = (image.mean(1).diff(dim=dim).abs().mean().item() for dim in (2, 1))
    assert across > 1.4 * along


def test_a_smear_has_the_asked_size_and_opacity() -> None:
    spans = []
    for size in (60, 120):
        brush = sampled({**SMEAR, "size": size}, 200)["segments"][:, : 7 * 6]
        along = brush[..., :2] - brush[..., :2].mean(1, keepdim=True)
        spans.append(along.norm(dim=2).amax(1).median().item())
        assert brush[..., 4:6].amax((1, 2)).median().item() == pytest.approx(0.08 * size, rel=0.15)
    assert spans[0] == pytest.approx(0.52 * 60, rel=0.15)
    assert spans[1] == pytest.approx(2 * spans[0], rel=0.1)
    opaque = drawn({**SMEAR, "opacity": 1}, 12, 160, gray=0.8).mean(1).amin((1, 2))
    half = drawn({**SMEAR, "opacity": 0.5}, 12, 160, gray=0.8).mean(1).amin((1, 2))
    assert ((0.8 - half) / (0.8 - opaque)).median().item() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("opacity", [0.5, 1])
def test_ink_is_as_opaque_as_asked(opacity: float) -> None:
    damage = degradation_from([{**SMEAR, "opacity": opacity}], "test")
    step = damage.sample(keys(5, last=range(16)), (160, 160)).steps[0]
    clean = torch.full((16, 3, 160, 160), 0.8)
    image, mask = step.step.apply(clean, step.params)
    cover = ((image - 0.8) / (step.params["tone"][:, :, None, None].float() - 0.8)).mean(1)
    for one, hidden in zip(cover, mask[:, 0] > 0):
        if hidden.sum() > 100:
            assert one[hidden].quantile(0.9).item() == pytest.approx(opacity, rel=0.03)


def test_strokes_run_in_one_direction_and_drops_fall_around_them() -> None:
    params = sampled(SMEAR, 200)
    brush = params["segments"][:, :42].reshape(200, 7, 6, 7)
    chord = brush[:, :, -1, 2:4] - brush[:, :, 0, :2]
    along = (chord * params["direction"][:, None]).sum(2).abs() / chord.norm(dim=2)
    assert along.median() > 0.97
    heading = torch.atan2(params["direction"][:, 1], params["direction"][:, 0])
    assert heading.cos().mean().abs() < 0.15
    assert heading.sin().mean().abs() < 0.15
    drops = params["segments"][:, 42:]
    assert drops.shape[1] == 30
    assert drops[..., 6].gt(0).double().mean().item() == pytest.approx(0.6, abs=0.03)
    run = drops[..., 2:4] - drops[..., :2]
    assert (run[..., 1] >= 0).all()  # downwards
    assert (run[..., 0].abs() <= 0.11 * run[..., 1] + 1e-9).all()
    assert run[..., 1].max().item() == pytest.approx(30, rel=0.1)
    assert run[..., 1].median() < 3
    assert drops[..., 4].max().item() == pytest.approx(2.2, abs=0.05)
    beside = (brush.mean(2)[..., :2] - brush[..., :2].mean((1, 2))[:, None]) * params["direction"].flip(1)[:, None]
    assert (beside[..., 0] - beside[..., 1]).abs().amax(1).median().item() == pytest.approx(17, rel=0.2)
    far = (drops[..., :2] - brush[..., :2].flatten(1, 2).mean(1)[:, None]).norm(dim=2)
    assert far.median().item() == pytest.approx(120 * 0.5**1.5, rel=0.25)


# Tape and seams.


def test_tape_is_a_yellowed_level_or_upright_strip_of_the_asked_width() -> None:
    image = drawn(TAPE, 60, 200, gray=0.7)
    taped = image.mean(1) < 0.66
    upright = 0
    for one, strip in zip(image, taped):
        if strip.sum() < 1500:
            continue
        across = [strip.sum(axis).float() for axis in (0, 1)]
        widths = [line[line > 5].median().item() for line in across]
        if min(strip[[0, -1]].sum(), strip[:, [0, -1]].sum()) == 0:  # in full width
            assert min(abs(width - 40) for width in widths) < 4
        upright += abs(widths[1] - 40) < abs(widths[0] - 40)
        inside = one[:, torch.from_numpy(distance_transform_edt(strip.numpy()) > 4)].mean(1) / 0.7
        red, green, blue = (1 - inside).tolist()
        assert green / red == pytest.approx(2, rel=0.2)
        assert blue / red == pytest.approx(4, rel=0.25)
    assert 0.25 < upright / 60 < 0.7
    tint = 1 - sampled({**TAPE, "tint": [0.2, 0.4]}, 500)["tint"]
    assert tint[:, 2].mean().item() == pytest.approx(0.3 * 0.85, abs=0.01)
    assert tint[:, 2].min() == pytest.approx(0.12, abs=0.02)
    assert tint[:, 2].max() == pytest.approx(0.44, abs=0.03)


def test_the_edges_of_tape_are_darker() -> None:
    clean = torch.full((20, 3, 200, 200), 0.7)
    step = degradation_from([TAPE], "test").sample(keys(5, last=range(20)), (200, 200)).steps[0]
    image, mask = step.step.apply(clean, {**step.params, "tint": torch.ones(20, 3)})
    change = (image - clean).mean(1)
    assert change.min().item() == pytest.approx(-0.7 * 0.25, abs=0.01)
    widths = []
    for one in (change < -0.05).numpy():
        if one.sum() > 100:
            widths.append(2 * distance_transform_edt(np.pad(one, 1))[1:-1, 1:-1][one].max() - 1)
    assert 1 <= np.median(widths) <= 3
    assert mask.any()


def test_tape_is_cut_straight_along_its_sides_and_torn_at_its_ends() -> None:
    clean = torch.full((8, 3, 200, 200), 0.7)
    step = degradation_from([TAPE], "test").sample(keys(5, last=range(8)), (200, 200)).steps[0]
    level = torch.tensor([100.0, 100, 0, 20, 60, 1], dtype=torch.float64).expand(8, 1, 6)
    # Without tint, only the edges are dark: their places, to a fraction of a pixel.
    image, _ = step.step.apply(clean, {**step.params, "strips": level, "tint": torch.ones(8, 3)})
    dark = 0.7 - image[:, 0]
    columns = torch.arange(200.0)
    end = (dark[:, 90:110, 150:170] * columns[150:170]).sum(2) / dark[:, 90:110, 150:170].sum(2)
    side = (dark[:, 110:130, 60:140] * columns[110:130, None]).sum(1) / dark[:, 110:130, 60:140].sum(1)
    assert end.std(1).mean().item() == pytest.approx(0.3, abs=0.13)
    assert side.std(1).mean() < 0.2


def test_strips_of_tape_have_their_length_and_place() -> None:
    strips = sampled({**TAPE, "width": [10, 40]}, 1000, (512, 512))["strips"][:, 0]
    x, y, angle, half_width, half_length, there = strips.unbind(1)
    assert there.eq(1).all()
    assert (2 * half_width).median().item() == pytest.approx(20, rel=0.06)
    ratio = half_length / half_width
    assert 1.99 < ratio.min() < 2.3
    assert 11.7 < ratio.max() <= 12
    for place in (x, y):
        assert place.mean().item() == pytest.approx(256, abs=20)
        assert place.std().item() == pytest.approx(148, abs=12)
    askew = torch.minimum(angle.abs(), (angle - math.pi / 2).abs())
    assert 0.09 < askew.max() <= 0.1
    assert askew.median() < 0.03
    assert (angle > 0.8).double().mean().item() == pytest.approx(0.5, abs=0.05)
    counts = sampled({**TAPE, "count": [1, 4]}, 500)["strips"][..., 5].sum(1)
    assert set(counts.tolist()) == {1, 2, 3, 4}


def test_a_seam_is_a_thin_line_across_the_whole_print() -> None:
    for mask in masks({**TAPE, "seam": 1}, 16, 200, gray=0.5):
        if not mask.any():
            continue  # of the tone of the print
        rows, columns = mask.any(1).mean(), mask.any(0).mean()
        assert max(rows, columns) > 0.9
    params = sampled({**TAPE, "seam": 0.4}, 1000)
    seam = params["seam"] > 0
    assert seam.double().mean().item() == pytest.approx(0.4, abs=0.05)
    width = 2 * params["strips"][seam, 0, 3]
    assert 0.99 < width.min() < 1.2
    assert 4.8 < width.max() <= 5
    tone = params["tone"].mean(1)
    assert tone.mean().item() == pytest.approx(0.5, abs=0.03)
    assert tone.min() < 0.12
    assert tone.max() > 0.88


def test_a_seam_is_torn_not_ruled() -> None:
    bent, widths = [], []
    for mask in masks({**TAPE, "seam": 1}, 24, 256, gray=0.5):
        upright = mask if mask.any(1).mean() > mask.any(0).mean() else mask.T
        if upright.any(1).mean() < 0.95 or upright.sum() < 512:
            continue
        rows = np.flatnonzero(upright.any(1))
        centre = np.array([np.flatnonzero(upright[row]).mean() for row in rows])
        bent.append((centre - np.polyval(np.polyfit(rows, centre, 1), rows)).std())
        widths.append(upright[rows].sum(1).std())
    assert len(bent) > 8
    assert 0.35 < np.median(bent) < 1.2
    assert 0.3 < np.median(widths) < 1.0


def test_a_print_is_lit_through_tape_unevenly_and_a_seam_hides_it() -> None:
    clean = torch.rand(12, 3, 160, 160, generator=torch.Generator().manual_seed(2)) * 0.5 + 0.25
    image, mask = marked(TAPE, clean)
    inside = torch.from_numpy(np.stack([distance_transform_edt(one) > 4 for one in mask[:, 0].numpy()]))
    ratio = (image / clean)[:, 0][inside]
    assert 0.75 < ratio.min() < ratio.max() < 0.999
    spread = [
        (one / before)[0][within].std() for one, before, within in zip(image, clean, inside) if within.sum() > 500
    ]
    assert 0.004 < np.median(spread) < 0.01


@pytest.mark.parametrize("step", [CHIP, EDGE, SMEAR, TAPE], ids=lambda step: step["name"])
def test_lengths_scale_with_the_image(step: dict) -> None:
    step = {key: value for key, value in step.items() if key != "scale_with_image"} | {"count": 1}
    step |= {"ragged": 4, "rim": 0.5} if step["name"] in ("chip", "lost-edge") else {}
    step |= {"size": 90} if step["name"] == "chip" else {}
    areas = [masks(step, 12, side, gray=0.6).mean() for side in (128, 256)]
    assert areas[1] == pytest.approx(areas[0], rel=0.2)
    fixed = masks({**step, "scale_with_image": False}, 12, 128, gray=0.6).mean()
    assert fixed > 4 * areas[0] or fixed > 0.3


def test_specks_of_ink_are_counted() -> None:
    found = [sum(1 for _ in pieces(mask)) for mask in masks({**SMEAR, "size": 60}, 12, 200, gray=0.9)]
    assert 6 < np.median(found) < 40
