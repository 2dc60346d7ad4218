"""A file imports only from lower layers, or from its own folder."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "restore"

LAYERS = {
    "__init__": 0, "errors": 0, "signals": 0, "hashed_random": 1, "config": 0.5, "files": 0.5,
    "devices": 0.5, "images": 1, "tiling": 1, "degradations": 2, "models": 1, "metrics": 1,
    "losses": 2, "data": 3, "checkpoints": 2, "html": 2,
    "restorers": 3, "training": 4,
    "fix": 4, "evaluation": 4, "benchmark": 5,
    "environment": 3, "export": 5, "plotting": 2,
    "cli": 6,
}  # fmt: skip


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def unit_of(path: Path) -> str:
    """The part of the layer table that a file belongs to: its folder, or itself."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported_units(path: Path) -> set[str]:
    units = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "restore":
                known = len(parts) > 1 and parts[1] in LAYERS
                units.add(parts[1] if known else "__init__")
    return units


# The package's own file hands out `fix_folder` and `open_restorer` when asked; it must load nothing by itself.
FACADE = PACKAGE / "__init__.py"


def test_importing_the_package_loads_nothing() -> None:
    probe = "import sys, restore; print([m for m in sys.modules if m.startswith('restore.') or m == 'torch'])"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("path", [m for m in modules() if m != FACADE], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    own = unit_of(path)
    assert own in LAYERS, f"{own} has no layer: add it to the list, with a reason"
    for unit in imported_units(path) - {own}:
        assert LAYERS[unit] < LAYERS[own], f"{own} (layer {LAYERS[own]}) imports {unit} (layer {LAYERS[unit]})"


def test_no_file_is_named_for_nothing() -> None:
    names = {p.stem for p in modules()} | {p.parent.name for p in modules()}
    assert not names & {"utils", "util", "common", "core", "helpers", "misc"}
