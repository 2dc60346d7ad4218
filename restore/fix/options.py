"""The options of `fix` and `detect`, declared once: for the command line, Python, the log and the dry run.

A field of a dataclass below, or of `BatchOptions`, is an option. Its name, type and default are the field's, the rest
is its `Option`. To add one, declare it here, act on it in the module that it concerns, and describe it in docs/guide/.

This module is imported by `restore --help` and therefore imports nothing heavy.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from restore.errors import RestoreError, did_you_mean
from restore.fix.batch_options import BatchOptions, FilePath, declared
from restore.fix.option_values import Option, flag

MaskMissing = Literal["fail", "skip", "copy"]
Metadata = Literal["keep", "strip"]
Dilate = int | Literal["auto", "scan"]
Sensitivity = Literal["gentle", "normal", "strong"] | float

#: How readily `old_photos` takes pixels for damage: as the detector scored best.
OLD_PHOTOS_SENSITIVITY: Sensitivity = "normal"

#: The values of `ext`, and the file name suffix of each.
EXTENSIONS = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tiff", "avif": ".avif"}


@dataclass(frozen=True, kw_only=True)
class FixOptions(BatchOptions):
    """Options of a repair: of `restore fix`, `restore.fix_folder` and `restore.fix_image`.

        FixOptions(masks="auto", strength=0.8, log="log.jsonl")

    Raises:
        RestoreError: exit code 2; a value of the wrong type or out of range, or options that exclude each other. It
            names the option as the command line spells it.
    """

    old_photos: Annotated[
        bool,
        Option(
            "For old photographs: find damage, correct fading, fill the damage and clean up. Options given with it "
            "take precedence: --no-correct-fading, --masks none, --no-clean-up, --match-grain.",
            "What to repair",
        ),
    ] = False
    clean_up: Annotated[
        bool | None,
        Option(
            "After the holes are filled, restore the whole image with the photo model; pixels outside the mask change, "
            "too. Default: with --masks auto, for images that are not clean.",
            "What to repair",
        ),
    ] = None
    correct_fading: Annotated[
        bool | None,
        Option(
            "Correct fading first: lifted blacks, yellowed whites, low contrast. Default: with --old-photos.",
            "What to repair",
        ),
    ] = None
    match_grain: Annotated[
        bool,
        Option(
            "Add grain to filled holes, to match their surroundings. Not with --clean-up.",
            "What to repair",
        ),
    ] = False
    model_args: Annotated[
        tuple[str, ...],
        Option(
            "Properties that another project's ONNX file does not state (repeatable): range=0,255, output-range=-1,1, "
            "order=bgr, fourth=mask, alpha or a number, mask=0 (0 in holes), multiple=N, overlap=N.",
            "What to repair",
            metavar="KEY=VALUE",
        ),
    ] = ()
    pix2pix_batch_norm: Annotated[
        Literal["stored", "instance"],
        Option(
            "Statistics for the batch norms of a pix2pix --model: those stored with the weights, or those of each "
            "image, as the original code tests.",
            "What to repair",
        ),
    ] = "stored"
    pix2pix_dropout: Annotated[
        int | None,
        Option(
            "Keep the dropout of a pix2pix --model on, as the original code tests; N seeds it. Default: off.",
            "What to repair",
            0,
            metavar="N",
        ),
    ] = None
    seed: Annotated[
        int,
        Option(
            "Fill deep holes in another way: N chooses where the search for texture begins. Thin holes stay the same.",
            "What to repair",
            0,
            (1 << 31) - 1,
            metavar="N",
        ),
    ] = 0
    fills: Annotated[
        int,
        Option(
            "Fill deep holes in N ways: x.png is the result without this option; x.2.png and so on differ only in "
            "these holes.",
            "What to repair",
            1,
            99,
            metavar="N",
        ),
    ] = 1
    scale: Annotated[
        int | None,
        Option(
            "Enlarge images 2 or 4 times, as the last step, with enlarge-x2, enlarge-x4 or a --model that enlarges.",
            "What to repair",
            metavar="2|4",
        ),
    ] = None
    condition: Annotated[
        tuple[str, ...],
        Option(
            "Images that the --model was trained with beside each image, such as depth maps (repeatable, in the order "
            "of the training): a folder, a path with {} for the image's name, one file, or infrared.",
            "What to repair",
            metavar="PATH",
        ),
    ] = ()
    strength: Annotated[
        float, Option("Blend between the original (0) and the repair (1).", "What to repair", 0, 1, metavar="X")
    ] = 1.0
    masks: Annotated[
        FilePath | None,
        Option(
            "Where to repair (white = repair): a folder of masks (x.png or x_mask.png), one file for all images (of a "
            "video also a video of masks, or a sequence such as m_%04d.png), alpha (transparent = repair), infrared "
            "(dust in a film scanner's infrared channel), auto (the detector finds the damage), or none.",
            "Masks",
            metavar="PATH|alpha|infrared|auto|none",
        ),
    ] = None
    mask_invert: Annotated[bool, Option("Black = repair; with --masks alpha, opaque = repair.", "Masks")] = False
    mask_dilate: Annotated[
        Dilate | None,
        Option(
            "Dilate masks by N pixels. auto: as far as the damage extends beyond them; scan: by a 450th of the image's "
            "smaller side, as the edges of scanned damage are soft. Default: 0, or scan for damage that --old-photos "
            "finds.",
            "Masks",
            0,
            500,
            metavar="auto|scan|N",
        ),
    ] = None
    mask_feather: Annotated[
        int, Option("Fade out the repair over N pixels around holes.", "Masks", 0, 500, metavar="N", cli=False)
    ] = 0
    mask_missing: Annotated[
        MaskMissing,
        Option("An image without a mask: fail, skip it, or copy it (it has no holes to fill).", "Masks"),
    ] = "fail"
    detector: Annotated[
        FilePath,
        Option("Detector for --masks auto: a name, a weights file or a run folder.", "Masks", metavar="NAME|PATH"),
    ] = "detector"
    sensitivity: Annotated[
        Sensitivity | None,
        Option(
            "How readily --masks auto takes pixels for damage: gentle, normal (the detector's own threshold), strong, "
            "or a number between 0 and 1. Default: normal.",
            "Masks",
            0.001,
            0.999,
            metavar="gentle|normal|strong|X",
        ),
    ] = None
    save_masks: Annotated[
        FilePath | None,
        Option(
            "Write the masks that were used to this folder (sub/x.jpg.png for sub/x.jpg; white = repaired).",
            "Masks",
            metavar="FOLDER",
        ),
    ] = None
    ext: Annotated[
        str | None,
        Option("Output format: png, jpg, webp, tiff or avif. Default: that of each image.", "Output", metavar="FORMAT"),
    ] = None
    suffix: Annotated[str, Option("Add this to output names, before the extension.", "Output", metavar="TEXT")] = ""
    quality: Annotated[
        int | None,
        Option("Quality of JPEG, WebP and AVIF. Default: that of each image.", "Output", 1, 100, metavar="N"),
    ] = None
    metadata: Annotated[Metadata, Option("Keep or strip EXIF and XMP; the color profile always stays.", "Output")] = (
        "keep"
    )
    provenance: Annotated[bool, Option("Record the repair and its models in the XMP of repaired images.", "Output")] = (
        True
    )
    video_codec: Annotated[
        Literal["h264", "hevc", "av1", "vp9", "prores", "ffv1"] | None,
        Option("Codec of repaired videos; ffv1 is lossless. Default: that of each video.", "Video"),
    ] = None
    video_crf: Annotated[
        float | None,
        Option(
            "Quality of repaired videos, on the scale of their encoder: lower is better. Default: nearly lossless.",
            "Video", 0, 63, metavar="N",
        ),
    ] = None  # fmt: skip
    steady: Annotated[
        bool,
        Option(
            "With --masks auto, also use the frames before and after each frame of a video to find and fill dirt.",
            "Video",
        ),
    ] = True
    deflicker: Annotated[
        bool,
        Option(
            "Remove the flicker of brightness and color from videos and image sequences. Without --masks, nothing else "
            "is done to them.",
            "Video",
        ),
    ] = False
    deinterlace: Annotated[bool, Option("Make whole frames from the fields of interlaced videos.", "Video")] = False
    preview: Annotated[
        str | None,
        Option(
            "Write only this many seconds from the middle of each video, before and after side by side; in a folder, "
            "as x.preview.mp4.",
            "Video",
            metavar="SECONDS",
        ),
    ] = None
    fail_fast: Annotated[bool, Option("Stop at the first image that fails.", "Safety")] = False
    log: Annotated[
        FilePath | None,
        Option(
            "Append a JSON line for every image to this file, or a row if it ends in .parquet; - is standard output.",
            "Reports",
            metavar="FILE",
        ),
    ] = None
    html_report: Annotated[
        FilePath | None,
        Option("Write an HTML report (before and after of every image) to this folder.", "Reports", metavar="FOLDER"),
    ] = None

    uncertainty: Annotated[
        FilePath | None,
        Option(
            "Write a map of the expected error of every filled pixel to this folder (sub/x.jpg.png for sub/x.jpg; 16 "
            "bits, 65535 = full range). A repair takes four times as long.",
            "Reports",
            metavar="FOLDER",
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("masks", "detector", "save_masks", "log", "html_report", "uncertainty"):
            if getattr(self, name) == "":  # as a shell makes it of a variable that is not set
                raise RestoreError("must not be empty", where=flag(name))
        if self.scale not in (None, 2, 4):
            raise RestoreError(f"must be 2 or 4, not {self.scale}", where="--scale")
        if self.scale is not None and self.fills > 1:
            raise RestoreError(
                "cannot be combined with --fills", where="--scale", hint="enlarge the fill that you keep"
            )
        if self.scale is not None and self.uncertainty is not None:
            raise RestoreError("cannot be combined with --uncertainty", where="--scale", hint="enlarge the repair")
        self._resolve()
        if self.preview is not None:
            self.preview_seconds()
        own = {"auto": ("mask_invert", "mask_missing"), "infrared": ("mask_invert",)}.get(str(self.masks), ())
        of_detector = () if self.masks == "auto" else ("detector", "sensitivity")
        for name in (*own, *of_detector):
            if self._is_set(name):
                what = f"does not apply to --masks {self.masks}" if name in own else "only applies with --masks auto"
                raise RestoreError(what, where=flag(name), hint="leave it out")
        if self.match_grain and self.cleans_up:
            raise RestoreError(
                "cannot be combined with --clean-up, which removes grain",
                where="--match-grain",
                hint="leave it out, or add --no-clean-up",
            )
        for name in ("fills", "uncertainty"):
            if self._is_set(name) and self.cleans_up:
                raise RestoreError(
                    "cannot be combined with --clean-up, which also changes the surroundings of holes",
                    where=flag(name),
                    hint="add --no-clean-up",
                )
        if "/" in self.suffix or os.sep in self.suffix or "\0" in self.suffix:
            raise RestoreError("must be part of a file name, without slashes", where="--suffix")
        if self.ext is not None:
            ext = self.ext.lower().removeprefix(".")
            if ext not in EXTENSIONS:
                raise RestoreError(f"cannot write {self.ext!r}", where="--ext", hint=did_you_mean(ext, EXTENSIONS))
            object.__setattr__(self, "ext", ext)

    def _resolve(self) -> None:
        """Replace what was left open by what it means."""
        chosen: dict[str, Any] = {"masks": self.masks, "correct_fading": self.correct_fading}
        if self.masks == "none":
            chosen["masks"] = None
        elif self.masks is None and self.old_photos:
            chosen["masks"] = "auto"
        if self.correct_fading is None:
            chosen["correct_fading"] = self.old_photos
        if self.sensitivity is None and chosen["masks"] == "auto":
            chosen["sensitivity"] = OLD_PHOTOS_SENSITIVITY if self.old_photos else "normal"
        if self.mask_dilate is None:
            chosen["mask_dilate"] = "scan" if self.old_photos and chosen["masks"] == "auto" else 0
        for name, value in chosen.items():
            object.__setattr__(self, name, value)

    def preview_seconds(self) -> float | None:
        """How long previews are; None: there are none.

        Raises:
            RestoreError: exit code 2; `preview` is no number of seconds.
        """
        if self.preview is None:
            return None
        found = re.fullmatch(r"([0-9]{1,5}(?:\.[0-9]{1,6})?) ?s?", self.preview.strip())
        if found is None or not float(found[1]):
            raise RestoreError(f"must be a number of seconds, such as 10s, not {self.preview!r}", where="--preview")
        return float(found[1])

    @property
    def name_ending(self) -> str:
        """What names of outputs in a folder have before the extension. A preview must not stand for its video, which
        `skip_existing` would leave out."""
        return self.suffix if self.preview is None else f"{self.suffix}.preview"

    def to_dict(self) -> dict[str, Any]:
        """As `BatchOptions.to_dict`."""
        values = super().to_dict()
        # Left out, `old_photos` would choose masks again.
        return values | ({"masks": "none"} if self.old_photos and self.masks is None else {})

    @property
    def dilate(self) -> Dilate:
        """`mask_dilate`, which is never None once options are made."""
        return self.mask_dilate or 0

    def check_masks(self, *, has_masks: bool) -> None:
        """Refuse options about masks if there are none. `fix_image` takes masks that `masks` does not name.

        Raises:
            RestoreError: exit code 2.
        """
        if not has_masks:
            for name in (
                "mask_invert", "mask_dilate", "mask_feather", "mask_missing", "save_masks", "clean_up", "match_grain",
                "seed", "fills", "uncertainty",
            ):  # fmt: skip
                if self._is_set(name):
                    raise RestoreError("requires --masks", where=flag(name), hint="add --masks, or leave it out")

    @property
    def cleans_up(self) -> bool:
        """Whether whole images are restored after their holes are filled."""
        if self.clean_up is not None:
            return self.clean_up
        if self.old_photos:
            return self.masks is not None and not self.match_grain
        return self.masks == "auto"

    @property
    def needs_model(self) -> bool:
        """Whether any model takes part: `deflicker` alone needs none."""
        return not self.deflicker or self.masks is not None or self.scale is not None or self.cleans_up

    @property
    def default_model(self) -> str:
        """The model that is used if none is named."""
        if self.masks is not None:
            return "inpaint"
        return "photo" if self.scale is None or self.old_photos else f"enlarge-x{self.scale}"

    @property
    def restores_everywhere(self) -> bool:
        """Whether whole images are restored if there are no masks. With `old_photos`, this is the clean-up; with
        `deflicker`, nothing is."""
        return not (self.old_photos and self.clean_up is False) and not self.deflicker

    @property
    def spare_clean(self) -> bool:
        """Whether that is left out for images that it would hardly change; see `restore.fix.steps.CLEAN_LEVELS`."""
        return self.masks == "auto" and self.clean_up is None

    def _is_set(self, name: str) -> bool:
        """Whether an option asks for something, and does not just repeat a default."""
        return bool(getattr(self, name)) and getattr(self, name) != type(self).__dataclass_fields__[name].default


@dataclass(frozen=True, kw_only=True)
class DetectOptions(BatchOptions):
    """Options of `restore detect`.

    Raises:
        RestoreError: exit code 2, as for `FixOptions`.
    """

    sensitivity: Annotated[
        Sensitivity,
        Option(
            "How readily pixels count as damage: gentle, normal (the detector's own threshold), strong, or a number "
            "between 0 and 1.",
            "Masks",
            0.001,
            0.999,
            metavar="gentle|normal|strong|X",
        ),
    ] = "normal"
    dilate: Annotated[
        int | None, Option("Dilate detected masks by N pixels. Default: the detector's.", "Masks", 0, 100, metavar="N")
    ] = None
    preview: Annotated[
        FilePath | None,
        Option(
            "Write every image with the detected damage in color to this folder (sub/x_preview.jpg).",
            "Reports",
            metavar="FOLDER",
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preview == "":
            raise RestoreError("must not be empty", where="--preview")

    def to_fix(self, *, suffix: str) -> FixOptions:
        """The same options for planning and reading; masks are PNG, with `suffix` in their names."""
        shared = {name: getattr(self, name) for name in declared(BatchOptions)}
        return FixOptions(**shared, ext="png", suffix=suffix, provenance=False, metadata="strip")
