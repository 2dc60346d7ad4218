"""FID: the distance against its formula, and what its network's file must be."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from restore.errors import RestoreError
from restore.metrics.fid import FrechetDistance, open_inception


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """Eq. 6 of Heusel et al., by scipy's matrix square root."""
    sx, sy = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(sx @ sy).real
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(sx + sy - 2 * root))


def distance(x: np.ndarray, y: np.ndarray, batch: int = 7) -> float:
    found = FrechetDistance(x.shape[1])
    for at in range(0, len(x), batch):
        found.add(torch.from_numpy(x[at : at + batch]), torch.from_numpy(y[at : at + batch]))
    return found.value()


@pytest.fixture(scope="module")
def sets() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(0, 1, (60, 12)) @ random.normal(0, 1, (12, 12)), random.gamma(2, 1, (60, 12))


def test_the_distance_is_the_formula(sets) -> None:
    assert distance(*sets) == pytest.approx(frechet(*sets), rel=1e-8)


def test_a_shift_alone_is_its_square_and_equal_sets_are_at_zero(sets) -> None:
    shift = np.linspace(-1, 1, 12)
    assert distance(sets[0], sets[0] + shift) == pytest.approx((shift**2).sum(), abs=1e-4)
    assert distance(sets[1], sets[1]) == pytest.approx(0, abs=1e-4)


def test_it_does_not_depend_on_the_batches(sets) -> None:
    assert distance(*sets, batch=1) == pytest.approx(distance(*sets, batch=60), rel=1e-9)


def test_one_picture_is_no_set() -> None:
    assert math.isnan(distance(np.ones((1, 3)), np.ones((1, 3))))


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The architecture's own random weights as a file; the published ones are not ours to ship."""
    from torch_fidelity import feature_extractor_inceptionv3 as library

    class Random(library.FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: object, **__: object) -> None:  # type: ignore[override]
            """Keep what is there."""

    torch.manual_seed(0)
    empty = tmp_path_factory.mktemp("inception") / "empty.pth"
    torch.save({}, empty)
    network = Random("inception-v3-compat", ["2048"], str(empty))
    path = empty.with_name("random.pth")
    torch.save(network.state_dict(), path)
    return path


def test_features_are_the_librarys_own(random_inception: Path) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    ours = open_inception(random_inception)
    theirs = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(random_inception))
    pictures = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    expected = theirs((pictures * 255).round().byte())[0]
    found = ours.features(pictures)
    torch.testing.assert_close(found, expected.double(), atol=1e-4 * expected.abs().max().item(), rtol=0)
    assert found.shape == (2, 2048)
    assert found[0].sub(found[1]).abs().max() > 0
    assert ours.describe()["weights"] == "random.pth"


class Payload:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("executed"),)


def test_a_file_that_could_run_code_or_is_another_network_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"fc.weight": Payload()}, "code.pth")
    torch.save({"fc.weight": torch.zeros(3)}, "other.pth")
    for name, why in (("code.pth", "only weights are loaded"), ("other.pth", "not the weights of Inception v3")):
        with pytest.raises(RestoreError, match=why) as caught:
            open_inception(Path(name))
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)
    assert not Path("executed").exists()


def test_without_weights_the_error_says_where_they_would_be(tmp_path: Path, monkeypatch) -> None:
    import urllib.request

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)
    with pytest.raises(RestoreError, match=r"Inception v3 for FID is not on this machine.*--fid-weights") as caught:
        open_inception()
    assert caught.value.exit_code == 1


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(RestoreError, match=r"restore-toolkit\[fid\]"):
        open_inception(Path("any.pth"))
