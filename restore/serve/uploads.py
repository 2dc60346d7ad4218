"""Multipart uploads, streamed to disk. What a client calls its file is used for the suffix only."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from restore.serve.problems import Refused

# What is wrong with a form is told to its sender; the operator's terminal is not for every client to fill.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

#: Of a part that is no file, such as options.
_FIELD_BYTES = 1 << 16
#: Headers of a part, and bytes of one; browsers and curl send two.
_HEADERS, _HEADER_BYTES = 8, 4096
#: Written to disk at a time.
_BUFFER_BYTES = 1 << 20
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")


@dataclass
class Form:
    """What a client has uploaded.

    Attributes:
        files: paths by the name of the part.
        fields: texts by the name of the part.
    """

    files: dict[str, Path] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)


async def receive_form(request: Request, folder: Path, *, files: Collection[str], fields: Collection[str]) -> Form:
    """Receive a form (multipart/form-data).

    Args:
        request: with its body unread. Its limits of bytes and time are those of `restore.serve.security`.
        folder: gets the files, each under the name of its part, with the suffix of the client's file.
        files, fields: the names of the parts that may come, each once.

    Raises:
        Refused: it is no such form, has other parts, or is not complete.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type", ""))
    boundary = parameters.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise Refused("malformed", "the body must be a form", hint="send multipart/form-data")
    receiver = _Receiver(folder, files, fields)
    try:
        parser = MultipartParser(
            boundary,
            receiver.callbacks(),  # type: ignore[arg-type]
            max_header_count=_HEADERS,
            max_header_size=_HEADER_BYTES,
        )
        async for piece in request.stream():
            parser.write(piece)
            if receiver.waiting_bytes >= _BUFFER_BYTES:
                await asyncio.to_thread(receiver.flush)
        parser.finalize()
        await asyncio.to_thread(receiver.flush)
    except FormParserError as error:
        raise Refused("malformed", f"the form cannot be read: {error}") from error
    except ClientDisconnect as error:
        raise Refused("malformed", "the connection ended within the form") from error
    finally:
        receiver.close()
    if not receiver.complete:
        raise Refused("malformed", "the form ends too early")
    return receiver.form


class _Receiver:
    """Takes what the parser finds. Its callbacks write nothing: `flush` does."""

    def __init__(self, folder: Path, files: Collection[str], fields: Collection[str]) -> None:
        self.form, self.complete, self.waiting_bytes = Form(), False, 0
        self._folder, self._files, self._fields = folder, files, fields
        self._header = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._part = ""
        self._text = bytearray()
        self._open: IO[bytes] | None = None
        self._waiting: list[tuple[IO[bytes], bytes]] = []
        self._opened: list[IO[bytes]] = []

    def callbacks(self) -> dict[str, object]:
        """The functions that the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting, self.waiting_bytes = self._waiting, [], 0
        for file, data in waiting:
            file.write(data)

    def close(self) -> None:
        """Close the files."""
        for file in self._opened:
            file.close()

    def _begin(self) -> None:
        self._headers = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        disposition, parameters = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = parameters.get(b"name", b"").decode("utf-8", "replace")
        if disposition != b"form-data" or name not in {*self._files, *self._fields}:
            known = ", ".join([*self._files, *self._fields])
            raise Refused("bad_request", f"the form has an unknown part, {name[:40]!r}", hint=f"known: {known}")
        if name in self.form.files or name in self.form.fields:
            raise Refused("bad_request", f"the form has the part {name!r} twice")
        self._part, self._text, self._open = name, bytearray(), None
        if name in self._files:
            path = self._folder / (name + _suffix(parameters.get(b"filename", b"")))
            self._open = open(path, "xb")
            self._opened.append(self._open)
            self.form.files[name] = path

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._open is not None:
            self._waiting.append((self._open, data[start:end]))
            self.waiting_bytes += end - start
            return
        self._text += data[start:end]
        if len(self._text) > _FIELD_BYTES:
            raise Refused("body_too_large", f"the part {self._part!r} is larger than {_FIELD_BYTES} bytes")

    def _end_part(self) -> None:
        if self._open is None:
            try:
                self.form.fields[self._part] = self._text.decode()
            except UnicodeDecodeError as error:
                raise Refused("malformed", f"the part {self._part!r} is not UTF-8") from error

    def _end(self) -> None:
        self.complete = True


def _suffix(filename: bytes) -> str:
    """The suffix of a client's file name, if it could be an image's; of the name itself nothing is used."""
    suffix = PurePosixPath(filename.decode("utf-8", "replace").replace("\\", "/")).suffix.lower()
    return suffix if _SUFFIX.fullmatch(suffix) else ""
