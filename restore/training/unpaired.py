"""One step of unpaired training: an update of both generators, then of both discriminators (Zhu et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from restore.data.loader import Batch
from restore.devices import autocast
from restore.hashed_random import uniform
from restore.losses.adversarial import generator_loss
from restore.training.step import StepContext, add_terms, adversary_loss, discriminator_input, thumbnails
from restore.training.trainable_network import TrainableNetwork, buffers_unless_skipped

_POOL = 2102  # stream of the hash for what the pools exchange

_Judged = tuple[Batch, Tensor, Tensor]  # with the images of B and of A that were made of it


def cycle_step(
    g: TrainableNetwork,
    d: TrainableNetwork | None,
    batches: list[Batch],
    context: StepContext,
    *,
    d_batches: Sequence[list[Batch]] = (),
    apply_r1: bool = True,
) -> dict[str, Tensor]:
    """Update the generators, then the discriminators, as CycleGAN's code does (see `restore.training.steps.Step`).

    `g` and `d` are a `GeneratorPair` and a `DiscriminatorPair`. All terms are means over both directions, but for
    `supervised`, which is of A to B alone. `cycle`, `identity` and `supervised` are L1 distances of values in [-1, 1].
    """
    terms: dict[str, Tensor] = {}
    share = 1 / len(batches)
    with buffers_unless_skipped([g] if d is None else [g, d]):
        if d is not None:
            d.network.requires_grad_(False)
        outputs: list[_Judged] = []
        for batch in batches:
            loss, found, made = _generator_loss(g, d, batch, context)
            context.fabric.backward(g.scaler.scale(loss * share))
            outputs.append(made)
            add_terms(terms, found, share)
        terms["g_norm"] = g.step()
        if d is not None:
            updates = [[_judged(g, batch, context) for batch in parts] for parts in d_batches]
            _update_discriminators(d, updates or [outputs], context, apply_r1, terms)
    return terms


def _generator_loss(
    g: TrainableNetwork, d: TrainableNetwork | None, batch: Batch, context: StepContext
) -> tuple[Tensor, dict[str, Tensor], _Judged]:
    """The loss of both generators, its terms, and what the discriminators judge."""
    config = context.loss
    a, b = batch.damaged, batch.clean
    to_b, to_a = _translate(g, a, context), _translate(g, b, context, back=True)
    cycle = _distance(_translate(g, to_b, context, back=True), a) + _distance(_translate(g, to_a, context), b)
    terms = {"cycle": cycle / 2}
    loss = config.cycle * cycle
    if config.identity > 0:
        same = _distance(_translate(g, b, context), b) + _distance(_translate(g, a, context, back=True), a)
        terms["identity"] = same / 2
        loss = loss + config.cycle * config.identity * same
    if batch.degraded is not None:
        terms["supervised"] = _distance(_translate(g, batch.degraded, context), b)
        loss = loss + config.supervised * terms["supervised"]
    if d is not None:
        with autocast(a.device, context.precision):
            fakes = [discriminator_input(batch, x, context) for x in (to_b, to_a)]
            logits = [d.compiled(x, back=back) for x, back in zip(fakes, (False, True))]
        adversarial = sum((generator_loss(config.adversarial, x.float()) for x in logits), a.new_zeros(()))
        terms["g_adversarial"] = adversarial / 2
        loss = loss + config.adversarial_weight * adversarial
    terms |= thumbnails(to_b, b)
    return loss, terms, (batch, to_b.detach(), to_a.detach())


def _update_discriminators(
    d: TrainableNetwork, updates: list[list[_Judged]], context: StepContext, apply_r1: bool, terms: dict[str, Tensor]
) -> None:
    """All updates of both discriminators, each in parts. Their terms are added to `terms`."""
    skipped_before = d.skipped.clone()
    d.network.requires_grad_(True)
    for parts in updates:
        d.network.update_spectral_norm()  # type: ignore[operator]
        share = 1 / len(parts)
        for batch, to_b, to_a in parts:
            for real, fake, back in ((batch.clean, to_b, False), (batch.damaged, to_a, True)):
                loss, found = _discriminator_loss(d, batch, real, fake, back, context, apply_r1)
                context.fabric.backward(d.scaler.scale(loss * share))
                add_terms(terms, found, share / len(updates) / 2)
        add_terms(terms, {"d_norm": d.step()}, 1 / len(updates))
    if len(updates) > 1:
        d.count_as_one_step(skipped_before)


def _discriminator_loss(
    d: TrainableNetwork, batch: Batch, real: Tensor, fake: Tensor, back: bool, context: StepContext, apply_r1: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of one discriminator, and its terms."""
    pool = d.network.get_submodule("pool_b" if back else "pool_a")
    fake = pool.exchange(fake, uniform(batch.keys, _POOL + back, 2))  # type: ignore[operator]
    inputs = discriminator_input(batch, real, context), discriminator_input(batch, fake, context)
    forward, network = partial(d.forward, back=back), partial(d.network, back=back)
    return adversary_loss(forward, network, *inputs, batch, None, context, apply_r1)


@torch.no_grad()
def _judged(g: TrainableNetwork, batch: Batch, context: StepContext) -> _Judged:
    return batch, _translate(g, batch.damaged, context), _translate(g, batch.clean, context, back=True)


def _translate(g: TrainableNetwork, image: Tensor, context: StepContext, *, back: bool = False) -> Tensor:
    with autocast(image.device, context.precision):
        output: Tensor = g.forward(image, back=back)
    return output.float()


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """L1 of images in [0, 1], as of values in [-1, 1]."""
    return 2 * nn.functional.l1_loss(one, other)
