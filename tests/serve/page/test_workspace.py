"""The work folder: the state of every image, and what a restart finds."""

import os
import shutil
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restore.errors import RestoreError, printable
from restore.files import temporary_path
from restore.serve.page import strokes
from restore.serve.page.listing import list_images
from restore.serve.page.saving import FileExists, save
from restore.serve.page.tiles import Box
from restore.serve.page.work_folder import NotFound, default_work, restored, stored
from restore.serve.page.workspace import Workspace

MP = 200_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "b.jpg", "sub/c.png"):
        Image.new("RGB", (96, 64), (90, 120, 60)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / "old.wmf").write_bytes(b"\xd7\xcd\xc6\x9a" + bytes(40))
    return folder


def opened(folder: Path, output: Path | None = None) -> Workspace:
    return Workspace(list_images(folder, output, MP), folder.parent / "work")


def stroke(workspace: Workspace, file: int, x: float = 30) -> None:
    coverage = strokes.stroke([(x, 30, 5)], 0, 96, 64)
    workspace.masks.paint(file, "stroke", coverage, (96, 64), erase=False)


def repaired(workspace: Workspace, file: int, content: bytes = b"repaired") -> int:
    row = workspace.row(file)
    revision = workspace.new_revision()
    place = workspace.result_folder(file, revision)
    place.mkdir()
    name = Path(restored(row["name"])).name
    (place / name).write_bytes(content)
    workspace.repaired(file, revision, name, workspace.repair_key(row), ["a note"])
    return revision


def state(workspace: Workspace, file: int) -> str:
    return workspace.file(file)["state"]


def test_the_folder_is_listed_as_the_command_line_lists_it(folder: Path) -> None:
    workspace = opened(folder)
    files = [workspace.file(file) for file in workspace.ids_in_order()]
    names = {file["name"]: file for file in files}
    assert set(names) >= {"a.png", "b.jpg", "sub/c.png"}
    assert "notes.txt" not in names
    assert {names[name]["state"] for name in ("a.png", "b.jpg", "sub/c.png")} == {"untouched"}
    assert workspace.output == folder.parent / "scans-repaired"
    assert not workspace.output.exists()
    assert sorted(os.listdir(folder)) == ["a.png", "b.jpg", "notes.txt", "old.wmf", "sub"]


@pytest.mark.skipif(os.name == "nt", reason="no such permissions")
def test_a_work_folder_that_is_made_is_for_its_user_only(folder: Path) -> None:
    opened(folder).close()
    work = folder.parent / "work"
    assert stat.S_IMODE(work.stat().st_mode) == 0o700
    work.chmod(0o750)  # somebody has decided so
    opened(folder).close()
    assert stat.S_IMODE(work.stat().st_mode) == 0o750


def test_a_folder_in_the_place_of_an_image_is_not_repaired(folder: Path) -> None:
    workspace = opened(folder)
    (folder / "a.png").unlink()
    with pytest.raises(RestoreError, match="no such file"):
        workspace.source(workspace.ids["a.png"])
    (folder / "a.png").mkdir()
    with pytest.raises(RestoreError, match="no such file"):
        workspace.source(workspace.ids["a.png"])


def test_one_file_is_opened_alone(folder: Path) -> None:
    workspace = Workspace(list_images(folder / "b.jpg", None, MP), folder.parent / "one")
    assert [workspace.file(file)["name"] for file in workspace.ids_in_order()] == ["b.jpg"]
    assert workspace.output == folder.parent / "scans-repaired"


def test_links_out_of_the_folder_are_left_out_and_refused_when_they_appear_later(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder.parent / "secret.png")
    (folder / "out.png").symlink_to("../secret.png")
    (folder / "in.png").symlink_to("a.png")
    (folder.parent / "elsewhere").mkdir()
    Image.new("RGB", (8, 8)).save(folder.parent / "elsewhere" / "secret2.png")
    (folder / "linked").symlink_to("../elsewhere")
    workspace = opened(folder)
    names = [workspace.file(file)["name"] for file in workspace.ids_in_order()]
    assert "in.png" in names
    assert "out.png" not in names
    assert not [name for name in names if "secret" in name]
    assert any("2 links lead out of the folder" in line for line in workspace.listing.warnings)
    file = workspace.ids["a.png"]
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to("../secret.png")
    with pytest.raises(RestoreError, match="leads out of the folder"):
        workspace.source(file)


