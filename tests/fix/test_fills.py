"""`fix --fills`: several fills of one hole, which differ in the hole alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from restore import fix_image
from restore.errors import RestoreError
from restore.fix import reader
from restore.fix.options import FixOptions
from restore.fix.steps import Models
from restore.restorers.classical import CLASSICAL
from restore.restorers.registry import open_restorer
from tests.fix.conftest import Filler, fix_with, hole, load, logged, photo, plan_with, save, snapshot
from tests.fix.test_sensitivity import Graded

HOLE = (4, 6, 12, 20)


class Seeded(Filler):
    """Fills holes with a level that follows from its seed."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def with_seed(self, seed: int) -> Seeded:
        return Seeded(seed)

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        return image.new_full(image.shape, 1 - 0.1 * self.seed)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    save(tmp_path / "in/a.png", photo(20, 30, 1))
    save(tmp_path / "in/sub/b.jpg", photo(20, 30, 2), quality=95)
    for name in ("a", "sub/b"):
        save(tmp_path / f"masks/{name}.png", hole(20, 30, HOLE))
    return tmp_path / "in"


def fill(scans: Path, out: Path, restorer: Filler | None = None, **options: Any) -> Any:
    return fix_with(scans, out, restorer or Seeded(), masks=scans.parent / "masks", **options)


def test_each_fill_is_a_file_and_differs_in_the_hole_alone(scans: Path, tmp_path: Path) -> None:
    summary = fill(scans, tmp_path / "out", fills=3)
    assert summary.exit_code == 0
    names = ["a.2.png", "a.3.png", "a.png", "sub/b.2.jpg", "sub/b.3.jpg", "sub/b.jpg"]
    assert list(snapshot(tmp_path / "out")) == names
    outside = hole(20, 30, HOLE) == 0
    for name, level in (("a.png", 255), ("a.2.png", 230), ("a.3.png", 204)):
        found = load(tmp_path / "out" / name)
        assert np.array_equal(found[outside], load(scans / "a.png")[outside])
        assert abs(int(found[8, 10, 0]) - level) <= 1


def test_the_first_fill_is_that_of_a_run_without(scans: Path, tmp_path: Path) -> None:
    fill(scans, tmp_path / "one", provenance=False)
    fill(scans, tmp_path / "three", provenance=False, fills=3)
    fill(scans, tmp_path / "seed", provenance=False, seed=2)
    one, three, seed = (snapshot(tmp_path / name) for name in ("one", "three", "seed"))
    assert three["a.png"] == one["a.png"]
    assert three["a.3.png"] == seed["a.png"]


def test_seed_moves_all_fills(scans: Path, tmp_path: Path) -> None:
    fill(scans, tmp_path / "out", fills=2, seed=3)
    assert abs(int(load(tmp_path / "out/a.2.png")[8, 10, 0]) - round(0.6 * 255)) <= 1


def test_detected_damage_is_filled_several_times(tmp_path: Path) -> None:
    image = photo(20, 30)
    image[2:5, 3:9] = 255
    save(tmp_path / "x.png", image)
    fix_with(tmp_path / "x.png", tmp_path / "y.png", Seeded(seed=1), masks="auto", detector=Graded(), fills=2, seed=4)
    first, second = (load(tmp_path / name) for name in ("y.png", "y.2.png"))
    different = (first != second).any(axis=2)
    assert different[2:5, 3:9].all()
    different[2:5, 3:9] = False
    assert not different.any()


def test_every_page_is_filled(tmp_path: Path) -> None:
    from PIL import Image

    frames = [Image.fromarray(photo(16, 24, seed=seed)) for seed in (1, 2)]
    frames[0].save(tmp_path / "x.tif", save_all=True, append_images=frames[1:])
    save(tmp_path / "mask.png", hole(16, 24, HOLE))
    fix_with(tmp_path / "x.tif", tmp_path / "y.tif", Seeded(), masks=tmp_path / "mask.png", fills=2)
    with Image.open(tmp_path / "y.2.tif") as found:
        for number in range(2):
            found.seek(number)
            assert abs(int(np.asarray(found)[8, 10, 0]) - 230) <= 1


