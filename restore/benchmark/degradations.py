"""What `restore bench` damages pictures with: the literature's damages by name, and those of `configs/damage`."""

from __future__ import annotations

import difflib
import io
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from restore.config import config_names
from restore.degradations import key, load_degradation
from restore.degradations.resize import scaled
from restore.errors import RestoreError

#: Damages of the literature; `restore.cli.options` has them too, where nothing heavy may be imported.
LITERATURE = (
    "none", "awgn-15", "awgn-25", "awgn-50", "jpeg-10", "jpeg-20", "jpeg-30", "jpeg-40", "bicubic-x2", "bicubic-x4",
)  # fmt: skip


@dataclass(frozen=True)
class BenchSample:
    """One damaged picture, as a model gets it.

    Attributes:
        image: float32, 1×3×h×w, sRGB; unclipped noise leaves [0, 1].
        mask: float32, 1×1×h×w, 1 = hidden; None where the damage hides nothing.
        clean: the true picture, float32, 1×3×H×W, multiples of 1/255.
        shown: the damaged picture at the size of `clean`, in [0, 1]: what is scored as the input.
        small: of a damage that reduces: the reduced picture, 1×3×(H/s)×(W/s), for models that enlarge s times.
    """

    image: Tensor
    mask: Tensor | None
    clean: Tensor
    shown: Tensor
    small: Tensor | None = None


@dataclass(frozen=True)
class BenchDamage:
    """A damage and how it is done.

    Attributes:
        label: its name in tables.
        says: how the pictures are damaged, in words.
        hides: there are masks.
        only_holes: nothing but holes.
        scale: how many times smaller the picture gets; 1: it stays.
        make: (clean float32 1×3×H×W, the picture's name without suffix) -> the case.
    """

    label: str
    says: str
    make: Callable[[Tensor, str], BenchSample]
    hides: bool = False
    only_holes: bool = False
    scale: int = 1

    def case(self, clean: np.ndarray, name: str) -> BenchSample:
        """Damage one picture.

        Args:
            clean: uint8, H×W×3.
            name: its relative POSIX path without the suffix, from which random damages are drawn.

        Raises:
            RestoreError: exit code 1: it is too small for this damage.
        """
        height, width = (side // self.scale * self.scale for side in clean.shape[:2])
        if not height or not width:
            raise RestoreError(f"too small to be reduced {self.scale} times", where=name, exit_code=1)
        picture = torch.tensor(clean[:height, :width]).permute(2, 0, 1)[None].float() / 255
        return self.make(picture, name)


def find_damages(names: list[str], seed: int) -> list[BenchDamage]:
    """Damages by name, in the order given, each once.

    Args:
        names: of `LITERATURE` or `configs/damage`, or YAML files.
        seed: of everything random. Noise of the literature is drawn anew with it for every picture, as there (with 0);
            other damages are drawn by seed and the picture's name.

    Raises:
        RestoreError: exit code 2: none is given, one is unknown (the known ones are listed), or two have one name.
    """
    if not names:
        raise RestoreError("no damage is given", hint=f"give --damage NAME; known: {', '.join(_known())}")
    damages: dict[str, BenchDamage] = {}
    for name in dict.fromkeys(names):
        damage = _of_literature(name, seed) if name in LITERATURE else _of_config(name, seed)
        if damage.label in damages:
            raise RestoreError(f"two damages are called {damage.label!r}", where=name, hint="rename the file")
        damages[damage.label] = damage
    return list(damages.values())


def _known() -> list[str]:
    return [*LITERATURE, *config_names("damage")]


def _of_literature(name: str, seed: int) -> BenchDamage:
    kind, _, number = name.rpartition("-")
    if name == "none":
        return BenchDamage(name, "the clean picture itself", lambda clean, _: _plain(clean, clean))
    if kind == "awgn":
        says = f"white Gaussian noise, sigma {number} of 255, not clipped, by numpy's RandomState({seed}) per picture"
        return BenchDamage(name, says, lambda clean, _: _plain(clean, awgn(clean, float(number), seed)))
    if kind == "jpeg":
        says = f"a JPEG file written by Pillow, quality {number}, 4:2:0, and read again"
        return BenchDamage(name, says, lambda clean, _: _plain(clean, jpeg_file(clean, int(number))))
    scale = int(number.removeprefix("x"))
    says = (
        f"reduced {scale} times by bicubic interpolation with antialiasing (a = -0.5, as MATLAB's imresize and "
        "Pillow; computed by torch), rounded to 8 bits; the picture is cut to a multiple first. Models that do not "
        "enlarge get it enlarged back by bicubic interpolation"
    )
    return BenchDamage(name, says, lambda clean, _: bicubic(clean, scale), scale=scale)


def _of_config(name: str, seed: int) -> BenchDamage:
    try:
        damage = load_degradation(name)
    except RestoreError as error:
        if error.where is not None:
            raise
        near = difflib.get_close_matches(name, _known(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise RestoreError(f"no damage is called {name!r}", hint=f"{hint}known: {', '.join(_known())}") from error

    def make(clean: Tensor, picture: str) -> BenchSample:
        damaged, mask = damage(clean, torch.tensor([key(seed, picture)], dtype=torch.int64))
        return replace(_plain(clean, damaged), mask=(mask > 0).float() if damage.has_mask else None)

    says = f"`restore degrade --damage {damage.name} --seed {seed}`, drawn by the picture's name"
    return BenchDamage(damage.name, says, make, damage.has_mask, damage.only_holes)


def _plain(clean: Tensor, damaged: Tensor) -> BenchSample:
    return BenchSample(damaged, None, clean, rounded(damaged))


def rounded(image: Tensor) -> Tensor:
    """To 8 bits and back: float32 in [0, 1]."""
    return image.clamp(0, 1).mul(255).round().div(255)


def awgn(clean: Tensor, sigma: float, seed: int) -> Tensor:
    """Additive white Gaussian noise as the literature's tests draw it: H×W×3 numbers of a fresh legacy generator.

    Args:
        clean: float32, 1×3×H×W.
        sigma: in 8-bit steps.
        seed: 0 in the literature.

    Returns:
        float32, neither clipped nor rounded.
    """
    height, width = clean.shape[-2:]
    noise = np.random.RandomState(seed).normal(0, sigma / 255, (height, width, 3))
    return clean + torch.from_numpy(noise).float().permute(2, 0, 1)[None]


def jpeg_file(clean: Tensor, quality: int) -> Tensor:
    """Through a real JPEG file (Pillow's libjpeg, colour at half size): float32, multiples of 1/255."""
    file = io.BytesIO()
    pixels = clean[0].permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(file) as decoded:
        return torch.tensor(np.asarray(decoded)).permute(2, 0, 1)[None].float() / 255


def bicubic(clean: Tensor, scale: int) -> BenchSample:
    """Reduced, and enlarged back for those that do not enlarge themselves; both in 8 bits."""
    height, width = clean.shape[-2:]
    small = rounded(scaled(clean, (height // scale, width // scale), "bicubic"))
    back = rounded(scaled(small, (height, width), "bicubic"))
    return BenchSample(back, None, clean, back, small)
