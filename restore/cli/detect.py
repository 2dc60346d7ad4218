"""`restore detect`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from restore.cli.console import Progress, echo
from restore.cli.options import DecodeSeconds, Device, Input, MaxPixels, Precision, Tile, app, model_names

Truncated = Literal["fail", "accept"]


@app.command()
def detect(
    input: Input,
    output: Annotated[
        str,
        typer.Argument(help="Where the masks go: a folder, for one picture also NAME.png; - is standard output."),
    ],
    model: Annotated[
        str, typer.Option(help="A detector of `restore models`, or a weights file.", autocompletion=model_names)
    ] = "detector",
    threshold: Annotated[
        float | None,
        typer.Option(min=0.01, max=0.99, help="Mark what is damaged with this probability. Default: the model's own."),
    ] = None,
    dilate: Annotated[
        int | None,
        typer.Option(min=0, max=100, help="Mark so many pixels around what is found. Default: the model's own."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace masks that exist.")] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave masks that exist, do the rest: goes on after a stop.")
    ] = False,
    tile: Tile = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    max_pixels: MaxPixels = 1_000_000_000,
    truncated: Annotated[
        Truncated, typer.Option(help="A damaged or cut picture: fail, or accept (look at what is there of it).")
    ] = "fail",
    decode_seconds: DecodeSeconds = 300,
) -> None:
    """Find damage: a mask for every picture, white where `restore fix --masks` is to repair. Pictures are only read."""
    from restore.fix.decoder_isolation import supervise

    # From here on in a process that a decoder may crash; it is started again, with the plan of the first start.
    watch = supervise(decode_seconds, echo)

    from restore.fix.detect import plan_detect, run_detect

    plan = watch.plan or plan_detect(input, output, overwrite=overwrite, skip_existing=skip_existing)
    watch.keep(plan)

    from restore.devices import limit_threads
    from restore.restorers.detector import open_detector

    limit_threads()
    detector = open_detector(model, device=device, precision=precision)
    with Progress("finding", len(plan.jobs)) as bar:
        summary = run_detect(
            plan, detector.adjusted(threshold=threshold, margin_px=dilate),
            tile=tile, max_pixels=max_pixels, truncated=truncated,
            progress=lambda record, done, total: bar.at(done, total), watch=watch,
        )  # fmt: skip
    # A filter in a pipe that has nothing to complain of says nothing.
    for line in [*summary.warnings, *summary.failures()] if output == "-" else summary.format():
        echo(line)
    raise typer.Exit(summary.exit_code)
