"""What `restore train` says at the end of a run."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from restore.cli.main import app
from restore.errors import RestoreError
from restore.training import loop
from restore.training.loop import Result


def ended(result: Result, monkeypatch: pytest.MonkeyPatch, *more: str) -> Any:
    monkeypatch.setattr(loop, "train", lambda config, callbacks, began: result)
    return CliRunner().invoke(app, ["train", "photo", "data.folders=gt", *more])


def test_best_weights_are_named_only_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = ended(Result(tmp_path, 5, True, {"step": 4, "psnr": 30.0}), monkeypatch)
    assert str(tmp_path / "best.safetensors") in done.output
    failed = ended(Result(tmp_path, 5, True, {}), monkeypatch)
    assert isinstance(failed.exception, RestoreError)
    assert failed.exception.exit_code == 3
    assert "without best weights" in str(failed.exception)


def test_the_search_for_a_rate_is_part_of_a_dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = ended(Result(tmp_path, 5, True, {}), monkeypatch, "--lr-finder")
    assert "--lr-finder: requires --dry-run" in str(failed.exception)
