"""`restore train`."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from restore.cli.console import TrainingDisplay, echo
from restore.cli.options import Command, app, train_configs
from restore.errors import RestoreError, printable

_BEGAN = time.perf_counter()  # before PyTorch is imported, which takes seconds of a budget


@app.command(cls=Command)
def train(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG",
            help="Name of a shipped config (photo, inpaint, ...), or a YAML file.",
            autocompletion=train_configs,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE...", help="Override keys of the config: data.batch=4 total_steps=1000."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="End within this time (10min, 2h, 1h30min), with a complete schedule: total_steps is set from the "
            "speed of the first steps.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the resolved config, network sizes, and estimated memory and time; save a batch as an image.",
        ),
    ] = False,
    lr_finder: Annotated[
        bool,
        typer.Option(
            "--lr-finder", help="With --dry-run: raise the learning rate over 100 steps, plot the loss, suggest a rate."
        ),
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of configs, with every key.")] = False,
) -> None:
    """Train a network. Ctrl-C saves the state, and the same command resumes the run."""
    from restore.training.config import TrainConfig, load_train_config

    if schema:
        from restore.config import json_schema

        typer.echo(json.dumps(json_schema(TrainConfig), indent=1))
        return
    if config is None:
        from restore.config import config_names

        raise RestoreError("no config given", hint=f"use one of {', '.join(config_names('train'))}, or a YAML file")
    settings = load_train_config(config, [*(overrides or ()), *([] if budget is None else [f"budget={budget}"])])
    if dry_run:
        from restore.training.dry_run import preview

        typer.echo(preview(settings, echo, lr_finder=lr_finder).text(), nl=False)
        return
    if lr_finder:
        raise RestoreError("requires --dry-run", where="--lr-finder", hint="add --dry-run, or leave it out")

    from restore.training.loop import train as run_training

    with TrainingDisplay(settings.total_steps) as display:
        result = run_training(settings, display.report, began=_BEGAN)
    if not result.leads:
        # Rank 0 reports the result. A failure of another rank would make the launcher kill rank 0 while it saves.
        raise typer.Exit(0)
    if not result.finished:
        echo(f"stopped at step {result.step}; the same command resumes the run")
        raise typer.Exit(130)
    if not result.best:
        raise RestoreError(
            "finished without best weights, because no validation gave a score",
            where=result.out,
            hint="the last state is in last/; NaN in the weights is the usual cause: lower optimizer.lr",
            exit_code=3,
        )
    scores = ", ".join(f"{k} {v:.4f}" for k, v in result.best.items() if k != "step")
    echo(f"finished; best at step {result.best['step']}: {scores}")
    typer.echo(printable(result.out / "best.safetensors"))
