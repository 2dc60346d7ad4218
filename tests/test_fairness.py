"""Nothing is trained on what it is scored on, and every photograph that is trained on is credited."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from restore.data.config import DataConfig
from restore.data.dataset import DuplicateIndex
from restore.images import find_images, read_rgb8

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
PHOTOS, BENCH = DATA / "photos", DATA / "bench"
# as training keeps copies of validation pictures out
BITS = DataConfig(folders=["x"]).near_duplicates or 0

needs_data = pytest.mark.skipif(not (PHOTOS.is_dir() and BENCH.is_dir()), reason="needs the collections of pictures")


def copies_of(bench: Path, training: Path) -> set[str]:
    """The pictures of `training` that look like one of `bench`, or like its mirror image."""
    scored = DuplicateIndex((read_rgb8(bench / name) for name in find_images(bench)), BITS)
    return {name.as_posix() for name in find_images(training) if read_rgb8(training / name) in scored}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


@needs_data
def test_no_training_photograph_looks_like_one_that_is_scored() -> None:
    assert len(find_images(PHOTOS)) > 1000
    assert len(find_images(BENCH)) > 80
    assert copies_of(BENCH, PHOTOS) == set()


@needs_data
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_copy_of_a_scored_picture_would_be_found(mirrored: bool, tmp_path: Path) -> None:
    bench = BENCH / "cbsd68"
    picture = read_rgb8(bench / find_images(bench)[7])
    height, width = picture.shape[:2]
    smaller = cv2.resize(picture, (int(width * 0.6), int(height * 0.6)), interpolation=cv2.INTER_AREA)
    smaller = np.ascontiguousarray(smaller[:, ::-1] if mirrored else smaller)
    cv2.imwrite(str(tmp_path / "planted.jpg"), smaller[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])
    for name in find_images(PHOTOS / "clean")[:5]:
        (tmp_path / name.name).write_bytes((PHOTOS / "clean" / name).read_bytes())
    assert copies_of(bench, tmp_path) == {"planted.jpg"}


@needs_data
def test_every_training_photograph_is_credited_as_its_licence_asks() -> None:
    credits = {row["photograph"]: row for row in rows(ROOT / "restore" / "weights" / "CREDITS.tsv")}
    licences = {row["path"]: row for row in rows(PHOTOS / "LICENCES.tsv")}
    for folder in ("clean", "old"):
        for name in find_images(PHOTOS / folder):
            licence, credit = licences[f"{folder}/{name.as_posix()}"], credits[name.name]
            author = licence["author"] or "not stated by the source"
            assert (credit["author"], credit["licence"]) == (author, licence["licence"]), name
            assert (credit["source"], credit["original"]) == (licence["source"], licence["original path"]), name
