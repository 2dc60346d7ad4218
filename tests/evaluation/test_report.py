"""One method against another: paired differences, who got better, what has no counterpart."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

from restore.evaluation.report import EvalReport, ImageScores, compare
from restore.evaluation.report_target import ReportTarget
from restore.evaluation.scoring import score_folders
from restore.evaluation.statistics import bootstrap_interval
from restore.evaluation.tables import baseline_table, report_tables, worst_table

METRICS = ("psnr", "delta_e")
NAMES = [f"sub/{i}" if i % 2 else f"{i}" for i in range(6)]


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Six pictures; the damaged ones have more noise than the restored ones, but for the last."""
    random = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        clean = skimage.data.astronaut()[20 * number :, 100:][:40, :50]
        for folder, sigma in (("clean", 0), ("restored", 6 if number < 5 else 25), ("damaged", 10 + number)):
            noisy = np.clip(clean + random.normal(0, sigma, clean.shape), 0, 255).astype(np.uint8)
            save(tmp_path / folder / f"{name}.png", noisy)
    return {folder: tmp_path / folder for folder in ("clean", "restored", "damaged")}


def compared(folders: dict[str, Path], **options: object) -> EvalReport:
    return score_folders(
        folders["restored"], folders["clean"], baseline_dir=folders["damaged"], metrics=METRICS, **options
    )


def test_differences_are_paired_and_better_follows_the_metrics_direction(folders) -> None:
    report = compared(folders)
    ours = {image.name: image.scores for image in report.images}
    theirs = {i.name: i.scores for i in score_folders(folders["damaged"], folders["clean"], metrics=METRICS).images}
    summary = report.baseline.summary(report)
    for metric in METRICS:
        differences = [ours[name][metric] - theirs[name][metric] for name in ours]
        assert summary[metric] == {
            "mean": pytest.approx(np.mean([theirs[name][metric] for name in ours])),
            "difference": pytest.approx(np.mean(differences)),
            "interval": pytest.approx(bootstrap_interval(differences)),
            "count": 6,
            "infinite": 0,
            "better": 5,
            "worse": 1,
            "equal": 0,
            "share_better": pytest.approx(5 / 6),
        }
    assert summary["psnr"]["difference"] > 0 > summary["delta_e"]["difference"]
    assert report.exit_code == 0
    assert report.problems() == []


def test_the_numbers_are_the_same_again(folders) -> None:
    first, second = (json.dumps(compared(folders).to_json()) for _ in range(2))
    assert first == second


def test_what_the_baseline_lacks_or_has_too_much_or_cannot_be_read_is_named_and_counts(folders) -> None:
    damaged = folders["damaged"]
    (damaged / "0.png").unlink()
    (damaged / "2.png").write_bytes((damaged / "2.png").read_bytes()[:100])
    save(damaged / "4.png", np.zeros((40, 51, 3), np.uint8))
    save(damaged / "nobody.png", np.zeros((40, 50, 3), np.uint8))
    report = compared(folders)
    assert report.exit_code == 1
    assert (report.baseline.missing, report.baseline.unmatched) == (["0"], ["nobody.png"])
    reasons = {failure["name"]: failure["reason"] for failure in report.baseline.failed}
    assert set(reasons) == {"2", "4"}
    assert reasons["4"] == "the sizes differ: baseline is 51×40 but reference is 50×40"
    assert report.baseline.summary(report)["psnr"]["count"] == 3
    assert report.summary()["psnr"]["count"] == 6, "the pictures in question are all scored"
    for line in ("0: not in the baseline", "nobody.png: in the baseline, but without a reference"):
        assert line in report.problems()


def test_what_is_wrong_with_a_reference_is_said_once(folders) -> None:
    (folders["clean"] / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folders["restored"] / "2.png").unlink()
    report = compared(folders)
    assert [failure["name"] for failure in report.failed] == ["0"]
    assert report.baseline.complete
    assert sum(line.startswith("0: ") for line in report.problems()) == 1
    assert [image.name for image in report.images] == ["4", "sub/1", "sub/3", "sub/5"]


