"""Groups of files, repaired through a temporary folder: objects are fetched into it, outputs delivered from it, whole.

    records = repair_group([("s3://in/a.jpg", "s3://out/a.jpg", None)], open_models("photo", options), options)

The repair itself is that of local files: what holds for them holds here.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore.errors import RestoreError, printable
from restore.files import sweep_leftovers
from restore.fix.batch_options import BatchOptions
from restore.fix.decoder_isolation import SupervisorLink
from restore.fix.file_plan import PlannedFile, plan_files
from restore.fix.log import ReasonCode, Record, Segment, Status
from restore.fix.masks import MaskSource
from restore.fix.options import DetectOptions, FixOptions
from restore.fix.plan import FixPlan, entry_of
from restore.fix.results import Summary, disk_is_full, now
from restore.fix.run import run_fix
from restore.images import IMAGE_SUFFIXES
from restore.packed import Packed
from restore.places.log import segments_of
from restore.places.outputs import GroupFile, exists, masks_for_page, write_outputs
from restore.places.store import TRANSFERS, ExistsAlready, Forbidden, NotThere, StoreError, Unreachable, store_of
from restore.places.urls import file_name_for, is_url, name_of, settle
from restore.places.work import WorkFolder

if TYPE_CHECKING:
    from restore.fix.steps import Models
    from restore.restorers.detector import Detector

_HEAD_BYTES = 1024  # as `format_of_file` reads


Group = Sequence[GroupFile | tuple[str, str] | tuple[str, str, str | None]]
"""Files that are repaired together. Pickling keeps it."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a file: its record, the number of pixels of all its pages, and whether it is a video."""

    record: Record
    pixels: int = 0
    video: bool = False

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Outcome:
        """From what a supervised run tells its parent."""
        return cls(Record(**entry["record"]), entry["pixels"], entry.get("video", False))


#: Carries out the plan of a group: (plan, options, link, on_outcome) -> summary.
Carry = Callable[[FixPlan, Any, SupervisorLink, Callable[[Outcome], None]], Summary]


def repair_group(
    group: Group, models: Sequence[Models], options: FixOptions, *, link: SupervisorLink | None = None
) -> list[Record]:
    """Repair the files of a group, and write their outputs: whole, or not at all.

    An output that exists is not replaced without `options.overwrite`: with `options.skip_existing` the file is skipped,
    otherwise it fails. The same holds if another writer comes first while the file is repaired.

    Args:
        group: with the places of the inputs, outputs and masks.
        models: from `restore.fix.run_models.open_models`.
        options: of the repair; `masks` says of what kind masks are, `log` only that records have hashes. Neither a log
            nor an HTML report is written.
        link: to a process that starts this one again if it crashes.

    Returns:
        A record for each file, in the order of the group; after a failure with `options.fail_fast` or a full disk, for
        those that were begun. `input` and `output` are as in the group.

    Raises:
        RestoreError: exit code 2; the models do not suit the options, or two files have one output. Nothing was
            written.
        KeyboardInterrupt: what was finished before is written.
    """
    return _whole(group, options, repairing(models), link)


def detect_group(
    group: Group, detector: Detector, options: DetectOptions, *, link: SupervisorLink | None = None
) -> list[Record]:
    """Write the masks of the damage in the files of a group; otherwise as `repair_group`. Outputs are PNG."""
    return _whole(group, options, detecting(detector), link)


def repairing(models: Sequence[Models]) -> Carry:
    """What repairs the plan of a group with models."""

    def carry(
        plan: FixPlan, options: FixOptions, link: SupervisorLink, on_outcome: Callable[[Outcome], None]
    ) -> Summary:
        return run_fix(plan, models, options, link=_Listener(link, on_outcome))

    return carry


def detecting(detector: Detector) -> Carry:
    """What finds the damage in the plan of a group."""

    def carry(
        plan: FixPlan, options: DetectOptions, link: SupervisorLink, on_outcome: Callable[[Outcome], None]
    ) -> Summary:
        from restore.fix.detect import run_detect, writing_masks  # it needs PyTorch, as the plan of a run does not

        return run_detect(writing_masks(plan), detector, options, link=_Listener(link, on_outcome))

    return carry


def _whole(group: Group, options: BatchOptions, carry: Carry, link: SupervisorLink | None) -> list[Record]:
    with WorkFolder() as folder, ThreadPoolExecutor(TRANSFERS) as pool:
        link = link or SupervisorLink()
        staged = StagedGroup(group, folder.group(0), options, again=bool(link.past.plan))
        staged.fetch(pool)
        staged.carry_out(carry, link)
        outcomes = staged.deliver(pool)
    if staged.interrupted:
        raise KeyboardInterrupt
    return [outcome.record for outcome in outcomes]


