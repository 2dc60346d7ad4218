"""What `write_image` puts into files, read back with Pillow; and that it leaves nothing half done."""

import io
import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import pyvips
from PIL import ExifTags, Image

from restore.errors import RestoreError
from restore.images import DecodedImage, read_image, write_bytes, write_image, write_png
from restore.images.encode import DEFAULT_QUALITY, encode
from restore.images.metadata import heif, vp8
from restore.images.metadata.exif import orientation_of, upright_exif
from restore.images.read import image_from_bytes
from tests.images.profiles import ADOBE_RGB, matrix_profile

RNG = np.random.default_rng(2)
RGB = RNG.integers(0, 256, (24, 40, 3), np.uint8)
ICC = matrix_profile(*ADOBE_RGB)
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" tiff:Make="X"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def exif(orientation=6):
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010F] = "Maker"
    block[0x8298] = "Somebody"
    block.get_ifd(ExifTags.IFD.Exif)[0x9003] = "2001:02:03 04:05:06"
    block.get_ifd(ExifTags.IFD.Exif)[0xA002] = 40
    block.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    return block


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_metadata_is_kept(tmp_path, suffix):
    source, out = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    xmp = {} if suffix == "png" else {"xmp": XMP}
    Image.fromarray(RGB).save(source, exif=exif(), icc_profile=ICC, **xmp)
    write_image(read_image(source), out)
    with Image.open(out) as image:
        image.load()
        assert image.info["icc_profile"] == ICC
        assert_tags(image.getexif())
        assert image.getexif().get_ifd(ExifTags.IFD.Exif)[0xA002] == 24  # the width, now that it is upright
        if xmp:
            assert b'tiff:Orientation="1"' in image.info["xmp"]
            assert b'tiff:Make="X"' in image.info["xmp"]


def assert_tags(kept):
    assert kept[0x010F] == "Maker"
    assert kept[0x8298] == "Somebody"
    assert kept.get(0x0112, 1) == 1
    assert kept.get_ifd(ExifTags.IFD.Exif)[0x9003] == "2001:02:03 04:05:06"
    assert kept.get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"


def test_metadata_of_a_tiff_is_kept(tmp_path):
    tags = {271: "Maker", 33432: "Somebody", 274: 6, 700: XMP, 33723: b"caption"}
    Image.fromarray(RGB).save(tmp_path / "a.tif", tiffinfo=tags, icc_profile=ICC)
    write_image(read_image(tmp_path / "a.tif"), tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as image:
        image.load()
        assert image.size == (24, 40)
        assert image.info["icc_profile"] == ICC
        found = image.tag_v2
        assert (found[271], found[33432], found.get(274, 1), found[33723]) == ("Maker", "Somebody", 1, b"caption")
        assert b'tiff:Orientation="1"' in found[700]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_metadata_goes_from_format_to_format(tmp_path, suffix):
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif(), icc_profile=ICC, xmp=XMP, dpi=(300, 300))
    first, second = tmp_path / f"b.{suffix}", tmp_path / f"c.{suffix}"
    write_image(read_image(tmp_path / "a.jpg"), first)
    write_image(read_image(first), second)
    for path in (first, second):
        with Image.open(path) as image:
            assert_tags(image.getexif())
            assert image.info["icc_profile"] == ICC
            if suffix in ("jpg", "png", "tif"):
                assert [round(float(value)) for value in image.info["dpi"]] == [300, 300]
        again = read_image(path)
        assert again.size == (40, 24)
        assert again.xmp is not None
        assert b'tiff:Orientation="1"' in again.xmp


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_stripping_keeps_the_profile_alone(tmp_path, suffix):
    Image.fromarray(RGB).save(tmp_path / f"a.{suffix}", exif=exif(1), icc_profile=ICC)
    write_image(read_image(tmp_path / f"a.{suffix}"), tmp_path / f"b.{suffix}", metadata="strip")
    with Image.open(tmp_path / f"b.{suffix}") as image:
        assert image.info["icc_profile"] == ICC
        assert 0x010F not in image.getexif()
        assert b"Maker" not in (tmp_path / f"b.{suffix}").read_bytes()


