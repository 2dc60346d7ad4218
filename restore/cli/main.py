"""The program's entry: every command, and what becomes of errors."""

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
from restore.signals import interrupt_by_signals

# isort: off
# In the order of `restore --help`.
from restore.cli import fix, detect, eval, compare, bench, train, degrade, models  # noqa: F401


def main() -> None:
    """Entry point: user errors become one line, never a traceback (unless `--debug`, which may stand anywhere)."""
    arguments, debug = _without_debug(sys.argv[1:])
    if debug:
        _log_to_stderr()
    _give_way_soon()
    _quiet_pillow()
    interrupt_by_signals(once=False)
    # The others of several processes meet the same errors as the first, which tells them.
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
        if first:
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
        if code is not None and not first:  # a wrong option, which the first process tells
            sys.exit(code)
        where = "" if first else f" in process {os.environ['LOCAL_RANK']}"  # it may be this one's alone
        echo(f"error: this should not have happened{where}: {type(error).__name__}: {error}; --debug shows where")
        sys.exit(1)


def run() -> None:
    """The program `restore`: `main`, then an end without the interpreter's own clean-up.

    Freeing PyTorch's modules one by one takes 0.4 s, more than the repair of a small image.
    """
    code: int | str | None = 0
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
    """The arguments without `--debug`, and whether it was among them. What follows `--` is no option."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [argument for argument in arguments[:end] if argument != "--debug"]
    return options + arguments[end:], len(options) < end


def _give_way_soon() -> None:
    """Have threads that wait for each other sleep after some 50 µs, not after milliseconds, unless the user has said.

    A network's threads meet hundreds of times per image. Where something else wants the processor too, such as a
    decoder, those that spin keep it from the one that they wait for: 30 images of 128×128 took 25 s on two busy
    cores, and 3 s with this. OpenMP reads it when PyTorch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _quiet_pillow() -> None:
    """Keep Pillow's remarks about broken metadata off stderr: what matters becomes a note or an error of that file.

    This belongs to the process, so it is done here, not where images are read.
    """
    for category in (UserWarning, RuntimeWarning):  # `DecompressionBombWarning` is one: `check_size` has its own limit
        warnings.filterwarnings("ignore", category=category, module=r"PIL\..*")
    logging.getLogger("PIL").addHandler(logging.NullHandler())


def _log_to_stderr() -> None:
    """Everything that the package notes on the way, with tracebacks of files that failed unexpectedly."""
    logger = logging.getLogger("restore")
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.DEBUG)
