"""The command line: parse, call, print. Heavy imports happen inside the commands, so that `--help` answers at once."""

from restore.cli.main import main
from restore.cli.options import app

__all__ = ["app", "main"]
