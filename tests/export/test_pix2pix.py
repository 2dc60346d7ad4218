"""Weights go to pix2pix's own code and come back, name by name and value by value."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from skimage import data as pictures

from restore.checkpoints import load_generator, read_description
from restore.config import build
from restore.errors import RestoreError
from restore.export import export
from restore.images import write_png
from restore.models.patchgan import init_weights
from restore.models.pix2pix import Pix2Pix, pix2pix_from_state_dict
from restore.restorers.registry import open_restorer
from restore.training.config import TrainConfig
from restore.training.loop import train

# The reference's 70×70 discriminator with batch norms, as its state dict names it.
D_NAMES = {"model.0.weight", "model.0.bias", "model.11.weight", "model.11.bias"} | {
    f"model.{at}.{part}"
    for at, parts in {
        2: ["weight"], 3: ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"],
        5: ["weight"], 6: ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"],
        8: ["weight"], 9: ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"],
    }.items()
    for part in parts
}  # fmt: skip


def run_config(folder: Path, **changes: object) -> TrainConfig:
    """Two steps of a tiny pix2pix on two pictures beside their negatives."""
    pairs = folder / "pairs"
    pairs.mkdir(exist_ok=True)
    for name in ("astronaut", "coffee"):
        picture = getattr(pictures, name)()[60:132, 100:172]
        write_png(pairs / f"{name}.png", np.concatenate([255 - picture, picture], axis=1))
    values = {
        "out": str(folder / "run"), "total_steps": 2, "precision": "fp32", "device": "cpu", "ema": 0,
        "data": {"side_by_side": str(pairs), "patch": 64, "batch": 1, "validation_size": 64, "validation_count": 1},
        "model": {"builder": "pix2pix", "args": {"num_downs": 5, "ngf": 4}},
        "discriminator": {"args": {"ndf": 8}},
        "loss": {"pixel_weight": 200, "adversarial": "vanilla", "adversarial_weight": 1},
        "lpips_net": "none", "validate_every": 1, "save_every": 1, "keep_checkpoints": 1, "best_by": "last",
    }  # fmt: skip
    return build(TrainConfig, values | changes, where="test")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pix2pix")
    train(run_config(folder))
    return folder / "run"


def output(network: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)), None)


def opened(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True)


def test_a_run_opens_in_the_reference_codes_naming(run: Path, tmp_path: Path) -> None:
    written = export(run, tmp_path / "net", "pix2pix")
    assert [f.name for f in written.files] == ["latest_net_G.pth", "latest_net_D.pth"]
    g, d = (opened(file) for file in written.files)
    state = load_file(run / "last" / "state.safetensors")
    assert all(torch.equal(g[name], state[f"ema.{name}"]) for name in g), "nothing is rounded"
    assert all(torch.equal(d[name], state[f"d.{name}"]) for name in d)
    assert written.notes == ("the weights are those of step 2, in full precision, from last/state.safetensors",)
    assert set(d) == D_NAMES
    assert d["model.0.weight"].shape == (8, 6, 4, 4)
    assert all(v.dtype in (torch.float32, torch.int64) for v in (*g.values(), *d.values()))


@pytest.mark.parametrize("kept", [1, 0])
def test_g_and_d_are_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    scored = iter([20.0, 30.0, 25.0])  # at the start, and after each step: the first step gives the best weights
    monkeypatch.setattr("restore.training.validation.score_images", lambda *_, **__: {"psnr": next(scored)})
    train(run_config(tmp_path, total_steps=2, keep_checkpoints=kept, best_by="psnr"))
    written = export(tmp_path / "run", tmp_path / "net", "pix2pix")
    file = "checkpoints/step_0000001.safetensors" if kept else "last/state.safetensors"
    state = load_file(tmp_path / "run" / file)
    for name, part in (("G", "ema"), ("D", "d")):
        found = opened(tmp_path / "net" / f"latest_net_{name}.pth")
        assert all(torch.equal(value, state[f"{part}.{key}"]) for key, value in found.items())
    assert written.notes[0] == f"the weights are those of step {1 if kept else 2}, in full precision, from {file}"
    assert [("the best step was 1" in note) for note in written.notes[1:]] == ([] if kept else [True])


def test_an_older_state_can_be_exported_too(run: Path, tmp_path: Path) -> None:
    kept = run / "checkpoints" / "step_0000001.safetensors"
    export(kept, tmp_path / "one", "pix2pix")
    export(run / "last" / "state.safetensors", tmp_path / "two", "pix2pix")
    first, last = (
        output(pix2pix_from_state_dict(opened(tmp_path / n / "latest_net_G.pth"), n)) for n in ("one", "two")
    )
    assert not torch.equal(first, last)
    written = export(kept, tmp_path / "one.safetensors", "safetensors")
    described = load_generator(written.files[0])[0]
    torch.testing.assert_close(output(described), first, rtol=0, atol=2e-3)  # half precision


def test_published_weights_become_described_ones_that_give_the_same_picture(tmp_path: Path) -> None:
    published = Pix2Pix(num_downs=6, ngf=4, norm="instance")
    init_weights(published)
    file = tmp_path / "facades_net_G.pth"
    torch.save({f"module.{k}": v for k, v in published.state_dict().items()}, file)
    export(file, tmp_path / "facades.safetensors", "safetensors")

    model, description = load_generator(tmp_path / "facades.safetensors")
    assert torch.equal(output(model), output(published)), "bit for bit: nothing is rounded"
    assert description.args == {"num_downs": 6, "ngf": 4, "input_nc": 3, "output_nc": 3, "norm": "instance"}
    straight, converted = (open_restorer(str(f), device="cpu") for f in (file, tmp_path / "facades.safetensors"))
    assert straight.requirements == converted.requirements

    back = export(tmp_path / "facades.safetensors", tmp_path / "back_net_G.pth", "pix2pix")
    assert all(torch.equal(v, published.state_dict()[k]) for k, v in opened(back.files[0]).items())
    assert back.notes == ("no back_net_D.pth: the source has no discriminator",)


@pytest.mark.parametrize(
    ("args", "words"), [({"spectral_norm": True}, "no spectral norm"), ({"norm": "none"}, "this one has none")]
)
def test_a_discriminator_that_the_reference_has_not_stays_here_and_why(
    tmp_path: Path, args: dict[str, object], words: str
) -> None:
    train(run_config(tmp_path, total_steps=1, discriminator={"args": {"ndf": 8} | args}))
    written = export(tmp_path / "run", tmp_path / "net", "pix2pix")
    assert [f.name for f in written.files] == ["latest_net_G.pth"]
    assert words in written.notes[1]
    assert not (tmp_path / "net" / "latest_net_D.pth").exists()


def test_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="is a unet, which pix2pix's code cannot load"):
        export("photo", tmp_path / "net", "pix2pix")
    assert not (tmp_path / "net").exists()


def test_nothing_is_overwritten_unasked(run: Path, tmp_path: Path) -> None:
    (tmp_path / "latest_net_D.pth").write_bytes(b"mine")
    with pytest.raises(RestoreError, match="exists already"):
        export(run, tmp_path, "pix2pix")
    assert (tmp_path / "latest_net_D.pth").read_bytes() == b"mine"
    assert not (tmp_path / "latest_net_G.pth").exists(), "not even half of it is done"
    export(run, tmp_path, "pix2pix", overwrite=True)
    assert set(opened(tmp_path / "latest_net_D.pth")) == D_NAMES


@pytest.mark.parametrize(
    ("source", "out", "format", "words"),
    [
        ("{run}", "weights.pth", "pix2pix", "must end with _net_G.pth"),
        ("{run}", "weights.pth", "safetensors", "must end with .safetensors"),
        ("{empty}", "net", "pix2pix", "this folder has no best.safetensors"),
        ("{empty}/none.pth", "net", "pix2pix", "there is no such file"),
        ("foto", "net", "pix2pix", "did you mean 'photo'"),
    ],
)
def test_bad_input_is_one_clear_line(run: Path, tmp_path: Path, source: str, out: str, format: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RestoreError, match=words):
        export(source.format(run=run, empty=tmp_path / "empty"), tmp_path / out, format)  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]


def test_the_description_of_an_export_is_that_of_the_run(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "copy.safetensors", "safetensors")
    assert read_description(tmp_path / "copy.safetensors") == read_description(run / "best.safetensors")
    assert (tmp_path / "copy.safetensors").read_bytes() == (run / "best.safetensors").read_bytes()
