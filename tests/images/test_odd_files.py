"""147 odd and hostile files: each is read or refused with a reason, and none that Pillow opens is refused."""

import csv
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restore.errors import RestoreError
from restore.images import read_image, write_image
from restore.images.encode import WRITABLE_FORMATS

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "odd_files"
READ = {"JPEG", "MPO", "PNG", "TIFF", "WEBP", "BMP", "DIB", "GIF", "AVIF", "ICO", "TGA", "PCX", "PPM", "SGI"}
#: Pillow turns 16 bits to 8 by clipping them, multiplies CMYK plainly, and turns a PNG by its XMP.
DIFFERS = ("deep_16bit_float", "cmyk_lab", "16bit", "CMYK", "1cbb1bb37d62c44f", "xmp_tags_orientation")


def manifest():
    if not FOLDER.is_dir():
        return []
    with (FOLDER / "MANIFEST.tsv").open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the odd files are not here")
def test_each_odd_file_is_read_or_refused_with_a_reason(tmp_path, capfd):
    wrong: list[str] = []
    printed = ""
    assert len(manifest()) > 100
    for row in manifest():
        path, pillow = FOLDER / row["path"], row["pillow outcome"].split()
        start = time.process_time()
        capfd.readouterr()  # what Pillow printed in the comparison before
        try:
            picture = read_image(path)
            printed += capfd.readouterr().err
        except RestoreError as error:
            if pillow[0] == "OK" and pillow[1] in READ:
                wrong.append(f"{path.name}: refused: {error}")
            if "\n" in str(error) or error.exit_code != 1:
                wrong.append(f"{path.name}: {error!r}")
            printed += capfd.readouterr().err
            continue
        if pillow[0] == "OK" and not any(word in row["path"] for word in DIFFERS):
            wrong += _differences(path, picture)
        if picture.format not in WRITABLE_FORMATS:
            continue
        write_image(picture, tmp_path / "out", format=picture.format)
        if picture.format in ("png", "tiff", "bmp"):
            again = read_image(tmp_path / "out")
            if not np.array_equal(again.pixels, picture.pixels):
                wrong.append(f"{path.name}: changed by being written")
        if time.process_time() - start > 5:
            wrong.append(f"{path.name}: slow")
    assert wrong == []
    assert printed == ""


def _differences(path, picture):
    with warnings.catch_warnings(), Image.open(path) as image:
        warnings.simplefilter("ignore")
        expected = np.asarray(image.convert("RGBA"))
    if expected.shape[:2] != picture.size or "orientation" in str(path):
        return []  # Pillow gives it as it is stored; the orientations have their own test
    sparse = slice(None, None, 1 + picture.size[0] // 500)
    expected = expected[sparse, sparse].astype(int)
    alpha = np.full(picture.size, 255)[sparse, sparse]
    if picture.alpha is not None:
        alpha = picture.alpha[sparse, sparse] * 255.0 / picture.white
    pixels = picture.pixels[sparse, sparse] * 255.0 / picture.white
    visible = expected[:, :, 3] > 0
    worst = np.abs(pixels - expected[:, :, :3])[visible].max(initial=0)
    if worst > 1 or np.abs(alpha - expected[:, :, 3]).max() > 1:
        return [f"{path.name}: other pixels than Pillow's"]
    return []
