"""What a worker does with its groups, in this process and without a cluster."""

from __future__ import annotations

from pathlib import Path

from restore.cluster.worker import Assignment, Line, _JobHand
from restore.fix.options import FixOptions
from restore.fix.plan import plan_fix
from tests.fix.conftest import load, photo, save


def test_a_run_may_only_enlarge(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", photo(24, 32))
    options = FixOptions(scale=2, device="cpu")
    plan = plan_fix(tmp_path / "in", tmp_path / "out", options)
    hand, line = _JobHand(Assignment(plan, "bicubic-x2", options, str(tmp_path), ())), Line()
    hand.take(list(plan.jobs.to_do()), line, again=False)
    assert [result["record"]["status"] for result in line.results] == ["done"]
    assert hand.facts["model"] == "bicubic-x2"
    assert load(tmp_path / "out/a.png").shape == (48, 64, 3)
