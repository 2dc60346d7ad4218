import math

import torch

from restore.hashed_random import field_normal, field_uniform, fold_in, integers, key, keys, uniform


def test_python_integers_and_tensors_agree() -> None:
    assert keys(5, 7, last=range(20)).tolist() == [key(5, 7, i) for i in range(20)]
    assert keys(-5, last=[-1, 2**40]).tolist() == [key(-5, -1), key(-5, 2**40)]
    assert fold_in(torch.tensor([key(1, 2)]), 3).item() == key(1, 2, 3)


def test_the_hash_never_changes() -> None:
    # test sets, resumed runs and published numbers rest on it
    assert key(0) == 0
    assert key(1, 2, 3) == -5269371115085892475
    assert key(0, "a/b.png") == 9212151366684201621
    torch.testing.assert_close(
        uniform(torch.tensor([key(1, 2, 3)]), 4, 2)[0],
        torch.tensor([0.6052955923614137, 0.025556140228976454], dtype=torch.float64),
        rtol=0,
        atol=0,
    )


def test_different_parts_give_different_keys() -> None:
    found = {key(0, i, j) for i in range(30) for j in range(30)} | {
        key(0, f"{i}/{j}") for i in range(30) for j in range(30)
    }
    assert len(found) == 1800
    assert key(0, "ab", "c") != key(0, "a", "bc")


def test_uniform_numbers_are_uniform_and_independent() -> None:
    values = uniform(keys(3, last=range(400)), 0, 250)
    assert values.min() >= 0
    assert values.max() < 1
    counts = torch.histc(values.float(), 20, 0, 1)
    chi_squared = ((counts - 5000) ** 2 / 5000).sum().item()
    assert chi_squared < 43.8  # 99.9 % for 19 degrees of freedom
    neighbours = torch.corrcoef(torch.stack([values[:, :-1].flatten(), values[:, 1:].flatten()]))[0, 1]
    streams = torch.corrcoef(torch.stack([values.flatten(), uniform(keys(3, last=range(400)), 1, 250).flatten()]))[0, 1]
    assert abs(neighbours) < 4 / math.sqrt(1e5)
    assert abs(streams) < 4 / math.sqrt(1e5)


def test_integers_reach_both_ends() -> None:
    assert set(integers(keys(0, last=range(200)), 0, 3, 6).tolist()) == {3, 4, 5, 6}


def test_normal_fields_are_normal_and_white() -> None:
    field = field_normal(keys(1, last=range(4)), 0, (3, 128, 128), "cpu").double()
    assert abs(field.mean()) < 4 / math.sqrt(field.numel())
    assert abs(field.std() - 1) < 0.01
    assert abs((field**4).mean() - 3) < 0.1
    # share beyond one, two and three standard deviations
    for limit, share in ((1, 0.3173), (2, 0.0455), (3, 0.0027)):
        assert abs((field.abs() > limit).double().mean() - share) < 0.1 * share
    for shifted in (
        field[..., 1:] * field[..., :-1],
        field[..., 1:, :] * field[..., :-1, :],
        field[:, 1:] * field[:, :-1],
    ):
        assert abs(shifted.mean()) < 0.01


def test_a_field_is_the_same_in_any_batch_and_in_any_chunks(monkeypatch) -> None:
    from restore import hashed_random as random

    keys_ = keys(9, last=range(5))
    for make in (field_normal, field_uniform):
        for shape in ((3, 37, 53), (1, 1, 1)):
            whole = make(keys_, 2, shape, "cpu")
            assert whole.shape == (5, *shape)
            assert torch.equal(whole[3:4], make(keys_[3:4], 2, shape, "cpu"))
    with monkeypatch.context() as patch:
        patch.setattr(random, "_CHUNK", 100)
        chunked = field_normal(keys_, 2, (3, 37, 53), "cpu")
    torch.testing.assert_close(chunked, field_normal(keys_, 2, (3, 37, 53), "cpu"), rtol=0, atol=1e-6)
