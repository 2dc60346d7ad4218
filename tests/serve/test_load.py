"""The load test at a length for every day; `python benchmarks/server_load.py` runs it at full length."""

from __future__ import annotations

import sys

import pytest

from benchmarks.server_load import run_load


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_eight_clients_are_all_answered_right_or_refused() -> None:
    line, well = run_load(requests=40, clients=8, side=96, queue=4, seconds=None, patient=False, connections=20)
    assert well, line
    assert line.startswith("40 answers to 8 clients")
