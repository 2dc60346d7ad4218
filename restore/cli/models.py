"""`restore models` and `restore doctor`: the models, and the state of the installation."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from restore.cli.console import echo, print_table
from restore.cli.options import app, model_names


@app.command()
def models(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|FILE]",
            help="Show this model's card: a name, a weights file, or the folder of a training run.",
            autocompletion=model_names,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models, or show the card of one: architecture, size, input, weights, training, scores, limits."""
    if model is not None:
        from restore.restorers.model_card import model_card

        card = model_card(model)
        typer.echo(json.dumps(card.to_dict(), indent=1) if as_json else "\n".join(card.format()))
        return
    from restore.restorers.registry import list_restorers

    infos = list_restorers()
    if as_json:
        typer.echo(json.dumps([vars(info) for info in infos], indent=1))
        return
    rows = [
        (
            info.name,
            "makes it" if info.finds else "yes" if info.needs_mask else "no",
            "-" if info.size_mb is None else f"{info.size_mb:.1f} MB",
            info.purpose,
        )
        for info in infos
    ]
    print_table(("model", "mask", "size", "purpose"), rows)


@app.command()
def doctor(
    bench: Annotated[
        bool, typer.Option("--bench", help="Measure how fast each engine runs a network here (about a minute).")
    ] = False,
) -> None:
    """Print versions, devices, engines, processor features, weights and LPIPS backbones, for bug reports."""
    if bench:
        from restore.benchmark.engines import advice, measure_engines
        from restore.devices import limit_threads

        limit_threads()
        speeds = measure_engines(on_event=echo)
        rows = [(s.engine, s.precision, f"{s.seconds_per_megapixel:.2f}", s.compared_with(speeds)) for s in speeds]
        print_table(("engine", "precision", "s/megapixel", "speed"), rows)
        for line in advice(speeds):
            typer.echo(line)
        return

    from restore.environment import examine

    print_table(("what", "found"), examine())
