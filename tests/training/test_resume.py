"""A run that was stopped, however, ends as one never stopped; and a folder with other files is left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from restore.errors import RestoreError
from restore.models.pix2pix import Pix2Pix
from restore.training import loop as loop_module
from restore.training.config import TrainConfig
from restore.training.loop import TrainCallbacks, train
from restore.training.run_dir import RunFolder
from restore.training.setup import build_networks
from tests.training.test_loop import config, state

KILLED = """
import os, signal, sys, torch
from pathlib import Path
from restore.config import load
from restore.training.config import TrainConfig
from restore.training.loop import TrainCallbacks, train
torch.set_num_threads(1)
def kill(step, total, values):
    if step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
train(load(TrainConfig, Path(sys.argv[1])), TrainCallbacks(logged=kill))
"""
QUICK = {"total_steps": 5, "log_every": 1, "validate_every": 2, "save_every": 3}


def assert_same_end(one: TrainConfig, other: TrainConfig) -> None:
    assert one.out is not None
    assert other.out is not None
    for tensors in (state, lambda out: load_file(out / "best.safetensors")):
        expected, found = tensors(one.out), tensors(other.out)
        assert expected.keys() == found.keys()
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_kill_9_between_two_saves_costs_nothing(clean: Path, tmp_path: Path, precision: str) -> None:
    whole, parts = (config(clean, tmp_path / name, precision=precision, **QUICK) for name in ("whole", "parts"))
    train(whole)
    (tmp_path / "small.yaml").write_text(parts.model_dump_json())
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "small.yaml"), "5"],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    said: list[str] = []
    assert train(parts, TrainCallbacks(on_event=said.append)).finished
    assert any("resumed at step 3" in line for line in said)
    assert_same_end(whole, parts)


@pytest.mark.parametrize("when", [2, 3], ids=["on a validation step", "between"])
def test_a_stop_costs_nothing(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: int) -> None:
    whole, parts = (config(clean, tmp_path / name, **QUICK) for name in ("whole", "parts"))
    train(whole)
    seen = [0]

    def asked(fabric: object, here: bool) -> bool:
        seen[0] += 1
        return seen[0] == when

    monkeypatch.setattr(loop_module, "any_rank", asked)
    stopped = train(parts)
    assert (stopped.step, stopped.finished) == (when, False)
    assert ("psnr" in stopped.best) == (when >= 2), "what is due is validated before the run stops"
    assert train(parts).finished
    assert_same_end(whole, parts)


def test_dropout_goes_on_where_it_was(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {
        "model": {"builder": "pix2pix", "args": {"num_downs": 6, "ngf": 4}}, "damage": [{"name": "noise"}],
        "data": small(clean, patch=64), "loss": {}, **QUICK,
    }  # fmt: skip
    whole, parts = (config(clean, tmp_path / name, **changes) for name in ("whole", "parts"))
    train(whole)
    asked = iter([False, True])
    monkeypatch.setattr(loop_module, "any_rank", lambda fabric, here: next(asked, False))
    assert train(parts).step == 2
    torch.rand(1)  # something else draws meanwhile
    assert train(parts).finished
    assert_same_end(whole, parts)


@pytest.mark.parametrize("name", ["config.yaml", "best.safetensors", "metrics.jsonl"])
def test_files_of_something_else_are_not_replaced(clean: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("mine: 1")
    with pytest.raises(RestoreError, match="use another out=") as error:
        train(config(clean, tmp_path / "run", **QUICK))
    assert error.value.exit_code == 2
    assert (tmp_path / "run" / name).read_text() == "mine: 1"
    assert not (tmp_path / "run" / "samples").exists()


def test_a_run_that_died_before_its_first_save_starts_again(clean: Path, tmp_path: Path) -> None:
    settings = config(clean, tmp_path / "run", **{**QUICK, "loss": {}})

    def die(step: int, total: int, values: dict[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings, TrainCallbacks(logged=die))
    assert (tmp_path / "run" / "config.yaml").exists()
    assert train(settings).finished


@pytest.mark.parametrize(
    "last_words", [(RunFolder, "save"), (loop_module, "save_weights")], ids=["before its state", "before best weights"]
)
def test_a_run_that_died_at_its_first_best_weights_costs_nothing(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_words: tuple[object, str]
) -> None:
    whole, parts = (config(clean, tmp_path / name, **QUICK) for name in ("whole", "parts"))
    train(whole)

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*last_words, die)
        with pytest.raises(KeyboardInterrupt):
            train(parts)
    assert not (tmp_path / "parts" / "best.safetensors").exists(), "it would be of no state"
    if last_words[1] == "save_weights":
        assert train(parts.model_copy(update={"total_steps": 2})).finished
        assert (tmp_path / "parts" / "best.safetensors").exists(), "even if there is no step left"
    assert train(parts).finished
    assert_same_end(whole, parts)


def test_best_weights_without_a_state_are_kept(clean: Path, tmp_path: Path) -> None:
    settings = config(clean, tmp_path / "run", **{**QUICK, "total_steps": 1, "loss": {}})
    train(settings)
    (tmp_path / "run" / "last" / "state.safetensors").unlink()
    with pytest.raises(RestoreError, match=r"holds best\.safetensors, which would be replaced"):
        train(settings)


def test_init_takes_a_published_generator_and_resuming_needs_it_no_more(clean: Path, tmp_path: Path) -> None:
    published = Pix2Pix(num_downs=5, ngf=4)
    torch.save(published.state_dict(), tmp_path / "a_net_G.pth")
    changes = {
        "model": {"builder": "pix2pix", "args": {"num_downs": 5, "ngf": 4}}, "loss": {},
        "damage": [{"name": "noise"}], "init": str(tmp_path / "a_net_G.pth"),
    }  # fmt: skip
    generator, _ = build_networks(config(clean, tmp_path / "run", **changes))
    theirs, ours = published.state_dict(), generator.state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)

    train(config(clean, tmp_path / "run", **QUICK, **changes))
    (tmp_path / "a_net_G.pth").unlink()
    assert train(config(clean, tmp_path / "run", **{**QUICK, "total_steps": 6}, **changes)).finished


def small(clean: Path, **more: object) -> dict[str, object]:
    return {
        "folders": [str(clean)], "patch": 32, "batch": 2, "validation_percent": 50, "validation_size": 64,
    } | more  # fmt: skip


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"optimizer": {"betas": [0.9, 1.0]}}, "betas"),
        ({"optimizer": {"betas_discriminator": [-0.1, 0.9]}}, "betas_discriminator"),
        ({"discriminator": {"args": {"in_channels": 6}}}, "in_channels"),
        ({"loss": {"adversarial": "wgan-gp"}, "discriminator": {}}, "set it to none"),
        ({"patch": 20}, "too small for this discriminator; 24 is enough"),
        ({"patch": 32, "discriminator": {"args": {"n_layers": 5}}}, "too small for this discriminator"),
    ],
)
def test_values_out_of_range_are_one_line_before_the_start(
    clean: Path, tmp_path: Path, values: dict, expected: str
) -> None:
    changes = dict(values)
    data = small(clean, patch=changes.pop("patch", 32))
    with pytest.raises(RestoreError, match=expected) as error:
        train(config(clean, tmp_path / "run", data=data, **changes))
    assert error.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_pictures_too_small_to_validate_on_are_refused_at_the_start(clean: Path, tmp_path: Path) -> None:
    changes = {"model": {"builder": "pix2pix", "args": {"num_downs": 8, "ngf": 2}}, "damage": [{"name": "noise"}]}
    with pytest.raises(RestoreError, match="256") as error:
        train(config(clean, tmp_path / "run", data=small(clean, patch=256), loss={}, **changes))
    assert error.value.exit_code == 2


def test_several_updates_of_d_go_on_with_the_images_that_were_next(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        **QUICK, "loss": {"adversarial": "wgan-gp", "adversarial_start": 1}, "grad_accumulation": 2,
        "discriminator": {"args": {"ndf": 4, "norm": "none"}, "steps": 2},
    }  # fmt: skip
    whole, parts = (config(clean, tmp_path / name, **changes) for name in ("whole", "parts"))
    train(whole)
    asked = iter([False, False, True])
    monkeypatch.setattr(loop_module, "any_rank", lambda fabric, here: next(asked, False))
    assert train(parts).step == 3
    assert train(parts).finished
    assert_same_end(whole, parts)


def test_a_resumed_run_logs_what_one_never_stopped_logs(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = QUICK | {"total_steps": 14, "validate_every": 7, "loss": {"adversarial": "hinge", "adversarial_start": 2}}
    whole, parts = (config(clean, tmp_path / name, **changes) for name in ("whole", "parts"))
    train(whole)
    asked = iter([False] * 8 + [True])
    monkeypatch.setattr(loop_module, "any_rank", lambda fabric, here: next(asked, False))
    assert train(parts).step == 9
    assert train(parts).finished
    logs = []
    for name in ("whole", "parts"):
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        logs.append([{k: v for k, v in line.items() if k != "images_per_second"} for line in lines])
    assert logs[0] == logs[1]
    assert {"diversity", "d_growth", "skipped"} <= set(logs[0][-2]), "what looks back over many steps"
