"""How an option of `fix` and `detect` is described, and how its value is checked and converted.

This module is imported by `restore --help` and therefore imports nothing heavy.
"""

from __future__ import annotations

import os
import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from restore.errors import RestoreError

Panel = Literal["What to repair", "Masks", "Files", "Output", "Video", "Speed", "Safety", "Reports"]


@dataclass(frozen=True)
class Option:
    """How an option is described and checked; the metadata of its field.

    Attributes:
        help: one or two sentences for `--help` and the docs.
        panel: the section of `--help` that lists it.
        minimum, maximum: bounds of a number, inclusive.
        metavar: placeholder of the value in `--help`; None: derived from the type.
        cli: False for an option that only Python has.
    """

    help: str
    panel: Panel
    minimum: float | None = None
    maximum: float | None = None
    metavar: str | None = None
    cli: bool = True


def flag(name: str) -> str:
    """The command line's spelling of an option, which errors name: `mask_invert` -> `--mask-invert`."""
    return f"--{name.replace('_', '-')}"


_NO_MATCH: Any = object()


def checked(name: str, kind: Any, option: Option, value: Any) -> Any:
    """The value of an option, converted from the spellings that are accepted for it."""
    for part in alternatives(kind):
        converted = _converted(part, option, value)
        if converted is not _NO_MATCH:
            return converted
    raise RestoreError(f"must be {expected(kind, option)}, not {value!r}", where=flag(name))


def _converted(kind: Any, option: Option, value: Any) -> Any:
    """The value as one of the types that an option takes, or `_NO_MATCH`."""
    if get_origin(kind) is Literal:
        return value if isinstance(value, str) and value in get_args(kind) else _NO_MATCH
    if get_origin(kind) is tuple:
        is_tuple = not isinstance(value, str) and isinstance(value, Iterable)
        return tuple(value) if is_tuple and all(isinstance(item, str) for item in value) else _NO_MATCH
    if kind in (int, float):
        if isinstance(value, str):  # `--tile 512` beside `--tile auto`
            value = _number(kind, value)
        if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
            return _NO_MATCH
        below = option.minimum is not None and value < option.minimum
        above = option.maximum is not None and value > option.maximum
        return _NO_MATCH if below or above or value != value else kind(value)
    if kind in (str, bool, types.NoneType):
        return value if isinstance(value, kind) else _NO_MATCH
    return value if isinstance(value, os.PathLike) else _NO_MATCH


def _number(kind: type, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        return text


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The parts of a union; of any other type itself."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def expected(kind: Any, option: Option) -> str:
    """What values an option takes, in words."""
    words = []
    for part in alternatives(kind):
        if get_origin(part) is Literal:
            words += [str(choice) for choice in get_args(part)]
        elif part in (int, float):
            unit = "an integer" if part is int else "a number"
            low, high = option.minimum, option.maximum
            bounds = f" of at least {low:g}" if high is None else f" between {low:g} and {high:g}"
            words.append(unit + (bounds if low is not None else ""))
        elif part is bool:
            words.append("True or False")
        elif part is str:
            words.append("a string")
        elif get_origin(part) is tuple:
            words.append("a sequence of strings")
    return " or ".join([", ".join(words[:-1])] * (len(words) > 1) + words[-1:])


def plain(value: Any) -> Any:
    """A value as JSON holds it."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return list(value) if isinstance(value, tuple) else value
