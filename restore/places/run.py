"""Carrying out a plan over URLs: while one group is repaired, the next one is fetched and the previous one delivered.

At most three groups are in the work folder, with their outputs; see `restore.places.plan.GROUP_FILES`.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from restore.errors import RestoreError
from restore.files import write_error_message
from restore.fix.batch_options import BatchOptions, FilePath
from restore.fix.decoder_isolation import SupervisorLink
from restore.fix.jobs import Jobs
from restore.fix.log import Record
from restore.fix.options import DetectOptions, FixOptions
from restore.fix.plan import FixPlan
from restore.fix.results import FileFailure, Progress, ResultRecorder, RunLog, Summary
from restore.images import IMAGE_SUFFIXES
from restore.images.formats import suffix_of
from restore.places.files import PlacedFile
from restore.places.groups import Carry, Outcome, StagedGroup, detecting, repairing
from restore.places.log import RemoteLog
from restore.places.outputs import GroupFile
from restore.places.plan import PlacesPlan, plan_places
from restore.places.report import claim_page, write_places_page
from restore.places.store import TRANSFERS
from restore.places.urls import is_url, settle
from restore.places.work import WorkFolder
from restore.video.formats import VIDEO_SUFFIXES

#: How long files that the plan has settled, of which there may be a million, are recorded between two groups.
_SETTLED_SECONDS = 1.0
#: A file of the work folder with the plan of the run.
_PLAN = "plan.pickle"
#: One with a line for each file that is finished, for the HTML report.
_RECORDS = "records.jsonl"


@dataclass
class Prepared:
    """What carries out groups, and what the log says of it."""

    carry: Carry
    model: str
    model_sha256: str | None
    settings: dict[str, Any]


def fix_places(
    inputs: FilePath | Sequence[FilePath],
    output: FilePath,
    model: Any = None,
    options: FixOptions | None = None,
    *,
    progress: Progress | None = None,
    on_event: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Repair images by URL, as `fix_folder` repairs those of this machine.

        summary = fix_places("s3://scans/1950", "s3://repaired/1950", options=FixOptions(masks="auto"))

    Args:
        inputs, output: URLs or paths, as for `plan_fix`.
        model, options, progress: as for `fix_folder`.
        on_event: called with each line for the user.

    Raises:
        RestoreError: exit code 2, before anything is written.
    """
    options = options or FixOptions()
    places = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    plan = plan_places(places, output, options)
    return run_places(plan, options, fixer(plan, model, options, on_event), progress=progress)


def fixer(plan: PlacesPlan, model: Any, options: FixOptions, on_event: Callable[[str], None]) -> Callable[[], Prepared]:
    """A function that opens the models of a repair when they are needed."""

    def prepare() -> Prepared:
        from restore.devices import limit_threads
        from restore.fix.run_models import models_for, open_models, resolved_settings

        limit_threads()
        models = open_models(model, options, on_event=on_event)
        suited = models_for(FixPlan((), Path(), False, Jobs(), plan.masks), models, options)
        main = suited[0].main
        name, digest = ("", None) if main is None else (main.name, main.sha256)
        return Prepared(repairing(models), name, digest, resolved_settings(suited, options))

    return prepare


def detector(model: str, options: DetectOptions, on_event: Callable[[str], None]) -> Callable[[], Prepared]:
    """A function that opens the detector of a run when it is needed."""

    def prepare() -> Prepared:
        from restore.devices import limit_threads
        from restore.restorers.detector import open_detector

        limit_threads()
        opened = open_detector(
            model, device=options.device, precision=options.precision, engine=options.engine, on_event=on_event
        )
        return Prepared(detecting(opened), opened.name, opened.sha256, options.to_dict())

    return prepare


def run_places(
    plan: PlacesPlan,
    options: BatchOptions,
    prepare: Callable[[], Prepared],
    *,
    progress: Progress | None = None,
    report_progress: Callable[[int, int], None] | None = None,
    link: SupervisorLink | None = None,
    work: WorkFolder | None = None,
) -> Summary:
    """Carry out a plan. Ctrl-C lets what is being written finish, and returns a summary with `interrupted` set.

    Args:
        plan: from `plan_places`.
        options: those that the plan was made with.
        prepare: opens what carries out the groups; called once, if there is work.
        progress: as for `fix_folder`.
        report_progress: called with (done, total) while the HTML report is written.
        link: to a process that starts this one again if it crashes.
        work: from `keep` or `resume`; None: a new one.

    Raises:
        RestoreError: exit code 2; a log that cannot be read, or models that do not suit the options. Nothing has been
            written.
    """
    with work or WorkFolder() as folder:
        run = _Run(plan, options, prepare, progress, link or SupervisorLink(), folder)
        summary = run.run()
        if run.page is not None and not summary.interrupted:
            records = run.records()
            summary.html_report = write_places_page(
                run.page, plan, records, summary, work=folder, log=run.log, progress=report_progress
            )
        return summary


