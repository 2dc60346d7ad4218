"""The look of marks that are drawn as line segments: paper or dirt in the tone of real prints, with gaps and relief."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from restore.box_filter import box_mean
from restore.degradations.base import Params, Probability, Range, ScaledStep, within
from restore.degradations.drawing import (
    AX,
    AY,
    BX,
    BY,
    OPACITY,
    RADIUS_A,
    RADIUS_B,
    draw_segments,
    smoothstep,
    value_noise,
    visible_pixels,
)
from restore.devices import to_device
from restore.hashed_random import field_uniform, fold_in, uniform, uniform_range

# Minimum opacity of a mark, and minimum change by its relief: fainter pixels would widen the mask beyond what is seen.
_FAINTEST, _FAINTEST_RELIEF = 0.03, 0.015
# Standard deviation of `value_noise` with four octaves, to turn a share of its area into a threshold.
_NOISE_DEVIATION = 0.30
# Brightness above which a mark that contrasts with its surroundings is dark, and the side of the window that counts.
_LIGHT, _AROUND_PX = 0.42, 15


class PaintedMarks(ScaledStep):
    """Marks drawn as segments and blended towards one bright or dark tone per image.

    The ranges of the defaults are those measured on damaged prints, plates and films; see each subclass.

    Attributes:
        width: width of a mark in pixels, log-uniform.
        opacity: maximum opacity of a mark, log-uniform: faint marks are as common as strong ones.
        bright: fraction of images whose marks are bright.
        light: luminance of bright marks, in [0, 1]: bare paper is gray to white.
        shade: luminance of dark marks, in [0, 1].
        warmth: how much less blue than red bright marks have, in [0, 1]: paper yellows.
        gaps: fraction of a mark that is invisible.
        rough: how grainy a mark is, from 0 (even) to 1 (a row of beads): what scratches jumps, and emulsion breaks in
            grains.
        reversed: fraction of a mark that has the opposite tone.
        halo: opacity of an edge of the opposite tone around a mark.
        halo_px: width of that edge in pixels.
        relief: change of brightness, in [0, 1], on the two sides of a mark, of opposite sign: a raised edge is lit on
            one side and shadowed on the other, from one direction per image.
        relief_px: distance of the two sides in pixels.
        against: the tone is dark on bright ground and bright on dark ground (a crack in a glass plate).
        softness: width of the edge in pixels.
    """

    width: Annotated[Range, within(0.1, 100)] = (1, 5)
    opacity: Annotated[Range, within(0.01, 1)] = (0.1, 1.0)
    bright: Probability = 0.8
    light: Annotated[Range, within(0, 1)] = (0.63, 0.92)
    shade: Annotated[Range, within(0, 1)] = (0.0, 0.25)
    warmth: Annotated[Range, within(0, 0.5)] = (0.0, 0.14)
    gaps: Annotated[Range, within(0, 1)] = (0.0, 0.1)
    rough: Annotated[Range, within(0, 1)] = (0.0, 0.0)
    reversed: Annotated[Range, within(0, 1)] = (0.0, 0.0)
    halo: Annotated[Range, within(0, 1)] = (0.0, 0.0)
    halo_px: Annotated[Range, within(0.2, 20)] = (0.8, 2)
    relief: Annotated[Range, within(0, 1)] = (0.0, 0.0)
    relief_px: Annotated[Range, within(0.2, 20)] = (1.5, 3.5)
    against: bool = False
    softness: Annotated[float, Field(ge=0.5, le=10)] = 1.5

    has_mask = True

    @abstractmethod
    def _segments(self, keys: Tensor, size: tuple[int, int]) -> Tensor:
        """float64[B, N, 7], see `draw_segments`."""

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Params:
        """`segments` [B, N, 7] (see `draw_segments`); `tones` [B, 2, 3] of the marks and the opposite; `gaps`,
        `rough`, `reversed`, `halo`, `halo_px`, `relief` [B]; `shift` [B, 2] (x, y) of the relief in pixels; `key`."""
        own = fold_in(keys, 900)
        paper = paper_tone(own, 0, self.light, self.warmth)
        dirt = dirt_tone(own, 10, self.shade)
        is_bright = uniform(own, 20, 1)[..., None] < self.bright
        tones = torch.stack([paper, dirt], 1)
        angle = 2 * math.pi * uniform(own, 21, 1)
        reach = uniform_range(own, 22, self.relief_px)[:, None] * self.scale(size)
        return {
            "segments": self._segments(fold_in(keys, 901), size),
            "tones": torch.where(is_bright, tones, tones.flip(1)),
            "gaps": uniform_range(own, 23, self.gaps),
            "rough": uniform_range(own, 29, self.rough),
            "reversed": uniform_range(own, 24, self.reversed),
            "halo": uniform_range(own, 25, self.halo),
            "halo_px": uniform_range(own, 26, self.halo_px) * self.scale(size),
            "relief": uniform_range(own, 27, self.relief),
            "shift": reach * torch.cat([angle.cos(), angle.sin()], 1),
            "key": fold_in(own, 28),
        }

    def apply(self, image: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Draw the marks; see `Step.apply`."""
        size, device, key = (image.shape[-2], image.shape[-1]), image.device, params["key"]
        scale = self.scale(size)

        def number(name: str) -> Tensor:
            return to_device(params[name].to(torch.float32), device).reshape(-1, 1, 1, 1)

        tones = to_device(params["tones"].to(torch.float32), device)[..., None, None]
        tone, opposite = tones[:, 0], tones[:, 1]
        cover, halo, lit, shadow = self._layers(params, size, device)
        if self.against:
            light = box_mean(image.mean(1, keepdim=True), _AROUND_PX) > _LIGHT
            bright_first = tone.mean(1, keepdim=True) > opposite.mean(1, keepdim=True)
            swap = light == bright_first
            tone, opposite = torch.where(swap, opposite, tone), torch.where(swap, tone, opposite)
        grain = 0.85 + 0.15 * field_uniform(key, 0, (1, *size), device)
        if self.gaps[1] > 0:
            places = value_noise(key, 10, 28 * scale, size, device, octaves=4)
            grain = grain * smoothstep((places - _threshold(number("gaps"))) / 0.12 + 0.5)
        if self.rough[1] > 0:
            beads = value_noise(key, 30, 4.5 * scale, size, device, octaves=2)
            beads = beads + 0.8 * (field_uniform(key, 40, (1, *size), device) - 0.5)
            # Grains are missing where the noise is low.
            kept = smoothstep((0.5 + 0.9 * beads - 0.9 * number("rough")) / 0.4 + 0.5)
            grain = grain * torch.where(number("rough") > 0, kept, 1.0)
        if self.reversed[1] > 0:
            places = value_noise(key, 20, 22 * scale, size, device, octaves=4)
            tone = torch.where(places < _threshold(number("reversed")), opposite, tone)
        damaged = image
        covered = torch.zeros_like(cover, dtype=torch.bool)
        if halo is not None:
            # Not `lerp`: a pixel under zero opacity must keep its value to the last bit.
            amount = (halo * number("halo") * grain).masked_fill_(halo * number("halo") < _FAINTEST, 0.0)
            damaged = damaged + amount * (opposite - damaged)
            covered = covered | (amount > 0)
        if lit is not None and shadow is not None:
            # The paper of a raised edge is bent, not gone: its brightness changes, as under a light from one side.
            change = number("relief") * (lit - shadow)
            change = change.masked_fill_(change.abs() < _FAINTEST_RELIEF, 0.0)
            damaged = (damaged + change).clamp(0, 1)
            covered = covered | (change != 0)
        amount = cover * grain
        amount = amount.masked_fill_(amount < _FAINTEST, 0.0)
        damaged = damaged + amount * (tone - damaged)
        covered = covered | (amount > 0)
        window = 2 * max(5, min(40, round(self.width[1] * scale))) + 1
        mask = visible_pixels(image, damaged, covered, window=window)
        return torch.where(mask, damaged, image), mask.to(image.dtype)

    def _layers(
        self, params: Params, size: tuple[int, int], device: torch.device
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """The opacity of the marks, of their halo, and of the lit and the shadowed side of their relief."""
        segments = params["segments"]
        layers = [segments]
        if self.halo[1] > 0:
            wider = segments.clone()
            wider[..., [RADIUS_A, RADIUS_B]] += params["halo_px"][:, None, None]
            layers.append(wider)
        if self.relief[1] > 0:
            for sign in (-0.5, 0.5):
                moved = segments.clone()
                moved[..., [AX, BX]] += sign * params["shift"][:, :1, None]
                moved[..., [AY, BY]] += sign * params["shift"][:, 1:, None]
                # The relief is of one strength along the mark, and at least a pixel wide.
                moved[..., [RADIUS_A, RADIUS_B]] = moved[..., [RADIUS_A, RADIUS_B]].clamp(min=0.7)
                moved[..., OPACITY] = (moved[..., OPACITY] > 0).to(torch.float64)
                layers.append(moved)
        drawn = list(draw_segments(torch.cat(layers), size, device, softness=self.softness).chunk(len(layers)))
        cover = drawn.pop(0)
        halo = drawn.pop(0) if self.halo[1] > 0 else None
        lit, shadow = drawn if self.relief[1] > 0 else (None, None)
        return cover, halo, lit, shadow

    def _log_widths(self, keys: Tensor, stream: int, n: int, scale: float) -> tuple[Tensor, Tensor]:
        """Radii in pixels, and the factor of opacity by which marks thinner than a pixel are fainter: [B, n] each."""
        radius = log_uniform(keys, stream, self.width, n) * scale / 2
        return radius.clamp(min=0.5), (radius / 0.5).clamp(max=1)


def log_uniform(keys: Tensor, stream: int, bounds: Range, n: int) -> Tensor:
    """`n` numbers per key whose logarithm is uniform between those of `bounds`: float64[B, n]."""
    return uniform_range(keys, stream, (math.log(max(bounds[0], 1e-6)), math.log(max(bounds[1], 1e-6))), n).exp()


def log_count(keys: Tensor, stream: int, bounds: Range) -> Tensor:
    """A number of marks per key, log-uniform between `bounds`, which may begin with 0: int64[B]."""
    low, high = bounds[0] + 0.5, bounds[1] + 0.5
    return log_uniform(keys, stream, (low, high), 1)[:, 0].floor().clamp(bounds[0], bounds[1]).to(torch.int64)


def paper_tone(keys: Tensor, stream: int, light: Range, warmth: Range) -> Tensor:
    """The color of bare paper: gray to white, slightly warm, one in six pinkish; float64[B, 3] in [0, 1]."""
    level = uniform_range(keys, stream, light)[:, None]
    warm = uniform_range(keys, stream + 1, warmth)[:, None]
    pink = (uniform(keys, stream + 2, 1) < 1 / 6) * 0.08 * uniform(keys, stream + 3, 1)
    color = level + warm * torch.tensor([0.3, 0.0, -0.7]) + pink * torch.tensor([0.6, -0.6, -0.2])
    return color.clamp(0, 1)


def dirt_tone(keys: Tensor, stream: int, shade: Range) -> Tensor:
    """A dark, nearly gray color: float64[B, 3] in [0, 1]."""
    level = uniform_range(keys, stream, shade)[:, None]
    return (level + 0.06 * (uniform(keys, stream + 1, 3) - 0.5)).clamp(0, 1)


def _threshold(share: Tensor) -> Tensor:
    """The value below which a `share` of value noise with four octaves lies; it is close to normal."""
    return _NOISE_DEVIATION * math.sqrt(2) * torch.erfinv((2 * share - 1).clamp(-0.999, 0.999))
