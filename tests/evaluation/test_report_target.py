"""Where reports are written to, and what is never replaced by one."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from restore.errors import RestoreError
from restore.evaluation.report import EvalReport, ImageScores
from restore.evaluation.report_target import JSON_KEYS, ReportTarget, check_targets


@pytest.fixture
def report() -> EvalReport:
    return EvalReport({"name": "skimage"}, ("psnr",), [ImageScores("a", {"psnr": 30.0})])


def refused(path: Path, kind: str) -> str:
    with pytest.raises(RestoreError) as caught:
        ReportTarget.check(path, kind)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_an_earlier_report_and_an_empty_file_are_replaced(report: EvalReport, tmp_path: Path) -> None:
    for name, write in (("s.json", report.write_json), ("s.csv", report.write_csv)):
        write(tmp_path / name)
        first = (tmp_path / name).read_bytes()
        write(tmp_path / name)
        (tmp_path / f"empty_{name}").touch()
        write(tmp_path / f"empty_{name}")
        assert (tmp_path / name).read_bytes() == (tmp_path / f"empty_{name}").read_bytes() == first
    assert tuple(json.loads((tmp_path / "s.json").read_bytes())) == JSON_KEYS


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n", b"{}", b"[1]", b'{"summary": 1}', b"{", b"name of my dog", b"name,age\nRex,3\n"]
)
def test_what_is_no_report_is_never_replaced(report: EvalReport, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "mine"
    file.write_bytes(content)
    assert "is not a JSON report" in refused(file, "json")
    assert "is not a CSV report" in refused(file, "csv")
    with pytest.raises(RestoreError):
        report.write_json(file)
    assert file.read_bytes() == content


def test_reports_of_every_shape_are_known_and_nothing_beside_them(tmp_path: Path) -> None:
    plain = {key: {} for key in JSON_KEYS}
    file = tmp_path / "s.json"
    for extra_pages in ({}, {"baseline": {}}, {"sets": {}}, {"sets": {}, "baseline": {}}):
        file.write_text(json.dumps(plain | extra_pages))
        assert ReportTarget.check(file, "json").atomic
    file.write_text(json.dumps(plain | {"mine": 1}))
    assert "is not a JSON report" in refused(file, "json")


def test_one_kind_is_no_report_of_the_other(report: EvalReport, tmp_path: Path) -> None:
    report.write_json(tmp_path / "s")
    assert "is not a CSV report" in refused(tmp_path / "s", "csv")


def test_a_link_stays_a_link_and_its_file_is_written(report: EvalReport, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    for name in ("new.json", "old.json"):
        (tmp_path / name).symlink_to(Path("kept") / name)
    (tmp_path / "kept" / "old.json").touch()
    for name in ("new.json", "old.json"):
        report.write_json(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert json.loads((tmp_path / "kept" / name).read_bytes())["images"]


def test_a_link_to_a_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / "s.json").symlink_to("a.png")
    assert "s.json: exists" in refused(tmp_path / "s.json", "json")


def test_a_pipe_is_written_into_and_stays_one(report: EvalReport, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    report.write_csv(tmp_path / "pipe")
    reader.join(10)
    assert got[0].startswith(b"name,psnr,note\na,30.0,")
    assert (tmp_path / "pipe").is_fifo()


def test_places_that_cannot_be_written_to_are_known_before(
    report: EvalReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert "no such folder" in refused(tmp_path / "none" / "s.json", "json")
    assert "s.json" in refused(tmp_path / "file" / "s.json", "json")
    assert "is a folder" in refused(tmp_path, "csv")
    report.write_json(tmp_path / "s.json")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and real(path, mode))
    assert "no permission" in refused(tmp_path / "s.json", "json")
    assert "no permission" in refused(tmp_path / "new.json", "json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "s.json"]


def test_one_file_cannot_take_both(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("s")
    with pytest.raises(RestoreError, match="the same place"):
        check_targets(tmp_path / "s", tmp_path / "link")
