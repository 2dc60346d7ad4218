import torch

from restore.degradations import degradation_from, keys

ONE = {"name": "fold", "count": 1, "width": 5, "opacity": 0.9, "dark": 0.4, "shade": 0}


def marked(step: dict, clean: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return degradation_from([step], "test")(clean, keys(seed, last=range(len(clean))))


def test_a_fold_crosses_the_whole_picture() -> None:
    for mask in marked(ONE, torch.full((16, 3, 200, 280), 0.4))[1][:, 0]:
        rows, columns = mask.any(1).float().mean(), mask.any(0).float().mean()
        assert max(rows, columns) > 0.85
        touched = [mask[:4].any(), mask[-4:].any(), mask[:, :4].any(), mask[:, -4:].any()]
        assert sum(map(bool, touched)) >= 2


def test_a_fold_is_worn_bright_in_places_with_a_darker_line_beside() -> None:
    clean = torch.full((8, 3, 256, 256), 0.4)
    damaged, mask = marked(ONE, clean)
    change = (damaged - clean).mean(1, keepdim=True)[mask > 0]
    assert change.max() > 0.35
    assert change.min() < -0.08
    fresh, worn = (marked({**ONE, "worn": share}, clean)[0].mean() for share in (0, 1))
    assert worn > fresh


def test_the_light_changes_across_and_that_is_in_no_mask() -> None:
    clean = torch.full((8, 3, 256, 256), 0.5)
    step = {"name": "fold", "count": 1, "opacity": 0, "dark": 0, "shade": 0.05}
    damaged, mask = marked(step, clean)
    assert not mask.any()
    assert 0.01 < (damaged - clean).amax() < 0.03
    assert -0.03 < (damaged - clean).amin() < -0.01


def test_two_folds_cross() -> None:
    mask = marked({**ONE, "count": 2}, torch.full((8, 3, 200, 200), 0.4))[1][:, 0]
    assert mask.any(2).float().mean() > 0.8
    assert mask.any(1).float().mean() > 0.8
