"""The entry point of the command line: loads every command, and reports errors."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import warnings
from contextlib import suppress

import typer

from restore.cli.console import echo
from restore.cli.options import app, with_new_names
from restore.errors import RestoreError
from restore.process import limit_thread_spinning, quiet_pillow, reuse_large_blocks
from restore.signals import interrupt_by_signals

# isort: off
# Importing a command registers it; `restore --help` lists commands in this order.
from restore.cli import fix, detect, open as open_folder, serve, eval, compare, bench, train, sample  # noqa: F401
from restore.cli import export, degrade, models  # noqa: F401


def main() -> None:
    """Run the command line. Errors are one line each; `--debug`, anywhere in the command, adds the traceback."""
    arguments, debug = _without_debug(sys.argv[1:])
    if debug:
        _log_to_stderr()
    limit_thread_spinning()
    reuse_large_blocks()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its warnings print the frames of C++ code
    quiet_pillow()
    _quiet_fabric()
    interrupt_by_signals(once=False)
    # All processes of a distributed run meet the same errors, so only the first reports them.
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    arguments, note = with_new_names(arguments)
    if note and first:
        echo(note)
    try:
        if first:
            app(arguments)
        else:
            sys.exit(app(arguments, standalone_mode=False))
    except RestoreError as error:
        if debug:
            raise
        if getattr(error, "speaks", first):  # of several processes that lost another one, one per machine reports it
            echo(f"error: {error}")
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        if first:
            echo("interrupted")
        sys.exit(130)
    except BrokenPipeError:  # `restore models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        code = getattr(error, "exit_code", None)
        if code is not None and not first:  # a usage error, which the first process reports
            sys.exit(code)
        where = "" if first else f" in process {os.environ['LOCAL_RANK']}"  # other processes may not have failed
        echo(f"error: unexpected error{where}: {type(error).__name__}: {error}; --debug shows the traceback")
        sys.exit(1)


def run() -> None:
    """Run `main`, then exit without the interpreter's clean-up.

    Freeing PyTorch's modules one by one takes 0.4 s, more than the repair of a small image.
    """
    code: int | str | None = 0
    if not {"--debug", "train"}.intersection(sys.argv[1:]):
        _quiet_libraries()
    try:
        main()
    except SystemExit as end:
        code = end.code
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        sys.exit(code)  # the interpreter waits for them
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError, ValueError):  # ValueError: it is closed
            stream.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """The arguments without `--debug`, and whether it was among them. Arguments after `--` are not options."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [argument for argument in arguments[:end] if argument != "--debug"]
    return options + arguments[end:], len(options) < end


def _quiet_libraries() -> None:
    """Give standard error to this program alone.

    Libraries in C write lines there that name no file, such as libjpeg's "Caution: quantization tables are too coarse".
    What matters of them becomes a note or an error of the file.
    """
    if sys.stderr is None:  # it was closed
        return
    with suppress(OSError):
        sys.stderr.flush()
        own = os.dup(2)
        sys.stderr = open(own, "w", buffering=1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)


def _quiet_fabric() -> None:
    """Silence what Fabric and newer versions of PyTorch say about each other's interfaces."""
    for what in ("`broadcast_buffers`", r"torch\.distributed\.nn\.functional\.all_gather"):
        warnings.filterwarnings("ignore", message=f"{what} is deprecated")


def _log_to_stderr() -> None:
    """Log all messages of this package to stderr, with the tracebacks of files that failed unexpectedly."""
    logger = logging.getLogger("restore")
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.DEBUG)
