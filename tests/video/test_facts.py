"""What a repair leaves as it is: times, colors, shape, sound, chapters, metadata, and every pixel outside the mask."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from restore.fix.results import Summary
from restore.video import colors
from restore.video.formats import is_video
from restore.video.probe import probe
from tests.fix.conftest import Filler, fix_with, hole, save
from tests.video.conftest import facts_of, make_video, moving, packets_of, planes_of, times_of

TURNED_90 = (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)


def repaired(
    source: Path, target: Path, box: tuple[int, int, int, int] = (8, 10, 20, 30), **options: object
) -> Summary:
    """Fill a hole of every frame, (top, left, bottom, right) of the upright frame, with white."""
    height, width = probe(source).upright_size
    mask = save(source.parent / "masks" / f"{source.stem}.png", hole(height, width, box))
    return fix_with(source, target, Filler(), masks=str(mask), **options)


CLIPS = {
    "constant": (".mp4", {"sound": "aac", "metadata": {"title": "Reel", "comment": "attic"}}),
    "variable": (".mkv", {"time_base": Fraction(1, 1000), "pts": [0, 40, 80, 200, 240, 250, 290, 400, 441, 500]}),
    "anamorphic": (".mkv", {"sample_aspect": Fraction(16, 11)}),
    "turned": (".mp4", {"matrix": TURNED_90}),
    "ten bits": (".mp4", {"codec": "libx265", "pix_fmt": "yuv420p10le", "colors": (1, 9, 14, 9)}),
    "full range": (".mov", {"pix_fmt": "yuvj422p", "colors": (2, 6, 6, 6)}),
    "interlaced": (".mp4", {"interlaced": True, "options": {"x264-params": "tff=1"}}),
    "old": (".avi", {"codec": "mpeg4"}),
    "broadcast": (".mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}),
    "archive": (".mkv", {"codec": "ffv1", "pix_fmt": "yuv444p10le"}),
    "web": (".webm", {"codec": "libvpx-vp9"}),
}


@pytest.mark.parametrize("name", CLIPS)
def test_the_facts_of_a_video_stay(name: str, tmp_path: Path) -> None:
    suffix, options = CLIPS[name]
    options = {"options": {"x265-params": "log-level=none"}, **options} if "265" in str(options) else options
    source = make_video(tmp_path / f"clip{suffix}", moving(10), **options)
    target = tmp_path / f"out{suffix}"
    summary = repaired(source, target)
    assert (summary.done, summary.failed) == (1, [])
    before, after = probe(source), probe(target)
    for fact in ("codec", "pix_fmt", "sample_aspect", "matrix", "field_order", "color_range", "color_primaries",
                 "color_trc", "colorspace", "time_base"):  # fmt: skip
        assert getattr(after, fact) == getattr(before, fact), fact
    assert times_of(target) == times_of(source)
    assert facts_of(target) == facts_of(source)
    if name == "turned":
        assert after.upright_size == (64, 48)
    changed = np.abs(planes_of(target)[5][0].astype(int) - planes_of(source)[5][0]).max()
    assert changed > 40 << (2 if "10le" in str(options) else 0)  # the repair is there


def test_the_length_stays(tmp_path: Path) -> None:
    """In milliseconds, as Matroska counts, a frame of 1/24 s has 41 or 42."""
    import av

    source = make_video(tmp_path / "clip.mkv", moving(24), codec="ffv1", rate=24)
    repaired(source, tmp_path / "out.mkv")
    with av.open(str(source)) as before, av.open(str(tmp_path / "out.mkv")) as after:
        assert after.duration == before.duration == 1_000_000


def test_tracks_that_do_not_end_at_a_whole_millisecond_keep_their_length(tmp_path: Path) -> None:
    import av

    source = make_video(
        tmp_path / "clip.mp4", moving(11), rate=24, time_base=Fraction(1, 12288),
        pts=[512 * number for number in (0, 1, 2, 4, 5, 6, 7, 9, 10, 11, 12)], sound="aac",
        container_options={"movie_timescale": "12288000"}, chapters=[
            {"id": 1, "start": 0, "end": 401, "time_base": Fraction(1, 1000), "metadata": {"title": "Harbour"}},
        ],
    )  # fmt: skip
    assert repaired(source, tmp_path / "out.mp4").done == 1
    with av.open(str(source)) as before, av.open(str(tmp_path / "out.mp4")) as after:
        lengths = [
            [stream.duration * stream.time_base for stream in file.streams if stream.type != "data"]
            for file in (before, after)
        ]
        (chapter,) = after.chapters()
    assert lengths[1] == lengths[0]
    assert lengths[0][0] == Fraction(13, 24)
    assert chapter["end"] * chapter["time_base"] == Fraction(401, 1000)


def test_pixels_outside_the_mask_keep_their_values(tmp_path: Path) -> None:
    for pix_fmt in ("yuv420p", "yuv422p10le", "gbrp10le", "gray10le"):
        source = make_video(tmp_path / f"{pix_fmt}.mkv", moving(4, 49, 67), codec="ffv1", pix_fmt=pix_fmt)
        target = tmp_path / f"{pix_fmt}_out.mkv"
        assert repaired(source, target, (9, 11, 21, 31)).done == 1
        for before, after in zip(planes_of(source), planes_of(target), strict=True):
            down, across = (1, 1) if "420" in pix_fmt else (0, 1) if "422" in pix_fmt else (0, 0)
            for number, (old, new) in enumerate(zip(before, after, strict=True)):
                rows, columns = slice(9, 21), slice(11, 31)
                if number and pix_fmt.startswith("yuv"):
                    rows, columns = slice(9 >> down, -(-21 >> down)), slice(11 >> across, -(-31 >> across))
                assert (new[rows, columns] != old[rows, columns]).any()
                kept = np.ones(old.shape, bool)
                kept[rows, columns] = False
                np.testing.assert_array_equal(new[kept], old[kept])


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv410p", "gbrp10le", "gray10le", "yuva444p"])
def test_frames_are_converted_in_bands_that_do_not_show(pix_fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    results = []
    for rows in (8, 64):
        monkeypatch.setattr(colors, "_BAND_ROWS", rows)
        frame = av.VideoFrame.from_ndarray(moving(1, 45, 61)[0], format="rgb48le").reformat(format=pix_fmt)
        bits = max(part.bits for part in av.VideoFormat(pix_fmt).components)
        shift = {"yuv420p": (1, 1), "yuv410p": (2, 2)}.get(pix_fmt, (0, 0))
        kind = {"gb": "rgb", "gr": "gray"}.get(pix_fmt[:2], "yuv")
        how = colors.FrameColors(kind, pix_fmt, bits, False, shift, (0.2126, 0.0722))
        before = how.to_rgb(frame)
        after = before.copy()
        after[13:19, 20:] = after[40:, :9] = 60000
        changed = how.write(frame, before, after)
        results.append((changed, before, *(colors.view(plane, bits).copy() for plane in frame.planes)))
    assert results[0][0] == 6 * 41 + 5 * 9
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_white_becomes_the_white_of_the_range(tmp_path: Path) -> None:
    """235 of 255 and 940 of 1023 (ITU-R BT.709, BT.2100), and gray chroma."""
    for pix_fmt, white, gray in (("yuv420p", 235, 128), ("yuv444p10le", 940, 512)):
        source = make_video(tmp_path / f"{pix_fmt}.mkv", moving(2), codec="ffv1", pix_fmt=pix_fmt)
        repaired(source, tmp_path / f"{pix_fmt}_out.mkv")
        luma, blue, red = planes_of(tmp_path / f"{pix_fmt}_out.mkv")[1]
        assert set(luma[8:20, 10:30].ravel()) == {white}
        shift = 1 if "420" in pix_fmt else 0
        for plane in (blue, red):
            assert set(plane[8 >> shift : 20 >> shift, 10 >> shift : 30 >> shift].ravel()) == {gray}


def test_the_mask_is_that_of_the_upright_frame(tmp_path: Path) -> None:
    """The matrix turns the frame by 90° clockwise: the upright frame's top right corner is stored top left."""
    source = make_video(tmp_path / "clip.mkv", moving(2), codec="ffv1", pix_fmt="yuv444p")
    turned = tmp_path / "turned.mp4"
    make_video(turned, moving(2), matrix=TURNED_90, options={"qp": "0"}, pix_fmt="yuv444p")
    import av

    with av.open(str(turned)) as video:
        assert next(video.decode(video=0)).rotation == -90  # clockwise, as PyAV says
    repaired(turned, tmp_path / "out.mp4", (0, 38, 6, 48), video_crf=0.0)
    luma = planes_of(tmp_path / "out.mp4")[0][0]
    assert (luma[:10, :6] > 230).all()
    assert (luma[12:, :] < 230).all()
    assert source.exists()


