import torch

from restore.degradations import degradation_from, keys, load_degradation


def marked(step: dict, clean: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return degradation_from([step], "test")(clean, keys(seed, last=range(len(clean))))


def test_marks_are_bright_or_dark_as_asked() -> None:
    clean = torch.full((6, 3, 160, 120), 0.5)
    assert (marked({"name": "scratch", "bright": 1}, clean)[0] >= clean).all()
    assert (marked({"name": "scratch", "bright": 0}, clean)[0] <= clean).all()
    mixed = marked({"name": "dust", "bright": 0.5, "count": 100}, clean)[0] - clean
    assert (mixed > 0.1).any()
    assert (mixed < -0.1).any()


def test_a_scratch_is_long_and_thin_and_a_speck_is_not() -> None:
    def longest_side(name: str, **settings: object) -> float:
        mask = marked({"name": name, "count": 1, **settings}, torch.full((10, 3, 256, 256), 0.5))[1]
        sides = [max(one.any(0).sum().item(), one.any(1).sum().item()) for one in mask[:, 0]]
        return sorted(sides)[5]

    assert longest_side("scratch", length=[200, 200], scale_with_image=False) > 80
    assert longest_side("dust") < 10


def test_marks_of_a_crop_do_not_shrink_with_it_when_told_so() -> None:
    step = {"name": "hair", "count": 4, "width": 3, "length": 60, "opacity": 1}
    clean = torch.full((6, 3, 64, 64), 0.5)
    assert marked({**step, "scale_with_image": False}, clean)[1].sum() > 4 * marked(step, clean)[1].sum()


def test_the_named_scratch_damage_covers_one_to_four_percent() -> None:
    damage = load_degradation("scratch")
    shares = damage(torch.full((12, 3, 320, 480), 0.5), keys(0, last=range(12)))[1].mean((1, 2, 3))
    assert 0.01 < shares.median() < 0.03
    assert shares.max() < 0.05
