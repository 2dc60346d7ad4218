"""Colors stated without a profile: PNG's gAMA, cHRM and cICP, the code points of AVIF and HEIC."""

import io
import struct

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms, PngImagePlugin, features

from restore.images import read_image, write_image
from restore.images.color import open_profile
from restore.images.metadata import av1, heif, png
from restore.images.stated_colors import StatedColors, colors_of_heif, colors_of_png
from tests.images.profiles import ADOBE_RGB, matrix_profile

LINEAR = np.tile(np.array([34, 50, 46], np.uint8), (16, 16, 1))
RAMP = np.stack(np.broadcast_arrays(np.arange(32)[:, None] * 8, np.arange(48) * 5, 90), -1).astype(np.uint8)
P3_CHUNK = {b"cICP": bytes([12, 13, 0, 1])}
#: Red, green and blue of Display P3 in sRGB's linear light.
P3_TO_SRGB = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])

WIDE = matrix_profile(*ADOBE_RGB)

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="Pillow lacks AVIF")


def save_png(path, values, chunks, **options):
    info = PngImagePlugin.PngInfo()
    for kind, body in chunks.items():
        info.add(kind, body)
    Image.fromarray(values).save(path, pnginfo=info, **options)
    return path


def gamma(exponent):
    return {b"gAMA": struct.pack(">I", round(exponent * 100_000))}


def chromaticities(*values):
    return {b"cHRM": struct.pack(">8I", *(round(value * 100_000) for value in values))}


def save_avif(path, values, code_points, **options):
    """An AVIF by libavif, its code points of sRGB overwritten."""
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "AVIF", quality=95, subsampling="4:4:4", **options)
    data = stream.getvalue()
    assert data.count(b"nclx\0\1\0\x0d") == 1
    path.write_bytes(data.replace(b"nclx\0\1\0\x0d", b"nclx" + struct.pack(">2H", *code_points)))
    return path


def linear(srgb):
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("suffix", ["jpg", "tif", "webp", "avif", "bmp"])
def test_linear_light_becomes_srgb_in_another_format(tmp_path, suffix):
    source = read_image(save_png(tmp_path / "a.png", LINEAR, gamma(1)))
    np.testing.assert_allclose(source.to_srgb()[0, 0] * 255, [102.4, 122.3, 117.9], atol=0.3)
    assert any("sRGB" in note for note in write_image(source, tmp_path / f"b.{suffix}"))
    with Image.open(tmp_path / f"b.{suffix}") as image:
        assert image.info.get("icc_profile") is None
        np.testing.assert_allclose(np.asarray(image)[8, 8], [102, 122, 118], atol=2 if suffix in ("jpg", "avif") else 0)


def test_gray_keeps_one_channel(tmp_path):
    source = read_image(save_png(tmp_path / "a.png", LINEAR[:, :, 0], gamma(1)))
    write_image(source, tmp_path / "b.tif")
    out = read_image(tmp_path / "b.tif")
    assert out.gray
    assert out.pixels[0, 0, 0] == 102


def test_a_png_keeps_its_chunks_and_gets_no_profile(tmp_path):
    for i, chunks in enumerate(
        (gamma(1), gamma(0.5) | chromaticities(0.3457, 0.3585, 0.7, 0.3, 0.2, 0.7, 0.1, 0.1), P3_CHUNK)
    ):
        source = save_png(tmp_path / f"{i}.png", RAMP, chunks)
        out = tmp_path / f"{i}_out.png"
        assert write_image(read_image(source), out) == []
        assert png.stated_colors(png.read_header(out.read_bytes()).passthrough) == png.stated_colors(
            png.read_header(source.read_bytes()).passthrough
        )
        assert b"iCCP" not in out.read_bytes()
        np.testing.assert_array_equal(np.asarray(Image.open(out)), RAMP)


@pytest.mark.parametrize("suffix", ["tif", "webp", "jpg"])
def test_display_p3_is_embedded_as_a_profile_of_that_meaning(tmp_path, suffix):
    source = read_image(save_png(tmp_path / "a.png", RAMP, P3_CHUNK))
    assert write_image(source, tmp_path / f"b.{suffix}") == []
    with Image.open(tmp_path / f"b.{suffix}") as image:
        icc = image.info["icc_profile"]
        if suffix != "jpg":
            np.testing.assert_array_equal(np.asarray(image), RAMP)
    by_littlecms = ImageCms.profileToProfile(
        Image.fromarray(RAMP), io.BytesIO(icc), ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
    )
    light = np.clip(linear(RAMP / 255) @ P3_TO_SRGB.T, 0, 1)
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(np.asarray(by_littlecms) - expected).max() <= 2
    assert np.abs(source.to_srgb() * 255 - expected).max() <= 1


