"""What the tests of training share."""

from pathlib import Path

import numpy as np
import pytest
from skimage import data as pictures

from restore.images import write_png
from restore.plotting import read_curves
from restore.training import run_dir


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few photographs, two of which fall to validation at 50 %."""
    folder = tmp_path_factory.mktemp("clean")
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        write_png(folder / f"{name}.png", np.ascontiguousarray(getattr(pictures, name)()[60:220, 100:280]))
    return folder


@pytest.fixture(autouse=True)
def quick_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the curves of a run without drawing them: matplotlib would take most of the time of a small run.

    Runs that are fixtures of a module draw theirs, and so does a test that undoes this.
    """
    monkeypatch.setattr(run_dir, "draw_curves", lambda metrics, out: read_curves(metrics))
