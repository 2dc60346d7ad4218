"""Text over pictures: readable, of its kind, and all of it in the mask."""

import functools
import re

import numpy as np
import pytest
import torch
from scipy import ndimage

from restore.degradations import degradation_from, keys
from restore.degradations.text import FACES, KINDS, _parts, dates, draw_text, words
from tests.degradations.measure import sampled


def written(count: int = 8, shape: tuple[int, int] = (256, 320), **settings: object):
    clean = torch.full((count, 3, *shape), 0.5)
    damaged, mask = degradation_from([{"name": "text", **settings}], "test")(clean, keys(0, last=range(count)))
    return clean, damaged, mask


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_changes_what_its_mask_holds_and_nothing_else(kind: str) -> None:
    clean, damaged, mask = written(kinds=[kind])
    changed = (damaged != clean).any(1, keepdim=True)
    assert not (changed & (mask == 0)).any()
    assert changed[mask > 0].float().mean() > 0.99  # a gray letter on gray now and then
    assert 0 <= damaged.min() <= damaged.max() <= 1
    assert (mask.mean((1, 2, 3)) > 0).all()


def test_a_watermark_is_fainter_than_a_caption() -> None:
    strength = {}
    for kind in ("caption", "watermark"):
        clean, damaged, _ = written(16, kinds=[kind])
        change = (damaged - clean).abs().amax((1, 2, 3))
        strength[kind] = change.mean()
    assert strength["watermark"] < 0.75 * strength["caption"]


def test_captions_lie_below_or_above_and_dates_in_corners() -> None:
    _, _, captions = written(12, kinds=["caption"], shape=(300, 400))
    assert captions[..., 120:180, :].sum() == 0
    _, _, stamps = written(12, kinds=["stamp"], shape=(300, 400))
    assert stamps[..., 80:220, :].sum() == 0
    assert (stamps[..., 220:, 200:].sum((1, 2, 3)) > stamps.sum((1, 2, 3)) / 2).sum() >= 6, "mostly below on the right"


def test_watermarks_are_repeated_over_the_picture_or_stand_once() -> None:
    _, _, masks = written(24, kinds=["watermark"], shape=(384, 384))
    quarters = [(mask[0].unflatten(0, (4, 96)).unflatten(2, (4, 96)).sum((1, 3)) > 0).sum().item() for mask in masks]
    assert max(quarters) == 16
    assert min(quarters) < 12


def test_letters_grow_with_their_size_and_with_the_picture() -> None:
    small, large = (written(24, (side, side), kinds=["stamp"])[2].mean().item() for side in (256, 512))
    assert small == pytest.approx(large, rel=0.25)
    low, high = (written(12, kinds=["stamp"], size=px)[2].mean() for px in (16, 32))
    assert high > 2 * low


def test_an_outline_lies_around_the_letters_in_the_opposite_tone() -> None:
    settings = {"kinds": ["caption"], "opacity": 1, "bright": 1, "size": 40}
    _, plain, mask = written(16, (400, 500), **settings, outlined=0)
    _, outlined, wider = written(16, (400, 500), **settings, outlined=1)
    assert ((wider > 0) | (mask == 0)).all()
    assert wider.sum() > 1.2 * mask.sum()
    darker = plain.amin((1, 2, 3)) - outlined.amin((1, 2, 3))
    assert darker.mean() > 0.3


@pytest.mark.parametrize("face", range(FACES))
def test_letters_are_where_they_were_told_to_be(face: int) -> None:
    lines = torch.tensor([[[100.0, 50, 30, 0], [60, 150, 20, -np.pi / 2]]], dtype=torch.float64)
    letters = torch.tensor([[[*map(ord, "level")], [*map(ord, "upset")]]])
    looks = torch.tensor([[face, 0, 0, 0]], dtype=torch.float64)
    ink = draw_text(lines, letters, looks, (200, 200))[0, 0].numpy()
    level, upright = ink[:90], ink[110:]
    assert ndimage.center_of_mass(level) == pytest.approx((50, 100), abs=6)
    assert ndimage.center_of_mass(upright) == pytest.approx((40, 60), abs=6)
    rows, columns = np.nonzero(level > 0.1)
    assert np.ptp(columns) > 1.5 * np.ptp(rows)
    rows, columns = np.nonzero(upright > 0.1)
    assert np.ptp(rows) > 1.5 * np.ptp(columns)
    nowhere = draw_text(lines + torch.tensor([900.0, 0, 0, 0]), letters, looks, (200, 200))
    assert not nowhere.any()


