"""A detector: opened by what its weights say of themselves, whole or in tiles, and never taken for a restorer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage import data
from torch import nn

from restore.checkpoints import Description, DetectorSettings, load_generator, save_weights
from restore.degradations import load_degradation
from restore.errors import RestoreError
from restore.metrics.segmentation import precision_recall_f1, tolerant_counts
from restore.models.receptive_field import measure_reach_px
from restore.models.unet import UNet
from restore.restorers.base import ModelRequirements
from restore.restorers.damage_prior import share_found, with_prior
from restore.restorers.detector import ALL_VIEWS_MAX_PX, ENSEMBLE, MIRRORED, Detector, View, open_detector, views_of
from restore.restorers.registry import list_restorers, open_restorer

ARGS = {"widths": [6, 8, 10], "blocks": [1, 1, 1], "mask": False, "out_channels": 1}


@pytest.fixture(scope="module")
def shown() -> np.ndarray:
    """A cat, H×W×3 in [0, 1]."""
    return (data.chelsea()[30:270, 60:388] / 255).astype(np.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, shown: np.ndarray) -> Path:
    """A detector that has learned nothing: it marks half of the cat, here and there."""
    torch.manual_seed(0)
    model = UNet(**ARGS).eval()
    model.tail.weight.data.mul_(200)
    image = torch.from_numpy(shown.transpose(2, 0, 1).copy())[None]
    with torch.no_grad():
        model.tail.get_parameter("bias").data.sub_(model(image).median())
    path = tmp_path_factory.mktemp("weights") / "found.safetensors"
    description = Description(
        builder="unet", args=ARGS, purpose="test", needs_mask=False, multiple=4, minimum=4,
        overlap_px=measure_reach_px(model, image, None, tolerance=0),
        finds=DetectorSettings(threshold=0.5, margin_px=2),
    )  # fmt: skip
    save_weights(path, model.state_dict(), description, half=False)
    return path


def test_weights_say_how_they_are_used(weights: Path) -> None:
    detector = open_detector(str(weights), device="cpu", precision="fp32")
    assert (detector.name, detector.threshold, detector.margin_px) == (str(weights), 0.5, 2)
    assert detector.sha256 is not None
    assert len(detector.sha256) == 64


def test_a_mask_is_of_zeros_and_ones_as_large_as_the_picture(weights: Path, shown: np.ndarray) -> None:
    detector = open_detector(str(weights), device="cpu", precision="fp32")
    mask = detector.detect(shown)
    assert (mask.shape, mask.dtype) == (shown.shape[:2], np.float32)
    assert set(np.unique(mask)) == {0, 1}
    for size in ((1, 1), (3, 50)):
        assert detector.detect(shown[: size[0], : size[1]]).shape == size


def test_in_tiles_it_finds_what_it_finds_in_one_go(weights: Path, shown: np.ndarray) -> None:
    detector = open_detector(str(weights), device="cpu", precision="fp32")
    whole, tiled = (detector.detect(shown, tile_px=tile) for tile in (0, 160))
    assert detector.requirements.tileable
    assert 0 < detector.requirements.overlap_px < 48
    assert np.array_equal(whole, tiled)


def test_what_reaches_the_threshold_is_marked_with_its_margin(weights: Path) -> None:
    detector = open_detector(str(weights), device="cpu", precision="fp32")
    probability = np.zeros((7, 7), np.float32)
    probability[3, 3], probability[0, 0] = 0.5, 0.49
    expected = np.array([[(y - 3) ** 2 + (x - 3) ** 2 <= 4 for x in range(7)] for y in range(7)])
    assert np.array_equal(detector.mask_of(probability), expected)
    bare = detector.adjusted(threshold=0.4, margin_px=0)
    assert np.array_equal(bare.mask_of(probability), probability > 0.4)
    assert (detector.threshold, detector.margin_px) == (0.5, 2), "the first one stays as it was"


class NoNumbersInHalf(nn.Module):
    def forward(self, image: torch.Tensor, mask: torch.Tensor | None, filled: bool = True) -> torch.Tensor:
        half = torch.is_autocast_enabled("cpu")
        return torch.where(image[:, :1] > 0.5, 9.0, -9.0) + (torch.nan if half else 0.0)


def fake(model: nn.Module, precision: str) -> Detector:
    finds = DetectorSettings(threshold=0.5, margin_px=0)
    return Detector(finds, "fake", model, ModelRequirements(needs_mask=False), "test", torch.device("cpu"), precision)


def test_where_half_precision_gives_no_numbers_it_looks_again_in_fp32() -> None:
    shown = np.zeros((8, 8, 3), np.float32)
    shown[2, 3] = 1
    said: list[str] = []
    mask = fake(NoNumbersInHalf(), "bf16").detect(shown, on_event=said.append)
    assert np.array_equal(mask, shown[:, :, 0])
    assert set(said) == {"bf16 output contains NaN; repeated that part in fp32"}


def test_where_there_are_no_numbers_at_all_it_fails() -> None:
    class NoNumbers(nn.Module):
        def forward(self, image: torch.Tensor, mask: torch.Tensor | None, filled: bool = True) -> torch.Tensor:
            return image[:, :1] * torch.nan

    with pytest.raises(RestoreError, match="NaN or Inf"):
        fake(NoNumbers(), "fp32").detect(np.zeros((8, 8, 3), np.float32))


class BrightOnTheLeft(nn.Module):
    """Is a little less sure of what is bright on the left."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor | None, filled: bool = True) -> torch.Tensor:
        left = torch.linspace(1, 0, image.shape[-1]) > 0.5
        return torch.where(image[:, :1] > 0.5, torch.where(left, 0.8, -0.2), -9.0)


