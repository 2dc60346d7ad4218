"""spandrel's own checks of an architecture, which its wheel does not hold, for the networks of this package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("spandrel")

import spandrel_restore
from safetensors.torch import load, save, save_file
from spandrel import (
    MAIN_REGISTRY,
    ArchRegistry,
    DuplicateArchitectureError,
    ImageModelDescriptor,
    MaskedImageModelDescriptor,
    ModelLoader,
    ModelTiling,
    UnsupportedModelError,
)
from spandrel_restore import RESTORE_REGISTRY, RestorePyramidUNet, RestorePyramidUNetArch, RestoreUNet, RestoreUNetArch
from torch import Tensor, nn

SMALL = {"widths": (8, 12, 16), "blocks": (1, 2, 3)}
UNETS: list[Callable[[], nn.Module]] = [
    lambda: RestoreUNet(**SMALL),
    lambda: RestoreUNet(**SMALL, mask=True),
    lambda: RestoreUNet(widths=(4,), blocks=(2,)),
    lambda: RestoreUNet(widths=(4, 6, 8, 10, 12), blocks=(2, 1, 1, 2, 1), norm="batch"),
    lambda: RestoreUNet(**SMALL, channels=1),
    lambda: RestoreUNet(**SMALL, channels=1, mask=True, dilations=(1, 2, 4)),
    lambda: RestoreUNet(**SMALL, mask=True, prefill=False),
]
PYRAMIDS: list[Callable[[], nn.Module]] = [
    lambda: RestorePyramidUNet(widths=(4, 8), blocks=(1, 2)),
    lambda: RestorePyramidUNet(**SMALL, norm="none", dilations=(1,)),
    lambda: RestorePyramidUNet(widths=(4, 6, 8, 10), blocks=(1, 1, 1, 1), coarsest_px=16, dilations=(3, 5)),
]
LOADED = [(RestoreUNetArch(), make) for make in UNETS] + [(RestorePyramidUNetArch(), make) for make in PYRAMIDS]


def with_content(network: nn.Module) -> nn.Module:
    """The network in eval mode with random statistics, so that every tensor of it matters."""
    torch.manual_seed(0)
    for name, values in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            values.copy_(torch.rand_like(values) + 0.5)
    return network.eval()


def opened(make: Callable[[], nn.Module]) -> ImageModelDescriptor | MaskedImageModelDescriptor:
    return RESTORE_REGISTRY.load(with_content(make()).state_dict())


def image_and_mask(height: int, width: int, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    mask = torch.zeros(1, 1, height, width)
    mask[..., height // 3 : height // 3 + 5, width // 4 :] = 1
    return torch.rand(1, channels, height, width, generator=generator), mask


def run(model: ImageModelDescriptor | MaskedImageModelDescriptor, image: Tensor, mask: Tensor) -> Tensor:
    return model(image, mask) if isinstance(model, MaskedImageModelDescriptor) else model(image)


@pytest.mark.parametrize(("arch", "make"), LOADED)
@pytest.mark.parametrize("half", [False, True])
def test_hyperparameters_come_from_keys_and_shapes(
    arch: RestoreUNetArch | RestorePyramidUNetArch, make: Callable[[], nn.Module], half: bool
) -> None:
    network = with_content(make())
    state = {k: v.half() if half and v.is_floating_point() else v for k, v in network.state_dict().items()}
    for found in (state, load(save(state))):
        assert [one.architecture.id for one in RESTORE_REGISTRY if one.detect(found)] == [arch.id]
        loaded = arch.load(dict(found)).model
        assert type(loaded) is type(network)
        assert loaded.hyperparameters == {**network.hyperparameters, **arch.infer(found)}
        shown = {key: tuple(one) if isinstance(one, list) else one for key, one in loaded.hyperparameters.items()}
        assert network.hyperparameters.items() <= shown.items()
        assert loaded.head.weight.dtype == torch.float32
    image, mask = image_and_mask(20, 24, network.hyperparameters.get("channels", 3))
    model = opened(lambda: network) if not half else arch.load(state)
    with torch.no_grad():
        direct = network(image, mask) if isinstance(model, MaskedImageModelDescriptor) else network(image)
    assert torch.allclose(run(model, image, mask), direct.clamp(0, 1), atol=2e-2 if half else 0)


@pytest.mark.parametrize("make", UNETS + PYRAMIDS)
def test_any_size_is_taken(make: Callable[[], nn.Module]) -> None:
    model = opened(make)
    assert model.size_requirements.none
    for height, width in ((1, 1), (3, 17), (16, 16), (40, 33)):
        image, mask = image_and_mask(height, width, model.input_channels)
        out = run(model, image, mask)
        assert out.shape == (1, model.output_channels, height, width)
        assert 0 <= out.min() <= out.max() <= 1


@pytest.mark.parametrize("make", [UNETS[0], UNETS[1], PYRAMIDS[0]])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(make: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    model = opened(make)
    assert model.supports_half
    assert model.supports_bfloat16
    image, mask = image_and_mask(16, 16)
    expected = run(model, image, mask)
    out = run(model.to(dtype), image.to(dtype), mask.to(dtype))
    assert out.dtype == dtype
    assert (out.float() - expected).abs().max() < (0.002 if dtype == torch.float16 else 0.02)


@pytest.mark.parametrize("make", [UNETS[3], PYRAMIDS[0]])
def test_seeds_and_training_mode_change_nothing(make: Callable[[], nn.Module]) -> None:
    model = opened(make)
    image, mask = image_and_mask(16, 24)
    first = run(model, image, mask)
    torch.manual_seed(1)
    model.train()
    assert torch.equal(run(model, image, mask), first)


@pytest.mark.parametrize("make", [UNETS[0], UNETS[1], UNETS[3], PYRAMIDS[0]])
def test_every_parameter_learns(make: Callable[[], nn.Module]) -> None:
    network = RESTORE_REGISTRY.load(make().state_dict()).model.train()
    image, mask = image_and_mask(32, 32)
    out = network(image, mask) if getattr(network, "takes_mask", False) else network(image)
    out.square().mean().backward()
    assert [name for name, one in network.named_parameters() if one.grad is None or not one.grad.isfinite().all()] == []


def test_gradients_and_mode_do_not_leak_into_filling() -> None:
    model = opened(UNETS[1])
    model.train()
    out = run(model, *image_and_mask(16, 16))
    assert not out.requires_grad
    assert not model.model.training


def test_descriptors_say_what_the_networks_are() -> None:
    photo, inpaint, detector = opened(UNETS[0]), opened(UNETS[1]), opened(PYRAMIDS[0])
    assert isinstance(photo, ImageModelDescriptor)
    assert isinstance(inpaint, MaskedImageModelDescriptor)
    assert isinstance(detector, ImageModelDescriptor)
    assert (photo.purpose, inpaint.purpose, detector.purpose) == ("Restoration", "Inpainting", "Restoration")
    assert (photo.tiling, inpaint.tiling, detector.tiling) == (
        ModelTiling.SUPPORTED,
        ModelTiling.DISCOURAGED,
        ModelTiling.DISCOURAGED,
    )
    assert [(m.input_channels, m.output_channels, m.scale) for m in (photo, inpaint, detector)] == [
        (3, 3, 1),
        (3, 3, 1),
        (3, 1, 1),
    ]
    assert photo.tags == ["8nf", "3 levels"]
    assert detector.tags == ["damage mask", "4nf", "2 levels"]


def test_only_holes_change_and_what_lies_in_them_does_not_matter() -> None:
    model = opened(UNETS[1])
    image, mask = image_and_mask(24, 24)
    out = model(image, mask)
    assert torch.equal(torch.where(mask > 0, image, out), image)
    assert not torch.equal(out, image)
    assert torch.equal(model(torch.where(mask > 0, 0.9, image), mask), out)


def test_a_soft_mask_blends() -> None:
    model = opened(UNETS[1])
    image, mask = image_and_mask(24, 24)
    whole = model(image, mask)
    assert torch.allclose(model(image, mask / 4), 0.75 * image + 0.25 * torch.where(mask > 0, whole, image), atol=0.1)
    assert torch.equal(model(image, torch.zeros_like(mask)), image)


def test_tiles_give_what_the_whole_image_gives() -> None:
    model = opened(UNETS[0])
    image, _ = image_and_mask(32, 96)
    assert torch.allclose(model(image[..., :64])[..., :16], model(image)[..., :16], atol=1e-6)


def test_installing_twice_changes_nothing() -> None:
    kept = MAIN_REGISTRY.copy()
    try:
        spandrel_restore.install()
        assert spandrel_restore.install() == []
        assert {"RestoreUNet", "RestorePyramidUNet"} <= {one.architecture.id for one in MAIN_REGISTRY}
        with pytest.raises(DuplicateArchitectureError):
            spandrel_restore.install(ignore_duplicates=False)
        state = UNETS[0]().state_dict()
        assert ModelLoader().load_from_state_dict({"params": state}).architecture.id == "RestoreUNet"
    finally:
        vars(MAIN_REGISTRY).update(vars(kept))


@pytest.mark.parametrize("make", UNETS + PYRAMIDS)
def test_no_other_architecture_takes_our_networks(make: Callable[[], nn.Module]) -> None:
    state = make().state_dict()
    registry: ArchRegistry = MAIN_REGISTRY.copy()
    try:
        from spandrel_extra_arches import EXTRA_REGISTRY
    except ImportError:
        pass
    else:
        registry.add(*EXTRA_REGISTRY, ignore_duplicates=True)
    ours = {one.architecture.id for one in RESTORE_REGISTRY}
    assert [one.architecture.id for one in registry if one.architecture.id not in ours and one.detect(state)] == []


def foreign_networks() -> dict[str, nn.Module]:
    """Small networks of spandrel's own architectures."""
    from spandrel.architectures.Compact import Compact
    from spandrel.architectures.DITN import DITN
    from spandrel.architectures.DnCNN import DnCNN
    from spandrel.architectures.DRUNet import DRUNet
    from spandrel.architectures.ESRGAN import ESRGAN
    from spandrel.architectures.FBCNN import FBCNN
    from spandrel.architectures.LaMa import LaMa
    from spandrel.architectures.MoSR import MoSR
    from spandrel.architectures.NAFNet import NAFNet
    from spandrel.architectures.OmniSR import OmniSR
    from spandrel.architectures.PLKSR import PLKSR
    from spandrel.architectures.RCAN import RCAN
    from spandrel.architectures.RealCUGAN import UpCunet2x
    from spandrel.architectures.SAFMN import SAFMN
    from spandrel.architectures.SCUNet import SCUNet
    from spandrel.architectures.SPAN import SPAN
    from spandrel.architectures.SwiftSRGAN import SwiftSRGAN
    from spandrel.architectures.SwinIR import SwinIR

    with torch.device("meta"):
        networks = [
            Compact(num_feat=8, num_conv=2),
            DRUNet(in_nc=4, out_nc=3, nc=[8, 16, 16, 16], nb=2),
            DnCNN(in_nc=3, out_nc=3, nc=8, nb=8, act_mode="R"),
            ESRGAN(num_filters=8, num_blocks=1),
            FBCNN(nc=[8, 8, 8, 8], nb=4),
            LaMa(in_nc=4, out_nc=3),
            NAFNet(width=8, middle_blk_num=1, enc_blk_nums=[1], dec_blk_nums=[1]),
            PLKSR(dim=16, n_blocks=1),
            UpCunet2x(),
            SAFMN(dim=8, n_blocks=1),
            SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8),
            SwiftSRGAN(num_channels=8, num_blocks=1),
        ]
    networks += [  # they compute while they are built
        MoSR(n_block=1, dim=8),
        RCAN(n_resgroups=1, n_resblocks=1, n_feats=16),
        DITN(dim=8, ITL_blocks=1, SAL_blocks=1, UFONE_blocks=1),
        OmniSR(num_feat=8, res_num=1),
        SCUNet(dim=32, config=[1, 1, 1, 1, 1, 1, 1]),
        SwinIR(img_size=16, embed_dim=12, depths=[2], num_heads=[2], window_size=8),
    ]
    return {type(network).__name__: network for network in networks}


