"""Several inputs, and lists of files: where their outputs go, what pairs with them, and what is refused."""

from __future__ import annotations

import io
import itertools
import os
import re
import sys
import threading
from pathlib import Path

import pytest

from restore.errors import RestoreError
from restore.fix.batch_options import declared
from restore.fix.detect import plan_detect
from restore.fix.inputs import shard_of
from restore.fix.options import DetectOptions, FixOptions
from restore.fix.run import fix_folder
from restore.places.urls import is_places_run
from tests.fix.conftest import Filler, Inverter, fix_with, hole, logged, photo, plan_with, save, snapshot


def refused(*args, **options) -> str:
    with pytest.raises(RestoreError) as caught:
        plan_with(*args, **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


def targets(plan) -> list[str]:
    return [job.target.relative_to(plan.output).as_posix() for job in plan.jobs]


@pytest.fixture
def there(pictures, monkeypatch):
    """`in` with its images is the current folder's only entry."""
    monkeypatch.chdir(pictures.parent)
    return pictures.parent


def test_several_images_go_into_a_folder_by_their_names(there):
    summary = fix_with(["in/a.png", "in/sub/b.png"], "out", Inverter(), log="log")
    assert (summary.done, summary.exit_code) == (2, 0)
    assert list(snapshot(there / "out")) == ["a.png", "b.png"]
    assert [line["input"] for line in logged(there / "log")] == ["in/a.png", "in/sub/b.png"]
    assert targets(plan_with(["in/a.png", "in/sub/b.png"], "new", suffix="_x", ext="jpg")) == ["a_x.jpg", "b_x.jpg"]


def test_folders_among_them_keep_their_trees_below_their_names(there):
    save(there / "other/c.png", photo(4, 4))
    plan = plan_with(["in", "other/", "in/a.png", "./in/a.png"], "out", include=["*.png"])
    assert targets(plan) == ["in/a.png", "in/sub/b.png", "other/c.png", "a.png"]
    assert targets(plan_with(["other/../in/sub", "other"], "out"))[:1] == ["sub/b.png"]


def test_the_masks_of_several_images_have_their_names(there):
    for name in ("a.png", "b_mask.png", "stray.png"):
        save(there / "masks" / name, hole(20, 30, (2, 2, 5, 5)) if name == "a.png" else hole(7, 5, (2, 2, 5, 5)))
    plan = plan_with(["in/a.png", "in/sub/b.png"], "out", masks="masks")
    assert [job.mask.name for job in plan.jobs] == ["a.png", "b_mask.png"]
    assert plan.warnings == []
    save(there / "in/a_mask.png", hole(20, 30))
    plan = plan_with(["in/a.png", "in/a_mask.png"], "out", masks="in")
    assert [(job.source.name, job.mask.name) for job in plan.jobs] == [("a.png", "a_mask.png")]
    save(there / "all/in/a.png", hole(20, 30, (2, 2, 5, 5)))
    summary = fix_with(["in", "in/sub/b.png"], "new", Filler(), masks="all", mask_missing="skip")
    assert (summary.done, summary.skipped) == (1, {"has no mask": 4})


def test_two_of_one_name_are_refused(there):
    save(there / "in/sub/a.png", photo(4, 4))
    assert "in/a.png and in/sub/a.png would both be written as a.png" in refused(["in/a.png", "in/sub/a.png"], "out")
    save(there / "in/a.jpg", photo(4, 4))
    assert "would both be written here" in refused(["in/a.png", "in/a.jpg"], "out", ext="png")


def test_what_cannot_be_read_fails_alone(there):
    (there / "in/notes.txt").write_text("hello")
    (there / "in/x.cr3").write_text("hello")
    inputs = ["in/a.png", "in/notes.txt", "in/gone.png", "in/x.cr3", "x" * 300]
    summary = fix_with(inputs, "out", Inverter())
    assert (summary.done, summary.exit_code) == (1, 1)
    assert {failure.path.name: failure.code for failure in summary.failed} == {
        "notes.txt": "not_an_image", "gone.png": "not_found", "x.cr3": "unsupported", "x" * 300: "io_error",
    }  # fmt: skip
    assert "no such file" in refused(["in/gone.png", "in/gone2.png"], "out")


def test_outputs_that_several_inputs_cannot_have(there):
    assert "the output looks like a file" in refused(["in/a.png", "in/sub/b.png"], "out.png")
    assert "but the output is a file" in refused(["in/a.png", "in/sub/b.png"], "in/a.png")
    assert "would replace an input" in refused(["in/a.png", "in/sub/b.png"], "in", overwrite=True)
    assert "or inside it" in refused(["in", "in/a.png"], "in/out")
    assert "several images cannot be written to standard output" in refused(["in/a.png", "in/sub/b.png"], "-")
    assert "cannot be one of several inputs" in refused(["in/a.png", "-"], "out")
    assert "only apply to folders" in refused(["in/a.png", "in/sub/b.png"], "out", include=["*"])
    assert "INPUT: is missing (the last name is OUTPUT)" in refused([], "out")


@pytest.mark.parametrize(
    "content",
    [
        b"in/a.png\nin/sub/b.png\nin/a.png\n",
        b"\xef\xbb\xbfin/a.png\r\n\r\nin/sub/b.png",
        b"in/a.png\0in/sub/b.png\0",
        "in/a.png\r\nin/sub/b.png\r\n".encode("utf-16"),
    ],
)
def test_a_list_names_the_files(there, content, monkeypatch):
    (there / "list").write_bytes(content)
    assert targets(plan_with([], "out", files_from="list")) == ["a.png", "b.png"]
    assert targets(plan_with("in", "out", files_from="list")) == ["a.png", "sub/b.png"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert fix_with([], "out", Inverter(), files_from="-").done == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs Unix")
def test_a_list_from_a_pipe_is_read_whole(there):
    os.mkfifo(there / "pipe")
    writer = threading.Thread(target=lambda: (there / "pipe").write_text("in/a.png\nin/sub/b.png\n"), daemon=True)
    writer.start()
    assert not is_places_run([], "out", FixOptions(files_from="pipe"))
    assert writer.is_alive(), "nothing has been read"
    assert targets(plan_with([], "out", files_from="pipe")) == ["a.png", "b.png"]
    writer.join()


def test_a_list_beside_a_folder_keeps_masks_and_tells_what_is_wrong(there):
    (there / "list").write_text("in\nin/sub\nin/sub/b.png\nin/gone.png\n")
    save(there / "masks/sub/b.png", hole(7, 5))
    save(there / "masks/a.png", hole(20, 30))
    plan = plan_with("in", "out", files_from="list", masks="masks")
    assert [(job.name.as_posix(), job.action) for job in plan.jobs] == [("sub/b.png", "repair"), ("gone.png", "fail")]
    assert plan.jobs[0].mask == there.joinpath("masks/sub/b.png").relative_to(there)
    assert plan.warnings == ["left out: in and 1 more; only files of a list are read, not folders"]
    (there / "list").write_text("masks/a.png\n")
    assert "masks/a.png: is not in the folder in" in refused("in", "out", files_from="list")
    assert "takes one folder as INPUT" in refused("in/a.png", "out", files_from="list")
    (there / "list").write_text("\n")
    assert "names no files" in refused([], "out", files_from="list")
    assert "cannot be read" in refused([], "out", files_from="none")


@pytest.mark.parametrize("content", [b"in/a.png\n\ns3://b/c.png\n", b"in/a.png\0\0s3://b/c.png"])
def test_a_list_of_paths_refuses_urls(there, content, monkeypatch):
    (there / "list").write_bytes(content)
    assert "list: line 3 is a URL" in refused([], "out", files_from="list")
    assert "list: line 3 is a URL" in refused("in", "out", files_from="list")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert "standard input: line 3 is a URL" in refused([], "out", files_from="-")


def test_shards_share_a_folder(there):
    for number in range(20):
        save(there / f"in/more/{number}.png", photo(4, 4))
    whole = targets(plan_with("in", "out"))
    shards = [targets(plan_with("in", "out", shard=f"{part}/3")) for part in (1, 2, 3)]
    assert sorted(itertools.chain.from_iterable(shards)) == sorted(whole)
    assert all(shards)
    # Known for ever: machines of other versions share a folder, too. By SHA-256 of the relative path.
    assert [shard_of(Path("sub/b.png"), 7), shard_of(Path("caf\u00e9.png"), 7)] == [1, 6]
    assert shard_of(Path("cafe\u0301.png"), 7) == 6, "as macOS spells it"
    save(there / "in/new.png", photo(4, 4))
    assert set(shards[0]) <= set(targets(plan_with("in", "out", shard="1/3")))


def test_a_shard_minds_only_its_own_outputs_but_all_names(there):
    first, second = (next(n for n in map(str, range(99)) if shard_of(Path(f"{n}.png"), 2) == part) for part in (1, 2))
    for name in (first, second):
        save(there / f"two/{name}.png", photo(4, 4))
    assert fix_with("two", "out", Inverter(), shard="1/2").done == 1
    assert fix_with("two", "out", Inverter(), shard="2/2").done == 1, "the other output is not in the way"
    assert "exists already" in refused("two", "out", shard="2/2")
    save(there / f"two/{first}.bmp", photo(4, 4))
    for part in (1, 2):
        assert "would both be written here" in refused("two", "out", ext="png", shard=f"{part}/2")


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "1/0", "-1/2", "a/b", "1/2/3", ""])
def test_a_shard_is_a_part_of_a_number(there, shard):
    assert "must be I/N" in refused("in", "out", shard=shard)
    assert "only apply to folders" in refused("in/a.png", "out.png", shard="1/1")


