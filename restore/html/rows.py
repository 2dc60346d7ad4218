"""The content of a page: columns of scores, rows of images, tables."""

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
    """A score: its key in `Row.scores`, title, better direction and number of decimals."""

    key: str
    title: str
    better: Literal["higher", "lower"]
    decimals: int


@dataclass(frozen=True)
class Row:
    """The versions of one image.

    Attributes:
        name: any text.
        scores: by column key. Values may be infinite; NaN counts as missing.
        images: by label, in the order of the viewer: uint8 H×W×3 sRGB, or a file.
        mask: bool H×W, True = hole; or numbers, where at least half of the type's maximum (1 for floats) is hole; or a
            file, white = hole. The viewer can outline it.
        note: warnings, and why scores are missing.
        group: value of the group filter, such as "awgn-25 · photo"; "" for none.
        shown: label of the image in the list; "": the last one that is not the reference.
        layers: labels of images that say something of the others; they are not compared with the reference.
    """

    name: str
    scores: Mapping[str, float]
    images: Mapping[str, np.ndarray | Path]
    mask: np.ndarray | Path | None = None
    note: str = ""
    group: str = ""
    shown: str = ""
    layers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PageTable:
    """A table of strings with a title; `folded` tables are collapsed at first."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


def visible(text: str) -> str:
    """Text as one printable line: control characters, undecodable bytes and direction marks are escaped."""
    try:
        return printable(text)
    except (UnicodeEncodeError, ValueError):  # lone surrogates, possible in names on Windows
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def plain_score(value: float | None) -> float | str | None:
    """A score as a JSON value: infinity as `"inf"` or `"-inf"`, a missing score as null."""
    if value is None or math.isnan(value):
        return None
    return float(value) if math.isfinite(value) else "inf" if value > 0 else "-inf"
