"""`restore demo`: photographs that come with scikit-image are damaged, repaired, scored and shown side by side."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from restore.datasets.damaged import write_damaged
from restore.errors import RestoreError
from restore.evaluate.report import Report
from restore.evaluate.score import score_folders
from restore.images import read_rgb8, save_png
from restore.repair import fix_folder
from restore.restorers.open import open_restorer

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
SEED = 0
MARKER = ".made-by-restore-demo"


@dataclass(frozen=True)
class Task:
    """A damage and the shipped model that repairs it; `masked`: it is told where."""

    damage: str
    model: str
    masked: bool


TASKS = (Task("mixed", "photo", False), Task("inpaint-thin", "inpaint", True))
HEIGHT_PX, GAP_PX, LABEL_PX = 260, 6, 22


def make_demo(
    out: Path, say: Callable[[str], None], lpips_net: str = "alex", lpips_weights: Path | None = None
) -> Path:
    """Damage, repair, score and show.

    Writes `out/clean`, `out/DAMAGE/damaged`, `out/DAMAGE/masks`, `out/DAMAGE/repaired` and `out/before_after.png`; what
    an earlier demonstration wrote there is replaced.

    Args:
        out: made if missing.
        say: gets the table, and the commands that do the same by hand, line by line.
        lpips_net, lpips_weights: as `restore eval` takes them.

    Returns:
        The path of the picture sheet.

    Raises:
        RestoreError: `out` holds something else, or a picture could not be repaired.
    """
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise RestoreError("holds something else than a demonstration", where=out, hint="name another folder")
    shutil.rmtree(out, ignore_errors=True)
    (out / "clean").mkdir(parents=True)
    (out / MARKER).touch()
    for name in PHOTOGRAPHS:
        save_png(out / "clean" / f"{name}.png", np.ascontiguousarray(getattr(data, name)()[..., :3]))

    rows = []
    for task in TASKS:
        folder = out / task.damage
        masks = folder / "masks" if task.masked else None
        told = f" --masks {masks}" if masks else ""
        say(f"restore degrade {out / 'clean'} {folder} --damage {task.damage} --seed {SEED}")
        write_damaged(out / "clean", folder, task.damage, seed=SEED)
        say(f"restore fix {folder / 'damaged'} {folder / 'repaired'}{told}")
        summary = fix_folder(folder / "damaged", folder / "repaired", open_restorer(task.model), masks=masks)
        if summary.exit_code:
            raise RestoreError("; ".join(summary.lines()), where=folder, exit_code=summary.exit_code)
        say(f"restore eval {folder / 'repaired'} {out / 'clean'}")
        damaged, repaired = (
            score_folders(folder / part, out / "clean", lpips_net=lpips_net, lpips_weights=lpips_weights)
            for part in ("damaged", "repaired")
        )
        rows.append((task, damaged, repaired))

    say("")
    for line in table(rows):
        say(line)
    sheet = out / "before_after.png"
    save_png(sheet, picture_sheet(out))
    return sheet


def table(rows: list[tuple[Task, Report, Report]]) -> list[str]:
    """Mean scores, damaged -> repaired, and why a score is missing."""
    lines = [f"{'damage':<14} {'model':<8} {'PSNR':>16} {'SSIM':>18} {'LPIPS':>18}"]
    why: dict[str, None] = {}
    for task, damaged, repaired in rows:
        before, after = damaged.summary(), repaired.summary()
        cells = []
        for metric, digits in (("psnr", 2), ("ssim", 4), ("lpips", 4)):
            a, b = (scores.get(metric, {}).get("mean") for scores in (before, after))
            if a is None or b is None:
                cells.append("-")
                why[after.get(metric, {}).get("unavailable") or f"no {metric}"] = None
            else:
                cells.append(f"{a:.{digits}f} -> {b:.{digits}f}")
        lines.append(f"{task.damage:<14} {task.model:<8} {cells[0]:>16} {cells[1]:>18} {cells[2]:>18}")
    return lines + [f"- : {reason}" for reason in why]


def picture_sheet(out: Path) -> np.ndarray:
    """All photographs, a row each: damaged | repaired for every task, then the clean one. uint8 H×W×3."""
    heads = [f"{task.damage}: {part}" for task in TASKS for part in ("damaged", "repaired")] + ["clean"]
    rows = []
    for name in PHOTOGRAPHS:
        files = [out / t.damage / part / f"{name}.png" for t in TASKS for part in ("damaged", "repaired")]
        rows.append([_thumbnail(file) for file in [*files, out / "clean" / f"{name}.png"]])
    width = sum(p.width + GAP_PX for p in max(rows, key=lambda row: sum(p.width for p in row))) + GAP_PX
    sheet = Image.new("RGB", (width, (HEIGHT_PX + LABEL_PX + GAP_PX) * len(rows) + GAP_PX), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    y = GAP_PX
    for row in rows:
        x = GAP_PX
        for head, picture in zip(heads, row):
            draw.text((x, y), head, fill="black", font=font)
            sheet.paste(picture, (x, y + LABEL_PX))
            x += picture.width + GAP_PX
        y += HEIGHT_PX + LABEL_PX + GAP_PX
    return np.asarray(sheet)


def _thumbnail(file: Path) -> Image.Image:
    picture = Image.fromarray(read_rgb8(file))
    return picture.resize((round(picture.width * HEIGHT_PX / picture.height), HEIGHT_PX), Image.Resampling.LANCZOS)
