"""What a run over URLs will do, decided from names alone: no object is read, and nothing is written.

Outputs have the names that `restore.fix.plan` gives them, and the same is refused. What needs the content of a file is
settled when its group has come.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from restore.errors import RestoreError, printable
from restore.files import check_writable, is_within
from restore.fix.inputs import check_input, is_pipe, shard_of
from restore.fix.log import ReasonCode, Record, Status
from restore.fix.masks import MaskSource
from restore.fix.options import EXTENSIONS, BatchOptions, DetectOptions, FilePath, FixOptions, parse_shard
from restore.fix.parquet_log import SUFFIX as PARQUET_SUFFIX
from restore.fix.plan import Action, NoImages
from restore.fix.results import now
from restore.fix.side_outputs import mask_name, preview_name
from restore.fix.targets import check_folder_target, check_named_target, check_video_name, renamed
from restore.images import FORMAT_OF_SUFFIX, IMAGE_SUFFIXES, find_images
from restore.images.formats import SYSTEM_FOLDERS, composed, left_out_lines, matches
from restore.images.mask_names import ImageNames, pair_by_name
from restore.places.groups import GroupFile
from restore.places.store import NotThere, StoreError, store_of
from restore.places.urls import any_url, as_folder, bucket_of, is_below, is_url, name_of, odd_name, settle
from restore.video.formats import VIDEO_SUFFIXES

#: A group has at most this many files and bytes of inputs, unless one file alone is larger.
GROUP_FILES = 64
GROUP_BYTES = 512 << 20


class Verdict(NamedTuple):
    """What happens to a file, as of a `Job`."""

    action: Action = "repair"
    reason: str = ""
    code: ReasonCode = ""


REPAIR = Verdict()
EXISTS = Verdict("skip", "the output exists", "output_exists")


class PlacedFile(NamedTuple):
    """A file of the plan. Many of them share a root and a verdict.

    Attributes:
        root, name: the place of the input is one after the other.
        prefix: that and `name` are its path in the tree of the outputs.
        size: in bytes, if it is an object.
        mask: its mask; None: it has none, or it is not a file.
        sidecars: places of files that go along, and their names in the tree of the outputs.
        named: the user named this file.
        verdict: what happens to it.
    """

    root: str
    name: str
    prefix: str = ""
    size: int = 0
    mask: str | None = None
    sidecars: tuple[tuple[str, str], ...] = ()
    named: bool = False
    verdict: Verdict = REPAIR

    @property
    def source(self) -> str:
        """The place of the input."""
        return self.root + self.name

    @property
    def is_work(self) -> bool:
        """Whether it is to be read."""
        return self.verdict.action not in ("skip", "fail")

    @property
    def tree_name(self) -> str:
        """The path in the tree of the outputs, before suffixes change."""
        return self.prefix + self.name


@dataclass
class PlacesPlan:
    """Everything that a run over URLs will do.

    Attributes:
        inputs, output: places, as the user gave them.
        files: in the order of the listing.
        file_output: the output is this file, not a folder.
        side: the folder of second outputs; None: there are none.
        suffix, extension: added to names, and put in the place of their suffix.
        kind: `fix` or `detect`.
        masks: the run has masks; where from, says `restore.fix.masks.MaskSource`.
        unmatched_masks: masks without an image.
        warnings: what the user should know, one line each.
    """

    inputs: list[str]
    output: str
    files: list[PlacedFile]
    file_output: str | None = None
    side: str | None = None
    suffix: str = ""
    extension: str | None = None
    kind: str = "fix"
    masks: MaskSource | None = None
    unmatched_masks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def input(self) -> str | list[str]:
        """The input as logs and JSON hold it: one place, or several."""
        return self.inputs[0] if len(self.inputs) == 1 else self.inputs

    def goal(self, file: PlacedFile) -> str:
        """The name of an output in the tree of the outputs."""
        return renamed(Path(file.tree_name), self.suffix, self.extension).as_posix()

    def target(self, file: PlacedFile) -> str:
        """The place of an output."""
        return self.file_output or as_folder(self.output) + self.goal(file)

    def side_target(self, file: PlacedFile) -> str | None:
        """The place of a second output."""
        if self.side is None:
            return None
        name_for = preview_name if self.kind == "detect" else mask_name
        return as_folder(self.side) + name_for(Path(file.tree_name)).as_posix()

    def sidecar_targets(self, file: PlacedFile) -> tuple[tuple[str, str], ...]:
        """Sidecars and the places of their outputs."""
        folder = self.target(file).rpartition("/")[0]
        return tuple((source, f"{folder}/{name}") for source, name in file.sidecars)

    def group_file(self, file: PlacedFile) -> GroupFile:
        """A file as groups take it."""
        return GroupFile(
            file.source, self.target(file), file.mask, file.tree_name, self.side_target(file),
            self.sidecar_targets(file), file.named,
        )  # fmt: skip

    def groups(self, files: int | None = None) -> Iterator[list[GroupFile]]:
        """The files with work, in groups of at most `files` (default: `GROUP_FILES`) and `GROUP_BYTES`."""
        group: list[GroupFile] = []
        size = 0
        for file in self.files:
            if not file.is_work:
                continue
            if group and (len(group) == (files or GROUP_FILES) or size + file.size > GROUP_BYTES):
                yield group
                group, size = [], 0
            group.append(self.group_file(file))
            size += file.size
        if group:
            yield group

    def settled(self) -> Iterator[Record]:
        """Records of the files that the plan has decided: they are skipped, or fail."""
        for file in self.files:
            if not file.is_work:
                action, reason, code = file.verdict
                status: Status = "skipped" if action == "skip" else "failed"
                yield Record(file.source, self.target(file), status, reason, code, time=now())

    def format(self) -> Iterator[str]:
        """One line for each file, as `--dry-run` prints them."""
        for file in self.files:
            action, reason, _ = file.verdict
            if action in ("skip", "fail"):
                yield f"{printable(file.source)}: {'skipped' if action == 'skip' else 'fails'}: {reason}"
                continue
            line = f"{printable(file.source)} -> {printable(self.target(file))}"
            if action == "unmasked":
                line += " (no mask: nothing to fill)"
            elif file.mask is not None:
                line += f" (mask {printable(file.mask)})"
            if action == "repair" and self.side is not None:
                line += f" (saves mask {printable(self.side_target(file) or '')})"
            yield line

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON holds it, with the keys of a `FixPlan`."""
        jobs = [
            {
                "input": file.source,
                "output": self.target(file),
                "mask": file.mask,
                "saved_mask": self.side_target(file) if file.verdict.action == "repair" else None,
                "action": file.verdict.action,
                "reason": file.verdict.reason,
                "reason_code": file.verdict.code,
            }
            for file in self.files
        ]
        return {
            "input": self.input,
            "output": self.output,
            "jobs": jobs,
            "unmatched_masks": self.unmatched_masks,
            "warnings": self.warnings,
        }


