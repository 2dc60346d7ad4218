"""What the tests of training share."""

from pathlib import Path

import numpy as np
import pytest
from skimage import data as pictures

from restore.images import write_png


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few photographs, two of which fall to validation at 50 %."""
    folder = tmp_path_factory.mktemp("clean")
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        write_png(folder / f"{name}.png", np.ascontiguousarray(getattr(pictures, name)()[60:220, 100:280]))
    return folder
