"""Builds the parts of a training run from its config."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from restore.checkpoints import BACK, BEST, ConditionSettings, Description, DetectorSettings, load_strictly
from restore.data.build import open_source, with_classes
from restore.data.build import with_condition_channels as data_with_condition_channels
from restore.data.discovery import RULES
from restore.data.loader import Batch, Source, in_srgb
from restore.data.unpaired import open_unpaired
from restore.degradations import Degradation, degradation_from
from restore.devices import pick_device
from restore.errors import RestoreError
from restore.images.image import NEUTRAL
from restore.linear_light import from_linear
from restore.losses.perceptual import PerceptualLoss
from restore.models.base import RestorationNetwork
from restore.models.contrastive import ContrastiveGenerator
from restore.models.cycle import DiscriminatorPair, GeneratorPair
from restore.models.patchgan import init_weights
from restore.models.registry import GENERATORS, build_discriminator, build_generator
from restore.training.compute import ComputeSettings
from restore.training.config import OptimizerConfig, TrainConfig
from restore.training.fitting import find_discriminator, load_discriminator, load_fitting, read_any
from restore.training.initial import find_initial, read_initial
from restore.training.launchers import find_environment
from restore.training.muon import KernelMuon
from restore.training.network_config import generator_args, sample_args
from restore.training.resume_keys import IMAGE_KEYS, is_within
from restore.training.run_dir import RunFolder
from restore.training.schedule_free import is_schedule_free, open_schedule_free
from restore.training.step import StepContext
from restore.training.trainable_network import TrainableNetwork
from restore.training.validation import MARGIN_PX

_INIT_WARMUP_STEPS = 100  # good weights must not be moved far by an optimizer without statistics


def with_condition_channels(config: TrainConfig) -> TrainConfig:
    """The config with what follows from the condition images and the folders of classes; see `restore.data.build`."""
    return config.model_copy(update={"data": with_classes(data_with_condition_channels(config.data))})


def open_fabric(config: TrainConfig) -> Fabric:
    """The devices of a run, and the communication between its processes.

    Raises:
        RestoreError: there is no such device, or not enough of them; or other processes were started than the config
            says.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it logs the devices that it found
    device = pick_device(config.device)
    processes = config.devices * config.nodes
    if device.type == "cuda" and config.devices > torch.cuda.device_count():
        raise RestoreError(
            f"{torch.cuda.device_count()} CUDA device(s) found", where=f"devices = {config.devices}", hint="lower it"
        )
    if device.type == "cuda" and device.index and config.devices > 1:
        raise RestoreError(
            "several devices always start with the first", where=f"device = {config.device}", hint="use device=cuda"
        )
    if device.type == "mps" and processes > 1:
        raise RestoreError("MPS has one device", where=f"devices = {config.devices}", hint="use devices=1")
    # By default DDP broadcasts buffers in each forward pass, in place. The second pass through D in a step would then
    # invalidate the graph of the first.
    strategy: Any = "auto"
    if processes > 1:
        strategy = DDPStrategy(broadcast_buffers=False, timeout=timedelta(minutes=config.timeout_minutes))
    devices: Any = [device.index or 0] if device.type == "cuda" and processes == 1 else config.devices
    environment = find_environment(config.devices, config.nodes)
    return Fabric(
        accelerator=device.type, devices=devices, num_nodes=config.nodes, strategy=strategy, plugins=[environment]
    )


