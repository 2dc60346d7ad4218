"""The settings of a server, declared once for `restore serve`, `restore open` and Python."""

from __future__ import annotations

import ipaddress
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from restore.errors import RestoreError

#: Requests of an API client are answered within seconds, so an image takes less time than a run of the command line.
MAX_PIXELS = 200_000_000
MAX_UPLOAD_BYTES = 512 << 20
#: A token that a person makes up could be guessed if it were shorter.
MIN_TOKEN_CHARACTERS = 16


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """How a server listens, what it accepts, and how long it waits.

    Attributes:
        host: the address to listen on.
        port: 0: a free one.
        token: what clients must present; None: they need none, which only a loopback address allows.
        allowed_hosts: further names by which clients reach this server, without port.
        device: of the networks: `auto`, `cpu`, `cuda`, `cuda:N`, `mps`, or several devices separated by commas. Each
            gets a worker process.
        decoders: worker processes that decode images for display.
        queue: requests that may wait for a worker; further ones are refused (status 429).
        connections: open connections at a time; further ones are refused (status 503).
        max_upload_bytes: of the body of a request.
        max_pixels: width × height of an image.
        header_seconds: in which the headers of a request must have arrived.
        idle_seconds: the longest pause while a body arrives, or while a client takes no more of an answer.
        body_seconds: in which a whole body must have arrived.
        decode_seconds: in which an image must be decoded.
        job_seconds: in which a request must be done, not counting its time in the queue.
        keep_seconds: how long the result of a job can be fetched.
        keep_results: results that are kept at a time; the oldest goes first.
        stop_seconds: how long a stopping server waits for running jobs.
        warm: models that are opened before the first request.
        output: folder for repairs saved on the page; None: beside the opened folder.
        work: folder for the work in progress; None: temporary for the API, the user's data folder for the page.

    Raises:
        RestoreError: exit code 2; a value that makes no sense, or an address that others reach, without a token.
    """

    host: str = "127.0.0.1"
    port: int = 0
    token: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    device: str = "auto"
    decoders: int = 1
    queue: int = 16
    connections: int = 256
    max_upload_bytes: int = MAX_UPLOAD_BYTES
    max_pixels: int = MAX_PIXELS
    header_seconds: float = 10.0
    idle_seconds: float = 30.0
    body_seconds: float = 600.0
    decode_seconds: float = 120.0
    job_seconds: float = 1800.0
    keep_seconds: float = 900.0
    keep_results: int = 100
    stop_seconds: float = 60.0
    warm: tuple[str, ...] = ()
    output: Path | None = None
    work: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise RestoreError(f"must be between 0 and 65535, not {self.port}", where="--port")
        for name in ("decoders", "queue", "connections", "max_upload_bytes", "max_pixels", "keep_results"):
            if getattr(self, name) < 1:
                raise RestoreError("must be at least 1", where=f"--{name.replace('_', '-')}")
        if self.token is not None:
            if len(self.token) < MIN_TOKEN_CHARACTERS:
                raise RestoreError(
                    f"must have at least {MIN_TOKEN_CHARACTERS} characters",
                    where="--token",
                    hint="leave it out, and one is made and printed",
                )
            if not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
                raise RestoreError("must be ASCII without spaces, as headers hold it", where="--token")
        elif not self.is_loopback:
            raise RestoreError(
                "others can reach this address, so the server requires a token", where=f"--host {self.host}"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def new_token() -> str:
    """A token that nobody guesses, 256 bits."""
    return secrets.token_urlsafe(32)


def token_for(host: str, token: str | None) -> str | None:
    """The token of a server: the one given, a new one for an address that others reach, or None."""
    if token is None and not ServeSettings(host=host, token="x" * MIN_TOKEN_CHARACTERS).is_loopback:
        return new_token()
    return token


def usable_processors() -> int:
    """Processors of this process. `restore.devices` knows more, but loads PyTorch."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_extra(command: str) -> None:
    """Check that what a server needs is installed.

    Args:
        command: that needs it, as the user typed it.

    Raises:
        RestoreError: exit code 2.
    """
    from importlib.util import find_spec

    if any(find_spec(name) is None for name in ("fastapi", "uvicorn", "python_multipart")):
        raise RestoreError(
            f"`{command}` requires the extra `serve`", hint='install it: pip install "restore-toolkit[serve]"'
        )
