"""The plan of a benchmark, validated before anything is written."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from restore import __version__
from restore.benchmark.degradations import BenchDegradation, find_degradations
from restore.checkpoints import named_weights
from restore.devices import pick_device
from restore.engines.choice import settle_precision
from restore.environment import package_versions
from restore.errors import RestoreError
from restore.files import check_not_within, check_writable
from restore.images import find_images, index_by_stem
from restore.images.formats import left_out_lines
from restore.metrics import Convention, find_convention
from restore.metrics.lpips import Lpips, open_lpips_if_available
from restore.models.profiling import count_macs
from restore.restorers.base import ModelRequirements, Restorer
from restore.restorers.network import sha256_of
from restore.restorers.registry import open_restorer, parse_model

#: Default models for degradations with holes, and for others.
FILLERS = ("inpaint", "telea", "navier-stokes", "biharmonic")
CLEANERS = ("photo", "nlmeans", "tv")

#: Side of the image for which multiply-accumulate operations are counted.
MACS_AT_PX = 256

#: Marks a folder as the output of a benchmark, which a later run may continue.
MARKER = ".made-by-restore-bench"

PUBLISHED_SETS = {"cbsd68": (68, "skimage"), "set5": (5, "y-channel"), "set14": (14, "y-channel")}
"""Test sets with published figures in `published.tsv`: the number of images, and the convention that papers use."""

#: Packages of engines that are called otherwise.
_ENGINE_PACKAGES = {"onnx": "onnxruntime"}
# Libraries that determine the results of methods without weights. Either of the two OpenCV packages may be installed.
_LIBRARIES = ("scikit-image", "opencv-python", "opencv-python-headless", "numpy", "scipy")


@dataclass(frozen=True)
class BenchModel:
    """A model in a benchmark.

    Attributes:
        label: its name in tables.
        source: name or path that opens it.
        requirements: on its input.
        identity: equal for equal weights, and for the same method with the same libraries; part of the cache key.
        sha256: hash of its weights; None for methods without weights.
        purpose: one line.
        device, precision: where and in which precision it runs.
        engine: what runs its network; None for methods without weights.
        parameters: number of parameters; None for methods without weights.
        macs: multiply-accumulate operations for an image of `MACS_AT_PX` squared; None likewise.
        tile_px: tile side; 0: whole images.
    """

    label: str
    source: str
    requirements: ModelRequirements
    identity: str
    sha256: str | None
    purpose: str
    device: str
    precision: str
    engine: str | None
    parameters: int | None
    macs: int | None
    tile_px: int

    def why_skipped(self, degradation: BenchDegradation) -> str | None:
        """Why the model cannot run on a degradation; None if it can."""
        if self.requirements.needs_mask and not degradation.has_mask:
            return "fills holes, and this damage has none"
        if self.requirements.scale not in (1, degradation.scale):
            return f"upscales {self.requirements.scale} times, and this damage does not downscale by that factor"
        return None

    def settings(self) -> dict[str, Any]:
        """Settings that determine its results, in addition to its identity and its input."""
        device = torch.device(self.device)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        engine = self.engine
        if engine is not None and (version := package_versions().get(_ENGINE_PACKAGES.get(engine, engine))) is not None:
            engine += f" {version}"
        return {"device": name, "precision": self.precision, "engine": engine, "tile_px": self.tile_px}

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for the report."""
        return {
            "model": self.label, "given": self.source, "sha256": self.sha256, "identity": self.identity,
            "purpose": self.purpose, "needs_mask": self.requirements.needs_mask, "scale": self.requirements.scale,
            "parameters": self.parameters, f"macs_at_{MACS_AT_PX}": self.macs, **self.settings(),
        }  # fmt: skip


@dataclass(frozen=True)
class PublishedFigure:
    """A score from a paper."""

    degradation: str
    model: str
    psnr: float
    source: str


@dataclass(frozen=True)
class Skipped:
    """A model that does not run on a degradation, and why."""

    degradation: str
    model: str
    why: str

    def format(self) -> str:
        """As one line of text."""
        return f"{self.model} is left out on {self.degradation}: it {self.why}"


