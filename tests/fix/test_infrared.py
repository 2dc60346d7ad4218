"""`--masks infrared`: dust that a film scanner's infrared channel shows."""

import numpy as np
import pytest

from restore.errors import RestoreError
from restore.fix.image import fix_image
from restore.fix.infrared import dust_mask, infrared_of
from restore.fix.options import FixOptions
from restore.images import DecodedImage, image_from_bytes
from tests.images.tiffs import build, plain

H, W = 160, 240


def photograph(rng):
    """Colors with texture, 0.2 to 0.9."""
    y, x = np.mgrid[0:H, 0:W] / W
    base = 0.55 + 0.2 * np.sin(18 * x + 5 * y) + 0.1 * np.sin(40 * y)
    image = np.stack([base, base**1.2, 1 - base], axis=2) + rng.normal(0, 0.02, (H, W, 3))
    return np.clip(image, 0.2, 0.9)


def scan(seed=0, *, leak=0.1, dusty=True):
    """An image and its infrared channel, both with dust, and where the dust is."""
    rng = np.random.default_rng(seed)
    image = photograph(rng)
    infrared = (0.75 - 0.1 * np.mgrid[0:H, 0:W][1] / W) * image[:, :, 0] ** leak + rng.normal(0, 0.004, (H, W))
    dust = np.zeros((H, W), bool)
    if dusty:
        for _ in range(25):
            y, x, r = rng.integers(5, H - 5), rng.integers(5, W - 5), rng.integers(1, 5)
            yy, xx = np.mgrid[0:H, 0:W]
            dust |= (yy - y) ** 2 + (xx - x) ** 2 <= r * r
        dust[40:42, 30:200] = True  # a hair
    image[dust] *= 0.4
    infrared[dust] *= rng.uniform(0.2, 0.6)
    return np.clip(image, 0, 1), np.clip(infrared, 0, 1), dust


def decoded(image, infrared):
    as_int = [np.rint(values * 65535).astype(np.uint16) for values in (image, infrared)]
    channel = DecodedImage(as_int[1][:, :, None], white=65535.0, bits=16, format="tiff")
    return DecodedImage(as_int[0], white=65535.0, bits=16, format="tiff", infrared=channel)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("leak", [0.0, 0.1, 0.3])
def test_dust_is_found_and_the_image_is_not(seed, leak):
    image, infrared, dust = scan(seed, leak=leak)
    events = []
    mask = dust_mask(decoded(image, infrared), on_event=events.append)
    near = np.pad(dust, 2)
    near = np.any([near[y : y + H, x : x + W] for y in range(5) for x in range(5)], axis=0)
    assert set(np.unique(mask)) == {0, 1}
    assert mask[dust].mean() > 0.98
    assert mask[~near].mean() < 0.0005
    assert events == []


@pytest.mark.filterwarnings("error")
def test_a_channel_without_film_has_no_dust():
    infrared = np.full((H, W), 0.001)
    infrared[:5, :50] = 1
    mask = dust_mask(decoded(np.full((H, W, 3), 0.5), infrared))
    assert not mask.any()


def test_without_dust_nothing_is_repaired():
    image, infrared, _ = scan(dusty=False)
    assert not dust_mask(decoded(image, infrared)).any()


def test_the_holder_of_the_film_is_no_dust():
    image, infrared, dust = scan()
    for values in (image, infrared):
        values[:, :30] = values[:, -30:] = 0.01
    mask = dust_mask(decoded(image, infrared))
    assert mask[:, :28].mean() == mask[:, -28:].mean() == 0
    assert mask[:, 32:-32][dust[:, 32:-32]].mean() > 0.97


def test_film_that_infrared_does_not_pass_causes_a_warning():
    image, _, _ = scan(dusty=False)
    events = []
    mask = dust_mask(decoded(image, image[:, :, 0]), on_event=events.append)
    assert "Kodachrome" in events[0]
    assert mask.mean() < 0.01


def page(infrared):
    return plain(np.rint(infrared * 65535).astype(np.uint16)[:, :, None], t254=(4, [4]))


@pytest.mark.parametrize("how", ["page", "channel", "channel without ExtraSamples"])
def test_dust_is_filled_and_the_rest_and_the_channel_stay(how):
    image, infrared, dust = scan()
    pixels = np.rint(image * 65535).astype(np.uint16)
    if how == "page":
        data = build(plain(pixels), page(infrared))
    else:
        four = np.dstack([pixels, np.rint(infrared * 65535).astype(np.uint16)])
        data = build(plain(four) if "without" in how else plain(four, t338=(3, [0])))
    before = image_from_bytes(data, "scan.tif")
    mask = dust_mask(before) > 0
    repaired = fix_image(data, model="telea", options=FixOptions(masks="infrared", tile=0))
    after = image_from_bytes(repaired, "scan.tif")
    assert np.array_equal(after.pixels[~mask], pixels[~mask])
    assert after.pixels[dust].mean() > 1.5 * pixels[dust].mean()
    assert np.array_equal(infrared_of(after), infrared_of(before))
    assert not after.transparent or how == "page"


def test_an_image_without_the_channel_fails():
    image, _, _ = scan()
    data = build(plain(np.rint(image * 255).astype(np.uint8)))
    with pytest.raises(RestoreError, match="no infrared channel"):
        fix_image(data, model="telea", options=FixOptions(masks="infrared"))
    transparent = np.dstack([np.rint(image * 255), np.full((H, W), 9)]).astype(np.uint8)
    with pytest.raises(RestoreError, match="no infrared channel"):
        fix_image(build(plain(transparent, t338=(3, [2]))), model="telea", options=FixOptions(masks="infrared"))


def test_a_channel_of_unspecified_meaning_is_no_transparency():
    image, infrared, _ = scan()
    four = np.rint(np.dstack([image, infrared]) * 255).astype(np.uint8)
    with pytest.raises(RestoreError, match="no transparency"):
        fix_image(build(plain(four)), model="telea", options=FixOptions(masks="alpha"))


def test_inverting_an_infrared_mask_is_refused():
    with pytest.raises(RestoreError, match="does not apply to --masks infrared"):
        FixOptions(masks="infrared", mask_invert=True)