def test_a_small_picture_is_looked_at_in_the_mirror_too() -> None:
    shown = np.zeros((8, 12, 3), np.float32)
    shown[2, 1] = shown[5, 9] = 1
    detector = fake(BrightOnTheLeft(), "fp32")
    assert np.array_equal(detector.detect(shown), shown[:, :, 0])
    sure = (torch.tensor([0.8, -0.2]).sigmoid().mean().item() + 1e-3, 0.5)
    assert not detector.adjusted(threshold=sure[0]).detect(shown).any()


class Counter(nn.Module):
    """Notes the sizes that it is shown, and where a corner of the picture is."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, int]] = []
        self.corners: set[tuple[float, ...]] = set()

    def forward(self, image: torch.Tensor, mask: torch.Tensor | None, filled: bool = True) -> torch.Tensor:
        self.sizes.append((image.shape[-2], image.shape[-1]))
        self.corners.add(tuple(image[0, 0, y, x].item() for y in (0, -1) for x in (0, -1)))
        return image[:, :1] * 0


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((40, 60), [(40, 60)] * 4),
        ((384, 401), [(192, 200), (384, 401)] * 4),
        ((383, 6000), [(383, 6000)]),
        ((1448, 1460), [(362, 365), (724, 730), (1448, 1460)]),
    ],
)
def test_small_images_are_searched_mirrored_and_large_ones_at_half_size(size: tuple[int, int], seen: list) -> None:
    network = Counter()
    shown = np.zeros((*size, 3), np.float32)
    shown[: size[0] // 2, : size[1] // 2] = 1
    fake(network, "fp32").detect(shown, tile_px=0)
    assert network.sizes == seen
    assert len(network.corners) == (4 if size[0] * size[1] <= ALL_VIEWS_MAX_PX else 1)


def tinted(luma: torch.Tensor) -> torch.Tensor:
    """A sepia print, 3×H×W."""
    return torch.stack([0.1 + 0.8 * luma, 0.05 + 0.75 * luma, 0.7 * luma])


def test_prints_are_seen_with_less_contrast_and_photographs_in_color_as_they_are() -> None:
    photograph = torch.from_numpy(data.astronaut()).permute(2, 0, 1).float() / 255
    assert views_of(photograph, 0.6) == MIRRORED
    for monochrome in (photograph.mean(0).expand(3, -1, -1), tinted(photograph.mean(0))):
        assert views_of(monochrome) == MIRRORED
        views = views_of(monochrome, 0.6)
        assert views == (View((), 0.6), View((-1,), 0.6, gray=True), View((-2, -1), 0.6, gray=True))
        for view in views:
            seen = view.of(monochrome).flip(view.dims)
            assert torch.allclose(seen.mean((-3, -2, -1)), monochrome.mean((-3, -2, -1)), atol=0.02)
            assert seen.std() < 0.7 * monochrome.std()
            assert not view.gray or torch.equal(seen[0], seen[2])
    large = torch.nn.functional.interpolate(photograph[None], scale_factor=3)[0]
    assert views_of(large, 0.6) == MIRRORED[:1]
    assert views_of(large.mean(0).expand(3, -1, -1), 0.6) == (View((), 0.6),)


def test_two_networks_share_the_views_and_the_first_sees_large_images() -> None:
    photograph = torch.from_numpy(data.astronaut()).permute(2, 0, 1).float() / 255
    monochrome = tinted(photograph.mean(0))
    assert views_of(photograph, 0.6, ensemble=True) == ENSEMBLE
    assert views_of(monochrome, ensemble=True) == ENSEMBLE
    less = (View((), 0.6), View((-1,), 0.6, gray=True), View(second=True), View((-1,), second=True))
    assert views_of(monochrome, 0.6, ensemble=True) == less
    for image, views in ((photograph, ENSEMBLE), (monochrome, less)):
        large = torch.nn.functional.interpolate(image[None], scale_factor=3)[0]
        assert views_of(large, 0.6, ensemble=True) == views[:1]
        assert not views[0].second


class SeesOneSize(nn.Module):
    """A pyramid that sees what is bright at one size, and at every other vetoes what the level above found."""

    joins_levels, coarsest_px = True, 10

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.seen: list[tuple[int, int]] = []

    def forward(self, image: torch.Tensor, mask: torch.Tensor | None, filled: bool = True) -> torch.Tensor:
        self.seen.append((image.shape[-2], image.shape[-1]))
        bright = image[:, :1] > 0.3
        return torch.where(bright if self.seen[-1] == self.size else bright & False, 3.0, -8.0)


@pytest.mark.parametrize("size", [(40, 60), (160, 240)])
def test_damage_in_a_large_image_counts_if_a_coarse_level_or_the_finest_sees_it(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restore.restorers.detector.ALL_VIEWS_MAX_PX", 20_000)
    monkeypatch.setattr("restore.restorers.detector.COARSE_MAX_PX", 5_000)
    shown = np.zeros((160, 240, 3), np.float32)
    shown[40:60, 100:140] = 1
    network = SeesOneSize(size)
    mask = fake(network, "fp32").detect(shown)
    assert mask[44:56, 104:136].all()
    assert not mask[shown[:, :, 0] == 0].any()
    small = [(10, 15), (20, 30), (40, 60)]
    assert network.seen == [*small * 4, (80, 120), (160, 240)], "the coarse level is not searched again"


def test_both_levels_of_a_large_image_are_adjusted_to_the_larger_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restore.restorers.detector.ALL_VIEWS_MAX_PX", 20_000)
    monkeypatch.setattr("restore.restorers.detector.COARSE_MAX_PX", 5_000)
    finds, needs = (
        DetectorSettings(threshold=0.5, margin_px=0, expected_share=0.05),
        ModelRequirements(needs_mask=False),
    )
    shown = np.zeros((160, 240, 3), np.float32)
    shown[:80] = 1
    both = Detector(finds, "one", SeesOneSize((40, 60)), needs, "test", torch.device("cpu"), "fp32")
    likely = both.probability(shown)
    odds = likely[10, 10] / (1 - likely[10, 10])
    assert odds == pytest.approx(4 * np.exp(3), rel=1e-3)
    assert likely[-1, -1] == pytest.approx(4 * np.exp(-8), rel=1e-2)


class Sure(nn.Module):
    """As sure everywhere."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.logit = torch.tensor(probability).logit()

    def forward(self, image: torch.Tensor, mask: torch.Tensor | None, filled: bool = True) -> torch.Tensor:
        return self.logit.expand_as(image[:, :1])


