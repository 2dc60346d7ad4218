"""One resolution: the one that the file means, in every place that a reader looks at, and none that is made up."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from restore.images import read_image, write_image
from restore.images.metadata.exif import without_prefix
from restore.images.metadata.resolution import Resolution, density, settle
from tests.file_truth.test_parts import chunk, png_bytes
from tests.fix.conftest import photo

SUFFIXES = ["jpg", "png", "tif"]


def exif(x: float, y: float, unit: int = 2) -> bytes:
    block = Image.Exif()
    block[0x011A], block[0x011B], block[0x0128] = x, y, unit
    return block.tobytes()


def jpeg_bytes(unit: int, x: int, y: int, block: bytes | None = None) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(photo(16, 24)).save(stream, "JPEG", **({"exif": block} if block else {}))
    data = stream.getvalue()
    assert data[6:11] == b"JFIF\0"
    return data[:13] + struct.pack(">BHH", unit, x, y) + data[18:]


def stated(path: Path) -> dict[str, tuple[float, ...]]:
    """The resolutions in every place of a file, as (across, down, unit) with the unit's name in that format."""
    data, found = path.read_bytes(), {}
    with Image.open(path) as image:
        tags = image.getexif()
        if 0x011A in tags:
            found["tags"] = (float(tags[0x011A]), float(tags[0x011B]), tags.get(0x0128, 2))
    if data[6:11] == b"JFIF\0":
        unit, x, y = struct.unpack_from(">BHH", data, 13)
        found["jfif"] = (x, y, unit)
    if data[:2] == b"BM" or data[:1] == b"\n":
        x, y = struct.unpack_from("<II", data, 38) if data[:2] == b"BM" else struct.unpack_from("<HH", data, 12)
        if x or y:
            found["header"] = (x, y)
    if b"pHYs" in data:
        found["phys"] = struct.unpack_from(">IIB", data, data.index(b"pHYs") + 4)
    return found


def converted(folder: Path, name: str, data: bytes, suffix: str) -> dict[str, tuple[float, ...]]:
    (folder / name).write_bytes(data)
    write_image(read_image(folder / name), folder / f"out.{suffix}")
    return stated(folder / f"out.{suffix}")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jpg", jpeg_bytes(1, 600, 600, exif(72, 72))),
        ("a.jpg", jpeg_bytes(1, 600, 600)),
        ("a.jpg", jpeg_bytes(0, 1, 1, exif(600, 600))),
        ("a.jpg", jpeg_bytes(1, 72, 72, exif(600, 600))),
        ("a.jpg", jpeg_bytes(0, 1, 1, exif(236.2204724, 236.2204724, 3))),
        ("a.png", png_bytes(chunk(b"eXIf", exif(600, 600)[6:]))),
        ("a.png", png_bytes(chunk(b"pHYs", struct.pack(">IIB", 23622, 23622, 1)))),
        ("a.png", png_bytes(chunk(b"pHYs", struct.pack(">IIB", 23622, 23622, 1)), chunk(b"eXIf", exif(72, 72)[6:]))),
    ],
    ids=["jfif-exif72", "jfif", "exif", "jfif72-exif", "exif-cm", "png-exif", "png-phys", "png-phys-exif72"],
)
@pytest.mark.parametrize("suffix", [*SUFFIXES, "webp"])
def test_600_stays_600_everywhere(tmp_path, name, data, suffix):
    found = converted(tmp_path, name, data, suffix)
    own = {"jpg": ("jfif", (600, 600, 1)), "png": ("phys", (23622, 23622, 1)), "tif": ("tags", (600, 600, 2))}
    if suffix in own:
        place, expected = own[suffix]
        assert found.pop(place) == expected
    if "tags" in found:
        x, y, unit = found["tags"]
        factor = 2.54 if unit == 3 else 1
        assert (x * factor, y * factor) == pytest.approx((600, 600), abs=0.01)
    assert suffix != "webp" or found


def test_a_tiff_in_centimeters(tmp_path):
    Image.fromarray(photo(6, 7)).save(
        tmp_path / "a.tif", resolution_unit="cm", x_resolution=118.11, y_resolution=59.055
    )
    for suffix, expected in (("tif", (299.9994, 149.9997, 2)), ("jpg", (300, 150, 1)), ("png", (11811, 5906, 1))):
        found = converted(tmp_path, "a.tif", (tmp_path / "a.tif").read_bytes(), suffix)
        assert next(iter(found.values())) == pytest.approx(expected, abs=1e-3)


