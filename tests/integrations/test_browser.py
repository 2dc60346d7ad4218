"""The built page of `examples/browser` in a headless Chromium: it repairs as the toolkit does, and sends nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from restore.restorers.hybrid_inpainting import HybridInpainter
from restore.restorers.registry import open_restorer
from tests.html.browser import chromium, started

pytest.importorskip("playwright.sync_api", reason="no playwright here")
pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium here")

ROOT = Path(__file__).parents[2]
#: Another build than that of `python examples/browser/build.py`.
BUILD = Path(os.environ.get("RESTORE_BROWSER_BUILD", ROOT / "build" / "browser"))
HEIGHT, WIDTH = 61, 90


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    if not (BUILD / "models.json").is_file():
        pytest.skip("the page is not built: python examples/browser/build.py")
    sys.path.insert(0, str(ROOT / "examples" / "browser"))
    try:
        import serve
    finally:
        sys.path.pop(0)
    server = serve.server(BUILD, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    part = data.astronaut()[20 : 20 + HEIGHT, 180 : 180 + WIDTH]
    noise = np.random.default_rng(0).normal(0, 12, part.shape)
    path = tmp_path_factory.mktemp("photographs") / "scan.png"
    Image.fromarray(np.clip(part + noise, 0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def page(address: str, photograph: Path) -> Iterator[Any]:
    with started() as browser:
        context = browser.new_context(viewport={"width": 900, "height": 700})
        page = context.new_page()
        page.requests, page.complaints = [], []
        page.on("request", lambda request: page.requests.append((request.method, request.url)))
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(address)
        page.set_input_files("#file", str(photograph))
        page.wait_for_selector("#clean:enabled")
        yield page
        context.close()


def shown(page: Any) -> np.ndarray:
    """The photograph's pixels on the page, H×W×3."""
    rgba = page.evaluate(
        "() => { const c = document.getElementById('image');"
        " return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data); }"
    )
    return np.array(rgba, np.uint8).reshape(HEIGHT, WIDTH, 4)[..., :3]


def run(page: Any, button: str) -> None:
    page.click(button)
    page.locator("#status").filter(has_text=re.compile("Done|failed")).wait_for(timeout=120_000)
    assert page.text_content("#status").startswith("Done"), page.text_content("#status")


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)


def levels(result: torch.Tensor) -> np.ndarray:
    return (result[0].permute(1, 2, 0).numpy() * 255).round().astype(int)


def test_cleaning_up_is_that_of_photo_and_nothing_is_sent(page: Any, address: str, photograph: Path) -> None:
    before = np.asarray(Image.open(photograph))
    assert np.array_equal(shown(page), before)
    run(page, "#clean")
    ours = levels(open_restorer("photo", device="cpu", precision="fp32")(tensor(before)))
    assert np.abs(shown(page).astype(int) - ours).max() <= 1
    assert {method for method, _ in page.requests} == {"GET"}
    assert all(url.startswith((address, "blob:" + address)) for _, url in page.requests)
    assert page.complaints == []
    assert page.evaluate("crossOriginIsolated")

    page.click("#compare")
    assert np.array_equal(shown(page), before)
    page.click("#compare")
    with page.expect_download() as download:
        page.click("#save")
    saved = np.asarray(Image.open(BytesIO(Path(download.value.path()).read_bytes())).convert("RGB"))
    assert np.array_equal(saved, shown(page))
    page.click("#undo")
    assert np.array_equal(shown(page), before)


def test_filling_is_that_of_inpaint_and_changes_only_what_is_painted(page: Any, photograph: Path) -> None:
    before = np.asarray(Image.open(photograph))
    page.click("#fill")
    assert "Nothing is painted" in page.text_content("#status")
    box = page.locator("#mask").bounding_box()
    page.fill("#size", "6")
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 40, steps=8)
    page.mouse.up()
    alpha = page.evaluate(
        "() => { const c = document.getElementById('mask');"
        " return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data); }"
    )
    hole = np.array(alpha, np.uint8).reshape(HEIGHT, WIDTH, 4)[..., 3] > 127
    assert 150 < hole.sum() < 600
    run(page, "#fill")
    filled = shown(page)
    assert np.array_equal(filled[~hole], before[~hole])
    hybrid = open_restorer("inpaint", device="cpu", precision="fp32")
    assert isinstance(hybrid, HybridInpainter)
    mask = torch.from_numpy(hole[None, None].astype(np.float32))
    ours = levels(hybrid.filler(tensor(before), mask))
    assert np.abs(filled.astype(int) - ours).max() <= 1
    assert np.abs(ours - before)[hole].max() > 20


def test_the_page_is_allowed_to_load_only_from_its_own_server(page: Any) -> None:
    blocked = page.evaluate(
        "async () => { try { await fetch('https://example.org/', {method: 'POST', body: 'x'}); return 'sent'; }"
        " catch (error) { return 'blocked'; } }"
    )
    assert blocked == "blocked"
    assert any("Content Security Policy" in line for line in page.complaints)
    inline = page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        " document.body.append(s); return window.ran === undefined; }"
    )
    assert inline


def test_people_who_do_not_see_it_can_use_it(page: Any) -> None:
    """What axe-core finds serious or critical."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page).response["violations"]
    assert [one["help"] for one in found if one["impact"] in ("serious", "critical")] == []


def test_building_refuses_another_runtime(tmp_path: Path) -> None:
    """The package of npm is checked; here `npm` writes another one."""
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\nprintf other > onnxruntime-web.tgz\n")
    npm.chmod(0o755)
    program = "import sys; sys.path.insert(0, sys.argv[1]); import build; build.add_runtime(build.Path(sys.argv[2]))"
    environment = {**os.environ, "PATH": f"{npm.parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-c", program, str(ROOT / "examples" / "browser"), str(tmp_path / "ort")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is not the package that this script knows" in done.stderr
    assert list((tmp_path / "ort").iterdir()) == []
