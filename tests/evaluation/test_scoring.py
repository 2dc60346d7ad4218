"""Folders in, a report out: pairing, holes, what is left out and why, JSON, CSV, exit codes."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import skimage
import tifffile
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from restore.errors import RestoreError
from restore.evaluation import scoring
from restore.evaluation.pairs import batches, load_pair, pair_up
from restore.evaluation.scoring import score_folders
from restore.evaluation.statistics import bootstrap_interval
from restore.evaluation.tables import score_table
from restore.metrics import CONVENTIONS
from restore.metrics.fid import FrechetDistance

WEIGHTS = Path(__file__).parents[2] / "../shared/data/weights/squeezenet1_1_fp16.safetensors"
FIDELITY = ("psnr", "ssim")


def picture(height: int = 40, width: int = 50, at: int = 100) -> np.ndarray:
    return skimage.data.astronaut()[at : at + height, at : at + width].copy()


def noisy(image: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    return np.clip(image + np.random.default_rng(seed).normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three pairs: one below a folder, one with another suffix and size."""
    restored, reference = tmp_path / "restored", tmp_path / "reference"
    for i, (name, other, size) in enumerate(
        [("a.png", "a.png", (40, 50)), ("deep/b.png", "deep/b.tif", (40, 50)), ("c.bmp", "c.png", (64, 48))]
    ):
        clean = picture(*size, at=20 * i)
        save(reference / other, clean)
        save(restored / name, noisy(clean, 5 + 10 * i))
    return restored, reference


def loaded(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / name))


def test_every_picture_gets_the_scores_that_scikit_image_gives_it(folders) -> None:
    restored, reference = folders
    report = score_folders(restored, reference, metrics=FIDELITY)
    assert [image.name for image in report.images] == ["a", "c", "deep/b"]
    assert report.exit_code == 0
    for image, (x, y) in zip(report.images, [("a.png",) * 2, ("c.bmp", "c.png"), ("deep/b.png", "deep/b.tif")]):
        a, b = loaded(restored, x), loaded(reference, y)
        assert image.scores["psnr"] == pytest.approx(peak_signal_noise_ratio(b, a), abs=1e-4)
        expected = structural_similarity(
            a / 255,
            b / 255,
            data_range=1,
            channel_axis=-1,
            gaussian_weights=True,
            use_sample_covariance=False,
        )
        assert image.scores["ssim"] == pytest.approx(expected, abs=1e-4)


def test_the_summary_is_the_mean_of_the_pictures_and_never_pooled(folders) -> None:
    report = score_folders(*folders, metrics=FIDELITY)
    values = [image.scores["psnr"] for image in report.images]
    assert report.summary()["psnr"] == {
        "mean": pytest.approx(sum(values) / 3),
        "median": sorted(values)[1],
        "interval": pytest.approx(bootstrap_interval(values)),
        "count": 3,
        "infinite": 0,
        "excluded": 0,
        "worst": [{"name": name, "value": value} for value, name in sorted(zip(values, ["a", "c", "deep/b"]))],
    }


def test_identical_pictures_are_inf_and_counted_apart_from_the_mean(folders, tmp_path: Path) -> None:
    restored, reference = folders
    save(restored / "a.png", loaded(reference, "a.png"))
    report = score_folders(restored, reference, metrics=FIDELITY)
    line = report.summary()["psnr"]
    assert (line["count"], line["infinite"]) == (2, 1)
    assert line["mean"] == pytest.approx(sum(i.scores["psnr"] for i in report.images[1:]) / 2)
    report.write_json(tmp_path / "out.json")
    images = json.loads((tmp_path / "out.json").read_text())["images"]
    assert images[0] == {"name": "a", "psnr": "inf", "ssim": 1.0}
    assert "1 identical (inf), not in the mean" in score_table(report).rows[0][-1]


