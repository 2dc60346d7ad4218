"""The generator against the facts of the reference, and against the reference as plain functions."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from restore.errors import RestoreError
from restore.models.patchgan import init_weights
from restore.models.pix2pix import Pix2Pix, pix2pix_from_state_dict


def plain_unet(state, x, num_downs, norm):
    """pix2pix's U-Net in eval mode on [-1, 1]: a loop down and a loop up over its published weight names."""

    def normalised(x, name):
        if norm == "instance":
            mean = x.mean((2, 3), keepdim=True)
            return (x - mean) / (x.var((2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
        mean, var, weight, bias = (
            state[f"{name}.{key}"].view(1, -1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def down(x, name):
        return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), stride=2, padding=1)

    def up(x, name):
        return F.conv_transpose2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), stride=2, padding=1)

    blocks = ["model.model.1" + ".model.3" * depth for depth in range(num_downs - 1)]
    level = down(x, "model.model.0")
    levels = [level]
    for block in blocks[:-1]:
        level = normalised(down(F.leaky_relu(level, 0.2), f"{block}.model.1"), f"{block}.model.2")
        levels.append(level)
    innermost = blocks[-1]
    level = F.relu(down(F.leaky_relu(level, 0.2), f"{innermost}.model.1"))
    level = normalised(up(level, f"{innermost}.model.3"), f"{innermost}.model.4")
    for block, skip in zip(reversed(blocks[:-1]), reversed(levels[1:])):
        level = F.relu(torch.cat([skip, level], 1))
        level = normalised(up(level, f"{block}.model.5"), f"{block}.model.6")
    return torch.tanh(up(F.relu(torch.cat([levels[0], level], 1)), "model.model.3"))


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def trained_looking(**args):
    """A network whose every weight and statistic differs from what construction gives."""
    network = Pix2Pix(**args).eval()
    init_weights(network, seeded(1))
    with torch.no_grad():
        for name, value in [*network.named_parameters(), *network.named_buffers()]:
            if name.endswith("running_var"):
                value.uniform_(0.01, 0.1, generator=seeded(2))
            elif value.ndim == 4:
                value.mul_(4)
            elif value.ndim == 1:
                value.add_(torch.randn(value.shape, generator=seeded(3)) * 0.1)
    return network


def test_it_is_the_generator_of_the_paper():
    network = Pix2Pix()
    assert sum(p.numel() for p in network.parameters()) == 54_413_955
    state = network.state_dict()
    assert len(state) == 82
    deepest = "model.model.1" + ".model.3" * 6
    assert state["model.model.0.weight"].shape == (64, 3, 4, 4)
    assert state["model.model.3.weight"].shape == (128, 3, 4, 4)
    assert state["model.model.1.model.5.weight"].shape == (256, 64, 4, 4)
    assert state[f"{deepest}.model.1.weight"].shape == (512, 512, 4, 4)
    assert [key for key in state if key.startswith(deepest)] == [
        f"{deepest}.model.{name}"
        for name in ("1.weight", "3.weight", "4.weight", "4.bias", "4.running_mean", "4.running_var")
    ] + [f"{deepest}.model.4.num_batches_tracked"]


def test_it_costs_six_billion_multiplications_at_256():
    counted = []

    def count(layer, inputs, output):
        # a transposed convolution multiplies once per weight and input pixel, a convolution per output pixel
        pixels = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        counted.append(layer.weight.numel() * pixels.shape[-2] * pixels.shape[-1])

    network = Pix2Pix().eval()
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 256, 256)).shape == (1, 3, 256, 256)
    assert sum(counted) / 1e9 == pytest.approx(6.05, abs=0.005)


