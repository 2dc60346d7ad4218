"""`restore train`, and what its weights become elsewhere: `restore export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from restore.cli.console import TrainingDisplay, echo
from restore.cli.options import app, train_configs
from restore.errors import RestoreError, printable


@app.command()
def train(
    config: Annotated[
        str | None,
        typer.Argument(
            help="A shipped config's name (photo, inpaint, ...) or a YAML file.", autocompletion=train_configs
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE...", help="Change any key: data.batch=4 total_steps=1000."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the resolved config, sizes of the networks, memory and time to expect; draw one batch; stop.",
        ),
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a config, and stop.")] = False,
) -> None:
    """Train a network. The same command goes on where a stopped run left off; Ctrl-C saves first."""
    from restore.training.config import TrainConfig, load_train_config

    if schema:
        from restore.config import json_schema

        typer.echo(json.dumps(json_schema(TrainConfig), indent=1))
        return
    if config is None:
        from restore.config import config_names

        raise RestoreError("train what?", hint=f"name a config ({', '.join(config_names('train'))}) or a YAML file")
    settings = load_train_config(config, list(overrides or ()))
    if dry_run:
        from restore.training.dry_run import preview

        typer.echo(preview(settings, echo).text(), nl=False)
        return

    from restore.training.loop import train as run_training

    with TrainingDisplay(settings.total_steps) as display:
        result = run_training(settings, display.report)
    if not result.leads:
        # The first process tells how it ended; another's complaint would have it killed while it saves.
        raise typer.Exit(0)
    scores = ", ".join(f"{k} {v:.4f}" for k, v in result.best.items() if k != "step")
    if not result.finished:
        echo(f"stopped at step {result.step}; the same command goes on from there")
        raise typer.Exit(130)
    echo(f"finished; best at step {result.best.get('step')}: {scores}")
    typer.echo(printable(result.out / "best.safetensors"))


@app.command()
def export(
    source: Annotated[
        str, typer.Argument(metavar="RUN_OR_WEIGHTS", help="A run's folder, a weights file, or a pix2pix *_net_G.pth.")
    ],
    out: Annotated[Path, typer.Argument(help="A folder or NAME_net_G.pth for pix2pix; else NAME.safetensors.")],
    format: Annotated[
        Literal["pix2pix", "safetensors"],
        typer.Option(help="pix2pix (state dicts in the reference code's names) or safetensors (with a description)."),
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Write weights for pix2pix's own code, or published pix2pix weights for this one."""
    from restore.export import export as write

    written = write(source, out, format, overwrite=overwrite)
    for line in written.notes:
        echo(line)
    for file in written.files:
        typer.echo(printable(file))
