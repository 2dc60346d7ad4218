"""`restore models` and `restore doctor`: what is there."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from restore.cli.program import app
from restore.display import print_table


@app.command()
def models(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List what can repair pictures, or find what is to be repaired: purpose, size, needs a mask or not."""
    from restore.restorers.open import list_restorers

    infos = list_restorers()
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
    from restore.doctor import examine

    print_table(("what", "found"), examine())
