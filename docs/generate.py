"""Write the reference pages of the documentation from the code: command line, Python API, training config.

python docs/generate.py [FOLDER]        # default: docs/reference
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import typer
import typer.main
from typer.testing import CliRunner


def command_line() -> str:
    """Every command with its help text, as `--help` prints it at 100 columns."""
    from restore.cli.main import app

    names = _command_names(typer.main.get_command(app))
    pages = ["# Command line", "", "Generated from `--help`.", "", _help(app), ""]
    for name in names:
        pages += [f"## restore {name}", "", _help(app, *name.split()), ""]
    return "\n".join(pages)


def _command_names(group: Any) -> list[str]:
    """The commands of a group, and those of groups in it (`models get`)."""
    names = []
    for name, command in group.commands.items():
        if not command.hidden:
            inner = _command_names(command) if hasattr(command, "commands") else []
            names += [name, *(f"{name} {one}" for one in inner)]
    return names


def _help(app: typer.Typer, *command: str) -> str:
    # Rich reads the width from the environment when a console is made.
    environment = {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}
    text = CliRunner().invoke(app, [*command, "--help"], prog_name="restore", env=environment).stdout
    return "```text\n" + re.sub(r"[ \t]+$", "", text, flags=re.M).strip("\n") + "\n```"


def python_api() -> str:
    """Every public name of `restore` with its signature and docstring."""
    import restore

    pages = ["# Python API", "", "Generated from docstrings. Everything here is imported from `restore`.", ""]
    for name in restore.__all__:
        thing = getattr(restore, name)
        if not callable(thing):
            continue
        pages += [f"## `{name}`", ""]
        try:
            signature = str(inspect.signature(thing)).replace("'", "")
            signature = re.sub(r"<function <lambda> at \w+>", "...", signature)  # its address differs from run to run
            pages += ["```text", _wrapped(f"{name}{signature}"), "```", ""]
        except (TypeError, ValueError):
            pass
        pages += ["```text", inspect.getdoc(thing) or "", "```", ""]
        fields: dict[str, Any] = getattr(thing, "model_fields", {})
        if fields:
            pages += ["| field | default | meaning |", "|---|---|---|"]
            pages += [
                f"| `{key}` | `{field.default!r}` | {_cell(field.description)} |" for key, field in fields.items()
            ]
            pages += [""]
    return "\n".join(pages)


def _wrapped(signature: str) -> str:
    """A long signature with one parameter a line."""
    if len(signature) <= 100:
        return signature
    head, _, rest = signature.partition("(")
    inside, _, tail = rest.rpartition(")")
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(inside):
        depth += (letter in "[({") - (letter in "])}")
        if letter == "," and depth == 0:
            parts.append(inside[start:at].strip())
            start = at + 1
    parts.append(inside[start:].strip())
    return f"{head}(\n" + "".join(f"    {part},\n" for part in parts) + f"){tail}"


def config() -> str:
    """Every key of a training config with its type, default and description."""
    from restore.config import json_schema
    from restore.training.config import TrainConfig
    from restore.training.resume_keys import FIXED, MAY_CHANGE

    schema = json_schema(TrainConfig)
    pages = ["# Training config", "", "Generated from the schema (`restore train --schema`).", ""]
    pages += _section(schema, schema, "")
    pages += [
        "",
        "## Keys that may change on resume",
        "",
        "All others are refused, unless `resume.allow` names them.",
        "",
    ]
    pages += [", ".join(f"`{key}`" for key in MAY_CHANGE), ""]
    pages += [f"These can never change: {', '.join(f'`{key}`' for key in FIXED)}."]
    return "\n".join([*pages, ""])


def _section(part: dict[str, Any], schema: dict[str, Any], prefix: str) -> list[str]:
    rows = ["| key | default | meaning |", "|---|---|---|"]
    inner: list[str] = []
    for key, value in part["properties"].items():
        reference = value.get("$ref") or next((v["$ref"] for v in value.get("allOf", ()) if "$ref" in v), None)
        if reference is not None:
            target = schema["$defs"][reference.rpartition("/")[2]]
            # A section that may also be a plain path has its keys in one of two options.
            options = [target, *target.get("anyOf", ())]
            target = next((option for option in options if "properties" in option), target)
            if "properties" in target:
                inner += ["", f"## `{prefix}{key}`", "", value.get("description", target.get("description", "")), ""]
                inner += _section(target, schema, f"{prefix}{key}.")
                continue
        default = "required" if key in part.get("required", ()) else f"`{value.get('default')}`"
        rows.append(f"| `{prefix}{key}` | {default} | {_cell(value.get('description'))} |")
    return rows + inner


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def main() -> None:
    """Write the pages that differ from what is there."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("reference")
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in (("cli", command_line), ("python", python_api), ("config", config)):
        text = make().rstrip() + "\n"
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
