"""Masks in the database: what operations change, undo, redo, and what a restart finds."""

import time
from pathlib import Path

import numpy as np
import pytest

from restore.serve.page import strokes
from restore.serve.page.database import Database
from restore.serve.page.mask_store import MaskStore
from restore.serve.page.tiles import Box, level_sizes

SIZE = (1300, 1100)
WHOLE = Box(0, 0, *SIZE)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return with_file(tmp_path / "work.db")


def with_file(path: Path) -> Database:
    database = Database(path)
    database.run("INSERT OR IGNORE INTO files (id, name, stamp) VALUES (1, 'a.png', '')")
    database.run("INSERT OR IGNORE INTO files (id, name, stamp) VALUES (2, 'b.png', '')")
    return database


def paint(store: MaskStore, x: float, y: float, r: float = 20, *, erase: bool = False, file: int = 1) -> object:
    coverage = strokes.stroke([(x, y, r), (x + 200, y + 150, r)], 0.5, *SIZE)
    return store.paint(file, "stroke", coverage, SIZE, erase=erase)


def test_a_new_mask_is_empty(database: Database) -> None:
    state = MaskStore(database).state(1)
    assert (state.empty, state.undo, state.redo) == (True, 0, 0)
    assert not MaskStore(database).read(1, WHOLE, SIZE).any()
    assert MaskStore(database).box(1, SIZE) is None


def test_every_state_comes_back_by_undo_and_redo(database: Database) -> None:
    store = MaskStore(database)
    states = [store.read(1, WHOLE, SIZE)]
    steps = [
        lambda: paint(store, 400, 400),
        lambda: paint(store, 900, 800, 60),
        lambda: store.invert(1, SIZE),
        lambda: paint(store, 450, 420, 30, erase=True),
        lambda: store.grow(1, -3, SIZE),
        lambda: store.grow(1, 12, SIZE),
        lambda: store.clear(1, SIZE),
        lambda: store.replace(1, "load", np.full((SIZE[1], SIZE[0]), 77, np.uint8)),
    ]
    revisions = {store.state(1).revision}
    for step in steps:
        revisions.add(step().revision)
        states.append(store.read(1, WHOLE, SIZE))
    assert len({state.tobytes() for state in states}) == len(states) - 1  # cleared is empty, as at first
    for number in range(len(steps) - 1, -1, -1):
        change, _ = store.undo(1)
        revisions.add(change.revision)
        assert (change.undo, change.redo) == (number, len(steps) - number)
        assert np.array_equal(store.read(1, WHOLE, SIZE), states[number])
    assert store.undo(1)[0].tiles == []
    for number in range(1, len(steps) + 1):
        revisions.add(store.redo(1)[0].revision)
        assert np.array_equal(store.read(1, WHOLE, SIZE), states[number])
    assert store.redo(1)[0].tiles == []
    assert len(revisions) == 1 + 3 * len(steps)


def test_a_new_operation_takes_the_place_of_what_was_undone(database: Database) -> None:
    store = MaskStore(database)
    paint(store, 100, 100)
    paint(store, 500, 500)
    store.undo(1)
    change = paint(store, 800, 300)
    assert (change.undo, change.redo) == (2, 0)
    assert store.redo(1)[0].tiles == []
    used = database.number("SELECT count(DISTINCT after) FROM operation_tiles")
    assert database.number("SELECT count(*) FROM tiles") == used  # nothing is left of the one that was undone


def test_a_stroke_that_changes_nothing_is_no_operation(database: Database) -> None:
    store = MaskStore(database)
    paint(store, 100, 100)
    assert paint(store, 100, 100).undo == 1
    assert paint(store, 700, 700, erase=True).undo == 1


def test_a_change_names_its_tiles_and_all_others_stay(database: Database) -> None:
    store = MaskStore(database)
    coverage = strokes.stroke([(515, 100, 20)], 0, *SIZE)
    change = store.paint(1, "stroke", coverage, SIZE, erase=False)
    assert sorted(change.tiles) == [(0, 0), (1, 0)]
    assert not change.empty
    assert store.box(1, SIZE) == Box(495, 80, 535, 120)
    assert store.is_empty(2)