def test_the_probabilities_of_two_networks_are_averaged() -> None:
    finds = DetectorSettings(threshold=0.5, margin_px=0)
    needs = ModelRequirements(needs_mask=False)
    cpu = torch.device("cpu")
    both = Detector(finds, "both", Sure(0.3), needs, "test", cpu, "fp32", second=fake(Sure(0.9), "fp32"))
    colored = np.random.default_rng(0).random((24, 24, 3), np.float32)
    assert np.allclose(both.probability(colored), (0.3 + 2 * 0.9) / 3, atol=1e-6)
    gray = colored.mean(-1, keepdims=True).repeat(3, -1)
    finds = DetectorSettings(threshold=0.5, margin_px=0, monochrome_contrast=0.9)
    both = Detector(finds, "both", Sure(0.3), needs, "test", cpu, "fp32", second=fake(Sure(0.8), "fp32"))
    assert np.allclose(both.probability(gray), (2 * 0.3 + 2 * 0.8) / 4, atol=1e-6)
    large = np.repeat(np.repeat(colored, 64, 0), 64, 1)
    assert np.allclose(both.probability(large), 0.3, atol=1e-6)


class Bright(nn.Module):
    """Marks what is bright."""

    def __init__(self, sure: float) -> None:
        super().__init__()
        self.sure = sure

    def forward(self, image: torch.Tensor, mask: torch.Tensor | None, filled: bool = True) -> torch.Tensor:
        return torch.where(image[:, :1] > 0.5, self.sure, 0.1).logit()


