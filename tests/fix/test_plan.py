"""What is refused before anything is written, and how outputs are named."""

from __future__ import annotations

import os

import pytest

from restore.errors import RestoreError
from tests.fix.conftest import ODD_NAMES, hole, photo, plan_with, save, snapshot


def targets(plan) -> list[str]:
    return [job.target.relative_to(plan.output).as_posix() for job in plan.jobs]


def refused(*args, **options) -> str:
    with pytest.raises(RestoreError) as caught:
        plan_with(*args, **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_folder_keeps_its_tree_and_names_and_nothing_is_written(pictures, tmp_path):
    before = snapshot(tmp_path)
    assert targets(plan_with(pictures, tmp_path / "out")) == ["a.png", "sub/b.png", "sub/deep/c.jpg"]
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_hidden_files_are_left_out(pictures, tmp_path):
    save(pictures / ".hidden.png", photo(3, 3))
    save(pictures / ".trash/x.png", photo(3, 3))
    for folder in ("@eaDir", "sub/@eaDir"):
        save(pictures / folder / "x.jpg", photo(3, 3))
    plan = plan_with(pictures, tmp_path / "out")
    assert targets(plan) == ["a.png", "sub/b.png", "sub/deep/c.jpg"]
    assert plan.warnings == [
        "left out, as hidden or made by a system: @eaDir (2 times), .trash, .hidden.png; name one as INPUT to repair it"
    ]
    assert plan_with(pictures, tmp_path / "out", exclude=["*@eaDir*/*", ".*"]).warnings == []
    assert targets(plan_with(pictures / "@eaDir", tmp_path / "out")) == ["x.jpg"]


def test_content_decides_where_the_name_says_nothing(pictures, tmp_path):
    (pictures / "notes.txt").write_text("hello")
    (pictures / "a.h").write_text("#define A 1")
    os.mkfifo(pictures / "pipe")
    save(pictures / "scan", photo(4, 4), format="PNG")
    plan = plan_with(pictures, tmp_path / "out", ext="png")
    actions = {job.source.name: (job.action, job.target.name) for job in plan.jobs}
    assert actions["scan"] == ("repair", "scan")
    assert {actions[name][0] for name in ("notes.txt", "a.h", "pipe")} == {"skip"}

    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/notes.txt").write_text("hello")
    assert "no images in this folder" in refused(tmp_path / "texts", tmp_path / "out")


def test_include_and_exclude(pictures, tmp_path):
    out = tmp_path / "out"
    assert targets(plan_with(pictures, out, include=["*.png"])) == ["a.png", "sub/b.png"]
    assert targets(plan_with(pictures, out, exclude=["sub/*"])) == ["a.png"]
    assert "no images in this folder match" in refused(pictures, out, include=["*.gif"])


def test_ext_changes_the_format_only_where_it_is_another(pictures, tmp_path):
    save(pictures / "d.jpeg", photo(4, 4))
    plan = plan_with(pictures, tmp_path / "out", ext="jpg", suffix="_new")
    assert targets(plan) == ["a_new.jpg", "d_new.jpeg", "sub/b_new.jpg", "sub/deep/c_new.jpg"]
    assert [job.format for job in plan.jobs] == ["jpeg", None, "jpeg", None]


def test_a_file_goes_to_a_file_or_into_a_folder(pictures, tmp_path):
    (tmp_path / "there").mkdir()
    source = pictures / "a.png"
    for output, target in [
        (tmp_path / "new.png", tmp_path / "new.png"),
        (tmp_path / "new.jpg", tmp_path / "new.jpg"),
        (tmp_path / "there", tmp_path / "there/a.png"),
        (f"{tmp_path}/fresh/", tmp_path / "fresh/a.png"),
        (tmp_path / "fresh/x.png", tmp_path / "fresh/x.png"),
    ]:
        assert [job.target for job in plan_with(source, output).jobs] == [target]


def test_a_mistyped_name_is_answered_with_the_one_that_exists(pictures, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "masks").mkdir()
    out = tmp_path / "out"
    assert f"no such file or folder; did you mean {pictures}?" in refused(f"{pictures}z", out)
    assert refused(tmp_path / "gone", out).endswith("there is no such file or folder")
    assert "*.jpg: there is no such file or folder; no file matches this pattern" in refused(tmp_path / "*.jpg", out)
    assert "not an image; name an image, or a folder of images" in refused(tmp_path / "notes.txt", out)
    assert "no such folder or file of masks; did you mean auto?" in refused(pictures, out, masks="auot")
    assert f"did you mean {tmp_path / 'masks'}?" in refused(pictures, out, masks=tmp_path / "mask")
    assert "or use --masks auto to detect the damage" in refused(pictures, out, masks=tmp_path / "elsewhere")


def test_a_missing_or_empty_input(tmp_path):
    assert "gone: there is no such file or folder" in refused(tmp_path / "gone", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert "no images in this folder" in refused(tmp_path / "empty", tmp_path / "out")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read and write everything")
def test_no_permission(pictures, tmp_path):
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o500)
    assert "no permission to write" in refused(pictures, shut / "out")
    (pictures / "a.png").chmod(0)
    assert "no permission to read" in refused(pictures / "a.png", tmp_path / "out.png")


def test_no_permission_as_the_system_tells_it(pictures, tmp_path, monkeypatch):
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and real(path, mode))
    assert "no permission to write in this folder" in refused(pictures, tmp_path / "out")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "no permission to read" in refused(pictures, tmp_path / "out")


