"""What stands in a file beside the picture: kept, or stripped, and nothing in between."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from tests.fix.conftest import Inverter, fix_with, load, photo, save
from tests.images.profiles import ADOBE_RGB, matrix_profile

ICC = matrix_profile(*ADOBE_RGB)
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Label="a remark in XMP"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
CAPTION = b"\x1c\x02\x78\x00\x0dan IPTC title"  # record 2, data set 120, 13 bytes


def exif() -> Image.Exif:
    block = Image.Exif()
    block[0x010F] = "A maker"
    block[0x8298] = "A photographer"
    block.get_ifd(ExifTags.IFD.Exif)[0x9003] = "2001:02:03 04:05:06"
    block.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    return block


def written(folder: Path, suffix: str) -> Path:
    """A file that holds everything its format can."""
    folder.mkdir(parents=True)
    path = folder / f"x.{suffix}"
    image = Image.fromarray(photo(24, 40))
    if suffix == "png":
        info = PngImagePlugin.PngInfo()
        info.add_text("Title", "a text")
        info.add_text("Comment", "a long text " * 99, zip=True)
        info.add_itxt("Author", "Jürgen Höß")
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        info.add_text("Raw profile type iptc", f"\niptc\n{len(CAPTION):8}\n{CAPTION.hex()}\n")
        image.save(path, pnginfo=info, exif=exif(), icc_profile=ICC, dpi=(300, 200))
    elif suffix == "tif":
        tags = {271: "A maker", 33432: "A photographer", 700: XMP, 33723: CAPTION}
        image.save(path, tiffinfo=tags, icc_profile=ICC, dpi=(300, 200))
    elif suffix == "jpg":
        resource = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(CAPTION)) + CAPTION + b"\0" * (len(CAPTION) % 2)
        image.save(path, exif=exif(), icc_profile=ICC, xmp=XMP, dpi=(300, 200), comment=b"a comment")
        segment = b"Photoshop 3.0\0" + resource
        data = path.read_bytes()
        path.write_bytes(data[:20] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + data[20:])
    else:
        image.save(path, exif=exif(), icc_profile=ICC, xmp=XMP, **({"lossless": True} if suffix == "webp" else {}))
    return path


def told(path: Path) -> dict[str, object]:
    """What Pillow finds beside the picture."""
    with Image.open(path) as image:
        image.load()
        tags = image.getexif()
        found = {
            "icc": image.info.get("icc_profile"),
            "maker": tags.get(0x010F),
            "rights": tags.get(0x8298),
            "date": tags.get_ifd(ExifTags.IFD.Exif).get(0x9003),
            "gps": tags.get_ifd(ExifTags.IFD.GPSInfo).get(1),
            "comment": image.info.get("comment"),
            "texts": {key: value for key, value in getattr(image, "text", {}).items() if "xmp" not in key},
            "dpi": tuple(round(float(value)) for value in image.info.get("dpi", ())),
        }
    data = path.read_bytes()
    found["xmp"], found["iptc"] = b"a remark in XMP" in data, CAPTION in data or CAPTION.hex().encode() in data
    return found


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif"])
def test_everything_is_kept(tmp_path, suffix):
    source = written(tmp_path / "in", suffix)
    before = told(source)
    assert before["icc"] == ICC
    assert before["xmp"]
    assert before["iptc"] == (suffix in ("jpg", "png", "tif"))
    assert fix_with(tmp_path / "in", tmp_path / "out", Inverter()).warnings == []
    assert told(tmp_path / f"out/x.{suffix}") == before


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif"])
def test_stripped_is_stripped_and_the_colours_stay(tmp_path, suffix):
    written(tmp_path / "in", suffix)
    fix_with(tmp_path / "in", tmp_path / "out", Inverter(), metadata="strip")
    found = told(tmp_path / f"out/x.{suffix}")
    assert found.pop("icc") == ICC
    assert found.pop("dpi") == ((300, 200) if suffix in ("jpg", "png", "tif") else ())
    assert not any(found.values()), found
    data = (tmp_path / f"out/x.{suffix}").read_bytes()
    for secret in (b"A maker", b"A photographer", b"a text", b"2001:02:03", b"GPS"):
        assert secret not in data


@pytest.mark.parametrize("packed", [False, True])
def test_what_stands_behind_a_png_s_pixels_is_kept_too(tmp_path, packed):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    path = save(tmp_path / "in/x.png", photo(6, 7))
    data, packet = path.read_bytes(), b"<x:xmpmeta>grandmother</x:xmpmeta>"
    text = b"XML:com.adobe.xmp\0" + (b"\1\0\0\0" + zlib.compress(packet) if packed else b"\0\0\0\0" + packet)
    path.write_bytes(data[:-12] + chunk(b"iTXt", text) + chunk(b"tEXt", b"Title\0wedding") + data[-12:])
    fix_with(tmp_path / "in", tmp_path / "out", Inverter())
    with Image.open(tmp_path / "out/x.png") as image:
        assert image.info["xmp"] == packet
        assert image.info["Title"] == "wedding"


def test_stripping_a_png_leaves_what_says_how_its_colours_are_meant(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", (100000).to_bytes(4, "big"))
    info.add_text("Title", "a text")
    save(tmp_path / "in/x.png", photo(5, 5), pnginfo=info)
    fix_with(tmp_path / "in", tmp_path / "out", Inverter(), metadata="strip")
    with Image.open(tmp_path / "out/x.png") as image:
        assert image.info["gamma"] == 1.0
        assert image.text == {}


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("ext", ["jpg", "png", "tiff", "webp"])
def test_exif_xmp_and_profile_go_from_format_to_format(tmp_path, suffix, ext):
    source = written(tmp_path / "in", suffix)
    before = told(source)
    fix_with(tmp_path / "in", tmp_path / "out", Inverter(), ext=ext)
    (out,) = (tmp_path / "out").iterdir()
    after = told(out)
    for key in ("icc", "maker", "rights", "date", "gps", "xmp"):
        assert after[key] == before[key], key


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp"])
def test_resolution(tmp_path, suffix):
    save(tmp_path / f"in/x.{suffix}", photo(6, 7), dpi=(300, 200))
    fix_with(tmp_path / "in", tmp_path / "out", Inverter())
    assert told(tmp_path / f"out/x.{suffix}")["dpi"] == (300, 200)


@pytest.mark.parametrize("ext", ["jpg", "png", "tiff"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_resolution_goes_from_format_to_format_and_none_is_made_up(tmp_path, suffix, ext):
    save(tmp_path / f"in/with.{suffix}", photo(6, 7), dpi=(300, 200))
    save(tmp_path / f"in/without.{suffix}", photo(6, 7))
    fix_with(tmp_path / "in", tmp_path / "out", Inverter(), ext=ext)
    without, having = sorted((tmp_path / "out").iterdir(), key=lambda path: path.stem, reverse=True)
    assert told(having)["dpi"] == (300, 200)
    with Image.open(without) as image:
        assert "dpi" not in image.info


def test_a_turned_picture_s_resolution_turns_too(tmp_path):
    block = Image.Exif()
    block[0x0112] = 6
    save(tmp_path / "in/x.png", photo(6, 7), dpi=(300, 200), exif=block)
    fix_with(tmp_path / "in", tmp_path / "out", Inverter())
    assert told(tmp_path / "out/x.png")["dpi"] == (200, 300)


@pytest.mark.parametrize("metadata", ["keep", "strip"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_time_and_permissions(tmp_path, suffix, metadata):
    source = written(tmp_path / "in", suffix)
    os.utime(source, ns=(10**18, 10**18 + 12345000))
    for mode in (0o640, 0o444, 0o755):
        source.chmod(mode)
        fix_with(tmp_path / "in", tmp_path / "out", Inverter(), metadata=metadata, overwrite=True)
        status = (tmp_path / f"out/x.{suffix}").stat()
        assert (status.st_mtime_ns, status.st_mode & 0o777) == (10**18 + 12345000, mode)


@pytest.mark.parametrize("quality", [35, 75, 93])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_a_jpeg_is_compressed_as_its_source_was(tmp_path, quality, subsampling):
    save(tmp_path / "in/x.jpg", photo(40, 56), quality=quality, subsampling=subsampling)
    save(tmp_path / "in/gray.jpg", photo(40, 56, channels=1), quality=quality)
    fix_with(tmp_path / "in", tmp_path / "out", Inverter())
    for name in ("x", "gray"):
        with Image.open(tmp_path / f"in/{name}.jpg") as before, Image.open(tmp_path / f"out/{name}.jpg") as after:
            assert after.mode == before.mode
            assert after.quantization == before.quantization
            assert [layer[1:3] for layer in after.layer] == [layer[1:3] for layer in before.layer]
    fix_with(tmp_path / "in", tmp_path / "worse", Inverter(), quality=20)
    assert (tmp_path / "worse/x.jpg").stat().st_size < (tmp_path / "out/x.jpg").stat().st_size
    assert np.abs(load(tmp_path / "out/gray.jpg").astype(int) - 255 + load(tmp_path / "in/gray.jpg")).mean() < 12
