"""`restore compare`: versions of one image side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restore.cli.options import Command, app

EXAMPLES = """Examples:

\b
  restore compare damaged.png photo.png other.png --out sheet.png
  restore compare photo.png other.png --reference clean.png --out sheet.png
"""


@app.command(cls=Command, epilog=EXAMPLES)
def compare(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Versions of one image, all of the same size.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="PNG file to write.")],
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGE",
            help="The clean image; the others are scored against it. Default: the last image, unscored.",
        ),
    ] = None,
    crops: Annotated[int, typer.Option(min=0, max=6, metavar="N", help="Number of enlarged crops.")] = 3,
    zoom: Annotated[int, typer.Option(min=1, max=32, metavar="N", help="Enlargement of the crops.")] = 4,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Draw versions of one image side by side, with enlarged crops where they differ most."""
    from restore.evaluation.comparison import compare_images
    from restore.images.contact_sheet import check_sheet, save_sheet

    check_sheet(out, overwrite=overwrite)
    sheet = compare_images(images, reference, crops=crops, zoom=zoom)
    save_sheet(out, sheet)
