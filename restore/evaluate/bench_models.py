"""The models of a benchmark: what they are, how large, and which damages they are for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from restore import __version__
from restore.errors import RestoreError
from restore.evaluate.bench_damage import BenchDamage
from restore.restorers.base import Needs, Restorer
from restore.restorers.classical import CLASSICAL
from restore.restorers.open import open_restorer
from restore.train.preview import count_macs

FILLERS = ("inpaint", "telea", "navier-stokes", "biharmonic")
CLEANERS = ("photo", "nlmeans", "tv")
MACS_AT_PX = 256

#: What a method without weights computes with, beside this package.
_LIBRARIES = ("scikit-image", "opencv-python", "numpy", "scipy")


@dataclass(frozen=True)
class Contender:
    """A model that takes part.

    Attributes:
        label: its name in tables.
        given: what opens it: a name or a path.
        needs: what it asks of its input.
        identity: equal for equal weights, or for the same method by the same libraries: what results are cached by.
        sha256: of its weights; None for methods without.
        purpose: one line.
        device, precision: what it runs on and in.
        parameters: how many; None for methods without weights.
        macs: multiplications with additions (half of what PyTorch's counter calls FLOPs) of one pass over a picture of
            `MACS_AT_PX` squared; None likewise.
        tile_px: side of its tiles; 0: pictures whole.
    """

    label: str
    given: str
    needs: Needs
    identity: str
    sha256: str | None
    purpose: str
    device: str
    precision: str
    parameters: int | None
    macs: int | None
    tile_px: int

    def why_not(self, damage: BenchDamage) -> str | None:
        """Why it makes no sense to run it on a damage; None: it does."""
        if self.needs.needs_mask and not damage.hides:
            return "fills holes, and this damage has none"
        if damage.only_holes and not self.needs.needs_mask:
            return "takes no masks, and this damage is nothing but holes"
        if self.needs.scale not in (1, damage.scale):
            return f"enlarges {self.needs.scale} times, and this damage does not reduce so"
        return None

    def settings(self) -> dict[str, Any]:
        """What its results depend on beside itself and the input."""
        device = torch.device(self.device)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        return {"device": name, "precision": self.precision, "tile_px": self.tile_px}

    def facts(self) -> dict[str, Any]:
        """As plain values, for the report."""
        return {
            "model": self.label, "given": self.given, "sha256": self.sha256, "identity": self.identity,
            "purpose": self.purpose, "needs_mask": self.needs.needs_mask, "scale": self.needs.scale,
            "parameters": self.parameters, f"macs_at_{MACS_AT_PX}": self.macs, **self.settings(),
        }  # fmt: skip


def default_models(damages: Sequence[BenchDamage]) -> list[str]:
    """The shipped model and the classical methods for each kind of damage that is there."""
    fillers = FILLERS if any(damage.hides for damage in damages) else ()
    cleaners = CLEANERS if any(not damage.only_holes for damage in damages) else ()
    return [*fillers, *cleaners]


def open_contenders(models: Sequence[str], *, device: str, precision: str, tile_px: int) -> list[Contender]:
    """Open every model once, to see what it is.

    Args:
        models: names or paths, each once.
        device, precision: as for `open_restorer`.
        tile_px: largest side of a tile; 0: whole pictures.

    Raises:
        RestoreError: exit code 2: one cannot be opened.
    """
    given = list(dict.fromkeys(models))
    stems = Counter(_stem(name) for name in given)
    contenders = []
    for name in given:
        restorer = open_restorer(name, device=device, precision=precision)
        label = _stem(name) if stems[_stem(name)] == 1 else name
        network = restorer.network
        contenders.append(
            Contender(
                label=label,
                given=name,
                needs=restorer.needs,
                identity=restorer.sha256 or _method_identity(restorer),
                sha256=restorer.sha256,
                purpose=restorer.purpose,
                device=str(restorer.device),
                precision=restorer.precision,
                parameters=None if network is None else sum(p.numel() for p in network.parameters()),
                macs=None if network is None else _macs(restorer),
                tile_px=tile_px if restorer.needs.tileable else 0,
            )
        )
    return contenders


def _stem(name: str) -> str:
    return name if name in CLASSICAL else Path(name).stem


def _method_identity(restorer: Restorer) -> str:
    libraries = ", ".join(f"{library} {version(library)}" for library in _LIBRARIES)
    return f"{restorer.name} of restore {__version__} with {libraries}"


def _macs(restorer: Restorer) -> int | None:
    image = torch.full((1, 3, MACS_AT_PX, MACS_AT_PX), 0.5)
    mask = None
    if restorer.needs.needs_mask:
        mask = torch.zeros(1, 1, MACS_AT_PX, MACS_AT_PX)
        mask[..., MACS_AT_PX // 4 : MACS_AT_PX // 2, MACS_AT_PX // 4 : MACS_AT_PX // 2] = 1
    try:
        return count_macs(lambda: restorer(image, mask))
    except (RuntimeError, MemoryError) as error:  # too little memory for this size, say
        raise RestoreError(
            f"cannot be run on {MACS_AT_PX}×{MACS_AT_PX} pixels: {str(error).partition(chr(10))[0]}",
            where=restorer.name,
        ) from error
