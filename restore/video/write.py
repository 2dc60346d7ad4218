"""The output file: coded frames in their times, and everything else of the source as it is."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore.video.encode import EncodedPacket, EncoderSettings, add_track
from restore.video.probe import VideoFacts, opened

#: Metadata that muxers write by themselves, or that speaks of the old coded frames.
_OWN_KEYS = frozenset(("major_brand", "minor_version", "compatible_brands", "encoder", "duration"))
#: Times of chapters are in milliseconds.
_CHAPTER_UNIT = 1000
_STATISTICS = ("BPS", "NUMBER_OF_BYTES", "NUMBER_OF_FRAMES", "_STATISTICS", "DURATION")


@dataclass(frozen=True)
class Times:
    """When frames are shown, in the time base of the source.

    Attributes:
        pts: of each frame, rising.
        last_duration: how long the last frame is shown.
    """

    pts: Sequence[int]
    last_duration: int

    def duration(self, number: int) -> int:
        """How long a frame is shown."""
        return self.pts[number + 1] - self.pts[number] if number + 1 < len(self.pts) else self.last_duration


def decoding_delay(numbers: Iterable[int]) -> int:
    """How many frames later than they are decoded frames must be shown, given their numbers in coded order."""
    waiting: list[int] = []
    following = delay = 0
    for place, number in enumerate(numbers):
        heapq.heappush(waiting, number)
        while waiting and waiting[0] == following:
            heapq.heappop(waiting)
            delay = max(delay, place - following)
            following += 1
    return delay


def write_video(
    target: Path,
    source: str | os.PathLike[str],
    facts: VideoFacts,
    settings: EncoderSettings,
    packets: Iterator[EncodedPacket],
    times: Times,
    delay: int,
    *,
    interlaced: bool,
    metadata: bool = True,
    on_event: Callable[[str], None] = lambda line: None,
) -> None:
    """Write a video: the coded frames, and the sound, subtitles, chapters, attachments and metadata of the source.

    Args:
        target: a new file.
        source: the video that was repaired.
        facts: of the source.
        settings: with which the packets were encoded.
        packets: all, in coded order.
        times: of all frames.
        delay: see `decoding_delay`.
        interlaced: as for `add_track`.
        metadata: copy metadata and chapters.
        on_event: called with lines about what is left out.

    Raises:
        RestoreError: exit code 1; the source cannot be read any more, or the container refuses something.
        OSError: the file cannot be written.
    """
    import av

    with opened(source) as original:
        options = _mov_options(facts, original.metadata) if settings.container in ("mp4", "mov", "3gp") else {}
        output = av.open(os.fspath(target), "w", format=settings.container, options=options)
        with output:
            tracks = _tracks(output, original, facts, settings, interlaced, metadata, on_event)
            if metadata:
                output.metadata.update({k: v for k, v in original.metadata.items() if k.lower() not in _OWN_KEYS})
                if chapters := original.chapters():
                    output.set_chapters(chapters)
            coded = timed(packets, times, delay, tracks[facts.stream], facts)
            copied = [stream for stream in original.streams if stream.index in tracks]
            output.start_encoding()
            for packet in original.demux(copied):
                if packet.stream_index == facts.stream:
                    if packet.size and (own := next(coded, None)) is not None:
                        output.mux(own)
                elif packet.dts is not None or packet.pts is not None:
                    packet.stream = tracks[packet.stream_index]
                    output.mux(packet)
            for own in coded:
                output.mux(own)


def _mov_options(facts: VideoFacts, metadata: dict[str, str]) -> dict[str, str]:
    """Options of the muxer of MP4 and MOV: the index first, so that players can begin at once; keys that QuickTime does
    not know; and lengths of tracks in a unit that divides the video's times, because they would be cut to milliseconds.
    """
    plain = {"title", "artist", "album_artist", "album", "comment", "date", "genre", "copyright", "description",
             "creation_time", "composer", "grouping", "lyrics", "synopsis", "show", "episode_id", "network",
             "keywords", "track", "disc", "encoder", "location", "location-eng", "timecode", "media_type"}  # fmt: skip
    others = {key for key in metadata if key.lower() not in plain | _OWN_KEYS}
    options = {"movflags": "+faststart+use_metadata_tags" if others else "+faststart"}
    if (unit := math.lcm(_CHAPTER_UNIT, facts.time_base.denominator)) < 1 << 31:
        options["movie_timescale"] = str(unit)
    return options


def _tracks(
    output: Any,
    original: Any,
    facts: VideoFacts,
    settings: EncoderSettings,
    interlaced: bool,
    metadata: bool,
    on_event: Callable[[str], None],
) -> dict[int, Any]:
    """Add all tracks to the output: by the index of the source's."""
    tracks = {}
    for stream in original.streams:
        if stream.index == facts.stream:
            track = add_track(output, settings, facts, interlaced=interlaced)
        elif stream.type == "data" and (stream.name in (None, "bin_data") or stream.metadata.get("timecode")):
            continue  # the titles of chapters and the time code, which the muxer writes by itself
        else:
            try:
                track = output.add_stream_from_template(stream, opaque=True)
            except ValueError:
                name = getattr(getattr(stream, "codec_context", None), "name", None) or "unknown"
                on_event(f"track {stream.index} ({stream.type}, {name}) is left out: this kind of file cannot hold it")
                continue
        if metadata:
            own = stream.index == facts.stream
            track.metadata.update(
                {k: v for k, v in stream.metadata.items()
                 if k.lower() not in _OWN_KEYS and not (own and k.startswith(_STATISTICS))}
            )  # fmt: skip
        elif stream.language:
            track.metadata["language"] = stream.language
        track.disposition = int(stream.disposition)
        tracks[stream.index] = track
    return tracks


def timed(packets: Iterator[EncodedPacket], times: Times, delay: int, track: Any, facts: VideoFacts) -> Iterator[Any]:
    """PyAV's packets with their times. A frame is decoded `delay` frames before the one shown at its place."""
    import av

    step = times.duration(0)
    for place, packet in enumerate(packets):
        shown = place - delay
        timed = av.Packet(packet.data)
        timed.pts = times.pts[packet.number]
        timed.dts = times.pts[shown] if shown >= 0 else times.pts[0] + shown * step
        timed.duration = times.duration(packet.number)
        timed.time_base = facts.time_base
        timed.is_keyframe = packet.keyframe
        timed.stream = track
        yield timed
