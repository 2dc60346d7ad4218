"""How marks drawn as segments look: width, tone, gaps, halo, relief and edges, measured on flat gray."""

import numpy as np
import pytest
import torch
from scipy.ndimage import center_of_mass

from restore.degradations import degradation_from, keys
from restore.degradations.painted import dirt_tone, log_count, log_uniform, paper_tone
from restore.degradations.registry import STEPS
from tests.degradations.measure import GRAY, LONE, PLAIN, covers, drawn, painted, ridge_widths, sampled

SURFACE = [50, 50, 50, 50, 200, 200, 1]
#: From top to bottom, 8 px wide.
LINE = [50.5, -50, 50.5, 150, 4, 4, 1]


def cover_of(segment: list[float], count: int = 8, side: int = 100, **settings: object) -> np.ndarray:
    """The opacity of the segment in white on gray, count×side×side."""
    return ((painted(segment, count, side, **settings)[:, 0] - GRAY) / (1 - GRAY)).numpy()


MANY = keys(0, last=range(4000))


@pytest.mark.parametrize(
    ("name", "thickness"),
    [("fissure", 0.72), ("crease", 0.85), ("line-scratch", 0.95), ("abrasion", 1), ("glass-crack", 0.97)],
)
@pytest.mark.parametrize("width", [6, 12])
def test_a_mark_is_as_wide_as_asked(name: str, width: int, thickness: float) -> None:
    """`thickness`: the mean along a mark, which tapers or is uneven."""
    measured = []
    for cover in covers(PLAIN[name], width=width):
        mask = cover > 0.5 * cover.max()
        if mask.sum() > 60 * width:
            measured.append(np.median(ridge_widths(mask)))
    assert len(measured) >= 5
    assert np.median(measured) == pytest.approx(thickness * width, abs=1)


def test_a_speck_is_as_wide_as_asked() -> None:
    sizes = [np.sqrt((cover > 0.46).sum() * 4 / np.pi) for cover in covers(PLAIN["speck"], 40, 64, width=20)]
    # Specks are smaller than `width`, most of them much smaller.
    assert 15 < max(sizes) <= 22
    assert 11 < np.median(sizes) < 19


def test_thin_marks_are_faint() -> None:
    """A mark of half a pixel changes the image half as much as one of a pixel."""
    line = {**PLAIN["line-scratch"], "angle": 90, "spread": 0, "length": 900}
    half, one, two = (covers(line, width=width).sum() for width in (0.5, 1, 2))
    assert half / one == pytest.approx(0.5, abs=0.04)
    assert two / one == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("softness", [1.5, 6])
def test_edges_rise_over_the_asked_width(softness: float) -> None:
    line = [50.3, -50, 51.7, 150, 15, 15, 1]  # tilted, so that rows meet the pixels differently
    cover = cover_of(line, softness=softness) / 0.925
    assert cover.sum(2).mean() == pytest.approx(30, rel=0.01)
    rising = ((cover > 0.15) & (cover < 0.85)).sum(2)
    assert rising.mean() / 2 == pytest.approx(0.7 * softness, rel=0.15)


def test_the_default_edge_rises_over_one_and_a_half_pixels() -> None:
    """On scans of damaged prints, edges rise over 1.2 to 2.7 px."""
    assert {STEPS[name](**step).softness for name, step in PLAIN.items()} == {1.5}  # type: ignore[attr-defined]


def test_a_mark_is_grained() -> None:
    inside = cover_of(SURFACE)
    assert inside.mean() == pytest.approx(0.925, abs=0.005)
    assert 0.849 < inside.min() < 0.86
    assert 0.99 < inside.max() <= 1.001


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_gaps_take_their_share(share: float) -> None:
    kept = cover_of(SURFACE, 24, 200, gaps=share).mean() / 0.925
    assert 1 - kept == pytest.approx(share, abs=0.04)


def test_gaps_are_tens_of_pixels_long_and_end_sharply() -> None:
    cover = cover_of(SURFACE, 12, 256, gaps=0.5) / 0.925
    gone = cover < 0.5
    assert (gone[:, 1:] != gone[:, :-1]).sum(1).mean() == pytest.approx(7.2, rel=0.2)  # along 256 px
    assert 0.03 < ((cover > 0.1) & (cover < 0.8)).mean() < 0.11


@pytest.mark.parametrize(("rough", "kept"), [(0.25, 0.76), (0.5, 0.55), (1, 0.14)])
def test_a_rough_mark_is_a_row_of_beads_of_a_few_pixels(rough: float, kept: float) -> None:
    cover = cover_of(SURFACE, 12, 200, rough=rough) / 0.925
    assert cover.mean() == pytest.approx(kept, abs=0.04)
    gone = cover < 0.5
    between = 200 / (gone[:, 1:] != gone[:, :-1]).sum(1).mean()
    assert 3 < between < 7.5


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_the_opposite_tone_takes_its_share(share: float) -> None:
    image = painted(SURFACE, 24, 160, reversed=share, shade=0)
    assert (image[:, 1] < GRAY).float().mean().item() == pytest.approx(share, abs=0.05)
    assert image.min() < 0.05
    assert image.max() > 0.95


