"""The HTTP API: `/v1/fix`, `/v1/detect`, `/v1/eval`, their jobs, the models, and what operators ask."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from restore.serve import problems, prometheus
from restore.serve.api_schema import ANSWERS_FILE, ANSWERS_JSON, EVAL_BODY, JOB_ANSWERS, detect_body, fix_body
from restore.serve.jobs import Job, Jobs, QueueFull
from restore.serve.problems import Refused
from restore.serve.request_options import detect_options, eval_options, fix_options, model_name
from restore.serve.security import describe
from restore.serve.settings import ServeSettings
from restore.serve.spool import Kept, Spool
from restore.serve.uploads import Form, receive_form
from restore.serve.workers import Json

logger = logging.getLogger(__name__)

#: A stream of events says at least this often that it lives.
_HEARTBEAT_SECONDS = 15.0
#: On a GPU, requests of smaller files with the same options are repaired in one run if they wait, to fill its batches.
#: On a processor, that gains nothing (8.8 and 13.2 repairs/s together, 5.7 and 15.8 alone, on two busy cores).
_SMALL_FILE_BYTES = 1 << 20
#: Proxies refuse headers that are larger.
_HEADER_CHARACTERS = 3000

#: First bytes of a file -> media type; what is not here goes by its suffix, or is bytes.
_MEDIA_TYPES = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (0, b"II+\0", "image/tiff"),
    (0, b"MM\0+", "image/tiff"),
    (8, b"WEBP", "image/webp"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypavis", "image/avif"),
    (0, b"GIF8", "image/gif"),
    (0, b"BM", "image/bmp"),
)


class Api:
    """What the routes share.

    Args:
        settings: of the server.
        jobs: of the server.
        warming: gives the job that opens the first models; None: there is none.
        stopping: set when the server is asked to stop.
        spool_folder: gets the folder of uploads and results; None: the system's folder for temporary files.
    """

    def __init__(
        self,
        settings: ServeSettings,
        jobs: Jobs,
        warming: Callable[[], Job | None],
        stopping: asyncio.Event,
        spool_folder: Path | None = None,
    ) -> None:
        self.settings, self.jobs, self.warming, self.stopping = settings, jobs, warming, stopping
        self.measurements = prometheus.Measurements()
        self.spool = Spool(spool_folder, keep_seconds=settings.keep_seconds, keep_results=settings.keep_results)
        self._arriving = 0
        self._catalog: list[Json] | None = None

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[Path]:
        """A folder for a request that is being received. It has a place in the queue from its first byte on.

        Raises:
            QueueFull: no place is left; nothing has been received.
            Stopping: the server stops.
        """
        self.jobs.check_open()
        if self._arriving + self.jobs.queue_length() >= self.settings.queue:
            raise QueueFull(self.jobs.retry_seconds())
        self._arriving += 1
        folder = await asyncio.to_thread(self.spool.new_folder)
        try:
            yield folder
        except BaseException:
            self.spool.remove(folder)
            raise
        finally:
            self._arriving -= 1

    async def answer(
        self, request: Request, folder: Path, job: Job, finish: Callable[[Job, Path], Response]
    ) -> Response:
        """The answer to a request: the result, or, if the client prefers not to wait, the job (status 202)."""
        if "respond-async" in request.headers.get("prefer", "").lower():
            self.spool.keep(job, folder)
            headers = {"Location": f"/v1/jobs/{job.id}", "Preference-Applied": "respond-async"}
            return JSONResponse(self.public(job, folder), 202, headers)
        try:
            await _finished_or_gone(request, job)
        except BaseException:
            job.cancel()
            self.spool.remove(folder)
            raise
        finally:
            self.jobs.forget(job)
        response = finish(job, folder)
        response.background = BackgroundTask(self.spool.remove, folder)
        return response

    def public(self, job: Job, folder: Path) -> Json:
        """A job as clients see it: without the server's paths."""
        fields = job.to_dict()
        result = fields.pop("result")
        if fields["problem"] is not None or job.state == "cancelled":
            fields["problem"] = without_folder(problems.of_job(fields["problem"]), folder)
        if job.state == "done" and result is not None:
            facts = {"scores": result} if job.task == "evaluate" else _facts(result, folder)
            fields["result"] = facts | {"url": f"/v1/jobs/{job.id}/result"}
        else:
            fields["result"] = None
        return fields

    async def catalog(self) -> list[Json]:
        """The models that have names."""
        if self._catalog is None:
            job = self.warming()
            if job is not None:
                await job.wait()
            if job is None or job.result is None:
                job = self.jobs.submit("list_models", {}, priority=50)
                await job.wait()
            if job.result is None:
                raise Refused("unexpected", "the models cannot be listed")
            self._catalog = job.result["catalog"]
        return self._catalog

    def has_gpu(self) -> bool:
        """Whether networks run on a GPU, as far as is known."""
        job = self.warming()
        return job is not None and job.result is not None and job.result.get("device", "cpu") != "cpu"

    async def sweep(self) -> None:
        """Remove old results, for as long as the server runs."""
        while True:
            await asyncio.sleep(min(10.0, self.settings.keep_seconds))
            try:
                await asyncio.to_thread(self.spool.sweep)
            except Exception:  # it is tried again; without, results would stay for good
                logger.exception("old results are not removed")


