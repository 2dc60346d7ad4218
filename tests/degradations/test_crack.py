import torch
from skimage.measure import label

from restore.degradations import degradation_from, keys

FLAT = torch.full((8, 3, 400, 400), 0.5)
ONE = {"name": "crack", "count": 1, "length": [200, 300], "width": 3, "scale_with_image": False}


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
