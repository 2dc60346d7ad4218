"""What a benchmark will do, settled and checked before anything is written."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from restore import __version__
from restore.benchmark.degradations import BenchDamage, find_damages
from restore.devices import pick_device, pick_precision
from restore.errors import RestoreError
from restore.files import check_writable
from restore.images import find_images, stem_key
from restore.metrics import Convention, find_convention
from restore.metrics.lpips import Lpips, open_lpips_if_available
from restore.models.profiling import count_macs
from restore.restorers.base import ModelRequirements, Restorer
from restore.restorers.network import sha256_of
from restore.restorers.registry import open_restorer, parse_model

# The models of a benchmark: what they are, how large, and which damages they are for.


FILLERS = ("inpaint", "telea", "navier-stokes", "biharmonic")
CLEANERS = ("photo", "nlmeans", "tv")
MACS_AT_PX = 256

#: What a method without weights computes with, beside this package.
_LIBRARIES = ("scikit-image", "opencv-python", "numpy", "scipy")


@dataclass(frozen=True)
class BenchModel:
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
    requirements: ModelRequirements
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
        if self.requirements.needs_mask and not damage.hides:
            return "fills holes, and this damage has none"
        if damage.only_holes and not self.requirements.needs_mask:
            return "takes no masks, and this damage is nothing but holes"
        if self.requirements.scale not in (1, damage.scale):
            return f"enlarges {self.requirements.scale} times, and this damage does not reduce so"
        return None

    def settings(self) -> dict[str, Any]:
        """What its results depend on beside itself and the input."""
        device = torch.device(self.device)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        return {"device": name, "precision": self.precision, "tile_px": self.tile_px}

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for the report."""
        return {
            "model": self.label, "given": self.given, "sha256": self.sha256, "identity": self.identity,
            "purpose": self.purpose, "needs_mask": self.requirements.needs_mask, "scale": self.requirements.scale,
            "parameters": self.parameters, f"macs_at_{MACS_AT_PX}": self.macs, **self.settings(),
        }  # fmt: skip


def default_models(damages: Sequence[BenchDamage]) -> list[str]:
    """The shipped model and the classical methods for each kind of damage that is there."""
    fillers = FILLERS if any(damage.hides for damage in damages) else ()
    cleaners = CLEANERS if any(not damage.only_holes for damage in damages) else ()
    return [*fillers, *cleaners]


def open_contenders(models: Sequence[str], *, device: str, precision: str, tile_px: int) -> list[BenchModel]:
    """Open every model once, to see what it is.

    Args:
        models: names or paths, or `NAME=PATH`; each once.
        device, precision: as for `open_restorer`.
        tile_px: largest side of a tile; 0: whole pictures.

    Raises:
        RestoreError: exit code 2: one cannot be opened.
    """
    given = list(dict.fromkeys(models))
    labels = Counter(parse_model(name).label for name in given)
    contenders = []
    for name in given:
        restorer = open_restorer(name, device=device, precision=precision)
        label = parse_model(name).label
        label = label if labels[label] == 1 else name
        network = restorer.network
        contenders.append(
            BenchModel(
                label=label,
                given=name,
                requirements=restorer.requirements,
                identity=restorer.sha256 or _method_identity(restorer),
                sha256=restorer.sha256,
                purpose=restorer.purpose,
                device=str(restorer.device),
                precision=restorer.precision,
                parameters=None if network is None else sum(p.numel() for p in network.parameters()),
                macs=None if network is None else _macs(restorer),
                tile_px=tile_px if restorer.requirements.tileable else 0,
            )
        )
    return contenders


def _method_identity(restorer: Restorer) -> str:
    libraries = ", ".join(f"{library} {version(library)}" for library in _LIBRARIES)
    return f"{restorer.name} of restore {__version__} with {libraries}"