def test_the_output_is_the_input_or_inside_it(pictures, tmp_path):
    (tmp_path / "link").symlink_to(pictures)
    for output in (
        pictures,
        pictures / "out",
        pictures / "sub/../.",
        tmp_path / "link",
        tmp_path / "link/new/deep",
    ):
        message = refused(pictures, output, overwrite=True)
        assert "or inside it" in message
        assert "choose another folder, because a later run would read the results as inputs" in message
    assert "the output is the input itself" in refused(pictures / "a.png", tmp_path / "link/a.png", overwrite=True)
    assert "the output is the input itself" in refused(pictures / "a.png", pictures, overwrite=True)


def test_an_output_that_would_replace_another_input(tmp_path):
    save(tmp_path / "all/in/in/x.png", photo(4, 4))
    save(tmp_path / "all/in/x.png", photo(4, 4))
    assert "would replace an input" in refused(tmp_path / "all/in", tmp_path / "all", overwrite=True)


def test_an_output_that_an_input_links_to(tmp_path):
    save(tmp_path / "out/x.png", photo(4, 4))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x.png").symlink_to(tmp_path / "out/x.png")
    assert "would replace an input" in refused(tmp_path / "in", tmp_path / "out", overwrite=True)


def test_an_output_that_would_replace_a_mask(pictures, tmp_path):
    save(tmp_path / "masks/a.png", hole(20, 30))
    message = refused(pictures, tmp_path / "masks", masks=tmp_path / "masks", mask_missing="skip", overwrite=True)
    assert "would replace an input" in message


def test_names_that_collide(pictures, tmp_path):
    save(pictures / "a.jpg", photo(4, 4))
    message = refused(pictures, tmp_path / "out", ext="png")
    assert "a.jpg and " in message
    assert "a.png would both be written here" in message


def test_a_file_where_a_folder_is_needed_and_the_other_way_round(pictures, tmp_path):
    (tmp_path / "file").write_text("x")
    assert "the output is a file" in refused(pictures, tmp_path / "file")
    assert "looks like a file" in refused(pictures, tmp_path / "out.png")
    assert "is a file where a folder is needed" in refused(pictures, tmp_path / "file/out")
    assert "could be a file or a folder" in refused(pictures / "a.png", tmp_path / "out")
    assert "cannot write files of the kind '.xyz'" in refused(pictures / "a.png", tmp_path / "out.xyz")
    (tmp_path / "out/a.png").mkdir(parents=True)
    assert "would replace a folder" in refused(pictures, tmp_path / "out", overwrite=True)


def test_existing_outputs(pictures, tmp_path):
    out = tmp_path / "out"
    save(out / "sub/b.png", photo(2, 2))
    assert "b.png: exists already; use --overwrite" in refused(pictures, out)
    assert [job.action for job in plan_with(pictures, out, overwrite=True).jobs] == ["repair"] * 3
    assert [job.action for job in plan_with(pictures, out, skip_existing=True).jobs] == [
        "repair",
        "skip",
        "repair",
    ]
    assert "cannot be combined" in refused(pictures, out, overwrite=True, skip_existing=True)


def test_options_that_mean_nothing(pictures, tmp_path):
    assert "cannot write 'gif'" in refused(pictures, tmp_path / "out", ext="gif")
    assert "without slashes" in refused(pictures, tmp_path / "out", suffix="a/b")
    assert "no such folder or file of masks" in refused(pictures, tmp_path / "out", masks=tmp_path / "gone")
    assert "must be fail, skip or copy" in refused(pictures, tmp_path / "out", masks="alpha", mask_missing="maybe")
    assert "only apply to folders" in refused(pictures / "a.png", tmp_path / "out.png", exclude=["*"])


