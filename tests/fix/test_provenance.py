"""Repaired files say in their XMP what was done to them, and by which models."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import pyvips
from PIL import Image

from restore import __version__
from restore.fix import reader
from restore.fix.provenance import ENHANCED, INPAINTED
from restore.images.pillow import heic_available
from tests.fix.conftest import Filler, Identity, Inverter, fix_with, hole, photo, save, snapshot

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
MM = "{http://ns.adobe.com/xap/1.0/mm/}"
EVENT = "{http://ns.adobe.com/xap/1.0/sType/ResourceEvent#}"
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"


class Network(Filler):
    name, sha256 = "/home/somebody/secret/network.safetensors", "c" * 64


def xmp_of(path: Path) -> bytes | None:
    """The packet as libvips reads it; of HEIC as Pillow does."""
    if path.suffix == ".heic":
        import pillow_heif

        return pillow_heif.open_heif(path).info.get("xmp")
    image = pyvips.Image.new_from_file(str(path))
    return image.get("xmp-data") if "xmp-data" in image.get_fields() else None


def told(path: Path) -> tuple[list[dict[str, str]], str | None]:
    """Entries of the history, and the digital source type, by another parser than the one that wrote them."""
    packet = xmp_of(path)
    if packet is None:
        return [], None
    root = ElementTree.fromstring(packet.rstrip(b"\0").decode().lstrip("\ufeff"))
    entries = [dict(li.attrib) for li in root.findall(f".//{RDF}Description/{MM}History/{RDF}Seq/{RDF}li")]
    types = [one.text or one.get(f"{RDF}resource") for one in root.iter(f"{IPTC}DigitalSourceType")]
    types += [one.attrib[f"{IPTC}DigitalSourceType"] for one in root.iter() if f"{IPTC}DigitalSourceType" in one.attrib]
    assert len(types) <= 1
    return [{key.removeprefix(EVENT): value for key, value in one.items()} for one in entries], (types or [None])[0]


NAMES = ["a.jpg", "a.png", "a.tif", "a.webp", "a.avif", "a.heic"]


def saved(folder: Path, name: str) -> Path:
    if name.endswith("heic") and not heic_available():
        pytest.skip("pillow-heif is not installed")
    if name.endswith("heic"):
        import pillow_heif

        folder.mkdir(parents=True, exist_ok=True)
        pillow_heif.from_pillow(Image.fromarray(photo(64, 80))).save(folder / name)
        return folder / name
    return save(folder / name, photo(64, 80))


@pytest.mark.parametrize("name", NAMES)
def test_every_format_that_holds_xmp_tells_of_the_repair(name, tmp_path):
    saved(tmp_path / "in", name)
    for run in ("out", "again"):
        fix_with(tmp_path / "in", tmp_path / run, Inverter(), strength=0.5)
    entries, source_type = told(tmp_path / "out" / name)
    parameters = "inverter; strength 0.5; precision fp32"
    assert entries == [{"action": "edited", "softwareAgent": f"restore {__version__}", "parameters": parameters}]
    assert source_type == ENHANCED
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "again"), "there is no time in it"

    fix_with(tmp_path / "out", tmp_path / "twice", Inverter())
    entries, source_type = told(tmp_path / "twice" / name)
    assert [entry["parameters"] for entry in entries] == [parameters, "inverter; strength 1.0; precision fp32"]
    assert source_type == ENHANCED


def test_what_a_network_filled_is_said_to_be_made_up_and_what_a_formula_filled_is_not(tmp_path):
    save(tmp_path / "in/a.png", photo(40, 50))
    save(tmp_path / "mask.png", hole(40, 50, (3, 3, 9, 9)))
    for name, restorer in (("network", Network()), ("formula", Filler())):
        fix_with(tmp_path / "in", tmp_path / name, restorer, masks=tmp_path / "mask.png", mask_dilate=2)
    entries, source_type = told(tmp_path / "network/a.png")
    assert source_type == INPAINTED
    assert entries[0]["parameters"] == (
        f"network.safetensors sha256 {'c' * 64}; masks given; mask_dilate 2; strength 1.0; precision fp32"
    )
    assert b"secret" not in (tmp_path / "network/a.png").read_bytes(), "folders are nobody's business"
    assert told(tmp_path / "formula/a.png")[1] == ENHANCED
    # Cleaned up later, it is still made up.
    fix_with(tmp_path / "network", tmp_path / "later", Inverter())
    assert told(tmp_path / "later/a.png")[1] == INPAINTED


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_pictures_in_parts_tell_the_same(name, tmp_path, monkeypatch):
    saved(tmp_path / "in", name)
    fix_with(tmp_path / "in", tmp_path / "memory", Inverter(), correct_fading=True)
    monkeypatch.setattr(reader, "HUGE_PIXELS", 100)
    fix_with(tmp_path / "in", tmp_path / "parts", Inverter(), correct_fading=True)
    assert told(tmp_path / "parts" / name) == told(tmp_path / "memory" / name)
    assert "correct_fading true" in told(tmp_path / "parts" / name)[0][0]["parameters"]


def test_nothing_is_told_where_it_is_not_wanted_or_nothing_was_done(tmp_path):
    save(tmp_path / "in/a.png", photo(40, 50))
    save(tmp_path / "in/b.jpg", photo(40, 50))
    save(tmp_path / "in/c.bmp", photo(40, 50))
    save(tmp_path / "mask.png", hole(40, 50))
    runs = {
        "unwanted": fix_with(tmp_path / "in", tmp_path / "unwanted", Inverter(), provenance=False),
        "stripped": fix_with(tmp_path / "in", tmp_path / "stripped", Inverter(), metadata="strip"),
        "unchanged": fix_with(tmp_path / "in", tmp_path / "unchanged", Identity()),
        "empty": fix_with(tmp_path / "in", tmp_path / "empty", Filler(), masks=tmp_path / "mask.png"),
        "nothing": fix_with(tmp_path / "in", tmp_path / "nothing", Inverter(), strength=0),
    }
    for name, summary in runs.items():
        assert summary.done == 3
        assert summary.warnings == []
        for path in (tmp_path / name).iterdir():
            assert b"stEvt" not in path.read_bytes()
    assert snapshot(tmp_path / "nothing") == snapshot(tmp_path / "in") == snapshot(tmp_path / "empty")


def test_only_the_first_page_tells(tmp_path):
    (tmp_path / "in").mkdir()
    first, second = (Image.fromarray(photo(40, 50, seed)) for seed in (1, 2))
    first.save(tmp_path / "in/a.tif", save_all=True, append_images=[second])
    fix_with(tmp_path / "in", tmp_path / "out", Inverter())
    assert len(told(tmp_path / "out/a.tif")[0]) == 1
    assert (tmp_path / "out/a.tif").read_bytes().count(b"softwareAgent") == 1


def packet(properties: str, attributes: str = "") -> bytes:
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><!-- > a remark --><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<r:Description r:about="uuid:7" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:mm="http://ns.adobe.com/xap/1.0/mm/"'
        ' xmlns:ext="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:stEvt="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"'
        f" dc:format='a>b'{attributes}>{properties}"
        "<dc:title>Großmutter &amp; ich</dc:title></r:Description></r:RDF></x:xmpmeta>\n    \n<?xpacket end='w'?>\0"
    ).encode()


CAPTURE = "http://cv.iptc.org/newscodes/digitalsourcetype/print"
SYNTHETIC = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
EXISTING = '<mm:History><r:Seq><r:li stEvt:action="created"/></r:Seq></mm:History>'
PART = f"<mm:Pantry><r:Bag><r:li><r:Description>{EXISTING}</r:Description></r:li></r:Bag></mm:Pantry>"
PACKETS = {
    "plain": (packet(""), 1, ENHANCED),
    "history": (packet(EXISTING), 2, ENHANCED),
    "an empty history": (packet("<mm:History><r:Seq /></mm:History>"), 1, ENHANCED),
    "history of a part": (packet(PART), 1, ENHANCED),
    "type as element": (packet(f"<ext:DigitalSourceType>{CAPTURE}</ext:DigitalSourceType>"), 1, ENHANCED),
    "type as resource": (packet(f'<ext:DigitalSourceType r:resource="{CAPTURE}"/>'), 1, ENHANCED),
    "type as attribute": (packet("", f' ext:DigitalSourceType="{CAPTURE}"'), 1, ENHANCED),
    "all at once": (packet(EXISTING, f' ext:DigitalSourceType="{CAPTURE}"'), 2, ENHANCED),
    "made up": (packet(f"<ext:DigitalSourceType>{SYNTHETIC}</ext:DigitalSourceType>"), 1, SYNTHETIC),
    "no property": (b'<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/>', 1, ENHANCED),
    "a mark at its head": (b"\xef\xbb\xbf" + packet(EXISTING), 2, ENHANCED),
}  # fmt: skip


@pytest.mark.parametrize("case", PACKETS)
def test_xmp_that_is_there_is_extended_and_otherwise_kept(case, tmp_path):
    given, count, expected = PACKETS[case]
    save(tmp_path / "in/a.webp", photo(40, 50), xmp=given, lossless=True)
    summary = fix_with(tmp_path / "in", tmp_path / "out", Inverter())
    assert summary.warnings == []
    written = xmp_of(tmp_path / "out/a.webp")
    assert written is not None
    root = ElementTree.fromstring(written.rstrip(b"\0").decode().lstrip("\ufeff"))
    description = f"{RDF}Description"
    top = root if root.tag == f"{RDF}RDF" else root.find(f"{RDF}RDF")
    assert {one.get(f"{RDF}about") for one in top.findall(description)} == {"uuid:7" if b"uuid" in given else ""}
    assert len(top.findall(f"{description}/{MM}History")) == 1
    assert len(top.findall(f"{description}/{MM}History/{RDF}Seq/{RDF}li")) == count
    assert told(tmp_path / "out/a.webp")[1] == expected
    # Without what was put in, it is what it was.
    kept = re.sub(rb"\s*<rdf:Description.*?</rdf:Description>\s*|<rdf:li .*?/>\s*", b"", written, flags=re.DOTALL)
    if case in ("plain", "history", "made up", "a mark at its head") and b"<ext:" not in given:
        assert kept.replace(b"\n", b"") == given.replace(b"\n", b"")
    if b"Gro" in given:
        assert "Großmutter &amp; ich".encode() in written


MALFORMED = {
    "no XML": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><open></x:xmpmeta>",
    "no RDF": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>",
    "a document type": b'<!DOCTYPE a [<!ENTITY b "c">]><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/>',
    "another history": packet("<mm:History>long ago</mm:History>"),
    "UTF-16": packet("").decode().encode("utf-16"),
    "nothing": b"\0\0\0\0",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_xmp_is_kept_as_it_is_and_that_is_said(case, tmp_path):
    save(tmp_path / "in/a.webp", photo(40, 50), xmp=MALFORMED[case], lossless=True)
    summary = fix_with(tmp_path / "in", tmp_path / "out", Inverter())
    assert summary.done == 1
    assert "XMP cannot be extended" in summary.warnings[0]
    assert xmp_of(tmp_path / "out/a.webp") == MALFORMED[case]


def test_a_jpeg_s_xmp_that_is_full_is_not_lost(tmp_path):
    full = packet(f"<dc:source>{'x' * 64700}</dc:source>")
    save(tmp_path / "in/a.jpg", photo(40, 50), xmp=full)
    save(tmp_path / "in/b.jpg", photo(40, 50), xmp=packet(""))
    summary = fix_with(tmp_path / "in", tmp_path / "out", Inverter())
    assert len(summary.warnings) == 1
    assert "no room" in summary.warnings[0]
    assert xmp_of(tmp_path / "out/a.jpg") == full
    assert len(told(tmp_path / "out/b.jpg")[0]) == 1