@dataclass
class _Place:
    """A file of the group on this disk."""

    file: GroupFile
    local: PlannedFile
    metadata: dict[str, str]


class StagedGroup:
    """A group in a folder. `fetch`, `carry_out` and `deliver` follow each other, on any threads.

    Args:
        group: its files.
        folder: an own folder, which need not exist.
        options: of the run.
        cancelled: asked before each transfer into the folder; what does not come is not begun.
        again: an earlier start, or a worker that is gone, may have written some of the outputs. They are repaired once
            more, and one that exists is kept: if it is the same, it is done.
        before_write: called with what comes of an image before its output is written, from any thread.

    Attributes:
        stopped: why the run should not go on; "" if it should.
        interrupted: Ctrl-C came while the group was repaired.
        is_carried_out: only `deliver` is left to do.
        segments: of videos.
    """

    def __init__(
        self,
        group: Group,
        folder: Path,
        options: BatchOptions,
        *,
        cancelled: Callable[[], bool] = lambda: False,
        again: bool = False,
        before_write: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self.folder, self.options, self._cancelled = folder, options, cancelled
        self._again, self._before_write = again, before_write
        self.files = [GroupFile(*file) for file in group]
        self.files = [
            file._replace(name=file.name or name_of(file.input), input=settle(file.input), output=settle(file.output))
            for file in self.files
        ]
        self.stopped, self.interrupted, self.is_carried_out = "", False, False
        self.segments: list[Segment] = []
        self._places: list[_Place | None] = [None] * len(self.files)
        self._outcomes: list[Outcome | None] = [None] * len(self.files)

    @property
    def has_work(self) -> bool:
        """Whether a file that has come is to be repaired."""
        return self._plan.has_work

    def fetch(self, pool: ThreadPoolExecutor) -> None:
        """Bring inputs and masks to this disk. A file that cannot be brought fails, the others are not concerned."""
        for _ in pool.map(self._fetch, range(len(self.files))):
            pass

    def carry_out(self, carry: Carry, link: SupervisorLink) -> None:
        """Repair what has come.

        Raises:
            RestoreError: exit code 2; as `run_fix`.
        """
        plan = self._plan
        number_of = {
            (os.fspath(place.local.source), os.fspath(place.local.target)): number
            for number, place in enumerate(self._places)
            if place is not None
        }

        def on_outcome(outcome: Outcome) -> None:
            number = number_of[outcome.record.input, outcome.record.output]
            place = self._places[number]
            assert place is not None
            self._outcomes[number] = replace(outcome, record=self._told(outcome.record, place))

        options = self.options
        if isinstance(options, FixOptions):
            log = None if options.log is None else self.folder / "log.jsonl"
            # A mask that was left out would be chosen again by `old_photos`.
            options = replace(options, masks=options.masks or "none", log=log, html_report=None)
        ended: Packed[str] = Packed()
        for result in link.past.results():  # before a crash
            key = result["record"]["input"], result["record"]["output"]
            if key in number_of:
                on_outcome(Outcome.of(result))
                # The earlier start may have brought other files, so that jobs had other numbers.
                ended.append(json.dumps({**result, "number": list(number_of).index(key)}))
        link.past.ended = ended
        summary = carry(plan, options, link, on_outcome)
        self.stopped, self.interrupted = self.stopped or summary.stopped, summary.interrupted
        self.segments = list(self._read_segments())

    def settle(self) -> None:
        """Settle files of which none is to be repaired, without a model."""
        numbers = (number for number, place in enumerate(self._places) if place is not None)
        for number, job in zip(numbers, self._plan.jobs):
            status: Status = "skipped" if job.action == "skip" else "failed"
            self._finish(self.files[number], number, status, job.reason, job.code)

    def deliver(self, pool: ThreadPoolExecutor) -> list[Outcome]:
        """Bring outputs to their places. Returns what came of each file that was begun, in the order of the group."""
        return list(self.delivered(pool))

    def delivered(self, pool: ThreadPoolExecutor) -> Iterator[Outcome]:
        """As `deliver`, one after the other."""
        places = [file.output for file in self.files if not is_url(file.output)]
        for folder in filter(Path.is_dir, {Path(place).parent for place in places}):
            sweep_leftovers(folder)
        for outcome in pool.map(self._deliver, range(len(self.files))):
            if outcome is not None:
                yield outcome

    def save(self) -> None:
        """Keep the outcomes of the repair, for a process that is started again before the outputs are delivered."""
        self.is_carried_out = True
        places = [None if place is None else (place.local, place.metadata) for place in self._places]
        outcomes = [None if one is None else asdict(one) for one in self._outcomes]
        kept = {"places": places, "outcomes": outcomes, "segments": list(map(asdict, self.segments))}
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / "outcomes.new"
        temporary.write_text(json.dumps(kept, default=_plain), "utf-8", "surrogateescape")
        os.replace(temporary, self.folder / "outcomes.json")

    def load(self) -> bool:
        """Load the outcomes that `save` has kept. Returns whether there are any."""
        try:
            kept = json.loads((self.folder / "outcomes.json").read_text("utf-8", "surrogateescape"))
        except FileNotFoundError:
            return False
        for number, (place, outcome) in enumerate(zip(kept["places"], kept["outcomes"])):
            if place is not None:
                self._places[number] = _Place(self.files[number], _planned(place[0]), place[1])
            if outcome is not None:
                self._outcomes[number] = Outcome.of(outcome)
        self.segments = [Segment(**segment) for segment in kept["segments"]]
        self.is_carried_out = True
        return True

    # Fetching.

    def _fetch(self, number: int) -> None:
        file = self.files[number]
        if self.stopped or self._cancelled():
            return
        try:
            self._places[number] = self._staged(number, file)
        except StoreError as error:
            if isinstance(error, NotThere):
                error.what = "vanished during the run"
                self._fail(file, number, _reason(error, file), "not_found")
            else:
                self._fail(file, number, _reason(error, file), error.code)
                self.stopped = self.stopped or fatal(error)
        except OSError as error:
            self._fail(file, number, f"{error.strerror or error}", "io_error")

    def _staged(self, number: int, file: GroupFile) -> _Place | None:
        """The files of an image on this disk; None: its outcome is settled."""
        if not self.options.overwrite and not self._again and exists(file.output):
            self._settle_existing(file, number)
            return None
        ending = str(number)
        source, metadata = Path(file.input), {}
        if is_url(file.input):
            source = self._own_folder("in", ending) / file_name_for(file.name)
            metadata = self._bring_image(file, source)
        target = self._own_folder("out", ending) / file_name_for(file.output)
        mask = None
        if file.mask is not None:
            mask = self._bring(file.mask, self._own_folder("mask", ending))
        side = None
        if file.side_output is not None:
            side = self._own_folder("side", ending) / file_name_for(file.side_output)
        sidecars = tuple(
            (
                self._bring(source_of, self._own_folder("in", ending)),
                self._own_folder("out", ending) / file_name_for(target_of),
            )
            for source_of, target_of in file.sidecars
        )
        local = PlannedFile(source, target, Path(file.name), mask, file.named, side, sidecars)
        return _Place(file, local, metadata)

    def _own_folder(self, kind: str, ending: str) -> Path:
        """A folder for one file of the group, so that names cannot meet."""
        folder = self.folder / kind / ending
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _bring(self, place: str, folder: Path) -> Path:
        if not is_url(place):
            return Path(place)
        path = folder / file_name_for(place)
        store_of(place).download(place, path)
        return path

    def _bring_image(self, file: GroupFile, path: Path) -> dict[str, str]:
        """Bring an image, or only its beginning if that shows that it is none. Returns what users attached to it."""
        store = store_of(file.input)
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            size = store.info(file.input).size
            path.write_bytes(store.head(file.input, _HEAD_BYTES) if size else b"")
            if entry_of(os.fspath(path), file.output, file.name, named=file.named).settled:
                return {}
        return dict(store.download(file.input, path).metadata)

    # Repair.

    @cached_property
    def _plan(self) -> FixPlan:
        """The plan of what has come."""
        files = [place.local for place in self._places if place is not None]
        options = self.options if isinstance(self.options, FixOptions) else self.options_for_plan()
        masks, for_page = self._masks(options), masks_for_page(options) is not None
        # Outputs are in the folder of the group until they are delivered.
        options = replace(options, overwrite=True, skip_existing=False)
        return replace(plan_files(files, options, masks=masks), for_page=for_page)

    def options_for_plan(self) -> FixOptions:
        """The options of a detection as the plan takes them."""
        assert isinstance(self.options, DetectOptions)
        return self.options.to_fix(suffix="")

    def _masks(self, options: FixOptions) -> MaskSource | None:
        if options.masks is None:
            return None
        if options.masks in ("auto", "alpha", "infrared"):
            return MaskSource.open(options.masks, invert=options.mask_invert, missing=options.mask_missing)
        return MaskSource(self.folder / "mask", True, options.mask_invert, options.mask_missing)

    def _read_segments(self) -> list[Segment]:
        log = self.folder / "log.jsonl"
        places = {os.fspath(place.local.source): place for place in self._places if place is not None}
        return [
            replace(segment, input=places[segment.input].file.input, output=places[segment.input].file.output)
            for segment in segments_of(log)
            if segment.input in places
        ]

    def _told(self, record: Record, place: _Place) -> Record:
        """A record with the places of its files instead of those on this disk."""
        file, local = place.file, place.local
        pairs = [(local.source, file.input), (local.target, file.output)]
        pairs += [(path, name) for path, name in ((local.mask, file.mask), (local.side_target, file.side_output))
                  if path is not None and name is not None]  # fmt: skip
        for (source, target), (source_of, target_of) in zip(local.sidecars, file.sidecars):
            pairs += [(source, source_of), (target, target_of)]

        def told(text: str) -> str:
            for path, name in pairs:
                text = text.replace(printable(path), printable(name))
            return text

        return replace(
            record,
            input=file.input,
            output=file.output,
            reason=told(record.reason),
            warnings=[told(line) for line in record.warnings],
        )

    # Delivering.

    def _deliver(self, number: int) -> Outcome | None:
        outcome, place = self._outcomes[number], self._places[number]
        if outcome is None or place is None or outcome.record.status != "done":
            return outcome
        self._before_write(outcome)
        try:
            notes = write_outputs(place.file, place.local, self.options, place.metadata)
        except ExistsAlready as error:
            status: Status = "skipped" if self.options.skip_existing else "failed"
            reason = "the output exists" if self.options.skip_existing else error.what
            return _without_output(outcome, status, reason, "output_exists")
        except StoreError as error:
            self.stopped = self.stopped or fatal(error, writing=True)
            return _without_output(outcome, "failed", f"{place.file.output}: {error.what}", error.code)
        except OSError as error:
            return _without_output(outcome, "failed", f"{place.local.target}: {error.strerror}", "io_error")
        return replace(outcome, record=replace(outcome.record, warnings=[*outcome.record.warnings, *notes]))

    # Outcomes without a repair.

    def _settle_existing(self, file: GroupFile, number: int) -> None:
        if self.options.skip_existing:
            self._finish(file, number, "skipped", "the output exists", "output_exists")
        else:
            what = "the output exists already; use --overwrite or --skip-existing"
            self._finish(file, number, "failed", what, "output_exists")

    def _fail(self, file: GroupFile, number: int, reason: str, code: ReasonCode) -> None:
        for kind in ("in", "mask"):  # the disk may be full of what has come of it
            shutil.rmtree(self.folder / kind / str(number), ignore_errors=True)
        self._finish(file, number, "failed", reason, code)

    def _finish(self, file: GroupFile, number: int, status: Status, reason: str, code: ReasonCode) -> None:
        self._outcomes[number] = Outcome(Record(file.input, file.output, status, reason, code, time=now()))


def _plain(value: object) -> Any:
    """Paths and files of a plan as JSON holds them."""
    return os.fspath(value) if isinstance(value, Path) else vars(value)


def _planned(kept: dict[str, Any]) -> PlannedFile:
    """A file of a plan from what `_plain` has made of it."""
    mask, side = (None if kept[name] is None else Path(kept[name]) for name in ("mask", "side_target"))
    sidecars = tuple((Path(source), Path(target)) for source, target in kept["sidecars"])
    return PlannedFile(
        Path(kept["source"]), Path(kept["target"]), Path(kept["name"]), mask, kept["named"], side, sidecars
    )


class _Listener(SupervisorLink):
    """A link that also tells each record, with the number of pixels, which records do not hold."""

    takes_each = True

    def __init__(self, link: SupervisorLink, on_outcome: Callable[[Outcome], None]) -> None:
        self._link, self._on_outcome = link, on_outcome
        self.past = link.past
        self.begin, self.decoding, self.finish = link.begin, link.decoding, link.finish  # type: ignore[method-assign]

    def end(self, name: str, record: dict[str, Any]) -> None:
        """Tell the record, and pass it on."""
        self._on_outcome(Outcome.of(record))
        self._link.end(name, record)


def fatal(error: StoreError, *, writing: bool = False) -> str:
    """Why a run should stop because of an error; "" if it concerns one file."""
    cause = error.__cause__
    if isinstance(error, Unreachable) or (writing and isinstance(error, Forbidden)):
        return f"{error.where}: {error.what}"
    if isinstance(cause, OSError) and disk_is_full(cause):
        return error.what if error.hint is None else f"{error.what}; {error.hint}"
    return ""


def _reason(error: RestoreError, file: GroupFile) -> str:
    """Why a file failed, in one line; another file that caused it is named."""
    return error.what if error.where == printable(file.input) else f"{error.where}: {error.what}"


def _without_output(outcome: Outcome, status: Status, reason: str, code: ReasonCode) -> Outcome:
    record = replace(outcome.record, status=status, reason=reason, reason_code=code, output_sha256=None)
    return Outcome(record)
