"""The application: its routes, its errors, and how it starts and stops."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response

from restore import __version__
from restore.errors import RestoreError
from restore.serve.api import Api, api_router
from restore.serve.connections import BACKLOG, GracefulServer, bounded_protocol
from restore.serve.docs_page import DOCS_CSS, docs_page
from restore.serve.jobs import Job, Jobs, QueueFull, Stopping
from restore.serve.problems import Refused, on_disk_full, on_error
from restore.serve.prometheus import Measure
from restore.serve.security import Security
from restore.serve.settings import ServeSettings
from restore.serve.workers import devices_of

ASSETS = Path(__file__).parent / "assets"
#: Colors, theme and divider, which the pages of reports also use.
SHARED_ASSETS = tuple(Path(__file__).parents[1] / "html" / "assets" / name for name in ("shared.css", "shared.js"))

logger = logging.getLogger(__name__)

#: Makes the routes of the page, given the jobs of the server.
PageRoutes = Callable[[Jobs], APIRouter]


def create_app(settings: ServeSettings, *, page: PageRoutes | None = None) -> FastAPI:
    """The application of a server.

    Args:
        settings: of the server.
        page: makes the routes of the page, of which `/` then is `assets/index.html`; None: only the API.

    Its `state` has `jobs`, `settings`, `spool`, `warming` (the job that opens the first models, or None), and
    `stopping`, an `asyncio.Event` that is set when the server is asked to stop: streams of events end then.
    """
    jobs = Jobs(
        devices=devices_of(settings.device),
        decoders=settings.decoders,
        queue=settings.queue,
        job_seconds=settings.job_seconds,
        decode_seconds=settings.decode_seconds,
    )

    stopping = asyncio.Event()
    # The page's work folder keeps the work of a person, but no uploads.
    spool_folder = settings.work if page is None else None
    api = Api(settings, jobs, lambda: app.state.warming, stopping, spool_folder)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(api.spool.open)
        if settings.warm or page is None:  # the page shows its first images sooner without
            app.state.warming = jobs.submit("warm", {"models": list(settings.warm)}, priority=100)
        sweeping, opening = asyncio.create_task(api.sweep()), asyncio.create_task(_tell_failure(app.state.warming))
        yield
        sweeping.cancel()
        opening.cancel()
        await asyncio.to_thread(jobs.stop, settings.stop_seconds)
        await asyncio.to_thread(api.spool.close)

    app = FastAPI(
        title="restore",
        version=__version__,
        summary="Restore damaged photographs",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.jobs, app.state.settings, app.state.spool = jobs, settings, api.spool
    app.state.stopping, app.state.warming = stopping, None
    for kind in (Refused, QueueFull, Stopping, RequestValidationError, RestoreError, HTTPException):
        app.add_exception_handler(kind, on_error)
    app.add_exception_handler(OSError, on_disk_full)
    app.include_router(api_router(api))
    _describe(app)
    if page is not None:
        app.include_router(page(jobs), include_in_schema=False)
        _serve_page(app)
    app.add_middleware(Measure, measurements=api.measurements)
    app.add_middleware(Security, settings=settings)
    return app


async def _tell_failure(warming: Job | None) -> None:
    """Tell the operator that models cannot be opened, such as a wrong name or device; requests will fail, too."""
    if warming is not None and (await warming.wait()).problem is not None:
        logger.error("error: the models cannot be opened: %s", warming.problem and warming.problem["detail"])


def _describe(app: FastAPI) -> None:
    """Serve the description of the API, for programs and for people; it needs no other host."""

    @app.get("/openapi.json", include_in_schema=False)
    def description() -> Response:
        return JSONResponse(app.openapi())

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return HTMLResponse(docs_page(app.openapi()))

    @app.get("/docs.css", include_in_schema=False)
    def style() -> Response:
        return Response(DOCS_CSS, media_type="text/css")


def _serve_page(app: FastAPI) -> None:
    """Serve the page, and the files of `assets/`, no others: a name is looked up among those that are there."""

    @app.get("/", include_in_schema=False)
    def index() -> Response:
        return FileResponse(ASSETS / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/assets/{name}", include_in_schema=False)
    def asset(name: str) -> Response:
        known = {path.name: path for path in (*ASSETS.iterdir(), *SHARED_ASSETS) if path.is_file()}
        if name not in known:
            raise Refused("not_found", "there is no such file")
        return FileResponse(known[name], headers={"Cache-Control": "no-cache"})

    @app.get("/favicon.ico", include_in_schema=False)
    def icon() -> Response:
        return RedirectResponse("/assets/icon.svg") if (ASSETS / "icon.svg").is_file() else Response(status_code=204)


def listen(settings: ServeSettings) -> socket.socket:
    """The socket of a server.

    Raises:
        RestoreError: exit code 2; the address is not this machine's, or the port is taken.
    """
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(512)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise RestoreError(
            f"cannot be listened on: {error.strerror or error}", where=where, hint="choose another --port or --host"
        ) from error
    return listener


def address_of(settings: ServeSettings, listener: socket.socket, *, with_token: bool = True) -> str:
    """The address to open in a browser; with the token, the browser is let in."""
    host = settings.host
    if host in ("0.0.0.0", "::"):
        host = _own_address()
    token = f"?token={settings.token}" if with_token and settings.token is not None else ""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/{token}"


def _own_address() -> str:
    """The address by which others reach this machine; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737: it only chooses the interface
        return str(probe.getsockname()[0])
    return socket.gethostname()


def make_server(settings: ServeSettings, *, page: PageRoutes | None = None) -> GracefulServer:
    """The server of `run`, for those who start and stop it themselves: `run(sockets=[listener])`, `should_exit`."""
    app = create_app(settings, page=page)

    def stop() -> None:
        app.state.stopping.set()
        app.state.jobs.refuse()

    config = uvicorn.Config(
        app,
        http=bounded_protocol(settings),
        backlog=BACKLOG,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a client could claim to be another one
        timeout_keep_alive=max(1, round(settings.header_seconds)),
        timeout_graceful_shutdown=max(1, round(settings.stop_seconds)),
    )
    return GracefulServer(config, stop, app)


def run(
    settings: ServeSettings,
    *,
    page: PageRoutes | None = None,
    on_ready: Callable[[str], None] | None = None,
    listener: socket.socket | None = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM: then running jobs are finished, and new ones refused.

    Args:
        settings: of the server.
        page: as for `create_app`.
        on_ready: called with the address for a browser when the server listens.
        listener: from `listen`; None: it is made here.

    Raises:
        RestoreError: as `listen`; or exit code 2: the folder for uploads cannot be made.
    """
    listener = listener or listen(settings)
    server = make_server(settings, page=page)
    server.app.state.spool.open()  # where errors are still told in words
    if on_ready is not None:
        on_ready(address_of(settings, listener))  # it listens already: a browser that is quicker waits
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again when it has stopped
        server.run(sockets=[listener])
