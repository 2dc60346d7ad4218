"""Finding pictures, and pairing them by name."""

import os
import shutil
from pathlib import Path

import pytest

from restore.errors import RestoreError
from restore.images import IMAGE_SUFFIXES, UNREADABLE_SUFFIXES, find_images, formats, pair_key, stem_key


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
        "f.xcf",
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


def test_globs_match_in_any_case_and_any_normalization(tree):
    (tree / "A.JPG").touch()
    (tree / "cafe\u0301.png").touch()  # as macOS stores it
    assert names(find_images(tree, include=["*.jpg"])) == ["A.JPG", "b.JPG"]
    assert names(find_images(tree, include=["a.Jpg", "SUB/C.*"])) == ["A.JPG", "sub/c.tif"]
    assert names(find_images(tree, include=["caf\u00e9.*"])) == ["cafe\u0301.png"]
    assert "A.JPG" not in names(find_images(tree, exclude=["*.jpg"]))


def test_folders_that_systems_make_are_left_out_and_told(tree):
    for name in ("@eaDir/x.jpg", "sub/@eaDir/x.jpg", "#recycle/x.jpg", "$RECYCLE.BIN/x.jpg", "__MACOSX/._a.png",
                 ".thumbnails/x.png", "sub/._c.tif", "lost+found/x.png"):  # fmt: skip
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    left_out: list[Path] = []
    found = find_images(tree, on_left_out=left_out.append)
    assert names(found) == ["a.png", "b.JPG", "sub/c.tif", "sub/deep/d.webp"]
    assert sorted(names(left_out)) == [
        "#recycle", "$RECYCLE.BIN", ".git", ".hidden.png", ".thumbnails", "@eaDir", "__MACOSX", "lost+found",
        "sub/._c.tif", "sub/@eaDir",
    ]  # fmt: skip
    assert names(find_images(tree / "@eaDir")) == ["x.jpg"], "a folder that the user names is read"


@pytest.mark.parametrize("status", [PermissionError(13, "Permission denied"), OSError(36, "File name too long")])
def test_a_folder_without_a_status_is_told(tree, monkeypatch, status):
    real = os.stat

    def stat(path, **options):
        if os.fspath(path).endswith("deep"):
            raise type(status)(status.errno, status.strerror, path)
        return real(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    told: dict[Path, OSError] = {}
    assert names(find_images(tree, on_unlistable=told.setdefault)) == ["a.png", "b.JPG", "sub/c.tif"]
    assert {path.as_posix(): error.strerror for path, error in told.items()} == {"sub/deep": status.strerror}
    with pytest.raises(RestoreError, match=f"deep: the folder cannot be listed: {status.strerror}"):
        find_images(tree)


def test_a_path_over_4096_bytes_is_told(tree):
    place = os.open(tree, os.O_RDONLY)
    for _ in range(20):  # its full path cannot be opened, so it is made step by step
        os.mkdir("d" * 250, dir_fd=place)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(place)
    told: list[str] = []
    found = find_images(tree, on_unlistable=lambda path, error: told.append(error.strerror))
    assert names(found) == ["a.png", "b.JPG", "sub/c.tif", "sub/deep/d.webp"]
    assert told == ["File name too long"]


def test_suffixes_can_be_widened(tree):
    assert "f.xcf" in names(find_images(tree, suffixes=IMAGE_SUFFIXES | UNREADABLE_SUFFIXES))


def test_link_loops_are_survived_and_linked_folders_seen_once(tree):
    os.symlink(tree, tree / "sub" / "loop")
    os.symlink(tree / "sub", tree / "twice")
    os.symlink(tree / "itself", tree / "itself")
    os.symlink(tree.parent, tree / "up")
    (tree.parent / "beside").mkdir()
    shutil.copy(tree / "a.png", tree.parent / "beside" / "z.png")
    assert names(find_images(tree)) == ["a.png", "b.JPG", "sub/c.tif", "sub/deep/d.webp"]


def test_folders_around_it_need_not_be_readable(tree, monkeypatch):
    identity = formats._identity

    def refusing(path):
        if Path(path) in tree.parents:
            raise PermissionError(13, "Permission denied", path)
        return identity(path)

    monkeypatch.setattr(formats, "_identity", refusing)
    assert names(find_images(tree)) == ["a.png", "b.JPG", "sub/c.tif", "sub/deep/d.webp"]


def test_names_that_are_no_text(tree):
    odd = os.path.join(os.fsencode(tree), b"\xff\n.png")
    with open(odd, "wb"):
        pass
    assert os.fsencode(find_images(tree)[-1]) == b"\xff\n.png"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(RestoreError, match="no such folder"):
        find_images(tmp_path / "missing")


def test_pairs_go_by_the_path_without_the_last_suffix_in_one_spelling():
    assert pair_key("sub/cafe\u0301.png") == pair_key("sub/caf\u00e9.jpg") == "sub/caf\u00e9"

    assert stem_key(Path("sub/a.b.png")) == "sub/a.b"
    assert stem_key("a.jpg") == stem_key("a.tiff") == "a"
