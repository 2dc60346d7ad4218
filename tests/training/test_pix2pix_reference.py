"""The benchmark that trains pix2pix by `restore train` and by the usual loop: its pairs, its networks, a short run."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import squeezenet1_1
from typer.testing import CliRunner

from restore.checkpoints import read_description
from restore.cli.main import app
from restore.fix import decoder_isolation
from restore.models.patchgan import PatchGAN
from restore.models.pix2pix import Pix2Pix

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "pix2pix_reference.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pix2pix_reference", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_pair_holds_the_edges_and_the_photograph(benchmark: ModuleType, clean: Path, tmp_path: Path) -> None:
    benchmark.make_pairs(clean, tmp_path, count=3, held_out=1, side=64)
    trained = sorted((tmp_path / "train").iterdir())
    (edges,), (photograph,) = (list((tmp_path / "test" / part).iterdir()) for part in "AB")
    assert [path.name for path in trained] == ["0000.png", "0001.png", "0002.png"]
    assert edges.name == photograph.name == "0003.png"
    a, b = cv2.imread(str(edges)), cv2.imread(str(photograph))
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "test" / "AB" / "0003.png")), np.hstack([a, b]))
    assert set(np.unique(a)) == {0, 255}
    assert 0.02 < (a > 0).mean() < 0.5
    # The sharp change of brightness is where the edges are.
    slope = np.abs(cv2.Laplacian(b, cv2.CV_32F)).sum(2)
    assert slope[a[:, :, 0] > 0].mean() > 1.5 * slope[a[:, :, 0] == 0].mean()


def test_the_pairs_do_not_depend_on_the_place_of_the_folder(benchmark: ModuleType, clean: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(clean, moved)
    for folder, out in ((clean, tmp_path / "one"), (moved, tmp_path / "two")):
        out.mkdir()
        benchmark.make_pairs(folder, out, count=3, held_out=1, side=32)
    assert (tmp_path / "one" / "pairs.json").read_text() == (tmp_path / "two" / "pairs.json").read_text()
    for path in (tmp_path / "one" / "train").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / "train" / path.name).read_bytes()


@torch.no_grad()
def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """Give `target` the weights of `source`: convolutions, transposed ones and norms, each in their order."""
    for kind in (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d):
        ours, theirs = ([m for m in network.modules() if isinstance(m, kind)] for network in (source, target))
        for one, other in zip(ours, theirs, strict=True):
            other.load_state_dict(one.state_dict())


@pytest.mark.parametrize("depth", [5, 6, 8])
def test_the_loops_generator_is_restores(benchmark: ModuleType, depth: int) -> None:
    ours, theirs = Pix2Pix(num_downs=depth, ngf=4), benchmark.UNet(depth, 4)
    ours.init_for_training()
    copy_in_order(ours, theirs)
    image = torch.rand(2, 3, 2**depth, 2**depth)
    for training in (True, False):  # with dropout, and with the running statistics that the first pass left
        ours.train(training)
        theirs.train(training)
        torch.manual_seed(0)
        one = ours(image)
        torch.manual_seed(0)
        other = theirs(image * 2 - 1) / 2 + 0.5
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_the_loops_discriminator_is_restores(benchmark: ModuleType) -> None:
    ours, theirs = PatchGAN(ndf=4), benchmark.patch_discriminator(4)
    copy_in_order(ours, theirs)
    pair = torch.rand(1, 6, 64, 64)
    torch.testing.assert_close(ours(pair), theirs(pair), rtol=0, atol=1e-5)


def test_the_loops_weights_are_drawn_as_published(benchmark: ModuleType) -> None:
    network = benchmark.UNet(5, 16).apply(benchmark.init_normal)
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and layer.weight.numel() > 10**4:
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.weight.mean().item() == pytest.approx(1, abs=0.02)
            assert layer.bias.abs().max() == 0


def test_edges_and_photograph_are_cropped_and_mirrored_alike(benchmark: ModuleType, tmp_path: Path) -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))
    both = np.stack([ramp, ramp.T, ramp], axis=2)
    benchmark.write(tmp_path / "0.png", np.hstack([both, both]))
    drawn = benchmark.crops(tmp_path, 64, seed=0)
    rising = []
    for _ in range(16):
        a, b = next(drawn)
        assert a.shape == (1, 3, 64, 64)
        assert torch.equal(a, b)
        rising.append(bool(a[0, 0, 0, -1] > a[0, 0, 0, 0]))
    assert set(rising) == {True, False}


def test_the_table_tells_whether_restore_is_within_the_loops_range(benchmark: ModuleType) -> None:
    usual = [{"psnr": value, "lpips": 0.5} for value in (12.0, 13.0, 14.0)]
    ours = [{"psnr": value, "lpips": 0.4} for value in (13.0, 13.5, 14.0)]
    found = {"usual loop": dict.fromkeys(benchmark.MODES, usual), "restore": dict.fromkeys(benchmark.MODES, ours)}
    lines = benchmark.table(found).splitlines()
    psnr, lpips = (line for line in lines if line.startswith("| stored") and "| restore |" in line)
    # √((1² + 0.5²) / 3) = 0.645
    assert psnr == "| stored, PSNR | restore | 13.00 | 13.50 | 14.00 | 13.50 ± 0.50 | +0.50 ± 0.65 | yes |"
    assert lpips.endswith("| -0.1000 ± 0.0000 | no |")


def test_a_short_run_writes_its_results_and_is_not_repeated(
    benchmark: ModuleType,
    clean: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = tmp_path / "backbone.pth"
    torch.save(squeezenet1_1(weights=None).state_dict(), weights)  # scores mean nothing here
    work = tmp_path / "work"
    commands: list[str] = []

    def restore_command(*arguments: str) -> None:  # in this process, which has loaded everything
        commands.append(arguments[0])
        ended = CliRunner().invoke(app, list(arguments))
        assert ended.exit_code == 0, ended.output

    def run(steps: int = 2) -> str:
        arguments = [
            str(clean), "--work", str(work), "--lpips-net", "squeeze", "--lpips-weights", str(weights), "--pairs", "3",
            "--held-out", "1", "--side", "32", "--width", "4", "--steps", str(steps), "--seeds", "1",
        ]  # fmt: skip
        monkeypatch.setattr("sys.argv", [str(SCRIPT), *arguments])
        benchmark.main()
        return capsys.readouterr().out

    monkeypatch.setattr(benchmark, "restore_command", restore_command)
    # Without the fork that supervises decoders: this process has threads by now.
    monkeypatch.setattr(decoder_isolation, "supervise", lambda seconds, on_event: decoder_isolation.SupervisorLink())
    first = run()
    assert commands == ["train", "fix", "fix"]
    assert first.count("| usual loop |") == first.count("| restore |") == 4
    assert "nan" not in first
    for name in ("curves.png", "samples.png", "scores.md"):
        assert (work / name).stat().st_size > 100
    for folder in ("usual_loop_1", "restore_1"):
        for mode in ("stored", "instance"):
            assert cv2.imread(str(work / folder / mode / "0003.png")).shape == (32, 32, 3)
    # The edges are gray, the photographs are not: the weights tell it, and the outputs are in color.
    assert read_description(work / "restore_1" / "run" / "best.safetensors").adds_color
    assert np.ptp(cv2.imread(str(work / "restore_1" / "stored" / "0003.png")), axis=2).max() > 1
    # What is finished is not repeated, nor mixed with other settings.
    assert run() == first
    assert commands == ["train", "fix", "fix"]
    with pytest.raises(SystemExit, match="other settings"):
        run(steps=3)
