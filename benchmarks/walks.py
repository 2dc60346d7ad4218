"""How far one item walks through the code: files of `restore/` that it passes, and hops between them.

    python benchmarks/walks.py [--files] [--tree FOLDER] [--only WALK ...]

Four walks, each by the command line alone, in a process of its own: `fix` (one JPEG through the model photo), `masks`
(one JPEG with `--masks auto`), `train` (one step of the shipped config inpaint, G and D), `eval` (one pair, PSNR and
SSIM). Counted is what happens from the command to its exit, in all threads and in the process that does the work.

A file counts where one of its functions is called. A hop is a call of a function in another file than that of the call
before, in the same thread. What runs while a module is imported counts for neither, and comprehensions are no calls.

"One more" is what a second item adds: the same command is traced once more with two items, and what was called oftener
than with one is counted. That is the way of an item in the middle of a run, without start-up and end: of `train` the
drawing of a batch, its damage, the steps of G and D, the running average. Threads that take turns move hops by a few.

`--files` lists the files of each walk in the order of their first calls; a star marks those that one more item passes.
`--tree` traces another checkout.
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

WALKS = ("fix", "masks", "train", "eval")
SIDE = 640
"""Of the pictures that are walked with, in pixels: too large to go through a network in company."""

_TRAIN = (
    "data.patch=64", "data.batch=2", "data.validation_count=1", "data.validation_size=64", "data.near_duplicates=0",
    "loss.adversarial_start=0", "lpips_net=none", "log_every=1000", "device=cpu", "precision=fp32",
)  # fmt: skip


@dataclass(frozen=True)
class Trace:
    """What was called.

    Attributes:
        calls: how often each function was, as `file:function`, in the order of first calls.
        hops: how often the file changed between one call and the next in a thread.
    """

    calls: Counter[str]
    hops: int

    @property
    def files(self) -> list[str]:
        """Files in the order of first calls."""
        return list(dict.fromkeys(name.partition(":")[0] for name in self.calls))


class Tracer:
    """Notes every call of a function that is written in a package.

    Args:
        package: its folder.
    """

    def __init__(self, package: Path) -> None:
        self._prefix = f"{package}{os.sep}"
        self._calls: list[tuple[int, str, str]] = []

    def start(self) -> None:
        """Note calls of this thread and of those that begin from now on."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def stop(self) -> None:
        """Note no more."""
        sys.setprofile(None)
        threading.setprofile(None)

    def trace(self) -> Trace:
        """What was noted."""
        hops, last = 0, dict[int, str]()
        for thread, file, _ in self._calls:
            hops += last.setdefault(thread, file) != file
            last[thread] = file
        return Trace(Counter(f"{file}:{function}" for _, file, function in self._calls), hops)

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(self._prefix) or _is_comprehension(code.co_name):
            return
        if not self._is_imported(frame):
            file = code.co_filename.removeprefix(self._prefix)
            self._calls.append((threading.get_ident(), file, getattr(code, "co_qualname", code.co_name)))

    def _is_imported(self, frame: FrameType | None) -> bool:
        """Whether a module of the package is being imported on whose behalf this runs."""
        while frame is not None:
            if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(self._prefix):
                return True
            frame = frame.f_back
        return False


def _is_comprehension(name: str) -> bool:
    return name.startswith("<") and name not in ("<lambda>", "<module>")


def pictures(folder: Path, count: int, ending: str) -> Path:
    """A folder with one photograph under so many names."""
    from PIL import Image
    from skimage import data

    folder.mkdir(parents=True)
    photograph = Image.fromarray(data.astronaut()).resize((SIDE, SIDE))
    for number in range(count):
        photograph.save(folder / f"{number}{ending}")
    return folder


def command(walk: str, items: int, folder: Path) -> list[str]:
    """The arguments of `restore` that have so many items take a walk, with their pictures made in a folder."""
    if walk == "train":
        clean = pictures(folder / "clean", 8, ".png")
        return ["train", "inpaint", f"data.folders=[{clean}]", f"total_steps={items}", f"out={folder / 'run'}", *_TRAIN]
    if walk == "eval":
        restored, true = (pictures(folder / name, items, ".png") for name in ("restored", "true"))
        return ["eval", str(restored), str(true), "--metrics", "psnr,ssim", "--device", "cpu"]
    more = ["--masks", "auto"] if walk == "masks" else ["--model", "photo"]
    scans = pictures(folder / "scans", items, ".jpg")
    return ["fix", str(scans), str(folder / "repaired"), *more, "--device", "cpu", "--precision", "fp32"]


def traced(arguments: list[str], tree: Path, out: Path) -> None:
    """Run `restore` in this process, and write what was called, by the process that did the work, to a file."""
    sys.path.insert(0, str(tree))
    from restore.cli import main as entry

    # A module with the entry point, or the entry point itself in checkouts before the module had this name.
    main: Callable[[], None] = getattr(entry, "main", entry)
    package = Path(sys.modules["restore"].__file__ or "").parent
    if package != tree / "restore":
        sys.exit(f"traced would be {package}, not {tree / 'restore'}")
    sys.argv = ["restore", *arguments]
    tracer = Tracer(package)
    code: Any = 0
    tracer.start()
    try:
        main()
    except SystemExit as error:
        code = error.code
    finally:
        tracer.stop()
    if not out.exists():  # else this process has only watched over the one that wrote it
        trace = tracer.trace()
        out.write_text(json.dumps({"calls": trace.calls, "hops": trace.hops}))
    sys.exit(code)


def walked(walk: str, items: int, tree: Path) -> Trace:
    """Trace a walk in a process of its own.

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
        found = json.loads(out.read_text())
    return Trace(Counter(found["calls"]), found["hops"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", action="store_true", help="list the files of each walk")
    parser.add_argument("--tree", type=Path, default=Path(__file__).resolve().parents[1], help="another checkout")
    parser.add_argument("--only", nargs="+", choices=WALKS, default=WALKS, help="some of the walks")
    parser.add_argument("--traced", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    tree = asked.tree.resolve()
    if asked.traced is not None:
        traced(asked.arguments, tree, asked.traced)
    lists = []
    print("| walk | files | hops | files of one more | hops of one more |\n|---|---|---|---|---|")
    for walk in asked.only:
        one, two = (walked(walk, items, tree) for items in (1, 2))
        more = {name.partition(":")[0] for name in two.calls - one.calls}
        print(f"| {walk} | {len(one.files)} | {one.hops} | {len(more)} | {two.hops - one.hops} |", flush=True)
        lists.append((walk, [f"{'*' if file in more else ' '} {file}" for file in one.files]))
    for walk, files in lists if asked.files else ():
        print(f"\n{walk}:", *files, sep="\n  ")


if __name__ == "__main__":
    main()