def plan_places(inputs: Sequence[FilePath], output: FilePath, options: BatchOptions) -> PlacesPlan:
    """List the inputs, pair masks, decide the names of the outputs, and refuse what could lose anything.

    Args:
        inputs, output: places: URLs and paths, as for `plan_fix`.
        options: a `FixOptions`, or a `DetectOptions` for a run that writes masks.

    Raises:
        RestoreError: exit code 2; nothing has been written. As `plan_fix`, and if a store cannot be listed.
    """
    try:
        return _Planner(inputs, output, options).plan()
    except StoreError as error:
        error.exit_code = 2
        raise


class _Planner:
    def __init__(self, inputs: Sequence[FilePath], output: FilePath, options: BatchOptions) -> None:
        self.detects = isinstance(options, DetectOptions)
        self.output = settle(output, what="OUTPUT")
        _check_given([*inputs, output], options)
        self.inputs = [settle(place, what="INPUT") for place in inputs]
        self.listed = None if options.files_from is None else list(_lines(options.files_from))
        side = options.preview if isinstance(options, DetectOptions) else getattr(options, "save_masks", None)
        self.side = None if side is None else settle(side, what="--preview" if self.detects else "--save-masks")
        assert isinstance(options, FixOptions | DetectOptions)
        self.options: FixOptions = options.to_fix(suffix="") if isinstance(options, DetectOptions) else options
        self.options.check_masks(has_masks=self.options.masks is not None)
        masks = self.options.masks
        self.mask_place = None if masks in (None, "auto", "alpha", "infrared") else settle(str(masks), what="--masks")
        self.warnings: list[str] = []
        self.left_out: list[Path] = []

    def plan(self) -> PlacesPlan:
        options, masks = self.options, self._masks()
        kinds = {place: _kind(place) for place in self.inputs}
        single = self.listed is None and len(self.inputs) == 1 and kinds[self.inputs[0]] == "file"
        if single and (options.include or options.exclude or options.shard is not None):
            raise RestoreError(
                "is a file; --include, --exclude and --shard only apply to folders", where=self.inputs[0]
            )
        to_file = single and not self.output.endswith("/") and (is_url(self.output) or not os.path.isdir(self.output))
        if not self.inputs and self.listed is None:
            raise RestoreError("is missing (the last name is OUTPUT)", where="INPUT", hint="name images or a folder")
        suffix = "_mask" if self.detects and not to_file else options.suffix
        extension = None if options.ext is None else EXTENSIONS[options.ext]
        plan = PlacesPlan(
            list(self.inputs) or [os.fspath(options.files_from or "")], self.output, [],
            file_output=self.output if to_file else None, side=self.side, suffix=suffix, extension=extension,
            kind="detect" if self.detects else "fix", masks=masks,
        )  # fmt: skip
        if to_file:
            self._check_file_output(suffix)
        else:
            self._check_folders(kinds)
        everything, files = self._listing(kinds)
        files, sidecars = self._with_sidecars(plan, files, everything)
        plan.warnings += self.warnings + left_out_lines(self.left_out, hint="name one as INPUT to repair it")
        if self.mask_place is not None and masks is not None:
            files = self._with_masks(plan, files, everything, masks)
        if not files:
            narrowed = " match --include and --exclude" if options.include or options.exclude else ""
            raise NoImages(f"no images in this folder{narrowed}", where=plan.inputs[0])
        plan.files = files
        _refuse_collisions(plan, sidecars)
        if options.shard is not None:
            part, parts = parse_shard(options.shard)
            plan.files = [file for file in files if shard_of(Path(file.tree_name), parts) == part]
        self._settle_existing(plan)
        return plan

    # Places.

    def _masks(self) -> MaskSource | None:
        """Where masks come from; for `plan.masks` and outcomes alone, since groups bring their own."""
        options = self.options
        if options.masks is None:
            return None
        if self.mask_place is None or not is_url(self.mask_place):
            return MaskSource.open(
                options.masks if self.mask_place is None else self.mask_place,
                invert=options.mask_invert,
                missing=options.mask_missing,
            )
        kind = _kind(self.mask_place, "there is no such folder or file of masks")
        return MaskSource(Path("masks"), kind == "folder", options.mask_invert, options.mask_missing)

    def _check_file_output(self, suffix: str) -> None:
        """Check the output of a single file."""
        source, target = PurePosixPath(name_of(self.inputs[0])), PurePosixPath(name_of(self.output))
        if is_url(self.output) and "/" not in self.output.partition("://")[2]:
            raise RestoreError("could be a file or a folder", where=self.output, hint="add a slash for a folder")
        if source.suffix.lower() in VIDEO_SUFFIXES and not self.detects:
            check_video_name(target)
        elif self.detects and FORMAT_OF_SUFFIX.get(target.suffix.lower()) != "png":
            raise RestoreError("masks are written as PNG", where=self.output, hint="name a .png file, or add a slash")
        else:
            extension = None if self.options.ext is None else EXTENSIONS[self.options.ext]
            check_named_target(source, target, suffix=suffix, extension=extension)
        if self.output == self.inputs[0]:
            raise RestoreError("the output is the input itself", where=self.output, hint="choose another name")
        if not is_url(self.output):
            check_writable(Path(self.output).parent)

    def _check_folders(self, kinds: dict[str, str]) -> None:
        """Check that the output is a folder apart from those that are read."""
        read = [place for place, kind in kinds.items() if kind == "folder"]
        sides = [] if self.side is None else [("--preview" if self.detects else "--save-masks", self.side)]
        for option, target in [("OUTPUT", self.output), *sides]:
            if not is_url(target):
                check_folder_target(None, Path(target))
                for place in read:
                    if not is_url(place):
                        check_folder_target(Path(place), Path(target))
                check_writable(Path(target))
                continue
            for folder in read:
                if is_url(folder) and is_below(target, folder):
                    what = f"the output folder is {printable(folder)}, or inside it"
                    raise RestoreError(what, where=target, hint="choose another folder")
            other = [self.mask_place] if self.mask_place is not None and is_url(self.mask_place) else []
            other += [self.output] if option != "OUTPUT" and is_url(self.output) else []
            for folder in other:
                if is_below(target, folder) or is_below(folder, target):
                    what = f"{option} needs a folder apart from {printable(folder)}"
                    raise RestoreError(what, where=target, hint="choose another folder")

    # Names.

    def _listing(self, kinds: dict[str, str]) -> tuple[list[PlacedFile], list[PlacedFile]]:
        """All files of the inputs, and those that are not excluded."""
        several = len(self.inputs) != 1
        everything: list[PlacedFile] = []
        if self.listed is not None:
            return self._of_list(kinds)
        for place in dict.fromkeys(self.inputs):
            if kinds[place] == "file":
                root, name = _split(place)
                everything.append(PlacedFile(root, name, named=True))
            else:
                prefix = f"{name_of(place)}/" if several else ""
                everything += self._in_folder(place, prefix)
        options = self.options
        if not options.include and not options.exclude:
            return everything, everything
        wanted = [file for file in everything if file.named or self._is_wanted(file.name)]
        return everything, wanted

    def _is_wanted(self, name: str) -> bool:
        path, options = Path(name), self.options
        return (not options.include or matches(path, options.include)) and not matches(path, options.exclude)

    def _of_list(self, kinds: dict[str, str]) -> tuple[list[PlacedFile], list[PlacedFile]]:
        """The files of `--files-from`: by their own names, or in the tree of an input folder."""
        assert self.listed is not None
        files = []
        root = as_folder(self.inputs[0]) if self.inputs else ""
        if len(self.inputs) > 1 or (self.inputs and kinds[self.inputs[0]] != "folder"):
            raise RestoreError("takes one folder as INPUT, or none", where="--files-from", hint="leave out INPUT")
        for line in dict.fromkeys(self.listed):
            place = settle(line, what="--files-from")
            if not self.inputs:
                own_root, name = _split(place)
                files.append(PlacedFile(own_root, name, named=True))
                continue
            if not is_url(place):
                place = os.path.abspath(place)
            if not is_url(root):
                root = as_folder(os.path.abspath(root))
            if not place.startswith(root):
                what = f"is not in the folder {printable(self.inputs[0])}"
                raise RestoreError(what, where=place, hint="leave out INPUT")
            if self._is_wanted(place.removeprefix(root)):
                files.append(PlacedFile(root, place.removeprefix(root), named=True))
        return files, files

    def _in_folder(self, place: str, prefix: str) -> Iterator[PlacedFile]:
        root = as_folder(place)
        masks_here = self.mask_place
        if masks_here is not None and _folder_key(masks_here) == _folder_key(root):
            masks_here = None  # then names tell masks from images
        if not is_url(place):
            for path in find_images(place, suffixes=_AnySuffix(), on_left_out=self.left_out.append):
                name = path.as_posix()
                if masks_here is None or is_url(masks_here) or not is_within(Path(root + name), Path(masks_here)):
                    yield PlacedFile(root, name, prefix)
            return
        hidden: dict[Path, None] = {}
        for name, size in store_names(root):
            if masks_here is not None and (
                root + name == masks_here or (root + name).startswith(as_folder(masks_here))
            ):
                continue
            if reason := odd_name(name):
                yield PlacedFile(root, name, prefix, verdict=Verdict("fail", reason, "unsupported"))
            elif (left_out := _hidden(name)) is None:
                yield PlacedFile(root, name, prefix, size)
            elif left_out != "":
                hidden[Path(left_out)] = None
        self.left_out += [path for path in hidden if not matches(path, self.options.exclude)]

    # Masks and sidecars.

    def _with_sidecars(
        self, plan: PlacesPlan, files: list[PlacedFile], everything: Iterable[PlacedFile]
    ) -> tuple[list[PlacedFile], bool]:
        """The files with their XMP sidecars, which are no files of their own then; and whether there are any."""
        if self.options.metadata != "keep":
            return files, False
        found = {_key(file.source): file.source for file in everything if file.name.lower().endswith(".xmp")}
        if not found:
            return files, False
        taken: set[str] = set()
        result = []
        for file in files:
            if file.source in found.values() and file.name.lower().endswith(".xmp"):
                result.append(file)
                continue
            source, goal = PurePosixPath(file.source), PurePosixPath(plan.target(file))
            pairs = []
            for own, name, other in ((file.source, source.name, goal.name), (file.source, source.stem, goal.stem)):
                sidecar = found.get(_key(own.rpartition("/")[0] + f"/{name}.xmp"))
                if sidecar is not None and sidecar not in taken:
                    taken.add(sidecar)
                    pairs.append((sidecar, other + sidecar[-4:]))
            result.append(file._replace(sidecars=tuple(pairs)) if pairs else file)
        return [file for file in result if file.source not in taken], bool(taken)

    def _with_masks(
        self, plan: PlacesPlan, files: list[PlacedFile], everything: Sequence[PlacedFile], masks: MaskSource
    ) -> list[PlacedFile]:
        assert self.mask_place is not None
        if not masks.folder:
            return [file._replace(mask=self.mask_place) for file in files if file.source != self.mask_place]
        root = as_folder(self.mask_place)
        beside = _folder_key(root) in map(_folder_key, {file.root for file in files})
        if beside:
            names = ImageNames([Path(file.tree_name) for file in everything], beside=True)
            files = [file for file in files if not names.of_mask(Path(file.tree_name))[0]]
            everything = [file for file in everything if not names.of_mask(Path(file.tree_name))[0]]
        paths = [Path(name) for name in _mask_names(root)]
        masks_of, unmatched = pair_by_name(paths, [Path(file.tree_name) for file in everything], beside=beside)
        plan.unmatched_masks = [] if all(file.named for file in files) else [f"{root}{name}" for name in unmatched]
        if plan.unmatched_masks:
            plan.warnings += [f"{printable(root + str(name))}: {reason}" for name, reason in unmatched.items()]
        missing = Verdict(**masks.when_missing())
        result = []
        for file in files:
            own = [root + mask.as_posix() for mask in masks_of.get(Path(file.tree_name), [])]
            if file.verdict.action != "repair":
                result.append(file)
            elif len(own) > 1:
                reason = f"has more than one mask: {' and '.join(map(printable, own))}"
                result.append(file._replace(verdict=Verdict("fail", reason, "several_masks")))
            else:
                result.append(file._replace(mask=own[0]) if own else file._replace(verdict=missing))
        return result

    # Outputs that exist.

    def _settle_existing(self, plan: PlacesPlan) -> None:
        """Skip files whose output exists, or refuse them, as the options say."""
        options = self.options
        if options.overwrite:
            if is_url(plan.output):
                next(store_of(plan.output).list(as_folder(plan.output)), None)  # the bucket is there
            return
        exists = _existing(plan.output, single=plan.file_output)
        side_exists = None if plan.side is None else _existing(plan.side)
        first, count, files = "", 0, []
        for file in plan.files:
            if not file.is_work:
                files.append(file)
                continue
            found = [
                target for target in (plan.target(file), *(t for _, t in plan.sidecar_targets(file))) if exists(target)
            ]
            side = plan.side_target(file)
            if side is not None and side_exists is not None and file.verdict.action == "repair" and side_exists(side):
                found.append(side)
            if found and not options.skip_existing:
                first, count = first or found[0], count + len(found)
            files.append(file._replace(verdict=EXISTS) if found[:1] == [plan.target(file)] else file)
        if first:
            more = f" (and {count - 1} more outputs)" if count > 1 else ""
            raise RestoreError(f"exists already{more}", where=first, hint="use --overwrite or --skip-existing")
        plan.files = files


