"""Augmentation of what D sees: the same for real and repaired, different from image to image."""

import pytest
import torch

from restore.losses.diffaugment import KINDS, diff_augment

KEYS = torch.tensor([11, 12, 13, 14])


def shown(seed: int) -> torch.Tensor:
    return torch.rand(4, 7, 32, 24, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def changed(x: torch.Tensor, *kinds: str, keys: torch.Tensor = KEYS) -> torch.Tensor:
    return diff_augment(x, keys, kinds, rgb_at=(0, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_changes_every_image_and_keeps_the_shape(kind: str) -> None:
    x = shown(0)
    out = changed(x, kind)
    assert out.shape == x.shape
    assert out.isfinite().all()
    assert all(not torch.equal(a, b) for a, b in zip(out, x))


def test_without_a_kind_nothing_changes() -> None:
    assert torch.equal(changed(shown(0)), shown(0))


@pytest.mark.parametrize("kind", KINDS)
def test_real_and_repaired_of_one_key_change_alike(kind: str) -> None:
    real, fake = shown(0), shown(1)
    if kind == "color":  # linear in the picture, apart from a constant
        middle = changed((real + fake) / 2, kind)
        assert torch.allclose(middle, (changed(real, kind) + changed(fake, kind)) / 2, atol=1e-5)
    else:
        assert torch.equal(changed(real, kind) == 0, changed(fake, kind) == 0), "the same pixels vanish"
        assert torch.allclose(changed(real - fake, kind), changed(real, kind) - changed(fake, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_alone_decides(kind: str) -> None:
    x = shown(0)
    assert torch.equal(changed(x[2:3], kind, keys=KEYS[2:3]), changed(x, kind)[2:3]), "whatever else is in the batch"
    same = x[:1].expand(4, -1, -1, -1)
    assert not torch.equal(changed(same, kind)[0], changed(same, kind)[1]), "other keys, other changes"


def test_colour_leaves_the_mask_alone_and_treats_both_pictures_alike() -> None:
    x = shown(0)
    x[:, 4:] = x[:, :3]
    out = changed(x, "color")
    assert torch.equal(out[:, 3], x[:, 3])
    assert torch.equal(out[:, :3], out[:, 4:])


def test_gradients_flow_to_every_pixel_that_is_still_seen() -> None:
    x = shown(0).requires_grad_(True)
    out = changed(x, *KINDS)
    out.square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    seen = (x.grad != 0).float().mean(dim=(1, 2, 3))
    assert (seen > 0.3).all()