def test_our_architectures_take_no_other_network() -> None:
    networks = foreign_networks()
    assert len(networks) >= 12
    for name, network in networks.items():
        state = network.state_dict()
        assert any(one.detect(state) for one in MAIN_REGISTRY), name
        assert not any(one.detect(state) for one in RESTORE_REGISTRY), name


def test_near_misses_are_not_taken() -> None:
    state = UNETS[0]().state_dict()
    detected = RestoreUNetArch().detect
    assert detected(state)
    assert not detected({**state, "extra.weight": torch.zeros(1)})
    assert not detected({k: v for k, v in state.items() if k != "encoder.0.0.conv2.bias"})
    assert not detected({**state, "ups.0.0.weight": torch.zeros(4, 12, 1, 1)})
    assert not detected({**state, "head.weight": torch.zeros(8, 5, 3, 3)})
    assert not detected({**state, "tail.weight": torch.zeros(2, 8, 3, 3)})
    assert not detected({**state, "head.weight": torch.tensor(0.0)})
    assert not detected({**state, "head.weight": "text"})
    assert not detected({})
    deep = RestoreUNet(widths=(1,) * 17, blocks=(1,) * 17).state_dict()
    assert not detected(deep)
    with pytest.raises(ValueError, match="no weights of restore U-Net"):
        RestoreUNetArch().load({"head.weight": torch.zeros(8, 3, 3, 3)})


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"\xff", b'{"widths": [1]}', b'{"dilations": [0]}', b'{"dilations": [1e9]}', b'{"dilations": 2}',
     b'{"dilations": []}', b'{"prefill": 1}', b'{"coarsest_px": 0}'],
)  # fmt: skip
def test_hyperparameters_of_a_file_are_not_trusted(text: bytes) -> None:
    stored = torch.tensor(list(text), dtype=torch.uint8)
    for make in (UNETS[1], PYRAMIDS[0]):
        state = {**make().state_dict(), "stated_hyperparameters": stored}
        assert not any(one.detect(state) for one in RESTORE_REGISTRY)