def test_scores_do_not_depend_on_the_format_or_depth_of_the_same_values(tmp_path: Path) -> None:
    clean = picture()
    damaged = noisy(clean, 20)
    for suffix in ("png", "tif", "bmp"):
        save(tmp_path / f"r/{suffix}.{suffix}", damaged)
        save(tmp_path / f"t/{suffix}.{suffix}", clean)
    for folder, pixels in zip("rt", (damaged, clean)):
        tifffile.imwrite(tmp_path / folder / "deep.tif", pixels.astype(np.uint16) * np.uint16(257), photometric="rgb")
        tifffile.imwrite(tmp_path / folder / "float.tif", pixels.astype(np.float32) / 255, photometric="rgb")
        for name, scale, dtype in (("8", 1, np.uint8), ("16", 257, np.uint16)):
            save(tmp_path / folder / f"gray{name}.png", pixels[..., 0].astype(dtype) * dtype(scale))
    report = score_folders(tmp_path / "r", tmp_path / "t", metrics=("psnr", "ssim", "delta_e"))
    assert report.problems() == []
    by_name = {image.name: image.scores for image in report.images}
    assert by_name["png"] == by_name["tif"] == by_name["bmp"]
    assert by_name["deep"] == pytest.approx(by_name["png"], abs=1e-5)
    assert by_name["float"] == pytest.approx(by_name["png"], abs=1e-5)
    assert by_name["gray16"] == pytest.approx(by_name["gray8"], abs=1e-5)


def test_scores_and_their_summary_do_not_depend_on_the_order_of_the_files(folders, tmp_path: Path) -> None:
    renamed = {"a": "z", "c": "y", "deep/b": "deep/a"}
    for folder in folders:
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            name = renamed[path.relative_to(folder).with_suffix("").as_posix()]
            target = tmp_path / "renamed" / folder.name / f"{name}{path.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    before = score_folders(*folders, metrics=FIDELITY)
    after = score_folders(tmp_path / "renamed/restored", tmp_path / "renamed/reference", metrics=FIDELITY)
    assert {renamed[image.name]: image.scores for image in before.images} == {i.name: i.scores for i in after.images}
    lines = [report.summary()["psnr"] for report in (before, after)]
    assert lines[0]["interval"] == lines[1]["interval"]
    assert lines[0]["mean"] == pytest.approx(lines[1]["mean"], rel=1e-14)


class Colours:
    """In place of FID's network: six features, the mean and the deviation of every channel."""

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.cat([pictures.double().mean((2, 3)), pictures.double().std((2, 3))], 1)

    def describe(self) -> dict[str, object]:
        return {"features": "colours"}


def test_fid_is_one_number_for_the_two_sets_and_another_for_the_baseline(folders, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scoring, "open_inception", lambda *_: Colours())
    monkeypatch.setattr(scoring, "FrechetDistance", lambda: FrechetDistance(6))
    restored, reference = folders
    save(restored / "size.png", picture(40, 50))
    save(reference / "size.png", picture(40, 49))
    report = score_folders(restored, reference, metrics=["psnr", "fid"], baseline_dir=reference)
    expected = FrechetDistance(6)
    for name, other in (("a.png", "a.png"), ("c.bmp", "c.png"), ("deep/b.png", "deep/b.tif")):
        pair = [
            torch.from_numpy(loaded(*where).copy()).permute(2, 0, 1)[None] / 255
            for where in ((restored, name), (reference, other))
        ]
        expected.add(*(Colours().features(x) for x in pair))
    out = report.to_json()
    assert out["sets"]["fid"] == {"value": pytest.approx(expected.value(), rel=1e-5), "images": 3}
    assert out["baseline"]["sets"]["fid"]["value"] == pytest.approx(0, abs=1e-6)
    assert out["convention"]["fid"] == {"features": "colours"}
    assert score_table(report).rows[1][0] == "FID"
    report.write_json(tmp_path / "s.json")
    report.write_json(tmp_path / "s.json")


