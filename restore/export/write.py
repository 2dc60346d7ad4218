"""Write weights in another format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from restore.errors import RestoreError, did_you_mean
from restore.export.onnx import write_onnx
from restore.export.openvino import write_openvino
from restore.export.pix2pix import write_cyclegan, write_pix2pix
from restore.export.quantize import Quantization, write_int8
from restore.export.source import Source, open_source
from restore.export.targets import check_suffix, refuse_existing
from restore.export.torchscript import write_torchscript
from restore.export.weights import write_safetensors, write_spandrel

Format = Literal["onnx", "openvino", "torchscript", "safetensors", "pix2pix", "cyclegan", "spandrel"]


@dataclass(frozen=True)
class Exported:
    """The files written, and notes: what they hold, how they were checked, and what was left out for which reason."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Target:
    """A format of one file: its suffix, what errors call it, and what writes it."""

    suffix: str
    kind: str
    write: Callable[[Source, Path], list[str]]


_TARGETS = {
    "onnx": _Target(".onnx", "an ONNX file", write_onnx),
    "openvino": _Target(".xml", "a graph of OpenVINO", write_openvino),
    "torchscript": _Target(".pt", "a TorchScript file", write_torchscript),
    "safetensors": _Target(".safetensors", "a weights file", write_safetensors),
    "spandrel": _Target(".safetensors", "a weights file", write_spandrel),
}

# State dicts in the names of the reference code, of several networks each.
_PUBLISHED = {"pix2pix": write_pix2pix, "cyclegan": write_cyclegan}


def export(
    source: Path | str,
    out: Path,
    format: Format,
    *,
    overwrite: bool = False,
    quantization: Quantization | None = None,
) -> Exported:
    """Write weights in another format.

    Files of `onnx`, `openvino` and `torchscript` take images of any batch, height and width. Before one is written, its
    output is compared with PyTorch's on images of five shapes.

    Args:
        source: a run's folder; a state of a run (`last/state.safetensors` or one of `checkpoints/`: the averaged
            weights, and D); a weights file or a shipped model's name; or a published `*_net_G.pth` of pix2pix or
            CycleGAN. Of a folder, all formats but `pix2pix` and `cyclegan` take `best.safetensors`. These take G and D
            from one state, in full precision: that of the best step if it is kept in `last/` or `checkpoints/`, else
            the last one.
        out: for `pix2pix` and `cyclegan` a folder, which gets files as the reference code looks for them
            (`latest_net_G.pth`, ...), or for `pix2pix` a file `NAME_net_G.pth`; for `openvino` NAME.xml (NAME.bin goes
            with it); for all others a file with the suffix of its format.
        format: `onnx`, `openvino`, `torchscript`, `safetensors` (with a description), `pix2pix` or
            `cyclegan` (state dicts in the reference code's names) or `spandrel` (plain weights).
        overwrite: replace files that exist.
        quantization: of an ONNX file to 8-bit integers; None: float32.

    Raises:
        RestoreError: no such source or format; the network does not fit the format; a package is missing; the output
            differs from PyTorch's; a file exists already or cannot be written.
    """
    if format not in get_args(Format):
        raise RestoreError(f"unknown: {format!r}", where="--format", hint=did_you_mean(format, get_args(Format)))
    if quantization is not None and format != "onnx":
        raise RestoreError("only applies to --format onnx", where="--int8", hint="leave it out")
    opened = open_source(Path(source), str(source), both=format in _PUBLISHED)
    if opened.description.draws is not None and format != "safetensors":
        raise RestoreError("draws images from noise, which only --format safetensors can hold", where=opened.path)
    if format in _PUBLISHED:
        files, notes = _PUBLISHED[format](opened, out, overwrite)
        return Exported(tuple(files), tuple(notes))
    target = _TARGETS[format]
    check_suffix(out, target.suffix, target.kind)
    files = [out, out.with_suffix(".bin")] if format == "openvino" else [out]
    refuse_existing(files, overwrite, opened.path)
    if quantization is not None:
        return Exported((out,), tuple(write_int8(opened, out, quantization)))
    return Exported(tuple(files), tuple(target.write(opened, out)))
