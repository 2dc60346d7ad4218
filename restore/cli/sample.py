"""`restore sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restore.cli.options import Command, app
from restore.errors import RestoreError, printable

EXAMPLES = """Examples:

\b
  restore sample runs/dcgan --count 64 --seed 1 --grid samples.png
  restore sample runs/dcgan samples/ --count 1000
  restore sample runs/dcgan --interpolate 8 --grid between.png
"""


@app.command(cls=Command, epilog=EXAMPLES)
def sample(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A weights file or the folder of a run.")],
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="Folder for the images: 0000.png and so on, one file each.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, metavar="N", help="How many images to draw.")] = 64,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Another seed gives other images.")] = 0,
    grid: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all images into one PNG.")] = None,
    interpolate: Annotated[
        int, typer.Option(min=0, metavar="N", help="Rows of N images, each from one drawn image to another. 0: none.")
    ] = 0,
    truncation: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="Draw noise between -X and X (0.5 to 2), for more typical images that differ less."
        ),
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="CLASS", help="Draw images of this class alone.")] = None,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
) -> None:
    """Draw images from noise, with a network of `restore train dcgan`. The same seed gives the same images."""
    if out is None and grid is None:
        raise RestoreError("nothing would be written", hint="name a folder, or a file with --grid")
    if truncation is not None and not truncation > 0:
        raise RestoreError("must be above 0", where=f"--truncation {truncation:g}")
    if interpolate == 1:
        raise RestoreError("must be at least 2", where="--interpolate 1")
    if grid is not None and grid.suffix.lower() != ".png":
        raise RestoreError("must end with .png", where=f"--grid {printable(grid)}")
    from restore.export.targets import refuse_existing
    from restore.files import make_folder
    from restore.images import write_png
    from restore.restorers.sampler import SampleOptions, open_sampler, sheet

    digits = max(4, len(str(count - 1)))
    files = [] if out is None else [out / f"{number:0{digits}}.png" for number in range(count)]
    refuse_existing([*files, *([] if grid is None else [grid])], overwrite)
    sampler = open_sampler(model, device)
    images = sampler.draw(SampleOptions(count, seed, truncation, interpolate, label))
    for file, image in zip(files, images):
        make_folder(file.parent)
        write_png(file, image)
    if grid is not None:
        make_folder(grid.parent)
        write_png(grid, sheet(images, interpolate))
        typer.echo(printable(grid))
    if out is not None:
        typer.echo(printable(out))
