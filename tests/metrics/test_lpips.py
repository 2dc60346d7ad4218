"""LPIPS against the `lpips` package itself, and what happens where its backbone is not to be had."""

from __future__ import annotations

import functools
import hashlib
import http.server
import pickle
import threading
import urllib.request
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import skimage
import torch
import torchvision
from safetensors.torch import load_file, save_file

from restore.errors import RestoreError
from restore.metrics import pretrained as networks
from restore.metrics import score_batch
from restore.metrics.lpips import Lpips, lpips_status, open_lpips

WEIGHTS = Path(__file__).parents[2] / "../shared/data/weights/squeezenet1_1_fp16.safetensors"
needs_weights = pytest.mark.skipif(not WEIGHTS.is_file(), reason="no SqueezeNet backbone beside the repository")


@pytest.fixture(scope="module")
def squeeze() -> Lpips:
    return open_lpips("squeeze", WEIGHTS)


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    clean = torch.from_numpy(skimage.data.astronaut()[:120, 100:260].copy()).permute(2, 0, 1)[None].float() / 255
    damaged = (clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    return damaged, clean


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, and a proxy that refuses; returns the folder of the cached files."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies of its first use
    return tmp_path / "hub" / "checkpoints"


def the_packages_own(net: str, backbone: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, **options: bool):
    """`lpips.LPIPS` made by its own code, which believes to have downloaded `backbone`."""
    import lpips

    architecture = {"alex": "alexnet", "squeeze": "squeezenet1_1"}[net]
    monkeypatch.setattr(torchvision.models, architecture, lambda pretrained: backbone)
    return lpips.LPIPS(net=net, verbose=False, **options)


@needs_weights
def test_scores_equal_the_packages_own(squeeze: Lpips, pair, monkeypatch) -> None:
    backbone = torchvision.models.squeezenet1_1()
    backbone.load_state_dict({k: v.float() for k, v in load_file(WEIGHTS).items()})
    reference = the_packages_own("squeeze", backbone, monkeypatch)
    batch = [torch.cat([pair[i], pair[i].flip(-1) ** 1.5]) for i in (0, 1)]
    expected = reference(*batch, normalize=True).flatten().double()
    torch.testing.assert_close(squeeze(*batch), expected, atol=1e-6, rtol=0)
    assert 0.05 < expected.min() < expected.max() < 1


@needs_weights
def test_scores_are_torchmetrics_too(squeeze: Lpips, pair, monkeypatch) -> None:
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity, lpips

    backbone = torchvision.models.squeezenet1_1()
    backbone.load_state_dict({k: v.float() for k, v in load_file(WEIGHTS).items()})
    monkeypatch.setattr(lpips, "_get_tv_model_features", lambda *_: backbone.features)
    expected = learned_perceptual_image_patch_similarity(*pair, net_type="squeeze", normalize=True)
    assert squeeze(*pair).item() == pytest.approx(expected.item(), abs=1e-4)


@needs_weights
def test_lpips_in_the_hole_is_the_packages_spatial_map_averaged_over_it(squeeze: Lpips, pair, monkeypatch) -> None:
    backbone = torchvision.models.squeezenet1_1()
    backbone.load_state_dict({k: v.float() for k, v in load_file(WEIGHTS).items()})
    spatial = the_packages_own("squeeze", backbone, monkeypatch, spatial=True)(*pair, normalize=True)
    mask = torch.zeros(1, 1, *pair[0].shape[-2:])
    mask[..., 30:60, 40:100] = 1
    scores = score_batch(*pair, mask, squeeze)
    assert scores["lpips_hole"].item() == pytest.approx(spatial[..., 30:60, 40:100].mean().item(), abs=1e-6)
    assert set(scores) == {"psnr", "psnr_hole", "ssim", "lpips", "lpips_hole"}
    assert squeeze.scores(*pair, mask * 0)[1].isnan().all()


def test_alexnet_scores_equal_the_packages_own(pair, monkeypatch, tmp_path: Path) -> None:
    # no published weights are at hand: the same random ones in both
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        backbone = torchvision.models.alexnet()
    features = {k: v for k, v in backbone.state_dict().items() if k.startswith("features.")}
    torch.save(features, tmp_path / "alex.pth")
    ours = open_lpips("alex", tmp_path / "alex.pth")
    expected = the_packages_own("alex", backbone, monkeypatch)(*pair, normalize=True)
    assert ours(*pair).item() == pytest.approx(expected.item(), abs=1e-7)
    assert ours(*(x[..., :31, :31] for x in pair)).item() > 0
    assert ours(*(x[..., :30, :] for x in pair)).isnan().all()


@needs_weights
def test_identical_pictures_are_at_distance_zero_and_the_order_does_not_matter(squeeze: Lpips, pair) -> None:
    assert squeeze(pair[1], pair[1]).item() == 0
    assert squeeze(*pair).item() == pytest.approx(squeeze(*pair[::-1]).item(), abs=1e-7)


@needs_weights
def test_an_image_scores_the_same_alone_and_in_any_batch(squeeze: Lpips, pair) -> None:
    batch = [torch.cat([x, x.flip(-1), x.flip(-2)]) for x in pair]
    alone = torch.cat([squeeze(batch[0][i : i + 1], batch[1][i : i + 1]) for i in range(3)])
    torch.testing.assert_close(squeeze(*batch), alone, atol=1e-6, rtol=0)


@needs_weights
def test_the_smallest_picture_scores_and_a_smaller_one_has_no_value(squeeze: Lpips) -> None:
    side = squeeze.minimum_px
    assert squeeze(torch.zeros(2, 3, side, side), torch.rand(2, 3, side, side)).isfinite().all()
    assert squeeze(torch.zeros(2, 3, side - 1, 99), torch.zeros(2, 3, side - 1, 99)).isnan().tolist() == [True] * 2


@needs_weights
def test_opening_is_silent_and_leaves_the_random_state_alone(capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_lpips("squeeze", WEIGHTS)
    assert torch.equal(torch.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")


@needs_weights
def test_a_cached_file_is_used_without_a_network(no_network: Path, pair, squeeze: Lpips) -> None:
    status = {backbone.net: backbone for backbone in lpips_status()}
    assert not any(backbone.in_cache for backbone in status.values())
    no_network.mkdir(parents=True)
    torch.save(load_file(WEIGHTS), status["squeeze"].cache)
    assert [backbone.net for backbone in lpips_status() if backbone.in_cache] == ["squeeze"]
    assert open_lpips("squeeze")(*pair).item() == squeeze(*pair).item()


@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_without_a_network_the_error_says_why_and_what_to_do(net: str, no_network: Path) -> None:
    with pytest.raises(RestoreError, match=r"the download from .* failed.*refused.*--lpips-weights") as caught:
        open_lpips(net)
    assert caught.value.exit_code == 1
    assert not list(no_network.iterdir())


@needs_weights
def test_a_download_happens_once_and_is_checked(no_network: Path, tmp_path: Path, monkeypatch, pair) -> None:
    served, asked = tmp_path / "served", []
    served.mkdir()
    torch.save(load_file(WEIGHTS), served / "net.pth")
    digest = hashlib.sha256((served / "net.pth").read_bytes()).hexdigest()[:8]
    (served / "net.pth").rename(served / f"net-{digest}.pth")
    (served / "net-00000000.pth").write_bytes(b"something else")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def published_as(name: str) -> None:
        url = f"http://127.0.0.1:{server.server_port}/{name}"
        weights = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
        monkeypatch.setattr(weights, "_value_", replace(weights.value, url=url))

    try:
        published_as(f"net-{digest}.pth")
        assert open_lpips("squeeze")(*pair).item() == open_lpips("squeeze")(*pair).item() > 0
        assert asked == [f"/net-{digest}.pth"]
        published_as("net-00000000.pth")
        with pytest.raises(RestoreError, match="invalid hash"):
            open_lpips("squeeze")
        published_as("not-there.pth")
        with pytest.raises(RestoreError, match="File not found"):
            open_lpips("squeeze")
    finally:
        server.shutdown()
        server.server_close()
    assert [file.name for file in no_network.iterdir()] == [f"net-{digest}.pth"]


def test_a_server_that_never_answers_is_given_up(no_network: Path, monkeypatch) -> None:
    import socket

    monkeypatch.setattr(networks, "_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(RestoreError, match="timed out"):
            open_lpips("squeeze")
    assert socket.getdefaulttimeout() is None


class Payload:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("executed"),)


def test_a_file_that_could_run_code_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"features.0.weight": Payload()}, "zip.pth")
    Path("bare.pth").write_bytes(pickle.dumps(Payload()))
    for name in ("zip.pth", "bare.pth"):
        with pytest.raises(RestoreError, match=name):
            open_lpips("squeeze", Path(name))
    assert not Path("executed").exists()


@needs_weights
def test_unusable_weights_are_named_with_what_is_wrong(tmp_path: Path) -> None:
    state = load_file(WEIGHTS)
    whole = WEIGHTS.read_bytes()
    (tmp_path / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "empty.pth").touch()
    save_file({k: v for k, v in state.items() if k != "features.0.bias"}, tmp_path / "lacking.safetensors")
    save_file({**state, "extra": torch.zeros(1)}, tmp_path / "unknown.safetensors")
    save_file({**state, "features.0.bias": torch.zeros(3)}, tmp_path / "shape.safetensors")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    for name, why in {
        "truncated.safetensors": "damaged",
        "text.pth": "only weights are loaded",
        "empty.pth": "damaged",
        "lacking.safetensors": "lacks 'features.0.bias'",
        "unknown.safetensors": "holds unknown 'extra'",
        "shape.safetensors": "another shape of 'features.0.bias'",
        "list.pth": "not a state dict",
        "absent.pth": "No such file",
        ".": "Is a directory",
    }.items():
        with pytest.raises(RestoreError, match=why) as caught:
            open_lpips("squeeze", tmp_path / name)
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)
    with pytest.raises(RestoreError, match="not the weights of alexnet"):
        open_lpips("alex", WEIGHTS)


def test_an_unknown_network_names_the_known_ones() -> None:
    with pytest.raises(RestoreError, match="alex, vgg, squeeze"):
        open_lpips("resnet")