def test_no_model_is_opened_where_nothing_is_to_be_done(there):
    fix_with("in", "out", Inverter())
    summary = fix_folder("in", "out", "no-such-model", options=FixOptions(skip_existing=True, log="log"))
    assert (summary.done, summary.skipped, summary.model) == (0, {"the output exists": 3}, "")
    assert [line["status"] for line in logged(there / "log")] == ["skipped"] * 3
    (there / "out/a.png").unlink()
    with pytest.raises(RestoreError, match="no model is called"):
        fix_folder("in", "out", "no-such-model", options=FixOptions(skip_existing=True))


def test_detect_takes_several_too(there):
    (there / "list").write_text("in/a.png\nin/sub/b.png\n")
    for plan in (
        plan_detect(["in/a.png", "in/sub/b.png"], "masks"),
        plan_detect([], "masks", DetectOptions(files_from="list")),
    ):
        assert [job.target.name for job in plan.jobs] == ["a_mask.png", "b_mask.png"]


def test_hints_name_only_options_that_the_command_has(there):
    save(there / "in/a.jpg", photo(4, 4))
    save(there / "masks/a_mask.png", photo(4, 4))
    for options in (DetectOptions(), DetectOptions(exclude=["a.jpg"]), DetectOptions(include=["x"])):
        with pytest.raises(RestoreError) as caught:
            plan_detect("in", "masks", options)
        named = set(re.findall(r"--([a-z-]+)", str(caught.value)))
        assert named <= {name.replace("_", "-") for name in declared(DetectOptions)}
        assert named


