"""A run's folder: what it was asked, where it stands, what it reached. One process at a time."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from torch import Tensor, nn

from restore.checkpoints import read_state, read_state_facts, save_state
from restore.config import read_yaml, rename_old_keys
from restore.degradations.pipeline import rename_old_step_keys
from restore.environment import environment
from restore.errors import RestoreError
from restore.files import sweep_leftovers, write_atomically
from restore.plotting import draw_curves
from restore.training.config import FREE_ON_RESUME, TrainConfig

Savable = nn.Module | torch.optim.Optimizer | torch.amp.GradScaler


class RunFolder:
    """A run's folder, locked against a second process until it is closed. A context manager.

    It holds `config.yaml` (resolved), `environment.json`, `metrics.jsonl`, `curves.png`, `samples/`,
    `best.safetensors`, `last/state.safetensors`, and `tensorboard/` if that is installed. With `keep_checkpoints: N`
    there are also `checkpoints/step_NNNNNNN.safetensors`, the N states before the last. Copied to
    `last/state.safetensors`, one of them is where the run resumes.

    Args:
        path: made if it is not there.

    Raises:
        RestoreError: it cannot be made, or another process trains in it.
    """

    _keep = 0
    _saved_step: int | None = None  # of last/, as far as this process knows
    _board: Any = None
    _cpu_jpeg = "libjpeg"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "best.safetensors"
        self.state = path / "last" / "state.safetensors"
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = open(path / ".lock", "w")
        except OSError as error:
            raise RestoreError(f"cannot be written: {error.strerror}", where=path) from error
        _lock(self._lock, path)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, RestoreError) and _disk_is_full(error):
            error.hint = self._what_is_safe()

    def close(self) -> None:
        """Let others in."""
        if self._board is not None:
            self._board.close()
        self._lock.close()

    def check(self, config: TrainConfig) -> None:
        """Write the resolved config; where a run has begun here already, see that this is the same one.

        What a process that was killed while writing left behind is removed. A run that was killed before its first
        state was saved starts again.

        Raises:
            RestoreError: the folder holds a run of another config (the differing keys are listed), or files that are
                not this run's and would be replaced.
        """
        wanted = resolved(config)
        file = self.path / "config.yaml"
        if file.exists():
            self._refuse_another_config(read_yaml(file), wanted)
        if not self.state.exists():
            owner = () if file.exists() else ("metrics.jsonl",)
            foreign = [name for name in (*owner, self.best.name) if (self.path / name).exists()]
            if foreign:
                raise RestoreError(
                    f"holds {' and '.join(foreign)}, which would be replaced, but no state to go on from in last/",
                    where=self.path,
                    hint="choose another out=, or move them away",
                )
        try:
            (self.path / "samples").mkdir(exist_ok=True)
        except OSError as error:
            raise RestoreError(f"cannot be written: {error.strerror}", where=self.path / "samples") from error
        for folder in (self.path, self.path / "samples", self.state.parent):
            sweep_leftovers(folder)
        write_atomically(file, yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True).encode())
        found = environment(config.device, config.precision)
        write_atomically(self.path / "environment.json", json.dumps(found, indent=1).encode())
        self._keep = config.keep_checkpoints

    def _refuse_another_config(self, found: Any, wanted: dict[str, Any]) -> None:
        there, here = _flat(_in_current_form(found), FREE_ON_RESUME), _flat(wanted, FREE_ON_RESUME)
        differing = [k for k in {**there, **here} if there.get(k) != here.get(k)]
        if differing:
            listed = "; ".join(f"{k} was {there.get(k)}, is {here.get(k)}" for k in differing[:5])
            raise RestoreError(
                f"holds a run of another config ({listed})",
                where=self.path,
                hint="choose another out=, or use the same values"
                + ("" if self.state.exists() else ", or move its config.yaml away: no state of it was saved"),
            )

    def log(self, values: Mapping[str, Any]) -> None:
        """Append one line to `metrics.jsonl`, and tell TensorBoard."""
        try:
            with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise RestoreError(
                f"cannot be written: {error.strerror}", where=self.path / "metrics.jsonl", exit_code=1
            ) from error
        self._show(values)

    def _show(self, values: Mapping[str, Any]) -> None:
        if self._board is None:
            return
        for name, value in values.items():
            if name != "step":
                group = "validation" if name.startswith("validation_") else "training"
                self._board.add_scalar(f"{group}/{name.removeprefix('validation_')}", value, values["step"])

    def draw_curves(self) -> None:
        """Bring `curves.png` up to date with `metrics.jsonl`."""
        draw_curves(self.path / "metrics.jsonl", self.path / "curves.png")

    def forget_after(self, step: int) -> None:
        """Drop the lines of `metrics.jsonl` that a resumed run will write again, and have TensorBoard forget them."""
        self._board = open_board(self.path / "tensorboard", step)
        file = self.path / "metrics.jsonl"
        if file.exists():
            lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            kept = [line for line in lines if step and json.loads(line).get("step", 0) <= step]
            write_atomically(file, "".join(line + "\n" for line in kept).encode())

    def save(
        self,
        parts: Mapping[str, Savable],
        facts: Mapping[str, Any],
    ) -> None:
        """Write everything an exact resume needs, replacing what was there only when it is whole.

        The state before goes to `checkpoints/` where the config says `keep_checkpoints`.
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
        kept = self._keep_previous() if self._keep else None
        try:
            save_state(self.state, tensors, {**facts, "plain": plain, "cpu_jpeg": self._cpu_jpeg})
        except RestoreError:
            if kept is not None:
                kept.unlink(missing_ok=True)  # it is last/ still
            raise
        self._saved_step = int(facts["step"])
        self._drop_oldest(self._saved_step)

    def _keep_previous(self) -> Path | None:
        """Give the state that is about to be replaced a second name; its bytes are not copied where links work."""
        if self._saved_step is None or not self.state.exists():
            return None
        kept = self.path / "checkpoints" / f"step_{self._saved_step:07d}.safetensors"
        try:
            kept.parent.mkdir(exist_ok=True)
            kept.unlink(missing_ok=True)
            try:
                os.link(self.state, kept)
            except OSError:
                shutil.copyfile(self.state, kept)
        except OSError as error:
            kept.unlink(missing_ok=True)
            raise RestoreError(f"cannot be written: {error.strerror}", where=kept, exit_code=1) from error
        return kept

    def _drop_oldest(self, newest: int) -> None:
        files = (self.path / "checkpoints").glob("step_*.safetensors")
        older = sorted((step, file) for file in files if (step := _step_of(file)) is not None and step < newest)
        for _, file in older[: len(older) - self._keep] if len(older) > self._keep else []:
            file.unlink(missing_ok=True)

    @property
    def saved(self) -> bool:
        """Whether there is a state to go on from."""
        return self.state.exists()

    @staticmethod
    def has_state(path: Path) -> bool:
        """Whether a run can go on in this folder."""
        return (path / "last" / "state.safetensors").exists()

    @staticmethod
    def cpu_jpeg(path: Path) -> str:
        """What compresses training images on a CPU: `libjpeg`, or `tensor` for a run that an earlier release began.

        Such a run resumes bit for bit only with the implementation that it began with.
        """
        if not RunFolder.has_state(path):
            return "libjpeg"
        return str(read_state_facts(path / "last" / "state.safetensors").get("cpu_jpeg", "tensor"))

    def load(self, parts: Mapping[str, Savable]) -> dict[str, Any] | None:
        """Fill the parts from the last state; returns the facts saved with it, or None where there is no state yet."""
        if not self.state.exists():
            return None
        self._cpu_jpeg = self.cpu_jpeg(self.path)
        tensors, facts = read_state(self.state)
        self._saved_step = int(facts["step"])
        for name, part in parts.items():
            own = {k[len(name) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{name}.")}
            if isinstance(part, nn.Module):
                part.load_state_dict(own)
            elif isinstance(part, torch.optim.Optimizer):
                state: dict[int, dict[str, Tensor]] = {}
                for k, v in own.items():
                    index, _, key = k.partition(".")
                    state.setdefault(int(index), {})[key] = v
                part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})
                _lay_alike(part)
            elif facts["plain"].get(name):
                part.load_state_dict(facts["plain"][name])
        return facts

    def _what_is_safe(self) -> str:
        free = f"{shutil.disk_usage(self.path).free / 1e6:.1f} MB are free"
        if self._saved_step is None or not self.state.exists():
            return f"{free}; nothing had been saved yet: make room and start again"
        size = self.state.stat().st_size / 1e6
        return (
            f"the state of step {self._saved_step} is whole in last/: make room ({free}, a state takes {size:.1f} MB), "
            "and the same command goes on from there"
        )


