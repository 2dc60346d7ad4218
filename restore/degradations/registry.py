"""The degradation steps by the `name` that configs use. To add a step, write its file and add a line here."""

from __future__ import annotations

from restore.degradations.base import Step
from restore.degradations.blur import Blur, MotionBlur, Sharpen
from restore.degradations.camera_noise import CameraNoise
from restore.degradations.color import Fade, Grayscale, PaperTexture
from restore.degradations.crack import Crack
from restore.degradations.fold import Fold
from restore.degradations.inpainting_masks import Blobs, Border, Boxes, Strokes
from restore.degradations.jpeg import Jpeg
from restore.degradations.mask_files import MaskFiles
from restore.degradations.noise import Noise, Quantize
from restore.degradations.overlay import Overlay
from restore.degradations.print_losses import Chip, LostEdge, Smear, Tape
from restore.degradations.print_marks import Abrasion, Crease, Fissure, GlassCrack, LineScratch, Speck
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
    "masks": MaskFiles,
    # Defects of cameras, lenses and files, on the whole image.
    "noise": Noise,
    "camera-noise": CameraNoise,
    "quantize": Quantize,
    "blur": Blur,
    "motion-blur": MotionBlur,
    "sharpen": Sharpen,
    "jpeg": Jpeg,
    "downscale": Downscale,
    # Ageing: first of the whole image, then marks.
    "fade": Fade,
    "grayscale": Grayscale,
    "paper-texture": PaperTexture,
    "scratch": Scratch,
    "hair": Hair,
    "dust": Dust,
    "crack": Crack,
    "tear": Tear,
    "fold": Fold,
    "stain": Stain,
    # Marks in the tones and shapes of real prints, plates and films.
    "fissure": Fissure,
    "crease": Crease,
    "line-scratch": LineScratch,
    "abrasion": Abrasion,
    "speck": Speck,
    "glass-crack": GlassCrack,
    "chip": Chip,
    "lost-edge": LostEdge,
    "smear": Smear,
    "tape": Tape,
    "overlay": Overlay,
}
