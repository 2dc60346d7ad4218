"""Access control: the host, the origin and the token of a request; limits of its body; headers of every answer.

A page of another site may send requests to a server on this machine, or have its own name point there (DNS rebinding).
So the name in `Host` must be one of this server's, and `Origin`, which browsers set and pages cannot, must be the
server's own. A token protects a server that others reach.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import html
import ipaddress
import logging
import re
import socket
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from restore.serve.problems import Refused, on_error
from restore.serve.settings import ServeSettings

logger = logging.getLogger(__name__)

#: No script, style or image but the server's own; nothing inline; nobody frames the page.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "font-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)

_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}

#: What answers without a token: whether the server lives, and nothing else.
_OPEN_PATHS = ("/health", "/ready")
#: A page of this server that leads to another one.
_LEADING_ON = (
    '<!doctype html><title>restore</title><meta http-equiv="refresh" content="0;url={target}">'
    '<p><a href="{target}">Continue</a></p>\n'
)
#: A name or an address, and a port.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
#: Requests whose bodies are streamed to disk. Those of all others are held in memory, so that they must be small.
_STREAMED = re.compile(r"/v1/(fix|detect|eval)|/page/files/[0-9]+/mask\.png")
_SMALL_BODY_BYTES = 4 << 20
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class Security:
    """ASGI middleware; the outermost, so that no request reaches the application unchecked.

    Args:
        app: the application.
        settings: `token`, `host`, `allowed_hosts`, and the limits of bodies.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self.app, self.settings = app, settings
        self._names = {name.lower() for name in settings.allowed_hosts} | {"localhost"}
        if not settings.is_loopback:
            self._names |= {socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}
        self._names.add(settings.host.lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and pass it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            return
        headers = Headers(scope=scope)
        with_headers = _Secured(send)
        try:
            redirect = self._check(scope, headers)
        except Refused as error:
            await self._refuse(scope, receive, with_headers, error)
            return
        if redirect is not None:
            await redirect(scope, receive, with_headers)
            return
        try:
            await self.app(scope, _Bounded(receive, self.settings, self._body_bytes(scope)), with_headers)
        except asyncio.CancelledError:  # the server stops, and has waited long enough
            if not with_headers.started:
                await self._refuse(scope, receive, with_headers, Refused("stopping", "the server is shutting down"))
        except Exception as error:  # an error in the program: its answer has the headers of every other
            if with_headers.started:
                raise
            logger.exception("%r", scope["path"])  # escaped, because it goes to a terminal
            await (await on_error(None, error))(scope, receive, with_headers)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, error: Refused) -> None:
        response = await on_error(None, error)
        response.headers["Connection"] = "close"  # whatever body there is stays unread
        await response(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> Response | None:
        """Check the headers of a request.

        Returns:
            None: it may pass; or a redirect that sets the cookie of a visitor who brought the token.

        Raises:
            Refused: it may not.
        """
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not self._is_own_host(host):
            raise Refused("forbidden", "the server does not accept this host name", hint="--allow-host adds one")
        self._check_origin(scope, headers, host)
        length = headers.get("content-length")
        if length is not None and "transfer-encoding" in headers:  # a proxy may see two requests where this sees one
            raise Refused("malformed", "a request has either Content-Length or Transfer-Encoding")
        if length is not None and (not length.isdecimal() or int(length) > self._body_bytes(scope)):
            raise Refused("body_too_large", f"the limit is {self._body_bytes(scope)} bytes")
        if self.settings.token is None:
            return None
        return self._check_token(scope, headers, self.settings.token)

    def _body_bytes(self, scope: Scope) -> int:
        """The largest body that a request may have."""
        limit = self.settings.max_upload_bytes
        return limit if _STREAMED.fullmatch(scope["path"]) else min(limit, _SMALL_BODY_BYTES)

    def _is_own_host(self, host: str) -> bool:
        if not (match := _HOST.fullmatch(host)):
            return False
        name = match[1].lower()
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        # A page of another site has a name; an address can only have been typed in.
        return address.is_loopback or not self.settings.is_loopback

    def _check_origin(self, scope: Scope, headers: Headers, host: str) -> None:
        origins = headers.getlist("origin")
        if origins:
            own = {f"{scheme}://{host}".lower() for scheme in ("http", "https")}
            if not all(origin.lower() in own for origin in origins):
                raise Refused("forbidden", "the request comes from a page of another site")
            return
        site = headers.get("sec-fetch-site")
        if site in (None, "same-origin", "none"):
            return
        follows_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if scope["method"] not in _SAFE_METHODS or not follows_link:
            raise Refused("forbidden", "the request comes from a page of another site")

    def _check_token(self, scope: Scope, headers: Headers, token: str) -> Response | None:
        if scope["path"] in _OPEN_PATHS:
            return None
        name = cookie_name(scope)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        brought = [value for key, value in query if key == "token"]
        if scope["method"] == "GET" and len(brought) == 1 and _same(brought[0], token):
            rest = urlencode([(key, value) for key, value in query if key != "token"])
            # Of this server, whatever stands in the path: `//elsewhere` would be another one.
            target = "/" + quote(scope["path"].lstrip("/\\")) + (f"?{rest}" if rest else "")
            if headers.get("sec-fetch-site") in (None, "same-origin", "none"):
                response = Response(status_code=303, headers={"Location": target})
            else:  # after a redirect that began at another site, or at a file, a browser would not send the cookie
                response = Response(_LEADING_ON.format(target=html.escape(target)), media_type="text/html")
            response.headers["Cache-Control"] = "no-store"
            response.set_cookie(name, cookie_value(token), httponly=True, samesite="strict", path="/")
            return response
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _same(given.strip(), token):
            return None
        if any(_same(value, cookie_value(token)) for value in _cookies(headers, name)):
            return None
        raise Refused(
            "unauthorized",
            "the token is missing or wrong",
            hint="open the address that the server printed, or send it as `Authorization: Bearer TOKEN`",
            headers={"WWW-Authenticate": "Bearer"},
        )


def cookie_name(scope: Scope) -> str:
    """The cookie of this server; browsers share cookies among the ports of a host."""
    server = scope.get("server") or ("", 0)
    return f"restore_{server[1]}"


def cookie_value(token: str) -> str:
    """What the cookie holds: a browser's store need not know the token itself."""
    return hmac.new(token.encode(), b"restore cookie", hashlib.sha256).hexdigest()


def _same(given: str, expected: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


def _cookies(headers: Headers, name: str) -> list[str]:
    """All values of a cookie. Servers on other ports of this host set cookies, too; one of the same name does not hide
    the server's own.
    """
    pairs = [pair.partition("=") for line in headers.getlist("cookie") for pair in line.split(";")]
    return [value.strip() for key, _, value in pairs if key.strip() == name]


class _Secured:
    """`send` that adds the headers of `_HEADERS` to an answer; what the application sets itself stays."""

    def __init__(self, send: Send) -> None:
        self._send, self.started = send, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)


class _Bounded:
    """`receive` of a request with limits on the bytes of its body, and on the time that it takes to arrive.

    Raises:
        Refused: a limit is exceeded.
    """

    def __init__(self, receive: Receive, settings: ServeSettings, max_bytes: int) -> None:
        self._receive, self._settings, self._max_bytes = receive, settings, max_bytes
        self._bytes = 0
        self._complete = False
        self._deadline: float | None = None

    async def __call__(self) -> Message:
        if self._complete:  # what comes now is the end of the connection, which has no time limit
            return await self._receive()
        now = asyncio.get_running_loop().time()
        if self._deadline is None:
            self._deadline = now + self._settings.body_seconds
        seconds = min(self._settings.idle_seconds, self._deadline - now)
        try:
            message: Message = await asyncio.wait_for(self._receive(), max(seconds, 0.001))
        except asyncio.TimeoutError:
            raise Refused("body_late", "the body did not arrive in time", headers={"Connection": "close"}) from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._max_bytes:
            detail = f"the limit is {self._max_bytes} bytes"
            raise Refused("body_too_large", detail, headers={"Connection": "close"})
        self._complete = not message.get("more_body", False)
        return message


def describe(settings: ServeSettings) -> dict[str, Any]:
    """The limits of a server, for its users."""
    return {
        "max_upload_bytes": settings.max_upload_bytes,
        "max_pixels": settings.max_pixels,
        "queue": settings.queue,
        "keep_seconds": settings.keep_seconds,
    }