@pytest.mark.parametrize(("sure", "contrast", "counts"), [(0.95, None, True), (0.8, None, False), (0.7, 0.9, True)])
def test_the_second_network_has_no_say_where_the_first_sees_wide_damage(
    sure: float, contrast: float | None, counts: bool
) -> None:
    finds = DetectorSettings(threshold=0.5, margin_px=0, monochrome_contrast=contrast)
    second, needs = fake(Sure(0.1), "fp32"), ModelRequirements(needs_mask=False)
    both = Detector(finds, "two", Bright(sure), needs, "test", torch.device("cpu"), "fp32", second=second)
    shown = np.zeros((80, 90, 3), np.float32)
    shown[:, 12:15] = shown[30:60, 40:70] = 1
    likely = both.probability(shown)
    alike = (sure + 2 * 0.1) / 3 if contrast is None else (sure + 0.1) / 2
    assert np.allclose(likely[:, 12:15], alike, atol=1e-6), "thin: the mean"
    assert np.allclose(likely[34:56, 44:66], sure if counts else alike, atol=1e-6), "wide: the first alone"
    assert np.allclose(likely[:20, 20:], 0.1, atol=1e-6)


@pytest.mark.parametrize(("contrast", "thin", "wide"), [(None, 1.6 / 3, 0.4), (0.9, 0.6, 0.8)])
def test_in_color_a_wide_part_of_which_neither_is_sure_is_what_both_see(
    contrast: float | None, thin: float, wide: float
) -> None:
    finds = DetectorSettings(threshold=0.5, margin_px=0, monochrome_contrast=contrast)
    second, needs = fake(Sure(0.4), "fp32"), ModelRequirements(needs_mask=False)
    both = Detector(finds, "two", Bright(0.8), needs, "test", torch.device("cpu"), "fp32", second=second)
    shown = np.zeros((80, 90, 3), np.float32)
    shown[:, 12:15] = shown[30:60, 40:70] = 1
    likely = both.probability(shown)
    assert np.allclose(likely[34:56, 44:66], wide, atol=1e-6)
    assert np.allclose(likely[:, 12:15], thin, atol=1e-6), "thin: the mean"
    assert np.array_equal(both.adjusted(threshold=0.2).probability(shown), likely)


def test_how_the_shipped_detector_searches_monochrome_photographs_is_in_its_file() -> None:
    detector = open_detector(device="cpu", precision="fp32")
    assert detector.monochrome_contrast == 0.6
    assert detector.second is not None
    assert detector.second.name == "detector-plain"
    assert detector.second.second is None
    print_ = np.ascontiguousarray(np.repeat(data.camera()[:96, :96, None], 3, 2).astype(np.float32) / 255)
    likely = detector.probability(print_)
    image = torch.from_numpy(print_).permute(2, 0, 1)
    views = views_of(image, 0.6, ensemble=True)
    seen = [
        (detector.second if view.second else detector).logits(view.of(image), 0).sigmoid().flip(view.dims)
        for view in views
    ]
    both = torch.stack(seen).mean(0)[0].numpy()
    own = torch.stack([one for one, view in zip(seen, views) if not view.second]).mean(0)[0].numpy()
    assert detector.expected_share is not None
    thin = likely < 0.5
    assert thin.mean() > 0.9
    share = max(share_found(both), share_found(own))
    expected = with_prior(both, share, detector.expected_share)
    assert np.allclose(likely[thin], expected[thin], atol=1e-5)
    assert detector.adjusted(threshold=0.7).second is detector.second


