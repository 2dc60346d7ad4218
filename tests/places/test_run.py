"""Runs over URLs, with the file system of `memory://`."""

import errno
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from restore.errors import RestoreError
from restore.fix.log import Segment
from restore.fix.options import DetectOptions, FixOptions
from restore.places import groups, run
from restore.places import plan as plans
from restore.places.files import PlacedFile
from restore.places.groups import StagedGroup
from restore.places.log import segments_of
from restore.places.plan import NoImages, plan_places
from restore.places.run import fix_places
from restore.places.store import ObjectInfo, Store, Unreachable
from restore.places.work import WorkFolder
from tests.places.conftest import image_bytes, mask_bytes


def fill(memory: Any, *names: str, masks: bool = True) -> None:
    for name in names:
        memory.pipe_file(f"/b/in/{name}", image_bytes(len(name), Path(name).suffix))
        if masks:
            memory.pipe_file(f"/b/masks/{name}.png", mask_bytes())


def options(**more: Any) -> FixOptions:
    return FixOptions(**({"masks": "memory://b/masks", "device": "cpu"} | more))


def fix(**more: Any) -> Any:
    return fix_places("memory://b/in", "memory://b/out", "telea", options(**more))


def names(memory: Any, folder: str) -> list[str]:
    return sorted(name.removeprefix(f"/b/{folder}/") for name in memory.find(f"/b/{folder}"))


