"""Trackers: programs that collect the values of runs, beside `metrics.jsonl`. They never stop a run."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from restore.errors import RestoreError
from restore.files import write_atomically
from restore.training.config import TrainConfig
from restore.training.tracker_libraries import OPENERS, RunFacts, Tracker

_FIRST_PAUSE_SECONDS = 60.0  # before a tracker is tried again; doubles up to the longest
_LONGEST_PAUSE_SECONDS = 600.0
_CLOSE_SECONDS = 60.0
_MAX_WAITING = 10_000  # log lines


def check_trackers(config: TrainConfig) -> None:
    """Check that the libraries of all trackers are installed. Imports none of them.

    Raises:
        RestoreError: one is not; the extra that installs it is named.
    """
    for tracker in config.trackers:
        spec = find_spec(tracker.kind)
        if spec is None or spec.origin is None:  # without an origin: a folder of that name, such as wandb's own
            raise RestoreError(
                f"needs the package {tracker.kind}",
                where=f"trackers: {tracker.kind}",
                hint=f'pip install "restore-toolkit[{tracker.kind}]"',
            )


class Trackers:
    """The trackers of a run.

    A tracker that fails is tried again after a pause; what was logged meanwhile is kept for it.

    Attributes:
        on_event: called with a line when a tracker opens, fails, or works again.
    """

    def __init__(self) -> None:
        self.on_event: Callable[[str], None] = lambda line: None
        self._open: dict[str, _Guarded] = {}

    def add(self, name: str, tracker: Tracker) -> None:
        """Add a tracker that is open."""
        self._open[name] = _Guarded(name, tracker, lambda line: self.on_event(line))

    def open(self, config: TrainConfig, values: dict[str, Any], step: int) -> None:
        """Open the trackers of a config. A resumed run continues the runs that `trackers.json` names.

        Args:
            config: of the run.
            values: the resolved config, which trackers store.
            step: of the state that the run starts from; 0: a new run.

        Raises:
            RestoreError: a tracker of a new run cannot be opened. With a resumed run, this is an event.
        """
        assert config.out is not None
        file = config.out / "trackers.json"
        ids: dict[str, str] = _read(file) if step else {}
        for tracker in config.trackers:
            facts = RunFacts(config.out, values, ids.get(tracker.kind))
            try:
                opened = OPENERS[tracker.kind](tracker, facts)
            except Exception as error:  # libraries raise whatever their servers and files cause
                if step == 0:
                    raise RestoreError(
                        _line(error),
                        where=f"trackers: {tracker.kind}",
                        hint="see the tracker's offline mode, or leave it out",
                    ) from error
                self.on_event(f"continues without {tracker.kind}, which cannot be opened: {_line(error)}")
                continue
            self.add(tracker.kind, opened)
            ids[tracker.kind] = opened.run_id
            self.on_event(f"{tracker.kind}: {opened.place}")
        if config.trackers:
            write_atomically(file, json.dumps(ids, indent=1).encode())

    def log(self, values: Mapping[str, Any]) -> None:
        """Pass the numbers of a line of `metrics.jsonl` to all trackers, as `training/NAME` or `validation/NAME`."""
        numbers = {}
        for name, value in values.items():
            if isinstance(value, (int, float)) and name != "step":
                group = "validation" if name.startswith("validation_") else "training"
                numbers[f"{group}/{name.removeprefix('validation_')}"] = float(value)
        for tracker in self._open.values():
            if numbers:
                tracker.log(numbers, int(values["step"]))

    def close(self, *, ok: bool) -> None:
        """Send what is left, and close all trackers, each within a minute.

        Args:
            ok: no error ended the run.
        """
        for tracker in self._open.values():
            tracker.close(ok)
        self._open = {}


class _Guarded:
    """A tracker whose failures are events."""

    def __init__(self, name: str, tracker: Tracker, on_event: Callable[[str], None]) -> None:
        self._name, self._tracker, self._on_event = name, tracker, on_event
        self._waiting: deque[tuple[dict[str, float], int]] = deque(maxlen=_MAX_WAITING)
        self._pause, self._retry_at = 0.0, 0.0

    def log(self, numbers: dict[str, float], step: int) -> None:
        self._waiting.append((numbers, step))
        if time.monotonic() >= self._retry_at:
            self._send()

    def _send(self) -> None:
        try:
            while self._waiting:
                self._tracker.log(*self._waiting[0])
                self._waiting.popleft()
        except Exception as error:  # see `Trackers.open`
            if not self._pause:
                self._on_event(f"{self._name} failed: {_line(error)}; training continues, and it is tried again")
            self._pause = min(2 * self._pause or _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
            self._retry_at = time.monotonic() + self._pause
        else:
            if self._pause:
                self._on_event(f"{self._name} works again")
            self._pause = 0.0

    def close(self, ok: bool) -> None:
        failures: list[str] = []

        def finish() -> None:
            try:
                self._send()
                self._tracker.close(ok)
            except Exception as error:
                failures.append(_line(error))

        # In a thread, because libraries wait for their servers, and a run must end.
        thread = threading.Thread(target=finish, daemon=True)
        thread.start()
        thread.join(_CLOSE_SECONDS)
        if thread.is_alive():
            failures.append(f"it takes longer than {_CLOSE_SECONDS:.0f} seconds")
        if failures or self._waiting:
            reason = failures[0] if failures else f"{len(self._waiting)} log lines were not sent"
            self._on_event(f"{self._name} was not closed: {reason}; metrics.jsonl is complete")


def _read(file: Path) -> dict[str, str]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(run_id) for name, run_id in found.items()} if isinstance(found, dict) else {}


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0] or type(error).__name__
