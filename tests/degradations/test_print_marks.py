"""The shapes of cracks, creases, scratch families, abrasion and specks: their number, length, direction and place."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import convolve, label
from skimage.morphology import skeletonize

from restore.degradations.registry import STEPS
from tests.degradations.measure import LONE, PLAIN, angle_between, covers, drawn, masks, pieces, sampled

FISSURE, CREASE, LINE = PLAIN["fissure"], PLAIN["crease"], PLAIN["line-scratch"]
ABRASION = {**LONE, "name": "abrasion", "dashes": 160, "size": 60}
SPECK = {**LONE, "name": "speck", "edges": 0, "long": 2.5, "width": 6}
GLASS = PLAIN["glass-crack"]
WIDTH = 6  # the default range of a lone mark is its own; a fixed one makes marks comparable


def defaults(name: str) -> dict[str, object]:
    return {key: field.default for key, field in STEPS[name].model_fields.items()}


def lines(step: dict, links: int, count: int = 400, size: tuple[int, int] = (512, 512)) -> torch.Tensor:
    """The segments of lone marks without branches, [B, marks, links, 7]."""
    segments = sampled(step, count, size)["segments"]
    return segments.reshape(count, -1, links, 7)


def lengths(segments: torch.Tensor) -> torch.Tensor:
    return (segments[..., 2:4] - segments[..., :2]).norm(dim=-1)


def chord(segments: torch.Tensor) -> torch.Tensor:
    """From the start to the end of each mark, [B, marks, 2]."""
    return segments[..., -1, 2:4] - segments[..., 0, :2]


def direction(vectors: torch.Tensor) -> torch.Tensor:
    return torch.atan2(vectors[..., 1], vectors[..., 0])


def middle(segments: torch.Tensor) -> torch.Tensor:
    return 0.5 * (segments[..., 0, :2] + segments[..., -1, 2:4])


def junctions(mask: NDArray[np.bool_]) -> int:
    """Places where three or more branches of the middle line meet."""
    line = skeletonize(mask)
    crossing = line & (convolve(line.astype(int), np.ones((3, 3), int), mode="constant") > 3)
    return int(label(crossing, np.ones((3, 3)))[1])


def half(marks: dict, **settings: object) -> Sequence[NDArray[np.bool_]]:
    return [cover > 0.5 * cover.max() for cover in covers({**marks, **settings})]


# Fissures.


def test_a_fissure_branches_and_stays_in_one_piece() -> None:
    """Cracks of prints have 0.5 to 2 junctions per 100 px."""
    plain = half(FISSURE, width=3)
    branched = half(FISSURE, width=3, branches=3)
    assert sum(map(junctions, plain)) <= 0.25 * sum(map(junctions, branched))
    paths = sum(skeletonize(mask).sum() for mask in branched)
    assert 0.8 < 100 * sum(map(junctions, branched)) / paths < 2.6
    assert 1.4 < paths / sum(skeletonize(mask).sum() for mask in plain) < 2
    for mask in branched:
        sizes = sorted(len(piece) for piece in pieces(mask))
        assert sizes[-1] > 0.75 * sum(sizes)  # the hairs at the ends break off


def test_branches_start_on_their_parent_and_are_shorter_and_thinner() -> None:
    cracks, branches, links = 60, 3, 36
    table = sampled({**FISSURE, "branches": branches, "width": 6}, cracks)["segments"]
    main, rest = table[:, :links], table[:, links:]
    child = rest[:, : branches * 18].reshape(cracks, branches, 18, 7)
    corners = main[:, None, :, :2] - child[:, :, :1, :2]
    gaps, at = corners.norm(dim=-1).min(-1)
    assert gaps.max() < 1e-9
    assert 2 <= at.min() <= 4  # from 8 % to 88 % of the parent
    assert 29 <= at.max() <= 32
    assert (child[:, :, 0, 6] > 0).double().mean().item() == pytest.approx(0.75, abs=0.08)
    share = lengths(child).sum(-1) / lengths(main).sum(-1)[:, None]
    assert 0.1 < share.min() < 0.2
    assert 0.55 < share.max() <= 0.65
    parent = main[:, None].expand(-1, branches, -1, -1).gather(2, at[..., None, None].expand(-1, -1, 1, 7))[:, :, 0]
    first = child[:, :, 0, 4]
    thinner = (first / parent[..., 4])[first > 0.6]
    assert 0.5 < thinner.median() < 0.95
    # It swells where it branches.
    knot = rest[:, branches * 18 : branches * 19].reshape(cracks, branches, 7)
    assert torch.equal(knot[..., :2], child[:, :, 0, :2])
    assert (knot[..., 4] / parent[..., 4])[first > 0.6].median().item() == pytest.approx(1.52, abs=0.3)
    leaving = (direction(child[:, :, 0, 2:4] - child[:, :, 0, :2]) - direction(chord(main[:, None]))) % (2 * math.pi)
    sideways = torch.minimum(leaving, 2 * math.pi - leaving)
    assert 0.9 < sideways.median() < 1.5
    assert (leaving < math.pi).double().mean().item() == pytest.approx(0.5, abs=0.12)


def test_a_fissure_is_jagged_tapers_and_has_the_asked_length() -> None:
    cracks = lines({**FISSURE, "length": [50, 200], "width": 3}, 36)
    paths = lengths(cracks).sum(-1)
    assert paths.min() >= 49.9
    assert paths.max() <= 200.1
    assert paths.median().item() == pytest.approx(100, rel=0.1)
    ratio = paths / chord(cracks).norm(dim=-1)
    assert 1.05 < ratio.median() < 1.25
    assert ratio.quantile(0.9) < 1.5
    begin, end = cracks[..., :6, 4].mean(-1), cracks[..., -6:, 5].mean(-1)
    assert 0.35 < (end / begin).median() < 0.75
    turns = direction(cracks[..., 2:4] - cracks[..., :2]).diff(dim=-1)
    turns = torch.remainder(turns + math.pi, 2 * math.pi) - math.pi
    assert 0.2 < turns.abs().median() < 0.4
    assert 0.7 < turns.abs().quantile(0.98) < 2


def test_a_fissure_is_at_most_a_twelfth_as_wide_as_long() -> None:
    cracks = lines({**FISSURE, "length": 48, "width": 40}, 36)
    assert 2 * cracks[..., 4].max() == pytest.approx(4 * 1.3, rel=0.03)


def test_thin_fissures_go_with_thin_ones() -> None:
    cracks = lines({**FISSURE, "count": 6, "width": [2, 30], "length": 1000}, 36, 200)
    radius = cracks[..., 0, 4].log()
    within, among = radius.std(1).mean(), radius.mean(1).std()
    assert 0.25 < within < 0.5
    assert among > 1.5 * within


def test_the_fissures_of_an_image_are_about_equally_strong() -> None:
    opacity = lines({**FISSURE, "count": 6, "width": 8, "length": 1000}, 36, 100)[..., 0, 6]
    assert 0.5 <= opacity.min() < 0.55
    assert 0.95 < opacity.max() <= 1


def test_fissures_run_everywhere_in_all_directions_unless_crazed() -> None:
    size = (400, 400)
    for crazed in (0, 1):
        cracks = lines({**FISSURE, "crazed": crazed, "length": 100, "count": 4}, 36, 300, size)
        first = direction(chord(cracks)).flatten()
        upright = angle_between(first, math.pi / 2)
        level = angle_between(first, 0.0)
        along = torch.minimum(upright, level)
        place = middle(cracks).flatten(0, 1) / 400
        near = torch.minimum(place, 1 - place).amin(1)
        # A heading and its opposite are equally common.
        assert first.cos().mean().abs() < 0.1
        assert first.sin().mean().abs() < 0.1
        if crazed:
            assert along.quantile(0.8) < 0.5
            assert (upright < level).double().mean().item() == pytest.approx(0.6, abs=0.1)
            assert (near < 0.1).double().mean().item() == pytest.approx(0.82, abs=0.06)
        else:
            assert along.mean().item() == pytest.approx(math.pi / 8, abs=0.03)
            assert (near < 0.1).double().mean().item() == pytest.approx(0.36, abs=0.06)
    mixed = direction(chord(lines({**FISSURE, "crazed": 0.3, "length": 100, "count": 12}, 36, 200, size)))
    spread = angle_between(mixed, mixed[:, :1]).amax(1)
    assert (spread < 1.2).double().mean().item() == pytest.approx(0.3, abs=0.1)


# Creases.


def test_a_crease_has_a_bright_ridge_and_a_dark_valley_along_all_of_it() -> None:
    """On white paper, creases of prints are 24 levels brighter on one side and 28 darker on the other."""
    step = {**CREASE, "width": 3, "gaps": 0.8, "relief": 0.12, "relief_px": 5, "length": 120}
    image = drawn(step, 12, 200, gray=0.5).mean(1)
    ridge, valley = (image > 0.58), (image < 0.42)
    found = ridge.any((1, 2))
    assert found.sum() >= 8
    balance = valley.sum((1, 2)) / (ridge.sum((1, 2)) + 1e-9)
    assert 0.5 < balance[found].median() < 1.1  # breaks to white paper hide some of both
    assert 0.36 < image.amin((1, 2)).median() < 0.4
    default = defaults("crease")
    assert default["relief"][0] > 0
    assert default["gaps"][0] >= 0.3


def test_creases_are_smoother_than_fissures_and_have_the_asked_length() -> None:
    creases = lines({**CREASE, "length": [100, 400], "width": 3}, 28)
    paths = lengths(creases).sum(-1)
    assert paths.median().item() == pytest.approx(200, rel=0.1)
    assert paths.max() <= 400.1
    assert 1.01 < (paths / chord(creases).norm(dim=-1)).median() < 1.06
    radius = creases[..., 4:6]
    assert 0.72 < radius.min() < 0.8
    assert 1.9 < radius.max() <= 1.95
    heading = direction(chord(creases)).flatten()
    assert heading.cos().mean().abs() < 0.12
    assert heading.sin().mean().abs() < 0.12
    assert angle_between(heading, 0.0).mean().item() == pytest.approx(math.pi / 4, abs=0.08)
    place = middle(creases).flatten(0, 1)
    assert place.mean(0) == pytest.approx([256, 256], abs=25)
    assert place.std(0) == pytest.approx([148, 148], rel=0.12)


# Families of scratches.


@pytest.mark.parametrize("angle", [0, 30, 90])
def test_the_scratches_of_a_family_are_nearly_parallel(angle: int) -> None:
    step = {**LINE, "count": 12, "angle": angle, "spread": 5, "width": 2}
    heading = direction(chord(lines(step, 72, 200)))
    up = angle_between(heading, math.radians(angle))
    down = angle_between(heading, -math.radians(angle))
    off = torch.minimum(up, down)
    assert math.degrees(off.max()) < 14  # the lines bend and wave a little
    assert math.degrees(off.mean()) == pytest.approx(2.9, abs=0.5)
    mirrored = (down.mean(1) < up.mean(1)).double().mean().item()
    if angle == 30:
        assert mirrored == pytest.approx(0.5, abs=0.1)
        assert torch.minimum(up.amax(1), down.amax(1)).max() < math.radians(14)  # one direction per image
    drawn_ = masks({**step, "count": 30, "length": 400}, 4)
    for mask in drawn_:  # what is seen has that direction too
        y, x = np.gradient(mask.astype(float))
        along = 0.5 * np.arctan2(-2 * (x * y).sum(), ((y**2) - (x**2)).sum())
        apart = [abs((along - sign * math.radians(angle) + math.pi / 2) % math.pi - math.pi / 2) for sign in (1, -1)]
        assert math.degrees(min(apart)) < 7


def test_outliers_go_anywhere() -> None:
    step = {**LINE, "count": 12, "angle": 90, "spread": 0, "outlier": 0.25}
    off = angle_between(direction(chord(lines(step, 72, 200))), math.pi / 2)
    assert (off > math.radians(10)).double().mean().item() == pytest.approx(0.25 * 160 / 180, abs=0.03)


def test_scratches_bend_slightly_fade_at_their_ends_and_have_the_asked_length() -> None:
    step = {**LINE, "length": [100, 400], "width": 4}
    scratches = lines(step, 72)
    paths = lengths(scratches).sum(-1)
    assert paths.min() > 98
    assert paths.max() < 401
    assert paths.median().item() == pytest.approx(200, rel=0.1)
    turn = direction(scratches[..., -1, 2:4] - scratches[..., -1, :2]) - direction(
        scratches[..., 0, 2:4] - scratches[..., 0, :2]
    )
    turn = (torch.remainder(turn + math.pi, 2 * math.pi) - math.pi).abs()
    assert 0.22 < turn.max() < 0.4
    assert 0.03 < turn.median() < 0.08
    opacity = scratches[..., 6]
    assert opacity[..., 36] == pytest.approx(1.0)
    assert opacity[..., [0, -1]].max() == pytest.approx(0.3)
    assert opacity[..., 3].mean().item() == pytest.approx(3 / 71 / 0.08, abs=0.02)
    radius = scratches[..., 4:6]
    assert 1.39 < radius.min() < 1.45
    assert 2.35 < radius.max() <= 2.4
    place = middle(scratches).flatten(0, 1)
    assert place.mean(0) == pytest.approx([256, 256], abs=25)
    assert place.std(0) == pytest.approx([148, 148], rel=0.12)


def test_a_scratch_is_not_longer_than_it_can_be_seen() -> None:
    paths = lengths(lines({**LINE, "length": 4000}, 72, 20, (60, 80))).sum(-1)
    assert paths.max().item() == pytest.approx(150, rel=0.02)


def runs(step: dict) -> tuple[float, float]:
    """Of vertical lines: the covered share of their length, and pieces per 100 px."""
    step = {**step, "angle": 90, "spread": 0, "width": 2, "length": 300, "softness": 1}
    covered = [(cover > 0.25).any(1) for cover in covers(step, 24, 360)]
    share, starts, total = 0.0, 0, 0
    for column in covered:
        inside = np.flatnonzero(column)
        if len(inside) > 1:
            column = column[inside[0] : inside[-1] + 1]
            share += column.sum()
            starts += 1 + (np.diff(column.astype(int)) == 1).sum()
            total += len(column)
    assert total > 1500
    return share / total, 100 * starts / total


def test_scratches_are_solid_dashed_or_dotted() -> None:
    """Dashes of prints are 5 to 30 px long; dots 4 to 6 px, every 15 to 25 px."""
    share, pieces_ = runs(LINE)
    assert share > 0.99
    share, pieces_ = runs({**LINE, "dashed": 1})
    assert share == pytest.approx(0.64, abs=0.1)
    assert pieces_ == pytest.approx(2.3, abs=0.5)
    share, pieces_ = runs({**LINE, "dotted": 1})
    assert share == pytest.approx(0.37, abs=0.1)
    assert pieces_ == pytest.approx(4.9, abs=0.9)


def on_pattern(**settings: object) -> torch.Tensor:
    """Where 1000 lines of 300 px are drawn, [1000, 72]."""
    return lines({**LINE, "count": 10, "length": 300, **settings}, 72, 100)[..., 6].flatten(0, 1) > 0


def test_dashes_and_dots_are_unevenly_spaced() -> None:
    on = on_pattern(dashed=1)
    starts = on[:, 0].double() + (on[:, 1:] & ~on[:, :-1]).sum(1)
    assert starts.mean().item() / 3 == pytest.approx(1.86, abs=0.2)  # per 100 px
    apart = []
    for line in on_pattern(dotted=1):
        places = (line[1:] & ~line[:-1]).nonzero()[:, 0].double() * 300 / 72
        if len(places) > 4:
            apart.append((places.diff().mean(), places.diff().std()))
    mean, deviation = torch.tensor(apart).mean(0).tolist()
    assert mean == pytest.approx(21.8, abs=2)
    assert deviation == pytest.approx(6.6, abs=1.5)


def test_dashes_and_dots_have_their_shares() -> None:
    on = on_pattern(dashed=0.3, dotted=0.2)
    share = on.double().mean(1)
    solid = (share == 1).double().mean().item()
    assert solid == pytest.approx(0.5, abs=0.05)
    starts = (on[:, 1:] & ~on[:, :-1]).sum(1)
    assert (starts >= 10).double().mean().item() == pytest.approx(0.2, abs=0.05)


# Abrasion.


def test_abrasion_is_a_patch_of_dashes_in_one_direction() -> None:
    dashes = sampled({**ABRASION, "length": [4, 16], "width": 4, "opacity": 0.8}, 60, (400, 400))["segments"]
    assert dashes.shape[1] == 160
    length = lengths(dashes)
    assert length.median().item() == pytest.approx(8, rel=0.08)
    assert length.max() <= 16.01
    heading = direction(dashes[..., 2:4] - dashes[..., :2])
    # The mean direction of undirected lines, by doubling the angles.
    mean = 0.5 * torch.atan2((2 * heading).sin().mean(1), (2 * heading).cos().mean(1))
    off = angle_between(heading, mean[:, None])
    assert off.mean().item() == pytest.approx(0.125, abs=0.015)
    assert off.max() < 0.3
    assert angle_between(mean, 0.0).mean().item() == pytest.approx(math.pi / 4, abs=0.12)
    centre = 0.5 * (dashes[..., :2] + dashes[..., 2:4])
    apart = centre - centre.mean(1, keepdim=True)
    assert apart[..., 0].abs().amax(1).median().item() == pytest.approx(60 * 1.4, rel=0.15)
    assert apart[..., 1].abs().amax(1).median().item() == pytest.approx(60 * 0.8, rel=0.15)
    far = torch.hypot(apart[..., 0] / 1.4, apart[..., 1] / 0.8) / 60
    assert far.median().item() == pytest.approx(0.5**0.75, abs=0.05)
    assert dashes[..., 4:6].eq(2).all()
    assert dashes[..., 6].min().item() == pytest.approx(0.32, abs=0.01)
    assert dashes[..., 6].max().item() == pytest.approx(0.8, abs=0.01)


def test_patches_of_abrasion_have_their_own_size_and_direction() -> None:
    step = {**ABRASION, "count": 2, "size": [20, 80], "length": 8, "width": 2}
    dashes = sampled(step, 200)["segments"].reshape(200, 2, 160, 7)
    centre = 0.5 * (dashes[..., :2] + dashes[..., 2:4])
    reach = (centre - centre.mean(2, keepdim=True))[..., 0].abs().amax(2) / 1.4
    assert reach.median().item() == pytest.approx(40, rel=0.15)
    assert (reach[:, 0] / reach[:, 1]).log().std() > 0.4
    heading = direction(dashes[..., 2:4] - dashes[..., :2])[:, :, 0]
    assert angle_between(heading[:, 0], heading[:, 1]).mean().item() == pytest.approx(math.pi / 4, abs=0.1)
    place = centre.mean(2).flatten(0, 1)
    assert place.mean(0) == pytest.approx([256, 256], abs=25)
    assert place.std(0) == pytest.approx([148, 148], rel=0.12)


# Specks.


def test_specks_are_as_many_as_asked() -> None:
    step = {**SPECK, "count": 40, "long": 1, "width": 5}
    found = [sum(1 for _ in pieces(mask)) for mask in masks(step, 8, 300)]
    assert 34 <= np.median(found) <= 40  # some touch, some lie at the border
    assert len(set(sampled({**SPECK, "count": [1, 40]}, 100)["segments"][..., 6].gt(0).sum(1).tolist())) > 10


def test_most_specks_are_small() -> None:
    """90 % of the specks of prints are narrower than 5 to 11 px."""
    width = 2 * sampled({**SPECK, "count": 50, "width": [2, 18]}, 200)["segments"][..., 4:6].mean(2)
    assert width.max() < 20
    assert width.quantile(0.5) == pytest.approx(2.7, rel=0.15)
    assert width.quantile(0.9) == pytest.approx(6.2, rel=0.2)
    largest = width.amax(1)
    assert largest.min() < 4
    assert largest.max() > 13
    opacity = sampled({**SPECK, "count": 50}, 50)["segments"][..., 6]
    assert 0.5 <= opacity.min() < 0.51
    assert 0.99 < opacity.max() <= 1


def test_specks_are_blots_up_to_the_asked_elongation() -> None:
    for long, most in ((1, 0.01), (4, 6 * 3)):
        parts = sampled({**SPECK, "count": 30, "long": long}, 100)["segments"].reshape(100, 30, 2, 7)
        length = lengths(parts).sum(-1)
        assert length.max() <= most + 1e-6
        assert length.max() >= 0.8 * most - 0.01
        if long > 1:
            assert length.median().item() == pytest.approx(2 * parts[..., 0, 4].median() / 0.85 * 3 / 4, rel=0.25)
            turn = direction(parts[..., 1, 2:4] - parts[..., 1, :2]) - direction(parts[..., 0, 2:4] - parts[..., 0, :2])
            turn = (torch.remainder(turn + math.pi, 2 * math.pi) - math.pi).abs()
            assert turn.mean().item() == pytest.approx(0.75, abs=0.08)


def test_specks_gather_at_one_edge_of_some_images() -> None:
    for edges in (0, 1, 0.4):
        place = sampled({**SPECK, "count": 60, "edges": edges, "long": 1}, 200)["segments"].reshape(200, 60, 2, 7)
        place = (place[:, :, 0, :2] + 0.5) / 512
        assert place.min() >= 0
        assert place.max() <= 1
        near = torch.stack([(place < 0.1).double().mean(1), (place > 0.9).double().mean(1)], 2).flatten(1)  # of 4 edges
        crowded = near > 0.25
        assert crowded.any(1).double().mean().item() == pytest.approx(edges, abs=0.1)
        assert near.mean().item() == pytest.approx(0.1 + 0.075 * edges, abs=0.015)
        if edges == 1:
            assert near.amax(1).mean().item() == pytest.approx(0.1**0.4, abs=0.05)
            assert crowded.double().mean(0) == pytest.approx([0.25] * 4, abs=0.1)


# Cracks of glass plates.


def test_a_glass_crack_crosses_the_image() -> None:
    for mask in masks({**GLASS, "width": 3}, 16):
        touched = [mask[0].any(), mask[-1].any(), mask[:, 0].any(), mask[:, -1].any()]
        assert sum(map(bool, touched)) >= 2


def test_a_glass_crack_is_smooth_but_for_one_kink() -> None:
    cracks = lines({**GLASS, "width": 4}, 48, 300)
    turns = direction(cracks[..., 2:4] - cracks[..., :2]).diff(dim=-1)[:, 0]
    turns = torch.remainder(turns + math.pi, 2 * math.pi) - math.pi
    kink, at = turns.unfold(1, 4, 1).sum(2).abs().max(1)
    assert 1.1 < kink.max() < 1.3
    assert kink.median().item() == pytest.approx(0.6, abs=0.12)
    clear = kink > 0.3
    places = at[clear].double() / 47
    assert 0.08 < places.min() < 0.2
    assert 0.75 < places.max() < 0.9
    rest = turns.sum(1) - turns.gather(1, (at[:, None] + torch.arange(4)).clamp(max=46)).sum(1)
    assert 0.3 < rest[clear].abs().max() < 0.55
    assert 0.15 < rest[clear].abs().median() < 0.32
    radius = cracks[..., 4:6]
    assert 1.59 < radius.min() < 1.62
    assert 2.27 < radius.max() <= 2.3
    inside = cracks[:, 0, 24, :2]
    assert inside.min() > -60
    assert inside.max() < 572
    assert lengths(cracks).sum(-1) == pytest.approx(2.2 * math.hypot(512, 512))
