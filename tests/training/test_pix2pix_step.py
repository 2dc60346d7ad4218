"""A training step of pix2pix against one written here from the paper (Isola et al. 2017), on values in [-1, 1]."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.data.loader import Batch
from restore.hashed_random import uniform
from restore.training.compute import ComputeSettings
from restore.training.config import TrainConfig, load_train_config
from restore.training.setup import build_networks, make_step_context, make_trainable, open_fabric
from restore.training.step import _MIX, train_step
from restore.training.trainable_network import TrainableNetwork

SIDE, DOWNS, STEPS = 64, 6, 2
LAMBDA_L1, LAMBDA_GP = 100, 10  # as published: L1 on [-1, 1], gradients by D's input in [-1, 1]


class PlainUNet(nn.Module):
    """The paper's U-Net (appendix 6.1.1) as two lists: encoder and decoder, without nesting."""

    def __init__(self, theirs: nn.Module) -> None:
        super().__init__()
        convolutions = [m for m in theirs.modules() if isinstance(m, nn.Conv2d)]
        norms = [m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)]
        deconvolutions = [m for m in theirs.modules() if isinstance(m, nn.ConvTranspose2d)]
        count = len(convolutions)
        self.down = nn.ModuleList(nn.Conv2d(m.in_channels, m.out_channels, 4, 2, 1, bias=False) for m in convolutions)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(m.in_channels, m.out_channels, 4, 2, 1, bias=m is deconvolutions[-1])
            for m in deconvolutions
        )
        self.norm_down = nn.ModuleList(nn.BatchNorm2d(m.num_features) for m in norms[: count - 2])
        self.norm_up = nn.ModuleList(nn.BatchNorm2d(m.num_features) for m in norms[count - 2 :])
        for mine, other in zip([*self.down, *self.up], [*convolutions, *deconvolutions], strict=True):
            mine.load_state_dict(other.state_dict())
        for mine, other in zip([*self.norm_down, *self.norm_up], norms, strict=True):
            mine.load_state_dict(other.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        encoded = [self.down[0](x)]
        for i in range(1, len(self.down)):
            x = self.down[i](F.leaky_relu(encoded[-1], 0.2))
            innermost = i == len(self.down) - 1
            encoded.append(x if innermost else self.norm_down[i - 1](x))
        x = encoded.pop()
        for i, up in enumerate(self.up):
            x = up(F.relu(x))
            if i < len(self.up) - 1:
                x = self.norm_up[i](x)
                # Dropout in the blocks next to the innermost one, down to the fourth from outside.
                if 1 <= i <= len(self.up) - 5:
                    x = F.dropout(x, 0.5, self.training)
                x = torch.cat([encoded.pop(), x], dim=1)
        return x.tanh()


class PlainPatchGAN(nn.Module):
    """The paper's 70×70 discriminator (appendix 6.1.2)."""

    def __init__(self, theirs: nn.Module, norm: bool) -> None:
        super().__init__()
        convolutions = [m for m in theirs.modules() if isinstance(m, nn.Conv2d)]
        self.c = nn.ModuleList(
            nn.Conv2d(m.in_channels, m.out_channels, 4, m.stride, 1, bias=m.bias is not None) for m in convolutions
        )
        norms = [m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)]
        self.n = nn.ModuleList(nn.BatchNorm2d(m.num_features) for m in norms)
        for mine, other in zip([*self.c, *self.n], [*convolutions, *norms], strict=True):
            mine.load_state_dict(other.state_dict())
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.c[0](x), 0.2)
        for i in (1, 2, 3):
            x = self.c[i](x)
            x = F.leaky_relu(self.n[i - 1](x) if self.norm else x, 0.2)
        return self.c[4](x)