def test_probabilities_follow_how_much_of_an_image_looks_damaged() -> None:
    unsure = np.full((100, 100), 0.3, np.float32)
    worse = unsure.copy()
    worse[:10] = 0.8
    assert share_found(worse) == pytest.approx(0.1)
    odds = [with_prior(unsure, share, 0.06)[0, 0] for share in (0.1, 0.01)]
    odds = [one / (1 - one) for one in odds]
    ratios = [0.1 / 0.9 / (0.06 / 0.94), 0.01 / 0.99 / (0.06 / 0.94)]
    assert np.allclose(odds, [0.3 / 0.7 * ratios[0] ** 1.5, 0.3 / 0.7 / 3])
    assert ratios[0] ** 1.5 < 3
    assert ratios[1] ** 1.5 < 1 / 3
    assert np.allclose(with_prior(worse, 0.01, 0.01), worse, atol=1e-6)


@pytest.mark.parametrize(("share", "half"), [(0.0, 0.25), (1.0, 0.8)])
def test_the_share_of_damage_moves_a_half_to_a_quarter_or_four_fifths_at_most(share: float, half: float) -> None:
    seen = with_prior(np.array([[0, 0.5, 1]], np.float32), share, 0.03)
    assert np.allclose(seen, [[0, half, 1]], atol=1e-6)


@given(st.integers(0, 1 << 30), st.floats(0.001, 0.3))
def test_the_order_of_probabilities_stays(seed: int, expected: float) -> None:
    probability = np.sort(np.random.default_rng(seed).random((8, 9), np.float32) ** 3, axis=None).reshape(8, 9)
    seen = with_prior(probability, share_found(probability), expected)
    assert (np.diff(seen.ravel()) >= -1e-6).all()
    assert seen.dtype == np.float32
    assert (seen >= 0).all()
    assert (seen <= 1).all()


def test_only_a_detector_that_names_a_share_adjusts_its_probabilities() -> None:
    needs, cpu = ModelRequirements(needs_mask=False), torch.device("cpu")
    shown = np.zeros((40, 50, 3), np.float32)
    shown[:20] = 1
    likely = {}
    for share in (None, 0.05):
        finds = DetectorSettings(threshold=0.5, margin_px=0, expected_share=share)
        likely[share] = Detector(finds, "one", Bright(0.7), needs, "test", cpu, "fp32").probability(shown)
    assert np.allclose(likely[None][:20], 0.7, atol=1e-6)
    assert np.allclose(likely[0.05], with_prior(likely[None], 0.5, 0.05))
    assert (likely[0.05] > likely[None]).all()


def test_damage_that_the_first_network_alone_sees_counts_in_the_share() -> None:
    needs, cpu = ModelRequirements(needs_mask=False), torch.device("cpu")
    shown = np.zeros((40, 50, 3), np.float32)
    shown[::8] = 1  # thin lines
    shown[..., 1] += 0.2  # in color
    likely = {}
    for sure in (0.4, 0.9):
        finds = DetectorSettings(threshold=0.5, margin_px=0, expected_share=0.01)
        second = fake(Sure(0.1), "fp32")
        both = Detector(finds, "two", Bright(sure), needs, "test", cpu, "fp32", second=second)
        likely[sure] = both.probability(shown)
    for sure, factor in ((0.4, 1 / 3), (0.9, 4)):
        odds = (sure + 0.2) / 3 / (1 - (sure + 0.2) / 3)
        assert np.allclose(likely[sure][0], factor * odds / (1 + factor * odds), atol=1e-6)