class _AnySuffix(frozenset[str]):
    def __contains__(self, suffix: object) -> bool:
        return True


def store_names(folder: str) -> Iterator[tuple[str, int]]:
    """Names below a folder of a store, sorted by their bytes as S3 sorts them, and their sizes."""
    for entry in store_of(folder).list(folder):
        yield entry.name, entry.size


def _check_given(places: Sequence[FilePath], options: BatchOptions) -> None:
    for place in places:
        if not os.fspath(place):
            raise RestoreError("must not be empty", where="INPUT or OUTPUT", hint="the current folder is .")
        if is_pipe(place):
            raise RestoreError("cannot be combined with URLs", where="-", hint="name a file")
    if getattr(options, "html_report", None) is not None:
        raise RestoreError("cannot be combined with URLs", where="--html-report", hint="leave it out")
    log = getattr(options, "log", None)
    if is_url(log) and str(log).endswith(PARQUET_SUFFIX):
        raise RestoreError("a Parquet log must be on this machine", where="--log", hint="choose .jsonl, or a path")
    for name in ("condition", "detector", "files_from"):
        value = getattr(options, name, None)
        if any_url(value if isinstance(value, tuple) else [value]):
            raise RestoreError("must be on this machine", where=f"--{name.replace('_', '-')}", hint="download it")