def plain_step(
    g: nn.Module, d: nn.Module, optimizers: list[torch.optim.Adam], a: Tensor, b: Tensor, kind: str, mix: Tensor
) -> dict[str, float]:
    """The paper's section 3.3: an update of D with its loss halved, then one of G. a, b: B×3×H×W in [-1, 1]."""
    g_optimizer, d_optimizer = optimizers
    fake = g(a)
    of_fake, of_real = d(torch.cat([a, fake.detach()], 1)), d(torch.cat([a, b], 1))
    if kind == "vanilla":
        ones, zeros = torch.ones_like(of_real), torch.zeros_like(of_fake)
        loss_d = 0.5 * (
            F.binary_cross_entropy_with_logits(of_real, ones) + F.binary_cross_entropy_with_logits(of_fake, zeros)
        )
    elif kind == "lsgan":
        loss_d = 0.5 * (((of_real - 1) ** 2).mean() + (of_fake**2).mean())
    else:  # Gulrajani et al. 2017, algorithm 1
        pair_real, pair_fake = torch.cat([a, b], 1), torch.cat([a, fake.detach()], 1)
        between = (mix * pair_real + (1 - mix) * pair_fake).requires_grad_(True)
        slope = torch.autograd.grad(d(between).sum(), between, create_graph=True)[0]
        penalty = ((slope.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean()
        loss_d = of_fake.mean() - of_real.mean() + LAMBDA_GP * penalty
    d_optimizer.zero_grad()
    loss_d.backward()
    d_optimizer.step()

    of_fake = d(torch.cat([a, fake], 1))
    if kind == "vanilla":
        adversarial = F.binary_cross_entropy_with_logits(of_fake, torch.ones_like(of_fake))
    elif kind == "lsgan":
        adversarial = ((of_fake - 1) ** 2).mean()
    else:
        adversarial = -of_fake.mean()
    l1 = (fake - b).abs().mean()
    g_optimizer.zero_grad()
    (adversarial + LAMBDA_L1 * l1).backward()
    g_optimizer.step()
    return {"g_adversarial": adversarial.item(), "pixel": l1.item() / 2}


def settings(out: Path, kind: str) -> TrainConfig:
    norm = "none" if kind == "wgan-gp" else "batch"
    return load_train_config(
        "pix2pix",
        [
            f"out={out}", "device=cpu", f"data.patch={SIDE}", "data.batch=2", f"loss.adversarial={kind}",
            f"model.args.num_downs={DOWNS}", "model.args.ngf=8", "discriminator.args.ndf=8",
            f"discriminator.args.norm={norm}",
        ],
    )  # fmt: skip


def by_kind(network: nn.Module, values: dict[int, Tensor]) -> list[Tensor]:
    """Values by parameter or buffer, convolutions first; the order in which the plain networks hold them."""
    order = []
    for kind in (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d):
        for module in network.modules():
            if isinstance(module, kind):
                order += [
                    values[id(t)]
                    for t in (*module.parameters(recurse=False), *module.buffers(recurse=False))
                    if id(t) in values
                ]
    return order


def snapshot(network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters and running statistics; Adam's averages of the gradients: after one step (1 - β₁) × the gradient."""
    state = {id(t): t for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()}
    slopes = {id(p): optimizer.state[p]["exp_avg"] for p in network.parameters()}
    return by_kind(network, state), by_kind(network, slopes)


@pytest.mark.parametrize("kind", ["vanilla", "lsgan", "wgan-gp"])
def test_one_and_two_steps_are_those_of_the_paper(tmp_path: Path, kind: str) -> None:
    config = settings(tmp_path / "run", kind)
    fabric = open_fabric(config)
    generator, discriminator = build_networks(config)
    assert discriminator is not None
    plain_g, plain_d = PlainUNet(generator), PlainPatchGAN(discriminator, norm=kind != "wgan-gp")
    optimizers = [torch.optim.Adam(n.parameters(), lr=2e-4, betas=(0.5, 0.999)) for n in (plain_g, plain_d)]
    context = make_step_context(config, fabric, "fp32", generator)
    g, d = (
        make_trainable(network, fabric, config, ComputeSettings("fp32"), is_discriminator=network is discriminator)
        for network in (generator, discriminator)
    )
    for step in range(STEPS):
        a, b = torch.rand(2, 2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(step))
        batch = Batch(a, torch.zeros(2, 1, SIDE, SIDE), b, torch.arange(2) + 10 * step)
        torch.manual_seed(step)  # for dropout
        terms = train_step(g, d, [batch], context)
        torch.manual_seed(step)
        mix = uniform(batch.keys, _MIX, 1).float().reshape(-1, 1, 1, 1)
        found = plain_step(plain_g, plain_d, optimizers, a * 2 - 1, b * 2 - 1, kind, mix)
        for name, value in found.items():
            assert terms[name].item() == pytest.approx(value, rel=1e-5), (name, step)
        compare(g, plain_g, optimizers[0])
        compare(d, plain_d, optimizers[1])


def compare(ours: TrainableNetwork, theirs: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    weights, slopes = snapshot(ours.network, ours.optimizer)
    other_weights, other_slopes = snapshot(theirs, optimizer)
    for one, other in zip(weights, other_weights, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    for one, other in zip(slopes, other_slopes, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()