def test_parts_of_the_opposite_tone_are_tens_of_pixels_long() -> None:
    dark = painted(SURFACE, 12, 256, reversed=0.5, shade=0)[:, 0] < GRAY
    assert (dark[:, 1:] != dark[:, :-1]).sum(1).float().mean().item() == pytest.approx(8.2, rel=0.2)  # along 256 px


def test_a_mark_has_the_asked_tone() -> None:
    tones = painted(SURFACE, 60, 30, gray=0.0, light=[0.6, 0.8], warmth=0.1).amax((2, 3))
    assert 0.55 < tones[:, 1].min() < 0.63
    assert 0.77 < tones[:, 1].max() < 0.82
    assert (tones[:, 0] - tones[:, 2]).median().item() == pytest.approx(0.1, abs=0.01)
    dark = painted(SURFACE, 60, 30, gray=1.0, bright=0, shade=[0.1, 0.3]).amin((2, 3)).mean(1)
    assert 0.07 < dark.min() < 0.13
    assert 0.27 < dark.max() < 0.33


def test_an_opacity_is_kept() -> None:
    for opacity in (0.2, 0.6):
        assert cover_of([*SURFACE[:6], opacity]).max() == pytest.approx(opacity, abs=0.005)


def test_paper_is_warm_and_one_in_six_pinkish() -> None:
    tones = paper_tone(MANY, 0, (0.5, 0.8), (0.0, 0.14))
    green = tones[:, 1]
    assert tones.min() > 0.35
    assert tones.max() < 0.91
    assert green.median().item() == pytest.approx(0.65, abs=0.01)
    warmth = tones[:, 0] - tones[:, 2]
    assert warmth.min() >= 0
    assert warmth.mean().item() == pytest.approx(0.07 + 0.8 * 0.04 / 6, abs=0.004)
    gray = paper_tone(MANY, 0, (0.5, 0.5), (0.0, 0.0))
    pink = gray[:, 0] > gray[:, 1]
    assert pink.double().mean().item() == pytest.approx(1 / 6, abs=0.02)
    assert (gray[:, 0] - gray[:, 1]).max().item() == pytest.approx(0.096, abs=0.004)
    assert (gray[pink, 2] - gray[pink, 1]).min() > 0


def test_dirt_is_dark_and_nearly_gray() -> None:
    tones = dirt_tone(MANY, 0, (0.1, 0.3))
    assert tones.mean().item() == pytest.approx(0.2, abs=0.005)
    assert (tones.amax(1) - tones.amin(1)).max().item() == pytest.approx(0.06, abs=0.004)


def test_sizes_and_counts_are_log_uniform() -> None:
    values = log_uniform(MANY, 0, (1, 64), 2)
    assert values.min() >= 1
    assert values.max() <= 64
    assert values.quantile(0.25).item() == pytest.approx(64**0.25, rel=0.06)
    assert values.quantile(0.75).item() == pytest.approx(64**0.75, rel=0.06)
    counts = log_count(MANY, 0, (2, 40)).double()
    assert counts.min() == 2
    assert counts.max() == 40
    assert counts.median() == pytest.approx(10, abs=1)
    assert log_count(MANY, 0, (0, 0)).eq(0).all()
    assert set(log_count(MANY, 0, (0, 1)).tolist()) == {0, 1}


@pytest.mark.parametrize("bright", [0.0, 0.3, 1.0])
def test_the_marks_of_an_image_are_all_bright_or_all_dark(bright: float) -> None:
    tones = sampled({"name": "speck", "count": 1, "bright": bright, "light": 0.8, "shade": 0.1}, 2000)["tones"].mean(2)
    assert (tones[:, 0] > tones[:, 1]).double().mean().item() == pytest.approx(bright, abs=0.03)
    both = tones.sort(1).values
    assert (both[:, 1] - both[:, 0]).min() > 0.6


def test_a_halo_of_the_opposite_tone_surrounds_a_mark() -> None:
    settings = {"gray": 0.5, "shade": 0, "halo_px": 6}
    change = painted(LINE, halo=0.4, **settings)[:, 0] - 0.5
    assert (change > 0.15).sum(2).float().mean().item() == pytest.approx(8, abs=0.7)
    assert (change.abs() > 0.05).sum(2).float().mean().item() == pytest.approx(20, abs=0.5)
    # 0.4 of the way to black, grained.
    assert change.min().item() == pytest.approx(-0.2, abs=0.015)
    assert painted(LINE, halo=0, **settings).min() >= 0.5


def relief_of(segment: list[float], count: int = 8, side: int = 100, **settings: object) -> tuple[torch.Tensor, ...]:
    """What is brighter and what is darker under a mark that is nothing but gaps."""
    change = painted(segment, count, side, 0.5, gaps=1, **settings).mean(1) - 0.5
    return change.clamp(min=0), (-change).clamp(min=0)


