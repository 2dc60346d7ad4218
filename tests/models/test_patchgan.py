"""The discriminator against the facts of the reference and against plain functions."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from restore.models.patchgan import PatchGAN, init_weights


def plain_discriminator(state, x):
    """pix2pix's 70×70 discriminator in eval mode, written as functions over its published weight names."""

    def batch_norm(x, at):
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"model.{at}.{name}"] for name in names))

    x = F.leaky_relu(F.conv2d(x, state["model.0.weight"], state["model.0.bias"], 2, 1), 0.2)
    x = F.leaky_relu(batch_norm(F.conv2d(x, state["model.2.weight"], None, 2, 1), 3), 0.2)
    x = F.leaky_relu(batch_norm(F.conv2d(x, state["model.5.weight"], None, 2, 1), 6), 0.2)
    x = F.leaky_relu(batch_norm(F.conv2d(x, state["model.8.weight"], None, 1, 1), 9), 0.2)
    return F.conv2d(x, state["model.11.weight"], state["model.11.bias"], 1, 1)


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def test_it_is_the_discriminator_of_the_paper():
    network = PatchGAN(in_channels=6)
    assert sum(p.numel() for p in network.parameters()) == 2_768_705
    with torch.no_grad():
        assert network(torch.zeros(1, 6, 256, 256)).shape == (1, 1, 30, 30)


def test_its_logits_are_those_of_the_reference():
    network = PatchGAN(6, ndf=16).eval()
    init_weights(network, seeded())
    with torch.no_grad():
        for name, value in network.named_buffers():
            if name.endswith(("mean", "var")):
                value.uniform_(0.5, 1.5, generator=seeded(1))
        x = torch.rand(2, 6, 64, 64, generator=seeded(2)) * 2 - 1
        assert torch.allclose(network(x), plain_discriminator(network.state_dict(), x), atol=1e-6)


def test_a_logit_sees_seventy_pixels():
    network = PatchGAN(1, ndf=4, norm="none")
    x = torch.randn(1, 1, 256, 256, generator=seeded(), requires_grad=True)
    network(x)[0, 0, 15, 15].backward()
    rows = x.grad[0, 0].abs().sum(1).nonzero()
    assert rows.max() - rows.min() + 1 == 70


def test_a_logit_sees_a_hole_where_the_hole_changes_its_gradient():
    judge = PatchGAN(in_channels=6, ndf=4, norm="none").eval()
    hidden = torch.zeros(1, 1, 96, 96, dtype=torch.bool)
    hidden[..., 40:43, 7] = True
    shown = torch.randn(1, 6, 96, 96, requires_grad=True)
    logits = judge(shown)
    reached = torch.zeros_like(logits)
    for i, logit in enumerate(logits.flatten()):
        (slope,) = torch.autograd.grad(logit, shown, retain_graph=True)
        reached.view(-1)[i] = float((slope.abs() * hidden).sum() > 0)
    assert torch.equal(judge.sees(hidden), reached)
    assert 0 < reached.mean() < 1


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_every_parameter_gets_a_gradient(norm, spectral_norm):
    network = PatchGAN(7, ndf=8, norm=norm, spectral_norm=spectral_norm)
    network(torch.randn(2, 7, 64, 64, generator=seeded())).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_without_norm_a_picture_is_judged_alone():
    network = PatchGAN(3, ndf=8, norm="none").train()
    x = torch.randn(3, 3, 64, 64, generator=seeded())
    with torch.no_grad():
        assert torch.allclose(network(x)[1:2], network(x[1:2]), atol=1e-6)


def test_features_are_the_activations_on_the_way_to_the_same_logits():
    network = PatchGAN(6, ndf=8).eval()
    x = torch.randn(1, 6, 64, 64, generator=seeded())
    logits, features = network(x, features=True)
    assert torch.equal(logits, network(x))
    assert [tuple(f.shape[1:]) for f in features] == [(8, 32, 32), (16, 16, 16), (32, 8, 8), (64, 7, 7)]
    assert torch.equal(network.model[-1](features[-1]), logits)


def test_initial_weights_are_normal_and_repeatable():
    network = PatchGAN(6)
    init_weights(network, seeded(1))
    weight = network.model[8].weight
    assert weight.mean().abs() < 1e-4
    assert weight.std().item() == pytest.approx(0.02, rel=0.01)
    assert network.model[9].weight.mean().item() == pytest.approx(1.0, abs=0.01)
    assert network.model[9].weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert network.model[0].bias.count_nonzero() == 0
    again = PatchGAN(6)
    init_weights(again, seeded(1))
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values()))


def test_initial_weights_under_a_spectral_norm_have_norm_one_and_repeat():
    networks = []
    for _ in range(2):
        network = PatchGAN(6, ndf=16, spectral_norm=True).eval()
        init_weights(network, seeded(1))
        networks.append(network)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.1)
    first, second = (network.state_dict() for network in networks)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm must be batch"):
        PatchGAN(6, norm="layer")
