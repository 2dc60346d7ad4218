"""`restore open`, as a person starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("fastapi")
import httpx

from restore.cli.main import app
from restore.errors import RestoreError
from tests.html.browser import chromium, started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scans").mkdir()
    for number in range(3):
        values = np.random.default_rng(number).integers(0, 256, (64, 96, 3), np.uint8)
        Image.fromarray(values).save(tmp_path / "scans" / f"{number}.png")
    return tmp_path / "scans"


@contextmanager
def opened(*arguments: str | Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "restore.cli", "open", "--no-browser", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        address = None
        while address is None:
            line = process.stderr.readline()
            assert line, "it ended"
            address = re.search(r"http://\S+", line)
        yield address[0], process
    finally:
        process.kill()
        process.wait()


def test_the_folder_is_shown_without_loading_pytorch_and_ctrl_c_ends(folder: Path, tmp_path: Path) -> None:
    with opened(folder, "--work", tmp_path / "work") as (address, process):
        client = httpx.Client(base_url=address, timeout=60)
        assert "<html" in client.get("/").text
        files = client.get("/page/files").json()
        thumbnail = client.get(f"/page/files/{files[0]['id']}/thumbnail")
        assert thumbnail.headers["content-type"] == "image/jpeg"
        if Path("/proc/self/maps").exists():
            assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (0, 130)
    assert sorted(os.listdir(folder)) == ["0.png", "1.png", "2.png"]
    assert not (tmp_path / "scans-repaired").exists()


def test_a_token_keeps_other_users_of_this_machine_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTORE_TOKEN", "a-token-for-this-test")
    with opened(folder, "--work", tmp_path / "work") as (address, _):
        assert address.endswith("/?token=a-token-for-this-test")
        base = address.partition("?")[0]
        assert httpx.get(f"{base}page/files").status_code == 401
        client = httpx.Client(follow_redirects=True, timeout=60)
        assert "<html" in client.get(address).text
        assert len(client.get(f"{base}page/files").json()) == 3


def test_the_token_is_not_among_the_arguments_of_the_browser(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All users of a machine see the arguments of all processes."""
    script = tmp_path / "browser"
    script.write_text(
        f'#!/bin/sh\necho "$@" > "{tmp_path}/started.new"\nmv "{tmp_path}/started.new" "{tmp_path}/started"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{script} %s")
    monkeypatch.setenv("RESTORE_TOKEN", "a-token-for-this-test")
    command = [sys.executable, "-m", "restore.cli", "open", str(folder), "--work", str(tmp_path / "work")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = re.search(r"http://\S+", process.stderr.readline())
            assert address
            for _ in range(600):
                if (tmp_path / "started").exists():
                    break
                time.sleep(0.05)
            given = (tmp_path / "started").read_text().strip()
            assert given == (tmp_path / "work/open.html").as_uri()
            page = tmp_path / "work/open.html"
            assert f"url={address[0]}" in page.read_text()
            assert page.stat().st_mode & 0o077 == 0
            if chromium() is not None:
                with started() as browser:
                    shown = browser.new_page()
                    shown.goto(given)
                    shown.wait_for_selector("#cards button")
                    assert shown.url == address[0].partition("?")[0]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    assert not page.exists()


def test_another_address_needs_the_token_that_is_printed(folder: Path, tmp_path: Path) -> None:
    with opened(folder, "--work", tmp_path / "work", "--host", "0.0.0.0") as (address, _):
        base, token = address.split("/?token=")
        port = base.rpartition(":")[2]
        local = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{local}/page/files").status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{local}/page/files", headers=headers).status_code == 200


def test_a_folder_that_is_open_already_says_so(folder: Path, tmp_path: Path) -> None:
    with opened(folder, "--work", tmp_path / "work"):
        second = CliRunner().invoke(app, ["open", str(folder), "--no-browser", "--work", str(tmp_path / "work")])
    assert isinstance(second.exception, RestoreError)
    assert "open in another" in str(second.exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing"], "there is no such file or folder"),
        (["scans", "--output", "scans/out"], "inside it"),
        (["scans", "--work", "scans/work"], "lies in the opened folder"),
        (["empty"], "no images in this folder"),
        (["scans", "--port", "99999"], "must be between 0 and 65535"),
    ],
)
def test_what_cannot_be_opened_is_told_in_words(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(folder.parent)
    (folder.parent / "empty").mkdir()
    monkeypatch.setenv("XDG_DATA_HOME", str(folder.parent / "data"))
    done = CliRunner().invoke(app, ["open", "--no-browser", *arguments])
    assert isinstance(done.exception, RestoreError)
    assert words in str(done.exception)
    assert done.exception.exit_code == 2


def test_a_user_without_a_home_is_told_to_choose_a_work_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    result = CliRunner().invoke(app, ["open", str(folder), "--no-browser"])
    assert isinstance(result.exception, RestoreError)
    assert (result.exception.what, result.exception.hint) == (
        "this user has no home folder for the work in progress", "choose a work folder with --work",
    )  # fmt: skip


def test_a_missing_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = CliRunner().invoke(app, ["open", str(folder)])
    assert 'pip install "restore-toolkit[serve]"' in str(done.exception)


def test_the_first_thumbnail_comes_within_seconds(folder: Path, tmp_path: Path) -> None:
    """Under 3 s on two quiet cores; ten times that is allowed for busy ones."""
    start = time.monotonic()
    with opened(folder, "--work", tmp_path / "work") as (address, _):
        file = httpx.get(f"{address}page/files", timeout=60).json()[0]["id"]
        assert httpx.get(f"{address}page/files/{file}/thumbnail", timeout=60).status_code == 200
    assert time.monotonic() - start < 30
