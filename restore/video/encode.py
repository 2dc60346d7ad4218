"""How the repaired frames are encoded: as the source is, or as the user asks."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from restore.errors import RestoreError
from restore.video.probe import VideoFacts

#: Codec -> its encoder.
_ENCODERS = {
    "h264": "libx264", "hevc": "libx265", "av1": "libsvtav1", "vp9": "libvpx-vp9", "vp8": "libvpx",
    "mpeg4": "mpeg4", "mpeg2video": "mpeg2video", "mpeg1video": "mpeg1video", "mjpeg": "mjpeg", "prores": "prores_ks",
    "ffv1": "ffv1", "huffyuv": "huffyuv", "ffvhuff": "ffvhuff", "utvideo": "utvideo", "rawvideo": "rawvideo",
    "png": "png", "dvvideo": "dvvideo",
}  # fmt: skip
_LOSSLESS = frozenset(("ffv1", "huffyuv", "ffvhuff", "utvideo", "rawvideo", "png"))
#: The quality of each lossy encoder, so that frames in which nothing changes keep about 46 dB, also with grain: in a
#: pan over a photograph with noise, 46.5, 46.4 and 47.7 dB for the first three, 47.5 dB for MPEG-4.
_CRF = {"libx264": 10, "libx265": 9, "libvpx-vp9": 6, "libvpx": 4, "libsvtav1": 5}
_QUANTIZER = 1
#: Encoders with one quantizer for all frames, 1 to 31.
_BY_QUANTIZER = frozenset(("mpeg4", "mpeg2video", "mpeg1video", "mjpeg"))
#: Encoders keep to as many threads on every machine, because some choose differently with more.
_THREADS = 4
_PRORES = {"Proxy": 0, "LT": 1, "Standard": 2, "HQ": 3, "4444": 4, "4444XQ": 5}
#: x264 looks less far ahead in frames with more pixels; it would hold 40 of them.
_LARGE_PIXELS = 4_000_000
#: The largest denominator of a rate that MPEG-4 and its relatives hold.
_LARGEST_RATE = 65535


@dataclass(frozen=True)
class EncoderSettings:
    """How a video is encoded.

    Attributes:
        codec: FFmpeg's name of the codec.
        encoder: FFmpeg's name of the encoder.
        pix_fmt: in which frames are encoded.
        options: of the encoder.
        container: FFmpeg's name of the output's format.
        lossless: frames keep their values.
    """

    codec: str
    encoder: str
    pix_fmt: str
    container: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def lossless(self) -> bool:
        """Whether frames keep their values."""
        return self.codec in _LOSSLESS


def encoder_for(
    facts: VideoFacts, container: str, *, codec: str | None = None, crf: float | None = None, interlaced: bool = False
) -> tuple[EncoderSettings, list[str]]:
    """How to encode a video, and notes about it.

    Args:
        facts: of the source.
        container: FFmpeg's name of the output's format.
        codec: asked for; None: that of the source, or FFV1 where it cannot be written.
        crf: the quality asked for; None: the default of the codec.
        interlaced: the output is interlaced.

    Raises:
        RestoreError: exit code 1; the codec cannot hold these frames, or the container not the codec.
    """
    chosen, notes = codec or facts.codec, []
    encoder = _ENCODERS.get(chosen)
    pix_fmt = None if encoder is None else _pixel_format(encoder, facts.pix_fmt)
    if codec is None and (pix_fmt is None or not _fits(container, encoder)):
        chosen, encoder = "ffv1", "ffv1"
        pix_fmt = _pixel_format(encoder, facts.pix_fmt)
        if pix_fmt is not None and _fits(container, encoder):
            notes.append(f"written as FFV1, without loss: {facts.codec} with {facts.pix_fmt} cannot be written")
    if encoder is None or pix_fmt is None:
        raise RestoreError(
            f"{chosen} cannot be written with frames of the kind {facts.pix_fmt}",
            where="--video-codec" if codec else None,
            hint="choose another codec, such as ffv1",
            exit_code=1,
        )
    if not _fits(container, encoder):
        raise RestoreError(
            f"a file of the kind {container} cannot hold {chosen}",
            where="--video-codec" if codec else None,
            hint="name an output that ends in .mkv, or choose another --video-codec",
            exit_code=1,
        )
    settings = EncoderSettings(chosen, encoder, pix_fmt, container, _options(encoder, facts, crf, container))
    if crf is not None and "crf" not in settings.options and "qmin" not in settings.options:
        raise RestoreError(f"does not apply to {chosen}", where="--video-crf", hint="leave it out", exit_code=1)
    if interlaced and encoder not in ("libx264", "mpeg2video", "ffv1", "rawvideo", "huffyuv", "utvideo", "ffvhuff",
                                      "prores_ks", "dvvideo", "mjpeg"):  # fmt: skip
        raise RestoreError(
            f"{chosen} is not written interlaced here", hint="add --deinterlace, or --video-codec h264", exit_code=1
        )
    return settings, notes


def _pixel_format(encoder: str, pix_fmt: str) -> str | None:
    """The pixel format in which an encoder takes frames without loss; None: there is none."""
    import av

    formats = [one.name for one in av.Codec(encoder, "w").video_formats or []]
    if encoder == "rawvideo" or (pix_fmt in formats and not (encoder.startswith("libvpx") and "a" in pix_fmt)):
        return pix_fmt
    like = {"gbrp": ("bgr0", "rgb24"), "rgb24": ("bgr0", "gbrp"), "bgr24": ("bgr0", "gbrp"), "bgr0": ("gbrp",),
            "pal8": ("bgr0",), "nv12": ("yuv420p",), "p010le": ("yuv420p10le",), "yuyv422": ("yuv422p",),
            "uyvy422": ("yuv422p",), "gbrap": ("bgra",), "rgba": ("bgra",), "argb": ("bgra",),
            "rgb48be": ("rgb48le", "gbrp16le"), "gray16be": ("gray16le",)}  # fmt: skip
    other = f"yuv{pix_fmt[4:]}" if pix_fmt.startswith("yuvj") else f"yuvj{pix_fmt[3:]}"
    return next((name for name in (*like.get(pix_fmt, ()), other) if name in formats), None)


def _fits(container: str, encoder: str | None) -> bool:
    import av

    if encoder is None or (encoder == "ffv1" and container in ("mp4", "mov", "3gp")):
        return False
    with av.open(io.BytesIO(), "w", format=container) as output:
        try:
            output.add_stream(encoder)
        except ValueError:
            return False
    return True


def _options(encoder: str, facts: VideoFacts, crf: float | None, container: str) -> dict[str, str]:
    if encoder in _CRF:
        options = {"crf": f"{_CRF[encoder] if crf is None else crf:g}"}
        if encoder == "libx264":
            # The result of its trees differs from run to run, and that of a resumed run must be the same.
            options["x264-params"] = "mbtree=0"
        if encoder == "libx264" and facts.width * facts.height > _LARGE_PIXELS:
            options["rc-lookahead"] = "10"
        if encoder == "libx265":
            options["x265-params"] = "log-level=error:open-gop=0"
        if encoder.startswith("libvpx"):
            options |= {"b": "0" if encoder == "libvpx-vp9" else "100M", "deadline": "good", "cpu-used": "2"}
        if encoder == "libsvtav1":
            options["preset"] = "6"
        if container == "avi":
            options["bf"] = "0"
        return options
    if encoder in _BY_QUANTIZER:
        quantizer = str(_QUANTIZER if crf is None else max(1, min(31, round(crf))))
        return {"qmin": quantizer, "qmax": quantizer}
    if encoder == "ffv1":
        sliced = facts.width % 8 == 0 == facts.height % 8  # slices end at whole chroma values
        return {"level": "3", "slicecrc": "1", "g": "1", **({"slices": "4"} if sliced else {})}
    if encoder == "prores_ks":
        return {"profile": str(_PRORES.get((facts.profile or "").removeprefix("Apple ProRes ").strip(), 3))}
    return {}


def add_track(output: Any, settings: EncoderSettings, facts: VideoFacts, *, interlaced: bool) -> Any:
    """Add the video track to an open output, with the facts of the source and an encoder.

    Times of the encoder are the numbers of frames: rates that vary are a matter of the file, not of the codec.
    """
    from av.codec.context import Flags

    rate = facts.rate.limit_denominator(1001) or Fraction(25)
    if rate.numerator > _LARGEST_RATE:
        rate = Fraction(round(rate))
    if settings.encoder in ("mpeg2video", "mpeg1video"):
        rate = _mpeg_rate(rate)
    track = output.add_stream(settings.encoder, rate=rate, options=dict(settings.options))
    context = track.codec_context
    context.width, context.height, context.pix_fmt = facts.width, facts.height, settings.pix_fmt
    context.time_base = 1 / rate
    if facts.sample_aspect:
        context.sample_aspect_ratio = facts.sample_aspect
    context.color_range, context.color_primaries = facts.color_range, facts.color_primaries
    context.color_trc, context.colorspace = facts.color_trc, facts.colorspace
    context.thread_count = _THREADS
    if settings.encoder in _BY_QUANTIZER:
        context.qmin, context.qmax = int(settings.options["qmin"]), int(settings.options["qmax"])
    if interlaced:
        context.field_order = facts.field_order
        context.flags |= Flags.interlaced_dct | Flags.interlaced_me
    elif facts.field_order == 1:
        context.field_order = 1
    if facts.matrix is not None:
        track.set_display_matrix(facts.matrix)
    track.time_base = facts.time_base
    return track


def _mpeg_rate(rate: Fraction) -> Fraction:
    """The nearest rate that MPEG-1 and MPEG-2 know."""
    known = (Fraction(24000, 1001), 24, 25, Fraction(30000, 1001), 30, 50, Fraction(60000, 1001), 60)
    return min([Fraction(one) for one in known], key=lambda one: abs(one - rate))


@dataclass(frozen=True)
class EncodedPacket:
    """A coded frame.

    Attributes:
        number: of the frame in the video, in the order of display.
        keyframe: decoding can begin here.
        data: the bytes.
    """

    number: int
    keyframe: bool
    data: bytes


class SegmentEncoder:
    """Encodes a stretch of a video that can be decoded alone, with an encoder of its own.

    Args:
        settings, facts, interlaced: as for `add_track`.
        first: the number of its first frame.
    """

    def __init__(self, settings: EncoderSettings, facts: VideoFacts, first: int, *, interlaced: bool) -> None:
        import av

        self._output = av.open(io.BytesIO(), "w", format=settings.container)  # never written to
        self._track = add_track(self._output, settings, facts, interlaced=interlaced)
        self._first = first
        self._base = self._track.codec_context.time_base
        self._added = 0

    def add(self, frame: Any) -> list[EncodedPacket]:
        """Encode the next frame. Returns the packets that are ready."""
        frame.pts, frame.time_base = self._added, self._base
        frame.pict_type = 0  # else encoders keep the kinds of the source's frames
        self._added += 1
        return list(self._packets(frame))

    def finish(self) -> list[EncodedPacket]:
        """The remaining packets."""
        packets = list(self._packets(None))
        self._output.close()
        return packets

    def _packets(self, frame: Any) -> Iterator[EncodedPacket]:
        for packet in self._track.codec_context.encode(frame):
            yield EncodedPacket(self._first + packet.pts, packet.is_keyframe, bytes(packet))
