"""The functions behind `restore degrade`, `restore eval` and `restore train`, re-exported by `restore`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from restore.degradations.pipeline import Degradation
    from restore.degradations.write import DegradeSummary
    from restore.evaluation.report import EvalReport
    from restore.training.config import TrainConfig
    from restore.training.loop import Result, TrainCallbacks

FilePath = str | os.PathLike[str]
OnProgress = Callable[[int, int], None]


def degrade(
    clean: FilePath,
    output: FilePath,
    degradation: Degradation | FilePath,
    *,
    seed: int = 0,
    workers: int = 0,
    overwrite: bool = False,
    progress: OnProgress | None = None,
) -> DegradeSummary:
    """Degrade clean images reproducibly.

    Args:
        clean: folder of images, searched recursively.
        output: gets `damaged/` and, if the degradation covers pixels, `masks/` (white = covered).
        degradation: one, the name of a shipped one (`noise`, `scratch`, ...), or a YAML file.
        seed: the same seed gives the same bytes.
        workers: threads, each with one image at a time; 0: one for each core.
        overwrite: replace existing outputs.
        progress: called with (done, total) after every image.

    Raises:
        RestoreError: exit code 2, and nothing has been written. Images that fail are listed in the summary.
    """
    from restore.degradations.write import write_degraded

    named = Path(degradation) if isinstance(degradation, os.PathLike) else degradation
    return write_degraded(
        Path(clean), Path(output), named, seed=seed, workers=workers, overwrite=overwrite, progress=progress
    )


def evaluate(
    restored: FilePath,
    reference: FilePath,
    *,
    baseline: FilePath | None = None,
    masks: FilePath | None = None,
    metrics: Sequence[str] = ("psnr", "ssim", "lpips"),
    convention: str = "skimage",
    crop_border: int = 0,
    lpips_net: str = "alex",
    lpips_weights: FilePath | None = None,
    fid_weights: FilePath | None = None,
    device: str = "auto",
    progress: OnProgress | None = None,
) -> EvalReport:
    """Score restored images against their references, paired by relative path without the last suffix.

    Args:
        restored, reference: folders of images.
        baseline: a folder to compare with, image by image: the damaged images, or another method's.
        masks: folder of masks (`x.png` or `x_mask.png`, white = hole); adds scores inside the holes.
        metrics: `psnr`, `ssim`, `ms_ssim`, `lpips`, `delta_e`, `fid`; with masks also `psnr_hole`, `lpips_hole`,
            `seam`, `seam_ratio`.
        convention: how PSNR and SSIM are computed: `skimage`, `matlab` or `y-channel`.
        crop_border: rows and columns that pixel metrics ignore at every side.
        lpips_net: backbone of LPIPS: `alex`, `vgg` or `squeeze`.
        lpips_weights, fid_weights: files, for machines without a network; None: torch.hub's cache, or a download.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        progress: called with (done, total) after every pair.

    Raises:
        RestoreError: exit code 2; an unknown metric, convention or device, or no such folder. Images without a
            counterpart, and those that cannot be read, are listed in the report.
    """
    from restore.evaluation.scoring import score_folders

    return score_folders(
        Path(restored), Path(reference),
        baseline_dir=_path(baseline), masks=_path(masks), metrics=metrics, convention=convention,
        border_px=crop_border, lpips_net=lpips_net, lpips_weights=_path(lpips_weights), fid_weights=_path(fid_weights),
        device=device, progress=progress,
    )  # fmt: skip


def train(
    config: TrainConfig | FilePath, overrides: Sequence[str] = (), *, callbacks: TrainCallbacks | None = None
) -> Result:
    """Train a network. A run that was stopped resumes with the same call.

    Args:
        config: the name of a shipped config (`photo`, `inpaint`, ...), a YAML file, or a loaded config.
        overrides: `key=value`, as on the command line: `["data.batch=4", "out=runs/mine"]`; not for a loaded config.
        callbacks: called at log lines, validations and events; None: no callbacks.

    Raises:
        RestoreError: exit code 2: the config is wrong, or its data cannot be read. Exit code 3: training diverged.
    """
    from restore.training.config import TrainConfig, load_train_config
    from restore.training.loop import train as run

    if not isinstance(config, TrainConfig):
        config = load_train_config(os.fspath(config), list(overrides))
    return run(config, callbacks)


def _path(path: FilePath | None) -> Path | None:
    return None if path is None else Path(path)
