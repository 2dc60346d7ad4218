"""`restore export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from restore.cli.console import echo
from restore.cli.options import Command, app, model_names
from restore.errors import RestoreError, printable


@app.command(cls=Command)
def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A name from `restore models`, a weights file, the folder of a run, or a *_net_G.pth of pix2pix or "
            "CycleGAN.",
            autocompletion=model_names,
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write; for pix2pix and cyclegan a folder.")],
    format: Annotated[
        Literal["onnx", "openvino", "torchscript", "safetensors", "pix2pix", "cyclegan", "spandrel"],
        typer.Option(
            help="onnx: a graph for onnxruntime and other libraries (NAME.onnx). "
            "openvino: a graph for OpenVINO (NAME.xml and NAME.bin). "
            "torchscript: code and weights for PyTorch alone, also from C++ (NAME.pt). "
            "safetensors: weights and description, as `restore train` writes them. "
            "pix2pix: state dicts with the names of the reference code. "
            "cyclegan: likewise, both directions of an unpaired run. "
            "spandrel: plain weights for chaiNNer and ComfyUI (NAME.safetensors)."
        ),
    ],
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantize an ONNX graph to 8-bit integers; needs --calibrate.")
    ] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of clean images for --int8: three quarters set the quantization ranges, the rest measures the "
            "loss.",
        ),
    ] = None,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Write an --int8 file that loses more than 0.1 dB.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
) -> None:
    """Write a model in the format of another program.

    ONNX, OpenVINO and TorchScript files are compared with PyTorch before they are written.
    """
    if int8 and calibrate is None:
        raise RestoreError("needs images", where="--int8", hint="name a folder of clean images with --calibrate")
    for name, given in (("--calibrate", calibrate is not None), ("--accept-loss", accept_loss)):
        if given and not int8:
            raise RestoreError("only applies with --int8", where=name, hint="leave it out")
    from restore.export import Quantization
    from restore.export import export as write

    quantization = None if calibrate is None else Quantization(calibrate, accept_loss)
    written = write(source, out, format, overwrite=overwrite, quantization=quantization)
    for line in written.notes:
        echo(line)
    for file in written.files:
        typer.echo(printable(file))
