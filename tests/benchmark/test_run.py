"""A benchmark from folder to table: what is run, what is kept, what is left out, what fails."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch

from restore.benchmark.degradations import find_degradations
from restore.benchmark.plan import default_models, plan_bench
from restore.benchmark.report import table_lines, table_notes, write_tables
from restore.benchmark.run import INPUT, BenchResults, ScoredSample, run_bench, to_uint8
from restore.benchmark.worker import Worker
from restore.checkpoints import Description, save_weights, shipped_weights
from restore.degradations.resize import downscaled
from restore.errors import RestoreError
from restore.images import read_rgb8, write_png
from restore.metrics import psnr, score_batch
from restore.metrics.conventions import CONVENTIONS
from restore.models.unet import UNet
from restore.restorers.enlarging import interpolated


def photo(at: int, height: int = 40, width: int = 56) -> np.ndarray:
    return np.ascontiguousarray(skimage.data.astronaut()[at : at + height, at : at + width])


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Two small photographs, one in a subfolder."""
    folder = tmp_path / "clean"
    (folder / "sub").mkdir(parents=True)
    write_png(folder / "a.png", photo(60))
    write_png(folder / "sub" / "b.png", photo(120))
    return folder


@pytest.fixture
def bench(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., BenchResults]:
    """Run one in `tmp_path/out`, on the CPU, without LPIPS."""

    def no_backbone(*_: object) -> None:
        raise RestoreError("no backbone here", exit_code=1)

    monkeypatch.setattr("restore.metrics.lpips.open_lpips", no_backbone)

    def run(*damages: str, models: tuple[str, ...] = ("tv",), folder: Path = clean, **options: object) -> BenchResults:
        plan = plan_bench(folder, tmp_path / "out", degradations=damages, models=models, device="cpu", **options)
        return run_bench(plan)

    return run


def sample(results: BenchResults, model: str, picture: str, damage: str | None = None) -> ScoredSample:
    (found,) = (
        s for s in results.samples if s.model == model and s.image == picture and damage in (None, s.degradation)
    )
    return found


def as_image(pixels: np.ndarray) -> torch.Tensor:
    return torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255


def test_every_model_is_run_on_every_damage_that_it_is_for(bench, clean: Path) -> None:
    results = bench("awgn-25", "inpaint-thin", models=("tv", "telea"))
    cells = {(s.degradation, s.model) for s in results.samples}
    expected = {("awgn-25", INPUT), ("awgn-25", "tv")}
    expected |= {("inpaint-thin", INPUT), ("inpaint-thin", "telea"), ("inpaint-thin", "tv")}
    assert cells == expected
    assert {s.image for s in results.samples} == {"a", "sub/b"}
    assert (results.restored, results.cached, results.exit_code) == (6, 0, 0)
    assert [left.format() for left in results.plan.skipped] == [
        "telea is left out on awgn-25: it fills holes, and this damage has none",
    ]
    made = sample(results, "tv", "a", "awgn-25")
    assert made.result is not None
    scored = score_batch(as_image(read_rgb8(made.result.path)), as_image(read_rgb8(clean / "a.png")))
    assert made.scores == {name: float(value) for name, value in scored.items()}
    assert made.scores["psnr"] > sample(results, INPUT, "a", "awgn-25").scores["psnr"] + 3
    filled = sample(results, "telea", "a")
    assert filled.scores["psnr_hole"] < filled.scores["psnr"]
    assert made.result.stats["peak_bytes"] > 50e6


