"""Tasks of a worker that does no work: they crash, hang and fail, as decoders and networks do."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from typing import Any

from restore.errors import RestoreError
from restore.serve.workers import Report, TaskFailed

stubborn = False


def echo(params: dict[str, Any], report: Report) -> dict[str, Any]:
    report.progress(0.5, "echoing")
    return {"said": params["say"], "pid": os.getpid(), "device": report.device}


def sleep(params: dict[str, Any], report: Report) -> dict[str, Any]:
    report.progress(None, "sleeping")
    time.sleep(params["seconds"])
    return {"pid": os.getpid()}


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


TASKS = {"echo": echo, "sleep": sleep, "hang_in_c": hang_in_c, "crash": crash, "fail": fail, "warm": echo}
