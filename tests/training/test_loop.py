"""Training: pairs, steps, stopping and going on, and what lies in the folder afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from restore.checkpoints import load_generator, read_description
from restore.config import build
from restore.errors import RestoreError
from restore.images import read_rgb8, write_png
from restore.models.unet import UNet
from restore.training.config import TrainConfig
from restore.training.ema import Ema
from restore.training.loop import TrainCallbacks, train

SMALL_NET = {"builder": "unet", "args": {"widths": [8, 12, 16], "blocks": [1, 1, 1]}}


def config(clean: Path, out: Path, **changes: object) -> TrainConfig:
    values = {
        "out": str(out),
        "total_steps": 6,
        "precision": "fp32",
        "device": "cpu",
        "data": {"folders": [str(clean)], "patch": 32, "batch": 2, "validation_percent": 50, "validation_size": 64},
        "damage": "inpaint-medium",
        "model": SMALL_NET,
        "discriminator": {"args": {"ndf": 8, "norm": "none"}},
        "loss": {"adversarial": "hinge", "adversarial_start": 2},
        "lpips_net": "none", "log_every": 2, "validate_every": 3, "save_every": 2,
    }  # fmt: skip
    return build(TrainConfig, values | changes, where="test")


def state(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "last" / "state.safetensors")


def test_a_run_leaves_everything_in_its_folder(clean: Path, tmp_path: Path) -> None:
    result = train(config(clean, tmp_path / "run"))
    assert result.finished
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {
        "config.yaml", "environment.json", "metrics.jsonl", "samples", "best.safetensors", "last",
    }  # fmt: skip
    grid = read_rgb8(tmp_path / "run" / "samples" / "step_0000006.png")
    assert grid.shape[1] == 3 * (64 + 4)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("validation_psnr" in line for line in lines)
    assert all(np.isfinite(v) for line in lines for v in line.values())


def test_best_weights_open_and_describe_themselves(clean: Path, tmp_path: Path) -> None:
    train(config(clean, tmp_path / "run"))
    model, description = load_generator(tmp_path / "run" / "best.safetensors")
    assert (description.builder, description.needs_mask, description.multiple) == ("unet", True, 4)
    assert 0 < description.overlap_px <= 64
    assert load_file(tmp_path / "run" / "best.safetensors")["head.weight"].dtype == torch.float16
    assert model(torch.rand(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)).isfinite().all()


def test_a_stopped_run_ends_bit_for_bit_as_one_never_stopped(clean: Path, tmp_path: Path) -> None:
    whole = config(clean, tmp_path / "whole", total_steps=6)
    train(whole)

    parts = config(clean, tmp_path / "parts", total_steps=6)
    with pytest.raises(KeyboardInterrupt):
        train(parts, TrainCallbacks(logged=_raise_at(4)))
    result = train(parts)

    assert result.finished
    for name, tensor in state(tmp_path / "whole").items():
        assert torch.equal(tensor, state(tmp_path / "parts")[name]), name


def _raise_at(when: int):
    def logged(step: int, total: int, values: dict[str, float]) -> None:
        if step == when:
            raise KeyboardInterrupt

    return logged


def test_sigterm_saves_and_the_same_command_goes_on(clean: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    file = tmp_path / "small.yaml"
    settings = config(clean, out, total_steps=100_000, save_every=100_000, validate_every=100_000, log_every=1)
    file.write_text(settings.model_dump_json())
    command = [sys.executable, "-m", "restore.cli", "train", str(file)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (out / "metrics.jsonl").exists():
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode == 130, complaints
    assert "the same command resumes" in complaints
    stopped_at = int(complaints.split("stopped at step ")[1].split(";")[0])

    done = subprocess.run([*command, f"total_steps={stopped_at + 1}"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert f"resumed at step {stopped_at}" in done.stderr
    assert done.stdout.strip().endswith("best.safetensors")


def test_another_config_in_the_same_folder_is_refused_and_the_difference_named(clean: Path, tmp_path: Path) -> None:
    train(config(clean, tmp_path / "run", total_steps=2))
    with pytest.raises(RestoreError, match="seed was 0, is 1"):
        train(config(clean, tmp_path / "run", total_steps=2, seed=1))


def test_only_the_value_that_differs_is_named_not_the_whole_list_of_steps(clean: Path, tmp_path: Path) -> None:
    def damage(quality: int) -> dict[str, object]:
        return {"steps": [{"one_of": [{"steps": [{"name": "blur", "sigma": [1, 2]}]}, {"steps": [
            {"name": "jpeg", "quality": [quality, 90]}]}]}]}  # fmt: skip

    blind = {"builder": "unet", "args": {**SMALL_NET["args"], "mask": False}}
    train(config(clean, tmp_path / "run", total_steps=2, damage=damage(50), model=blind))
    with pytest.raises(RestoreError) as refused:
        train(config(clean, tmp_path / "run", total_steps=2, damage=damage(60), model=blind))
    different = "(damage.steps.0.one_of.1.steps.0.quality was [50, 90], is [60, 90])"
    assert different in refused.value.what


def test_two_runs_in_one_folder_are_refused(clean: Path, tmp_path: Path) -> None:
    from restore.training.run_dir import RunFolder

    first = RunFolder(tmp_path / "run")
    with pytest.raises(RestoreError, match="another process is training"):
        train(config(clean, tmp_path / "run"))
    first.close()


def test_init_starts_from_other_weights(clean: Path, tmp_path: Path) -> None:
    train(config(clean, tmp_path / "a"))
    scores: list[float] = []
    settings = config(
        clean, tmp_path / "b", init=str(tmp_path / "a" / "best.safetensors"), total_steps=1, optimizer={"lr": 1e-9}
    )
    train(settings, TrainCallbacks(validated=lambda step, values, best: scores.append(values["psnr"])))
    a = load_file(tmp_path / "a" / "best.safetensors")
    b = load_file(tmp_path / "b" / "best.safetensors")
    assert all(torch.allclose(a[k].float(), b[k].float(), atol=1e-3) for k in a)
    assert scores


def test_init_from_another_architecture_is_refused(clean: Path, tmp_path: Path) -> None:
    train(config(clean, tmp_path / "a", total_steps=1))
    other = {"builder": "unet", "args": {"widths": [8, 12], "blocks": [1, 1]}}
    settings = config(clean, tmp_path / "b", init=str(tmp_path / "a" / "best.safetensors"), model=other)
    with pytest.raises(RestoreError, match="another architecture"):
        train(settings)


@pytest.mark.parametrize("adversarial", ["vanilla", "lsgan", "hinge"])
def test_every_adversarial_loss_trains_on_finite_numbers(clean: Path, tmp_path: Path, adversarial: str) -> None:
    seen: list[dict[str, float]] = []
    settings = config(clean, tmp_path / "run", total_steps=4, loss={"adversarial": adversarial})
    train(settings, TrainCallbacks(logged=lambda step, total, values: seen.append(values)))
    assert {"d", "g_adversarial", "pixel"} <= set(seen[-1])
    assert all(np.isfinite(v) for values in seen for v in values.values())


def test_training_lowers_the_loss_on_a_hole(clean: Path, tmp_path: Path) -> None:
    seen: list[float] = []
    settings = config(
        clean, tmp_path / "run", total_steps=120, log_every=1, validate_every=1000, save_every=1000,
        loss={"adversarial": "none", "hole_weight": 10}, optimizer={"lr": 2e-3},
    )  # fmt: skip
    train(settings, TrainCallbacks(logged=lambda step, total, values: seen.append(values["pixel"])))
    assert np.mean(seen[-40:]) < 0.7 * np.mean(seen[:10]), "means over many: holes differ from step to step"


def test_real_pairs_from_two_folders_and_side_by_side(clean: Path, tmp_path: Path) -> None:
    damaged, both = tmp_path / "damaged", tmp_path / "both"
    damaged.mkdir()
    both.mkdir()
    for file in clean.iterdir():
        picture = read_rgb8(file)
        write_png(damaged / file.name, 255 - picture)
        write_png(both / file.name, np.concatenate([picture, 255 - picture], axis=1))
    shape = {"patch": 32, "batch": 2, "validation_percent": 50, "validation_size": 64}
    for i, source in enumerate(
        [
            {"input": str(damaged), "target": str(clean)},
            {"side_by_side": str(both), "direction": "BtoA"},
        ]
    ):
        first: list[dict[str, float]] = []
        settings = config(
            clean, tmp_path / f"run{i}", total_steps=1, damage=None, data=source | shape,
            model={"builder": "unet", "args": {**SMALL_NET["args"], "mask": False}},
        )  # fmt: skip
        train(settings, TrainCallbacks(validated=lambda step, values, best, first=first: first.append(values)))
        grid = read_rgb8(tmp_path / f"run{i}" / "samples" / "step_0000001.png").astype(int)
        assert np.abs(grid[:64, :64] + grid[:64, 136:200] - 255).max() <= 1, "damaged + clean is white"


def test_a_pair_without_partner_is_named(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged").mkdir()
    write_png(tmp_path / "damaged" / "stranger.png", np.zeros((40, 40, 3), np.uint8))
    settings = config(
        clean, tmp_path / "run", damage=None, data={"input": str(tmp_path / "damaged"), "target": str(clean)},
        model={"builder": "unet", "args": {**SMALL_NET["args"], "mask": False}},
    )  # fmt: skip
    with pytest.raises(RestoreError, match="stranger"):
        train(settings)


def test_pictures_that_cannot_be_read_are_named_and_left_out(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "mixed").mkdir()
    for file in clean.iterdir():
        (tmp_path / "mixed" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "mixed" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more than this")
    said: list[str] = []
    settings = config(tmp_path / "mixed", tmp_path / "run", total_steps=1)
    train(settings, TrainCallbacks(on_event=said.append))
    assert sum("broken.jpg" in line for line in said) == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"data": {"folders": ["nowhere"]}}, "nowhere: there is no such folder"),
        ({"device": "cuda:99"}, "device cuda:99"),
        ({"damage": "scratches"}, "did you mean 'scratch'"),
        ({"data": {"folders": ["."], "patch": 33}}, "must be a multiple of 4"),
    ],
)
def test_bad_input_is_one_clear_line(clean: Path, tmp_path: Path, values: dict, expected: str) -> None:
    with pytest.raises(RestoreError) as error:
        train(config(clean, tmp_path / "run", **values))
    assert expected in str(error.value)
    assert not (tmp_path / "run").exists(), "nothing is written for a command that was wrong"


def test_a_truncated_weights_file_says_so(clean: Path, tmp_path: Path) -> None:
    train(config(clean, tmp_path / "run", total_steps=1))
    whole = (tmp_path / "run" / "best.safetensors").read_bytes()
    short = tmp_path / "short.safetensors"
    for length in (0, 5, 100, len(whole) - 1):
        short.write_bytes(whole[:length])
        with pytest.raises(RestoreError, match="not a complete safetensors file"):
            read_description(short)


def test_ema_follows_slowly_and_starts_fast() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    ema = Ema(model, 0.9)
    model.weight.data.fill_(1.0)
    ema.update(model, step=0)
    assert ema.model.weight.item() == pytest.approx(0.9)
    for step in range(1000, 1003):
        model.weight.data.fill_(2.0)
        ema.update(model, step)
    assert ema.model.weight.item() == pytest.approx(2 - 1.1 * 0.9**3)


@pytest.mark.parametrize(("masked", "told"), [(True, True), (False, False)])
def test_a_network_sees_in_training_what_it_will_see_in_use(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masked: bool, told: bool
) -> None:
    """A scratch has a mask; a network that is told of none must see the scratch itself, and not gray in its place."""
    shown: list[tuple[torch.Tensor, torch.Tensor | None]] = []
    forward = UNet.forward

    def seen(self: UNet, image: torch.Tensor, mask: torch.Tensor | None = None, filled: bool = False) -> torch.Tensor:
        shown.append((image.detach().clone(), mask))
        return forward(self, image, mask, filled)

    monkeypatch.setattr(UNet, "forward", seen)
    train(
        config(
            clean, tmp_path / "run", damage=[{"name": "scratch", "count": 4}], total_steps=2,
            model={**SMALL_NET, "args": {**SMALL_NET["args"], "mask": masked}}, loss={"adversarial": "hinge"},
        )
    )  # fmt: skip
    assert all((mask is not None) == told for _, mask in shown)
    assert len(shown) >= 4
