"""`restore eval`: scores of restored images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restore.cli.console import Progress, echo, print_table
from restore.cli.options import (
    Command,
    Convention,
    CpusPerWorker,
    Device,
    GpusPerWorker,
    LpipsNet,
    LpipsWeights,
    Masks,
    Ray,
    RayWorkers,
    app,
    cluster_of,
)
from restore.errors import printable

EXAMPLES = """Examples:

\b
  restore eval restored/ clean/ --baseline damaged/
  restore eval restored/ clean/ --masks masks/ --json scores.json
  restore eval restored/ clean/ --metrics psnr,ssim --html-report page/
  restore eval restored.png clean.png
  restore eval upscaled/ clean/ --suffix x4
"""

#: Lines printed per kind of problem; the reports list all of them.
_PROBLEM_LINES = 10


@app.command("eval", cls=Command, epilog=EXAMPLES)
def evaluate(
    restored: Annotated[Path, typer.Argument(metavar="RESTORED", help="Folder of restored images, or one image.")],
    reference: Annotated[
        Path,
        typer.Argument(metavar="REFERENCE", help="Folder of clean images with the same relative names, or one image."),
    ],
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Folder to compare with image by image: the damaged images, or those of another method.",
            rich_help_panel="Scores",
        ),
    ] = None,
    masks: Masks = None,
    suffix: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Ending of the names of restored images that the references lack: x4 pairs 0001x4.png with 0001.png.",
            rich_help_panel="Scores",
        ),
    ] = "",
    metrics: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Comma-separated: psnr, ssim, ms_ssim, lpips, delta_e, fid; with --masks also psnr_hole, "
            "lpips_hole, seam, seam_ratio.",
            rich_help_panel="Scores",
        ),
    ] = "psnr,ssim,lpips",
    convention: Convention = "skimage",
    crop_border: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Ignore N rows and columns at every side in pixel metrics.",
            rich_help_panel="Scores",
        ),
    ] = 0,
    lpips_net: LpipsNet = "alex",
    lpips_weights: LpipsWeights = None,
    fid_weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights of FID's Inception network, for machines that cannot download them.",
            rich_help_panel="Scores",
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write scores per image as CSV; - is standard output.",
            rich_help_panel="Reports",
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write conventions, summary and scores per image as JSON; - is standard output.",
            rich_help_panel="Reports",
        ),
    ] = None,
    html_report: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write an HTML page with every pair, its scores and its error map to this folder.",
            rich_help_panel="Reports",
        ),
    ] = None,
    device: Device = "auto",
    ray: Ray = None,
    ray_workers: RayWorkers = None,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = 0.0,
) -> None:
    """Score restored images against clean references, per image and on average."""
    cluster = cluster_of(ray, ray_workers, cpus_per_worker, gpus_per_worker)

    from restore.evaluation.report_target import check_targets

    inputs = [path for path in (restored, reference, masks, baseline) if path is not None and not path.is_file()]
    json_target, csv_target = check_targets(json_file, csv)
    if html_report is not None:
        from restore.html import check_page_folder

        check_page_folder(html_report, inputs=inputs)

    from restore.devices import limit_threads
    from restore.evaluation.scoring import score_folders
    from restore.evaluation.tables import report_tables

    limit_threads()
    names = [name.strip() for name in metrics.split(",") if name.strip()]
    scored_by = None
    if cluster is not None:
        from restore.cluster.scoring import scored_on_cluster
        from restore.cluster.worker import Scoring

        scoring = Scoring(
            tuple(names), convention, crop_border, lpips_net, lpips_weights, fid_weights, device, masks is not None
        )
        scored_by = scored_on_cluster(scoring, cluster, on_event=echo)
    with Progress("scoring", None) as bar:
        report = score_folders(
            restored, reference,
            baseline_dir=baseline, masks=masks, suffix=suffix,
            metrics=names, scored_by=scored_by,
            convention=convention, border_px=crop_border, lpips_net=lpips_net, lpips_weights=lpips_weights,
            fid_weights=fid_weights, device=device, progress=bar.at,
        )  # fmt: skip
    stdout_taken = any(target is not None and target.path is None for target in (json_target, csv_target))
    for number, table in enumerate(report_tables(report)):
        if number:
            typer.echo(err=stdout_taken)
        print_table(tuple(table.columns), [tuple(row) for row in table.rows], err=stdout_taken)
    for line in [*report.warnings, *report.problems(_PROBLEM_LINES)]:
        echo(printable(line))
    if csv_target is not None:
        report.write_csv(csv_target)
    if json_target is not None:
        report.write_json(json_target)
    if html_report is not None:
        from restore.evaluation.html_report import write_report_page

        pairs = len(report.images)
        with Progress("writing the page", pairs) as bar:
            index = write_report_page(
                html_report, report, restored, reference,
                masks=masks, baseline=baseline, suffix=suffix, progress=lambda done: bar.at(done, pairs),
            )  # fmt: skip
        echo(f"page: {printable(index)}")
    raise typer.Exit(report.exit_code)