@dataclass(frozen=True)
class BenchPlan:
    """A validated benchmark.

    Attributes:
        clean_dir: folder of clean images.
        out: folder of all output.
        images: paths relative to `clean_dir`, in order.
        degradations: in the order of the command.
        cells: the combinations to run, grouped by degradation.
        skipped: combinations that cannot run. Default models are not listed.
        convention: of PSNR and SSIM.
        lpips: None if LPIPS is unavailable; then `why_no_lpips` is the reason.
        published: published figures for these degradations.
        settings: of the command, for the report.
        warnings: what of `clean_dir` is left out without being asked for, one line each.
    """

    clean_dir: Path
    out: Path
    images: tuple[Path, ...]
    degradations: tuple[BenchDegradation, ...]
    cells: tuple[tuple[BenchDegradation, BenchModel], ...]
    skipped: tuple[Skipped, ...]
    convention: Convention
    lpips: Lpips | None
    why_no_lpips: str
    published: tuple[PublishedFigure, ...]
    settings: dict[str, Any]
    warnings: list[str]

    def models(self) -> list[BenchModel]:
        """All models that run, each once."""
        return list({model.label: model for _, model in self.cells}.values())

    def convention_for(self, degradation: BenchDegradation) -> Convention:
        """The convention for a degradation: on luma, images that are enlarged are scored without a border of the
        factor's width, as papers do.
        """
        if degradation.scale == 1 or self.convention.psnr_color != "y-channel":
            return self.convention
        return replace(self.convention, border_px=degradation.scale)

    def describe(self) -> dict[str, Any]:
        """The conventions of all scores as plain values."""
        conventions: dict[str, Any] = {"name": self.convention.name, **self.convention.describe()}
        if self.lpips is None:
            conventions["lpips"] = {"unavailable": self.why_no_lpips}
        else:
            conventions["lpips"] = self.lpips.describe() | {"weights_sha256": sha256_of(self.lpips.weights)}
        borders = {d.label: self.convention_for(d).border_px for d in self.degradations if d.scale > 1}
        if any(borders.values()):
            conventions["border_px_of_enlarged"] = borders
        conventions["hole"] = "psnr_hole, lpips_hole: the same over the pixels inside the mask"
        conventions["rounding"] = "outputs are rounded to 8 bits before they are scored"
        return conventions


def plan_bench(
    clean_dir: Path,
    out: Path,
    *,
    degradations: Sequence[str],
    models: Sequence[str] = (),
    limit: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    tile_px: int = 0,
    convention: str = "skimage",
    lpips_net: str = "alex",
    lpips_weights: Path | None = None,
    published: str | None = None,
) -> BenchPlan:
    """Validate a benchmark without writing anything.

    Args:
        clean_dir: clean images, searched recursively.
        out: a new or empty folder, or the output of an earlier benchmark, whose results are reused.
        degradations: names of `degradations.LITERATURE` or of `configs/damage`, or YAML files.
        models: names, weights files or run folders, each as `MODEL` or `LABEL=MODEL`. None: the default models for
            the degradations.
        limit: use only the first images by name; None: all.
        seed: of the degradations.
        device, precision, engine: as for `open_restorer`.
        tile_px: maximum tile side; 0: whole images.
        convention: of PSNR and SSIM.
        lpips_net, lpips_weights: as for `open_lpips`. LPIPS is left out if the backbone's default weights are
            unavailable.
        published: name of a test set in `PUBLISHED_SETS`, which `clean_dir` must be; adds published figures.

    Raises:
        RestoreError: exit code 2.
    """
    found = tuple(find_degradations(list(degradations), seed))
    pixel_convention = find_convention(convention)
    place = pick_device(device)
    settle_precision(engine, precision, place)
    left_out: list[Path] = []
    images = find_images(clean_dir, on_left_out=left_out.append)
    if not images:
        raise RestoreError("no images in this folder", where=clean_dir)
    index_by_stem(clean_dir, images)  # refuses images whose outputs would have the same name
    figures = _published(published, found, clean_dir, len(images), limit, pixel_convention)
    _check_out(clean_dir, out)
    lpips, why_no_lpips = open_lpips_if_available(lpips_net, lpips_weights, str(place))
    opened = open_models(
        list(models) or default_models(found), device=device, precision=precision, engine=engine, tile_px=tile_px
    )
    cells, skipped = [], []
    for degradation in found:
        for model in opened:
            why = model.why_skipped(degradation)
            if why is None:
                cells.append((degradation, model))
            else:
                skipped.append(Skipped(degradation.label, model.label, why))
    if not cells:
        raise RestoreError(f"nothing is left to run: {'; '.join(cell.format() for cell in skipped)}")
    settings = {
        "clean_dir": str(clean_dir), "limit": limit, "seed": seed, "device": str(place), "precision": precision,
        "engine": engine, "tile_px": tile_px, "published": published,
    }  # fmt: skip
    return BenchPlan(
        clean_dir, out, tuple(images[:limit]), found, tuple(cells), tuple(skipped) if models else (), pixel_convention,
        lpips, why_no_lpips, figures, settings, left_out_lines(left_out, hint="name one as CLEAN"),
    )  # fmt: skip


