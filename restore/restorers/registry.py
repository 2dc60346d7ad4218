"""A model's name, file or folder -> a restorer. Each kind is imported only when one is opened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from restore.checkpoints import (
    find_weights,
    is_described,
    is_path,
    load_generator,
    named_weights,
    read_description,
    read_tensors,
    read_torch_file,
    read_torch_state,
    shipped_weights,
)
from restore.devices import pick_device, pick_devices
from restore.engines.check import Network
from restore.engines.choice import OnEvent, only_torch, open_runner, settle_precision
from restore.errors import RestoreError, did_you_mean
from restore.models.base import RestorationNetwork
from restore.models.dcgan import SampleNetwork
from restore.restorers.base import ModelRequirements, Restorer

#: Methods without weights: `restore.restorers.classical.CLASSICAL`, whose libraries take seconds to import.
CLASSICAL_NAMES = (
    "telea", "navier-stokes", "biharmonic", "nlmeans", "tv", "deblur",
    "bicubic-x2", "bicubic-x4", "lanczos-x2", "lanczos-x4",
)  # fmt: skip

#: Suffixes of the files that torch.save writes.
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt")
ONNX_SUFFIX = ".onnx"


@dataclass(frozen=True)
class ModelSpec:
    """A model as the user names it.

    Attributes:
        name: what logs and reports call it.
        source: a shipped model, a classical method, a weights file, or the folder of a training run.
    """

    name: str
    source: str

    @property
    def label(self) -> str:
        """The name for a table: of a file without folders and suffix."""
        return Path(self.name).stem if is_path(self.name) else self.name


@dataclass(frozen=True)
class ModelInfo:
    """A line of `restore models`.

    Attributes:
        name: of a shipped or fetched model, or a classical method.
        purpose: one line.
        needs_mask: it fills holes.
        size_mb: of its weights; None for classical methods.
        finds: it is a detector.
    """

    name: str
    purpose: str
    needs_mask: bool
    size_mb: float | None
    finds: bool = False


def parse_model(text: str) -> ModelSpec:
    """What `--model` means: `NAME`, `PATH` or `NAME=PATH`.

    A run's folder, and the `best.safetensors` in it, go by the run's name; any other file by its path.
    """
    named = re.fullmatch(r"([^=/\\]+)=(.+)", text)
    if named and not Path(text).exists():
        return ModelSpec(named[1], named[2])
    if not is_path(text) or text in shipped_weights():
        return ModelSpec(text, text)
    path = Path(text)
    is_run_weights = path.name == "best.safetensors" and (path.parent / "config.yaml").is_file()
    run = path if path.is_dir() else path.parent if is_run_weights else None
    return ModelSpec(text if run is None else run.resolve().name, text)


def open_restorer(
    name_or_path: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    on_event: OnEvent = lambda line: None,
    args: Sequence[str] = (),
) -> Restorer:
    """Open a restorer of any kind: a shipped model, a classical method, or a weights file.

    Args:
        name_or_path: a name of `restore models`; a path: `.safetensors` of this package, a `.pth` of pix2pix or
            CycleGAN, with spandrel installed any state dict it knows (`.safetensors`, `.pth`, `.pt`, `.ckpt`), with
            onnxruntime an `.onnx` file, or the folder of a training run; or `NAME=PATH`, which sets its name.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `auto`, `fp32`, `bf16` or `fp16`; an ONNX file has its own.
        engine: what runs the network on a CPU: `torch`, `openvino`, `onnx`, or `auto`, the fastest that is installed
            and gives what PyTorch gives. Networks of other projects, and all on GPUs, are run by PyTorch; ONNX files
            by OpenVINO or onnxruntime, those of other projects by onnxruntime.
        on_event: called with a line when a network is prepared for an engine, which happens once, and if the fastest
            engine cannot run it.
        args: `KEY=VALUE`: what another project's ONNX file does not say, such as `range=0,255`.

    Raises:
        RestoreError: no such model, device, precision or engine; the file cannot be read, or holds a detector; `args`
            are given for another kind of model.
    """
    spec = parse_model(name_or_path)
    place = pick_device(device_for(spec, device))
    precision = settle_precision(engine, precision, place)
    if args and not is_onnx(spec):
        raise RestoreError("only applies to ONNX files", where="--model-args", hint="leave it out")
    if spec.source in CLASSICAL_NAMES:
        from restore.restorers.classical import CLASSICAL

        restorer = CLASSICAL[spec.source]()
        restorer.name = spec.name
        return restorer
    if not is_path(spec.source) and spec.source not in named_weights():
        known = [info.name for info in list_restorers() if not info.finds]
        raise _no_such_model(spec.source, known, "; the path of a file or folder contains a slash")
    return _open_file(spec.name, find_weights(spec.source), place, precision, engine, on_event, args)


def open_restorers(
    name_or_path: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    on_event: OnEvent = lambda line: None,
    args: Sequence[str] = (),
) -> list[Restorer]:
    """`open_restorer` once for every device, for images that they share.

    Args:
        name_or_path, precision, engine, on_event, args: as for `open_restorer`.
        device: likewise, or several: `cuda:0,cuda:1`, `cuda:all` (see `pick_devices`).

    Raises:
        RestoreError: as `open_restorer` and `pick_devices`; `auto` picks different precisions for the devices.
    """
    places = pick_devices(device_for(parse_model(name_or_path), device))
    precisions = {settle_precision(engine, precision, place) for place in places}
    if len(precisions) > 1:
        raise RestoreError(
            f"these devices are fastest in different precisions ({', '.join(sorted(precisions))})",
            where=f"device {device}",
            hint="choose one with --precision",
        )
    how: dict[str, Any] = {"precision": precision, "engine": engine, "on_event": on_event, "args": args}
    return [open_restorer(name_or_path, device=str(place), **how) for place in places]


def is_onnx(spec: ModelSpec) -> bool:
    """Whether its source is an ONNX file."""
    return spec.source.lower().endswith(ONNX_SUFFIX)


def device_for(spec: ModelSpec, device: str) -> str:
    """`auto` as the kind of file means it: ONNX files run on the CPU alone."""
    return "cpu" if device == "auto" and is_onnx(spec) else device


def list_restorers() -> list[ModelInfo]:
    """Everything that has a name: shipped and fetched weights, with the detectors, then the classical methods."""
    from restore.restorers.classical import CLASSICAL

    infos = []
    for name, path in named_weights().items():
        size_mb = path.stat().st_size / 1e6
        try:
            described = is_described(path)
        except RestoreError as error:  # a fetched file that was changed
            infos.append(ModelInfo(name, error.what, False, size_mb))
            continue
        if not described:
            infos.append(ModelInfo(name, "another project's network", False, size_mb))
            continue
        description = read_description(path)
        fills = description.needs_mask or description.draws is not None
        infos.append(ModelInfo(name, description.purpose, fills, size_mb, description.finds is not None))
    for name, method in CLASSICAL.items():
        infos.append(ModelInfo(name, method.purpose, method.requirements.needs_mask, None))
    return infos


def _no_such_model(name: str, known: list[str], hint: str = "") -> RestoreError:
    return RestoreError(f"no model is called {name!r}", hint=did_you_mean(name, known) + hint)


def _open_file(
    name: str,
    path: Path,
    device: torch.device,
    precision: str,
    engine: str,
    on_event: OnEvent,
    args: Sequence[str],
) -> Restorer:
    """Open weights by their content: a description, the names of pix2pix or CycleGAN, or else by spandrel."""
    from restore.restorers.network import sha256_of

    suffix = path.suffix.lower()
    if suffix == ONNX_SUFFIX:
        from restore.restorers.onnx_file import open_onnx

        return open_onnx(
            name, path, device, sha256_of(path), args, precision=precision, engine=engine, on_event=on_event
        )
    if suffix not in (".safetensors", *TORCH_SUFFIXES):
        raise RestoreError(
            f"weights end with .safetensors, {ONNX_SUFFIX}, {', '.join(TORCH_SUFFIXES)}, not {path.suffix!r}",
            where=path,
            hint="other formats can hold code, or are not supported",
        )
    if suffix == ".safetensors":
        if is_described(path):
            return _open_described(name, path, device, precision, engine, on_event)
        state: dict[Any, Any] = read_tensors(path)
    else:
        from restore.models.pix2pix import looks_like_pix2pix, pix2pix_from_state_dict
        from restore.models.resnet import looks_like_resnet, resnet_from_state_dict

        state = read_torch_file(path)
        if looks_like_pix2pix(state) or looks_like_resnet(state):
            only_torch(engine, name)
            plain = read_torch_state(path)
            if looks_like_pix2pix(plain):
                return _open_published(name, path, pix2pix_from_state_dict(plain, path), "pix2pix", device, precision)
            return _open_published(name, path, resnet_from_state_dict(plain, path), "CycleGAN", device, precision)
    from restore.restorers.spandrel import open_foreign

    only_torch(engine, name)
    return open_foreign(name, path, state, device, precision, sha256_of(path))


def _open_described(
    name: str, path: Path, device: torch.device, precision: str, engine: str, on_event: OnEvent
) -> Restorer:
    """A network of this package; one that takes a mask, and no condition images, synthesizes texture in deep holes."""
    from restore.restorers.network import NetworkRestorer, requirements_of, sha256_of

    model, description = load_generator(path)
    if description.finds is not None:
        raise RestoreError(
            f"{name} is a detector, not a restorer",
            hint="`restore detect` writes its masks, and `restore fix --masks` repairs by them",
        )
    sha256 = sha256_of(path)
    if isinstance(model, SampleNetwork):
        from restore.restorers.latent_prior import open_latent_prior

        only_torch(engine, name)
        return open_latent_prior(name, path, model, device, sha256, on_event)
    runner = open_runner(
        Network(name, model, description.channels or 3, False, sha256), device, precision, engine, on_event
    )
    network = NetworkRestorer(
        name, model, requirements_of(description, model), description.purpose, device, precision, sha256, runner
    )
    if not description.needs_mask or description.conditions:
        return network
    from restore.restorers.hybrid_inpainting import HybridInpainter

    return HybridInpainter(network)


def _open_published(
    name: str, path: Path, model: RestorationNetwork, project: str, device: torch.device, precision: str
) -> Restorer:
    from restore.restorers.network import NetworkRestorer, sha256_of

    # Nothing is known of its training. As in the original code, the output is what the network makes of the image.
    requirements = ModelRequirements(
        needs_mask=False, multiple=model.multiple, minimum=model.minimum, tileable=model.tileable, adds_color=True
    )
    purpose = f"published {project} generator"
    return NetworkRestorer(name, model, requirements, purpose, device, precision, sha256_of(path))
