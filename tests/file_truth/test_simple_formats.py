"""What the simple formats hold besides pixels: names, comments, the extension area of a TGA, hidden frames."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from restore.images import read_image, write_image
from tests.file_truth.test_parts import chunk, png_bytes
from tests.fix.conftest import photo


def tga_bytes(*, developer: int = 0, shape: tuple[int, int] = (0, 0), name: bytes = b"a name") -> bytes:
    """A TGA with a name and an extension area that points to a thumbnail."""
    stream = io.BytesIO()
    Image.fromarray(photo(6, 7)).save(stream, "TGA", id_section=name)
    body = stream.getvalue()[:-26]
    area = struct.pack("<H", 495) + b"An author".ljust(41, b"\0") + b"A comment".ljust(324, b"\0")
    area = area.ljust(426, b"\0") + b"A program".ljust(41, b"\0")
    area = area.ljust(474, b"\0") + struct.pack("<HHHHIIIB", *shape, 22, 10, 0, 18, 0, 3)
    assert len(area) == 495
    return body + area + struct.pack("<II", len(body), developer) + b"TRUEVISION-XFILE.\0"


def test_a_tga_keeps_its_name_and_its_extension_area(tmp_path):
    source = tga_bytes()
    (tmp_path / "a.tga").write_bytes(source)
    image = read_image(tmp_path / "a.tga")
    assert image.notes == []
    assert write_image(image, tmp_path / "b.tga") == []
    data = (tmp_path / "b.tga").read_bytes()
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.info["id_section"] == b"a name"
        assert np.array_equal(np.asarray(opened), photo(6, 7))
    at, developer = struct.unpack_from("<II", data, len(data) - 26)
    area, own = data[at : at + 495], source[-521:-26]
    assert developer == 0
    assert area[:482] == own[:482]  # author to gamma
    assert area[482:] == bytes(12) + b"\3"  # the thumbnail shows the unrepaired image
    write_image(image, tmp_path / "c.tga", metadata="strip")
    assert b"An author" not in (tmp_path / "c.tga").read_bytes()
    (note,) = write_image(image, tmp_path / "b.png")
    assert note.endswith("also holds: the name in it, its extension area")


def test_the_shape_of_a_tga_s_pixels_is_kept(tmp_path):
    (tmp_path / "a.tga").write_bytes(tga_bytes(shape=(2, 1)))  # twice as wide as high
    write_image(read_image(tmp_path / "a.tga"), tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as opened:
        assert (opened.info["jfif_unit"], opened.info["jfif_density"]) == (0, (1, 2))


def test_the_developer_area_of_a_tga_is_told(tmp_path):
    (tmp_path / "a.tga").write_bytes(tga_bytes(developer=18))
    assert read_image(tmp_path / "a.tga").notes == ["its developer area is left out"]


PLAIN = b"P3\n# from a scanner\n2 1 # two pixels\n255\n" + b"1 2 3 4 5 6\n"


@pytest.mark.parametrize("top", [255, 65535])
@pytest.mark.parametrize("gray", [True, False])
def test_comments_of_a_ppm_are_kept(tmp_path, top, gray):
    channels = 1 if gray else 3
    values = np.arange(2 * channels, dtype=">u2" if top > 255 else np.uint8)
    head = b"P%d\n# from a scanner\n2 1 # two pixels\n%d\n" % (5 if gray else 6, top)
    (tmp_path / "a.ppm").write_bytes(head + values.tobytes())
    image = read_image(tmp_path / "a.ppm")
    assert write_image(image, tmp_path / "b.ppm") == []
    data = (tmp_path / "b.ppm").read_bytes()
    assert data[2:37] == b"\n# from a scanner\n# two pixels\n2 1\n"
    assert np.array_equal(read_image(tmp_path / "b.ppm").pixels, image.pixels)


def test_comments_of_a_ppm_go_to_formats_that_hold_one(tmp_path):
    (tmp_path / "a.ppm").write_bytes(PLAIN)
    image = read_image(tmp_path / "a.ppm")
    for name in ("b.jpg", "b.png", "b.gif"):
        assert write_image(image, tmp_path / name) == []
        assert b"from a scanner\ntwo pixels" in (tmp_path / name).read_bytes()
        write_image(read_image(tmp_path / name), tmp_path / "c.ppm")
        assert (tmp_path / "c.ppm").read_bytes().startswith(b"P6\n# from a scanner\n# two pixels\n2 1\n")
    (note,) = write_image(image, tmp_path / "b.tga")
    assert note.endswith("also holds: the comment")


def test_an_sgi_keeps_its_name(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(photo(6, 7)).save(stream, "SGI")
    data = stream.getvalue()
    (tmp_path / "a.sgi").write_bytes(data[:24] + b"a name".ljust(80, b"\0") + data[104:])
    image = read_image(tmp_path / "a.sgi")
    write_image(image, tmp_path / "b.sgi")
    written = (tmp_path / "b.sgi").read_bytes()
    assert written[24:104] == b"a name".ljust(80, b"\0")
    assert np.array_equal(read_image(tmp_path / "b.sgi").pixels, photo(6, 7))


@pytest.mark.parametrize("in_animation", [True, False])
def test_a_frame_that_is_not_the_first_image_of_a_png_is_told(tmp_path, in_animation):
    """An animation of one frame is the image itself, or another one that it hides."""
    frame = struct.pack(">IIIIIHHBB", 0, 7, 6, 0, 0, 1, 10, 0, 0)
    chunks = [chunk(b"acTL", struct.pack(">II", 1, 0)), *([chunk(b"fcTL", frame)] if in_animation else [])]
    (tmp_path / "a.png").write_bytes(png_bytes(*chunks))
    assert read_image(tmp_path / "a.png").notes == ([] if in_animation else ["only the first of 2 frames is read"])


def test_the_caption_of_a_photoshop_file_is_kept(tmp_path):
    iptc = b"\x1c\2\x78\0\x04text"
    caption = b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
    layer = b"8BIM" + struct.pack(">HHI", 1024, 0, 2) + b"\0\1"
    block = layer + caption
    head = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, 1, 2, 8, 3) + bytes(4)
    data = head + struct.pack(">I", len(block)) + block + bytes(4) + bytes(2) + bytes(range(6))
    (tmp_path / "a.psd").write_bytes(data)
    image = read_image(tmp_path / "a.psd")
    assert write_image(image, tmp_path / "b.jpg", format="jpeg") == []
    assert caption in (tmp_path / "b.jpg").read_bytes()
    assert layer not in (tmp_path / "b.jpg").read_bytes()
    assert write_image(image, tmp_path / "b.tif") == []
    with Image.open(tmp_path / "b.tif") as opened:
        assert opened.tag_v2[33723] == iptc
    (note,) = write_image(image, tmp_path / "b.gif")
    assert "the IPTC caption" in note