def _kind(place: str, missing: str = "there is no such file or folder") -> str:
    """`file` or `folder`.

    Raises:
        RestoreError: exit code 2; there is neither, or it cannot be read.
    """
    if not is_url(place):
        check_input(Path(place))
        return "folder" if os.path.isdir(place) else "file"
    kind = store_of(place).kind(place)
    if not kind and place == bucket_of(place):
        raise NoImages("this bucket is empty", where=place)
    if not kind:
        raise RestoreError(missing.replace("file", "object"), where=place)
    return kind


def _folder_key(folder: str) -> str:
    """The same for all spellings of a folder."""
    return as_folder(folder if is_url(folder) else os.path.realpath(folder))


def _lines(place: FilePath) -> Iterator[str]:
    """The places that a list names, one a line, or ended by NUL."""
    try:
        data = sys.stdin.buffer.read() if is_pipe(place) else Path(place).read_bytes()
    except OSError as error:
        raise RestoreError(f"the list cannot be read: {error.strerror}", where=place) from error
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\0" if b"\0" in data else b"\n")
    named = [os.fsdecode(line.removesuffix(b"\r")) for line in lines if line.strip()]
    if not named:
        raise RestoreError("this list names no files", where=place)
    yield from named


def _split(place: str) -> tuple[str, str]:
    """The folder of a place with its slash, and its last part."""
    folder, slash, name = place.rpartition("/")
    return folder + slash, name


