from pathlib import Path

import pytest
import torch

from restore.config import config_names, configs_dir
from restore.degradations import degradation_from, keys, load_degradation
from restore.degradations.pipeline import STEPS, _apply
from restore.errors import RestoreError

NAMED = config_names("damage")
PROMISED = {"inpaint-thin", "inpaint-medium", "inpaint-thick", "noise", "jpeg", "blur", "downscale"}
PROMISED |= {"inpaint-large", "inpaint-blobs", "inpaint-border", "inpaint-text"}
PROMISED |= {"scratch", "fade", "grayscale", "old-photo", "aged", "mixed", "print", "negative", "film"}


def pictures(count: int, height: int, width: int) -> torch.Tensor:
    """Of little contrast, so that marks are seen."""
    return 0.4 + 0.1 * torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_every_promised_damage_is_there() -> None:
    assert set(NAMED) >= PROMISED


@pytest.mark.parametrize("name", NAMED)
def test_a_named_damage_says_what_it_is(name: str) -> None:
    assert (configs_dir() / "damage" / f"{name}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize("size", [(37, 53), (1, 1), (8, 3)])
@pytest.mark.parametrize("name", NAMED)
def test_the_same_key_gives_the_same_bits_in_any_batch(name: str, size: tuple[int, int]) -> None:
    damage = load_degradation(name)
    clean, keys_ = pictures(6, *size), keys(4, last=range(6))
    before = clean.clone()
    damaged, mask = damage(clean, keys_)
    assert torch.equal(clean, before)
    assert damaged.shape == clean.shape
    assert mask.shape == (6, 1, *size)
    assert damaged.isfinite().all()
    assert 0 <= damaged.min() <= damaged.max() <= 1
    assert damage.has_mask or not mask.any()
    for some in (slice(0, 1), slice(2, 5), slice(5, 6)):
        again, again_mask = damage(clean[some], keys_[some])
        assert torch.equal(again, damaged[some])
        assert torch.equal(again_mask, mask[some])


@pytest.mark.parametrize("name", NAMED)
def test_a_whole_batch_at_once_as_on_a_gpu_gives_the_same_picture(name: str) -> None:
    damage = load_degradation(name)
    clean, keys_ = pictures(6, 40, 56), keys(4, last=range(6))
    sampled = damage.sample(keys_, (40, 56))
    damaged, mask = damage.apply(clean, sampled)
    at_once, mask_at_once = _apply(clean, sampled)
    # last bits differ, and now and then one of them decides a rounding of 8 bits or of a JPEG coefficient
    assert ((damaged - at_once).abs() > 1e-5).float().mean() < 1e-3
    assert (mask != mask_at_once).float().mean() < 1e-3


@pytest.mark.parametrize("name", NAMED)
def test_other_keys_give_other_damage(name: str) -> None:
    clean = pictures(1, 48, 48).expand(4, -1, -1, -1)
    damaged, _ = load_degradation(name)(clean, keys(11, last=range(4)))
    assert len({one.numpy().tobytes() for one in damaged}) >= 3


def test_threads_change_nothing() -> None:
    damage = load_degradation("old-photo")
    clean, keys_ = pictures(2, 200, 150), keys(0, last=range(2))
    first = damage(clean, keys_)[0]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(damage(clean, keys_)[0], first)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_probabilities_are_kept() -> None:
    steps = {
        "clean_probability": 0.2,
        "steps": [
            {"one_of": [{"name": "boxes", "fill": 0, "weight": 3}, {"name": "boxes", "fill": 1}], "probability": 0.5}
        ],
    }
    clean = torch.full((2000, 3, 8, 8), 0.5)
    damaged, mask = degradation_from(steps, "test")(clean, keys(0, last=range(2000)))
    happened = mask.flatten(1).any(1)
    assert happened.float().mean() == pytest.approx(0.8 * 0.5, abs=0.04)
    black = (damaged.flatten(1).amin(1) == 0)[happened].float().mean()
    assert black == pytest.approx(0.75, abs=0.05)


def test_steps_come_in_the_order_written() -> None:
    clean = torch.full((1, 3, 8, 8), 0.5)
    white_then_black = [{"name": "boxes", "fill": 1, "side": 512, "count": 1, "max_coverage": 0.5}]
    covered = degradation_from([*white_then_black, {"name": "blur", "sigma": 3}], "test")(clean, keys(0, last=[0]))[0]
    crisp = degradation_from([{"name": "blur", "sigma": 3}, *white_then_black], "test")(clean, keys(0, last=[0]))[0]
    assert len(crisp.unique()) == 2
    assert len(covered.unique()) > 2


def test_a_group_happens_as_a_whole() -> None:
    steps = [{"steps": [{"name": "fade"}, {"name": "quantize"}], "probability": 0.5}]
    clean = pictures(1, 8, 8).expand(40, -1, -1, -1)
    damaged, _ = degradation_from(steps, "test")(clean, keys(0, last=range(40)))
    for one, before in zip(damaged, clean):
        assert torch.equal(one, before) or torch.equal(one, (one * 255).round() / 255)


def test_a_batch_that_does_not_fit_is_refused() -> None:
    damage = load_degradation("noise")
    with pytest.raises(ValueError, match="sampled for 2 images"):
        damage.apply(pictures(3, 8, 8), damage.sample(keys(0, last=range(2)), (8, 8)))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([{"name": "nois"}], "did you mean 'noise'"),
        ([{"name": "noise", "sigm": 3}], "did you mean 'sigma'"),
        ([{"name": "noise", "sigma": [50, 0]}], "between 0 and 255"),
        ([{"name": "noise", "sigma": [0, 300]}], "between 0 and 255"),
        ([{"name": "noise", "sigma": "much"}], r"\[low, high\], or one number"),
        ([{"name": "jpeg", "quality": 0}], "between 1 and 100"),
        ([{"name": "jpeg", "quality": 10.5}], "whole numbers"),
        ([{"name": "noise", "probability": 2}], "probability = 2"),
        ([{"sigma": 3}], "has no `name`"),
        (["noise"], "a step must be a mapping"),
        ([], "steps"),
        ([{"name": "noise", "weight": 2}], "inside `one_of`"),
        ([{"one_of": [{"name": "noise"}, {"name": "jpeg", "qality": 3}]}], "did you mean 'quality'"),
        ({"steps": [{"name": "noise"}], "clean_probabilty": 0.1}, "did you mean 'clean_probability'"),
        ("inpaint-thinn", "did you mean 'inpaint-thin'"),
        (3, "a config must be a mapping"),
    ],
)
def test_a_wrong_config_gets_one_line_that_says_where(values: object, says: str) -> None:
    with pytest.raises(RestoreError, match=says) as caught:
        degradation_from(values, "my.yaml")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_damage_is_found_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("steps:\n  - {name: noise, sigma: 25}\n")
    assert load_degradation(path).name == "mine"
    path.write_text("steps:\n  - {name: noise, sigma: 25}\n  - {name: jpg}\n")
    with pytest.raises(RestoreError, match=r"mine\.yaml: steps\.1: unknown step 'jpg'"):
        load_degradation(path)


def test_every_step_has_its_own_name() -> None:
    assert all(kind.model_fields["name"].default == name for name, kind in STEPS.items())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"name": "jpeg", "halved_colour": 0.5, "shifted": 0.5},
         {"name": "jpeg", "chroma_subsampling_prob": 0.5, "misaligned_grid_prob": 0.5}),
        ({"name": "grayscale", "lean": 0.5}, {"name": "grayscale", "weight_jitter": 0.5}),
        ({"name": "dust", "with_picture": False}, {"name": "dust", "scale_with_image": False}),
        ({"name": "text", "min_share": 0.01, "max_share": 0.2}, {"name": "text", "min_coverage": 0.01,
                                                                 "max_coverage": 0.2}),
    ],
)  # fmt: skip
def test_the_old_names_of_settings_still_work(old: dict, new: dict) -> None:
    clean, keys_ = pictures(2, 40, 56), keys(4, last=range(2))
    for a, b in zip(degradation_from([old], "test")(clean, keys_), degradation_from([new], "test")(clean, keys_)):
        assert torch.equal(a, b)
