"""What strangers' files hold beside pixels and common metadata: segments, chunks, extensions, and what follows."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, features

from restore.images import read_image, write_image
from restore.images.metadata import jpeg, webp
from restore.images.metadata.exif import without_prefix
from restore.images.out_of_core import spool_image, write_spooled
from tests.fix.conftest import Inverter, fix_with, photo
from tests.images.profiles import ADOBE_RGB, matrix_profile

ICC = matrix_profile(*ADOBE_RGB)
VIDEO = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0\0\1\0mdat" + bytes(range(248))
CAMERA = "http://ns.google.com/photos/1.0/camera/"
CONTAINER = "http://ns.google.com/photos/1.0/container/"
GAIN_MAP = "http://ns.adobe.com/hdr-gain-map/1.0/"


def packet(attributes: str = "", elements: str = "") -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:GCamera="{CAMERA}" xmlns:Container="{CONTAINER}" '
        f'xmlns:Item="{CONTAINER}item/" xmlns:hdrgm="{GAIN_MAP}" '
        'xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" '
        f'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Label="kept" crs:Version="15"{attributes}>{elements}'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def directory(*items: tuple[str, str, int]) -> str:
    listed = "".join(
        f'<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="{meaning}" Item:Mime="{mime}" '
        f'Item:Length="{length}"/></rdf:li>'
        for meaning, mime, length in items
    )
    return f"<Container:Directory><rdf:Seq>{listed}</rdf:Seq></Container:Directory>"


MOTION = packet(
    f' GCamera:MotionPhoto="1" GCamera:MicroVideo="1" GCamera:MicroVideoOffset="{len(VIDEO)}"',
    directory(("Primary", "image/jpeg", 0), ("MotionPhoto", "video/mp4", len(VIDEO))),
)


def jpeg_bytes(seed: int = 0, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(photo(16, 24, seed)).save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def with_segments(data: bytes, *segments: bytes) -> bytes:
    """After the JFIF segment, which takes 18 bytes."""
    return data[:20] + b"".join(segments) + data[20:]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bytes(*chunks: bytes) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(photo(6, 7)).save(stream, "PNG")
    data = stream.getvalue()
    return data[:33] + b"".join(chunks) + data[33:]


def gif_bytes(*extensions: bytes) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(photo(6, 7, channels=1)).save(stream, "GIF")
    data = stream.getvalue()
    at = 13 + (3 << (data[10] & 7) + 1)
    return b"GIF89a" + data[6:at] + b"".join(extensions) + data[at:]


def blocks(body: bytes) -> bytes:
    return b"".join(bytes((len(body[i : i + 255]),)) + body[i : i + 255] for i in range(0, len(body), 255)) + b"\0"


def fixed(folder: Path, name: str, data: bytes, **options: object) -> tuple[bytes, list[str]]:
    """A file after a repair of all its pixels, and the warnings."""
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / name).write_bytes(data)
    warnings = fix_with(folder / "in", folder / "out", Inverter(), **options).warnings
    (out,) = (folder / "out").iterdir()
    return out.read_bytes(), [warning.what if hasattr(warning, "what") else str(warning) for warning in warnings]


# Behind the end


def test_a_motion_photo_keeps_its_video(tmp_path):
    data, warnings = fixed(tmp_path, "x.jpg", jpeg_bytes(xmp=MOTION) + VIDEO)
    assert data.endswith(b"\xff\xd9" + VIDEO)
    assert b'GCamera:MicroVideoOffset="280"' in data
    assert len(VIDEO) == 280
    assert warnings == []


@pytest.mark.parametrize("ext", ["png", "webp", "tiff"])
def test_another_format_says_that_the_video_is_lost_and_no_longer_promises_it(tmp_path, ext):
    data, warnings = fixed(tmp_path, "x.jpg", jpeg_bytes(xmp=MOTION) + VIDEO, ext=ext)
    assert any("the video of the motion photo" in warning for warning in warnings)
    assert b"mp42" not in data
    for claim in (b"MotionPhoto=", b"MicroVideo", b"video/mp4", b"Container:Directory>"):
        assert claim not in data
    assert b'xmp:Label="kept"' in data


def test_stripping_metadata_removes_the_video(tmp_path):
    data, _ = fixed(tmp_path, "x.jpg", jpeg_bytes(xmp=MOTION) + VIDEO, metadata="strip")
    assert data.endswith(b"\xff\xd9")


@pytest.mark.parametrize("trailer", [b"a note of another program", b"\0\0\0PK\3\4 an archive"])
def test_what_another_program_has_appended_is_kept(tmp_path, trailer):
    data, warnings = fixed(tmp_path, "x.jpg", jpeg_bytes(progressive=True) + trailer)
    assert data.endswith(b"\xff\xd9" + trailer)
    assert warnings == []


def test_padding_is_nothing(tmp_path):
    data, _ = fixed(tmp_path, "x.jpg", jpeg_bytes() + bytes(500))
    assert data.endswith(b"\xff\xd9")


@pytest.mark.parametrize("size", [*range(248, 258), *range(758, 770), 100_000])
@pytest.mark.parametrize("last", [b"\x7f", b"\xff", b"\xff\0", b"\xff\xd3"])
def test_the_end_marker_is_found_behind_a_scan_of_any_length(size, last):
    scan = (b"\xff\0\xff\xd7\x01" * (size // 5 + 1))[: size - len(last)].rstrip(b"\xff") + last
    data = b"\xff\xd8\xff\xda\0\2" + scan
    assert jpeg.end_of_image(data + b"\xff\xd9\xff\xd9", 0) == len(data) + 2
    assert jpeg.end_of_image(data, 0) is None


def test_an_end_marker_in_a_thumbnail_is_not_the_end(tmp_path):
    source = with_segments(jpeg_bytes(), segment(0xE7, b"maker\0" + jpeg_bytes(1)))
    data, _ = fixed(tmp_path, "x.jpg", source + VIDEO)
    assert data.endswith(b"\xff\xd9" + VIDEO)
    assert data.count(VIDEO) == 1


def test_a_gain_map_is_left_out_and_the_video_behind_it_kept(tmp_path):
    gain_map = jpeg_bytes(1, xmp=packet(' hdrgm:Version="1.0" hdrgm:GainMapMax="2"'))
    items = directory(
        ("Primary", "image/jpeg", 0), ("GainMap", "image/jpeg", len(gain_map)), ("MotionPhoto", "video/mp4", len(VIDEO))
    )
    source = jpeg_bytes(xmp=packet(' hdrgm:Version="1.0" GCamera:MotionPhoto="1"', items))
    source = with_segments(source, segment(0xE2, b"MPF\0II*\0\x08\0\0\0\0\0"))
    data, warnings = fixed(tmp_path, "x.jpg", source + gain_map + VIDEO)
    assert any("its HDR gain map is left out" in warning for warning in warnings)
    assert data.endswith(b"\xff\xd9" + VIDEO)
    assert data.count(b"\xff\xd8\xff") == 1
    for gone in (b"hdrgm:Version", b"GainMap", b"MPF\0"):
        assert gone not in data
    for kept in (b"crs:Version", b'Item:Semantic="MotionPhoto"', b'GCamera:MotionPhoto="1"'):
        assert kept in data


def test_further_images_of_a_multi_picture_file_are_left_out_and_told(tmp_path):
    source = with_segments(jpeg_bytes(), segment(0xE2, b"MPF\0II*\0\x08\0\0\0\0\0"))
    data, warnings = fixed(tmp_path, "x.jpg", source + bytes(30) + jpeg_bytes(1))
    assert any("only the first image" in warning for warning in warnings)
    assert data.count(b"\xff\xd8\xff") == 1


@pytest.mark.parametrize("ext", ["jpg", "png", "tif"])
def test_an_image_out_of_core_keeps_the_same(tmp_path, ext):
    source = with_segments(jpeg_bytes(xmp=MOTION, dpi=(600, 300)), *KEPT.values()) + VIDEO
    (tmp_path / "x.jpg").write_bytes(source)
    spooled = spool_image(tmp_path / "x.jpg", tmp_path / "spool", max_pixels=10_000)
    assert spooled is not None
    out, kind = tmp_path / f"out.{ext}", {"jpg": "jpeg", "tif": "tiff"}.get(ext, ext)
    notes = write_spooled(spooled, out, kind, out, quality=90, metadata="keep")
    data = out.read_bytes()
    assert data.endswith(VIDEO) == (b"MicroVideo" in data) == (ext == "jpg")
    assert ("the video of the motion photo" in "; ".join(notes)) == (ext != "jpg")
    assert [name for name, raw in KEPT.items() if (raw in data) != (ext == "jpg")] == []
    again = read_image(out)
    assert again.dpi == (600, 300)
    if ext == "jpg":
        assert notes == []
        assert again.trailer == VIDEO


def test_a_heic_keeps_its_video(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(photo(64, 64))).save(stream, quality=90, xmp=MOTION)
    box = struct.pack(">I4s", 8 + len(VIDEO), b"mpvd") + VIDEO
    (tmp_path / "x.heic").write_bytes(stream.getvalue() + box)
    image = read_image(tmp_path / "x.heic")
    assert write_image(image, tmp_path / "out.heic") == []
    data = (tmp_path / "out.heic").read_bytes()
    assert data.endswith(box)
    assert b"MicroVideo" in data
    (note,) = write_image(image, tmp_path / "out.jpg")
    assert "the video of the motion photo" in note
    assert b"MicroVideo" not in (tmp_path / "out.jpg").read_bytes()


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_an_avif_says_that_its_gain_map_is_left_out(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(photo(16, 24)).save(stream, "AVIF", quality=90)
    data = stream.getvalue()
    begin = data.index(b"infe") - 4  # an item more in the list of items, and all boxes around it grow
    item = struct.pack(">I4sI", 21, b"infe", 0x02000000) + struct.pack(">HH4sx", 77, 0, b"tmap")
    grown = bytearray(data[:begin] + item + data[begin:])
    for box in (b"meta", b"iinf"):
        at = grown.index(box) - 4
        struct.pack_into(">I", grown, at, struct.unpack_from(">I", grown, at)[0] + len(item))
    at = grown.index(b"iinf") + 8
    struct.pack_into(">H", grown, at, struct.unpack_from(">H", grown, at)[0] + 1)
    locations = grown.index(b"iloc")
    for at in range(locations, locations + 80):  # the position of the pixels
        if struct.unpack_from(">I", grown, at)[0] == data.index(b"mdat") + 4:
            struct.pack_into(">I", grown, at, data.index(b"mdat") + 4 + len(item))
    path = tmp_path / "x.avif"
    path.write_bytes(bytes(grown))
    assert "its HDR gain map is left out" in read_image(path).notes
    path.write_bytes(data)
    assert read_image(path).notes == []


def test_a_png_keeps_what_follows_it(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(photo(6, 7)).save(stream, "PNG")
    data, _ = fixed(tmp_path, "x.png", stream.getvalue() + b"a note")
    assert data.endswith(b"IEND\xaeB`\x82a note")


# JPEG: segments


KEPT = {
    "CIFF": segment(0xE0, b"II\x1a\0\0\0HEAPJPGM" + bytes(range(60))),
    "FLIR": segment(0xE1, b"FLIR\0\1\0\0" + bytes(range(90))),
    "QVCI": segment(0xE1, b"QVCI\0" + bytes(range(90))),
    "FlashPix": segment(0xE2, b"FPXR\0\0\1" + bytes(range(40))),
    "Meta": segment(0xE3, b"META\0\0II*\0" + bytes(range(40))),
    "Ricoh": segment(0xE5, b"RMETA\0II" + bytes(range(40))),
    "GoPro": segment(0xE6, b"GoPro\0DEVC" + bytes(range(40))),
    "APP10": segment(0xEA, b"UNICODE\0" + "Tante Käthe".encode("utf-16-be")),
    "Olympus": segment(0xEC, b"OLYMPUS OPTICAL CO.,LTD.\0[picture info]\r\nTimeDate=909702419\r\n"),
    "Ducky": segment(0xEC, b"Ducky\0\1\0\4\0\0\0\x3c"),
    "Adobe_CM": segment(0xED, b"Adobe_CM\0\1"),
    "GraphicConverter": segment(0xEF, b"Q 75"),
    "comment": segment(0xFE, b"Aunt Mary, 1938"),
}


def test_segments_of_camera_makers_and_programs_are_kept(tmp_path):
    data, warnings = fixed(tmp_path, "x.jpg", with_segments(jpeg_bytes(), *KEPT.values()))
    assert [name for name, raw in KEPT.items() if data.count(raw) != 1] == []
    assert warnings == []
    fix_with(tmp_path / "in", tmp_path / "stripped", Inverter(), metadata="strip")
    stripped = (tmp_path / "stripped/x.jpg").read_bytes()
    assert [name for name, raw in KEPT.items() if raw in stripped] == []


def test_segments_that_show_or_describe_the_old_pixels_are_not_kept(tmp_path):
    preview = jpeg_bytes(3)
    stale = (
        segment(0xE0, b"JFXX\0\x10" + preview),
        segment(0xE0, b"AVI1\1" + bytes(9)),
        segment(0xE3, preview[:300]),
        segment(0xE4, preview[300:]),
        segment(0xE4, b"SCALADO\0" + bytes(9)),
        segment(0xE8, b"SPIFF\0" + bytes(26)),
        segment(0xEB, b"JP\0\1\0\0\0\1\0\0\0\x20jumb" + bytes(30)),
    )
    data, warnings = fixed(tmp_path, "x.jpg", with_segments(jpeg_bytes(), *stale, KEPT["Ducky"]))
    assert [raw[4:9] for raw in stale if raw[4:] in data] == []
    assert data.count(b"\xff\xd8\xff") == 1
    assert KEPT["Ducky"] in data
    (warning,) = warnings
    assert "content credentials" in warning


def test_another_format_says_which_segments_it_leaves_out(tmp_path):
    source = with_segments(jpeg_bytes(), KEPT["FLIR"], KEPT["Ducky"], KEPT["comment"])
    _, (warning,) = fixed(tmp_path, "x.jpg", source, ext="png")
    assert "APP1 (FLIR), APP12 (Ducky)" in warning
    assert "comment" not in warning


IPTC = b"\x1c\2\x78\0\7wedding"
RESOURCE = b"8BIM\4\4\0\0" + struct.pack(">I", len(IPTC)) + IPTC
COMMENTED = {
    "jpg": with_segments(jpeg_bytes(), segment(0xED, b"Photoshop 3.0\0" + RESOURCE), KEPT["comment"]),
    "png": png_bytes(
        chunk(b"tEXt", b"Raw profile type iptc\0\niptc\n      12\n" + IPTC.hex().encode() + b"\n"),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"Aunt Mary, 1938")),
    ),
    "gif": gif_bytes(b"\x21\xfe" + blocks(b"Aunt Mary, 1938")),
}


@pytest.mark.parametrize("ext", ["jpg", "png", "gif", "tiff"])
@pytest.mark.parametrize("suffix", [*COMMENTED, "tif"])
def test_captions_and_comments_go_from_format_to_format(tmp_path, suffix, ext):
    source = tmp_path / f"x.{suffix}"
    if suffix == "tif":
        Image.fromarray(photo(6, 7)).save(source, tiffinfo={33723: IPTC})
    else:
        source.write_bytes(COMMENTED[suffix])
    out = tmp_path / f"out.{ext}"
    notes = "; ".join(write_image(read_image(source), out))
    data = out.read_bytes()
    if suffix != "gif":
        kept = IPTC in data or IPTC.hex().encode() in data or b"Raw profile type iptc" in data
        assert kept == (ext != "gif")
        assert ("IPTC" in notes) == (ext == "gif")
    if suffix != "tif" and ext != "tiff":
        with Image.open(out) as image:
            image.load()
            comment = image.info.get("comment", image.info.get("Comment"))
        assert comment in (b"Aunt Mary, 1938", "Aunt Mary, 1938")
    assert ("the comment" in notes) == (suffix != "tif" and ext == "tiff")


@pytest.mark.parametrize("numbers", [(0, 0, 0), (1, 1, 1), (0, 1, 2), (7, 8, 9)])
def test_a_profile_whose_pieces_are_numbered_wrongly_is_used(tmp_path, numbers):
    third = len(ICC) // 3
    pieces = (ICC[:third], ICC[third : 2 * third], ICC[2 * third :])
    segments = [segment(0xE2, b"ICC_PROFILE\0" + bytes((number, 0)) + body) for number, body in zip(numbers, pieces)]
    data, warnings = fixed(tmp_path, "x.jpg", with_segments(jpeg_bytes(), *segments))
    assert Image.open(io.BytesIO(data)).info["icc_profile"] == ICC
    assert warnings == []


def test_a_profile_with_a_missing_piece_is_told(tmp_path):
    source = with_segments(jpeg_bytes(), segment(0xE2, b"ICC_PROFILE\0\1\2" + ICC[:200]))
    _, (warning,) = fixed(tmp_path, "x.jpg", source)
    assert "the color profile is broken" in warning


# PNG: chunks


def test_unknown_chunks_are_kept_if_they_are_safe_to_copy(tmp_path):
    kept = [
        chunk(b"prVt", b"private and safe to copy"), chunk(b"oFFs", bytes(9)), chunk(b"bKGD", b"\0\1\0\2\0\3"),
        chunk(b"sBIT", b"\5\6\5"), chunk(b"mDCV", bytes(24)), chunk(b"tEXt", b"Title\0wedding"),
    ]  # fmt: skip
    gone = [chunk(b"iDOT", bytes(28)), chunk(b"hIST", bytes(12)), chunk(b"prVT", b"unsafe"), chunk(b"caBX", b"signed")]
    data, warnings = fixed(tmp_path, "x.png", png_bytes(*kept, *gone))
    assert [raw[4:8] for raw in kept if data.count(raw) != 1] == []
    assert [raw[4:8] for raw in gone if raw[4:8] in data] == []
    assert len(warnings) == 2
    assert any("the chunk prVT is left out" in warning for warning in warnings)
    assert any("content credentials" in warning for warning in warnings)
    with Image.open(io.BytesIO(data)) as image:
        image.load()


@pytest.mark.parametrize("packed", [False, True])
def test_xmp_in_hexadecimal_is_read_and_written_as_xmp(tmp_path, packed):
    xmp = packet()
    text = f"\nxmp\n{len(xmp):8}\n{xmp.hex()}\n".encode()
    keyword = b"Raw profile type xmp\0"
    raw = chunk(b"zTXt", keyword + b"\0" + zlib.compress(text)) if packed else chunk(b"tEXt", keyword + text)
    data, _ = fixed(tmp_path, "x.png", png_bytes(raw))
    assert b"iTXtXML:com.adobe.xmp\0" in data
    assert data.count(b'xmp:Label="kept"') == 1
    assert b"Raw profile type" not in data


# GIF: extensions


def test_a_gif_keeps_comment_xmp_and_extensions(tmp_path):
    xmp = packet()
    kept = b"\x21\xfe" + blocks(b"Aunt Mary, 1938 " * 30), b"\x21\xff\x0bICCRGBG1012" + blocks(ICC)
    magic = b"\1" + bytes(range(255, -1, -1)) + b"\0"
    data, _ = fixed(tmp_path, "x.gif", gif_bytes(*kept, b"\x21\xff\x0bXMP DataXMP" + xmp + magic))
    assert [raw[:9] for raw in kept if data.count(raw) != 1] == []
    assert data.count(b'xmp:Label="kept"') == 1
    assert b"stEvt:action" in data
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["comment"].startswith(b"Aunt Mary, 1938 Aunt")
        assert np.array_equal(np.asarray(image.convert("L")), 255 - photo(6, 7, channels=1))


# BMP: a color profile


def test_a_bmp_keeps_its_profile(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(photo(6, 7)).save(stream, "BMP")
    plain = stream.getvalue()
    header = struct.pack("<I", 124) + plain[18:54] + bytes(16) + b"DEBM" + bytes(48)
    header += struct.pack("<4I", 4, len(plain) - 14 + 84, len(ICC), 0)
    source = b"BM" + struct.pack("<IHHI", len(plain) + 84 + len(ICC), 0, 0, 138) + header + plain[54:] + ICC
    data, warnings = fixed(tmp_path, "x.bmp", source)
    assert warnings == []
    at, length = struct.unpack_from("<II", data, 14 + 112)
    assert data[14 + 56 : 14 + 60] == b"DEBM"
    assert data[14 + at : 14 + at + length] == ICC
    assert struct.unpack_from("<I", data, 2)[0] == len(data)
    assert np.asarray(Image.open(io.BytesIO(data))).shape == (6, 7, 3)
    image = read_image(tmp_path / "in/x.bmp")
    write_image(image, tmp_path / "same.bmp")
    assert (tmp_path / "same.bmp").read_bytes() == source
    write_image(image, tmp_path / "same.png")
    assert Image.open(tmp_path / "same.png").info["icc_profile"] == ICC


@pytest.mark.parametrize("gamma", [1.0, 2.2])
def test_a_bmp_that_states_primaries_and_gamma_gets_a_profile_of_that_meaning(tmp_path, gamma):
    values = np.full((4, 4, 3), (34, 50, 46), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "BMP")
    plain = stream.getvalue()
    primaries = (0.64, 0.33, 0.03, 0.30, 0.60, 0.10, 0.15, 0.06, 0.79)  # of sRGB, as x, y and z
    header = struct.pack("<I", 108) + plain[18:54] + bytes(16) + bytes(4)
    header += struct.pack("<9I", *(round(value * 2**30) for value in primaries))
    header += struct.pack("<3I", *[round(gamma * 65536)] * 3)
    data = b"BM" + struct.pack("<IHHI", len(plain) + 68, 0, 0, 122) + header + plain[54:]
    (tmp_path / "x.bmp").write_bytes(data)
    image = read_image(tmp_path / "x.bmp")
    # Linear light: the formula of IEC 61966-2-1. A gamma of 2.2 stands for sRGB itself.
    expected = (102, 122, 118) if gamma == 1 else (34, 50, 46)
    assert np.abs(image.to_srgb()[0, 0] * 255 - expected).max() < 1
    assert (image.icc is None) == (gamma == 2.2)
    write_image(image, tmp_path / "out.bmp")
    again = read_image(tmp_path / "out.bmp")
    assert np.array_equal(again.pixels, values)
    assert np.abs(again.to_srgb() - image.to_srgb()).max() < 1 / 255


# WebP: chunks


@pytest.mark.parametrize("extended", [False, True])
def test_unknown_chunks_of_a_webp_are_kept(tmp_path, extended):
    stream = io.BytesIO()
    Image.fromarray(photo(6, 7)).save(stream, "WEBP", lossless=True, **({"xmp": packet()} if extended else {}))
    data = stream.getvalue()
    extra = b"prVt" + struct.pack("<I", 5) + b"maker\0"
    path = tmp_path / "x.webp"
    path.write_bytes(data[:4] + struct.pack("<I", len(data) - 8 + len(extra)) + data[8:] + extra + b"a note")
    image = read_image(path)
    assert write_image(image, tmp_path / "out.webp") == []
    written = (tmp_path / "out.webp").read_bytes()
    assert written.endswith(extra + b"a note")
    assert struct.unpack_from("<I", written, 4)[0] == len(written) - 8 - len(b"a note")
    with Image.open(tmp_path / "out.webp") as again:
        assert np.array_equal(np.asarray(again), photo(6, 7))
    (note,) = write_image(image, tmp_path / "out.png")
    assert "the chunk 'prVt'" in note


def test_a_chunk_of_a_webp_that_is_cut_short_is_told_and_not_copied():
    stream = io.BytesIO()
    Image.fromarray(photo(6, 7)).save(stream, "WEBP", lossless=True)
    data = stream.getvalue()
    whole, cut = b"prVt" + struct.pack("<I", 5) + b"maker", b"laST" + struct.pack("<I", 50) + b"and"
    for end, left_out in ((whole + b"\0" + cut, ("a chunk that is cut short",)), (whole, ())):
        header = webp.read_header(data[:4] + struct.pack("<I", len(data) - 8 + len(end)) + data[8:] + end)
        assert header.passthrough == whole + b"\0"
        assert header.left_out == left_out


# What a format has no place for, and what is there twice


def test_a_second_exif_block_is_told(tmp_path):
    blocks = []
    for maker in ("first", "second"):
        block = Image.Exif()
        block[0x010F] = maker
        blocks.append(segment(0xE1, block.tobytes()))
    data, (warning,) = fixed(tmp_path, "x.jpg", with_segments(jpeg_bytes(), *blocks))
    assert "a second EXIF block is left out" in warning
    assert Image.open(io.BytesIO(data)).getexif()[0x010F] == "first"


def large_exif() -> bytes:
    """A block of three segments, without the prefix."""
    block = Image.Exif()
    block[0x010F] = "A maker"
    block.get_ifd(ExifTags.IFD.Exif)[0x927C] = np.random.default_rng(1).bytes(150_000)  # a maker's note
    return block.tobytes()[6:]


@pytest.mark.parametrize("source", ["jpg", "png"])
def test_an_exif_block_over_several_segments_is_kept(tmp_path, source):
    block = large_exif()
    if source == "jpg":
        pieces = [b"Exif\0\0" + block[at : at + 65_000] for at in range(0, len(block), 65_000)]
        (tmp_path / "a.jpg").write_bytes(with_segments(jpeg_bytes(), *(segment(0xE1, piece) for piece in pieces)))
    else:
        (tmp_path / "a.png").write_bytes(png_bytes(chunk(b"eXIf", block)))
    image = read_image(tmp_path / f"a.{source}")
    assert image.notes == []
    assert without_prefix(image.exif) == block
    for name in ("b.jpg", "b.png"):
        assert write_image(image, tmp_path / name) == []
        assert without_prefix(read_image(tmp_path / name).exif) == block
    with Image.open(tmp_path / "b.jpg") as opened:
        assert opened.info["exif"][6:] == block
    data = (tmp_path / "b.jpg").read_bytes()
    assert data[20:24] == b"\xff\xe1\xff\xff"  # right after JFIF, as readers expect it
    assert data[24:34] == b"Exif\0\0" + block[:4]


@pytest.mark.parametrize(("ext", "told"), [("gif", ("EXIF", "the resolution")), ("bmp", ("EXIF",)), ("png", ())])
def test_a_format_without_exif_or_resolution_says_so(tmp_path, ext, told):
    block = Image.Exif()
    block[0x010F] = "A maker"
    (tmp_path / "x.jpg").write_bytes(jpeg_bytes(exif=block, dpi=(300, 300)))
    notes = "; ".join(write_image(read_image(tmp_path / "x.jpg"), tmp_path / f"x.{ext}"))
    assert [part for part in ("EXIF", "the resolution") if part in notes] == list(told)


def test_smaller_icons_are_told(tmp_path):
    Image.fromarray(np.zeros((64, 64, 4), np.uint8)).save(tmp_path / "x.ico", sizes=[(16, 16), (64, 64)])
    assert read_image(tmp_path / "x.ico").notes == ["only the largest of 2 sizes is read"]
