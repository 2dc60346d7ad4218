"""Google's and Azure's stores, with stand-ins: what their packages are given, and what their errors become.

Arguments, errors and facts are those of gcsfs 2026.10 and adlfs 2026.8.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from restore.errors import RestoreError
from restore.places import store
from restore.places.store import ExistsAlready, Forbidden, NotThere, Store, StoreError, Unreachable

fsspec = pytest.importorskip("fsspec")
WHEN = datetime(2026, 1, 31, tzinfo=timezone.utc)


class HttpError(Exception):
    """As gcsfs has it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"no, {code}")
        self.code = code


class HttpResponseError(Exception):
    """As azure-core has it."""

    def __init__(self, status_code: int) -> None:
        super().__init__("no")
        self.status_code = status_code


class StandIn:
    """A file system that notes what it is given, and raises what it is told to."""

    error: Exception | None = None
    facts: Mapping[str, Any] = MappingProxyType({})

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def put_file(self, lpath: str, rpath: str, **given: Any) -> None:
        self.calls.append({"rpath": rpath, **given})
        if self.error is not None:
            raise self.error

    def info(self, path: str) -> Mapping[str, Any]:
        if self.error is not None:
            raise self.error
        return self.facts


class Google(StandIn):
    facts = MappingProxyType({
        "type": "file", "size": 3, "name": "b/x.png", "mtime": WHEN, "updated": "2026-01-31T00:00:00.000Z",
        "generation": "1769817600000001", "etag": "CJ=",
    })  # fmt: skip

    async def _put_file(
        self, lpath, rpath, metadata=None, consistency=None, content_type=None, mode="overwrite", **kwargs
    ):
        """The arguments."""


class Azure(StandIn):
    facts = MappingProxyType({
        "type": "file", "size": 3, "name": "b/x.png", "last_modified": WHEN, "etag": '"0x8"', "version_id": None,
        "content_settings": {"content_type": "image/png"},
    })  # fmt: skip


class Old(StandIn):
    async def _put_file(self, lpath, rpath, content_type=None, **kwargs):
        """The arguments."""


def opened(monkeypatch: pytest.MonkeyPatch, scheme: str, files: StandIn) -> Store:
    monkeypatch.setattr(fsspec, "filesystem", lambda name, **settings: files)
    monkeypatch.setattr(store, "FIRST_PAUSE_SECONDS", 0)
    settings = SimpleNamespace(ContentSettings=lambda **given: given)
    for name in ("azure", "azure.storage"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    monkeypatch.setitem(sys.modules, "azure.storage.blob", settings)
    return Store(scheme)


@pytest.mark.parametrize("overwrite", [False, True])
def test_writes_have_their_condition_and_type(monkeypatch, tmp_path, overwrite):
    (tmp_path / "x.png").write_bytes(b"png")
    google, azure = Google(), Azure()
    opened(monkeypatch, "gs", google).upload(tmp_path / "x.png", "gs://b/x.png", overwrite=overwrite)
    opened(monkeypatch, "az", azure).upload(tmp_path / "x.png", "az://b/x.png", overwrite=overwrite)
    mode = "overwrite" if overwrite else "create"
    assert google.calls == [{"rpath": "gs://b/x.png", "content_type": "image/png", "mode": mode}]
    kind = {"content_type": "image/png"}
    assert azure.calls == [{"rpath": "az://b/x.png", "content_settings": kind, "overwrite": overwrite}]


def test_an_old_package_that_would_ignore_the_condition_is_refused(monkeypatch):
    with pytest.raises(RestoreError, match=r"gcsfs: this version cannot write .* pip install --upgrade gcsfs"):
        opened(monkeypatch, "gs", Old())


@pytest.mark.parametrize(("scheme", "files"), [("gs", Google()), ("az", Azure())])
def test_facts_tell_versions_apart(monkeypatch, scheme, files):
    one = opened(monkeypatch, scheme, files).info(f"{scheme}://b/x.png")
    assert (one.size, one.modified) == (3, WHEN.timestamp())
    changed = type(files)()
    changed.facts = {**files.facts} | {"etag": "other"}
    assert opened(monkeypatch, scheme, changed).info(f"{scheme}://b/x.png").version != one.version


@pytest.mark.parametrize(
    ("scheme", "error", "kind", "attempts"),
    [
        ("gs", OSError("Forbidden: b/x.png\nno storage.objects.create access"), Forbidden, 1),
        ("gs", HttpError(401), Forbidden, 1),
        ("gs", HttpError(503), Unreachable, 5),
        ("gs", HttpError(400), StoreError, 1),
        ("gs", FileNotFoundError("b/x.png"), NotThere, 1),
        ("az", HttpResponseError(403), Forbidden, 1),
        ("az", HttpResponseError(404), NotThere, 1),
        ("az", HttpResponseError(500), Unreachable, 5),
    ],
)
def test_errors_are_told_as_what_they_are(monkeypatch, tmp_path, scheme, error, kind, attempts):
    (tmp_path / "x.png").write_bytes(b"png")
    files = Google() if scheme == "gs" else Azure()
    files.error = error
    with pytest.raises(StoreError) as told:
        opened(monkeypatch, scheme, files).upload(tmp_path / "x.png", f"{scheme}://b/x.png", overwrite=True)
    assert (type(told.value), len(files.calls)) == (kind, attempts)


@pytest.mark.parametrize(("scheme", "files"), [("gs", Google), ("az", Azure)])
def test_another_writer_is_kept(monkeypatch, tmp_path: Path, scheme, files):
    (tmp_path / "x.png").write_bytes(b"longer than theirs")
    one = files()
    opened_store = opened(monkeypatch, scheme, one)
    put = one.put_file

    def exists(*given: Any, **more: Any) -> None:
        put(*given, **more)
        raise FileExistsError("File already exists!")

    one.put_file = exists
    with pytest.raises(ExistsAlready):
        opened_store.upload(tmp_path / "x.png", f"{scheme}://b/x.png", overwrite=False)
    assert len(one.calls) == 1
