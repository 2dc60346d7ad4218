"""Conversion from sRGB to a profile that only has tables for the other direction: inverted numerically."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

Conversion = Callable[[np.ndarray], np.ndarray]

#: Nodes of the table of sRGB along each axis, and of the grid of the profile in which the search for a node begins.
_NODES, _STARTS = 25, 9
_ITERATIONS = 12
_STEP = 1 / 128  # of the profile's values, for its derivative


class InverseProfile:
    """From sRGB to the values of a profile: those whose color is nearest in CIE Lab.

    Args:
        to_srgb: the profile: N×C values in [0, 1] to N×3 sRGB values in [0, 1].
        to_lab: the profile: N×C values to N×3 Lab, with colors outside sRGB.
        srgb_to_lab: N×3 sRGB values to Lab.
        channels: C, 1 or 3.
    """

    def __init__(self, to_srgb: Conversion, to_lab: Conversion, srgb_to_lab: Conversion, channels: int) -> None:
        self._to_srgb, self._to_lab, self._srgb_to_lab, self._channels = to_srgb, to_lab, srgb_to_lab, channels

    def __call__(self, srgb: np.ndarray) -> np.ndarray:
        """N×3 sRGB values in [0, 1] -> N×C values in [0, 1], float32; gray takes the mean of the channels."""
        if self._channels == 1:
            shown, values = self._gray
            gray = srgb[:, 0] + (srgb[:, 1:] - srgb[:, :1]).sum(axis=1) / 3
            own: np.ndarray = np.interp(gray, shown, values).astype(np.float32)[:, None]
            return own
        wanted = _interpolated(self._table, srgb)
        seen = _interpolated(self._table, self._to_srgb(wanted))  # differs by the error of the interpolation
        return np.asarray((wanted + (wanted - seen)).clip(0, 1))

    @cached_property
    def _gray(self) -> tuple[np.ndarray, np.ndarray]:
        """sRGB values in rising order, and the gray values of the profile that show them."""
        values = np.linspace(0, 1, 4096, dtype=np.float32)
        shown = self._to_srgb(values[:, None]).mean(axis=1)
        order = np.argsort(shown, kind="stable")
        return shown[order], values[order]

    @cached_property
    def _table(self) -> np.ndarray:
        """The values of the profile for a grid of sRGB: damped Gauss-Newton steps from the nearest of a few starts."""
        wanted = self._srgb_to_lab(_grid(_NODES))
        starts = _grid(_STARTS)
        values = starts[_nearest(wanted, self._to_lab(starts))]
        error = wanted - self._to_lab(values)
        damping = np.ones(len(values))
        for _ in range(_ITERATIONS):
            slopes = self._slopes(values, wanted - error)
            normal = np.einsum("nki,nkj->nij", slopes, slopes)
            normal += (damping[:, None] * (1 + np.trace(normal, axis1=1, axis2=2))[:, None] / 3)[:, :, None] * np.eye(3)
            step = np.linalg.solve(normal, np.einsum("nki,nk->ni", slopes, error)[:, :, None])[:, :, 0]
            tried = np.clip(values + step, 0, 1).astype(np.float32)
            new_error = wanted - self._to_lab(tried)
            better = (new_error**2).sum(axis=1) < (error**2).sum(axis=1)
            values[better], error[better] = tried[better], new_error[better]
            damping = np.clip(np.where(better, damping / 8, damping * 4), 1e-6, 1e3)
        table: np.ndarray = values.reshape(_NODES, _NODES, _NODES, 3)
        return table

    def _slopes(self, values: np.ndarray, lab: np.ndarray) -> np.ndarray:
        """N×3×3: the change of Lab (rows) by each of the profile's values (columns)."""
        slopes = np.empty((len(values), 3, 3))
        for channel in range(3):
            moved = values.copy()
            moved[:, channel] += np.where(values[:, channel] < 0.5, np.float32(_STEP), -np.float32(_STEP))
            change = moved[:, channel] - values[:, channel]
            slopes[:, :, channel] = (self._to_lab(moved) - lab) / change[:, None]
        return slopes


def _grid(nodes: int) -> np.ndarray:
    levels = np.linspace(0, 1, nodes, dtype=np.float32)
    return np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)


def _nearest(wanted: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The index of the nearest point for each of N×3 points."""
    squares = (among**2).sum(axis=1)
    blocks = np.array_split(wanted, max(len(wanted) // 4096, 1))
    return np.concatenate([(squares - 2 * block @ among.T).argmin(axis=1) for block in blocks])


def _interpolated(table: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Trilinear interpolation in an n×n×n×3 table at N×3 points in [0, 1]: N×3, float32."""
    nodes = table.shape[0]
    place = np.clip(at, 0, 1) * np.float32(nodes - 1)
    cell = np.minimum(place.astype(np.intp), nodes - 2)
    share = (place - cell).astype(np.float32)
    flat = table.reshape(-1, 3)
    first = (cell[:, 0] * nodes + cell[:, 1]) * nodes + cell[:, 2]

    def along(axis: int, start: int) -> np.ndarray:
        """The value on an edge, a face or in the cell that begins at a node: across all axes from `axis` on."""
        if axis == 3:
            return np.asarray(flat.take(first + start, axis=0))
        low, high = along(axis + 1, start), along(axis + 1, start + nodes ** (2 - axis))
        high -= low
        high *= share[:, axis : axis + 1]
        low += high
        return low

    return along(0, 0)
