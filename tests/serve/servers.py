"""Servers for tests: in a thread, on 127.0.0.1, with small limits."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from restore.serve.app import listen, make_server
from restore.serve.connections import GracefulServer
from restore.serve.settings import ServeSettings
from tests.processes import until

TOKEN = "a-token-for-these-tests-0123456789"


@dataclass
class Running:
    """A server in a thread."""

    port: int
    settings: ServeSettings
    server: GracefulServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def app(self) -> Any:
        return self.server.config.loaded_app

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def send(self, data: bytes) -> bytes:
        """Send raw bytes; everything that comes back until the server closes."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        return httpx.request(method, self.url + path, timeout=60, **arguments)

    def get(self, path: str, headers: dict[str, str] | None = None, **arguments: Any) -> httpx.Response:
        return self.request("GET", path, headers=headers, **arguments)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(1 << 16):
            received += data
    return received


@contextlib.contextmanager
def running(*, tasks: str = "restore.serve.tasks", **settings: Any) -> Iterator[Running]:
    """A server with these settings, for the time of a block.

    Args:
        tasks: the module whose `TASKS` its workers run.
        settings: of `ServeSettings`.
    """
    chosen = ServeSettings(**({"device": "cpu", "stop_seconds": 5.0} | settings))
    listener = listen(chosen)
    server = make_server(chosen)
    app: Any = server.config.app
    app.state.jobs.tasks = tasks
    port = listener.getsockname()[1]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield Running(port, chosen, server)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