def test_only_the_last_convolution_has_a_bias_beside_batch_norms_and_all_have_beside_instance_norms():
    def biased(network):
        layers = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
        return [layer.bias is not None for layer in layers]

    with torch.device("meta"):
        assert biased(Pix2Pix(norm="batch")) == [False] * 15 + [True]
        assert biased(Pix2Pix(norm="instance")) == [True] * 16


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("num_downs", [7, 8])
def test_its_picture_is_that_of_the_reference(num_downs, norm):
    network = trained_looking(num_downs=num_downs, ngf=8, norm=norm)
    picture = torch.rand(1, 3, 2**num_downs, 2 ** (num_downs + 1), generator=seeded(4))
    with torch.no_grad():
        expected = plain_unet(network.state_dict(), picture * 2 - 1, num_downs, norm) / 2 + 0.5
        assert expected.std() > 0.05
        assert torch.allclose(network(picture), expected, atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_every_parameter_gets_a_gradient(norm):
    network = Pix2Pix(num_downs=5, ngf=4, norm=norm).train()
    init_weights(network, seeded(1))
    network(torch.rand(2, 3, 64, 64, generator=seeded())).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_dropout_stands_in_the_inner_blocks_and_acts_in_training_alone():
    network = Pix2Pix(ngf=4)
    assert sum(isinstance(m, nn.Dropout) for m in network.modules()) == 3
    assert sum(isinstance(m, nn.Dropout) for m in Pix2Pix(ngf=4, dropout=False).modules()) == 0
    picture = torch.rand(1, 3, 256, 256, generator=seeded())
    with torch.no_grad():
        assert not torch.equal(network.train()(picture), network(picture))
        assert torch.equal(network.eval()(picture), network(picture))


def test_what_the_mask_hides_is_not_seen():
    network = trained_looking(num_downs=5, ngf=4)
    picture = torch.rand(1, 3, 32, 32, generator=seeded())
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:20, 8:20] = 0.3
    other = torch.where(mask > 0, torch.nan, picture)
    with torch.no_grad():
        assert torch.equal(network(picture, mask), network(other, mask))
        assert not torch.equal(network(picture, mask), network(picture))


@pytest.mark.parametrize(("input_nc", "output_nc"), [(1, 3), (3, 1), (4, 3)])
def test_other_channel_counts_take_and_give_colour_pictures(input_nc, output_nc):
    network = trained_looking(num_downs=5, ngf=4, input_nc=input_nc, output_nc=output_nc)
    with torch.no_grad():
        out = network(torch.rand(2, 3, 32, 64, generator=seeded()), torch.zeros(2, 1, 32, 64))
    assert out.shape == (2, 3, 32, 64)
    assert out.min() >= 0
    assert out.max() <= 1


@pytest.mark.parametrize("args", [{"num_downs": 4}, {"ngf": 0}, {"input_nc": 2}, {"output_nc": 4}, {"norm": "layer"}])
def test_arguments_out_of_range_are_refused(args):
    with pytest.raises(ValueError, match=next(iter(args))):
        Pix2Pix(**args)


# Published weights


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("num_downs", [7, 8])
def test_published_weights_open_as_what_they_are(tmp_path, num_downs, prefix, norm):
    network = trained_looking(num_downs=num_downs, ngf=4, output_nc=1, norm=norm)
    torch.save({prefix + key: value for key, value in network.state_dict().items()}, tmp_path / "x_net_G.pth")
    opened = pix2pix_from_state_dict(torch.load(tmp_path / "x_net_G.pth", weights_only=True), "x_net_G.pth")
    picture = torch.rand(1, 3, 256, 256, generator=seeded())
    assert not opened.training
    with torch.no_grad():
        assert torch.equal(opened(picture), network(picture))


def test_batch_norms_of_old_files_have_no_count_of_batches():
    state = trained_looking(num_downs=5, ngf=4).state_dict()
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    assert pix2pix_from_state_dict(old, "old.pth").state_dict().keys() == state.keys()


def test_instance_norms_of_old_files_have_statistics_that_nobody_uses():
    state = trained_looking(num_downs=5, ngf=4, norm="instance").state_dict()
    old = {**state, "model.model.1.model.2.running_mean": torch.ones(8)}
    assert pix2pix_from_state_dict(old, "old.pth").state_dict().keys() == state.keys()