def write(path: Path, network: nn.Module, builder: str, **args: object) -> Path:
    """A weights file of the toolkit: tensors, and a description in the metadata."""
    state = {k: v for k, v in with_content(network).state_dict().items() if k != "stated_hyperparameters"}
    description = {"format": 1, "builder": builder, "args": args, "needs_mask": False}
    save_file(state, path, {"restore": json.dumps(description)})
    return path


def test_a_description_tells_what_no_shape_tells(tmp_path: Path) -> None:
    network = RestoreUNet(**SMALL, mask=True, dilations=(1, 3), prefill=False)
    path = write(tmp_path / "a.safetensors", network, "unet", **SMALL, mask=True, dilations=[1, 3])
    model = spandrel_restore.load(path)
    image, mask = image_and_mask(24, 24)
    with torch.no_grad():
        assert torch.equal(model(image, mask), network(image, mask).clamp(0, 1))
    # Saved again without a description, the tensors keep it.
    save_file(model.model.state_dict(), tmp_path / "b.safetensors")
    again = RESTORE_REGISTRY.load(ModelLoader().load_state_dict_from_file(tmp_path / "b.safetensors"))
    assert torch.equal(again(image, mask), model(image, mask))

    pyramid = RestorePyramidUNet(widths=(4, 8), blocks=(1, 2), coarsest_px=12)
    path = write(tmp_path / "c.safetensors", pyramid, "pyramid-unet", widths=[4, 8], blocks=[1, 2], coarsest_px=12)
    assert torch.equal(spandrel_restore.load(path)(image), pyramid(image).detach())


def test_networks_that_need_more_than_spandrel_gives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    state = UNETS[0]().state_dict()
    for key, what in (("conditions", "condition images"), ("transfer", "linear light")):
        save_file(state, path, {"restore": json.dumps({"builder": "unet", "args": {}, key: ["something"]})})
        with pytest.raises(ValueError, match=what):
            spandrel_restore.load(path)
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(UnsupportedModelError):
        spandrel_restore.load(path)
