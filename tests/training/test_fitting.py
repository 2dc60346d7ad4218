"""Starting points: D from runs and from pix2pix, and what fits of other networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from restore.errors import RestoreError
from restore.models.patchgan import PatchGAN, init_weights
from restore.models.pix2pix import Pix2Pix
from restore.training.fitting import find_discriminator, fit_weights, load_discriminator, read_any
from restore.training.loop import TrainCallbacks, train
from restore.training.setup import build_networks
from tests.training.test_loop import config

SMALL = {
    "model": {"builder": "pix2pix", "args": {"num_downs": 5, "ngf": 4}}, "damage": [{"name": "noise"}],
    "loss": {"adversarial": "vanilla"}, "total_steps": 1, "validate_every": 1, "save_every": 1,
}  # fmt: skip


def published(folder: Path, ndf: int = 4) -> tuple[Pix2Pix, PatchGAN]:
    """pix2pix's folder of checkpoints."""
    torch.manual_seed(7)
    g, d = Pix2Pix(num_downs=5, ngf=4), PatchGAN(ndf=ndf)
    for name, network in (("G", g), ("D", d)):
        init_weights(network)
        torch.save(network.state_dict(), folder / f"latest_net_{name}.pth")
    return g, d


def equal(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_both_start_from_the_folder_of_pix2pix(clean: Path, tmp_path: Path) -> None:
    g, d = published(tmp_path)
    settings = config(
        clean, tmp_path / "run", init=str(tmp_path), **SMALL,
        discriminator={"args": {"ndf": 4}, "init": str(tmp_path)},
    )  # fmt: skip
    generator, discriminator = build_networks(settings)
    assert discriminator is not None
    assert equal(generator, g)
    assert equal(discriminator, d)


def test_d_goes_on_from_a_run_with_a_new_optimizer(clean: Path, tmp_path: Path) -> None:
    args = {"ndf": 4, "norm": "none", "spectral_norm": True}
    train(config(clean, tmp_path / "a", **SMALL, discriminator={"args": args}))
    first, again = (config(clean, tmp_path / name, **SMALL, discriminator={"args": args, **more}) for name, more in (
        ("a", {}), ("b", {"init": str(tmp_path / "a")}),
    ))  # fmt: skip
    _, fresh = build_networks(first)
    _, d = build_networks(again)
    assert fresh is not None
    assert d is not None
    trained = read_any(tmp_path / "a" / "last" / "state.safetensors", "d")
    assert all(torch.equal(value, trained[name]) for name, value in d.state_dict().items())
    assert not equal(d, fresh)
    g, _ = build_networks(again.model_copy(update={"init": str(tmp_path / "a")}))
    averaged = read_any(tmp_path / "a" / "last" / "state.safetensors", "g")
    assert all(torch.equal(value, averaged[name]) for name, value in g.state_dict().items()), "of the same moment"
    assert train(again).finished
    for name in ("a/last", "a/last/state.safetensors", "a"):
        assert find_discriminator(str(tmp_path / name)).name == "state.safetensors"


def test_what_does_not_fit_is_refused_or_told(clean: Path, tmp_path: Path) -> None:
    published(tmp_path)
    changes = {**SMALL, "discriminator": {"args": {"ndf": 6}, "init": str(tmp_path)}, "init": str(tmp_path)}
    with pytest.raises(RestoreError, match="weights of another architecture") as error:
        build_networks(config(clean, tmp_path / "run", **changes))
    assert "init_strict=false" in str(error.value.hint)

    said: list[str] = []
    model = {"builder": "pix2pix", "args": {"num_downs": 5, "ngf": 4, "upsampling": "resize"}}
    settings = config(clean, tmp_path / "run", **{**changes, "model": model, "init_strict": False})
    assert train(settings, TrainCallbacks(on_event=said.append)).finished
    of_g, of_d = (next(line for line in said if f"latest_net_{name}.pth: " in line) for name in "GD")
    assert "drawn at random: model.model.1.model.3" in of_g
    assert "not used: model.model.1.model.3" in of_g
    assert "1 of 19 tensors" in of_d, "the bias of the last layer alone has a shape that does not depend on ndf"


class Renamed(nn.Module):
    """The layers of a PatchGAN under names of another project."""

    def __init__(self, d: PatchGAN) -> None:
        super().__init__()
        convolutions = [m for m in d.modules() if isinstance(m, nn.Conv2d)]
        norms = [m for m in d.modules() if isinstance(m, nn.BatchNorm2d)]
        self.blocks = nn.ModuleList(nn.ModuleDict({"conv": c}) for c in convolutions)
        for block, norm in zip(list(self.blocks)[1:], norms):
            block["bn"] = norm


def test_other_names_are_matched_by_order_and_shape() -> None:
    d = PatchGAN(ndf=4)
    init_weights(d, torch.Generator().manual_seed(0))
    fit = fit_weights(PatchGAN(ndf=4), Renamed(d).state_dict())
    assert fit.by_order
    assert (fit.missing, fit.unused) == ([], [])
    assert all(torch.equal(value, d.state_dict()[name]) for name, value in fit.state.items())


@pytest.mark.parametrize("prefix", ["", "module.", "netD.model."])
def test_prefixes_and_spectral_norm_are_seen_through(tmp_path: Path, prefix: str) -> None:
    torch.manual_seed(0)  # how near the power iteration comes to the norm depends on its random start
    d = PatchGAN(ndf=4, norm="none")
    torch.save({"netD": {prefix + name: value for name, value in d.state_dict().items()}}, tmp_path / "gan.ckpt")
    spectral = PatchGAN(ndf=4, norm="none", spectral_norm=True)
    said: list[str] = []
    load_discriminator(spectral, tmp_path / "gan.ckpt", strict=False, on_event=said.append)
    assert said == ["from gan.ckpt: 10 of 10 tensors, 100% of the values"]
    x = torch.rand(1, 6, 32, 32)
    normal = [m for m in d.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        for layer in normal:
            layer.weight /= torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
        torch.testing.assert_close(spectral.eval()(x), d.eval()(x), rtol=0.05, atol=1e-3)


def test_a_source_without_a_discriminator_is_refused(clean: Path, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="there is no such file or folder"):
        find_discriminator(str(tmp_path / "none"))
    with pytest.raises(RestoreError, match="holds no discriminator"):
        find_discriminator(str(tmp_path))
    train(config(clean, tmp_path / "run", **{**SMALL, "loss": {}}))
    for name in ("run/last/state.safetensors", "run/best.safetensors"):
        with pytest.raises(RestoreError, match="holds no discriminator"):
            read_any(tmp_path / name, "d")
