import numpy as np
import pytest
import torch
from skimage.measure import label

from restore.degradations import degradation_from, keys
from restore.degradations.crack import Crack
from tests.degradations.measure import drawn, ridge_widths, sampled

FLAT = torch.full((8, 3, 400, 400), 0.5)
ONE = {"name": "crack", "count": 1, "length": [200, 300], "width": 3, "scale_with_image": False}
#: One opaque bright crack and nothing else.
LONE = {**ONE, "length": 150, "opacity": 1, "bright": 1, "lit": 0, "branches": 0}
#: From top to bottom, a little less than 8 px wide.
LINE = [50.5, -50, 50.5, 150, 3.9, 3.9, 1]


def marked(step: dict, clean: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return degradation_from([step], "test")(clean, keys(seed, last=range(len(clean))))


def ends(mask: torch.Tensor) -> int:
    """Pieces into which a mask falls on a ring around its middle: 2 of a line, more of what branches."""
    y, x = mask.nonzero(as_tuple=True)
    yy, xx = torch.meshgrid(torch.arange(mask.shape[0]), torch.arange(mask.shape[1]), indexing="ij")
    distance = torch.hypot(yy - y.float().mean(), xx - x.float().mean())
    ring = (distance > 45) & (distance < 55)
    return int(label((mask * ring).numpy(), connectivity=2).max())


def test_cracks_branch_and_stay_in_one_piece() -> None:
    plain, branched = (marked({**ONE, "branches": n, "opacity": 1}, FLAT)[1][:, 0] for n in (0, 8))
    assert branched.sum() > 1.4 * plain.sum()
    assert sum(map(ends, branched)) > 1.5 * sum(map(ends, plain))
    for mask in branched:
        pieces = label(mask.numpy(), connectivity=2)
        largest = max((pieces == i).sum() for i in range(1, pieces.max() + 1))
        assert largest > 0.8 * mask.sum()  # what thins out to nothing breaks off at the very end


def test_cracks_are_thin() -> None:
    mask = marked({**ONE, "width": 2}, FLAT)[1]
    assert not (-torch.nn.functional.max_pool2d(-mask, 9, 1, 4)).any(1).sum() > 0.02 * mask.sum()


def test_a_dark_crack_has_a_lit_edge_and_a_bright_one_a_dark() -> None:
    for bright in (0, 1):
        change = (marked({**ONE, "bright": bright, "lit": 0.3}, FLAT)[0] - FLAT) * (1 if bright else -1)
        assert change.max() > 0.25
        assert -0.16 < change.min() < -0.02
        bare = (marked({**ONE, "bright": bright, "lit": 0}, FLAT)[0] - FLAT) * (1 if bright else -1)
        assert bare.min() == 0


def painted(segment: list[float], count: int = 8, **settings: object) -> tuple[torch.Tensor, ...]:
    """The one segment in the look of cracks on gray, 100×100: the image and the mask; the tones of crack and edge."""
    step = Crack(**{**LONE, **settings})
    params = step.sample(keys(7, last=range(count)), (100, 100))
    params["segments"] = torch.tensor(segment, dtype=torch.float64).expand(count, 1, 7)
    return *step.apply(torch.full((count, 3, 100, 100), 0.5), params), params["tones"].float()


@pytest.mark.parametrize("width", [6, 12])
def test_a_crack_is_as_wide_as_asked(width: int) -> None:
    """Of its width at its start: a crack tapers towards its end and is uneven, so that it is 0.7 as wide on average."""
    measured = []
    for one in drawn({**LONE, "width": width}, gray=0.5).mean(1).numpy() - 0.5:
        mask = one > 0.5 * one.max()
        if mask.sum() > 40 * width:
            measured.append(np.median(ridge_widths(mask)))
    assert len(measured) > 8
    assert np.mean(measured) == pytest.approx(0.7 * width, abs=0.07 * width)
    assert 2 * sampled({**LONE, "width": width}, 200)["segments"][:, 0, 4].mean() == pytest.approx(width, rel=0.05)


def test_a_crack_hides_the_image_as_much_as_asked_and_ends_sharply() -> None:
    tilted = [50.3, -50, 51.7, 150, 15, 15]
    for opacity in (0.5, 1):
        image, _, tones = painted([*tilted, opacity])
        cover = (image - 0.5) / (tones[:, 0, :, None, None] - 0.5) / opacity
        assert cover[..., 45:56].min().item() == pytest.approx(0.8, abs=0.01)  # grained
        assert cover.max().item() == pytest.approx(1, abs=0.01)
        assert cover.sum(3).mean().item() == pytest.approx(0.9 * 30, rel=0.02)
    rising = ((cover > 0.14) & (cover < 0.76)).sum(3) / 2
    assert rising.float().mean() < 1.3
    opacities = sampled({**LONE, "width": 5, "opacity": [0.4, 0.8]}, 300)["segments"][:, 0, 6]
    assert 0.4 <= opacities.min() < 0.43
    assert 0.77 < opacities.max() <= 0.8


def test_cracks_are_nearly_black_or_nearly_white() -> None:
    for bright, mean in ((0, 0.11), (1, 0.9)):
        tones = sampled({**LONE, "bright": bright}, 500)["tones"]
        assert tones[:, 0].mean().item() == pytest.approx(mean, abs=0.015)
        assert (tones.amax(2) - tones.amin(2)).max() <= 0.05
    level = sampled({**LONE, "bright": 0.3}, 1000)["tones"].mean(2)
    assert (level[:, 0] > level[:, 1]).double().mean().item() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("bright", [0, 1])
def test_the_lit_edge_is_two_pixels_wide_on_both_sides_and_as_strong_as_asked(bright: int) -> None:
    image, mask, tones = painted(LINE, bright=bright, lit=0.3)
    strength = (image - 0.5) / (tones[:, 1, :, None, None] - 0.5)
    assert strength.amax((1, 2, 3)).numpy() == pytest.approx(0.3, abs=0.01)
    for side in (slice(0, 51), slice(51, 100)):
        assert (strength[..., side] > 0.1).sum(3).float().mean().item() == pytest.approx(2, abs=0.3)
    assert mask.sum(3).mean().item() == pytest.approx(12, abs=0.3)
    assert painted(LINE, bright=bright, lit=0)[1].sum(3).mean().item() == pytest.approx(8, abs=0.3)


@pytest.mark.parametrize(("branches", "paths"), [(0, 1), (1, 1.37), (3, 2.12), (6, 3.23)])
def test_cracks_have_as_many_branches_as_asked(branches: int, paths: float) -> None:
    """A branch exists three times in four and has 0.385 of the length of its parent, and so has its own branch."""
    table = sampled({**LONE, "branches": branches}, 400)["segments"]
    length = (table[..., 2:4] - table[..., :2]).norm(dim=-1) * (table[..., 6] > 0)
    assert (length.sum(1) / length[:, :36].sum(1)).mean().item() == pytest.approx(paths, rel=0.05)


def test_cracks_lie_anywhere_and_have_the_asked_number_and_length() -> None:
    table = sampled({**LONE, "count": [1, 5], "length": [100, 400]}, 400)["segments"].reshape(400, 5, 36, 7)
    there = table[..., 0, 6] > 0
    assert there.sum(1).double().mean().item() == pytest.approx(3, abs=0.25)
    assert set(there.sum(1).tolist()) == {1, 2, 3, 4, 5}
    length = (table[..., 2:4] - table[..., :2]).norm(dim=-1).sum(2)[there]
    assert 100 - 1e-6 <= length.min() < 105
    assert 380 < length.max() <= 400 + 1e-6
    assert length.median().item() == pytest.approx(200, rel=0.08)
    middle = 0.5 * (table[..., 0, :2] + table[..., -1, 2:4])[there]
    assert middle.mean(0) == pytest.approx([256, 256], abs=15)
    assert middle.std(0) == pytest.approx([148, 148], rel=0.06)