def api_router(api: Api) -> APIRouter:
    """The routes of the API."""
    router = APIRouter()
    _add_work(router, api)
    _add_jobs(router, api)
    _add_operations(router, api)
    return router


def _add_work(router: APIRouter, api: Api) -> None:
    limits = api.settings

    @router.post("/v1/fix", openapi_extra=fix_body(), responses=ANSWERS_FILE, response_class=Response, tags=["work"])
    async def fix(request: Request) -> Response:
        """Repair an image. The answer has the bytes that `restore fix` writes."""
        async with api.receiving() as folder:
            form = await receive_form(request, folder, files=("image", "mask"), fields=("options", "model"))
            image, mask = _required(form, "image"), form.files.get("mask")
            options = fix_options(form.fields.get("options"), has_mask=mask is not None, max_pixels=limits.max_pixels)
            params = {
                "input": str(image),
                "output": f"{folder / 'out'}/",
                "mask": None if mask is None else str(mask),
                "options": options,
                "model": model_name(form.fields.get("model")),
            }
            group = ""
            if api.has_gpu() and image.stat().st_size <= _SMALL_FILE_BYTES:
                group = json.dumps([options, params["model"], mask is not None], sort_keys=True)
            job = api.jobs.submit("fix", params, counted=True, group=group)
        return await api.answer(request, folder, job, _file_answer)

    @router.post(
        "/v1/detect", openapi_extra=detect_body(), responses=ANSWERS_FILE, response_class=Response, tags=["work"]
    )
    async def detect(request: Request) -> Response:
        """Detect damage. The answer is the mask that `restore detect` writes: PNG, 8 bits, white = damaged."""
        async with api.receiving() as folder:
            form = await receive_form(request, folder, files=("image",), fields=("options", "model"))
            image = _required(form, "image")
            params = {
                "input": str(image),
                "output": str(folder / "out" / "mask.png"),
                "options": detect_options(form.fields.get("options"), max_pixels=limits.max_pixels),
                "model": model_name(form.fields.get("model")),
            }
            job = api.jobs.submit("detect", params, counted=True)
        return await api.answer(request, folder, job, _file_answer)

    @router.post(
        "/v1/eval", openapi_extra=EVAL_BODY, responses=ANSWERS_JSON, response_class=JSONResponse, tags=["work"]
    )
    async def evaluate(request: Request) -> Response:
        """Score a restored image against its reference. The answer is the report of `restore eval --json`."""
        async with api.receiving() as folder:
            form = await receive_form(request, folder, files=("restored", "reference", "mask"), fields=("options",))
            restored, reference = _required(form, "restored"), _required(form, "reference")
            mask = form.files.get("mask")
            params = {
                "restored": str(restored),
                "reference": str(reference),
                "mask": None if mask is None else str(mask),
                "max_pixels": limits.max_pixels,
                **eval_options(form.fields.get("options"), has_mask=mask is not None),
            }
            job = api.jobs.submit("evaluate", params, counted=True)
        return await api.answer(request, folder, job, _json_answer)


