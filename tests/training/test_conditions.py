"""Networks that see condition images: what their weights say, and how `fix` gives them what they were trained with."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from skimage import data as pictures

from restore import FixOptions, fix_folder, fix_image
from restore.checkpoints import load_generator, read_description
from restore.errors import RestoreError
from restore.images import DecodedImage, read_image, write_png
from restore.images.encode import encode
from restore.models.pix2pix import Pix2Pix
from restore.models.unet import UNet
from restore.restorers.model_card import model_card
from restore.restorers.network import NetworkRestorer
from restore.restorers.registry import open_restorer
from restore.training.compute import ComputeSettings, time_candidates
from restore.training.dry_run import preview
from restore.training.loop import train
from restore.training.setup import build_networks, with_condition_channels, with_new_channels
from tests.training.test_loop import config

UNET = {"builder": "unet", "args": {"widths": [8, 12], "blocks": [1, 1], "mask": False}}
INPAINTER = {"builder": "unet", "args": {"widths": [8, 12], "blocks": [1, 1], "prefill": True}}
NOISE = [{"name": "noise", "sigma": [25, 25]}]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, their luma as depth maps, and edges in color."""
    folder = tmp_path_factory.mktemp("conditions")
    for part in ("photos", "depth", "edges"):
        (folder / part).mkdir()
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        image = np.ascontiguousarray(getattr(pictures, name)()[60:140, 100:196])
        write_png(folder / "photos" / f"{name}.png", image)
        write_png(folder / "depth" / f"{name}.png", image.mean(2, keepdims=True).astype(np.uint16) * np.uint16(257))
        write_png(folder / "edges" / f"{name}_edges.png", 255 - image)
    return folder


def conditioned(place: Path, out: Path, *conditions: str, **changes: object):
    data = {
        "folders": [str(place / "photos")], "conditions": [str(place / c) for c in conditions],
        "patch": 32, "batch": 2, "validation_percent": 50, "validation_size": 64,
        **changes.pop("data", {}),  # type: ignore[dict-item]
    }  # fmt: skip
    values = {"data": data, "model": UNET, "damage": NOISE, "discriminator": {"args": {"ndf": 8}}, "total_steps": 3}
    return config(place, out, **values | changes)


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    train(conditioned(place, place / "run", "depth", "edges/{}_edges"))
    return place / "run"


def test_the_weights_say_what_the_network_sees(trained: Path, place: Path) -> None:
    description = read_description(trained / "best.safetensors")
    assert [(found.name, found.channels) for found in description.conditions or ()] == [
        ("depth", 1),
        ("{}_edges", 3),
    ]
    assert description.args["conditions"] == 4
    state = load_file(trained / "last" / "state.safetensors")
    assert state["g.head.weight"].shape[1] == 3 + 4
    assert state["d.model.0.weight"].shape[1] == 6 + 4
    saved = yaml.safe_load((trained / "config.yaml").read_text())["data"]["conditions"]
    assert [condition["channels"] for condition in saved] == [1, 3]
    card = model_card(str(trained))
    assert "depth (1 channel) and " in "\n".join(card.format())
    assert card.macs


def test_fix_gives_the_network_what_it_was_trained_with(trained: Path, place: Path, tmp_path: Path) -> None:
    conditions = (str(place / "depth"), str(place / "edges" / "{}_edges"))
    options = FixOptions(device="cpu", precision="fp32", condition=conditions)
    summary = fix_folder(place / "photos", tmp_path / "out", model=str(trained), options=options)
    assert summary.done == 4, summary.failed
    network, _ = load_generator(trained / "best.safetensors")
    parts = [read_image(place / name).values() for name in ("photos/coffee.png", "depth/coffee.png")]
    seen = np.concatenate([*parts, read_image(place / "edges" / "coffee_edges.png").values()], axis=2)
    with torch.no_grad():
        expected = network(torch.from_numpy(seen.transpose(2, 0, 1).copy())[None])[0].permute(1, 2, 0).clamp(0, 1)
    found = read_image(tmp_path / "out" / "coffee.png").pixels
    assert np.abs(found - expected.numpy() * 255).max() <= 0.51
    other = fix_folder(
        place / "photos", tmp_path / "tiles", model=str(trained),
        options=FixOptions(device="cpu", precision="fp32", condition=conditions, tile=64),
    )  # fmt: skip
    assert other.done == 4
    tiles = read_image(tmp_path / "tiles" / "coffee.png").pixels
    assert np.abs(tiles.astype(int) - found).max() <= 1


