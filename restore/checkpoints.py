"""Weights files (safetensors with a JSON description), and the state from which a training run resumes."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from restore.config import Settings
from restore.config import build as build_settings
from restore.errors import RestoreError, did_you_mean
from restore.files import user_data, write_atomically
from restore.models.base import RestorationNetwork
from restore.models.registry import SkippedInit, build_generator

BEST = "best.safetensors"
"""The best weights in the folder of a run."""
BACK = "best_b_to_a.safetensors"
"""Those of the way back, in the folder of an unpaired run."""
FORMAT = 1
_KEY = "restore"


def weights_dir() -> Path:
    """The folder of the weights that the package ships."""
    return Path(__file__).parent / "weights"


def shipped_weights() -> dict[str, Path]:
    """Shipped models: name -> file, sorted by name."""
    return {p.stem: p for p in sorted(weights_dir().glob("*.safetensors"))}


def models_dir() -> Path:
    """The folder of the weights that `restore models get` fetched: `models` in the user's data directory.

    Raises:
        RestoreError: the user has no home, as some in containers.
    """
    try:
        return user_data() / "models"
    except RuntimeError as error:
        raise RestoreError("this user has no home folder for models", hint="name the path of a file") from error


def named_weights() -> dict[str, Path]:
    """Models that go by a name: those that were fetched, and the shipped ones, which win; name -> file, sorted."""
    named: dict[str, Path] = {}
    with suppress(RestoreError, OSError):  # without a home, or in a locked one, there are the shipped ones
        named = {path.stem: path for path in models_dir().glob("*.safetensors") if not is_path(path.stem)}
    return dict(sorted((named | shipped_weights()).items()))


def find_weights(name_or_path: str) -> Path:
    """The weights file of a name (`named_weights`), a path, or a training run's folder (its `best.safetensors`).

    Anything with a slash or a suffix is a path; a bare name is never looked up in the working directory.

    Raises:
        RestoreError: there is no such model, file or folder; the nearest known name is suggested.
    """
    known = named_weights()
    if name_or_path in known:
        return known[name_or_path]
    if not is_path(name_or_path):
        hint = f"{did_you_mean(name_or_path, known)}; the path of a file or folder contains a slash"
        raise RestoreError(f"no model is called {name_or_path!r}", hint=hint)
    path = Path(name_or_path)
    if path.is_dir():
        return best_weights(path)
    if path.is_file():
        return path
    raise RestoreError("there is no such weights file", where=path)


def is_path(name_or_path: str) -> bool:
    """Whether the name of a model is the path of a file or folder: it contains a slash or a suffix."""
    path = Path(name_or_path)
    return bool(path.suffix) or path.name != name_or_path or "\\" in name_or_path


def best_weights(run: Path) -> Path:
    """The best weights in the folder of a training run.

    Raises:
        RestoreError: there are none.
    """
    best = run / BEST
    if not best.is_file():
        raise RestoreError(
            "this folder has no best.safetensors", where=run, hint="a run writes it at its first validation"
        )
    return best


#: The most that a description may ask for: images are extended to it, and a file can come from anywhere.
_MAX_PX = 1 << 14


class DetectorSettings(Settings):
    """How a detector sees images, and how its probabilities become a mask.

    Attributes:
        threshold: pixels of at least this probability are damaged.
        margin_px: the mask is dilated by this.
        monochrome_contrast: monochrome photographs are searched at this share of their contrast; None: as they are.
        ensemble_with: name of a second shipped detector, whose probabilities are averaged with its own; None: none.
        expected_share: the share of an image that is likely damaged, to which the threshold applies. In images with
            more, probabilities are raised, in those with less, lowered; None: they stay
            (`restore.restorers.damage_prior`).
    """

    threshold: float = Field(gt=0, lt=1)
    margin_px: int = Field(ge=0, le=100)
    monochrome_contrast: float | None = Field(default=None, gt=0, le=1)
    ensemble_with: str | None = None
    expected_share: float | None = Field(default=None, gt=0, lt=1)


class ConditionSettings(Settings):
    """A kind of condition images, as in `restore.images.conditions.Condition`."""

    name: str
    channels: Literal[1, 3]
    value_range: tuple[float, float] | None = None


class Description(Settings):
    """The metadata of a weights file, as JSON under the one key `restore`; it is enough to build and run the network.

    Attributes:
        format: of this description; a newer one is refused.
        builder, args: see `restore.models.build_generator`.
        purpose: one line for `restore models`.
        channels: of the images that the network takes and gives: 1 for gray; None: 3.
        transfer: `linear`: the network works in linear light; None: in sRGB.
        float_range: (black, white) of the float images that it was trained on; None: not declared.
        conditions: the condition images that the network takes, in order; None: none.
        needs_mask, multiple, minimum, scale, overlap_px: see `restore.restorers.base.ModelRequirements`.
        adds_color: see `restore.restorers.base.ModelRequirements`; None: it does not.
        finds: of a detector; None: the network is no detector.
        draws: of a network that makes images from noise (`restore sample`), the names of its classes; None: it is none.
    """

    format: int = FORMAT
    builder: str
    args: dict[str, Any] = Field(default_factory=dict)
    purpose: str = ""
    needs_mask: bool
    channels: Literal[1] | None = None
    transfer: Literal["linear"] | None = None
    float_range: tuple[float, float] | None = None
    conditions: list[ConditionSettings] | None = None
    multiple: int = Field(default=1, ge=1, le=_MAX_PX)
    minimum: int = Field(default=1, ge=1, le=_MAX_PX)
    scale: int = Field(default=1, ge=1, le=16)
    overlap_px: int = Field(default=0, ge=0, le=_MAX_PX)
    adds_color: bool | None = None
    finds: DetectorSettings | None = None
    draws: list[str] | None = None


def save_weights(path: Path, state: Mapping[str, Tensor], description: Description, *, half: bool = True) -> None:
    """Write a generator's weights and its description.

    Args:
        path: `NAME.safetensors`.
        state: the state dict.
        description: stored as JSON in the metadata.
        half: round floating-point tensors to float16, for half the size; False leaves them.
    """
    stored = {k: v.half() if half and v.is_floating_point() else v for k, v in state.items()}
    plain = {k: v.detach().cpu().contiguous() for k, v in stored.items()}
    write_atomically(path, save(plain, {_KEY: description.model_dump_json(exclude_none=True)}))


def read_description(path: Path) -> Description:
    """The description of a weights file, without reading the weights.

    Raises:
        RestoreError: not a whole safetensors file, or not one of this package's.
    """
    with _opened(path) as file:
        text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise RestoreError(
            "these weights carry no description of their network",
            where=path,
            hint="only weights written by `restore train` or `restore export`, or a pix2pix *_net_G.pth, can be opened",
        )
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RestoreError("the description inside these weights is not JSON", where=path) from error
    description = build_settings(Description, values, where=path)
    if description.format != FORMAT:
        raise RestoreError(
            f"these weights are of format {description.format}; this version reads {FORMAT}",
            where=path,
            hint="install a newer restore-toolkit",
        )
    return description


def read_weights(path: Path) -> tuple[Description, dict[str, Tensor]]:
    """Description and float32 state dict of a weights file; safetensors cannot hold code."""
    description = read_description(path)
    state = read_tensors(path)
    return description, {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def load_generator(path: Path) -> tuple[RestorationNetwork, Description]:
    """Build the network that a weights file describes and load its weights, in eval mode, on the CPU.

    Raises:
        RestoreError: the weights do not fit the network that they describe.
    """
    description = read_description(path)
    with SkippedInit():
        model = build_generator(description.builder, description.args, where=str(path))
    # Copying converts from half precision; every parameter and buffer is overwritten, or this fails.
    load_strictly(model, read_tensors(path), path)
    return model.eval(), description


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], where: Path | str) -> None:
    """`load_state_dict`, with a readable error if keys or shapes differ.

    Raises:
        RestoreError: they differ; the first of each kind is named.
    """
    own = model.state_dict()
    missing = [k for k in own if k not in state]
    unexpected = [k for k in state if k not in own]
    shapes = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or unexpected or shapes:
        parts = []
        if missing:
            parts.append(f"{len(missing)} missing (first: {missing[0]})")
        if unexpected:
            parts.append(f"{len(unexpected)} unexpected (first: {unexpected[0]})")
        if shapes:
            k = shapes[0]
            parts.append(
                f"{len(shapes)} of another shape (first: {k}, {tuple(state[k].shape)} for {tuple(own[k].shape)})"
            )
        raise RestoreError(f"weights of another architecture: {', '.join(parts)}", where=where)
    for k, values in own.items():
        if values.is_floating_point() and state[k].dtype not in (torch.float16, torch.bfloat16, torch.float32):
            raise RestoreError(f"{k} is of type {str(state[k].dtype).removeprefix('torch.')}, not float", where=where)
    model.load_state_dict(dict(state))


def read_torch_state(path: Path) -> dict[str, Tensor]:
    """A state dict from a `.pth`/`.pt` file, read with `weights_only`: anything that could run code is refused.

    Raises:
        RestoreError: not such a file, or it holds more than tensors.
    """
    state = read_torch_file(path)
    if not all(isinstance(v, Tensor) for v in state.values()):
        raise RestoreError("this file holds something else than a state dict of tensors", where=path)
    return state


def read_torch_file(path: Path) -> dict[Any, Any]:
    """The dict in a `.pth`, `.pt` or `.ckpt` file: tensors and plain values, possibly nested.

    Raises:
        RestoreError: not such a file, TorchScript, or a pickle with anything that could run code (nothing of it runs).
    """
    hint = "ask its author to save only the state dict, preferably as .safetensors"
    try:
        if _is_torchscript(path):
            raise RestoreError("a TorchScript archive holds code, and is not opened", where=path, hint=hint)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RestoreError("there is no such file", where=path) from error
    except RestoreError:
        raise
    except Exception as error:  # damaged bytes can make the unpickler raise anything
        # PyTorch's message first suggests loading the file unsafely; the actual problem comes last.
        message = " ".join(str(error).split()).rpartition("WeightsUnpickler error: ")[2]
        code = re.search(r"\bGLOBAL (\S+)", message)
        if code is not None:
            reason = f"this file holds more than tensors ({code[1]}), which could run code, and is not opened"
            raise RestoreError(reason, where=path, hint=hint) from error
        reason = message.partition(" Check the documentation")[0][:120]
        raise RestoreError(f"cannot be opened as plain weights: {reason}", where=path) from error
    if not isinstance(state, dict):
        raise RestoreError("this file holds something else than a state dict of tensors", where=path)
    return state


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, as stored, whoever wrote it.

    Raises:
        RestoreError: not a whole safetensors file.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def is_described(path: Path) -> bool:
    """Whether a safetensors file is one of this package's.

    Raises:
        RestoreError: not a whole safetensors file.
    """
    with _opened(path) as file:
        return _KEY in (file.metadata() or {})


def save_state(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Everything for an exact resume in one file: tensors as they are, and plain facts as JSON."""
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    write_atomically(path, save(plain, {_KEY: json.dumps(facts)}))


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_state` wrote.

    Raises:
        RestoreError: the file is damaged.
    """
    facts = read_state_facts(path)
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    return tensors, facts


def read_state_facts(path: Path) -> dict[str, Any]:
    """The plain facts that `save_state` wrote, without reading the tensors.

    Raises:
        RestoreError: the file is damaged.
    """
    with _opened(path) as file:
        facts = json.loads((file.metadata() or {}).get(_KEY, "null"))
    if not isinstance(facts, dict):
        raise RestoreError("this is not the state of a training run", where=path)
    return facts


def _is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, by the record that PyTorch itself checks."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except FileNotFoundError as error:
        raise RestoreError("there is no such file", where=path) from error
    except (SafetensorError, OSError) as error:
        raise RestoreError(
            f"not a complete safetensors file ({' '.join(str(error).split())[:80]})",
            where=path,
            hint="copy or download it again",
        ) from error