@pytest.mark.parametrize(
    "chunks",
    [
        {},
        gamma(0.45455),
        gamma(0.45455) | chromaticities(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06),
        {b"sRGB": b"\0"} | gamma(1),
        {b"cICP": bytes([1, 13, 0, 1])} | gamma(1),
    ],
)
def test_what_means_srgb_stays_srgb(tmp_path, chunks):
    image = read_image(save_png(tmp_path / "a.png", RAMP, chunks))
    assert image.icc is None
    assert image.stated_colors is None
    assert image.notes == []


@pytest.mark.parametrize(
    ("chunks", "word"),
    [
        (gamma(0), "gAMA"),
        (chromaticities(0.3127, 0, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06), "cHRM"),
        (chromaticities(0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3), "cHRM"),
        ({b"cICP": bytes([12, 13, 6, 0])}, "cICP"),
        ({b"cICP": bytes([200, 13, 0, 1])}, "200/13"),
    ],
)
def test_a_statement_that_is_not_understood_is_told(tmp_path, chunks, word):
    image = read_image(save_png(tmp_path / "a.png", RAMP, chunks))
    assert image.icc is None
    assert [word in note for note in image.notes] == [True]


def test_a_profile_of_a_png_goes_before_gamma_and_stays_beside_code_points(tmp_path):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = read_image(save_png(tmp_path / "a.png", RAMP, gamma(1) | P3_CHUNK, icc_profile=icc))
    assert source.icc == icc
    write_image(source, tmp_path / "b.png")
    data = (tmp_path / "b.png").read_bytes()
    assert b"iCCP" in data
    assert b"cICP" in data


@pytest.mark.parametrize("transfer", [1, 4, 5, 6, 7, 8, 11, 14, 15, 16, 17, 18])
@pytest.mark.parametrize("gray", [False, True])
def test_profiles_are_read_by_littlecms_as_here(transfer, gray):
    notes = []
    icc, stated = colors_of_heif(heif.HeifHeader((9, transfer)), gray=gray, notes=notes)
    assert stated.code_points == (9, transfer)
    assert bool(notes) == bool(stated.hdr) == (transfer in (16, 18))
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(levels) if gray else Image.merge("RGB", [Image.fromarray(levels)] * 3)
    shown = ImageCms.profileToProfile(
        image, io.BytesIO(icc), ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB"
    )
    own = open_profile(icc, 1 if gray else 3).to_srgb(np.asarray(image, np.float32).reshape(256, -1) / 255)
    difference = np.abs(np.asarray(shown).reshape(256, 3) - own * 255)
    # LittleCMS has few steps for the darkest grays of 8 bits.
    assert difference[64 if gray else 0 :].max() <= 2.5


def test_curves_have_the_values_of_their_standards():
    def shown(code_points, value):
        icc, _ = colors_of_heif(heif.HeifHeader(code_points), gray=True, notes=[])
        return linear(open_profile(icc, 1).to_srgb(np.array([[value]], np.float32)))[0, 0]

    assert shown((1, 8), 0.2) == pytest.approx(0.2, abs=1e-3)
    assert shown((1, 4), 0.5) == pytest.approx(0.5**2.2, abs=1e-3)
    assert shown((1, 1), 0.5) == pytest.approx(((0.5 + 0.099) / 1.099) ** (1 / 0.45), abs=1e-3)
    # ITU-R BT.2408, table 1: 50 % of an HLG signal is 50 cd/m², 38 % of PQ is 26 cd/m² (18 % gray); white is 203.
    assert 203 * shown((9, 18), 0.5) == pytest.approx(50, abs=1)
    assert 203 * shown((9, 16), 0.38) == pytest.approx(26, abs=1)


@needs_avif
@pytest.mark.parametrize("code_points", [(12, 13), (9, 16), (9, 18), (1, 8)])
def test_an_avif_keeps_its_code_points(tmp_path, code_points):
    source = read_image(save_avif(tmp_path / "a.avif", RAMP, code_points))
    assert source.stated_colors.code_points == code_points
    assert bool(source.notes) == (code_points[1] in (16, 18))
    write_image(source, tmp_path / "b.avif")
    data = (tmp_path / "b.avif").read_bytes()
    assert b"nclx" + struct.pack(">2H", *code_points) in data
    assert heif.read_header(data).code_points == code_points
    with Image.open(tmp_path / "b.avif") as image:
        assert image.info.get("icc_profile") is None
        assert np.abs(np.asarray(image).astype(int) - source.pixels).mean() < 3
    assert np.array_equal(
        pyvips.Image.new_from_file(str(tmp_path / "b.avif")).numpy(), read_image(tmp_path / "b.avif").pixels
    )


