"""What systems do to a server: clocks that jump, folders that vanish, no further threads, processes or files."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import shutil
import signal
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from restore.serve.api import Api
from restore.serve.jobs import Job, Jobs
from restore.serve.settings import ServeSettings
from restore.serve.spool import Spool
from restore.serve.workers import Worker
from tests.processes import until
from tests.serve.servers import Running, running
from tests.serve.test_api import ASYNC
from tests.serve.test_requests import fix


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tasks="tests.serve.odd_tasks", work=tmp_path_factory.mktemp("work")) as one:
        until(lambda: one.get("/ready").status_code == 200, 60)
        yield one


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    one = Spool(tmp_path, keep_seconds=60, keep_results=100)
    one.open()
    yield one
    one.close()


def ended_job(name: str) -> Any:
    return SimpleNamespace(id=name, finished=time.time(), ended=time.monotonic())


def done(server: Running, model: str = "sleep-0") -> str:
    """The address of a job that is done."""
    place = fix(server, model, ASYNC).headers["location"]
    until(lambda: server.get(place).json()["state"] == "done")
    return str(place)


# Clocks


@pytest.mark.parametrize("jump", [1e7, -1e7])
def test_results_are_kept_for_as_long_as_said_whatever_the_clock_shows(
    server: Running, spool: Spool, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    spool.keep(server.app.state.jobs.get(done(server).split("/")[-1]), spool.new_folder())
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    spool.sweep()
    assert len(spool._kept) == 1
    monkeypatch.setattr(spool, "_keep_seconds", 0.0)
    time.sleep(0.01)
    spool.sweep()
    assert not spool._kept


def test_a_clock_that_jumps_does_not_change_when_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 86_400)  # a day passes between two looks
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    jobs = Jobs(devices=["cpu"], tasks="tests.serve.odd_tasks")
    try:
        assert jobs.submit("echo", {"say": "x"}, counted=True).wait_in_thread(60).state == "done"
        assert jobs.retry_seconds() < 60
    finally:
        jobs.stop()


# Folders


def test_results_may_come_and_go_while_old_ones_are_removed(spool: Spool) -> None:
    stopping, failures = threading.Event(), []

    def come_and_go() -> None:
        for number in itertools.count():
            spool.keep(ended_job(f"{number}"), spool.root / "none")
            spool.drop(f"{number - 50}")
            if stopping.is_set():
                return

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(2000):
            spool.sweep()
    except RuntimeError as error:
        failures.append(error)
    finally:
        stopping.set()
        thread.join(10)
    assert not failures


def test_old_results_are_removed_even_if_that_has_failed_before(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ServeSettings(keep_seconds=0.01)
    jobs = Jobs()
    api = Api(settings, jobs, lambda: None, asyncio.Event())
    tries = []

    def sweep() -> None:
        tries.append(None)
        raise RuntimeError("odd")

    monkeypatch.setattr(api.spool, "sweep", sweep)

    async def for_a_while() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(api.sweep(), 0.5)

    asyncio.run(for_a_while())
    assert len(tries) > 2
    assert "not removed" in caplog.text


def test_uploads_stay_private_if_their_folder_is_removed(server: Running) -> None:
    (before,) = server.settings.work.glob("restore-serve-*")  # type: ignore[union-attr]
    shutil.rmtree(before)
    assert fix(server, "sleep-0").status_code == 200
    (root,) = server.settings.work.glob("restore-serve-*")  # type: ignore[union-attr]
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert (root / "lock").is_file()


@pytest.mark.parametrize("how", ["folder", "link"])
def test_uploads_never_go_to_a_folder_that_another_user_puts_in_place_of_theirs(
    server: Running, tmp_path: Path, how: str
) -> None:
    done(server)
    (root,) = server.settings.work.glob("restore-serve-*")  # type: ignore[union-attr]
    root.rename(tmp_path / "away")
    if how == "folder":
        root.mkdir(mode=0o777)
    else:
        (tmp_path / "theirs").mkdir()
        root.symlink_to(tmp_path / "theirs")
    try:
        done(server)
        assert not list(root.iterdir())
    finally:
        root.rmdir() if how == "folder" else root.unlink()


def test_a_result_that_has_vanished_is_told(server: Running) -> None:
    place = done(server)
    for output in server.settings.work.glob("restore-serve-*/*/out"):  # type: ignore[union-attr]
        shutil.rmtree(output)
    answer = server.get(f"{place}/result")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    server.request("DELETE", place)


def test_a_result_that_is_deleted_while_it_is_sent_arrives_whole(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    place = done(server, "large")
    with httpx.stream("GET", f"{server.url}{place}/result", timeout=60) as answer:
        pieces = answer.iter_raw(1 << 16)
        size = len(next(pieces))
        assert server.request("DELETE", place).status_code == 204
        assert server.get(f"{place}/result").status_code == 404
        size += sum(len(piece) for piece in pieces)
    assert size == int(answer.headers["content-length"]) == 60_000_008
    until(lambda: not list(server.settings.work.glob("restore-serve-*/*/out/*")), 5)  # type: ignore[union-attr]
    assert "Traceback" not in caplog.text


def test_a_result_that_is_deleted_before_its_file_is_opened_is_sent_nevertheless(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, spool = done(server), server.app.state.spool
    lend = spool.lend

    def lend_and_drop(identifier: str) -> Any:
        kept = lend(identifier)
        spool.drop(identifier)
        return kept

    monkeypatch.setattr(spool, "lend", lend_and_drop)
    assert server.get(f"{place}/result").content.startswith(b"\x89PNG")
    until(lambda: not list(server.settings.work.glob("restore-serve-*/*/out/*")), 5)  # type: ignore[union-attr]


# Limits of the system


def test_a_thread_that_cannot_be_started_is_tried_again_with_the_next_job(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = Jobs(devices=["cpu"], tasks="tests.serve.odd_tasks")
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    try:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="start new thread"):
            jobs.submit("echo", {"say": "lost"}, counted=True)
        monkeypatch.setattr(threading.Thread, "start", start)
        assert jobs.queue_length() == 0
        assert jobs.submit("echo", {"say": "x"}).wait_in_thread(60).state == "done"
    finally:
        monkeypatch.setattr(threading.Thread, "start", start)
        jobs.stop()


def test_a_process_that_cannot_be_started_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from multiprocessing.context import SpawnProcess

    def refuse(process: SpawnProcess) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    jobs = Jobs(devices=["cpu"], tasks="tests.serve.odd_tasks")
    try:
        with monkeypatch.context() as patched:
            patched.setattr(SpawnProcess, "start", refuse)
            job: Job = jobs.submit("echo", {"say": "x"}).wait_in_thread(60)
        assert job.problem is not None
        assert (job.problem["code"], job.problem["detail"]) == (
            "no_worker", "no process can be started for it: Resource temporarily unavailable",
        )  # fmt: skip
        assert jobs.submit("echo", {"say": "x"}).wait_in_thread(60).state == "done"
    finally:
        jobs.stop()


def test_a_job_that_is_cancelled_while_its_worker_starts_ends_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    jobs = Jobs(devices=["cpu"], tasks="tests.serve.odd_tasks")
    try:
        for seconds in (0.05, 0.15, 0.3):
            job = jobs.submit("sleep", {"seconds": 60})
            time.sleep(seconds)
            job.cancel()
            assert job.wait_in_thread(30).state == "cancelled"
        assert jobs.submit("echo", {"say": "x"}).wait_in_thread(60).state == "done"
    finally:
        jobs.stop()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.skipif(not os.path.exists("/proc/self/oom_score_adj"), reason="only Linux has such scores")
def test_a_worker_is_the_first_to_end_when_memory_runs_out(server: Running) -> None:
    done(server)
    (worker,) = server.app.state.jobs.live_workers()
    scores = [int(Path(f"/proc/{process}/oom_score_adj").read_text()) for process in (worker, os.getpid())]
    assert scores[0] >= 500
    assert scores[0] > scores[1] or scores[1] >= 500


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="no signals for real-time use")
def test_a_worker_that_a_signal_without_a_name_ends_says_so() -> None:
    worker = Worker("models", "cpu", tasks="tests.serve.odd_tasks")
    number = signal.SIGRTMIN + 1

    def kill(fraction: float | None, message: str) -> None:
        os.kill(worker.pid, number)

    try:
        outcome = worker.run("sleep", {"seconds": 30}, is_cancelled=lambda: False, on_progress=kill)
    finally:
        worker.kill()
    assert outcome.problem is not None
    assert outcome.problem["detail"] == f"the process that did the work was terminated by signal {number}"
