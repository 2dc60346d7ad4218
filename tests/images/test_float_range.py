"""Float images with declared values of black and white."""

import numpy as np

from restore.images import DecodedImage
from restore.images.encode import encode
from restore.images.image import GUESSED_WHITE
from restore.images.read import image_from_bytes


def counts(height: int = 6, width: int = 8) -> DecodedImage:
    """A gray float image of counts from -100 to 3900."""
    values = np.linspace(-100, 3900, height * width, dtype=np.float32).reshape(height, width, 1)
    return DecodedImage(values, white=65535.0, bits=32, format="tiff", notes=[f"float ...: 65535 {GUESSED_WHITE}"])


def test_values_of_the_range_are_what_a_network_sees() -> None:
    image = counts().with_range(-100, 3900)
    seen = image.to_srgb()
    assert np.abs(seen[:, :, 0].ravel() - np.linspace(0, 1, 48)).max() < 1e-6
    assert image.notes == [], "nothing is guessed"


def test_a_repair_comes_back_in_the_values_of_the_file() -> None:
    image = counts().with_range(-100, 3900)
    repaired = np.full((6, 8, 3), 0.25, np.float32)
    mask = np.zeros((6, 8), np.float32)
    mask[2, 3:5] = 1
    after = image.blend(repaired, mask)
    assert np.allclose(after.pixels[2, 3:5], 900, atol=1e-2)
    assert np.array_equal(after.pixels[mask == 0], image.pixels[mask == 0])
    assert np.allclose(image.blend(repaired).pixels, 900, atol=1e-2)
    assert np.allclose(image.blend(np.full((12, 16, 3), 0.5, np.float32)).pixels, 1900, atol=1e-2), "enlarged"
    assert np.allclose(image.in_srgb().pixels, image.pixels, atol=1e-2)


def test_other_formats_get_the_range_as_black_and_white() -> None:
    data, notes = encode(counts().with_range(-100, 3900), "png", "x.png")
    assert "floating point rounded to 16 bits" in notes
    pixels = image_from_bytes(data, "x.png").pixels
    assert np.abs(pixels[:, :, 0].ravel() / 65535 - np.linspace(0, 1, 48)).max() < 1e-5


def test_integers_have_no_range() -> None:
    image = DecodedImage(np.zeros((2, 2, 3), np.uint8), extra_pages=(counts(),))
    ranged = image.with_range(-100, 3900)
    assert (ranged.black, ranged.white) == (0, 255)
    assert ranged.extra_pages[0].white == 3900