def _lay_alike(optimizer: torch.optim.Optimizer) -> None:
    """Lay an optimizer's loaded averages out in memory as its parameters are: fused kernels read both side by side."""
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def resolved(config: TrainConfig) -> dict[str, Any]:
    """The config as plain values, every default written out."""
    return config.model_dump(mode="json")


def _in_current_form(found: Any) -> dict[str, Any]:
    """The config of an earlier run as `resolved` gives it: old names replaced, keys that it lacks at their defaults."""
    if not isinstance(found, dict):
        return {}
    values = rename_old_keys(TrainConfig, found, where="config.yaml", warn=False)
    values["damage"] = rename_old_step_keys(values.get("damage"), where="config.yaml", warn=False)
    try:
        return resolved(TrainConfig.model_validate(values))
    except ValidationError:  # not the config of a run
        return values


def open_board(folder: Path, step: int) -> Any:
    """A TensorBoard writer that forgets what an earlier start told it after `step`; None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


def _flat(values: Any, free: tuple[str, ...] = (), prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if prefix + key in free:
            continue
        if isinstance(value, dict):
            flat |= _flat(value, free, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _step_of(file: Path) -> int | None:
    digits = file.stem.removeprefix("step_")
    return int(digits) if digits.isdigit() else None


def _disk_is_full(error: RestoreError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)


def _lock(file: Any, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: an open file there cannot be replaced by a second run either
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise RestoreError(
            "another process trains in this folder", where=path, hint="wait for it, or choose another out="
        ) from error
    os.set_inheritable(file.fileno(), False)


# A run's folder as every process but the first sees it.


class Follower(RunFolder):
    """Read, never written: the process that leads does that.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "best.safetensors"
        self.state = path / "last" / "state.safetensors"

    def close(self) -> None:
        """Nothing was opened."""

    def check(self, config: TrainConfig) -> None:
        """The leader has looked."""

    def log(self, values: Mapping[str, Any]) -> None:
        """The leader writes."""

    def draw_curves(self) -> None:
        """The leader draws."""

    def forget_after(self, step: int) -> None:
        """The leader forgets."""

    def save(self, parts: Mapping[str, Savable], facts: Mapping[str, Any]) -> None:
        """The leader saves."""
