"""What `restore fix` and `restore detect` have in common: runs over URLs, and what is printed of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NoReturn

import typer

from restore.cli.console import Progress, echo
from restore.errors import printable
from restore.fix.options import DetectOptions, FixOptions

if TYPE_CHECKING:
    from restore.cluster.options import ClusterOptions
    from restore.fix.results import Summary


def run_on_urls(
    inputs: list[str],
    output: str,
    model: str | None,
    options: FixOptions | DetectOptions,
    cluster: ClusterOptions | None,
) -> Summary:
    """Plan a run over URLs and carry it out: `DetectOptions` write masks.

    Raises:
        RestoreError: exit code 2; nothing has been written.
    """
    from restore.fix.decoder_isolation import SupervisorLink, supervise

    # With a cluster, only its workers decode.
    link = SupervisorLink() if cluster is not None else supervise(options.decode_timeout, echo)

    from restore.places.plan import plan_places
    from restore.places.run import detector, fixer, keep, resume, run_places

    resumed = resume(link)
    plan = plan_places(inputs, output, options) if resumed is None else resumed[0]
    with Progress("detecting" if isinstance(options, DetectOptions) else "repairing", len(plan.files)) as bar:
        progress = bar.finished if bar.is_shown else None
        if cluster is not None:
            from restore.cluster.placed import run_on_cluster

            return run_on_cluster(
                plan, model, options, cluster, progress=progress, on_event=echo,
                report_progress=lambda done, total: bar.at(done, total, "writing the report"),
            )  # fmt: skip
        work = keep(plan, link) if resumed is None else resumed[1]
        if isinstance(options, DetectOptions):
            prepare = detector(model or "detector", options, echo)
        else:
            prepare = fixer(plan, model, options, echo)
        return run_places(
            plan, options, prepare, progress=progress, link=link, work=work,
            report_progress=lambda done, total: bar.at(done, total, "writing the report"),
        )  # fmt: skip


def tell(summary: Summary, output: str, as_json: bool = False) -> NoReturn:
    """Print what came of a run, and end with its exit code."""
    # A filter in a pipe prints nothing if nothing is wrong.
    for line in [*summary.warnings, *summary.failures()] if output == "-" else summary.format():
        echo(line)
    if as_json:
        typer.echo(json.dumps(summary.to_dict(), indent=1))
    if summary.html_report is not None:
        echo(f"report: {printable(summary.html_report)}")
    raise typer.Exit(summary.exit_code)
