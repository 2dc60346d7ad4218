"""`restore fix --watch` with URLs: repair the images that arrive in a folder of a store, until it is asked to stop.

Stores show an object when it is whole. So an image is repaired as soon as a listing of the folder has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from restore.errors import RestoreError
from restore.fix.batch_options import FilePath
from restore.fix.options import FixOptions
from restore.fix.plan import NoImages
from restore.fix.results import Summary
from restore.fix.watch import Watched, check_watch_options
from restore.places.files import Files
from restore.places.plan import PlacesPlan, plan_places
from restore.places.store import StoreError, store_of
from restore.places.urls import is_url, settle

#: The folder is listed this often.
POLL_SECONDS = 30.0


def watch_places(
    input: FilePath,
    output: FilePath,
    options: FixOptions,
    run: Callable[[PlacesPlan, FixOptions], Summary],
    *,
    plan: PlacesPlan | None = None,
    on_event: Callable[[str], None],
    poll_seconds: float = POLL_SECONDS,
) -> Watched:
    """Repair what arrives in a folder of a store, until Ctrl-C or SIGTERM; what is being written is finished.

    An image is repaired once: when it has no output. One that failed is tried again when its size changes.

    Args:
        input: URL of a folder.
        output: a folder, by URL or path.
        options: as for `plan_places`; existing outputs are skipped.
        run: carries out a plan, with options that skip existing outputs.
        plan: is finished first.
        on_event: called with each line for the user.
        poll_seconds: see `POLL_SECONDS`.

    Raises:
        RestoreError: exit code 2; an option or a place does not suit, or as `plan_places` and `run`.
    """
    arrivals, watched, complaint = _Arrivals(input, output, options), Watched(), ""
    plan = plan or arrivals.plan()  # what cannot be planned now is told now
    try:
        while not watched.stopped:
            if plan is not None:
                summary = run(plan, arrivals.options)
                watched.add(summary, on_event)
                if summary.interrupted:
                    break
                arrivals.finished(plan)
            else:
                time.sleep(poll_seconds)
            try:
                plan, complaint = arrivals.plan(), ""
            except RestoreError as error:  # the store may answer again, and a person may rename one of two images
                if str(error) != complaint:
                    on_event(f"waiting: {error}")
                plan, complaint = None, str(error)
    except KeyboardInterrupt:
        pass
    return watched


class _Arrivals:
    """The images of a folder that have no output, and were not tried as they are.

    Attributes:
        options: of the runs.
    """

    def __init__(self, input: FilePath, output: FilePath, options: FixOptions) -> None:
        self._input, self._output = settle(input, what="INPUT"), output
        check_watch_options(options)
        if not is_url(self._input):
            raise RestoreError("takes two folders of this machine, or a URL as INPUT", where="--watch")
        self.options = FixOptions.from_dict(options.to_dict() | {"skip_existing": True})
        self._tried: dict[str, int] = {}

    def plan(self) -> PlacesPlan | None:
        """A plan of the images that wait; None: there are none.

        Raises:
            RestoreError: exit code 2; as `plan_places`.
        """
        try:
            kind = store_of(self._input).kind(self._input)
        except StoreError as error:
            error.exit_code = 2
            raise
        if kind == "file":
            raise RestoreError("takes a folder as INPUT, and one as OUTPUT", where="--watch")
        if not kind:  # yet
            return None
        try:
            plan = plan_places([self._input], self._output, self.options)
        except NoImages:  # yet
            return None
        waiting = [file for file in plan.files if file.verdict.action != "skip" and file.verdict.code != "no_mask"]
        self._tried = {file.source: file.size for file in waiting if self._tried.get(file.source) == file.size}
        files = Files(file for file in waiting if file.source not in self._tried)
        return replace(plan, files=files, unmatched_masks=[], warnings=[]) if files else None

    def finished(self, plan: PlacesPlan) -> None:
        """Leave out the images of a plan that have no output, until their sizes change."""
        self._tried |= {file.source: file.size for file in plan.files}
