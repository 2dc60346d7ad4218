"""What may change when a run resumes, and what is refused before anything is read."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from restore.config import build, known_keys
from restore.degradations.mask_files import _by_name, mask_files
from restore.degradations.overlay import _shapes
from restore.errors import RestoreError
from restore.images import write_png
from restore.training import loop as loop_module
from restore.training.config import LossConfig, TrainConfig
from restore.training.loop import TrainCallbacks, train
from restore.training.resume import find_changes, resolved
from restore.training.resume_keys import FIXED, IMAGE_KEYS, LOSS_WEIGHTS, MAY_CHANGE
from restore.training.run_dir import RunFolder
from restore.training.stage_config import STAGE_KEYS
from tests.training.test_loop import SMALL_NET, config

SHORT = {"total_steps": 2, "log_every": 1, "validate_every": 1, "save_every": 1, "loss": {}}


def logged(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_every_key_of_the_lists_exists() -> None:
    assert {*MAY_CHANGE, *FIXED, *IMAGE_KEYS} <= set(known_keys(TrainConfig))


def test_every_number_of_the_loss_may_change_on_resume_and_in_a_stage() -> None:
    numbers = {f"loss.{name}" for name, field in LossConfig.model_fields.items() if field.annotation in (int, float)}
    assert set(LOSS_WEIGHTS) == numbers
    assert set(LOSS_WEIGHTS) <= set(MAY_CHANGE) & set(STAGE_KEYS)


def test_rates_length_and_validation_may_change_and_each_change_is_logged(clean: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(config(clean, out, **SHORT))
    said: list[str] = []
    later = config(
        clean, out, **SHORT | {"total_steps": 3}, optimizer={"lr": 1e-5, "schedule": "constant"}, early_stop=7,
        collapse={"patience": 9}, compile=False, grad_accumulation=2,
    )  # fmt: skip
    assert train(later, TrainCallbacks(on_event=said.append)).finished
    (line,) = [line for line in logged(out) if "changed" in line]
    assert line["step"] == 2
    assert line["changed"]["optimizer.lr"] == {"was": 2e-4, "is": 1e-5}
    assert set(line["changed"]) == {
        "total_steps", "optimizer.lr", "optimizer.schedule", "early_stop", "collapse.patience", "grad_accumulation",
    }  # fmt: skip
    assert "changed at step 2: optimizer.lr was 0.0002, is 1e-05" in said
    assert [line["lr"] for line in logged(out) if line["step"] == 3 and "lr" in line] == [1e-5]
    train(later)
    assert len([line for line in logged(out) if "changed" in line]) == 1, "what stays is no change"


def test_a_run_that_early_stop_ended_goes_on_when_it_may(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "is_better", lambda scores, best, by: not best)
    steps = SHORT | {"total_steps": 5}
    assert train(config(clean, tmp_path / "run", **steps, early_stop=1)).step == 2
    assert train(config(clean, tmp_path / "run", **steps, early_stop=1)).step == 2
    assert train(config(clean, tmp_path / "run", **steps, early_stop=9)).step == 5


@pytest.mark.parametrize(
    ("changes", "allow"),
    [({"data": {"patch": 48, "batch": 3}}, ["data.batch", "data.patch"]), ({"seed": 4}, ["seed"])],
    ids=["batch and patch", "seed"],
)
def test_what_decides_what_is_learned_is_refused_unless_it_is_named(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict, allow: list[str]
) -> None:
    settings = config(clean, tmp_path / "run", **SHORT)
    train(settings)
    values = resolved(settings) | {"total_steps": 3}
    for key, value in changes.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "open_data", lambda *rest: pytest.fail("images are read before the refusal"))
        patch.setattr(loop_module, "build_networks", lambda *rest, **more: pytest.fail("networks are built"))
        with pytest.raises(RestoreError, match=r"set resume\.allow=\[") as error:
            train(build(TrainConfig, values, where="test"))
    assert error.value.exit_code == 2
    assert all(key in str(error.value) for key in allow)
    allowed = build(TrainConfig, values | {"resume": {"allow": allow}}, where="test")
    assert train(allowed).step == 3
    assert set(logged(tmp_path / "run")[-1]) >= {"step"}
    (line,) = [line for line in logged(tmp_path / "run") if "changed" in line]
    assert set(allow) <= set(line["changed"])


def test_what_would_not_fit_the_weights_cannot_be_allowed(clean: Path, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match=r"resume.allow: model.args cannot change"):
        config(clean, tmp_path / "run", resume={"allow": ["model.args"]})
    with pytest.raises(RestoreError, match=r"resume.allow: there is no key 'data.bath'"):
        config(clean, tmp_path / "run", resume={"allow": "data.bath"})


def test_a_dictionary_of_hints_of_the_monitor_may_all_be_followed(clean: Path, tmp_path: Path) -> None:
    """Every key that a message of the collapse monitor names can be changed on resume."""
    import re

    text = (Path(loop_module.__file__).parent / "collapse_monitor.py").read_text()
    named = set(re.findall(r"\b(?:optimizer|loss|collapse|precision)(?:\.\w+)?(?==|\b)", text)) & set(
        known_keys(TrainConfig)
    )
    named -= {"optimizer", "loss", "collapse"}
    assert {"optimizer.lr", "loss.r1", "precision"} <= named
    assert named <= {
        key for key in known_keys(TrainConfig) if any(key == s or key.startswith(f"{s}.") for s in MAY_CHANGE)
    }


def test_other_images_are_refused_before_one_is_read_unless_they_are_meant(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for file in clean.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    train(config(folder, tmp_path / "run", **SHORT))
    (folder / "rocket.png").rename(folder / "racket.png")
    longer = SHORT | {"total_steps": 3}
    with monkeypatch.context() as patch:
        patch.setattr("restore.data.build._read_validation", lambda *rest: pytest.fail("images are read"))
        with pytest.raises(RestoreError, match="other training images"):
            train(config(folder, tmp_path / "run", **longer))
    assert train(config(folder, tmp_path / "run", **longer, resume={"allow": ["data.folders"]})).step == 3


@pytest.mark.parametrize("step", ["masks", "overlay"])
def test_other_files_of_the_damage_are_refused_unless_they_are_meant(clean: Path, tmp_path: Path, step: str) -> None:
    draw_masks(tmp_path / "holes", ["a", "b", "c"])
    changes = {"damage": [{"name": step, "folder": str(tmp_path / "holes")}]}
    train(config(clean, tmp_path / "run", **SHORT, **changes))
    longer = SHORT | {"total_steps": 3} | changes
    (tmp_path / "holes" / "b.png").rename(tmp_path / "holes" / "d.png")
    mask_files.cache_clear()
    _shapes.cache_clear()
    with pytest.raises(RestoreError, match=r"other masks or shapes .* set resume.allow=\[damage\]") as error:
        train(config(clean, tmp_path / "run", **longer))
    assert error.value.exit_code == 2
    assert train(config(clean, tmp_path / "run", **longer, resume={"allow": ["damage"]})).step == 3


def test_other_masks_of_the_images_are_refused_unless_they_are_meant(clean: Path, tmp_path: Path) -> None:
    names = [file.stem for file in clean.iterdir()]
    draw_masks(tmp_path / "holes", names)
    values = config(clean, tmp_path / "run").model_dump(mode="json")["data"] | {"masks": str(tmp_path / "holes")}
    changes = SHORT | {"damage": None, "data": values}
    train(config(clean, tmp_path / "run", **changes))
    for name in names:
        (tmp_path / "holes" / f"{name}.png").rename(tmp_path / "holes" / f"{name}_mask.png")
    mask_files.cache_clear()
    _by_name.cache_clear()
    longer = changes | {"total_steps": 3}
    with pytest.raises(RestoreError, match="other training images or masks"):
        train(config(clean, tmp_path / "run", **longer))
    assert train(config(clean, tmp_path / "run", **longer, resume={"allow": ["data.masks"]})).step == 3


def draw_masks(folder: Path, names: list[str]) -> None:
    """White boxes in black images of the size of the photographs."""
    for number, name in enumerate(names):
        mask = np.zeros((160, 180, 3), np.uint8)
        mask[40 : 80 + 10 * number, 30:120] = 255
        folder.mkdir(exist_ok=True)
        write_png(folder / f"{name}.png", mask)


def test_a_run_of_an_earlier_release_keeps_its_rules_for_data(clean: Path, tmp_path: Path) -> None:
    from restore.checkpoints import read_state, save_state

    train(config(clean, tmp_path / "run", **SHORT))
    assert RunFolder.data_rules(tmp_path / "run") == 3
    file = tmp_path / "run" / "last" / "state.safetensors"
    tensors, facts = read_state(file)
    del facts["data_rules"]
    from restore.data.config import Folder
    from restore.data.discovery import fingerprint, split_files

    facts["pictures"] = fingerprint(split_files([Folder(path=clean)], 50, rules=1).training)
    save_state(file, tensors, facts)
    assert RunFolder.data_rules(tmp_path / "run") == 1
    assert train(config(clean, tmp_path / "run", **SHORT | {"total_steps": 3})).step == 3
    assert RunFolder.data_rules(tmp_path / "run") == 1, "it goes on as it began"
    assert RunFolder.data_rules(tmp_path / "new") == 3


def test_a_network_that_sees_a_mask_is_not_trained_without_one(clean: Path, tmp_path: Path) -> None:
    for changes in (
        {"damage": [{"name": "noise"}]},
        {"damage": None, "data": {"input": str(clean), "target": str(clean), "patch": 32, "batch": 2}},
    ):
        with pytest.raises(RestoreError, match=r"sees a mask .* set model.args.mask=false") as error:
            train(config(clean, tmp_path / "run", **SHORT, **changes))
        assert error.value.exit_code == 2
        assert not (tmp_path / "run").exists()


def test_the_config_of_a_run_says_what_it_resumed_with(clean: Path, tmp_path: Path) -> None:
    train(config(clean, tmp_path / "run", **SHORT))
    changed = config(clean, tmp_path / "run", **SHORT, optimizer={"lr": 1e-5})
    assert [str(change) for change in find_changes(tmp_path / "run", changed)] == ["optimizer.lr was 0.0002, is 1e-05"]
    train(changed)
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["optimizer"]["lr"] == 1e-5
    assert find_changes(tmp_path / "run", changed) == []
    other = config(clean, tmp_path / "run", **SHORT, model={**SMALL_NET, "args": {"widths": [4, 8], "blocks": [1, 1]}})
    with pytest.raises(RestoreError, match=r"model\.args\.widths was") as error:
        find_changes(tmp_path / "run", other)
    assert "resume.allow" not in str(error.value)
