"""Mutated files through `restore fix`, at a length for every day; `make fuzz` runs more of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.fuzz_decoders import WAYS, fuzz, judge
from tests.mutations import Mutator, anatomy, small_seeds, with_sums
from tests.processes import Run

FILES = small_seeds()


@pytest.mark.skipif(sys.platform != "linux", reason="decoders are isolated on Linux only")
def test_mutated_files_each_have_their_result_whatever_way_they_go(tmp_path: Path) -> None:
    report = fuzz(FILES, tmp_path, count=20 * len(WAYS), seed="every day", per_run=20)
    assert report.findings == []
    assert report.files == sum(report.codes.values()) == 20 * len(WAYS)
    assert report.codes["done"] > report.files // 10


def test_a_mutated_file_is_the_same_again() -> None:
    made = [Mutator(FILES, 7).make(number).data for number in range(50)]
    assert made == [Mutator(FILES, 7).make(number).data for number in range(50)]
    assert made != [Mutator(FILES, 8).make(number).data for number in range(50)]
    assert len(set(made)) > 45


def test_parts_of_every_format_are_found() -> None:
    for file in FILES:
        found = anatomy(file.data)
        assert found.numbers or file.suffix in (".tga", ".pcx", ".ico", ".sgi", ".ppm", ".pgm", ".pbm", ".pdf", ".jxl")
        assert all(start < end <= len(file.data) for start, end in found.parts)
    assert all(with_sums(file.data) == file.data for file in FILES if file.suffix == ".png")


class _Ended(Run):
    """A run that has ended with this code and printed this."""

    def __init__(self, folder: Path, code: int, told: str = "", peak_mb: int = 0) -> None:
        self._told = folder / "told"
        (folder / "told1").write_text("")
        (folder / "told2").write_text(told)
        self.pid, self.returncode, self.peak_mb, self.cpu_seconds = 0, code, peak_mb, 0.0


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    out.mkdir()
    (inputs / "a.png").touch()
    sound = {
        "input": str(inputs / "a.png"), "output": str(out / "a.png"), "status": "failed", "reason": "it is damaged",
        "reason_code": "damaged", "warnings": [], "seconds": 0.1, "model": None,
    }  # fmt: skip

    def found(code: int = 1, told: str = "", peak_mb: int = 0, **changed: object) -> list[str]:
        return judge(_Ended(tmp_path, code, told, peak_mb), inputs, out, [sound | changed])

    assert found() == []
    assert judge(_Ended(tmp_path, 0), inputs, out, []) == ["a.png: no result"]
    assert found(0) == ["run: exit code 0, although some failed"]
    assert found(-11)[0].startswith("run: exit code -11")
    assert found(peak_mb=9000) == ["run: 9000 MB of memory"]
    assert found(told="Caution: tables") == ["run: printed 'Caution: tables'"]
    assert found(told=f"{inputs}/a.png: a note\nfailed: {inputs}/a.png: it is damaged\n1 failed; 0.1 s\n") == []
    assert found(reason_code="unexpected") == ["a.png: unexpected: it is damaged"]
    assert found(reason="") == ["a.png: no reason"]
    assert found(reason="two\nlines") == ["a.png: says 'two\\nlines'"]
    assert found(0, status="skipped", reason_code="not_an_image")[0].startswith("a.png: skipped, not failed")
    assert found(0, status="done") == ["a.png: done without an output"]
    (out / "a.png").write_bytes(b"no image")
    assert found() == ["a.png: failed with an output"]
    broken = found(0, status="done", model="small", width=3, height=4)
    assert len(broken) == 1
    assert broken[0].startswith("a.png: the output cannot be opened")
