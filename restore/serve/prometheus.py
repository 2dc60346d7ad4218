"""Measurements of a server, in Prometheus's text format (version 0.0.4)."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from restore.serve.jobs import Jobs

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0)


class Measurements:
    """Counts requests and their times, by route."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, int], int] = defaultdict(int)
        self.seconds: dict[str, list[float]] = {}
        self.started = time.time()

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self.requests[method, route, status] += 1
        counts = self.seconds.setdefault(route, [0.0] * (len(_BUCKETS) + 2))
        for place, bound in enumerate(_BUCKETS):
            counts[place] += seconds <= bound
        counts[-2] += 1
        counts[-1] += seconds

    def render(self, jobs: Jobs) -> str:
        """All measurements as text."""
        lines = ["# HELP restore_requests_total Requests answered.", "# TYPE restore_requests_total counter"]
        for (method, route, status), count in sorted(self.requests.items()):
            labels = f'method="{method}",route="{route}",status="{status}"'
            lines.append(f"restore_requests_total{{{labels}}} {count}")
        lines += ["# HELP restore_request_seconds Time to the end of an answer."]
        lines += ["# TYPE restore_request_seconds histogram"]
        for route, counts in sorted(self.seconds.items()):
            for bound, reached in zip((*_BUCKETS, "+Inf"), counts):
                lines.append(f'restore_request_seconds_bucket{{route="{route}",le="{bound}"}} {reached:g}')
            lines.append(f'restore_request_seconds_sum{{route="{route}"}} {counts[-1]:.6f}')
            lines.append(f'restore_request_seconds_count{{route="{route}"}} {counts[-2]:g}')
        lines += ["# HELP restore_jobs_total Jobs that ended.", "# TYPE restore_jobs_total counter"]
        for (task, state), count in sorted(jobs.finished.items()):
            lines.append(f'restore_jobs_total{{task="{task}",state="{state}"}} {count}')
        single = (
            ("restore_jobs_queued", "gauge", "Jobs that wait for a worker.", jobs.queue_length(counted=False)),
            ("restore_jobs_running", "gauge", "Jobs in progress.", len(jobs.running())),
            ("restore_workers", "gauge", "Worker processes that run networks.", len(jobs.live_workers())),
            ("restore_worker_restarts_total", "counter", "Workers started again after a crash.", jobs.restarts),
            ("process_resident_memory_bytes", "gauge", "Memory of the server process.", resident_bytes()),
            ("process_start_time_seconds", "gauge", "Unix time of the start.", round(self.started, 3)),
        )
        for name, kind, what, value in single:
            lines += [f"# HELP {name} {what}", f"# TYPE {name} {kind}", f"{name} {value}"]
        return "\n".join(lines) + "\n"


class Measure:
    """ASGI middleware that counts requests. Routes are named by their template: a client cannot add names."""

    def __init__(self, app: ASGIApp, measurements: Measurements) -> None:
        self.app, self.measurements = app, measurements

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it at the end of its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.monotonic(), 500

        async def send_and_look(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_look)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in ("GET", "POST", "PUT", "DELETE", "HEAD") else "other"
            self.measurements.observe(method, route, status, time.monotonic() - start)


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError, AttributeError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
