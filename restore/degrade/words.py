"""Made-up words and dates, as letters by their ASCII codes."""

from __future__ import annotations

import torch
from torch import Tensor

from restore.degrade.random import integers, uniform

# about as often as in European languages
_CONSONANTS = "tnsrhldcmfpgwbvkz"
_CONSONANTS_OFTEN = (9, 7, 6, 6, 5, 4, 4, 3, 3, 2, 2, 2, 2, 2, 1, 1, 1)
_VOWELS = "eaoiuy"
_VOWELS_OFTEN = (12, 8, 8, 7, 3, 1)
_DATES = ("00.00.0000", "'00 00 00", "00/00/0000", "00-00-00 00:00", "00 00 '00", "0000.00.00", "00:00", "0.00.00")
_SPACE, _SHIFT = ord(" "), ord("a") - ord("A")


def words(keys: Tensor, lines: int, most: int, length: Tensor) -> Tensor:
    """Lines of words that can be spoken: consonants and vowels in turn, now and then one twice; small, Large, or LARGE.

    Args:
        keys: int64[B].
        lines: of each.
        most: letters in a line.
        length: of each line in letters, spaces included, float64[B, lines] or broadcast to it.

    Returns:
        int64[B, lines, most]: ASCII codes, 0 behind the end.
    """
    batch, shape = len(keys), (len(keys), lines, most)
    # a word ends after 3 to 10 letters: spaces stand where the lengths of words add up to
    ends = (4 + integers(keys, 0, 0, 6, lines * most).reshape(shape)).cumsum(2) - 1
    spaces = torch.zeros(batch, lines, most + 1, dtype=torch.bool)
    spaces.scatter_(2, ends.clamp(max=most), True)
    spaces = spaces[..., :most]
    first = torch.cat([torch.ones_like(spaces[..., :1]), spaces[..., :-1]], 2)
    # one letter in eight is of the sort of the one before
    sort = (1 + (uniform(keys, 1, lines * most).reshape(shape) > 0.12)).cumsum(2) % 2
    codes = torch.where(
        sort == 0,
        _taken(_CONSONANTS, _CONSONANTS_OFTEN, uniform(keys, 2, lines * most).reshape(shape)),
        _taken(_VOWELS, _VOWELS_OFTEN, uniform(keys, 3, lines * most).reshape(shape)),
    )
    case = uniform(keys, 4, lines)[..., None]
    codes = codes - _SHIFT * ((case < 0.3) | (first & (case < 0.75)))
    codes = torch.where(spaces, _SPACE, codes)
    codes[..., 0] = torch.where(uniform(keys, 5, lines) < 0.1, ord("@"), codes[..., 0])
    return codes * (torch.arange(most) < length.round()[..., None])


def dates(keys: Tensor, most: int) -> Tensor:
    """A date or a time for every key, in one of several habits, of digits that need not make one: int64[B, 1, most]."""
    habits = torch.tensor([[*map(ord, habit), *[0] * (most - len(habit))] for habit in _DATES])
    codes = habits[integers(keys, 0, 0, len(_DATES) - 1)]
    return torch.where(codes == ord("0"), codes + integers(keys, 1, 0, 9, most), codes)[:, None]


def _taken(letters: str, often: tuple[int, ...], drawn: Tensor) -> Tensor:
    """Letters by numbers in [0, 1): int64 of their codes, same shape."""
    bounds = torch.tensor(often, dtype=torch.float64).cumsum(0)
    place = torch.bucketize(drawn * bounds[-1], bounds, right=True)
    return torch.tensor([*map(ord, letters)])[place]
