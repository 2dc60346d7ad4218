"""Object stores for tests: one in this process's memory, and an S3 server on this machine."""

import http.client
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from restore.places import store

KEY, SECRET = "AKIATESTTESTTEST1234", "secret/of+tests/that-must-not-show-123456"


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def memory() -> Iterator[Any]:
    """The file system of `memory://`, empty."""
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    """The address of an S3 server in a thread, on 127.0.0.1."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def _use(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
    }.items():
        monkeypatch.setenv(name, value)
    store._store.cache_clear()


@pytest.fixture
def s3(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the server, with the empty buckets `scans` and `repaired`."""
    boto3 = pytest.importorskip("boto3")
    _use(s3_address, monkeypatch)
    client = boto3.client("s3")
    for bucket in ("scans", "repaired"):
        client.create_bucket(Bucket=bucket)
    yield client
    for bucket in client.list_buckets()["Buckets"]:
        for item in client.list_objects_v2(Bucket=bucket["Name"]).get("Contents", ()):
            client.delete_object(Bucket=bucket["Name"], Key=item["Key"])
        client.delete_bucket(Bucket=bucket["Name"])
    store._store.cache_clear()


class Faulty:
    """A proxy before the S3 server.

    Attributes:
        answer: (method, path) -> the status to answer with instead of the server; 0: close the connection; None: pass
            the request on.
        after: the same, but the server gets the request before.
        cut: (method, path) -> how many bytes of the server's answer come before the connection closes; None: all.
        seen: methods and paths of all requests.
    """

    def __init__(self) -> None:
        self.answer: Callable[[str, str], int | None] = lambda method, path: None
        self.after: Callable[[str, str], int | None] = lambda method, path: None
        self.cut: Callable[[str, str], int | None] = lambda method, path: None
        self.seen: list[tuple[str, str]] = []
        self.address = ""


@pytest.fixture
def faulty(s3: Any, s3_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """The S3 server behind a proxy that can fail."""
    faults = Faulty()
    server_host = s3_address.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            faults.seen.append((self.command, self.path))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status = faults.answer(self.command, self.path)
            if status is None:
                to = http.client.HTTPConnection(server_host, timeout=20)
                to.request(self.command, self.path, body, dict(self.headers))
                answer = to.getresponse()
                data = answer.read()
                status = faults.after(self.command, self.path)
            if status is not None:
                if status:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            if answer.getheader("Content-Length") is None:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            cut = faults.cut(self.command, self.path)
            self.wfile.write(data[:cut])
            self.close_connection = self.close_connection or cut is not None

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    faults.address = f"http://127.0.0.1:{server.server_port}"
    _use(faults.address, monkeypatch)
    yield faults
    server.shutdown()
    server.server_close()
    thread.join(10)
    store._store.cache_clear()


def image_bytes(seed: int = 0, suffix: str = ".png") -> bytes:
    """A small image, encoded."""
    pixels = np.random.default_rng(seed).integers(40, 210, (6, 9, 3), np.uint8)
    return cv2.imencode(suffix, cv2.resize(pixels, (48, 32), interpolation=cv2.INTER_CUBIC))[1].tobytes()


def mask_bytes() -> bytes:
    """A mask for it, with one hole."""
    mask = np.zeros((32, 48), np.uint8)
    mask[10:14, 20:26] = 255
    return cv2.imencode(".png", mask)[1].tobytes()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
