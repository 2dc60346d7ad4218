"""Options that `restore serve` and `restore open` share."""

from __future__ import annotations

from typing import Annotated

import typer

Host = Annotated[
    str,
    typer.Option(
        help="Address to listen on. With 0.0.0.0, other devices on the network can reach the server, with the printed "
        "token.",
        metavar="ADDRESS",
        rich_help_panel="Server",
    ),
]
Port = Annotated[int, typer.Option(help="Port to listen on; 0: a free one.", metavar="N", rich_help_panel="Server")]
Token = Annotated[
    str | None,
    typer.Option(
        envvar="RESTORE_TOKEN",
        help="Token that clients must send. Default: none if only this machine can connect; otherwise, one is "
        "generated and printed.",
        metavar="TOKEN",
        rich_help_panel="Server",
    ),
]
