"""Sends mutated files through `restore fix`: whatever a file is, the run goes on and says what became of it.

    python -m tests.fuzz_decoders [FOLDER ...] --count 20000 --seed 1 --keep findings/

The files of the folders and small ones of all formats are mutated (see `tests.mutations`) and repaired in runs of some
hundred, by the command itself, with its decoders isolated. A file with the same seed, number and folders is the same
again. Reported as findings: a run that ends otherwise than with the right exit code, files without a result or with a
wrong one, hangs, too much memory, and errors that nobody foresaw. A decoder that crashes is none, if the run goes on.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyvips
import torch
from PIL import Image

from restore.checkpoints import Description, save_weights
from restore.errors import printable
from restore.files import TEMPORARY_PREFIX
from restore.fix.log import REASON_CODES
from restore.images import IMAGE_SUFFIXES, format_of
from restore.images.pillow import open_with_pillow
from restore.models.registry import build_generator
from tests.mutations import Mutator, Seed, seeds_of, small_seeds
from tests.processes import Nursery, Run, kill

MAX_PIXELS = 1_000_000
DECODE_SECONDS = 120
#: Of the largest process. Some 500 MB of it are the libraries; four images in work need about 60 bytes per pixel each.
MEMORY_MB = 1200
#: A file that needs more time of the processor is slow. On a busy machine, files in work for so long are tried alone.
SLOW_SECONDS = 10.0
#: Codes that no content of a file may cause.
_NEVER = ("unexpected", "out_of_memory", "disk_full", "io_error", "not_found", "no_permission", "changed", "bad_mask")
#: What no message should hold.
_INTERNAL = re.compile(
    r"""Traceback|<_io| at 0x[0-9a-f]{8}|restore\.|\bb['"]|invalid literal|codec can't|\ufffd|written as \w+: '"""
)
#: Images are large enough from here on to be processed out of core.
_IN_PARTS = "from restore.fix import reader; reader.HUGE_PIXELS = 300; cli.run()"
_IN_PARTS_UNSEEN = "from restore.fix import reader; reader.HUGE_FILE_BYTES = 1; cli.run()"


@dataclass(frozen=True)
class Way:
    """One way through the program: options of `fix`, and the program to run."""

    name: str
    options: tuple[str, ...] = ()
    program: str = "cli.run()"


WAYS = (
    Way("plain"),
    Way("truncated", ("--allow-truncated",)),
    Way("to TIFF", ("--ext", "tiff")),
    Way("to PNG", ("--ext", "png", "--allow-truncated")),
    Way("to JPEG", ("--ext", "jpg")),
    Way("to WebP", ("--ext", "webp", "--allow-truncated")),
    Way("to AVIF", ("--ext", "avif")),
    Way("infrared", ("--masks", "infrared", "--mask-missing", "copy", "--model", "telea")),
    Way("alpha", ("--masks", "alpha", "--mask-missing", "copy", "--model", "telea")),
    Way("in parts", program=_IN_PARTS),
    Way("in parts, unseen", program=_IN_PARTS_UNSEEN),
)


