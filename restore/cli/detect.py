"""`restore detect`."""

from __future__ import annotations

from typing import Annotated

import typer

from restore.cli.console import Progress, echo, loading
from restore.cli.options import (
    Command,
    CpusPerWorker,
    GpusPerWorker,
    Inputs,
    Ray,
    RayWorkers,
    app,
    cluster_of,
    model_names,
    with_options,
)
from restore.cli.runs import run_on_urls, tell
from restore.fix.options import DetectOptions

EXAMPLES = """Examples:

\b
  restore detect scans/ masks/
  restore fix scans/ repaired/ --masks masks/
  restore detect scan.jpg mask.png --sensitivity strong --dilate 4
  restore detect scans/ masks/ --preview found/
"""


@app.command(cls=Command, epilog=EXAMPLES)
@with_options(DetectOptions)
def detect(
    *,
    inputs: Inputs = None,
    output: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT",
            help="Folder for the masks, or NAME.png for a single image; - is standard output.",
        ),
    ],
    options: DetectOptions,
    model: Annotated[
        str,
        typer.Option(
            help="Detector: a name from `restore models`, a weights file or a run folder.",
            metavar="NAME|PATH",
            rich_help_panel="Masks",
            autocompletion=model_names,
        ),
    ] = "detector",
    ray: Ray = None,
    ray_workers: RayWorkers = None,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = 0.0,
) -> None:
    """Detect damage and write a mask for every image. Masks are white where `restore fix --masks` repairs. Images are
    only read.
    """
    cluster = cluster_of(ray, ray_workers, cpus_per_worker, gpus_per_worker)

    from restore.fix.decoder_isolation import SupervisorLink, supervise
    from restore.places.urls import is_places_run

    if is_places_run(inputs or [], output, options):
        tell(run_on_urls(inputs or [], output, model, options, cluster), output)

    # The code below runs in a supervised process: if a decoder crashes it, it restarts with the same plan. With a
    # cluster, only its workers decode.
    link = SupervisorLink() if cluster is not None else supervise(options.decode_timeout, echo)

    from restore.fix.detect import plan_detect, run_detect

    plan = link.plan or plan_detect(inputs or [], output, options)
    link.keep(plan)

    if cluster is not None:
        from restore.cluster.run import detect_on_cluster

        with Progress("detecting", len(plan.jobs)) as bar:
            summary = detect_on_cluster(plan, model, options, cluster, progress=bar.finished, on_event=echo)
    else:
        with loading():
            from restore.devices import limit_threads
            from restore.restorers.detector import open_detector

            limit_threads()
            detector = open_detector(
                model, device=options.device, precision=options.precision, engine=options.engine, on_event=echo
            )
        with Progress("detecting", len(plan.jobs)) as bar:
            progress = bar.finished if bar.is_shown else None
            summary = run_detect(plan, detector, options, progress=progress, link=link)
    tell(summary, output)
