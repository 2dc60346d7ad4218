"""Runs over an S3 server on this machine: moto, over HTTP, with the real client."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from restore.errors import RestoreError
from restore.fix.options import FixOptions
from restore.places import plan as plans
from restore.places import store
from restore.places.plan import plan_places
from restore.places.run import fix_places
from restore.places.store import Forbidden, NotThere, Store, store_of
from tests.places.conftest import KEY, SECRET, Faulty, _use, image_bytes, mask_bytes

NAMES = ["a.png", "50%20 off?.png", "ünï/日本 c+d&e=#.jpg", "-dash/-x.png"]


def fill(s3: Any, *names: str) -> None:
    for number, name in enumerate(names):
        s3.put_object(Bucket="scans", Key=f"in/{name}", Body=image_bytes(number, Path(name).suffix))
    s3.put_object(Bucket="scans", Key="mask.png", Body=mask_bytes())


def fix(**more: Any) -> Any:
    options = FixOptions(**({"masks": "s3://scans/mask.png", "device": "cpu"} | more))
    return fix_places("s3://scans/in", "s3://repaired/out", "telea", options)


def keys(s3: Any, bucket: str = "repaired") -> list[str]:
    return [item["Key"] for item in s3.list_objects_v2(Bucket=bucket).get("Contents", ())]


def test_names_types_and_metadata_come_through(s3: Any) -> None:
    fill(s3, *NAMES)
    s3.put_object(Bucket="scans", Key="in/a.png", Body=image_bytes(), Metadata={"album": "1950"})
    s3.put_object(Bucket="scans", Key="in/", Body=b"")  # a mark of a folder, as consoles make it
    summary = fix(log="s3://repaired/log.jsonl")
    assert (summary.done, summary.failed, summary.stopped) == (4, [], "")
    assert sorted(keys(s3)) == sorted([*(f"out/{name}" for name in NAMES), "log.jsonl"])
    one = s3.head_object(Bucket="repaired", Key="out/a.png")
    assert (one["ContentType"], one["Metadata"]) == ("image/png", {"album": "1950"})
    assert s3.head_object(Bucket="repaired", Key=f"out/{NAMES[2]}")["ContentType"] == "image/jpeg"
    log = s3.get_object(Bucket="repaired", Key="log.jsonl")["Body"].read().decode()
    assert {json.loads(line)["input"] for line in log.splitlines()[1:]} == {f"s3://scans/in/{name}" for name in NAMES}
    assert SECRET not in log
    assert KEY not in log


def test_listings_have_many_pages(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        s3.put_object(Bucket="scans", Key=f"many/{number}.png", Body=b"x")
    one = Store("s3")
    call = one.files.call_s3
    monkeypatch.setattr(one.files, "call_s3", lambda method, **given: call(method, MaxKeys=3, **given))
    assert [entry.name for entry in one.list("s3://scans/many/")] == [f"{number}.png" for number in range(7)]


def test_outputs_are_written_by_conditional_puts(s3: Any, tmp_path: Path) -> None:
    here = store_of("s3://repaired/x")
    for name, content in (("mine", b"mine"), ("theirs", b"theirs")):
        (tmp_path / name).write_bytes(content)
    here.upload(tmp_path / "theirs", "s3://repaired/x.bin", overwrite=False)
    with pytest.raises(store.ExistsAlready):
        here.upload(tmp_path / "mine", "s3://repaired/x.bin", overwrite=False)
    assert here.read("s3://repaired/x.bin") == b"theirs"
    here.upload(tmp_path / "mine", "s3://repaired/x.bin", overwrite=True)
    assert here.read("s3://repaired/x.bin") == b"mine"


def test_large_outputs_in_parts_are_conditional_too(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Store("s3")
    large = tmp_path / "large.png"
    large.write_bytes(os.urandom(11 << 20))
    put = one.files.put_file
    monkeypatch.setattr(one.files, "put_file", lambda *given, **more: put(*given, chunksize=5 << 20, **more))
    one.upload(large, "s3://repaired/large.png", overwrite=False)
    s3.put_object(Bucket="repaired", Key="other.png", Body=b"theirs")
    with pytest.raises(store.ExistsAlready):
        one.upload(large, "s3://repaired/other.png", overwrite=False)
    assert one.read("s3://repaired/other.png") == b"theirs"
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="repaired")
    back = tmp_path / "back.png"
    one.download("s3://repaired/large.png", back)
    assert back.read_bytes() == large.read_bytes()


def test_a_lost_answer_to_a_put_is_no_other_writer(faulty: Faulty, s3: Any) -> None:
    fill(s3, "a.png")
    lost = iter([0])
    faulty.after = lambda method, path: next(lost, None) if method == "PUT" else None
    summary = fix()
    assert (summary.done, summary.failed) == (1, [])
    assert sum(method == "PUT" for method, _ in faulty.seen) == 2


def test_a_store_that_fails_twice_is_tried_again(faulty: Faulty, s3: Any) -> None:
    fill(s3, "a.png", "b.png")
    counts: dict[tuple[str, str], int] = {}

    def twice(method: str, path: str) -> int | None:
        counts[method, path] = counts.get((method, path), 0) + 1
        return (503, 0)[counts[method, path] - 1] if counts[method, path] <= 2 else None

    faulty.answer = twice
    summary = fix()
    assert (summary.done, summary.failed) == (2, [])


def test_a_store_that_dies_in_the_run_stops_it(faulty: Faulty, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "GROUP_FILES", 1)
    fill(s3, *(f"{number}.png" for number in range(6)))
    faulty.answer = lambda method, path: 503 if method == "GET" and "/in/" in path else None
    summary = fix()
    assert summary.exit_code == 1
    assert "the store does not answer, or fails" in summary.stopped
    assert summary.not_started > 0
    assert keys(s3) == []
    assert "resume with the same command and --skip-existing" in "\n".join(summary.format())
    faulty.answer = lambda method, path: None
    assert fix(skip_existing=True).done == 6


def test_uploads_that_break_off_leave_nothing(faulty: Faulty, s3: Any) -> None:
    fill(s3, "a.png")
    faulty.answer = lambda method, path: 0 if method == "PUT" else None
    summary = fix()
    assert summary.exit_code == 1
    assert keys(s3) == []


def test_an_object_that_vanishes_fails_alone(faulty: Faulty, s3: Any) -> None:
    fill(s3, "a.png", "b.png")

    def vanish(method: str, path: str) -> None:
        if method == "GET" and path.endswith("/in/a.png"):
            s3.delete_object(Bucket="scans", Key="in/a.png")

    faulty.answer = vanish
    summary = fix()
    (failure,) = summary.failed
    assert (failure.path, failure.reason, failure.code) == (
        "s3://scans/in/a.png",
        "vanished during the run",
        "not_found",
    )
    assert keys(s3) == ["out/b.png"]


def test_an_image_comes_by_one_request(faulty: Faulty, s3: Any, tmp_path: Path) -> None:
    fill(s3, "a.png")
    info = store_of("s3://scans/x").download("s3://scans/in/a.png", tmp_path / "x")
    assert [method for method, _ in faulty.seen] == ["GET"]
    assert (tmp_path / "x").read_bytes() == image_bytes()
    assert info == store_of("s3://scans/x").info("s3://scans/in/a.png")
    assert (tmp_path / "x").stat().st_mtime == info.modified


def test_an_object_that_is_cut_off_is_asked_for_again(faulty: Faulty, s3: Any, tmp_path: Path) -> None:
    fill(s3, "a.png")
    cut = iter([100])
    faulty.cut = lambda method, path: next(cut, None) if method == "GET" else None
    store_of("s3://scans/x").download("s3://scans/in/a.png", tmp_path / "x")
    assert [method for method, _ in faulty.seen] == ["GET", "GET"]
    assert (tmp_path / "x").read_bytes() == image_bytes()


def test_a_large_object_that_changes_while_its_parts_are_read_comes_whole(
    faulty: Faulty, s3: Any, tmp_path: Path
) -> None:
    fill(s3, "a.png")
    here, gets = store_of("s3://scans/x"), iter(range(99))
    here.files.default_block_size = 2048

    def change(method: str, path: str) -> None:
        if method == "GET" and path.endswith("/in/a.png") and next(gets) == 1:
            s3.put_object(Bucket="scans", Key="in/a.png", Body=image_bytes(7))

    faulty.answer = change
    with pytest.raises(store.ChangedMeanwhile):
        here.download("s3://scans/in/a.png", tmp_path / "x")
    here.download("s3://scans/in/a.png", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == image_bytes(7)


def test_no_permission_to_write_stops_the_run(faulty: Faulty, s3: Any) -> None:
    fill(s3, "a.png", "b.png")
    faulty.answer = lambda method, path: 403 if method == "PUT" else None
    summary = fix()
    assert "no permission" in summary.stopped
    assert {failure.code for failure in summary.failed} == {"no_permission"}
    assert summary.exit_code == 1


def test_missing_buckets_and_permission_are_told_before_anything(faulty: Faulty, s3: Any) -> None:
    fill(s3, "a.png")
    with pytest.raises(RestoreError, match="s3://nowhere: this bucket does not exist") as caught:
        plan_places(["s3://nowhere/in"], "s3://repaired/out", FixOptions())
    assert caught.value.exit_code == 2
    for given in (FixOptions(), FixOptions(overwrite=True)):
        with pytest.raises(NotThere, match="s3://nowhere: this bucket does not exist"):
            plan_places(["s3://scans/in"], "s3://nowhere/out", given)
    with pytest.raises(NotThere, match="s3://nowhere: this bucket does not exist") as caught:
        fix(log="s3://nowhere/log.jsonl")
    assert (caught.value.exit_code, keys(s3)) == (2, [])
    faulty.answer = lambda method, path: 403
    with pytest.raises(Forbidden, match="no permission") as caught:
        plan_places(["s3://scans/in"], "s3://repaired/out", FixOptions())
    assert caught.value.exit_code == 2


def test_missing_credentials_are_told(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    store._store.cache_clear()
    with pytest.raises(Forbidden, match="no valid credentials in the environment"):
        plan_places(["s3://scans/in"], "s3://repaired/out", FixOptions())


def _run(*arguments: str, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "restore.cli", *arguments],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,
    )


def test_the_command_line(s3: Any, tmp_path: Path) -> None:
    fill(s3, "a.png")
    process = _run(
        "fix", "s3://scans/in/", "s3://repaired/out/", "--masks", "s3://scans/mask.png", "--model", "telea", "--json",
        "--log", str(tmp_path / "log.jsonl"),
    )  # fmt: skip
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads(out)["done"] == 1
    assert "1 done" in err
    assert "written to s3://repaired/out/" in err
    assert keys(s3) == ["out/a.png"]
    for text in (out, err, (tmp_path / "log.jsonl").read_text()):
        assert SECRET not in text
        assert KEY not in text


def test_a_dead_store_is_told_by_exit_code_and_message(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _use("http://127.0.0.1:9", monkeypatch)
    process = _run("fix", "s3://scans/in/", "s3://repaired/out/")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    assert "s3://scans/in/: the store does not answer, or fails" in err
    assert "Traceback" not in err
    assert SECRET not in err


def test_an_interrupted_run_leaves_whole_objects(faulty: Faulty, s3: Any) -> None:
    """Ctrl-C in the middle of uploads: objects that are there are whole, and the same command goes on."""
    fill(s3, *(f"{number}.png" for number in range(4)))

    def slow(method: str, path: str) -> None:
        if method == "PUT":
            time.sleep(2)

    faulty.answer = slow
    arguments = (
        "fix", "s3://scans/in/", "s3://repaired/out/", "--masks", "s3://scans/mask.png", "--model", "telea",
        "--skip-existing",
    )  # fmt: skip
    process = _run(*arguments)
    end = time.monotonic() + 240
    while not any(method == "PUT" for method, _ in faulty.seen) and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    for key in keys(s3):
        assert s3.get_object(Bucket="repaired", Key=key)["Body"].read()[-8:-4] == b"IEND"
    faulty.answer = lambda method, path: None
    assert fix(skip_existing=True).failed == []
    assert len(keys(s3)) == 4