def test_reduced_tiles_are_maxima_and_follow_changes(database: Database) -> None:
    store = MaskStore(database)
    sizes = level_sizes(*SIZE)
    assert sizes == [(1300, 1100), (650, 550), (325, 275)]

    def by_hand(level: int) -> np.ndarray:
        mask = store.read(1, WHOLE, SIZE)
        for _ in range(level):
            mask = np.pad(mask, ((0, mask.shape[0] % 2), (0, mask.shape[1] % 2)))
            mask = mask.reshape(mask.shape[0] // 2, 2, mask.shape[1] // 2, 2).max((1, 3))
        return mask

    for step in (
        lambda: paint(store, 400, 400), lambda: paint(store, 1200, 1000), lambda: store.undo(1),
        lambda: store.invert(1, SIZE), lambda: store.clear(1, SIZE),
    ):  # fmt: skip
        step()
        tile = store.reduced(1, 2, 0, 0, SIZE)
        assert np.array_equal(np.zeros((275, 325)) if tile is None else tile, by_hand(2))
        corner = store.reduced(1, 1, 1, 1, SIZE)
        expected = by_hand(1)[512:, 512:]
        assert np.array_equal(np.zeros_like(expected) if corner is None else corner, expected)
    assert store.reduced(1, 2, 0, 0, SIZE) is None
    assert store.reduced(1, 9, 0, 0, SIZE) is None


def test_masks_and_their_history_outlive_a_restart(tmp_path: Path) -> None:
    database = with_file(tmp_path / "work.db")
    store = MaskStore(database)
    paint(store, 100, 100)
    before = store.read(1, WHOLE, SIZE)
    paint(store, 500, 500)
    after = store.read(1, WHOLE, SIZE)
    store.undo(1)
    database.close()
    store = MaskStore(Database(tmp_path / "work.db"))
    assert np.array_equal(store.read(1, WHOLE, SIZE), before)
    store.redo(1)
    assert np.array_equal(store.read(1, WHOLE, SIZE), after)
    store.undo(1)
    store.undo(1)
    assert store.is_empty(1)


def test_an_operation_that_fails_leaves_no_trace(database: Database) -> None:
    store = MaskStore(database)
    paint(store, 100, 100)
    state = store.read(1, WHOLE, SIZE)

    def fails(before: np.ndarray, x: int, y: int) -> np.ndarray:
        if (x, y) == (1, 1):
            raise ValueError("no")
        return before + 1

    with pytest.raises(ValueError, match="no"):
        store.change(1, "broken", [(0, 0), (1, 1)], fails, SIZE)
    assert np.array_equal(store.read(1, WHOLE, SIZE), state)
    assert store.state(1).undo == 1


def test_undoing_in_100_megapixels_takes_less_than_100_ms(database: Database) -> None:
    size = (12000, 8400)
    store = MaskStore(database)
    generator = np.random.default_rng(0)
    noise = np.tile(generator.integers(0, 256, (512, 32), np.uint8), 16)
    store.change(1, "noise", Box(0, 0, *size).tiles(), lambda old, x, y: noise[: old.shape[0], : old.shape[1]], size)
    store.invert(1, size)
    taken = []
    for step in (store.undo, store.redo, store.undo, store.redo):
        start = time.perf_counter()
        step(1)
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.1


@pytest.mark.parametrize("level", [0, 1, 2])
def test_tiles_that_are_empty_or_full_are_told(database: Database, level: int) -> None:
    store = MaskStore(database)
    change = paint(store, 600, 300)
    store.paint(1, "found", {(2, 2): np.full((76, 276), 255, np.uint8)}, SIZE, erase=False)
    for _ in range(2):
        places = [(x, y) for x in range(3) for y in range(3)]
        told = {(x, y): value for _, x, y, value in store.even_tiles(1, level, places, SIZE)}
        for x, y in {(x >> level, y >> level) for x, y in places}:
            pixels = store.reduced(1, level, x, y, SIZE)
            whole = store.read(1, Box(*(512 * 2**level * at for at in (x, y, x + 1, y + 1))), SIZE)
            expected = 0 if pixels is None else 255 if (whole == 255).all() else None
            assert told.get((x, y)) == expected, (x, y)
        assert set(told) <= {(x >> level, y >> level) for x, y in places}
        store.invert(1, SIZE)
    assert change.even == []  # type: ignore[attr-defined]