def test_sound_subtitles_chapters_and_attachments_are_copied(tmp_path: Path) -> None:
    import av

    plain = make_video(tmp_path / "plain.mkv", moving(25), sound="libopus")
    source = tmp_path / "clip.mkv"
    with av.open(str(plain)) as original, av.open(str(source), "w") as output:
        tracks = {stream.index: output.add_stream_from_template(stream, opaque=True) for stream in original.streams}
        words = output.add_mux_stream("subrip", time_base=Fraction(1, 1000))
        words.metadata["language"] = "deu"
        output.add_attachment("notes.txt", "text/plain", b"found in the attic")
        output.metadata.update({"title": "My reel", "ARCHIVE_NUMBER": "17"})
        output.set_chapters([
            {"id": 1, "start": 0, "end": 400, "time_base": Fraction(1, 1000), "metadata": {"title": "Harbour"}},
            {"id": 2, "start": 400, "end": 1000, "time_base": Fraction(1, 1000), "metadata": {"title": "Home"}},
        ])  # fmt: skip
        for packet in original.demux():
            if packet.size:
                packet.stream = tracks[packet.stream_index]
                output.mux(packet)
        said = av.Packet(b"Hello")
        said.pts = said.dts = 100
        said.duration, said.time_base, said.stream = 500, Fraction(1, 1000), words
        output.mux(said)
    target = tmp_path / "out.mkv"
    assert repaired(source, target).done == 1
    assert packets_of(target, "audio") == packets_of(source, "audio")
    assert len(packets_of(target, "audio")) > 40
    assert packets_of(target, "subtitle") == packets_of(source, "subtitle") != []
    with av.open(str(source)) as before, av.open(str(target)) as after:
        assert after.chapters() == before.chapters() != []
        assert after.metadata["title"] == "My reel"
        assert after.metadata["ARCHIVE_NUMBER"] == "17"
        assert [stream.type for stream in after.streams] == [stream.type for stream in before.streams]
        assert [stream.language for stream in after.streams] == [stream.language for stream in before.streams]
        attached = next(stream for stream in after.streams if stream.type == "attachment")
        assert (attached.name, attached.data) == ("notes.txt", b"found in the attic")


