"""`--sensitivity` moves the detector's threshold, and the summary says how much damage was found."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restore import fix_image
from restore.fix.detect import plan_detect, run_detect
from restore.fix.jobs import Job
from restore.fix.options import DetectOptions, FixOptions
from restore.fix.results import ResultRecorder, RunLog, Summary
from restore.fix.sensitivity import less_sensitive, more_sensitive, threshold_of
from restore.fix.steps import Models
from tests.fix.conftest import Filler, Identity, fix_with, logged, photo, save

WORDS = ("gentle", "normal", "strong")


class Graded:
    """Takes the brightness of a pixel for the probability of damage."""

    name, sha256, margin_px, device, precision = "graded", "d" * 64, 0, "cpu", "fp32"

    def __init__(self, threshold: float = 0.6) -> None:
        self.threshold = threshold

    def detect(self, image: np.ndarray, *, tile_px: int, on_event: object) -> np.ndarray:
        return (image.min(axis=2) >= self.threshold).astype(np.float32)

    def adjusted(self, *, threshold: float, margin_px: int | None = None) -> Graded:
        return Graded(threshold)


def ramp() -> np.ndarray:
    """Brightness 0 to 255 from left to right."""
    return np.repeat(np.tile(np.arange(256, dtype=np.uint8), (8, 1))[:, :, None], 3, axis=2)


@pytest.mark.parametrize("normal", [0.001, 0.08, 0.5, 0.92, 0.999])
def test_the_words_order_the_thresholds(normal: float) -> None:
    gentle, own, strong = (threshold_of(word, normal) for word in WORDS)
    assert 1 > gentle > own == normal > strong > 0


def test_a_step_multiplies_the_odds_by_four() -> None:
    odds = [p / (1 - p) for p in (threshold_of(word, 0.3) for word in WORDS)]
    assert [one / two for one, two in itertools.pairwise(odds)] == pytest.approx([4, 4], rel=0.02)


def test_a_number_is_one_minus_the_threshold_whatever_the_detector() -> None:
    assert [threshold_of(0.8, normal) for normal in (0.1, 0.9)] == pytest.approx([0.2, 0.2])


@pytest.mark.parametrize("levels", [WORDS, (0.1, 0.3, "0.5", 0.9)])
def test_more_sensitive_finds_more(levels: tuple[Any, ...], tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", ramp())
    found: dict[str, list[float]] = {"fix": [], "detect": []}
    for number, level in enumerate(levels):
        fix_with(
            tmp_path / "in", tmp_path / f"out{number}", Filler(), masks="auto", detector=Graded(), sensitivity=level,
            log=tmp_path / f"log{number}",
        )  # fmt: skip
        found["fix"].append(logged(tmp_path / f"log{number}")[0]["damaged_fraction"])
        options = DetectOptions(sensitivity=level)
        summary = run_detect(plan_detect(tmp_path / "in", tmp_path / f"masks{number}", options), Graded(), options)
        found["detect"].append(summary.damaged_fraction)
        assert summary.settings["threshold"] == threshold_of(options.sensitivity, 0.6)
    for fractions in found.values():
        assert fractions == sorted(set(fractions)), "strictly more"
    assert found["fix"] == found["detect"]


def test_fix_image_is_as_sensitive() -> None:
    changed = []
    for word in WORDS:
        options = FixOptions(masks="auto", clean_up=False, sensitivity=word)
        after = fix_image(ramp(), model=Models(Filler(), detector=Graded()), options=options)
        changed.append(int((after != ramp()).sum()))
    assert changed == sorted(set(changed))


def test_the_share_is_that_of_the_damage_not_of_the_dilated_mask(tmp_path: Path) -> None:
    image = photo(20, 50)
    image[5:7, 10:20] = 255
    save(tmp_path / "in/a.png", image)
    save(tmp_path / "in/clean.png", photo(20, 50))
    summary = fix_with(
        tmp_path / "in", tmp_path / "out", Filler(), masks="auto", detector=Graded(), mask_dilate=3,
        log=tmp_path / "log",
    )  # fmt: skip
    first, second = logged(tmp_path / "log")
    assert first["damaged_fraction"] == pytest.approx(20 / 1000)
    assert first["mask_coverage"] > 0.05
    assert second["damaged_fraction"] == second["mask_coverage"] == 0
    assert summary.format()[-1] == (
        "damage found in 1 of 2 images, 2.0% of its pixels; in 1 none was found: look at it, "
        "or try --sensitivity strong"
    )
    known = json.loads(json.dumps(summary.to_dict()))
    assert (known["searched"], known["damaged"], known["damaged_fraction"]) == (2, 1, 0.02)


def test_given_masks_are_not_called_found(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", photo(20, 50))
    save(tmp_path / "mask.png", np.full((20, 50), 255, np.uint8))
    summary = fix_with(tmp_path / "in", tmp_path / "out", Filler(), masks=tmp_path / "mask.png", log=tmp_path / "log")
    assert logged(tmp_path / "log")[0]["damaged_fraction"] is None
    assert "damage" not in "".join(summary.format())


@pytest.mark.parametrize(
    ("searched", "damaged", "fraction", "sensitivity", "line"),
    [
        (38, 12, 0.021, "normal", "damage found in 12 of 38 images, 2.1% of their pixels; in 26 none was found: "
         "look at them, or try --sensitivity strong"),
        (38, 37, 0.021, "gentle", "damage found in 37 of 38 images, 2.1% of their pixels; in 1 none was found: "
         "look at it, or try --sensitivity normal"),
        (38, 38, 0.0004, "normal", "damage found in all 38 images, less than 0.1% of their pixels"),
        (38, 0, 0, "strong", "no damage found in 38 images: look at them, or paint a mask"),
        (1, 0, 0, 0.4, "no damage found: look at the image, or try a higher --sensitivity"),
        (1, 1, 0.5, "normal", "damage found in 50.0% of the image"),
    ],
)  # fmt: skip
def test_the_summary_counts_in_plain_words(
    searched: int, damaged: int, fraction: float, sensitivity: Any, line: str
) -> None:
    summary = Summary(
        searched, done=searched, searched=searched, damaged=damaged, damaged_pixels=round(1e6 * fraction),
        pixels_of_damaged=1_000_000 * bool(damaged), settings={"sensitivity": sensitivity},
    )  # fmt: skip
    assert summary.format()[-1] == line


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["a.mkv"], "damage found in 2.0% of the video"),
        (["a.mkv", "b.mkv"], "damage found in all 2 videos, 2.0% of their pixels"),
        (["a.png", "b.mkv"], "damage found in all 2 files, 2.0% of their pixels"),
    ],
)
def test_the_summary_calls_videos_videos(names: list[str], line: str) -> None:
    recorder = ResultRecorder(Summary(len(names)), RunLog(None))
    for name in names:
        job = Job(Path(name), Path("out", name), video=name.endswith("mkv"))
        recorder.finish(job, "done", pixels=1000, damaged_fraction=0.02)
    assert recorder.summary.format()[-1] == line


@pytest.mark.parametrize("command", ["fix", "detect"])
def test_much_damage_is_doubted(command: str, tmp_path: Path) -> None:
    image = photo(20, 50)
    image[:, :14] = 255
    save(tmp_path / "in/a.png", image[:, :45])
    save(tmp_path / "in/b.png", image)
    if command == "fix":
        summary = fix_with(
            tmp_path / "in", tmp_path / "out", Identity(), masks="auto", detector=Graded(), log=tmp_path / "log",
        )  # fmt: skip
        assert [len(line["warnings"]) for line in logged(tmp_path / "log")] == [1, 0]
    else:
        summary = run_detect(plan_detect(tmp_path / "in", tmp_path / "out"), Graded())
    (warning,) = summary.warnings
    assert warning == (
        f"{tmp_path / 'in/a.png'}: damage was found in 31% of the image, which is rarely right: "
        "try --sensitivity gentle, or paint a mask"
    )
    assert warning in summary.format()


def test_advice_ends_where_the_words_do() -> None:
    assert [more_sensitive(one) for one in ("strong", 0.5)] == ["paint a mask", "try a higher --sensitivity"]
    assert [less_sensitive(one) for one in ("gentle", 0.5)] == [
        "paint a mask",
        "try a lower --sensitivity, or paint a mask",
    ]
