"""Tasks of a worker that does no work: they crash, hang and fail, as decoders and networks do."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import Any

from restore.errors import RestoreError
from restore.serve.workers import Report, TaskFailed


def echo(params: dict[str, Any], report: Report) -> dict[str, Any]:
    report.progress(0.5, "echoing")
    return {"said": params["say"], "pid": os.getpid(), "device": report.device}


def echo_together(params: dict[str, Any], report: Report) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    for item in params["items"]:
        if item["say"] == "crash":
            signal.raise_signal(signal.SIGSEGV)
        problem = {"detail": "odd", "code": "damaged", "where": None, "hint": None} if item["say"] == "fail" else None
        items.append({"result": None if problem else {"said": item["say"], "together": True}, "problem": problem})
    return {"items": items}


def sleep(params: dict[str, Any], report: Report) -> dict[str, Any]:
    report.progress(None, "sleeping")
    time.sleep(params["seconds"])
    return {"pid": os.getpid()}


def prepare(params: dict[str, Any], report: Report) -> dict[str, Any]:
    report.event("preparing photo for OpenVINO, once (kept in /home/someone)")
    time.sleep(params["seconds"])
    return {}


def hang_in_c(params: dict[str, Any], report: Report) -> dict[str, Any]:
    with report.decoding("x.jpg"):
        ctypes.CDLL(None).usleep(int(params["seconds"] * 1e6))
        time.sleep(params["seconds"])
    return {}


def crash(params: dict[str, Any], report: Report) -> dict[str, Any]:
    with report.decoding("x.jpg"):
        signal.raise_signal(signal.SIGSEGV)
    return {}


def fail(params: dict[str, Any], report: Report) -> dict[str, Any]:
    if params.get("known"):
        raise TaskFailed("it is damaged", "damaged")
    if params.get("wrong"):
        raise RestoreError("must be even", where="--tile", hint="use 2")
    raise ValueError("odd")


def fix(params: dict[str, Any], report: Report) -> dict[str, Any]:
    """A repair that takes as long as the name of its model says, such as `sleep-3`; `crash` crashes."""
    kind, _, seconds = params["model"].partition("-")
    if kind == "crash":
        crash(params, report)
    report.progress(None, "repairing")
    time.sleep(float(seconds or 0))
    output = params["output"] + "image.png"
    with open(output, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + b"x" * (60_000_000 if kind == "large" else 5))
    return {"output": output, "warnings": ["ä" * 1000] * 20, "steps": []}


def warm(params: dict[str, Any], report: Report) -> dict[str, Any]:
    return {"models": [], "catalog": [{"name": "sleep"}]}


TASKS = {
    "echo": echo,
    "echo_together": echo_together,
    "sleep": sleep,
    "prepare": prepare,
    "hang_in_c": hang_in_c,
    "crash": crash,
    "fail": fail,
    "fix": fix,
    "warm": warm,
}