@needs_avif
def test_hdr_goes_to_a_png_with_its_code_points_and_to_a_jpeg_as_srgb(tmp_path):
    source = read_image(save_avif(tmp_path / "a.avif", RAMP, (9, 16)))
    assert write_image(source, tmp_path / "b.png") == []
    out = read_image(tmp_path / "b.png")
    np.testing.assert_array_equal(out.pixels, source.pixels)
    assert b"cICP\x09\x10\0\1" in (tmp_path / "b.png").read_bytes()
    assert write_image(source, tmp_path / "b.jpg", quality=100) == ["colors converted to sRGB, highlights compressed"]
    assert np.abs(read_image(tmp_path / "b.jpg").to_srgb() - source.to_srgb()).mean() < 0.02


@needs_avif
def test_known_pixels_of_an_hdr_image_survive_a_repair(tmp_path):
    source = read_image(save_avif(tmp_path / "a.avif", RAMP, (9, 16)))
    mask = np.zeros(source.size, np.float32)
    mask[4:8, 4:8] = 1
    out = source.blend(np.full((*source.size, 3), 0.5, np.float32), mask)
    np.testing.assert_array_equal(out.pixels[mask == 0], source.pixels[mask == 0])
    np.testing.assert_allclose(out.to_srgb()[5, 5], 0.5, atol=0.01)


@needs_avif
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_a_lossless_avif_stays_lossless(tmp_path, bits):
    values = np.random.default_rng(0).integers(0, 1 << bits, (16, 24, 3))
    values = values.astype(np.uint8) if bits == 8 else (values << (16 - bits)).astype(np.uint16)
    image = pyvips.Image.new_from_array(values).copy(interpretation="srgb" if bits == 8 else "rgb16")
    image.heifsave(str(tmp_path / "a.avif"), compression="av1", lossless=True, bitdepth=bits)
    for name in ("b", "c"):
        previous = "a" if name == "b" else "b"
        assert write_image(read_image(tmp_path / f"{previous}.avif"), tmp_path / f"{name}.avif") == []
    np.testing.assert_array_equal(pyvips.Image.new_from_file(str(tmp_path / "c.avif")).numpy(), values)


@needs_avif
@pytest.mark.parametrize("size", [(16, 16), (96, 64), (700, 300), (257, 2050)])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:0:0"])
def test_an_avif_without_quantization_is_known_by_its_frame_header(size, subsampling):
    """Also where the matrix is not that of RGB, as in gray. The large ones have several tiles."""
    image = Image.new("L" if subsampling == "4:0:0" else "RGB", size, 90)
    for quality in (100, 95, 50):
        stream = io.BytesIO()
        image.save(stream, "AVIF", quality=quality, subsampling=subsampling, speed=9)
        assert heif.read_header(stream.getvalue()).lossless == (quality == 100)


@needs_avif
def test_a_lossless_gray_avif_stays_lossless(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (16, 24), np.uint8)
    Image.fromarray(values).save(tmp_path / "a.avif", quality=100, subsampling="4:0:0")
    write_image(read_image(tmp_path / "a.avif"), tmp_path / "b.avif")
    with Image.open(tmp_path / "b.avif") as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), values[:, :, None].repeat(3, axis=2))


@needs_avif
@pytest.mark.parametrize("told", [True, False])
def test_gray_avif_of_limited_range(tmp_path, told):
    ramp = np.repeat(np.arange(0, 256, 5, dtype=np.uint8)[None], 16, axis=0)
    stream = io.BytesIO()
    Image.fromarray(ramp).save(stream, "AVIF", range="limited", subsampling="4:0:0", quality=100)
    data = stream.getvalue()
    if not told:  # the range is then that of the bitstream
        data = data.replace(b"colrnclx", b"freenclx")
    (tmp_path / "a.avif").write_bytes(data)
    pixels = read_image(tmp_path / "a.avif").pixels.astype(int)
    assert np.abs(pixels - ramp[:, :, None]).max() <= 2


def test_the_code_points_of_a_png_reach_an_avif(tmp_path):
    write_image(read_image(save_png(tmp_path / "a.png", RAMP, P3_CHUNK)), tmp_path / "b.avif")
    assert heif.read_header((tmp_path / "b.avif").read_bytes()).code_points == (12, 13)


def test_heic_keeps_its_code_points(tmp_path):
    pytest.importorskip("pillow_heif")
    write_image(read_image(save_png(tmp_path / "a.png", RAMP, P3_CHUNK)), tmp_path / "b.heic", format="heic")
    source = read_image(tmp_path / "b.heic")
    assert source.stated_colors == StatedColors((12, 13), "", beyond_srgb=True)
    write_image(source, tmp_path / "c.heic")
    assert heif.read_header((tmp_path / "c.heic").read_bytes()).code_points == (12, 13)


@pytest.mark.parametrize("size", [0, 20, 60, 200, 290])
def test_half_an_avif_states_nothing(size):
    data = b"\0\0\0\x1cftypavif\0\0\0\0mif1avifmiaf" + b"\0\0\1\0meta" + bytes(300)
    assert heif.read_header(data[:size]) == heif.HeifHeader()
    assert colors_of_png(png.PngColors(), gray=False, notes=[]) is None