def test_other_condition_images_are_refused(trained: Path, place: Path, tmp_path: Path) -> None:
    def refused(*condition: str, model: str = str(trained)) -> str:
        with pytest.raises(RestoreError) as error:
            fix_folder(place / "photos", tmp_path / "out", model=model, options=FixOptions(condition=condition))
        return str(error.value)

    assert "depth (1 channel)" in refused()
    assert "1 given" in refused(str(place / "depth"))
    assert "there is no such folder" in refused(str(place / "depth"), str(place / "nowhere"))
    assert "sees the image alone" in refused(str(place / "depth"), model="photo")
    with pytest.raises(RestoreError, match="was trained with"):
        fix_image(np.zeros((40, 40, 3), np.uint8), model=str(trained))
    with pytest.raises(RestoreError, match="sees more than the image"):
        open_restorer(str(trained), device="cpu")(torch.zeros(1, 3, 40, 40))
    swapped = FixOptions(device="cpu", condition=(str(place / "edges" / "{}_edges"), str(place / "depth")))
    summary = fix_folder(place / "photos", tmp_path / "swapped", model=str(trained), options=swapped)
    assert len(summary.failed) == 4
    assert "has 3 channels" in str(summary.failed[0])


def test_a_file_without_its_condition_image_fails(trained: Path, place: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_png(tmp_path / "in" / "other.png", np.zeros((40, 40, 3), np.uint8))
    options = FixOptions(device="cpu", condition=(str(place / "depth"), str(place / "edges" / "{}_edges")))
    summary = fix_folder(tmp_path / "in", tmp_path / "out", model=str(trained), options=options)
    assert "no condition image for the image other" in str(summary.failed[0])


def test_holes_are_filled_by_the_network_that_sees_the_condition(place: Path, tmp_path: Path) -> None:
    train(conditioned(place, tmp_path / "run", "depth", model=INPAINTER, damage="inpaint-medium"))
    restorer = open_restorer(str(tmp_path / "run"), device="cpu", precision="fp32")
    assert isinstance(restorer, NetworkRestorer), "texture synthesis sees no condition"
    mask = np.zeros((80, 96, 1), np.uint8)
    mask[30:40, 10:80] = 255
    write_png(tmp_path / "mask.png", mask)
    outputs = []
    for condition in ("depth/coffee.png", "depth/rocket.png"):
        out = tmp_path / condition.replace("/", "_")
        options = FixOptions(device="cpu", masks=tmp_path / "mask.png", condition=(str(place / condition),))
        assert fix_folder(place / "photos" / "coffee.png", out, model=restorer, options=options).done == 1
        outputs.append(read_image(out).pixels)
    image = read_image(place / "photos" / "coffee.png").pixels
    outside = mask[:, :, 0] == 0
    assert all(np.array_equal(output[outside], image[outside]) for output in outputs)
    assert not np.array_equal(*outputs), "the condition counts"


def test_the_infrared_channel_of_a_scan_is_a_condition(place: Path, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for file in (place / "photos").iterdir():
        pixels = read_image(file).pixels
        infrared = DecodedImage(255 - pixels[:, :, :1], format="tiff")
        content, _ = encode(DecodedImage(pixels, format="tiff", infrared=infrared), "tiff", "scan.tif")
        (tmp_path / "scans" / f"{file.stem}.tif").write_bytes(content)
    data = {"folders": [str(tmp_path / "scans")], "conditions": ["infrared"]}
    train(conditioned(place, tmp_path / "run", data=data, total_steps=2))
    (found,) = read_description(tmp_path / "run" / "best.safetensors").conditions or ()
    assert (found.name, found.channels) == ("infrared", 1)
    options = FixOptions(device="cpu", condition=("infrared",))
    summary = fix_folder(tmp_path / "scans", tmp_path / "out", model=str(tmp_path / "run"), options=options)
    assert summary.done == 4, summary.failed
    summary = fix_folder(place / "photos", tmp_path / "none", model=str(tmp_path / "run"), options=options)
    assert "has no infrared channel" in str(summary.failed[0])


def test_a_resume_with_other_channels_is_refused(trained: Path, place: Path) -> None:
    anything = {"resume": {"allow": ["data.conditions"]}, "total_steps": 4}
    for conditions in (["edges/{}_edges", "depth"], ["depth"], []):
        with pytest.raises(RestoreError, match=r"data\.conditions\.[01]\.channels was"):
            train(conditioned(place, trained, *conditions, **anything))


def test_condition_images_may_move(place: Path, tmp_path: Path) -> None:
    train(conditioned(place, tmp_path / "run", "depth", total_steps=1))
    shutil.copytree(place / "depth", place / "elsewhere")
    with pytest.raises(RestoreError, match=r"resume\.allow"):
        train(conditioned(place, tmp_path / "run", "elsewhere", total_steps=2))
    allowed = {"resume": {"allow": ["data.conditions"]}, "total_steps": 2}
    assert train(conditioned(place, tmp_path / "run", "elsewhere", **allowed)).step == 2


def test_gray_and_pix2pix_take_conditions_too(place: Path, tmp_path: Path) -> None:
    model = {"builder": "pix2pix", "args": {"num_downs": 5, "ngf": 8}}
    train(conditioned(place, tmp_path / "run", "depth", model=model, data={"channels": "gray"}, total_steps=2))
    state = load_file(tmp_path / "run" / "last" / "state.safetensors")
    assert state["g.model.model.0.weight"].shape[1] == 2
    options = FixOptions(device="cpu", condition=(str(place / "depth"),))
    assert fix_folder(place / "photos", tmp_path / "out", model=str(tmp_path / "run"), options=options).done == 4
    shown = preview(conditioned(place, tmp_path / "dry", "depth", total_steps=2))
    assert "G: unet" in shown.text()


def test_weights_without_conditions_are_a_start(place: Path, tmp_path: Path) -> None:
    """The new channels count nothing at first."""
    x, condition = torch.rand(1, 3, 32, 32), torch.rand(1, 4, 32, 32)
    for plain, seeing in (
        (UNet([8, 12], [1, 1], mask=False), UNet([8, 12], [1, 1], mask=False, conditions=4)),
        (Pix2Pix(5, 8, dropout=False), Pix2Pix(5, 8, dropout=False, conditions=4)),
    ):
        seeing.load_state_dict(with_new_channels(plain.state_dict(), seeing))
        with torch.no_grad():
            assert torch.allclose(plain.eval()(x), seeing.eval()(torch.cat([x, condition], 1)), atol=1e-6)
    masked = UNet([8, 12], [1, 1], conditions=4)
    assert with_new_channels(UNet([8, 12], [1, 1], mask=False).state_dict(), masked)["head.weight"].shape[1] == 8


def test_the_precision_is_chosen_with_all_channels(place: Path, tmp_path: Path) -> None:
    found = with_condition_channels(conditioned(place, tmp_path, "depth", "edges/{}_edges"))
    way = ComputeSettings("fp32", False)
    assert time_candidates(build_networks(found)[0], [way], found)[way] > 0


def test_what_cannot_see_conditions_says_so(place: Path, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match=r"data\.conditions has no effect with task: detection"):
        conditioned(place, tmp_path, "depth", task="detection", best_by="f1", loss={}, discriminator={}, model={})
    with pytest.raises(RestoreError, match=r"model\.args\.conditions cannot be set"):
        conditioned(place, tmp_path, "depth", model={"builder": "unet", "args": {"conditions": 2}})


def test_a_condition_that_is_filled_with_the_image_stays_as_it_is(place: Path, tmp_path: Path) -> None:
    found = with_condition_channels(conditioned(place, tmp_path, "depth", model=INPAINTER, damage="inpaint-medium"))
    network, _ = build_networks(found)
    image, mask = torch.rand(1, 4, 32, 32), torch.zeros(1, 1, 32, 32)
    mask[..., 10:20, :] = 1
    filled = network.fill(image, mask)
    assert torch.equal(filled[:, 3:], image[:, 3:])
    assert not torch.equal(filled[:, :3], image[:, :3])
