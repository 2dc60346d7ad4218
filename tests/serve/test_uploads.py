"""Forms that are broken at random: each is taken or refused, and nothing is written outside its folder."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.types import Message

from restore.serve.problems import Refused
from restore.serve.uploads import Form, receive_form

WHOLE = (
    b'--bound\r\nContent-Disposition: form-data; name="image"; filename="scan.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    b"\xff\xd8\xff some bytes\r\n--bound-\r\n\r\n--boun\r\n"
    b'\r\n--bound\r\nContent-Disposition: form-data; name="options"\r\n\r\n{"strength": 0.5}'
    b'\r\n--bound\r\nContent-Disposition: form-data; name="mask"; filename="m.png"\r\n\r\nPNG\r\n--bound--\r\n'
)


def receive(
    body: bytes, folder: Path, pieces: int = 1 << 20, kind: str = "multipart/form-data; boundary=bound"
) -> Form:
    """The form of a body that arrives in pieces of so many bytes."""
    parts = [body[place : place + pieces] for place in range(0, len(body), pieces)] or [b""]
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = False
    coming = iter(messages)

    async def next_message() -> Message:
        return next(coming)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", kind.encode("latin-1"))]}
    request = Request(scope, next_message)
    return asyncio.run(receive_form(request, folder, files=("image", "mask"), fields=("options", "model")))


@pytest.mark.parametrize("pieces", [1, 7, 64, 1 << 20])
def test_a_form_is_the_same_however_it_arrives(tmp_path: Path, pieces: int) -> None:
    form = receive(WHOLE, tmp_path, pieces)
    assert form.fields == {"options": '{"strength": 0.5}'}
    assert {name: path.name for name, path in form.files.items()} == {"image": "image.jpg", "mask": "mask.png"}
    assert form.files["image"].read_bytes() == b"\xff\xd8\xff some bytes\r\n--bound-\r\n\r\n--boun\r\n"
    assert form.files["mask"].read_bytes() == b"PNG"


def test_a_broken_form_writes_nothing_to_the_terminal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Refused):
        receive(b"--other\r\n" + WHOLE, tmp_path)
    assert not caplog.records


def test_three_hundred_broken_forms_are_taken_or_refused(tmp_path: Path) -> None:
    draw = random.Random(0)
    refused = 0
    for number in range(300):
        body = bytearray(WHOLE)
        for _ in range(draw.randint(1, 4)):
            place, length = draw.randrange(len(body)), draw.randint(0, 30)
            junk = draw.choice([b"", b"\r\n", b"--bound", b"\0", b"../../", b'"', b"\xff" * 9, body[:length]])
            body[place : place + draw.choice([0, length])] = junk
        folder = tmp_path / "inside" / str(number)
        folder.mkdir(parents=True)
        try:
            form = receive(bytes(body), folder, draw.choice([1, 50, 1 << 20]))
        except Refused:
            refused += 1
        else:
            assert all(path.parent == folder and path.is_file() for path in form.files.values())
        assert {path.stem for path in folder.iterdir()} <= {"image", "mask"}
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    assert 50 < refused < 300


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("x.JPG", "image.jpg"), ("../../x.png", "image.png"), ("x.png/..", "image"), ("C:\\a\\b.tif", "image.tif"),
        ("x.p\0g", "image"), ("x.sh;rm", "image"), ("x.verylong", "image"), ("", "image"), (".png", "image"),
    ],
)  # fmt: skip
def test_of_a_files_name_only_the_suffix_is_used(tmp_path: Path, filename: str, name: str) -> None:
    body = WHOLE.replace(b"scan.jpg", filename.encode())
    try:
        form = receive(body, tmp_path)
    except Refused:  # the name broke the form
        assert "\0" in filename
        return
    assert form.files["image"] == tmp_path / name


@pytest.mark.parametrize("headers", [b"A: 1\r\n" * 20, b"A: " + b"x" * 100_000 + b"\r\n", b"A" * 100_000 + b": 1\r\n"])
@pytest.mark.parametrize("pieces", [1000, 1 << 20])
def test_a_part_with_many_or_large_headers_is_refused(tmp_path: Path, headers: bytes, pieces: int) -> None:
    start = WHOLE.index(b"\r\n") + 2
    with pytest.raises(Refused, match="the form cannot be read"):
        receive(WHOLE[:start] + headers + WHOLE[start:], tmp_path, pieces)
