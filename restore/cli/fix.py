"""`restore fix`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

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
from restore.errors import RestoreError, printable
from restore.fix.options import FixOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from restore.fix.decoder_isolation import SupervisorLink
    from restore.fix.plan import FixPlan
    from restore.fix.results import Summary
    from restore.fix.watch import Watched
    from restore.places.plan import PlacesPlan
    from restore.places.run import Prepared

EXAMPLES = """Examples:

\b
  restore fix scans/ repaired/
  restore fix scans/ repaired/ --masks auto
  restore fix scans/ repaired/ --old-photos --html-report report/
  restore fix *.jpg repaired/
  restore fix reel.mp4 repaired.mp4 --masks auto
  restore fix --files-from list.txt repaired/
  restore fix s3://scans/1950/ s3://repaired/1950/ --skip-existing
  restore fix scan.jpg repaired.jpg --masks mask.png --mask-dilate auto
  restore fix scans/ repaired/ --skip-existing --log log.jsonl
  restore fix - - < scan.jpg > repaired.jpg
  restore fix scans/ repaired/ --skip-existing --ray auto
"""


@app.command(cls=Command, epilog=EXAMPLES)
@with_options(FixOptions)  # the options themselves are in restore/fix/options.py
def fix(
    *,
    inputs: Inputs = None,
    output: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT",
            help="Folder or file for the repaired images, with the same tree, names and formats; - is standard output.",
        ),
    ],
    options: FixOptions,
    model: Annotated[
        str | None,
        typer.Option(
            help="A name from `restore models`, a weights file or a run folder. Default: inpaint with --masks "
            "or --old-photos, enlarge-x2 or -x4 with --scale alone, else photo.",
            metavar="NAME|PATH",
            rich_help_panel="What to repair",
            autocompletion=model_names,
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Also repair images that arrive in the INPUT folder, until Ctrl-C. Existing outputs are skipped.",
            rich_help_panel="Files",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the outputs of the run without writing them.", rich_help_panel="Reports"),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print the summary (with --dry-run: the plan) as JSON to standard output.",
            rich_help_panel="Reports",
        ),
    ] = False,
    ray: Ray = None,
    ray_workers: RayWorkers = None,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = 0.0,
) -> None:
    """Repair images and videos, or folders of them. With masks, only masked pixels change. Existing outputs are
    replaced only with --overwrite.
    """
    for name, place in (("OUTPUT", output), ("--log", options.log)):
        if as_json and place == "-" and not dry_run:
            raise RestoreError(
                f"cannot be combined with {name} -: both would go to standard output",
                where="--json",
                hint="choose a file for one of them",
            )

    if watch and (dry_run or as_json or len(inputs or []) != 1):
        what = "takes one folder as INPUT, and cannot be combined with --dry-run or --json"
        raise RestoreError(what, where="--watch")

    cluster = cluster_of(ray, ray_workers, cpus_per_worker, gpus_per_worker)
    if watch and cluster is not None:
        raise RestoreError("cannot be combined with --watch", where="--ray", hint="leave one of them out")

    from restore.fix.decoder_isolation import SupervisorLink, supervise
    from restore.places.urls import is_places_run

    if is_places_run(inputs or [], output, options):
        if watch:
            raise typer.Exit(_watch_places((inputs or [""])[0], output, model, options))
        if dry_run:
            from restore.places.plan import plan_places

            placed = plan_places(inputs or [], output, options)
            for line in [json.dumps(placed.to_dict(), indent=1)] if as_json else placed.format():
                typer.echo(line)
            return
        tell(run_on_urls(inputs or [], output, model, options, cluster), output, as_json)

    # The code below runs in a supervised process: if a decoder crashes it, it restarts with the same plan. With a
    # cluster, only its workers decode.
    link = SupervisorLink() if dry_run or cluster is not None else supervise(options.decode_timeout, echo)

    if watch:
        assert inputs  # checked above
        raise typer.Exit(_watch(inputs[0], output, model, options, link))

    from restore.fix.plan import plan_fix

    plan = link.plan or plan_fix(inputs or [], output, options)
    if dry_run:
        from restore.fix.run_models import planned_engine

        engine, precision = (planned_engine(model, options) if plan.has_work else None) or (None, None)
        if as_json:
            typer.echo(json.dumps({**plan.to_dict(), "engine": engine, "precision": precision}, indent=1))
            return
        for line in plan.lines():
            typer.echo(line)
        if engine is not None:
            echo(f"engine: {engine}, precision: {precision}")
        return
    link.keep(plan)
    if cluster is not None:
        from restore.cluster.run import fix_on_cluster

        with Progress("repairing", len(plan.jobs)) as bar:
            summary = fix_on_cluster(
                plan, model, options, cluster,
                progress=bar.finished, on_event=echo,
                report_progress=lambda done, total: bar.at(done, total, "writing the report"),
            )  # fmt: skip
        tell(summary, output, as_json)

    with loading():
        from restore.fix.run import run_fix
        from restore.fix.run_models import open_models

        models = []
        if plan.has_work:
            from restore.devices import limit_threads

            limit_threads()
            models = open_models(model, options, on_event=echo)
    with Progress("repairing", len(plan.jobs)) as bar:
        summary = run_fix(
            plan, models, options, link=link,
            progress=bar.finished if bar.is_shown else None, part_progress=bar.part,
            report_progress=lambda done, total: bar.at(done, total, "writing the report"),
        )  # fmt: skip
    tell(summary, output, as_json)


def _watch(source: str, output: str, model: str | None, options: FixOptions, link: SupervisorLink) -> int:
    """Repair what arrives, until it is asked to stop. Returns the exit code."""
    from restore.fix.watch import check_watch, watch_folder

    check_watch(source, output, options)
    with loading():
        from restore.devices import limit_threads
        from restore.fix.run import run_fix
        from restore.fix.run_models import open_models

        limit_threads()
        models = open_models(model, options, on_event=echo)

    def run(plan: FixPlan, link: SupervisorLink) -> Summary:
        with Progress("repairing", len(plan.jobs)) as bar:
            return run_fix(plan, models, options, link=link, progress=bar.finished, part_progress=bar.part)

    echo(f"watching {printable(source)}; Ctrl-C ends it")
    return _tell_watched(source, watch_folder(source, output, options, run, link=link, on_event=echo))


def _tell_watched(source: str, watched: Watched) -> int:
    """Print what a watch has done. Returns the exit code."""
    failed = f", {len(watched.failed)} failed" if watched.failed else ""
    echo(f"watched {printable(source)}: {watched.done} done{failed}")
    if watched.stopped:
        echo(f"stopped: {watched.stopped}")
    return watched.exit_code


def _watch_places(source: str, output: str, model: str | None, options: FixOptions) -> int:
    """Repair what arrives in a store, until it is asked to stop. Returns the exit code."""
    from restore.fix.decoder_isolation import supervise

    link = supervise(options.decode_timeout, echo)

    from functools import cache

    from restore.places.run import fixer, keep, resume, run_places
    from restore.places.watch import watch_places

    resumed = resume(link)
    folders = [] if resumed is None else [resumed[1]]
    prepared: list[Callable[[], Prepared]] = []

    def run(plan: PlacesPlan, options: FixOptions) -> Summary:
        if not prepared:
            prepared.append(cache(fixer(plan, model, options, echo)))
        work = folders.pop() if folders else keep(plan, link)
        with Progress("repairing", len(plan.files)) as bar:
            progress = bar.finished if bar.is_shown else None
            summary = run_places(plan, options, prepared[0], progress=progress, link=link, work=work)
        link.renew()
        return summary

    echo(f"watching {printable(source)}; Ctrl-C ends it")
    plan = None if resumed is None else resumed[0]
    return _tell_watched(source, watch_places(source, output, options, run, plan=plan, on_event=echo))