def camera_exif(space=0xFFFF, index=b"R03\0"):
    """IFD0 -> EXIF -> interoperability, big-endian."""

    def directory(*entries):
        body = b"".join(struct.pack(">HHI4s", tag, kind, count, value) for tag, kind, count, value in entries)
        return struct.pack(">H", len(entries)) + body + bytes(4)

    first = directory((0x8769, 4, 1, struct.pack(">I", 26)))
    second = directory((0xA001, 3, 1, struct.pack(">HH", space, 0)), (0xA005, 4, 1, struct.pack(">I", 56)))
    return b"Exif\0\0MM\0*\0\0\0\x08" + first + second + directory((1, 2, 4, index))


def test_adobe_rgb_that_a_camera_states_in_exif(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.jpg", exif=camera_exif(), quality=95, subsampling=0)
    source = read_image(tmp_path / "a.jpg")
    # (0, 255, 90) of Adobe RGB in sRGB's linear light, by the published matrices
    values = source.pixels[5, 40] / 255
    light = values ** (563 / 256) @ np.array([[1.3984, 0, 0], [-0.3984, 1, -0.0429], [0, 0, 1.0429]])
    np.testing.assert_allclose(linear(source.to_srgb()[5, 40]), np.clip(light, 0, 1), atol=0.003)

    write_image(source, tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as image:
        assert "icc_profile" not in image.info
    assert read_image(tmp_path / "b.jpg").icc == source.icc
    for name, options in (("c.jpg", {"metadata": "strip"}), ("c.png", {})):
        write_image(source, tmp_path / name, **options)
        with Image.open(tmp_path / name) as image:
            assert image.info["icc_profile"] == source.icc


@pytest.mark.parametrize(
    "exif", [camera_exif(space=1), camera_exif(index=b"R98\0"), camera_exif()[:60], camera_exif()[:30]]
)
def test_other_exif_blocks_state_no_adobe_rgb(tmp_path, exif):
    Image.fromarray(RAMP).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").icc is None


def save_tiff(path, white, primaries, **options):
    Image.fromarray(RAMP).save(path, tiffinfo={318: white, 319: primaries}, **options)
    return path


def test_primaries_of_a_tiff(tmp_path):
    """Those of Adobe RGB. They stay in a TIFF, and other formats get a profile of that meaning."""
    path = save_tiff(tmp_path / "a.tif", (0.3127, 0.329), (0.64, 0.33, 0.21, 0.71, 0.15, 0.06))
    source = read_image(path)
    light = linear(source.pixels[5, 40] / 255) @ np.array([[1.3984, 0, 0], [-0.3984, 1, -0.0429], [0, 0, 1.0429]])
    np.testing.assert_allclose(linear(source.to_srgb()[5, 40]), np.clip(light, 0, 1), atol=0.003)

    for metadata in ("keep", "strip"):
        write_image(source, tmp_path / "b.tif", metadata=metadata)
        with Image.open(tmp_path / "b.tif") as image:
            assert "icc_profile" not in image.info
            assert image.tag_v2[319] == pytest.approx((0.64, 0.33, 0.21, 0.71, 0.15, 0.06))
            np.testing.assert_array_equal(np.asarray(image), RAMP)
    assert read_image(tmp_path / "b.tif").icc == source.icc
    for suffix in ("png", "jpg"):
        assert not write_image(source, tmp_path / f"b.{suffix}")
        with Image.open(tmp_path / f"b.{suffix}") as image:
            assert image.info["icc_profile"] == source.icc


@pytest.mark.parametrize(
    "primaries", [(0.64, 0.33, 0.3, 0.6, 0.15, 0.06), (0.64, 0.0, 0.3, 0.6, 0.15, 0.06), (1e9, 1) * 3]
)
def test_primaries_of_a_tiff_that_mean_srgb_or_nothing(tmp_path, primaries):
    source = read_image(save_tiff(tmp_path / "a.tif", (0.3127, 0.329), primaries))
    assert source.icc is None
    assert len(source.notes) == (primaries[1] != 0.33)
    assert read_image(save_tiff(tmp_path / "b.tif", (0.3127, 0.329), primaries, icc_profile=WIDE)).icc == WIDE


def test_hostile_headers_end_soon():
    """A length without an end, and extents without a size: as many steps as bytes, not more."""
    endless = b"\x0a" + b"\xff" * 300_000
    assert av1.quantizer(endless) is None
    with pytest.raises(ValueError, match="code points"):
        heif.with_code_points(b"\0\0\0\x10ftypavif\0\0\0\0" + b"\0\0\0\x10meta" + bytes(8), (12, 13))
