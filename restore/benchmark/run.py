"""`restore bench`: damages clean pictures, runs every model on them, scores the results; goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import restore
from restore.benchmark.degradations import BenchDamage, BenchSample
from restore.benchmark.plan import MARKER, BenchModel, BenchPlan
from restore.benchmark.worker import Worker, WorkerResult
from restore.errors import RestoreError
from restore.files import sweep_leftovers, write_atomically, write_error_message
from restore.images import read_rgb8, stem_key, write_png
from restore.metrics import score_batch

# What a benchmark has computed, by content: the same model on the same input is never run twice.


@dataclass(frozen=True)
class CachedResult:
    """A restored picture and how it came about.

    Attributes:
        path: lossless, 8 bits.
        pixels_sha256: of its pixels.
        facts: `seconds`, `megapixels`, `peak_bytes`, `idle_bytes`, `gpu_bytes`, `machine`, `notes`: of the run
            that made it, however long ago.
    """

    path: Path
    pixels_sha256: str
    facts: dict[str, Any]


class Cache:
    """Restored pictures and scores under the hash of everything that they depend on.

    A picture is written before its description, each atomically, and checked when it is read: what a killed run or a
    failing disk has left half is not there.

    Args:
        folder: made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sweep(self) -> None:
        """Remove what killed runs have left."""
        for below in self.folder.rglob("*"):
            if below.is_dir():
                sweep_leftovers(below)

    def find(self, key: str) -> CachedResult | None:
        """A restored picture, if it is there and whole."""
        path = self._place("restored", key)
        try:
            facts = json.loads(path.with_suffix(".json").read_bytes())
            found = hash_of(read_rgb8(path))
        except (OSError, ValueError, RestoreError):
            return None
        known = facts.pop("pixels_sha256", None) if isinstance(facts, dict) else None
        return CachedResult(path, found, facts) if found == known else None

    def keep(self, key: str, outcome: WorkerResult, **facts: Any) -> CachedResult:
        """Store what a model made.

        Raises:
            RestoreError: exit code 1; it cannot be written.
        """
        path = self._place("restored", key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RestoreError(write_error_message(error), where=path, exit_code=1) from error
        write_png(path, outcome.pixels)
        digest = hash_of(outcome.pixels)
        known = {
            "seconds": outcome.seconds, "peak_bytes": outcome.peak_bytes, "idle_bytes": outcome.idle_bytes,
            "gpu_bytes": outcome.gpu_bytes, "notes": list(outcome.notes), **facts,
        }  # fmt: skip
        write_atomically(path.with_suffix(".json"), json.dumps({"pixels_sha256": digest, **known}, indent=1).encode())
        return CachedResult(path, digest, known)

    def find_scores(self, key: str) -> dict[str, float] | None:
        """Scores, if they are there."""
        try:
            scores = json.loads(self._place("scores", key).with_suffix(".json").read_bytes())
            return {name: float(value) for name, value in scores.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return None

    def keep_scores(self, key: str, scores: Mapping[str, float]) -> None:
        """Store scores; infinite ones and those that are no numbers as words."""
        values = {name: value if np.isfinite(value) else str(value) for name, value in scores.items()}
        with suppress(RestoreError):  # they are quickly computed again
            write_atomically(self._place("scores", key).with_suffix(".json"), json.dumps(values).encode())

    def _place(self, kind: str, key: str) -> Path:
        return self.folder / kind / key[:2] / f"{key[2:]}.png"


def key_of(**parts: Any) -> str:
    """The hash of plain values by name, and of this package's code: other code, other results."""
    return hashlib.sha256(json.dumps({**parts, "code": code_hash()}, sort_keys=True).encode()).hexdigest()


@cache
def code_hash() -> str:
    """The hash of all modules of this package, of their names and what is in them."""
    folder = Path(restore.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def hash_of(*arrays: np.ndarray | Tensor | None) -> str:
    """The hash of pixels: shapes, types and values."""
    digest = hashlib.sha256()
    for array in arrays:
        values = np.asarray(array) if array is not None else np.zeros(0, np.uint8)
        digest.update(f"{values.dtype} {values.shape} ".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


INPUT = "(input)"
"""What the damaged pictures themselves are called among the models."""


@dataclass(frozen=True)
class Sample:
    """One picture, damaged and restored by one model, with its scores.

    Attributes:
        damage, model: their labels; `INPUT` is no model.
        picture: relative POSIX path without the suffix.
        scores: `psnr`, `ssim`, and as there are masks and a backbone `lpips`, `psnr_hole`, `lpips_hole`; NaN: no value.
        megapixels: of the clean picture.
        kept: the restored picture, and how it was made; None of the input.
    """

    damage: str
    model: str
    picture: str
    scores: dict[str, float]
    megapixels: float
    kept: CachedResult | None = None


@dataclass(frozen=True)
class BenchFailure:
    """What could not be done: a broken picture (of every damage and model), or one that a model failed on."""

    picture: str
    reason: str
    damage: str = ""
    model: str = ""

    def line(self) -> str:
        """As text."""
        cell = f" ({self.model} on {self.damage})" if self.model else f" ({self.damage})" if self.damage else ""
        return f"{self.picture}{cell}: {self.reason}"


@dataclass
class Results:
    """What came of a plan.

    Attributes:
        plan: what was to be done.
        samples: everything that was scored.
        failures: what is missing from the means.
        machine: this one, in words.
        run, found: how many pictures were restored now, and how many came from the cache.
    """

    plan: BenchPlan
    samples: list[Sample] = field(default_factory=list)
    failures: list[BenchFailure] = field(default_factory=list)
    machine: str = ""
    run: int = 0
    found: int = 0

    @property
    def exit_code(self) -> int:
        """1 where anything failed."""
        return int(bool(self.failures))


def run_bench(plan: BenchPlan, progress: Callable[[int, int], None] = lambda done, total: None) -> Results:
    """Do what is planned. Everything computed is kept below `plan.out`, and found there by the next run.

    Args:
        plan: from `plan_bench`.
        progress: called with (pictures done, pictures in all), counted for every damage and model.

    Raises:
        RestoreError: exit code 1: no picture could be read, or nothing can be written.
    """
    write_atomically(plan.out / MARKER, b"")
    runner = _Runner(plan, Results(plan, machine=machine_words()), progress)
    runner.cache.sweep()
    runner.run()
    return runner.results


class _Runner:
    """The loops over damages, models and pictures."""

    def __init__(self, plan: BenchPlan, results: Results, progress: Callable[[int, int], None]) -> None:
        self.plan, self.results, self.progress = plan, results, progress
        self.cache = Cache(plan.out / "cache")
        self.described = plan.described()
        self.done, self.total = 0, (len(plan.damages) + len(plan.cells)) * len(plan.pictures)

    def run(self) -> None:
        readable = []
        for relative in self.plan.pictures:
            try:
                read_rgb8(self.plan.clean_dir / relative)
                readable.append(relative)
            except RestoreError as error:
                self.results.failures.append(_failure(relative, error))
        if not readable:
            raise RestoreError("no picture of this folder can be read", where=self.plan.clean_dir, exit_code=1)
        self.total = (len(self.plan.damages) + len(self.plan.cells)) * len(readable)
        for damage in self.plan.damages:
            usable = [relative for relative in readable if self._input(damage, relative)]
            for of, contender in self.plan.cells:
                if of is damage:
                    self._cell(damage, contender, usable)

    def _input(self, damage: BenchDamage, relative: Path) -> bool:
        """Score the damaged picture; whether it could be damaged."""
        name = stem_key(relative)
        self._advance()
        try:
            case = self._case(damage, relative)
        except RestoreError as error:
            self.results.failures.append(_failure(relative, error, damage))
            return False
        pixels = as_pixels(case.shown)
        scores = self._scores(case, hash_of(pixels), lambda: pixels)
        self.results.samples.append(Sample(damage.label, INPUT, name, scores, _megapixels(case)))
        return True

    def _cell(self, damage: BenchDamage, contender: BenchModel, pictures: list[Path]) -> None:
        with _process(contender) as worker:
            for relative in pictures:
                self._advance()
                try:
                    case = self._case(damage, relative)
                    image, mask = _input_for(case, contender)
                    key = key_of(model=contender.identity, settings=contender.settings(), input=hash_of(image, mask))
                    kept = self.cache.find(key)
                    outcome = _run(worker(), image, mask, case) if kept is None else None
                except RestoreError as error:
                    self.results.failures.append(_failure(relative, error, damage, contender))
                    continue
                if outcome is None:
                    self.results.found += 1
                else:  # out of the `try`: a full disk is the end, not one picture's failure
                    self.results.run += 1
                    facts = {"megapixels": _megapixels(case), "machine": self.results.machine}
                    kept = self.cache.keep(key, outcome, **facts)
                assert kept is not None
                scores = self._scores(case, kept.pixels_sha256, partial(read_rgb8, kept.path))
                self.results.samples.append(
                    Sample(damage.label, contender.label, stem_key(relative), scores, _megapixels(case), kept)
                )

    def _case(self, damage: BenchDamage, relative: Path) -> BenchSample:
        return damage.case(read_rgb8(self.plan.clean_dir / relative), stem_key(relative))

    def _scores(self, case: BenchSample, pixels_sha256: str, load: Callable[[], np.ndarray]) -> dict[str, float]:
        key = key_of(convention=self.described, pixels=pixels_sha256, truth=hash_of(case.clean, case.mask))
        scores = self.cache.find_scores(key)
        if scores is None:
            restored = torch.tensor(load()).permute(2, 0, 1)[None].float() / 255
            measured = score_batch(
                restored, case.clean, case.mask, self.plan.lpips,
                metrics=("psnr", "ssim"), convention=self.plan.convention,
            )  # fmt: skip
            scores = {name: float(value) for name, value in measured.items()}
            self.cache.keep_scores(key, scores)
        return scores

    def _advance(self) -> None:
        self.done += 1
        self.progress(self.done, self.total)


@contextmanager
def _process(contender: BenchModel) -> Iterator[Callable[[], Worker]]:
    """A process for one cell of the table, so that its peak of memory is that cell's: started when it is first wanted,
    and again where a picture has killed it; ended in the end.
    """
    workers: list[Worker] = []

    def worker() -> Worker:
        if not workers or not workers[-1].alive:
            workers.append(
                Worker(
                    contender.given,
                    device=contender.device,
                    precision=contender.precision,
                    tile_px=contender.tile_px,
                )
            )
        return workers[-1]

    try:
        yield worker
    finally:
        for one in workers:
            one.close()


def _run(worker: Worker, image: Tensor, mask: Tensor | None, case: BenchSample) -> WorkerResult:
    outcome = worker.run(image, mask)
    height, width = case.clean.shape[-2:]
    if outcome.pixels.shape[:2] != (height, width):
        given = f"{outcome.pixels.shape[1]}×{outcome.pixels.shape[0]}"
        raise RestoreError(f"gave {given} pixels for {width}×{height}", exit_code=1)
    return outcome


def _failure(
    relative: Path, error: RestoreError, damage: BenchDamage | None = None, contender: BenchModel | None = None
) -> BenchFailure:
    reason = error.what if error.hint is None else f"{error.what}; {error.hint}"
    labels = ("" if one is None else one.label for one in (damage, contender))
    return BenchFailure(relative.as_posix(), reason, *labels)


def _input_for(case: BenchSample, contender: BenchModel) -> tuple[Tensor, Tensor | None]:
    if case.small is not None and contender.requirements.scale > 1:
        return case.small, None
    return case.image, case.mask if contender.requirements.needs_mask else None


def as_pixels(image: Tensor) -> np.ndarray:
    """1×3×H×W in [0, 1] as uint8, H×W×3."""
    return image[0].permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy()


def _megapixels(case: BenchSample) -> float:
    return case.clean.shape[-1] * case.clean.shape[-2] / 1e6


def machine_words() -> str:
    """The processor and the GPU that timings are of."""
    parts: list[Any] = [f"{_processor()}, {torch.get_num_threads()} threads"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return "; ".join(parts)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
