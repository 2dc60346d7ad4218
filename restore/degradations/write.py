"""Clean pictures -> damaged pictures and their masks, as files: what `restore degrade` writes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from restore.degradations import Damage, key, load_damage
from restore.errors import RestoreError, printable
from restore.files import check_writable
from restore.images import find_images, read_rgb8, stem_key, write_png


@dataclass
class DamagedSummary:
    """What `write_damaged` did.

    Attributes:
        damage: its name.
        written: damaged pictures.
        masks: masks beside them.
        failed: the file as found below the clean folder, and why.
        seconds: for everything.
    """

    damage: str
    written: int = 0
    masks: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    seconds: float = 0.0

    def format(self) -> list[str]:
        """As text, failures last."""
        masks = f" and {self.masks} masks" if self.masks else ""
        counts = f"{self.written} pictures damaged ({self.damage}){masks}; {self.seconds:.1f} s"
        return [counts, *(f"failed: {printable(name)}: {reason}" for name, reason in self.failed)]


def write_damaged(
    clean_dir: Path | str,
    out_dir: Path | str,
    damage: Damage | str | Path,
    *,
    seed: int = 0,
    workers: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> DamagedSummary:
    """Damage every picture of a folder, on the CPU.

    Writes `out_dir/damaged/NAME.png` and, where the damage hides pixels, `out_dir/masks/NAME.png` (white =
    hidden) under the same relative names: 8-bit sRGB. A picture's damage follows from the seed and its
    relative name without the suffix, so the bytes are the same whatever the workers, the format, and the rest
    of the folder.

    Args:
        clean_dir: searched recursively.
        out_dir: made where it is missing.
        damage: a damage, the name of a shipped one, or a YAML file.
        seed: any integer.
        workers: threads, each with one picture at a time; 0: as many as there are cores.
        overwrite: replace outputs that exist.
        progress: called with (done, total) after each picture.

    Returns:
        Counts, and the files that failed; one bad file does not stop the rest.

    Raises:
        RestoreError: nothing was written: no pictures, two that would get one name, outputs that exist, an
            output folder that lies in the clean one, is a file, or cannot be written to.
    """
    clean_dir, out_dir = Path(clean_dir), Path(out_dir)
    damage = damage if isinstance(damage, Damage) else load_damage(damage)
    if workers < 0:
        raise RestoreError("workers must be 0 or more", where=f"workers={workers}")
    pictures = find_images(clean_dir)
    if not pictures:
        raise RestoreError("no pictures in this folder", where=clean_dir)
    folders = {"damaged": out_dir / "damaged", "masks": out_dir / "masks"}
    _refuse_nesting(clean_dir, out_dir, folders.values())
    _refuse_collisions(clean_dir, pictures)
    written = [folders["damaged"], *([folders["masks"]] if damage.hides else [])]
    if not overwrite:
        _refuse_existing(pictures, *written)
    for folder in dict.fromkeys((output / relative).parent for output in written for relative in pictures):
        check_writable(folder)

    started = time.monotonic()
    summary = DamagedSummary(damage.name)

    def one(relative: Path) -> str | None:
        try:
            _write_one(clean_dir / relative, relative, folders, damage, seed)
        except RestoreError as error:
            return str(error)
        return None

    threads = torch.get_num_threads()
    # PyTorch's own threads would compete with the workers; a picture's bytes depend on neither
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            for done, (relative, reason) in enumerate(zip(pictures, pool.map(one, pictures)), 1):
                if reason is None:
                    summary.written += 1
                    summary.masks += damage.hides
                else:
                    summary.failed.append((relative, reason))
                if progress is not None:
                    progress(done, len(pictures))
    finally:
        torch.set_num_threads(threads)
    summary.seconds = time.monotonic() - started
    return summary


def _write_one(source: Path, relative: Path, folders: dict[str, Path], damage: Damage, seed: int) -> None:
    pixels = torch.from_numpy(read_rgb8(source)).permute(2, 0, 1)[None].to(torch.float32) / 255
    keys = torch.tensor([key(seed, stem_key(relative))], dtype=torch.int64)
    damaged, mask = damage(pixels, keys)
    name = relative.with_suffix(".png")
    _save(folders["damaged"] / name, damaged[0].permute(1, 2, 0))
    if damage.hides:
        _save(folders["masks"] / name, (mask[0, 0] > 0).to(torch.float32))


def _save(path: Path, values: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, (values.clamp(0, 1) * 255).round().numpy().astype(np.uint8))


def _refuse_nesting(clean_dir: Path, out_dir: Path, outputs: Iterable[Path]) -> None:
    clean = clean_dir.resolve()
    if out_dir.resolve() == clean or clean in out_dir.resolve().parents:
        raise RestoreError(
            "the output folder is, or lies in, the clean one", where=out_dir, hint="choose another folder"
        )
    for output in outputs:
        if output.resolve() == clean or output.resolve() in clean.parents:
            raise RestoreError(
                f"the clean folder lies where {output.name}/ is written",
                where=clean_dir,
                hint="choose another",
            )


def _refuse_collisions(clean_dir: Path, pictures: list[Path]) -> None:
    seen: dict[str, Path] = {}
    for relative in pictures:
        other = seen.setdefault(stem_key(relative), relative)
        if other != relative:
            raise RestoreError(
                f"{other.name} and this would both be written as {relative.with_suffix('.png').name}",
                where=clean_dir / relative,
                hint="rename one of them",
            )


def _refuse_existing(pictures: list[Path], *outputs: Path) -> None:
    wanted = [output / relative.with_suffix(".png") for output in outputs for relative in pictures]
    existing = [path for path in wanted if os.path.lexists(path)]
    if existing:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise RestoreError(f"exists already{more}", where=existing[0], hint="use --overwrite, or another folder")
