"""The command line's beginning: the program, what holds for every command, and options that several share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restore import __version__

app = typer.Typer(
    name="restore",
    help="Repair damaged photographs, score the results, and train the networks that do it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 all done; 1 some files failed (the rest done); 2 the command was wrong, nothing written; "
    "3 training diverged; 130 interrupted.",
)

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel="Machine")]
Precision = Annotated[
    str, typer.Option(help="auto (half precision where the processor is fast at it), fp32, bf16 or fp16.")
]
Input = Annotated[
    str, typer.Argument(help="A picture, or a folder of pictures (with its subfolders); - is standard input.")
]
Tile = Annotated[str, typer.Option(help="auto, 0 (whole pictures), or the side of a tile in pixels.")]
MaxPixels = Annotated[
    int, typer.Option(min=1, help="Refuse pictures of more pixels (width × height) before they are decoded.")
]
DecodeSeconds = Annotated[
    float, typer.Option(min=1, help="Give up a picture whose decoding takes longer than this (on Linux).")
]
Masks = Annotated[Path | None, typer.Option(help="Folder of masks under the pictures' names, white = missing.")]


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"restore {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something goes wrong.")] = False,
) -> None:
    pass


# Words that the shell can complete: found without loading what they stand for, or the prompt would wait for it.


#: Methods without weights (`restore.restorers.classical.CLASSICAL`, which takes seconds to import).
CLASSICAL_NAMES = ("telea", "navier-stokes", "biharmonic", "nlmeans", "tv")

#: Damages of the literature (`restore.benchmark.degradations.LITERATURE`, likewise).
LITERATURE = (
    "none", "awgn-15", "awgn-25", "awgn-50", "jpeg-10", "jpeg-20", "jpeg-30", "jpeg-40", "bicubic-x2", "bicubic-x4",
)  # fmt: skip


def model_names(incomplete: str) -> list[str]:
    """Names for `--model` that begin so; none for a path, which the shell completes itself."""
    shipped = sorted(path.stem for path in (Path(__file__).parents[1] / "weights").glob("*.safetensors"))
    return _beginning(incomplete, [*shipped, *CLASSICAL_NAMES])


def damage_names(incomplete: str) -> list[str]:
    """Names for `--damage` that begin so; YAML files are left to the shell."""
    return _config_names("damage", incomplete)


def bench_damage_names(incomplete: str) -> list[str]:
    """Names for `--damage` of `restore bench` that begin so."""
    return [*_beginning(incomplete, list(LITERATURE)), *damage_names(incomplete)]


def train_configs(incomplete: str) -> list[str]:
    """Names of shipped training configs that begin so; YAML files are left to the shell."""
    return _config_names("train", incomplete)


def _config_names(kind: str, incomplete: str) -> list[str]:
    from restore.config import config_names

    return _beginning(incomplete, config_names(kind))


def _beginning(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