def test_what_the_other_container_cannot_hold_is_told(tmp_path: Path) -> None:
    source = make_video(tmp_path / "clip.mkv", moving(5), sound="pcm_s16le")
    summary = repaired(source, tmp_path / "out.webm", video_codec="vp9")
    assert summary.done == 1
    assert any("track 1 (audio, pcm_s16le) is left out" in line for line in summary.warnings)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused_by_name(transfer: int, name: str, tmp_path: Path) -> None:
    source = make_video(
        tmp_path / "clip.mkv", moving(2), codec="ffv1", pix_fmt="yuv420p10le", colors=(1, 9, transfer, 9)
    )
    mask = save(tmp_path / "mask.png", hole(48, 64, (8, 10, 20, 30)))
    summary = fix_with(source, tmp_path / "out.mkv", Filler(), masks=str(mask))
    assert f"HDR video ({name})" in summary.failed[0].reason
    assert summary.failed[0].code == "unsupported"
    assert not (tmp_path / "out.mkv").exists()


def test_interlaced_video_is_told_and_made_whole_on_demand(tmp_path: Path) -> None:
    fields = moving(20)
    woven = []
    for first, second in zip(fields[::2], fields[1::2]):
        frame = first.copy()
        frame[1::2] = second[1::2]
        woven.append(frame)
    source = make_video(tmp_path / "clip.mp4", woven, interlaced=True, options={"x264-params": "tff=1", "crf": "4"})
    assert any("--deinterlace" in line for line in repaired(source, tmp_path / "as-is.mp4").warnings)
    assert probe(tmp_path / "as-is.mp4").interlaced
    summary = repaired(source, tmp_path / "whole.mp4", deinterlace=True)
    assert not any("interlaced" in line for line in summary.warnings)
    assert not probe(tmp_path / "whole.mp4").interlaced
    assert times_of(tmp_path / "whole.mp4") == times_of(source)
    # Lines of one field: combs are gone.
    combs = [np.abs(np.diff(planes_of(path)[5][0][24:40].astype(int), 2, axis=0)).mean()
             for path in (tmp_path / "as-is.mp4", tmp_path / "whole.mp4")]  # fmt: skip
    assert combs[1] < combs[0] / 2