def test_fid_without_its_weights_says_so_and_counts_since_it_was_asked_for(folders, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise RestoreError("no weights", hint="give some", exit_code=1)

    monkeypatch.setattr(scoring, "open_inception", refuse)
    report = score_folders(*folders, metrics=["psnr", "fid"])
    assert report.exit_code == 1
    assert report.to_json()["sets"]["fid"] == {"value": None, "images": 0, "unavailable": "no weights; give some"}
    assert score_table(report).rows[1] == ["FID", "-", "-", "-", "0", "no weights; give some"]
    assert report.summary()["psnr"]["count"] == 3


def test_files_without_a_counterpart_are_named_on_both_sides(folders) -> None:
    restored, reference = folders
    save(restored / "extra/one.png", picture())
    save(reference / "two.png", picture())
    report = score_folders(restored, reference, metrics=FIDELITY)
    assert (report.unmatched.restored, report.unmatched.reference) == (["extra/one.png"], ["two.png"])
    assert len(report.images) == 3
    assert report.exit_code == 1
    assert "extra/one.png: restored, but without a reference" in report.problems()


def test_what_systems_leave_in_a_folder_is_told_and_not_scored(folders) -> None:
    restored, reference = folders
    save(restored / "@eaDir" / "a.png", picture())
    report = score_folders(restored, reference, metrics=["psnr"], device="cpu")
    assert report.warnings == ["left out, as hidden or made by a system: @eaDir; not scored"]
    assert (report.exit_code, report.to_json()["warnings"]) == (0, report.warnings)


def test_nothing_in_common_is_a_report_without_scores(tmp_path: Path) -> None:
    save(tmp_path / "r/x.png", picture())
    save(tmp_path / "t/y.png", picture())
    report = score_folders(tmp_path / "r", tmp_path / "t", metrics=FIDELITY)
    assert report.exit_code == 1
    assert report.to_json()["summary"]["psnr"]["mean"] is None
    assert score_table(report).rows[0][:5] == ["PSNR (dB)", "-", "-", "-", "0"]


def test_one_bad_pair_is_named_and_the_others_are_scored(folders, tmp_path: Path) -> None:
    restored, reference = folders
    save(restored / "size.png", picture(40, 50))
    save(reference / "size.png", picture(40, 49))
    (restored / "broken.png").write_bytes((restored / "a.png").read_bytes()[:200])
    save(reference / "broken.png", picture())
    save(restored / "twice.png", picture())
    save(restored / "twice.bmp", picture())
    save(reference / "twice.png", picture())
    not_a_number = np.full((40, 50), 0.5, np.float32)
    not_a_number[3, 4] = np.nan
    save(restored / "nan.tif", not_a_number)
    save(reference / "nan.tif", np.full((40, 50), 0.5, np.float32))
    calls: list[tuple[int, int]] = []
    report = score_folders(restored, reference, metrics=FIDELITY, progress=lambda *done: calls.append(done))
    reasons = {failure["name"]: failure["reason"] for failure in report.failed}
    assert set(reasons) == {"size", "broken", "twice", "nan"}
    assert "restored is 50×40 but reference is 49×40" in reasons["size"]
    assert "broken.png" in reasons["broken"]
    assert "twice.bmp, twice.png" in reasons["twice"]
    assert "nan.tif" in reasons["nan"]
    assert "NaN or Inf" in reasons["nan"]
    assert [image.name for image in report.images] == ["a", "c", "deep/b"]
    assert report.exit_code == 1
    assert calls[-1] == (6, 6)
    report.write_csv(tmp_path / "out.csv")
    rows = {row["name"]: row for row in csv.DictReader((tmp_path / "out.csv").open())}
    assert rows["size"]["psnr"] == ""
    assert "sizes differ" in rows["size"]["note"]
    assert float(rows["a"]["psnr"]) == report.images[0].scores["psnr"]


def test_a_picture_too_small_for_ssim_is_left_out_of_its_mean_and_said_so(folders) -> None:
    restored, reference = folders
    save(restored / "tiny.png", picture(10, 30))
    save(reference / "tiny.png", picture(10, 30, at=40))
    report = score_folders(restored, reference, metrics=FIDELITY)
    assert report.summary()["ssim"]["excluded"] == 1
    assert report.summary()["psnr"]["excluded"] == 0
    tiny = next(row for row in report.to_json()["images"] if row["name"] == "tiny")
    assert tiny["ssim"] is None
    assert tiny["excluded"] == {"ssim": "smaller than 11 px"}
    assert "1 without a value (smaller than 11 px)" in score_table(report).rows[1][-1]
    assert report.exit_code == 0


@pytest.fixture
def masked(folders, tmp_path: Path) -> tuple[Path, Path, Path]:
    """`folders` and a mask for each, one of them called NAME_mask."""
    hole = np.zeros((40, 50), np.uint8)
    hole[10:20, 5:30] = 255
    save(tmp_path / "masks/a.png", hole)
    save(tmp_path / "masks/deep/b_mask.png", hole)
    save(tmp_path / "masks/c.png", np.pad(hole, ((0, 24), (0, 0)))[:, :48])
    return (*folders, tmp_path / "masks")


def test_the_hole_is_scored_apart_from_the_whole(masked) -> None:
    restored, reference, masks = masked
    report = score_folders(restored, reference, masks=masks, metrics=FIDELITY)
    assert report.metrics == ("psnr", "ssim", "psnr_hole", "seam")
    assert report.exit_code == 0
    a, b = (loaded(folder, "a.png")[10:20, 5:30] for folder in (restored, reference))
    assert report.images[0].scores["psnr_hole"] == pytest.approx(peak_signal_noise_ratio(b, a), abs=1e-4)
    assert "mask" in report.convention["psnr_hole"]["region"]


@pytest.mark.parametrize("name", ["deep/b.png.png", "deep/B_MASK.png", "deep/b-mask.tif"])
def test_masks_have_the_names_that_a_repair_takes(masked, name) -> None:
    restored, reference, masks = masked
    expected = score_folders(restored, reference, masks=masks, metrics=FIDELITY)
    (masks / "deep/b_mask.png").rename(masks / name)
    report = score_folders(restored, reference, masks=masks, metrics=FIDELITY)
    assert report.to_json()["images"] == expected.to_json()["images"]
    assert report.unmatched.masks == report.unmatched.without_mask == []


def test_a_name_of_several_files_says_what_to_do(folders) -> None:
    restored, reference = folders
    save(reference / "a.bmp", picture())
    (failed,) = pair_up(restored, reference, None).failed
    assert failed == {"name": "a", "reason": "several files have this name: a.bmp, a.png; rename all but one"}


def test_files_that_differ_only_in_their_suffix_are_paired_with_their_namesakes(tmp_path) -> None:
    for folder in ("restored", "reference"):
        (tmp_path / folder).mkdir()
        for name in ("a.bmp", "a.png", "b.png"):
            save(tmp_path / folder / name, picture())
    (tmp_path / "masks").mkdir()
    for name in ("a.png.png", "b.png"):
        save(tmp_path / "masks" / name, picture())
    paired = pair_up(tmp_path / "restored", tmp_path / "reference", tmp_path / "masks")
    assert not paired.failed
    assert paired.unmatched.without_mask == ["a.bmp"]
    files = [(p.name, p.restored.name, p.reference.name, p.mask and p.mask.name) for p in paired.pairs]
    assert files == [
        ("a.bmp", "a.bmp", "a.bmp", None),
        ("a.png", "a.png", "a.png", "a.png.png"),
        ("b", "b.png", "b.png", "b.png"),
    ]
    (tmp_path / "reference/a.bmp").unlink()
    (failed,) = pair_up(tmp_path / "restored", tmp_path / "reference", None).failed
    assert failed["name"] == "a"


def test_masks_that_do_not_serve_are_named_and_the_whole_picture_is_still_scored(masked) -> None:
    restored, reference, masks = masked
    save(masks / "a.png", np.zeros((40, 50), np.uint8))
    save(masks / "c.png", np.full((5, 5), 255, np.uint8))
    (masks / "deep/b_mask.png").rename(masks / "deep/nobody.png")
    report = score_folders(restored, reference, masks=masks, metrics=FIDELITY)
    reasons = {failure["name"]: failure["reason"] for failure in report.failed}
    assert set(reasons) == {"a", "c"}
    assert "no white" in reasons["a"]
    assert "c.png" in reasons["c"]
    assert report.unmatched.masks == ["deep/nobody.png"]
    assert report.unmatched.without_mask == ["deep/b"]
    assert report.summary()["psnr"]["count"] == 3
    assert report.summary()["psnr_hole"]["excluded"] == 3
    assert report.exit_code == 1


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="no SqueezeNet backbone beside the repository")
def test_lpips_from_a_file_names_its_backbone(masked) -> None:
    restored, reference, masks = masked
    save(restored / "tiny.png", picture(12, 30))
    save(reference / "tiny.png", picture(12, 30, at=40))
    save(masks / "tiny.png", np.full((12, 30), 255, np.uint8))
    report = score_folders(restored, reference, masks=masks, lpips_net="squeeze", lpips_weights=WEIGHTS)
    assert report.metrics == ("psnr", "ssim", "lpips", "psnr_hole", "lpips_hole", "seam")
    assert report.convention["lpips"]["backbone"] == "squeeze"
    assert report.convention["lpips"]["weights"] == WEIGHTS.name
    noise = {image.name: image.scores.get("lpips") for image in report.images}
    assert 0 < noise["a"] < noise["deep/b"]
    assert report.images[-1].excluded == {
        "lpips": "smaller than 17 px",
        "lpips_hole": "smaller than 17 px",
        "seam": "the hole covers the whole image",
    }
    assert report.exit_code == 0