def test_a_tree_is_repaired_in_groups(memory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(plans, "GROUP_FILES", 2)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    given = ["a.png", "sub/b.jpg", "sub/c d.png", "sub/deep/-e.png", "z%20.png"]
    fill(memory, *given)
    summary = fix(log="memory://b/logs/log.jsonl")
    assert (summary.done, summary.failed, summary.exit_code) == (5, [], 0)
    assert names(memory, "out") == sorted(given)
    lines = [json.loads(line) for line in memory.cat_file("/b/logs/log.jsonl").splitlines()]
    assert [line["event"] for line in lines] == ["start"] + ["image"] * 5
    assert {line["run"] for line in lines} == {summary.run}
    assert {line["input"] for line in lines[1:]} == {f"memory://b/in/{name}" for name in given}
    assert all(line["output_sha256"] for line in lines[1:])
    assert lines[0]["settings"]["log"] == "memory://b/logs/log.jsonl"
    assert not list(tmp_path.iterdir())


def test_groups_grow_so_that_the_first_image_waits_for_few() -> None:
    plan = plans.PlacesPlan(["memory://b/in"], "memory://b/out")
    for number in range(200):
        plan.files.append(PlacedFile("memory://b/in/", f"{number}.png"))
    assert list(map(len, plan.groups())) == [8, 16, 32, 64, 64, 16]


def test_a_run_may_only_enlarge(memory: Any) -> None:
    fill(memory, "a.png", masks=False)
    given = FixOptions(scale=2, device="cpu", log="memory://b/log")
    summary = fix_places("memory://b/in", "memory://b/out", "bicubic-x2", given)
    assert (summary.done, summary.failed, summary.model) == (1, [], "bicubic-x2")
    (small, *_), (large, *_) = (
        cv2.imdecode(np.frombuffer(memory.cat_file(f"/b/{folder}/a.png"), np.uint8), cv2.IMREAD_COLOR).shape
        for folder in ("in", "out")
    )
    assert large == 2 * small


def test_a_store_that_fails_for_one_image_of_a_group_stops_the_run(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has come of the group is still repaired."""
    monkeypatch.setattr(groups, "TRANSFERS", 1)
    monkeypatch.setattr(run, "TRANSFERS", 1)
    fill(memory, "a.png", "b.png", "c.png", masks=False)
    download = Store.download

    def fails(store: Store, url: str, path: Path) -> ObjectInfo:
        if url.endswith("b.png"):
            raise Unreachable("the store does not answer", where=url, exit_code=1)
        return download(store, url, path)

    monkeypatch.setattr(Store, "download", fails)
    summary = fix_places("memory://b/in", "memory://b/out", "bicubic-x2", FixOptions(scale=2, device="cpu"))
    assert summary.stopped == "memory://b/in/b.png: the store does not answer"
    assert (summary.done, len(summary.failed), summary.not_started) == (1, 1, 1)


def test_a_full_disk_of_the_outputs_stops_the_run(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(memory, "a.png", masks=False)

    @contextmanager
    def full(target: Path, **more: Any) -> Iterator[Path]:
        error = OSError(errno.ENOSPC, "no space")
        raise RestoreError("the disk is full", where=target, exit_code=1) from error
        yield target

    monkeypatch.setattr("restore.places.outputs.replace_atomically", full)
    given = FixOptions(scale=2, device="cpu")
    summary = fix_places("memory://b/in", tmp_path / "out", "bicubic-x2", given)
    assert summary.stopped == "the disk is full"
    assert [failure.code for failure in summary.failed] == ["disk_full"]


@pytest.mark.parametrize(("kind", "done"), [(StagedGroup, 1), (WorkFolder, 0)])
def test_a_full_disk_of_the_work_folder_stops_the_run(
    memory: Any, monkeypatch: pytest.MonkeyPatch, kind: Any, done: int
) -> None:
    """What is done is delivered, logged and told."""
    fill(memory, "a.png", masks=False)

    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(kind, "save", full)
    given = FixOptions(scale=2, device="cpu", log="memory://b/log")
    summary = fix_places("memory://b/in", "memory://b/out", "bicubic-x2", given)
    assert summary.stopped.startswith("the work folder cannot be written: the disk is full; TMPDIR")
    assert (summary.done, names(memory, "out")) == (done, ["a.png"][:done])
    assert len(memory.cat_file("/b/log").splitlines()) == 1 + done


def test_what_has_come_of_an_image_that_fails_makes_room(memory: Any, tmp_path: Path) -> None:
    fill(memory, "a.png")
    staged = groups.StagedGroup(
        [("memory://b/in/a.png", "memory://b/out/a.png", "memory://b/gone.png")], tmp_path / "group", options()
    )
    with ThreadPoolExecutor(1) as pool:
        staged.fetch(pool)
    assert not [path for path in (tmp_path / "group").rglob("*") if path.is_file()]


def test_a_torn_line_of_a_log_has_no_segment(tmp_path: Path) -> None:
    whole = {"input": "a", "output": "b", "first_frame": 0, "frames": 2, "start_seconds": 0.0, "seconds": 1.0,
             "damaged_fraction": None, "mask_coverage": None, "changed_fraction": 0.5}  # fmt: skip
    line = json.dumps(asdict(Segment(**whole)))
    (tmp_path / "log").write_text(f"{line[:60]}\n{line}\n{line[:20]}")
    assert list(segments_of(tmp_path / "log")) == [Segment(**whole)]


def test_a_log_is_continued(memory: Any) -> None:
    fill(memory, "a.png")
    fix(log="memory://b/log")
    fix(log="memory://b/log", skip_existing=True)
    events = [json.loads(line)["event"] for line in memory.cat_file("/b/log").splitlines()]
    assert events == ["start", "image"] * 2


def test_a_log_that_another_run_has_written_stays(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(memory, "a.png")
    carry_out = run.StagedGroup.carry_out

    def other(*arguments: Any) -> None:
        memory.pipe_file("/b/log", b'{"event": "theirs"}\n')
        carry_out(*arguments)

    monkeypatch.setattr(run.StagedGroup, "carry_out", other)
    summary = fix(log="memory://b/log")
    assert "another program has written this log" in summary.stopped
    assert summary.exit_code == 1
    assert memory.cat_file("/b/log") == b'{"event": "theirs"}\n'


def test_existing_outputs_are_refused_skipped_or_replaced(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(memory, "a.png", "b.png")
    memory.pipe_file("/b/out/a.png", b"mine")
    with pytest.raises(
        RestoreError, match=r"memory://b/out/a\.png: exists already; use --overwrite or --skip-existing"
    ):
        fix()
    assert names(memory, "out") == ["a.png"]
    summary = fix(skip_existing=True)
    assert (summary.done, summary.skipped) == (1, {"the output exists": 1})
    assert memory.cat_file("/b/out/a.png") == b"mine"
    opened = []
    monkeypatch.setattr("restore.fix.run_models.open_models", lambda *given, **more: opened.append(1))
    assert fix(skip_existing=True).skipped == {"the output exists": 2}
    assert not opened
    monkeypatch.undo()
    assert fix(overwrite=True).done == 2
    assert memory.cat_file("/b/out/a.png") != b"mine"


def test_a_second_writer_wins(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(memory, "a.png", "b.png")
    carry_out = run.StagedGroup.carry_out

    def meanwhile(*arguments: Any) -> None:
        memory.pipe_file("/b/out/a.png", b"theirs")
        carry_out(*arguments)

    monkeypatch.setattr(run.StagedGroup, "carry_out", meanwhile)
    summary = fix()
    assert (summary.done, summary.exit_code) == (1, 1)
    (failure,) = summary.failed
    assert (failure.path, failure.code) == ("memory://b/in/a.png", "output_exists")
    assert "appeared during the run and was not overwritten" in failure.reason
    assert memory.cat_file("/b/out/a.png") == b"theirs"


def test_shards_cover_all_names_once(memory: Any) -> None:
    fill(memory, *(f"{number}.png" for number in range(20)))
    found = [
        file.name
        for part in range(1, 8)
        for file in plan_places(["memory://b/in"], "memory://b/out", options(shard=f"{part}/7")).files
    ]
    assert sorted(found) == sorted(f"{number}.png" for number in range(20))


def test_globs_hidden_names_and_odd_names(memory: Any) -> None:
    fill(memory, "a.png", "sub/b.png", ".hidden/c.png", "sub/.d.png", "@eaDir/e.png", masks=False)
    plan = plan_places(["memory://b/in/"], "memory://b/out", FixOptions())
    assert [file.name for file in plan.files] == ["a.png", "sub/b.png"]
    assert "left out, as hidden or made by a system" in plan.warnings[0]
    plan = plan_places(["memory://b/in/"], "memory://b/out", FixOptions(include=("sub/*",)))
    assert [file.name for file in plan.files] == ["sub/b.png"]
    with pytest.raises(NoImages, match="match --include and --exclude"):
        plan_places(["memory://b/in/"], "memory://b/out", FixOptions(exclude=("*",)))


def test_masks_are_paired_by_name(memory: Any) -> None:
    fill(memory, "a.png", "sub/b.jpg", "c.png", masks=False)
    for mask in ("a_mask.png", "sub/b.png", "stray.png"):
        memory.pipe_file(f"/b/masks/{mask}", mask_bytes())
    plan = plan_places(["memory://b/in"], "memory://b/out", options())
    masks = {file.name: (file.mask, file.verdict.action) for file in plan.files}
    assert masks == {
        "a.png": ("memory://b/masks/a_mask.png", "repair"),
        "sub/b.jpg": ("memory://b/masks/sub/b.png", "repair"),
        "c.png": (None, "fail"),
    }
    assert plan.unmatched_masks == ["memory://b/masks/stray.png"]
    lines = list(plan.format())
    assert lines[0] == "memory://b/in/a.png -> memory://b/out/a.png (mask memory://b/masks/a_mask.png)"
    assert plan.to_dict()["jobs"][0]["mask"] == "memory://b/masks/a_mask.png"


def test_masks_beside_their_images(memory: Any) -> None:
    fill(memory, "a.png", masks=False)
    memory.pipe_file("/b/in/a_mask.png", mask_bytes())
    summary = fix(masks="memory://b/in")
    assert (summary.done, names(memory, "out")) == (1, ["a.png"])


def test_one_object_to_one_object(memory: Any) -> None:
    fill(memory, "a.png")
    summary = fix_places(
        "memory://b/in/a.png", "memory://b/o/x.jpg", "telea", options(masks="memory://b/masks/a.png.png")
    )
    assert (summary.done, memory.cat_file("/b/o/x.jpg")[:2]) == (1, b"\xff\xd8")
    for output, words in (
        ("memory://b/o/x", "could be a file or a folder"),
        ("memory://b/o/x.psd", "cannot write files"),
        ("memory://b/in/a.png", "the output is the input itself"),
    ):
        with pytest.raises(RestoreError, match=words):
            plan_places(["memory://b/in/a.png"], output, FixOptions())


def test_several_inputs_and_lists(memory: Any, tmp_path: Path) -> None:
    fill(memory, "a.png", "sub/b.png", masks=False)
    (tmp_path / "own.png").write_bytes(image_bytes())
    inputs = ["memory://b/in/a.png", "memory://b/in/sub", str(tmp_path / "own.png")]
    plan = plan_places(inputs, "memory://b/out", FixOptions())
    assert [plan.target(file) for file in plan.files] == [
        "memory://b/out/a.png", "memory://b/out/sub/b.png", "memory://b/out/own.png",
    ]  # fmt: skip
    listed = tmp_path / "list.txt"
    listed.write_text("memory://b/in/sub/b.png\n")
    plan = plan_places(["memory://b/in"], "memory://b/out", FixOptions(files_from=listed))
    assert [plan.target(file) for file in plan.files] == ["memory://b/out/sub/b.png"]


def test_two_images_with_one_output_are_refused(memory: Any) -> None:
    fill(memory, "a.png", "a.jpg", masks=False)
    with pytest.raises(RestoreError, match="would both be written here"):
        plan_places(["memory://b/in"], "memory://b/out", FixOptions(ext="webp"))


@pytest.mark.parametrize(
    ("inputs", "output", "given"),
    [
        (["in/a.png"], "in/", {}),
        (["in/a.png", "in/sub/a.png"], "in/sub", {}),
        (["in/in"], "in", {}),
        (["in/a.png"], "m/a.png", {"masks": "memory://b/m/a.png"}),
        (["in/a.png", "in/a.png.png"], "out/", {"masks": "memory://b/m/a.png", "save_masks": "memory://b/in"}),
        (["in/a.png"], "in/a.png.png", {"masks": "memory://b/m/a.png", "save_masks": "memory://b/in"}),
    ],
)
def test_outputs_replace_nothing_that_is_read(memory: Any, inputs: list[str], output: str, given: Any) -> None:
    fill(memory, "a.png", "a.png.png", "sub/a.png", "in/a.png", "in/in/a.png", masks=False)
    memory.pipe_file("/b/m/a.png", mask_bytes())
    with pytest.raises(RestoreError, match=r"would replace an input|both outputs of"):
        plan_places(
            [f"memory://b/{name}" for name in inputs], f"memory://b/{output}", FixOptions(overwrite=True, **given)
        )


def test_names_lead_out_of_no_folder(memory: Any, tmp_path: Path) -> None:
    fill(memory, "a.png", masks=False)
    listed = tmp_path / "list.txt"
    listed.write_text("memory://b/in/a.png\nmemory://b/in/../../x.png\nmemory://b/in/\n")
    plan = plan_places(["memory://b/in"], str(tmp_path / "out"), FixOptions(files_from=listed, suffix="_new"))
    assert [file.verdict.action for file in plan.files] == ["repair", "fail", "fail"]
    assert "which no folder can hold" in next(plan.files.failing()).verdict.reason
    assert len(list(plan.format())) == 3
    memory.pipe_file("/b/in/../x.png", image_bytes())
    with pytest.raises(RestoreError, match="which no folder can hold"):
        plan_places(["memory://b/in/a.png", "memory://b/in/.."], str(tmp_path / "out"), FixOptions())


def test_what_cannot_be_is_refused(memory: Any, tmp_path: Path) -> None:
    fill(memory, "a.png", masks=False)
    for inputs, output, given, words in (
        (["memory://b/in"], "memory://b/in/out", {}, "or inside it"),
        (["memory://b/nothing"], "memory://b/out", {}, "there is no such object or folder"),
        (["memory://b/in"], "-", {}, "cannot be combined with URLs"),
        (["memory://b/in"], "memory://b/out", {"fills": 2, "masks": "memory://b/in"}, "--fills: cannot be"),
        (["memory://b/in"], "memory://b/out", {"masks": "memory://b/gone"}, "no such folder or object of masks"),
        (["memory://b/in"], "memory://b/m/x", {"masks": "memory://b/m"}, "no such folder or object of masks"),
        (["s3://key:secret@b/in"], "memory://b/out", {}, "INPUT: holds credentials"),
        (["ftp://b/in"], "memory://b/out", {}, "ftp:// is not supported"),
        (["s3:///in"], "memory://b/out", {}, "names no bucket"),
        (["file://host/in"], "memory://b/out", {}, "names another machine"),
    ):
        with pytest.raises(RestoreError, match=words) as caught:
            plan_places(inputs, output, FixOptions(**given))
        assert caught.value.exit_code == 2
        assert "secret" not in str(caught.value)


def test_a_local_folder_goes_to_a_store_and_back(memory: Any, tmp_path: Path) -> None:
    folder = tmp_path / "in 1"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.png").write_bytes(image_bytes())
    mask = tmp_path / "mask.png"
    mask.write_bytes(mask_bytes())
    there = fix_places(f"file://{tmp_path}/in%201", "memory://b/out", "telea", FixOptions(masks=mask))
    back = fix_places("memory://b/out", str(tmp_path / "back"), "telea", FixOptions(masks=mask))
    assert (there.done, back.done) == (1, 1)
    assert (tmp_path / "back/sub/a.png").is_file()
    with pytest.raises(RestoreError, match="exists already"):
        fix_places("memory://b/out", str(tmp_path / "back"), "telea", FixOptions(masks=mask))


def test_files_that_are_no_images_are_skipped_without_a_model(memory: Any) -> None:
    memory.pipe_file("/b/in/readme.txt", b"words")
    summary = fix_places("memory://b/in", "memory://b/out", "no such model", FixOptions())
    assert summary.skipped == {"not an image": 1}


def test_masks_of_damage_get_names_that_fix_finds(memory: Any) -> None:
    fill(memory, "a.png", masks=False)
    detection = DetectOptions(preview="memory://b/found")
    plan = plan_places(["memory://b/in"], "memory://b/masks", detection)
    assert plan.target(plan.files[0]) == "memory://b/masks/a_mask.png"
    assert plan.side_target(plan.files[0]) == "memory://b/found/a_preview.jpg"
    with pytest.raises(RestoreError, match="needs a folder apart"):
        plan_places(["memory://b/in"], "memory://b/masks", DetectOptions(preview="memory://b/masks/p"))


def test_sidecars_go_along(memory: Any) -> None:
    fill(memory, "a.png")
    memory.pipe_file("/b/in/a.XMP", b"<x/>")
    assert fix().done == 1
    assert names(memory, "out") == ["a.XMP", "a.png"]


def test_a_run_that_is_started_again_goes_on(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process ends after it has repaired the second group; the first is delivered, not recorded."""
    from restore.fix.decoder_isolation import SupervisorLink, SupervisorState
    from restore.places.run import fixer, keep, resume, run_places

    monkeypatch.setattr(plans, "GROUP_FILES", 1)
    fill(memory, "a.png", "b.png", "c.png")
    plan = plan_places(["memory://b/in"], "memory://b/out", options())
    work = keep(plan, SupervisorLink())

    class Died(BaseException):
        pass

    def die(*given: Any) -> None:
        raise Died

    removed = run.WorkFolder.remove
    with monkeypatch.context() as dying:
        dying.setattr(run._Run, "_record", die)
        dying.setattr(run.WorkFolder, "remove", lambda self: self._lock.close())
        with pytest.raises(Died):
            run_places(plan, options(), fixer(plan, "telea", options(), print), work=work)
    assert run.WorkFolder.remove is removed
    import pickle

    resumed = resume(SupervisorLink(SupervisorState(plan=pickle.dumps(str(work.path)))))
    assert resumed is not None
    again, folder = resumed
    assert (list(again.files), again.to_dict()) == (list(plan.files), plan.to_dict())
    summary = run_places(again, options(), fixer(again, "telea", options(), print), work=folder)
    assert (summary.done, summary.failed) == (3, [])
    assert names(memory, "out") == ["a.png", "b.png", "c.png"]
    assert not folder.path.exists()


def test_the_first_image_does_not_wait_for_files_that_are_skipped(
    memory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "_SETTLED_SECONDS", 0.0)  # one at a time
    fill(memory, *(f"{name}.png" for name in "abcde"))
    for name in "abcd":
        memory.pipe_file(f"/b/out/{name}.png", b"done before")
    summary = fix(skip_existing=True, log=tmp_path / "log.jsonl")
    assert (summary.done, summary.skipped) == (1, {"the output exists": 4})
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line.get("status") for line in lines] == [None, "skipped", "done", "skipped", "skipped", "skipped"]


def test_a_run_that_is_started_again_tells_each_skipped_file_once(
    memory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from restore.fix.decoder_isolation import SupervisorLink
    from restore.places.run import fixer, keep, run_places

    monkeypatch.setattr(run, "_SETTLED_SECONDS", 0.0)
    fill(memory, *(f"{name}.png" for name in "abcd"))
    for name in "abc":
        memory.pipe_file(f"/b/out/{name}.png", b"done before")
    given = options(skip_existing=True, log=tmp_path / "log.jsonl")
    plan = plan_places(["memory://b/in"], "memory://b/out", given)
    work = keep(plan, SupervisorLink())
    with monkeypatch.context() as dying:
        dying.setattr(run._Run, "_groups", lambda *given: 1 / 0)
        dying.setattr(run.WorkFolder, "remove", lambda self: None)
        with pytest.raises(ZeroDivisionError):
            run_places(plan, given, fixer(plan, "telea", given, print), work=work)
    work._lock.close()
    assert run_places(plan, given, fixer(plan, "telea", given, print), work=work).done == 1
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    inputs = [line["input"] for line in lines if line["event"] == "image"]
    assert sorted(inputs) == [f"memory://b/in/{name}.png" for name in "abcd"]