def test_the_old_thumbnail_goes():
    block = exif(3)
    block.get_ifd(ExifTags.IFD.IFD1)[0x0103] = 6
    before = block.tobytes()
    after = Image.Exif()
    after.load(upright_exif(before, (24, 40)))
    assert len(upright_exif(before, (24, 40))) == len(before)
    assert not after.get_ifd(ExifTags.IFD.IFD1)


@pytest.mark.parametrize(
    "broken", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"\0" * 40]
)
def test_broken_exif_is_carried_and_not_trusted(tmp_path, broken):
    assert orientation_of(broken) == 1
    assert upright_exif(broken, (1, 1)) == broken
    for suffix in ("jpg", "png", "webp", "tif", "avif"):
        write_image(DecodedImage(RGB, exif=broken), tmp_path / f"a.{suffix}")
        assert read_image(tmp_path / f"a.{suffix}").size == (24, 40)


@pytest.mark.parametrize("quality", [30, 75, 92, 98])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_a_jpeg_is_compressed_like_its_source(tmp_path, quality, subsampling):
    Image.fromarray(RGB).save(tmp_path / "a.jpg", quality=quality, subsampling=subsampling)
    picture = read_image(tmp_path / "a.jpg")
    assert picture.jpeg is not None
    assert (picture.jpeg.quality, picture.jpeg.subsampling) == (quality, subsampling)
    write_image(picture, tmp_path / "b.jpg")
    with Image.open(tmp_path / "a.jpg") as a, Image.open(tmp_path / "b.jpg") as b:
        assert a.quantization == b.quantization
    assert read_image(tmp_path / "b.jpg").jpeg == picture.jpeg


@pytest.mark.parametrize("bits", [8, 10])
def test_an_avif_loses_no_more_than_its_source_has_lost(tmp_path, bits):
    """The quantizer lies in the header of the bitstream. Quality 90 is the least."""
    noise = np.random.default_rng(0).integers(0, 1 << bits, (64, 64, 3)).astype(np.uint8 if bits == 8 else np.uint16)
    image = pyvips.Image.new_from_array(noise << (0 if bits == 8 else 6))
    seen = []
    for quality in (50, 90, 95, 98):
        (tmp_path / "a.avif").write_bytes(
            image.heifsave_buffer(compression="av1", Q=quality, bitdepth=bits, subsample_mode="off", effort=0)
        )
        source = read_image(tmp_path / "a.avif")
        write_image(source, tmp_path / "b.avif")
        written = read_image(tmp_path / "b.avif")
        seen.append(source.quantizer)
        assert written.quantizer == (source.quantizer if quality > 50 else encoded_quantizer(image, DEFAULT_QUALITY))
    assert seen[0] > seen[1] > seen[2] > seen[3] > 0
    write_image(source, tmp_path / "c.avif", quality=60)
    assert read_image(tmp_path / "c.avif").quantizer == encoded_quantizer(image, 60)


def test_a_webp_loses_no_more_than_its_source_has_lost(tmp_path):
    """Quality 90 is the least; another format has its own quantizers."""
    y, x = np.mgrid[:64, :96]
    noise = np.random.default_rng(0).normal(0, 12, (64, 96, 3))
    scene = (np.stack([x * 2, y * 3, x + y], -1) + 20 + noise).clip(0, 255).astype(np.uint8)
    for quality, wanted in ((60, 90), (90, 90), (96, 96), (100, 100)):
        Image.fromarray(scene).save(tmp_path / "a.webp", quality=quality)
        source = read_image(tmp_path / "a.webp")
        write_image(source, tmp_path / "b.webp")
        Image.fromarray(source.pixels).save(tmp_path / "c.webp", quality=wanted)
        assert (tmp_path / "b.webp").read_bytes() == (tmp_path / "c.webp").read_bytes()
    write_image(source, tmp_path / "c.avif")
    assert read_image(tmp_path / "c.avif").quantizer == encoded_quantizer(pyvips.Image.black(16, 16), DEFAULT_QUALITY)


