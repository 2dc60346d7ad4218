"""The perceptual hash: copies are close, strangers are far."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from restore.data.config import DataConfig
from restore.data.dataset import DuplicateIndex, hamming, hashes_with_mirror, perceptual_hash
from restore.images import find_images, read_rgb8

BITS = DataConfig(folders=["x"]).near_duplicates or 0
PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos" / "clean"


def copies(picture: np.ndarray) -> dict[str, np.ndarray]:
    height, width = picture.shape[:2]
    smaller = cv2.resize(picture, (width * 2 // 3, height * 2 // 3), interpolation=cv2.INTER_AREA)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", smaller, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    darker = (picture * 0.8).astype(np.uint8)
    return {"smaller": smaller, "jpeg": jpeg, "darker": darker, "stretched": cv2.resize(picture, (200, 300))}


@pytest.mark.parametrize("kind", ["smaller", "jpeg", "darker", "stretched"])
def test_a_copy_is_close(kind: str) -> None:
    for picture in (data.astronaut(), data.chelsea(), data.coffee()):
        assert hamming(perceptual_hash(picture), perceptual_hash(copies(picture)[kind])) < BITS // 2


def test_strangers_are_far() -> None:
    hashes = [perceptual_hash(p) for p in (data.astronaut(), data.chelsea(), data.coffee(), data.rocket())]
    assert all(hamming(a, b) >= 16 for i, a in enumerate(hashes) for b in hashes[:i])


def test_the_hash_has_64_bits_of_which_about_half_are_set() -> None:
    for picture in (data.astronaut(), data.chelsea()):
        assert 0 <= perceptual_hash(picture) < 2**64
        assert 28 <= perceptual_hash(picture).bit_count() <= 36


def test_hamming_counts_differing_bits() -> None:
    assert hamming(0b1011, 0b0010) == 2
    assert hamming(2**64 - 1, 0) == 64


def test_a_mirrored_picture_looks_alike_and_only_by_its_second_hash() -> None:
    picture = data.chelsea()
    mirror = np.ascontiguousarray(picture[:, ::-1])
    assert hashes_with_mirror(picture)[1] == perceptual_hash(mirror)
    assert hamming(*hashes_with_mirror(picture)) > 16
    assert mirror in DuplicateIndex([picture], BITS)


def test_lookalikes_with_zero_bits_is_off() -> None:
    assert data.chelsea() in DuplicateIndex([data.chelsea()], BITS)
    assert data.chelsea() not in DuplicateIndex([data.chelsea()], 0)
    assert data.coffee() not in DuplicateIndex([data.chelsea()], BITS)


def test_a_flat_picture_has_a_hash() -> None:
    assert perceptual_hash(np.full((5, 3, 3), 77, np.uint8)) == perceptual_hash(np.full((9, 9, 3), 77, np.uint8))


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the collection of photographs")
def test_among_photographs_only_true_copies_fall_below_the_default() -> None:
    names = ["ubuntu-mate_42b813f077.jpg", "work_suite_6ed2335c3e.jpg"]  # one wave, two encodings
    if not all((PHOTOS / name).exists() for name in names):
        pytest.skip("another collection")
    twins = [perceptual_hash(read_rgb8(PHOTOS / name)) for name in names]
    assert hamming(*twins) < BITS
    strangers = [p for p in find_images(PHOTOS) if p.name not in names][::40]
    hashes = [perceptual_hash(read_rgb8(PHOTOS / p)) for p in strangers]
    assert all(hamming(a, b) >= BITS for i, a in enumerate(hashes) for b in hashes[:i] + twins)
