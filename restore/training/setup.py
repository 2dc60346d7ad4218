"""What a run is made of, put together from its config."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from restore.checkpoints import (
    Description,
    DetectorSettings,
    find_weights,
    load_strictly,
    read_torch_state,
    read_weights,
)
from restore.data.build import open_source
from restore.data.loader import Batch, Source
from restore.degradations import Degradation, degradation_from
from restore.devices import pick_device, pick_precision
from restore.errors import RestoreError
from restore.losses.perceptual import PerceptualLoss
from restore.models import build_discriminator, build_generator
from restore.models.network import RestorationNetwork
from restore.models.patchgan import init_weights
from restore.models.pix2pix import pix2pix_from_state_dict
from restore.models.receptive_field import measure_reach_px
from restore.training.config import OptimizerConfig, TrainConfig, generator_args
from restore.training.run_dir import RunFolder
from restore.training.step import TrainableNetwork
from restore.training.validation import MARGIN_PX

_INIT_WARMUP_STEPS = 100  # a fresh optimizer knows nothing of good weights: it takes them in gently
_HANG_MINUTES = 10


def open_fabric(config: TrainConfig) -> Fabric:
    """The devices of a run, and how they talk to each other.

    Raises:
        RestoreError: no such device, or fewer than asked for.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # what it tells of devices, this package settles
    device = pick_device(config.device)
    processes = config.devices * config.nodes
    if device.type == "cuda" and config.devices > torch.cuda.device_count():
        raise RestoreError(
            f"{torch.cuda.device_count()} CUDA device(s) found", where=f"devices = {config.devices}", hint="lower it"
        )
    if device.type == "cuda" and device.index and config.devices > 1:
        raise RestoreError("several devices are counted from the first", where=f"device = {config.device}", hint="cuda")
    if device.type == "mps" and processes > 1:
        raise RestoreError("MPS has one device", where=f"devices = {config.devices}", hint="lower it")
    # Buffers stay each process's own: what is sent in the middle of a step would break the second pass through D.
    strategy: Any = (
        DDPStrategy(broadcast_buffers=False, timeout=timedelta(minutes=_HANG_MINUTES)) if processes > 1 else "auto"
    )
    which: Any = [device.index or 0] if device.type == "cuda" and processes == 1 else config.devices
    return Fabric(accelerator=device.type, devices=which, num_nodes=config.nodes, strategy=strategy)


def settle_precision(config: TrainConfig, device: torch.device) -> str:
    """`fp32`, `bf16` or `fp16` for autocast; tells an NVIDIA GPU whether float32 products may use TF32.

    Raises:
        RestoreError: a precision that the device does not have.
    """
    if config.precision == "tf32" and device.type != "cuda":
        raise RestoreError("only NVIDIA GPUs have it", where="precision = tf32", hint="use auto")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
        torch.backends.cudnn.benchmark = True  # batches are all of one size
    return "fp32" if config.precision == "tf32" else pick_precision(config.precision, device)


def build_networks(config: TrainConfig, *, begins: bool = True) -> tuple[RestorationNetwork, nn.Module | None]:
    """G, and D where one plays. Only weights start from torch's generator, seeded here.

    Args:
        config: names them.
        begins: False where a saved state is to fill them: `init` is then no longer needed.

    Raises:
        RestoreError: arguments that do not build, `init` weights that do not fit, or a patch too small for a network.
    """
    torch.manual_seed(config.seed)
    generator = build_generator(config.model.builder, generator_args(config), where="model")
    generator.init_for_training()
    if config.init is not None and begins:
        path = find_weights(config.init)
        load_strictly(generator, with_mask_channel(read_initial(path), generator), path)
    if config.data.patch % generator.multiple:
        raise RestoreError(
            f"must be a multiple of {generator.multiple} for this model", where=f"data.patch = {config.data.patch}"
        )
    if config.data.patch < generator.smallest_side:
        raise RestoreError(
            f"must be at least {generator.smallest_side} for this model", where=f"data.patch = {config.data.patch}"
        )
    if config.loss.adversarial == "none":
        return generator, None
    channels = 7 if generator.takes_mask else 6
    args = {**config.discriminator.args, "in_channels": channels}
    discriminator = build_discriminator(config.discriminator.builder, args, where="discriminator")
    init_weights(discriminator)
    _refuse_small_patch(discriminator, channels, config.data.patch, generator.multiple)
    if config.loss.adversarial == "wgan-gp" and config.discriminator.args.get("norm", "batch") == "batch":
        raise RestoreError(
            "wgan-gp looks at one picture at a time", where="discriminator.args.norm = batch", hint="set it to none"
        )
    return generator, discriminator


def read_initial(path: Path) -> dict[str, Tensor]:
    """The weights that `init` names: this package's, or a published pix2pix `*_net_G.pth`."""
    if path.suffix.lower() in (".pth", ".pt"):
        return pix2pix_from_state_dict(read_torch_state(path), path).state_dict()
    return read_weights(path)[1]


def _refuse_small_patch(discriminator: nn.Module, channels: int, patch: int, multiple: int) -> None:
    judge = copy.deepcopy(discriminator).eval().to("meta")

    def judges(side: int) -> bool:
        try:
            judge(torch.empty(1, channels, side, side, device="meta"))
        except RuntimeError:  # a layer would have no output
            return False
        return True

    if judges(patch):
        return
    enough = next((side for side in range(patch, 4097, multiple) if judges(side)), None)
    hint = f"{enough} is enough, or set discriminator.args.n_layers lower"
    raise RestoreError("too small for this discriminator", where=f"data.patch = {patch}", hint=hint)


