"""Score a folder of restored pictures against the true ones: pair, read ahead, score, report."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore.devices import pick_device
from restore.errors import RestoreError
from restore.evaluation.pairs import LoadedPair, Paired, batches, in_order, load_pair, pair_up
from restore.evaluation.report import LEVEL, RESAMPLES, SEED, EvalReport, ImageScores, compare
from restore.metrics import FID, METRICS, MS_SSIM_MINIMUM_PX, SSIM_MINIMUM_PX, Convention, find_convention, score_batch
from restore.metrics.fid import FrechetDistance, Inception, open_inception
from restore.metrics.lpips import LPIPS_NETS, Lpips, open_lpips
from restore.metrics.preprocessing import HOLE_THRESHOLD
from restore.metrics.seam import CONVENTION as SEAM_CONVENTION
from restore.metrics.seam import RATIO_CONVENTION as SEAM_RATIO_CONVENTION

# What is to be scored: which metrics, on which networks, under which conventions.


DEFAULT_METRICS = ("psnr", "ssim", "lpips")
"""Asked for where nothing else is."""


@dataclass
class MetricSuite:
    """Metrics that were asked for, and what they stand on.

    Attributes:
        columns: names of `METRICS` in the order of reports.
        convention: of the scores of pixels.
        lpips: the network, None where LPIPS is not wanted or not to be had.
        lpips_net: its backbone's name, also then.
        inception: the network of FID, likewise.
        unavailable: metrics that cannot be computed at all, and why.
    """

    columns: tuple[str, ...]
    convention: Convention
    lpips: Lpips | None = None
    lpips_net: str = "alex"
    inception: Inception | None = None
    unavailable: dict[str, str] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """Every convention as plain values, by column."""
        known: dict[str, dict[str, object]] = dict(self.convention.describe())
        known["lpips"] = {"backbone": self.lpips_net} if self.lpips is None else self.lpips.describe()
        known["seam"], known["seam_ratio"] = SEAM_CONVENTION, SEAM_RATIO_CONVENTION
        inside = {
            "psnr_hole": f"pixels where the mask is at least {HOLE_THRESHOLD}",
            "lpips_hole": f"spatial map averaged over pixels where the mask is at least {HOLE_THRESHOLD}",
        }
        out: dict[str, Any] = {"name": self.convention.name, "pairing": "relative path without the last suffix"}
        for column in self.columns:
            out[column] = dict(known[column.removesuffix("_hole")])
            if column in inside:
                out[column]["region"] = inside[column]
        if self.inception is not None:
            out[FID] = self.inception.describe()
        out["interval"] = {
            "of": "the mean over pictures",
            "level": LEVEL,
            "method": "percentile bootstrap",
            "resamples": RESAMPLES,
            "seed": SEED,
        }
        return out


def columns_of(metrics: Sequence[str], *, masked: bool) -> tuple[str, ...]:
    """The columns of a report: what was asked for, and what masks bring along.

    Args:
        metrics: names of `METRICS`, or `FID`, which is no column.
        masked: there are masks: `psnr_hole` and `lpips_hole` come with `psnr` and `lpips`, and `seam` by itself.

    Raises:
        RestoreError: exit code 2; no such metric (the known ones are named), one that needs masks, or none at all.
    """
    known = [*METRICS, FID]
    for metric in metrics:
        if metric not in known:
            near = difflib.get_close_matches(metric, known, n=1)
            hint = f"known: {', '.join(known)}"
            raise RestoreError(
                f"no metric is called {metric!r}", hint=f"did you mean {near[0]!r}? {hint}" if near else hint
            )
        if metric != FID and METRICS[metric].masked and not masked:
            raise RestoreError(f"the metric {metric!r} is of holes", hint="give --masks")
    if not metrics:
        raise RestoreError("no metric is asked for", hint=f"known: {', '.join(known)}")
    brought = {"seam"} | {f"{metric}_hole" for metric in ("psnr", "lpips") if metric in metrics}
    return tuple(name for name in METRICS if name in metrics or (masked and name in brought))


def open_wanted(
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
    """Check what is asked for and open its networks. Arguments as for `score_folders`.

    A network whose weights cannot be had makes its metrics unavailable; a file that the user named must work.

    Raises:
        RestoreError: exit code 2; as for `columns_of`, or an unknown network, or a file that does not serve.
    """
    columns = columns_of(metrics, masked=masked)
    wanted = MetricSuite(columns, convention, lpips_net=lpips_net if lpips is None else lpips.net)
    if any(column.startswith("lpips") for column in columns):
        if lpips is not None:
            wanted.lpips = lpips.to(device)
        else:
            try:
                wanted.lpips = open_lpips(lpips_net, lpips_weights, device)
            except RestoreError as error:
                if lpips_weights is not None or lpips_net not in LPIPS_NETS:
                    raise
                wanted.unavailable |= {name: str(error) for name in columns if name.startswith("lpips")}
    if FID in metrics:
        try:
            wanted.inception = open_inception(fid_weights, device)
        except RestoreError as error:
            if error.exit_code == 2:
                raise
            wanted.unavailable[FID] = str(error)
    return wanted


_READERS_FOR_GPU = 4


def score_folders(
    restored_dir: Path,
    reference_dir: Path,
    *,
    baseline_dir: Path | None = None,
    masks: Path | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    convention: str = "skimage",
    border_px: int = 0,
    lpips_net: str = "alex",
    lpips_weights: Path | None = None,
    lpips: Lpips | None = None,
    fid_weights: Path | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> EvalReport:
    """Score every pair of pictures that have the same relative path but for the last suffix.

    Args:
        restored_dir: restored pictures, in any folder structure.
        reference_dir: the true ones, in the same structure.
        baseline_dir: other pictures in that structure (the damaged ones, or another method's), scored likewise and
            compared picture by picture.
        masks: folder of masks (`x.png` or `x_mask.png` for the picture `x`; white = hole): scores inside the
            hole and of its seam come in addition. None: whole pictures only.
        metrics: some of `metrics.METRICS`, and `fid`.
        convention: a name in `metrics.CONVENTIONS`.
        border_px: rows and columns left out at every side of all scores of pixels.
        lpips_net: `alex`, `vgg` or `squeeze`.
        lpips_weights: the backbone's file; None: torch.hub's cache, or a download. Where that fails LPIPS is
            reported as unavailable, with the reason, and the other scores stand.
        lpips: opened already; then the two before say nothing.
        fid_weights: the file of FID's network; None as for `lpips_weights`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        progress: called with (pairs done, pairs in all) after every pair.

    Returns:
        The report. Empty folders, files without a counterpart, unreadable ones, and pairs of different size are named
        in it.

    Raises:
        RestoreError: exit code 2: unknown metric, convention, network or device, unusable weights, or no such folder.
    """
    where = pick_device(device)
    wanted = open_wanted(
        metrics, replace(find_convention(convention), border_px=border_px), where,
        masked=masks is not None, lpips=lpips, lpips_net=lpips_net, lpips_weights=lpips_weights,
        fid_weights=fid_weights,
    )  # fmt: skip
    paired = pair_up(Path(restored_dir), Path(reference_dir), masks)
    others = None
    if baseline_dir is not None:
        others = pair_up(Path(baseline_dir), Path(reference_dir), masks, what="baseline").only(paired)
    total = len(paired.pairs) + (len(others.pairs) if others else 0)
    count = iter(range(1, total + 1))

    def done() -> None:
        at = next(count)
        if progress is not None:
            progress(at, total)

    report = _scored(paired, wanted, where, done)
    if baseline_dir is not None and others is not None:
        report.baseline = compare(report, _scored(others, wanted, where, done), baseline_dir)
    return report


@dataclass(frozen=True)
class _Batch:
    """A batch's scores, and its features where FID is wanted: float64, B×2048, of restored and reference."""

    images: list[ImageScores]
    features: tuple[Tensor, Tensor] | None


def _scored(paired: Paired, wanted: MetricSuite, device: torch.device, done: Callable[[], None]) -> EvalReport:
    report = EvalReport(
        convention=wanted.described(),
        metrics=wanted.columns,
        unmatched=paired.unmatched,
        failed=paired.failed,
        unavailable=wanted.unavailable,
    )
    scorer = _Scorer(wanted, device)
    scored: Iterator[_Batch]
    if device.type == "cpu":
        # Pictures in parallel, each on one thread: quicker than every step of one picture on all threads.
        workers = torch.get_num_threads()
        scored = in_order(lambda pair: scorer([load_pair(pair)]), paired.pairs, workers, report.failed, done)
    else:
        scored = map(scorer, batches(in_order(load_pair, paired.pairs, _READERS_FOR_GPU, report.failed, done)))
    distance = None if wanted.inception is None else FrechetDistance()
    for batch in scored:
        report.images += batch.images
        report.failed += [{"name": image.name, "reason": image.problem} for image in batch.images if image.problem]
        if distance is not None and batch.features is not None:
            distance.add(*batch.features)
    if distance is not None:
        report.fid = (distance.value(), distance.pictures)
    return report


@dataclass(frozen=True)
class _Scorer:
    """Scores batches of pairs of one size; `unavailable` metrics need no reason per picture."""

    wanted: MetricSuite
    device: torch.device

    def __call__(self, batch: list[LoadedPair]) -> _Batch:
        wanted = self.wanted
        restored = torch.stack([pair.restored for pair in batch]).to(self.device)
        reference = torch.stack([pair.reference for pair in batch]).to(self.device)
        masks = [pair.mask for pair in batch if pair.mask is not None]
        mask = torch.stack(masks).to(self.device) if masks else None
        features = None
        try:
            scores = score_batch(
                restored, reference, mask, wanted.lpips, metrics=wanted.columns, convention=wanted.convention
            )
            if wanted.inception is not None:
                features = wanted.inception.features(restored), wanted.inception.features(reference)
        except torch.OutOfMemoryError:
            if len(batch) > 1:
                return self._one_by_one(batch)
            reason = f"{self.device} has not enough memory for it; try --device cpu"
            return _Batch([ImageScores(batch[0].name, {}, dict.fromkeys(wanted.columns, reason), reason)], None)
        values = {metric: score.tolist() for metric, score in scores.items()}
        return _Batch([self._of_one(pair, {m: values[m][i] for m in values}) for i, pair in enumerate(batch)], features)

    def _one_by_one(self, batch: list[LoadedPair]) -> _Batch:
        parts = [self([pair]) for pair in batch]
        features = [part.features for part in parts if part.features is not None]
        together = (torch.cat([f[0] for f in features]), torch.cat([f[1] for f in features])) if features else None
        return _Batch([image for part in parts for image in part.images], together)

    def _of_one(self, pair: LoadedPair, values: dict[str, float]) -> ImageScores:
        columns = self.wanted.columns
        found = {m: values[m] for m in columns if m in values and not math.isnan(values[m])}
        missing = [m for m in columns if m not in found and m not in self.wanted.unavailable]
        return ImageScores(pair.name, found, {m: self._why_none(m, pair) for m in missing}, pair.mask_problem)

    def _why_none(self, metric: str, pair: LoadedPair) -> str:
        side, border_px = min(pair.restored.shape[-2:]), self.wanted.convention.border_px
        if metric in ("psnr_hole", "lpips_hole", "seam", "seam_ratio") and pair.mask is None:
            return "the mask cannot be used" if pair.mask_problem else "no mask"
        smallest = {"ssim": SSIM_MINIMUM_PX + 2 * border_px, "ms_ssim": MS_SSIM_MINIMUM_PX + 2 * border_px}
        if self.wanted.lpips is not None:
            smallest |= dict.fromkeys(("lpips", "lpips_hole"), self.wanted.lpips.minimum_px)
        if side < smallest.get(metric, 0):
            return f"smaller than {smallest[metric]} px"
        if metric in ("psnr", "psnr_hole", "delta_e"):
            return "nothing is left within the border"
        if metric == "seam":
            return "the hole is all of the picture"
        return (
            "the true picture is flat across the hole's edge, or there is none"
            if metric == "seam_ratio"
            else "not a finite number"
        )
