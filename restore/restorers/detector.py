"""A network that detects damage: scratches, dust, hairs, cracks, tears, folds, stains."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore import progress
from restore.checkpoints import DetectorSettings, find_weights, load_generator, read_description, shipped_weights
from restore.devices import pick_device
from restore.engines.check import Network
from restore.engines.choice import open_runner, settle_precision
from restore.engines.runner import Runner, TorchRunner
from restore.errors import RestoreError
from restore.models.base import RestorationNetwork
from restore.models.pyramid_unet import NOTHING
from restore.restorers.base import ModelRequirements, check_finite
from restore.restorers.damage_prior import share_found, with_prior
from restore.restorers.network import requirements_of, sha256_of
from restore.restorers.registry import device_for, is_onnx, parse_model
from restore.restorers.specks import with_specks
from restore.restorers.wide_parts import connected_to, wide_parts
from restore.tiling import auto_tile, run_tiled

FloatArray = npt.NDArray[np.float32]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

#: Images of up to this many pixels are searched in several views, larger ones in the first.
ALL_VIEWS_MAX_PX = 1 << 21
#: A network that joins levels searches larger images in all views, too, halved until they have this many at most.
COARSE_MAX_PX = 1 << 20

#: Wide damage has at least this probability in monochrome and in color photographs, whatever the threshold of the mask.
_SURE, _SURE_IN_COLOR = 0.5, 0.9

#: A mark found at half size is one found at full size if more than this fraction of it lies within 4 pixels of such.
FOUND_TWICE = 0.8

#: The share of all pixels of a pyramid that are above its finest level.
_ABOVE = 0.25


@dataclass(frozen=True)
class View:
    """A way to look at an image.

    Attributes:
        dims: the dimensions along which it is mirrored. Rotations are left out: photographs have an up and a down, and
            a network that never saw one lying on its side detects less in it.
        contrast: differences to the mean are multiplied by this.
        gray: without color.
        second: seen by the second network of an ensemble.
        weight: how much its probabilities count in the mean.
    """

    dims: tuple[int, ...] = ()
    contrast: float = 1.0
    gray: bool = False
    second: bool = False
    weight: float = 1.0

    def of(self, image: Tensor) -> Tensor:
        """...×3×H×W -> the same shape."""
        image = image.flip(self.dims)
        if self.gray:
            luma = image.new_tensor(_LUMA)[:, None, None]
            image = (luma * image).sum(-3, keepdim=True).expand_as(image)
        if self.contrast == 1:
            return image
        mean = image.mean((-3, -2, -1), keepdim=True)
        return mean + self.contrast * (image - mean)


#: One network searches an image mirrored.
MIRRORED = (View(), View((-1,)), View((-2,)), View((-2, -1)))
#: Two networks search an image in color in these views: one mirrored, so that they share fewer mistakes. The second one
#: counts more: it knows thin scratches best.
ENSEMBLE = (View(), View((-1,), second=True, weight=2))
#: Below this mean distance from the median color, a photograph is monochrome: gray, sepia, toned, or badly faded. 98 %
#: of 260 portraits of the nineteenth century are, and 33 % of 281 photographs of today.
MONOCHROME_CHROMA = 0.06


def views_of(image: Tensor, monochrome_contrast: float | None = None, ensemble: bool = False) -> tuple[View, ...]:
    """The views in which an image is searched.

    With lower contrast and without tint, the shipped detector finds more of the faint cracks, creases and scratches of
    old prints, but misses thin scratches (docs/evidence/detection.md).

    Args:
        image: ...×3×H×W, sRGB, [0, 1].
        monochrome_contrast: see `DetectorSettings`.
        ensemble: whether there are two networks.
    """
    views: tuple[View, ...] = ENSEMBLE if ensemble else MIRRORED
    if monochrome_contrast is not None and _is_monochrome(image):
        faint, gray = View(contrast=monochrome_contrast), View((-1,), monochrome_contrast, gray=True)
        upside_down = View((-2, -1), monochrome_contrast, gray=True)
        views = (faint, gray, View(second=True), View((-1,), second=True)) if ensemble else (faint, gray, upside_down)
    return views if image.shape[-2] * image.shape[-1] <= ALL_VIEWS_MAX_PX else views[:1]


def _is_monochrome(image: Tensor) -> bool:
    step = max(1, math.isqrt(image.shape[-2] * image.shape[-1] // ALL_VIEWS_MAX_PX))
    few = image[..., ::step, ::step].float()
    luma = (few.new_tensor(_LUMA)[:, None, None] * few).sum(-3)
    chroma = torch.stack([few[..., 2, :, :] - luma, few[..., 0, :, :] - luma]).flatten(-2)
    distance = (chroma - chroma.median(-1, keepdim=True).values).norm(dim=0)
    return bool(distance.mean() < MONOCHROME_CHROMA)


class Detector:
    """A network that detects damage, with the threshold that turns its probabilities into a mask.

    Args:
        settings: how probabilities become a mask.
        name: the user's name for it.
        model: gives logits, B×3×H×W -> B×1×H×W; it is put into eval mode and moved to the device.
        requirements: what it requires of its input.
        purpose: one line.
        device: where it runs.
        precision: `fp32`, `bf16` or `fp16`.
        sha256: of the weights' file.
        runner: runs it on the device in this precision; None: PyTorch does.
        exact: opens a runner in fp32, for what is NaN in half precision; None: PyTorch is one.
        second: another detector, whose network searches some of the views; None: this one searches all.

    Attributes:
        engine: `torch`, `openvino` or `onnx`.
        threshold: pixels of at least this probability are damage.
        margin_px: how far around them the mask reaches.
        monochrome_contrast, expected_share: see `DetectorSettings`.
        second: the second detector of an ensemble; None: there is none.
    """

    #: About the most memory that the network takes per input pixel, from which tiles are chosen.
    bytes_per_pixel = 4096

    def __init__(
        self,
        settings: DetectorSettings,
        name: str,
        model: nn.Module,
        requirements: ModelRequirements,
        purpose: str,
        device: torch.device,
        precision: str,
        sha256: str | None = None,
        runner: Runner | None = None,
        exact: Callable[[], Runner] | None = None,
        second: Detector | None = None,
    ) -> None:
        self.threshold, self.margin_px = settings.threshold, settings.margin_px
        self.monochrome_contrast, self.expected_share = settings.monochrome_contrast, settings.expected_share
        self.second = second
        self.name, self.requirements, self.purpose, self.sha256 = name, requirements, purpose, sha256
        self.device, self.precision, self.network = device, precision, model
        self._run = TorchRunner(model, device, precision) if runner is None else runner
        self.engine = self._run.engine
        self._exact = exact or (lambda: TorchRunner(model, device, "fp32"))
        # A network from elsewhere need not be a `RestorationNetwork`.
        self._joins_levels = getattr(model, "joins_levels", RestorationNetwork.joins_levels)
        self._coarsest_px = getattr(model, "coarsest_px", RestorationNetwork.coarsest_px)

    def detect(
        self,
        image: FloatArray,
        *,
        tile_px: int | None = None,
        on_event: Callable[[str], None] = lambda line: None,
    ) -> FloatArray:
        """Where an image is damaged.

        The image is searched on the levels of a pyramid, each half the size of the one before: damage that is wide in
        pixels becomes thin, and on the coarsest level the network sees the whole print. A network trained for that
        joins the levels itself (`PyramidUNet`); the result of any other is the union, with the outlines of the finest
        level that finds a mark. Probabilities are averaged over several views of the image (`views_of`), some of which
        a second network may see. A detector with an `expected_share` adjusts them to the share of the image that
        looks damaged (`with_prior`): that of the first network or of the mean, whichever is larger. The second network
        cannot lower the probability of wide damage that the first one sees. In monochrome photographs, small spots in
        a crowd of specks become more likely (`with_specks`).

        A network that joins levels searches large images twice: a coarse level in all views, and all levels in the
        first view. The larger probability counts, because the finest level vetoes wide, soft damage.

        Args:
            image: H×W×3, sRGB, [0, 1].
            tile_px: largest side of a tile, 0 never tiles; None: chosen by free memory.
            on_event: called with a line if a tile is repeated in fp32, or if memory runs out and tiles become smaller.

        Returns:
            H×W of 0 and 1, 1 = damaged.

        Raises:
            RestoreError: exit code 1; out of memory, or the network's output contains NaN or Inf.
        """
        return self.mask_of(self.probability(image, tile_px=tile_px, on_event=on_event))

    def probability(
        self,
        image: FloatArray,
        *,
        tile_px: int | None = None,
        on_event: Callable[[str], None] = lambda line: None,
    ) -> FloatArray:
        """How likely each pixel is damaged, H×W in [0, 1]; arguments and errors as for `detect`."""
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        coarse = self._coarse(tensor)
        views = views_of(coarse, self.monochrome_contrast, self.second is not None)
        logits: list[Tensor] = []

        def probability(seen: Tensor, view: View) -> Tensor:
            network = self.second if view.second and self.second is not None else self
            logits.append(network.logits(seen, tile_px, on_event))
            return logits[-1].sigmoid()

        finest = None
        beyond = 0 if coarse is tensor else tensor[0].numel()
        first, rest = progress.shares([len(views) * coarse[0].numel(), beyond])
        with progress.part(*first):
            found = list(zip(self_ensemble(probability, coarse, views), views))
        if beyond:
            with progress.part(*rest):
                everything = self.logits(views[0].of(tensor), tile_px, on_event, known=logits[0])
            check_finite(everything)
            finest = everything.sigmoid()[0].numpy()

        # Where one network sees much damage of a kind that the other one does not know, the mean shows none of it.
        seen = [_mean(found), _mean(found, second=False)] + ([] if finest is None else [finest])
        share = max(map(share_found, seen))

        def adjust(one: FloatArray) -> FloatArray:
            return one if self.expected_share is None else with_prior(one, share, self.expected_share)

        likely = self._joined(found, adjust)
        may_have_crowds = self.expected_share is not None and views[0].contrast < 1
        if may_have_crowds:
            likely = _raise_specks(likely, coarse)
        if finest is None:
            return likely
        likely = np.maximum(_resized(likely, finest.shape, "bilinear"), adjust(finest))
        return _raise_specks(likely, tensor) if may_have_crowds else likely

    def _coarse(self, image: Tensor) -> Tensor:
        """The level of a large image that is searched in all views, 3×H×W -> 3×h×w; of a small one, the image."""
        if not self._joins_levels or image[0].numel() <= ALL_VIEWS_MAX_PX:
            return image
        while image[0].numel() > COARSE_MAX_PX and min(image.shape[-2:]) // 2 >= self._coarsest_px:
            image = _halved(image)
        return image

    def _joined(self, found: Sequence[tuple[Tensor, View]], adjust: Callable[[FloatArray], FloatArray]) -> FloatArray:
        """The adjusted mean of all views, H×W. The second network does not see wide damage: there it is at least the
        first network's own probability.
        """
        likely, own = adjust(_mean(found)), _mean(found, second=False)
        if not any(view.second for _, view in found):
            return likely
        # The share does not decide whether there is wide damage, but how far it extends.
        monochrome = found[0][1].contrast < 1
        sure = _SURE if monochrome else _SURE_IN_COLOR
        wide = connected_to(wide_parts(own >= sure), wide_parts(adjust(own) >= sure))
        if not monochrome:
            # In color, it is often a highlight. Where the first network is not sure, both must agree.
            second = adjust(_mean(found, second=True))
            likely = np.where(wide_parts(likely >= _SURE), np.minimum(second, likely), likely)
        return np.where(wide, np.maximum(adjust(own), likely), likely)

    def mask_of(self, probability: FloatArray) -> FloatArray:
        """H×W probabilities -> H×W of 0 and 1: pixels of at least `threshold`, and all within `margin_px` of them."""
        damaged = probability >= self.threshold
        if self.margin_px and damaged.any():
            distance = cv2.distanceTransform((~damaged).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            damaged = distance <= self.margin_px
        return damaged.astype(np.float32)

    def adjusted(self, *, threshold: float | None = None, margin_px: int | None = None) -> Detector:
        """The same network with another threshold or margin; None keeps it."""
        other = copy.copy(self)
        other.threshold = self.threshold if threshold is None else threshold
        other.margin_px = self.margin_px if margin_px is None else margin_px
        return other

    def auto_tile_px(self, height: int = 1 << 20, width: int = 1 << 20) -> int:
        """The side of a tile that suits its device's free memory; see `Restorer.auto_tile_px`."""
        overlap_px = self.requirements.overlap_px
        return auto_tile(height, width, device=self.device, overlap_px=overlap_px, bytes_per_pixel=self.bytes_per_pixel)

    def logits(
        self,
        image: Tensor,
        tile_px: int | None,
        on_event: Callable[[str], None] = lambda line: None,
        known: Tensor | None = None,
    ) -> Tensor:
        """The logits of this level and all levels above it: 3×H×W -> 1×H×W. Nothing is mirrored.

        Args:
            image, tile_px, on_event: as for `detect`, but 3×H×W.
            known: the logits of a level that has been computed, 1×h×w; None: compute all levels.
        """
        if known is not None and known.shape[-2:] == image.shape[-2:]:
            return known
        height, width = image.shape[-2:]
        above = None
        if min(height, width) // 2 >= self._coarsest_px:
            with progress.part(0, _ABOVE):
                coarse = self.logits(_halved(image), tile_px, on_event, known)
            above = F.interpolate(coarse[None], (height, width), mode="bilinear", align_corners=False)[0]
        elif self._joins_levels:
            above = torch.full_like(image[:1], NOTHING)
        side = self.auto_tile_px(height, width) if tile_px is None else tile_px
        with progress.part(_ABOVE, 1 - _ABOVE):
            logits = run_tiled(
                lambda tile, tile_above: self._level(tile, tile_above, on_event),
                [image, above if self._joins_levels else None],
                tile_px=side if self.requirements.tileable else 0,
                overlap_px=self.requirements.overlap_px,
                multiple=self.requirements.multiple,
                on_smaller_tile=lambda px: on_event(f"out of memory; retried with {px} px tiles"),
            )
        if above is None or self._joins_levels:
            return logits
        return torch.maximum(logits, self._beyond(logits, above))

    def _beyond(self, logits: Tensor, above: Tensor) -> Tensor:
        """The logits from above without the margins of marks that this level also finds, with sharper outlines.

        Masks that are two pixels too wide cost 0.5 dB of what filling scratches gains.
        """
        limit = math.log(self.threshold / (1 - self.threshold))
        here, there = ((x[0] >= limit).numpy().astype(np.uint8) for x in (logits, above))
        window = np.ones((9, 9), np.uint8)
        near = cv2.dilate(here, window)
        # What this level finds, with the inside of wide marks, of which it finds only the edges.
        filled = cv2.morphologyEx(here, cv2.MORPH_CLOSE, window)
        count, labels = cv2.connectedComponents(there, connectivity=8)
        found = np.bincount(labels.ravel(), near.ravel(), count) / np.bincount(labels.ravel(), minlength=count).clip(1)
        outskirts = (found[labels] > FOUND_TWICE) & (there > 0) & (filled == 0)
        return torch.where(torch.from_numpy(outskirts), NOTHING, above)

    def _level(self, tile: Tensor, above: Tensor | None, on_event: Callable[[str], None]) -> Tensor:
        """B×3×H×W and the logits from above -> logits B×1×H×W, in fp32 where half precision gives NaN."""
        height, width = tile.shape[-2:]
        padded, padded_above = self.requirements.pad(tile, above)
        logits = self._run(padded, padded_above)
        if self.precision != "fp32" and not bool(torch.isfinite(logits).all()):
            on_event(f"{self.precision} output contains NaN; repeated that part in fp32")
            logits = self._exact()(padded, padded_above)
        return logits[..., :height, :width]


