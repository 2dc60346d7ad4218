"""Finding pictures, and pairing them by name."""

import os
from pathlib import Path

import pytest

from restore.errors import RestoreError
from restore.images import IMAGE_SUFFIXES, UNREADABLE_SUFFIXES, find_images, stem_key


@pytest.fixture
def tree(tmp_path):
    for name in (
        "b.JPG",
        "a.png",
        "sub/c.tif",
        "sub/deep/d.webp",
        ".hidden.png",
        ".git/e.png",
        "notes.txt",
        "f.psd",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def names(paths):
    return [path.as_posix() for path in paths]


def test_pictures_are_found_in_order_and_hidden_ones_are_not(tree):
    assert names(find_images(tree)) == ["a.png", "b.JPG", "sub/c.tif", "sub/deep/d.webp"]


def test_globs(tree):
    assert names(find_images(tree, include=["*.png", "*.tif"])) == ["a.png", "sub/c.tif"]
    assert names(find_images(tree, include=["sub/*"])) == ["sub/c.tif", "sub/deep/d.webp"]
    assert names(find_images(tree, exclude=["sub/*", "b.*"])) == ["a.png"]


def test_suffixes_can_be_widened(tree):
    assert "f.psd" in names(find_images(tree, suffixes=IMAGE_SUFFIXES | UNREADABLE_SUFFIXES))


def test_link_loops_are_survived_and_linked_folders_seen_once(tree):
    os.symlink(tree, tree / "sub" / "loop")
    os.symlink(tree / "sub", tree / "twice")
    os.symlink(tree / "itself", tree / "itself")
    assert names(find_images(tree)) == ["a.png", "b.JPG", "sub/c.tif", "sub/deep/d.webp"]


def test_names_that_are_no_text(tree):
    odd = os.path.join(os.fsencode(tree), b"\xff\n.png")
    with open(odd, "wb"):
        pass
    assert os.fsencode(find_images(tree)[-1]) == b"\xff\n.png"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(RestoreError, match="no such folder"):
        find_images(tmp_path / "missing")


def test_pairs_go_by_the_path_without_the_last_suffix():
    assert stem_key(Path("sub/a.b.png")) == "sub/a.b"
    assert stem_key("a.jpg") == stem_key("a.tiff") == "a"