def test_whole_numbers_per_centimeter_stay_so_in_a_jpeg(tmp_path):
    assert converted(tmp_path, "a.jpg", jpeg_bytes(2, 236, 118), "jpg")["jfif"] == (236, 118, 2)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jpg", jpeg_bytes(0, 2, 1)),
        ("a.jpg", jpeg_bytes(0, 2, 1, exif(72, 72))),
        ("a.png", png_bytes(chunk(b"pHYs", struct.pack(">IIB", 2, 1, 0)))),
    ],
)
def test_the_shape_of_a_pixel_is_kept(tmp_path, name, data):
    assert converted(tmp_path, name, data, "jpg")["jfif"] == (2, 1, 0)
    assert converted(tmp_path, name, data, "png")["phys"] == (2, 1, 0)
    assert converted(tmp_path, name, data, "tif")["tags"] == (2, 1, 1)
    assert converted(tmp_path, "out.tif", (tmp_path / "out.tif").read_bytes(), "jpg")["jfif"] == (2, 1, 0)


def test_the_shape_turns_with_the_image(tmp_path):
    block = Image.Exif()
    block[0x0112] = 6
    assert converted(tmp_path, "a.jpg", jpeg_bytes(0, 2, 1, block.tobytes()), "jpg")["jfif"] == (1, 2, 0)
    block[0x011A], block[0x011B], block[0x0128] = 300, 150, 2
    found = converted(tmp_path, "a.jpg", jpeg_bytes(1, 300, 150, block.tobytes()), "jpg")
    assert found == {"jfif": (150, 300, 1), "tags": (150, 300, 2)}


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("suffix", [*SUFFIXES, "webp", "avif", "bmp", "pcx"])
def test_none_is_made_up(tmp_path, name, suffix):
    Image.fromarray(photo(6, 7)).save(tmp_path / name)
    found = converted(tmp_path, name, (tmp_path / name).read_bytes(), suffix)
    expected = {"jpg": {"jfif": (1, 1, 0)}, "tif": {"tags": (1, 1, 1)}}
    assert found == expected.get(suffix, {})


def test_two_resolutions_that_contradict_each_other_are_told():
    notes: list[str] = []
    assert settle(Resolution(300, 300), Resolution(600, 600), notes) == ((300, 300), None)
    assert "300 dpi" in notes[0]
    assert "600 dpi" in notes[0]


def test_a_rounded_resolution_is_no_contradiction():
    notes: list[str] = []
    assert settle(Resolution(118, 118, 1 / 2.54), Resolution(300, 300), notes) == ((300, 300), None)
    assert notes == []


@pytest.mark.parametrize(("dpi", "expected"), [((0.2, 0.2), (0, 1, 1)), ((1e6, 1e6), (0, 1, 1)), (None, (0, 1, 1))])
def test_what_a_jfif_segment_cannot_hold_is_not_written(dpi, expected):
    assert density(dpi, None) == expected


def test_the_shape_of_a_gif_s_pixels_is_kept(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(photo(6, 7, channels=1)).save(stream, "GIF")
    data = stream.getvalue()
    wide = data[:12] + bytes((2 * 64 - 15,)) + data[13:]  # pixels twice as wide as high
    (tmp_path / "a.gif").write_bytes(wide)
    for name in ("b.png", "c.gif"):
        write_image(read_image(tmp_path / "a.gif"), tmp_path / name)
        assert read_image(tmp_path / name).pixel_shape in ((64, 128), (1, 2))
    assert (tmp_path / "c.gif").read_bytes()[12] == wide[12]


@pytest.mark.parametrize("ext", ["avif", "webp", "bmp"])
def test_a_format_without_a_shape_of_pixels_says_so(tmp_path, ext):
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(0, 2, 1))
    notes = write_image(read_image(tmp_path / "a.jpg"), tmp_path / f"out.{ext}")
    assert "the shape of its pixels" in notes[0]


@pytest.mark.parametrize("dpi", [None, 300])
def test_an_avif_s_exif_stays_as_it_is(tmp_path, dpi):
    """libvips writes a new block, with the resolution of its own image and a dozen tags."""
    block = Image.Exif()
    block[0x010F] = "A maker"
    block.get_ifd(ExifTags.IFD.Exif)[0x927C] = bytes(range(64))  # a maker's note
    if dpi:
        block[0x011A], block[0x011B], block[0x0128] = dpi, dpi, 2
    Image.fromarray(photo(16, 24)).save(tmp_path / "a.webp", exif=block, lossless=True)
    source = read_image(tmp_path / "a.webp")
    assert source.dpi == (dpi and (300, 300))
    write_image(source, tmp_path / "a.avif")
    written = read_image(tmp_path / "a.avif")
    assert without_prefix(written.exif) == without_prefix(source.exif)
    assert written.dpi == source.dpi
    with Image.open(tmp_path / "a.avif") as image:
        assert image.getexif()[0x010F] == "A maker"
    assert np.abs(written.pixels.astype(int) - source.pixels).mean() < 8


