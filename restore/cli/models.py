"""`restore models` and `restore doctor`: what is there."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from restore.cli.console import print_table
from restore.cli.options import app, model_names


@app.command()
def models(
    name: Annotated[
        str | None, typer.Argument(help="Show the card of this one: data, scores, limits.", autocompletion=model_names)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List what can repair pictures or find damage (purpose, size, needs a mask or not), or show the card of one."""
    from restore.restorers.registry import list_restorers, model_card

    infos = list_restorers()
    if name is not None:
        card = model_card(name)
        facts = [vars(info) for info in infos if info.name == name]
        typer.echo(json.dumps({**dict(*facts), "card": card}, indent=1) if as_json else card.rstrip())
        return
    if as_json:
        typer.echo(json.dumps([vars(info) for info in infos], indent=1))
        return
    rows = [
        (
            i.name,
            "makes it" if i.finds else "yes" if i.needs_mask else "no",
            "-" if i.size_mb is None else f"{i.size_mb:.1f} MB",
            i.purpose,
        )
        for i in infos
    ]
    print_table(("model", "mask", "size", "purpose"), rows)


@app.command()
def doctor() -> None:
    """Print versions, devices, processor features, weights and LPIPS backbones: what a report of a fault needs."""
    from restore.environment import examine

    print_table(("what", "found"), examine())
