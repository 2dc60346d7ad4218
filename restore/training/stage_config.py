"""The stages of a run in its config: keys that take other values from some step on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, model_validator

from restore.config import Settings
from restore.training.resume_keys import LOSS_WEIGHTS

STAGE_KEYS = (
    "data.patch",
    "data.batch",
    "data.scale",
    "data.flip",
    "data.rotate",
    "grad_accumulation",
    "ema",
    "optimizer",
    *LOSS_WEIGHTS,
)
"""Keys, or sections of keys, that a stage may set."""


class Stage(Settings):
    """A stage: the step at which it starts, and keys that have other values from then on."""

    start: int = Field(..., ge=1)
    """First step of the stage, counted from 0. The stage ends where the next one starts, or with the run."""
    data: dict[str, Any] = Field(default_factory=dict)
    """`patch`, `batch`, `scale`, `flip`, `rotate`."""
    optimizer: dict[str, Any] = Field(default_factory=dict)
    """Any key of `optimizer`. The schedule then starts again, and runs until the next stage that sets such a key."""
    loss: dict[str, Any] = Field(default_factory=dict)
    """Weights of the loss."""
    grad_accumulation: int | None = None
    """See the key of this name. null: as before."""
    ema: float | None = None
    """See the key of this name. null: as before."""

    @model_validator(mode="after")
    def _only_what_may_change(self) -> Stage:
        for key in self.keys():
            if key == "optimizer.kind" or not any(key == known or key.startswith(f"{known}.") for known in STAGE_KEYS):
                raise ValueError(f"a stage cannot set {key}; it can set {', '.join(STAGE_KEYS)}")
        return self

    def keys(self) -> Iterator[str]:
        """The keys that the stage sets, with dots."""
        for name in ("grad_accumulation", "ema"):
            if getattr(self, name) is not None:
                yield name
        for section in ("data", "optimizer", "loss"):
            yield from (f"{section}.{name}" for name in getattr(self, section))

    def applied_to(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The plain values of a config with those of this stage."""
        changed = dict(values)
        for name in ("grad_accumulation", "ema"):
            if getattr(self, name) is not None:
                changed[name] = getattr(self, name)
        for section in ("data", "optimizer", "loss"):
            changed[section] = {**values[section], **getattr(self, section)}
        return changed
