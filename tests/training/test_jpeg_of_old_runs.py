"""A run that began when JPEG ran on tensors everywhere goes on with that, and so ends bit for bit as it would have."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from restore.training import loop as loop_module
from restore.training import setup
from restore.training.loop import train
from restore.training.run_dir import RunFolder
from tests.training.test_loop import SMALL_NET, config
from tests.training.test_resume import QUICK, assert_same_end


def test_a_run_of_an_earlier_release_resumes_bit_for_bit(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jpeg = [{"name": "jpeg", "quality": [10, 40]}]
    blind = {"builder": "unet", "args": {**SMALL_NET["args"], "mask": False}}
    whole, parts, new = (
        config(clean, tmp_path / name, damage=jpeg, model=blind, **QUICK) for name in ("whole", "parts", "new")
    )
    open_damage = setup.open_damage
    with monkeypatch.context() as earlier:
        earlier.setattr(setup, "open_damage", lambda config: open_damage(config).with_tensor_jpeg())
        train(whole)
        asked = iter([False, True])
        earlier.setattr(loop_module, "any_rank", lambda fabric, here: next(asked, False))
        assert not train(parts).finished
    forget_the_implementation(tmp_path / "parts" / "last" / "state.safetensors")
    assert RunFolder.cpu_jpeg(tmp_path / "parts") == "tensor"
    assert train(parts).finished
    assert RunFolder.cpu_jpeg(tmp_path / "parts") == "tensor", "it stays so"
    assert_same_end(whole, parts)

    train(new)
    assert RunFolder.cpu_jpeg(tmp_path / "new") == "libjpeg"
    with pytest.raises(AssertionError):
        assert_same_end(whole, new)


def forget_the_implementation(file: Path) -> None:
    with safe_open(file, framework="pt") as opened:
        ((key, text),) = opened.metadata().items()
    facts = json.loads(text)
    del facts["cpu_jpeg"]
    save_file(load_file(file), file, {key: json.dumps(facts)})
