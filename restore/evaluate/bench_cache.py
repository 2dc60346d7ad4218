"""What a benchmark has computed, by content: the same model on the same input is never run twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

import restore
from restore.errors import RestoreError
from restore.evaluate.bench_worker import Outcome
from restore.files import sweep_leftovers, why_not_written, write_atomically
from restore.images import read_rgb8, save_png


@dataclass(frozen=True)
class Kept:
    """A restored picture and how it came about.

    Attributes:
        path: lossless, 8 bits.
        pixels_sha256: of its pixels.
        facts: `seconds`, `megapixels`, `peak_bytes`, `idle_bytes`, `gpu_bytes`, `machine`, `notes`: of the run
            that made it, however long ago.
    """

    path: Path
    pixels_sha256: str
    facts: dict[str, Any]


class Cache:
    """Restored pictures and scores under the hash of everything that they depend on.

    A picture is written before its description, each atomically, and checked when it is read: what a killed run or a
    failing disk has left half is not there.

    Args:
        folder: made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sweep(self) -> None:
        """Remove what killed runs have left."""
        for below in self.folder.rglob("*"):
            if below.is_dir():
                sweep_leftovers(below)

    def find(self, key: str) -> Kept | None:
        """A restored picture, if it is there and whole."""
        path = self._place("restored", key)
        try:
            facts = json.loads(path.with_suffix(".json").read_bytes())
            found = hash_of(read_rgb8(path))
        except (OSError, ValueError, RestoreError):
            return None
        known = facts.pop("pixels_sha256", None) if isinstance(facts, dict) else None
        return Kept(path, found, facts) if found == known else None

    def keep(self, key: str, outcome: Outcome, **facts: Any) -> Kept:
        """Store what a model made.

        Raises:
            RestoreError: exit code 1; it cannot be written.
        """
        path = self._place("restored", key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RestoreError(why_not_written(error), where=path, exit_code=1) from error
        save_png(path, outcome.pixels)
        digest = hash_of(outcome.pixels)
        known = {
            "seconds": outcome.seconds, "peak_bytes": outcome.peak_bytes, "idle_bytes": outcome.idle_bytes,
            "gpu_bytes": outcome.gpu_bytes, "notes": list(outcome.notes), **facts,
        }  # fmt: skip
        write_atomically(path.with_suffix(".json"), json.dumps({"pixels_sha256": digest, **known}, indent=1).encode())
        return Kept(path, digest, known)

    def find_scores(self, key: str) -> dict[str, float] | None:
        """Scores, if they are there."""
        try:
            scores = json.loads(self._place("scores", key).with_suffix(".json").read_bytes())
            return {name: float(value) for name, value in scores.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return None

    def keep_scores(self, key: str, scores: Mapping[str, float]) -> None:
        """Store scores; infinite ones and those that are no numbers as words."""
        values = {name: value if np.isfinite(value) else str(value) for name, value in scores.items()}
        with suppress(RestoreError):  # they are quickly computed again
            write_atomically(self._place("scores", key).with_suffix(".json"), json.dumps(values).encode())

    def _place(self, kind: str, key: str) -> Path:
        return self.folder / kind / key[:2] / f"{key[2:]}.png"


def key_of(**parts: Any) -> str:
    """The hash of plain values by name, and of this package's code: other code, other results."""
    return hashlib.sha256(json.dumps({**parts, "code": code_hash()}, sort_keys=True).encode()).hexdigest()


@cache
def code_hash() -> str:
    """The hash of all modules of this package, of their names and what is in them."""
    folder = Path(restore.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def hash_of(*arrays: np.ndarray | Tensor | None) -> str:
    """The hash of pixels: shapes, types and values."""
    digest = hashlib.sha256()
    for array in arrays:
        values = np.asarray(array) if array is not None else np.zeros(0, np.uint8)
        digest.update(f"{values.dtype} {values.shape} ".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