def keep(plan: PlacesPlan, link: SupervisorLink) -> WorkFolder:
    """Keep a plan for a run that is started again, in a new work folder."""
    work = WorkFolder(parent=link.parent)
    try:
        (work.path / _PLAN).write_bytes(pickle.dumps(plan))
        link.keep(str(work.path))
    except BaseException:
        work.remove()
        raise
    return work


def resume(link: SupervisorLink) -> tuple[PlacesPlan, WorkFolder] | None:
    """The plan of a run that crashed, with its work folder; None: this is the first start."""
    if link.plan is None:
        return None
    work = WorkFolder(link.plan)
    # `keep` has written it, into a folder that only this user can open.
    plan: PlacesPlan = pickle.loads((work.path / _PLAN).read_bytes())  # noqa: S301
    return plan, work


@dataclass
class _State:
    """What a run that is started again must know.

    Attributes:
        run: identifies the run in its log.
        group: the first one whose outcomes are not recorded.
        settled: how many of the files that the plan has decided are recorded.
        log_version: see `RemoteLog`.
        started: `time.monotonic()` at the first start.
        summary: counts.
    """

    run: str = field(default_factory=lambda: secrets.token_hex(6))
    group: int = 0
    settled: int = 0
    log_version: str | None = None
    started: float = field(default_factory=time.monotonic)
    summary: dict[str, Any] | None = None


