"""Limits hold for pictures that go through in bands as for those in memory."""

from __future__ import annotations

import numpy as np
import pytest

from restore.fix import reader
from restore.restorers.base import ModelRequirements
from tests.fix.conftest import Identity, fix_with, photo, save


class Tiled(Identity):
    requirements = ModelRequirements(needs_mask=False, tileable=True)


@pytest.fixture(autouse=True)
def everything_is_huge(monkeypatch):
    monkeypatch.setattr(reader, "HUGE_PIXELS", 1000)


def test_huge_pictures_over_the_limit_and_cut_ones_name_the_option(tmp_path):
    save(tmp_path / "in/x.png", photo(600, 600))
    cut = save(tmp_path / "in/y.png", photo(600, 600))
    cut.write_bytes(cut.read_bytes()[:-300_000])
    small = fix_with(tmp_path / "in", tmp_path / "small", Tiled(), max_pixels=359_999)
    assert [failure.reason.rpartition(": ")[2] for failure in small.failed] == ["--max-pixels 360000"] * 2
    strict = fix_with(tmp_path / "in", tmp_path / "strict", Tiled())
    assert strict.done == 1
    assert "--allow-truncated repairs what can be decoded" in strict.failed[0].reason
    lenient = fix_with(tmp_path / "in", tmp_path / "lenient", Tiled(), allow_truncated=True)
    assert lenient.done == 2
    assert len(lenient.warnings) == 1
    assert "the file is damaged; decoded as far as possible" in lenient.warnings[0]


def test_a_disk_without_room_for_the_raw_picture_is_not_filled(tmp_path, disk):
    save(tmp_path / "in/large.png", np.kron(photo(75, 75), np.ones((16, 16, 1), np.uint8)))
    save(tmp_path / "in/small.png", photo(60, 60))
    summary = fix_with(tmp_path / "in", disk / "out", Tiled())
    assert (summary.done, summary.stopped) == (1, "")
    assert "1200×1200 needs 0.0 GB of temporary disk space, but 0.0 GB are free" in summary.failed[0].reason


def test_a_disk_that_is_full_in_the_end_stops_the_run(tmp_path, disk):
    for name in "abc":
        save(tmp_path / f"in/{name}.png", photo(600, 600))
    (disk / "filler").write_bytes(bytes(1_500_000))
    summary = fix_with(tmp_path / "in", disk / "out", Tiled())
    assert (summary.done, summary.stopped) == (0, "the disk is full")
    assert [failure.reason for failure in summary.failed] == ["the disk is full"]
    assert not list((disk / "out").iterdir())
