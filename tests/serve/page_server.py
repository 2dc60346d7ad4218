"""A folder of photographs, opened by a real server, for tests that drive the page in a real browser."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.processes import until


@dataclass
class OpenFolder:
    """A server with a folder."""

    url: str
    folder: Path
    output: Path
    page: Any

    def mask(self, file: int) -> np.ndarray:
        """The mask of a file as the server has it, H×W, 255 = repair."""
        return np.asarray(Image.open(BytesIO(self.page.session.mask_png(file))))

    def id(self, name: str) -> int:
        return next(int(file["id"]) for file in self.page.session.files() if file["name"] == name)


@contextlib.contextmanager
def opened_folder(folder: Path, work: Path, warm: tuple[str, ...] = ()) -> Iterator[OpenFolder]:
    """The server of `restore open FOLDER`, in a thread; by default it opens no network before it is asked to."""
    from restore.serve.app import listen, make_server
    from restore.serve.page.open import open_page
    from restore.serve.settings import ServeSettings

    settings = ServeSettings(device="cpu", work=work, stop_seconds=5.0)
    page = open_page(folder, settings, warm=warm)
    listener = listen(settings)
    server = make_server(settings, page=page.routes)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield OpenFolder(f"http://127.0.0.1:{listener.getsockname()[1]}/", folder, page.output, page)
    finally:
        server.should_exit = True
        thread.join(30)
        page.close()


@contextlib.contextmanager
def page_at(browser: Any, url: str, *, width: int = 1000, height: int = 700, **how: Any) -> Iterator[Any]:
    """A page with `page.requests` and `page.complaints`. At the end there is no complaint, and no request to others."""
    context = browser.new_context(viewport={"width": width, "height": height}, **how)
    try:
        page = context.new_page()
        page.requests, page.complaints = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(url)
        yield page
        assert page.complaints == []
        own = url.split("#")[0]
        assert [one for one in page.requests if not one.startswith((own, "data:", "blob:"))] == []
    finally:
        context.close()


def becomes_true(page: Any, expression: str, seconds: float = 30) -> bool:
    """Whether a JavaScript expression becomes true in time. Playwright's own waiting needs `eval`, which the page's
    security policy forbids.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if page.evaluate(expression):
            return True
        page.wait_for_timeout(20)
    return False


def is_open(page: Any) -> bool:
    """Whether the editor shows a photograph."""
    return becomes_true(page, "!document.getElementById('find').disabled")


@contextlib.contextmanager
def server_process(folder: Path, work: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`restore open FOLDER` as its own process, and its address."""
    command = [sys.executable, "-m", "restore.cli", "open", str(folder), "--no-browser", "--work", str(work)]
    with subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        try:
            address = next(found[0] for line in process.stdout if (found := re.search(r"http://[^\s?]+", line)))
            yield process, address
        finally:
            process.terminate()
            process.wait(60)
