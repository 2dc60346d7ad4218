"""The weights that a run starts from (`init`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from restore.checkpoints import (
    BACK,
    BEST,
    find_weights,
    is_described,
    read_state,
    read_state_facts,
    read_tensors,
    read_torch_file,
    read_weights,
    shipped_weights,
)
from restore.errors import RestoreError
from restore.models.base import RestorationNetwork
from restore.models.contrastive import ContrastiveGenerator
from restore.models.cycle import GeneratorPair
from restore.models.pix2pix import Pix2Pix, pix2pix_from_state_dict
from restore.models.resnet import ResNet, looks_like_resnet, resnet_from_state_dict

_STATE = "state.safetensors"
# What training code wraps around a state dict, best first: averaged weights come before the latest ones.
WRAPPERS = ("params_ema", "ema", "params", "state_dict", "model_state_dict", "model", "generator", "netG", "net_g")


def find_initial(name_or_path: str) -> Path:
    """The file that `init` means.

    Args:
        name_or_path: the name of a shipped model; or a file, the folder of a run (its `best.safetensors`, or its last
            state if there is none yet), a run's `last/`, or a folder with pix2pix's `latest_net_G.pth`.

    Raises:
        RestoreError: there is no such model, file or folder, or the folder holds no weights.
    """
    path = Path(name_or_path)
    if name_or_path in shipped_weights() or not path.exists():
        return find_weights(name_or_path)
    if path.is_file():
        return path
    files = (path / BEST, path / "last" / _STATE, path / _STATE, path / "latest_net_G.pth", path / "latest_net_G_A.pth")
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise RestoreError(
            "holds no weights: no best.safetensors, no state in last/, and no latest_net_G.pth or latest_net_G_A.pth",
            where=path,
            hint="name the folder of a run, its last/, a folder of pix2pix, or a file",
        )
    return found


def read_initial(path: Path, generator: RestorationNetwork) -> dict[str, Tensor]:
    """Read weights for a generator.

    Args:
        path: a weights file; a state of a run, of which the averaged weights are read; a `.pth`, `.pt` or `.ckpt` with
            a state dict of this network, alone or among other values; or a published pix2pix `*_net_G.pth`. For a
            `GeneratorPair`, the file of the way back lies beside it. A `ContrastiveGenerator` keeps its MLPs,
            unless the file is a state.
        generator: the network that they are for; not changed.

    Raises:
        RestoreError: the file cannot be read, or has no weights with the names of this network.
    """
    if isinstance(generator, GeneratorPair) and path.name != _STATE:
        return read_both(path, lambda file: read_initial(file, generator.a))
    if isinstance(generator, ContrastiveGenerator) and path.name != _STATE:
        mlps = {k: v for k, v in generator.state_dict().items() if not k.startswith("a.")}
        return mlps | {f"a.{k}": v for k, v in read_initial(path, generator.a).items()}
    if path.suffix.lower() in (".pth", ".pt", ".ckpt"):
        return _from_torch_file(read_torch_file(path), path, generator)
    if not is_described(path):
        return _with_names_of(generator, read_tensors(path), path)
    if "builder" not in read_state_facts(path):  # not a weights file, but the state of a run
        return {k.removeprefix("ema."): v for k, v in read_state(path)[0].items() if k.startswith("ema.")}
    return read_weights(path)[1]


def read_both(path: Path, read: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of both directions, under `a.` and `b.`, from the file of the one and the one that lies beside it.

    `path` is the best weights of an unpaired run; or `NAME_A.pth` of CycleGAN, beside which lies `NAME_B.pth`. Raises
    RestoreError if there is no file of the way back.
    """
    stem = path.stem.removesuffix("_A")
    back = path.with_name(BACK if path.name == BEST else f"{stem}_B{path.suffix}")
    if not back.is_file():
        what = f"holds one direction, and there is no {back.name} beside it for the way back"
        raise RestoreError(what, where=path, hint="name the folder of an unpaired run, or of CycleGAN's files")
    return {f"{name}.{k}": v for name, file in (("a", path), ("b", back)) for k, v in read(file).items()}


def _from_torch_file(content: Mapping[Any, Any], path: Path, generator: RestorationNetwork) -> dict[str, Tensor]:
    for name in WRAPPERS:
        inner = content.get(name)
        if isinstance(inner, Mapping) and inner:
            content = inner
            break
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise RestoreError("this file holds no state dict of tensors", where=path)
    if isinstance(generator, Pix2Pix) and path.suffix.lower() != ".ckpt":
        return dict(pix2pix_from_state_dict(tensors, path).state_dict())
    if isinstance(generator, ResNet) and looks_like_resnet(tensors):
        return dict(resnet_from_state_dict(tensors, path).state_dict())
    return _with_names_of(generator, tensors, path)


def _with_names_of(generator: RestorationNetwork, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors under the network's names. A common prefix, such as `module.` or `generator.`, is removed.

    Other tensors of the file, such as those of a discriminator, are left out.
    """
    own = generator.state_dict().keys()
    first = next(iter(own))
    prefixes = sorted({name[: -len(first)] for name in tensors if name.endswith(first)}, key=len)
    for prefix in prefixes:
        found = {name[len(prefix) :]: v for name, v in tensors.items() if name.startswith(prefix)}
        if prefix:
            found = {name: v for name, v in found.items() if name in own}
        if found.keys() >= own:
            return {name: v.float() if v.is_floating_point() else v for name, v in found.items()}
    # A network with other names is refused with the names that differ.
    return dict(tensors)
