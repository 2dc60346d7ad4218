"""Stream a file from an address into its place, checked before it gets there."""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from restore._version import __version__
from restore.errors import RestoreError
from restore.files import replace_atomically, sweep_leftovers

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 30


def check_address(url: str) -> None:
    """Allow https, and http to this machine.

    Raises:
        RestoreError: it is anything else.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        raise RestoreError("is not an address", where=url) from None
    if parts.scheme == "https" and host:
        return
    if parts.scheme != "http" or not is_loopback(host):
        raise RestoreError("only https addresses are fetched", where=url)


def is_loopback(host: str) -> bool:
    """Whether the name or number of a host means this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None,
    max_bytes: int,
    check: Callable[[Path], None] = lambda path: None,
    token: str | None = None,
    overwrite: bool = False,
) -> str:
    """Download a file: to a temporary file beside its place, which is checked and then renamed.

    Args:
        url: https, or http on this machine; so are all redirections.
        target: its place. Its folder is made if it does not exist.
        sha256: what the file must hash to, in hex; None: anything.
        max_bytes: a longer file is refused, if possible before it is sent.
        check: called with the temporary file; an error means that nothing is kept.
        token: sent to the first host only, not to those that it redirects to.
        overwrite: replace an existing file.

    Returns:
        The file's SHA-256 in hex.

    Raises:
        RestoreError: exit code 1; the host cannot be reached or does not give the file, or the file is too long, cut
            off, not the one that was named, or not what `check` wants. Nothing is left of it.
    """
    check_address(url)
    sweep_leftovers(target.parent)
    with replace_atomically(target, overwrite=overwrite) as temporary:
        with open(temporary, "xb") as file:
            digest = _stream(url, file, max_bytes, token)
        if sha256 is not None and digest != sha256.lower():
            raise RestoreError(
                f"is another file: its SHA-256 is {digest}, not {sha256.lower()}",
                where=url,
                hint="nothing was kept",
                exit_code=1,
            )
        check(temporary)
    return digest


def read_small(url: str, *, max_bytes: int, token: str | None = None) -> bytes:
    """The content of a small file; addresses and errors are those of `download`."""
    check_address(url)
    parts: list[bytes] = []
    _receive(url, parts.append, max_bytes, token)
    return b"".join(parts)


def _stream(url: str, file: IO[bytes], max_bytes: int, token: str | None) -> str:
    digest = hashlib.sha256()

    def take(chunk: bytes) -> None:
        digest.update(chunk)
        file.write(chunk)

    _receive(url, take, max_bytes, token)
    return digest.hexdigest()


def _receive(url: str, take: Callable[[bytes], object], max_bytes: int, token: str | None) -> None:
    """Pass a file on in chunks."""
    too_long = RestoreError(f"is longer than {max_bytes / 1e6:g} MB", where=url, exit_code=1)
    with _opened(url, token) as answer:
        announced = answer.headers.get("Content-Length", "")
        expected = int(announced) if announced.isdecimal() else None
        if expected is not None and expected > max_bytes:
            raise too_long
        received = 0
        while True:
            try:
                chunk = answer.read(_CHUNK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise RestoreError("the connection broke off", where=url, hint="run again", exit_code=1) from error
            if not chunk:
                break
            received += len(chunk)
            if received > max_bytes:
                raise too_long
            take(chunk)
    if expected is not None and received != expected:
        raise RestoreError(
            f"the connection broke off after {received} of {expected} bytes", where=url, hint="run again", exit_code=1
        )


def _opened(url: str, token: str | None) -> Any:
    headers = {"User-Agent": f"restore-toolkit/{__version__}", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=headers)
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        return urllib.request.build_opener(_CheckedRedirections).open(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        raise RestoreError(f"the server answered {error.code} {error.reason}", where=url, exit_code=1) from error
    except (OSError, http.client.HTTPException) as error:
        raise unreachable(url) from error


def unreachable(url: str) -> RestoreError:
    """The error for a host that does not answer."""
    host = urlsplit(url).netloc.rpartition("@")[2] or url
    return RestoreError(f"{host} cannot be reached", hint="is this machine offline?", exit_code=1)


class _CheckedRedirections(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        check_address(newurl)
        # A hub may not have this machine asked in its name.
        if urlsplit(newurl).scheme == "http" and not is_loopback(urlsplit(req.full_url).hostname or ""):
            raise RestoreError("only https addresses are fetched", where=newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