# Photoshop's resources and XMP state it once more


def resource(x: float, y: float) -> bytes:
    """Photoshop's resolution, after one of another program and before a URL."""
    body = struct.pack(">IHHIHH", round(x * 65536), 1, 2, round(y * 65536), 1, 2)
    foreign = b"MeSa" + struct.pack(">HHI", 0x03ED, 0, 16) + bytes(16)
    return (
        foreign
        + b"8BIM"
        + struct.pack(">HHI", 0x03ED, 0, 16)
        + body
        + b"8BIM"
        + struct.pack(">HHI", 1035, 0, 4)
        + b"a://"
    )


def with_resource(data: bytes, block: bytes) -> bytes:
    body = b"Photoshop 3.0\0" + block
    return data[:2] + b"\xff\xed" + struct.pack(">H", len(body) + 2) + body + data[2:]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("jfif", "block"), [((300, 150), None), ((72, 72), (300, 150)), ((300, 150), (72, 72))])
def test_photoshop_s_resolution_is_that_of_the_file(tmp_path, suffix, jfif, block):
    source = with_resource(jpeg_bytes(1, *jfif, block and exif(*block)), resource(72, 72))
    (tmp_path / "a.jpg").write_bytes(source)
    image = read_image(tmp_path / "a.jpg")
    assert image.dpi == (300, 150)
    write_image(image, tmp_path / f"out.{suffix}")
    data = (tmp_path / f"out.{suffix}").read_bytes()
    if suffix == "png":
        with Image.open(tmp_path / "out.png") as opened:
            opened.load()
            text = opened.text["Raw profile type 8bim"]
        data = bytes.fromhex("".join(text.split()[2:]))
    assert data.count(resource(300, 150)) == 1
    again = read_image(tmp_path / f"out.{suffix}")  # and from there to another format
    write_image(again, tmp_path / "again.tif")
    assert (tmp_path / "again.tif").read_bytes().count(resource(300, 150)) == 1


def test_photoshop_s_resolution_turns_with_the_image(tmp_path):
    block = Image.Exif()
    block[0x0112] = 6
    source = with_resource(jpeg_bytes(1, 300, 150, block.tobytes()), resource(300, 150))
    (tmp_path / "a.jpg").write_bytes(source)
    write_image(read_image(tmp_path / "a.jpg"), tmp_path / "b.jpg")
    assert resource(150, 300) in (tmp_path / "b.jpg").read_bytes()


def test_photoshop_s_resolution_in_a_tiff_is_that_of_its_tags(tmp_path):
    Image.fromarray(photo(6, 7)).save(tmp_path / "a.tif", dpi=(600, 600), tiffinfo={34377: resource(72, 72)})
    write_image(read_image(tmp_path / "a.tif"), tmp_path / "b.tif")
    assert resource(600, 600) in (tmp_path / "b.tif").read_bytes()
    write_image(read_image(tmp_path / "a.tif"), tmp_path / "b.jpg")
    assert resource(600, 600) in (tmp_path / "b.jpg").read_bytes()


def test_resources_without_a_change_keep_their_bytes(tmp_path):
    block = resource(300.4, 300.4)  # which JFIF rounds
    (tmp_path / "a.jpg").write_bytes(with_resource(jpeg_bytes(1, 300, 300), block))
    write_image(read_image(tmp_path / "a.jpg"), tmp_path / "b.jpg")
    assert block in (tmp_path / "b.jpg").read_bytes()


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (b'tiff:XResolution="72/1" tiff:YResolution="72/1" tiff:ResolutionUnit="2"', (b"300/1", b"150/1", b"2")),
        (b'tiff:XResolution="118/1" tiff:YResolution="59/1" tiff:ResolutionUnit="3"', (b"118/1", b"59/1", b"3")),
        (b'tiff:XResolution="72/1" tiff:YResolution="72/1" tiff:ResolutionUnit="3"', (b"300/1", b"150/1", b"2")),
    ],
)
def test_the_resolution_in_xmp_is_that_of_the_file(tmp_path, stated, expected):
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    packet += b'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" ' + stated
    packet += b"/></rdf:RDF></x:xmpmeta>"
    stream = io.BytesIO()
    Image.fromarray(photo(6, 7)).save(stream, "JPEG", xmp=packet, dpi=(300, 150))
    (tmp_path / "a.jpg").write_bytes(stream.getvalue())
    xmp = read_image(tmp_path / "a.jpg").xmp
    names = (b"XResolution", b"YResolution", b"ResolutionUnit")
    assert all(b'tiff:%b="%b"' % pair in xmp for pair in zip(names, expected))