@dataclass
class Report:
    """What came of all runs.

    Attributes:
        files: how many went through.
        findings: each a line: what is wrong, and with which file.
        codes: how often each status and reason code came up.
        reasons: reasons without names and numbers.
        peak_mb: the largest process.
        slowest: seconds and number of the file that took the longest.
        seconds: wall time of the runs.
        cpu_seconds: time of the processor that the runs needed.
    """

    files: int = 0
    findings: list[str] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    peak_mb: int = 0
    slowest: tuple[float, str] = (0.0, "")
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def fuzz(
    files: Sequence[Seed],
    folder: Path,
    *,
    count: int,
    seed: object,
    first: int = 0,
    per_run: int = 250,
    ways: Sequence[Way] = WAYS,
    keep: Path | None = None,
) -> Report:
    """Mutate files and repair them, in runs of `per_run`; each run goes one of the ways.

    Args:
        files: what to mutate.
        folder: for the runs; must be empty.
        count, first: how many files, and the number of the first.
        seed: decides on the mutations.
        per_run: files per run.
        ways: taken in turns.
        keep: gets the files with findings, and the logs; None: they are not kept.
    """
    mutator, report = Mutator(files, seed), Report()
    inputs, network = folder / "in", folder / "small.safetensors"
    _write_small_network(network)
    nursery = Nursery(folder)
    try:
        for turn, start in enumerate(range(first, first + count, per_run)):
            way = ways[turn % len(ways)]
            inputs.mkdir()
            for number in range(start, min(start + per_run, first + count)):
                file = mutator.make(number)
                (inputs / f"{number:07}{file.suffix}").write_bytes(file.data)
            began = time.monotonic()
            run, records, found = _repair(nursery, way, inputs, folder, network)
            for record in records:
                path = Path(record["input"])
                report.slowest = max(report.slowest, (record["seconds"], path.name))
                if record["seconds"] > SLOW_SECONDS or "took longer" in record["reason"]:
                    alone = folder / "alone"
                    alone.mkdir()
                    shutil.copy(path, alone)
                    again = _repair(nursery, way, alone, folder, network)[0]
                    if again.cpu_seconds > SLOW_SECONDS:
                        found.append(f"{path.name}: slow, {again.cpu_seconds:.0f} s of the processor")
                    shutil.rmtree(alone)
                report.codes[f"{record['status']} {record['reason_code']}".strip()] += 1
                report.reasons[re.sub(r"\d+", "#", record["reason"])] += record["status"] != "done"
            report.files += len(list(inputs.iterdir()))
            report.seconds += time.monotonic() - began
            report.cpu_seconds += run.cpu_seconds
            report.peak_mb = max(report.peak_mb, run.peak_mb)
            report.findings += [f"{way.name}: {finding}" for finding in found]
            if keep is not None:
                _keep(keep, way, found, inputs, run, records)
                print(
                    f"{number + 1}: {way.name}, {run.cpu_seconds:.0f} s, {run.peak_mb} MB, {len(found)} findings",
                    *found, sep="\n  ", flush=True,
                )  # fmt: skip
            shutil.rmtree(inputs)
    finally:
        nursery.close()
    return report


def _repair(
    nursery: Nursery, way: Way, inputs: Path, folder: Path, network: Path
) -> tuple[Run, list[dict[str, Any]], list[str]]:
    """Repair a folder. Returns the run, its records, and its findings."""
    out, log = folder / "out", folder / "log.jsonl"
    options: list[object] = ["--log", log, "--max-pixels", MAX_PIXELS, "--decode-timeout", DECODE_SECONDS]
    if "--model" not in way.options:
        options += ["--model", network]
    run = nursery.start("fix", inputs, out, *way.options, *options, program=way.program)
    hangs = threading.Timer(600 + DECODE_SECONDS * len(list(inputs.iterdir())) / 4, kill, [run.pid])
    hangs.start()
    run.wait()
    hangs.cancel()
    lines = map(json.loads, log.read_text().splitlines()) if log.exists() else ()
    records = [line for line in lines if line["event"] == "image"]
    found = judge(run, inputs, out, records)
    shutil.rmtree(out, ignore_errors=True)
    log.unlink(missing_ok=True)
    return run, records, found


def judge(run: Run, inputs: Path, out: Path, records: Sequence[dict[str, Any]]) -> list[str]:
    """What is wrong with a run that has ended: a line for each finding, which begins with the file's name."""
    found = []
    names = sorted(path.name for path in inputs.iterdir())
    results = {Path(record["input"]).name: record for record in records}
    if len(results) < len(records):
        found.append("run: more than one result for a file")
    found += [f"{name}: no result" for name in names if name not in results]
    failed = any(record["status"] == "failed" for record in records)
    if run.returncode != int(failed):
        found.append(f"run: exit code {run.returncode}, although {'some' if failed else 'none'} failed")
    if run.peak_mb > MEMORY_MB:
        found.append(f"run: {run.peak_mb} MB of memory")
    if run.stdout:
        found.append(f"run: printed {run.stdout[:200]!r}")
    for line in run.stderr.splitlines():
        own = line.startswith((f"{inputs}/", "failed: ", "the worker was terminated by ", "left out, as hidden"))
        summary = r"\d+ (done|skipped|failed).*; [\d.]+ s( \(\w+, \w+\))?(; written to .*)?"
        if not own and not re.fullmatch(summary, line):
            found.append(f"run: printed {line[:200]!r}")
    for name, record in results.items():
        found += [f"{name}: {what}" for what in _judge_file(name, record, Path(record["output"]), names)]
    found += [f"run: left {path.name}" for path in out.rglob(f"{TEMPORARY_PREFIX}*")]
    return found


