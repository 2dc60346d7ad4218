"""The endurance test at a length for every day; `make soak` runs it at full length."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.soak import kill_and_go_on, large_folder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are watched in /proc")


def test_five_kills_leave_nothing_partial_and_the_rest_is_done(tmp_path: Path) -> None:
    assert kill_and_go_on(tmp_path, kills=5, pictures=200).startswith("5 kills")


def test_broken_pictures_in_a_folder_are_all_accounted_for_and_memory_does_not_grow(tmp_path: Path) -> None:
    assert large_folder(tmp_path, pictures=200, broken=12).startswith("200 pictures")
