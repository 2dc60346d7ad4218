"""A name pairs with itself in any Unicode normalization: macOS stores é as two characters, other systems as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from restore.data.readers import match_pairs
from restore.degradations.write import write_degraded
from restore.evaluation.pairs import pair_up
from restore.images import read_rgb8
from tests.fix.conftest import photo, plan_with, save

ONE, TWO = "caf\u00e9", "cafe\u0301"


def test_images_masks_and_references_pair(tmp_path: Path) -> None:
    save(tmp_path / "in" / f"{ONE}/{TWO}.png", photo(8, 8))
    save(tmp_path / "out" / f"{TWO}/{ONE}.png", photo(8, 8))
    save(tmp_path / "masks" / f"{TWO}/{ONE}_mask.png", photo(8, 8))
    (pair,) = pair_up(tmp_path / "in", tmp_path / "out", tmp_path / "masks").pairs
    assert pair.mask == tmp_path / "masks" / f"{TWO}/{ONE}_mask.png"
    assert match_pairs(tmp_path / "in", tmp_path / "out") == {
        tmp_path / "in" / f"{ONE}/{TWO}.png": tmp_path / "out" / f"{TWO}/{ONE}.png"
    }
    plan = plan_with(tmp_path / "in", tmp_path / "new", masks=tmp_path / "masks")
    assert [job.mask for job in plan.jobs] == [pair.mask]


def test_the_degradation_of_a_file_depends_on_its_name_not_on_how_it_is_stored(tmp_path: Path) -> None:
    for name in (ONE, TWO):
        save(tmp_path / ascii(name) / f"{name}.png", photo(16, 16))
        write_degraded(tmp_path / ascii(name), tmp_path / f"out{name!a}", "inpaint-thin", workers=1)
    one, two = (read_rgb8(tmp_path / f"out{name!a}" / "damaged" / f"{name}.png") for name in (ONE, TWO))
    assert np.array_equal(one, two)