def open_detector(
    name_or_path: str = "detector",
    *,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    on_event: Callable[[str], None] = lambda line: None,
) -> Detector:
    """Open a detector: a shipped one, or weights that were trained with `task: detection`.

    Args:
        name_or_path: a name of `restore models`, the path of a `.safetensors` or of an ONNX file of `restore export`,
            a run's folder, or `NAME=PATH`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        engine, on_event: as for `restore.restorers.registry.open_restorer`.

    Raises:
        RestoreError: no such model, device, precision or engine; the file cannot be read, holds no detector, or names a
            second one that is not shipped.
    """
    spec = parse_model(name_or_path)
    place = pick_device(device_for(spec, device))
    precision = settle_precision(engine, precision, place)
    path = find_weights(spec.source)
    if is_onnx(spec):
        from restore.restorers.onnx_file import open_onnx_detector

        return open_onnx_detector(
            spec.name, path, place, sha256_of(path), precision=precision, engine=engine, on_event=on_event
        )
    if read_description(path).finds is None:
        raise RestoreError(
            f"{spec.name} is a restorer, not a detector",
            hint="`restore train` trains a detector with task=detection",
        )
    model, description = load_generator(path)
    assert description.finds is not None
    sha256 = sha256_of(path)
    network = Network(spec.name, model, description.channels or 3, True, sha256)
    return Detector(
        description.finds,
        spec.name,
        model,
        requirements_of(description, model),
        description.purpose,
        place,
        precision,
        sha256,
        open_runner(network, place, precision, engine, on_event),
        second=open_second(description.finds, path, place, precision=precision, engine=engine, on_event=on_event),
    )


