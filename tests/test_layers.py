"""Which part of the package may import which.

A file imports only from lower layers or from its own folder, and no two files import each other while they load.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "restore"

#: Part -> layer. A part may import parts of a lower layer.
LAYERS = {
    # Errors and signals know nothing of the package, so that anything may use them.
    "__init__": 0,
    "_version": 0,
    "errors": 0,
    "signals": 0,
    "progress": 0,
    # Services without a subject: files on the disk, settings, devices.
    "files": 1,
    "config": 1,
    "devices": 1,
    "process": 1,
    "linear_light": 1,
    "packed": 1,
    # Images, networks and numbers, each of which stands alone.
    "hashed_random": 2,
    "box_filter": 2,
    "images": 2,
    "tiling": 2,
    "models": 2,
    "metrics": 2,
    # What is made from one of them: degraded images, losses of networks, weights of networks, pages of images.
    "degradations": 3,
    "losses": 3,
    "checkpoints": 3,
    "html": 3,
    "plotting": 3,
    # Video files; their frames are images.
    "video": 3,
    # An engine runs a network with its weights.
    "engines": 4,
    # A restorer is a network with its weights; training data are images with their degradations.
    "restorers": 5,
    "data": 5,
    "environment": 5,
    # The programs: repair, training, scoring.
    "fix": 6,
    "hub": 6,
    "training": 6,
    "evaluation": 6,
    # What runs other programs: the benchmark runs the repair, the export checks what it wrote.
    "benchmark": 7,
    "export": 7,
    "api": 7,
    # Repairs of objects in stores.
    "places": 7,
    # The server runs the programs in processes of its own.
    "serve": 8,
    # So does a cluster, on other machines.
    "cluster": 8,
    "cli": 9,
}


def modules() -> dict[str, Path]:
    """Dotted name -> file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def statements(tree: ast.AST, *, on_load: bool) -> Iterator[ast.AST]:
    """All nodes; with `on_load` only those that run while the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if on_load and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if on_load and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from statements(node, on_load=on_load)


@cache
def imports(path: Path, *, on_load: bool) -> set[str]:
    """The modules of the package that a file imports."""
    found = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), on_load=on_load):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            while name and name not in MODULES:
                name = name.rpartition(".")[0]
            found |= {name} - {""}
    return found


def loaded_with(name: str) -> set[str]:
    """The modules of the package that are loaded when one of them is imported."""
    loaded: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module and module not in loaded:
            loaded.add(module)
            waiting += [module.rpartition(".")[0], *imports(MODULES[module], on_load=True)]
    return loaded


def part_of(name: str) -> str:
    """The entry of the layer table that a module belongs to: its folder, or itself."""
    return [*name.split("."), "__init__"][1]


def in_new_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_package_loads_nothing() -> None:
    probe = "import sys, restore; print([m for m in sys.modules if m.startswith('restore.') or m == 'torch'])"
    assert in_new_process(probe) == "[]"


# The package's own file imports `fix_folder` and its like when they are first used.
@pytest.mark.parametrize("name", [name for name in MODULES if name != "restore"])
def test_imports_point_downwards(name: str) -> None:
    own = part_of(name)
    assert own in LAYERS, f"{own} has no layer: add it to the list, with a reason"
    for part in {part_of(other) for other in imports(MODULES[name], on_load=False)} - {own}:
        assert LAYERS[part] < LAYERS[own], f"{own} (layer {LAYERS[own]}) imports {part} (layer {LAYERS[part]})"


def test_no_modules_import_each_other() -> None:
    graph = {name: imports(path, on_load=True) for name, path in MODULES.items()}
    while leaves := {name for name, others in graph.items() if not others & graph.keys()}:
        graph = {name: others for name, others in graph.items() if name not in leaves}
    assert not graph, f"these modules are in a circle, or import one: {', '.join(sorted(graph))}"


@pytest.mark.parametrize(
    ("part", "banned"),
    [
        ("fix", "degradations"),
        ("restorers", "degradations"),
        ("fix", "training"),
        ("evaluation", "training"),
        ("benchmark", "training"),
    ],
)
def test_what_a_user_runs_loads_nothing_else(part: str, banned: str) -> None:
    for name in MODULES:
        if part_of(name) == part:
            assert banned not in {part_of(other) for other in loaded_with(name)}, f"{name} loads {banned}"


def test_opening_a_model_of_one_network_is_quick() -> None:
    """scikit-image and SciPy take seconds to load, and only classical restorers need them."""
    probe = "import sys, restore; restore.open_restorer('photo'); print({'skimage', 'scipy'} & set(sys.modules) or '')"
    assert in_new_process(probe) == ""


def test_no_file_is_named_for_nothing() -> None:
    names = {path.stem for path in MODULES.values()} | {path.parent.name for path in MODULES.values()}
    assert not names & {"utils", "util", "common", "core", "helpers", "misc"}
