"""Requests that take long, go away, crash their worker, or meet a server that stops. The workers only pretend."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from restore.serve.spool import Spool
from tests.processes import until
from tests.serve.servers import Running, read_all, running
from tests.serve.test_api import ASYNC, folders

FORM = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\n\r\nx\r\n'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(
        tasks="tests.serve.odd_tasks", work=tmp_path, queue=2, idle_seconds=1.0, keep_seconds=60, keep_results=2
    ) as one:
        until(lambda: one.get("/ready").status_code == 200, 20)
        yield one


def fix(server: Running, model: str, headers: dict[str, str] | None = None) -> httpx.Response:
    return server.request("POST", "/v1/fix", files={"image": ("x.png", b"x")}, data={"model": model}, headers=headers)


def raw_fix(model: str) -> bytes:
    body = FORM + f'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model}\r\n--b--\r\n'.encode()
    return (
        b"POST /v1/fix HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )


def test_a_client_that_goes_away_cancels_its_repair(server: Running) -> None:
    jobs = server.app.state.jobs
    with server.connect() as connection:
        connection.sendall(raw_fix("sleep-60"))
        until(lambda: [job.message for job in jobs.running()] == ["repairing"], 20)
    until(lambda: not jobs.running(), 10)
    assert jobs.finished == jobs.finished | {("fix", "cancelled"): 1}
    until(lambda: not folders(server), 5)


def test_a_full_queue_refuses_before_the_body_is_read(server: Running) -> None:
    jobs = server.app.state.jobs
    places = [fix(server, "sleep-60", ASYNC).headers["location"]]
    until(lambda: len(jobs.running()) == 1)
    places += [fix(server, "sleep-0", ASYNC).headers["location"] for _ in range(2)]
    with server.connect() as connection:
        connection.sendall(
            b"POST /v1/fix HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: 100000\r\n\r\n"
        )
        answer = connection.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 429")
    assert b"retry-after: " in answer.lower()
    assert server.request("POST", f"{places[0]}/cancel").json()["state"] == "cancelled"
    for place in places[1:]:
        until(lambda place=place: server.get(place).json()["state"] == "done")
    assert fix(server, "sleep-0").status_code == 200


def test_a_request_that_is_being_received_has_a_place_in_the_queue(server: Running) -> None:
    slow = [server.connect() for _ in range(2)]
    try:
        for connection in slow:
            connection.sendall(raw_fix("sleep-0")[:200])
        until(lambda: fix(server, "sleep-0").status_code == 429, 5)
    finally:
        for connection in slow:
            connection.close()
    until(lambda: fix(server, "sleep-0").status_code == 200, 10)


def test_more_requests_than_connections_are_refused(tmp_path: Path) -> None:
    with running(tasks="tests.serve.odd_tasks", work=tmp_path, connections=3) as server:
        busy = [server.connect() for _ in range(3)]
        for connection in busy:
            connection.sendall(raw_fix("sleep-60"))
        until(lambda: server.app.state.jobs.queue_length() + len(server.app.state.jobs.running()) >= 3, 20)
        with server.connect() as late:
            assert read_all(late).startswith(b"HTTP/1.1 503")
        for connection in busy:
            connection.close()
        until(lambda: server.get("/health").status_code == 200, 5)


def test_a_crash_fails_one_request_and_the_server_lives(server: Running) -> None:
    answer = fix(server, "crash")
    assert (answer.status_code, answer.json()["code"]) == (422, "crashed")
    assert fix(server, "sleep-0").status_code == 200
    assert "restore_worker_restarts_total 1" in server.get("/metrics").text


def test_warnings_that_no_header_holds_are_cut(server: Running) -> None:
    answer = fix(server, "sleep-0")
    assert 0 < len(answer.headers["restore-warnings"]) < 4000
    assert json.loads(answer.headers["restore-result"]) == {"steps": []}


def test_events_come_as_they_happen(server: Running) -> None:
    place = fix(server, "sleep-4", ASYNC).headers["location"]
    states = []
    with httpx.stream("GET", f"{server.url}{place}/events", timeout=20) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                states.append(json.loads(line[6:])["state"])
                if states[-1] == "running":
                    assert server.get(f"{place}/result").json()["code"] == "not_finished"
    assert states[-2:] == ["running", "done"]


def test_only_the_newest_results_are_kept(server: Running) -> None:
    places = []
    for _ in range(4):
        places.append(fix(server, "sleep-0", ASYNC).headers["location"])
        until(lambda: server.get(places[-1]).json()["state"] == "done")
    until(lambda: server.get(places[0]).status_code == 404, 15)
    assert [server.get(place).status_code for place in places] == [404, 404, 200, 200]
    assert len(folders(server)) == 2


def test_a_client_that_takes_no_answer_is_cut_off(server: Running) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(raw_fix("large"))
        until(lambda: bool(folders(server)), 20)
        until(lambda: not server.server.server_state.connections and not folders(server), 20)


def test_connections_that_are_reset_leave_nothing(server: Running) -> None:
    for _ in range(20):
        with server.connect() as connection:
            connection.sendall(raw_fix("sleep-0")[:150])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: not server.server.server_state.connections, 10)
    until(lambda: fix(server, "sleep-0").status_code == 200, 10)
    until(lambda: not folders(server), 5)


def test_stopping_does_not_wait_for_a_body_that_never_comes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(tasks="tests.serve.odd_tasks", work=tmp_path, stop_seconds=1.0) as one, one.connect() as connection:
        connection.sendall(raw_fix("sleep-0")[:-20])
        until(lambda: bool(folders(one)), 10)
        one.server.should_exit = True
        assert read_all(connection).startswith(b"HTTP/1.1 503")
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_that_somebody_put_among_the_uploads_does_not_keep_the_server_waiting(tmp_path: Path) -> None:
    (tmp_path / "restore-serve-x").mkdir()
    os.mkfifo(tmp_path / "restore-serve-x" / "lock")
    spool = Spool(tmp_path, keep_seconds=1, keep_results=1)
    opening = threading.Thread(target=spool.open, daemon=True)
    opening.start()
    opening.join(10)
    assert not opening.is_alive()
    spool.close()


def test_stopping_finishes_what_is_in_work_and_refuses_the_rest(server: Running) -> None:
    answers: dict[str, httpx.Response] = {}

    def ask(name: str) -> None:
        answers[name] = fix(server, "sleep-1")

    running_one = threading.Thread(target=ask, args=("running",))
    running_one.start()
    until(lambda: len(server.app.state.jobs.running()) == 1)
    waiting_one = threading.Thread(target=ask, args=("waiting",))
    waiting_one.start()
    until(lambda: server.app.state.jobs.queue_length() == 1)
    with server.connect() as late:
        late.sendall(raw_fix("sleep-0")[:200])
        time.sleep(0.2)
        server.server.should_exit = True
        time.sleep(0.5)
        late.sendall(raw_fix("sleep-0")[200:])
        assert read_all(late).startswith(b"HTTP/1.1 503")
    for thread in (running_one, waiting_one):
        thread.join(20)
    assert answers["running"].status_code == 200
    assert (answers["waiting"].status_code, answers["waiting"].json()["code"]) == (409, "cancelled")
    until(lambda: not list(server.settings.work.iterdir()), 20)  # type: ignore[union-attr]


def test_the_files_of_a_server_that_was_killed_are_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / "restore-serve-dead"
    (left / "x").mkdir(parents=True)
    (left / "lock").touch()
    (tmp_path / "mine").mkdir()
    with running(tasks="tests.serve.odd_tasks", work=tmp_path), running(tasks="tests.serve.odd_tasks", work=tmp_path):
        names = {path.name for path in tmp_path.iterdir()}
        assert "restore-serve-dead" not in names
        assert len(names) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