def test_states_follow_the_work(folder: Path) -> None:
    workspace = opened(folder)
    file = workspace.ids["a.png"]
    workspace.read(file, 96, 64)
    assert state(workspace, file) == "untouched"
    stroke(workspace, file)
    assert state(workspace, file) == "found"
    workspace.undo(file)
    assert state(workspace, file) == "untouched"
    workspace.found(file, 5, 0.01, {"threshold": 0.4})
    assert state(workspace, file) == "found"
    stroke(workspace, file)
    repaired(workspace, file)
    assert state(workspace, file) == "repaired"
    assert workspace.detail(file)["result"] | {"revision": 0} == {"revision": 0, "current": True, "notes": ["a note"]}
    path, notes = save(workspace, file, overwrite=False)
    assert (state(workspace, file), path.read_bytes(), notes) == ("saved", b"repaired", ["a note"])
    stroke(workspace, file, 60)
    assert workspace.detail(file)["result"]["current"] is False
    repaired(workspace, file, b"again")
    assert state(workspace, file) == "repaired"
    save(workspace, file, overwrite=False)  # its own output
    assert path.read_bytes() == b"again"
    workspace.failed(file, "damaged", "damaged")
    assert state(workspace, file) == "failed"


def test_saving_replaces_only_what_the_page_has_written(folder: Path) -> None:
    workspace = opened(folder)
    file = workspace.ids["sub/c.png"]
    with pytest.raises(RestoreError, match="has not been repaired"):
        save(workspace, file, overwrite=True)
    repaired(workspace, file)
    target = workspace.output / "sub/c.png"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"someone's own")
    with pytest.raises(FileExists):
        save(workspace, file, overwrite=False)
    assert target.read_bytes() == b"someone's own"
    save(workspace, file, overwrite=True)
    assert target.read_bytes() == b"repaired"
    target.write_bytes(b"changed by another program")
    with pytest.raises(FileExists):
        save(workspace, file, overwrite=False)


def test_ground_can_be_undone_and_redone_with_the_repairs_on_it(folder: Path) -> None:
    workspace = opened(folder)
    file = workspace.ids["a.png"]
    workspace.read(file, 96, 64)
    stroke(workspace, file)
    first = repaired(workspace, file, b"first")
    workspace.make_ground(file)
    assert workspace.original(file).read_bytes() == b"first"
    assert workspace.masks.is_empty(file)
    assert workspace.detail(file)["result"] is None
    assert state(workspace, file) == "repaired"
    assert workspace.result(file)[0].read_bytes() == b"first"
    second = repaired(workspace, file, b"second")
    workspace.undo(file)
    assert workspace.original(file) == folder / "a.png"
    assert workspace.row(file)["result"] == first
    assert not workspace.masks.is_empty(file)
    workspace.close()
    workspace = opened(folder)
    workspace.redo(file)
    assert workspace.original(file).read_bytes() == b"first"
    assert workspace.row(file)["result"] == second
    assert workspace.result(file)[0].read_bytes() == b"second"
    with pytest.raises(RestoreError):
        workspace.set_recipe(file, {"strength": 3})


def test_a_restart_finds_everything_and_removes_what_was_half_written(folder: Path) -> None:
    workspace = opened(folder)
    file = workspace.ids["a.png"]
    workspace.read(file, 96, 64)
    stroke(workspace, file)
    workspace.set_recipe(file, {"strength": 0.5})
    revision = repaired(workspace, file)
    before = workspace.detail(file)
    half = workspace.result_folder(file, 999)
    half.mkdir()
    (half / "a.png").write_bytes(b"half")
    (workspace.work / "pyramids" / f"{file}-repaired-999.tiles").write_bytes(b"half")
    (workspace.work / "masks" / "x.png").write_bytes(b"half")
    workspace.close()
    workspace = opened(folder)
    assert workspace.detail(file) == before
    assert workspace.recipe(file)["strength"] == 0.5
    assert not half.exists()
    assert not list((workspace.work / "masks").iterdir()) + list((workspace.work / "pyramids").iterdir())
    assert workspace.result_folder(file, revision).exists()


def test_an_original_that_changed_loses_what_was_made_from_it(folder: Path) -> None:
    workspace = opened(folder)
    file = workspace.ids["a.png"]
    workspace.read(file, 96, 64)
    stroke(workspace, file)
    repaired(workspace, file)
    workspace.close()
    Image.new("RGB", (96, 64), (1, 2, 3)).save(folder / "a.png", compress_level=0)
    workspace = opened(folder)
    assert workspace.row(file)["result"] is None
    assert not workspace.masks.is_empty(file)
    workspace.read(file, 100, 64)
    assert workspace.masks.is_empty(file)


