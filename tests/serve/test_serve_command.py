"""`restore serve` as a process: what it prints, how it stops, what it refuses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from restore.cli.main import main
from tests.processes import alive, until

COMMAND = [sys.executable, "-m", "restore.cli", "serve", "--port", "0", "--warm", "telea"]


def start(*arguments: str, folder: Path) -> tuple[subprocess.Popen[str], str]:
    """The process, and the line that it prints when it serves."""
    server = subprocess.Popen([*COMMAND, "--work", str(folder), *arguments], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    return server, server.stderr.readline()


def children(process: int) -> list[int]:
    """Of all threads: each has its own list."""
    lists = Path(f"/proc/{process}/task").glob("*/children")
    return [int(one) for children in lists for one in children.read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_and_leaves_nothing(tmp_path: Path, how: signal.Signals) -> None:
    server, line = start(folder=tmp_path)
    try:
        address = line.split()[2]
        assert line == f"serving at {address} (Ctrl-C stops)\n"
        assert address.startswith("http://127.0.0.1:")
        until(lambda: httpx.get(f"{address}ready").status_code in (200, 503), 30)
        until(lambda: children(server.pid), 30)
        workers = children(server.pid)
        assert list(tmp_path.glob("restore-serve-*"))
        os.kill(server.pid, how)
        assert server.wait(30) == 0
        assert server.stderr is not None
        assert server.stderr.read() == ""
        assert not list(tmp_path.iterdir())
    finally:
        server.kill()
    until(lambda: not any(alive(worker) for worker in workers), 10)


@pytest.mark.skipif(sys.platform != "linux", reason="sets the limit of another process")
def test_more_connections_than_files_are_refused_in_silence(tmp_path: Path) -> None:
    import resource

    server, line = start(folder=tmp_path)
    address = line.split()[2]
    until(lambda: httpx.get(f"{address}ready").status_code == 200, 60)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (600, 600))
    port = int(address.rstrip("/").rpartition(":")[2])
    held = []
    try:
        for _ in range(1500):
            held.append(socket.create_connection(("127.0.0.1", port), timeout=20))
        for connection in held:
            connection.close()
        until(lambda: httpx.get(f"{address}health").status_code == 200, 20)
        os.kill(server.pid, signal.SIGTERM)
        assert server.stderr is not None
        assert server.stderr.read(10_000) == ""
        assert server.wait(30) == 0
    finally:
        server.kill()
        for connection in held:
            connection.close()


def test_a_token_is_required_where_one_is_set(tmp_path: Path) -> None:
    server, line = start("--token", "x" * 20, folder=tmp_path)
    try:
        address = line.split()[2]
        until(lambda: httpx.get(f"{address}health").status_code == 200, 30)
        assert httpx.get(f"{address}v1/limits").status_code == 401
        allowed = httpx.get(f"{address}v1/limits", headers={"Authorization": f"Bearer {'x' * 20}"})
        assert allowed.json()["queue"] == 16
    finally:
        server.kill()
        server.wait()


def test_what_makes_no_sense_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for arguments, words in (
        (
            ["--port", "0", "--work", str(tmp_path / "file")],
            "is a file where a folder is needed; choose",
        ),
        (["--token", "short"], "--token: must have at least 16 characters"),
        (["--host", "256.256.256.256"], "cannot be listened on"),
    ):
        monkeypatch.setattr(sys, "argv", ["restore", "serve", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        assert words in capsys.readouterr().err


def test_a_missing_extra_is_told_in_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["restore", "serve"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert 'requires the extra `serve`; install it: pip install "restore-toolkit[serve]"' in told


def test_a_model_that_cannot_be_opened_is_told_and_the_server_is_not_ready(tmp_path: Path) -> None:
    server, line = start("--warm", "nobody", folder=tmp_path)
    try:
        assert server.stderr is not None
        assert "the models cannot be opened: no model is called 'nobody'" in server.stderr.readline()
        assert httpx.get(f"{line.split()[2]}ready").status_code == 503
    finally:
        server.kill()
        server.wait()
