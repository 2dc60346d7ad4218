"""The page's requests, as the page's script makes them. A session answers; here are only HTTP and JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from restore.serve.page.mask_store import Change
from restore.serve.page.painting import Painting
from restore.serve.page.pyramid import coverage_png
from restore.serve.page.repairs import Repairs
from restore.serve.page.saving import FileExists
from restore.serve.page.session import Json, Session
from restore.serve.page.work_folder import NotFound
from restore.serve.problems import Refused, answer, problem

#: Answers that name their state in `?v=` never change.
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
_FRESH = {"Cache-Control": "private, no-cache"}
#: How long a request for a thumbnail waits until it is made.
_THUMBNAIL_SECONDS = 20.0
#: Events that a slow page may have waiting; after that it has to load anew.
_WAITING_EVENTS = 10_000
_HEARTBEAT_SECONDS = 15.0


T = TypeVar("T")


class Stroke(BaseModel):
    """A stroke: points (x, y, radius)."""

    points: list[tuple[float, float, float]]
    softness: float = 0.0
    erase: bool = False


class Polygon(BaseModel):
    """A polygon: points (x, y)."""

    points: list[tuple[float, float]]
    erase: bool = False


class Found(BaseModel):
    """What was found, all of it or at a point (x, y)."""

    threshold: float
    at: tuple[float, float] | None = None
    erase: bool = False


class Growth(BaseModel):
    """How far a mask grows; negative: shrinks."""

    px: int


class Part(BaseModel):
    """A part of an image: [left, top, right, bottom]; None: all of it."""

    box: tuple[float, float, float, float] | None = None


class WithRecipe(BaseModel):
    """Settings of a recipe that differ from the stored ones."""

    recipe: dict[str, Any] | None = None


class Saving(BaseModel):
    """Whether files are replaced that the page has not written."""

    overwrite: bool = False


class Applying(BaseModel):
    """The files to repair by a recipe; None: all that nobody has touched."""

    ids: list[int] | None = None
    recipe: dict[str, Any] | None = None


def page_routes(session: Session) -> APIRouter:
    """The routes of the page."""
    router = APIRouter(prefix="/page")

    @router.get("/session")
    def describe() -> Json:
        return session.describe()

    @router.get("/files")
    def files() -> list[Json]:
        return session.files()

    @router.get("/events")
    async def events(request: Request) -> Response:
        return StreamingResponse(
            _events(session, request.app.state.stopping),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )

    repairs = Repairs(session)
    _add_image_routes(router, session, repairs)
    _add_mask_routes(router, session, Painting(session))
    _add_work_routes(router, session, repairs)
    return router


def _add_image_routes(router: APIRouter, session: Session, repairs: Repairs) -> None:
    """What is shown."""

    @router.get("/files/{file}")
    def detail(file: int) -> Response:
        found = _known(lambda: session.detail(file))
        return JSONResponse(found, 202 if found["state"] == "preparing" else 200)

    @router.get("/files/{file}/thumbnail")
    async def thumbnail(file: int, v: str | None = None) -> Response:
        job = await run_in_threadpool(_known, lambda: session.thumbnail_job(file, asked=True))
        if job is not None:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(job.wait(), _THUMBNAIL_SECONDS)
        row = session.workspace.row(file)
        path = session.workspace.thumbnail(row)
        if not path.is_file():
            return Response(status_code=204)  # the image has failed; a browser would log 404 as an error of the page
        return FileResponse(path, media_type="image/jpeg", headers=_headers(v, row["revision"]))

    @router.get("/files/{file}/tiles/{which}/{level}/{x}/{y}")
    def tile(file: int, which: str, level: int, x: int, y: int, v: str | None = None) -> Response:
        if which not in ("original", "repaired"):
            return _not_found("there are only tiles of original and repaired")
        row = _known(lambda: session.workspace.row(file))
        data = _known(lambda: session.tiles(file, which)).read(level, x, y)
        if data is None:
            return _not_found("there is no such tile")
        headers = _headers(v, row["original" if which == "original" else "result"])
        return Response(data, media_type="image/jpeg", headers=headers)

    @router.get("/files/{file}/found/{level}/{x}/{y}")
    def found(file: int, level: int, x: int, y: int, v: str | None = None) -> Response:
        row = _known(lambda: session.workspace.row(file))
        data = _known(lambda: session.probabilities(file)).read(level, x, y)
        headers = _headers(v, row["found"])
        return Response(status_code=204, headers=headers) if data is None else _png(data, headers)

    @router.get("/files/{file}/mask/{level}/{x}/{y}")
    def mask_tile(file: int, level: int, x: int, y: int, v: str | None = None) -> Response:
        size = _known(lambda: session.workspace.size(file))
        revision = session.workspace.row(file)["mask"]
        pixels = session.workspace.masks.reduced(file, level, x, y, size)
        headers = _headers(v, revision if revision == session.workspace.row(file)["mask"] else None)
        return Response(status_code=204, headers=headers) if pixels is None else _png(coverage_png(pixels), headers)

    @router.get("/files/{file}/previews/{number}")
    def preview_file(file: int, number: int) -> Response:
        path = _known(lambda: repairs.preview_file(file, number))
        return FileResponse(path, media_type="image/jpeg", headers=_FOREVER)


def _add_mask_routes(router: APIRouter, session: Session, painting: Painting) -> None:
    """What is painted."""

    @router.post("/files/{file}/mask/stroke")
    def stroke(file: int, body: Stroke) -> Json:
        points = [list(point) for point in body.points]
        return _changed(lambda: painting.stroke(file, points, body.softness, erase=body.erase))

    @router.post("/files/{file}/mask/polygon")
    def polygon(file: int, body: Polygon) -> Json:
        points = [list(point) for point in body.points]
        return _changed(lambda: painting.polygon(file, points, erase=body.erase))

    @router.post("/files/{file}/mask/found")
    def paint_found(file: int, body: Found) -> Json:
        at = None if body.at is None else list(body.at)
        return _changed(lambda: painting.paint_found(file, body.threshold, at, erase=body.erase))

    @router.post("/files/{file}/mask/grow")
    def grow(file: int, body: Growth) -> Json:
        return _changed(lambda: painting.change(file, "grow", body.px))

    def whole(what: str) -> Callable[..., Json]:
        def change(file: int, level: int | None = None) -> Json:
            return _changed(lambda: painting.change(file, what, level=level))

        return change

    for what in ("invert", "clear", "undo", "redo"):
        router.add_api_route(f"/files/{{file}}/mask/{what}", whole(what), methods=["POST"])
    router.add_api_route("/files/{file}/ground", whole("ground"), methods=["POST"])

    @router.get("/files/{file}/mask.png")
    def mask_png(file: int) -> Response:
        return _png(_known(lambda: session.mask_png(file)), _FRESH)

    @router.put("/files/{file}/mask.png")
    async def load_mask(file: int, request: Request) -> Response:
        await run_in_threadpool(_known, lambda: session.workspace.size(file))
        path = session.workspace.work / "masks" / f"{file}-{session.workspace.new_revision()}.upload"
        try:
            with open(path, "xb") as stream:
                async for piece in request.stream():
                    await run_in_threadpool(stream.write, piece)
            job = await run_in_threadpool(painting.load_mask, file, path)  # from here on the job removes the file
        except ClientDisconnect as error:
            path.unlink(missing_ok=True)
            raise Refused("malformed", "the connection ended within the mask") from error
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        await job.wait()
        if job.state != "done":
            fields = job.problem or {"detail": "cancelled", "code": "cancelled", "where": None, "hint": None}
            return answer(problem("bad_mask", fields["detail"], hint=fields["hint"], status=422))
        return JSONResponse(job.result)


def _add_work_routes(router: APIRouter, session: Session, repairs: Repairs) -> None:
    """What is done with it."""

    @router.post("/files/{file}/detect")
    def detect(file: int) -> Json:
        return {"job": _known(lambda: repairs.detect(file)).id}

    @router.post("/files/{file}/preview")
    def preview(file: int, body: Part | None = None) -> Json:
        box = None if body is None or body.box is None else list(body.box)
        return {"job": _known(lambda: repairs.preview(file, box)).id}

    @router.post("/files/{file}/repair")
    def repair(file: int, body: WithRecipe | None = None) -> Json:
        return {"job": _known(lambda: repairs.repair(file, None if body is None else body.recipe)).id}

    @router.put("/files/{file}/recipe")
    def set_recipe(file: int, body: dict[str, Any]) -> Json:
        return dict(_known(lambda: session.workspace.set_recipe(file, body)))

    @router.post("/files/{file}/save", response_model=None)
    def save(file: int, body: Saving | None = None) -> Json | Response:
        try:
            return _known(lambda: repairs.save(file, overwrite=body is not None and body.overwrite))
        except FileExists as error:
            return answer(problem("exists", error.what, where=error.where, hint=error.hint, status=409))

    @router.post("/apply")
    def apply(body: Applying) -> Json:
        return {"jobs": [job.id for job in _known(lambda: repairs.apply(body.ids, body.recipe or {}))]}

    @router.get("/jobs/{job}")
    def one_job(job: str) -> Json:
        return _known(lambda: session.job(job))

    @router.post("/jobs/{job}/cancel")
    def cancel(job: str) -> Json:
        return _known(lambda: session.cancel(job))


def _known(ask: Callable[[], T]) -> T:
    """The answer of a session; what it does not know becomes status 404."""
    try:
        return ask()
    except NotFound as error:
        raise Refused("not_found", error.what, hint=error.hint) from error


def _changed(change: Callable[[], Change]) -> Json:
    return dict(_known(change).to_dict())


def _headers(asked: str | None, revision: int | None) -> dict[str, str]:
    """Those of an answer that belongs to a revision; None: it changed meanwhile. The page may ask for one that it
    knows, and get a later one.
    """
    kept = _FOREVER if asked is not None and asked == str(revision) else _FRESH
    return kept if revision is None else kept | {"Restore-Revision": str(revision)}


def _not_found(detail: str) -> Response:
    return answer(problem("not_found", detail))


def _png(data: bytes, headers: dict[str, str]) -> Response:
    return Response(data, media_type="image/png", headers=headers)


async def _events(session: Session, stopping: asyncio.Event) -> AsyncIterator[str]:
    """Events as a stream (SSE). The first, `listening`, says that no change is missed from here on. A comment now and
    then lets a lost connection be noticed.
    """
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[tuple[str, Json]](_WAITING_EVENTS)
    lost = asyncio.Event()

    def put(event: str, what: Json) -> None:
        try:
            queue.put_nowait((event, what))
        except asyncio.QueueFull:
            lost.set()

    def listener(event: str, what: Json) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(put, event, what)

    stop = session.listen(listener)
    ended = asyncio.ensure_future(stopping.wait())
    try:
        yield "event: listening\ndata: {}\n\n"
        while not stopping.is_set() and not lost.is_set():
            getting = asyncio.ensure_future(queue.get())
            try:
                await asyncio.wait({getting, ended}, timeout=_HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not getting.done():
                    getting.cancel()
            if getting.done() and not getting.cancelled():
                event, what = getting.result()
                yield f"event: {event}\ndata: {json.dumps(what)}\n\n"
            else:
                yield ": still here\n\n"
    finally:
        ended.cancel()
        stop()
