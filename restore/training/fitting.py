"""Weights for D to start from, and weights of other networks, of which only a part fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from restore.checkpoints import is_described, load_strictly, read_state_facts, read_tensors, read_torch_file
from restore.errors import RestoreError
from restore.models.cycle import DiscriminatorPair
from restore.models.patchgan import settle_spectral_norm
from restore.training.initial import WRAPPERS, read_both

_STATE = "state.safetensors"
_PUBLISHED_D, _PUBLISHED_D_A = "latest_net_D.pth", "latest_net_D_A.pth"
_SPECTRAL = "parametrizations.weight.original"
_D_WRAPPERS = ("params", "state_dict", "model_state_dict", "discriminator", "netD", "net_d", "D")


@dataclass(frozen=True)
class Fit:
    """Which tensors of a file fit a network.

    Attributes:
        state: by the network's names.
        missing: names of the network's weights that the file lacks, or has in another shape.
        unused: names in the file that the network has no place for.
        by_order: the names differ, so tensors were matched by their order and shape.
    """

    state: dict[str, Tensor]
    missing: list[str]
    unused: list[str]
    by_order: bool

    def describe(self, network: nn.Module) -> str:
        """One line: how much fits, and what does not."""
        own = _weights(network)
        values = sum(own[name].numel() for name in own if name in self.state)
        share = values / sum(tensor.numel() for tensor in own.values())
        line = f"{len(own) - len(self.missing)} of {len(own)} tensors, {share:.0%} of the values"
        if self.by_order:
            line += ", by order and shape, because the names differ"
        if self.missing:
            line += f"; drawn at random: {_first_few(self.missing)}"
        if self.unused:
            line += f"; not used: {_first_few(self.unused)}"
        return line


def find_discriminator(name: str) -> Path:
    """The file that `discriminator.init` means.

    Args:
        name: the folder of a run, its `last/`, a state of a run, a folder with pix2pix's `latest_net_D.pth` or
            CycleGAN's `latest_net_D_A.pth`, or a file.

    Raises:
        RestoreError: there is no such file or folder, or the folder has no discriminator.
    """
    path = Path(name)
    if path.is_file():
        return path
    if not path.is_dir():
        raise RestoreError("there is no such file or folder", where=f"discriminator.init = {name}")
    files = (path / "last" / _STATE, path / _STATE, path / _PUBLISHED_D, path / _PUBLISHED_D_A)
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise RestoreError(
            f"holds no discriminator: no state in last/, and no {_PUBLISHED_D}",
            where=path,
            hint="name the folder of a run, of pix2pix's checkpoints, or a file",
        )
    return found


def read_any(path: Path, part: str) -> dict[str, Tensor]:
    """The tensors of G or D in a file of any project, under its own names, float32.

    Args:
        path: `.safetensors`, `.pth`, `.pt` or `.ckpt`; or the state of a run.
        part: `g` (of a state, the averaged weights) or `d`.

    Raises:
        RestoreError: the file cannot be read, or has no such network.
    """
    if path.suffix.lower() == ".safetensors":
        tensors = read_tensors(path)
        if is_described(path):
            if "builder" not in read_state_facts(path):  # the state of a run
                prefix = "ema." if part == "g" else "d."
                tensors = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            elif part == "d":
                tensors = {}
    else:
        tensors = _unwrapped(read_torch_file(path), WRAPPERS if part == "g" else _D_WRAPPERS)
    if not tensors:
        raise RestoreError("holds no discriminator" if part == "d" else "holds no weights", where=path)
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def load_discriminator(
    network: nn.Module, path: Path, *, strict: bool, on_event: Callable[[str], None] = lambda line: None
) -> None:
    """Load weights into D.

    Args:
        network: D.
        path: from `find_discriminator`.
        strict: refuse weights that do not fit in full.
        on_event: see `load_fitting`.

    Raises:
        RestoreError: as `read_any`; or the weights do not fit.
    """
    if isinstance(network, DiscriminatorPair):
        both = path.name != _STATE
        tensors = read_both(path, partial(read_any, part="d")) if both else read_any(path, "d")
        pools = {name: value for name, value in network.state_dict().items() if name.startswith("pool_")}
        tensors = DiscriminatorPair.without_pools(tensors) | pools
    else:
        tensors = read_any(path, "d")
    if not strict:
        load_fitting(network, tensors, path, on_event)
        return
    plain = {name.removeprefix("module."): value for name, value in tensors.items()}
    own = network.state_dict()
    for name in own:  # files from before PyTorch 0.4.1
        if name.endswith("num_batches_tracked"):
            plain.setdefault(name, own[name])
    load_strictly(network, plain, path)


def load_fitting(
    network: nn.Module, tensors: Mapping[str, Tensor], where: Path, on_event: Callable[[str], None]
) -> None:
    """Load what fits, and leave the other weights as they are.

    Args:
        network: to load into.
        tensors: of the file.
        where: the file.
        on_event: called with a line that says what fits and what does not.

    Raises:
        RestoreError: nothing fits.
    """
    fit = fit_weights(network, tensors)
    if not fit.state:
        raise RestoreError("none of its weights fit this network", where=where)
    network.load_state_dict(fit.state, strict=False)
    if not any(name.endswith("._u") for name in fit.state):
        settle_spectral_norm(network)
    on_event(f"from {where.name}: {fit.describe(network)}")


def fit_weights(network: nn.Module, tensors: Mapping[str, Tensor]) -> Fit:
    """Match the tensors of a file with a network's: by name and shape; or by order and shape if few names match.

    A common prefix of the file's names is removed. A weight with spectral norm takes one without.
    """
    own = _weights(network)
    plain = {name: name.replace(_SPECTRAL, "weight") for name in own}
    ends = {*own, *plain.values()}
    prefixes = {""} | {found[: -len(end)] for found in tensors for end in ends if found.endswith(f".{end}")}

    def named(prefix: str) -> dict[str, str]:
        candidates = [(name, prefix + end) for name in own for end in (plain[name], name)]
        return {n: found for n, found in candidates if found in tensors and tensors[found].shape == own[n].shape}

    pairs = max((named(prefix) for prefix in sorted(prefixes, key=len)), key=len)
    by_order = len(pairs) < len(own) / 2
    if by_order:
        ours = [(n, v) for n, v in own.items() if v.is_floating_point()]
        theirs = [(n, v) for n, v in tensors.items() if v.is_floating_point()]
        a, b = ([(_kind(n), tuple(v.shape)) for n, v in side] for side in (ours, theirs))
        blocks = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
        in_order = {ours[at + i][0]: theirs[there + i][0] for at, there, size in blocks for i in range(size)}
        by_order = len(in_order) > len(pairs)
        pairs = in_order if by_order else pairs
    used = set(pairs.values())
    return Fit(
        {name: tensors[found] for name, found in pairs.items()},
        [name for name in own if name not in pairs],
        [name for name, value in tensors.items() if name not in used and value.is_floating_point()],
        by_order,
    )


def _weights(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and statistics, without counters and singular vectors."""
    left_out = ("num_batches_tracked", "._u", "._v")
    return {name: value for name, value in network.state_dict().items() if not name.endswith(left_out)}


def _kind(name: str) -> str:
    """`weight`, `bias`, `running_mean`, ...: tensors of one shape are not mixed up."""
    return name.replace(_SPECTRAL, "weight").rpartition(".")[2]


def _unwrapped(content: Mapping[Any, Any], wrappers: tuple[str, ...]) -> dict[str, Tensor]:
    inner = next((content[name] for name in wrappers if isinstance(content.get(name), Mapping)), content)
    return {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}


def _first_few(names: list[str], count: int = 4) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
