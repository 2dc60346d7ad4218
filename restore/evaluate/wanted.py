"""What is to be scored: which metrics, on which networks, under which conventions."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from restore.errors import RestoreError
from restore.evaluate.statistics import LEVEL, RESAMPLES, SEED
from restore.metrics import FID, METRICS, Convention
from restore.metrics.frechet import Inception, open_inception
from restore.metrics.perceptual import LPIPS_NETS, Lpips, open_lpips
from restore.metrics.pixels import HOLE_THRESHOLD
from restore.metrics.seams import CONVENTION as SEAM_CONVENTION
from restore.metrics.seams import RATIO_CONVENTION as SEAM_RATIO_CONVENTION

DEFAULT_METRICS = ("psnr", "ssim", "lpips")
"""Asked for where nothing else is."""


@dataclass
class Wanted:
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
) -> Wanted:
    """Check what is asked for and open its networks. Arguments as for `score_folders`.

    A network whose weights cannot be had makes its metrics unavailable; a file that the user named must work.

    Raises:
        RestoreError: exit code 2; as for `columns_of`, or an unknown network, or a file that does not serve.
    """
    columns = columns_of(metrics, masked=masked)
    wanted = Wanted(columns, convention, lpips_net=lpips_net if lpips is None else lpips.net)
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
