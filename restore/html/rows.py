"""What a page is made of: columns of scores, rows of pictures, tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from restore.errors import printable


@dataclass(frozen=True)
class Column:
    """A score: the key that rows have it under, its title, which end is good, and how many decimals are shown."""

    key: str
    title: str
    better: Literal["higher", "lower"]
    decimals: int


@dataclass(frozen=True)
class Row:
    """One picture in its versions.

    Attributes:
        name: of the picture; any text, also one that no file could have.
        scores: by column key; may be infinite. What is missing, or is no number, has no value.
        pictures: by label, in the order of the slider: uint8 H×W×3 sRGB, or a picture's file.
        mask: H×W, bool, or numbers of which at least half of the type's white (1 of floats) is hole; or a picture's
            file, white = hole. Its outline can be shown.
        note: why something has no score, warnings.
        group: what the rows can be narrowed to, like "awgn-25 · photo"; "" for none.
    """

    name: str
    scores: Mapping[str, float]
    pictures: Mapping[str, np.ndarray | Path]
    mask: np.ndarray | Path | None = None
    note: str = ""
    group: str = ""


@dataclass(frozen=True)
class PageTable:
    """A table of strings under a title; `folded` ones show no more than the title until they are asked for."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


def visible(text: str) -> str:
    """Text as one line that can be seen and stored: control characters, bytes that are no UTF-8 and turned writing
    directions are escaped.
    """
    try:
        return printable(text)
    except (UnicodeEncodeError, ValueError):  # halves of characters, as names on Windows may have them
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def plain_score(value: float | None) -> float | str | None:
    """A score as JSON can hold it: infinite ones as `"inf"` and `"-inf"`, none as null."""
    if value is None or math.isnan(value):
        return None
    return float(value) if math.isfinite(value) else "inf" if value > 0 else "-inf"
