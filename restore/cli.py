"""The command line: parse, call, print. Heavy imports happen inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from restore import __version__
from restore.completion import damage_names, model_names, train_configs
from restore.display import Progress, TrainingDisplay, print_table, say
from restore.errors import RestoreError, printable

MaskMissing = Literal["fail", "skip", "clean"]
Metadata = Literal["keep", "strip"]
Truncated = Literal["fail", "accept"]

app = typer.Typer(
    name="restore",
    help="Repair damaged photographs, score the results, and train the networks that do it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 all done; 1 some files failed (the rest done); 2 the command was wrong, nothing written; "
    "3 training diverged; 130 interrupted.",
)

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel="Machine")]
Precision = Annotated[
    str, typer.Option(help="auto (half precision where the processor is fast at it), fp32, bf16 or fp16.")
]
Masks = Annotated[Path | None, typer.Option(help="Folder of masks under the pictures' names, white = missing.")]


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"restore {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something goes wrong.")] = False,
) -> None:
    pass


@app.command()
def fix(
    input: Annotated[
        str, typer.Argument(help="A picture, or a folder of pictures (with its subfolders); - is standard input.")
    ],
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
            help="What to fill, white = repair: a folder (x.png or x_mask.png), one file for all, or `alpha`."
        ),
    ] = None,
    mask_invert: Annotated[bool, typer.Option("--mask-invert", help="Black = repair instead.")] = False,
    mask_dilate: Annotated[int, typer.Option(min=0, help="Widen the masks by this many pixels.")] = 0,
    mask_missing: Annotated[
        MaskMissing,
        typer.Option(help="A picture without a mask: fail, skip, or clean (nothing to repair: it is copied)."),
    ] = "fail",
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
    tile: Annotated[str, typer.Option(help="auto, 0 (whole pictures), or the side of a tile in pixels.")] = "auto",
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
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first file that fails.")] = False,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse pictures of more pixels (width × height) before they are decoded.")
    ] = 400_000_000,
    truncated: Annotated[
        Truncated, typer.Option(help="A damaged or cut picture: fail, or accept (repair what is there of it).")
    ] = "fail",
    decode_seconds: Annotated[
        float, typer.Option(min=1, help="Give up a picture whose decoding takes longer than this (on Linux).")
    ] = 300,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written, and stop.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary (with --dry-run: the plan) as JSON on standard output.")
    ] = False,
) -> None:
    """Repair a picture or a folder of pictures. Known pixels stay as they are; nothing is overwritten unasked."""
    if masks is None:
        for option, given in (
            ("--mask-invert", mask_invert), ("--mask-dilate", mask_dilate), ("--mask-missing", mask_missing != "fail"),
        ):  # fmt: skip
            if given:
                raise RestoreError("says how masks are taken, and there are none", where=option, hint="give --masks")

    for taker, goal in (("OUTPUT", output), ("--log", str(log))):
        if as_json and goal == "-" and not dry_run:
            raise RestoreError(
                f"the summary and {taker} cannot both go to standard output", where="--json", hint="name a file"
            )

    from restore.supervise import Watch, supervise

    # From here on in a process that a decoder may crash; it is started again, with the plan of the first start.
    watch = Watch() if dry_run else supervise(decode_seconds, say)

    from restore.repair import plan_fix

    plan = watch.plan or plan_fix(
        input, output,
        masks=masks, mask_invert=mask_invert, mask_missing=mask_missing,
        overwrite=overwrite, skip_existing=skip_existing,
        include=tuple(include or ()), exclude=tuple(exclude or ()), ext=ext, suffix=suffix,
    )  # fmt: skip
    if dry_run:
        for line in [json.dumps(plan.facts(), indent=1)] if as_json else plan.lines():
            typer.echo(line)
        return
    watch.keep(plan)

    from restore.devices import limit_threads
    from restore.repair import run_fix
    from restore.restorers.open import open_restorers

    limit_threads()
    restorers = open_restorers(model or ("photo" if masks is None else "inpaint"), device=device, precision=precision)
    with Progress("repairing", len(plan.jobs)) as bar:
        summary = run_fix(
            plan, restorers,
            mask_dilate=mask_dilate, tile=tile, quality=quality, metadata=metadata,
            log=log, progress=lambda record, done, total: bar.at(done, total), fail_fast=fail_fast,
            max_pixels=max_pixels, truncated=truncated, watch=watch,
        )  # fmt: skip
    # A filter in a pipe that has nothing to complain of says nothing.
    for line in [*summary.warnings, *summary.failures()] if output == "-" else summary.lines():
        say(line)
    if as_json:
        typer.echo(json.dumps(summary.facts(), indent=1))
    raise typer.Exit(summary.exit_code)


@app.command("eval")
def evaluate(
    restored: Annotated[Path, typer.Argument(help="Folder of restored pictures.")],
    reference: Annotated[Path, typer.Argument(help="Folder of the true pictures, under the same relative names.")],
    masks: Masks = None,
    metrics: Annotated[str, typer.Option(help="Which scores, comma-separated: psnr, ssim, lpips.")] = "psnr,ssim,lpips",
    convention: Annotated[
        str, typer.Option(help="How PSNR and SSIM are computed: skimage, matlab or y-studio.")
    ] = "skimage",
    csv: Annotated[Path | None, typer.Option(help="Write the scores per picture as CSV; - is stdout.")] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write conventions, summary and scores per picture as JSON; - is stdout."),
    ] = None,
    lpips_net: Annotated[str, typer.Option(help="LPIPS backbone: alex, vgg or squeeze.")] = "alex",
    lpips_weights: Annotated[
        Path | None,
        typer.Option(help="The backbone's ImageNet weights as a file, for machines without a network."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Score restored pictures against the true ones, per picture and in the mean, with every convention named."""
    from restore.evaluate.target import check_targets

    json_target, csv_target = check_targets(json_file, csv)

    from restore.evaluate.report import report_table
    from restore.evaluate.score import score_folders

    with Progress("scoring", None) as bar:
        report = score_folders(
            restored, reference,
            masks=masks, metrics=[name.strip() for name in metrics.split(",") if name.strip()], convention=convention,
            lpips_net=lpips_net, lpips_weights=lpips_weights, device=device, progress=bar.at,
        )  # fmt: skip
    table = report_table(report)
    taken = any(target is not None and target.path is None for target in (json_target, csv_target))
    print_table(tuple(table.columns), [tuple(row) for row in table.rows], err=taken)
    for line in report.problems():
        say(printable(line))
    if csv_target is not None:
        report.write_csv(csv_target)
    if json_target is not None:
        report.write_json(json_target)
    raise typer.Exit(report.exit_code)


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
    from restore.train.config import TrainConfig, load_train_config

    if schema:
        from restore.settings import json_schema

        typer.echo(json.dumps(json_schema(TrainConfig), indent=1))
        return
    if config is None:
        from restore.settings import config_names

        raise RestoreError("train what?", hint=f"name a config ({', '.join(config_names('train'))}) or a YAML file")
    settings = load_train_config(config, list(overrides or ()))
    if dry_run:
        from restore.train.preview import preview

        typer.echo(preview(settings, say).text(), nl=False)
        return

    from restore.train.loop import train as run_training

    with TrainingDisplay(settings.total_steps) as display:
        result = run_training(settings, display.report)
    if not result.leads:
        # The first process tells how it ended; another's complaint would have it killed while it saves.
        raise typer.Exit(0)
    scores = ", ".join(f"{k} {v:.4f}" for k, v in result.best.items() if k != "step")
    if not result.finished:
        say(f"stopped at step {result.step}; the same command goes on from there")
        raise typer.Exit(130)
    say(f"finished; best at step {result.best.get('step')}: {scores}")
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
        say(line)
    for file in written.files:
        typer.echo(printable(file))