def with_mask_channel(state: dict[str, Tensor], generator: RestorationNetwork) -> dict[str, Tensor]:
    """Weights of a U-Net without a mask, fit for one with: the new input channel counts for nothing yet.

    What a network learned of pictures while cleaning them helps when it is to fill holes.
    """
    head = state.get("head.weight")
    own = generator.state_dict().get("head.weight")
    if head is None or own is None or own.shape[1] != head.shape[1] + 1 or not generator.takes_mask:
        return state
    return {**state, "head.weight": torch.cat([head, torch.zeros_like(head[:, :1])], dim=1)}


def make_player(
    network: nn.Module, fabric: Fabric, config: TrainConfig, precision: str, *, is_discriminator: bool
) -> TrainableNetwork:
    """A network on its device, with its optimizer and scaler, compiled and spread as the config says."""
    optimizer = config.optimizer
    device = fabric.device
    # channels_last is what half precision and tensor cores want; in fp32 on a CPU it is slower.
    fast = device.type == "cuda" or precision in ("bf16", "fp16")
    network.to(device).to(memory_format=torch.channels_last if fast else torch.contiguous_format)
    rate, betas, clip = optimizer.lr, optimizer.betas, optimizer.clip_norm
    if is_discriminator:
        rate = optimizer.lr_discriminator or rate
        betas = optimizer.betas_discriminator or betas
        clip = optimizer.clip_norm_discriminator
    bare: Any = torch.compile(network) if config.compile else network
    on_cuda = device.type == "cuda"  # where a step may be recorded, its rate must be read from the device
    descent = torch.optim.AdamW(
        network.parameters(),
        lr=torch.tensor(rate, device=device) if on_cuda else rate,
        betas=betas,
        weight_decay=optimizer.weight_decay,
        fused=on_cuda or device.type == "cpu",
        capturable=on_cuda,
    )
    descent._warned_capturable_if_run_uncaptured = True  # the first steps are not
    descent.param_groups[0]["full_rate"] = rate
    scales = precision == "fp16"
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**14, enabled=scales)
    player = TrainableNetwork(network, bare, fabric.setup_module(bare), descent, scaler, clip, scales)
    player.skipped = player.skipped.to(device)
    return player


def set_rates(
    g: TrainableNetwork, d: TrainableNetwork | None, config: OptimizerConfig, step: int, total: int, fresh: bool
) -> None:
    """The learning rates of a step: a function of its number, so there is no schedule to save.

    Args:
        g, d: whose rates to set.
        config: schedule and warm-up.
        step: from 0.
        total: steps of the run.
        fresh: weights came from `init`, so that there is a warm-up even where the config has none.
    """
    warmup = config.warmup_steps or (_INIT_WARMUP_STEPS if fresh else 0)
    factor = min(1.0, (step + 1) / warmup) if warmup else 1.0
    share = step / total
    if config.schedule == "cosine":
        factor *= 0.5 * (1 + math.cos(math.pi * share))
    elif config.schedule == "linear":
        factor *= min(1.0, 2 * (1 - share))
    for one in (g, d):
        if one is not None:
            for group in one.optimizer.param_groups:
                group["rate"] = group["full_rate"] * factor
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(group["rate"])
                else:
                    group["lr"] = group["rate"]


def open_damage(config: TrainConfig) -> Degradation | None:
    """The damage that a config names or spells out; None for real pairs."""
    if config.damage is None:
        return None
    degradation = degradation_from(config.damage, "damage")
    if config.out is not None and RunFolder.cpu_jpeg(config.out) == "tensor":
        return degradation.with_tensor_jpeg()
    return degradation


def open_perceptual(config: TrainConfig, device: torch.device) -> PerceptualLoss | None:
    """The perceptual loss, if the config asks for one.

    Raises:
        RestoreError: its backbone cannot be had.
    """
    loss = config.loss
    if loss.perceptual == "none":
        return None
    return PerceptualLoss(loss.perceptual, loss.perceptual_net, loss.perceptual_weights, device)


def describe(
    config: TrainConfig, model: RestorationNetwork, validation: list[Batch], scores: dict[str, float]
) -> Description:
    """What the weights file says of itself; how far the network sees is measured on a validation picture."""
    widest = max(validation, key=lambda b: b.clean.shape[-1])
    image, mask = widest.damaged.float(), widest.mask if model.takes_mask else None
    finds: DetectorSettings | None = None
    if config.task == "detection":
        finds = DetectorSettings(threshold=scores["threshold"], margin_px=MARGIN_PX)
        # Differences of logits mean nothing where the probability is near 0 or 1.
        overlap_px = measure_reach_px(lambda image, mask: model(image).sigmoid(), image, None)
    else:
        overlap_px = model.measure_overlap_px(image, mask)
    return Description(
        builder=config.model.builder,
        args=generator_args(config),
        purpose=config.model.purpose or f"trained on {config.damage if isinstance(config.damage, str) else 'pairs'}",
        needs_mask=model.takes_mask,
        multiple=model.multiple,
        minimum=model.minimum,
        overlap_px=overlap_px,
        finds=finds,
    )


def open_data(
    config: TrainConfig, generator: RestorationNetwork, device: torch.device, on_event: Callable[[str], None]
) -> tuple[Source, list[Batch]]:
    """Find the pictures: the source of training batches, and the validation batches.

    Raises:
        RestoreError: they cannot be had; or masks are to be learned of a damage that leaves none.
    """
    damage = open_damage(config)
    if config.task == "detection" and damage is not None and not damage.has_mask:
        raise RestoreError(
            "it leaves no mask: there is nothing to find",
            where=f"damage = {damage.name}",
            hint="add a step that does, such as scratch, hair or dust",
        )
    return open_source(
        config.data,
        damage,
        multiple=generator.multiple,
        minimum=generator.smallest_side,
        device=device,
        on_event=on_event,
        processes=config.devices,
    )