def test_a_repair_that_vanished_from_the_work_folder_can_be_made_again(folder: Path) -> None:
    workspace = opened(folder)
    file = workspace.ids["a.png"]
    workspace.read(file, 96, 64)
    stroke(workspace, file)
    shutil.rmtree(workspace.result_folder(file, repaired(workspace, file)))
    with pytest.raises(RestoreError, match="has not been repaired"):
        save(workspace, file, overwrite=False)
    assert state(workspace, file) == "found"
    assert not workspace.masks.is_empty(file)
    shutil.rmtree(workspace.result_folder(file, repaired(workspace, file)))
    workspace.close()
    workspace = opened(folder)
    assert state(workspace, file) == "found"
    assert not workspace.masks.is_empty(file)


def test_a_ground_that_vanished_leads_back_to_the_original_file(folder: Path) -> None:
    workspace = opened(folder)
    file = workspace.ids["a.png"]
    workspace.read(file, 96, 64)
    stroke(workspace, file)
    revision = repaired(workspace, file)
    workspace.make_ground(file)
    stroke(workspace, file)
    shutil.rmtree(workspace.result_folder(file, revision))
    workspace.close()
    workspace = opened(folder)
    assert workspace.original(file) == folder / "a.png"
    assert state(workspace, file) == "untouched"


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_damaged_database_is_told(folder: Path, share: float) -> None:
    opened(folder).close()
    database = folder.parent / "work" / "work.db"
    content = database.read_bytes()
    database.write_bytes(content[:4096] + b"\x5a" * int(share * len(content)) + content[4096:])
    with pytest.raises(RestoreError, match="the work folder cannot be"):
        opened(folder)


def test_a_full_disk_is_told_and_loses_nothing(folder: Path) -> None:
    workspace = opened(folder)
    file = workspace.ids["a.png"]
    workspace.read(file, 96, 64)
    stroke(workspace, file)
    before = workspace.masks.read(file, Box(0, 0, 96, 64), (96, 64))
    pages = workspace.database.number("PRAGMA page_count")
    workspace.database.number(f"PRAGMA max_page_count = {pages}")
    noise = np.random.default_rng(0).integers(0, 256, (64, 96), np.uint8)

    def fill() -> None:
        for shift in range(50):
            workspace.masks.replace(file, "load", np.roll(noise, shift, 1))

    with pytest.raises(RestoreError, match="cannot be written"):
        fill()
    workspace.database.number("PRAGMA max_page_count = 100000")
    while workspace.masks.state(file).undo > 1:
        workspace.undo(file)
    assert np.array_equal(workspace.masks.read(file, Box(0, 0, 96, 64), (96, 64)), before)
    stroke(workspace, file, 70)
    assert workspace.masks.state(file).undo == 2


def test_leftovers_of_a_killed_save_are_removed(folder: Path) -> None:
    workspace = opened(folder)
    workspace.output.mkdir()
    left = temporary_path(workspace.output / "a.png")
    left.write_bytes(b"half")
    workspace.close()
    opened(folder)
    assert not left.exists()


def test_a_work_folder_belongs_to_one_folder_and_one_process(folder: Path) -> None:
    workspace = opened(folder)
    with pytest.raises(RestoreError, match="open in another"):
        opened(folder)
    workspace.close()
    other = folder.parent / "other"
    other.mkdir()
    Image.new("RGB", (8, 8)).save(other / "a.png")
    with pytest.raises(RestoreError, match="work folder of"):
        opened(other)
    with pytest.raises(RestoreError, match="lies in the opened folder"):
        Workspace(list_images(folder, None, MP), folder / "work")
    opened(folder).close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take only valid names")
def test_names_that_are_no_utf_8_are_kept(folder: Path) -> None:
    odd = os.fsdecode(b"caf\xe9 \n.png")
    (folder / odd).write_bytes((folder / "a.png").read_bytes())
    for _ in range(2):
        workspace = opened(folder)
        (file,) = (one for one in workspace.ids_in_order() if "caf" in workspace.file(one)["name"])
        assert workspace.file(file)["name"] == printable(odd)
        assert workspace.source(file) == folder / odd
        workspace.read(file, 96, 64)
        repaired(workspace, file)
        path, _ = save(workspace, file, overwrite=False)
        assert path == workspace.output / odd
        workspace.make_ground(file)
        assert workspace.original(file).name == odd
        workspace.close()
    assert stored("plain.png") == "plain.png"
    assert restored(stored(odd)) == odd


def test_files_that_do_not_exist_are_not_found(folder: Path) -> None:
    workspace = opened(folder)
    for file in (0, -1, 10**9):
        with pytest.raises(NotFound):
            workspace.row(file)


def test_work_folders_lie_in_the_users_data(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    if os.name != "nt":
        monkeypatch.setattr("sys.platform", "linux")
        assert default_work(folder).is_relative_to(tmp_path / "data")
    assert default_work(folder) != default_work(folder / "sub")
    assert np.unique([len(default_work(place).name) for place in (folder, Path("/"))]).tolist() == [16]
