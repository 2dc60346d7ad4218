"""A dry run says what a config means and costs, and trains nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data as pictures

from restore.config import build, load
from restore.data.loader import Batch
from restore.errors import RestoreError
from restore.images import read_rgb8, write_png
from restore.models.profiling import count_macs
from restore.models.registry import build_generator as build_network
from restore.training import dry_run as module
from restore.training.config import TrainConfig
from restore.training.dry_run import format_duration, preview


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    for name in ("astronaut", "coffee"):
        write_png(folder / f"{name}.png", np.ascontiguousarray(getattr(pictures, name)()[60:140, 100:180]))
    return folder


def config(clean: Path, out: Path, **changes: object) -> TrainConfig:
    values = {
        "out": str(out), "total_steps": 1000, "precision": "fp32", "device": "cpu",
        "data": {"folders": [str(clean)], "patch": 32, "batch": 4, "validation_size": 32, "validation_count": 1},
        "damage": [{"name": "boxes", "count": [1, 1], "side": [200, 200]}],
        "model": {"builder": "unet", "args": {"widths": [8, 12], "blocks": [1, 1]}},
        "discriminator": {"args": {"ndf": 8, "norm": "none"}},
        "loss": {"adversarial": "hinge", "adversarial_start": 400},
        "lpips_net": "none",
    }  # fmt: skip
    return build(TrainConfig, values | changes, where="test")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEASURED_SECONDS", 0)


def test_all_it_prints_is_a_config_that_means_the_same(clean: Path, tmp_path: Path) -> None:
    settings = config(clean, tmp_path / "run")
    (tmp_path / "printed.yaml").write_text(preview(settings).text())
    assert load(TrainConfig, tmp_path / "printed.yaml") == settings


def test_it_writes_one_picture_and_nothing_else(clean: Path, tmp_path: Path) -> None:
    found = preview(config(clean, tmp_path / "run"))
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["dry_run.png"]
    assert found.image == tmp_path / "run" / "dry_run.png"


def test_the_picture_shows_damage_mask_and_truth(clean: Path, tmp_path: Path) -> None:
    sheet = read_rgb8(preview(config(clean, tmp_path / "run")).image)
    assert sheet.shape[:2] == (4 * 36, 3 * 36), "four images of 32 px and a gap, three in a row"
    damaged, mask, truth = (sheet[:32, x : x + 32].astype(int) for x in (0, 36, 72))
    assert set(np.unique(mask)) == {0, 255}
    known = mask[:, :, 0] == 0
    assert np.array_equal(damaged[known], truth[known])
    assert np.abs(damaged[~known] - truth[~known]).mean() > 5


def test_parameters_and_work_are_named_for_both_networks(clean: Path, tmp_path: Path) -> None:
    settings = config(
        clean, tmp_path / "run", damage=[{"name": "noise"}],
        data={"folders": [str(clean)], "patch": 64, "batch": 2, "validation_size": 64, "validation_count": 1},
        model={"builder": "pix2pix", "args": {"num_downs": 6, "ngf": 4}}, discriminator={"args": {"ndf": 64}},
    )  # fmt: skip
    facts = preview(settings).facts
    assert facts[0].startswith("G: pix2pix")
    assert "D: patchgan, 2.77 M parameters" in facts[1]
    assert "at 64²" in facts[1]
    assert any(fact.startswith("memory, about: ") for fact in facts)


def test_the_work_of_pix2pix_is_the_published_number() -> None:
    network = build_network("pix2pix", {}).eval()
    assert count_macs(lambda: network(torch.zeros(1, 3, 256, 256))) / 1e9 == pytest.approx(6.05, abs=0.005)


def test_the_time_is_that_of_all_steps(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.StepBenchmark, "seconds", lambda benchmark, d: 2.0 if d is None else 3.0)
    found = preview(config(clean, tmp_path / "run", validate_every=1000))
    assert found.seconds == pytest.approx(400 * 2 + 600 * 3, abs=60)  # and a validation
    assert any("40 min" in fact or "44 min" in fact or "43 min" in fact for fact in found.facts)


def test_a_batch_that_does_not_fit_says_what_would(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(benchmark: module.StepBenchmark, number: int, d: object, draw: Callable[[], Batch], *how: object) -> None:
        if len(draw().keys) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module.StepBenchmark, "step", step)
    with pytest.raises(RestoreError) as error:
        preview(config(clean, tmp_path / "run"))
    assert "a batch of 4 × 32² does not fit on cpu" in str(error.value)
    assert "1 at a time would fit: set grad_accumulation=4" in str(error.value)


def test_an_error_of_another_kind_is_not_taken_for_a_lack_of_memory(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(benchmark: module.StepBenchmark, number: int, d: object, draw: Callable[[], Batch], *how: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(module.StepBenchmark, "step", step)
    with pytest.raises(RuntimeError, match="shapes differ"):
        preview(config(clean, tmp_path / "run"))


@pytest.mark.parametrize(
    ("seconds", "words"), [(41, "41 s"), (720, "12 min"), (12060, "3 h 21 min"), (300_000, "3 d 11 h")]
)
def test_times_are_said_in_words(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words
