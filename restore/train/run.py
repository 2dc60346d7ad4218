"""A run's folder: what it was asked, where it stands, what it reached. One process at a time."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from restore import __version__
from restore.checkpoints import read_state, save_state, write_atomically
from restore.errors import RestoreError
from restore.settings import read_yaml
from restore.train.config import FREE_ON_RESUME, TrainConfig

Savable = nn.Module | torch.optim.Optimizer | torch.amp.GradScaler


class RunFolder:
    """`config.yaml`, `environment.json`, `metrics.jsonl`, `samples/`, `best.safetensors`, `last/state.safetensors`.

    Args:
        path: made if it is not there.

    Raises:
        RestoreError: it cannot be made, or another process trains in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "best.safetensors"
        self.state = path / "last" / "state.safetensors"
        try:
            (path / "samples").mkdir(parents=True, exist_ok=True)
            self._lock = open(path / ".lock", "w")
        except OSError as error:
            raise RestoreError(f"cannot be written: {error.strerror}", where=path) from error
        _lock(self._lock, path)

    def close(self) -> None:
        """Let others in."""
        self._lock.close()

    def check(self, config: TrainConfig) -> None:
        """Write the resolved config; where a run has begun here already, see that this is the same one.

        Raises:
            RestoreError: the folder holds a run of another config; the differing keys are listed.
        """
        wanted = resolved(config)
        file = self.path / "config.yaml"
        if self.state.exists() and file.exists():
            there, here = (_flat(values, FREE_ON_RESUME) for values in (read_yaml(file), wanted))
            differing = [k for k in {**there, **here} if there.get(k) != here.get(k)]
            if differing:
                listed = "; ".join(f"{k} was {there.get(k)}, is {here.get(k)}" for k in differing[:5])
                raise RestoreError(
                    f"holds a run of another config ({listed})",
                    where=self.path,
                    hint="choose another out=, or use the same values",
                )
        write_atomically(file, yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True).encode())
        write_atomically(self.path / "environment.json", json.dumps(environment(), indent=1).encode())

    def log(self, values: Mapping[str, Any]) -> None:
        """Append one line to `metrics.jsonl`."""
        try:
            with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise RestoreError(
                f"cannot be written: {error.strerror}", where=self.path / "metrics.jsonl", exit_code=1
            ) from error

    def forget_after(self, step: int) -> None:
        """Drop the lines of `metrics.jsonl` that a resumed run will write again."""
        file = self.path / "metrics.jsonl"
        if file.exists():
            lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line).get("step", 0) <= step]
            write_atomically(file, "".join(line + "\n" for line in kept).encode())

    def save(
        self,
        parts: Mapping[str, Savable],
        facts: Mapping[str, Any],
    ) -> None:
        """Write everything an exact resume needs, replacing what was there only when it is whole."""
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
        save_state(self.state, tensors, {**facts, "plain": plain})

    def load(self, parts: Mapping[str, Savable]) -> dict[str, Any] | None:
        """Fill the parts from the last state; returns the facts saved with it, or None where there is no state yet."""
        if not self.state.exists():
            return None
        tensors, facts = read_state(self.state)
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
            elif facts["plain"].get(name):
                part.load_state_dict(facts["plain"][name])
        return facts


def resolved(config: TrainConfig) -> dict[str, Any]:
    """The config as plain values, every default written out."""
    return config.model_dump(mode="json")


def environment() -> dict[str, Any]:
    """What the run was made with."""
    return {
        "restore": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _flat(values: Any, free: tuple[str, ...] = (), prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if not prefix and key in free:
            continue
        if isinstance(value, dict):
            flat |= _flat(value, prefix=f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


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
