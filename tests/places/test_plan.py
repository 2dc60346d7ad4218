"""Plans over URLs of very many names, in a store that only lists them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from restore.errors import RestoreError
from restore.fix.options import FixOptions
from restore.places import store
from restore.places.files import EXISTS, Files, PlacedFile, Verdict
from restore.places.plan import PlacesPlan, plan_places
from restore.places.store import Entry

pytest.importorskip("fsspec")
COUNT = 3000


class Listed:
    """A store that lists names, in the order in which they are given, and holds nothing."""

    def __init__(self, **folders: list[str]) -> None:
        self.folders = folders

    def kind(self, url: str) -> str:
        return "folder"

    def list(self, folder: str) -> Iterator[Entry]:
        for name in self.folders.get(folder.rstrip("/").rpartition("/")[2], ()):
            yield Entry(name, len(name))


@pytest.fixture
def names() -> list[str]:
    return [f"box_{number // 100:03}/scan_{number:05}.jpg" for number in range(COUNT)]


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch, names: list[str]) -> Listed:
    one = Listed(scans=names)
    monkeypatch.setattr(store, "_store", lambda scheme: one)
    return one


def plan(**options: object) -> PlacesPlan:
    return plan_places(["memory://b/scans"], "memory://b/out", FixOptions.from_dict(options))


def test_a_name_takes_few_bytes(listed: Listed, names: list[str]) -> None:
    files = plan().files
    assert [file.name for file in files] == names
    assert len(pickle.dumps(files)) < 12 * COUNT


def test_outputs_that_exist_are_found_in_any_order(listed: Listed, names: list[str]) -> None:
    listed.folders["out"] = names[::-2]
    with pytest.raises(RestoreError, match=rf"out/{names[1]}: exists already \(and {COUNT // 2 - 1} more outputs\)"):
        plan()
    files = plan(skip_existing=True).files
    assert (files.work, files.skipped) == (COUNT // 2, {EXISTS.reason: COUNT // 2})
    assert [file.name for file in files.to_do()] == names[::2]
    assert [file.name for file in files.settled()] == names[1::2]
    assert (list(files.failing()), files[1].verdict, files[2].verdict.action) == ([], EXISTS, "repair")


def test_each_of_many_has_its_mask(listed: Listed, names: list[str]) -> None:
    """Excluded images have masks, too; a mask without an image is told."""
    listed.folders["masks"] = [name.replace(".jpg", "_mask.png") for name in names[1:]] + ["stray.png"]
    made = plan(masks="memory://b/masks", exclude=("box_001/*",))
    assert len(made.files) == COUNT - 100
    (bare,) = made.files.failing()
    assert (bare.name, bare.verdict.code) == (names[0], "no_mask")
    for file in made.files.to_do():
        assert file.mask == f"memory://b/masks/{file.name.replace('.jpg', '_mask.png')}"
    assert made.unmatched_masks == ["memory://b/masks/stray.png"]


def test_sidecars_are_no_files_of_their_own_also_if_they_are_excluded(listed: Listed) -> None:
    listed.folders["scans"] = ["a.jpg", "a.xmp", "b.jpg", "b.jpg.XMP", "c.xmp"]
    expected = [("a.jpg", ("a.xmp",)), ("b.jpg", ("b.jpg.XMP",)), ("c.xmp", ())]
    for options, files in (({}, expected), ({"include": ("*.jpg",)}, expected[:2])):
        found = [(file.name, tuple(name for _, name in file.sidecars)) for file in plan(**options).files]
        assert found == files


def test_a_list_names_each_place_once(listed: Listed, names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    places = [f"memory://b/scans/{name}" for name in names]
    path.write_text("\n".join([*places, places[0], f"  \n{places[1]}"]), encoding="utf-16")
    options = FixOptions(files_from=path)
    assert [file.source for file in plan_places([], "memory://b/out", options).files] == places
    assert [file.name for file in plan_places(["memory://b/scans"], "memory://b/out", options).files] == names
    path.write_text("memory://b/x/a.jpg\nmemory://b/y/a.jpg\n")
    with pytest.raises(RestoreError, match="would both be written here"):
        plan_places([], "memory://b/out", options)


def test_files_come_out_as_they_went_in() -> None:
    files = [
        PlacedFile("s3://b/", "\udcff.png", "x/", 7, "s3://m/1", (("s3://b/a.xmp", "a.xmp"),), True),
        PlacedFile("s3://b/", "b.png", verdict=Verdict("unmasked")),
        PlacedFile("s3://b/", "c.png", verdict=Verdict("fail", "a reason", "bad_mask")),
    ]
    kept = Files(files)
    assert (list(kept), kept[-1], len(kept), kept.work) == (files, files[2], 3, 2)
    with pytest.raises(IndexError):
        kept[3]


def test_previews_have_names_of_their_own(listed: Listed) -> None:
    listed.folders["scans"] = ["a/reel.mp4", "a/still.png"]
    assert list(plan(preview="10s").format()) == [
        "memory://b/scans/a/reel.mp4 -> memory://b/out/a/reel.preview.mp4",
        "memory://b/scans/a/still.png: skipped: only videos have previews",
    ]


class Tree:
    """The calls of fsspec that a store makes, on a few objects."""

    def __init__(self, *names: str) -> None:
        self.names, self.listings = names, 0

    def find(self, path: str, detail: bool) -> dict[str, dict[str, object]]:
        self.listings += 1
        below = f"{path.rstrip('/')}/"
        if not (found := [name for name in self.names if f"{name}/".startswith(below)]):
            raise FileNotFoundError(path)
        return {name: {"type": "file", "size": 1} for name in found}

    def ls(self, path: str, detail: bool) -> list[str]:
        return [name for name in self.names if name.startswith(f"{path}/")]

    def info(self, path: str) -> dict[str, object]:
        path = path.partition("://")[2] or path
        if path in self.names:
            return {"type": "file", "size": 1}
        if path == "b" or self.ls(path, detail=False):
            return {"type": "directory", "size": 0}
        raise FileNotFoundError(path)


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_a_folder_is_known_without_a_listing_of_all(scheme: str) -> None:
    one = store.Store("memory")
    one.scheme, one.files = scheme, (tree := Tree("b/in/a.png", "b/both", "b/both/c.png", "b/alone"))
    known = {"b": "folder", "b/in": "folder", "b/in/": "folder", "b/in/a.png": "file", "b/both": "file"}
    assert {url: one.kind(f"{scheme}://{url}") for url in known} == known
    assert tree.listings == 0
    rare = {"b/both/": "folder", "b/alone/": "", "b/none": "", "b/none/": ""}
    assert {url: one.kind(f"{scheme}://{url}") for url in rare} == rare
    with pytest.raises(store.NotThere):
        one.kind(f"{scheme}://missing/in")
    tree.names = ()
    assert one.kind(f"{scheme}://b") == ""
