"""`restore degrade` and `restore demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restore.cli.console import Progress, echo
from restore.cli.options import Command, app, damage_names
from restore.errors import RestoreError, printable


@app.command(cls=Command)
def degrade(
    clean_dir: Annotated[
        Path | None,
        typer.Argument(metavar="CLEAN_DIR", help="Folder of clean images. With --gallery: one photograph (optional)."),
    ] = None,
    out_dir: Annotated[
        Path | None,
        typer.Argument(metavar="OUT_DIR", help="Output folder: damaged/ and, if pixels are covered, masks/."),
    ] = None,
    damage: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="Name of a shipped damage config (such as scratch, print or noise), a YAML file, or a folder of "
            "masks, with a slash in its path (masks/).",
            autocompletion=damage_names,
        ),
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a PNG with every degradation at five strengths on one photograph, and nothing else.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed; the same seed gives the same bytes.")] = 0,
    workers: Annotated[int, typer.Option(min=0, metavar="N", help="Number of threads; 0 = one per core.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")] = False,
) -> None:
    """Degrade clean images reproducibly, to make test sets with masks."""
    if gallery is not None:
        if out_dir is not None or damage is not None:
            what = "--damage" if out_dir is None else "OUT_DIR"
            raise RestoreError(
                "cannot be combined with --gallery, which shows every degradation in one file", where=what
            )
        _write_gallery(gallery, clean_dir, seed, overwrite)
        return
    for missing, value in (("CLEAN_DIR", clean_dir), ("OUT_DIR", out_dir), ("--damage", damage)):
        if value is None:
            raise RestoreError("is missing", where=missing, hint="restore degrade CLEAN_DIR OUT_DIR --damage scratch")
    assert clean_dir is not None
    assert out_dir is not None
    assert damage is not None

    from restore.degradations.write import write_degraded

    with Progress("degrading", None) as bar:
        summary = write_degraded(
            clean_dir, out_dir, damage, seed=seed, workers=workers, overwrite=overwrite, progress=bar.at
        )
    for line in summary.format():
        echo(line)
    raise typer.Exit(1 if summary.failed else 0)


def _write_gallery(out: Path, photo: Path | None, seed: int, overwrite: bool) -> None:
    from restore.degradations.gallery import draw_gallery
    from restore.images.contact_sheet import check_sheet, save_sheet

    check_sheet(out, overwrite=overwrite)
    sheet = draw_gallery(photo, seed=seed)
    save_sheet(out, sheet)


@app.command(cls=Command)
def demo(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder.")] = Path("data/samples"),
    lpips_net: Annotated[str, typer.Option(metavar="alex|vgg|squeeze", help="Backbone of LPIPS.")] = "alex",
    lpips_weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights of that backbone, for machines that cannot download them."),
    ] = None,
) -> None:
    """Degrade, repair and score the photographs of scikit-image, and write a before/after sheet."""
    from restore.cli.demo import make_demo

    sheet = make_demo(out, typer.echo, lpips_net, lpips_weights)
    typer.echo(f"\nbefore and after: {printable(sheet)}")
