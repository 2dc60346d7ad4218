"""`restore bench`: models compared on degraded copies of clean images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restore.cli.console import Progress, echo, print_table
from restore.cli.options import (
    Command,
    Convention,
    Device,
    Engine,
    LpipsNet,
    LpipsWeights,
    Precision,
    app,
    bench_damage_names,
    model_names,
)
from restore.errors import printable

EXAMPLES = """Examples:

\b
  restore bench photos/ --out bench/ --damage awgn-25 --damage jpeg-10
  restore bench photos/ --out b/ --damage inpaint-thin --model mine=runs/mine
"""


@app.command(cls=Command, epilog=EXAMPLES)
def bench(
    clean_dir: Annotated[Path, typer.Argument(metavar="CLEAN", help="Folder of clean images.")],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Folder for tables, plot, sheets, page and all restored images. The same command continues a run.",
        ),
    ],
    damage: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DAMAGE",
            help="How to degrade the images (repeatable): none, awgn-15|25|50, jpeg-10|20|30|40, bicubic-x2|x4, "
            "a shipped degradation (inpaint-thin, ...), a YAML file, or a folder of masks, with a slash in its path "
            "(masks/).",
            autocompletion=bench_damage_names,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]MODEL",
            help="A name from `restore models`, a weights file or a run folder (repeatable). NAME is the label in "
            "the tables. Default: the models that suit the degradations.",
            autocompletion=model_names,
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Use only the first N images.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the degradations; the literature uses 0.")] = 0,
    convention: Convention = "skimage",
    lpips_net: LpipsNet = "alex",
    lpips_weights: LpipsWeights = None,
    published: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the test set in CLEAN (cbsd68, set5, set14): adds published figures, marked as such.",
            rich_help_panel="Scores",
        ),
    ] = None,
    tile: Annotated[
        int, typer.Option(min=0, metavar="N", help="Tile side in pixels; 0 = whole images.", rich_help_panel="Speed")
    ] = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    engine: Engine = "auto",
) -> None:
    """Degrade clean images, run every model on every degradation, and compare scores, speed and memory."""
    from restore.benchmark.plan import plan_bench

    plan = plan_bench(
        clean_dir, out,
        degradations=damage or [], models=model or [], limit=limit, seed=seed, device=device, precision=precision,
        engine=engine, tile_px=tile, convention=convention, lpips_net=lpips_net, lpips_weights=lpips_weights,
        published=published,
    )  # fmt: skip

    from restore.benchmark.plot import write_plot
    from restore.benchmark.report import header_and_rows, table_lines, write_tables
    from restore.benchmark.run import run_bench
    from restore.benchmark.sheets import write_bench_page, write_sheets
    from restore.devices import limit_threads

    limit_threads()
    for line in plan.warnings:
        echo(line)
    for skipped in plan.skipped:
        echo(skipped.format())
    if plan.lpips is None:
        echo(f"no LPIPS: {plan.why_no_lpips}")
    try:
        with Progress("comparing", None) as bar:
            results = run_bench(plan, bar.at)
        lines = table_lines(results)
        write_tables(results, lines)
        write_plot(out / "plot.png", lines)
        write_sheets(results)
        write_bench_page(results, lines)
    except KeyboardInterrupt:
        echo("interrupted; run the same command again to continue")
        raise typer.Exit(130) from None
    header, rows = header_and_rows(lines, intervals=False)
    print_table(tuple(header), [tuple(row) for row in rows])
    for failure in results.failures:
        echo(f"failed: {printable(failure.format())}")
    echo(f"{results.restored} images restored, {results.cached} reused from the cache; results in {printable(out)}")
    raise typer.Exit(results.exit_code)
