"""The detector on an image pyramid: a union of its levels at first, each level informed by the one above."""

import pytest
import torch
from torch import nn

from restore.checkpoints import DetectorSettings
from restore.errors import RestoreError
from restore.models.pyramid_unet import NOTHING, PyramidUNet
from restore.models.registry import build_generator
from restore.models.unet import UNet
from restore.restorers.base import ModelRequirements
from restore.restorers.detector import Detector
from restore.training.setup import with_new_channels

SMALL = {"widths": (8, 12, 16), "blocks": (1, 1, 2)}


def pair(norm: str = "batch") -> tuple[UNet, PyramidUNet]:
    """A detector on one level with distinct outputs, and the pyramid that starts from its weights."""
    torch.manual_seed(1)
    plain = UNet(**SMALL, dilations=(1, 2), norm=norm, mask=False, out_channels=1)
    plain.tail.weight.data.mul_(100)
    pyramid = PyramidUNet(**SMALL, norm=norm, coarsest_px=16)
    pyramid.load_state_dict(with_new_channels(plain.state_dict(), pyramid))
    return plain.eval(), pyramid.eval()


def test_it_starts_as_the_union_of_what_a_plain_detector_finds_on_every_level() -> None:
    plain, pyramid = pair()
    image = torch.rand(1, 3, 64, 48)
    union = torch.full((1, 1, 16, 12), NOTHING)
    with torch.no_grad():
        for factor in (2, 1):
            seen = nn.functional.avg_pool2d(image, factor) if factor > 1 else image
            size = seen.shape[-2:]
            above = nn.functional.interpolate(union, size, mode="bilinear") if factor == 1 else NOTHING
            union = torch.logaddexp(plain(seen), torch.as_tensor(above))
        assert torch.allclose(pyramid(image), union, atol=1e-4)


def test_the_level_above_reaches_the_network_and_can_be_vetoed() -> None:
    _, pyramid = pair()
    image = torch.rand(1, 3, 16, 16)
    found = torch.full((1, 1, 16, 16), 6.0)
    with torch.no_grad():
        assert (pyramid(image, found) > 5.9).all()
        pyramid.tail.get_parameter("bias")[1] = -20.0
        assert (pyramid(image, found) < 5).any(), "a veto"
        before = pyramid(image, found)
        pyramid.head.weight.data[:, 3] = 0.5
        assert not torch.allclose(pyramid(image, found), before), "the input channel"


def test_every_parameter_gets_a_gradient_once_the_new_channels_are_not_zero() -> None:
    model = PyramidUNet(**SMALL, coarsest_px=16)
    model.head.weight.data[:, 3:].normal_()
    model.tail.weight.data.normal_()
    model(torch.rand(2, 3, 64, 64)).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_training_leaves_the_statistics_of_batch_normalization_alone() -> None:
    _, model = pair()
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.train()
    model(torch.rand(2, 3, 64, 64))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


@pytest.mark.parametrize("size", [(64, 64), (40, 72), (4, 4), (36, 52)])
def test_takes_any_size_that_divides(size: tuple[int, int]) -> None:
    out = PyramidUNet(**SMALL, coarsest_px=8)(torch.rand(2, 3, *size))
    assert out.shape == (2, 1, *size)
    assert out.dtype == torch.float32


def test_a_detector_computes_what_the_network_computes_in_one_go_and_in_tiles() -> None:
    _, pyramid = pair("none")
    settings = DetectorSettings(threshold=0.5, margin_px=0)
    needs = ModelRequirements(needs_mask=False, multiple=4, minimum=4, overlap_px=48)
    detector = Detector(settings, "test", pyramid, needs, "test", torch.device("cpu"), "fp32")
    photograph = torch.rand(3, 1456, 1456, generator=torch.Generator().manual_seed(0))
    whole, tiled = (detector.logits(photograph, tile).sigmoid() for tile in (0, 320))
    with torch.no_grad():
        expected = pyramid(photograph[None]).sigmoid()[0]
    assert (whole - expected).abs().max() < 1e-3
    assert (tiled - whole).abs().max() < 1e-3
    assert whole.std() > 0.01
    known = detector.logits(photograph, 0, known=torch.full((1, 364, 364), 5.0)).sigmoid()
    assert (known - whole).abs().max() > 0.01


def test_the_overlap_of_tiles_is_that_of_one_level() -> None:
    _, pyramid = pair()
    image = torch.rand(1, 3, 64, 320)
    assert 0 < pyramid.measure_overlap_px(image, None) < 100


def test_it_only_detects() -> None:
    for wrong in ({"mask": True}, {"out_channels": 3}, {"coarsest_px": 0}):
        with pytest.raises(RestoreError, match="cannot be built"):
            build_generator("pyramid-unet", wrong)
