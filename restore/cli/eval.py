"""`restore eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restore.cli.console import Progress, echo, print_table
from restore.cli.options import Device, Masks, app
from restore.errors import printable


@app.command("eval")
def evaluate(
    restored: Annotated[Path, typer.Argument(help="Folder of restored pictures.")],
    reference: Annotated[Path, typer.Argument(help="Folder of the true pictures, under the same relative names.")],
    baseline: Annotated[
        Path | None,
        typer.Option(help="Folder to compare with, picture by picture: the damaged pictures, or another method's."),
    ] = None,
    masks: Masks = None,
    metrics: Annotated[
        str,
        typer.Option(
            help="Which scores, comma-separated: psnr, ssim, ms_ssim, lpips, delta_e, fid; with --masks also "
            "psnr_hole, lpips_hole, seam, seam_ratio."
        ),
    ] = "psnr,ssim,lpips",
    convention: Annotated[
        str, typer.Option(help="How scores of pixels are computed: skimage, matlab or y-studio.")
    ] = "skimage",
    border: Annotated[
        int, typer.Option(min=0, help="Leave out so many rows and columns at every side of scores of pixels.")
    ] = 0,
    csv: Annotated[Path | None, typer.Option(help="Write the scores per picture as CSV; - is stdout.")] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write conventions, summary and scores per picture as JSON; - is stdout."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page to look at into this folder: every pair with its scores and error map."),
    ] = None,
    lpips_net: Annotated[str, typer.Option(help="LPIPS backbone: alex, vgg or squeeze.")] = "alex",
    lpips_weights: Annotated[
        Path | None,
        typer.Option(help="The backbone's ImageNet weights as a file, for machines without a network."),
    ] = None,
    fid_weights: Annotated[
        Path | None, typer.Option(help="Weights of FID's network as a file, for machines without a network.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Score restored pictures against the true ones, per picture and in the mean, with every convention named."""
    from restore.evaluation.report import check_targets

    json_target, csv_target = check_targets(json_file, csv)
    if html is not None:
        from restore.html import check_page_folder

        check_page_folder(html, apart=(restored, reference, masks, baseline))

    from restore.evaluation.report import report_tables
    from restore.evaluation.scoring import score_folders

    with Progress("scoring", None) as bar:
        report = score_folders(
            restored, reference,
            baseline_dir=baseline, masks=masks, metrics=[name.strip() for name in metrics.split(",") if name.strip()],
            convention=convention, border_px=border, lpips_net=lpips_net, lpips_weights=lpips_weights,
            fid_weights=fid_weights, device=device, progress=bar.at,
        )  # fmt: skip
    taken = any(target is not None and target.path is None for target in (json_target, csv_target))
    for number, table in enumerate(report_tables(report)):
        if number:
            typer.echo(err=taken)
        print_table(tuple(table.columns), [tuple(row) for row in table.rows], err=taken)
    for line in report.problems():
        echo(printable(line))
    if csv_target is not None:
        report.write_csv(csv_target)
    if json_target is not None:
        report.write_json(json_target)
    if html is not None:
        from restore.evaluation.html_report import write_report_page

        pairs = len(report.images)
        with Progress("writing the page", pairs) as bar:
            index = write_report_page(
                html, report, restored, reference,
                masks=masks, baseline=baseline, progress=lambda done: bar.at(done, pairs),
            )  # fmt: skip
        echo(f"page: {printable(index)}")
    raise typer.Exit(report.exit_code)
