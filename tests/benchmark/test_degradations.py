"""The literature's damages are what the literature does; the others are those of `restore degrade`."""

import io
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from restore.benchmark.degradations import LITERATURE, BenchSample, find_degradations
from restore.benchmark.run import to_uint8
from restore.cli.options import LITERATURE as COMPLETED
from restore.degradations.write import write_degraded
from restore.errors import RestoreError
from restore.images import read_rgb8, write_png


def photo(height: int = 60, width: int = 84) -> np.ndarray:
    return np.ascontiguousarray(skimage.data.astronaut()[100 : 100 + height, 100 : 100 + width])


def damaged(name: str, picture: np.ndarray, seed: int = 0, called: str = "a") -> BenchSample:
    (damage,) = find_degradations([name], seed)
    return damage.degrade(picture, called)


@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_gaussian_noise_is_that_of_numpys_legacy_generator_and_stays_unclipped(sigma: int) -> None:
    picture = photo()
    rng = np.random.RandomState(0)
    expected = picture / 255 + rng.normal(0, sigma / 255, picture.shape)
    case = damaged(f"awgn-{sigma}", picture)
    np.testing.assert_allclose(case.image[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)
    assert case.image.max() > 1
    assert torch.equal(case.image, damaged(f"awgn-{sigma}", picture, called="another").image), (
        "the same for every picture"
    )
    assert not torch.equal(case.image, damaged(f"awgn-{sigma}", picture, seed=1).image)
    assert case.mask is None


def test_jpeg_is_a_real_file_with_colour_at_half_size() -> None:
    picture = photo()
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=10, subsampling=2)
    assert np.array_equal(to_uint8(damaged("jpeg-10", picture).degraded), np.asarray(Image.open(file)))


@pytest.mark.parametrize("scale", [2, 4])
def test_reducing_is_pillows_antialiased_bicubic(scale: int) -> None:
    picture = photo(61, 86)
    case = damaged(f"bicubic-x{scale}", picture)
    height, width = 61 // scale * scale, 86 // scale * scale
    assert np.array_equal(to_uint8(case.clean), picture[:height, :width]), "cut to a multiple"
    small = Image.fromarray(picture[:height, :width]).resize(
        (width // scale, height // scale), Image.Resampling.BICUBIC
    )
    assert case.small is not None
    assert np.abs(to_uint8(case.small).astype(int) - np.asarray(small)).max() <= 1
    assert case.image.shape == case.clean.shape, "models that do not enlarge get it enlarged"
    with pytest.raises(RestoreError, match="too small"):
        damaged(f"bicubic-x{scale}", photo(1, 30))


def test_none_is_the_picture_itself() -> None:
    case = damaged("none", photo())
    assert torch.equal(case.image, case.clean)


def test_named_damages_are_those_that_degrade_writes(tmp_path: Path) -> None:
    (tmp_path / "clean" / "sub").mkdir(parents=True)
    write_png(tmp_path / "clean" / "sub" / "a.png", photo())
    write_degraded(tmp_path / "clean", tmp_path, "inpaint-medium", seed=3)
    case = damaged("inpaint-medium", photo(), seed=3, called="sub/a")
    assert np.array_equal(to_uint8(case.degraded), read_rgb8(tmp_path / "damaged" / "sub" / "a.png"))
    assert case.mask is not None
    assert np.array_equal(case.mask[0, 0].numpy() > 0, read_rgb8(tmp_path / "masks" / "sub" / "a.png")[..., 0] > 0)


def test_what_is_nothing_but_holes_is_told_from_marks() -> None:
    holes, marks, noise = find_degradations(["inpaint-thin", "scratch", "noise"], 0)
    assert (holes.has_mask, holes.only_holes) == (True, True)
    assert (marks.has_mask, marks.only_holes) == (True, False)
    assert (noise.has_mask, noise.only_holes) == (False, False)


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    for names, words in (
        (["awgn-20"], "did you mean 'awgn-"),
        (["nonsense"], "-x4, aged, blur"),
        ([], "known: none"),
    ):
        with pytest.raises(RestoreError, match="no damage") as caught:
            find_degradations(names, 0)
        assert words in str(caught.value)
        assert caught.value.exit_code == 2
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text("steps: [{name: blur}]")
    with pytest.raises(RestoreError, match="two damages are called 'mine'"):
        find_degradations([str(tmp_path / "x" / "mine.yaml"), str(tmp_path / "y" / "mine.yaml")], 0)


def test_a_damage_named_twice_is_done_once_and_a_file_is_called_by_its_stem(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("steps: [{name: blur}]")
    names = ["jpeg-10", str(tmp_path / "mine.yaml"), "jpeg-10"]
    assert [damage.label for damage in find_degradations(names, 0)] == ["jpeg-10", "mine"]


def test_the_shell_completes_the_same_names() -> None:
    assert COMPLETED == LITERATURE
