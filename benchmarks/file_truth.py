"""Compares the losses of files in common loops, ImageMagick, libvips and `restore fix`.

    python benchmarks/file_truth.py

Writes a folder of image files (`file_truth_inputs.py`), runs five programs on it, each in its own process, and examines
the output with Pillow, OpenCV, tifffile and LittleCMS (`file_truth_questions.py`). The loops are those of most
repositories: read as RGB tensor, run a network that changes a corner, write under the same name. ImageMagick and
libvips run no network: `convert IN OUT` and `vips copy IN OUT` in a loop over the files, with their default options.
The files of a second folder are converted to TIFF. Prints Markdown; takes a minute.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from file_truth_inputs import make, scene
from file_truth_questions import QUESTIONS, answer, yes
from PIL import Image

TITLES = {
    "pillow": "Pillow loop",
    "opencv": "OpenCV loop",
    "imagemagick": "ImageMagick",
    "vips": "`vips copy`",
    "restore": "`restore fix`",
}
PROGRAMS = tuple(TITLES)
COMMANDS = {
    "imagemagick": [shutil.which("magick") or shutil.which("convert") or ""],
    "vips": [shutil.which("vips") or "", "copy"],
}


def network(tensor: np.ndarray) -> np.ndarray:
    """Makes the 4×4 pixels in the top left corner of an H×W×3 image redder, in [0, 1]."""
    tensor = tensor.copy()
    tensor[:4, :4, 0] = (tensor[:4, :4, 0] + 1) / 2
    return tensor


def pillow_loop(source: Path, target: Path) -> None:
    """Image.open, convert("RGB"), save."""
    tensor = network(np.asarray(Image.open(source).convert("RGB")).astype(np.float32) / 255)
    Image.fromarray(np.rint(tensor * 255).astype(np.uint8)).save(target)


def opencv_loop(source: Path, target: Path) -> None:
    """imread, imwrite."""
    tensor = network(cv2.imread(str(source)).astype(np.float32)[:, :, ::-1] / 255)
    cv2.imwrite(str(target), np.rint(tensor * 255).astype(np.uint8)[:, :, ::-1])


LOOPS = {"pillow": pillow_loop, "opencv": opencv_loop}


def restore_fix(source: Path, target: Path, ext: str | None) -> int:
    """The library call behind `restore fix`."""
    import torch
    from torch import Tensor

    from restore import FixOptions, fix_folder
    from restore.restorers.base import ModelRequirements, Restorer

    class Corner(Restorer):
        name, purpose, requirements = "corner", "changes a corner", ModelRequirements(needs_mask=False)

        def _restore(self, image: Tensor, mask: Tensor | None) -> Tensor:
            return torch.stack([torch.from_numpy(network(one.permute(1, 2, 0).numpy())) for one in image]).permute(
                0, 3, 1, 2
            )

    return fix_folder(source, target, Corner(), options=FixOptions(ext=ext)).exit_code


def loop(program: str, source: Path, target: Path, ext: str | None, *, keep_going: bool) -> int:
    """A program over a folder; its exit code."""
    if program == "restore":
        return restore_fix(source, target, ext)
    code = 0
    for path in sorted(source.iterdir()):
        out = target / (path.name if ext is None else f"{path.stem}.{ext}")
        if program in COMMANDS:
            # Signals are not restored: a full disk is to be an error, as for the other programs.
            code = subprocess.run([*COMMANDS[program], path, out], restore_signals=False).returncode
            continue
        try:
            LOOPS[program](path, out)
        except Exception:
            if not keep_going:
                raise
    return min(abs(code), 1)


def run(
    program: str,
    source: Path,
    target: Path,
    *,
    ext: str = "",
    keep_going: bool = False,
    limit: int = 0,
    dies: bool = False,
) -> int:
    """A program in a process of its own; its exit code.

    Args:
        program: one of PROGRAMS.
        source, target: folders.
        ext: the suffix to write; "": as it was.
        keep_going: the two loops in Python go on after a file that they cannot read, too, as those in a shell do.
        limit: it may write no file of more bytes: at that size, writing fails as on a full disk.
        dies: the system kills it there.
    """
    target.mkdir()

    def prepare() -> None:
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, __file__, "--program", program, str(source), str(target)]
    command += [f"--ext={ext}"] * bool(ext) + ["--keep-going"] * keep_going + ["--die"] * dies
    root = os.fspath(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
    env = {**os.environ, "PYTHONPATH": path, "OPENCV_LOG_LEVEL": "SILENT"}
    return subprocess.run(command, preexec_fn=prepare, env=env, stderr=subprocess.DEVNULL).returncode


def broken_row(program: str, work: Path) -> tuple[str, str]:
    """Nine good images and a truncated one in their middle: outputs, exit code."""
    source, target = work / "nine", work / f"nine_{program}"
    if not source.exists():
        source.mkdir()
        for number in range(10):
            Image.fromarray(scene()).save(source / f"{number}.png")
        (source / "4.png").write_bytes((source / "4.png").read_bytes()[:40])
    code = run(program, source, target)
    return str(sum(1 for path in target.glob("*.png") if path.name != "4.png")), str(code)


def torn_row(program: str, work: Path, *, dies: bool) -> tuple[str, str]:
    """The disk is full, or the program is killed, halfway through: is half an image there? And the exit code."""
    source, target = work / "large", work / f"large_{program}_{dies}"
    if not source.exists():
        source.mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
        Image.fromarray(noise).save(source / "x.png")
    code = run(program, source, target, limit=100_000, dies=dies)
    return yes((target / "x.png").exists()), str(code)


def column(program: str, work: Path) -> list[str]:
    """The answers for one program."""
    target = work / program
    run(program, work / "in", target, keep_going=True)
    run(program, work / "convert", converted := work / f"{program}_tiff", ext="tiff", keep_going=True)
    for path in converted.iterdir():
        path.rename(target / path.name)
    (work / "in" / "codes.png").write_bytes((work / "convert" / "codes.png").read_bytes())
    answers = [answer(check, work / "in", target) for _, check in QUESTIONS]
    full, killed = (torn_row(program, work, dies=dies) for dies in (False, True))
    return [*answers, *broken_row(program, work), *full, killed[0]]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", choices=PROGRAMS, help=argparse.SUPPRESS)
    parser.add_argument("--ext", help=argparse.SUPPRESS)
    parser.add_argument("--keep-going", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--die", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("folders", nargs="*", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.program:
        if arguments.die:  # Python ignores this signal by itself
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        sys.exit(loop(arguments.program, *arguments.folders, arguments.ext, keep_going=arguments.keep_going))
    questions = [
        *(question for question, _ in QUESTIONS),
        "one broken file among ten: intact files written, of 9",
        "its exit code",
        "disk full halfway: incomplete image under the output's name",
        "its exit code",
        "killed halfway through a file: incomplete image under the output's name",
    ]
    missing = ["not installed"] * len(questions)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        make(work / "in", work / "convert")
        columns = [column(program, work) if COMMANDS.get(program, ["here"])[0] else missing for program in PROGRAMS]
    print(f"| | {' | '.join(TITLES.values())} |")
    print(f"|---|{'---|' * len(PROGRAMS)}")
    for row in zip(questions, *columns):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
