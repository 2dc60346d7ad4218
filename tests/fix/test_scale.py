"""`--scale`: repairs that end larger, with all that belongs to an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import Tensor

from restore import fix_folder, fix_image
from restore.checkpoints import Description, save_weights
from restore.errors import RestoreError
from restore.fix import reader
from restore.fix.options import FixOptions
from restore.fix.results import Summary
from restore.fix.run_models import open_models
from restore.fix.steps import Models
from restore.images import image_from_bytes, read_image
from restore.models.enlarge import Enlarge
from restore.restorers.base import ModelRequirements, Restorer
from restore.restorers.enlarging import interpolated
from restore.restorers.registry import open_restorer
from tests.fix.conftest import Filler, Inverter, hole, load, logged, photo, save
from tests.images.profiles import ADOBE_RGB, matrix_profile


class Nearest(Restorer):
    """Repeats pixels, so that every result can be told in advance."""

    name, purpose = "nearest", "test"
    requirements = ModelRequirements(needs_mask=False, scale=2)

    def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
        return image.repeat_interleave(2, -1).repeat_interleave(2, -2)


ENLARGING = Models(enlarger=Nearest())


def enlarge_with(input: Path, output: Path, models: Models, **options: Any) -> Summary:
    return fix_folder(input, output, models, options=FixOptions(**options))


def repeated(pixels: np.ndarray, scale: int = 2) -> np.ndarray:
    return pixels.repeat(scale, 0).repeat(scale, 1)


def put(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    """Save an image, also one that Pillow cannot, with its channels in another order."""
    if pixels.dtype == np.uint8 or pixels.ndim == 2:
        return save(path, pixels, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped weights: untrained networks that enlarge."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for scale in (2, 4):
        torch.manual_seed(scale)
        model = Enlarge(scale, width=8, blocks=1)
        described = Description(
            builder="enlarge",
            args={"scale": scale, "width": 8, "blocks": 1},
            needs_mask=False,
            scale=scale,
            overlap_px=model.reach_px,
        )
        save_weights(folder / f"enlarge-x{scale}.safetensors", model.state_dict(), described)
    monkeypatch.setattr("restore.checkpoints.weights_dir", lambda: folder)
    return folder


@pytest.mark.parametrize("scale", [2, 4])
def test_the_option_chooses_the_model(scale: int, weights: Path, tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", photo(20, 30))
    options = FixOptions(scale=scale, engine="torch", precision="fp32", log=tmp_path / "log.jsonl")
    summary = fix_folder(tmp_path / "in", tmp_path / "out", options=options)
    assert (summary.done, summary.model) == (1, f"enlarge-x{scale}")
    assert load(tmp_path / "out/a.png").shape == (20 * scale, 30 * scale, 3)
    [line] = logged(tmp_path / "log.jsonl")
    assert (line["steps"], line["model"]) == (["enlarge"], f"enlarge-x{scale}")
    assert (line["width"], line["height"]) == (30, 20)


@pytest.mark.parametrize(
    ("given", "main", "enlarger"),
    [
        ({}, "bicubic-x2", "bicubic-x2"),
        ({"model": "telea", "masks": "alpha"}, "telea", "enlarge-x2"),
        ({"model": "nlmeans"}, "nlmeans", "enlarge-x2"),
    ],
)
def test_another_model_repairs_first_or_enlarges(
    given: dict[str, str], main: str, enlarger: str, weights: Path
) -> None:
    given = {"model": "bicubic-x2"} | given
    options = FixOptions(scale=2, masks=given.get("masks"), engine="torch", device="cpu", clean_up=None)
    [models] = open_models(given["model"], options)
    assert models.main is not None
    assert models.enlarger is not None
    assert (models.main.name, models.enlarger.name) == (main, enlarger)


@pytest.mark.parametrize(
    ("name", "channels", "dtype"),
    [
        ("gray8.png", 1, np.uint8),
        ("gray16.png", 1, np.uint16),
        ("rgb8.tif", 3, np.uint8),
        ("rgb16.png", 3, np.uint16),
        ("rgba16.png", 4, np.uint16),
        ("rgba8.webp", 4, np.uint8),
    ],
)
def test_depth_channels_and_alpha_stay(name: str, channels: int, dtype: type, tmp_path: Path) -> None:
    pixels = photo(20, 30, channels=channels, dtype=dtype)
    if channels == 4:
        pixels[..., 3] = np.iinfo(dtype).max
        pixels[:10, :, 3] = np.iinfo(dtype).max // 4
    put(tmp_path / "in" / name, pixels, **({"lossless": True} if name.endswith("webp") else {}))
    enlarge_with(tmp_path / "in" / name, tmp_path / name, ENLARGING, scale=2)
    before, after = read_image(tmp_path / "in" / name), read_image(tmp_path / name)
    assert after.size == (40, 60)
    assert after.pixels.dtype == before.pixels.dtype
    np.testing.assert_array_equal(after.pixels, repeated(before.pixels))
    if channels == 4:
        assert before.alpha is not None
        assert after.alpha is not None
        np.testing.assert_array_equal(after.alpha[:18], repeated(before.alpha)[:18])
        np.testing.assert_array_equal(after.alpha[22:], repeated(before.alpha)[22:])


def test_colors_stay_in_the_profile_also_those_outside_srgb(tmp_path: Path) -> None:
    profile = matrix_profile(*ADOBE_RGB)
    pixels = np.full((20, 30, 3), (90, 120, 100), np.uint8)
    pixels[:, 15:] = (0, 255, 0)
    save(tmp_path / "a.png", pixels, icc_profile=profile)
    enlarge_with(tmp_path / "a.png", tmp_path / "b.png", ENLARGING, scale=2)
    after = read_image(tmp_path / "b.png")
    assert after.icc == profile
    difference = np.abs(after.pixels.astype(int) - repeated(pixels))
    difference[:, 28:32] = 0  # between both, what lies outside is interpolated
    assert difference.max() <= 1


def test_values_beyond_white_of_floats_stay(tmp_path: Path) -> None:
    pixels = np.full((20, 30, 3), 0.25, np.float32)
    pixels[:, 15:] = 3.5
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    enlarge_with(tmp_path / "a.tif", tmp_path / "b.tif", ENLARGING, scale=2)
    after = tifffile.imread(tmp_path / "b.tif")
    assert after.dtype == np.float32
    np.testing.assert_allclose(after[:, :28], 0.25, atol=1e-6)
    np.testing.assert_allclose(after[:, 32:], 3.5, atol=1e-6)


@pytest.mark.parametrize("ending", ["jpg", "tif", "png"])
@pytest.mark.parametrize("parts", [False, True])
def test_sizes_in_the_metadata_follow_and_the_resolution_stays(
    ending: str, parts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "HUGE_PIXELS", 100 if parts else 10**9)
    exif = Image.Exif()
    exif[0x010E] = "grandmother"
    exif.get_ifd(0x8769).update({0xA002: 30, 0xA003: 20})
    save(tmp_path / f"a.{ending}", photo(20, 30), exif=exif, dpi=(300, 300))
    enlarge_with(tmp_path / f"a.{ending}", tmp_path / f"b.{ending}", ENLARGING, scale=2)
    with Image.open(tmp_path / f"b.{ending}") as image:
        assert image.size == (60, 40)
        found = image.getexif()
        assert found[0x010E] == "grandmother"
        if ending != "tif":  # Pillow writes no such directory there
            assert (found.get_ifd(0x8769)[0xA002], found.get_ifd(0x8769)[0xA003]) == (60, 40)
        assert [round(float(value)) for value in image.info["dpi"]] == [300, 300]


def test_a_sidecar_tells_the_new_size(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", photo(20, 30))
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r exif:PixelXDimension="30" exif:PixelYDimension="20"/></x:xmpmeta>'
    (tmp_path / "in/a.xmp").write_bytes(packet)
    enlarge_with(tmp_path / "in", tmp_path / "out", ENLARGING, scale=2)
    assert b'PixelXDimension="60" exif:PixelYDimension="40"' in (tmp_path / "out/a.xmp").read_bytes()


def test_holes_are_filled_before_and_masks_come_out_as_large(tmp_path: Path) -> None:
    pixels, mask = photo(20, 30), hole(20, 30, (5, 6, 12, 20))
    save(tmp_path / "in/a.png", pixels)
    save(tmp_path / "mask.png", mask)
    models = Models(Filler(), enlarger=Nearest())
    summary = enlarge_with(
        tmp_path / "in", tmp_path / "out", models, scale=2, masks=tmp_path / "mask.png",
        save_masks=tmp_path / "masks", log=tmp_path / "log.jsonl", html_report=tmp_path / "report",
    )  # fmt: skip
    assert summary.done == 1
    expected = np.where(mask[:, :, None] > 0, 255, pixels)
    np.testing.assert_array_equal(load(tmp_path / "out/a.png"), repeated(expected))
    np.testing.assert_array_equal(load(tmp_path / "masks/a.png.png"), repeated(mask))
    assert logged(tmp_path / "log.jsonl")[0]["steps"] == ["fill_holes", "enlarge"]


def test_an_image_without_a_mask_is_enlarged_all_the_same(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", photo(20, 30))
    save(tmp_path / "masks/b.png", hole(20, 30, (5, 6, 12, 20)))
    save(tmp_path / "in/b.png", photo(20, 30, 1))
    models = Models(Filler(), enlarger=Nearest())
    enlarge_with(tmp_path / "in", tmp_path / "out", models, scale=2, masks=tmp_path / "masks", mask_missing="copy")
    np.testing.assert_array_equal(load(tmp_path / "out/a.png"), repeated(load(tmp_path / "in/a.png")))


def test_what_repairs_without_a_mask_comes_before(tmp_path: Path) -> None:
    save(tmp_path / "a.png", photo(20, 30))
    enlarge_with(tmp_path / "a.png", tmp_path / "b.png", Models(Inverter(), enlarger=Nearest()), scale=2)
    np.testing.assert_array_equal(load(tmp_path / "b.png"), repeated(255 - load(tmp_path / "a.png")))


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_strength_blends_with_the_bicubic_image(strength: float, tmp_path: Path) -> None:
    pixels = photo(20, 30)
    save(tmp_path / "a.png", pixels)
    enlarge_with(tmp_path / "a.png", tmp_path / "b.png", ENLARGING, scale=2, strength=strength)
    plain = interpolated(torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), 2)[0].permute(1, 2, 0).numpy()
    expected = plain + strength * (repeated(pixels) - plain)
    assert np.abs(load(tmp_path / "b.png") - expected.clip(0, 255)).max() <= 0.51


def test_all_pages_are_enlarged(tmp_path: Path) -> None:
    pages = [photo(20, 30, number) for number in range(3)]
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    enlarge_with(tmp_path / "a.tif", tmp_path / "b.tif", ENLARGING, scale=2)
    after = image_from_bytes((tmp_path / "b.tif").read_bytes(), "b.tif", all_pages=True)
    for page, expected in zip((after, *after.extra_pages), pages, strict=True):
        np.testing.assert_array_equal(page.pixels, repeated(expected))


@pytest.mark.parametrize(
    ("name", "channels", "dtype"),
    [("gray8.png", 1, np.uint8), ("rgba16.png", 4, np.uint16), ("rgb8.tif", 3, np.uint8), ("a.jpg", 3, np.uint8)],
)
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_bands_give_the_same_as_memory(
    name: str, channels: int, dtype: type, strength: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "in" / name, photo(301, 203, channels=channels, dtype=dtype))
    monkeypatch.setattr("restore.fix.out_of_core._STRIP_PIXELS", 5000)
    models = Models(enlarger=open_restorer("lanczos-x2", device="cpu"))
    ways = []
    for way, limit in (("memory", 10**9), ("bands", 100)):
        monkeypatch.setattr(reader, "HUGE_PIXELS", limit)
        summary = enlarge_with(tmp_path / "in", tmp_path / way, models, scale=2, tile=64, strength=strength)
        assert not summary.failed, summary.format()
        ways.append(read_image(tmp_path / way / name))
    one, two = ways
    assert one.size == two.size == (602, 406)
    tolerance = 3 if name.endswith("jpg") else 0  # in bands, a JPEG has tables of its own
    assert np.abs(one.pixels.astype(int) - two.pixels.astype(int)).max() <= tolerance
    assert (one.alpha is None) == (two.alpha is None)
    assert one.alpha is None or np.array_equal(one.alpha, two.alpha)
    assert {path.name for path in (tmp_path / "bands").iterdir()} == {name}, "nothing is left beside it"


def test_it_went_through_in_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from restore.fix.out_of_core import SpooledPage

    written: list[int] = []
    before = SpooledPage.write_rows
    monkeypatch.setattr(
        SpooledPage, "write_rows", lambda page, top, band: (written.append(top), before(page, top, band))
    )
    monkeypatch.setattr(reader, "HUGE_PIXELS", 401)
    save(tmp_path / "small.png", photo(9, 10))
    save(tmp_path / "large.png", photo(10, 11))
    models = Models(enlarger=open_restorer("bicubic-x2", device="cpu"))
    enlarge_with(tmp_path / "small.png", tmp_path / "out1.png", models, scale=2)
    assert not written
    enlarge_with(tmp_path / "large.png", tmp_path / "out2.png", models, scale=2)
    assert written, "the limit is for the enlarged image"


def test_arrays_come_out_larger() -> None:
    pixels = photo(20, 30)
    np.testing.assert_array_equal(fix_image(pixels, model=ENLARGING, options=FixOptions(scale=2)), repeated(pixels))
    gray = pixels[:, :, 0]
    np.testing.assert_array_equal(fix_image(gray, model=ENLARGING, options=FixOptions(scale=2)), repeated(gray))
    models = Models(Filler(), enlarger=Nearest())
    mask = hole(20, 30, (5, 6, 12, 20)) > 0
    filled = fix_image(pixels, model=models, mask=mask, options=FixOptions(scale=2))
    np.testing.assert_array_equal(filled, repeated(np.where(mask[:, :, None], 255, pixels)))


def test_the_file_says_what_was_done(tmp_path: Path) -> None:
    save(tmp_path / "a.png", photo(20, 30))
    enlarge_with(tmp_path / "a.png", tmp_path / "b.png", ENLARGING, scale=2)
    xmp = read_image(tmp_path / "b.png").xmp
    assert xmp is not None
    assert b"nearest" in xmp
    assert b"scale 2" in xmp or b"scale=2" in xmp


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("bicubic-x4", {"scale": 2}, "bicubic-x4 enlarges 4 times"),
        (Models(Filler(), enlarger=Nearest()), {"scale": 2}, "requires --masks"),
        ("bicubic-x2", {"scale": 2, "masks": "alpha"}, "no model is called 'inpaint'"),
        (ENLARGING, {"scale": 2, "masks": "alpha"}, "cannot be combined with --masks"),
        (Inverter(), {"scale": 2}, "no model is called 'enlarge-x2'"),
        (Models(Inverter()), {"scale": 2}, "requires a model that enlarges"),
        (Models(Nearest(), enlarger=Nearest()), {"scale": 2}, "changes the size of images itself"),
        (ENLARGING, {"scale": 4}, "does not enlarge images 4 times"),
        (Nearest(), {"strength": 0.5}, "add --scale 2"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    model: object, options: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restore.checkpoints.weights_dir", lambda: tmp_path)
    save(tmp_path / "a.png", photo(20, 30, channels=4))
    with pytest.raises(RestoreError, match=message) as caught:
        fix_folder(tmp_path / "a.png", tmp_path / "b.png", model, options=FixOptions(**options))  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    assert not (tmp_path / "b.png").exists()


def test_several_fills_are_not_enlarged() -> None:
    with pytest.raises(RestoreError, match="cannot be combined with --fills"):
        FixOptions(scale=2, fills=2, masks="alpha")


@pytest.mark.parametrize("scale", [0, 1, 3, 8])
def test_only_two_and_four(scale: int) -> None:
    with pytest.raises(RestoreError, match="must be 2 or 4"):
        FixOptions(scale=scale)