def default_models(degradations: Sequence[BenchDegradation]) -> list[str]:
    """The shipped model and the classical methods for the kinds of degradation in the benchmark."""
    scales = list(dict.fromkeys(degradation.scale for degradation in degradations if degradation.scale > 1))
    trained = [name for scale in scales for name in (f"enlarge-x{scale}-clean", f"enlarge-x{scale}")]
    enlargers = [*(name for name in trained if name in named_weights()), *(f"lanczos-x{scale}" for scale in scales)]
    degradations = [degradation for degradation in degradations if degradation.scale == 1]
    fillers = FILLERS if any(degradation.has_mask for degradation in degradations) else ()
    cleaners = CLEANERS if any(not degradation.only_holes for degradation in degradations) else ()
    return [*fillers, *cleaners, *enlargers]


def open_models(models: Sequence[str], *, device: str, precision: str, engine: str, tile_px: int) -> list[BenchModel]:
    """Open every model once to read its properties.

    Args:
        models: `MODEL` or `LABEL=MODEL`, where a model is a name, a weights file or a run folder. Repeated models are
            opened once. Without a label, models are called by their name, or by the name of the file or run.
        device, precision, engine: as for `open_restorer`.
        tile_px: maximum tile side; 0: whole images.

    Raises:
        RestoreError: exit code 2; a model cannot be opened, or two have the same label.
    """
    specs = [parse_model(model) for model in dict.fromkeys(models)]
    counts = Counter(spec.label for spec in specs)
    opened: dict[str, BenchModel] = {}
    for spec in specs:
        # Weights files of the same name are called by their paths, unless the user has labelled them.
        label, source = spec.label if counts[spec.label] == 1 or spec.name != spec.source else spec.source, spec.source
        if label in opened:
            raise RestoreError(f"two models are called {label!r}", where=source, hint="label them: --model NAME=PATH")
        restorer = open_restorer(source, device=device, precision=precision, engine=engine)
        network = restorer.network
        opened[label] = BenchModel(
            label=label,
            source=source,
            requirements=restorer.requirements,
            identity=restorer.sha256 or _method_identity(source),
            sha256=restorer.sha256,
            purpose=restorer.purpose,
            device=str(restorer.device),
            precision=restorer.precision,
            engine=restorer.engine,
            parameters=None if network is None else sum(p.numel() for p in network.parameters()),
            macs=None if network is None else _macs(restorer),
            tile_px=tile_px if restorer.requirements.tileable else 0,
        )
    return list(opened.values())


def _method_identity(name: str) -> str:
    versions = package_versions()
    libraries = ", ".join(f"{library} {versions[library]}" for library in _LIBRARIES if versions[library] is not None)
    return f"{name} of restore {__version__} with {libraries}"


def _macs(restorer: Restorer) -> int | None:
    restorer = restorer.in_precision(restorer.precision)  # run by PyTorch, whose operations can be counted
    image = torch.full((1, 3, MACS_AT_PX, MACS_AT_PX), 0.5)
    mask = None
    if restorer.requirements.needs_mask:
        mask = torch.zeros(1, 1, MACS_AT_PX, MACS_AT_PX)
        mask[..., MACS_AT_PX // 4 : MACS_AT_PX // 2, MACS_AT_PX // 4 : MACS_AT_PX // 2] = 1
    try:
        return count_macs(lambda: restorer(image, mask))
    except (RuntimeError, MemoryError) as error:  # for example out of memory
        raise RestoreError(
            f"cannot run on {MACS_AT_PX}×{MACS_AT_PX} pixels: {str(error).partition(chr(10))[0]}", where=restorer.name
        ) from error


def _published(
    name: str | None,
    degradations: Sequence[BenchDegradation],
    clean_dir: Path,
    count: int,
    limit: int | None,
    convention: Convention,
) -> tuple[PublishedFigure, ...]:
    if name is None:
        return ()
    if name not in PUBLISHED_SETS:
        raise RestoreError(f"no published figures for {name!r}", hint=f"known: {', '.join(PUBLISHED_SETS)}")
    expected, usual = PUBLISHED_SETS[name]
    if count != expected or (limit is not None and limit < expected):
        raise RestoreError(
            f"{name} has {expected} images, but {count if limit is None else min(count, limit)} would be measured",
            where=clean_dir,
            hint="published figures would not be comparable; leave out --published",
        )
    if convention.psnr_color != find_convention(usual).psnr_color:
        color = "RGB" if usual == "skimage" else "luma"
        raise RestoreError(
            f"published figures are PSNR over {color}", where=f"--convention {convention.name}", hint=f"use {usual}"
        )
    labels = {degradation.label for degradation in degradations}
    with open(Path(__file__).with_name("published.tsv"), encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["set"] == name and row["damage"] in labels]
    return tuple(PublishedFigure(row["damage"], row["model"], float(row["psnr"]), row["source"]) for row in rows)


def _check_out(clean_dir: Path, out: Path) -> None:
    check_writable(out)
    check_not_within(out, clean_dir)
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise RestoreError("is not empty and does not hold a benchmark", where=out, hint="choose another folder")
