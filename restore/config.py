"""Configs: YAML files and `key=value` overrides, validated. An unknown key is an error that names the nearest one."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from restore.errors import RestoreError, did_you_mean

logger = logging.getLogger(__name__)


class Settings(BaseModel):
    """Base of every config: immutable, and unknown keys are errors. The docstring of a key describes it in the schema.

    Attributes:
        RENAMED: old key -> new key. Subclasses inherit the renames of their bases. An old key is read as the new one,
            with one warning per process.
        RENAMED_VALUES: new key -> (old value -> new value). The old value is read as the new one under either key.
    """

    RENAMED: ClassVar[dict[str, str]] = {}
    RENAMED_VALUES: ClassVar[dict[str, dict[str, str]]] = {}

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)


S = TypeVar("S", bound=Settings)


class _Loader(yaml.SafeLoader):
    """Reads floats as YAML 1.2 (`1e-4` is a number, not text), and refuses duplicate keys, which YAML forbids."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)?\.?\d+[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def configs_dir() -> Path:
    """The folder with `train/` and `damage/`: inside an installed package, or beside the package in a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def find_config(name_or_path: str | Path, kind: str) -> Path:
    """Find a config file by path, or by name among the shipped `configs/<kind>/`.

    Args:
        name_or_path: a name such as `photo`, or a path: anything with a slash or the suffix `.yaml` or `.yml`.
        kind: `train` or `damage`.

    Raises:
        RestoreError: there is no such file or name; the shipped names are listed.
    """
    text = str(name_or_path)
    if "/" in text or "\\" in text or text.endswith((".yaml", ".yml")):
        path = Path(text)
        if path.is_file():
            return path
        what = "config file or folder of masks" if kind == "damage" else "config file"
        raise RestoreError(f"there is no such {what}", where=path)
    path = configs_dir() / kind / f"{text}.yaml"
    if path.is_file():
        return path
    raise RestoreError(f"unknown {kind} config {text!r}", hint=did_you_mean(text, config_names(kind)))


def config_names(kind: str) -> list[str]:
    """Names of the shipped configs, sorted."""
    return sorted(p.stem for p in (configs_dir() / kind).glob("*.yaml"))


def read_yaml(path: Path) -> Any:
    """Read a YAML file as plain Python values.

    Raises:
        RestoreError: the file cannot be read, or is not YAML; the message names the line.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        raise RestoreError(f"not valid YAML: {' '.join(str(error).split())}", where=path) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RestoreError(f"cannot be read as text: {error}", where=path) from error


def build(kind: type[S], values: Any, *, where: str | Path, overrides: Iterable[str] = ()) -> S:
    """Validate a config.

    Args:
        kind: the class of the config.
        values: plain values, as YAML gives them; None is an empty config. Keys may have their old names.
        where: the file or key that the values come from, for error messages.
        overrides: `a.b=value` each, applied to `values` in order.

    Raises:
        RestoreError: one line that names the first wrong key, and the nearest known key if it is unknown.
    """
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise RestoreError("a config must be a mapping of keys to values", where=where)
    merged: dict[str, Any] = rename_old_keys(kind, _copied(values), where=where)
    overrides = list(overrides)
    for override in overrides:
        _apply_override(kind, merged, override)
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        raise _as_restore_error(kind, error, where, overrides) from error


def load(kind: type[S], path: Path, overrides: Iterable[str] = ()) -> S:
    """`build` from a YAML file."""
    return build(kind, read_yaml(path), where=path, overrides=overrides)


def rename_old_keys(
    kind: type[BaseModel], values: Mapping[str, Any], *, where: str | Path, warn: bool = True
) -> dict[str, Any]:
    """Replace the old names of keys and values by the current ones, also in nested configs.

    Args:
        kind: the class of the config, which declares `RENAMED` and `RENAMED_VALUES`.
        values: plain values; not changed.
        where: the file or key that the values come from, for error messages.
        warn: log a warning for every old name, once per process.

    Raises:
        RestoreError: a key is there under both names.
    """
    return _renamed(kind, values, where, warn, "", "")


def _renamed(
    kind: type[BaseModel], values: Mapping[str, Any], where: str | Path, warn: bool, old_prefix: str, prefix: str
) -> dict[str, Any]:
    keys, values_of = _declared(kind, "RENAMED"), _declared(kind, "RENAMED_VALUES")
    current: dict[str, Any] = {}
    for old, value in values.items():
        key = keys.get(old, old)
        old_path, path = f"{old_prefix}{old}", f"{prefix}{key}"
        if key != old and key in values:
            raise RestoreError(f"{old_path} is the old name of {path}; both are set", where=where)
        field = kind.model_fields.get(key)
        inner = None if field is None else field.annotation
        if isinstance(value, Mapping) and isinstance(inner, type) and issubclass(inner, BaseModel):
            current[key] = _renamed(inner, value, where, warn, f"{old_path}.", f"{path}.")
            continue
        current[key] = values_of.get(key, {}).get(value, value) if isinstance(value, str) else value
        if warn and current[key] != value:
            _warn_renamed(f"{old_path}: {value}", f"{path}: {current[key]}")
        elif warn and path != old_path:
            _warn_renamed(old_path, path)
    return current


