"""CUT written anew for comparison, from the paper and the pseudo code of its authors, with plain PyTorch alone."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.training.cyclegan_reference import Discriminator, Generator

LAYERS = (4, 7, 10, 14)  # both convolutions of stride 2, the first and the fifth block


def patch_nce(f_q: Tensor, f_k: Tensor, tau: float = 0.07) -> Tensor:
    """B×S×C each: positives first, then all others of the image; cross-entropy against the first."""
    size = f_q.shape[1]
    positive = (f_q * f_k).sum(dim=2, keepdim=True)
    negative = torch.bmm(f_q, f_k.transpose(1, 2)).masked_fill(torch.eye(size, dtype=torch.bool), -torch.inf)
    logits = torch.cat((positive, negative), dim=2) / tau
    return F.cross_entropy(logits.flatten(0, 1), torch.zeros(len(f_q) * size, dtype=torch.long))


class Reference:
    """Generator, discriminator and the sampled MLPs, with the three optimizers of the published code.

    Every place of a layer is a patch, so images have at most 256 pixels.
    """

    def __init__(self, ngf: int, ndf: int, layers: int) -> None:
        self.g, self.d = Generator(5, ngf), Discriminator(ndf, layers)
        widths = (3, 2 * ngf, 4 * ngf, 4 * ngf, 4 * ngf)
        self.f = nn.ModuleList(nn.Sequential(nn.Linear(w, 256), nn.ReLU(), nn.Linear(256, 256)) for w in widths)
        how = {"lr": 2e-4, "betas": (0.5, 0.999)}
        self.optimizers = [torch.optim.Adam(network.parameters(), **how) for network in (self.g, self.d, self.f)]

    def encode(self, x: Tensor) -> list[Tensor]:
        features = [x]
        for number, layer in enumerate(self.g.model):
            x = layer(x)
            if number in LAYERS:
                features.append(x)
        return features

    def nce(self, source: Tensor, target: Tensor, flipped: bool = False) -> Tensor:
        """`flipped`: the target was made of the mirrored source."""
        losses = []
        for mlp, q, k in zip(self.f, self.encode(target), self.encode(source)):
            q = torch.flip(q, [3]) if flipped else q
            vectors = [mlp(x.permute(0, 2, 3, 1).flatten(1, 2)) for x in (q, k)]
            unit_q, unit_k = (x / (x.pow(2).sum(2, keepdim=True).sqrt() + 1e-7) for x in vectors)
            losses.append(patch_nce(unit_q, unit_k.detach()))
        return sum(losses) / len(losses)

    def step(self, real_a: Tensor, real_b: Tensor) -> dict[str, float]:
        """One `optimize_parameters`, on images in [-1, 1]: the discriminator first."""

        def towards(logits: Tensor, target: float) -> Tensor:
            return F.mse_loss(logits, torch.full_like(logits, target))

        for optimizer in self.optimizers:
            optimizer.zero_grad()
        of_g, of_d, of_f = self.optimizers
        fake, same = self.g(real_a), self.g(real_b)
        d = 0.5 * (towards(self.d(fake.detach()), 0.0) + towards(self.d(real_b), 1.0))
        d.backward()
        of_d.step()
        adversarial = towards(self.d(fake), 1.0)
        contrastive, identity = self.nce(real_a, fake), self.nce(real_b, same)
        (adversarial + contrastive + identity).backward()
        of_g.step()
        of_f.step()
        terms = {"d": d, "g_adversarial": adversarial, "contrastive": contrastive, "contrastive_identity": identity}
        return {name: value.item() for name, value in terms.items()}