def test_bold_and_slanted_letters_cover_more_and_lean() -> None:
    lines = torch.tensor([[[100.0, 50, 60, 0]]], dtype=torch.float64)
    letters = torch.tensor([[[ord("l")]]])

    def drawn(weight: float, slant: float) -> np.ndarray:
        return draw_text(lines, letters, torch.tensor([[0, weight, slant, 0]], dtype=torch.float64), (100, 200))[
            0, 0
        ].numpy()

    assert drawn(0.1, 0).sum() > 1.5 * drawn(0, 0).sum()
    top, bottom = (ndimage.center_of_mass(part)[1] for part in (drawn(0, 0.3)[:50], drawn(0, 0.3)[50:]))
    assert top > bottom + 2


def test_words_are_of_letters_and_end_where_they_should() -> None:
    length = torch.arange(1, 33, dtype=torch.float64).expand(50, -1)
    lines = words(keys(0, last=range(50)), 32, 32, length)
    assert torch.equal((lines > 0).sum(2).to(torch.float64), length)
    texts = ["".join(map(chr, filter(None, line))) for line in lines.flatten(0, 1).tolist()]
    assert all(re.fullmatch(r"@?[A-Za-z ]*", text) for text in texts)
    assert {text.isupper() for text in texts} == {True, False}
    spoken = "".join(texts).lower()
    assert 0.35 < sum(map(spoken.count, "aeiouy")) / len(spoken.replace(" ", "")) < 0.65


def test_dates_look_like_dates() -> None:
    codes = dates(keys(0, last=range(40)), 32)
    texts = {"".join(map(chr, filter(None, line))) for line in codes[:, 0].tolist()}
    assert len(texts) > 30
    assert all(re.fullmatch(r"['\d./: -]+", text) for text in texts)


@functools.cache
def text_of(kind: str) -> tuple[torch.Tensor, ...]:
    """The lines, the letters and the styles of 400 images of 512×512, and their opacity and tones."""
    params = sampled({"name": "text", "kinds": [kind], "size": [16, 36], "max_coverage": 0.9}, 400)
    return *_parts(params["text"]), params["opacity"], params["tones"]


@pytest.mark.parametrize(("face", "share"), [(0, 0.72), (1, 0.53), (2, 0.53), (3, 0.53)])
@pytest.mark.parametrize("px", [30, 60])
def test_capitals_are_in_proportion_to_the_body_height(face: int, share: float, px: int) -> None:
    lines = torch.tensor([[[100.0, 60, px, 0]]], dtype=torch.float64)
    letters, style = torch.full((1, 1, 2), ord("H")), torch.tensor([[face, 0, 0, 0]], dtype=torch.float64)
    rows = (draw_text(lines, letters, style, (120, 200))[0, 0] > 0.5).any(1).sum().item()
    assert rows == pytest.approx(share * px, abs=1.6)


def test_lines_have_the_asked_size_and_captions_up_to_three() -> None:
    for kind, least, most in (("caption", 16, 36), ("stamp", 16, 36), ("words", 0.6 * 16, 1.5 * 36)):
        sizes = text_of(kind)[0][..., 2]
        drawn = sizes[sizes > 0]
        assert least <= drawn.min() < drawn.max() <= most
        assert drawn.median().item() == pytest.approx(24.3, rel=0.06)
    lines = torch.bincount((text_of("caption")[0][..., 2] > 0).sum(1)) / 400
    assert lines.tolist() == pytest.approx([0, 1 / 2.4, 1 / 2.4, 0.4 / 2.4], abs=0.06)