def _judge_file(name: str, record: dict[str, Any], output: Path, names: Sequence[str]) -> list[str]:
    """What is wrong with the result of one file."""
    found = []
    status, code, reason = record["status"], record["reason_code"], record["reason"]
    if code not in REASON_CODES or code in _NEVER:
        found.append(f"{code}: {reason}")
    for text in (reason, *record["warnings"]):
        if (
            text != printable(text)
            or len(text) > 1000
            or re.search(r"Traceback|<_io| at 0x[0-9a-f]{8}|restore\.", text)
        ):
            found.append(f"says {text[:300]!r}")
        if any(other in text for other in names if other != name):
            found.append(f"names another file: {text[:300]!r}")
    if len(record["warnings"]) > 60:
        found.append(f"{len(record['warnings'])} warnings")
    if status == "done":
        if not output.is_file() or not output.stat().st_size:
            found.append("done without an output")
        elif record["model"] is not None:
            found += _judge_output(record, output)
        return found
    if not reason:
        found.append("no reason")
    if output.exists():
        found.append(f"{status} with an output")
    expected = "failed" if Path(name).suffix.lower() in IMAGE_SUFFIXES or code != "not_an_image" else "skipped"
    if status != expected and code not in ("no_mask",):
        found.append(f"{status}, not {expected}: {reason}")
    return found


def _judge_output(record: dict[str, Any], output: Path) -> list[str]:
    """Whether an output that was encoded can be opened, and has the size of the image."""
    try:
        size = _size_of(output)
    except Exception as error:  # whatever the reader has against it
        return [f"the output cannot be opened: {error}"]
    if size != (record["width"], record["height"]) and output.suffix != ".mpo":
        return [f"the output has {size} pixels, the image {(record['width'], record['height'])}"]
    return []


def _size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image, by Pillow; of TIFFs by libtiff, because Pillow knows no float RGB."""
    if path.suffix in (".tif", ".tiff"):
        image = pyvips.Image.new_from_file(str(path))
        return image.width, image.height
    with path.open("rb") as file:
        kind = format_of(file.read(1024), path)  # a file keeps its name, whatever its content is
    if kind == "heic":
        return open_with_pillow(path.read_bytes(), kind).size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            return image.size


def _keep(
    keep: Path, way: Way, found: Sequence[str], inputs: Path, run: Run, records: Sequence[dict[str, Any]]
) -> None:
    """Copy the files that findings name; all files of the run if one names none."""
    keep.mkdir(parents=True, exist_ok=True)
    with (keep / "log.jsonl").open("a") as log:
        log.writelines(json.dumps(record) + "\n" for record in records)
    named = {finding.partition(":")[0] for finding in found}
    for path in inputs.iterdir():
        if path.name in named or "run" in named:
            place = keep / ("file" if path.name in named else f"run_{run.pid}") / way.name.replace(" ", "_")
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    if "run" in named:
        (keep / f"run_{run.pid}.txt").write_text(run.stderr)


def _write_small_network(path: Path) -> None:
    """Weights of a tiny network, which changes every pixel a little: so every image is encoded."""
    torch.manual_seed(0)
    args = {"widths": [4, 8], "blocks": [1, 1], "mask": False}
    model = build_generator("unet", args).eval()
    about = Description(
        builder="unet", args=args, purpose="a small network", needs_mask=False, multiple=2, minimum=2,
        overlap_px=model.measure_overlap_px(torch.rand(1, 3, 64, 64), None),
    )  # fmt: skip
    save_weights(path, model.state_dict(), about)


def main() -> None:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="files to mutate, besides small ones of all formats")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--per-run", type=int, default=250)
    parser.add_argument("--way", choices=[way.name for way in WAYS], help="only this one")
    parser.add_argument("--keep", type=Path, help="folder for files with findings, and logs")
    chosen = parser.parse_args()
    files = [*small_seeds(), *seeds_of(chosen.folders)]
    ways = [way for way in WAYS if chosen.way in (None, way.name)]
    with tempfile.TemporaryDirectory(prefix="restore-fuzz-") as folder:
        report = fuzz(
            files, Path(folder), count=chosen.count, first=chosen.first, seed=chosen.seed, per_run=chosen.per_run,
            ways=ways, keep=chosen.keep,
        )  # fmt: skip
    print(f"{report.files} files made from {len(files)}, seed {chosen.seed}: {len(report.findings)} findings")
    print(
        f"{report.seconds:.0f} s ({report.cpu_seconds:.0f} s of the processor), at most {report.peak_mb} MB; "
        f"longest in work: {report.slowest[1]}, {report.slowest[0]:.1f} s"
    )
    for code, times in report.codes.most_common():
        print(f"{times:7} {code}")
    for finding in report.findings:
        print(finding)
    sys.exit(1 if report.findings else 0)


if __name__ == "__main__":
    main()
