"""`restore open`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restore.cli.console import echo
from restore.cli.options import Command, app
from restore.cli.server_options import Host, Port, Token
from restore.errors import printable

EXAMPLES = """Examples:

\b
  restore open scans/
  restore open portrait.jpg --output repaired/
  restore open scans/ --host 0.0.0.0
"""


@app.command("open", cls=Command, epilog=EXAMPLES)
def open_folder(
    *,
    opened: Annotated[
        Path,
        typer.Argument(metavar="[FOLDER|FILE]", help="A folder of images, or one image.", show_default=True),
    ] = Path("."),
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder for saved images. Default: FOLDER-repaired.", rich_help_panel="Files"
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for the work in progress: masks, settings, results, history. Default: one for each folder, in "
            "the user's data directory.",
            rich_help_panel="Files",
        ),
    ] = None,
    port: Port = 0,
    host: Host = "127.0.0.1",
    token: Token = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", metavar="DEVICE", rich_help_panel="Speed")
    ] = "auto",
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.", rich_help_panel="Server")
    ] = True,
) -> None:
    """Open images in the browser: paint over damage or detect it, repair, compare, save. Nothing is written beside the
    originals.
    """
    from restore.serve.settings import ServeSettings, check_extra, token_for

    check_extra("restore open")
    from restore.serve.app import run
    from restore.serve.page.open import open_page

    settings = ServeSettings(
        host=host,
        port=port,
        token=token_for(host, token),
        device=device,
        output=output,
        work=work,
        stop_seconds=5,  # all that is worth keeping is in the work folder
    )
    page = open_page(opened, settings)
    for line in page.warnings:
        echo(line)

    def ready(address: str) -> None:
        echo(f"open {address}  (Ctrl-C ends)")
        echo(f"saves to {printable(page.output)}; work in progress: {printable(page.work)}")
        if browser:
            import webbrowser

            webbrowser.open(page.address_for_browser(address))

    try:
        run(settings, page=page.routes, on_ready=ready)
    finally:
        page.close()
