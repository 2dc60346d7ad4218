"""Gray images and a network that adds color to them: their outputs are in color, whatever the file."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from restore.checkpoints import Description, save_weights
from restore.fix.image import fix_image
from restore.fix.steps import Models, Steps
from restore.images.read import read_image
from restore.models.pix2pix import Pix2Pix
from restore.models.unet import UNet
from restore.restorers.base import ModelRequirements
from restore.restorers.registry import open_restorer
from tests.fix.conftest import Inverter, fix_with, hole, photo, save

TINT = (1.0, 0.77, 0.53)


class Tinter(Inverter):
    """Makes an image orange."""

    name = "tinter"
    requirements = ModelRequirements(needs_mask=False, adds_color=True)

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        return image * image.new_tensor(TINT).view(1, 3, 1, 1)


class KeptGray(Tinter):
    name = "kept-gray"
    requirements = ModelRequirements(needs_mask=False)


def tinted(gray: np.ndarray) -> np.ndarray:
    return np.rint(gray[:, :, None] * np.float32(TINT)).astype(gray.dtype)


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_gray_image_comes_out_in_color(tmp_path: Path, suffix: str, channels: int) -> None:
    gray = photo(40, 56, channels=1)
    options = {"lossless": True} if suffix == "webp" else {}
    save(tmp_path / f"in/a.{suffix}", gray if channels == 1 else gray[:, :, None].repeat(3, axis=2), **options)
    assert not fix_with(tmp_path / "in", tmp_path / "out", Tinter()).failed
    np.testing.assert_array_equal(read_image(tmp_path / f"out/a.{suffix}").pixels, tinted(gray))


def test_other_networks_leave_it_gray(tmp_path: Path) -> None:
    gray = photo(40, 56, channels=1)
    save(tmp_path / "in/one.png", gray)
    save(tmp_path / "in/three.png", gray[:, :, None].repeat(3, axis=2))
    assert not fix_with(tmp_path / "in", tmp_path / "out", KeptGray()).failed
    for name, channels in (("one", 1), ("three", 3)):
        pixels = read_image(tmp_path / f"out/{name}.png").pixels
        assert pixels.shape[2] == channels
        assert (np.abs(pixels - gray[:, :, None] * np.mean(TINT)) <= 1).all()
        assert (np.ptp(pixels, axis=2) == 0).all()


def test_16_bits_and_a_gray_jpeg(tmp_path: Path) -> None:
    deep = photo(24, 32, channels=1, dtype=np.uint16)
    save(tmp_path / "in/deep.png", deep)
    flat = np.full((32, 32), 120, np.uint8)
    save(tmp_path / "in/flat.jpg", flat, quality=95)
    assert not fix_with(tmp_path / "in", tmp_path / "out", Tinter()).failed
    np.testing.assert_allclose(read_image(tmp_path / "out/deep.png").pixels, tinted(deep), atol=1)
    np.testing.assert_allclose(read_image(tmp_path / "out/flat.jpg").pixels, tinted(flat), atol=2)


def test_only_the_hole_gets_color(tmp_path: Path) -> None:
    gray = photo(40, 56, channels=1)
    save(tmp_path / "in/a.png", gray)
    mask = hole(40, 56, (8, 10, 20, 30))
    save(tmp_path / "masks/a.png", mask)
    assert not fix_with(tmp_path / "in", tmp_path / "out", Tinter(), masks=tmp_path / "masks").failed
    pixels = read_image(tmp_path / "out/a.png").pixels
    np.testing.assert_array_equal(pixels[mask == 0], gray[:, :, None].repeat(3, axis=2)[mask == 0])
    assert (pixels[mask > 0][:, 0] > pixels[mask > 0][:, 2]).all()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_the_gamma_of_a_gray_png_is_not_that_of_its_colors(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.full((32, 32), 55, np.uint8)).save(stream, "PNG")
    data = stream.getvalue()
    linear = chunk(b"gAMA", struct.pack(">I", 100_000))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/linear.png").write_bytes(data[:33] + linear + data[33:])
    assert not fix_with(tmp_path / "in", tmp_path / "out", Tinter()).failed
    # 55 of 255 in linear light is 0.5015 in sRGB.
    out = tmp_path / "out/linear.png"
    assert b"gAMA" not in out.read_bytes()
    np.testing.assert_allclose(np.asarray(Image.open(out))[5, 5], 255 * 0.5015 * np.array(TINT), atol=1)


def test_an_array_and_a_pil_image_get_color() -> None:
    gray = photo(24, 32, channels=1)
    np.testing.assert_array_equal(fix_image(gray, model=Tinter()), tinted(gray))
    out = fix_image(Image.fromarray(gray), model=Tinter())
    assert out.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(out), tinted(gray))


def test_such_an_image_is_repaired_in_memory() -> None:
    whole = Steps(restore=True)
    assert whole.work_in_parts(Models(KeptGray()))
    assert not whole.work_in_parts(Models(Tinter()))


def test_the_weights_tell_it(tmp_path: Path) -> None:
    network = UNet(widths=[4, 8], blocks=[1, 1], mask=False)
    for name, says in (("colors", True), ("plain", None)):
        description = Description(
            builder="unet", args={"widths": [4, 8], "blocks": [1, 1], "mask": False}, needs_mask=False, adds_color=says
        )
        save_weights(tmp_path / f"{name}.safetensors", network.state_dict(), description)
        opened = open_restorer(str(tmp_path / f"{name}.safetensors"))
        assert opened.requirements.adds_color is bool(says)
        assert opened.in_precision("bf16").requirements.adds_color is bool(says)


def test_a_published_pix2pix_gives_what_it_makes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Pix2Pix(num_downs=5, ngf=4)
    network.init_for_training()
    torch.save(network.state_dict(), tmp_path / "latest_net_G.pth")
    restorer = open_restorer(str(tmp_path / "latest_net_G.pth"))
    edges = np.where(photo(32, 32, channels=1) > 40, 255, 0).astype(np.uint8)
    expected = network.eval()(torch.from_numpy(edges)[None, None].expand(1, 3, -1, -1) / 255)[0]
    out = fix_image(edges, model=restorer)
    assert np.ptp(out, axis=2).max() > 4
    np.testing.assert_allclose(out, expected.detach().permute(1, 2, 0).numpy() * 255, atol=1)
