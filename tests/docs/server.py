"""A `restore` command that answers at once: a server that has PyTorch loaded forks for each call.

    python -m tests.docs.server SOCKET

The client is `FOLDER/restore`, which `install` writes. It sends its arguments, folder, environment and standard
streams, and exits with the code of the forked process. Calls may overlap. `FOLDER/torchrun` is
PyTorch's. The documentation calls `restore` some fifty times; starting Python each time would take minutes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

#: Laid over every `restore train` of the documentation, so that it takes seconds. What a page itself sets stays.
TINY_TRAINING = {
    "total_steps": "2", "data.batch": "2", "data.patch": "32", "validate_every": "2", "save_every": "2",
    "lpips_net": "none", "best_by": "psnr", "device": "cpu", "precision": "fp32", "data.validation_count": "1",
}  # fmt: skip

#: What calls would import, each of them.
LOADED = (
    "matplotlib.backends.backend_agg", "matplotlib.figure", "rich.progress", "skimage.restoration",
    "torchvision.models", "restore.benchmark.run", "restore.cli.main", "restore.evaluation.scoring",
    "restore.fix.stages", "restore.restorers.classical", "restore.restorers.detector", "restore.training.loop",
)  # fmt: skip

_CLIENT = """#!{python} -S
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect({address!r})
    order = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
    order = json.dumps(order).encode()
    socket.send_fds(line, [order], [0, 1, 2])
    sys.exit(int(line.recv(16) or b"99"))
"""


def install(folder: Path, address: Path) -> None:
    """Write the client, and a `torchrun`, into a folder for the PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    commands = {
        "restore": _CLIENT.format(python=sys.executable, address=os.fspath(address)),
        "torchrun": f'#!/bin/sh\nexec {sys.executable} -m torch.distributed.run "$@"\n',
    }
    for name, text in commands.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def start(address: Path) -> subprocess.Popen[bytes]:
    """Start the server and wait until it listens."""
    root = os.fspath(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen([sys.executable, "-m", "tests.docs.server", os.fspath(address)], env=environment)
    for _ in range(1200):
        if address.exists():
            return server
        if server.poll() is not None:
            break
        time.sleep(0.1)
    server.kill()
    raise RuntimeError("the server did not start")


def serve(address: str) -> None:
    """Answer calls until this process is ended."""
    import torch

    for name in LOADED:
        import_module(name)
    from restore.training import run_dir

    torch.set_num_threads(1)
    run_dir.draw_curves = lambda metrics, out: None  # most of the time of a small run; tests of training draw them
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # each child answers its client itself
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address + ".new")
        listener.listen()
        os.rename(address + ".new", address)
        while True:
            line, _ = listener.accept()
            with line:
                order, streams, _, _ = socket.recv_fds(line, 1 << 20, 3)
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    line.sendall(str(_run(json.loads(order), streams)).encode())
                    os._exit(0)
                for stream in streams:
                    os.close(stream)


def _run(order: dict[str, Any], streams: list[int]) -> int:
    os.environ.update(order["environment"])
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    arguments = order["arguments"]
    if arguments[:1] == ["train"]:
        arguments = [a for a in arguments if not re.fullmatch(r"total_steps=\d{3,}", a)]
        own = {argument.partition("=")[0] for argument in arguments}
        own |= {"data.patch"} if "pix2pix" in arguments[1] else set()  # its networks take multiples of 256 pixels
        arguments += [f"{key}={value}" for key, value in TINY_TRAINING.items() if key not in own]
    os.chdir(order["folder"])
    sys.argv = ["restore", *arguments]
    code: object = 0
    try:
        restore_main()
    except SystemExit as error:
        code = error.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 1


def restore_main() -> None:
    """The command line's entry."""
    from restore.cli.main import main

    main()


if __name__ == "__main__":
    serve(sys.argv[1])
