"""Second outputs of an image: the mask that was used (`--save-masks`), a preview of detected damage (`--preview`), or a
map of expected errors (`--uncertainty`).

`with_side_targets` adds them to a plan, and refuses what could lose anything, before the first image is read. They are
written before the output itself, so an image that `--skip-existing` skips has both.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from restore.errors import RestoreError, printable
from restore.files import check_writable, is_within, replace_atomically
from restore.fix.batch_options import FilePath
from restore.fix.collisions import Collisions, OutputFolders
from restore.fix.inputs import PIPE
from restore.fix.jobs import Jobs, split
from restore.fix.options import FixOptions
from restore.fix.plan import FixPlan
from restore.images import DecodedImage

FloatArray = npt.NDArray[np.float32]

#: The folder in an HTML report that holds the masks that it outlines.
FOUND = "found"

#: Of detected damage in a preview: magenta, which faded and toned photographs do not hold.
_COLOR = np.array([255, 0, 200], np.float32)
#: In damaged pixels, which show through; the outline is opaque.
_OPACITY = 0.5
#: Width of the outline is the longer side divided by this: thin enough for a crop, thick enough for the whole image on
#: a screen.
_OUTLINES = 1500
_JPEG_SIDE_PX = 65_500


def mask_name(name: Path) -> Path:
    """`sub/x.jpg.png` for `sub/x.jpg`. The whole name is kept, since x.jpg and x.png may be different images."""
    return name.with_name(f"{name.name}.png")


def preview_name(name: Path) -> Path:
    """`sub/x_preview.jpg` for `sub/x.png`: no name of a mask, should the folder be given to `--masks` by mistake."""
    return name.with_name(f"{name.stem}_preview.jpg")


def with_saved_masks(plan: FixPlan, options: FixOptions) -> FixPlan:
    """Give a plan the masks to write: those of `save_masks`, or those that the HTML report shows.

    Raises:
        RestoreError: exit code 2, as `with_side_targets`.
    """
    if options.save_masks is not None:
        return with_side_targets(
            plan,
            options.save_masks,
            option="--save-masks",
            name_of=mask_name,
            skip_existing=options.skip_existing,
        )
    assert options.html_report is not None
    return with_side_targets(
        plan,
        Path(options.html_report) / FOUND,
        option="--html-report",
        name_of=mask_name,
        skip_existing=options.skip_existing,
        for_page=True,
    )


def with_maps(plan: FixPlan, options: FixOptions) -> FixPlan:
    """Give a plan the maps of expected errors to write.

    Raises:
        RestoreError: exit code 2, as `with_side_targets`.
    """
    assert options.uncertainty is not None
    return with_side_targets(
        plan,
        options.uncertainty,
        option="--uncertainty",
        name_of=mask_name,
        skip_existing=options.skip_existing,
        maps=True,
    )


def with_side_targets(
    plan: FixPlan,
    folder: FilePath,
    *,
    option: str,
    name_of: Callable[[Path], Path],
    skip_existing: bool,
    apart: bool = False,
    for_page: bool = False,
    maps: bool = False,
) -> FixPlan:
    """Give every image of a plan a second output in a folder, in the tree of the input.

    Args:
        plan: the plan.
        folder: made if missing.
        option: that names the folder, as the command line spells it.
        name_of: the relative path of the second output from that of the image.
        skip_existing: existing files are kept.
        apart: the folder must not be inside the output folder, either.
        for_page: the folder belongs to the HTML report, which replaces its files.
        maps: the second outputs are maps of expected errors, beside other ones.

    Raises:
        RestoreError: exit code 2; nothing has been written. The image comes from standard input; the folder is one that
            is read, or where images are written; files would be replaced; or the folder cannot be written to.
    """
    path = Path(folder)
    _check_folder(plan, path, option, apart=apart)
    folders, writable = OutputFolders(), set[str]()
    collisions = Collisions(folders)
    first, count = "", 0
    jobs = Jobs()
    for entry in plan.jobs.entries():
        if entry.action != "unmasked" and not entry.video:
            target = os.fspath(path / name_of(Path(entry.name)))
            entry = entry._replace(map_target=target) if maps else entry._replace(side_target=target)
            parent = split(target)[0]
            if entry.action == "repair":
                if parent not in writable:
                    check_writable(Path(parent))
                    writable.add(parent)
                if folders.exists(target, listed=not entry.named):
                    first, count = first or target, count + 1
        collisions.add(entry)
        jobs.append(entry)
    collisions.refuse(jobs)
    if count and not (for_page or plan.overwrite or skip_existing):
        more = f" (and {count - 1} more)" if count > 1 else ""
        raise RestoreError(
            f"exists already{more}", where=first, hint=f"choose another folder for {option}, or use --overwrite"
        )
    if maps:
        return replace(plan, jobs=jobs, map_folder=path)
    return replace(plan, jobs=jobs, side_folder=path, for_page=for_page)


def _check_folder(plan: FixPlan, folder: Path, option: str, *, apart: bool) -> None:
    """Check that a folder of second outputs holds nothing else, now or in later runs that read it or its surroundings.

    Raises:
        RestoreError: exit code 2.
    """
    if plan.from_pipe:
        what = "cannot be combined with standard input, which has no file name"
        raise RestoreError(what, where=option, hint="name a file")
    if os.path.lexists(folder) and not folder.is_dir():
        raise RestoreError(f"is a file, but {option} needs a folder", where=folder, hint="choose another name")
    for other, kind, nested in _other_folders(plan, apart=apart):
        inside = is_within(folder, other) or is_within(other, folder)
        same = is_within(folder, other) and is_within(other, folder)
        if same or (nested and inside):
            raise RestoreError(
                f"{option} needs a folder apart from {kind}, {os.fsdecode(other)}",
                where=folder,
                hint="choose another folder",
            )
    if not plan.single and plan.output != PIPE and is_within(plan.output, folder):
        raise RestoreError(
            f"the output folder, {os.fsdecode(plan.output)}, is inside it", where=folder, hint="choose another folder"
        )
    check_writable(folder)


def _other_folders(plan: FixPlan, *, apart: bool) -> Iterator[tuple[Path, str, bool]]:
    """Folders that a second output must stay out of, what they are, and whether it must not be nested with them."""
    for parent in dict.fromkeys(split(entry.source)[0] for entry in plan.jobs.entries() if entry.named):
        yield Path(parent), "the input folder", False
    for folder in plan.folders:
        yield folder, "the input folder", True
    if plan.output != PIPE:
        yield (
            (plan.jobs[0].target.parent if plan.single else plan.output),
            "the output folder",
            apart and not plan.single,
        )
    if plan.masks is not None and plan.masks.path is not None and plan.masks.folder:
        yield plan.masks.path, "the folder of --masks", True
    if plan.side_folder is not None:
        yield plan.side_folder, "that of saved masks", False


@contextmanager
def side_file(target: Path | None, *, overwrite: bool, notes: list[str]) -> Iterator[Path | None]:
    """Write the second output of an image, atomically.

    Args:
        target: where it goes; None: there is none.
        overwrite: replace an existing file; otherwise it is kept, because a person may have edited it.
        notes: gets a warning if a file is kept.

    Yields:
        The path to write to; None: there is nothing to write.

    Raises:
        RestoreError: exit code 1; it cannot be written.
    """
    if target is None:
        yield None
    elif not overwrite and os.path.lexists(target):
        notes.append(f"{printable(target)} exists already and was kept; --overwrite replaces it")
        yield None
    else:
        with replace_atomically(target, overwrite=overwrite) as temporary:
            yield temporary


def mask_levels(mask: FloatArray) -> npt.NDArray[np.uint8]:
    """A mask, H×W in [0, 1], in 8 bits; a pixel that is repaired faintly does not become one that is kept."""
    levels: npt.NDArray[np.uint8] = np.maximum(np.rint(mask * 255), mask > 0).astype(np.uint8)
    return levels


def mask_of_pages(masks: Sequence[FloatArray | None], notes: list[str]) -> DecodedImage | None:
    """The masks of an image's pages as one image: later runs use one mask for all pages.

    Args:
        masks: of each page, H×W in [0, 1], 1 = repair.
        notes: gets a warning if pages of another size than the first are left out.

    Returns:
        Gray, 8 bits: the maximum over the pages; None without masks.
    """
    known = [mask for mask in masks if mask is not None]
    if not known:
        return None
    fitting = [mask for mask in known if mask.shape == known[0].shape]
    if len(fitting) < len(known):
        notes.append("the saved mask leaves out pages of another size than the first")
    return DecodedImage(mask_levels(np.maximum.reduce(fitting))[:, :, None])


def preview_of(source: DecodedImage, mask: FloatArray) -> DecodedImage:
    """An image with damage in color: tinted, and outlined so that thin damage is visible on a screen.

    Args:
        source: upright.
        mask: H×W in [0, 1], above 0 = damaged.

    Returns:
        8 bits, sRGB, of the same size, or as large as a JPEG can be.
    """
    import cv2

    pixels: np.ndarray = np.rint(np.clip(np.nan_to_num(source.to_srgb()), 0, 1) * 255).astype(np.uint8)
    damaged = mask > 0
    pixels[damaged] = np.rint((1 - _OPACITY) * pixels[damaged] + _OPACITY * _COLOR)
    width = max(1, round(max(mask.shape) / _OUTLINES))
    around = cv2.dilate(damaged.astype(np.uint8), np.ones((2 * width + 1, 2 * width + 1), np.uint8))
    pixels[(around > 0) & ~damaged] = _COLOR
    scale = _JPEG_SIDE_PX / max(mask.shape)
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return DecodedImage(pixels)
