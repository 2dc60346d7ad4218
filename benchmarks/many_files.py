"""Measures time and memory of `restore fix` for folders of very many files.

    python benchmarks/many_files.py [--files 1000000] [--flat] [--folder FOLDER] [--repair 100000] [--only ROW ...]

The files are tiny and made by hard links, 1000 in each folder (with `--flat`: all in one). Each measurement runs in its
own process; its memory is the largest resident set.

- plan, list, masks: `plan_fix` of the tree, of a list of its files, and with a mask for every file.
- shards: the plans of `--shard 1/7` to `7/7`, which together must contain every file once.
- first, resumed: the time from open models until the first file is read, if there are no outputs, and if only the last
  output is missing. The memory includes PyTorch.
- nothing: the whole command, with an output for every file.
- store, store-masks, store-nothing: plans of the same number of names in a store, listed by a stand-in: alone, with a
  mask for every name, and with an output for every name.
- store-first, store-resumed: the time from open models until the first file of the store is read, with a log, if there
  are no outputs, and if only the last output is missing.

With `--repair N`, the whole command repairs N small photographs. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

IN_FOLDER = 1000
LINKS = 50_000
"""Of one file; file systems limit them (65,000 on ext4)."""

MB = 1e6 if sys.platform == "darwin" else 1e3
"""The units of `ru_maxrss` in a megabyte."""

ROWS = ("plan", "list", "masks", "shards", "first", "nothing", "resumed", "store", "store-masks", "store-nothing",
        "store-first", "store-resumed")  # fmt: skip


START = b"\xff\xd8\xff\xe0" + bytes(60)
"""Of a JPEG."""


def make_tree(folder: Path, count: int, *, flat: bool = False, content: bytes = START) -> None:
    """Fill a folder with links that have image names, to a few files with this content."""
    for number in range(count):
        below = folder if flat else folder / f"box_{number // IN_FOLDER:04}"
        if number == 0 or (not flat and number % IN_FOLDER == 0):
            below.mkdir(parents=True)
        path = f"{below}/scan_{number:07}.jpg"
        if number % LINKS == 0:
            Path(path).write_bytes(content)
            linked = path
        else:
            os.link(linked, path)


# In processes of their own.


def told(since: tuple[float, float]) -> None:
    """Print seconds and processor seconds since then, and the peak memory in MB."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(time.perf_counter() - since[0], time.process_time() - since[1], used.ru_maxrss / MB, flush=True)


def plan(source: str, output: str, **options: Any) -> None:
    """Plan, and tell."""
    from restore.fix.options import FixOptions
    from restore.fix.plan import plan_fix

    since = time.perf_counter(), time.process_time()
    plan_fix([] if "files_from" in options else source, output, FixOptions(**options))
    told(since)


def plan_list(listed: str, output: str) -> None:
    """Plan the files of a list, and tell."""
    plan("", output, files_from=listed)


def plan_masks(source: str, output: str) -> None:
    """Plan with masks of the same names, and tell."""
    plan(source, output, masks=f"{source}/../in_masks")


def stand_in(count: int, *folders: str, missing: int = 0) -> None:
    """Replace the store by a stand-in: these folders contain all names, `out` all but the `missing` last ones."""
    from restore.places import store

    class Listed(store.Store):
        def __init__(self) -> None:
            """Reach nothing."""

        def kind(self, url: str) -> str:
            return "folder"

        def list(self, folder: str) -> Iterator[store.Entry]:
            last = folder.rstrip("/").rpartition("/")[2]
            for number in range((count - (missing if last == "out" else 0)) if last in folders else 0):
                yield store.Entry(f"box_{number // IN_FOLDER:04}/scan_{number:07}.jpg", 3_000_000 + number % 997)

        def exists(self, url: str) -> bool:
            return False

        def download(self, url: str, path: Path) -> store.ObjectInfo:
            path.write_bytes(START)
            return store.ObjectInfo(len(START))

    store._store = lambda scheme: Listed()  # type: ignore[assignment,return-value,misc]


def plan_store(count: str, masks: str, existing: str) -> None:
    """Plan the names of a store, perhaps with masks or with outputs for all, and tell."""
    from restore.fix.options import FixOptions
    from restore.places.plan import plan_places

    stand_in(int(count), "in", *["masks"] * (masks == "True"), *["out"] * (existing == "True"))
    options = FixOptions(masks="memory://b/masks" if masks == "True" else None, skip_existing=True)
    since = time.perf_counter(), time.process_time()
    plan_places(["memory://b/in"], "memory://b/out", options)
    told(since)


def first_in_store(count: str, existing: str, work: str) -> None:
    """Plan the names of a store, open a model, run, and tell from there to the first file that is read."""
    from restore.fix import reader
    from restore.fix.options import FixOptions
    from restore.places.plan import plan_places
    from restore.places.run import Prepared, fixer, run_places

    stand_in(int(count), "in", *["out"] * (existing == "True"), missing=1)
    tempfile.tempdir = work
    options = FixOptions(skip_existing=True, log=f"{work}/{existing}.jsonl")
    planned = plan_places(["memory://b/in"], "memory://b/out", options)
    since = []

    def prepare() -> Prepared:
        prepared = fixer(planned, "tv", options, print)()
        since.append((time.perf_counter(), time.process_time()))
        return prepared

    def read(*arguments: object, **more: object) -> None:
        told(since[0])
        os._exit(0)

    reader.image_from_bytes = read  # type: ignore[assignment]
    run_places(planned, options, prepare)


