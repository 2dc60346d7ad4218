"""Metadata made to cost a lot of time or memory: its cost grows with its length, not with the square of it."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from restore.errors import RestoreError
from restore.images import read
from restore.images.metadata import photoshop, png, trailer, xmp, xmp_claims
from restore.images.read import image_from_bytes
from tests.images import tiffs

RDF = b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
GAIN_MAP = b'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"'


@contextmanager
def quickly(seconds: float = 5) -> Iterator[None]:
    """Within some time of the processor. What is tested took a minute or more."""
    start = time.process_time()
    yield
    assert time.process_time() - start < seconds


def with_event(packet: bytes) -> bytes:
    return xmp.with_event(packet, xmp.Event("did", "this", "so"), "a type", keep_types=frozenset())


def test_a_jpeg_whose_pixels_end_in_0xff_as_on_an_erased_card():
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(stream, "JPEG")
    data = stream.getvalue()
    with quickly():
        image = image_from_bytes(data[: len(data) // 2] + b"\xff" * 200_000 + b"\0" * 10, "x.jpg", allow_truncated=True)
    assert image.size == (64, 64)
    assert image.notes[0].startswith("the file is damaged")
    with quickly():
        assert trailer.after_jpeg(data + b"\xff" * 200_000 + b"\0a video", several=False).kept.endswith(b"a video")


def test_xmp_of_many_levels_is_refused():
    levels = 200_000
    with quickly(), pytest.raises(ValueError, match="more than 100 levels"):
        with_event(RDF + b"<a>" * levels + b"</a>" * levels + b"</rdf:RDF>")
    assert b"did" in with_event(RDF + b"<a>" * 90 + b"</a>" * 90 + b"</rdf:RDF>")


def test_xmp_with_a_long_tag():
    packet = RDF + b"<a" + b" " * (1 << 20) + b" b='>' c=\"'>\"/></rdf:RDF>"
    tracemalloc.start()
    try:
        assert with_event(packet).endswith(b"</rdf:RDF>")
        assert tracemalloc.get_traced_memory()[1] < 20 * len(packet)  # it took a hundred times the packet
    finally:
        tracemalloc.stop()


def test_xmp_with_many_claims_of_parts_that_are_gone():
    claims = b"".join(b" hdrgm:a%d = '>'" % number for number in range(30_000))
    packet = RDF + b"<rdf:Description " + GAIN_MAP + b' a="1"\n' + claims + b" b='2'/></rdf:RDF>"
    with quickly():
        kept = xmp_claims.without_gain_map(packet)
    assert kept == RDF + b"<rdf:Description " + GAIN_MAP + b" a=\"1\" b='2'/></rdf:RDF>"
    elements = b"<hdrgm:a>1</hdrgm:a>" * 100_000
    packet = RDF + b"<rdf:Description " + GAIN_MAP + b"><b/>" + elements + b"<c/></rdf:Description></rdf:RDF>"
    with quickly():
        assert xmp_claims.without_gain_map(packet) == packet.replace(elements, b"")


def test_many_resources_of_photoshop():
    many = photoshop.resource(7, b"") * 500_000
    with quickly():
        assert photoshop.without(many + photoshop.resource(1036, b"a thumbnail"), (1036,)) == many


def test_many_chunks_with_resources_of_photoshop():
    numbers = range(2000, 12_000)
    chunks = b"".join(png._raw_profile_chunk("8bim", photoshop.resource(number, b"")) for number in numbers)
    with quickly(10):
        found, rest = png.take_captions(chunks + chunks[:3000], resources=True, comment=False)
    assert [number for number, _ in photoshop.resources_of(found.resources)] == list(numbers)
    assert rest == b""


def test_many_boxes_behind_an_image():
    boxes = struct.pack(">I4s", 8, b"mpvd") * 400_000
    with quickly():
        assert trailer.after_boxes(boxes).kept == boxes


def test_pages_that_share_their_texts_do_not_fill_the_memory(monkeypatch):
    """One packet in the file, at which every page points."""
    monkeypatch.setattr(read, "_METADATA_BYTES", 500_000)
    pixels, packet = tiffs.noise(2, 2), b"<x>" + b"a" * 100_000 + b"</x>"
    data = bytearray(tiffs.build(tiffs.plain(pixels, t700=(1, packet)), *[tiffs.plain(pixels, t700=(1, b"12345"))] * 9))
    text_at = struct.pack("<I", bytes(data).index(packet))
    entry = struct.pack("<HHI", 700, 1, 5)
    at = data.find(entry)
    while at >= 0:
        data[at : at + 12] = struct.pack("<HHI", 700, 1, len(packet)) + text_at
        at = data.find(entry, at)
    with pytest.raises(RestoreError, match=r"page 5 of 10: the pages share profiles or texts that would fill") as error:
        image_from_bytes(bytes(data), "x.tif", all_pages=True)
    assert error.value.exit_code == 1
    assert image_from_bytes(bytes(data), "x.tif").xmp == packet