def open_second(
    settings: DetectorSettings,
    path: Path,
    device: torch.device,
    *,
    precision: str,
    engine: str,
    on_event: Callable[[str], None],
) -> Detector | None:
    """The second detector that the weights in `path` name; None if they name none. Other arguments: `open_detector`.

    Raises:
        RestoreError: it is not shipped, or cannot be opened.
    """
    name = settings.ensemble_with
    if name is None:
        return None
    if name not in shipped_weights():
        raise RestoreError(f"needs {name!r}, which is not a shipped detector", where=path)
    return open_detector(name, device=str(device), precision=precision, engine=engine, on_event=on_event)


def _halved(image: Tensor) -> Tensor:
    """The next level of the pyramid: C×H×W -> C×H/2×W/2."""
    return F.interpolate(image[None], (image.shape[-2] // 2, image.shape[-1] // 2), mode="area")[0]


def _raise_specks(probability: FloatArray, image: Tensor) -> FloatArray:
    """`with_specks` for an image of any size, H×W and 3×H×W -> H×W. It is slow, so a large image is halved for it."""
    level = image
    while level[0].numel() > ALL_VIEWS_MAX_PX:
        level = _halved(level)
    seen = _resized(probability, level.shape[-2:], "area")
    raised = with_specks(seen, level.permute(1, 2, 0).numpy())
    if raised is seen:
        return probability
    spots = np.where(raised > seen, raised, np.float32(0))
    return np.maximum(probability, _resized(spots, probability.shape, "bilinear"))


def _resized(probability: FloatArray, size: Sequence[int], mode: str) -> FloatArray:
    resized = F.interpolate(torch.from_numpy(probability)[None, None], tuple(size), mode=mode)[0, 0]
    return np.asarray(resized.numpy(), np.float32)


def _mean(found: Sequence[tuple[Tensor, View]], second: bool | None = None) -> FloatArray:
    """The weighted mean of the probabilities of several views, 1×H×W -> H×W.

    Args:
        found: the probabilities, and the view.
        second: take only the views of the second network, or only those of the first; None: all.

    Raises:
        RestoreError: it contains NaN or Inf.
    """
    chosen = [(one, view.weight) for one, view in found if second is None or view.second == second]
    weighted = torch.stack([weight * one[0] for one, weight in chosen]).sum(0)
    check_finite(weighted)
    return (weighted / sum(weight for _, weight in chosen)).numpy()


def self_ensemble(f: Callable[[Tensor, View], Tensor], image: Tensor, views: Sequence[View]) -> list[Tensor]:
    """Run `f` on several views of an image, and mirror the outputs back. Their mean is the ensemble's output.

    The mirror images are those of the "self-ensemble" of Lim et al., "Enhanced Deep Residual Networks for Single Image
    Super-Resolution", CVPR Workshops 2017, section 3.4.

    Args:
        f: what a view shows, ...×3×H×W, and the view -> ...×1×H×W.
        image: ...×3×H×W.
        views: see `views_of`.

    Returns:
        For every view, ...×1×H×W.
    """
    found = []
    for view, share in zip(views, progress.shares([1] * len(views))):
        with progress.part(*share):
            found.append(f(view.of(image), view).flip(view.dims))
    return found
