"""Words that the shell can complete: found without loading what they stand for, or the prompt would wait for it."""

from __future__ import annotations

from pathlib import Path

#: Methods without weights (`restore.restorers.classical.CLASSICAL`, which takes seconds to import).
CLASSICAL_NAMES = ("telea", "navier-stokes", "biharmonic", "nlmeans", "tv")

#: Damages of the literature (`restore.evaluate.bench_damage.LITERATURE`, likewise).
LITERATURE = (
    "none", "awgn-15", "awgn-25", "awgn-50", "jpeg-10", "jpeg-20", "jpeg-30", "jpeg-40", "bicubic-x2", "bicubic-x4",
)  # fmt: skip


def model_names(incomplete: str) -> list[str]:
    """Names for `--model` that begin so; none for a path, which the shell completes itself."""
    shipped = sorted(path.stem for path in (Path(__file__).parent / "weights").glob("*.safetensors"))
    return _beginning(incomplete, [*shipped, *CLASSICAL_NAMES])


def damage_names(incomplete: str) -> list[str]:
    """Names for `--damage` that begin so; YAML files are left to the shell."""
    return _config_names("damage", incomplete)


def bench_damage_names(incomplete: str) -> list[str]:
    """Names for `--damage` of `restore bench` that begin so."""
    return [*_beginning(incomplete, list(LITERATURE)), *damage_names(incomplete)]


def train_configs(incomplete: str) -> list[str]:
    """Names of shipped training configs that begin so; YAML files are left to the shell."""
    return _config_names("train", incomplete)


def _config_names(kind: str, incomplete: str) -> list[str]:
    from restore.settings import config_names

    return _beginning(incomplete, config_names(kind))


def _beginning(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
