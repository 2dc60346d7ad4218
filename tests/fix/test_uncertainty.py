"""`fix --uncertainty`: maps of expected errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from restore import fix_image
from restore.errors import RestoreError
from restore.fix import reader, uncertainty
from restore.fix.options import FixOptions
from restore.fix.pages import MemoryPage
from restore.fix.steps import Models
from tests.fix.conftest import Filler, Inverter, fix_with, hole, load, logged, photo, plan_with, save, snapshot
from tests.html.test_write import data_of

HOLE = (4, 6, 12, 20)


class Slanted(Filler):
    """Fills holes with a level that rises from left to right, so that repairs of mirrored images differ there."""

    def __init__(self, slope: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        self.slope, self.seed = slope, seed

    def with_seed(self, seed: int) -> Slanted:
        return Slanted(self.slope, seed)

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        self.calls.append((image.shape[-2], image.shape[-1]))
        return (0.5 + self.slope * torch.linspace(-0.5, 0.5, image.shape[-1])).expand(image.shape).clone()


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    save(tmp_path / "in/a.png", photo(20, 30, 1))
    save(tmp_path / "in/sub/b.jpg", photo(20, 30, 2), quality=95)
    save(tmp_path / "masks/a.png", hole(20, 30, HOLE))
    save(tmp_path / "masks/sub/b.png", hole(20, 30))
    return tmp_path / "in"


def unsure(scans: Path, out: Path, restorer: Inverter | None = None, **options: Any) -> Any:
    chosen = {"masks": scans.parent / "masks", "uncertainty": scans.parent / "maps", **options}
    return fix_with(scans, out, restorer or Slanted(), **chosen)


def test_every_image_has_a_map_that_is_black_outside_its_mask(scans: Path, tmp_path: Path) -> None:
    assert unsure(scans, tmp_path / "out", log=tmp_path / "log.jsonl").exit_code == 0
    assert list(snapshot(tmp_path / "maps")) == ["a.png.png", "sub/b.jpg.png"]
    with Image.open(tmp_path / "maps/a.png.png") as image:
        assert image.mode == "I;16"
    found, inside = load(tmp_path / "maps/a.png.png"), hole(20, 30, HOLE) > 0
    assert found.shape == (20, 30)
    assert (found[inside] > 0).all()
    assert not found[~inside].any()
    assert not load(tmp_path / "maps/sub/b.jpg.png").any()
    mean = {Path(line["input"]).name: line["expected_error"] for line in logged(tmp_path / "log.jsonl")}
    assert mean["a.png"] == pytest.approx(found[inside].mean() / 65535, abs=1e-4)
    assert mean["b.jpg"] is None
    assert f"expected_error {mean['a.png']:.4f}".encode() in (tmp_path / "out/a.png").read_bytes()


def test_output_is_that_of_a_run_without(scans: Path, tmp_path: Path) -> None:
    unsure(scans, tmp_path / "with", provenance=False)
    unsure(scans, tmp_path / "without", provenance=False, uncertainty=None)
    assert snapshot(tmp_path / "with") == snapshot(tmp_path / "without")


def test_more_spread_is_more_error(scans: Path, tmp_path: Path) -> None:
    for name, slope in (("alike", 0.0), ("apart", 1.0)):
        unsure(scans, tmp_path / name, Slanted(slope), uncertainty=tmp_path / f"maps-{name}")
    alike, apart = (load(tmp_path / f"maps-{name}/a.png.png")[8, 8] for name in ("alike", "apart"))
    assert apart > 1.5 * alike


def test_mirrors_and_seeds_of_the_repairs(monkeypatch: pytest.MonkeyPatch, scans: Path, tmp_path: Path) -> None:
    """A restorer that draws the position of every pixel, and its seed."""

    class Marker(Slanted):
        def with_seed(self, seed: int) -> Marker:
            return Marker(seed=seed)

        def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
            assert mask is not None
            out = torch.zeros_like(image)
            out[:, 0], out[:, 1], out[:, 2] = mask[:, 0], image[:, 0] * (1 - mask[:, 0]), self.seed / 10
            return out

    seen: list[np.ndarray] = []

    def remember(repairs: list[np.ndarray], holes: np.ndarray) -> np.ndarray:
        seen.extend(repairs)
        return np.zeros(holes.shape, np.float32)

    monkeypatch.setattr(uncertainty, "expected_error", remember)
    unsure(scans / "a.png", tmp_path / "out.png", Marker(), masks=tmp_path / "masks/a.png", seed=2)
    assert len(seen) == 4
    inside = hole(20, 30, HOLE) > 0
    for number, repair in enumerate(seen):
        assert np.array_equal(repair[~inside], seen[0][~inside]), "mirrored back"
        assert (repair[inside][:, 0] == 1).all()
        assert np.allclose(repair[inside][:, 2], (2 + number) / 10)


def test_page_is_mirrored_as_a_whole() -> None:
    page = MemoryPage(lambda: photo(4, 5).astype(np.float32), hole(4, 5, (0, 0, 1, 2)).astype(np.float32))
    page.condition = np.arange(20, dtype=np.float32).reshape(4, 5, 1)
    other = uncertainty.mirrored(page, True, False)
    assert page.mask is not None
    assert other.mask is not None
    assert other.condition is not None
    assert np.array_equal(other.image, page.image[::-1])
    assert np.array_equal(other.mask, page.mask[::-1])
    assert other.condition[0, 0] == 15


def test_restorer_without_random_choices_is_mirrored_alone(scans: Path, tmp_path: Path) -> None:
    filler = Filler()
    unsure(scans / "a.png", tmp_path / "out.png", filler, masks=tmp_path / "masks/a.png")
    assert len(filler.calls) == 4


def test_expectation_rises_with_each_feature() -> None:
    holes = hole(40, 40, (8, 8, 32, 32)) > 0
    flat = np.full((40, 40, 3), 0.5, np.float32)
    noise = flat + np.random.default_rng(0).normal(0, 0.1, flat.shape).astype(np.float32)
    calm = uncertainty.expected_error([flat] * 4, holes)
    assert calm.shape == (40, 40)
    assert not calm[~holes].any()
    assert uncertainty.expected_error([noise] * 4, holes).sum() > calm.sum(), "contrast"
    assert uncertainty.expected_error([flat, flat, flat, noise], holes).sum() > calm.sum(), "spread"
    assert calm.max() <= 0.2, "nothing speaks for an error here"
    assert not uncertainty.expected_error([flat] * 4, np.zeros((40, 40), bool)).any()
    assert np.isfinite(uncertainty.expected_error([flat] * 4, np.ones((40, 40), bool))).all()


def test_every_page_counts(tmp_path: Path) -> None:
    frames = [Image.fromarray(photo(16, 24, seed=seed)) for seed in (1, 2)]
    frames[0].save(tmp_path / "x.tif", save_all=True, append_images=frames[1:])
    save(tmp_path / "mask.png", hole(16, 24, HOLE))
    options = {"masks": tmp_path / "mask.png", "uncertainty": tmp_path / "maps", "log": tmp_path / "log"}
    fix_with(tmp_path / "x.tif", tmp_path / "y.tif", Slanted(), **options)
    found = load(tmp_path / "maps/x.tif.png")
    assert found.shape == (16, 24)
    assert found.any()
    assert 0 < logged(tmp_path / "log")[0]["expected_error"] <= found.max() / 65535


def test_image_in_parts_is_mapped_in_memory(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "HUGE_PIXELS", 100)
    unsure(scans, tmp_path / "out")
    assert load(tmp_path / "maps/a.png.png").any()


def test_report_shows_the_map_and_all_fills(scans: Path, tmp_path: Path) -> None:
    unsure(scans, tmp_path / "out", fills=3, html_report=tmp_path / "page")
    data = data_of(tmp_path / "page")
    assert data["columns"][0]["title"] == "expected error (%)"
    first = data["rows"][0]
    (view,) = first["views"]
    assert list(view["images"]) == ["before", "a.png", "a.2.png", "a.3.png", "expected error × 4"]
    assert list(view["errors"]) == ["a.png", "a.2.png", "a.3.png"]
    found = load(tmp_path / "maps/a.png.png")
    assert first["scores"][0] == pytest.approx(found[found > 0].mean() / 655.35, rel=0.02)
    shown = load(tmp_path / "page/images" / view["images"]["expected error × 4"])
    assert abs(int(shown[8, 8, 0]) - min(255, round(found[8, 8] / 65535 * 255 * 4))) <= 1


def test_plan_names_the_maps(scans: Path, tmp_path: Path) -> None:
    plan = plan_with(scans, tmp_path / "out", masks=tmp_path / "masks", uncertainty=tmp_path / "maps")
    assert "(maps expected errors to " in plan.format()[0]
    assert plan.to_dict()["jobs"][0]["uncertainty"] == str(tmp_path / "maps/a.png.png")


def test_existing_map_is_not_replaced(scans: Path, tmp_path: Path) -> None:
    save(tmp_path / "maps/a.png.png", photo(4, 4))
    before = snapshot(tmp_path / "maps")
    with pytest.raises(RestoreError, match="exists already"):
        unsure(scans, tmp_path / "out")
    unsure(scans, tmp_path / "out", skip_existing=True)
    assert snapshot(tmp_path / "maps")["a.png.png"] == before["a.png.png"]
    unsure(scans, tmp_path / "out", overwrite=True)
    assert load(tmp_path / "maps/a.png.png").shape == (20, 30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks": None}, "requires --masks"),
        ({"clean_up": True}, "--uncertainty: cannot be combined with --clean-up"),
        ({"scale": 2}, "cannot be combined with --uncertainty"),
        ({"uncertainty": ""}, "--uncertainty: must not be empty"),
        ({"save_masks": "maps", "uncertainty": "maps"}, "needs a folder apart from that of saved masks"),
    ],
)
def test_unfit_options_are_refused(
    scans: Path, tmp_path: Path, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RestoreError, match=message):
        plan_with(scans, tmp_path / "out", **{"masks": tmp_path / "masks", "uncertainty": tmp_path / "maps", **options})


def test_model_that_fills_nothing_is_refused(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="fills no holes"):
        unsure(scans, tmp_path / "out", Inverter())


def test_image_alone_in_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="does not apply to fix_image"):
        fix_image(
            photo(20, 30), model=Models(restorer=Slanted()), mask=hole(20, 30, HOLE),
            options=FixOptions(uncertainty=tmp_path),
        )  # fmt: skip


def test_url_is_refused(scans: Path, tmp_path: Path) -> None:
    from restore.places.plan import plan_places
    from restore.places.urls import is_places_run

    options = FixOptions(masks="alpha", uncertainty="s3://bucket/maps")
    assert is_places_run([scans], tmp_path / "out", options)
    with pytest.raises(RestoreError, match="--uncertainty: cannot be combined with URLs"):
        plan_places([scans], tmp_path / "out", options)
