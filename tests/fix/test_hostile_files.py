"""Files made to break readers, through the whole of `fix`: each is done, skipped or failed with a reason."""

from __future__ import annotations

import csv
import random
import shutil
import struct
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image

from restore.images import WRITABLE_FORMATS
from tests.fix.conftest import Identity, fix_with, logged, photo, save

ODD = Path(__file__).parents[3] / "shared/data/odd_files"
#: What Pillow calls the formats that are promised to be read.
PROMISED = {"JPEG", "MPO", "PNG", "TIFF", "WEBP", "BMP", "DIB", "GIF", "AVIF", "HEIF"}
SUFFIXES = {"jpeg": "jpg", "tiff": "tif"}
VARIANTS = 40

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as `restore.images` has it, which pytest undoes


def fates(log: Path) -> dict[str, dict]:
    records = logged(log)
    assert len({record["input"] for record in records}) == len(records), "one line per file"
    return {record["input"]: record for record in records}


def is_one_line_of_reason(text: str) -> bool:
    return bool(text) and text.isprintable() and "unexpected" not in text


@pytest.mark.skipif(not ODD.is_dir(), reason="the odd files are not here")
def test_odd_files_are_each_done_skipped_or_failed_with_a_reason(tmp_path, capfd):
    # The limit keeps bombs quick here; that the large ones are read too is a matter of `tests/images`.
    summary = fix_with(ODD, tmp_path / "out", Identity(), log=tmp_path / "log", max_pixels=30_000_000)
    with (ODD / "MANIFEST.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert len(rows) == 147
    found = fates(tmp_path / "log")
    wrong = []
    for row in rows:
        record, pillow = found[str(ODD / row["path"])], row["pillow outcome"].split()
        if record["status"] == "done":
            assert (tmp_path / "out" / row["path"]).stat().st_size > 0
            continue
        refused = pillow[0] == "OK" and pillow[1] in PROMISED and "--max-pixels" not in record["reason"]
        if refused or not is_one_line_of_reason(record["reason"]):
            wrong.append((row["path"], record["reason"]))
    assert wrong == []
    assert summary.not_started == 0
    assert summary.total == len(found) == summary.done + len(summary.failed) + sum(summary.skipped.values())
    assert capfd.readouterr() == ("", "")
    assert list((tmp_path / "out").rglob(".restore-*")) == []


def mutations(data: bytes, chance: random.Random) -> bytes:
    """Cut, or with some bytes changed, swapped, doubled or left out; near the beginning more often."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = min(int(chance.expovariate(4 / len(changed))), len(changed) - 1)
        length = chance.randint(1, 8)
        match chance.randrange(5):
            case 0:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at : at + length] = chance.choice((b"\xff", b"\0", b"\x7f")) * length
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length * 4]
            case 4:
                del changed[max(chance.randrange(len(changed)), 12) :]
        if len(changed) < 16:
            break
    return bytes(changed)


@pytest.mark.parametrize("allow_truncated", [False, True])
@pytest.mark.parametrize("format", sorted(WRITABLE_FORMATS))
def test_damaged_variants_of_every_format_each_have_their_fate(tmp_path, capfd, format, allow_truncated):
    source = save(tmp_path / "whole/x.png", photo(24, 31))
    suffix = SUFFIXES.get(format, format)
    original = tmp_path / f"whole/z.{suffix}"
    with Image.open(source) as image:
        exif = Image.Exif()
        exif[0x0112], exif[0x010E] = 6, "a description"
        image.save(original, **({} if format in ("bmp", "ppm", "tga", "gif") else {"exif": exif}))
    # The seed is text, so that every format and way has its own variants, and the same each time.
    chance = random.Random(f"{format} {allow_truncated}")
    (tmp_path / "in").mkdir()
    for number in range(VARIANTS):
        (tmp_path / f"in/{number:03}.{suffix}").write_bytes(mutations(original.read_bytes(), chance))
    shutil.copy(original, tmp_path / f"in/sound.{suffix}")
    started = time.monotonic()
    summary = fix_with(
        tmp_path / "in",
        tmp_path / "out",
        Identity(),
        log=tmp_path / "log",
        allow_truncated=allow_truncated,
        max_pixels=1_000_000,
    )
    assert time.monotonic() - started < 60
    found = fates(tmp_path / "log")
    assert found[str(tmp_path / f"in/sound.{suffix}")]["status"] == "done"
    assert len(found) == summary.total == VARIANTS + 1
    for record in found.values():
        assert record["status"] == "done" or is_one_line_of_reason(record["reason"]), record
    assert capfd.readouterr() == ("", "")


def test_a_flood_of_small_chunks_takes_no_time_of_its_own(tmp_path):
    """Hundreds of thousands of texts, each of which costs the same: a copy of all before it would make that minutes."""
    chunk = struct.pack(">I", 3) + b"tEXta\0b" + struct.pack(">I", zlib.crc32(b"tEXta\0b"))
    segments = {"png": chunk, "jpg": b"\xff\xfe\0\4ab"}
    for suffix, segment in segments.items():
        data = save(tmp_path / f"whole/x.{suffix}", photo(8, 8)).read_bytes()
        start = 33 if suffix == "png" else 2
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / f"in/x.{suffix}").write_bytes(data[:start] + segment * 300_000 + data[start:])
    started = time.process_time()
    summary = fix_with(tmp_path / "in", tmp_path / "out", Identity())
    assert summary.done == 2, summary.failed
    assert time.process_time() - started < 15