def build_networks(
    config: TrainConfig, *, use_init: bool = True, on_event: Callable[[str], None] = lambda line: None
) -> tuple[RestorationNetwork, nn.Module | None]:
    """Build G, and D if there is an adversarial loss. Seeds torch's generator, from which their weights are drawn.

    Args:
        config: of the run.
        use_init: load the weights of `init`. False if a saved state is loaded afterwards; the file may be gone then.
        on_event: called with a line on what fits, without `init_strict`.

    Raises:
        RestoreError: arguments that cannot be built, `init` weights of another network, or a patch that is too small.
    """
    torch.manual_seed(config.seed)
    generator = _each(config, lambda: build_generator(config.model.builder, generator_args(config), where="model"))
    generator.init_for_training()
    if config.init is not None and use_init:
        path = find_initial(config.init)
        if config.init == config.discriminator.init and path.name == BEST:
            path = find_discriminator(config.init)  # G and D have trained each other: both from the last state
        if config.init_strict:
            with _hint_at_fitting():
                state = generator.adapted(read_initial(path, generator))
                load_strictly(generator, with_new_channels(state, generator), path)
        elif isinstance(generator, (GeneratorPair, ContrastiveGenerator)):
            load_fitting(generator, read_initial(path, generator), path, on_event)
        else:
            state = generator.adapted(read_any(path, "g"))
            load_fitting(generator, with_new_channels(state, generator), path, on_event)
    patches = [values.data.patch for values in config.stage_configs()]
    multiple, least = generator.multiple * generator.scale, generator.smallest_side * generator.scale
    for patch in patches:
        where = f"data.patch = {patch}"
        if patch % multiple:
            raise RestoreError(f"must be a multiple of {multiple} for this model", where=where)
        if generator.draws and patch != generator.multiple:
            raise RestoreError(f"must be {generator.multiple}", where=where)
        if patch < least:
            raise RestoreError(f"must be at least {least} for this model", where=where)
    if config.loss.adversarial == "none":
        return generator, None
    # Without pairs, D judges an image alone.
    seen = 2 if config.task == "restoration" else 1
    channels = seen * config.data.image_channels + config.data.condition_channels + generator.takes_mask
    args = {**config.discriminator.args, **sample_args(config), "in_channels": channels}
    kind = config.discriminator.builder
    discriminator: nn.Module = build_discriminator(kind, args, where="discriminator")
    if config.task == "unpaired":
        shape = (config.data.image_channels, config.data.patch, config.data.patch)
        other = build_discriminator(kind, args, where="discriminator")
        discriminator = DiscriminatorPair(discriminator, other, config.discriminator.pool, shape)
    init_weights(discriminator)
    if config.discriminator.init is not None and use_init:
        path = find_discriminator(config.discriminator.init)
        with _hint_at_fitting():
            load_discriminator(discriminator, path, strict=config.init_strict, on_event=on_event)
    if not generator.draws:
        _refuse_small_patch(discriminator, channels, min(patches), multiple)
    if config.loss.adversarial == "wgan-gp" and any(
        isinstance(layer, nn.BatchNorm2d) for layer in discriminator.modules()
    ):
        raise RestoreError(
            "wgan-gp needs a discriminator without batch norm",
            where="discriminator.args.norm = batch",
            hint="set it to none",
        )
    return generator, discriminator


def _each(config: TrainConfig, build: Callable[[], RestorationNetwork]) -> RestorationNetwork:
    """A generator; without pairs one for each direction, or with what compares its features."""
    if config.task == "one-sided":
        return ContrastiveGenerator(build(), config.data.image_channels)
    return GeneratorPair(build(), build()) if config.task == "unpaired" else build()


@contextmanager
def _hint_at_fitting() -> Iterator[None]:
    try:
        yield
    except RestoreError as error:
        if error.hint is None:
            error.hint = "init_strict=false takes what fits"
        raise


def with_new_channels(state: dict[str, Tensor], generator: RestorationNetwork) -> dict[str, Tensor]:
    """Extend weights by one input channel, and by one output channel, if the generator has one more.

    The new weights are zero. So weights from blind clean-up are a start for inpainting, which also sees the mask, and
    weights of a detector on one level for a detector on all levels of a pyramid (`PyramidUNet`). The channels of
    condition images, which are the last, are added likewise.
    """
    own = generator.state_dict()
    extended = dict(state)
    added = generator.conditions
    for name, dim, counts in (
        ("head.weight", 1, {1, added, added + 1}),
        ("model.model.0.weight", 1, {added}),
        ("tail.weight", 0, {1}),
        ("tail.bias", 0, {1}),
    ):
        more = own[name].shape[dim] - state[name].shape[dim] if name in state and name in own else 0
        if more > 0 and more in counts:
            value = state[name]
            extended[name] = torch.cat([value, value.new_zeros(*value.shape[:dim], more, *value.shape[dim + 1 :])], dim)
    return extended


