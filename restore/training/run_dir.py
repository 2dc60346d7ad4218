"""The folder of a run: config, state, log, and best weights. One process at a time."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from restore.checkpoints import read_state, read_state_facts, save_state
from restore.data.discovery import RULES
from restore.environment import environment
from restore.errors import RestoreError
from restore.files import lock_file, sweep_leftovers, write_atomically, write_error_message
from restore.plotting import draw_curves
from restore.training.compute import ComputeSettings
from restore.training.config import TrainConfig
from restore.training.resume import Change, find_changes, resolved
from restore.training.tracker_libraries import TensorBoard
from restore.training.trackers import Trackers

Savable = nn.Module | torch.optim.Optimizer | torch.amp.GradScaler


class RunFolder:
    """The folder of a run, locked against other processes until it is closed. A context manager.

    It holds `config.yaml` (resolved), `environment.json`, `metrics.jsonl`, `curves.png`, `samples/`,
    `best.safetensors`, `last/state.safetensors`, and what its trackers write. With `keep_checkpoints: N`
    there are also `checkpoints/step_NNNNNNN.safetensors`, the N states before the last. To resume from one of them,
    copy it to `last/state.safetensors`.

    Args:
        path: created if it does not exist.

    Raises:
        RestoreError: it cannot be created, or another process is training in it.
    """

    _keep = 0
    _saved_step: int | None = None  # of last/, if this process has read or written it
    _cpu_jpeg = "libjpeg"
    _data_rules = RULES

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "best.safetensors"
        self.state = path / "last" / "state.safetensors"
        self._trackers = Trackers()
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = open(path / ".lock", "w")
        except OSError as error:
            raise RestoreError(write_error_message(error), where=path) from error
        _lock(self._lock, path)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._trackers.close(ok=error is None)
        self.close()
        if isinstance(error, RestoreError) and _disk_is_full(error):
            error.hint = self._disk_full_hint()

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()

    @staticmethod
    def has_state(path: Path) -> bool:
        """Whether a folder holds a state to resume from."""
        return (path / "last" / "state.safetensors").exists()

    @staticmethod
    def cpu_jpeg(path: Path) -> str:
        """The JPEG implementation that degrades training images on a CPU: `libjpeg`, or `tensor` for older runs.

        A run resumes bit for bit only with the implementation that it started with.
        """
        facts = RunFolder.facts(path)
        return str(facts.get("cpu_jpeg", "tensor")) if facts else "libjpeg"

    @staticmethod
    def data_rules(path: Path) -> int:
        """How training images are split and read; see `restore.data.discovery.RULES`. A run keeps its rules."""
        facts = RunFolder.facts(path)
        return int(facts.get("data_rules", 1)) if facts else RULES

    @staticmethod
    def facts(path: Path) -> dict[str, Any]:
        """The plain facts of the state in a folder (see `save`); empty without one."""
        return read_state_facts(path / "last" / "state.safetensors") if RunFolder.has_state(path) else {}

    @property
    def has_saved(self) -> bool:
        """Whether this folder holds a state to resume from."""
        return self.state.exists()

    def check(self, config: TrainConfig, compute: ComputeSettings) -> list[Change]:
        """Check that the folder is empty or holds a run of the same config, and write the resolved config.

        Temporary files of a killed process are removed. A run that was killed before it saved a state starts again.

        Args:
            config: of the run.
            compute: how it computes, for `environment.json`.

        Returns:
            The keys that have other values than in the run so far.

        Raises:
            RestoreError: the folder holds a run of another config (see `find_changes`), or files of something else
                that would be replaced.
        """
        file = self.path / "config.yaml"
        changes = find_changes(self.path, config)
        if not self.has_saved:
            own = () if file.exists() else ("metrics.jsonl",)
            foreign = [name for name in (*own, self.best.name) if (self.path / name).exists()]
            if foreign:
                raise RestoreError(
                    f"holds {' and '.join(foreign)}, which would be replaced, but no state to resume from in last/",
                    where=self.path,
                    hint="use another out=, or move them away",
                )
        try:
            (self.path / "samples").mkdir(exist_ok=True)
        except OSError as error:
            raise RestoreError(write_error_message(error), where=self.path / "samples") from error
        for folder in (self.path, self.path / "samples", self.state.parent):
            sweep_leftovers(folder)
        self.write_config(config)
        precision = compute.precision if config.precision == "auto" else config.precision
        versions = environment(config.device, precision) | {"channels_last": compute.channels_last}
        write_atomically(self.path / "environment.json", json.dumps(versions, indent=1).encode())
        self._keep = config.keep_checkpoints
        return changes

    def write_config(self, config: TrainConfig) -> None:
        """Write the resolved config."""
        text = yaml.safe_dump(resolved(config), sort_keys=False, allow_unicode=True)
        write_atomically(self.path / "config.yaml", text.encode())

    def log(self, values: Mapping[str, Any]) -> None:
        """Append a line to `metrics.jsonl`, and pass it to the trackers."""
        try:
            with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise RestoreError(write_error_message(error), where=self.path / "metrics.jsonl", exit_code=1) from error
        self._trackers.log(values)

    def truncate_log(self, step: int) -> None:
        """Remove log lines after a step, which a resumed run writes again; in TensorBoard, too."""
        with suppress(ImportError):  # TensorBoard is not installed
            self._trackers.add("tensorboard", TensorBoard(self.path / "tensorboard", step))
        file = self.path / "metrics.jsonl"
        if file.exists():
            # A line that a killed process did not finish does not end with a brace.
            lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            earlier = [line for line in lines if step and json.loads(line).get("step", 0) <= step]
            write_atomically(file, "".join(line + "\n" for line in earlier).encode())

    def open_trackers(self, config: TrainConfig, step: int, on_event: Callable[[str], None]) -> None:
        """Open the trackers of the config; see `Trackers.open`.

        Args:
            config: of the run.
            step: of the state that the run starts from; 0: a new run.
            on_event: called with a line when a tracker opens, fails, or works again.

        Raises:
            RestoreError: a tracker of a new run cannot be opened.
        """
        self._trackers.on_event = on_event
        self._trackers.open(config, resolved(config), step)

    def draw_curves(self) -> None:
        """Draw `curves.png` from `metrics.jsonl`."""
        draw_curves(self.path / "metrics.jsonl", self.path / "curves.png")

    def save(self, parts: Mapping[str, Savable], facts: Mapping[str, Any]) -> None:
        """Write everything that an exact resume needs. Atomic: the previous state is replaced by a complete one.

        With `keep_checkpoints`, the previous state is moved to `checkpoints/`.

        Args:
            parts: networks, optimizers and scalers by name.
            facts: plain values, `step` among them.
        """
        tensors: dict[str, Tensor] = {}
        plain: dict[str, Any] = {}
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                tensors |= {f"{name}.{k}": v for k, v in part.state_dict().items()}
            elif isinstance(part, torch.optim.Optimizer):
                for index, values in part.state_dict()["state"].items():
                    tensors |= {f"{name}.{index}.{k}": v for k, v in values.items()}
            else:
                plain[name] = part.state_dict()
        checkpoint = self._link_previous_state() if self._keep else None
        try:
            save_state(self.state, tensors, {**facts, "plain": plain, **self._kept_by_this_run()})
        except RestoreError:
            if checkpoint is not None:
                checkpoint.unlink(missing_ok=True)  # the previous state is still in last/
            raise
        self._saved_step = int(facts["step"])
        self._remove_old_checkpoints(self._saved_step)

    def _kept_by_this_run(self) -> dict[str, Any]:
        """What stays as it was when the run began, so that it resumes bit for bit in later releases."""
        return {"cpu_jpeg": self._cpu_jpeg, "data_rules": self._data_rules}

    def _link_previous_state(self) -> Path | None:
        """Link the state that is about to be replaced into checkpoints/; copy it if the disk has no hard links."""
        if self._saved_step is None or not self.has_saved:
            return None
        checkpoint = self.path / "checkpoints" / f"step_{self._saved_step:07d}.safetensors"
        try:
            checkpoint.parent.mkdir(exist_ok=True)
            checkpoint.unlink(missing_ok=True)
            try:
                os.link(self.state, checkpoint)
            except OSError:
                shutil.copyfile(self.state, checkpoint)
        except OSError as error:
            checkpoint.unlink(missing_ok=True)
            raise RestoreError(write_error_message(error), where=checkpoint, exit_code=1) from error
        return checkpoint

    def _remove_old_checkpoints(self, newest: int) -> None:
        # Later steps remain if the run resumed from an older state; they are not removed.
        files = (self.path / "checkpoints").glob("step_*.safetensors")
        older = sorted((step, file) for file in files if (step := _step_of(file)) is not None and step < newest)
        for _, file in older[: len(older) - self._keep] if len(older) > self._keep else []:
            file.unlink(missing_ok=True)

    def load(self, parts: Mapping[str, Savable]) -> dict[str, Any] | None:
        """Load the last state into the parts.

        Returns:
            The facts that were saved with it; None if there is no state.
        """
        if not self.has_saved:
            return None
        self._cpu_jpeg, self._data_rules = self.cpu_jpeg(self.path), self.data_rules(self.path)
        tensors, facts = read_state(self.state)
        self._saved_step = int(facts["step"])
        for name, part in parts.items():
            own = {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{name}.")}
            if isinstance(part, nn.Module):
                if own:  # a discriminator that joins a run without one starts from new weights
                    part.load_state_dict(own)
            elif isinstance(part, torch.optim.Optimizer):
                state: dict[int, dict[str, Tensor]] = {}
                for k, v in own.items():
                    index, _, key = k.partition(".")
                    state.setdefault(int(index), {})[key] = v
                # Learning rates and betas come from the config, so only the averages are saved.
                part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})
                _match_memory_format(part)
            elif facts["plain"].get(name):
                part.load_state_dict(facts["plain"][name])
        return facts

    def _disk_full_hint(self) -> str:
        free = f"{shutil.disk_usage(self.path).free / 1e6:.1f} MB are free"
        if self._saved_step is None or not self.has_saved:
            return f"{free}, and no state was saved yet; free some space and start again"
        size = self.state.stat().st_size / 1e6
        return (
            f"the state of step {self._saved_step} is safe in last/; free some space ({free}, a state takes "
            f"{size:.1f} MB), and the same command resumes the run"
        )


class Follower(RunFolder):
    """The folder of a run for ranks other than 0, which read the state and write nothing.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "best.safetensors"
        self.state = path / "last" / "state.safetensors"
        self._trackers = Trackers()

    def close(self) -> None:
        """Nothing is open."""

    def check(self, config: TrainConfig, compute: ComputeSettings) -> list[Change]:
        """Left to rank 0."""
        return []

    def log(self, values: Mapping[str, Any]) -> None:
        """Left to rank 0."""

    def draw_curves(self) -> None:
        """Left to rank 0."""

    def truncate_log(self, step: int) -> None:
        """Left to rank 0."""

    def save(self, parts: Mapping[str, Savable], facts: Mapping[str, Any]) -> None:
        """Left to rank 0."""


def _match_memory_format(optimizer: torch.optim.Optimizer) -> None:
    """Give loaded averages the strides of their parameters: fused kernels read both in memory order."""
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _step_of(file: Path) -> int | None:
    digits = file.stem.removeprefix("step_")
    return int(digits) if digits.isdigit() else None


def _disk_is_full(error: RestoreError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)


def _lock(file: Any, path: Path) -> None:
    try:
        lock_file(file)
    except OSError as error:
        raise RestoreError(
            "another process is training in this folder", where=path, hint="wait for it, or use another out="
        ) from error
    os.set_inheritable(file.fileno(), False)  # else data workers would keep the lock after this process
