"""The weights that a run starts from: runs, their last state, and files of other training code."""

from pathlib import Path

import pytest
import torch

from restore.errors import RestoreError
from restore.models.registry import build_generator
from restore.training.config import TrainConfig
from restore.training.initial import find_initial, read_initial
from restore.training.loop import train
from restore.training.setup import build_networks
from tests.training.test_loop import SMALL_NET, config, state

SHORT = {"total_steps": 2, "log_every": 1, "validate_every": 1, "save_every": 1, "loss": {}}


def started(settings: TrainConfig) -> dict[str, torch.Tensor]:
    return build_networks(settings)[0].state_dict()


def test_a_run_its_last_state_and_a_bare_name_are_starting_points(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config(clean, tmp_path / "first", **SHORT))
    monkeypatch.chdir(tmp_path)
    average = {k.removeprefix("ema."): v for k, v in state(tmp_path / "first").items() if k.startswith("ema.")}
    for name in ("first", "first/last", "first/last/state.safetensors", "first/best.safetensors"):
        weights = started(config(clean, tmp_path / "next", **SHORT, init=name))
        # best.safetensors holds float16.
        assert all(torch.allclose(weights[k], v, atol=1e-3) for k, v in average.items()), name
    exact = started(config(clean, tmp_path / "next", **SHORT, init="first/last"))
    assert all(torch.equal(exact[k], v) for k, v in average.items())
    (tmp_path / "first" / "best.safetensors").unlink()
    assert find_initial("first") == Path("first/last/state.safetensors")


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [(None, ""), ("state_dict", "generator."), ("state_dict", "model.netG."), ("params_ema", ""), (None, "module.")],
)
@pytest.mark.parametrize("suffix", [".ckpt", ".pth"])
def test_a_checkpoint_of_other_training_code_is_one_if_it_holds_this_network(
    tmp_path: Path, wrap: str | None, prefix: str, suffix: str
) -> None:
    network = build_generator("unet", SMALL_NET["args"], where="test")
    tensors = {f"{prefix}{k}": v for k, v in network.state_dict().items()}
    if prefix.endswith(("generator.", "netG.")):
        tensors["discriminator.layer.weight"] = torch.ones(3)
    torch.save({wrap: tensors, "epoch": 3} if wrap else tensors, tmp_path / f"a{suffix}")
    other = build_generator("unet", SMALL_NET["args"], where="test")
    found = read_initial(tmp_path / f"a{suffix}", other)
    assert found.keys() == network.state_dict().keys()
    assert all(torch.equal(found[k], v) for k, v in network.state_dict().items())


def test_what_holds_no_weights_is_named(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for init, expected in (
        (str(tmp_path / "empty"), r"holds no weights: no best\.safetensors, no state in last/"),
        (str(tmp_path / "none.ckpt"), "there is no such weights file"),
    ):
        with pytest.raises(RestoreError, match=expected):
            started(config(clean, tmp_path / "run", **SHORT, init=init))
    torch.save({"epoch": 3}, tmp_path / "no.ckpt")
    with pytest.raises(RestoreError, match="no state dict of tensors"):
        started(config(clean, tmp_path / "run", **SHORT, init=str(tmp_path / "no.ckpt")))
    torch.save({"other.weight": torch.ones(2)}, tmp_path / "other.ckpt")
    with pytest.raises(RestoreError, match="another architecture"):
        started(config(clean, tmp_path / "run", **SHORT, init=str(tmp_path / "other.ckpt")))