def _hidden(name: str) -> str | None:
    """What a name is left out for: a hidden or system folder, or itself; "": nobody needs to know; None: it is not."""
    *folders, last = name.split("/")
    for depth, folder in enumerate(folders):
        if folder.startswith(".") or folder.lower() in SYSTEM_FOLDERS:
            return "/".join(folders[: depth + 1])
    if last.startswith("."):
        return name if PurePosixPath(last).suffix.lower() in IMAGE_SUFFIXES else ""
    return None


def _mask_names(root: str) -> Iterator[str]:
    """Names of the images in a folder of masks."""
    if not is_url(root):
        yield from (path.as_posix() for path in find_images(root))
        return
    for name, _ in store_names(root):
        if _hidden(name) is None and not odd_name(name) and PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES:
            yield name


def _key(place: str) -> str:
    """The same for all spellings of a sidecar's place."""
    folder, _, name = place.rpartition("/")
    return f"{folder}/{composed(name).casefold()}"


def _refuse_collisions(plan: PlacesPlan, sidecars: bool) -> None:
    """Refuse two outputs with one name.

    Raises:
        RestoreError: exit code 2.
    """
    several = len({(file.root, file.prefix) for file in plan.files}) > 1
    if not (several or plan.extension is not None or sidecars):
        return  # names differ, and the suffix is added to each
    taken: dict[str, str] = {}
    for file in plan.files:
        if not file.is_work:
            continue
        for target in (plan.target(file), *(target for _, target in plan.sidecar_targets(file))):
            other = taken.setdefault(target, file.source)
            if other != file.source:
                raise RestoreError(
                    f"{printable(other)} and {printable(file.source)} would both be written here",
                    where=target,
                    hint="rename one of them, or use --exclude",
                )


def _existing(folder: str, *, single: str | None = None) -> Callable[[str], bool]:
    """Whether an output exists: asked of the disk, or of one listing of the store."""
    if not is_url(folder):
        return os.path.lexists
    if single is not None:
        exists = store_of(single).exists(single)
        if not exists:
            next(store_of(single).list(single.rpartition("/")[0] + "/"), None)  # the bucket is there
        return lambda target: exists
    root = as_folder(folder)
    try:
        names = {name for name, _ in store_names(root)}
    except NotThere as error:
        error.hint = "make it first"
        raise
    return lambda target: target.startswith(root) and target[len(root) :] in names