def test_an_empty_baseline_is_named(folders) -> None:
    shutil.rmtree(folders["damaged"])
    folders["damaged"].mkdir()
    report = compared(folders)
    assert report.exit_code == 1
    assert report.baseline.missing == [image.name for image in report.images]
    assert "there are no images in this folder" in report.problems()[0]
    assert baseline_table(report).rows[0][1:6] == ["-", "-", "-", "-", "0"]


def of(scores: dict[str, float]) -> EvalReport:
    return EvalReport({}, ("psnr",), [ImageScores(name, {"psnr": value}) for name, value in scores.items()])


def test_identical_pictures_count_for_better_but_not_for_the_difference() -> None:
    report = of({"a": float("inf"), "b": 30.0, "c": float("inf"), "d": 30.0, "e": 31.0})
    other = of({"a": 40.0, "b": float("inf"), "c": float("inf"), "d": 30.0, "e": 29.0})
    report.baseline = compare(report, other, Path("there"))
    line = report.baseline.summary(report)["psnr"]
    assert (line["difference"], line["count"], line["infinite"]) == (1.0, 2, 3)
    assert (line["better"], line["worse"], line["equal"]) == (2, 1, 2)
    row = baseline_table(report).rows[0]
    assert row[4] == "2 of 5 (40 %)"
    assert row[6] == "2 equal; 3 with an identical image (inf), not in the difference"


def test_the_worst_five_are_named_worst_first_and_identical_ones_never() -> None:
    report = of({"a": 30.0, "b": 22.0, "c": float("inf"), "d": 25.0, "e": 31.0, "f": 24.0, "g": 40.0})
    assert [worst["name"] for worst in report.summary()["psnr"]["worst"]] == ["b", "f", "d", "a", "e"]
    assert worst_table(report).rows == [["PSNR (dB)", "b 22.00", "f 24.00", "d 25.00", "a 30.00", "e 31.00"]]


def test_json_and_csv_hold_the_comparison_and_are_known_again_as_reports(folders, tmp_path: Path) -> None:
    report = compared(folders)
    report.write_json(tmp_path / "s.json")
    report.write_csv(tmp_path / "s.csv")
    written = json.loads((tmp_path / "s.json").read_text())
    assert written["baseline"]["folder"] == str(folders["damaged"])
    assert written["baseline"]["summary"]["psnr"]["better"] == 5
    assert set(written["images"][0]["baseline"]) == set(METRICS)
    row = next(csv.DictReader((tmp_path / "s.csv").open()))
    assert list(row) == [
        "name", "psnr", "delta_e", "psnr_baseline", "psnr_difference", "delta_e_baseline", "delta_e_difference", "note",
    ]  # fmt: skip
    assert float(row["psnr"]) - float(row["psnr_baseline"]) == pytest.approx(float(row["psnr_difference"]))
    ReportTarget.check(tmp_path / "s.json", "json")
    ReportTarget.check(tmp_path / "s.csv", "csv")


def test_the_tables_say_it_all(folders) -> None:
    scores, worst, comparison = report_tables(compared(folders))
    assert scores.columns == ["metric", "mean", "95 % interval", "median", "images", "remarks"]
    assert [row[0] for row in scores.rows] == ["PSNR (dB)", "ΔE2000"]
    assert "sub/5" in worst.rows[0][1]
    assert comparison.rows[0][2].startswith("+")
    assert comparison.rows[0][4] == "5 of 6 (83 %)"


def test_many_problems_are_printed_as_ten_lines_and_a_count() -> None:
    report = of({"a": 30.0})
    report.unmatched.restored.extend(f"{number}.png" for number in range(1234))
    report.failed.extend({"name": f"b{number}", "reason": "unreadable"} for number in range(10))
    lines = report.problems(10)
    assert len(lines) == 10 + 11 + 1
    assert lines[19:21] == [
        "9.png: restored, but without a reference",
        "and 1,224 more: restored, but without a reference",
    ]
    assert lines[-1] == "in the table: 1 pairs; not in it: 10 failed, 1234 without a counterpart"
    assert len(report.problems()) == 10 + 1234 + 1, "the HTML report has all of them"