@app.command()
def degrade(
    clean_dir: Annotated[Path, typer.Argument(help="Folder of clean pictures.")],
    out_dir: Annotated[Path, typer.Argument(help="Gets damaged/ and, where pixels are hidden, masks/.")],
    damage: Annotated[
        str,
        typer.Option(help="A named damage (see `configs/damage`) or a YAML file.", autocompletion=damage_names),
    ],
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Threads; 0 = as many as there are cores.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
) -> None:
    """Damage clean pictures in a repeatable way: test sets, demonstrations, sheets."""
    from restore.datasets.damaged import write_damaged

    with Progress("damaging", None) as bar:
        summary = write_damaged(
            clean_dir, out_dir, damage, seed=seed, workers=workers, overwrite=overwrite, progress=bar.at
        )
    for line in summary.lines():
        say(line)
    raise typer.Exit(1 if summary.failed else 0)


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="Folder for the pictures.")] = Path("data/samples"),
    lpips_net: Annotated[str, typer.Option(help="LPIPS backbone: alex, vgg or squeeze.")] = "alex",
    lpips_weights: Annotated[
        Path | None, typer.Option(help="The backbone's ImageNet weights as a file, for machines without a network.")
    ] = None,
) -> None:
    """Damage, repair and score the photographs that come with scikit-image, and write a before/after sheet."""
    from restore.demo import make_demo

    sheet = make_demo(out, typer.echo, lpips_net, lpips_weights)
    typer.echo(f"\nbefore and after: {printable(sheet)}")


@app.command()
def models(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List what can repair pictures: purpose, size, needs a mask or not."""
    from restore.restorers.open import list_restorers

    infos = list_restorers()
    if as_json:
        typer.echo(json.dumps([vars(info) for info in infos], indent=1))
        return
    rows = [
        (
            i.name,
            "yes" if i.needs_mask else "no",
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


def main() -> None:
    """Entry point: user errors become one line, never a traceback (unless `--debug`, which may stand anywhere)."""
    arguments, debug = _without_debug(sys.argv[1:])
    if debug:
        _log_to_stderr()
    _give_way_soon()
    # The others of several processes meet the same errors as the first, which tells them.
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        if first:
            app(arguments)
        else:
            sys.exit(app(arguments, standalone_mode=False))
    except RestoreError as error:
        if debug:
            raise
        if first:
            say(f"error: {error}")
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        if first:
            say("interrupted")
        sys.exit(130)
    except BrokenPipeError:  # `restore models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        code = getattr(error, "exit_code", None)
        if code is not None and not first:  # a wrong option, which the first process tells
            sys.exit(code)
        where = "" if first else f" in process {os.environ['LOCAL_RANK']}"  # it may be this one's alone
        say(f"error: this should not have happened{where}: {type(error).__name__}: {error}; --debug shows where")
        sys.exit(1)


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """The arguments without `--debug`, and whether it was among them. What follows `--` is no option."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [argument for argument in arguments[:end] if argument != "--debug"]
    return options + arguments[end:], len(options) < end


def _give_way_soon() -> None:
    """Have threads that wait for each other sleep after some 50 µs, not after milliseconds, unless the user has said.

    A network's threads meet hundreds of times per picture. Where something else wants the processor too, such as a
    decoder, those that spin keep it from the one that they wait for: 30 pictures of 128×128 took 25 s on two busy
    cores, and 3 s with this. OpenMP reads it when PyTorch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _log_to_stderr() -> None:
    """Everything that the package notes on the way, with tracebacks of files that failed unexpectedly."""
    logger = logging.getLogger("restore")
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.DEBUG)


if __name__ == "__main__":
    main()
