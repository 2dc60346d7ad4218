"""What OpenAPI says of the API's bodies and answers. The bodies are streamed, so FastAPI cannot derive them."""

from __future__ import annotations

from typing import Any

from restore.fix.options import DetectOptions, FixOptions
from restore.serve.request_options import EVAL_METRICS, options_schema
from restore.serve.workers import Json

_FILE = {"type": "string", "format": "binary"}
_MODEL = {"type": "string", "description": "A name of /v1/models. Default: as the command line chooses."}
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "`respond-async`: the answer is a job (status 202), and the client need not wait.",
    "schema": {"type": "string", "enum": ["respond-async"]},
}
PROBLEM: Json = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "The reason, as on the command line."},
        "code": {
            "type": "string",
            "description": "The reason as a code for programs: that of logs, or one of a few more.",
        },
        "where": {"type": ["string", "null"]},
        "hint": {"type": ["string", "null"], "description": "What to do about it."},
    },
}
JOB: Json = {
    "type": "object",
    "required": ["id", "task", "state"],
    "properties": {
        "id": {"type": "string"},
        "task": {"type": "string"},
        "state": {"enum": ["queued", "running", "done", "failed", "cancelled"]},
        "progress": {"type": ["number", "null"], "description": "In [0, 1]; null: not known."},
        "message": {"type": "string"},
        "result": {"type": ["object", "null"], "description": "`url` is where the result can be fetched."},
        "problem": {"anyOf": [PROBLEM, {"type": "null"}]},
        "created": {"type": "number", "description": "Unix time; likewise `started` and `finished`."},
        "started": {"type": ["number", "null"]},
        "finished": {"type": ["number", "null"]},
    },
}


def _refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    words = {
        400: "The form or the JSON cannot be read",
        404: "There is no such job",
        409: "The job is not finished, or was cancelled",
        413: "Too many bytes or pixels",
        415: "Not an image, or a format that is not supported",
        422: "The options are invalid, or the image cannot be repaired",
        429: "The queue is full; `Retry-After` says when to try again",
    }
    content = {"application/problem+json": {"schema": PROBLEM}}
    return {code: {"description": words[code], "content": content} for code in codes}


_ACCEPTED: Json = {
    "description": "A job, if the client prefers `respond-async`",
    "content": {"application/json": {"schema": JOB}},
}
_IMAGE: Json = {
    "description": "The file. `Restore-Result` and `Restore-Warnings` are headers with JSON.",
    "content": {"image/*": {"schema": _FILE}},
}
Answers = dict[int | str, dict[str, Any]]
ANSWERS_FILE: Answers = {200: _IMAGE, 202: _ACCEPTED, **_refusals(400, 413, 415, 422, 429)}
ANSWERS_JSON: Answers = {202: _ACCEPTED, **_refusals(400, 413, 415, 422, 429)}
_JOB: Json = {"description": "The job", "content": {"application/json": {"schema": JOB}}}
JOB_ANSWERS: Answers = {200: _JOB, **_refusals(404)}


def _form(properties: Json, required: list[str]) -> Json:
    schema = {"type": "object", "required": required, "properties": properties}
    encoding = {"options": {"contentType": "application/json"}}
    content = {"multipart/form-data": {"schema": schema, "encoding": encoding}}
    return {"parameters": [_PREFER], "requestBody": {"required": True, "content": content}}


def fix_body() -> Json:
    """The form of `/v1/fix`."""
    properties = {
        "image": _FILE | {"description": "The image."},
        "mask": _FILE | {"description": "Where to repair: white = repair, in the size of the upright image."},
        "options": options_schema(FixOptions),
        "model": _MODEL,
    }
    return _form(properties, ["image"])


def detect_body() -> Json:
    """The form of `/v1/detect`."""
    return _form({"image": _FILE, "options": options_schema(DetectOptions), "model": _MODEL}, ["image"])


EVAL_BODY: Json = _form(
    {
        "restored": _FILE,
        "reference": _FILE,
        "mask": _FILE | {"description": "White = hole; adds scores inside the holes."},
        "options": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "metrics": {"type": "array", "items": {"enum": list(EVAL_METRICS)}, "default": ["psnr", "ssim"]},
                "convention": {"enum": ["skimage", "matlab", "y-channel"], "default": "skimage"},
                "crop_border": {"type": "integer", "minimum": 0, "maximum": 1000, "default": 0},
            },
        },
    },
    ["restored", "reference"],
)