def _macs(restorer: Restorer) -> int | None:
    image = torch.full((1, 3, MACS_AT_PX, MACS_AT_PX), 0.5)
    mask = None
    if restorer.requirements.needs_mask:
        mask = torch.zeros(1, 1, MACS_AT_PX, MACS_AT_PX)
        mask[..., MACS_AT_PX // 4 : MACS_AT_PX // 2, MACS_AT_PX // 4 : MACS_AT_PX // 2] = 1
    try:
        return count_macs(lambda: restorer(image, mask))
    except (RuntimeError, MemoryError) as error:  # too little memory for this size, say
        raise RestoreError(
            f"cannot be run on {MACS_AT_PX}×{MACS_AT_PX} pixels: {str(error).partition(chr(10))[0]}",
            where=restorer.name,
        ) from error


MARKER = ".made-by-restore-bench"
PUBLISHED_SETS = {"cbsd68": 68}
"""Sets that figures of papers are shipped for, and how many pictures they have."""


@dataclass(frozen=True)
class PublishedFigure:
    """A figure from a paper, not measured here."""

    damage: str
    model: str
    psnr: float
    source: str


@dataclass(frozen=True)
class LeftOut:
    """A model that is not run on a damage, and why."""

    damage: str
    model: str
    why: str

    def line(self) -> str:
        """As text."""
        return f"{self.model} is left out on {self.damage}: it {self.why}"


@dataclass(frozen=True)
class BenchPlan:
    """Everything settled.

    Attributes:
        clean_dir: where the pictures are.
        out: where everything is written.
        pictures: relative to `clean_dir`, in order.
        damages: in the order given.
        cells: what is run, damage by damage.
        left_out: what makes no sense.
        convention: how PSNR and SSIM are computed.
        lpips: None: there is no LPIPS, `why_no_lpips` says why.
        published: figures of papers for these damages.
        settings: of the command, for the report.
    """

    clean_dir: Path
    out: Path
    pictures: tuple[Path, ...]
    damages: tuple[BenchDamage, ...]
    cells: tuple[tuple[BenchDamage, BenchModel], ...]
    left_out: tuple[LeftOut, ...]
    convention: Convention
    lpips: Lpips | None
    why_no_lpips: str
    published: tuple[PublishedFigure, ...]
    settings: dict[str, Any]

    def contenders(self) -> list[BenchModel]:
        """Every model that is run somewhere, once."""
        return list({contender.label: contender for _, contender in self.cells}.values())

    def described(self) -> dict[str, Any]:
        """The conventions of all scores as plain values."""
        how: dict[str, Any] = {"name": self.convention.name, **self.convention.describe()}
        if self.lpips is None:
            how["lpips"] = {"unavailable": self.why_no_lpips}
        else:
            how["lpips"] = self.lpips.describe() | {"weights_sha256": sha256_of(self.lpips.weights)}
        how["hole"] = "psnr_hole, lpips_hole: the same over the pixels that the mask hides"
        how["rounding"] = "outputs are rounded to 8 bits before they are scored"
        return how


def plan_bench(
    clean_dir: Path,
    out: Path,
    *,
    damages: Sequence[str],
    models: Sequence[str] = (),
    limit: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    tile_px: int = 0,
    convention: str = "skimage",
    lpips_net: str = "alex",
    lpips_weights: Path | None = None,
    published: str | None = None,
) -> BenchPlan:
    """Settle and check everything; writes nothing.

    Args:
        clean_dir: clean pictures, searched recursively.
        out: new, empty, or of an earlier benchmark, whose results are used where they fit.
        damages: names of `bench_damage.LITERATURE` or of `configs/damage`, or YAML files.
        models: names or files; none: the shipped and the classical ones that fit the damages.
        limit: only so many pictures, the first by name; None: all.
        seed: of the damages.
        device, precision: as for `open_restorer`.
        tile_px: largest side of a tile; 0: whole pictures.
        convention: of PSNR and SSIM.
        lpips_net, lpips_weights: as for `open_lpips`; where a backbone that was not given as a file cannot be had,
            there is no LPIPS.
        published: a set in `PUBLISHED_SETS` that `clean_dir` is; figures of papers are then shown, marked as such.

    Raises:
        RestoreError: exit code 2.
    """
    found = tuple(find_damages(list(damages), seed))
    how = find_convention(convention)
    place = pick_device(device)
    pick_precision(precision, place)
    pictures = find_images(clean_dir)
    if not pictures:
        raise RestoreError("no pictures in this folder", where=clean_dir)
    _refuse_twins(clean_dir, pictures)
    figures = _published(published, found, clean_dir, len(pictures), limit, how)
    _check_out(clean_dir, out)
    lpips, why_not = open_lpips_if_available(lpips_net, lpips_weights, str(place))
    contenders = open_contenders(
        list(models) or default_models(found), device=device, precision=precision, tile_px=tile_px
    )
    cells, left_out = [], []
    for damage in found:
        for contender in contenders:
            why = contender.why_not(damage)
            if why is None:
                cells.append((damage, contender))
            else:
                left_out.append(LeftOut(damage.label, contender.label, why))
    if not cells:
        raise RestoreError(f"nothing is left to run: {'; '.join(cell.line() for cell in left_out)}")
    settings = {
        "clean_dir": str(clean_dir), "limit": limit, "seed": seed, "device": str(place), "precision": precision,
        "tile_px": tile_px, "published": published,
    }  # fmt: skip
    return BenchPlan(
        clean_dir, out, tuple(pictures[:limit]), found, tuple(cells), _defaults_quietly(left_out, models), how, lpips,
        why_not, figures, settings,
    )  # fmt: skip


def _defaults_quietly(left_out: list[LeftOut], models: Sequence[str]) -> tuple[LeftOut, ...]:
    """Nobody asked for the default models one by one: what does not fit of them goes without saying."""
    return tuple(left_out) if models else ()


def _refuse_twins(clean_dir: Path, pictures: Sequence[Path]) -> None:
    seen: dict[str, Path] = {}
    for relative in pictures:
        other = seen.setdefault(stem_key(relative), relative)
        if other != relative:
            raise RestoreError(
                f"has the same name as {other.name} but for the suffix", where=clean_dir / relative, hint="rename one"
            )


def _published(
    name: str | None, damages: Sequence[BenchDamage], clean_dir: Path, count: int, limit: int | None, how: Convention
) -> tuple[PublishedFigure, ...]:
    if name is None:
        return ()
    if name not in PUBLISHED_SETS:
        raise RestoreError(f"no published figures for {name!r}", hint=f"known: {', '.join(PUBLISHED_SETS)}")
    wanted = PUBLISHED_SETS[name]
    if count != wanted or (limit is not None and limit < wanted):
        raise RestoreError(
            f"{name} has {wanted} pictures, and {count if limit is None else min(count, limit)} would be measured",
            where=clean_dir,
            hint="published figures would not be comparable; leave --published out",
        )
    if how.psnr_colour != "rgb":
        raise RestoreError("published figures are PSNR over RGB", where=f"--convention {how.name}", hint="use skimage")
    labels = {damage.label for damage in damages}
    with open(Path(__file__).with_name("published.tsv"), encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["set"] == name and row["damage"] in labels]
    return tuple(PublishedFigure(row["damage"], row["model"], float(row["psnr"]), row["source"]) for row in rows)


def _check_out(clean_dir: Path, out: Path) -> None:
    check_writable(out)
    clean, place = clean_dir.resolve(), out.resolve()
    if place == clean or clean in place.parents:
        raise RestoreError("the output folder is, or lies in, the clean one", where=out, hint="choose another folder")
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise RestoreError("is not empty, and holds no benchmark", where=out, hint="choose another folder")
