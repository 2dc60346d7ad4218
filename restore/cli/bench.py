"""`restore bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restore.cli.console import Progress, echo, print_table
from restore.cli.options import Device, Precision, app, bench_damage_names, model_names
from restore.errors import printable


@app.command()
def bench(
    clean_dir: Annotated[Path, typer.Argument(help="Folder of clean pictures.")],
    out: Annotated[
        Path,
        typer.Option(help="Gets the table, sheets, plot and page, and keeps every result: the same command goes on."),
    ],
    damage: Annotated[
        list[str] | None,
        typer.Option(
            help="What to do to the pictures (repeatable): none, awgn-15|25|50, jpeg-10|20|30|40, bicubic-x2|x4, "
            "a named damage (inpaint-thin, ...), or a YAML file.",
            autocompletion=bench_damage_names,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A name from `restore models`, or a weights file (repeatable). Default: those that fit the damages.",
            autocompletion=model_names,
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many pictures.")] = None,
    seed: Annotated[int, typer.Option(help="Of the damages; 0 as in the literature.")] = 0,
    convention: Annotated[
        str, typer.Option(help="How PSNR and SSIM are computed: skimage, matlab or y-channel.")
    ] = "skimage",
    lpips_net: Annotated[str, typer.Option(help="LPIPS backbone: alex, vgg or squeeze.")] = "alex",
    lpips_weights: Annotated[
        Path | None, typer.Option(help="The backbone's ImageNet weights as a file, for machines without a network.")
    ] = None,
    published: Annotated[
        str | None, typer.Option(help="The pictures are this set: adds figures from papers, marked so. Known: cbsd68.")
    ] = None,
    tile: Annotated[int, typer.Option(min=0, help="Side of a tile in pixels; 0 = whole pictures.")] = 0,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Damage clean pictures, run every model on every damage, and compare: scores, speed, memory, pictures."""
    from restore.benchmark.plan import plan_bench

    plan = plan_bench(
        clean_dir, out,
        damages=damage or [], models=model or [], limit=limit, seed=seed, device=device, precision=precision,
        tile_px=tile, convention=convention, lpips_net=lpips_net, lpips_weights=lpips_weights, published=published,
    )  # fmt: skip

    from restore.benchmark.plot import draw_plot
    from restore.benchmark.report import header_and_rows, lines_of, write_bench_page, write_sheets, write_tables
    from restore.benchmark.run import run_bench
    from restore.images.contact_sheet import save_sheet

    for left in plan.left_out:
        echo(left.line())
    if plan.lpips is None:
        echo(f"no LPIPS: {plan.why_no_lpips}")
    try:
        with Progress("comparing", None) as bar:
            results = run_bench(plan, bar.at)
        lines = lines_of(results)
        write_tables(results, lines)
        plot = draw_plot(lines)
        if plot is not None:
            save_sheet(out / "plot.png", plot)
        write_sheets(results)
        write_bench_page(results, lines)
    except KeyboardInterrupt:
        echo("interrupted; the same command goes on where this one stopped")
        raise typer.Exit(130) from None
    header, rows = header_and_rows(lines, intervals=False)
    print_table(tuple(header), [tuple(row) for row in rows])
    for failure in results.failures:
        echo(f"failed: {printable(failure.line())}")
    echo(f"{results.run} pictures restored, {results.found} found from before; all in {printable(out)}")
    raise typer.Exit(results.exit_code)