class _Run:
    def __init__(
        self, plan: PlacesPlan, options: BatchOptions, prepare: Callable[[], Prepared], progress: Progress | None,
        link: SupervisorLink, work: WorkFolder,
    ) -> None:  # fmt: skip
        self.plan, self.options, self.work, self.link = plan, options, work, link
        self._prepare = prepare
        self._progress = progress
        kept = work.load("state.json")
        self.state = _State() if kept is None else _State(**kept)
        self.summary = Summary(
            len(plan.files), output=plan.output, run=self.state.run, warnings=list(plan.warnings),
            unmatched_masks=len(plan.unmatched_masks), settings=options.to_dict(),
        )  # fmt: skip
        if self.state.summary is not None:
            failed = [FileFailure(*one) for one in self.state.summary.pop("failed")]
            self.summary = replace(self.summary, failed=failed, **self.state.summary)
        self.page: FilePath | None = getattr(options, "html_report", None)
        self.log: FilePath | None = None
        self._prepared: Prepared | None = None
        self._cancelled = False
        self._entered = 0  # outcomes of the group that is being recorded

    def run(self) -> Summary:
        """Carry out the plan."""
        summary = self.summary
        place = getattr(self.options, "log", None)
        place = None if place is None else settle(place, what="--log")
        remote = None
        if place is not None and is_url(place):
            remote = RemoteLog(place, self.work.path / "run.jsonl", self.state.log_version)
            place = os.fspath(remote.path)
        self.log = place
        if any(map(_surely_image, self.plan.files.to_do())):
            self._open()
        if self.plan.for_page and self.page is not None:
            claim_page(self.page)  # its folder gets masks during the run
        with RunLog(place) as log:
            recorder = ResultRecorder(summary, log, self._progress, getattr(self.options, "fail_fast", False))
            if self.state.summary is None:
                recorder.start(self.plan)
                if not self._tells_each(recorder):
                    recorder.count_skipped(self.plan.files.skipped)
            settling = self._record_settled(recorder)
            try:
                if recorder.fail_fast:  # a file that the plan fails ends the run
                    self._settle(settling, None)
                self._settle(settling, _SETTLED_SECONDS)
                self._save(remote)
                self._groups(recorder, remote, settling)
                self._settle(settling, None)
            except KeyboardInterrupt:
                summary.interrupted = True
        if remote is not None:
            self._push(remote, now=True)
        self.link.finish()
        summary.seconds = time.monotonic() - self.state.started
        return summary

    def _open(self) -> Prepared:
        if self._prepared is None:
            self._prepared = prepared = self._prepare()
            self.summary.model, self.summary.model_sha256 = prepared.model, prepared.model_sha256
            self.summary.settings = {**prepared.settings, **_places_of(self.options)}
        return self._prepared

    def _tells_each(self, recorder: ResultRecorder) -> bool:
        return recorder.tells_each or self.page is not None

    def _record_settled(self, recorder: ResultRecorder) -> Iterator[None]:
        """Record the files that the plan has decided, one at each step."""
        files = self.plan.files
        settled = files.settled() if self._tells_each(recorder) else files.failing()
        for record in self.plan.settled(islice(settled, self.state.settled, None)):
            self._enter(recorder, Outcome(record))
            self.state.settled += 1
            yield

    def _settle(self, settling: Iterator[None], seconds: float | None) -> None:
        """Record files that the plan has decided, for some time; None: all of them."""
        until = math.inf if seconds is None else time.monotonic() + seconds
        for _ in settling:
            if time.monotonic() > until:
                return

    def _enter(self, recorder: ResultRecorder, outcome: Outcome) -> None:
        record = replace(outcome.record, run=self.state.run)
        if self.page is not None:
            with self._keeping(), open(self.work.path / _RECORDS, "a", encoding="ascii") as file:
                file.write(json.dumps(asdict(record)) + "\n")
        recorder.recall({"record": asdict(record), "pixels": outcome.pixels, "video": outcome.video}, log=True)

    def records(self) -> Iterator[Record]:
        """What came of each file, for the HTML report."""
        with suppress(FileNotFoundError), open(self.work.path / _RECORDS, encoding="ascii") as file:
            for line in file:
                yield Record(**json.loads(line))

    def _groups(self, recorder: ResultRecorder, remote: RemoteLog | None, settling: Iterator[None]) -> None:
        """Take all groups through the work folder."""
        numbered = ((number, group) for number, group in enumerate(self.plan.groups()) if number >= self.state.group)
        with ThreadPoolExecutor(TRANSFERS) as pool, ThreadPoolExecutor(2) as pipeline:

            def begin() -> Future[tuple[int, StagedGroup]] | None:
                number, group = next(numbered, (0, None))
                return None if group is None or self._ends() else pipeline.submit(self._fetch, number, group, pool)

            coming = begin()
            going: tuple[int, StagedGroup, Future[list[Outcome]]] | None = None
            try:
                while coming is not None:
                    number, staged = coming.result()
                    coming = begin()
                    self._carry_out(number, staged)
                    if going is not None:
                        self._settle(settling, _SETTLED_SECONDS)
                        self._record(*going, recorder, remote)
                    going = (number, staged, pipeline.submit(staged.deliver, pool))
                    if self._ends():
                        break
            except KeyboardInterrupt:
                self.summary.interrupted = True
            finally:
                self._cancelled = True
                if going is not None:
                    self._record(*going, recorder, remote)

    def _ends(self) -> bool:
        return bool(self.summary.stopped) or self.summary.interrupted

    def _fetch(self, number: int, group: list[GroupFile], pool: ThreadPoolExecutor) -> tuple[int, StagedGroup]:
        staged = StagedGroup(group, self.work.group(number), self.options, cancelled=lambda: self._cancelled)
        if not staged.load():
            staged.fetch(pool)
        return number, staged

    def _carry_out(self, number: int, staged: StagedGroup) -> None:
        """Repair a group, unless an earlier start has."""
        if staged.is_carried_out:
            return
        if staged.has_work:
            staged.carry_out(self._open().carry, self.link)
            self.link.renew()
            self.link.keep(str(self.work.path))
        else:
            staged.settle()
        with self._keeping():
            staged.save()
        self.summary.stopped = self.summary.stopped or staged.stopped
        self.summary.interrupted = self.summary.interrupted or staged.interrupted

    def _record(
        self, number: int, staged: StagedGroup, delivered: Future[list[Outcome]],
        recorder: ResultRecorder, remote: RemoteLog | None,
    ) -> None:  # fmt: skip
        """Wait until a group is delivered, and record its files, unless that was done before an interruption."""
        if number < self.state.group:
            return
        outcomes = delivered.result()
        while staged.segments:
            recorder.tell_segment(staged.segments.pop(0))
        for outcome in outcomes[self._entered :]:
            self._entered += 1
            self._enter(recorder, outcome)
        self.summary.stopped = self.summary.stopped or staged.stopped
        self.state.group, self._entered = number + 1, 0
        if remote is not None:
            self._push(remote)
        self._save(remote)
        shutil.rmtree(staged.folder, ignore_errors=True)

    def _push(self, remote: RemoteLog, *, now: bool = False) -> None:
        try:
            remote.push(now=now)
        except RestoreError as error:
            self.summary.stopped = self.summary.stopped or f"the log cannot be written: {error}"

    def _save(self, remote: RemoteLog | None) -> None:
        summary = {name: getattr(self.summary, name) for name in (
            "done", "copied", "skipped", "warnings", "megapixels", "searched", "searched_videos", "damaged",
            "damaged_pixels", "pixels_of_damaged", "model", "model_sha256", "settings",
        )}  # fmt: skip
        summary["failed"] = [(os.fspath(one.path), one.reason, one.code) for one in self.summary.failed]
        self.state.log_version = None if remote is None else remote.version
        with self._keeping():
            self.work.save("state.json", {**vars(self.state), "summary": summary})

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Stop the run if the block cannot write to the work folder, but record what is done."""
        try:
            yield
        except OSError as error:
            why = f"the work folder cannot be written: {write_error_message(error)}; TMPDIR chooses another folder"
            self.summary.stopped = self.summary.stopped or why


def _surely_image(file: PlacedFile) -> bool:
    """Whether the name of a file says that it is an image or a video."""
    return suffix_of(file.name).lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def _places_of(options: BatchOptions) -> dict[str, Any]:
    """Options that name places, as they were given: groups see those of the work folder."""
    values = options.to_dict()
    return {name: values[name] for name in ("log", "masks", "save_masks", "preview") if name in values}
