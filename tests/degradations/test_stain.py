import torch

from restore.degradations import degradation_from, keys

FLAT = torch.full((12, 3, 200, 200), 0.5)
ONE = {"name": "stain", "count": 1, "size": [50, 70], "opacity": 0.6, "drips": 0}


def marked(step: dict, clean: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return degradation_from([step], "test")(clean, keys(seed, last=range(len(clean))))


def test_stains_are_dark_and_yellowish_or_bright_as_asked() -> None:
    dark = marked({**ONE, "bright": 0}, FLAT)[0] - FLAT
    assert dark.max() <= 0
    assert dark.min() < -0.1
    red, _, blue = dark.mean((0, 2, 3))
    assert blue < red
    bright = marked({**ONE, "bright": 1, "rim": 0}, FLAT)[0] - FLAT
    assert bright.min() >= 0
    assert bright.max() > 0.05


def test_a_stain_lets_the_picture_through() -> None:
    stripes = (0.3 + 0.4 * (torch.arange(200) % 2)).expand(12, 3, 200, 200)
    damaged, mask = marked(ONE, stripes)
    inside = mask[..., 0::2].bool() & mask[..., 1::2].bool()
    steps = (damaged[..., 1::2] - damaged[..., 0::2])[inside.expand(-1, 3, -1, -1)]
    assert 0.05 < steps.min() < steps.max() < 0.45


def test_stains_end_softly() -> None:
    step = {**ONE, "edge": 0.7, "rim": 0, "size": 90}
    damaged, mask = marked(step, FLAT)
    assert mask.any()
    assert (damaged - FLAT).abs().diff(dim=-1).abs().max() < 0.08


def test_the_rim_is_darker_than_the_middle() -> None:
    def rim_to_middle(**settings: float) -> float:
        damaged, masks = marked({**ONE, "edge": 0.1, "bright": 0, **settings}, FLAT)
        shares = []
        for change, mask in zip((FLAT - damaged).mean(1), masks[:, 0]):
            core = -torch.nn.functional.max_pool2d(-mask[None], 15, 1, 7)[0] > 0
            if core.sum() > 50:
                shares.append((change[(mask > 0) & ~core].mean() / change[core].mean()).item())
        assert len(shares) > 4
        return sum(shares) / len(shares)

    assert rim_to_middle(rim=0) < 1.05
    assert rim_to_middle(rim=1) > 1.3


def test_drips_run_down() -> None:
    step = {**ONE, "count": 1, "size": [25, 30]}
    tall = {}
    for drips in (0, 1):
        boxes = [
            (m.any(1).sum() / m.any(0).sum()).item() for m in marked({**step, "drips": drips}, FLAT)[1][:, 0] if m.any()
        ]
        tall[drips] = sorted(boxes)[len(boxes) // 2]
    assert tall[1] > 1.5 > tall[0]
