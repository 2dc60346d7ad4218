"""Long lists in little memory."""

from __future__ import annotations

import pickle

import pytest

from restore.packed import BLOCK, Hashes, Names, Packed


@pytest.mark.parametrize("count", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 1])
def test_items_come_out_in_order_and_as_they_went_in(count: int) -> None:
    items = [(f"sub/\udcff{number}", None, True, ("a", ("b",))) for number in range(count)]
    packed = Packed(items)
    assert (len(packed), list(packed), list(packed)) == (count, items, items)
    assert list(pickle.loads(pickle.dumps(packed))) == items  # noqa: S301


def test_paths_take_a_tenth_of_their_length() -> None:
    names = [f"/archive/scans/box_{number // 1000:04}/scan_{number:07}.jpg" for number in range(20 * BLOCK)]
    assert len(pickle.dumps(Packed(names))) < sum(map(len, names)) / 10


def test_hashes_tell_what_may_be_equal() -> None:
    ones, others = Hashes(["a", "b", "a"]), Hashes(["c", "b"])
    assert ones.repeated() == {hash("a")}
    assert ones.shared(others) == {hash("b")}
    assert (Hashes().repeated(), Hashes().shared(ones)) == (set(), set())
    others.add("c")
    assert others.repeated() == {hash("c")}


@pytest.mark.parametrize("count", [0, 1, 2000])
def test_names_hold_what_they_were_given(count: int) -> None:
    """Also a digest that ends in zeros, as one of 256 does, and a name that is no Unicode."""
    names = [f"scan_{number}.png" for number in range(count)] + ["\udcff"]
    held = Names(names)
    assert len(held) == count + 1
    assert all(name in held for name in names)
    assert not any(f"{name}x" in held for name in names)
    assert "" not in Names([])
