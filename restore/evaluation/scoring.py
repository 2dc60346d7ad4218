"""Scores a folder of restored images against clean references: pair, read, score, report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore.devices import pick_device
from restore.errors import RestoreError, did_you_mean
from restore.evaluation.pairs import LoadedPair, Pair, Paired, batches, in_order, load_pair, pair_up
from restore.evaluation.report import EvalReport, ImageScores, compare
from restore.evaluation.statistics import LEVEL, RESAMPLES, SEED
from restore.images.formats import left_out_of
from restore.metrics import FID, METRICS, MS_SSIM_MINIMUM_PX, SSIM_MINIMUM_PX, Convention, find_convention, score_batch
from restore.metrics.fid import FrechetDistance, Inception, open_inception
from restore.metrics.lpips import Lpips, open_lpips_if_available
from restore.metrics.preprocessing import HOLE_THRESHOLD
from restore.metrics.seam import CONVENTION as SEAM_CONVENTION
from restore.metrics.seam import RATIO_CONVENTION as SEAM_RATIO_CONVENTION

DEFAULT_METRICS = ("psnr", "ssim", "lpips")

_READERS_FOR_GPU = 4


@dataclass
class MetricSuite:
    """The metrics of an evaluation and their networks.

    Attributes:
        columns: names of `METRICS` in column order.
        convention: of pixel metrics.
        lpips: the LPIPS network; None if LPIPS is not requested or unavailable.
        lpips_net: name of its backbone, also if the network is unavailable.
        inception: the FID network; None if FID is not requested or unavailable.
        unavailable: requested metrics that cannot be computed, and why.
    """

    columns: tuple[str, ...]
    convention: Convention
    lpips: Lpips | None = None
    lpips_net: str = "alex"
    inception: Inception | None = None
    unavailable: dict[str, str] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """The conventions as plain values, by column."""
        known: dict[str, dict[str, object]] = dict(self.convention.describe())
        known["lpips"] = {"backbone": self.lpips_net} if self.lpips is None else self.lpips.describe()
        known["seam"], known["seam_ratio"] = SEAM_CONVENTION, SEAM_RATIO_CONVENTION
        regions = {
            "psnr_hole": f"pixels where the mask is at least {HOLE_THRESHOLD}",
            "lpips_hole": f"spatial map averaged over pixels where the mask is at least {HOLE_THRESHOLD}",
        }
        out: dict[str, Any] = {"name": self.convention.name, "pairing": "relative path without the last suffix"}
        for column in self.columns:
            out[column] = dict(known[column.removesuffix("_hole")])
            if column in regions:
                out[column]["region"] = regions[column]
        if self.inception is not None:
            out[FID] = self.inception.describe()
        out["interval"] = {
            "of": "the mean over images",
            "level": LEVEL,
            "method": "percentile bootstrap",
            "resamples": RESAMPLES,
            "seed": SEED,
        }
        return out


def columns_of(metrics: Sequence[str], *, masked: bool) -> tuple[str, ...]:
    """The columns of a report: the requested metrics, and those that masks add.

    Args:
        metrics: names of `METRICS`, or `FID`, which is a number per set and has no column.
        masked: there are masks. They add `seam`, and `psnr_hole` and `lpips_hole` to `psnr` and `lpips`.

    Raises:
        RestoreError: exit code 2; an unknown metric, one that needs masks, or no metric.
    """
    known = [*METRICS, FID]
    for metric in metrics:
        if metric not in known:
            raise RestoreError(f"no metric is called {metric!r}", hint=did_you_mean(metric, known))
        if metric != FID and METRICS[metric].masked and not masked:
            raise RestoreError(f"the metric {metric!r} measures holes", hint="give --masks")
    if not metrics:
        raise RestoreError("no metric is requested", hint=f"known: {', '.join(known)}")
    added = {"seam"} | {f"{metric}_hole" for metric in ("psnr", "lpips") if metric in metrics}
    return tuple(name for name in METRICS if name in metrics or (masked and name in added))


def open_metrics(
    metrics: Sequence[str],
    convention: Convention,
    device: torch.device,
    *,
    masked: bool,
    lpips: Lpips | None = None,
    lpips_net: str = "alex",
    lpips_weights: Path | None = None,
    fid_weights: Path | None = None,
) -> MetricSuite:
    """Validate the metrics and open their networks. Arguments as for `score_folders`.

    Missing weights make a metric unavailable; unusable weights that the user named are an error.

    Raises:
        RestoreError: exit code 2; as for `columns_of`, an unknown network, or an unusable weights file.
    """
    columns = columns_of(metrics, masked=masked)
    suite = MetricSuite(columns, convention, lpips_net=lpips_net if lpips is None else lpips.net)
    if any(column.startswith("lpips") for column in columns):
        if lpips is not None:
            suite.lpips = lpips.to(device)
        else:
            suite.lpips, reason = open_lpips_if_available(lpips_net, lpips_weights, device)
            if suite.lpips is None:
                suite.unavailable |= {name: reason for name in columns if name.startswith("lpips")}
    if FID in metrics:
        try:
            suite.inception = open_inception(fid_weights, device)
        except RestoreError as error:
            if error.exit_code == 2:
                raise
            suite.unavailable[FID] = str(error)
    return suite


def score_folders(
    restored_dir: Path,
    reference_dir: Path,
    *,
    baseline_dir: Path | None = None,
    masks: Path | None = None,
    suffix: str = "",
    metrics: Sequence[str] = DEFAULT_METRICS,
    convention: str = "skimage",
    border_px: int = 0,
    lpips_net: str = "alex",
    lpips_weights: Path | None = None,
    lpips: Lpips | None = None,
    fid_weights: Path | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    scored_by: ScoredBy | None = None,
) -> EvalReport:
    """Score all pairs of images with the same relative path, ignoring the last suffix; or two single files.

    Args:
        restored_dir: restored images, in any folder structure; or one image.
        reference_dir: clean images, in the same structure; or one image, whatever its name.
        baseline_dir: a second set of images in that structure (the damaged ones, or those of another method), scored
            likewise and compared image by image; or one image.
        masks: folder of masks (`x.png` or `x_mask.png` for the image `x`; white = hole); or the mask of one image.
            Masks add scores inside the hole and of its seam. None: whole images only.
        suffix: ending of the names of restored images (and of those of the baseline) that the references lack; see
            `pair_up`.
        metrics: names of `metrics.METRICS`, and `fid`.
        convention: a name in `metrics.CONVENTIONS`.
        border_px: rows and columns that pixel metrics ignore at every side.
        lpips_net: `alex`, `vgg` or `squeeze`.
        lpips_weights: weights file of the backbone. None: torch.hub's cache, or a download. If that fails, the report
            lists LPIPS as unavailable, with the reason.
        lpips: an open network; then `lpips_net` and `lpips_weights` are ignored.
        fid_weights: weights file of FID's network; None as for `lpips_weights`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        progress: called with (done, total) after every pair.
        scored_by: what scores pairs instead of this process, such as the workers of a cluster.

    Returns:
        The report. It lists empty folders, files without a counterpart, unreadable files, and pairs of different size.

    Raises:
        RestoreError: exit code 2; unknown metric, convention, network or device, unusable weights, or no such folder.
    """
    where = pick_device(device)
    suite = open_metrics(
        metrics, replace(find_convention(convention), border_px=border_px), where,
        masked=masks is not None, lpips=lpips, lpips_net=lpips_net, lpips_weights=lpips_weights,
        fid_weights=fid_weights,
    )  # fmt: skip
    paired = pair_up(Path(restored_dir), Path(reference_dir), masks, suffix=suffix)
    others = None
    if baseline_dir is not None:
        others = pair_up(Path(baseline_dir), Path(reference_dir), masks, role="baseline", suffix=suffix)
        others = others.only(paired)
    total = len(paired.pairs) + (len(others.pairs) if others else 0)
    count = iter(range(1, total + 1))

    def done() -> None:
        at = next(count)
        if progress is not None:
            progress(at, total)

    report = _scored(paired, suite, where, done, scored_by)
    if suffix:
        report.convention["pairing"] += f"; the restored ones also without the ending {suffix!r}"
    report.warnings = left_out_of([Path(restored_dir), Path(reference_dir), masks, baseline_dir], hint="not scored")
    if baseline_dir is not None and others is not None:
        report.baseline = compare(report, _scored(others, suite, where, done, scored_by), baseline_dir)
    return report


@dataclass(frozen=True)
class ScoredBatch:
    """The scores of a batch, and for FID the features of restored and reference images, float64, B×2048."""

    images: list[ImageScores]
    features: tuple[Tensor, Tensor] | None


#: Scores pairs: (pairs, list for those that fail, called after every pair) -> their scores, in order.
ScoredBy = Callable[[Sequence[Pair], list[dict[str, str]], Callable[[], None]], Iterator[ScoredBatch]]


def _scored(
    paired: Paired, suite: MetricSuite, device: torch.device, done: Callable[[], None], scored_by: ScoredBy | None
) -> EvalReport:
    report = EvalReport(
        convention=suite.describe(),
        metrics=suite.columns,
        unmatched=paired.unmatched,
        failed=paired.failed,
        unavailable=suite.unavailable,
    )
    scorer = Scorer(suite, device)
    scored: Iterator[ScoredBatch]
    if scored_by is not None:
        scored = scored_by(paired.pairs, report.failed, done)
    elif device.type == "cpu":
        # One thread per image is faster than all threads on one image after the other.
        workers = torch.get_num_threads()
        scored = in_order(lambda pair: scorer([load_pair(pair)]), paired.pairs, workers, report.failed, done)
    else:
        scored = map(scorer, batches(in_order(load_pair, paired.pairs, _READERS_FOR_GPU, report.failed, done)))
    distance = None if suite.inception is None else FrechetDistance()
    for batch in scored:
        report.images += batch.images
        report.failed += [{"name": image.name, "reason": image.problem} for image in batch.images if image.problem]
        if distance is not None and batch.features is not None:
            distance.add(*batch.features)
    if distance is not None:
        report.fid = (distance.value(), distance.count)
    return report


@dataclass(frozen=True)
class Scorer:
    """Scores batches of pairs of one size."""

    suite: MetricSuite
    device: torch.device

    def __call__(self, batch: list[LoadedPair]) -> ScoredBatch:
        """The scores of a batch."""
        suite = self.suite
        restored = torch.stack([pair.restored for pair in batch]).to(self.device)
        reference = torch.stack([pair.reference for pair in batch]).to(self.device)
        masks = [pair.mask for pair in batch if pair.mask is not None]
        mask = torch.stack(masks).to(self.device) if masks else None
        features = None
        try:
            scores = score_batch(
                restored, reference, mask, suite.lpips, metrics=suite.columns, convention=suite.convention
            )
            if suite.inception is not None:
                features = suite.inception.features(restored), suite.inception.features(reference)
        except torch.OutOfMemoryError:
            if len(batch) > 1:
                return self._one_by_one(batch)
            reason = f"out of memory on {self.device}; try --device cpu"
            return ScoredBatch([ImageScores(batch[0].name, {}, dict.fromkeys(suite.columns, reason), reason)], None)
        values = {metric: score.tolist() for metric, score in scores.items()}
        return ScoredBatch(
            [self._of_one(pair, {m: values[m][i] for m in values}) for i, pair in enumerate(batch)], features
        )

    def _one_by_one(self, batch: list[LoadedPair]) -> ScoredBatch:
        parts = [self([pair]) for pair in batch]
        features = [part.features for part in parts if part.features is not None]
        joined = (torch.cat([f[0] for f in features]), torch.cat([f[1] for f in features])) if features else None
        return ScoredBatch([image for part in parts for image in part.images], joined)

    def _of_one(self, pair: LoadedPair, values: dict[str, float]) -> ImageScores:
        columns = self.suite.columns
        scores = {m: values[m] for m in columns if m in values and not math.isnan(values[m])}
        missing = [m for m in columns if m not in scores and m not in self.suite.unavailable]
        return ImageScores(pair.name, scores, {m: self._why_none(m, pair) for m in missing}, pair.mask_problem)

    def _why_none(self, metric: str, pair: LoadedPair) -> str:
        side, border_px = min(pair.restored.shape[-2:]), self.suite.convention.border_px
        if metric in ("psnr_hole", "lpips_hole", "seam", "seam_ratio") and pair.mask is None:
            return "unusable mask" if pair.mask_problem else "no mask"
        smallest = {"ssim": SSIM_MINIMUM_PX + 2 * border_px, "ms_ssim": MS_SSIM_MINIMUM_PX + 2 * border_px}
        if self.suite.lpips is not None:
            smallest |= dict.fromkeys(("lpips", "lpips_hole"), self.suite.lpips.minimum_px)
        if side < smallest.get(metric, 0):
            return f"smaller than {smallest[metric]} px"
        if metric in ("psnr", "psnr_hole", "delta_e"):
            return "nothing is left inside the border"
        if metric == "seam":
            return "the hole covers the whole image"
        return (
            "the reference is flat across the hole's edge, or the hole has no edge"
            if metric == "seam_ratio"
            else "not a finite number"
        )