def _declared(kind: type, name: str) -> dict[str, Any]:
    """A class attribute that is a dict, merged with those of the base classes."""
    return {k: v for base in reversed(kind.__mro__) for k, v in vars(base).get(name, {}).items()}


@cache  # one line per old name, however often a config has it
def _warn_renamed(old: str, new: str) -> None:
    logger.warning("%s is now called %s; the old name stops working in the next release", old, new)


def _copied(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {str(k): _copied(v) for k, v in values.items()}
    if isinstance(values, list):
        return [_copied(v) for v in values]
    return values


def _apply_override(kind: type[BaseModel], values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RestoreError("an override must be key=value", where=override, hint="for example total_steps=1000")
    try:
        value = yaml.load(text, Loader=_Loader) if text else None
    except yaml.YAMLError as error:
        raise RestoreError("the value is not valid YAML", where=override) from error
    path = _override_path(override)
    nested: Any = value
    for part in reversed(path):
        nested = {part: nested}
    nested = rename_old_keys(kind, nested, where=override)
    # Renames change names, never the depth.
    for depth in range(len(path)):
        ((part, inner),) = nested.items()
        if depth == len(path) - 1:
            values[part] = inner
        else:
            if not isinstance(values.get(part), dict):
                values[part] = {}
            values, nested = values[part], inner


def _override_path(override: str) -> list[str]:
    return [part.strip() for part in override.partition("=")[0].split(".")]


# Pydantic speaks of Python's types; a config is YAML.
_IN_YAML = {
    "tuple_type": "must be a list, such as [a, b]",
    "list_type": "must be a list, such as [a, b]",
    "model_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
}


# Shorter words for limits.
_SHORTER = {"Input should be": "must be", "greater than or equal to": "at least", "less than or equal to": "at most"}


def message_of(error: ErrorDetails) -> str:
    """What is wrong with a value, in the words of this project, starting in lower case."""
    message = _IN_YAML.get(error["type"], error["msg"].removeprefix("Value error, "))
    for long, short in _SHORTER.items():
        message = message.replace(long, short)
    return message[:1].lower() + message[1:]


def _as_restore_error(
    kind: type[BaseModel], error: ValidationError, where: str | Path, overrides: list[str]
) -> RestoreError:
    # A misspelt key is often the cause of a missing one, so it is reported first.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    parts = [str(part) for part in first["loc"]]
    location = ".".join(parts)
    for override in overrides:  # the file is not to blame for a key that the command line sets
        path = _override_path(override)
        if parts and path[: len(parts)] == parts[: len(path)]:
            where = override
    more = error.error_count() - 1
    also = f" (and {more} more)" if more else ""
    if first["type"] == "extra_forbidden":
        return RestoreError(f"unknown key {location!r}{also}", where=where, hint=_hint_for_unknown(location, kind))
    if first["type"] == "missing":
        return RestoreError(f"the key {location!r} is missing{also}", where=where, hint=f"add {location}=...")
    message = message_of(first)
    value = "" if isinstance(first["input"], Mapping) else f" = {first['input']!r}"
    what = f"{location}{value}: {message}{also}" if location else f"{message}{also}"
    return RestoreError(what, where=where)


def _hint_for_unknown(location: str, kind: type[BaseModel]) -> str:
    """The known key that an unknown one most likely means, or all known keys."""
    known = known_keys(kind)
    # By the whole path, or else by the last part alone: the key may belong to another section.
    spelled = location.strip().casefold()
    paths = {key.casefold(): key for key in known}
    names = {key.rpartition(".")[2]: key for key in reversed(list(paths.values()))}
    name = spelled.rpartition(".")[2].strip()
    near = paths.get(spelled) or names.get(name) or _nearest(spelled, paths) or _nearest(name, names)
    return f"did you mean {near!r}?" if near else f"known keys: {', '.join(known)}"


def _nearest(text: str, known: Mapping[str, str]) -> str | None:
    near = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
    return known[near[0]] if near else None


def known_keys(kind: type[BaseModel], prefix: str = "") -> list[str]:
    """All keys of a config in order, nested ones with dots."""
    keys: list[str] = []
    for name, field in kind.model_fields.items():
        keys.append(prefix + name)
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += known_keys(inner, f"{prefix}{name}.")
    return keys


def json_schema(kind: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a config. Descriptions are unwrapped to one line each."""
    schema: dict[str, Any] = _unwrapped(kind.model_json_schema())
    return schema


def _unwrapped(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_unwrapped(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: " ".join(part.split()) if name == "description" and isinstance(part, str) else _unwrapped(part)
        for name, part in schema.items()
    }
