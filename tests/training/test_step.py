"""What D sees of a restored image, which of its patches count, and that splitting a batch changes nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from restore.data.loader import Batch
from restore.losses.adversarial import CountedPatches, discriminator_loss, generator_loss
from restore.models.patchgan import PatchGAN
from restore.training import step as step_module
from restore.training.compute import ComputeSettings
from restore.training.config import LossConfig
from restore.training.draws import draw, fresh_d_batches
from restore.training.loop import TrainCallbacks, train
from restore.training.setup import build_networks, make_step_context, make_trainable, open_fabric
from restore.training.step import StepContext, count_patches, d_loss, discriminator_input, restoration_loss, train_step
from restore.training.trainable_network import TrainableNetwork
from tests.training.test_loop import config

CONTEXT: Any = {
    "fabric": SimpleNamespace(world_size=1), "precision": "fp32", "loss": LossConfig(adversarial="hinge"),
}  # fmt: skip


def batch_with_a_hole() -> Batch:
    clean, mask = torch.rand(2, 3, 96, 96), torch.zeros(2, 1, 96, 96)
    mask[0, :, 10:20, 10:20] = 1
    return Batch(clean * (1 - mask), mask, clean, torch.arange(2))


def discriminator(channels: int) -> Any:
    network = PatchGAN(in_channels=channels, ndf=4, norm="none").eval()
    return SimpleNamespace(network=network, forward=network, compiled=network)


def test_only_patches_that_see_the_hole_count_as_fake_and_as_real() -> None:
    batch, d, context = batch_with_a_hole(), discriminator(7), StepContext(with_mask=True, **CONTEXT)
    output = torch.rand(2, 3, 96, 96)
    made = discriminator_input(batch, torch.where(batch.mask > 0, output, batch.clean), context)
    real, fake = d.network(discriminator_input(batch, batch.clean, context)), d.network(made)
    mask = d.network.sees(batch.mask > 0)
    assert 0 < mask[0].mean() < 1
    assert mask[1].sum() == 0, "the second picture has no hole"
    ((found,),) = count_patches(d, [[batch]], context)
    assert found is not None
    assert torch.equal(found.mask, mask)
    counts = CountedPatches(mask, mask.sum())
    loss, terms = d_loss(d, batch, output, found, context, False)
    torch.testing.assert_close(loss, discriminator_loss("hinge", real, fake, counts))
    seen = mask > 0
    torch.testing.assert_close(loss, discriminator_loss("hinge", real[seen], fake[seen]))
    torch.testing.assert_close(terms["d_real"], real[seen].mean())
    torch.testing.assert_close(terms["d_accuracy_real"], (real[seen] > 0).float().mean())
    terms = restoration_loss(output, d, batch, found, context)[1]
    torch.testing.assert_close(terms["g_adversarial"], generator_loss("hinge", fake, counts))


@pytest.mark.parametrize("augment", [(), ("color", "translation", "cutout")])
def test_patches_count_where_the_mask_in_ds_input_is(augment: tuple[str, ...]) -> None:
    batch, d = batch_with_a_hole(), discriminator(7)
    context = StepContext(with_mask=True, augment=augment, **CONTEXT)
    ((found,),) = count_patches(d, [[batch]], context)
    assert found is not None
    assert torch.equal(found.mask, d.network.sees(discriminator_input(batch, batch.clean, context)[:, 3:4] > 0))


def test_where_no_mask_is_told_every_patch_counts() -> None:
    batch, d, context = batch_with_a_hole(), discriminator(6), StepContext(with_mask=False, **CONTEXT)
    output = torch.rand(2, 3, 96, 96)
    assert count_patches(d, [[batch]], context) == [[None]]
    fake = d.network(discriminator_input(batch, output, context))
    torch.testing.assert_close(
        restoration_loss(output, d, batch, None, context)[1]["g_adversarial"], generator_loss("hinge", fake)
    )


def batch_of_unequal_holes(count: int, seed: int) -> Batch:
    """From no hole at all to one that every patch sees, the large ones last; and noise, so that no error is zero."""
    draw = torch.Generator().manual_seed(seed)
    clean = torch.rand(count, 3, 64, 64, generator=draw)
    damaged = clean + 0.1 * torch.randn(clean.shape, generator=draw)
    mask = torch.zeros(count, 1, 64, 64)
    for i in range(1, count):
        mask[i, :, 4 : 4 + 7 * i, 4 : 4 + 5 * i] = 1
    return Batch(torch.where(mask > 0, 0.5, damaged), mask, clean, torch.arange(count) + 100 * seed)


Networks = tuple[TrainableNetwork, TrainableNetwork, StepContext]


def networks(out: Path, kind: str, **loss: object) -> Networks:
    settings = config(
        out, out / "run", grad_accumulation=1,
        data={"folders": [str(out)], "patch": 64, "batch": 4},
        discriminator={"args": {"ndf": 8, "n_layers": 2, "norm": "none", "spectral_norm": kind != "wgan-gp"}},
        loss={"adversarial": kind, "hole_weight": 6, "adversarial_weight": 1, **loss},
    )  # fmt: skip
    fabric = open_fabric(settings)
    generator, judge = build_networks(settings)
    assert judge is not None
    g, d = (
        make_trainable(network, fabric, settings, ComputeSettings("fp32"), is_discriminator=network is judge)
        for network in (generator, judge)
    )
    return g, d, make_step_context(settings, fabric, "fp32", generator)


LOSSES = {
    "hinge": {"r1": 1.0, "r1_interval": 1, "feature_matching": 1.0}, "vanilla": {}, "lsgan": {}, "wgan-gp": {},
}  # fmt: skip


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("kind", LOSSES)
def test_accumulated_gradients_are_those_of_one_large_batch(tmp_path: Path, kind: str, parts: int) -> None:
    results = []
    for count in (1, parts):
        g, d, context = networks(tmp_path, kind, **LOSSES[kind])
        # Adam's first steps have one length, however small a gradient is: they would make steps of rounding.
        d.optimizer.param_groups[0]["lr"] = 0.0
        of_d = [batch_of_unequal_holes(4, seed).parts(count) for seed in range(2)]
        terms = train_step(g, d, batch_of_unequal_holes(4, 9).parts(count), context, d_batches=of_d)
        results.append((g, d, terms))
    (g, d, terms), (other_g, other_d, other_terms) = results
    for one, other in ((d, other_d), (g, other_g)):
        slopes, other_slopes = (
            torch.cat([n.optimizer.state[p]["exp_avg"].flatten() for p in n.network.parameters()]) for n in (one, other)
        )
        # With vanilla, what clean and restored images ask of an untrained D is opposite, and almost cancels out.
        tolerance = 3e-5 if kind == "vanilla" else 1e-5
        torch.testing.assert_close(other_slopes, slopes, rtol=0, atol=tolerance * slopes.abs().max().item())
        for a, b in zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    for name in ("d", "d_real", "d_fake", "g_adversarial", "pixel", "d_norm", "g_norm"):
        assert other_terms[name].item() == pytest.approx(terms[name].item(), rel=1e-5, abs=1e-6), name


def test_processes_count_the_patches_of_all(tmp_path: Path) -> None:
    _, d, context = networks(tmp_path, "hinge")
    parts = batch_of_unequal_holes(4, 0).parts(2)
    whole = count_patches(d, [parts], context)
    # Each of two processes gets one of the parts, and an exchange that adds what the other found.
    other = d.network.sees(parts[1].mask > 0).sum()  # type: ignore[operator]
    fabric: Any = SimpleNamespace(world_size=2, all_reduce=lambda found, reduce_op: found + other)
    alone = StepContext(fabric, context.loss, "fp32", with_mask=True)
    ((found,),) = count_patches(d, [parts[:1]], alone)
    assert found is not None
    assert whole[0][0] is not None
    assert found.per_part == whole[0][0].per_part


def test_singular_vectors_move_once_for_each_update_of_d(tmp_path: Path) -> None:
    g, d, context = networks(tmp_path, "hinge")
    d.optimizer.param_groups[0]["lr"] = 0.0
    chain = d.network.model[2].parametrizations.weight  # type: ignore[index, union-attr]
    u = chain[0]._u.clone()
    weight = chain.original.detach().flatten(1)
    train_step(g, d, [batch_of_unequal_holes(2, 0)], context)
    v = torch.nn.functional.normalize(weight.T @ u, dim=0)
    torch.testing.assert_close(chain[0]._u, torch.nn.functional.normalize(weight @ v, dim=0), rtol=0, atol=1e-6)


def test_values_are_means_over_the_updates_of_d(tmp_path: Path) -> None:
    of_d = [batch_of_unequal_holes(2, seed) for seed in range(3)]
    found = []
    for batches in (of_d, of_d[:1], of_d[1:2], of_d[2:]):
        g, d, context = networks(tmp_path, "lsgan")
        d.network.update_spectral_norm()  # type: ignore[operator]
        d.network.update_spectral_norm = lambda: None  # type: ignore[assignment]  # as if it had converged
        for network in (g, d):
            network.optimizer.param_groups[0]["lr"] = 0.0
        found.append(train_step(g, d, [batch_of_unequal_holes(2, 7)], context, d_batches=[[b] for b in batches]))
    together, *single = found
    for name in ("d", "d_real", "d_fake", "d_accuracy_real", "d_accuracy_fake", "d_sensitivity", "d_norm"):
        mean = sum(terms[name].item() for terms in single) / 3
        assert together[name].item() == pytest.approx(mean, rel=1e-4), name
    assert together["pixel"].item() == pytest.approx(single[0]["pixel"].item())


def test_a_part_without_holes_says_nothing_of_the_sensitivity(tmp_path: Path) -> None:
    batch = batch_of_unequal_holes(2, 0)
    batch = Batch(torch.where(batch.mask > 0, 0.5, batch.clean), batch.mask, batch.clean, batch.keys)
    found = []
    for parts in (batch.parts(2), batch.parts(2)[1:]):
        g, d, context = networks(tmp_path, "hinge")
        found.append(train_step(g, d, parts, context)["d_sensitivity"].item())
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_statistics_of_a_skipped_update_of_d_are_undone(tmp_path: Path) -> None:
    g, d, context = networks(tmp_path, "hinge")
    before = [buffer.clone() for buffer in d.float_buffers()]
    assert before
    broken = batch_of_unequal_holes(2, 0)
    broken = Batch(broken.damaged * torch.nan, broken.mask, broken.clean, broken.keys)
    train_step(g, d, [batch_of_unequal_holes(2, 1)], context, d_batches=[[broken], [batch_of_unequal_holes(2, 2)]])
    assert d.skipped.tolist() == [1, 0]
    assert all(torch.equal(one, other) for one, other in zip(before, d.float_buffers()))
    train_step(g, d, [batch_of_unequal_holes(2, 1)], context, d_batches=[[broken], [broken]])
    assert d.skipped.tolist() == [2, 1], "steps are counted, not updates"


def test_each_update_of_d_draws_its_own_images(tmp_path: Path) -> None:
    discriminator_ = {"args": {"ndf": 8, "norm": "none"}, "steps": 3}
    loss = {"adversarial": "wgan-gp", "adversarial_start": 2}
    settings = config(tmp_path, tmp_path / "run", discriminator=discriminator_, loss=loss)
    drawn, positions = 0, []

    def next_batch() -> Batch:
        nonlocal drawn
        drawn += 1
        return Batch(*(torch.full((2, 1), float(drawn)) for _ in range(4)))

    for step in range(5):
        positions.append(drawn)
        batches, d_batches = draw(next_batch, 2, fresh_d_batches(settings, step))
        values = [part.keys[0].item() for parts in (*d_batches, batches) for part in parts[:1]]
        assert len(set(values)) == len(values) == (1 if step < 2 else 4)
        assert {len(parts) for parts in (*d_batches, batches)} == {2}
    assert positions == [0, 1, 2, 6, 10]
    once = settings.model_copy(update={"discriminator": settings.discriminator.model_copy(update={"steps": 1})})
    assert [fresh_d_batches(once, step) for step in range(5)] == [0] * 5, "D is updated on G's images, as in pix2pix"


def test_d_is_updated_on_fresh_images_in_a_run(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    loss_of_d, loss_of_g = step_module.d_loss, step_module.restoration_loss

    def watched_d(d: Any, batch: Batch, *rest: Any) -> Any:
        seen.append(tuple(batch.keys.tolist()))
        return loss_of_d(d, batch, *rest)

    def watched_g(output: Any, d: Any, batch: Batch, *rest: Any) -> Any:
        seen.append(tuple(batch.keys.tolist()))
        return loss_of_g(output, d, batch, *rest)

    monkeypatch.setattr(step_module, "d_loss", watched_d)
    monkeypatch.setattr(step_module, "restoration_loss", watched_g)
    values: list[dict[str, float]] = []
    train(
        config(
            clean, tmp_path / "run", total_steps=3, log_every=1,
            discriminator={"args": {"ndf": 4, "norm": "none"}, "steps": 5},
            loss={"adversarial": "wgan-gp", "adversarial_start": 1},
        ),
        TrainCallbacks(logged=lambda step, total, found: values.append(found)),
    )  # fmt: skip
    assert len(seen) == len(set(seen)) == 1 + 6 + 6
    assert all(0 <= line["d_accuracy_real"] <= 1 for line in values[1:])
