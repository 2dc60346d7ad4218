"""Traces how many files of `restore/` one item passes through, and how often control moves between files.

    python benchmarks/walks.py [--files] [--tree FOLDER] [--only WALK ...]

There are four walks, each a command in its own process: `fix` (one JPEG with the model photo), `masks` (one JPEG with
`--masks auto`), `train` (one step of G and D with the shipped config inpaint) and `eval` (one pair, PSNR and SSIM). The
trace covers all threads of the process that does the work, from the command to its exit.

A file counts if one of its functions is called. A hop is a call of a function in another file than the previous call in
the same thread. Calls during imports and comprehensions do not count.

"One more" is the path of a second item: the command is traced again with two items, and functions with more calls than
before count. This is the path of an item in the middle of a run, without start and end. The order of threads changes
the number of hops slightly.

`--files` lists the files of each walk in the order of their first calls; a star marks those that one more item passes.
`--tree` traces another checkout of this layout.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

WALKS = ("fix", "masks", "train", "eval")
SIDE_PX = 640
"""Side of the images: too large to be batched with others."""

_TRAIN = (
    "data.patch=64", "data.batch=2", "data.validation_count=1", "data.validation_size=64", "data.near_duplicates=0",
    "loss.adversarial_start=0", "lpips_net=none", "log_every=1000", "device=cpu", "precision=fp32",
)  # fmt: skip


@dataclass(frozen=True)
class Trace:
    """The calls of one process.

    Attributes:
        calls: number of calls by `file:function`, in the order of first calls.
        hops: number of calls into another file than the previous call in the same thread.
    """

    calls: Counter[str]
    hops: int

    @property
    def files(self) -> list[str]:
        """Files in the order of first calls."""
        return list(dict.fromkeys(name.partition(":")[0] for name in self.calls))


class Tracer:
    """Records every call of a function in a package.

    Args:
        package: folder of the package.
    """

    def __init__(self, package: Path) -> None:
        self._prefix = f"{package}{os.sep}"
        self._calls: list[tuple[int, str, str]] = []

    def start(self) -> None:
        """Record calls of this thread and of threads that start later."""
        threading.setprofile(self._record)
        sys.setprofile(self._record)

    def stop(self) -> None:
        """Stop recording."""
        sys.setprofile(None)
        threading.setprofile(None)

    def trace(self) -> Trace:
        """The recorded calls."""
        hops, last = 0, dict[int, str]()
        for thread, file, _ in self._calls:
            hops += last.setdefault(thread, file) != file
            last[thread] = file
        return Trace(Counter(f"{file}:{function}" for _, file, function in self._calls), hops)

    def _record(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(self._prefix) or _is_comprehension(code.co_name):
            return
        if not self._during_import(frame):
            file = code.co_filename.removeprefix(self._prefix)
            self._calls.append((threading.get_ident(), file, getattr(code, "co_qualname", code.co_name)))

    def _during_import(self, frame: FrameType | None) -> bool:
        """Whether the call happens while a module of the package is imported."""
        while frame is not None:
            if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(self._prefix):
                return True
            frame = frame.f_back
        return False


def _is_comprehension(name: str) -> bool:
    return name.startswith("<") and name not in ("<lambda>", "<module>")


def make_images(folder: Path, count: int, suffix: str) -> Path:
    """Fill a folder with copies of one photograph."""
    from PIL import Image
    from skimage import data

    folder.mkdir(parents=True)
    photograph = Image.fromarray(data.astronaut()).resize((SIDE_PX, SIDE_PX))
    for number in range(count):
        photograph.save(folder / f"{number}{suffix}")
    return folder


def command(walk: str, items: int, folder: Path) -> list[str]:
    """The arguments of `restore` for a walk, with its images made in a folder."""
    if walk == "train":
        clean = make_images(folder / "clean", 8, ".png")
        return ["train", "inpaint", f"data.folders=[{clean}]", f"total_steps={items}", f"out={folder / 'run'}", *_TRAIN]
    if walk == "eval":
        restored, true = (make_images(folder / name, items, ".png") for name in ("restored", "true"))
        return ["eval", str(restored), str(true), "--metrics", "psnr,ssim", "--device", "cpu"]
    more = ["--masks", "auto"] if walk == "masks" else ["--model", "photo"]
    scans = make_images(folder / "scans", items, ".jpg")
    return ["fix", str(scans), str(folder / "repaired"), *more, "--device", "cpu", "--precision", "fp32"]


def trace_command(arguments: list[str], tree: Path, out: Path) -> None:
    """Run `restore` in this process, and write the calls to a file."""
    sys.path.insert(0, str(tree))
    from restore.cli import main as program

    package = Path(program.__file__).parents[1]
    if package != tree / "restore":
        sys.exit(f"the trace would be of {package}, not {tree / 'restore'}")
    sys.argv = ["restore", *arguments]
    tracer = Tracer(package)
    code: Any = 0
    tracer.start()
    try:
        program.main()
    except SystemExit as error:
        code = error.code
    finally:
        tracer.stop()
    if not out.exists():  # otherwise a child process has done the work and written its trace
        trace = tracer.trace()
        out.write_text(json.dumps({"calls": trace.calls, "hops": trace.hops}))
    sys.exit(code)


def trace_walk(walk: str, items: int, tree: Path) -> Trace:
    """Trace a walk in its own process.

    Raises:
        SystemExit: the command failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = folder / "trace.json"
        arguments = ["--traced", str(out), "--tree", str(tree), "--", *command(walk, items, folder)]
        run = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, cwd=folder)
        if run.returncode or not out.exists():
            sys.exit(f"{walk}: exit code {run.returncode}\n{run.stderr}")
        result = json.loads(out.read_text())
    return Trace(Counter(result["calls"]), result["hops"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", action="store_true", help="list the files of each walk")
    parser.add_argument("--tree", type=Path, default=Path(__file__).resolve().parents[1], help="another checkout")
    parser.add_argument("--only", nargs="+", choices=WALKS, default=WALKS, help="some of the walks")
    parser.add_argument("--traced", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    tree = options.tree.resolve()
    if options.traced is not None:
        trace_command(options.arguments, tree, options.traced)
    lists = []
    print("| walk | files | hops | files of one more | hops of one more |\n|---|---|---|---|---|")
    for walk in options.only:
        one, two = (trace_walk(walk, items, tree) for items in (1, 2))
        more = {name.partition(":")[0] for name in two.calls - one.calls}
        print(f"| {walk} | {len(one.files)} | {one.hops} | {len(more)} | {two.hops - one.hops} |", flush=True)
        lists.append((walk, [f"{'*' if file in more else ' '} {file}" for file in one.files]))
    for walk, files in lists if options.files else ():
        print(f"\n{walk}:", *files, sep="\n  ")


if __name__ == "__main__":
    main()