def _add_jobs(router: APIRouter, api: Api) -> None:
    def kept(identifier: str) -> Kept:
        found = api.spool.get(identifier)
        if found is None:
            raise Refused("not_found", "there is no such job", hint="results are kept for a limited time")
        return found

    @router.get("/v1/jobs/{identifier}", responses=JOB_ANSWERS, response_class=JSONResponse, tags=["jobs"])
    async def job(identifier: str) -> Response:
        """The state of a job."""
        found = kept(identifier)
        return JSONResponse(api.public(found.job, found.folder))

    @router.get("/v1/jobs/{identifier}/events", responses=JOB_ANSWERS, response_class=StreamingResponse, tags=["jobs"])
    async def events(identifier: str) -> Response:
        """The state of a job whenever it changes, as server-sent events `job`, until it is finished."""
        found = kept(identifier)

        async def stream() -> AsyncIterator[bytes]:
            async for _ in _with_heartbeat(found.job.events(), api.stopping):
                if _ is None:
                    yield b": alive\n\n"
                else:
                    fields = json.dumps(api.public(found.job, found.folder))
                    yield f"event: job\ndata: {fields}\n\n".encode()

        return StreamingResponse(stream(), media_type="text/event-stream")

    @router.get("/v1/jobs/{identifier}/result", responses=ANSWERS_FILE, response_class=Response, tags=["jobs"])
    async def result(identifier: str) -> Response:
        """The result of a job: what the request would have been answered."""
        found = kept(identifier)
        if not found.job.is_finished:
            raise Refused(
                "not_finished", "the job is not finished", hint="ask again later", headers={"Retry-After": "1"}
            )
        if found.job.task == "evaluate":
            return _json_answer(found.job, found.folder)
        return _LentAnswer(api.spool, identifier)

    @router.post("/v1/jobs/{identifier}/cancel", responses=JOB_ANSWERS, response_class=JSONResponse, tags=["jobs"])
    async def cancel(identifier: str) -> Response:
        """Take a job out of the queue, or interrupt it. A job that is finished stays as it is."""
        found = kept(identifier)
        found.job.cancel()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(found.job.wait(), 10)
        return JSONResponse(api.public(found.job, found.folder))

    @router.delete("/v1/jobs/{identifier}", status_code=204, response_class=Response, tags=["jobs"])
    async def delete(identifier: str) -> Response:
        """Cancel a job, and remove its files."""
        found = kept(identifier)
        found.job.cancel()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(found.job.wait(), 10)
        await asyncio.to_thread(api.spool.drop, identifier)
        return Response(status_code=204)


def _add_operations(router: APIRouter, api: Api) -> None:
    @router.get("/v1/models", response_class=JSONResponse, tags=["models"])
    async def models() -> Response:
        """The models that requests can name, as `restore models --json` lists them."""
        return JSONResponse({"models": await api.catalog()})

    @router.get("/v1/limits", response_class=JSONResponse, tags=["models"])
    async def limits() -> Response:
        """What this server accepts."""
        return JSONResponse(describe(api.settings))

    @router.get("/health", response_class=JSONResponse, tags=["operation"])
    async def health() -> Response:
        """Whether the server lives. Needs no token."""
        return JSONResponse({"status": "ok"})

    @router.get("/ready", response_class=JSONResponse, tags=["operation"])
    async def ready() -> Response:
        """Whether requests are answered without waiting for models to open: status 200 or 503. Needs no token."""
        warming = api.warming()
        is_ready = not api.jobs.is_stopping and (warming is None or warming.state == "done")
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503, {} if is_ready else {"Retry-After": "2"})

    @router.get("/metrics", response_class=PlainTextResponse, tags=["operation"])
    async def metrics() -> Response:
        """Measurements in Prometheus's text format."""
        return Response(api.measurements.render(api.jobs), media_type=prometheus.MEDIA_TYPE)


