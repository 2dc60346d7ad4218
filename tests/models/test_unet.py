"""The default generator: any size, a gradient everywhere, within its budget."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from restore.errors import RestoreError
from restore.models.receptive_field import measure_reach_px
from restore.models.registry import GENERATORS, build_generator, count_parameters
from restore.models.unet import UNet, harmonic_fill, up
from restore.training.config import load_train_config
from restore.training.network_config import generator_args

SMALL = {"widths": (8, 12, 16), "blocks": (1, 1, 2)}


@pytest.mark.parametrize("size", [(4, 4), (4, 40), (52, 36)])
@pytest.mark.parametrize("prefill", [False, True])
def test_takes_any_size_that_divides(size: tuple[int, int], prefill: bool) -> None:
    model = UNet(**SMALL, prefill=prefill)
    mask = torch.zeros(2, 1, *size)
    mask[..., :2] = 1
    out = model(torch.rand(2, 3, *size), mask)
    assert out.shape == (2, 3, *size)
    assert out.isfinite().all()


@pytest.mark.parametrize("prefill", [False, True])
def test_every_parameter_gets_a_gradient(prefill: bool) -> None:
    model = UNet(**SMALL, prefill=prefill)
    mask = (torch.rand(2, 1, 32, 32) > 0.7).float()
    model(torch.rand(2, 3, 32, 32), mask).square().mean().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_logits_are_not_added_to_the_picture_and_start_low() -> None:
    model = UNet(**SMALL, mask=False, out_channels=1)
    white, black = (model(torch.full((1, 3, 32, 32), value)) for value in (1.0, 0.0))
    assert white.shape == (1, 1, 32, 32)
    assert white.sigmoid().mean().item() == pytest.approx(0.02, abs=0.015)
    assert (white - black).abs().max() < 1, "a picture added would show"


def test_an_enlargement_begins_without_a_lattice() -> None:
    larger = up(12, 5)(torch.rand(1, 12, 6, 7))
    assert larger.shape == (1, 5, 12, 14)
    assert torch.equal(larger[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2), larger)


def test_what_lies_under_the_mask_is_never_seen() -> None:
    model = UNet(**SMALL).eval()
    image, mask = torch.rand(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    mask[..., 8:16, 8:16] = 1
    other = torch.where(mask > 0, torch.rand_like(image), image)
    assert torch.equal(model(image, mask), model(other, mask))


def test_one_picture_does_not_depend_on_its_neighbours() -> None:
    model = UNet(**SMALL).eval()
    images = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["photo", "inpaint"])
def test_shipped_networks_stay_within_their_budget(name: str) -> None:
    config = load_train_config(name, [])
    model = build_generator(config.model.builder, config.model.args)
    assert isinstance(model, UNet)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.rand(1, 3, 256, 256), torch.zeros(1, 1, 256, 256))
    assert 4e6 <= count_parameters(model) <= 6e6
    assert counter.get_total_flops() / 2 <= 20e9


def test_the_detector_stays_within_its_budget() -> None:
    model = build_generator("pyramid-unet", generator_args(load_train_config("detector", [])))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.rand(1, 3, 256, 256))
    assert 2 * count_parameters(model) <= 12e6, "bytes in half precision"
    assert counter.get_total_flops() / 2 <= 20e9


def test_harmonic_fill_keeps_what_is_outside_the_mask_and_finds_a_plane_inside() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    plane = ((x + y) / 126)[None, None].expand(1, 3, -1, -1)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 24:40, 24:40] = 1
    filled = harmonic_fill(plane * (1 - mask), mask)
    assert torch.equal(filled * (1 - mask), plane * (1 - mask))
    error = (filled - plane).abs()[..., 24:40, 24:40]
    assert error.mean() < 0.02


def test_a_harmonic_fill_is_the_same_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = torch.rand(2, 3, 45, 37), (torch.rand(2, 1, 45, 37) <= 0.6).float()
    mask[..., 8:30, 5:20] = 1
    whole = harmonic_fill(image, mask)
    monkeypatch.setattr("restore.models.unet._BAND_PX", 8)
    assert torch.equal(harmonic_fill(image, mask), whole)


def test_harmonic_fill_of_an_image_that_is_all_hole_is_gray() -> None:
    assert harmonic_fill(torch.rand(1, 3, 7, 5), torch.ones(1, 1, 7, 5)).eq(0.5).all()


@pytest.mark.parametrize("prefill", [False, True])
def test_what_is_under_the_mask_does_not_matter(prefill: bool) -> None:
    image, mask = torch.rand(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    mask[..., 4:9, 5:12] = 1
    broken = torch.where(mask > 0, torch.nan, image)
    model = UNet(**SMALL, prefill=prefill)
    assert torch.equal(model.fill(broken, mask), model.fill(image, mask))


def test_overlap_is_what_a_change_is_seen_over() -> None:
    torch.manual_seed(0)
    blur = torch.nn.Conv2d(3, 3, 11, padding=5)

    class Blur(torch.nn.Module):
        def forward(self, image: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            return blur(image)

    assert measure_reach_px(Blur(), torch.rand(1, 3, 64, 64), None) == 5


def test_unknown_builder_and_argument_name_the_known_ones() -> None:
    with pytest.raises(RestoreError, match=", ".join(GENERATORS)):
        build_generator("unett", {})
    with pytest.raises(RestoreError, match="did you mean 'widths'"):
        build_generator("unet", {"width": [8]})
