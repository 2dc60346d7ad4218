"""`restore serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restore.cli.console import echo
from restore.cli.options import Command, app, model_names
from restore.cli.server_options import Host, Port, Token

EXAMPLES = """Examples:

\b
  restore serve
  restore serve --port 8080 --device cuda:0,cuda:1 --queue 64
  restore serve --host 0.0.0.0
  curl -F image=@scan.jpg -F mask=@mask.png http://127.0.0.1:8000/v1/fix > repaired.jpg
"""


@app.command(cls=Command, epilog=EXAMPLES)
def serve(
    *,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token: Token = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Another host name by which clients reach the server (repeatable).",
            rich_help_panel="Server",
        ),
    ] = None,
    queue: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Requests that may wait; further ones get status 429.", rich_help_panel="Server"
        ),
    ] = 16,
    device: Annotated[
        str,
        typer.Option(
            metavar="DEVICE",
            help="auto, cpu, cuda, cuda:N or mps; several (cuda:0,cuda:1 or cuda:all) share the requests.",
            rich_help_panel="Speed",
        ),
    ] = "auto",
    warm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Model to open before the first request (repeatable). Default: inpaint.",
            rich_help_panel="Speed",
            autocompletion=model_names,
        ),
    ] = None,
    max_upload: Annotated[
        int, typer.Option(min=1, metavar="MB", help="Largest request in megabytes.", rich_help_panel="Safety")
    ] = 512,
    max_pixels: Annotated[
        int, typer.Option(min=1, metavar="N", help="Refuse images with more pixels.", rich_help_panel="Safety")
    ] = 200_000_000,
    job_timeout: Annotated[
        float,
        typer.Option(
            min=1, metavar="N", help="Stop a request that takes longer than N seconds.", rich_help_panel="Safety"
        ),
    ] = 1800.0,
    keep: Annotated[
        float,
        typer.Option(min=1, metavar="N", help="Keep the results of jobs for N seconds.", rich_help_panel="Safety"),
    ] = 900.0,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for uploads and results, which are deleted later. Default: the system's temporary folder.",
            rich_help_panel="Safety",
        ),
    ] = None,
) -> None:
    """Serve the HTTP API: repairs, masks and scores for other programs. /docs describes it."""
    from restore.serve.settings import ServeSettings, check_extra, token_for

    check_extra("restore serve")
    settings = ServeSettings(
        host=host,
        port=port,
        token=token_for(host, token),
        allowed_hosts=tuple(allow_host or ()),
        queue=queue,
        device=device,
        warm=tuple(warm or ("inpaint",)),
        max_upload_bytes=max_upload * 1_000_000,
        max_pixels=max_pixels,
        job_seconds=job_timeout,
        keep_seconds=keep,
        work=work,
    )
    from restore.serve.app import run

    def ready(address: str) -> None:
        echo(f"serving at {address.partition('?')[0]} (Ctrl-C stops)")
        if settings.token is not None and token is None:
            echo(f"token: {settings.token}")

    run(settings, on_ready=ready)
