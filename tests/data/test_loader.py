"""Batches in order: whoever prepares them, and wherever a run begins, a step sees the same."""

import warnings
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from restore.data import loader as module
from restore.data.build import open_source
from restore.data.config import DataConfig
from restore.data.layout import Layout
from restore.data.loader import Batch, BatchStream, Source, validation_batches
from restore.degradations import load_degradation
from restore.errors import RestoreError

CPU = torch.device("cpu")


def source(folder: Path, cache: str, device: torch.device = CPU) -> Source:
    config = DataConfig(folders=[folder], patch=32, scale=(0.5, 1), rotate=True, validation_percent=20, cache=cache)
    return open_source(config, load_degradation("mixed"), multiple=4, device=device, on_event=lambda line: None)[0]


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("damaged", "mask", "clean", "keys"))


def test_all_caches_give_the_same_batches_bit_for_bit(folder: Path) -> None:
    sources = [source(folder, cache) for cache in ("device", "memory", "none")]
    for step in (0, 1, 77):
        first, *others = [s.batch(9, step, 4) for s in sources]
        assert first.damaged.shape == first.clean.shape == (4, 3, 32, 32)
        assert all(same(first, other) for other in others)


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_a_stream_gives_the_steps_in_order_wherever_it_starts(folder: Path, cache: str) -> None:
    pictures = source(folder, cache)
    for start in (0, 3):
        with BatchStream(pictures, seed=4, start=start, count=3) as stream:
            for step in range(start, start + 5):
                assert same(next(stream), pictures.batch(4, step, 3)), step


def test_validation_set_shares_no_memory_with_images_that_are_read_only() -> None:
    image = np.full((8, 8, 3), 128, np.uint8)
    image.setflags(write=False)
    torch.set_warn_always(True)  # else PyTorch warns about such an array once for each process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (batch,) = validation_batches(["x"], [image], 8, 4, None, CPU, Layout())
    finally:
        torch.set_warn_always(False)
    assert batch.clean.shape == (1, 3, 8, 8)


def test_steps_damaged_together_are_the_same_steps(folder: Path) -> None:
    pictures = source(folder, "memory")
    together = pictures.start(4, range(3), 2)()
    assert all(same(batch, pictures.batch(4, step, 2)) for step, batch in enumerate(together))


def test_a_stream_that_prepares_several_steps_per_group_groups_them_by_number(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = source(folder, "memory")
    groups: list[list[int]] = []
    start = pictures.start

    def noted(seed: int, steps: Sequence[int], *rest: int) -> object:
        groups.append(list(steps))
        return start(seed, steps, *rest)

    monkeypatch.setattr(pictures, "start", noted)
    monkeypatch.setattr(module, "steps_per_group", lambda source, count: 4)
    with BatchStream(pictures, seed=4, start=6, count=2) as stream:
        for step in range(6, 13):
            assert same(next(stream), source(folder, "memory").batch(4, step, 2)), step
    assert groups == [[4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]


def test_two_processes_see_the_two_halves_of_a_step(folder: Path) -> None:
    pictures = source(folder, "memory")
    whole = pictures.batch(0, 7, 4)
    for rank, half in enumerate(whole.parts(2)):
        with BatchStream(pictures, seed=0, start=7, count=2, first=2 * rank) as stream:
            assert same(next(stream), half)


def test_parts_must_be_equal(folder: Path) -> None:
    with pytest.raises(ValueError, match="3 parts"):
        source(folder, "memory").batch(0, 0, 4).parts(3)


def test_files_are_asked_for_ahead_but_not_without_end(folder: Path) -> None:
    pictures = source(folder, "none")
    asked: list[int] = []
    start = pictures.store.start

    def counted(spec: object) -> object:
        asked.append(1)
        return start(spec)  # type: ignore[arg-type]

    pictures.store.start = counted  # type: ignore[assignment,method-assign]
    with BatchStream(pictures, seed=0, start=0, count=2) as stream:
        for _ in range(5):
            next(stream)
    assert 7 <= len(asked) <= 5 + 2 + 2 * pictures.store.threads


def test_an_error_of_a_reader_reaches_the_step(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    pictures = source(tmp_path, "none")
    with BatchStream(pictures, seed=0, start=0, count=4) as stream:
        next(stream)
        for file in tmp_path.iterdir():
            file.unlink()
        with pytest.raises(RestoreError, match="was readable when training began"):
            deque(stream, maxlen=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("cache", ["device", "memory", "none"])
def test_on_a_gpu_a_step_sees_the_same_wherever_the_stream_starts(folder: Path, cache: str) -> None:
    pictures = source(folder, cache, torch.device("cuda", 0))
    with BatchStream(pictures, seed=4, start=0, count=3) as stream:
        all_steps = [next(stream) for _ in range(25)]
    with BatchStream(pictures, seed=4, start=5, count=3) as stream:
        assert all(same(next(stream), batch) for batch in all_steps[5:])
    on_cpu = source(folder, "memory")
    for step in (0, 20):
        assert torch.allclose(all_steps[step].clean.cpu(), on_cpu.batch(4, step, 3).clean, atol=1e-3)
