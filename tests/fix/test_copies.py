"""A file that is copied byte for byte keeps what decoding leaves out, so nothing is told of that."""

import io
import struct

from PIL import Image

from tests.fix.conftest import Filler, fix_with, hole, photo, save


def animation(path):
    frames = [Image.fromarray(photo(16, 24, seed=seed)) for seed in (1, 2)]
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)


def marked(path):
    """A WebP with content credentials."""
    stream = io.BytesIO()
    Image.fromarray(photo(16, 24)).save(stream, "WEBP", lossless=True)
    data = stream.getvalue() + b"C2PA" + struct.pack("<I", 4) + b"sign"
    path.write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])


def repaired(folder, *boxes):
    """The summary of a repair of `in` within some boxes."""
    for image in (folder / "in").iterdir():
        save(folder / "masks" / f"{image.stem}.png", hole(16, 24, *boxes))
    return fix_with(folder / "in", folder / "out", Filler(), masks=folder / "masks")


def test_a_copy_does_not_claim_a_loss(tmp_path):
    (tmp_path / "in").mkdir()
    marked(tmp_path / "in" / "marked.webp")
    summary = repaired(tmp_path)
    assert summary.copied == 1
    assert (tmp_path / "out" / "marked.webp").read_bytes() == (tmp_path / "in" / "marked.webp").read_bytes()
    assert summary.warnings == []


def test_a_repair_tells_the_loss(tmp_path):
    (tmp_path / "in").mkdir()
    marked(tmp_path / "in" / "marked.webp")
    (warning,) = repaired(tmp_path, (4, 4, 8, 8)).warnings
    assert "its manifest of content credentials (C2PA) is left out" in warning


def test_a_copy_says_that_only_a_part_was_looked_at(tmp_path):
    (tmp_path / "in").mkdir()
    animation(tmp_path / "in" / "moving.webp")
    summary = repaired(tmp_path)
    assert (summary.copied, len(summary.warnings)) == (1, 1)
    assert "only the first of 2 frames is read" in summary.warnings[0]
