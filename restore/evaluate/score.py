"""Score a folder of restored pictures against the true ones: pair, read ahead, score, report."""

from __future__ import annotations

import difflib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from restore.devices import pick_device
from restore.errors import RestoreError
from restore.evaluate.pairs import Loaded, Pair, load_pair, pair_up
from restore.evaluate.report import ImageScores, Report
from restore.metrics import SSIM_MINIMUM_PX, Convention, find_convention, score_batch
from restore.metrics.fidelity import HOLE_THRESHOLD
from restore.metrics.perceptual import LPIPS_NETS, Lpips, open_lpips

METRICS = ("psnr", "ssim", "lpips")
"""What can be asked for. With masks, `psnr_hole` and `lpips_hole` come with `psnr` and `lpips`."""

_READERS_FOR_GPU = 4
_READ_AHEAD = 2  # pairs that may wait, beside those being worked on
_BATCH_PIXELS_GPU = 2**22

T = TypeVar("T")


def score_folders(
    restored_dir: Path,
    reference_dir: Path,
    *,
    masks: Path | None = None,
    metrics: Sequence[str] = METRICS,
    convention: str = "skimage",
    border_px: int = 0,
    lpips_net: str = "alex",
    lpips_weights: Path | None = None,
    lpips: Lpips | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Score every pair of pictures that have the same relative path but for the last suffix.

    Args:
        restored_dir: restored pictures, in any folder structure.
        reference_dir: the true ones, in the same structure.
        masks: folder of masks (`x.png` or `x_mask.png` for the picture `x`; white = hole): scores inside the
            hole come in addition. None: whole pictures only.
        metrics: some of `METRICS`.
        convention: a name in `metrics.CONVENTIONS`.
        border_px: rows and columns left out at every side of PSNR and SSIM.
        lpips_net: `alex`, `vgg` or `squeeze`.
        lpips_weights: the backbone's file; None: torch.hub's cache, or a download. Where that fails LPIPS is
            reported as unavailable, with the reason, and the other scores stand.
        lpips: opened already; then the two before say nothing.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        progress: called with (pairs done, pairs in all) after every batch.

    Returns:
        The report. Files without a counterpart, unreadable ones, and pairs of different size are named in it.

    Raises:
        RestoreError: exit code 2: unknown metric, convention, network or device, unusable `lpips_weights`, no
            such folder, or no pictures in it.
    """
    wanted = _checked_metrics(metrics)
    how = replace(find_convention(convention), border_px=border_px)
    where = pick_device(device)
    pairs, unmatched, failed = pair_up(Path(restored_dir), Path(reference_dir), masks)
    why_not = None
    if "lpips" not in wanted:
        lpips = None
    elif lpips is not None:
        lpips = lpips.to(where)
    else:
        lpips, why_not = _open_lpips(lpips_net, lpips_weights, where)

    columns = [
        *wanted,
        *(f"{metric}_hole" for metric in ("psnr", "lpips") if masks is not None and metric in wanted),
    ]
    report = Report(
        convention=_described(how, columns, lpips, lpips_net),
        metrics=tuple(columns),
        unmatched=unmatched,
        failed=failed,
        unavailable={column: why_not for column in columns if why_not and column.startswith("lpips")},
    )
    scorer = _Scorer(report.metrics, frozenset(report.unavailable), how, lpips, where)
    scored: Iterator[list[ImageScores]]
    if where.type == "cpu":
        # Pictures in parallel, each on one thread: quicker than every step of one picture on all threads.
        workers = torch.get_num_threads()
        scored = _in_order(lambda pair: scorer([load_pair(pair)]), pairs, workers, failed, progress)
    else:
        scored = map(scorer, _batches(_in_order(load_pair, pairs, _READERS_FOR_GPU, failed, progress)))
    for images in scored:
        report.images += images
        failed += [{"name": image.name, "reason": image.problem} for image in images if image.problem]
    return report


@dataclass(frozen=True)
class _Scorer:
    """Scores batches of pairs of one size; `unavailable` metrics need no reason per picture."""

    metrics: tuple[str, ...]
    unavailable: frozenset[str]
    convention: Convention
    lpips: Lpips | None
    device: torch.device

    def __call__(self, batch: list[Loaded]) -> list[ImageScores]:
        restored = torch.stack([pair.restored for pair in batch]).to(self.device)
        reference = torch.stack([pair.reference for pair in batch]).to(self.device)
        masks = [pair.mask for pair in batch if pair.mask is not None]
        mask = torch.stack(masks).to(self.device) if masks else None
        try:
            scores = score_batch(
                restored, reference, mask, self.lpips, metrics=self.metrics, convention=self.convention
            )
        except torch.OutOfMemoryError:
            if len(batch) > 1:
                return [scores for pair in batch for scores in self([pair])]
            reason = f"{self.device} has not enough memory for it; try --device cpu"
            return [ImageScores(batch[0].name, {}, dict.fromkeys(self.metrics, reason), reason)]
        values = {metric: score.tolist() for metric, score in scores.items()}
        return [self._of_one(pair, {m: values[m][i] for m in values}) for i, pair in enumerate(batch)]

    def _of_one(self, pair: Loaded, values: dict[str, float]) -> ImageScores:
        found = {m: values[m] for m in self.metrics if m in values and not math.isnan(values[m])}
        missing = [m for m in self.metrics if m not in found and m not in self.unavailable]
        return ImageScores(pair.name, found, {m: self._why_none(m, pair) for m in missing}, pair.mask_problem)

    def _why_none(self, metric: str, pair: Loaded) -> str:
        side = min(pair.restored.shape[-2:])
        ssim_minimum = SSIM_MINIMUM_PX + 2 * self.convention.border_px
        if metric.endswith("_hole") and pair.mask is None:
            return "the mask cannot be used" if pair.mask_problem else "no mask"
        if metric == "ssim" and side < ssim_minimum:
            return f"smaller than {ssim_minimum} px"
        if metric.startswith("lpips") and self.lpips is not None and side < self.lpips.minimum_px:
            return f"smaller than {self.lpips.minimum_px} px"
        return "nothing is left within the border" if metric.startswith("psnr") else "not a finite number"


def _checked_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    known = f"known: {', '.join(METRICS)}"
    for metric in metrics:
        if metric not in METRICS:
            near = difflib.get_close_matches(metric, METRICS, n=1)
            hint = f"did you mean {near[0]!r}? {known}" if near else known
            raise RestoreError(f"no metric is called {metric!r}", hint=hint)
    if not metrics:
        raise RestoreError("no metric is asked for", hint=known)
    return tuple(metric for metric in METRICS if metric in metrics)


def _open_lpips(net: str, weights: Path | None, device: torch.device) -> tuple[Lpips | None, str | None]:
    """LPIPS, or why there is none. What the user named explicitly must work."""
    try:
        return open_lpips(net, weights, device), None
    except RestoreError as error:
        if weights is not None or net not in LPIPS_NETS:
            raise
        return None, str(error)


def _described(how: Convention, columns: Sequence[str], lpips: Lpips | None, net: str) -> dict[str, Any]:
    known = how.describe()
    known["lpips"] = {"backbone": net} if lpips is None else lpips.describe()
    inside = {
        "psnr_hole": f"pixels where the mask is at least {HOLE_THRESHOLD}",
        "lpips_hole": f"spatial map averaged over pixels where the mask is at least {HOLE_THRESHOLD}",
    }
    described: dict[str, Any] = {"name": how.name, "pairing": "relative path without the last suffix"}
    for column in columns:
        described[column] = dict(known[column.removesuffix("_hole")])
        if column in inside:
            described[column]["region"] = inside[column]
    return described


def _in_order(
    work: Callable[[Pair], T],
    pairs: Sequence[Pair],
    workers: int,
    failed: list[dict[str, str]],
    progress: Callable[[int, int], None] | None,
) -> Iterator[T]:
    """`work` on every pair by threads, a few ahead; results in order, pairs that cannot be used to `failed`."""
    waiting: deque[tuple[int, Pair, Future[T]]] = deque()

    def next_result() -> Iterator[T]:
        number, pair, future = waiting.popleft()
        try:
            yield future.result()
        except RestoreError as error:
            failed.append({"name": pair.name, "reason": str(error)})
        if progress is not None:
            progress(number, len(pairs))

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for number, pair in enumerate(pairs, 1):
            waiting.append((number, pair, pool.submit(work, pair)))
            if len(waiting) >= workers + _READ_AHEAD:
                yield from next_result()
        while waiting:
            yield from next_result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the workers' number has become that of threads to come


def _batches(loaded: Iterable[Loaded]) -> Iterator[list[Loaded]]:
    """Consecutive pairs of one size, all with a mask or all without, as many as a GPU is glad of."""
    batch: list[Loaded] = []
    for pair in loaded:
        full = (len(batch) + 1) * pair.restored[0].numel() > _BATCH_PIXELS_GPU
        other = batch and (
            pair.restored.shape != batch[0].restored.shape or (pair.mask is None) != (batch[0].mask is None)
        )
        if batch and (full or other):
            yield batch
            batch = []
        batch.append(pair)
    if batch:
        yield batch
