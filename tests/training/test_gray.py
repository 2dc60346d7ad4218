"""Networks with one image channel: trained on gray, and used on gray files and on color ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from restore import FixOptions, fix_folder, fix_image
from restore.checkpoints import load_generator, read_description
from restore.errors import RestoreError
from restore.fix.steps import repair
from restore.images import read_image, write_png
from restore.restorers.model_card import model_card
from restore.restorers.registry import open_restorer
from restore.training.dry_run import preview
from restore.training.loop import train
from tests.training.test_loop import config

UNET = {"builder": "unet", "args": {"widths": [8, 12], "blocks": [1, 1], "mask": False}}
PIX2PIX = {"builder": "pix2pix", "args": {"num_downs": 5, "ngf": 8}}
NOISE = [{"name": "noise", "sigma": [25, 25]}]


def gray_data(clean: Path, **more: object) -> dict:
    shape = {"patch": 32, "batch": 2, "validation_percent": 50, "validation_size": 64, "channels": "gray"}
    return {"folders": [str(clean)], **shape, **more}


def gray_config(clean: Path, out: Path, **changes: object):
    values = {"data": gray_data(clean), "model": UNET, "damage": NOISE, "discriminator": {"args": {"ndf": 8}}}
    return config(clean, out, **values | changes)


@pytest.fixture(scope="module")
def trained(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gray") / "run"
    discriminator = {"args": {"ndf": 8}, "augment": ["color", "translation"]}
    train(gray_config(clean, out, discriminator=discriminator))
    return out


def test_a_gray_network_has_one_channel_and_its_weights_say_so(trained: Path) -> None:
    network, description = load_generator(trained / "best.safetensors")
    assert description.channels == 1
    assert description.args["channels"] == 1
    assert network(torch.rand(1, 1, 32, 32)).shape == (1, 1, 32, 32)
    state = load_file(trained / "last" / "state.safetensors")
    assert state["g.head.weight"].shape[1] == 1
    assert state["g.tail.weight"].shape[0] == 1
    assert state["d.model.0.weight"].shape[1] == 2, "the damaged image and the image to judge"
    assert "input         gray image" in "\n".join(model_card(str(trained)).format())
    assert model_card(str(trained)).macs


def test_gray_files_are_repaired_by_one_channel_exactly(trained: Path, tmp_path: Path) -> None:
    restorer = open_restorer(str(trained), device="cpu", precision="fp32")
    gray = np.random.default_rng(0).random((40, 52, 1)).astype(np.float32)
    network, _ = load_generator(trained / "best.safetensors")
    with torch.no_grad():
        expected = network(torch.from_numpy(gray.transpose(2, 0, 1)[None]))[0, 0].clamp(0, 1).numpy()
    found = repair(restorer, gray.repeat(3, 2), None)
    assert np.abs(found - expected[:, :, None]).max() < 1e-6
    assert np.array_equal(found[:, :, 0], found[:, :, 2])
    deep = np.rint(gray[:, :, 0] * 65535).astype(np.uint16)
    fixed = fix_image(deep, model=restorer, options=FixOptions(precision="fp32"))
    assert fixed.shape == deep.shape
    assert np.abs(fixed - expected * 65535).max() <= 1.5


def test_each_channel_of_a_color_file_is_repaired_and_that_is_told(trained: Path, tmp_path: Path) -> None:
    color = np.random.default_rng(1).integers(0, 255, (40, 52, 3)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    for name, pixels in (("color", color), ("gray", color[:, :, :1]), ("neutral", color[:, :, :1].repeat(3, 2))):
        write_png(tmp_path / "in" / f"{name}.png", pixels)
    options = FixOptions(device="cpu", precision="fp32")
    summary = fix_folder(tmp_path / "in", tmp_path / "out", model=str(trained), options=options)
    told = "run was trained on gray images: it repairs each channel of this color image by itself"
    assert len(summary.warnings) == 1
    assert "color.png" in summary.warnings[0]
    assert told in summary.warnings[0]
    repaired = read_image(tmp_path / "out" / "color.png").pixels
    first = read_image(tmp_path / "out" / "gray.png").pixels
    assert np.array_equal(repaired[:, :, 0], first[:, :, 0]), "a channel is repaired as a gray image"
    assert np.array_equal(read_image(tmp_path / "out" / "neutral.png").pixels, first.repeat(3, 2))


def test_a_gray_run_resumes_bit_for_bit(clean: Path, tmp_path: Path) -> None:
    steady = {"optimizer": {"schedule": "constant"}, "loss": {}}
    for name, stops in (("whole", [4]), ("parts", [2, 4])):
        for steps in stops:
            train(gray_config(clean, tmp_path / name, total_steps=steps, **steady))
    whole, parts = (load_file(tmp_path / name / "last" / "state.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    with pytest.raises(RestoreError, match=r"data\.channels was gray, is color"):
        train(gray_config(clean, tmp_path / "parts", data=gray_data(clean, channels="color"), **steady))


def test_a_gray_inpainter_fills_holes(clean: Path, tmp_path: Path) -> None:
    model = {"builder": "unet", "args": {"widths": [8, 12], "blocks": [1, 1], "prefill": True}}
    train(gray_config(clean, tmp_path / "run", total_steps=2, model=model, damage="inpaint-medium"))
    assert read_description(tmp_path / "run" / "best.safetensors").needs_mask
    restorer = open_restorer(str(tmp_path / "run"), device="cpu", precision="fp32")
    gray = np.random.default_rng(2).integers(0, 255, (48, 60)).astype(np.uint8)
    mask = np.zeros((48, 60), bool)
    mask[20:24, 5:50] = True
    fixed = fix_image(gray, model=restorer, mask=mask)
    assert np.array_equal(fixed[~mask], gray[~mask])
    assert not np.array_equal(fixed[mask], gray[mask])


def test_pix2pix_trains_on_gray_pairs(clean: Path, tmp_path: Path) -> None:
    data = gray_data(clean, folders=[], input=str(clean), target=str(clean))
    changes = {"data": data, "damage": None, "model": PIX2PIX, "total_steps": 2}
    train(gray_config(clean, tmp_path / "run", **changes))
    description = read_description(tmp_path / "run" / "best.safetensors")
    assert (description.args["input_nc"], description.args["output_nc"]) == (1, 1)
    gray = np.random.default_rng(2).integers(0, 255, (40, 60)).astype(np.uint8)
    assert fix_image(gray, model=str(tmp_path / "run")).shape == gray.shape


def test_the_dry_run_shows_a_gray_batch(clean: Path, tmp_path: Path) -> None:
    found = preview(gray_config(clean, tmp_path / "run", total_steps=2))
    assert read_image(found.image).pixels.shape[2] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"builder": "unet", "args": {"channels": 1}}}, r"model.args.channels cannot be set"),
        (
            {"task": "detection", "best_by": "f1", "loss": {}, "discriminator": {}, "model": {}},
            "data.channels: gray has no effect",
        ),
    ],
)
def test_what_does_not_fit_gray_is_refused(clean: Path, tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(RestoreError, match=message):
        gray_config(clean, tmp_path / "run", **changes)
