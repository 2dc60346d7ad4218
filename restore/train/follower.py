"""A run's folder as every process but the first sees it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from restore.train.config import TrainConfig
from restore.train.run import RunFolder, Savable


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