def test_image_in_parts_is_filled_in_memory(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "HUGE_PIXELS", 100)
    fill(scans, tmp_path / "out", fills=2)
    assert abs(int(load(tmp_path / "out/a.2.png")[8, 10, 0]) - 230) <= 1


def test_same_fills_are_told(scans: Path, tmp_path: Path) -> None:
    class Alike(Seeded):
        def with_seed(self, seed: int) -> Alike:
            return Alike()

    fill(scans, tmp_path / "out", Alike(), fills=2, log=tmp_path / "log.jsonl")
    assert any("all fills are the same" in w for line in logged(tmp_path / "log.jsonl") for w in line["warnings"])


def test_plan_names_all_fills(scans: Path, tmp_path: Path) -> None:
    plan = plan_with(scans, tmp_path / "out", masks=tmp_path / "masks", fills=3)
    assert "(and 2 more fills, to " in plan.format()[0]
    assert [Path(name).name for name in plan.to_dict()["jobs"][0]["fills"]] == ["a.2.png", "a.3.png"]
    json.dumps(plan.to_dict())


def test_existing_fill_is_not_replaced(scans: Path, tmp_path: Path) -> None:
    save(tmp_path / "out/a.2.png", photo(4, 4))
    before = snapshot(tmp_path / "out")
    with pytest.raises(RestoreError, match="exists already") as error:
        fill(scans, tmp_path / "out", fills=2)
    assert str(error.value.where).endswith("a.2.png")
    assert snapshot(tmp_path / "out") == before
    assert fill(scans, tmp_path / "out", fills=2, overwrite=True).exit_code == 0


def test_finished_image_is_skipped(scans: Path, tmp_path: Path) -> None:
    fill(scans, tmp_path / "out", fills=2)
    before = snapshot(tmp_path / "out")
    assert fill(scans, tmp_path / "out", fills=2, skip_existing=True).skipped == {"the output exists": 2}
    assert snapshot(tmp_path / "out") == before


def test_fill_with_the_name_of_another_image_is_refused(scans: Path, tmp_path: Path) -> None:
    save(scans / "a.2.png", photo(20, 30))
    save(tmp_path / "masks/a.2.png", hole(20, 30, HOLE))
    with pytest.raises(RestoreError, match="would both be written here"):
        plan_with(scans, tmp_path / "out", masks=tmp_path / "masks", fills=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks": None}, "requires --masks"),
        ({"clean_up": True}, "cannot be combined with --clean-up"),
        ({"masks": "auto"}, "cannot be combined with --clean-up"),
        ({"fills": 0}, "must be an integer between 1 and 99"),
    ],
)
def test_unfit_options_are_refused(scans: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RestoreError, match=message):
        plan_with(scans, tmp_path / "out", **{"masks": tmp_path / "masks", "fills": 2, **options})


def test_filler_without_random_choices_is_refused(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="makes no random choices") as error:
        fill(scans, tmp_path / "out", CLASSICAL["telea"](), fills=2)
    assert error.value.where == "--fills"


def test_image_alone_in_memory_is_refused() -> None:
    models = Models(restorer=Seeded())
    with pytest.raises(RestoreError, match="only applies to files and folders"):
        fix_image(photo(20, 30), model=models, mask=hole(20, 30, HOLE), options=FixOptions(fills=2))


def test_texture_differs_in_a_deep_hole(tmp_path: Path) -> None:
    """With the default filler."""
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    save(tmp_path / "x.png", noise)
    save(tmp_path / "mask.png", hole(96, 96, (30, 30, 66, 66)))
    inpaint = open_restorer("inpaint", device="cpu", precision="fp32", engine="torch")
    fix_with(tmp_path / "x.png", tmp_path / "y.png", inpaint, masks=tmp_path / "mask.png", fills=2)
    first, second = (load(tmp_path / name).astype(int) for name in ("y.png", "y.2.png"))
    inside = hole(96, 96, (30, 30, 66, 66)) > 0
    assert np.abs(first - second)[inside].mean() > 1
    assert np.array_equal(first[~inside], second[~inside])
