"""Folders through restorers: what comes out, what fails, and what is told."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import restore
from restore import files
from restore.errors import RestoreError
from restore.fix.log import REASON_CODES
from restore.fix.options import FixOptions
from tests.fix.conftest import (
    ODD_NAMES,
    Filler,
    Identity,
    Inverter,
    fix_with,
    hole,
    load,
    logged,
    photo,
    plan_with,
    run_with,
    save,
    snapshot,
)

LOG_KEYS = [
    "event", "time", "run", "version", "input", "output", "status", "reason", "reason_code", "seconds",
    "width", "height",
    "model", "model_sha256", "models", "steps", "input_sha256", "output_sha256",
    "damaged_fraction", "mask_coverage", "changed_fraction", "expected_error", "warnings", "worker",
]  # fmt: skip


def test_every_picture_is_repaired_under_its_own_name_and_format(pictures, tmp_path):
    before = snapshot(pictures)
    summary = fix_with(pictures, tmp_path / "out", Inverter())
    assert (summary.done, summary.failed, summary.exit_code) == (3, [], 0)
    assert sorted(snapshot(tmp_path / "out")) == ["a.png", "sub/b.png", "sub/deep/c.jpg"]
    np.testing.assert_array_equal(load(tmp_path / "out/a.png"), 255 - load(pictures / "a.png"))
    with Image.open(tmp_path / "out/sub/deep/c.jpg") as image:
        assert image.format == "JPEG"
    assert snapshot(pictures) == before


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("gray.png", photo(9, 8, channels=1)),
        ("alpha.png", photo(9, 8, channels=4)),
        ("gray_alpha.png", photo(9, 8, channels=2)),
        ("deep.png", photo(9, 8, channels=1, dtype=np.uint16)),
        ("colour.tif", photo(9, 8)),
        ("one.png", photo(1, 1)),
        ("line.png", photo(1, 300)),
        ("column.bmp", photo(300, 1)),
    ],
)
def test_depth_channels_and_alpha_come_out_as_they_went_in(tmp_path, name, array):
    source = save(tmp_path / "in" / name, array)
    fix_with(source, tmp_path / f"same_{name}", Identity())
    fix_with(source, tmp_path / f"inverted_{name}", Inverter())
    same, inverted = load(tmp_path / f"same_{name}"), load(tmp_path / f"inverted_{name}")
    assert (same.dtype, inverted.dtype) == (array.dtype, array.dtype)
    np.testing.assert_array_equal(same, array)
    expected = np.iinfo(array.dtype).max - array
    if array.ndim == 3 and array.shape[2] in (2, 4):
        expected[..., -1] = array[..., -1]
    np.testing.assert_array_equal(inverted, expected)


def test_orientation_and_profile(tmp_path):
    from PIL import ImageCms

    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    array = photo(6, 10)
    source = save(tmp_path / "in/turned.png", array, exif=exif, icc_profile=profile)
    fix_with(source, tmp_path / "out.png", Identity())
    with Image.open(tmp_path / "out.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.rot90(array, -1))
        assert image.getexif().get(0x0112, 1) == 1
        assert image.info["icc_profile"] == profile


def test_time_and_permissions_are_kept(pictures, tmp_path):
    os.utime(pictures / "a.png", ns=(10**18, 10**18 + 12345000))
    (pictures / "a.png").chmod(0o640)
    fix_with(pictures / "a.png", tmp_path / "out.png", Identity())
    status = (tmp_path / "out.png").stat()
    assert (status.st_mtime_ns, status.st_mode & 0o777) == (10**18 + 12345000, 0o640)


def test_known_pixels_stay_and_holes_are_filled(tmp_path):
    array = photo(40, 50)
    save(tmp_path / "in/x.png", array)
    save(tmp_path / "masks/x.png", hole(40, 50, (10, 5, 20, 9), (0, 0, 1, 1)))
    summary = fix_with(tmp_path / "in", tmp_path / "out", Filler(), masks=tmp_path / "masks", log=tmp_path / "log")
    assert summary.exit_code == 0
    expected = array.copy()
    expected[10:20, 5:9] = expected[0, 0] = 255
    np.testing.assert_array_equal(load(tmp_path / "out/x.png"), expected)
    assert logged(tmp_path / "log")[0]["changed_fraction"] == pytest.approx(41 / 2000)


def test_a_mask_limits_a_restorer_that_needs_none_and_shows_it_gray_there(tmp_path):
    array = photo(40, 50)
    save(tmp_path / "in/x.png", array)
    save(tmp_path / "mask.png", hole(40, 50, (10, 5, 20, 9)))
    fix_with(tmp_path / "in", tmp_path / "out", Inverter(), masks=tmp_path / "mask.png")
    expected = array.copy()
    expected[10:20, 5:9] = 128  # the inverse of 0.5
    np.testing.assert_array_equal(load(tmp_path / "out/x.png"), expected)


def test_an_inverted_mask_and_a_whole_picture_missing(tmp_path):
    save(tmp_path / "in/x.png", photo(8, 8))
    save(tmp_path / "mask.png", hole(8, 8))
    fix_with(tmp_path / "in", tmp_path / "out", Filler(), masks=tmp_path / "mask.png", mask_invert=True)
    assert (load(tmp_path / "out/x.png") == 255).all()


def test_a_soft_mask_blends_once(tmp_path):
    array = photo(8, 8)
    save(tmp_path / "in/x.png", array)
    save(tmp_path / "mask.png", np.full((8, 8), 51, np.uint8))
    for restorer, repaired in ((Filler(), 255.0), (Inverter(), 127.5)):
        fix_with(tmp_path / "in", tmp_path / restorer.name, restorer, masks=tmp_path / "mask.png")
        np.testing.assert_array_equal(
            load(tmp_path / restorer.name / "x.png"),
            np.rint(array + 0.2 * (repaired - array)).astype(np.uint8),
        )


def test_a_mask_that_is_all_but_black_is_told(tmp_path):
    save(tmp_path / "in/x.png", photo(8, 8))
    save(tmp_path / "mask.png", hole(8, 8, (2, 2, 5, 5)) // 255)
    summary = fix_with(tmp_path / "in", tmp_path / "out", Filler(), masks=tmp_path / "mask.png")
    assert "the mask is almost empty (maximum value 0.4%" in summary.warnings[0]


def test_dilation_is_a_disc_and_feathering_ends(tmp_path):
    save(tmp_path / "in/x.png", np.zeros((41, 41, 3), np.uint8))
    save(tmp_path / "mask.png", hole(41, 41, (20, 20, 21, 21)))
    fix_with(tmp_path / "in", tmp_path / "disc", Filler(), masks=tmp_path / "mask.png", mask_dilate=5)
    y, x = np.mgrid[-20:21, -20:21]
    np.testing.assert_array_equal(load(tmp_path / "disc/x.png")[..., 0] == 255, x * x + y * y <= 25)

    fix_with(tmp_path / "in", tmp_path / "soft", Filler(), masks=tmp_path / "mask.png", mask_feather=6)
    row = load(tmp_path / "soft/x.png")[20, :, 0].astype(int)
    assert row[20] == 255
    assert (np.diff(row[20:27]) < 0).all()
    assert (row[27:] == 0).all()
    assert (row[:14] == 0).all()


def test_alpha_is_the_mask_and_the_repair_can_be_seen(tmp_path):
    array = photo(10, 10, channels=4)
    array[..., 3] = 255
    array[2:4, 2:4, 3] = 0
    save(tmp_path / "in/x.png", array)
    fix_with(tmp_path / "in", tmp_path / "out", Filler(), masks="alpha")
    expected = array.copy()
    expected[2:4, 2:4] = 255
    np.testing.assert_array_equal(load(tmp_path / "out/x.png"), expected)


def test_a_picture_without_transparency_has_no_alpha_mask(pictures, tmp_path):
    summary = fix_with(pictures / "a.png", tmp_path / "out.png", Filler(), masks="alpha")
    assert [failure.reason for failure in summary.failed] == ["has no transparency to take a mask from"]
    summary = fix_with(pictures / "a.png", tmp_path / "out.png", Filler(), masks="alpha", mask_missing="copy")
    assert (summary.done, summary.copied) == (1, 1)


def test_an_empty_mask_copies_the_file_byte_for_byte_and_runs_nothing(pictures, tmp_path):
    for name, size in (("a", (20, 30)), ("sub/b", (7, 5)), ("sub/deep/c", (16, 16))):
        save(tmp_path / f"masks/{name}.png", hole(*size))
    restorer = Filler()
    summary = fix_with(pictures, tmp_path / "out", restorer, masks=tmp_path / "masks", mask_dilate=3)
    assert snapshot(tmp_path / "out") == snapshot(pictures)
    assert (restorer.calls, summary.copied, summary.exit_code) == ([], 3, 0)


def test_a_mask_of_another_size_fails_that_file_and_names_both(pictures, tmp_path):
    save(tmp_path / "masks/a.png", hole(21, 30, (0, 0, 5, 5)))
    save(tmp_path / "masks/sub/b.png", hole(7, 5, (0, 0, 5, 5)))
    save(tmp_path / "masks/sub/deep/c.png", hole(16, 16, (0, 0, 5, 5)))
    summary = fix_with(pictures, tmp_path / "out", Filler(), masks=tmp_path / "masks")
    assert (summary.done, summary.exit_code) == (2, 1)
    (failure,) = summary.failed
    assert failure.path == pictures / "a.png"
    for part in ("masks/a.png", "30×21", "30×20"):
        assert part in failure.reason
    assert not (tmp_path / "out/a.png").exists()


def test_a_mask_with_no_picture_is_named_and_counts(pictures, tmp_path):
    for name, size in (("a", (20, 30)), ("sub/b", (7, 5)), ("sub/deep/c", (16, 16)), ("stray", (1, 1))):
        save(tmp_path / f"masks/{name}.png", hole(*size, (0, 0, 1, 1)))
    summary = fix_with(pictures, tmp_path / "out", Filler(), masks=tmp_path / "masks")
    assert (summary.done, summary.exit_code) == (3, 1)
    assert "stray.png: no image for this mask" in summary.format()[0]


def test_missing_masks_fail_skip_or_count_as_clean(pictures, tmp_path):
    save(tmp_path / "masks/a.png", hole(20, 30, (0, 0, 2, 2)))

    def run(missing: str, **options):
        out = tmp_path / missing / str(len(options))
        return out, fix_with(pictures, out, Filler(), masks=tmp_path / "masks", mask_missing=missing, **options)

    out, summary = run("fail")
    assert (summary.done, len(summary.failed), summary.exit_code) == (1, 2, 1)
    assert "has no mask" in summary.failed[0].reason
    out, summary = run("skip")
    assert (summary.done, summary.skipped, summary.exit_code) == (1, {"has no mask": 2}, 0)
    assert sorted(snapshot(out)) == ["a.png"]
    out, summary = run("copy")
    assert (summary.done, summary.copied, summary.exit_code) == (3, 2, 0)
    assert (out / "sub/b.png").read_bytes() == (pictures / "sub/b.png").read_bytes()
    out, summary = run("copy", clean_up=Inverter())
    np.testing.assert_array_equal(load(out / "sub/b.png"), 255 - load(pictures / "sub/b.png"))


def test_one_bad_file_never_stops_the_rest(pictures, tmp_path):
    (pictures / "cut.jpg").write_bytes((pictures / "sub/deep/c.jpg").read_bytes()[:200])
    (pictures / "empty.png").write_bytes(b"")
    (pictures / "text.png").write_text("no picture")
    (pictures / "work.psd").write_bytes(b"8BPS" + bytes(60))
    (pictures / "dead.png").symlink_to(tmp_path / "nowhere")
    summary = fix_with(pictures, tmp_path / "out", Inverter(), log=tmp_path / "log.jsonl")
    assert (summary.done, summary.exit_code) == (3, 1)
    names = [failure.path.name for failure in summary.failed]
    assert names == ["cut.jpg", "dead.png", "empty.png", "text.png", "work.psd"]
    assert all(failure.reason for failure in summary.failed)
    assert not summary.skipped
    lines = summary.format()
    assert [line.startswith("failed: ") for line in lines[-5:]] == [True] * 5
    statuses = [line["status"] for line in logged(tmp_path / "log.jsonl")]
    assert sorted(statuses) == ["done"] * 3 + ["failed"] * 5


def test_a_restorer_that_breaks_on_one_picture(pictures, tmp_path):
    class Breaking(Inverter):
        def _restore(self, image, mask):
            if image.shape[-1] == 5:
                raise RuntimeError("kernel\nfailed")
            if image.shape[-1] == 16:
                return image * float("nan")
            return 1 - image

    summary = fix_with(pictures, tmp_path / "out", Breaking())
    b, c = summary.failed
    assert b.reason.startswith("unexpected RuntimeError: kernel failed")
    assert "NaN or Inf" in c.reason
    assert sorted(snapshot(tmp_path / "out")) == ["a.png"]


def test_fail_fast_stops_at_the_first_failure(pictures, tmp_path):
    (pictures / "a.png").write_bytes(b"\xff\xd8\xff broken")
    summary = fix_with(pictures, tmp_path / "out", Inverter(), fail_fast=True)
    assert (len(summary.failed), summary.exit_code) == (1, 1)
    assert summary.done + summary.not_started == 2
    assert any("--skip-existing" in line for line in summary.format())


def test_skip_existing_and_overwrite(pictures, tmp_path):
    out = tmp_path / "out"
    save(out / "a.png", np.zeros((1, 1), np.uint8))
    summary = fix_with(pictures, out, Inverter(), skip_existing=True)
    assert (summary.done, summary.skipped) == (2, {"the output exists": 1})
    assert load(out / "a.png").shape == (1, 1)
    assert fix_with(pictures, out, Inverter(), overwrite=True).done == 3
    assert load(out / "a.png").shape == (20, 30, 3)


def test_the_log(pictures, tmp_path):
    import hashlib

    (tmp_path / "log.jsonl").write_text('{"input": "an earlier run"}\n{"torn": ')
    summary = fix_with(pictures, tmp_path / "out", Inverter(), log=tmp_path / "log.jsonl")
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert lines[:2] == ['{"input": "an earlier run"}', '{"torn": ']
    start, *entries = map(json.loads, lines[2:])
    assert list(start) == [
        "event", "time", "run", "version", "input", "output", "images", "model", "model_sha256", "settings",
    ]  # fmt: skip
    assert (start["event"], start["images"], start["model"]) == ("start", 3, "inverter")
    assert (start["output"], start["version"]) == (str(tmp_path / "out"), restore.__version__)
    assert start["settings"].keys() == FixOptions().to_dict().keys()
    assert start["settings"]["tile"] == "auto"
    assert {entry["run"] for entry in entries} == {start["run"]} == {summary.run}
    for line in (start, *entries):
        assert datetime.fromisoformat(line["time"].replace("Z", "+00:00")).tzinfo is not None
    records = {Path(entry["input"]).name: entry for entry in entries}
    assert len(records) == 3
    record = records["a.png"]
    assert list(record) == LOG_KEYS
    assert (record["event"], record["width"], record["height"]) == ("image", 30, 20)
    assert (record["status"], record["model"], record["changed_fraction"]) == ("done", "inverter", 1.0)
    for key, path in (("input", pictures / "a.png"), ("output", tmp_path / "out/a.png")):
        assert record[key] == str(path)
        assert record[f"{key}_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert 0 < record["seconds"] < 10


def test_every_reason_has_a_code(pictures, tmp_path):
    (pictures / "cut.jpg").write_bytes((pictures / "sub/deep/c.jpg").read_bytes()[:200])
    (pictures / "text.png").write_text("no picture")
    (pictures / "work.psd").write_bytes(b"8BPS" + bytes(60))
    (pictures / "dead.png").symlink_to(tmp_path / "nowhere")
    save(pictures / "large.png", photo(60, 60))
    save(tmp_path / "out/a.png", photo(3, 3))
    save(tmp_path / "masks/a.png", hole(20, 30))
    save(tmp_path / "masks/sub/b.png", hole(7, 5))
    save(tmp_path / "masks/sub/deep/c.png", hole(17, 16))
    for name in ("cut", "dead", "large"):
        save(tmp_path / f"masks/{name}.png", hole(60, 60))
    summary = fix_with(
        pictures, tmp_path / "out", Filler(), masks=tmp_path / "masks", skip_existing=True, max_pixels=1000,
        log=tmp_path / "log",
    )  # fmt: skip
    codes = {Path(line["input"]).name: line["reason_code"] for line in logged(tmp_path / "log")}
    assert codes == {
        "a.png": "output_exists", "b.png": "nothing_to_repair", "c.jpg": "bad_mask", "cut.jpg": "damaged",
        "text.png": "no_mask", "work.psd": "no_mask", "dead.png": "not_found", "large.png": "too_large",
    }  # fmt: skip
    assert set(codes.values()) <= set(REASON_CODES)
    assert {failure.path.name: failure.code for failure in summary.failed}["cut.jpg"] == "damaged"


def test_the_summary_names_the_output(pictures, tmp_path):
    summary = fix_with(pictures, tmp_path / "out", Inverter())
    assert summary.format()[-1].endswith(f" s; written to {tmp_path}/out")
    assert summary.to_dict()["output"] == str(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("scan.djvu", b"AT&TFORM", "a DjVu document, which is not supported"),
        ("scan.png", b"AT&TFORM", "a DjVu document, which is not supported"),
        ("notes.txt", b"hello", "no"),
    ],
)
def test_one_file_that_is_no_image_is_refused_before_a_model_is_opened(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RestoreError, match=words) as caught:
        restore.fix_folder(tmp_path / name, tmp_path / "out.png", "no such model")
    assert caught.value.exit_code == 2


def test_a_document_among_images_fails_before_it_is_read(pictures, tmp_path):
    (pictures / "scan.pdf").write_bytes(b"%PDF-1.7")
    (job,) = [job for job in plan_with(pictures, tmp_path / "out").jobs if job.source.name == "scan.pdf"]
    assert (job.action, job.code) == ("fail", "unsupported")
    assert "a PDF document" in job.reason


def test_a_log_that_is_no_log_is_not_touched(pictures, tmp_path):
    precious = (pictures / "a.png").read_bytes()
    with pytest.raises(RestoreError, match="is not a log"):
        fix_with(pictures, tmp_path / "out", Inverter(), log=pictures / "a.png")
    assert (pictures / "a.png").read_bytes() == precious
    (tmp_path / "settings.json").write_text('{"mine": 1}')
    with pytest.raises(RestoreError, match="is not a log"):
        fix_with(pictures, tmp_path / "out", Inverter(), log=tmp_path / "settings.json")
    assert (tmp_path / "settings.json").read_text() == '{"mine": 1}'


def test_a_log_and_a_picture_of_one_name_are_refused(pictures, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(RestoreError, match="an output image has the same path"):
        fix_with(pictures, tmp_path / "out", Inverter(), log=tmp_path / "link/out/sub/b.png")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out").exists()


def test_commands_that_cannot_work_write_nothing(pictures, tmp_path):
    class Doubler(Inverter):
        from restore.restorers.base import ModelRequirements

        requirements = ModelRequirements(needs_mask=False, scale=2)

    save(tmp_path / "mask.png", hole(20, 30))
    plain, masked = {}, {"masks": tmp_path / "mask.png"}
    for restorer, given, options in [
        (Filler(), plain, {}),
        (Doubler(), masked, {}),
        (Inverter(), plain, {"mask_dilate": -1}),
        (Inverter(), plain, {"tile": "big"}),
        (Inverter(), plain, {"tile": -5}),
        (Filler(), masked, {"clean_up": Filler()}),
        (Inverter(), plain, {"log": tmp_path / "mask.png/log"}),
    ]:
        with pytest.raises(RestoreError) as caught:
            fix_with(pictures, tmp_path / "out", restorer, **given, **options)
        assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_the_same_picture_gives_the_same_file_alone_and_in_company(tmp_path):
    for number in range(7):
        save(tmp_path / f"in/{number}.png", photo(60 + 31 * number, 90, number))
    restorer = Inverter()
    fix_with(tmp_path / "in", tmp_path / "together", restorer, tile=48)
    for number in range(7):
        fix_with(tmp_path / f"in/{number}.png", tmp_path / f"alone/{number}.png", restorer, tile=48)
    assert snapshot(tmp_path / "together") == snapshot(tmp_path / "alone")
    assert len(restorer.calls) > 14


def test_another_size_comes_out_where_the_model_changes_it(pictures, tmp_path):
    from restore.restorers.base import ModelRequirements

    class Doubler(Inverter):
        requirements = ModelRequirements(needs_mask=False, scale=2)

        def _restore(self, image, mask):
            return image.repeat_interleave(2, -1).repeat_interleave(2, -2)

    fix_with(pictures / "a.png", tmp_path / "out.png", Doubler())
    np.testing.assert_array_equal(load(tmp_path / "out.png"), np.kron(load(pictures / "a.png"), np.ones((2, 2, 1))))


def test_ext_converts_also_what_has_nothing_to_repair(pictures, tmp_path):
    save(tmp_path / "masks/a.png", hole(20, 30))
    fix_with(pictures / "a.png", f"{tmp_path}/out/", Filler(), masks=tmp_path / "masks", ext="tiff")
    with Image.open(tmp_path / "out/a.tiff") as image:
        assert image.format == "TIFF"
        np.testing.assert_array_equal(np.asarray(image), load(pictures / "a.png"))


def test_a_wrong_name_keeps_its_content_s_format(tmp_path):
    save(tmp_path / "in/really_png.jpg", photo(5, 5, channels=4), format="PNG")
    fix_with(tmp_path / "in", tmp_path / "out", Identity())
    with Image.open(tmp_path / "out/really_png.jpg") as image:
        assert (image.format, image.mode) == ("PNG", "RGBA")


def test_odd_names_are_written(tmp_path):
    for name in ODD_NAMES:
        save(tmp_path / "in" / name, photo(2, 2))
    summary = fix_with(tmp_path / "in", tmp_path / "out", Inverter(), log=tmp_path / "log")
    assert summary.failed == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(ODD_NAMES)
    assert all("\n" not in line and line.isprintable() for line in summary.format())
    assert sorted(Path(line["input"]).name for line in logged(tmp_path / "log")) == sorted(ODD_NAMES)


def test_progress_is_told_once_per_file(pictures, tmp_path):
    told = []
    fix_with(pictures, tmp_path / "out", Inverter(), progress=lambda record, n, total: told.append((n, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_ctrl_c_finishes_what_is_being_written(tmp_path):
    for number in range(6):
        save(tmp_path / f"in/{number}.png", photo(30, 30, number))

    class Interrupted(Inverter):
        def _restore(self, image, mask):
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super()._restore(image, mask)

    summary = fix_with(tmp_path / "in", tmp_path / "out", Interrupted(), log=tmp_path / "log")
    assert (summary.exit_code, summary.done, summary.not_started) == (130, 2, 4)
    assert sorted(snapshot(tmp_path / "out")) == ["0.png", "1.png"]
    assert "resume with the same command and --skip-existing" in "".join(summary.format())
    again = fix_with(tmp_path / "in", tmp_path / "out", Inverter(), skip_existing=True)
    assert (again.done, again.exit_code) == (4, 0)


def test_a_full_disk_stops_cleanly(pictures, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    summary = fix_with(pictures, tmp_path / "out", Inverter())
    assert summary.exit_code == 1
    assert summary.stopped == "the disk is full"
    assert summary.failed[0].reason == "the disk is full"
    assert snapshot(tmp_path / "out") == {}


def test_a_picture_that_vanishes_or_changes_meanwhile(pictures, tmp_path):
    plan = plan_with(pictures, tmp_path / "out")
    (pictures / "a.png").unlink()
    summary = run_with(plan, Inverter())
    assert (summary.done, [failure.path.name for failure in summary.failed]) == (2, ["a.png"])


def test_leftovers_of_dead_runs_are_swept_and_others_not(pictures, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    machine = files._machine()
    dead = out / f".restore-{machine}-{gone.pid}-abc.tmp"
    killed = subprocess.Popen([sys.executable, "-c", ""])  # and not waited for
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
    zombie = out / f".restore-{machine}-{killed.pid}-abc.tmp"
    living = out / f".restore-{machine}-{os.getppid()}-abc.tmp"
    elsewhere = out / f".restore-other-{gone.pid}-abc.tmp"
    old = out / ".restore-other-1-def.tmp"
    for path in (dead, zombie, living, elsewhere, old):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    fix_with(pictures, out, Inverter())
    assert [path.exists() for path in (dead, zombie, living, elsewhere, old)] == [False, False, True, True, False]
    killed.wait()


@pytest.mark.parametrize("name", ["telea", "navier-stokes", "biharmonic", "tv", "nlmeans"])
def test_the_classical_methods(tmp_path, name):
    from restore.restorers.classical import CLASSICAL

    y, x = np.mgrid[:60, :80]
    array = np.stack([y * 2 + 40, x + 60, x + y + 30], axis=-1).astype(np.uint8)
    mask = hole(60, 80, (20, 30, 26, 34), (50, 0, 53, 3))
    damaged = array.copy()
    damaged[mask > 0] = 255
    save(tmp_path / "in/x.png", damaged)
    save(tmp_path / "mask.png", mask)
    restorer = CLASSICAL[name]()
    masks = tmp_path / "mask.png" if restorer.requirements.needs_mask else None
    assert fix_with(tmp_path / "in", tmp_path / "out", restorer, masks=masks).exit_code == 0
    repaired = load(tmp_path / "out/x.png")
    if masks is None:
        assert np.abs(repaired[5:15, 40:] - array[5:15, 40:].astype(int)).max() < 8
    else:
        np.testing.assert_array_equal(repaired[mask == 0], array[mask == 0])
        assert np.abs(repaired[mask > 0] - array[mask > 0].astype(int)).mean() < 8


# Imports once, then forks a run for every line it reads: before any library has started a thread.
NURSERY = """
import os, sys
import torch
import restore.fix.steps
from tests.fix.conftest import Inverter, fix_with
torch.set_num_threads(1)
for line in sys.stdin:
    process = os.fork()
    if process == 0:
        fix_with(sys.argv[1], sys.argv[2], Inverter(), skip_existing=True, log=sys.argv[3])
        os._exit(0)
    print(process, flush=True)
    os.waitpid(process, 0)
    print("dead", flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_kill_9_leaves_no_partial_output(tmp_path):
    for number in range(60):
        save(tmp_path / f"in/{number:02}.png", photo(200, 200, number), compress_level=1)
    command = [sys.executable, "-c", NURSERY, str(tmp_path / "in"), str(tmp_path / "out"), str(tmp_path / "log")]
    counts = [0]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as nursery:
        for wait in (0.0, 0.005, 0.01):
            nursery.stdin.write("\n")
            nursery.stdin.flush()
            process = int(nursery.stdout.readline())
            deadline = time.monotonic() + 10
            while len(list((tmp_path / "out").glob("*.png"))) <= counts[-1] and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(wait)
            os.kill(process, signal.SIGKILL)
            assert nursery.stdout.readline() == "dead\n"
            finished = sorted((tmp_path / "out").glob("*.png"))
            counts.append(len(finished))
            for path in finished:
                np.testing.assert_array_equal(load(path), 255 - load(tmp_path / "in" / path.name))
        nursery.stdin.close()
    assert 0 < counts[1] < counts[2] < counts[3] < 60
    summary = fix_with(tmp_path / "in", tmp_path / "out", Inverter(), skip_existing=True, log=tmp_path / "log")
    assert summary.done == 60 - counts[3]
    assert len(list((tmp_path / "out").iterdir())) == 60  # and no temporary file
