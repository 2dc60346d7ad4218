"""`restore models` and `restore doctor`: the models, and the state of the installation."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from restore.cli.console import echo, print_table
from restore.cli.options import Command, Group, app, model_names


class ModelsGroup(Group):
    """A group whose first argument may also be the name of a model: `restore models photo` shows its card."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find a command, or else the one that shows a card."""
        if args and args[0] not in self.commands:
            args = ["card", *args]
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete commands and the names of models."""
        item = type(super().shell_complete(ctx, "")[0])  # of the click that Typer holds
        return [*super().shell_complete(ctx, incomplete), *map(item, model_names(incomplete))]


models = typer.Typer(
    cls=ModelsGroup,
    invoke_without_command=True,
    subcommand_metavar="[NAME|FILE | COMMAND [ARGS]...]",
    rich_markup_mode=None,
)
app.add_typer(models, name="models")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@models.callback()
def list_models(ctx: typer.Context, as_json: Json = False) -> None:
    """List the models, or show the card of one: a name, a weights file, or the folder of a training run."""
    ctx.obj = as_json
    if ctx.invoked_subcommand is not None:
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


@models.command(cls=Command)
def card(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE",
            help="A name, a weights file, or the folder of a training run.",
            autocompletion=model_names,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show the card of a model: architecture, size, input, weights, training, scores, limits.

    The word `card` may be left out.
    """
    from restore.restorers.model_card import model_card

    found = model_card(model)
    typer.echo(json.dumps(found.to_dict(), indent=1) if as_json or ctx.obj else "\n".join(found.format()))


@models.command(cls=Command)
def get(
    source: Annotated[
        str,
        typer.Argument(metavar="OWNER/NAME|URL", help="A repository on the hub, or the https URL of a file."),
    ],
    sha256: Annotated[
        str | None,
        typer.Option(metavar="SUM", help="SHA-256 of the weights, checked before they are kept; required for a URL."),
    ] = None,
    name: Annotated[str | None, typer.Option("--as", metavar="NAME", help="Name for --model.")] = None,
    file: Annotated[
        str | None, typer.Option(metavar="NAME", help="Weights file in the repository, if there are several.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="NAME", help="Branch, tag or commit of the repository.")
    ] = None,
    max_mb: Annotated[float, typer.Option(min=0, metavar="N", help="Refuse a larger file.")] = 2048,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a fetched model of this name.")] = False,
) -> None:
    """Fetch a model from a hub or a URL, with its card and licence, for use with --model NAME.

    The files go into the folder restore/models of the user's data directory. --model itself never downloads.
    """
    from restore.hub.fetch import fetch_model

    fetched = fetch_model(
        source, sha256=sha256, name=name, file=file, revision=revision, max_mb=max_mb, overwrite=overwrite
    )  # fmt: skip
    origin = fetched.origin
    size_mb = fetched.path.stat().st_size / 1e6
    typer.echo(f"{fetched.name}: {size_mb:.1f} MB, licence {origin.licence or 'not stated'}, {fetched.path}")
    typer.echo(f"sha256 {origin.sha256}" + (f", revision {origin.revision}" if origin.revision else ""))
    for note in fetched.notes:
        echo(f"note: {note}")


@models.command(cls=Command)
def push(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE", help="A name, a weights file, or the folder of a run.", autocompletion=model_names
        ),
    ],
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="The repository; created if it does not exist.")
    ],
    licence: Annotated[
        str | None,
        typer.Option(
            "--license", metavar="NAME", help="Licence of the weights, as the hub names it, such as apache-2.0."
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Push a model to a hub, with its card, its licence and the credits of its photographs."""
    from restore.checkpoints import find_weights
    from restore.hub.fetch import hub_library

    hub_library()
    from restore.hub.mixin import HubModel

    hub_model = HubModel(find_weights(model))
    hub_model.licence = licence or hub_model.licence
    typer.echo(hub_model.push_to_hub(repository, private=private or None))


@app.command(cls=Command)
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