def test_what_is_missing_unexpected_or_misshapen_is_named():
    state = trained_looking(num_downs=5, ngf=4).state_dict()
    whole = dict(state)
    del whole["model.model.1.model.6.bias"]
    whole["model.model.9.weight"] = torch.zeros(1)
    whole["model.model.1.model.5.weight"] = torch.zeros(3, 3, 4, 4)
    with pytest.raises(RestoreError) as caught:
        pix2pix_from_state_dict(whole, "broken_net_G.pth")
    said = str(caught.value)
    assert "broken_net_G.pth" in said
    assert "missing: model.model.1.model.6.bias" in said
    assert "unexpected: model.model.9.weight" in said
    assert "of another shape: model.model.1.model.5.weight" in said


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"model.1.weight": torch.zeros(64, 3, 7, 7), "model.1.bias": torch.zeros(64)},
        {"model.model.0.weight": "text", "model.model.3.weight": 3},
        {5: torch.zeros(1)},
    ],
)
def test_another_architecture_is_refused_by_name(state):
    with pytest.raises(RestoreError, match=r"other\.pth: not a pix2pix U-Net"):
        pix2pix_from_state_dict(state, "other.pth")


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_resize_convolution_repeats_pixels_and_then_filters_them(norm):
    network = trained_looking(num_downs=5, ngf=4, norm=norm, upsampling="resize")
    assert not any(isinstance(m, nn.ConvTranspose2d) for m in network.modules())
    state, x = network.state_dict(), torch.rand(1, 8, 4, 4, generator=seeded(3))
    up = network.get_submodule("model.model.3")
    repeated = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = F.conv2d(repeated, state["model.model.3.1.weight"], state["model.model.3.1.bias"], padding=1)
    assert torch.allclose(up(x), expected, atol=1e-6)
    out = network.train()(torch.rand(2, 3, 64, 64, generator=seeded(4)))
    assert out.shape == (2, 3, 64, 64)
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_a_resize_convolution_treats_all_pixels_alike_and_a_transposed_one_does_not():
    """The checkerboard of Odena et al. 2016: what equal inputs give, inside."""
    flat = torch.ones(1, 16, 8, 8)
    for upsampling, alike in (("resize", True), ("transposed", False)):
        network = trained_looking(num_downs=5, ngf=8, upsampling=upsampling)
        with torch.no_grad():
            inside = network.get_submodule("model.model.3")(flat)[..., 4:-4, 4:-4]
        assert (inside.std(dim=(2, 3)).max() < 1e-5) == alike


def test_with_image_statistics_it_gives_what_the_reference_gives_in_training_mode():
    network = trained_looking(num_downs=6, ngf=4, dropout=False)
    twin = Pix2Pix(num_downs=6, ngf=4, dropout=False)
    twin.load_state_dict(network.state_dict())
    images = torch.rand(2, 3, 64, 64, generator=seeded(5))
    with torch.no_grad():
        stored = network(images)
        expected = torch.cat([twin.train()(image[None]) for image in images])  # batch norm of one image at a time
        assert network.use_image_statistics()
        found = network(images)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, stored, atol=1e-2)
    assert not Pix2Pix(num_downs=5, ngf=4, norm="instance").use_image_statistics()


@pytest.mark.parametrize("num_downs", [5, 7, 8])
def test_dropout_is_where_the_reference_has_it_and_keeps_the_mean(num_downs):
    reference = Pix2Pix(num_downs=num_downs, ngf=2, dropout=True)
    places = [name for name, layer in reference.named_modules() if isinstance(layer, torch.nn.Dropout)]
    assert len(places) == num_downs - 5
    for network in (Pix2Pix(num_downs=num_downs, ngf=2, dropout=False), reference.eval()):
        network.use_dropout(3)
        network.use_dropout(4)
        layers = {name: layer for name, layer in network.named_modules() if type(layer).__name__ == "_SeededDropout"}
        assert list(layers) == places
        for layer in layers.values():
            out = layer(torch.ones(1, 8, 32, 32))
            assert set(out.unique().tolist()) == {0.0, 2.0}
            assert out.mean() == pytest.approx(1, abs=0.05)
            assert torch.equal(out, layer(torch.ones(2, 8, 32, 32))[1:])
