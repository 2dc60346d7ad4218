"""The network that enlarges: sizes, its start, its budget, exact tiles, and a start from another scale."""

import pytest
import torch

from restore.errors import RestoreError
from restore.models.enlarge import Enlarge
from restore.models.profiling import count_macs
from restore.models.receptive_field import octaves
from restore.models.registry import build_generator
from restore.tiling import run_tiled
from restore.training.config import load_train_config
from restore.training.network_config import generator_args


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_enlarges_any_size(scale: int, channels: int) -> None:
    out = Enlarge(scale, width=8, blocks=1, channels=channels)(torch.rand(2, channels, 1, 7))
    assert out.shape == (2, channels, scale, 7 * scale)
    assert out.dtype == torch.float32
    assert out.isfinite().all()


def test_untrained_it_gives_nearly_the_bicubic_image() -> None:
    image = octaves(48, 40)
    bicubic = torch.nn.functional.interpolate(image, scale_factor=2.0, mode="bicubic")
    torch.manual_seed(0)
    assert (Enlarge(2)(image) - bicubic).abs().mean() < 0.05
    model = Enlarge(2)
    model.tail.weight.data.zero_()
    assert torch.allclose(model(image), bicubic, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (6, 9)])
def test_the_start_is_pytorchs_bicubic_image(scale: int, size: tuple[int, int]) -> None:
    model, image = Enlarge(scale, width=8, blocks=1), torch.rand(2, 3, *size)
    model.tail.weight.data.zero_()
    expected = torch.nn.functional.interpolate(image, scale_factor=float(scale), mode="bicubic")
    assert torch.allclose(model(image), expected, atol=1e-6)


def test_sums_are_not_rounded_to_bf16() -> None:
    model = Enlarge(2, width=8, blocks=1)
    model.tail.weight.data.zero_()
    level = torch.full((1, 3, 8, 8), 250 / 255)
    with torch.autocast("cpu", torch.bfloat16):
        assert (model(level) - level[..., :1, :1]).abs().max() < 1e-5


def test_every_parameter_gets_a_gradient() -> None:
    model = Enlarge(2, width=8, blocks=2)
    model(torch.rand(2, 3, 16, 16)).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", ["enlarge-x2-clean", "enlarge-x2", "enlarge-x4-clean", "enlarge-x4"])
def test_shipped_configs_keep_the_budget(name: str) -> None:
    config = load_train_config(name, [])
    model = build_generator(config.model.builder, generator_args(config))
    image = torch.rand(1, 3, 64, 64)
    per_megapixel = count_macs(lambda: model(image)) / (64 * model.scale) ** 2
    assert per_megapixel <= 40e3, "40 GMACs per megapixel of output"
    assert config.data.patch % model.scale == 0


@torch.no_grad()
def test_tiles_give_what_the_whole_image_gives() -> None:
    torch.manual_seed(0)
    model = Enlarge(2, width=8, blocks=3).eval()
    for values in model.parameters():
        values.mul_(2)  # so that the edge of the receptive field is visible
    image = octaves(150, 170)
    overlap_px = model.measure_overlap_px(image, None)
    whole = model(image)
    tiled = run_tiled(model, image, tile_px=64, overlap_px=overlap_px, scale=2)
    assert torch.allclose(tiled, whole, atol=1e-5)
    narrow = run_tiled(model, image, tile_px=64, overlap_px=overlap_px - 6, scale=2)
    assert not torch.allclose(narrow, whole, atol=1e-5), "the reach is no larger than it must be"


@torch.no_grad()
def test_a_start_from_another_scale_keeps_the_body_and_repeats_pixels() -> None:
    torch.manual_seed(0)
    two, four = Enlarge(2, width=8, blocks=1), Enlarge(4, width=8, blocks=1)
    four.load_state_dict(four.adapted(two.state_dict()))
    assert torch.equal(four.body[0].conv1.weight, two.body[0].conv1.weight)
    image = octaves(12, 16)

    def residual(model: Enlarge) -> torch.Tensor:
        return model(image) - torch.nn.functional.interpolate(image, scale_factor=float(model.scale), mode="bicubic")

    repeated = residual(two).repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert torch.allclose(residual(four), repeated, atol=1e-5)
    two.load_state_dict(two.adapted(four.state_dict()))
    assert torch.allclose(residual(two), residual(four)[..., ::2, ::2], atol=1e-5)


def test_other_weights_are_left_for_the_check_to_refuse() -> None:
    model = Enlarge(4, width=8, blocks=1)
    state = Enlarge(2, width=16, blocks=1).state_dict()
    assert model.adapted(state).keys() == state.keys()
    assert torch.equal(model.adapted(state)["tail.weight"], state["tail.weight"])


@pytest.mark.parametrize("args", [{"scale": 1}, {"scale": 5}, {"width": 0}, {"blocks": 0}])
def test_refuses_arguments_out_of_range(args: dict[str, int]) -> None:
    with pytest.raises(RestoreError, match="enlarge cannot be built"):
        build_generator("enlarge", args)