def test_a_network_without_a_mask_channel_keeps_the_pixels_around_holes_as_fix_does(
    bench, clean: Path, tmp_path: Path
) -> None:
    results = bench("inpaint-thin", models=("photo",), precision="fp32")
    made = sample(results, "photo", "a")
    assert made.result is not None
    (degradation,) = results.plan.degradations
    case = degradation.degrade(read_rgb8(clean / "a.png"), "a")
    assert case.mask is not None
    hole = case.mask[0, 0].numpy() > 0
    restored = read_rgb8(made.result.path)
    assert np.array_equal(restored[~hole], to_uint8(case.degraded)[~hole])
    assert not np.array_equal(restored[hole], to_uint8(case.degraded)[hole])
    write_png(tmp_path / "damaged.png", to_uint8(case.degraded))
    write_png(tmp_path / "mask.png", hole[:, :, None].astype(np.uint8) * 255)
    command = ["fix", "damaged.png", "fixed.png", "--model", "photo", "--masks", "mask.png", "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "restore.cli", *command, "--precision", "fp32"], cwd=tmp_path, check=True)
    assert np.array_equal(restored, read_rgb8(tmp_path / "fixed.png"))


def test_models_are_called_by_their_label_their_name_or_their_path(bench, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        shutil.copy(shipped_weights()["photo"], tmp_path / folder / "net.safetensors")
    paths = [str(tmp_path / folder / "net.safetensors") for folder in ("one", "two")]
    results = bench("none", models=("photo", f"mine={paths[0]}", *paths), precision="fp32")
    assert [model.label for model in results.plan.models()] == ["photo", "mine", *paths]
    with pytest.raises(RestoreError, match="two models are called 'tv'"):
        bench("none", models=("tv", f"tv={paths[0]}"))


def test_the_same_command_again_runs_nothing_and_says_the_same(
    bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bench("awgn-25", models=("tv",))
    write_tables(first, table_lines(first))
    table = (tmp_path / "out" / "table.md").read_bytes()
    again = bench("awgn-25", models=("tv",))
    write_tables(again, table_lines(again))
    assert (again.restored, again.cached) == (0, 2)
    assert (tmp_path / "out" / "table.md").read_bytes() == table, "seconds, too, are those of the first run"
    more = bench("awgn-25", "none", models=("tv",))
    assert (more.restored, more.cached) == (2, 2)
    other = bench("awgn-25", models=("tv",), seed=1)
    assert (other.restored, other.cached) == (2, 0), "another input"
    monkeypatch.setattr("restore.benchmark.cache.code_hash", lambda *_: "another version")
    changed = bench("awgn-25", models=("tv",))
    assert (changed.restored, changed.cached) == (2, 0), "other code"


def test_a_result_that_is_not_whole_is_made_again(bench) -> None:
    first = bench("awgn-25")
    cut, changed = (s.result.path for s in first.samples if s.result is not None)
    cut.write_bytes(cut.read_bytes()[:200])
    write_png(changed, 255 - read_rgb8(changed))
    again = bench("awgn-25")
    assert again.restored == 2
    assert [s.scores for s in again.samples] == [s.scores for s in first.samples]


def test_a_killed_benchmark_goes_on_with_the_same_command(bench, clean: Path, tmp_path: Path) -> None:
    for i in range(12):
        write_png(clean / f"c{i}.png", photo(150 + 3 * i, 120, 160))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "restore.cli", "bench", str(clean), "--damage", "awgn-25", "--model", "nlmeans"]
    command += ["--device", "cpu", "--lpips-net", "squeeze", "--out", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        wait_for(lambda: len(list(out.rglob("cache/restored/*/*.json"))) >= 2, process)
        process.kill()
    kept = len(list(out.rglob("cache/restored/*/*.json")))
    results = bench("awgn-25", models=("nlmeans",))
    assert results.cached >= kept >= 2
    assert results.restored == 14 - results.cached
    assert not list(out.rglob(".restore-*")), "no half files are left"
    assert len({s.image for s in results.samples}) == 14


def test_ctrl_c_says_how_to_go_on(clean: Path, tmp_path: Path) -> None:
    for i in range(8):  # a second and more for each: there is time to interrupt
        write_png(clean / f"c{i}.png", photo(150 + 3 * i, 600, 800))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "restore.cli", "bench", str(clean), "--damage", "awgn-25", "--model", "nlmeans"]
    command += ["--device", "cpu", "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: any(out.rglob("cache/restored/*/*.json")), process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr.endswith("interrupted; run the same command again to continue\n")
    assert "Traceback" not in stderr
    assert stdout == ""


def wait_for(happened: Callable[[], bool], process: subprocess.Popen) -> None:
    until = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)


def test_broken_pictures_are_named_counted_and_in_no_mean(bench, clean: Path) -> None:
    (clean / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    write_png(clean / "tiny.png", photo(0, 3, 3))
    results = bench("bicubic-x4")
    assert results.exit_code == 1
    assert [(failure.image, failure.degradation) for failure in results.failures] == [
        ("broken.png", ""), ("tiny.png", "bicubic-x4"),
    ]  # fmt: skip
    lines = table_lines(results)
    assert [line.images for line in lines] == [2, 2]
    assert sum("Failed, and in no mean: " in note for note in table_notes(results, lines)) == 2
    for path in clean.rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(RestoreError, match="no image in this folder can be read") as caught:
        bench("none")
    assert caught.value.exit_code == 1


def test_nothing_left_to_run_is_a_wrong_command_that_says_why(bench, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="telea is left out on none: it fills holes") as caught:
        bench("none", models=("telea",))
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(bench, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(RestoreError, match="does not hold a benchmark"):
        bench("none")
    with pytest.raises(RestoreError, match=r"the output folder is .*, or inside it"):
        bench("none", folder=tmp_path)
    with pytest.raises(RestoreError, match="known: cbsd68"):
        bench("none", published="set6")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_a_model_that_gives_no_numbers_fails_by_name(bench, tmp_path: Path) -> None:
    args = {"widths": [4, 8], "blocks": [1, 1], "mask": False}
    network = UNet(**args)
    state = {name: torch.full_like(value, torch.nan) for name, value in network.state_dict().items()}
    description = Description(builder="unet", args=args, purpose="gives no numbers", needs_mask=False, multiple=2)
    save_weights(tmp_path / "mad.safetensors", state, description, half=False)
    results = bench("none", models=(str(tmp_path / "mad.safetensors"), "tv"), precision="fp32")
    assert results.exit_code == 1
    assert {(f.model, f.image) for f in results.failures} == {("mad", "a.png"), ("mad", "sub/b.png")}
    assert "model output contains NaN or Inf" in results.failures[0].reason
    assert {s.model for s in results.samples} == {INPUT, "tv"}, "the others are done"


def test_a_worker_that_dies_is_an_error_with_its_signal() -> None:
    worker = Worker("tv", device="cpu", precision="fp32", engine=None, tile_px=0)
    image = as_image(photo(60))
    assert worker.run(image, None).pixels.shape == (40, 56, 3)
    worker._process.kill()
    worker._process.wait()
    with pytest.raises(
        RestoreError, match="tv: the worker process was killed by signal 9; it may have run out of memory"
    ):
        worker.run(image, None)
    assert not worker.alive
    worker.close()


def test_unclipped_values_reach_the_model() -> None:
    """A denoiser sees more noise than is left of it between black and white."""
    worker = Worker("tv", device="cpu", precision="fp32", engine=None, tile_px=0)
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.2, (1, 3, 40, 56))).float()
    image = as_image(photo(60)) + noise
    try:
        assert not np.array_equal(worker.run(image, None).pixels, worker.run(image.clamp(0, 1), None).pixels)
    finally:
        worker.close()


def test_a_model_that_enlarges_gets_the_reduced_picture(bench, tmp_path: Path) -> None:
    pytest.importorskip("spandrel")
    from safetensors.torch import save_file
    from spandrel.architectures.Compact import Compact

    network = Compact(num_in_ch=3, num_out_ch=3, num_feat=16, num_conv=4, upscale=2)
    save_file(network.state_dict(), tmp_path / "twice.safetensors")
    results = bench("bicubic-x2", "none", models=(str(tmp_path / "twice.safetensors"), "tv"), tile_px=0)
    made = sample(results, "twice", "a")
    assert made.result is not None
    assert read_rgb8(made.result.path).shape == (40, 56, 3)
    assert [left.format() for left in results.plan.skipped] == [
        "twice is left out on none: it upscales 2 times, and this damage does not downscale by that factor"
    ]


def test_published_figures_are_marked_and_only_beside_the_whole_set(bench, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for i in range(67):
        write_png(folder / f"{i:02}.png", photo(3 * i, 12, 16))
    with pytest.raises(RestoreError, match="cbsd68 has 68 images, but 67 would be measured"):
        bench("awgn-15", folder=folder, published="cbsd68")
    write_png(folder / "67.png", photo(0, 12, 16))
    with pytest.raises(RestoreError, match="PSNR over RGB"):
        bench("awgn-15", folder=folder, published="cbsd68", convention="y-channel")
    five = tmp_path / "five"
    for i in range(5):
        (five / str(i)).mkdir(parents=True)
        write_png(five / str(i) / "a.png", photo(3 * i, 12, 16))
    with pytest.raises(RestoreError, match=r"PSNR over luma; use y-channel"):
        bench("bicubic-x2", folder=five, published="set5")
    results = bench("awgn-15", "jpeg-10", folder=folder, published="cbsd68")
    lines = table_lines(results)
    published = [line for line in lines if line.source]
    assert [(line.degradation, line.model) for line in published] == [
        ("awgn-15", f"{name} (published)") for name in ("BM3D", "DnCNN", "FFDNet", "DRUNet", "SwinIR", "Restormer")
    ]
    assert published[1].means["psnr"].mean == 33.90
    assert all("(published)" in line.model for line in lines if line.means["psnr"].count == 0)
    assert any("not measured here" in note and "Restormer, CVPR 2022" in note for note in table_notes(results, lines))


def test_the_reports_hold_what_another_needs_to_repeat_it(bench, tmp_path: Path) -> None:
    results = bench("awgn-25", models=("photo", "tv"), precision="fp32")
    write_tables(results, table_lines(results))
    facts = json.loads((tmp_path / "out" / "bench.json").read_text())
    models = {model["model"]: model for model in facts["models"]}
    assert len(models["photo"]["sha256"]) == 64
    assert models["photo"]["parameters"] == 4_662_691
    assert models["photo"]["macs_at_256"] == 11_790_188_544
    assert (models["photo"]["precision"], models["photo"]["device"]) == ("fp32", "cpu")
    assert models["tv"]["parameters"] is None
    assert "scikit-image" in models["tv"]["identity"]
    assert facts["convention"]["psnr"]["colour"] == "sRGB, all channels"
    assert facts["convention"]["lpips"] == {"unavailable": "no backbone here"}
    assert facts["settings"]["seed"] == 0
    assert {"torch", "packages", "git"} <= facts["environment"].keys()
    line = next(line for line in facts["table"] if line["model"] == "photo")
    low, high = line["scores"]["psnr"]["interval_95"]
    assert low <= line["scores"]["psnr"]["mean"] <= high
    with open(tmp_path / "out" / "images.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    restored = [row for row in rows if row["model"] == "photo"]
    assert all((tmp_path / "out" / row["restored"]).exists() for row in restored)
    assert np.mean([float(row["psnr"]) for row in restored]) == pytest.approx(line["scores"]["psnr"]["mean"])
    assert "| awgn-25 | tv |" in (tmp_path / "out" / "table.md").read_text()


def test_identical_pictures_are_counted_apart(bench) -> None:
    results = bench("none")
    lines = table_lines(results)
    assert lines[0].means["psnr"].infinite == 2
    assert any("in no mean of PSNR: (input) on none: 2" in note for note in table_notes(results, lines))
    assert any(note.endswith("No LPIPS: no backbone here.") for note in table_notes(results, lines))


def test_a_full_disk_ends_the_run_instead_of_failing_every_picture(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RestoreError("the disk is full", exit_code=1)

    monkeypatch.setattr("restore.benchmark.cache.write_png", full)
    with pytest.raises(RestoreError, match="the disk is full"):
        bench("awgn-25")


def test_what_systems_leave_in_the_folder_is_told_and_not_measured(bench, clean: Path) -> None:
    (clean / "@eaDir").mkdir()
    write_png(clean / "@eaDir" / "a.png", photo(60))
    plan = bench("awgn-25").plan
    assert plan.warnings == ["left out, as hidden or made by a system: @eaDir; name one as CLEAN"]
    assert len(plan.images) == 2


def test_enlarging_is_compared_with_filters_on_luma_without_a_border(bench, clean: Path) -> None:
    results = bench("bicubic-x2", models=("bicubic-x2", "lanczos-x2", "lanczos-x4"), convention="y-channel")
    assert [left.model for left in results.plan.skipped] == ["lanczos-x4"]
    before = sample(results, INPUT, "a").scores["psnr"]
    assert sample(results, "bicubic-x2", "a").scores["psnr"] == pytest.approx(before, abs=0.02)
    assert sample(results, "lanczos-x2", "a").scores["psnr"] != before

    small = downscaled(as_image(photo(60)), 2)
    bigger = (interpolated(small, 2).clamp(0, 1) * 255).round() / 255
    luma = replace(CONVENTIONS["y-channel"], border_px=2)
    expected = float(psnr(bigger, as_image(photo(60)), convention=luma))
    assert sample(results, "bicubic-x2", "a").scores["psnr"] == pytest.approx(expected, abs=1e-3)
    assert results.plan.describe()["border_px_of_enlarged"] == {"bicubic-x2": 2}


def test_default_models_for_enlarging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restore.checkpoints.weights_dir", lambda: tmp_path)
    monkeypatch.setattr("restore.checkpoints.models_dir", lambda: tmp_path)
    damages = find_degradations(["bicubic-x2", "bicubic-x4"], 0)
    assert default_models(damages) == ["lanczos-x2", "lanczos-x4"]
    (tmp_path / "enlarge-x4.safetensors").touch()
    assert default_models(damages) == ["enlarge-x4", "lanczos-x2", "lanczos-x4"]
    assert "photo" in default_models([*damages, *find_degradations(["awgn-25"], 0)])
