"""The degradation steps by the `name` that configs use. To add a step, write its file and add a line here."""

from __future__ import annotations

from restore.degradations.base import Step
from restore.degradations.blur import Blur, MotionBlur
from restore.degradations.color import Fade, Grayscale
from restore.degradations.crack import Crack
from restore.degradations.fold import Fold
from restore.degradations.inpainting_masks import Blobs, Border, Boxes, Strokes
from restore.degradations.jpeg import Jpeg
from restore.degradations.noise import Noise, Quantize
from restore.degradations.resize import Downscale
from restore.degradations.scratch import Dust, Hair, Scratch
from restore.degradations.stain import Stain
from restore.degradations.tear import Tear
from restore.degradations.text import Text

STEPS: dict[str, type[Step]] = {
    # Holes for inpainting.
    "strokes": Strokes,
    "boxes": Boxes,
    "blobs": Blobs,
    "border": Border,
    "text": Text,
    # Defects of cameras, lenses and files, on the whole image.
    "noise": Noise,
    "quantize": Quantize,
    "blur": Blur,
    "motion-blur": MotionBlur,
    "jpeg": Jpeg,
    "downscale": Downscale,
    # Ageing: first of the whole image, then marks.
    "fade": Fade,
    "grayscale": Grayscale,
    "scratch": Scratch,
    "hair": Hair,
    "dust": Dust,
    "crack": Crack,
    "tear": Tear,
    "fold": Fold,
    "stain": Stain,
}
