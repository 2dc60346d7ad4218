"""Errors as answers: problem details (RFC 9457), in the words of the command line."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from restore.config import message_of
from restore.errors import RestoreError
from restore.files import write_error_message
from restore.serve.jobs import QueueFull, Stopping
from restore.serve.workers import Json, problem_of

MEDIA_TYPE = "application/problem+json"

#: Code of a problem -> status and title. The codes of images are those of `restore.fix.log.ReasonCode`.
KINDS: dict[str, tuple[int, str]] = {
    "bad_request": (422, "The request is invalid"),
    "malformed": (400, "The request cannot be read"),
    "unauthorized": (401, "A token is required"),
    "forbidden": (403, "The request comes from another site"),
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "The method is not allowed here"),
    "not_finished": (409, "The job is not finished"),
    "no_worker": (503, "No process can be started"),
    "late": (503, "It took too long"),
    "body_late": (408, "The request took too long"),
    "body_too_large": (413, "The request is too large"),
    "queue_full": (429, "The queue is full"),
    "stopping": (503, "The server is shutting down"),
    "cancelled": (409, "The job was cancelled"),
    # Of images
    "no_mask": (422, "The image has no mask"),
    "several_masks": (422, "The image has several masks"),
    "bad_mask": (422, "The mask does not fit"),
    "not_an_image": (415, "The file is not an image"),
    "unsupported": (415, "The format is not supported"),
    "too_large": (413, "The image is too large"),
    "damaged": (422, "The image is damaged"),
    "crashed": (422, "The process that did the work crashed"),
    "out_of_memory": (507, "Out of memory"),
    "disk_full": (507, "The disk is full"),
    "failed": (422, "The image cannot be repaired"),
    "unexpected": (500, "Internal error"),
}


class Refused(HTTPException):
    """A request that is refused.

    Args:
        code: of `KINDS`.
        detail: why, as a sentence without a full stop.
        hint: what to do about it.
        headers: of the answer.
    """

    def __init__(
        self, code: str, detail: str, *, hint: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(KINDS[code][0], detail, dict(headers or {}))
        self.code, self.hint = code, hint


def problem(
    code: str, detail: str, *, where: str | None = None, hint: str | None = None, status: int | None = None
) -> Json:
    """The fields of a problem: type, title, status, detail, code, where, hint."""
    known, title = KINDS.get(code, (500, "An error"))
    return {
        "type": f"urn:restore:problem:{code}",
        "title": title,
        "status": status or known,
        "detail": detail,
        "code": code,
        "where": where,
        "hint": hint,
    }


def answer(fields: Json, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A problem as a response."""
    return JSONResponse(fields, fields["status"], dict(headers or {}), media_type=MEDIA_TYPE)


def of_job(fields: Mapping[str, Any] | None) -> Json:
    """The problem of a job that failed or was cancelled."""
    given = fields or {"detail": "the job was cancelled", "code": "cancelled", "where": None, "hint": None}
    code = given["code"] if given["code"] in KINDS else "failed"
    return problem(code, given["detail"], where=given["where"], hint=given["hint"])


async def on_error(request: Request | None, error: Exception) -> Response:
    """The answer to a request that raised an error."""
    if isinstance(error, Refused):
        return answer(problem(error.code, error.detail, hint=error.hint), error.headers)
    if isinstance(error, QueueFull):
        fields = problem("queue_full", "the queue is full", hint=f"try again in {error.retry_seconds} seconds")
        return answer(fields, {"Retry-After": str(error.retry_seconds)})
    if isinstance(error, Stopping):
        return answer(problem("stopping", "the server is shutting down"), {"Retry-After": "30"})
    if isinstance(error, RequestValidationError):
        return answer(_of_validation(error))
    if isinstance(error, RestoreError):
        return answer(of_job(problem_of(error)))
    if isinstance(error, HTTPException):
        code = {404: "not_found", 405: "method_not_allowed", 400: "malformed"}.get(error.status_code, "bad_request")
        return answer(problem(code, str(error.detail), status=error.status_code), error.headers)
    return answer(problem("unexpected", f"unexpected {type(error).__name__}"))


async def on_disk_full(request: Request, error: Exception) -> Response:
    """The answer to a request that found no room on the disk. Other errors of the system are errors in the program."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise error
    return answer(problem("disk_full", write_error_message(error)))


def _of_validation(error: RequestValidationError) -> Json:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    code = "malformed" if first["type"] == "json_invalid" else "bad_request"
    return problem(code, message_of(first), where=where)
