"""CycleGAN written anew for comparison, from the paper and the published code's structure, with plain PyTorch alone."""

import copy
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width), nn.ReLU(),
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class Generator(nn.Module):
    """Images in [-1, 1]; `c7s1-64, d128, d256, R256 × n, u128, u64, c7s1-3` of the paper's appendix."""

    def __init__(self, blocks: int, ngf: int) -> None:
        super().__init__()
        model = [nn.ReflectionPad2d(3), nn.Conv2d(3, ngf, 7), nn.InstanceNorm2d(ngf), nn.ReLU()]
        model += [nn.Conv2d(ngf, ngf * 2, 3, stride=2, padding=1), nn.InstanceNorm2d(ngf * 2), nn.ReLU()]
        model += [nn.Conv2d(ngf * 2, ngf * 4, 3, stride=2, padding=1), nn.InstanceNorm2d(ngf * 4), nn.ReLU()]
        model += [Residual(ngf * 4) for _ in range(blocks)]
        for width in (ngf * 4, ngf * 2):
            model += [
                nn.ConvTranspose2d(width, width // 2, 3, stride=2, padding=1, output_padding=1),
                nn.InstanceNorm2d(width // 2),
                nn.ReLU(),
            ]
        model += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*model)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Discriminator(nn.Module):
    """`C64-C128-C256-C512` with instance norm, of `layers` layers of stride 2."""

    def __init__(self, ndf: int, layers: int) -> None:
        super().__init__()
        model = [nn.Conv2d(3, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for n in range(1, layers + 1):
            before, after = ndf * min(2 ** (n - 1), 8), ndf * min(2**n, 8)
            stride = 2 if n < layers else 1
            model += [
                nn.Conv2d(before, after, 4, stride=stride, padding=1),
                nn.InstanceNorm2d(after),
                nn.LeakyReLU(0.2),
            ]
        model += [nn.Conv2d(ndf * min(2**layers, 8), 1, 4, stride=1, padding=1)]
        self.model = nn.Sequential(*model)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Reference:
    """Both generators and both discriminators, with the two optimizers of the published code."""

    def __init__(self, blocks: int, ngf: int, ndf: int, layers: int) -> None:
        self.g_a, self.g_b = Generator(blocks, ngf), Generator(blocks, ngf)
        self.d_a, self.d_b = Discriminator(ndf, layers), Discriminator(ndf, layers)
        how = {"lr": 2e-4, "betas": (0.5, 0.999)}
        self.g_optimizer = torch.optim.Adam(itertools.chain(self.g_a.parameters(), self.g_b.parameters()), **how)
        self.d_optimizer = torch.optim.Adam(itertools.chain(self.d_a.parameters(), self.d_b.parameters()), **how)

    def step(
        self, real_a: Tensor, real_b: Tensor, degraded: Tensor | None = None, weight: float = 0.0
    ) -> dict[str, float]:
        """One `optimize_parameters`, on images in [-1, 1]. The pools are not full, so D sees new images.

        `degraded` images of B must come back to B; this is no part of the published code.
        """

        def towards(logits: Tensor, target: float) -> Tensor:
            return F.mse_loss(logits, torch.full_like(logits, target))

        fake_b, fake_a = self.g_a(real_a), self.g_b(real_b)
        cycle = F.l1_loss(self.g_b(fake_b), real_a) + F.l1_loss(self.g_a(fake_a), real_b)
        identity = F.l1_loss(self.g_a(real_b), real_b) + F.l1_loss(self.g_b(real_a), real_a)
        adversarial = towards(self.d_a(fake_b), 1.0) + towards(self.d_b(fake_a), 1.0)
        supervised = real_b.new_zeros(()) if degraded is None else F.l1_loss(self.g_a(degraded), real_b)
        self.g_optimizer.zero_grad()
        (adversarial + 10 * cycle + 10 * 0.5 * identity + weight * supervised).backward()
        self.g_optimizer.step()

        self.d_optimizer.zero_grad()
        losses = []
        for d, real, fake in ((self.d_a, real_b, fake_b), (self.d_b, real_a, fake_a)):
            loss = 0.5 * (towards(d(real), 1.0) + towards(d(fake.detach()), 0.0))
            loss.backward()
            losses.append(loss.item())
        self.d_optimizer.step()
        return {
            "cycle": cycle.item() / 2,
            "identity": identity.item() / 2,
            "g_adversarial": adversarial.item() / 2,
            "d": sum(losses) / 2,
            **({} if degraded is None else {"supervised": supervised.item()}),
        }

    def states(self) -> dict[str, dict[str, Tensor]]:
        """Copies of all weights by the names of the published files."""
        networks = {"G_A": self.g_a, "G_B": self.g_b, "D_A": self.d_a, "D_B": self.d_b}
        return {name: copy.deepcopy(network.state_dict()) for name, network in networks.items()}