def shards(source: str, output: str) -> None:
    """Plan seven shards, and print 1 if together they contain every file of the whole plan once."""
    from restore.fix.options import FixOptions
    from restore.fix.plan import plan_fix

    whole = sorted(hash(entry.source) for entry in plan_fix(source, output).jobs.entries())
    parts: list[int] = []
    for part in range(1, 8):
        jobs = plan_fix(source, output, FixOptions(shard=f"{part}/7")).jobs
        parts += [hash(entry.source) for entry in jobs.entries()]
    print(int(sorted(parts) == whole))


def first_file(source: str, output: str) -> None:
    """Plan, open a model, run, and tell from there to the first file that is read."""
    from restore.fix import reader
    from restore.fix.options import FixOptions
    from restore.fix.plan import plan_fix
    from restore.fix.run import run_fix
    from restore.fix.run_models import open_models

    options = FixOptions(skip_existing=True)
    planned = plan_fix(source, output, options)
    models = open_models("tv", options)
    since = time.perf_counter(), time.process_time()

    def read(*arguments: object, **more: object) -> None:
        told(since)
        os._exit(0)

    reader.image_from_bytes = read  # type: ignore[assignment]
    run_fix(planned, models, options)


MEASUREMENTS = {
    "plan": plan, "plan_list": plan_list, "plan_masks": plan_masks, "shards": shards, "first_file": first_file,
    "plan_store": plan_store, "first_in_store": first_in_store,
}  # fmt: skip


def measured(name: str, *arguments: object) -> list[float]:
    """The output of a measurement in its own process."""
    words = [sys.executable, __file__, "--measure", name, *map(str, arguments)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def command(*arguments: object) -> tuple[float, float, float]:
    """Seconds, processor seconds, and peak memory in MB of the larger process of a whole command."""
    words = [sys.executable, "-m", "restore.cli", "fix", *map(str, arguments)]
    started = time.perf_counter()
    process = os.posix_spawn(sys.executable, words, os.environ)
    _, status, used = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{words} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / MB


def row(what: str, seconds: float, processor_seconds: float, peak_mb: float) -> None:
    """Print a row of the table."""
    print(f"| {what} | {seconds:.1f} | {processor_seconds:.1f} | {peak_mb:.0f} |", flush=True)


def repair(work: Path, count: int) -> tuple[float, float, float]:
    """Repair links to a small photograph, by the whole command."""
    from PIL import Image
    from skimage import data

    Image.fromarray(data.astronaut()).resize((48, 32)).save(work / "small.jpg")
    mask = Image.new("L", (48, 32))
    mask.paste(255, (10, 10, 14, 20))
    mask.save(work / "mask.png")
    make_tree(work / "small", count, content=(work / "small.jpg").read_bytes())
    return command(work / "small", work / "repaired", "--model", "telea", "--masks", work / "mask.png")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000, help="in the tree")
    parser.add_argument("--flat", action="store_true", help="all files in one folder")
    parser.add_argument("--folder", type=Path, help="where the trees are made; default: that of temporary files")
    parser.add_argument("--repair", type=int, default=0, metavar="N", help="also repair N small photographs")
    parser.add_argument("--only", nargs="*", choices=ROWS, default=ROWS, help="some of the measurements")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        MEASUREMENTS[args.measure[0]](*args.measure[1:])
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        work = Path(name)
        source, none, every = work / "in", work / "none", work / "every"
        if any(not name.startswith("store") for name in args.only):
            make_tree(source, args.files, flat=args.flat)
        print("| | seconds | processor seconds | peak memory, MB |\n|---|---|---|---|", flush=True)
        if "plan" in args.only:
            row(f"plan of {args.files:,} files", *measured("plan", source, none))
        if "list" in args.only:
            (work / "list").write_text("".join(f"{path}\n" for path in sorted(source.rglob("*.jpg"))))
            row(f"plan of a list of {args.files:,} files", *measured("plan_list", work / "list", none))
        if "masks" in args.only:
            make_tree(work / "in_masks", args.files, flat=args.flat)
            row(f"plan of {args.files:,} files and as many masks", *measured("plan_masks", source, none))
        if "shards" in args.only:
            (covered,) = measured("shards", source, none)
            print(f"| seven shards hold every file once: {'yes' if covered else 'NO'} | | | |", flush=True)
        for name, *listed in (("store", False, False), ("store-masks", True, False), ("store-nothing", False, True)):
            if name in args.only:
                more = " and as many masks" * listed[0] + ", all of them done" * listed[1]
                row(f"plan of {args.files:,} names in a store{more}", *measured("plan_store", args.files, *listed))
        for name, existing, which in (("store-first", False, ""), ("store-resumed", True, ", which is the last")):
            if name in args.only:
                row(
                    f"from open models to the first of {args.files:,} files in a store{which}",
                    *measured("first_in_store", args.files, existing, work),
                )
        if "first" in args.only:
            row("from open models to the first file", *measured("first_file", source, none))
        if "nothing" in args.only or "resumed" in args.only:
            make_tree(every, args.files, flat=args.flat)
        if "nothing" in args.only:
            row("nothing to do, the whole command", *command(source, every, "--skip-existing"))
        if "resumed" in args.only:
            max(every.rglob("*.jpg")).unlink()
            row("from open models to the first file, which is the last", *measured("first_file", source, every))
        if args.repair:
            row(f"repair of {args.repair:,} small photographs, the whole command", *repair(work, args.repair))


if __name__ == "__main__":
    main()
