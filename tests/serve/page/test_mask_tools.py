"""Strokes, polygons and growing masks."""

from itertools import pairwise

import numpy as np
import pytest

from restore.errors import RestoreError
from restore.serve.page import mask_tools, strokes
from restore.serve.page.mask_tools import Tiles
from restore.serve.page.tiles import Box, put, tile_box

WIDTH, HEIGHT = 1100, 700


def whole(tiles: Tiles, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    out = np.zeros((height, width), np.uint8)
    for x, y in tiles:
        put(out, Box(0, 0, width, height), tiles[x, y], tile_box(x, y, width, height))
    return out


def formula(a: tuple[float, float, float], b: tuple[float, float, float], softness: float) -> np.ndarray:
    """The coverage of one straight piece, at each pixel's center."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    along = np.array([b[0] - a[0], b[1] - a[1]])
    at = np.clip(((x - a[0]) * along[0] + (y - a[1]) * along[1]) / max(along @ along, 1e-9), 0, 1)
    distance = np.hypot(x - a[0] - at * along[0], y - a[1] - at * along[1])
    radius = a[2] + at * (b[2] - a[2])
    return np.clip((radius + 0.5 - distance) / np.maximum(1, softness * radius), 0, 1) * 255


@pytest.mark.parametrize("softness", [0.0, 0.4, 1.0])
def test_a_stroke_has_the_coverage_of_its_formula_across_tiles(softness: float) -> None:
    a, b = (300.3, 480.0, 12.0), (700.0, 530.7, 30.0)
    stroke = whole(strokes.stroke([a, b], softness, WIDTH, HEIGHT))
    assert np.abs(stroke - formula(a, b, softness)).max() <= 1


@pytest.mark.parametrize("softness", [0.0, 0.5, 1.0])
def test_a_stroke_that_crosses_itself_often_has_at_each_pixel_the_most_of_its_pieces(softness: float) -> None:
    random = np.random.default_rng(3)
    points = [(x * WIDTH, y * HEIGHT, 2 + 30 * r) for x, y, r in random.random((40, 3))] + [
        (500, 300, 8),
        (500, 300, 14),
        (501, 300, 3),
    ]  # it stays where it is, with another pressure
    pieces = np.stack([formula(a, b, softness) for a, b in pairwise(points) if a[:2] != b[:2]])
    expected = np.maximum(pieces.max(axis=0), formula((500, 300, 14), (500, 300, 14), softness))
    stroke = whole(strokes.stroke(points, softness, WIDTH, HEIGHT))
    assert np.abs(stroke - expected).max() <= 1


def test_the_time_of_a_stroke_does_not_grow_with_its_crossings(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    own = strokes._Pieces.coverage
    monkeypatch.setattr(strokes._Pieces, "coverage", lambda self, d, r: measured.append(d.size) or own(self, d, r))

    def work(count: int) -> int:
        measured.clear()
        random = np.random.default_rng(4)
        points = [(x * WIDTH, y * HEIGHT, 25) for x, y in random.random((count, 2))]
        strokes.stroke(points, 0, WIDTH, HEIGHT)
        return sum(measured)

    few, many = work(100), work(1600)
    assert many < 2 * few
    assert many < 5 * WIDTH * HEIGHT  # all pieces at all pixels of their boxes: a thousand times as much


def test_a_stroke_that_is_too_long_is_refused() -> None:
    with pytest.raises(RestoreError, match="at most 1000000 pixels long"):
        strokes.stroke([(0, 0, 5), (900_000, 0, 5), (0, 0, 5)], 0, WIDTH, HEIGHT)


def test_a_point_is_a_disc_and_pressure_changes_its_size() -> None:
    small = whole(strokes.stroke([(100, 100, 5)], 0, WIDTH, HEIGHT))
    large = whole(strokes.stroke([(100, 100, 10)], 0, WIDTH, HEIGHT))
    assert small.sum() / 255 == pytest.approx(np.pi * 5**2, rel=0.15)
    assert large.sum() / 255 == pytest.approx(np.pi * 10**2, rel=0.1)


def test_many_points_on_a_line_paint_what_two_do() -> None:
    points = [(100 + 2 * i, 200 + i, 8 + i / 50) for i in range(300)]
    many = whole(strokes.stroke(points, 0.3, WIDTH, HEIGHT))
    two = whole(strokes.stroke([points[0], points[-1]], 0.3, WIDTH, HEIGHT))
    assert np.abs(many.astype(int) - two).max() <= 2


def test_a_curve_keeps_its_shape_when_it_is_simplified() -> None:
    angles = np.linspace(0, 2 * np.pi, 400)
    line = np.stack([500 + 150 * np.cos(angles), 350 + 150 * np.sin(angles), np.full(400, 6.0)], 1)
    few = strokes.simplified(line)
    assert len(few) < 160
    assert np.abs(np.hypot(few[:, 0] - 500, few[:, 1] - 350) - 150).max() < 1e-6


def test_a_stroke_that_leaves_the_image_is_painted_to_its_edge() -> None:
    stroke = whole(strokes.stroke([(-50, 300, 20), (WIDTH + 80, 300, 20)], 0, WIDTH, HEIGHT))
    assert (stroke[300] == 255).all()
    assert not strokes.stroke([(-500, -500, 20)], 0, WIDTH, HEIGHT)


def test_a_polygon_whose_edges_cross_thousands_of_times_is_refused() -> None:
    points = (np.random.default_rng(0).random((2000, 2)) * 6000).tolist()
    with pytest.raises(RestoreError, match="edges must be shorter"):
        mask_tools.polygon(points, 6000, 6000)
    far = [(-9e5, -9e5), (9e5, -9e5), (9e5, 9e5)]  # what lies outside costs nothing
    assert sum(tile.size for tile in mask_tools.polygon(far, 100, 100).values()) == 100 * 100


@pytest.mark.parametrize("seed", range(8))
def test_corners_far_from_a_tile_are_left_out_without_a_trace(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(seed)
    points = (np.cumsum(draw.normal(0, 90, (300, 2)), axis=0) + np.array([WIDTH / 2, HEIGHT / 2])).tolist()
    if seed > 5:  # a tile that lies in the polygon, far from its edges
        right = WIDTH + 900 * (seed - 5)
        points = [(-900, -900), (WIDTH + 900, -900), (right, HEIGHT + 900), (-900, HEIGHT + 900)]
    fast = mask_tools.polygon(points, WIDTH, HEIGHT)
    kept = sum(len(mask_tools._near(np.array(points), tile_box(x, y, WIDTH, HEIGHT))) for x, y in fast)
    assert seed > 5 or kept < 0.8 * len(points) * len(fast)
    monkeypatch.setattr(mask_tools, "_near", lambda corners, tile: corners)
    monkeypatch.setattr(mask_tools, "_crosses", lambda corners, tile: True)
    slow = mask_tools.polygon(points, WIDTH, HEIGHT)
    assert fast.keys() == slow.keys()
    assert all(np.array_equal(fast[place], slow[place]) for place in fast)


def test_a_polygon_is_filled_across_tiles() -> None:
    polygon = whole(mask_tools.polygon([(400, 400), (700, 400), (700, 600), (400, 600)], WIDTH, HEIGHT))
    expected = np.zeros_like(polygon)
    expected[400:600, 400:700] = 255
    inner = np.s_[402:598, 402:698]
    assert (polygon[inner] == 255).all()
    assert np.count_nonzero(polygon) < 302 * 202 + 600
    assert abs(polygon.sum() / 255 - 200 * 300) < 200


@pytest.mark.parametrize(
    ("points", "softness"),
    [([], 0), ([(1, 2)], 0), ([(1, float("nan"), 3)], 0), ([(1, 2, 0)], 0), ([(1, 2, 1e5)], 0), ([(1, 2, 3)], 1.5)],
)
def test_nonsense_is_refused(points: list[tuple[float, ...]], softness: float) -> None:
    with pytest.raises(RestoreError):
        strokes.stroke(points, softness, WIDTH, HEIGHT)


def test_painting_and_erasing_are_opposites() -> None:
    coverage = np.array([[0, 100, 255]], np.uint8)
    before = np.array([[50, 50, 50]], np.uint8)
    assert mask_tools.painted(before, coverage, erase=False).tolist() == [[50, 100, 255]]
    assert mask_tools.painted(before, coverage, erase=True).tolist() == [[50, 50, 0]]


@pytest.mark.parametrize("px", [1, 5, 8, 20])
def test_growing_reaches_so_many_pixels_farther(px: int) -> None:
    mask = np.zeros((121, 121), np.uint8)
    mask[60, 60] = 200
    y, x = np.nonzero(mask_tools.grown(mask, px))
    assert np.hypot(y - 60, x - 60).max() == pytest.approx(px, abs=1)
    assert len(y) == pytest.approx(np.pi * px**2, rel=0.3 if px > 2 else 1)
    assert mask_tools.grown(mask, px).max() == 200


def test_shrinking_undoes_growing_and_leaves_what_touches_the_border() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[30:60, :40] = 255
    shrunk = mask_tools.grown(mask, -5)
    assert (shrunk[35:55, :35] == 255).all()
    assert shrunk.sum() == 255 * 20 * 35


def test_a_bucket_takes_the_connected_part() -> None:
    mask = np.zeros((50, 50), np.uint8)
    mask[5:10, 5:10] = mask[30:40, 30:40] = 255
    part = mask_tools.connected(mask, 32.5, 35.0)
    assert part.sum() == 255 * 100
    assert part[35, 35] == 255
    assert not mask_tools.connected(mask, 20, 20).any()
    assert not mask_tools.connected(mask, -3, 500).any()
