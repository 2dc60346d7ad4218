"""A degradation: steps in order, with probabilities and choices, read from YAML and applied to batches by key.

clean_probability: 0.1            # this fraction of images stays clean
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from restore.config import Settings, build, find_config, read_yaml, rename_old_keys
from restore.degradations.base import Params, Probability, Step
from restore.degradations.inpainting_masks import Holes
from restore.degradations.jpeg import Jpeg
from restore.degradations.mask_files import MaskFiles
from restore.degradations.registry import STEPS
from restore.devices import to_device
from restore.errors import RestoreError
from restore.files import digest_of_names
from restore.hashed_random import bernoulli, fold_in, uniform


class Degradation:
    """A named chain of steps: `sample` draws parameters by key, `apply` degrades the pixels.

    Attributes:
        name: name in reports: that of the config, or one from the caller.
        has_mask: at least one step covers pixels, so the mask may be non-zero.
        needs_names: a step needs the names of the images.
        only_holes: every step cuts holes, so pixels outside the mask are unchanged and a repair needs the mask.
        fingerprint: of the files that steps choose from; see `restore.files.digest_of_names`.
    """

    def __init__(self, name: str, node: _Node) -> None:
        self.name = name
        self._node = node
        self.has_mask = any(step.has_mask for step in _steps_of(node))
        self.only_holes = all(isinstance(step, Holes) for step in _steps_of(node))
        self.needs_names = any(isinstance(step, MaskFiles) and step.paired for step in _steps_of(node))
        self.fingerprint = digest_of_names(file for step in _steps_of(node) for file in step.files())

    def sample(self, keys: Tensor, size: tuple[int, int], names: Sequence[str] | None = None) -> SampledDegradation:
        """Draw the steps and parameters of each image.

        Args:
            keys: int64[B] on the CPU, one per image, from `hashed_random.key` or `hashed_random.keys`.
            size: (height, width) of the images.
            names: of the images, without suffix; for steps that look for a file of each image (`needs_names`).

        Raises:
            RestoreError: exit code 1; an image has no such file.
        """
        steps: list[SampledStep] = []
        with _single_threaded():
            _sample(self._node, keys, torch.arange(len(keys)), size, names, steps)
        return SampledDegradation(len(keys), size, tuple(steps))

    @torch.no_grad()
    def apply(self, clean: Tensor, sampled: SampledDegradation) -> tuple[Tensor, Tensor]:
        """Degrade a batch; the result for an image depends on its own key and pixels only.

        Args:
            clean: float32, B×3×H×W, [0, 1], sRGB, any device. Not changed. Or B×1×H×W: gray, where what a step does
                to the green channel of three equal ones happens.
            sampled: from `sample` for the same number of images of this size.

        Returns:
            degraded: float32, of the shape of `clean`; leaves [0, 1] only if a step has `clip: false`.
            mask: float32, B×1×H×W, 1 = covered; all zero if no step covers pixels.

        Raises:
            ValueError: the batch has another number of images or another size than `sampled`.
        """
        if (clean.shape[0], *clean.shape[-2:]) != (sampled.count, *sampled.size):
            raise ValueError(f"sampled for {sampled.count} images of {sampled.size}, got {tuple(clean.shape)}")
        # Autocast would run sums in bf16, whose resolution near 1 is 1/256.
        with torch.autocast(clean.device.type, enabled=False):
            image = clean.to(torch.float32)
            if clean.device.type != "cpu":
                return _apply(image, sampled)
            # One image at a time and in one thread: PyTorch computes the last few elements of a tensor, and of each
            # thread's share of it, with other instructions than the rest, so the last bits of an image would depend
            # on its position in the batch and on the number of threads.
            with _single_threaded():
                parts = [_apply(image[i : i + 1], sampled.for_image(i)) for i in range(sampled.count)]
            return torch.cat([degraded for degraded, _ in parts]), torch.cat([mask for _, mask in parts])

    def __call__(self, clean: Tensor, keys: Tensor, names: Sequence[str] | None = None) -> tuple[Tensor, Tensor]:
        """`sample` and `apply` in one."""
        return self.apply(clean, self.sample(keys, (clean.shape[-2], clean.shape[-1]), names))

    def with_tensor_jpeg(self) -> Degradation:
        """The same, but JPEG runs on tensors on every device, as in earlier releases (`Jpeg.implementation`)."""
        return Degradation(self.name, _with_tensor_jpeg(self._node))


@dataclass(frozen=True)
class SampledStep:
    """One step for a batch: the images that it applies to (int64[n], ascending), and its parameters for them."""

    step: Step
    index: Tensor
    params: Params


@dataclass(frozen=True)
class SampledDegradation:
    """The sampled steps of a batch, in order. Small, on the CPU."""

    count: int
    size: tuple[int, int]
    steps: tuple[SampledStep, ...]

    def for_image(self, i: int) -> SampledDegradation:
        """The steps of image `i`, as a batch of one."""
        steps = []
        for sampled in self.steps:
            row = (sampled.index == i).nonzero()[:, 0]
            if len(row):
                params = {name: value[row] for name, value in sampled.params.items()}
                steps.append(SampledStep(sampled.step, torch.zeros(1, dtype=torch.int64), params))
        return SampledDegradation(1, self.size, tuple(steps))


def load_degradation(name_or_path: str | Path) -> Degradation:
    """A degradation by the name of a shipped config, by the path of a YAML file, or by that of a folder of masks.

    Raises:
        RestoreError: no such config, or it is invalid; the message names the first wrong key and the nearest known one.
    """
    if str(name_or_path).endswith(("/", "\\")) or (len(Path(name_or_path).parts) > 1 and Path(name_or_path).is_dir()):
        folder = Path(name_or_path)
        return degradation_from([{"name": "masks", "folder": str(folder)}], folder, name=folder.name)
    path = find_config(name_or_path, "damage")
    return degradation_from(read_yaml(path), path, name=path.stem)


def degradation_from(values: Any, where: str | Path, *, name: str | None = None) -> Degradation:
    """A degradation from plain values: a mapping with `steps`, a list of steps, or the name of a shipped config.

    Args:
        values: as parsed from YAML.
        where: the file or key that the values come from, for error messages.
        name: name of the degradation; None: `where`.

    Raises:
        RestoreError: as `load_degradation`.
    """
    if isinstance(values, str):
        return load_degradation(values)
    if isinstance(values, list):
        values = {"steps": values}
    top = build(_Top, values, where=where)
    node = _branch(top.steps, str(where), "steps", 1 - top.clean_probability, 1.0, in_order=True)
    return Degradation(name or str(where), node)


def rename_old_step_keys(values: Any, *, where: str | Path, warn: bool = True) -> Any:
    """The plain values of a degradation, with the old names of step keys replaced (see `Settings.RENAMED`)."""
    if isinstance(values, list):
        return [rename_old_step_keys(part, where=where, warn=warn) for part in values]
    if not isinstance(values, Mapping):
        return values
    kind = STEPS.get(str(values.get("name")))
    if kind is not None:
        return rename_old_keys(kind, values, where=where, warn=warn)
    return {key: rename_old_step_keys(value, where=where, warn=warn) for key, value in values.items()}


# Reading a config into a tree of nodes.


class _Top(Settings):
    steps: Annotated[list[Any], Field(min_length=1)]
    clean_probability: Probability = 0.0


class _Group(Settings):
    steps: Annotated[list[Any], Field(min_length=1)]
    probability: Probability = 1.0
    weight: Annotated[float, Field(gt=0)] = 1.0


class _Choice(Settings):
    one_of: Annotated[list[Any], Field(min_length=2)]
    probability: Probability = 1.0
    weight: Annotated[float, Field(gt=0)] = 1.0


@dataclass(frozen=True)
class _Node:
    """A step (a leaf), or parts that all apply in order (`in_order`), or parts of which one is chosen by weight."""

    probability: float
    weight: float
    step: Step | None = None
    parts: tuple[_Node, ...] = ()
    in_order: bool = True


def _branch(parts: list[Any], where: str, at: str, probability: float, weight: float, *, in_order: bool) -> _Node:
    nodes = tuple(_node(part, where, f"{at}.{i}", in_choice=not in_order) for i, part in enumerate(parts))
    return _Node(probability, weight, parts=nodes, in_order=in_order)


def _node(values: Any, where: str, at: str, *, in_choice: bool) -> _Node:
    place = f"{where}: {at}"
    if not isinstance(values, Mapping):
        raise RestoreError("a step must be a mapping, such as {name: noise, sigma: [0, 50]}", where=place)
    if "weight" in values and not in_choice:
        raise RestoreError("`weight` only applies inside `one_of`", where=place, hint="use `probability`")
    if "one_of" in values:
        choice = build(_Choice, values, where=place)
        return _branch(choice.one_of, where, f"{at}.one_of", choice.probability, choice.weight, in_order=False)
    if "steps" in values:
        group = build(_Group, values, where=place)
        return _branch(group.steps, where, f"{at}.steps", group.probability, group.weight, in_order=True)
    name = values.get("name")
    if name is None:
        raise RestoreError("the step has no `name`", where=place, hint=f"known: {', '.join(STEPS)}")
    if name not in STEPS:
        near = difflib.get_close_matches(str(name), list(STEPS), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise RestoreError(f"unknown step {name!r}", where=place, hint=f"{hint}known: {', '.join(STEPS)}")
    step = build(STEPS[name], values, where=f"{place} ({name})")
    return _Node(step.probability, step.weight, step=step)


def _with_tensor_jpeg(node: _Node) -> _Node:
    if isinstance(node.step, Jpeg):
        return replace(node, step=node.step.model_copy(update={"implementation": "tensor"}))
    return replace(node, parts=tuple(map(_with_tensor_jpeg, node.parts)))


def _steps_of(node: _Node) -> list[Step]:
    return [node.step] if node.step is not None else [step for part in node.parts for step in _steps_of(part)]


# Sampling and applying the tree.


def _sample(
    node: _Node,
    keys: Tensor,
    index: Tensor,
    size: tuple[int, int],
    names: Sequence[str] | None,
    steps: list[SampledStep],
) -> None:
    """Append to `steps` the steps of `node` for the images `index` of the batch, whose keys are `keys`.

    Every node derives its keys from its parent's: 0 decides whether the node applies, 1 draws the parameters or the
    choice, 2 and up belong to its parts. So a change in one part does not affect the random numbers of the others.
    """
    happens = bernoulli(fold_in(keys, 0), 0, node.probability)
    keys, index = keys[happens], index[happens]
    if not len(index):
        return
    if node.step is not None:
        if isinstance(node.step, MaskFiles) and node.step.paired:
            if names is None:
                raise RestoreError("paired masks need the names of the images", where="masks", hint="set paired: false")
            params = node.step.sample_named([names[i] for i in index.tolist()], size)
        else:
            params = node.step.sample(fold_in(keys, 1), size)
        steps.append(SampledStep(node.step, index, params))
    elif node.in_order:
        for i, part in enumerate(node.parts):
            _sample(part, fold_in(keys, 2 + i), index, size, names, steps)
    else:
        bounds = torch.tensor([part.weight for part in node.parts], dtype=torch.float64).cumsum(0)
        drawn = uniform(fold_in(keys, 1), 0, 1) * bounds[-1]
        choice = (drawn >= bounds[:-1]).sum(1)
        for i, part in enumerate(node.parts):
            chosen = choice == i
            _sample(part, fold_in(keys[chosen], 2 + i), index[chosen], size, names, steps)


def _apply(image: Tensor, sampled: SampledDegradation) -> tuple[Tensor, Tensor]:
    clean = image
    mask = image.new_zeros(image.shape[0], 1, *image.shape[-2:])
    for step in sampled.steps:
        if len(step.index) == sampled.count:  # the step applies to the whole batch: no gather and scatter
            image, covered = _apply_step(step, image)
            mask = mask if covered is None else torch.maximum(mask, covered)
            continue
        index = to_device(step.index, image.device)
        part, covered = _apply_step(step, image.index_select(0, index))
        image = image.index_copy(0, index, part)
        if covered is not None:
            mask = mask.index_copy(0, index, torch.maximum(mask.index_select(0, index), covered))
    return (image.clone() if image is clean else image), mask


def _apply_step(step: SampledStep, image: Tensor) -> tuple[Tensor, Tensor | None]:
    if image.shape[1] == 3:
        return step.step.apply(image, step.params)
    # Not the mean of the channels: it would lower noise that differs between them.
    degraded, covered = step.step.apply(image.repeat(1, 3, 1, 1), step.params)
    return degraded[:, 1:2], covered


@contextmanager
def _single_threaded() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
