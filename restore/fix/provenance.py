"""Provenance in an image's own XMP: models, hashes, settings. No time, so that the same repair gives the same file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from restore import __version__
from restore.images import DecodedImage
from restore.images.metadata.xmp import Event, with_event

# Identifiers (not addresses) in the IPTC's NewsCodes vocabulary "Digital Source Type", and its definitions (2024).
_VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
#: "Modification or correction by algorithm without changing the main content of the media, [...] such as sharpening or
#: applying noise reduction": cleaned up, unfaded, or holes closed by a formula from what is around them.
ENHANCED = _VOCABULARY + "algorithmicallyEnhanced"
#: "Augmentation, correction or enhancement using a Generative AI model, such as with inpainting": a trained network has
#: made up what is in the holes.
INPAINTED = _VOCABULARY + "compositeWithTrainedAlgorithmicMedia"
#: What says of an image that it was made up, wholly or in part; a repair does not take that back.
_SYNTHETIC = frozenset(
    _VOCABULARY + name
    for name in (
        "compositeWithTrainedAlgorithmicMedia", "trainedAlgorithmicMedia", "compositeSynthetic", "algorithmicMedia",
        "composite", "dataDrivenMedia", "virtualRecording", "digitalCreation", "digitalArt",
    )
)  # fmt: skip
_WHOLLY_SYNTHETIC = _SYNTHETIC - {INPAINTED, _VOCABULARY + "composite"}
_JPEG_XMP_BYTES = 65533 - 29  # one segment, less the name that it begins with
_SETTINGS = (
    "old_photos",
    "masks",
    "sensitivity",
    "mask_dilate",
    "deflicker",
    "correct_fading",
    "strength",
    "scale",
    "match_grain",
    "seed",
    "expected_error",
    "precision",
    "engine",
)  # those that a reader of the image wants to know


def with_provenance(
    image: DecodedImage,
    models: Mapping[str, str | None],
    settings: Mapping[str, Any],
    *,
    filled_by: str | None,
    kind: str,
    notes: list[str],
) -> DecodedImage:
    """A repaired image that says so in its XMP: an entry in `xmpMM:History`, and the IPTC's digital source type.

    Args:
        image: repaired; the first of several pages.
        models: that took part, in order, with the SHA-256 of their weights.
        settings: as in the log.
        filled_by: the SHA-256 of the network that filled holes; None: none did.
        kind: the format to be written.
        notes: gets the reason if the XMP stays the same: it cannot be extended, or has no room.
    """
    inpainted = filled_by is not None
    event = Event("edited", f"restore {__version__}", "; ".join([*_model_lines(models), *_settings(settings)]))
    try:
        xmp = with_event(
            image.xmp,
            event,
            INPAINTED if inpainted else ENHANCED,
            keep_types=_WHOLLY_SYNTHETIC if inpainted else _SYNTHETIC,
        )
    except ValueError as error:
        notes.append(f"its XMP cannot be extended, so the repair is not recorded there: {error}")
        return image
    if kind == "jpeg" and len(xmp) > _JPEG_XMP_BYTES and len(image.xmp or b"") <= _JPEG_XMP_BYTES:
        notes.append("its XMP has no room left to record the repair")
        return image
    return replace(image, xmp=xmp)


def _model_lines(models: Mapping[str, str | None]) -> Iterable[str]:
    """`photo sha256 <hex>`; of a weights file its name without the folders, which are private."""
    for name, digest in models.items():
        yield PurePath(name).name + (f" sha256 {digest}" if digest else "")


def _settings(settings: Mapping[str, Any]) -> Iterable[str]:
    for name in _SETTINGS:
        value = settings.get(name)
        if name == "sensitivity" and settings.get("masks") != "auto":
            continue
        if name == "masks" and value not in (None, "auto", "alpha", "infrared"):
            value = "given"
        if value not in (None, False, 0) or name == "strength":
            yield f"{name} {str(value).lower() if value is True else value}"
