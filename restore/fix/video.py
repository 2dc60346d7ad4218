"""The stages of a video: its frames are decoded, repaired and encoded one after the other, whatever its length.

Encoded frames are stored in segments, files in a hidden folder beside the output. When the last one is written, they
are joined without encoding again. A run that was stopped continues after its last segment.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from restore import progress
from restore.errors import RestoreError
from restore.files import replace_atomically
from restore.fix.jobs import Job
from restore.fix.log import Segment, reason_of_done
from restore.fix.masks import mask_of_frame
from restore.fix.options import FixOptions
from restore.fix.pages import MemoryPage
from restore.fix.steps import Models, Steps, detect, model_provenance, run_steps, steps_done
from restore.fix.video_masks import FrameMasks, check_count, fingerprint, holds_frames, open_masks
from restore.fix.video_segments import SegmentFolder, SegmentHeader
from restore.images import DecodedImage
from restore.images.decoder_output import check_size
from restore.video.ahead import ahead
from restore.video.deflicker import REACH, SIDE_PX, Tone, deflickered
from restore.video.formats import CONTAINER_OF_SUFFIX
from restore.video.temporal import AROUND, Filled, steadily

if TYPE_CHECKING:
    from restore.fix.stages import Stages
    from restore.video.colors import RGB16, FrameColors
    from restore.video.encode import EncodedPacket, EncoderSettings
    from restore.video.probe import VideoFacts
    from restore.video.read import TimedFrame

FloatArray = npt.NDArray[np.float32]

#: Frames of a segment: what is lost at most when a run is killed.
SEGMENT_FRAMES = 240
#: Frames that are decoded ahead.
_AHEAD = 1
#: The steps, in order, as the log names them.
_STEPS = ("deflicker", "detect", "fill_holes", "restore", "clean_up")


@dataclass
class _Repaired:
    """A frame whose planes hold the repair.

    Attributes:
        timed: the frame.
        masked, damaged: pixels in the mask; pixels that were found damaged; None: there is no mask, or no detector.
        changed: pixels that changed.
        before: its pixels before, H×W×3, as stored.
    """

    timed: TimedFrame
    masked: int | None
    damaged: int | None
    changed: int
    before: RGB16


@dataclass
class VideoRepair:
    """The repair of one video.

    Attributes:
        stages: of the run.
        job: the video.
        network: index of the device.
        notes: for the user.
    """

    stages: Stages
    job: Job
    network: int
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.options: FixOptions = self.stages.options
        self.models: Models = self.stages.models[self.network]
        self.deflicker = self.options.deflicker and self.options.strength > 0
        self.done: set[str] = set()
        self._mask: FloatArray | None = None
        self._masks: FrameMasks | None = None

    def run(self) -> None:
        """Take the video through all stages and record its result.

        Raises:
            RestoreError, OSError, ...: it failed.
        """
        from restore.video.colors import colors_of
        from restore.video.encode import encoder_for
        from restore.video.probe import probe

        job, options, recorder = self.job, self.options, self.stages.recorder
        started, status = time.monotonic(), os.stat(job.source)
        name = os.fspath(job.source)
        with self.stages.link.decoding(name):
            facts = probe(job.source)
        check_size(facts.width, facts.height, options.max_pixels, job.source)
        self.notes += facts.notes
        colors, notes = colors_of(facts)
        self.notes += notes
        steps = self._steps()
        if job.mask is not None and steps.masked and holds_frames(job.mask):
            masks = os.fspath(job.mask)
            self._masks = open_masks(job.mask, lambda: self.stages.link.decoding(masks))
            check_count(self._masks, facts.frames, job.mask)
        deinterlace = options.deinterlace and facts.interlaced
        if options.deinterlace and not facts.interlaced:
            self.notes.append("the video is not interlaced; --deinterlace changes nothing")
        if facts.interlaced and not deinterlace:
            self.notes.append("the video is interlaced, which hides damage and looks like it: try --deinterlace")
        if options.save_masks is not None:
            self.notes.append("masks of videos are not saved; with --log, each part has a line with its marked share")
        if options.uncertainty is not None:
            self.notes.append("there are no maps of expected errors of videos")
        container = CONTAINER_OF_SUFFIX[job.target.suffix.lower()]
        asked = options.video_codec is not None or options.video_crf is not None or deinterlace
        may_copy = not asked and job.source.suffix.lower() == job.target.suffix.lower() and options.metadata == "keep"
        settings, notes = encoder_for(
            facts,
            container,
            codec=options.video_codec,
            crf=options.video_crf,
            interlaced=facts.interlaced and not deinterlace,
        )
        if deinterlace:
            facts = replace(facts, field_order=1)
        headers: list[SegmentHeader]
        folder = SegmentFolder(job.target, self._fingerprint(status, settings))
        if options.preview is not None:
            headers = [self._preview(facts, colors, settings, steps, deinterlace, status)]
            copied = False
        elif not steps and not self.deflicker and may_copy:
            self._copy(status)
            headers, copied = [], True
        else:
            self.notes += notes
            headers = self._encode(folder, facts, colors, settings, steps, deinterlace)
            copied = may_copy and not any(header.changed for header in headers)
            if copied:
                self._copy(status)
            else:
                self._join(folder, facts, settings, headers, status)
        recorded = self._facts(headers, facts, steps, copied=copied)
        digests: list[str | None] = [None, None]
        if recorder.log.is_open:
            digests = [_sha256(path) for path in (job.source, job.target)]
        reason, code = reason_of_done(touched=bool(steps) or self.deflicker, copied=copied)
        recorder.finish(
            job, "done", reason, code=code, size=facts.upright_size,
            seconds=time.monotonic() - started,
            input_sha256=digests[0], output_sha256=digests[1],
            warnings=list(dict.fromkeys(self.notes)),
            **recorded,
        )  # fmt: skip
        if options.preview is None:  # a preview leaves what a stopped repair has done
            folder.remove()

    def _steps(self) -> Steps:
        """The steps of each frame.

        Raises:
            RestoreError: exit code 1; something that cannot be done to a video.
        """
        steps, restorer = self.stages.reader.steps_of(self.job), self.models.restorer
        if steps.correct_fading:
            raise RestoreError(
                "fading is corrected in photographs only: frame by frame, it would flicker",
                hint="add --no-correct-fading",
                exit_code=1,
            )
        if steps.enlarge:
            raise RestoreError("videos are not enlarged", hint="leave out --scale", exit_code=1)
        if restorer is not None and (restorer.requirements.scale != 1 or restorer.requirements.conditions):
            raise RestoreError(f"{restorer.name} cannot repair videos", hint="choose another --model", exit_code=1)
        # Decided for each frame anew, whether a clean-up is needed would flicker.
        return replace(steps, clean_up=steps.clean_up and self.options.clean_up is True, spare_clean=False)

    def _fingerprint(self, status: os.stat_result, settings: EncoderSettings) -> dict[str, Any]:
        """The facts that must be the same for segments to be used again."""
        left_out = ("log", "html_report", "overwrite", "skip_existing", "include", "exclude", "files_from", "shard",
                    "fail_fast", "decode_timeout", "device")  # fmt: skip
        mask = None
        if self.job.mask is not None:
            mask = fingerprint(self.job.mask) if holds_frames(self.job.mask) else _sha256(self.job.mask)
        models = [self.models.restorer, self.models.clean_up, self.models.detector]
        return {
            "source": [status.st_size, status.st_mtime_ns],
            "options": {k: v for k, v in self.options.to_dict().items() if k not in left_out},
            "models": [None if one is None else [one.name, one.sha256] for one in models],
            "mask": mask,
            "encoder": [settings.encoder, settings.pix_fmt, settings.container, settings.options],
            "segment_frames": SEGMENT_FRAMES,
        }

    def _encode(
        self,
        folder: SegmentFolder,
        facts: VideoFacts,
        colors: FrameColors,
        settings: EncoderSettings,
        steps: Steps,
        deinterlace: bool,
    ) -> list[SegmentHeader]:
        """Repair and encode all frames that no segment holds. Returns what the segments hold."""
        from restore.video.encode import SegmentEncoder
        from restore.video.read import read_frames

        job, link = self.job, self.stages.link
        headers, complete = folder.finished()
        if complete:
            return headers
        first = sum(len(header.pts) for header in headers)
        if headers:
            self.notes.append(f"continued behind frame {first}, where an earlier run was stopped")
        name = os.fspath(job.source)
        frames = read_frames(
            job.source, facts, planes=colors.planes, deinterlace=deinterlace,
            decoding=lambda: link.decoding(name), on_event=self.notes.append,
        )  # fmt: skip
        with closing(self._repaired(frames, colors, facts, steps, first)) as repaired:
            expected = facts.frames or round(facts.seconds * float(facts.rate))
            encoder: SegmentEncoder | None = None
            header = SegmentHeader(first)
            packets: list[EncodedPacket] = []
            started = time.monotonic()
            for one in repaired:
                if encoder is None:
                    encoder = SegmentEncoder(settings, facts, one.timed.number, interlaced=facts.interlaced)
                    header, packets = SegmentHeader(one.timed.number), []
                header.add(one.timed.pts, one.timed.frame.duration, one.masked, one.damaged, one.changed)
                packets += encoder.add(one.timed.frame)
                self.stages.recorder.tell_part((one.timed.number + 1) / max(expected, one.timed.number + 1))
                if len(header.pts) == SEGMENT_FRAMES:
                    packets += encoder.finish()
                    self._end_segment(folder, header, packets, facts, started, len(headers))
                    headers.append(header)
                    encoder, started = None, time.monotonic()
            if encoder is not None:
                packets += encoder.finish()
                self._end_segment(folder, header, packets, facts, started, len(headers))
                headers.append(header)
        if self._masks is not None:
            self._masks.check_end(sum(len(header.pts) for header in headers))
        folder.complete(len(headers))
        return headers

    def _end_segment(
        self,
        folder: SegmentFolder,
        header: SegmentHeader,
        packets: list[EncodedPacket],
        facts: VideoFacts,
        started: float,
        number: int,
    ) -> None:
        header.steps = [name for name in _STEPS if name in self.done]
        folder.save(header, packets, number)
        pixels = facts.width * facts.height * len(header.pts)
        self.stages.recorder.tell_segment(
            Segment(
                input=os.fspath(self.job.source),
                output=os.fspath(self.job.target),
                first_frame=header.first,
                frames=len(header.pts),
                start_seconds=round(float(header.pts[0] * facts.time_base), 6),
                seconds=round(time.monotonic() - started, 3),
                damaged_fraction=None if header.damaged is None else header.damaged / pixels,
                mask_coverage=None if header.masked is None else header.masked / pixels,
                changed_fraction=header.changed / pixels,
            )
        )

    # Frames.

    def _repaired(
        self, frames: Iterator[TimedFrame], colors: FrameColors, facts: VideoFacts, steps: Steps, first: int
    ) -> Generator[_Repaired, None, None]:
        """The frames from `first` on, with their repair in their planes."""
        turns = facts.quarter_turns
        steady = steps.detect and self.options.steady
        needed = first - AROUND if steady else first

        def pixels(one: tuple[TimedFrame, Tone | None]) -> RGB16:
            """A frame without flicker, upright."""
            timed, tone = one
            rgb = colors.to_rgb(timed.frame)
            return _turned(rgb if tone is None else tone.to_deep(rgb), turns)

        def written(
            one: tuple[TimedFrame, Tone | None],
            evened: RGB16,
            after: DecodedImage,
            masked: int | None,
            damaged: int | None,
        ) -> _Repaired:
            timed, tone = one
            stored = _turned(evened, -turns) if tone is None else colors.to_rgb(timed.frame)
            changed = colors.write(timed.frame, stored, _turned(after.pixels, -turns))
            return _Repaired(timed, masked, damaged, changed, stored)

        with closing(ahead(self._with_tones(frames, colors, needed), _AHEAD)) as read:
            if not steady:
                for one in read:
                    evened = pixels(one)
                    yield written(one, evened, *self._repair_alone(_as_image(evened), steps, one[0].number))
                return
            found = steadily(read, pixels, lambda rgb: find_damage(rgb, self.stages, self.models, self._note))
            with closing(found):
                for filled in found:
                    if filled.item[0].number >= first:
                        yield written(filled.item, filled.pixels, *self._repair_rest(filled, steps))

    def _with_tones(
        self, frames: Iterator[TimedFrame], colors: FrameColors, needed: int
    ) -> Generator[tuple[TimedFrame, Tone | None], None, None]:
        """The frames from `needed` on, each with the tone correction that removes its flicker, or None."""
        if not self.deflicker:
            yield from ((one, None) for one in frames if one.number >= needed)
            return
        small = ((one, colors.to_small(one.frame, SIDE_PX)) for one in frames if one.number >= needed - REACH)
        for one, tone in deflickered(small):
            if one.number >= needed:
                if tone is not None:
                    self.done.add("deflicker")
                yield one, None if tone is None else tone.scaled(self.options.strength)

    def _repair_rest(self, filled: Filled[Any], steps: Steps) -> tuple[DecodedImage, int, int]:
        """A frame that its neighbors have filled through the rest of its steps, and its masked and damaged pixels."""
        source, damaged = _as_image(filled.pixels), int(np.count_nonzero(filled.mask))
        page = MemoryPage(filled.rgb, filled.unknown.astype(np.float32))
        self._run(page, replace(steps, detect=False), source)
        self.done.update(["detect", "fill_holes"] if damaged else ["detect"])
        if damaged or page.everywhere:
            repaired = filled.rgb() if page.repaired is None else page.repaired
            mask = None if page.everywhere else filled.mask.astype(np.float32)
            source = source.blend(repaired, mask, strength=self.options.strength)
        return source, damaged, damaged

    def _repair_alone(
        self, source: DecodedImage, steps: Steps, number: int
    ) -> tuple[DecodedImage, int | None, int | None]:
        """A frame through the steps of an image, and its masked and damaged pixels."""
        page = MemoryPage(source.to_srgb, self._given_mask(source, steps, number))
        if steps and (page.mask is None or page.mask.any()):
            self._run(page, steps, source)
            source = page.put_into(source, self.options.strength)
        return source, None if page.mask is None else int(np.count_nonzero(page.mask)), page.damaged_pixels

    def _run(self, page: MemoryPage, steps: Steps, source: DecodedImage) -> None:
        with progress.part(0, 0):  # a frame's own progress says nothing about the video's
            run_steps(
                page, steps, self.models,
                tile_of=self.stages.tile_of, on_event=self._note,
                dilate_px=self.options.dilate, feather_px=self.options.mask_feather,
                grain_key=self.stages.grain_key(source),
            )  # fmt: skip
        self.done.update(steps_done([page], steps))

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)

    def _given_mask(self, source: DecodedImage, steps: Steps, number: int) -> FloatArray | None:
        """The mask of a frame, or that of every frame; None: there is none."""
        if not steps.masked or steps.detect:
            return None
        if self._masks is not None:
            assert self.stages.plan.masks is not None
            given, file = self._masks.mask(number)
            return mask_of_frame(
                given, source, file, invert=self.stages.plan.masks.invert, dilate_px=self.options.dilate,
                feather_px=self.options.mask_feather, on_event=self._note,
            )  # fmt: skip
        if self._mask is None:
            masks = self.stages.plan.masks
            if masks is not None and not masks.is_in(source):
                raise RestoreError(masks.when_missing()["reason"], exit_code=1)
            with self.stages.link.decoding(os.fspath(self.job.source)):
                (self._mask,) = self.stages.reader.read_masks(self.job, (source,), self.notes)
        return self._mask

    # Writing the output.

    def _preview(
        self,
        facts: VideoFacts,
        colors: FrameColors,
        settings: EncoderSettings,
        steps: Steps,
        deinterlace: bool,
        status: os.stat_result,
    ) -> SegmentHeader:
        """Write a stretch from the middle of the video before and after its repair. Returns what came of its frames."""
        from restore.video.preview import write_preview
        from restore.video.read import read_frames

        seconds = self.options.preview_seconds()
        assert seconds is not None
        expected = facts.frames or round(facts.seconds * float(facts.rate))
        count = max(1, round(seconds * float(facts.rate)))
        first = max(0, (expected - count) // 2)
        turns, held = facts.quarter_turns, 0

        def read() -> Iterator[TimedFrame]:
            nonlocal held
            for one in read_frames(
                self.job.source, facts, planes=colors.planes, deinterlace=deinterlace,
                decoding=lambda: self.stages.link.decoding(os.fspath(self.job.source)), on_event=self.notes.append,
            ):  # fmt: skip
                held = one.number + 1
                yield one

        def pairs(header: SegmentHeader) -> Iterator[tuple[int, RGB16, RGB16]]:
            with closing(self._repaired(read(), colors, facts, steps, header.first)) as repaired:
                for one in islice(repaired, count):
                    header.add(one.timed.pts, one.timed.frame.duration, one.masked, one.damaged, one.changed)
                    after = colors.to_rgb(one.timed.frame)
                    yield one.timed.pts, _turned(one.before, turns), _turned(after, turns)
                    self.stages.recorder.tell_part(len(header.pts) / count)

        with replace_atomically(self.job.target, like=status, overwrite=self.stages.writer.overwrite) as temporary:
            header = SegmentHeader(first)
            write_preview(temporary, facts, colors, settings, pairs(header))
            if first and len(header.pts) < count:  # the file is cut short, so its middle is elsewhere
                self.notes.append(f"the video holds {held} frames, not {expected} as its header says")
                header = SegmentHeader(max(0, (held - count) // 2))
                write_preview(temporary, facts, colors, settings, pairs(header))
            if not header.pts:
                raise RestoreError("the video holds no frame", exit_code=1)
        header.steps = [name for name in _STEPS if name in self.done]
        self.notes.append(
            f"{len(header.pts)} frames of the video are shown before and after, side by side, without sound; leave out "
            "--preview to repair it"
        )
        return header

    def _join(
        self,
        folder: SegmentFolder,
        facts: VideoFacts,
        settings: EncoderSettings,
        headers: list[SegmentHeader],
        status: os.stat_result,
    ) -> None:
        """Write the output from its segments."""
        from restore.video.write import Times, decoding_delay, write_video

        if not headers:
            raise RestoreError("the video holds no frame", exit_code=1)
        pts = [one for header in headers for one in header.pts]
        last = headers[-1].last_duration or max(1, round(1 / (facts.rate * facts.time_base)))
        # Files may say the length of the whole more exactly than that of a frame; of a file cut short, it is not true.
        told = round(facts.seconds / facts.time_base) - (pts[-1] - pts[0])
        times = Times(pts, told if 0 < told <= last + 1 else last)
        delay = max(decoding_delay(number - header.first for number in header.order) for header in headers)
        self.stages.writer.save_sidecars(self.job, None, self.notes)
        with replace_atomically(self.job.target, like=status, overwrite=self.stages.writer.overwrite) as temporary:
            write_video(
                temporary, self.job.source, facts, settings, folder.packets(len(headers)), times, delay,
                interlaced=facts.interlaced, metadata=self.options.metadata == "keep", on_event=self._note,
            )  # fmt: skip

    def _copy(self, status: os.stat_result) -> None:
        self.stages.writer.save_sidecars(self.job, None, self.notes)
        with replace_atomically(self.job.target, like=status, overwrite=self.stages.writer.overwrite) as temporary:
            shutil.copyfile(self.job.source, temporary)

    def _facts(self, headers: list[SegmentHeader], facts: VideoFacts, steps: Steps, *, copied: bool) -> dict[str, Any]:
        """Keyword arguments of `ResultRecorder.finish`."""
        frames = sum(len(header.pts) for header in headers)
        pixels = max(1, frames * facts.width * facts.height)
        done = [name for name in _STEPS if any(name in header.steps for header in headers)]
        damaged = [header.damaged for header in headers if header.damaged is not None]
        masked = [header.masked for header in headers if header.masked is not None]
        return {
            **model_provenance(self.models, steps, done),
            "steps": done,
            "damaged_fraction": sum(damaged) / pixels if damaged else None,
            "mask_coverage": sum(masked) / pixels if masked else None,
            "changed_fraction": 0.0 if copied else sum(header.changed for header in headers) / pixels,
            "pixels": frames * facts.width * facts.height,
        }


def repair_video(stages: Stages, job: Job, network: int) -> None:
    """Take a video through all stages, and record its result.

    Args:
        stages: of the run.
        job: the video.
        network: index of the device.
    """
    try:
        from restore.video.probe import ffmpeg_errors

        with ffmpeg_errors(job.source):
            VideoRepair(stages, job, network).run()
    except Exception as error:
        stages.recorder.fail(job, stages.reader.with_option(error))


def find_damage(
    rgb: FloatArray, stages: Stages, models: Models, on_event: Callable[[str], None]
) -> npt.NDArray[np.bool_]:
    """The damage that the detector finds in a frame alone, H×W; `rgb`: H×W×3, sRGB, [0, 1]."""
    page = MemoryPage(lambda: rgb)
    assert models.detector is not None
    detect(page, models.detector, stages.tile_of(models.detector), stages.options.dilate, 0, on_event)
    assert page.mask is not None
    found: npt.NDArray[np.bool_] = page.mask > 0
    return found


def _as_image(rgb: RGB16) -> DecodedImage:
    return DecodedImage(rgb, white=65535.0, bits=16)


def _turned(pixels: np.ndarray, turns: int) -> np.ndarray:
    """Pixels turned counterclockwise by quarters."""
    return np.ascontiguousarray(np.rot90(pixels, turns % 4)) if turns % 4 else pixels


def _sha256(path: os.PathLike[str]) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