def _refuse_small_patch(discriminator: nn.Module, channels: int, patch: int, multiple: int) -> None:
    # On the meta device, shapes are computed without memory or arithmetic.
    probe = copy.deepcopy(discriminator).eval().to("meta")

    def accepts(side: int) -> bool:
        try:
            probe(torch.empty(1, channels, side, side, device="meta"))
        except RuntimeError:  # a layer would have no output
            return False
        return True

    if accepts(patch):
        return
    enough = next((side for side in range(patch, 4097, multiple) if accepts(side)), None)
    hint = f"{enough} is enough, or lower discriminator.args.n_layers"
    raise RestoreError("too small for this discriminator", where=f"data.patch = {patch}", hint=hint)


def make_trainable(
    network: nn.Module, fabric: Fabric, config: TrainConfig, compute: ComputeSettings, *, is_discriminator: bool
) -> TrainableNetwork:
    """Move a network to its device and give it an optimizer and a scaler; compile it if the config says so.

    Raises:
        RestoreError: the kind of optimizer does not work with the precision or the version of PyTorch, or is not
            installed.
    """
    optimizer = config.optimizer
    device = fabric.device
    network.to(device).to(memory_format=compute.memory_format)
    rate, betas, clip = _optimizer_values(optimizer, is_discriminator)
    compiled: Any = torch.compile(network) if config.compile else network
    on_cuda = device.type == "cuda"
    kernels = None
    parameters = list(network.parameters())
    if optimizer.kind == "muon" and not is_discriminator:
        if compute.precision == "fp16":
            raise RestoreError("muon has no fp16", where="precision", hint="use fp32 or bf16")
        kernels = KernelMuon([p for p in parameters if p.ndim > 1], optimizer.lr_kernels, optimizer.weight_decay)
        kernels.optimizer.param_groups[0]["full_rate"] = optimizer.lr_kernels
        parameters = [p for p in parameters if p.ndim <= 1]
    adam: torch.optim.Optimizer
    if optimizer.kind == "schedule-free" and not is_discriminator:
        adam = open_schedule_free(parameters, rate, betas, optimizer.weight_decay)
    else:
        adam = torch.optim.AdamW(
            parameters,
            lr=torch.tensor(rate, device=device) if on_cuda else rate,  # a tensor, since CUDA graphs record numbers
            betas=betas,
            weight_decay=optimizer.weight_decay,
            fused=on_cuda or device.type == "cpu",
            capturable=on_cuda,
        )
        # PyTorch warns about steps of a capturable optimizer outside of a graph; the first steps of a run are.
        adam._warned_capturable_if_run_uncaptured = True
    # The rate of each step is a fraction of this one, which schedules must not lose.
    adam.param_groups[0]["full_rate"] = rate
    scales = compute.precision == "fp16"
    # PyTorch's default scale, 2¹⁶, makes more of the first steps overflow, which are then skipped.
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**14, enabled=scales)
    trainable = TrainableNetwork(network, compiled, fabric.setup_module(compiled), adam, scaler, clip, scales, kernels)
    trainable.skipped = trainable.skipped.to(device)
    return trainable


def _optimizer_values(
    optimizer: OptimizerConfig, is_discriminator: bool
) -> tuple[float, tuple[float, float], float | None]:
    """Full rate, betas and clipping norm of a network."""
    if not is_discriminator:
        return optimizer.lr, optimizer.betas, optimizer.clip_norm
    rate, betas = optimizer.lr_discriminator or optimizer.lr, optimizer.betas_discriminator or optimizer.betas
    return rate, betas, optimizer.clip_norm_discriminator


def set_optimizer(network: TrainableNetwork, config: TrainConfig, *, is_discriminator: bool) -> None:
    """Give a network the full rates, betas, decay and clipping of a config. What the optimizer has averaged stays."""
    rate, betas, network.clip_norm = _optimizer_values(config.optimizer, is_discriminator)
    for group in network.optimizer.param_groups:
        group |= {"full_rate": rate, "betas": betas, "weight_decay": config.optimizer.weight_decay}
    if network.kernels is not None:
        for group in network.kernels.optimizer.param_groups:
            group |= {"full_rate": config.optimizer.lr_kernels, "weight_decay": config.optimizer.weight_decay}


