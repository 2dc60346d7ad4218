"""The game's losses and penalties, on critics whose slopes are known."""

import math

import pytest
import torch

from restore.losses.adversarial import (
    CountedPatches,
    accuracy,
    discriminator_loss,
    feature_matching,
    generator_loss,
    gradient_penalty,
    r1_penalty,
    sensitivity,
)

REAL, FAKE = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
SOMEWHERE = torch.tensor([0.2, 0.7]).reshape(2, 1, 1, 1)
DIRECTION = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
DIRECTION /= DIRECTION.norm()


@pytest.mark.parametrize(("slope", "penalty"), [(1, 0), (3, 4), (0, 1)])
def test_a_critic_of_slope_one_pays_no_gradient_penalty(slope: float, penalty: float) -> None:
    def critic(x: torch.Tensor) -> torch.Tensor:
        return (x * slope * DIRECTION).sum(dim=(1, 2, 3))

    assert gradient_penalty(critic, REAL, FAKE, SOMEWHERE).item() == pytest.approx(penalty, abs=1e-5)


def test_the_gradient_penalty_looks_between_real_and_fake() -> None:
    def critic(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x.square().sum(dim=(1, 2, 3))  # its slope is the picture itself

    between = SOMEWHERE * REAL + (1 - SOMEWHERE) * FAKE
    expected = (between.flatten(1).norm(dim=1) - 1).square().mean()
    assert gradient_penalty(critic, REAL, FAKE, SOMEWHERE).item() == pytest.approx(expected.item(), rel=1e-5)


def test_r1_is_half_the_squared_slope_and_teaches_the_critic() -> None:
    weight = (3 * DIRECTION).requires_grad_(True)
    penalty = r1_penalty(lambda x: (x * weight).sum(dim=(1, 2, 3)), REAL)
    assert penalty.item() == pytest.approx(4.5, rel=1e-5)
    penalty.backward()
    assert torch.allclose(weight.grad, weight.detach(), atol=1e-5), "d(½‖w‖²)/dw = w"


def test_equal_activations_match_and_only_the_fake_ones_learn() -> None:
    theirs = [torch.ones(1, 2, 3, 3, requires_grad=True), torch.zeros(1, 4, requires_grad=True)]
    assert feature_matching(theirs, [t.detach() for t in theirs]).item() == 0
    ours = [torch.full((1, 2, 3, 3), 3.0, requires_grad=True), torch.ones(1, 4, requires_grad=True)]
    distance = feature_matching(theirs, ours)
    assert distance.item() == pytest.approx(1.5), "the mean over layers of 2 and 1"
    distance.backward()
    assert ours[0].grad is not None
    assert theirs[0].grad is None


@pytest.mark.parametrize(
    ("kind", "real", "fake", "of_d", "of_g"),
    [
        ("vanilla", 0.0, 0.0, math.log(2), math.log(2)),
        ("lsgan", 1.0, 0.5, 0.125, 0.25),
        ("hinge", 0.5, -2.0, 0.5, 2.0),
        ("hinge", 2.0, 0.5, 1.5, -0.5),
        ("wgan-gp", 3.0, 1.0, -2.0, -1.0),
    ],
)
def test_losses_are_the_published_ones(kind: str, real: float, fake: float, of_d: float, of_g: float) -> None:
    assert discriminator_loss(kind, torch.tensor([real]), torch.tensor([fake])).item() == pytest.approx(of_d)
    assert generator_loss(kind, torch.tensor([fake])).item() == pytest.approx(of_g)


def counted(mask: torch.Tensor, parts: int = 1) -> CountedPatches:
    return CountedPatches(mask, mask.sum().clamp(min=1) / parts)


@pytest.mark.parametrize("kind", ["vanilla", "lsgan", "hinge", "wgan-gp"])
def test_patches_that_do_not_count_change_nothing(kind: str) -> None:
    real, fake, mask = torch.randn(2, 1, 3, 3), torch.randn(2, 1, 3, 3), torch.zeros(2, 1, 3, 3)
    mask[0, 0, 1] = 1
    counts = counted(mask)
    assert torch.isfinite(generator_loss(kind, fake, counted(0 * mask))), "where there is no hole at all"
    assert discriminator_loss(kind, real, fake, counted(0 * mask)) == 0
    other_real, other_fake = torch.where(mask > 0, real, -50.0), torch.where(mask > 0, fake, 100.0)
    loss = discriminator_loss(kind, real, fake, counts)
    assert loss == discriminator_loss(kind, other_real, other_fake, counts)
    assert loss.item() == pytest.approx(discriminator_loss(kind, real[0, 0, 1], fake[0, 0, 1]).item())
    assert generator_loss(kind, fake, counts) == generator_loss(kind, other_fake, counts)
    assert generator_loss(kind, fake, counts).item() == pytest.approx(generator_loss(kind, fake[0, 0, 1]).item())
    assert accuracy(kind, real, fake, counts) == accuracy(kind, other_real, other_fake, counts)


@pytest.mark.parametrize("kind", ["vanilla", "lsgan", "hinge", "wgan-gp"])
def test_a_patch_counts_the_same_in_whichever_part_it_is(kind: str) -> None:
    real, fake, mask = torch.randn(4, 1, 3, 3), torch.randn(4, 1, 3, 3), torch.zeros(4, 1, 3, 3)
    mask[0, 0, 1] = mask[1] = mask[3, 0, 0, 0] = 1
    whole = discriminator_loss(kind, real, fake, counted(mask))
    per_part = mask.sum() / 4
    parts = [
        discriminator_loss(kind, *part[:2], CountedPatches(part[2], per_part))
        for part in zip(real.split(1), fake.split(1), mask.split(1))
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


@pytest.mark.parametrize("kind", ["vanilla", "lsgan", "hinge", "wgan-gp"])
def test_a_discriminator_that_tells_all_is_always_right(kind: str) -> None:
    right = accuracy(kind, torch.tensor([2.0, 3.0]), torch.tensor([-1.0, 0.1 if kind == "lsgan" else -0.1]))
    assert [float(r) for r in right] == [1, 1]
    wrong = accuracy(kind, torch.tensor([-2.0, -3.0]), torch.tensor([1.0, 2.0]))
    assert [float(r) for r in wrong] == [0, 0]


def test_a_critic_that_sees_is_sensitive_and_a_blind_one_is_not() -> None:
    clean, repaired = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)

    def answers(picture: torch.Tensor) -> torch.Tensor:
        return picture.mean(dim=1, keepdim=True)

    assert sensitivity(answers(clean), answers(repaired), clean, repaired).item() == pytest.approx(1.0, rel=0.2)
    place = torch.rand(2, 1, 16, 16)
    blind = sensitivity(place, place + 0.001 * answers(repaired), clean, repaired)
    assert blind.item() < 0.01
    assert sensitivity(place, place, clean, clean).isnan()
