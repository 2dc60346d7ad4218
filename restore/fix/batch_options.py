"""The options that every command from images to outputs has: `fix`, `detect`, and their runs over stores and clusters.

Like `restore.fix.options`, this module is imported by `restore --help` and therefore imports nothing heavy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from restore.errors import RestoreError, did_you_mean
from restore.fix.option_values import Option, checked, flag, plain

FilePath = str | os.PathLike[str]
#: How a URL begins; its group is the scheme.
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

#: Images too large for memory are processed out of core, so this is more than `restore.images.MAX_PIXELS`.
MAX_PIXELS = 1_000_000_000

O = TypeVar("O", bound="BatchOptions")  # noqa: E741


def declared(options: type[BatchOptions]) -> dict[str, tuple[Any, Option]]:
    """The type and the `Option` of every field, by name, in the order of declaration."""
    hints = get_type_hints(options, include_extras=True)
    return {field.name: get_args(hints[field.name])[:2] for field in fields(options)}


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Options of every command that takes images to outputs.

    Raises:
        RestoreError: exit code 2; a value of the wrong type or out of range. It names the option as the command line
            spells it.
    """

    overwrite: Annotated[bool, Option("Replace existing outputs.", "Files")] = False
    skip_existing: Annotated[
        bool, Option("Skip images whose output exists. This resumes a run that was stopped.", "Files")
    ] = False
    include: Annotated[
        tuple[str, ...],
        Option("Process only files that match this glob (repeatable).", "Files", metavar="GLOB"),
    ] = ()
    exclude: Annotated[
        tuple[str, ...], Option("Leave out files that match this glob (repeatable).", "Files", metavar="GLOB")
    ] = ()
    files_from: Annotated[
        FilePath | None,
        Option(
            "Process only the files in this list, one path per line; - is standard input. Files of an INPUT folder "
            "keep its tree.",
            "Files",
            metavar="LIST",
        ),
    ] = None
    shard: Annotated[
        str | None,
        Option(
            "Process part I of N of the images, chosen by their relative paths: N runs, on any machines, share a "
            "folder.",
            "Files",
            metavar="I/N",
        ),
    ] = None
    tile: Annotated[
        int | Literal["auto"],
        Option("Side of a tile in pixels. auto: as memory allows; 0: whole images.", "Speed", 0, metavar="auto|N"),
    ] = "auto"
    device: Annotated[
        str,
        Option(
            "auto, cpu, cuda, cuda:N or mps. Several devices (cuda:0,cuda:1 or cuda:all) share the images.",
            "Speed",
            metavar="DEVICE",
        ),
    ] = "auto"
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        Option("Precision of the networks. auto: half precision where the hardware is fast at it.", "Speed"),
    ] = "auto"
    engine: Annotated[
        Literal["auto", "torch", "openvino", "onnx"],
        Option(
            "Engine that runs the networks on a CPU: PyTorch, OpenVINO or onnxruntime. auto: the fastest one that is "
            "installed and gives the same results.",
            "Speed",
        ),
    ] = "auto"
    max_pixels: Annotated[
        int, Option("Refuse images with more pixels (width × height) before decoding.", "Safety", 1, metavar="N")
    ] = MAX_PIXELS
    allow_truncated: Annotated[
        bool,
        Option(
            "Use the part of a damaged or truncated image that can be decoded, with a warning, instead of failing.",
            "Safety",
        ),
    ] = False
    decode_timeout: Annotated[
        float,
        Option("Fail an image that takes longer than N seconds to decode (Linux).", "Safety", 1, metavar="N"),
    ] = 300.0

    def __post_init__(self) -> None:
        for name, (kind, option) in declared(type(self)).items():
            object.__setattr__(self, name, checked(name, kind, option, getattr(self, name)))
        if self.files_from == "":  # as a shell makes it of a variable that is not set
            raise RestoreError("must not be empty", where="--files-from")
        if self.shard is not None:
            parse_shard(self.shard)
        if self.overwrite and self.skip_existing:
            raise RestoreError(
                "cannot be combined with --skip-existing", where="--overwrite", hint="choose one of them"
            )

    @classmethod
    def from_dict(cls: type[O], values: Mapping[str, Any]) -> O:
        """Options from names and values, such as a parsed JSON object.

        Raises:
            RestoreError: exit code 2; an unknown name, or as the class itself.
        """
        for name in values:
            if name not in declared(cls):
                raise RestoreError("unknown option", where=flag(name), hint=did_you_mean(name, declared(cls)))
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Names and values as JSON holds them; `from_dict` reads them back."""
        return {name: plain(getattr(self, name)) for name in declared(type(self))}


def parse_shard(text: str) -> tuple[int, int]:
    """The part and the number of parts of `shard`.

    Raises:
        RestoreError: exit code 2; not I/N with 1 ≤ I ≤ N.
    """
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    part, parts = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= part <= parts:
        raise RestoreError(f"must be I/N with I from 1 to N, such as 1/4, not {text!r}", where="--shard")
    return part, parts
