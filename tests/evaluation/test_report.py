"""One method against another: paired differences, who got better, what has no counterpart."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import skimage
from PIL import Image

from restore.errors import RestoreError
from restore.evaluation.report import (
    JSON_KEYS,
    RESAMPLES,
    EvalReport,
    ImageScores,
    ReportTarget,
    baseline_table,
    bootstrap_interval,
    check_targets,
    compare,
    report_tables,
    worst_table,
)
from restore.evaluation.scoring import score_folders

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
    assert "there are no pictures in this folder" in report.problems()[0]
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
    assert row[6] == "2 equal; 3 with an identical picture (inf), not in the difference"


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
    assert scores.columns == ["metric", "mean", "95 % interval", "median", "pictures", "remarks"]
    assert [row[0] for row in scores.rows] == ["PSNR (dB)", "ΔE2000"]
    assert "sub/5" in worst.rows[0][1]
    assert comparison.rows[0][2].startswith("+")
    assert comparison.rows[0][4] == "5 of 6 (83 %)"


# Intervals of means: what they hold, and that they stay the same.


SAMPLE = np.random.default_rng(0).gamma(2, 3, 60).tolist()


def test_an_interval_is_the_same_in_every_run_and_in_any_order() -> None:
    first = bootstrap_interval(SAMPLE)
    assert first == bootstrap_interval(SAMPLE) == bootstrap_interval(SAMPLE[::-1])
    assert first != bootstrap_interval(SAMPLE, seed=1)


def test_it_is_scipys_percentile_interval() -> None:
    reference = scipy.stats.bootstrap(
        (SAMPLE,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(7)
    ).confidence_interval
    spread = reference.high - reference.low
    assert bootstrap_interval(SAMPLE) == pytest.approx((reference.low, reference.high), abs=0.03 * spread)


def test_it_holds_the_true_mean_about_as_often_as_it_says() -> None:
    samples = np.random.default_rng(1).normal(5, 2, (300, 40))
    held = sum(low <= 5 <= high for low, high in (bootstrap_interval(s, resamples=400) for s in samples))
    assert 0.89 < held / 300 < 0.98


def test_one_picture_says_nothing_and_equal_ones_leave_no_doubt() -> None:
    assert all(math.isnan(end) for end in bootstrap_interval([30.0]))
    assert all(math.isnan(end) for end in bootstrap_interval([]))
    assert bootstrap_interval([2.5] * 9) == (2.5, 2.5)


def test_more_values_than_are_drawn_at_once_are_no_matter() -> None:
    low, high = bootstrap_interval(range(1_200_000), resamples=3)
    assert low < high


# Where reports are written to, and what is never replaced by one.


@pytest.fixture
def report() -> EvalReport:
    return EvalReport({"name": "skimage"}, ("psnr",), [ImageScores("a", {"psnr": 30.0})])


def refused(path: Path, kind: str) -> str:
    with pytest.raises(RestoreError) as caught:
        ReportTarget.check(path, kind)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_an_earlier_report_and_an_empty_file_are_replaced(report: EvalReport, tmp_path: Path) -> None:
    for name, write in (("s.json", report.write_json), ("s.csv", report.write_csv)):
        write(tmp_path / name)
        first = (tmp_path / name).read_bytes()
        write(tmp_path / name)
        (tmp_path / f"empty_{name}").touch()
        write(tmp_path / f"empty_{name}")
        assert (tmp_path / name).read_bytes() == (tmp_path / f"empty_{name}").read_bytes() == first
    assert tuple(json.loads((tmp_path / "s.json").read_bytes())) == JSON_KEYS


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n", b"{}", b"[1]", b'{"summary": 1}', b"{", b"name of my dog", b"name,age\nRex,3\n"]
)
def test_what_is_no_report_is_never_replaced(report: EvalReport, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "mine"
    file.write_bytes(content)
    assert "is no JSON report" in refused(file, "json")
    assert "is no CSV report" in refused(file, "csv")
    with pytest.raises(RestoreError):
        report.write_json(file)
    assert file.read_bytes() == content


def test_reports_of_every_shape_are_known_and_nothing_beside_them(tmp_path: Path) -> None:
    plain = {key: {} for key in JSON_KEYS}
    file = tmp_path / "s.json"
    for extra_pages in ({}, {"baseline": {}}, {"sets": {}}, {"sets": {}, "baseline": {}}):
        file.write_text(json.dumps(plain | extra_pages))
        assert ReportTarget.check(file, "json").whole
    file.write_text(json.dumps(plain | {"mine": 1}))
    assert "is no JSON report" in refused(file, "json")


def test_one_kind_is_no_report_of_the_other(report: EvalReport, tmp_path: Path) -> None:
    report.write_json(tmp_path / "s")
    assert "is no CSV report" in refused(tmp_path / "s", "csv")


def test_a_link_stays_a_link_and_its_file_is_written(report: EvalReport, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    for name in ("new.json", "old.json"):
        (tmp_path / name).symlink_to(Path("kept") / name)
    (tmp_path / "kept" / "old.json").touch()
    for name in ("new.json", "old.json"):
        report.write_json(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert json.loads((tmp_path / "kept" / name).read_bytes())["images"]


def test_a_link_to_a_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / "s.json").symlink_to("a.png")
    assert "s.json: exists" in refused(tmp_path / "s.json", "json")


def test_a_pipe_is_written_into_and_stays_one(report: EvalReport, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    report.write_csv(tmp_path / "pipe")
    reader.join(10)
    assert got[0].startswith(b"name,psnr,note\na,30.0,")
    assert (tmp_path / "pipe").is_fifo()


def test_places_that_cannot_be_written_to_are_known_before(
    report: EvalReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert "no such folder" in refused(tmp_path / "none" / "s.json", "json")
    assert "s.json" in refused(tmp_path / "file" / "s.json", "json")
    assert "is a folder" in refused(tmp_path, "csv")
    report.write_json(tmp_path / "s.json")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and real(path, mode))
    assert "no permission" in refused(tmp_path / "s.json", "json")
    assert "no permission" in refused(tmp_path / "new.json", "json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "s.json"]


def test_one_file_cannot_take_both(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("s")
    with pytest.raises(RestoreError, match="the same place"):
        check_targets(tmp_path / "s", tmp_path / "link")
