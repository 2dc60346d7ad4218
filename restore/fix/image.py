"""`fix_image`: one image from memory to memory, by the same steps as a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import PIL.Image

from restore.errors import RestoreError
from restore.fix.decoder_isolation import SupervisorLink
from restore.fix.infrared import dust_mask
from restore.fix.inputs import PIPE
from restore.fix.jobs import Job, Jobs
from restore.fix.mask_kinds import mask_of
from restore.fix.masks import MaskSource, mask_warnings, prepare_mask, transparency
from restore.fix.options import EXTENSIONS, FixOptions
from restore.fix.pages import MemoryPage
from restore.fix.plan import FixPlan
from restore.fix.reader import WorkItem, is_lossy_reencode
from restore.fix.results import ResultRecorder, RunLog, Summary
from restore.fix.run_models import ModelLike, models_for, open_models, resolved_settings
from restore.fix.stages import Stages
from restore.fix.steps import in_range_of, notes_on_colors
from restore.images import FORMAT_OF_SUFFIX, DecodedImage, image_from_bytes
from restore.images.decoder_output import check_size
from restore.images.encode import encode
from restore.images.fit_to_format import without_metadata
from restore.images.read import check_mask_size

if TYPE_CHECKING:
    Mask = np.ndarray | PIL.Image.Image | bytes

#: White of arrays, by dtype; of floats 1.
_WHITE = {"uint8": 255.0, "uint16": 65535.0}

#: Modes of PIL images that PNG holds as they are. The others go by way of TIFF, or are converted.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_TIFF_MODES = ("CMYK", "F")


@overload
def fix_image(
    image: np.ndarray, *, model: ModelLike | None = None, mask: Mask | None = None, options: FixOptions | None = None
) -> np.ndarray: ...


@overload
def fix_image(
    image: PIL.Image.Image,
    *,
    model: ModelLike | None = None,
    mask: Mask | None = None,
    options: FixOptions | None = None,
) -> PIL.Image.Image: ...


@overload
def fix_image(
    image: bytes, *, model: ModelLike | None = None, mask: Mask | None = None, options: FixOptions | None = None
) -> bytes: ...


def fix_image(
    image: np.ndarray | PIL.Image.Image | bytes,
    *,
    model: ModelLike | None = None,
    mask: Mask | None = None,
    options: FixOptions | None = None,
) -> np.ndarray | PIL.Image.Image | bytes:
    """Repair one image, and return it in the form in which it was given.

        repaired = fix_image(array)
        repaired = fix_image(Path("scan.jpg").read_bytes(), mask=mask, options=FixOptions(mask_dilate="auto"))

    Color profile, EXIF orientation, alpha and bit depth are treated as in files: pixels come back in the image's own
    color space and depth, upright, and outside the mask unchanged.

    Args:
        image: an array H×W or H×W×C with C = 1 to 4 (gray, gray and alpha, RGB, RGBA; sRGB), uint8, uint16 or float in
            [0, 1]; a PIL image; or the bytes of a file (JPEG, PNG, TIFF, WebP, ...).
        model: as for `fix_folder`. Opening a model takes longer than repairing a small image: to repair many, open it
            once with `open_restorer`.
        mask: where to repair, of the size of the upright image: an array H×W (bool; or uint8, uint16 or float, white =
            repair), a PIL image, or the bytes of a file. None: everywhere, or as `options.masks` says.
        options: see `FixOptions`; those about files, reports and processes do not apply. `ext` and `quality` apply to
            bytes. None: the defaults.

    Returns:
        The repaired image: an array of the same dtype and number of dimensions, a PIL image, or the bytes of a file of
        the same format. Bytes are returned as they are if nothing changed. If the model adds color to a gray image,
        the result has three channels.

    Raises:
        RestoreError: exit code 2: a type or dtype that is not supported, or options and models that do not fit. Exit
            code 1: the image cannot be decoded, the mask has another size, or the repair failed.
    """
    options = FixOptions() if options is None else options
    for name in ("save_masks", "log", "html_report", "uncertainty"):
        if getattr(options, name) is not None:
            raise RestoreError("does not apply to fix_image", where=name, hint="use fix_folder")
    if options.masks not in (None, "alpha", "auto", "infrared"):
        raise RestoreError(
            "must be alpha, infrared or auto for fix_image", where="masks", hint="pass the mask as mask="
        )
    if mask is not None and options.masks is not None:
        raise RestoreError("cannot be combined with options.masks", where="mask", hint="choose one of them")
    has_masks = mask is not None or options.masks is not None
    options.check_masks(has_masks=has_masks)
    masks = None
    if has_masks:
        path = None if mask is None else Path("mask")  # no such file is read
        masks = MaskSource(
            path,
            False,
            options.mask_invert,
            "fail",
            found=options.masks == "auto",
            infrared=options.masks == "infrared",
        )
    job = Job(PIPE, PIPE, format=None if options.ext is None else FORMAT_OF_SUFFIX[EXTENSIONS[options.ext]])
    plan = FixPlan((PIPE,), PIPE, True, Jobs([job]), masks)
    source = _decoded(image, options, "image", all_pages=options.ext in (None, "tiff"))
    if masks is not None and not masks.is_in(source):
        raise RestoreError(masks.when_missing()["reason"], where="image", exit_code=1)

    if model is None and has_masks:
        model = "inpaint"
    models = models_for(plan, open_models(model, options), options)
    settings = resolved_settings(models, options) | ({} if mask is None else {"masks": "given"})
    recorder = ResultRecorder(Summary(1, settings=settings), RunLog(None))
    stages = Stages(plan, models, options, recorder, SupervisorLink())
    source = in_range_of(models[0], source, "image")
    item = _work_item(stages, job, source, _mask_image(mask, options), options)
    if isinstance(image, bytes) and (not item.steps or is_lossy_reencode(source)):
        item.data = image
    if item.steps:
        stages.repair(item)
    rendered = stages.writer.render(item)
    if isinstance(image, bytes) and rendered.copied:
        return image
    after = without_metadata(rendered.image) if options.metadata == "strip" else rendered.image
    if isinstance(image, bytes):
        return encode(after, rendered.format, "image", quality=options.quality)[0]
    return _as_array(after, image) if isinstance(image, np.ndarray) else _as_pil(after)


def _work_item(
    stages: Stages,
    job: Job,
    source: DecodedImage,
    mask: DecodedImage | None,
    options: FixOptions,
) -> WorkItem:
    """The image with its mask, as `Stages` takes it."""
    sources = (source, *source.extra_pages)
    pages = [MemoryPage(page.to_srgb) for page in sources]
    notes: list[str] = []
    steps = stages.reader.steps_of(job)
    if steps.masked and not steps.detect:
        read = []
        for page in sources:
            if options.masks == "infrared":
                values = dust_mask(page, on_event=notes.append)
            elif mask is None:
                values = 1 - transparency(page) if options.mask_invert else transparency(page)
            else:
                check_mask_size(mask.size, page.size, "mask")
                values = mask_of(mask, page, invert=options.mask_invert, name="mask", on_event=notes.append)
            read.append(
                prepare_mask(values, dilate_px=options.dilate, feather_px=options.mask_feather, image=page.to_srgb)
            )
        notes += mask_warnings(read)
        pages = [MemoryPage(page.to_srgb, values) for page, values in zip(sources, read)]
        steps = stages.reader.steps_of(job, holes=any(bool(values.any()) for values in read))
    notes += notes_on_colors(stages.models[0], steps, lambda: all(page.is_neutral() for page in sources))
    return WorkItem(job, b"", source, None, steps, pages, None, notes, 0.0)


def _mask_image(mask: Mask | None, options: FixOptions) -> DecodedImage | None:
    if mask is None:
        return None
    if isinstance(mask, np.ndarray) and mask.dtype == bool:
        mask = mask.astype(np.uint8) * np.uint8(255)
    return _decoded(mask, options, "mask", all_pages=False)


def _decoded(image: Any, options: FixOptions, name: str, *, all_pages: bool) -> DecodedImage:
    """An image of any of the kinds that `fix_image` takes, upright."""
    if isinstance(image, PIL.Image.Image):
        image = _bytes_of_pil(image)
    if isinstance(image, bytes):
        return image_from_bytes(
            image,
            name,
            max_pixels=options.max_pixels,
            allow_truncated=options.allow_truncated,
            all_pages=all_pages,
        )
    if not isinstance(image, np.ndarray):
        raise RestoreError(f"must be a NumPy array, a PIL image or bytes, not {type(image).__name__}", where=name)
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] > 4):
        raise RestoreError(f"must be H×W or H×W×C with 1 to 4 channels, not {image.shape}", where=name)
    is_float = image.dtype.kind == "f"
    if not is_float and image.dtype.name not in _WHITE:
        raise RestoreError(f"must be uint8, uint16, float (or bool, for a mask), not {image.dtype}", where=name)
    height, width = image.shape[:2]
    check_size(width, height, options.max_pixels, name)
    values = np.ascontiguousarray(image if image.ndim == 3 else image[:, :, None])
    if is_float:
        if not np.isfinite(values).all():
            raise RestoreError("must not hold NaN or Inf", where=name)
        values = values.astype(np.float32)
    colors = values.shape[2] - (values.shape[2] in (2, 4))
    return DecodedImage(
        np.ascontiguousarray(values[:, :, :colors]),
        np.ascontiguousarray(values[:, :, colors]) if values.shape[2] > colors else None,
        white=1.0 if is_float else _WHITE[image.dtype.name],
        bits=values.dtype.itemsize * 8,
    )


def _as_array(image: DecodedImage, like: np.ndarray) -> np.ndarray:
    """An image as an array of the dtype and the number of dimensions of another; with color, it has three."""
    values = image.pixels
    if image.alpha is not None:
        values = np.concatenate([values, image.alpha[:, :, None]], axis=2)
    flat = like.ndim == 2 and values.shape[2] == 1
    return (values[:, :, 0] if flat else values).astype(like.dtype, copy=False)


def _bytes_of_pil(image: PIL.Image.Image) -> bytes:
    """A PIL image as a file without loss, so that its profile and orientation are read as those of files."""
    if 0 in image.size:
        raise RestoreError(f"must not be empty, but has {image.width}×{image.height} pixels", where="image")
    if image.mode in ("I;16B", "I;16N"):  # Pillow clips these to 8 bits in a conversion to RGB
        exif, profile = image.getexif(), image.info.get("icc_profile")
        image = PIL.Image.fromarray(np.asarray(image).astype(np.uint16))
        image.getexif().update(exif)
        image.info |= {"icc_profile": profile} if profile else {}
    if image.mode not in _PNG_MODES + _TIFF_MODES:
        if image.mode == "I":
            raise RestoreError("must not have 32-bit integers", where="image", hint="convert it to I;16")
        image = image.convert("RGBA" if image.mode in ("PA", "La", "RGBa") else "RGB")
    stream = io.BytesIO()
    metadata: dict[str, Any] = {"exif": exif.tobytes()} if (exif := image.getexif()) else {}
    if image.info.get("icc_profile"):
        metadata["icc_profile"] = image.info["icc_profile"]
    if image.mode in _PNG_MODES:
        image.save(stream, "PNG", compress_level=1, **metadata)
    else:
        image.save(stream, "TIFF", **metadata)
    return stream.getvalue()


def _as_pil(image: DecodedImage) -> PIL.Image.Image:
    values = image.pixels
    if image.alpha is not None:
        values = np.concatenate([values, image.alpha[:, :, None]], axis=2)
    result = PIL.Image.fromarray(values if values.shape[2] > 1 else values[:, :, 0])
    info = {"icc_profile": image.icc, "exif": image.exif, "xmp": image.xmp, "dpi": image.dpi}
    result.info |= {key: value for key, value in info.items() if value}
    return result
