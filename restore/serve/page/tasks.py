"""The page's tasks of worker processes; see `restore.serve.tasks`. All paths are made by the server."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from restore import progress
from restore.errors import RestoreError

if TYPE_CHECKING:
    from restore.images import DecodedImage
    from restore.serve.workers import Json, Report

#: Share of a preview's progress at which the models are open.
_OPENED = 0.2


def thumbnail(params: Json, report: Report) -> Json:
    """Read an image, and write its thumbnail.

    Params:
        source: the image.
        thumbnail: the file to write.
        max_pixels: the limit.

    Returns:
        {width, height}.
    """
    from restore.serve.page.pyramid import shown, write_thumbnail

    image = _read(params["source"], params["max_pixels"], report)
    write_thumbnail(Path(params["thumbnail"]), shown(_sampled(image))[0])
    return {"width": image.size[1], "height": image.size[0]}


def prepare(params: Json, report: Report) -> Json:
    """Read an image, and write the tiles that the page shows.

    Params:
        source, max_pixels: as for `thumbnail`.
        pyramid: the file to write.
        like: tiles of the same image before its repair, which is shown as bright; None: there are none.

    Returns:
        {width, height}.
    """
    from restore.serve.page.pyramid import shown, write_pyramid

    report.progress(None, "reading")
    image = _read(params["source"], params["max_pixels"], report)
    pixels, gain = shown(image, _gain(params["like"]))
    write_pyramid(Path(params["pyramid"]), pixels, gain, lambda share: report.progress(share, "preparing"))
    return {"width": image.size[1], "height": image.size[0]}


def read_mask(params: Json, report: Report) -> Json:
    """Read the file of a mask: black and white, strokes of color, or a painted copy of the image.

    Params:
        mask: the file.
        source: the image.
        target: a .npy file to write: H×W, uint8.
        max_pixels: the limit.

    Returns:
        {warnings}.
    """
    from restore.fix.mask_kinds import mask_of
    from restore.images.read import check_mask_size

    image = _read(params["source"], params["max_pixels"], report)
    given = _read(params["mask"], params["max_pixels"], report, name="the mask")
    check_mask_size(given.size, image.size, "the mask")
    warnings: list[str] = []
    mask = mask_of(given, image, invert=False, name="the mask", on_event=warnings.append)
    _write_array(Path(params["target"]), np.rint(mask * 255).astype(np.uint8))
    return {"warnings": warnings}


def probability(params: Json, report: Report) -> Json:
    """Find damage: write how likely each pixel is damaged.

    Params:
        source, max_pixels: as for `thumbnail`.
        target: the file of tiles to write.

    Returns:
        {threshold, margin_px, fraction, detector}: the detector's own settings, and the share of damaged pixels.
    """
    from restore.fix.steps import Models, tiles_of
    from restore.serve.page.pyramid import write_probabilities
    from restore.serve.tasks import open_detector

    report.progress(None, "reading")
    image = _read(params["source"], params["max_pixels"], report)
    detector = open_detector("detector", report)
    tile_px = tiles_of([Models(detector=detector)], "auto")[id(detector)]
    with progress.watching(report.steps("detecting")):
        likely = detector.probability(image.to_srgb(), tile_px=tile_px)
    facts = {"threshold": detector.threshold, "margin_px": detector.margin_px, "detector": detector.name}
    write_probabilities(Path(params["target"]), likely, facts)
    return facts | {"fraction": float(np.count_nonzero(detector.mask_of(likely)) / likely.size)}


def repair(params: Json, report: Report) -> Json:
    """Repair an image as `restore fix` does, then write what the page shows of it.

    Params:
        input, output, mask, options, model: as for `restore.serve.tasks.fix`; the output is a folder.
        blank: the mask's file is written first: nothing is masked.
        pyramid, thumbnail: the files to write; no pyramid where it is None.
        like: as for `prepare`.
        mask_array: a .npy file that gets the mask that was found; None: no mask was searched for.
        max_pixels: the limit.

    Returns:
        As `restore.serve.tasks.fix`.
    """
    from restore.files import write_atomically
    from restore.images import read_mask as read_mask_file
    from restore.serve.page.pyramid import png, shown, write_pyramid, write_thumbnail
    from restore.serve.tasks import fix

    if params["blank"]:
        height, width = _read(params["input"], params["max_pixels"], report).size
        write_atomically(Path(params["mask"]), png(np.zeros((height, width), np.uint8)))
    result = fix(params, report)
    report.progress(None, "preparing")
    image = _read(result["output"], params["max_pixels"], report)
    if params["pyramid"] is None:
        write_thumbnail(Path(params["thumbnail"]), shown(_sampled(image))[0])
    else:
        pixels, gain = shown(image, _gain(params["like"]))
        write_pyramid(Path(params["pyramid"]), pixels, gain)
        write_thumbnail(Path(params["thumbnail"]), pixels)
    if params.get("mask_array") is not None:
        (saved,) = Path(params["options"]["save_masks"]).rglob("*.png")
        mask = read_mask_file(saved, max_pixels=params["max_pixels"])
        _write_array(Path(params["mask_array"]), np.rint(mask * 255).astype(np.uint8))
    return result


def preview(params: Json, report: Report) -> Json:
    """Fill holes in a part of what the page shows.

    Params:
        pyramid: the tiles of the original.
        level: of the pyramid.
        box: [left, top, right, bottom] in that level.
        mask: a .npy file: the mask of the box, H×W, uint8.
        options: of `FixOptions`, as JSON, without `masks`.
        model: what fills.
        target: the JPEG to write.

    Returns:
        {}.
    """
    from restore.fix.image import fix_image
    from restore.fix.options import FixOptions
    from restore.serve.page.pyramid import write_jpeg
    from restore.serve.page.tiles import Box, TileFile
    from restore.serve.tasks import open_models

    report.progress(None, "reading")
    pixels = TileFile.open(Path(params["pyramid"])).read_box(Box(*params["box"]), params["level"])
    mask = np.load(params["mask"], allow_pickle=False)
    options = FixOptions.from_dict(dict(params["options"]) | {"device": report.device})
    models = open_models(params["model"], FixOptions.from_dict(options.to_dict() | {"masks": "alpha"}), report)
    with progress.watching(report.steps("repairing", _OPENED)):
        filled = fix_image(pixels, model=models, mask=mask, options=options)
    write_jpeg(Path(params["target"]), filled)
    return {}


def _within_roots(task: Callable[[Json, Report], Json]) -> Callable[[Json, Report], Json]:
    """The task, which fails if its image lies in none of the folders `roots`, or has become a link out of them."""

    @functools.wraps(task)
    def checked(params: Json, report: Report) -> Json:
        from restore.serve.page.listing import is_inside
        from restore.serve.workers import TaskFailed

        for name in ("source", "input"):
            if name in params and not any(is_inside(Path(params[name]), Path(root)) for root in params["roots"]):
                raise TaskFailed("leads out of the folder")
        return task(params, report)

    return checked


#: By name.
PAGE_TASKS: dict[str, Callable[[Json, Report], Json]] = {
    task.__name__: _within_roots(task) for task in (thumbnail, prepare, read_mask, probability, repair, preview)
}


def _read(source: str, max_pixels: int, report: Report, *, name: str = "") -> DecodedImage:
    """Read an image; errors have the words of `restore fix`, and name the command where these name an option.

    Raises:
        TaskFailed: it cannot be read.
    """
    from restore.fix.jobs import Job
    from restore.fix.results import code_of, reason_of
    from restore.images import read_image
    from restore.images.decoder_output import DamagedFile, ImageTooLarge
    from restore.serve.workers import TaskFailed

    path = Path(source)
    try:
        with report.decoding(source):
            return read_image(path, max_pixels=max_pixels)
    except (RestoreError, OSError, MemoryError) as error:
        # The page has no such options: the command has.
        if isinstance(error, DamagedFile) and error.partly:
            error.hint = "the file is damaged or cut short; restore fix --allow-truncated repairs what can be decoded"
        elif isinstance(error, ImageTooLarge) and error.pixels:
            error.hint = f"if the file can be trusted: restore fix --max-pixels {error.pixels}"
        job = Job(path, path)
        reason = reason_of(error, job)
        raise TaskFailed(f"{name}: {reason}" if name else reason, code_of(error, job)) from error


def _gain(like: str | None) -> float | None:
    """The brightness by which an image is shown; None: it has not been shown yet."""
    from restore.serve.page.tiles import TileFile

    if like is None or not Path(like).exists():
        return None
    return float(TileFile.open(Path(like)).facts["gain"])


def _sampled(image: DecodedImage) -> DecodedImage:
    """An image with fewer pixels, for a thumbnail: conversions to sRGB take most of the time."""
    from dataclasses import replace

    import cv2

    from restore.serve.page.pyramid import THUMBNAIL_PX

    height, width = image.size
    scale = 2 * THUMBNAIL_PX / max(height, width)
    if scale >= 1 or image.pixels.dtype == np.float32:
        return image
    size = max(round(width * scale), 1), max(round(height * scale), 1)

    def smaller(array: Any) -> Any:
        out = cv2.resize(array, size, interpolation=cv2.INTER_AREA)
        return out if out.ndim == array.ndim else out[:, :, None]

    alpha = None if image.alpha is None else smaller(image.alpha)
    return replace(image, pixels=smaller(image.pixels), alpha=alpha, infrared=None, extra_pages=())


def _write_array(path: Path, array: np.ndarray) -> None:
    from restore.files import replace_atomically

    with replace_atomically(path) as temporary, open(temporary, "xb") as file:
        np.save(file, array, allow_pickle=False)