def set_learning_rates(
    g: TrainableNetwork, d: TrainableNetwork | None, config: OptimizerConfig, step: int, total: int, from_init: bool
) -> None:
    """Set the learning rates of a step. They follow from its number, so there is no scheduler state to save.

    Args:
        g: the generator.
        d: the discriminator, or None.
        config: schedule and warm-up.
        step: from 0.
        total: steps of the run. The schedule leaves out a schedule-free G.
        from_init: the run started from `init`, so there is a warm-up even if the config has none.
    """
    warmup = config.warmup_steps or (_INIT_WARMUP_STEPS if from_init else 0)
    warm = min(1.0, (step + 1) / warmup) if warmup else 1.0
    progress = step / total
    scheduled = warm
    if config.schedule == "cosine":
        scheduled *= 0.5 * (1 + math.cos(math.pi * progress))
    elif config.schedule == "linear":
        scheduled *= min(1.0, 2 * (1 - progress))
    for network in (g, d):
        if network is not None:
            factor = warm if is_schedule_free(network.optimizer) else scheduled
            for group in network.param_groups:
                group["rate"] = group["full_rate"] * factor
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(group["rate"])
                else:
                    group["lr"] = group["rate"]


def open_damage(config: TrainConfig) -> Degradation | None:
    """The degradation of clean images, by name or from its steps; None for real pairs."""
    if config.damage is None:
        return None
    degradation = degradation_from(config.damage, "damage")
    if config.out is not None and RunFolder.cpu_jpeg(config.out) == "tensor":
        return degradation.with_tensor_jpeg()
    return degradation


def open_data(
    config: TrainConfig, generator: RestorationNetwork, device: torch.device, on_event: Callable[[str], None]
) -> tuple[Source, list[Batch]]:
    """Find the images: the source of training batches, and the validation batches.

    Raises:
        RestoreError: as `open_source`; the damage has other files than when the run began; or it leaves no mask, and
            the task is detection or the network sees one.
    """
    damage = open_damage(config)
    if damage is not None and damage.fingerprint != _expected_damage_files(config, damage):
        raise RestoreError(
            "this run started with other masks or shapes in the folders of its damage",
            where=f"damage = {damage.name}",
            hint="use another out=, or the same files; to change them on purpose, set resume.allow=[damage]",
        )
    if damage is not None and damage.needs_names:
        raise RestoreError(
            "paired masks are cropped with their images", where="damage: masks", hint="set data.masks to their folder"
        )
    has_mask = damage is not None and damage.has_mask and not config.data.is_unpaired
    if generator.takes_mask and config.data.masks is None and not has_mask:
        source = "real pairs have none" if damage is None else f"damage = {damage.name} leaves none"
        raise RestoreError(
            f"this network sees a mask and changes what it covers alone, but {source}, so it could learn nothing",
            where="model.args.mask = true",
            hint="set model.args.mask=false",
        )
    if config.task == "detection" and config.data.masks is None and damage is not None and not damage.has_mask:
        raise RestoreError(
            "leaves no mask, so there is nothing to detect",
            where=f"damage = {damage.name}",
            hint="add a step that does, such as scratch, hair or dust",
        )
    how: dict[str, Any] = {
        "multiple": generator.multiple * generator.scale,
        "minimum": generator.smallest_side * generator.scale,
        "device": device,
        "on_event": on_event,
        "processes": config.devices,
        "rules": RULES if config.out is None else RunFolder.data_rules(config.out),
        "expected": _expected_images(config),
        "largest_patch": max(values.data.patch for values in config.stage_configs()),
    }
    if config.data.is_unpaired:
        return open_unpaired(config.data, damage, **how)
    return open_source(config.data, damage, shrink=generator.scale, **how)


def _expected_images(config: TrainConfig) -> str | None:
    """The fingerprint of the images that the run in the folder began with; None if any are right."""
    if config.out is None or _allows_other_images(config):
        return None
    found = RunFolder.facts(config.out).get("pictures")  # the key of states that exist already
    return None if found is None else str(found)