def test_second_outputs_and_pages_have_the_names_of_the_outputs(there):
    save(there / "mask.png", hole(20, 30, (2, 2, 5, 5)))
    save(there / "in/z.png", photo(20, 30))
    options = {"masks": "mask.png", "save_masks": "saved", "html_report": "page"}
    summary = fix_with(["in/a.png", "in/z.png"], "out", Filler(), **options)
    assert summary.done == 2
    assert list(snapshot(there / "saved")) == ["a.png.png", "z.png.png"]
    assert "a.png, z.png, before and after" in (there / "page/index.html").read_text()
    assert "--save-masks needs a folder apart" in refused(
        ["in/a.png", "in/z.png"], "o", masks="mask.png", save_masks="in"
    )


# Sidecars

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description xmp:Rating="5" tiff:Orientation="6" '
    b'tiff:ImageWidth="30"/></x:xmpmeta>'
)


def test_sidecars_go_along_under_the_names_of_the_outputs(there):
    for name in ("a.xmp", "sub/b.png.XMP", "lone.xmp"):
        (there / "in" / name).write_bytes(XMP)
    summary = fix_with("in", "out", Inverter(), suffix="_new", ext="webp")
    assert (summary.done, summary.skipped, summary.warnings) == (3, {"not an image": 1}, [])
    after = snapshot(there / "out")
    assert list(after) == ["a_new.webp", "a_new.xmp", "sub/b_new.webp", "sub/b_new.webp.XMP", "sub/deep/c_new.webp"]
    assert after["a_new.xmp"] == after["sub/b_new.webp.XMP"] == XMP
    assert "a_new.webp: exists already (and 4 more outputs)" in refused("in", "out", suffix="_new", ext="webp")
    (there / "out/a_new.webp").unlink()
    again = fix_with("in", "out", Inverter(), suffix="_new", ext="webp", skip_existing=True)
    assert again.warnings == ["in/a.png: out/a_new.xmp exists already and was kept; --overwrite replaces it"]
    assert fix_with("in", "bare", Inverter(), metadata="strip").done == 3
    assert list(snapshot(there / "bare")) == ["a.png", "sub/b.png", "sub/deep/c.jpg"]


def test_a_sidecar_turns_no_image_that_was_turned_upright(there):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    save(there / "turned/x.jpg", photo(20, 30), exif=exif)
    (there / "turned/x.xmp").write_bytes(XMP)
    assert fix_with("turned/x.jpg", "one.jpg", Inverter()).done == 1
    after = (there / "one.xmp").read_bytes()
    assert b'tiff:Orientation="1"' in after
    assert b'xmp:Rating="5"' in after


def test_images_that_share_a_sidecar_write_it_once_and_masks_have_none(there):
    save(there / "in/a.jpg", photo(20, 30))
    (there / "in/a.xmp").write_bytes(XMP)
    assert fix_with("in", "out", Inverter()).done == 4
    assert "a.xmp" in snapshot(there / "out")
    assert not any(job.sidecars for job in plan_detect("in", "masks", DetectOptions(exclude=["a.jpg"])).jobs)
