"""The tags of a TIFF go from file to file byte by byte, or are told."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from restore.images import image_from_bytes, read_image, write_image
from restore.images.encode import encode
from restore.images.fit_to_format import without_metadata
from restore.images.metadata import tiff, tiff_pages
from tests.images.tiffs import build, noise, plain, tags_of

TEXTS = {
    270: "Großmutter, Łódź 1938\0".encode(),
    315: "Jürgen Höß\0".encode("latin-1"),
    33432: "© 2018 Müller\0second line\0".encode(),
    305: b"scan\0",
}
WINDOWS = {40091: "Windows title\0".encode("utf-16-le"), 40094: "a;b\0".encode("utf-16-le")}
IPTC = b"\x1c\x01\x5a\0\3\x1b%G\x1c\2\x78\0\x0fAn IPTC caption"
EXIF = {36867: (2, b"1938:05:01 12:00:00\0"), 37510: (7, b"ASCII\0\0\0hello")}
GPS = {1: (2, b"N\0"), 2: (5, [51, 30, 0])}


def rewritten(data, kind="tiff"):
    """The bytes of a file read and written again, and all notes."""
    image = image_from_bytes(data, "image.tif")
    written, notes = encode(image, kind, "image.out")
    return written, [*image.notes, *notes]


@pytest.mark.parametrize("order", ["<", ">"])
def test_texts_keep_their_bytes_whatever_their_encoding(order):
    texts = {f"t{tag}": (2, value) for tag, value in TEXTS.items()}
    texts |= {f"t{tag}": (1, value) for tag, value in WINDOWS.items()}
    data = build(plain(noise(), order, **texts) | {"below": {34665: EXIF, 34853: GPS}}, order=order)
    written, notes = rewritten(data)
    tags = tags_of(written)
    assert notes == []
    assert {tag: tags[tag] for tag in TEXTS} == {tag: (2, value) for tag, value in TEXTS.items()}
    assert {tag: tags[tag] for tag in WINDOWS} == {tag: (1, value) for tag, value in WINDOWS.items()}
    assert tags[34665][36867] == EXIF[36867]
    assert tags[34665][37510] == EXIF[37510]
    assert tags[34853][2] == (5, struct.pack("<6I", 5100, 100, 3000, 100, 0, 100))


@pytest.mark.parametrize("order", ["<", ">"])
def test_texts_go_from_jpeg_to_tiff_and_back(tmp_path, order):
    texts = {tag: (2, value) for tag, value in TEXTS.items()} | {tag: (1, value) for tag, value in WINDOWS.items()}
    block = build(texts | {"below": {34665: EXIF, 34853: GPS}}, order=order)
    stream = io.BytesIO()
    Image.fromarray(noise(16, 16)).save(stream, "JPEG", exif=b"Exif\0\0" + block)
    written, notes = rewritten(stream.getvalue())
    tags = tags_of(written)
    assert notes == []
    assert {tag: tags[tag][1] for tag in (*TEXTS, *WINDOWS)} == TEXTS | WINDOWS
    assert tags[34665][36867] == EXIF[36867]
    back = rewritten(written, "jpeg")[0]
    for value in (*TEXTS.values(), *WINDOWS.values()):
        assert value in back


def test_a_comment_in_utf_16_changes_its_byte_order_with_the_file():
    exif = {37510: (7, b"UNICODE\0" + "Łódź".encode("utf-16-be"))}
    written, _ = rewritten(build(plain(noise(), ">") | {"below": {34665: exif}}, order=">"))
    assert tags_of(written)[34665][37510] == (7, b"UNICODE\0" + "Łódź".encode("utf-16-le"))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("how", ["bytes", "longs", "swapped longs"])
def test_iptc_is_the_same_record_however_it_is_stored(order, how):
    padded = IPTC + bytes(-len(IPTC) % 4)
    value = (7, IPTC) if how == "bytes" else (4, padded)
    if how == "swapped longs":
        value = (4, np.frombuffer(padded, np.uint32).byteswap().tobytes())
    written, notes = rewritten(build(plain(noise(), order, t33723=value), order=order))
    kind, found = tags_of(written)[33723]
    assert (kind, found[: len(IPTC)], found[len(IPTC) :].strip(b"\0"), notes) == (7, IPTC, b"", [])


def test_unknown_tags_and_photoshop_s_resources_are_kept_and_thumbnails_are_not():
    caption = b"8BIM\4\4\0\0" + struct.pack(">I", len(IPTC)) + IPTC + bytes(len(IPTC) % 2)
    thumbnail = b"8BIM\4\x0c\0\0" + struct.pack(">I", 4) + b"\xff\xd8\xff\xd9"
    own = {
        "t34377": (1, thumbnail + caption),
        "t33550": (12, [0.5, 0.5, 0.0]),
        "t34735": (3, [1, 1, 0, 1, 1024, 0, 1, 1]),
        "t65000": (5, [1.5, 2.5]),
        "t318": (5, [0.31, 0.33]),
    }
    written, notes = rewritten(build(plain(noise(), ">", **own), order=">"))
    tags = tags_of(written)
    assert notes == []
    assert tags[34377] == (7, caption)
    assert tags[33550] == (12, struct.pack("<3d", 0.5, 0.5, 0))
    assert tags[34735] == (3, struct.pack("<8H", 1, 1, 0, 1, 1024, 0, 1, 1))
    assert tags[65000] == (5, struct.pack("<4I", 150, 100, 250, 100))
    assert tags[318] == (5, struct.pack("<4I", 31, 100, 33, 100))


def test_iptc_and_photoshop_s_resources_go_from_tiff_to_jpeg_and_back():
    other = b"8BIM\x04\x0a\0\0" + struct.pack(">I", 1) + b"\1\0"  # the copyright flag
    written, notes = rewritten(build(plain(noise(16, 16), t33723=(7, IPTC), t34377=(1, other))), "jpeg")
    assert notes == []
    with Image.open(io.BytesIO(written)) as opened:
        assert opened.info["photoshop"] == {0x0404: IPTC, 0x040A: b"\1"}
    back, notes = rewritten(written)
    assert notes == []
    assert tags_of(back)[33723] == (7, IPTC)
    assert tags_of(back)[34377] == (7, other)


def test_what_another_format_has_no_place_for_is_told():
    data = build(plain(noise(), t33723=(7, IPTC), t33550=(12, [1.0, 1.0, 0.0]), t65000=(3, [1])))
    _, notes = rewritten(data, "png")
    assert notes == ["PNG has no place for what the TIFF also holds: GeoTIFF, tag 65000"]
    _, notes = rewritten(data, "jpeg")
    assert notes == ["JPEG has no place for what the TIFF also holds: GeoTIFF, tag 65000"]


def test_stripping_leaves_what_says_how_colors_are_meant(tmp_path):
    image = image_from_bytes(build(plain(noise(), t33723=(7, IPTC), t318=(5, [0.31, 0.33]), t315=(2, b"A\0"))), "x.tif")
    write_image(image, tmp_path / "x.tif", metadata="strip")
    tags = tags_of((tmp_path / "x.tif").read_bytes())
    assert 318 in tags
    assert not {33723, 315} & set(tags)


def test_places_on_a_map_are_told_when_the_image_is_turned():
    data = build(plain(noise(), t274=(3, [6]), t33550=(12, [1.0, 1.0, 0.0]), t65000=(3, [1])))
    written, notes = rewritten(data)
    assert notes == ["GeoTIFF tags are left out, because the image was turned"]
    assert 33550 not in tags_of(written)
    assert 65000 in tags_of(written)


def test_layers_and_images_below_the_first_are_told():
    layers = b"Adobe Photoshop Document Data Block\0MIB8ryaL\4\0\0\0abcd"
    data = build(plain(noise(), t37724=(7, layers)) | {"below": {330: plain(noise(3, 4), t254=(4, [1]))}})
    written, notes = rewritten(data)
    assert notes == [
        "Photoshop's layers are left out: the flattened image is read",
        "the images below the first one (SubIFDs) are left out",
    ]
    assert not {37724, 330} & set(tags_of(written))


def test_tags_of_a_big_tiff_are_read(tmp_path):
    (tmp_path / "big.tif").write_bytes(build(plain(noise(), t270=(2, TEXTS[270]), t33723=(7, IPTC)), big=True))
    image = read_image(tmp_path / "big.tif")
    tags = tags_of(encode(image, "tiff", "x")[0])
    assert (tags[270], tags[33723]) == ((2, TEXTS[270]), (7, IPTC))
    assert np.array_equal(image.pixels, noise())


def test_tags_are_added_to_a_big_tiff():
    source = image_from_bytes(build(plain(noise(), t270=(2, TEXTS[270]), t65000=(3, [7]))), "x.tif")
    file = io.BytesIO(build(plain(noise()), big=True))
    tiff.add_tags(file, exif=source.exif, passthrough=source.passthrough, dpi=None)
    again = image_from_bytes(file.getvalue(), "x.tif")
    assert np.array_equal(again.pixels, noise())
    tags = tags_of(encode(again, "tiff", "x")[0])
    assert (tags[270], tags[65000]) == ((2, TEXTS[270]), (3, b"\7\0"))


def test_hostile_directories_fill_no_memory():
    import tracemalloc

    # 60,000 entries whose value is the whole file.
    entries = b"".join(struct.pack("<HHII", 1000 + i, 1, 700_000, 8) for i in range(60_000))
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", 60_000) + entries + bytes(4)
    tracemalloc.start()
    header = tiff.read_header(data, 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(header.tags) == 1
    assert peak < 10_000_000


# Directories


def test_a_smaller_copy_before_the_image_is_not_the_image():
    pixels = noise(24, 32)
    small = plain(pixels[::4, ::4], t254=(4, [1]), t270=(2, b"from the first\0"), t33723=(7, IPTC))
    image = image_from_bytes(build(small, plain(pixels)), "x.tif", all_pages=True)
    assert np.array_equal(image.pixels, pixels)
    assert image.extra_pages == ()
    assert image.notes == ["the smaller copies of the image in the file are left out"]
    tags = tags_of(encode(image, "tiff", "x")[0])
    assert (tags[270], tags[33723]) == ((2, b"from the first\0"), (7, IPTC))


def test_an_image_below_its_smaller_copy_is_found():
    pixels = noise(24, 32)
    small = plain(pixels[::4, ::4], t254=(4, [1]), t315=(2, TEXTS[315])) | {
        "below": {330: plain(pixels, t254=(4, [0]))}
    }
    image = image_from_bytes(build(small), "x.tif")
    assert np.array_equal(image.pixels, pixels)
    assert tags_of(encode(image, "tiff", "x")[0])[315] == (2, TEXTS[315])


def test_a_file_of_smaller_copies_alone_has_an_image():
    pixels = noise(24, 32)
    image = image_from_bytes(build(plain(pixels, t254=(4, [1])), plain(pixels[::2, ::2])), "x.tif", all_pages=True)
    assert np.array_equal(image.pixels, pixels)


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_infrared_channel_without_an_orientation_turns_with_its_page(orientation):
    pixels, infrared = noise(), noise(channels=1, seed=2)
    pages = plain(pixels, t274=(3, [orientation])), plain(infrared, t254=(4, [4]))
    image = image_from_bytes(build(*pages), "x.tif", all_pages=True)
    turns = {3: 2, 6: -1}[orientation]
    assert np.array_equal(image.pixels, np.rot90(pixels, turns))
    assert np.array_equal(image.infrared.pixels, np.rot90(infrared, turns))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_infrared_channel_of_a_scanner_is_kept(dtype):
    pixels, infrared = noise(dtype=np.uint16), noise(channels=1, dtype=dtype, seed=2)
    data = build(plain(pixels, t274=(3, [6])), plain(infrared, t254=(4, [4]), t274=(3, [6])))
    image = image_from_bytes(data, "x.tif", all_pages=True)
    assert image.notes == []
    assert np.array_equal(image.infrared.pixels[:, :, 0], np.rot90(infrared[:, :, 0], -1))
    written, notes = encode(image, "tiff", "x")
    assert notes == []
    again = image_from_bytes(written, "x.tif", all_pages=True)
    assert np.array_equal(again.infrared.pixels, image.infrared.pixels)
    assert np.array_equal(again.pixels, np.rot90(pixels, -1))
    with Image.open(io.BytesIO(written)) as opened:
        opened.seek(1)
        assert opened.tag_v2[254] == 4
    assert encode(image, "png", "x")[1] == ["the infrared channel is left out"]


def test_the_tags_of_an_infrared_page_are_kept():
    own = {"t270": (2, b"infrared\0"), "t65000": (3, [7]), "t282": (5, [1200]), "t283": (5, [1200]), "t296": (3, [2])}
    mask = plain(noise(channels=1, seed=2), t254=(4, [4]), **own)
    image = image_from_bytes(build(plain(noise(), t270=(2, b"scan\0")), mask), "x.tif", all_pages=True)
    written, notes = encode(image, "tiff", "x")
    assert notes == []
    with Image.open(io.BytesIO(written)) as opened:
        assert opened.tag_v2[270] == "scan"
        opened.seek(1)
        tags = opened.tag_v2
        assert (tags[254], tags[270], tags[65000], tags[282], tags[296]) == (4, "infrared", 7, 1200, 2)
    stripped = without_metadata(image)
    assert b"infrared\0" not in encode(stripped, "tiff", "x")[0]


def test_geotiff_tags_of_an_image_of_another_size_are_told():
    places = {"t33550": (12, [1.0, 1.0, 0.0]), "t34735": (3, [1, 1, 0, 0])}
    image = image_from_bytes(build(plain(noise(), **places)), "x.tif")
    assert tags_of(encode(image, "tiff", "x")[0])[33550][1] == struct.pack("<3d", 1, 1, 0)
    larger = image.blend(np.zeros((24, 32, 3), np.float32))
    assert larger.notes == ["GeoTIFF tags are left out, because the image has another size"]
    assert image.notes == []
    assert not {33550, 34735} & tags_of(encode(larger, "tiff", "x")[0]).keys()


def test_a_mask_of_one_bit_is_told():
    mask = plain(noise(12, 2, 1), t254=(4, [4]), t256=(3, [16]), t258=(3, [1]), t262=(3, [4]))
    image = image_from_bytes(build(plain(noise()), mask), "x.tif", all_pages=True)
    assert image.notes == ["a mask among the pages is left out"]
    assert image.infrared is None


@pytest.mark.parametrize("order", ["<", ">"])
def test_sizes_of_64_bits_are_read_in_either_byte_order(order):
    """The larger of two pages is the image, the other a smaller copy; both state their sizes as LONG8."""
    pixels = noise(24, 32)
    small = plain(pixels[::4, ::4], order, t254=(4, [1]), t256=(16, [8]), t257=(16, [6]))
    data = build(small, plain(pixels, order, t254=(4, [0]), t256=(16, [32]), t257=(16, [24])), order=order, big=True)
    found = tiff_pages.find_pages(data)
    assert (len(found.pages), found.reduced) == (1, 1)
    assert found.pages != [found.first]
    only = build(plain(pixels, order, t254=(4, [1]), t256=(16, [32]), t257=(16, [24])), small, order=order, big=True)
    assert tiff_pages.find_pages(only).pages == [tiff_pages.find_pages(only).first]


def test_a_big_tiff_whose_list_of_pages_leads_nowhere_has_one_page():
    data = bytearray(build(plain(noise()), big=True))
    (at,) = struct.unpack_from("<Q", data, 8)
    (count,) = struct.unpack_from("<Q", data, at)
    for place in (1 << 63, (1 << 64) - 1, len(data)):
        struct.pack_into("<Q", data, at + 8 + 20 * count, place)
        assert tiff_pages.find_pages(data).pages == [at]
        assert tiff_pages.missing_pages(data, 1) == [
            "the list of pages is broken after page 1: any further pages are lost"
        ]
    struct.pack_into("<Q", data, at, (1 << 63) + 1)  # the number of its tags
    assert tiff_pages.find_pages(data).pages == [at]
    assert len(tiff_pages.missing_pages(data, 1)) == 1
    tiff_pages.isolate_page(data, at)
