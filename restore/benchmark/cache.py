"""The cache of `restore bench`: restored images and scores, keyed by a hash of everything that determines them."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

import restore
from restore.benchmark.worker import WorkerResult
from restore.errors import RestoreError
from restore.files import make_folder, sweep_leftovers, write_atomically
from restore.images import read_rgb8, write_png

#: Modules and packages that determine a restored image, relative to the package. Decoding is not among them, because
#: the pixels of the input are part of the key.
RESTORING_CODE = (
    "benchmark/worker.py", "checkpoints.py", "devices.py", "engines", "linear_light.py", "models", "restorers",
    "tiling.py",
)  # fmt: skip

#: Modules and packages that determine the scores of an image.
SCORING_CODE = ("metrics",)


@dataclass(frozen=True)
class CachedResult:
    """A restored image and how it was made.

    Attributes:
        path: lossless 8-bit file.
        pixels_sha256: hash of its pixels.
        stats: `seconds`, `cpu_seconds`, `megapixels`, `peak_bytes`, `idle_bytes`, `gpu_bytes`, `machine`, `notes` of
            the run that restored it, which may be an earlier one.
    """

    path: Path
    pixels_sha256: str
    stats: dict[str, Any]


class Cache:
    """Restored images and scores by key.

    An image is written before its description, both atomically, and verified when it is read. Files that a killed run
    or a failing disk left incomplete count as missing.

    Args:
        folder: created by the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sweep(self) -> None:
        """Remove temporary files of killed runs."""
        for path in self.folder.rglob("*"):
            if path.is_dir():
                sweep_leftovers(path)

    def find(self, key: str) -> CachedResult | None:
        """Look up a restored image; None if it is missing or incomplete."""
        path = self._path("restored", key)
        try:
            stats = json.loads(path.with_suffix(".json").read_bytes())
            actual = hash_of(read_rgb8(path))
        except (OSError, ValueError, RestoreError):
            return None
        expected = stats.pop("pixels_sha256", None) if isinstance(stats, dict) else None
        return CachedResult(path, actual, stats) if actual == expected else None

    def store(self, key: str, result: WorkerResult, **stats: Any) -> CachedResult:
        """Store a restored image.

        Raises:
            RestoreError: exit code 1; it cannot be written.
        """
        path = self._path("restored", key)
        make_folder(path.parent)
        write_png(path, result.pixels)
        digest = hash_of(result.pixels)
        stats = {
            "seconds": result.seconds, "cpu_seconds": result.cpu_seconds, "peak_bytes": result.peak_bytes,
            "idle_bytes": result.idle_bytes, "gpu_bytes": result.gpu_bytes, "notes": list(result.notes), **stats,
        }  # fmt: skip
        write_atomically(path.with_suffix(".json"), json.dumps({"pixels_sha256": digest, **stats}, indent=1).encode())
        return CachedResult(path, digest, stats)

    def find_scores(self, key: str) -> dict[str, float] | None:
        """Look up scores; None if they are missing."""
        try:
            scores = json.loads(self._path("scores", key).with_suffix(".json").read_bytes())
            return {name: float(value) for name, value in scores.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return None

    def store_scores(self, key: str, scores: Mapping[str, float]) -> None:
        """Store scores; infinite values and NaN as strings."""
        values = {name: value if np.isfinite(value) else str(value) for name, value in scores.items()}
        with suppress(RestoreError):  # scores are quick to compute again
            write_atomically(self._path("scores", key).with_suffix(".json"), json.dumps(values).encode())

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / kind / key[:2] / f"{key[2:]}.png"


def key_of(code: Iterable[str], **parts: Any) -> str:
    """Hash plain values by name, together with the code that computes the result.

    Args:
        code: `RESTORING_CODE` or `SCORING_CODE`.
        parts: everything else that decides the result.
    """
    return hashlib.sha256(json.dumps({**parts, "code": code_hash(*code)}, sort_keys=True).encode()).hexdigest()


@functools.cache
def code_hash(*parts: str) -> str:
    """Hash modules and packages of restore by their syntax trees, which comments and docstrings do not change."""
    folder = Path(restore.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for part in parts for path in _modules(folder / part)):
        tree = _without_docstrings(ast.parse(path.read_bytes()))
        digest.update(f"{path.relative_to(folder).as_posix()} {ast.dump(tree)}\n".encode())
    return digest.hexdigest()


def _modules(path: Path) -> Iterable[Path]:
    return path.rglob("*.py") if path.is_dir() else [path]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    """Remove statements that are only a string: docstrings of modules, classes, functions and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [statement for statement in node.body if not _is_string(statement)]
    return tree


def _is_string(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def hash_of(*arrays: np.ndarray | Tensor | None) -> str:
    """Hash arrays by shape, type and values."""
    digest = hashlib.sha256()
    for array in arrays:
        values = np.asarray(array) if array is not None else np.zeros(0, np.uint8)
        digest.update(f"{values.dtype} {values.shape} ".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