def test_without_a_backbone_the_column_says_why_and_the_other_scores_stand(
    folders, monkeypatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise RestoreError("no backbone", hint="give one", exit_code=1)

    monkeypatch.setattr("restore.metrics.lpips.open_lpips", refuse)
    report = score_folders(*folders)
    assert report.to_json()["summary"]["lpips"] == {
        "mean": None,
        "median": None,
        "interval": None,
        "count": 0,
        "infinite": 0,
        "excluded": 3,
        "worst": [],
        "unavailable": "no backbone; give one",
    }
    assert report.convention["lpips"] == {"backbone": "alex"}
    assert score_table(report).rows[2] == ["LPIPS", "-", "-", "-", "0", "no backbone; give one"]
    assert report.summary()["ssim"]["count"] == 3
    assert report.exit_code == 0
    report.write_csv(tmp_path / "out.csv")
    row = next(csv.DictReader((tmp_path / "out.csv").open()))
    assert (row["lpips"], row["note"]) == ("", "lpips: no backbone; give one")


def test_json_has_the_documented_layout(masked, tmp_path: Path) -> None:
    restored, reference, masks = masked
    report = score_folders(
        restored, reference, masks=masks, metrics=["ssim", "psnr"], convention="y-channel", border_px=2
    )
    (tmp_path / "deep").mkdir()
    report.write_json(tmp_path / "deep/out.json")
    out = json.loads((tmp_path / "deep/out.json").read_text())
    assert list(out) == ["convention", "summary", "images", "unmatched", "failed"]
    assert out["convention"]["name"] == "y-channel"
    assert set(out["convention"]) == {"name", "pairing", "psnr", "ssim", "psnr_hole", "seam", "interval"}
    assert out["convention"]["interval"]["resamples"] == 10_000
    for metric in ("psnr", "ssim", "psnr_hole"):
        assert {"colour", "data_range", "border_px", "region"} <= set(out["convention"][metric])
        assert out["convention"][metric]["border_px"] == 2
    assert list(out["images"][0]) == ["name", "psnr", "ssim", "psnr_hole", "seam"]
    assert set(out["unmatched"]) == {"restored", "reference", "masks", "without_mask", "empty"}
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["out.json"]


def test_wrong_wishes_are_refused_with_what_is_known(folders, tmp_path: Path) -> None:
    for wish, expected in (
        ({"metrics": ["psnr", "sim"]}, "did you mean 'ssim'. known: psnr, ssim, ms_ssim, lpips"),
        ({"metrics": ["seam"]}, "give --masks"),
        ({"metrics": []}, "known: psnr"),
        ({"convention": "ipol"}, "skimage, matlab, y-channel"),
        ({"lpips_net": "resnet"}, "alex, vgg, squeeze"),
        ({"lpips_weights": tmp_path / "absent.pth"}, "absent.pth"),
        ({"device": "tpu"}, "cpu"),
        ({"masks": tmp_path / "absent"}, "absent"),
    ):
        with pytest.raises(RestoreError, match=expected) as caught:
            score_folders(*folders, **wish)
        assert caught.value.exit_code == 2


def test_a_missing_folder_is_a_wrong_command(folders, tmp_path: Path) -> None:
    for given in ({}, {"baseline_dir": tmp_path / "absent"}):
        with pytest.raises(RestoreError, match="absent") as caught:
            score_folders(folders[0], folders[1] if given else tmp_path / "absent", **given)
        assert caught.value.exit_code == 2


def test_an_empty_folder_is_named_with_all_that_has_no_counterpart_in_it(folders, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    report = score_folders(tmp_path / "empty", folders[1], metrics=FIDELITY)
    assert report.exit_code == 1
    assert report.problems() == [
        f"{tmp_path}/empty: there are no images in this folder",
        "a.png: reference without a restored image",
        "c.png: reference without a restored image",
        "deep/b.tif: reference without a restored image",
        "in the table: 0 pairs; not in it: 3 without a counterpart",
    ]


def scorer() -> scoring.Scorer:
    return scoring.Scorer(scoring.MetricSuite(FIDELITY, CONVENTIONS["skimage"]), torch.device("cpu"))


def test_pairs_scored_as_batches_get_the_same_scores(folders) -> None:
    alone = score_folders(*folders, metrics=FIDELITY)
    save(folders[0] / "a2.png", loaded(folders[0], "a.png"))
    save(folders[1] / "a2.png", loaded(folders[1], "a.png"))
    together = score_folders(*folders, metrics=FIDELITY)
    pairs = [load_pair(pair) for pair in pair_up(*folders, None).pairs]
    found = list(batches(pairs))
    assert [[pair.name for pair in batch] for batch in found] == [["a", "a2"], ["c"], ["deep/b"]]
    by_batch = {image.name: image.scores for batch in found for image in scorer()(batch).images}
    assert {image.name: pytest.approx(image.scores, abs=1e-9) for image in together.images} == by_batch
    assert all(pytest.approx(image.scores, abs=1e-9) == by_batch[image.name] for image in alone.images)


def test_scoring_leaves_the_number_of_threads_alone(folders) -> None:
    before = torch.get_num_threads()
    score_folders(*folders, metrics=FIDELITY)
    assert torch.get_num_threads() == before


def test_what_a_device_has_no_memory_for_is_tried_alone_and_then_named(folders, monkeypatch) -> None:
    def scarce(restored, *rest, **options):
        if len(restored) > 1 or restored.shape[-2] > 40:
            raise torch.OutOfMemoryError
        return real(restored, *rest, **options)

    real = scoring.score_batch
    monkeypatch.setattr(scoring, "score_batch", scarce)
    pairs = [load_pair(pair) for pair in pair_up(*folders, None).pairs]
    assert all(set(image.scores) == set(FIDELITY) for image in scorer()([pairs[0], pairs[2]]).images)
    report = score_folders(*folders, metrics=FIDELITY, device="cpu")
    assert [failure["name"] for failure in report.failed] == ["c"]
    assert "out of memory" in report.failed[0]["reason"]
    assert report.exit_code == 1


@pytest.mark.skipif(os.name == "nt", reason="file names there are never odd bytes")
def test_a_name_of_odd_bytes_survives_csv_and_json(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.png")
    for folder in "rt":
        save(tmp_path / folder / "x.png", picture())
        (tmp_path / folder / "x.png").rename(tmp_path / folder / odd)
    report = score_folders(tmp_path / "r", tmp_path / "t", metrics=FIDELITY)
    report.write_csv(tmp_path / "out.csv")
    report.write_json(tmp_path / "out.json")
    assert b"caf\xe9,inf" in (tmp_path / "out.csv").read_bytes()
    assert json.loads((tmp_path / "out.json").read_text())["images"][0]["name"] == odd.removesuffix(".png")


def test_two_single_files_are_a_pair_whatever_their_names(tmp_path: Path) -> None:
    clean = picture()
    save(tmp_path / "x" / "by_mine.png", noisy(clean, 5))
    save(tmp_path / "y" / "truth.tif", clean)
    save(tmp_path / "z" / "scan.png", noisy(clean, 20))
    mask = np.zeros(clean.shape[:2], np.uint8)
    mask[10:20, 10:30] = 255
    save(tmp_path / "hole.png", mask)
    report = score_folders(
        tmp_path / "x" / "by_mine.png", tmp_path / "y" / "truth.tif", baseline_dir=tmp_path / "z" / "scan.png",
        masks=tmp_path / "hole.png", metrics=["psnr"],
    )  # fmt: skip
    expected = peak_signal_noise_ratio(clean, noisy(clean, 5))
    (scores,) = report.images
    assert scores.name == "truth"
    assert scores.scores["psnr"] == pytest.approx(expected, abs=1e-4)
    assert "psnr_hole" in scores.scores
    assert report.exit_code == 0
    assert report.baseline is not None
    assert report.baseline.scores["truth"]["psnr"] < expected
    for one, other, match in (
        (tmp_path / "x" / "by_mine.png", tmp_path / "y", "this is a file, and the other a folder"),
        (tmp_path / "x" / "by_mine.png", tmp_path / "none.png", r"none\.png: there is no such file"),
    ):
        with pytest.raises(RestoreError, match=match) as error:
            score_folders(one, other, metrics=["psnr"])
        assert error.value.exit_code == 2


def test_an_ending_that_the_references_lack_is_left_out(tmp_path: Path) -> None:
    clean = picture()
    for name in ("0001", "city/0002"):
        save(tmp_path / "clean" / f"{name}.png", clean)
        save(tmp_path / "up" / f"{name}x4.png", noisy(clean, 5))
        save(tmp_path / "masks" / f"{name}.png", np.full(clean.shape[:2], 255, np.uint8))
    plain = score_folders(tmp_path / "up", tmp_path / "clean", metrics=["psnr"])
    assert plain.images == []
    report = score_folders(tmp_path / "up", tmp_path / "clean", masks=tmp_path / "masks", metrics=["psnr"], suffix="x4")
    assert [image.name for image in report.images] == ["0001", "city/0002"]
    assert all("psnr_hole" in image.scores for image in report.images)
    assert report.exit_code == 0
    assert "'x4'" in report.convention["pairing"]
