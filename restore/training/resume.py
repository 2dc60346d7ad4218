"""Compares the config that a run resumes with to the one that it began with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from restore.checkpoints import read_state_facts
from restore.config import read_yaml, rename_old_keys
from restore.degradations.pipeline import rename_old_step_keys
from restore.errors import RestoreError
from restore.training.config import TrainConfig
from restore.training.resume_keys import MAY_CHANGE, is_fixed, is_within


@dataclass(frozen=True)
class Change:
    """A key that has another value than in the run so far."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} was {self.before}, is {self.now}"


def resolved(config: TrainConfig) -> dict[str, Any]:
    """The config as plain values, with every default."""
    return config.model_dump(mode="json")


def find_changes(out: Path, config: TrainConfig) -> list[Change]:
    """Compare a config with that of the run in a folder. Reads `config.yaml` alone, and writes nothing.

    Args:
        out: the folder; there need not be one.
        config: what the run is to resume with.

    Returns:
        The keys that differ; empty for a new run.

    Raises:
        RestoreError: a key differs that must not (see `MAY_CHANGE`); such keys are listed.
    """
    file = out / "config.yaml"
    if not file.exists():
        return []
    before, now = _in_current_form(read_yaml(file)), resolved(config)
    changes = list(_differences(_flat(before), _flat(now)))
    allowed = (*MAY_CHANGE, *config.resume.allow)
    past = [_stages_before(_saved_step(out), values) for values in (before, now)]
    if past[0] != past[1] and "stages" not in config.resume.allow:
        raise _refusal(out, [Change("stages", *past)])
    refused = [c for c in changes if is_fixed(c.key) or not is_within(c.key, allowed)]
    if refused:
        raise _refusal(out, refused)
    return changes


def _saved_step(out: Path) -> int:
    state = out / "last" / "state.safetensors"
    return int(read_state_facts(state)["step"]) if state.exists() else 0


def _stages_before(step: int, values: Mapping[str, Any]) -> list[Any]:
    """The stages that began before a step, which can change no more."""
    return [stage for stage in values.get("stages") or () if stage["start"] < step]


def _refusal(out: Path, refused: list[Change]) -> RestoreError:
    listed = "; ".join(str(change) for change in refused[:5]) + ("; ..." if len(refused) > 5 else "")
    hint = "use another out=, or the same values"
    fixed = [change.key for change in refused if is_fixed(change.key)]
    if not (out / "last" / "state.safetensors").exists():
        hint += ", or move its config.yaml away: it has no saved state"
    elif not fixed:
        keys = ", ".join(dict.fromkeys(change.key for change in refused))
        hint += f"; to change them on purpose, set resume.allow=[{keys}]"
    return RestoreError(f"holds a run of another config ({listed})", where=out, hint=hint)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterable[Change]:
    for key in {**before, **now}:
        if key != "out" and not is_within(key, ("resume",)) and before.get(key) != now.get(key):
            yield Change(key, before.get(key), now.get(key))


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


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted keys: `damage.steps.3.sigma`. Lists without mappings, such as ranges, stay whole."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if key != "stages" and isinstance(value, list) and any(isinstance(part, dict) for part in value):
            value = {str(number): part for number, part in enumerate(value)}
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
