"""Batches of images of two kinds that belong to no pairs, for CycleGAN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from restore.data.build import open_source
from restore.data.cache import CropStore
from restore.data.config import DataConfig, ValidationData
from restore.data.discovery import list_images
from restore.data.loader import Batch, Source
from restore.degradations import Degradation
from restore.errors import RestoreError
from restore.files import digest_of_names
from restore.hashed_random import key

_B = 11  # part of the seed of images of B, which are drawn independently of those of A


class UnpairedSource(Source):
    """Makes batches whose `damaged` images are of A, and whose `clean` images are of B.

    `damage` makes their `degraded` images, of those of B; None: they have none.
    """

    def __init__(self, a: Source, b: Source, damage: Degradation | None) -> None:
        super().__init__(a.store, a.plan, damage, digest_of_names([a.fingerprint, b.fingerprint]), a.layout)
        self._b = b.store

    @property
    def stores(self) -> tuple[CropStore, ...]:
        """See `Source.stores`."""
        return self.store, self._b

    def start(self, seed: int, steps: Sequence[int], count: int, first: int = 0) -> Callable[[], list[Batch]]:
        """See `Source.start`."""
        a, b = (
            Source(store, self.plan, damage, layout=self.layout).start(seeded, steps, count, first)
            for store, damage, seeded in ((self.store, None, seed), (self._b, self.damage, key(seed, _B)))
        )
        return lambda: [_joined(of_a, of_b, self.damage) for of_a, of_b in zip(a(), b())]


def _joined(a: Batch, b: Batch, damage: Degradation | None) -> Batch:
    return replace(a, clean=b.clean, degraded=None if damage is None else b.damaged)


def open_unpaired(
    config: DataConfig, damage: Degradation | None, *, expected: str | None, on_event: Callable[[str], None], **how: Any
) -> tuple[Source, list[Batch]]:
    """As `open_source`, for `data.a` and `data.b`.

    A validation batch has an image of A (`damaged`) and one of B (`clean`): its truth, if `validation` names pairs.
    `damage` degrades images of B, in training alone.
    """

    def opened(name: str, update: dict[str, Any]) -> tuple[Source, list[Batch]]:
        side = config.model_copy(update={"a": (), "b": (), **update})
        return open_source(side, None, on_event=lambda line: on_event(f"{name}: {line}"), **how)

    for folder in (*config.a, *config.b):  # before the first image is read
        list_images(folder.path, hint="set data.a=FOLDER and data.b=FOLDER to your two kinds of images")
    source_a, validation = opened("a", {"folders": config.a})
    source_b, of_b = opened("b", {"folders": config.b, "validation": ValidationData()})
    source = UnpairedSource(source_a, source_b, damage)
    if expected is not None and source.fingerprint != expected:
        raise RestoreError(
            "this run started with other training images",
            hint="use another out=, or the same images; to change them on purpose, set resume.allow=[data.a, data.b]",
        )
    if config.validation.input is None:
        validation = [replace(a, clean=of_b[at % len(of_b)].clean) for at, a in enumerate(validation)]
    return source, validation
