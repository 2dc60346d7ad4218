"""A crash loses at most the stroke in hand. `python -m tests.serve.page.kill --count 50` does this more often."""

from pathlib import Path

import pytest

pytest.importorskip("fastapi")
from tests.serve.page import kill


def test_a_killed_server_loses_at_most_the_stroke_in_hand(tmp_path: Path) -> None:
    tally = kill.run(4, tmp_path, seed=3)
    assert tally.rounds == 4
    assert tally.operations > 0
