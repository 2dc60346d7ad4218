"""A damage: steps in order, with probabilities and choices, read from YAML and applied to batches by key.

clean_probability: 0.1            # this share of the pictures is left as it is
steps:
  - {name: blur, probability: 0.3, sigma: [0.3, 1.5]}
  - one_of:                       # one of these, by weight
      - {name: noise, weight: 2, sigma: [0, 50]}
      - steps:                    # several in order, as one choice
          - {name: noise, sigma: [5, 20], correlation: [0.5, 1]}
          - {name: quantize}
    probability: 0.8
  - {name: jpeg, quality: [10, 95]}
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from restore.config import Settings, build, find_config, read_yaml, rename_old_keys
from restore.degradations.base import Params, Share, Step
from restore.degradations.blur import Blur, MotionBlur
from restore.degradations.color import Fade, Grayscale
from restore.degradations.crack import Crack
from restore.degradations.fold import Fold
from restore.degradations.inpainting_masks import Blobs, Border, Boxes, Holes, Strokes
from restore.degradations.jpeg import Jpeg
from restore.degradations.noise import Noise, Quantize
from restore.degradations.resize import Downscale
from restore.degradations.scratch import Dust, Hair, Scratch
from restore.degradations.stain import Stain
from restore.degradations.tear import Tear
from restore.degradations.text import Text
from restore.devices import to_device
from restore.errors import RestoreError
from restore.hashed_random import bernoulli, fold_in, uniform

STEPS: dict[str, type[Step]] = {
    "strokes": Strokes,
    "boxes": Boxes,
    "blobs": Blobs,
    "border": Border,
    "text": Text,
    "noise": Noise,
    "quantize": Quantize,
    "blur": Blur,
    "motion-blur": MotionBlur,
    "jpeg": Jpeg,
    "downscale": Downscale,
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


class _Group(Settings):
    steps: Annotated[list[Any], Field(min_length=1)]
    probability: Share = 1.0
    weight: Annotated[float, Field(gt=0)] = 1.0


class _Choice(Settings):
    one_of: Annotated[list[Any], Field(min_length=2)]
    probability: Share = 1.0
    weight: Annotated[float, Field(gt=0)] = 1.0


class _Top(Settings):
    steps: Annotated[list[Any], Field(min_length=1)]
    clean_probability: Share = 0.0


@dataclass(frozen=True)
class _Node:
    """A step, or several in order (`in_order`), or a choice among several."""

    probability: float
    weight: float
    step: Step | None = None
    parts: tuple[_Node, ...] = ()
    in_order: bool = True


@dataclass(frozen=True)
class Application:
    """One step as it falls upon a batch: which pictures (int64[n], rising), and its parameters for these."""

    step: Step
    index: Tensor
    params: Params


@dataclass(frozen=True)
class Sampled:
    """What will happen to a batch: the steps in order. Small, on the CPU."""

    count: int
    size: tuple[int, int]
    applications: tuple[Application, ...]

    def of_picture(self, i: int) -> Sampled:
        """What will happen to picture `i` of the batch, as a batch of one."""
        mine = []
        for it in self.applications:
            at = (it.index == i).nonzero()[:, 0]
            if len(at):
                mine.append(Application(it.step, torch.zeros(1, dtype=torch.int64), _rows(it.params, at)))
        return Sampled(1, self.size, tuple(mine))


class Damage:
    """A named degradation: `sample` draws parameters by key, `apply` damages the pixels.

    Attributes:
        name: for reports: the config's name, or what the caller says.
        hides: some step hides pixels, so the mask means something.
        only_holes: every step cuts holes: known pixels are as they were, and without the mask nothing can be repaired.
    """

    def __init__(self, name: str, node: _Node) -> None:
        self.name = name
        self._node = node
        self.hides = any(step.marks for step in _steps_of(node))
        self.only_holes = all(isinstance(step, Holes) for step in _steps_of(node))

    def sample(self, keys: Tensor, size: tuple[int, int]) -> Sampled:
        """Draw what happens to each picture.

        Args:
            keys: int64[B] on the CPU, one per picture, as `random.key` and `random.keys` make them.
            size: (height, width) of the pictures.
        """
        applications: list[Application] = []
        with _one_thread():
            _sample(self._node, keys, torch.arange(len(keys)), size, applications)
        return Sampled(len(keys), size, tuple(applications))

    @torch.no_grad()
    def apply(self, clean: Tensor, sampled: Sampled) -> tuple[Tensor, Tensor]:
        """Damage a batch; a picture's result depends on its own key and pixels alone.

        Args:
            clean: float32, B×3×H×W, [0, 1], sRGB, any device. Not changed.
            sampled: from `sample` for as many pictures of this size.

        Returns:
            damaged: float32, B×3×H×W; leaves [0, 1] only where a step says `clip: false`.
            mask: float32, B×1×H×W, 1 = hidden; all zero where nothing hides pixels.

        Raises:
            ValueError: the batch does not fit `sampled`.
        """
        if (clean.shape[0], *clean.shape[-2:]) != (sampled.count, *sampled.size):
            raise ValueError(f"sampled for {sampled.count} pictures of {sampled.size}, got {tuple(clean.shape)}")
        # autocast would run sums in bf16, whose step near 1 is 1/256
        with torch.autocast(clean.device.type, enabled=False):
            image = clean.to(torch.float32)
            if clean.device.type != "cpu":
                return _apply(image, sampled)
            # On the CPU one by one, in one thread: PyTorch computes the last few numbers of a tensor, and
            # of each thread's share of it, by other instructions than the rest, so that a picture's last
            # bits would depend on its place in the batch and on the number of threads.
            with _one_thread():
                parts = [_apply(one, sampled.of_picture(i)) for i, one in enumerate(image.split(1))]
            return torch.cat([damaged for damaged, _ in parts]), torch.cat([mask for _, mask in parts])

    def __call__(self, clean: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """`sample` and `apply` in one."""
        return self.apply(clean, self.sample(keys, (clean.shape[-2], clean.shape[-1])))


def load_damage(name_or_path: str | Path) -> Damage:
    """A damage by the name of a shipped config, or by the path of a YAML file.

    Raises:
        RestoreError: there is none, or it is wrong; the first wrong key is named, and the nearest known one.
    """
    path = find_config(name_or_path, "damage")
    return damage_from(read_yaml(path), path, name=path.stem)


def damage_from(values: Any, where: str | Path, *, name: str | None = None) -> Damage:
    """A damage from plain values: a mapping with `steps`, a list of steps, or the name of a shipped damage.

    Args:
        values: as YAML gives them.
        where: the file or key they stand in, for error messages.
        name: what to call it; None: `where`.

    Raises:
        RestoreError: as `load_damage`.
    """
    if isinstance(values, str):
        return load_damage(values)
    if isinstance(values, list):
        values = {"steps": values}
    top = build(_Top, values, where=where)
    node = _several(top.steps, str(where), "steps", 1 - top.clean_probability, 1.0, in_order=True)
    return Damage(name or str(where), node)


def rename_old_step_keys(values: Any, *, where: str | Path, warn: bool = True) -> Any:
    """The plain values of a damage, with the old names of step keys replaced (see `Settings.RENAMED`)."""
    if isinstance(values, list):
        return [rename_old_step_keys(part, where=where, warn=warn) for part in values]
    if not isinstance(values, Mapping):
        return values
    kind = STEPS.get(str(values.get("name")))
    if kind is not None:
        return rename_old_keys(kind, values, where=where, warn=warn)
    return {key: rename_old_step_keys(value, where=where, warn=warn) for key, value in values.items()}


def _several(parts: list[Any], where: str, at: str, probability: float, weight: float, *, in_order: bool) -> _Node:
    nodes = tuple(_node(part, where, f"{at}.{i}", in_choice=not in_order) for i, part in enumerate(parts))
    return _Node(probability, weight, parts=nodes, in_order=in_order)


def _node(values: Any, where: str, at: str, *, in_choice: bool) -> _Node:
    place = f"{where}: {at}"
    if not isinstance(values, Mapping):
        raise RestoreError("a step is a mapping, such as {name: noise, sigma: [0, 50]}", where=place)
    if "weight" in values and not in_choice:
        raise RestoreError("`weight` only means something inside `one_of`", where=place, hint="use `probability`")
    if "one_of" in values:
        choice = build(_Choice, values, where=place)
        return _several(choice.one_of, where, f"{at}.one_of", choice.probability, choice.weight, in_order=False)
    if "steps" in values:
        group = build(_Group, values, where=place)
        return _several(group.steps, where, f"{at}.steps", group.probability, group.weight, in_order=True)
    name = values.get("name")
    if name is None:
        raise RestoreError("a step needs a `name`", where=place, hint=f"known: {', '.join(STEPS)}")
    if name not in STEPS:
        near = difflib.get_close_matches(str(name), list(STEPS), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise RestoreError(f"unknown step {name!r}", where=place, hint=f"{hint}known: {', '.join(STEPS)}")
    step = build(STEPS[name], values, where=f"{place} ({name})")
    return _Node(step.probability, step.weight, step=step)


def _steps_of(node: _Node) -> list[Step]:
    return [node.step] if node.step is not None else [step for part in node.parts for step in _steps_of(part)]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _apply(image: Tensor, sampled: Sampled) -> tuple[Tensor, Tensor]:
    clean = image
    mask = image.new_zeros(image.shape[0], 1, *image.shape[-2:])
    for it in sampled.applications:
        if len(it.index) == sampled.count:
            image, marked = it.step.apply(image, it.params)
            mask = mask if marked is None else torch.maximum(mask, marked)
            continue
        index = to_device(it.index, image.device)
        part, marked = it.step.apply(image.index_select(0, index), it.params)
        image = image.index_copy(0, index, part)
        if marked is not None:
            mask = mask.index_copy(0, index, torch.maximum(mask.index_select(0, index), marked))
    return (image.clone() if image is clean else image), mask


def _rows(params: Params, at: Tensor) -> Params:
    return {name: value[at] for name, value in params.items()}


def _sample(node: _Node, keys: Tensor, index: Tensor, size: tuple[int, int], into: list[Application]) -> None:
    """Follow the tree for the pictures `index` of the batch, whose keys are `keys`."""
    happening = bernoulli(fold_in(keys, 0), 0, node.probability)
    keys, index = keys[happening], index[happening]
    if not len(index):
        return
    if node.step is not None:
        into.append(Application(node.step, index, node.step.sample(fold_in(keys, 1), size)))
    elif node.in_order:
        for i, part in enumerate(node.parts):
            _sample(part, fold_in(keys, 2 + i), index, size, into)
    else:
        shares = torch.tensor([part.weight for part in node.parts], dtype=torch.float64).cumsum(0)
        drawn = uniform(fold_in(keys, 1), 0, 1) * shares[-1]
        taken = (drawn >= shares[:-1]).sum(1)
        for i, part in enumerate(node.parts):
            mine = taken == i
            _sample(part, fold_in(keys[mine], 2 + i), index[mine], size, into)
