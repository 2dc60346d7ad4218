"""`restore degrade`: write degraded versions of clean images, and their masks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from restore.degradations import Degradation, key, load_degradation
from restore.devices import usable_cpus
from restore.errors import RestoreError, printable
from restore.files import check_not_within, check_writable
from restore.images import find_images, index_by_stem, pair_key, read_rgb8, write_png
from restore.images.formats import left_out_lines


@dataclass
class DegradeSummary:
    """The result of `write_degraded`.

    Attributes:
        damage: name of the degradation.
        written: number of degraded images.
        masks: number of masks.
        failed: (path relative to the clean folder, reason) of each image that failed.
        warnings: what is left out, one line each.
        seconds: total time.
    """

    damage: str
    written: int = 0
    masks: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def format(self) -> list[str]:
        """Lines of text, failures last."""
        masks = f" and {self.masks} masks" if self.masks else ""
        counts = f"{self.written} images degraded ({self.damage}){masks}; {self.seconds:.1f} s"
        return [*self.warnings, counts, *(f"failed: {printable(name)}: {reason}" for name, reason in self.failed)]


def write_degraded(
    clean_dir: Path | str,
    out_dir: Path | str,
    degradation: Degradation | str | Path,
    *,
    seed: int = 0,
    workers: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> DegradeSummary:
    """Degrade every image of a folder, on the CPU.

    Writes `out_dir/damaged/NAME.png` and, if the degradation covers pixels, `out_dir/masks/NAME.png` (white =
    covered) under the same relative names, as 8-bit sRGB. The random numbers of an image depend on the seed and its
    relative name without the suffix, so the bytes do not depend on the workers, the file format or the other images.

    Args:
        clean_dir: searched recursively.
        out_dir: created if missing.
        degradation: a degradation, the name of a shipped config, or a YAML file.
        seed: any integer.
        workers: number of threads, each with one image at a time; 0: one per core.
        overwrite: replace existing outputs.
        progress: called with (done, total) after each image.

    Returns:
        Counts, and the files that failed. A bad file does not stop the run.

    Raises:
        RestoreError: exit code 2; nothing was written. There are no images, two images have the same output name,
            outputs exist, or the output folder is inside the clean one, is a file, or is not writable.
    """
    clean_dir, out_dir = Path(clean_dir), Path(out_dir)
    degradation = degradation if isinstance(degradation, Degradation) else load_degradation(degradation)
    if workers < 0:
        raise RestoreError("workers must be at least 0", where=f"workers={workers}")
    left_out: list[Path] = []
    images = find_images(clean_dir, on_left_out=left_out.append)
    if not images:
        raise RestoreError("this folder holds no images", where=clean_dir)
    folders = {"damaged": out_dir / "damaged", "masks": out_dir / "masks"}
    _refuse_nesting(clean_dir, out_dir, folders.values())
    index_by_stem(clean_dir, images)
    written = [folders["damaged"], *([folders["masks"]] if degradation.has_mask else [])]
    if not overwrite:
        _refuse_existing(images, *written)
    for folder in dict.fromkeys((output / relative).parent for output in written for relative in images):
        check_writable(folder)

    started = time.monotonic()
    summary = DegradeSummary(degradation.name, warnings=left_out_lines(left_out, hint="name one as CLEAN_DIR"))

    def degrade_one(relative: Path) -> str | None:
        try:
            _write_one(clean_dir / relative, relative, folders, degradation, seed)
        except RestoreError as error:
            return str(error)
        return None

    threads = torch.get_num_threads()
    # PyTorch's own threads would compete with the workers. The bytes of an image depend on neither.
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(workers or usable_cpus()) as pool:
            for done, (relative, reason) in enumerate(zip(images, pool.map(degrade_one, images)), 1):
                if reason is None:
                    summary.written += 1
                    summary.masks += degradation.has_mask
                else:
                    summary.failed.append((relative, reason))
                if progress is not None:
                    progress(done, len(images))
    finally:
        torch.set_num_threads(threads)
    summary.seconds = time.monotonic() - started
    return summary


def _write_one(source: Path, relative: Path, folders: dict[str, Path], degradation: Degradation, seed: int) -> None:
    pixels = torch.from_numpy(read_rgb8(source)).permute(2, 0, 1)[None].to(torch.float32) / 255
    keys = torch.tensor([key(seed, pair_key(relative))], dtype=torch.int64)
    degraded, mask = degradation(pixels, keys, [pair_key(relative)])
    name = relative.with_suffix(".png")
    _save(folders["damaged"] / name, degraded[0].permute(1, 2, 0))
    if degradation.has_mask:
        _save(folders["masks"] / name, (mask[0, 0] > 0).to(torch.float32))


def _save(path: Path, values: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, (values.clamp(0, 1) * 255).round().numpy().astype(np.uint8))


def _refuse_nesting(clean_dir: Path, out_dir: Path, outputs: Iterable[Path]) -> None:
    check_not_within(out_dir, clean_dir)
    clean = clean_dir.resolve()
    for output in outputs:
        if output.resolve() == clean or output.resolve() in clean.parents:
            raise RestoreError(
                f"the clean folder is, or is inside, the output folder {output.name}/",
                where=clean_dir,
                hint="choose another output folder",
            )


def _refuse_existing(images: list[Path], *outputs: Path) -> None:
    all_outputs = [output / relative.with_suffix(".png") for output in outputs for relative in images]
    existing = [path for path in all_outputs if os.path.lexists(path)]
    if existing:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise RestoreError(
            f"the output already exists{more}", where=existing[0], hint="use --overwrite, or another folder"
        )
