"""Image sequences: every frame is an image with all that its file holds, and its neighbors help to repair it.

With `--deflicker`, frames are read twice: first at a small size, to measure the brightness of the frames around each,
then in full, to be repaired. So only a few are in memory at full size.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError
from restore.fix.batch_options import FilePath
from restore.fix.options import FixOptions
from restore.fix.pages import MemoryPage
from restore.fix.reader import WorkItem
from restore.fix.steps import run_steps
from restore.fix.video import find_damage
from restore.images import read_image
from restore.video.ahead import ahead
from restore.video.deflicker import REACH, Tone, deflickered, small_of
from restore.video.sequence import files_of, gaps, is_sequence, number_of
from restore.video.temporal import AROUND, steadily

if TYPE_CHECKING:
    from restore.fix.stages import Stages

_WHITE = 65535.0


def as_files(pattern: Path, output: FilePath, options: FixOptions) -> tuple[list[FilePath], FilePath, list[str]]:
    """The inputs of a run with the files of a sequence in its place.

    Args:
        pattern: the sequence.
        output: as the user gave it: a folder, or the same sequence in another folder.
        options: of the run.

    Returns:
        The files, the output folder, and warnings.

    Raises:
        RestoreError: exit code 2; a sequence without files, or an output that it cannot go to.
    """
    files = files_of(pattern)
    if options.correct_fading:
        raise RestoreError(
            "fading is corrected in photographs only: frame by frame, it would flicker",
            where="--correct-fading",
            hint="add --no-correct-fading",
        )
    if is_sequence(output):
        if Path(output).name != pattern.name:
            raise RestoreError(
                "the frames of the output have the names of those of the input",
                where=output,
                hint=f"end OUTPUT in {pattern.name}, or name a folder",
            )
        output = Path(output).parent
    if len(files) == 1:  # a single input could also go to a file
        output = f"{os.fspath(output)}{os.sep}"
    missing = gaps(list(files))
    warnings = [f"frames are missing: {missing}; frames are not compared across a gap"] if missing else []
    return list(files.values()), output, warnings


@dataclass
class _Frame:
    """A frame of a sequence.

    Attributes:
        number: in its name.
        rgb: H×W×3, uint16; 65535 is white. Of a small one: float32, white is 1.
        item: on its way through the stages; None: it only helps its neighbors.
    """

    number: int
    rgb: npt.NDArray[Any]
    item: WorkItem | None


def repair_sequence(pattern: Path, jobs: Iterable[Any], every: Iterable[Any], stages: Stages) -> None:
    """Take the frames of a sequence through all stages, with `--masks auto` or `--deflicker`.

    Args:
        pattern: the sequence.
        jobs: the frames to repair.
        every: all jobs of the plan, whose frames may help.
        stages: of the run.
    """
    to_do = {job.source: job for job in jobs}
    numbered = [(number_of(pattern, job.source), job.source) for job in every]
    own = {number for number, source in numbered if source in to_do and number is not None}
    found = stages.plan.masks is not None and stages.plan.masks.found
    reach = AROUND if found else 0
    around = _near(own, reach)
    wanted = [(number, to_do.get(source, source)) for number, source in numbered if number in around]
    tone_of: Callable[[int], Tone | None] = lambda number: None  # noqa: E731
    if stages.options.deflicker:
        farther = _near(own, reach + REACH)
        tone_of = _in_order(_tones([(number, source) for number, source in numbered if number in farther]))
    with closing(ahead(_frames(wanted, stages, tone_of), 1)) as frames:
        if not found:
            _repair_alone(frames, stages)
            return
        for stretch in _stretches(frames):
            with closing(_steadily(stretch, stages)) as repaired:
                for frame, rgb, mask, unknown in repaired:
                    if stages.recorder.summary.stopped:
                        return
                    if frame.item is not None:
                        _finish(frame.item, rgb, mask, unknown, stages)


def _near(numbers: set[int], reach: int) -> set[int]:
    return {number + step for number in numbers for step in range(-reach, reach + 1)}


def _repair_alone(frames: Iterator[_Frame], stages: Stages) -> None:
    """Take each frame alone through all stages."""
    for frame in frames:
        if stages.recorder.summary.stopped:
            return
        assert frame.item is not None
        for repaired in stages.repair_group([frame.item], 0):
            stages.writer.save(repaired)


def _tones(files: Sequence[tuple[int | None, Path]]) -> Iterator[tuple[int, Tone | None]]:
    """Tone corrections that remove flicker, by frame number, in order; frames that cannot be read are left out."""

    def small() -> Iterator[_Frame]:
        for number, file in files:
            assert number is not None
            try:
                yield _Frame(number, small_of(read_image(file).to_srgb()), None)
            except (RestoreError, OSError):
                continue

    for stretch in _stretches(small()):
        yield from ((frame.number, tone) for frame, tone in deflickered((one, one.rgb) for one in stretch))


def _in_order(tones: Iterator[tuple[int, Tone | None]]) -> Callable[[int], Tone | None]:
    """Look up tones by rising numbers."""
    following = next(tones, None)

    def tone_of(number: int) -> Tone | None:
        nonlocal following
        while following is not None and following[0] < number:
            following = next(tones, None)
        return None if following is None or following[0] != number else following[1]

    return tone_of


def _frames(
    wanted: Sequence[tuple[int | None, Any]], stages: Stages, tone_of: Callable[[int], Tone | None]
) -> Iterator[_Frame]:
    """Read frames, and remove their flicker; those that fail are recorded, and left out."""
    for number, one in wanted:
        assert number is not None
        if isinstance(one, Path):
            try:
                rgb = read_image(one).to_srgb()
            except (RestoreError, OSError):
                continue
            tone = tone_of(number)
            yield _Frame(number, _deep(rgb if tone is None else tone.to_unit(rgb)), None)
            continue
        item = stages.reader.load(one)
        if item is not None and not isinstance(item, WorkItem):
            item = stages.reader.load_whole(one)
        if item is not None and len(item.pages) > 1:
            stages.recorder.fail(item.job, RestoreError("a frame of a sequence has one page", exit_code=1))
        elif item is not None:
            # Decided for each frame anew, whether a clean-up is needed would flicker.
            clean_up = item.steps.clean_up and stages.options.clean_up is True
            item.steps = replace(item.steps, clean_up=clean_up, spare_clean=False)
            page, tone = item.pages[0], tone_of(number) if stages.options.strength else None
            if tone is not None:
                page.image, page.deflickered, page.everywhere = tone.to_unit(page.image), True, True
            yield _Frame(number, _deep(page.image), item)


def _stretches(frames: Iterator[_Frame]) -> Iterator[Iterator[_Frame]]:
    """The frames in stretches without gaps, of one size, each to be used up before the next."""
    waiting: list[_Frame] = []

    def stretch() -> Generator[_Frame, None, None]:
        last = waiting.pop()
        yield last
        for frame in frames:
            if frame.number != last.number + 1 or frame.rgb.shape != last.rgb.shape:
                waiting.append(frame)
                return
            last = frame
            yield frame

    waiting += [frame for frame in [next(frames, None)] if frame is not None]
    while waiting:
        yield stretch()


def _steadily(frames: Iterator[_Frame], stages: Stages) -> Generator[tuple[_Frame, Any, Any, Any], None, None]:
    """As `restore.video.temporal.steadily`; with `--no-steady`, each frame alone.

    A frame at which the detector fails is recorded, and only helps its neighbors.
    """
    notes: list[str] = []

    def found(frame: _Frame, rgb: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_] | None:
        try:
            return find_damage(rgb, stages, stages.models[0], notes.append)
        except Exception as error:
            if frame.item is not None:
                stages.recorder.fail(frame.item.job, error)
                frame.item = None
            return None

    if stages.options.steady:
        waiting: deque[_Frame] = deque()  # for the detector, which takes them in the same order

        def shown() -> Iterator[_Frame]:
            for frame in frames:
                waiting.append(frame)
                yield frame

        with closing(steadily(shown(), lambda one: one.rgb, lambda rgb: found(waiting.popleft(), rgb))) as filled:
            for one in filled:
                yield one.item, one.rgb(), one.mask, one.unknown
        return
    for frame in frames:
        rgb = frame.rgb.astype(np.float32) / np.float32(_WHITE)
        mask = found(frame, rgb)
        if mask is not None:
            yield frame, rgb, mask, mask


def _finish(
    item: WorkItem,
    rgb: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    unknown: npt.NDArray[np.bool_],
    stages: Stages,
) -> None:
    """Fill the damage that no neighbor could fill, and write the frame."""
    started = time.monotonic()
    page = MemoryPage(lambda: rgb, unknown.astype(np.float32))
    if item.pages[0].deflickered:
        page.image, page.deflickered = rgb, True
    try:
        run_steps(
            page, replace(item.steps, detect=False), stages.models[0],
            tile_of=stages.tile_of, on_event=item.notes.append,
            grain_key=stages.grain_key(item.image),
        )  # fmt: skip
    except Exception as error:
        stages.recorder.fail(item.job, error)
        return
    page.add_filled(rgb, mask)
    item.pages[0] = page
    item.seconds += time.monotonic() - started
    stages.writer.save(item)


def _deep(rgb: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    deep: npt.NDArray[np.uint16] = np.rint(np.clip(np.nan_to_num(rgb), 0, 1) * _WHITE).astype(np.uint16)
    return deep