def test_codec_and_quality_can_be_chosen(tmp_path: Path) -> None:
    source = make_video(tmp_path / "clip.mp4", moving(5))
    assert repaired(source, tmp_path / "out.mkv", video_codec="ffv1").done == 1
    assert probe(tmp_path / "out.mkv").codec == "ffv1"
    sizes = []
    for crf in (10.0, 40.0):
        assert repaired(source, tmp_path / f"{crf}.mp4", video_crf=crf).done == 1
        sizes.append((tmp_path / f"{crf}.mp4").stat().st_size)
    assert sizes[0] > sizes[1]
    failed = repaired(source, tmp_path / "no.mp4", video_codec="ffv1").failed
    assert "cannot hold ffv1" in failed[0].reason


def test_a_codec_that_cannot_be_written_becomes_lossless(tmp_path: Path) -> None:
    source = make_video(tmp_path / "clip.avi", moving(5), codec="wmv2")
    summary = repaired(source, tmp_path / "out.mkv")
    assert summary.done == 1
    assert probe(tmp_path / "out.mkv").codec == "ffv1"
    assert any("written as FFV1, without loss" in line for line in summary.warnings)


def test_content_and_name_make_a_video() -> None:
    assert is_video(b"\0\0\0\x20ftypisom", "a.MP4")
    assert is_video(b"\x1a\x45\xdf\xa3", "a.mkv")
    assert not is_video(b"\0\0\0\x20ftypisom", "a.heic")
    assert not is_video(b"export const answer = 42;\n" * 40, "a.ts")


def test_untouched_pixels_keep_45_db_by_default(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    grainy = [np.clip(frame + noise.normal(0, 600, frame.shape), 0, 65535) for frame in moving(12, 96, 128)]
    source = make_video(tmp_path / "clip.mkv", grainy, codec="ffv1")
    for codec in ("h264", "hevc", "vp9"):
        assert repaired(source, tmp_path / f"{codec}.mkv", video_codec=codec).done == 1
        error = [
            (new[0].astype(float) - old[0])[24:] ** 2
            for old, new in zip(planes_of(source), planes_of(tmp_path / f"{codec}.mkv"), strict=True)
        ]
        assert 10 * np.log10(255**2 / np.mean(error)) > 45, codec
