import pytest
import torch

from restore.degradations import degradation_from, keys

ONE = {"name": "tear", "count": 1, "lost": 0, "length": [120, 160]}
LOST = {"name": "tear", "count": 0, "lost": 1, "lost_size": [60, 90]}


def marked(step: dict, clean: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return degradation_from([step], "test")(clean, keys(seed, last=range(len(clean))))


def border(mask: torch.Tensor) -> torch.Tensor:
    return torch.cat([mask[..., 0, :], mask[..., -1, :], mask[..., :, 0], mask[..., :, -1]], -1)


def test_a_tear_goes_from_the_border_inwards_and_not_across() -> None:
    for mask in marked(ONE, torch.full((12, 3, 256, 320), 0.4))[1][:, 0]:
        share = border(mask).mean()
        assert 0 < share < 0.08
        inner = mask[8:-8, 8:-8]
        assert inner.any()


def test_a_tear_is_a_white_band_with_a_shadow_beside() -> None:
    clean = torch.full((12, 3, 256, 256), 0.4)
    damaged, mask = marked({**ONE, "shadow": 0.6, "width": 10}, clean)
    for picture, hidden in zip(damaged, mask):
        tones = picture.mean(0, keepdim=True)[hidden > 0]
        assert (tones > 0.7).float().mean() > 0.2
        assert (tones < 0.36).float().mean() > 0.03
    bare = marked({**ONE, "shadow": 0}, clean)[0]
    assert bare.min() > 0.4 - 1e-6


def test_the_band_is_widest_at_the_border() -> None:
    step = {**ONE, "shadow": 0, "width": 14, "ragged": 0.5}
    mask = marked(step, torch.full((24, 3, 256, 256), 0.3))[1]
    y, x = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    depth = torch.stack([y, 255 - y, x, 255 - x]).amin(0)
    near, far = (mask[:, 0, (depth >= a) & (depth < a + 8)].sum() for a in (0, 36))
    assert near > 1.3 * far


@pytest.mark.parametrize("tone", [0.0, 0.5, 0.95, 1.0])
def test_what_is_lost_is_masked_whatever_lies_there_instead(tone: float) -> None:
    _, mask = marked(LOST, torch.full((16, 3, 128, 160), tone))
    for one in mask[:, 0]:
        assert border(one).mean() > 0.04
        assert one[[0, 0, -1, -1], [0, -1, 0, -1]].any()  # a corner, or an edge with two of them
    assert 0.003 < mask.mean() < 0.2


def test_tears_enter_a_crop_from_beyond_its_edge() -> None:
    """A crop sees the wide beginning of some tears and the thin end of others; a whole picture the beginning."""
    step = {**ONE, "length": 100, "width": 12, "shadow": 0}
    clean = torch.full((24, 3, 192, 192), 0.4)
    covered = marked({**step, "scale_with_image": False}, clean)[1].sum((1, 2, 3))
    assert covered.min() < 0.5 * covered.max()
    # all of it, were it not beyond the edge: half as wide as at its beginning in the mean
    assert covered.median() < 0.8 * 100 * 12 / 2 < 1.3 * covered.max()