# Answers


def media_type_of(path: Path) -> str:
    """The media type of an image by its first bytes."""
    with open(path, "rb") as file:
        start = file.read(16)
    for offset, magic, name in _MEDIA_TYPES:
        if start[offset:].startswith(magic):
            return name
    return "application/octet-stream"


def without_folder(fields: Json, folder: Path) -> Json:
    """The same without the server's paths: what is in the folder goes by its name."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace(f"{folder}/out/", "").replace(f"{folder}/", "").replace(str(folder), "upload")
        return [clean(one) for one in value] if isinstance(value, list) else value

    return {name: clean(value) for name, value in fields.items()}


def _facts(result: Json, folder: Path) -> Json:
    return without_folder({name: value for name, value in result.items() if name != "output"}, folder)


def _file_answer(job: Job, folder: Path) -> Response:
    """The file that a job wrote, or its problem."""
    if job.state != "done" or job.result is None:
        return problems.answer(without_folder(problems.of_job(job.problem), folder))
    path, facts = Path(job.result["output"]), _facts(job.result, folder)
    warnings, text = facts.pop("warnings"), json.dumps(facts)
    while warnings and len(json.dumps(warnings)) > _HEADER_CHARACTERS:
        warnings.pop()
    headers = {"Restore-Result": text, "Restore-Warnings": json.dumps(warnings)}
    try:
        status, kind = os.stat(path), media_type_of(path)
    except FileNotFoundError as error:  # it has just been deleted, or a cleaner of temporary files was here
        raise Refused("not_found", "the result is no longer there", hint="ask for the repair again") from error
    return FileResponse(path, media_type=kind, filename=f"restored{path.suffix}", headers=headers, stat_result=status)


class _LentAnswer(Response):
    """The file of a job that is kept. It stays until it is sent, even if somebody deletes the job meanwhile."""

    def __init__(self, spool: Spool, identifier: str) -> None:
        super().__init__()
        self._spool, self._identifier = spool, identifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        lent = self._spool.lend(self._identifier)
        if lent is None:
            raise Refused("not_found", "there is no such job", hint="results are kept for a limited time")
        try:
            await _file_answer(lent.job, lent.folder)(scope, receive, send)
        finally:
            await asyncio.to_thread(self._spool.give_back, lent)


def _json_answer(job: Job, folder: Path) -> Response:
    """The result of a job as JSON, or its problem."""
    if job.state != "done" or job.result is None:
        return problems.answer(without_folder(problems.of_job(job.problem), folder))
    return JSONResponse(json.loads(json.dumps(job.result).replace(json.dumps(str(folder))[1:-1], "upload")))


def _required(form: Form, name: str) -> Path:
    if name not in form.files:
        raise Refused("bad_request", f"the form has no part {name!r}", hint="send the file as multipart/form-data")
    return form.files[name]


async def _finished_or_gone(request: Request, job: Job) -> None:
    """Wait until a job is finished. If its client goes away, it is cancelled: nobody would take its result."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    waiting, leaving = asyncio.ensure_future(job.wait()), asyncio.ensure_future(gone())
    try:
        done, _ = await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if waiting not in done:
            job.cancel()
            await waiting
    finally:
        waiting.cancel()
        leaving.cancel()


async def _with_heartbeat(events: AsyncIterator[Json], stopping: asyncio.Event) -> AsyncIterator[Json | None]:
    """Events, and None where none came for a while; ends when the server stops."""
    stop = asyncio.ensure_future(stopping.wait())
    coming: asyncio.Future[Any] | None = None
    deadline = time.monotonic() + 3600
    try:
        while time.monotonic() < deadline:
            coming = coming or asyncio.ensure_future(anext(events))
            either: set[asyncio.Future[Any]] = {coming, stop}
            done, _ = await asyncio.wait(either, timeout=_HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if coming in done:
                try:
                    event = coming.result()
                except StopAsyncIteration:
                    return
                coming = None
                yield event
            elif stop in done:
                return
            else:
                yield None
    finally:
        stop.cancel()
        if coming is not None:
            coming.cancel()