class Shown(nn.Module):
    """As sure as a pixel is bright."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor | None, filled: bool = True) -> torch.Tensor:
        return image[:, :1].clamp(0.02, 0.98).logit()


@pytest.mark.parametrize(("lines", "sure", "wide"), [(0.9, 0.7, True), (0.1, 0.7, False), (0.9, 0.4, False)])
def test_in_a_damaged_image_wide_damage_reaches_farther_than_the_first_network_is_sure(
    lines: float, sure: float, wide: bool
) -> None:
    finds = DetectorSettings(threshold=0.5, margin_px=0, monochrome_contrast=0.999, expected_share=0.1)
    second, needs = fake(Sure(0.02), "fp32"), ModelRequirements(needs_mask=False)
    both = Detector(finds, "two", Shown(), needs, "test", torch.device("cpu"), "fp32", second=second)
    shown = np.full((80, 90, 3), 0.02, np.float32)
    shown[2:22:2] = lines
    shown[30:60, 40:56], shown[30:60, 56:70] = sure, 0.35
    assert both.detect(shown)[34:56, 60:66].all() == wide


def test_only_a_shipped_detector_can_be_the_second(weights: Path, tmp_path: Path) -> None:
    model, description = load_generator(weights)
    finds = DetectorSettings(threshold=0.5, margin_px=0, ensemble_with="../elsewhere")
    path = tmp_path / "two.safetensors"
    save_weights(path, model.state_dict(), description.model_copy(update={"finds": finds}), half=False)
    with pytest.raises(RestoreError, match=r"two.safetensors: needs '../elsewhere', which is not a shipped detector"):
        open_detector(str(path), device="cpu")


class Thin(nn.Module):
    """Marks what is bright and has dark within nine pixels."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor | None, filled: bool = True) -> torch.Tensor:
        bright = image[:, :1]
        return 20 * ((bright > 0.5) & (nn.functional.avg_pool2d(bright, 9, 1, 4) < 0.7)).float() - 10


@pytest.mark.parametrize(("side", "found"), [(384, True), (383, False)])
def test_what_is_wide_in_a_large_picture_is_found_in_half_size(side: int, found: bool) -> None:
    shown = np.zeros((side, side + 40, 3), np.float32)
    shown[:, 200:212] = 1
    mask = fake(Thin(), "fp32").detect(shown)
    assert mask.shape == shown.shape[:2]
    assert bool(mask[side // 2, 206]) == found
    assert not mask[:, :190].any()


def test_a_detector_is_no_restorer_and_a_restorer_no_detector(weights: Path) -> None:
    with pytest.raises(RestoreError, match="is a detector, not a restorer; `restore detect`"):
        open_restorer(str(weights), device="cpu")
    with pytest.raises(RestoreError, match="photo is a restorer, not a detector"):
        open_detector("photo", device="cpu")


def test_the_list_of_models_tells_detectors_apart() -> None:
    finds = {info.name: info.finds for info in list_restorers()}
    assert not any(finds[name] for name in ("photo", "inpaint", "telea"))
    assert all(finds[name] for name in finds if name == "detector")


def test_the_detector_that_comes_along_finds_scratches_and_leaves_clean_pictures_alone() -> None:
    detector = open_detector(device="cpu", precision="fp32")
    counts, clean_share = torch.zeros(4, dtype=torch.float64), 0.0
    photographs = [image[20:276, 100:356] for image in (data.astronaut(), data.chelsea(), data.coffee())]
    for number, photograph in enumerate(photographs):
        clean = torch.from_numpy(photograph).permute(2, 0, 1)[None].float() / 255
        damage = load_degradation("scratch")
        shown, mask = damage.apply(clean, damage.sample(torch.tensor([number]), photograph.shape[:2]))
        found = torch.from_numpy(detector.detect(shown[0].permute(1, 2, 0).numpy()))[None, None] > 0
        counts += tolerant_counts(found, mask > 0)[0]
        clean_share += float(detector.detect(clean[0].permute(1, 2, 0).numpy()).mean()) / len(photographs)
    precision, recall, _ = precision_recall_f1(counts)
    assert precision > 0.8
    assert recall > 0.5
    assert clean_share < 0.005
