"""The documentation names what there is, and the generated reference holds all of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from restore.cli.main import app
from restore.config import known_keys
from restore.training.config import TrainConfig
from tests.docs.test_commands import PAGES, ROOT, name

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
COMMANDS |= {
    f"{group} {name}": c for group, g in list(COMMANDS.items()) for name, c in getattr(g, "commands", {}).items()
}
#: Options of other programs that the pages name.
OTHERS = {"--index-url", "--constraint", "--torch-backend", "--only", "--eval", "--version", "--debug", "--help"}
OTHERS |= {"--install-completion", "--show-completion"}
OTHERS |= {"--nnodes", "--node-rank", "--nproc-per-node", "--master-addr", "--master-port", "--no-python"}
OTHERS |= {"--max-restarts", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id"}
OTHERS |= {"--nodes", "--ntasks-per-node", "--gpus-per-node", "--cpus-per-task", "--time", "--signal", "--requeue"}
OTHERS |= {"--open-mode", "--head", "--address"}


def options() -> set[str]:
    return {option for c in COMMANDS.values() for p in c.params for option in (*p.opts, *p.secondary_opts)}


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name not in ("reference", "evidence")], ids=name)
def test_a_page_names_no_option_that_is_not_there(page: Path) -> None:
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", page.read_text(encoding="utf-8")))
    assert used <= options() | OTHERS, used - options() - OTHERS


def test_every_command_is_in_the_pages() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES if page.parent.name != "reference")
    missing = [command for command in COMMANDS if not re.search(rf"restore {command}\b", text)]
    assert not missing


def test_the_installation_names_every_extra() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = project.split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"^([a-z-]+) = \[", table, flags=re.M)) - {"dev"}
    page = (ROOT / "docs/start/install.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+?) \|", page.split("## Extras")[1], flags=re.M)
    assert {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)} == extras


def test_the_generated_reference_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    import generate  # type: ignore[import-not-found]

    import restore

    line = generate.command_line()
    for command, found in COMMANDS.items():
        if not found.hidden:
            assert f"## restore {command}" in line
    shown = {
        o for c in COMMANDS.values() if not c.hidden for p in c.params if not p.hidden for o in p.opts if o[0] == "-"
    }
    assert not [option for option in shown if option not in line]
    assert not [
        n for n in restore.__all__ if callable(getattr(restore, n)) and f"## `{n}`" not in generate.python_api()
    ]
    config = generate.config()
    assert not [key for key in known_keys(TrainConfig) if f"`{key}`" not in config]
