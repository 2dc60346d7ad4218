"""`restore fix --watch` with URLs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from restore.errors import RestoreError
from restore.fix.options import FixOptions
from restore.fix.results import Summary
from restore.places import watch
from restore.places.plan import PlacesPlan
from restore.places.run import fixer, run_places
from restore.places.watch import watch_places
from tests.places.conftest import image_bytes, mask_bytes


@pytest.fixture
def options(tmp_path: Path) -> FixOptions:
    (tmp_path / "mask.png").write_bytes(mask_bytes())
    return FixOptions(masks=tmp_path / "mask.png", device="cpu")


def watched(
    monkeypatch: pytest.MonkeyPatch, options: FixOptions, *steps: Callable[[], None], output: str = "memory://b/out"
) -> tuple[watch.Watched, list[str], list[list[str]]]:
    """Watch `memory://b/in`, with a step in each pause, then Ctrl-C. Returns events and the names of each run, too."""
    waiting, events, runs = list(steps), list[str](), list[list[str]]()

    def pause(seconds: float) -> None:
        if not waiting:
            raise KeyboardInterrupt
        waiting.pop(0)()

    def run(plan: PlacesPlan, options: FixOptions) -> Summary:
        runs.append([file.name for file in plan.files])
        return run_places(plan, options, fixer(plan, "telea", options, events.append))

    monkeypatch.setattr(watch, "time", SimpleNamespace(sleep=pause))
    return watch_places("memory://b/in", output, options, run, on_event=events.append), events, runs


def test_each_image_that_arrives_is_repaired_once(memory: Any, monkeypatch: Any, options: FixOptions) -> None:
    memory.pipe_file("/b/in/a.png", image_bytes())

    def arrive() -> None:
        memory.pipe_file("/b/in/sub/b.png", image_bytes(1))
        memory.pipe_file("/b/in/words.txt", b"words")

    result, events, runs = watched(monkeypatch, options, arrive, lambda: None, lambda: None)
    assert runs == [["a.png"], ["sub/b.png", "words.txt"]]
    assert (result.done, result.failed, result.exit_code) == (2, [], 0)
    assert sorted(memory.find("/b/out")) == ["/b/out/a.png", "/b/out/sub/b.png"]
    assert events[0].startswith("1 done")


def test_one_that_failed_is_tried_again_when_it_changes(memory: Any, monkeypatch: Any, options: FixOptions) -> None:
    memory.pipe_file("/b/in/a.png", b"broken")

    def mend() -> None:
        memory.pipe_file("/b/in/a.png", image_bytes())

    result, _, runs = watched(monkeypatch, options, lambda: None, mend)
    assert runs == [["a.png"], ["a.png"]]
    assert (result.done, len(result.failed), result.exit_code) == (1, 1, 1)


def test_a_folder_may_be_empty_and_a_store_silent(memory: Any, monkeypatch: Any, options: FixOptions) -> None:
    def arrive() -> None:
        memory.pipe_file("/b/in/a.png", image_bytes())
        memory.pipe_file("/b/in/a.jpg", image_bytes(0, ".jpg"))

    options = FixOptions.from_dict(options.to_dict() | {"ext": "webp"})
    _, events, runs = watched(
        monkeypatch, options, arrive, lambda: None, lambda: memory.rm_file("/b/in/a.jpg"), lambda: None
    )
    assert runs == [["a.png"]]
    assert sum("would both be written here" in event for event in events) == 1
    assert events[0].startswith("waiting: memory://b/out/a.webp: ")


def test_a_folder_may_hold_other_files_at_first(memory: Any, monkeypatch: Any, options: FixOptions) -> None:
    memory.pipe_file("/b/in/words.txt", b"words")
    options = FixOptions.from_dict(options.to_dict() | {"include": ("*.png",)})
    result, events, runs = watched(
        monkeypatch, options, lambda: None, lambda: memory.pipe_file("/b/in/a.png", image_bytes())
    )
    assert (runs, result.done) == ([["a.png"]], 1)
    assert not any(event.startswith("waiting") for event in events)


def test_what_does_not_suit_is_refused(memory: Any, monkeypatch: Any, options: FixOptions) -> None:
    memory.pipe_file("/b/in", image_bytes())
    with pytest.raises(RestoreError, match="takes a folder as INPUT"):
        watched(monkeypatch, options)
    with pytest.raises(RestoreError, match="cannot be combined with --watch"):
        watched(monkeypatch, FixOptions(overwrite=True))
    with pytest.raises(RestoreError, match="or a URL as INPUT"):
        watch_places("here", "memory://b/out", options, lambda plan, options: Summary(0), on_event=print)