def test_nothing_does_not_stand_for_the_current_folder(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(pictures)
    assert "OUTPUT: must not be empty" in refused("a.png", "")
    assert "INPUT: must not be empty" in refused("", tmp_path / "out")
    assert "--masks: must not be empty" in refused("a.png", tmp_path / "out/", masks="")


def test_what_cannot_be_written_is_not_promised(pictures, tmp_path):
    assert "cannot write files of the kind '.heic'" in refused(pictures / "a.png", tmp_path / "a.heic")
    save(tmp_path / "wrong.heic", photo(4, 4), format="PNG")
    assert plan_with(tmp_path / "wrong.heic", tmp_path / "b.heic").jobs[0].format is None


def test_a_folder_that_links_to_itself(pictures, tmp_path):
    (pictures / "sub/loop").symlink_to(pictures)
    assert targets(plan_with(pictures, tmp_path / "out")) == ["a.png", "sub/b.png", "sub/deep/c.jpg"]


def test_masks_are_paired_by_relative_stem(pictures, tmp_path):
    masks = tmp_path / "masks"
    for name in ("a.bmp", "sub/b_mask.png", "sub/deep/c.png", "stray.png"):
        save(masks / name, hole(4, 4))
    plan = plan_with(pictures, tmp_path / "out", masks=masks)
    assert [job.mask.relative_to(masks).as_posix() for job in plan.jobs] == [
        "a.bmp",
        "sub/b_mask.png",
        "sub/deep/c.png",
    ]
    assert plan.unmatched_masks == [masks / "stray.png"]
    assert [line.endswith("stray.png: no image for this mask") for line in plan.warnings] == [True]


def test_masks_of_excluded_pictures_are_no_strangers(pictures, tmp_path):
    save(tmp_path / "masks/a.png", hole(20, 30))
    save(tmp_path / "masks/sub/b.png", hole(7, 5))
    plan = plan_with(pictures, tmp_path / "out", masks=tmp_path / "masks", include=["a.*"])
    assert (len(plan.jobs), plan.warnings) == (1, [])
    assert plan_with(pictures / "a.png", f"{tmp_path}/out/", masks=tmp_path / "masks").warnings == []


def test_masks_beside_the_pictures_and_below_them_are_no_pictures(pictures, tmp_path):
    save(pictures / "a_mask.png", hole(20, 30))
    plan = plan_with(pictures, tmp_path / "out", masks=pictures, mask_missing="skip")
    assert targets(plan) == ["a.png", "sub/b.png", "sub/deep/c.jpg"]
    assert [job.mask for job in plan.jobs] == [pictures / "a_mask.png", None, None]

    (pictures / "a_mask.png").unlink()
    save(pictures / "masks/a.png", hole(20, 30))
    plan = plan_with(pictures, tmp_path / "out", masks=pictures / "masks", mask_missing="skip")
    assert targets(plan) == ["a.png", "sub/b.png", "sub/deep/c.jpg"]


def test_two_masks_for_one_picture_contradict_each_other(pictures, tmp_path):
    save(tmp_path / "masks/a.png", hole(20, 30))
    save(tmp_path / "masks/a_mask.png", hole(20, 30))
    job = plan_with(pictures / "a.png", tmp_path / "out.png", masks=tmp_path / "masks").jobs[0]
    assert job.action == "fail"
    assert "more than one mask" in job.reason


def test_a_picture_without_a_mask(pictures, tmp_path):
    (tmp_path / "masks").mkdir()
    for missing, action in (("fail", "fail"), ("skip", "skip"), ("copy", "unmasked")):
        plan = plan_with(pictures, tmp_path / "out", masks=tmp_path / "masks", mask_missing=missing)
        assert {job.action for job in plan.jobs} == {action}


def test_the_dry_run_tells_what_would_happen(pictures, tmp_path):
    save(tmp_path / "masks/a.png", hole(20, 30))
    save(tmp_path / "out/sub/b.png", photo(1, 1))
    plan = plan_with(pictures, tmp_path / "out", masks=tmp_path / "masks", mask_missing="copy", skip_existing=True)
    a, b, c = plan.format()
    assert a == f"{pictures}/a.png -> {tmp_path}/out/a.png (mask {tmp_path}/masks/a.png)"
    assert b == f"{pictures}/sub/b.png: skipped: the output exists"
    assert c.endswith("c.jpg (no mask: nothing to fill)")


def test_odd_names_survive(tmp_path):
    for name in ODD_NAMES:
        save(tmp_path / "in" / name, photo(2, 2))
    plan = plan_with(tmp_path / "in", tmp_path / "out")
    assert sorted(job.target.name for job in plan.jobs) == sorted(ODD_NAMES)
    assert all(line.isprintable() for line in plan.format())
