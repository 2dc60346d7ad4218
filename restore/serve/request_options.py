"""The options that a request may set: those of `restore fix` and `restore detect` that suit a single upload."""

from __future__ import annotations

import json
import types
from typing import Any, Literal, get_args, get_origin

from restore.errors import did_you_mean
from restore.fix.batch_options import BatchOptions, declared
from restore.fix.option_values import Option, alternatives, flag
from restore.fix.options import DetectOptions, FixOptions
from restore.serve.problems import Refused
from restore.serve.workers import Json

#: Options that choose among files, or are the server's to decide: a large `tile` takes any amount of memory.
_NOT_HERE = {
    "overwrite", "skip_existing", "decode_timeout", "fail_fast", "pix2pix_batch_norm", "pix2pix_dropout",
    "mask_missing", "tile",
}  # fmt: skip
#: Options of free text that a request may set: they are checked. All others may name a file, those to come as well.
_TEXTS = {"masks", "ext"}
_MASKS = ("auto", "alpha", "infrared", "none")
EVAL_METRICS = ("psnr", "ssim", "ms_ssim", "delta_e", "psnr_hole", "seam", "seam_ratio")
_CONVENTIONS = ("skimage", "matlab", "y-channel")


def fix_options(text: str | None, *, has_mask: bool, max_pixels: int) -> Json:
    """The options of a repair, checked.

    Args:
        text: JSON of the client; None: there is none.
        has_mask: a mask was uploaded.
        max_pixels: the server's limit.

    Returns:
        What `FixOptions.from_dict` takes; the path of the mask is not among it.

    Raises:
        Refused: it is not JSON, or holds an option that does not suit an upload.
        RestoreError: as `FixOptions`.
    """
    given = _allowed(text, FixOptions)
    if given.get("masks") is not None:
        if given["masks"] not in _MASKS:
            raise Refused("bad_request", f"--masks must be one of {', '.join(_MASKS)}", hint="upload a mask as `mask`")
        if has_mask:
            raise Refused("bad_request", "--masks cannot be combined with an uploaded mask", hint="leave it out")
    given["max_pixels"] = min(given.get("max_pixels", max_pixels), max_pixels) if _is_limit(given) else max_pixels
    FixOptions.from_dict(given | ({"masks": "mask"} if has_mask else {}))
    return given


def detect_options(text: str | None, *, max_pixels: int) -> Json:
    """The options of a detection; as `fix_options`."""
    given = _allowed(text, DetectOptions)
    given["max_pixels"] = min(given.get("max_pixels", max_pixels), max_pixels) if _is_limit(given) else max_pixels
    DetectOptions.from_dict(given)
    return given


def eval_options(text: str | None, *, has_mask: bool) -> Json:
    """The options of a scoring: {metrics, convention, crop_border}.

    Raises:
        Refused: it is not JSON, or holds another option or value.
    """
    given = _json(text)
    known = ("metrics", "convention", "crop_border")
    for name in given:
        if name not in known:
            raise Refused("bad_request", f"unknown option {name[:40]!r}", hint=did_you_mean(name, known))
    metrics = given.get("metrics", ["psnr", "ssim"])
    names = EVAL_METRICS if has_mask else EVAL_METRICS[:4]
    known_once = isinstance(metrics, list) and all(name in names and metrics.count(name) == 1 for name in metrics)
    if not metrics or not known_once:
        raise Refused("bad_request", f"metrics must be a list of {', '.join(names)}, each at most once")
    if given.get("convention", "skimage") not in _CONVENTIONS:
        raise Refused("bad_request", f"convention must be one of {', '.join(_CONVENTIONS)}")
    border = given.get("crop_border", 0)
    if isinstance(border, bool) or not isinstance(border, int) or not 0 <= border <= 1000:
        raise Refused("bad_request", "crop_border must be an integer between 0 and 1000")
    return {"metrics": metrics, "convention": given.get("convention", "skimage"), "crop_border": border}


def model_name(text: str | None) -> str | None:
    """The name of a model; a path is refused, so that no request opens a file.

    Raises:
        Refused: it is no name.
    """
    if not text:
        return None
    if len(text) > 60 or not text.replace("-", "").replace("_", "").isalnum() or not text.isascii():
        raise Refused("bad_request", "the model must be a name", hint="GET /v1/models lists them")
    return text


def options_schema(options: type[BatchOptions]) -> Json:
    """The options of a request as JSON Schema, for OpenAPI."""
    properties: Json = {}
    for name, (kind, option) in declared(options).items():
        if _is_offered(name, kind):
            default = options.__dataclass_fields__[name].default
            properties[name] = {**_schema(name, kind, option), "description": option.help, "default": default}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _schema(name: str, kind: Any, option: Option) -> Json:
    if name == "masks":
        return {"enum": [*_MASKS, None]}
    parts: list[Json] = []
    for part in alternatives(kind):
        if get_origin(part) is Literal:
            parts.append({"enum": list(get_args(part))})
        elif part in (int, float):
            bounds = {"minimum": option.minimum, "maximum": option.maximum}
            number: Json = {"type": "integer" if part is int else "number"}
            parts.append(number | {key: bound for key, bound in bounds.items() if bound is not None})
        else:
            names = {bool: "boolean", str: "string", types.NoneType: "null"}
            parts.append({"type": names[part]})
    return parts[0] if len(parts) == 1 else {"anyOf": parts}


def _allowed(text: str | None, options: type[BatchOptions]) -> Json:
    given = _json(text)
    for name in given:
        if name not in declared(options):
            known = [one for one, (kind, _) in declared(options).items() if _is_offered(one, kind)]
            raise Refused("bad_request", f"unknown option {name[:40]!r}", hint=did_you_mean(name, known))
        if not _is_offered(name, declared(options)[name][0]):
            raise Refused("bad_request", f"{flag(name)} does not apply to an upload", hint="leave it out")
    return given


def _is_offered(name: str, kind: Any) -> bool:
    """Whether a request may set an option of this type."""
    plain = (bool, int, float, types.NoneType)
    is_plain = all(part in plain or get_origin(part) is Literal for part in alternatives(kind))
    return name in _TEXTS or (is_plain and name not in _NOT_HERE)


def _json(text: str | None) -> Json:
    if not text:
        return {}
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused("malformed", "the options are not JSON") from error
    if not isinstance(given, dict):
        raise Refused("malformed", "the options must be a JSON object")
    return given


def _is_limit(given: Json) -> bool:
    value = given.get("max_pixels")
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
