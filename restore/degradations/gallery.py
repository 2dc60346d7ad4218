"""`restore degrade --gallery`: every degradation at five strengths on one photograph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from restore.degradations import Degradation, key, load_degradation
from restore.degradations.pipeline import degradation_from
from restore.images.contact_sheet import Cell, draw_sheet, read_named

STRENGTHS = 5
CELL_PX = (264, 198)
"""Size (width, height) of a cell. The photograph is resized to it before it is degraded, so one image pixel is one
pixel of the sheet.
"""


@dataclass(frozen=True)
class Kind:
    """One row: a step at five strengths.

    Attributes:
        title: heading of the row.
        step: the name of the step and its constant settings.
        varied: the settings that vary, five values each.
        caption: template for the caption of an image, with the varied settings in braces.
    """

    title: str
    step: Mapping[str, Any]
    varied: Mapping[str, tuple[Any, ...]]
    caption: str


KINDS: tuple[Kind, ...] = (
    Kind("noise", {"name": "noise"}, {"sigma": (5, 15, 25, 50, 75)}, "sigma {sigma} of 255"),
    Kind("shot noise", {"name": "noise", "sigma": 2}, {"shot": (10, 20, 40, 60, 90)}, "{shot} of 255 at white"),
    Kind(
        "film grain", {"name": "noise", "sigma": 20, "gray": 1},
        {"correlation": (0.3, 0.5, 0.8, 1.2, 2)}, "sigma 20, grain of {correlation} px",
    ),
    Kind("camera noise", {"name": "camera-noise"}, {"shot": (0.0002, 0.001, 0.003, 0.008, 0.03)}, "{shot} at white"),
    Kind("blur", {"name": "blur"}, {"sigma": (0.6, 1, 1.6, 2.5, 4)}, "sigma {sigma} px"),
    Kind(
        "motion blur", {"name": "motion-blur", "angle": 30},
        {"length": (3, 5, 9, 15, 25)}, "{length} px",
    ),
    Kind("sharpened", {"name": "sharpen", "sigma": 1}, {"amount": (0.3, 0.6, 1, 1.5, 2.5)}, "amount {amount}"),
    Kind("JPEG", {"name": "jpeg"}, {"quality": (60, 40, 20, 10, 5)}, "quality {quality}, 4:2:0"),
    Kind("enlarged", {"name": "downscale"}, {"factor": (1.5, 2, 3, 4, 6)}, "enlarged {factor} times"),
    Kind(
        "faded", {"name": "fade", "gamma": 1, "warmth": 0.8},
        {
            "black": (0.04, 0.1, 0.16, 0.23, 0.3), "white": (0.98, 0.94, 0.88, 0.82, 0.74),
            "saturation": (0.85, 0.7, 0.55, 0.4, 0.2), "cast": (0.02, 0.04, 0.07, 0.1, 0.14),
        },
        "black {black}, white {white}",
    ),
    Kind("gray", {"name": "grayscale"}, {"weight_jitter": (0, 0.25, 0.5, 0.75, 1)}, "weight jitter {weight_jitter}"),
    Kind(
        "paper texture", {"name": "paper-texture", "period": 5},
        {"amplitude": (0.02, 0.05, 0.1, 0.15, 0.25)}, "amplitude {amplitude}",
    ),
    Kind("scratches", {"name": "scratch", "width": [3, 7]}, {"count": (3, 6, 12, 24, 48)}, "count {count}"),
    Kind("hairs", {"name": "hair", "width": [3, 5]}, {"count": (2, 5, 10, 20, 40)}, "count {count}"),
    Kind("dust", {"name": "dust", "width": [3, 8]}, {"count": (20, 60, 150, 300, 600)}, "count {count}"),
    Kind("cracks", {"name": "crack", "width": [2, 4]}, {"count": (1, 3, 6, 12, 24)}, "count {count}"),
    Kind("folds", {"name": "fold", "count": 1, "opacity": 0.9}, {"width": (2, 4, 7, 11, 16)}, "{width} px at 512"),
    Kind(
        "tears", {"name": "tear", "count": 2, "lost": 0},
        {"width": (4, 8, 14, 22, 32), "length": (60, 110, 160, 210, 260)}, "{width} px wide at 512",
    ),
    Kind("stains", {"name": "stain", "count": 3}, {"opacity": (0.15, 0.3, 0.45, 0.6, 0.75)}, "opacity {opacity}"),
    Kind(
        "fissures", {"name": "fissure", "opacity": 1, "bright": 1, "width": [3, 9]},
        {"count": (1, 3, 6, 12, 24)}, "count {count}",
    ),
    Kind(
        "creases", {"name": "crease", "count": 4, "width": 3, "opacity": 1, "bright": 1},
        {"relief": (0.06, 0.1, 0.14, 0.2, 0.3)}, "relief {relief}",
    ),
    Kind(
        "families of scratches", {"name": "line-scratch", "width": [1.5, 5], "opacity": 0.8, "bright": 1},
        {"count": (3, 8, 20, 40, 80)}, "count {count}",
    ),
    Kind(
        "abrasion", {"name": "abrasion", "count": 2, "width": [2, 4], "size": 120, "bright": 1},
        {"opacity": (0.3, 0.45, 0.6, 0.8, 1)}, "opacity {opacity}",
    ),
    Kind(
        "specks", {"name": "speck", "width": [2, 9], "opacity": 0.9, "bright": 1, "halo": 0.4},
        {"count": (10, 40, 100, 250, 600)}, "count {count}",
    ),
    Kind(
        "glass crack", {"name": "glass-crack", "count": 1, "width": 5},
        {"opacity": (0.15, 0.3, 0.45, 0.6, 0.9)}, "opacity {opacity}",
    ),
    Kind("chips", {"name": "chip", "count": 4}, {"size": (10, 20, 35, 55, 80)}, "radius {size} px at 512"),
    Kind(
        "lost corners", {"name": "lost-edge", "count": 3, "border": 0},
        {"size": (20, 40, 65, 95, 130)}, "{size} px deep at 512",
    ),
    Kind("smears", {"name": "smear", "count": 2, "light": 0}, {"size": (40, 80, 130, 190, 260)}, "{size} px at 512"),
    Kind(
        "tape", {"name": "tape", "count": 1, "seam": 0, "width": 60},
        {"tint": (0.1, 0.2, 0.3, 0.4, 0.5)}, "tint {tint}",
    ),
    Kind(
        "holes: strokes", {"name": "strokes", "count": 6, "max_length": 120},
        {"max_width": (6, 16, 32, 64, 100)}, "up to {max_width} px wide at 512",
    ),
    Kind("holes: boxes", {"name": "boxes", "count": 3}, {"side": (30, 60, 100, 150, 220)}, "{side} px at 512"),
    Kind("holes: blobs", {"name": "blobs", "count": 3}, {"size": (20, 40, 65, 95, 130)}, "radius {size} px at 512"),
    Kind("holes: borders", {"name": "border", "sides": 3}, {"depth": (15, 35, 60, 90, 120)}, "{depth} px at 512"),
    Kind(
        "text", {"name": "text", "kinds": ["words"], "opacity": 1, "outlined": 0},
        {"size": (20, 28, 38, 50, 64)}, "about {size} px at 512",
    ),
)  # fmt: skip

#: Shipped degradations that combine random steps have no single strength, so the sheet shows five draws of each.
MIXED = (
    "mixed", "old-photo", "aged", "print", "negative", "film", "inpaint-text", "inpaint-border", "inpaint-blobs",
    "inpaint-large",
)  # fmt: skip


def draw_gallery(photo: Path | None = None, *, seed: int = 0) -> np.ndarray:
    """Draw the sheet: one row per kind, from mild to strong, then five draws of each degradation in `MIXED`.

    Args:
        photo: a photograph; None: scikit-image's astronaut.
        seed: the same seed gives the same sheet.

    Returns:
        uint8, H×W×3.

    Raises:
        RestoreError: exit code 2: the photograph cannot be read.
    """
    clean = _fit_to_cell(_astronaut() if photo is None else read_named(photo))
    name = "astronaut (scikit-image)" if photo is None else photo.name
    rows = [[Cell(clean, "clean")]]
    for kind in KINDS:
        cells = []
        for strength in range(STRENGTHS):
            values = {setting: choices[strength] for setting, choices in kind.varied.items()}
            damage = degradation_from([{**kind.step, **values}], kind.title)
            title = kind.title if strength == 0 else ""
            cells.append(Cell(_damaged(clean, damage, key(seed, kind.title)), title, kind.caption.format(**values)))
        rows.append(cells)
    for shipped in MIXED:
        damage = load_degradation(shipped)
        rows.append(
            [
                Cell(_damaged(clean, damage, key(seed, shipped, draw)), f"{shipped}: five draws" if draw == 0 else "")
                for draw in range(STRENGTHS)
            ]
        )
    note = (
        f"Photograph: {name}, {clean.shape[1]}x{clean.shape[0]} pixels; seed {seed}. Mild on the left, strong on the "
        "right. Sizes of marks and holes are for an image whose smaller side is 512 px, and scale with the image."
    )
    return draw_sheet(rows, heading="Degradations", note=note)


def _damaged(clean: np.ndarray, damage: Degradation, seed: int) -> np.ndarray:
    image = torch.tensor(clean).permute(2, 0, 1)[None].float() / 255
    damaged, _ = damage(image, torch.tensor([seed], dtype=torch.int64))
    return (damaged[0].permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _fit_to_cell(photo: np.ndarray) -> np.ndarray:
    """Resize the photograph to cover a cell, and crop it to the cell."""
    width, height = CELL_PX
    share = max(width / photo.shape[1], height / photo.shape[0])
    size = (max(width, round(photo.shape[1] * share)), max(height, round(photo.shape[0] * share)))
    whole = Image.fromarray(np.ascontiguousarray(photo)).resize(size, Image.Resampling.LANCZOS)
    # Faces and other subjects are more often slightly above the middle than below it.
    left, top = (size[0] - width) // 2, (size[1] - height) // 4
    return np.asarray(whole.crop((left, top, left + width, top + height)))


def _astronaut() -> np.ndarray:
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[..., :3])
