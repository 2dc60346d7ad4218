"""`restore bench`: degrades clean images, runs every model on them and scores the results."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restore.benchmark.cache import RESTORING_CODE, SCORING_CODE, Cache, CachedResult, hash_of, key_of
from restore.benchmark.degradations import BenchDegradation, BenchSample
from restore.benchmark.plan import MARKER, BenchModel, BenchPlan
from restore.benchmark.worker import Worker, WorkerResult
from restore.errors import RestoreError
from restore.files import write_atomically
from restore.images import pair_key, read_rgb8, stem_key
from restore.metrics import score_batch

INPUT = "(input)"
"""Label of the degraded images among the models."""


@dataclass(frozen=True)
class ScoredSample:
    """One degraded image restored by one model, with its scores.

    Attributes:
        degradation, model: labels; the model `INPUT` is the degraded image itself.
        image: relative POSIX path without the suffix.
        scores: `psnr`, `ssim`, and depending on masks and backbone `lpips`, `psnr_hole`, `lpips_hole`; NaN: no value.
        megapixels: of the clean image.
        result: the restored image; None for `INPUT`.
    """

    degradation: str
    model: str
    image: str
    scores: dict[str, float]
    megapixels: float
    result: CachedResult | None = None


@dataclass(frozen=True)
class BenchFailure:
    """An image that could not be read (no labels), degraded (no model), or restored."""

    image: str
    reason: str
    degradation: str = ""
    model: str = ""

    def format(self) -> str:
        """As one line of text."""
        if self.model:
            return f"{self.image} ({self.model} on {self.degradation}): {self.reason}"
        return (
            f"{self.image} ({self.degradation}): {self.reason}" if self.degradation else f"{self.image}: {self.reason}"
        )


@dataclass
class BenchResults:
    """The results of a benchmark.

    Attributes:
        plan: the plan.
        samples: all scored images.
        failures: images that are missing from the means.
        machine: description of this machine.
        restored: number of images restored by this run.
        cached: number of restored images found in the cache.
    """

    plan: BenchPlan
    samples: list[ScoredSample] = field(default_factory=list)
    failures: list[BenchFailure] = field(default_factory=list)
    machine: str = ""
    restored: int = 0
    cached: int = 0

    @property
    def exit_code(self) -> int:
        """1 if anything failed, otherwise 0."""
        return int(bool(self.failures))


def run_bench(plan: BenchPlan, progress: Callable[[int, int], None] = lambda done, total: None) -> BenchResults:
    """Run a plan. All results are cached below `plan.out`, so that the same command continues an interrupted run.

    Args:
        plan: from `plan_bench`.
        progress: called with (done, total), counting each image once per degradation and once per model.

    Raises:
        RestoreError: exit code 1; no image can be read, or the output cannot be written.
    """
    write_atomically(plan.out / MARKER, b"")
    runner = _Runner(plan, BenchResults(plan, machine=describe_machine()), progress)
    runner.cache.sweep()
    runner.run()
    return runner.results


class _Runner:
    """Loops over degradations, models and images."""

    def __init__(self, plan: BenchPlan, results: BenchResults, progress: Callable[[int, int], None]) -> None:
        self.plan, self.results, self.progress = plan, results, progress
        self.cache = Cache(plan.out / "cache")
        self.conventions = plan.describe()
        self.done, self.total = 0, (len(plan.degradations) + len(plan.cells)) * len(plan.images)

    def run(self) -> None:
        readable = []
        for relative in self.plan.images:
            try:
                read_rgb8(self.plan.clean_dir / relative)
                readable.append(relative)
            except RestoreError as error:
                self.results.failures.append(_failure(relative, error))
        if not readable:
            raise RestoreError("no image in this folder can be read", where=self.plan.clean_dir, exit_code=1)
        self.total = (len(self.plan.degradations) + len(self.plan.cells)) * len(readable)
        for degradation in self.plan.degradations:
            usable = [relative for relative in readable if self._score_input(degradation, relative)]
            for cell_degradation, model in self.plan.cells:
                if cell_degradation is degradation:
                    self._run_cell(degradation, model, usable)

    def _score_input(self, degradation: BenchDegradation, relative: Path) -> bool:
        """Score the degraded image. Returns whether the image could be degraded."""
        name = stem_key(relative)
        self._advance()
        try:
            sample = self._degrade(degradation, relative)
        except RestoreError as error:
            self.results.failures.append(_failure(relative, error, degradation))
            return False
        pixels = to_uint8(sample.degraded)
        scores = self._scores(sample, degradation, hash_of(pixels), lambda: pixels)
        self.results.samples.append(ScoredSample(degradation.label, INPUT, name, scores, _megapixels(sample)))
        return True

    def _run_cell(self, degradation: BenchDegradation, model: BenchModel, images: list[Path]) -> None:
        """Restore and score all images of one degradation with one model."""
        with _worker_process(model) as worker:
            for relative in images:
                self._advance()
                try:
                    sample = self._degrade(degradation, relative)
                    image, mask = _input_for(sample, degradation, model)
                    key = key_of(
                        RESTORING_CODE, model=model.identity, settings=model.settings(), input=hash_of(image, mask)
                    )
                    cached = self.cache.find(key)
                    new = _restore(worker(), image, mask, sample) if cached is None else None
                except RestoreError as error:
                    self.results.failures.append(_failure(relative, error, degradation, model))
                    continue
                if new is None:
                    self.results.cached += 1
                else:  # outside the `try`, so that a full disk ends the run instead of failing every image
                    self.results.restored += 1
                    stats = {"megapixels": _megapixels(sample), "machine": self.results.machine}
                    cached = self.cache.store(key, new, **stats)
                assert cached is not None
                scores = self._scores(sample, degradation, cached.pixels_sha256, partial(read_rgb8, cached.path))
                name, megapixels = stem_key(relative), _megapixels(sample)
                self.results.samples.append(
                    ScoredSample(degradation.label, model.label, name, scores, megapixels, cached)
                )

    def _degrade(self, degradation: BenchDegradation, relative: Path) -> BenchSample:
        return degradation.degrade(read_rgb8(self.plan.clean_dir / relative), pair_key(relative))

    def _scores(
        self, sample: BenchSample, degradation: BenchDegradation, pixels_sha256: str, load: Callable[[], np.ndarray]
    ) -> dict[str, float]:
        convention = self.plan.convention_for(degradation)
        key = key_of(
            SCORING_CODE,
            convention=self.conventions | {"border_px": convention.border_px},
            pixels=pixels_sha256,
            truth=hash_of(sample.clean, sample.mask),
        )
        scores = self.cache.find_scores(key)
        if scores is None:
            restored = torch.tensor(load()).permute(2, 0, 1)[None].float() / 255
            measured = score_batch(
                restored, sample.clean, sample.mask, self.plan.lpips,
                metrics=("psnr", "ssim"), convention=convention,
            )  # fmt: skip
            scores = {name: float(value) for name, value in measured.items()}
            self.cache.store_scores(key, scores)
        return scores

    def _advance(self) -> None:
        self.done += 1
        self.progress(self.done, self.total)


@contextmanager
def _worker_process(model: BenchModel) -> Iterator[Callable[[], Worker]]:
    """A process for one degradation and model, so that its peak memory is theirs alone.

    Yields a function that starts the process when it is first called, and again after an image has killed it.
    """
    workers: list[Worker] = []

    def worker() -> Worker:
        if not workers or not workers[-1].alive:
            workers.append(
                Worker(
                    model.source,
                    device=model.device,
                    precision=model.precision,
                    engine=model.engine,
                    tile_px=model.tile_px,
                )
            )
        return workers[-1]

    try:
        yield worker
    finally:
        for process in workers:
            process.close()


def _restore(worker: Worker, image: Tensor, mask: Tensor | None, sample: BenchSample) -> WorkerResult:
    result = worker.run(image, mask)
    height, width = sample.clean.shape[-2:]
    if result.pixels.shape[:2] != (height, width):
        size = f"{result.pixels.shape[1]}×{result.pixels.shape[0]}"
        raise RestoreError(f"the output has {size} pixels instead of {width}×{height}", exit_code=1)
    return result


def _failure(
    relative: Path, error: RestoreError, degradation: BenchDegradation | None = None, model: BenchModel | None = None
) -> BenchFailure:
    reason = error.what if error.hint is None else f"{error.what}; {error.hint}"
    labels = ("" if item is None else item.label for item in (degradation, model))
    return BenchFailure(relative.as_posix(), reason, *labels)


def _input_for(sample: BenchSample, degradation: BenchDegradation, model: BenchModel) -> tuple[Tensor, Tensor | None]:
    """The image and mask that a model receives.

    Models that fill holes receive the mask. So do other models where the degradation consists of holes: like
    `restore fix --masks`, the worker then keeps the pixels outside the mask.
    """
    if sample.small is not None and model.requirements.scale > 1:
        return sample.small, None
    return sample.image, sample.mask if model.requirements.needs_mask or degradation.only_holes else None


def to_uint8(image: Tensor) -> np.ndarray:
    """1×3×H×W in [0, 1] as uint8, H×W×3."""
    return image[0].permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy()


def _megapixels(sample: BenchSample) -> float:
    return sample.clean.shape[-1] * sample.clean.shape[-2] / 1e6


def describe_machine() -> str:
    """Processor, threads and GPU, for reports of timings."""
    parts = [f"{_processor()}, {torch.get_num_threads()} threads"]
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
