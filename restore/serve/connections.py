"""Connections with limits that uvicorn lacks: on their number, on slow headers, and on clients that read slowly."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from restore.serve.settings import ServeSettings

_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 5\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s"
)
_TOO_MANY_BODY = (
    b'{"type": "urn:restore:problem:too_many_connections", "title": "Too many connections", "status": 503,'
    b' "detail": "too many connections are open", "code": "too_many_connections"}'
)


#: Connections that are accepted at a time. asyncio accepts as many before any can be refused.
BACKLOG = 64
#: Files that are open beside the connections that are served: of connections to be refused, uploads, and workers.
_OTHER_FILES = 4 * BACKLOG


def bounded_protocol(settings: ServeSettings) -> type[asyncio.Protocol]:
    """The class of connections for `uvicorn.Config(http=...)`, with the limits of `settings`.

    A connection is an open file. The system's limit of files is raised where it is too low, as on macOS; where that is
    not allowed, fewer connections are served.
    """
    allowed = _allow_files(settings.connections + _OTHER_FILES)

    class Bounded(_Bounded):
        limits = replace(settings, connections=min(settings.connections, max(8, allowed - _OTHER_FILES)))
        idle: ClassVar[dict[_Bounded, None]] = {}

    return Bounded


def _allow_files(number: int) -> int:
    """Let this process have this many files open. Returns how many it may have, if fewer."""
    try:
        import resource
    except ImportError:  # Windows
        return number
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < number:
        wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return number if soft == resource.RLIM_INFINITY else min(number, soft)


class _Bounded(H11Protocol):
    """A connection.

    Attributes:
        limits: of the server.
        idle: the server's connections without a request in work, oldest first.
    """

    limits: ServeSettings
    idle: ClassVar[dict[_Bounded, None]]
    _late: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected: it must send the headers of a request soon.

        If there are too many, the one that has been idle for longest is closed, so that many connections that say
        nothing keep nobody out.
        """
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            if not self.idle:
                transport.write(_TOO_MANY % (len(_TOO_MANY_BODY), _TOO_MANY_BODY))
                transport.close()
                return
            oldest = next(iter(self.idle))
            del self.idle[oldest]
            oldest.transport.abort()
        self.idle[self] = None
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived. The first bytes of a further request start its time limit."""
        waits = self.cycle is None or self.cycle.response_complete
        if waits and self._late is None:
            self._expect_headers()
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self.idle.pop(self, None)
            if self._late is not None:
                self._late.cancel()
                self._late = None

    def on_response_complete(self) -> None:
        """An answer is sent: the connection may stay for the next request."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():  # else a further request was waiting
            self.idle[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed: no time limit is left."""
        self.idle.pop(self, None)
        for timer in (self._late, self._stuck):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client takes no more of an answer: it must go on soon."""
        super().pause_writing()
        self._stuck = self.loop.call_later(self.limits.idle_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client takes more of an answer."""
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
        super().resume_writing()

    def _expect_headers(self) -> None:
        self._late = self.loop.call_later(self.limits.header_seconds, self._close_late)

    def _close_late(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self.transport.abort()


class GracefulServer(uvicorn.Server):
    """A server that tells the application at once when it is asked to stop.

    Args:
        config: of uvicorn.
        on_stop: called at the first signal, in the main thread.
        app: the application.
    """

    def __init__(self, config: uvicorn.Config, on_stop: Any, app: Any) -> None:
        super().__init__(config)
        self._on_stop, self.app = on_stop, app

    async def shutdown(self, sockets: Any = None) -> None:
        """Stop: first the application refuses new work, then uvicorn waits for open requests."""
        self._on_stop()
        await super().shutdown(sockets)