def test_half_a_webp_has_no_quantizer():
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, "WEBP", quality=80)
    body = stream.getvalue()[20:]
    assert vp8.quantizer(body) is not None
    assert [vp8.quantizer(body[:size]) for size in range(20)] == [None] * 20


def encoded_quantizer(image, quality):
    data = image.heifsave_buffer(compression="av1", Q=quality, effort=0)
    return heif.read_header(bytes(data)).quantizer


def test_quality_can_be_chosen(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.jpg", quality=95)
    write_image(read_image(tmp_path / "a.jpg"), tmp_path / "b.jpg", quality=40)
    assert read_image(tmp_path / "b.jpg").jpeg.quality == 40


def test_progressive_rgb_gray_and_captions_stay(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.jpg", progressive=True, comment=b"a remark", keep_rgb=True)
    write_image(read_image(tmp_path / "a.jpg"), tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.info["progressive"]
        assert image.info["comment"] == b"a remark"
        assert [layer[0] for layer in image.layer] == [82, 71, 66]
    Image.fromarray(RGB[:, :, 0]).save(tmp_path / "g.jpg")
    write_image(read_image(tmp_path / "g.jpg"), tmp_path / "h.jpg")
    assert Image.open(tmp_path / "h.jpg").mode == "L"


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_and_alpha_survive_the_file(tmp_path, suffix, channels):
    values = RNG.integers(0, 65536, (30, 20, channels)).astype(np.uint16)
    alpha = RNG.integers(0, 65536, (30, 20)).astype(np.uint16)
    picture = DecodedImage(values, alpha, 65535.0, bits=16, icc=ICC if channels == 3 else None)
    write_image(picture, tmp_path / f"a.{suffix}")
    image = pyvips.Image.new_from_file(str(tmp_path / f"a.{suffix}"))
    assert image.format == "ushort"
    assert image.bands == channels + 1
    assert np.array_equal(image.numpy()[:, :, :channels], values)
    assert np.array_equal(image.numpy()[:, :, channels], alpha)


def test_png_chunks_that_say_how_colours_are_meant_are_carried(tmp_path):
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", (100000).to_bytes(4, "big"))
    info.add_text("Title", "A picture")
    Image.fromarray(RGB).save(tmp_path / "a.png", pnginfo=info, dpi=(300, 300))
    write_image(read_image(tmp_path / "a.png"), tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert image.info["gamma"] == 1.0
        assert image.text["Title"] == "A picture"
        assert round(image.info["dpi"][0]) == 300
        assert np.array_equal(np.asarray(image), RGB)


def test_what_a_format_cannot_hold_is_told(tmp_path):
    deep = DecodedImage(RGB.astype(np.uint16) * 257, RGB[:, :, 0].astype(np.uint16) * 257, 65535.0, bits=16)
    notes = write_image(deep, tmp_path / "a.jpg", quality=95)
    assert any("16 bits" in note for note in notes)
    assert any("transparent" in note for note in notes)
    assert write_image(deep, tmp_path / "a.png") == []


@pytest.mark.parametrize("suffix", ["bmp", "tga", "pcx", "ppm", "sgi", "webp"])
def test_lossless_formats_give_back_what_they_got(tmp_path, suffix):
    write_image(DecodedImage(RGB), tmp_path / f"a.{suffix}")
    with Image.open(tmp_path / f"a.{suffix}") as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), RGB)


def test_unknown_formats_fail_with_advice(tmp_path):
    with pytest.raises(RestoreError, match="PNG or TIFF"):
        write_image(replace(DecodedImage(RGB), format="xyz"), tmp_path / "a.xyz")
    assert os.listdir(tmp_path) == []


def test_save_png_is_plain_and_always_the_same(tmp_path):
    for array in (
        RGB,
        RGB[:, :, 0],
        RGB[:, :, :1],
        RGB.astype(np.uint16) * 257,
        np.dstack([RGB, RGB[:, :, 0]]),
    ):
        write_png(tmp_path / "a.png", array)
        write_png(tmp_path / "b.png", array.copy())
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
        back = pyvips.Image.new_from_file(str(tmp_path / "a.png")).numpy()
        assert np.array_equal(back, array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    target = tmp_path / "a.png"
    write_image(DecodedImage(RGB), target)
    before = target.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RestoreError, match="disk is full") as caught:
        write_image(DecodedImage(255 - RGB), target)
    assert caught.value.exit_code == 1
    assert target.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.png"]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a.png", b"x")
    assert os.listdir(tmp_path) == []


def test_places_that_cannot_be_written_to(tmp_path):
    (tmp_path / "folder.png").mkdir()
    for path, reason in (
        (tmp_path / "missing" / "a.png", "no such folder"),
        (tmp_path / "folder.png", "folder"),
        (tmp_path / ("x" * 300 + ".png"), "too long"),
    ):
        with pytest.raises(RestoreError, match=reason):
            write_image(DecodedImage(RGB), path)
    assert os.listdir(tmp_path) == ["folder.png"]


def test_a_new_file_has_the_rights_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_image(DecodedImage(RGB), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_threads_do_not_get_in_each_others_way(tmp_path):
    def work(number):
        values = np.full((64, 64, 3), number, np.uint8)
        for turn in range(5):
            write_image(DecodedImage(values), tmp_path / f"{number}.{('png', 'tif', 'webp')[turn % 3]}")
            found.append(
                bool((read_image(tmp_path / f"{number}.{('png', 'tif', 'webp')[turn % 3]}").pixels == number).all())
            )

    found: list[bool] = []
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 40


@pytest.mark.parametrize("opaque", [True, False])
def test_only_transparent_pixels_are_blended(tmp_path, opaque):
    alpha = np.full((24, 40), 65535, np.uint16)
    alpha[0, 0] = 65535 if opaque else 0
    image = DecodedImage(RGB.astype(np.uint16) * 257, alpha, white=65535.0, bits=16)
    notes = write_image(image, tmp_path / "x.ppm")
    assert notes == ([] if opaque else ["transparent pixels are blended with white"])
    assert np.array_equal(read_image(tmp_path / "x.ppm").pixels[1:], image.pixels[1:])


@pytest.mark.parametrize("kind", ["tiff", "png", "avif"])
def test_integers_of_32_bits_that_are_read_as_16_are_written(kind):
    values = np.random.default_rng(0).integers(0, 65536, (6, 9, 3)).astype(np.uint16)
    data, notes = encode(DecodedImage(values, white=65535.0, bits=32, format="tiff"), kind, "x")
    assert notes == (["32 bits rounded to 12"] if kind == "avif" else [])
    again = image_from_bytes(data, f"x.{kind}")
    assert again.pixels.dtype == np.uint16
    if kind != "avif":
        assert np.array_equal(again.pixels, values)


def test_an_avif_holds_only_exif_in_its_block():
    """Readers refuse the whole file if something is before it."""
    block = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0\0\0\0\0"
    pixels = np.zeros((8, 8, 3), np.uint8)
    for before in (b"", b"odd\0\0\0"):
        data, notes = encode(DecodedImage(pixels, format="png", exif=before + block), "avif", "x")
        assert notes == []
        assert bytes(4) + block in data
        with Image.open(io.BytesIO(data)) as again:
            assert again.size == (8, 8)
            assert again.getexif()[0x0112] == 1
    data, notes = encode(DecodedImage(pixels, format="png", exif=b"Exif\0\0" + block[:7]), "avif", "x")
    assert notes == ["the EXIF block is broken and is left out"]
    with Image.open(io.BytesIO(data)) as again:
        assert not again.getexif()
