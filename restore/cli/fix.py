"""`restore fix`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from restore.cli.console import Progress, echo
from restore.cli.options import DecodeSeconds, Input, MaxPixels, Precision, Tile, app, model_names
from restore.errors import RestoreError, printable

if TYPE_CHECKING:
    from restore.fix.results import Record

MaskMissing = Literal["fail", "skip", "clean"]
Metadata = Literal["keep", "strip"]
Truncated = Literal["fail", "accept"]


@app.command()
def fix(
    input: Input,
    output: Annotated[
        str,
        typer.Argument(help="Where the repaired pictures go: same tree, names and formats; - is standard output."),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="A name from `restore models`, or a weights file. Default: inpaint with masks, photo without.",
            autocompletion=model_names,
        ),
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(
            help="What to fill, white = repair: a folder (x.png or x_mask.png), one file for all, `alpha`, or `auto`: "
            "damage is found."
        ),
    ] = None,
    mask_invert: Annotated[bool, typer.Option("--mask-invert", help="Black = repair instead.")] = False,
    mask_dilate: Annotated[
        str,
        typer.Option(help="Widen the masks by this many pixels, or auto: as far as the damage goes beyond them."),
    ] = "0",
    mask_missing: Annotated[
        MaskMissing,
        typer.Option(help="A picture without a mask: fail, skip, or clean (nothing to repair: it is copied)."),
    ] = "fail",
    clean_up: Annotated[
        bool | None,
        typer.Option(
            "--clean-up/--no-clean-up",
            help="When the holes are filled, clean up the whole picture by the model photo: known pixels change, too. "
            "Default: with --masks auto, where there is something to clean up.",
        ),
    ] = None,
    detector: Annotated[
        str, typer.Option(help="What finds damage with --masks auto: weights trained with task: detection.")
    ] = "detector",
    fade: Annotated[
        bool, typer.Option("--fade", help="Undo fading first: lifted black, yellowed white, low contrast.")
    ] = False,
    match_grain: Annotated[
        bool,
        typer.Option("--match-grain", help="Give what is filled the grain of its surroundings. Not with --clean-up."),
    ] = False,
    strength: Annotated[
        float, typer.Option(min=0, max=1, help="How much of the repair to apply: 0 nothing, 1 all of it.")
    ] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Leave outputs that exist, do the rest: goes on after a stop."),
    ] = False,
    include: Annotated[list[str] | None, typer.Option(help="Only files that match this glob (repeatable).")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Leave out files that match this glob (repeatable).")
    ] = None,
    ext: Annotated[
        str | None, typer.Option(help="Write png, jpg, webp or tiff instead of the source's format.")
    ] = None,
    suffix: Annotated[str, typer.Option(help="Added to every output's name, before its extension.")] = "",
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, help="JPEG and WebP quality. Default: the source's.")
    ] = None,
    metadata: Annotated[
        Metadata, typer.Option(help="keep or strip EXIF and XMP; the colour profile always stays.")
    ] = "keep",
    provenance: Annotated[
        bool,
        typer.Option(
            "--provenance/--no-provenance",
            help="Note in the XMP of repaired pictures what was done, and by which models.",
        ),
    ] = True,
    tile: Tile = "auto",
    device: Annotated[
        str,
        typer.Option(
            help="auto, cpu, cuda, cuda:N or mps; cuda:0,cuda:1 or cuda:all share the pictures.",
            rich_help_panel="Machine",
        ),
    ] = "auto",
    precision: Precision = "auto",
    log: Annotated[
        Path | None, typer.Option(help="Write a JSON line per file here, as it is done; - is stdout.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page to look at into this folder: before and after of every file.")
    ] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first file that fails.")] = False,
    max_pixels: MaxPixels = 1_000_000_000,
    truncated: Annotated[
        Truncated, typer.Option(help="A damaged or cut picture: fail, or accept (repair what is there of it).")
    ] = "fail",
    decode_seconds: DecodeSeconds = 300,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written, and stop.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary (with --dry-run: the plan) as JSON on standard output.")
    ] = False,
) -> None:
    """Repair a picture or a folder of pictures. Known pixels stay as they are; nothing is overwritten unasked."""
    if masks is None:
        for option, given in (
            ("--mask-invert", mask_invert),
            ("--mask-dilate", mask_dilate != "0"),
            ("--mask-missing", mask_missing != "fail"),
        ):
            if given:
                raise RestoreError("says how masks are taken, and there are none", where=option, hint="give --masks")
        if clean_up:
            raise RestoreError("follows the filling of holes", where="--clean-up", hint="give --masks")
    if masks != "auto" and detector != "detector":
        raise RestoreError("nothing is to be found", where="--detector", hint="give --masks auto")

    for taker, goal in (("OUTPUT", output), ("--log", str(log))):
        if as_json and goal == "-" and not dry_run:
            raise RestoreError(
                f"the summary and {taker} cannot both go to standard output", where="--json", hint="name a file"
            )

    from restore.fix.decoder_isolation import SupervisorLink, supervise

    # From here on in a process that a decoder may crash; it is started again, with the plan of the first start.
    watch = SupervisorLink() if dry_run else supervise(decode_seconds, echo)

    from restore.fix.options import dilate_from
    from restore.fix.plan import plan_fix

    dilate = dilate_from(mask_dilate)
    plan = watch.plan or plan_fix(
        input, output,
        masks=masks, mask_invert=mask_invert, mask_missing=mask_missing,
        overwrite=overwrite, skip_existing=skip_existing,
        include=tuple(include or ()), exclude=tuple(exclude or ()), ext=ext, suffix=suffix,
    )  # fmt: skip
    if html is not None:
        from restore.fix.html_report import check_fix_page

        check_fix_page(html, plan)
    if dry_run:
        for line in [json.dumps(plan.to_dict(), indent=1)] if as_json else plan.format():
            typer.echo(line)
        return
    watch.keep(plan)

    from restore.devices import limit_threads
    from restore.fix.run import run_fix
    from restore.restorers.registry import open_restorers

    limit_threads()
    restorers = open_restorers(model or ("photo" if masks is None else "inpaint"), device=device, precision=precision)
    cleaners = finders = None
    if clean_up or (clean_up is None and masks == "auto"):
        cleaners = open_restorers("photo", device=device, precision=precision)
    if masks == "auto":
        from restore.restorers.detector import open_detector

        finders = [open_detector(detector, device=str(one.device), precision=precision) for one in restorers]
    records: list[Record] = []
    with Progress("repairing", len(plan.jobs)) as bar:

        def finished(record: Record, done: int, total: int) -> None:
            bar.at(done, total)
            if html is not None:
                records.append(record)

        summary = run_fix(
            plan, restorers, clean_up=cleaners, finder=finders, spare_clean=masks == "auto" and clean_up is None,
            fade=fade, strength=strength, provenance=provenance, match_grain=match_grain,
            mask_dilate=dilate, tile=tile, quality=quality, metadata=metadata,
            log=log, progress=finished, fail_fast=fail_fast,
            max_pixels=max_pixels, truncated=truncated, watch=watch,
        )  # fmt: skip
    # A filter in a pipe that has nothing to complain of says nothing.
    for line in [*summary.warnings, *summary.failures()] if output == "-" else summary.format():
        echo(line)
    if as_json:
        typer.echo(json.dumps(summary.to_dict(), indent=1))
    if html is not None and not summary.interrupted:
        from restore.fix.html_report import write_fix_page

        with Progress("writing the page", len(plan.jobs)) as bar:
            index = write_fix_page(html, plan, records, summary, progress=lambda done: bar.at(done, len(plan.jobs)))
        echo(f"page: {printable(index)}")
    raise typer.Exit(summary.exit_code)