def test_a_relief_is_lit_on_one_side_and_shadowed_on_the_other() -> None:
    for bright, dark in zip(*relief_of([50, 50, 50, 50, 4, 4, 0.02], relief=0.2, relief_px=20)):
        assert bright.max().item() == pytest.approx(0.2, abs=0.005)
        assert dark.max().item() == pytest.approx(0.2, abs=0.005)
        apart = np.subtract(center_of_mass(bright.numpy()), center_of_mass(dark.numpy()))
        assert np.hypot(*apart) == pytest.approx(20, abs=0.3)
        middle = np.add(center_of_mass(bright.numpy()), center_of_mass(dark.numpy())) / 2
        assert middle == pytest.approx([50, 50], abs=0.3)


def test_the_light_comes_from_one_direction_per_image() -> None:
    """The shadows of all specks are their lit sides, shifted alike."""
    step = {**PLAIN["speck"], "count": 12, "width": 8, "relief": 0.2, "relief_px": 12, "opacity": 0.01, "gaps": 1}
    for one in drawn(step, 6, 160, gray=0.5).mean(1) - 0.5:
        bright, dark = one.clamp(min=0), (-one).clamp(min=0)
        product = torch.fft.ifft2(torch.fft.fft2(bright) * torch.fft.fft2(dark).conj()).real
        assert product.max() > 0.75 * bright.square().sum()
        y, x = ((v + 80) % 160 - 80 for v in divmod(int(product.argmax()), 160))
        assert np.hypot(y, x) == pytest.approx(12, abs=1.1)
    shift = sampled(step, 1000)["shift"]
    assert shift.norm(dim=1).mean().item() == pytest.approx(12)
    assert shift.mean(0).abs().max() < 1


def test_a_relief_is_never_thinner_than_a_pixel() -> None:
    lit, _ = relief_of([-50, 40, 150, 60, 0.1, 0.1, 0.02], relief=0.2, relief_px=8)
    across = lit.sum(1).mean(1) / 0.2
    assert across.max().item() == pytest.approx(1.4, abs=0.1)


def test_a_mark_against_its_ground_is_dark_on_light_and_bright_on_dark() -> None:
    step = {**PLAIN["glass-crack"], "against": True, "width": 6, "light": 0.9, "shade": 0.1, "opacity": 0.8}
    clean = torch.full((12, 3, 160, 160), 0.25)
    clean[..., 80:] = 0.65
    for bright in (0, 1):
        change = (degradation_from([{**step, "bright": bright}], "t")(clean, keys(1, last=range(12)))[0] - clean).mean(
            1
        )
        assert (change[..., :70] >= 0).all()
        assert (change[..., 90:] <= 0).all()
        assert change[..., :70].amax().item() == pytest.approx(0.8 * 0.65, abs=0.05)
        assert change[..., 90:].amin().item() == pytest.approx(-0.8 * 0.55, abs=0.05)


def test_faint_edges_do_not_widen_the_mask() -> None:
    faint = cover_of([50, -50, 50, 150, 4, 4, 0.3], softness=6)
    assert 0.0299 < faint[faint > 1e-6].min() < 0.045
    lit, shadow = relief_of([50, -50, 50, 150, 4, 4, 0.02], relief=0.1, relief_px=10, softness=8)
    both = lit + shadow
    assert 0.0149 < both[both > 1e-6].min() < 0.025


@pytest.mark.parametrize("name", PLAIN)
def test_lengths_scale_with_the_image(name: str) -> None:
    """At twice the size, the same marks are twice as wide and twice as long."""
    step = {key: value for key, value in PLAIN[name].items() if key != "scale_with_image"}
    step |= {"width": 20, "relief": 0.2, "halo": 0.2}
    small, large = (sampled(step, 20, (side, side)) for side in (512, 1024))
    opaque = (small["segments"][..., 6] > 0) & (small["segments"][..., 4:6] > 0.5).all(2)
    torch.testing.assert_close(large["segments"][..., 4:6][opaque], 2 * small["segments"][..., 4:6][opaque])
    lengths = [(p["segments"][..., 2:4] - p["segments"][..., :2]).norm(dim=-1)[opaque] for p in (small, large)]
    torch.testing.assert_close(lengths[1], 2 * lengths[0])
    torch.testing.assert_close(large["shift"], 2 * small["shift"])
    torch.testing.assert_close(large["halo_px"], 2 * small["halo_px"])
    fixed = sampled({**step, "scale_with_image": False}, 20, (1024, 1024))["segments"]
    torch.testing.assert_close(fixed[..., 4:6], small["segments"][..., 4:6])


def test_strong_and_faint_marks_are_equally_common() -> None:
    for name in ("fissure", "crease", "line-scratch", "abrasion", "glass-crack"):
        step = {**LONE, "name": name, "width": 4, "opacity": [0.05, 0.8]}
        opacity = sampled({**step, **({"dashes": 1} if name == "abrasion" else {})}, 800)["segments"][..., 6].amax(1)
        assert 0.1 < opacity.median() < 0.22  # the middle of the logarithms is 0.2; marks of an image differ below it
        assert opacity.min() >= 0.02
        assert 0.6 < opacity.max() <= 0.8