def test_text_is_where_its_kind_is() -> None:
    for kind, left, above in (("caption", 0.5, 0.25), ("stamp", 0.25, 0.15)):
        first = text_of(kind)[0][:, 0]
        assert (first[:, 0] < 256).double().mean().item() == pytest.approx(left, abs=0.06)
        assert (first[:, 1] < 256).double().mean().item() == pytest.approx(above, abs=0.06)
    angle = text_of("words")[0]
    angle = angle[angle[..., 2] > 0][:, 3]
    assert (angle == 0).double().mean().item() == pytest.approx(0.5, abs=0.04)
    assert (angle == -np.pi / 2).double().mean().item() == pytest.approx(0.1, abs=0.03)
    assert angle[angle > -1.5].abs().max() <= 0.7


def test_watermarks_are_slanted_upwards_and_tile_the_image() -> None:
    lines = text_of("watermark")[0]
    angle = lines[:, 22, 3]  # of the line in the middle
    assert (angle == 0).double().mean().item() == pytest.approx(0.15, abs=0.05)
    assert (angle < 0).double().mean().item() == pytest.approx(0.68, abs=0.06)
    assert 0.35 <= angle[angle != 0].abs().min() < angle.abs().max() <= 0.85
    tiled = (lines[..., 2] > 0).sum(1) == 45
    assert tiled.double().mean().item() == pytest.approx(0.6, abs=0.06)
    # Rows are at least a ninth of the diagonal apart, and mostly little more.
    rows = 2 * 512 * 2**0.5 / 9
    apart = (lines[tiled, 12, :2] - lines[tiled, 2, :2]).norm(dim=1)
    assert apart.min().item() == pytest.approx(rows, rel=0.01)
    assert apart.median().item() == pytest.approx(1.1 * rows, rel=0.1)


def test_text_is_light_or_dark_and_date_stamps_are_mostly_orange() -> None:
    _, _, _, opacity, tones = text_of("caption")
    ink, edge = tones.mean(2).unbind(1)
    assert 0.65 <= opacity.min() < opacity.max() <= 1
    gray = (tones[:, 0].amax(1) - tones[:, 0].amin(1)) < 1e-9
    assert gray.double().mean().item() == pytest.approx(0.7, abs=0.06)
    light = gray & (ink > 0.5)
    assert light.sum().item() / gray.sum().item() == pytest.approx(0.75, abs=0.06)
    assert ink[light].mean().item() == pytest.approx(0.925, abs=0.01)
    assert ink[gray & ~light].mean().item() == pytest.approx(0.1, abs=0.015)
    assert ((ink < 0.45) == (edge > 0.5)).all()  # the opposite tone
    stamps = text_of("stamp")[4][:, 0]
    glowing = (stamps[:, 0] - stamps[:, 2]) > 0.6
    assert glowing.double().mean().item() == pytest.approx(0.7, abs=0.06)
    assert stamps[glowing].mean(0) == pytest.approx([0.95, 0.55, 0.1], abs=0.03)


def test_letters_are_plain_bold_slanted_or_outlined() -> None:
    face, weight, slant, outline = text_of("caption")[2].unbind(1)
    assert torch.bincount(face.long()).div(400).tolist() == pytest.approx([0.6, *[0.4 / 3] * 3], abs=0.08)
    assert (weight > 0).double().mean().item() == pytest.approx(0.6, abs=0.06)
    assert weight[weight > 0].mean().item() == pytest.approx(0.07, abs=0.008)
    assert (slant == 0.25).double().mean().item() == pytest.approx(0.2, abs=0.05)
    assert ((slant == 0.25) | (slant == 0)).all()
    assert (outline > 0).double().mean().item() == pytest.approx(0.3, abs=0.06)
    assert outline[outline > 0].mean().item() == pytest.approx(0.09, abs=0.006)


@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_of_text_is_exactly_what_changes(kind: str) -> None:
    clean, damaged, mask = written(8, kinds=[kind], outlined=1, opacity=1)
    changed = (damaged - clean).abs().amax(1, keepdim=True)
    assert not changed[mask == 0].any()
    assert (changed[mask > 0] > 0.01).float().mean() > 0.98
