"""`restore demo`: degrade, repair and score the photographs of scikit-image, and show them side by side."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from restore.degradations.write import write_degraded
from restore.devices import pick_device
from restore.errors import RestoreError
from restore.evaluation.report import EvalReport
from restore.evaluation.scoring import DEFAULT_METRICS, score_folders
from restore.files import check_writable
from restore.fix.options import FixOptions
from restore.fix.run import fix_folder
from restore.images import read_rgb8, write_png
from restore.images.contact_sheet import Cell, draw_sheet, fit_within
from restore.metrics.lpips import open_lpips_if_available

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
SEED = 0
MARKER = ".made-by-restore-demo"
SHEET = "before_after.png"


@dataclass(frozen=True)
class DemoTask:
    """A degradation and the shipped model that repairs it.

    Attributes:
        damage: name of the degradation.
        model: name of the model.
        masks: `no`: none; `exact`: those of the degradation; `auto`: detected, and `photo` cleans up the rest.
    """

    damage: str
    model: str
    masks: Literal["no", "exact", "auto"]


TASKS = (
    DemoTask("mixed", "photo", "no"),
    DemoTask("inpaint-thin", "inpaint", "exact"),
    DemoTask("scratch", "inpaint", "auto"),
)
COLUMN_PX = 300


def make_demo(
    out: Path, echo: Callable[[str], None], lpips_net: str = "alex", lpips_weights: Path | None = None
) -> Path:
    """Degrade, repair and score photographs, and draw a before/after sheet.

    Writes `out/clean`, `out/DAMAGE/damaged`, `out/DAMAGE/masks`, `out/DAMAGE/repaired` and `out/before_after.png`.
    Replaces the files of an earlier demo and touches nothing else. Uses no internet connection.

    Args:
        out: created if missing.
        echo: called with each line: the equivalent commands, and the table of scores.
        lpips_net: `alex`, `vgg` or `squeeze`.
        lpips_weights: file with the weights of the backbone; None: the file in torch.hub's cache, if it exists.

    Returns:
        The path of the before/after sheet.

    Raises:
        RestoreError: exit code 2, and nothing was written: `out` is a file, holds other files, or is not writable; the
            LPIPS network is unknown, or its weights are unusable. Otherwise: an image could not be repaired.
    """
    _check(out)
    lpips, why_not = open_lpips_if_available(lpips_net, lpips_weights, pick_device("auto"), download=False)
    _clear(out)
    (out / "clean").mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()
    from skimage import data

    for name in PHOTOGRAPHS:
        write_png(out / "clean" / f"{name}.png", np.ascontiguousarray(getattr(data, name)()[..., :3]))

    rows = []
    for task in TASKS:
        folder = out / task.damage
        masks = {"no": None, "exact": folder / "masks", "auto": "auto"}[task.masks]
        masks_option = f" --masks {masks}" if masks else ""
        echo(f"restore degrade {out / 'clean'} {folder} --damage {task.damage} --seed {SEED}")
        write_degraded(out / "clean", folder, task.damage, seed=SEED)
        echo(f"restore fix {folder / 'damaged'} {folder / 'repaired'}{masks_option}")
        summary = fix_folder(folder / "damaged", folder / "repaired", task.model, options=FixOptions(masks=masks))
        if summary.exit_code:
            raise RestoreError("; ".join(summary.format()), where=folder, exit_code=summary.exit_code)
        echo(f"restore eval {folder / 'repaired'} {out / 'clean'}")
        damaged, repaired = (
            score_folders(
                folder / part, out / "clean", metrics=DEFAULT_METRICS if lpips else ("psnr", "ssim"), lpips=lpips
            )
            for part in ("damaged", "repaired")
        )
        rows.append((task, damaged, repaired))

    echo("")
    for line in table(rows, why_not):
        echo(line)
    sheet = out / SHEET
    write_png(sheet, before_after_sheet(out))
    return sheet


def _folders(out: Path) -> list[Path]:
    """The folders that a demo writes to."""
    return [out / "clean", *(out / task.damage / part for task in TASKS for part in ("damaged", "masks", "repaired"))]


def _check(out: Path) -> None:
    """Refuse a folder that is neither new, nor empty, nor from an earlier demo."""
    for folder in [out, *_folders(out)]:
        check_writable(folder)
        if folder.is_dir() and not os.access(folder, os.R_OK):
            raise RestoreError("no permission to read this folder", where=folder, hint="choose another folder")
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise RestoreError("this folder holds files that are not from a demo", where=out, hint="choose another folder")
    for folder in _folders(out):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not path.name.startswith(".") and not _is_own(path):
                raise RestoreError(
                    "this file is not from a demo", where=path, hint="choose another folder, or move the file"
                )
    if (out / SHEET).is_dir():
        raise RestoreError(
            "this is a folder, and the demo would write a file there", where=out / SHEET, hint="choose another folder"
        )


def _is_own(path: Path) -> bool:
    return path.suffix == ".png" and path.stem in PHOTOGRAPHS and not path.is_dir()


def _clear(out: Path) -> None:
    """Remove the images of an earlier demo, and nothing else."""
    own = [path for folder in _folders(out) if folder.is_dir() for path in folder.iterdir() if _is_own(path)]
    try:
        for path in [*own, out / SHEET]:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise RestoreError(f"the file cannot be replaced: {error.strerror}", where=error.filename) from error


def table(rows: list[tuple[DemoTask, EvalReport, EvalReport]], why_no_lpips: str = "") -> list[str]:
    """Mean scores, damaged -> repaired, and the reasons for missing ones."""
    lines = [f"{'damage':<14} {'model':<8} {'PSNR':>16} {'SSIM':>18} {'LPIPS':>18}"]
    why: dict[str, None] = {}
    for task, damaged, repaired in rows:
        before, after = damaged.summary(), repaired.summary()
        cells = []
        for metric, digits in (("psnr", 2), ("ssim", 4), ("lpips", 4)):
            a, b = (scores.get(metric, {}).get("mean") for scores in (before, after))
            if a is None or b is None:
                cells.append("-")
                reason = why_no_lpips if metric == "lpips" else ""
                why[reason or after.get(metric, {}).get("unavailable") or f"no {metric}"] = None
            else:
                cells.append(f"{a:.{digits}f} -> {b:.{digits}f}")
        lines.append(f"{task.damage:<14} {task.model:<8} {cells[0]:>16} {cells[1]:>18} {cells[2]:>18}")
    return lines + [f"- : {reason}" for reason in why]


def before_after_sheet(out: Path) -> np.ndarray:
    """One row per photograph: damaged | repaired for every task, then clean. uint8, H×W×3."""
    parts = [(f"{task.damage}: {part}", out / task.damage / part) for task in TASKS for part in ("damaged", "repaired")]
    rows = [
        [
            Cell(fit_within(read_rgb8(folder / f"{name}.png"), COLUMN_PX), head)
            for head, folder in [*parts, ("clean", out / "clean")]
        ]
        for name in PHOTOGRAPHS
    ]
    return draw_sheet(rows)
