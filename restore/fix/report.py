"""Whether a run has an HTML report, and when it is written; what it shows is in `restore.fix.html_report`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from restore.fix.log import Record
from restore.fix.options import FixOptions
from restore.fix.plan import FixPlan
from restore.fix.results import Summary


@contextmanager
def reported(
    plan: FixPlan, options: FixOptions, summary: Summary, progress: Callable[[int, int], None] | None = None
) -> Iterator[list[Record] | None]:
    """Write the HTML report of a run when the block ends, if there is to be one, and the run was not interrupted.

    Args:
        plan, options, summary: of the run.
        progress: called with (done, total) while the report is written.

    Yields:
        What gets the record of every image; None: there is no report.
    """
    if options.html_report is None:
        yield None
        return
    if plan.for_page:
        from restore.html import claim_page_folder

        claim_page_folder(options.html_report)  # its folder gets masks during the run
    records: list[Record] = []
    yield records
    if summary.interrupted:
        return
    from restore.fix.html_report import write_fix_page

    def written(done: int) -> None:
        if progress is not None:
            progress(done, len(plan.jobs))

    summary.html_report = write_fix_page(options.html_report, plan, records, summary, log=options.log, progress=written)