def _expected_damage_files(config: TrainConfig, damage: Degradation) -> str:
    """The fingerprint of the files that the run in the folder began with; that of `damage` if any are right."""
    if config.out is None or any(is_within(key, ("damage",)) for key in config.resume.allow):
        return damage.fingerprint
    found = RunFolder.facts(config.out).get("damage_files")  # earlier versions did not save it
    return damage.fingerprint if found is None else str(found)


def _allows_other_images(config: TrainConfig) -> bool:
    return any(is_within(key, config.resume.allow) for key in IMAGE_KEYS)


def make_step_context(
    config: TrainConfig, fabric: Fabric, precision: str, generator: RestorationNetwork
) -> StepContext:
    """What all steps of a run share, with the perceptual loss if the config has one.

    Raises:
        RestoreError: the weights of the perceptual loss's backbone cannot be read or downloaded.
    """
    loss = config.loss
    perceptual = None
    if loss.perceptual != "none":
        perceptual = PerceptualLoss(loss.perceptual, loss.perceptual_net, loss.perceptual_weights, fabric.device)
    return StepContext(
        fabric,
        loss,
        precision,
        generator.takes_mask,
        config.discriminator.augment,
        perceptual,
        config.task,
        config.data.is_linear,
    )


def to_save(model: RestorationNetwork, validation: list[Batch]) -> dict[str, tuple[RestorationNetwork, list[Batch]]]:
    """The networks to save for use, each with its validation images, by the names of their files; the main one last."""
    if isinstance(model, ContrastiveGenerator):
        return {BEST: (model.a, validation)}
    if not isinstance(model, GeneratorPair):
        return {BEST: (model, validation)}
    reverse = [replace(batch, damaged=batch.clean, clean=batch.damaged) for batch in validation]
    return {BACK: (model.b, reverse), BEST: (model.a, validation)}


def describe(
    config: TrainConfig, model: RestorationNetwork, validation: list[Batch], scores: dict[str, float]
) -> Description:
    """The description in the weights file. The overlap of tiles is measured on the widest validation image."""
    if config.task == "generation":
        return Description(
            builder=config.model.builder,
            args=generator_args(config),
            purpose=config.model.purpose or "draws images from noise",
            needs_mask=False,
            channels=None if config.data.image_channels == 3 else 1,
            draws=list(config.data.classes),
        )
    widest = max(validation, key=lambda b: b.clean.shape[-1])
    image, mask = widest.seen.float(), widest.mask if model.takes_mask else None
    shown = [in_srgb(batch) for batch in validation] if config.data.is_linear else validation
    finds: DetectorSettings | None = None
    if config.task == "detection":
        finds = DetectorSettings(threshold=scores["threshold"], margin_px=MARGIN_PX)
    return Description(
        builder=config.model.builder,
        args=generator_args(config),
        purpose=config.model.purpose or f"trained on {_training_damage(config)}",
        needs_mask=model.takes_mask,
        channels=None if config.data.image_channels == 3 else config.data.image_channels,
        transfer="linear" if config.data.is_linear else None,
        float_range=config.data.float_range,
        conditions=[
            ConditionSettings(name=kind.name, channels=kind.channels, value_range=kind.value_range)
            for kind in (condition.kind for condition in config.data.conditions)
        ]
        or None,
        multiple=model.multiple,
        minimum=model.minimum,
        scale=model.scale,
        overlap_px=model.measure_overlap_px(image, mask, *([from_linear] if config.data.is_linear else [])),
        adds_color=(config.task == "restoration" and adds_color(shown)) or None,
        finds=finds,
    )


def adds_color(validation: list[Batch]) -> bool:
    """Whether a network learns to add color: no damaged image has any, and most of the clean ones do."""

    def has_color(images: Tensor) -> bool:
        return bool((images.amax(dim=1) - images.amin(dim=1)).max() > NEUTRAL)

    colored = sum(has_color(batch.clean) for batch in validation)
    return 2 * colored > len(validation) and not any(has_color(batch.damaged) for batch in validation)


def _training_damage(config: TrainConfig) -> str:
    if config.data.is_unpaired:
        return "images without pairs"
    if GENERATORS[config.model.builder].enlarges and config.damage is None:
        return "images made smaller"
    if config.damage is None:
        return "masks of its own" if config.data.folders else "pairs"
    return config.damage if isinstance(config.damage, str) else "damage of its own"
