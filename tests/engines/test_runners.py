"""Engines give what PyTorch gives, whatever the size, the batch and the number of threads."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from restore import RestoreError
from restore.checkpoints import ConditionSettings, Description, DetectorSettings, save_weights
from restore.devices import cpu_has_fast_bf16
from restore.engines import choice
from restore.engines.check import Network, check, drawn
from restore.engines.runner import TorchRunner
from restore.models.enlarge import Enlarge
from restore.models.pyramid_unet import PyramidUNet
from restore.models.unet import UNet
from restore.restorers.base import Restorer, run_restorer
from restore.restorers.detector import open_detector
from restore.restorers.registry import open_restorer

ENGINES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(not choice.is_installed(name), reason=f"{name} is not installed"),
    )
    for name in choice.OTHERS
]
CPU = torch.device("cpu")
SMALL = {"widths": [8, 16, 16], "blocks": [1, 1, 1]}


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def shared_cache(shared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for all tests: the export to ONNX takes seconds."""
    monkeypatch.setenv("RESTORE_CACHE", str(shared_folder))


def weights(folder: Path, *, kind: str = "cleaner", **args: object) -> Path:
    torch.manual_seed(0)
    path = folder / f"{kind}.safetensors"
    finds = None
    if kind == "detector":
        model, builder, finds = PyramidUNet(**SMALL), "pyramid-unet", DetectorSettings(threshold=0.5, margin_px=2)
    else:
        args = {"mask": kind == "filler", "prefill": kind == "filler", **args}
        model, builder = UNet(**SMALL, **args), "unet"
    model.tail.weight.data.mul_(30)  # an untrained network does next to nothing, and any error would pass
    save_weights(
        path,
        model.state_dict(),
        Description(
            builder=builder, args={**SMALL, **(args if kind != "detector" else {})}, needs_mask=kind == "filler",
            conditions=[ConditionSettings(name="depth", channels=1)] if args.get("conditions") else None,
            channels=1 if args.get("channels") == 1 else None, multiple=4, minimum=4, overlap_px=24, finds=finds,
        ),
    )  # fmt: skip
    return path


def photograph(height: int, width: int, channels: int = 3, seed: int = 0) -> torch.Tensor:
    rows, columns = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    noise = np.random.default_rng(seed).normal(0, 0.05, (channels, height, width))
    planes = np.stack([0.5 + 0.4 * np.sin((9 + k) * rows + 11 * columns + seed) for k in range(channels)])
    return torch.from_numpy((planes + noise).clip(0, 1).astype(np.float32))[None]


def hole(height: int, width: int) -> torch.Tensor:
    mask = torch.zeros(1, 1, height, width)
    mask[..., height // 3 : height // 2 + 1, width // 4 : width // 2 + 1] = 1
    return mask


def levels(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max()) * 255


@pytest.mark.parametrize("engine", ENGINES)
def test_a_cleaner_gives_the_same_at_any_size(engine: str, tmp_path: Path) -> None:
    path = str(weights(tmp_path))
    fast = open_restorer(path, device="cpu", precision="fp32", engine=engine)
    exact = open_restorer(path, device="cpu", precision="fp32", engine="torch")
    assert (fast.engine, exact.engine) == (engine, "torch")
    for height, width in [(1, 1), (3, 50), (37, 64), (64, 37), (48, 48)]:
        image = photograph(height, width)
        assert levels(exact(image), image) > 2  # the network does something
        assert levels(fast(image), exact(image)) < 0.01


@pytest.mark.parametrize("engine", ENGINES)
def test_a_filler_gives_the_same(engine: str, tmp_path: Path) -> None:
    path = str(weights(tmp_path, kind="filler"))
    fast = open_restorer(path, device="cpu", precision="fp32", engine=engine)
    exact = open_restorer(path, device="cpu", precision="fp32", engine="torch")
    image, mask = photograph(50, 70), hole(50, 70)
    assert fast.engine == engine
    out = fast(image, mask)
    assert levels(out, exact(image, mask)) < 0.01
    assert torch.equal(torch.where(mask > 0, 0.0, out), torch.where(mask > 0, 0.0, image))
    assert levels(fast(image), exact(image)) < 0.01  # without a mask


@pytest.mark.parametrize("engine", ENGINES)
def test_a_detector_gives_the_same(engine: str, tmp_path: Path) -> None:
    path = str(weights(tmp_path, kind="detector"))
    fast = open_detector(path, device="cpu", precision="fp32", engine=engine)
    exact = open_detector(path, device="cpu", precision="fp32", engine="torch")
    image = photograph(130, 101)[0].permute(1, 2, 0).numpy()
    assert fast.engine == engine
    found, expected = fast.probability(image), exact.probability(image)
    assert expected.std() > 0.002
    assert np.abs(found - expected).max() < 1e-4


def enlarger(folder: Path, scale: int, *, plain: bool = False) -> str:
    torch.manual_seed(0)
    model = Enlarge(scale, width=8, blocks=2)
    model.tail.weight.data.mul_(0 if plain else 10)
    path = folder / "enlarger.safetensors"
    args = {"scale": scale, "width": 8, "blocks": 2}
    described = Description(builder="enlarge", args=args, needs_mask=False, scale=scale, overlap_px=model.reach_px)
    save_weights(path, model.state_dict(), described)
    return str(path)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_that_enlarges_gives_the_same_at_any_size_and_in_tiles(
    engine: str, scale: int, tmp_path: Path
) -> None:
    path = enlarger(tmp_path, scale)
    fast = open_restorer(path, device="cpu", precision="fp32", engine=engine)
    exact = open_restorer(path, device="cpu", precision="fp32", engine="torch")
    assert (fast.engine, fast.requirements) == (engine, exact.requirements)
    for height, width in [(1, 1), (3, 50), (37, 64)]:
        image = photograph(height, width)
        out = fast(image)
        assert out.shape == (1, 3, scale * height, scale * width)
        assert levels(out, exact(image)) < 0.05
    image = photograph(90, 130)[0]
    whole, tiled = (run_restorer(fast, image, None, tile, lambda line: None) for tile in (0, 64))
    assert levels(whole, tiled) < 0.05


@pytest.mark.skipif(not choice.is_installed("openvino"), reason="openvino is not installed")
def test_bf16_rounds_what_is_added_to_an_enlarged_image_alone(tmp_path: Path) -> None:
    restorer = open_restorer(enlarger(tmp_path, 2, plain=True), device="cpu", precision="bf16", engine="openvino")
    slope = torch.linspace(0.8, 1, 96).expand(1, 3, 40, 96).contiguous()
    expected = torch.nn.functional.interpolate(slope, scale_factor=2.0, mode="bicubic").clamp(0, 1)
    assert levels(restorer(slope), expected) < 0.1, "bf16 has steps of a level there"


@pytest.mark.parametrize("engine", ENGINES)
def test_gray_networks_are_run(engine: str, tmp_path: Path) -> None:
    path = str(weights(tmp_path, channels=1))
    fast = open_restorer(path, device="cpu", precision="fp32", engine=engine)
    exact = open_restorer(path, device="cpu", precision="fp32", engine="torch")
    image = photograph(33, 40)
    assert fast.engine == engine
    assert levels(fast(image), exact(image)) < 0.01


@pytest.mark.parametrize("engine", ENGINES)
def test_networks_see_their_condition_images(engine: str, tmp_path: Path) -> None:
    path = str(weights(tmp_path, conditions=1))
    fast = open_restorer(path, device="cpu", precision="fp32", engine=engine)
    exact = open_restorer(path, device="cpu", precision="fp32", engine="torch")
    one, other = photograph(33, 40, channels=4), photograph(33, 40, channels=4)
    other[:, 3] = 0
    assert levels(exact(one), exact(other)) > 2
    assert levels(fast(one), exact(one)) < 0.01
    assert levels(fast(other), exact(other)) < 0.01


@pytest.mark.parametrize("name", ["photo", "inpaint"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_shipped_networks_give_the_same(name: str, precision: str) -> None:
    if not choice.is_installed("openvino"):
        pytest.skip("openvino is not installed")
    if precision == "bf16" and not cpu_has_fast_bf16():
        pytest.skip("no bf16 here")
    fast = open_restorer(name, device="cpu", precision=precision, engine="openvino")
    exact = open_restorer(name, device="cpu", precision=precision, engine="torch")
    image, mask = photograph(72, 88), hole(72, 88)[..., ::2].repeat_interleave(2, -1)
    assert (fast.engine, fast.precision) == ("openvino", precision)
    assert levels(fast(image, mask), exact(image, mask)) < (0.1 if precision == "fp32" else 2)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_image_depends_on_its_batch_or_on_what_came_before(engine: str, tmp_path: Path) -> None:
    restorer = open_restorer(str(weights(tmp_path)), device="cpu", precision="fp32", engine=engine)
    images = [photograph(40, 56, seed=seed) for seed in range(3)]
    alone = [restorer(image) for image in images]
    restorer(photograph(64, 24))
    together = restorer(torch.cat(images[::-1]))
    assert torch.equal(together, torch.cat(alone[::-1]))
    assert torch.equal(restorer(images[0]), alone[0])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_change_of_threads_does_not_change_the_result(engine: str, tmp_path: Path) -> None:
    restorer = open_restorer(str(weights(tmp_path)), device="cpu", precision="fp32", engine=engine)
    image = photograph(64, 72)
    first, before = restorer(image), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(restorer(image), first)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("engine", ENGINES)
def test_tiles_join_without_seams(engine: str, tmp_path: Path) -> None:
    restorer = open_restorer(str(weights(tmp_path)), device="cpu", precision="fp32", engine=engine)
    image = photograph(150, 170)[0]
    whole = run_restorer(restorer, image, None, 0, lambda line: None)
    tiles = run_restorer(restorer, image, None, 104, lambda line: None)
    assert levels(whole, tiles) < 0.01


@pytest.mark.parametrize("engine", ENGINES)
def test_nan_is_not_hidden(engine: str, tmp_path: Path) -> None:
    restorer = open_restorer(str(weights(tmp_path)), device="cpu", precision="fp32", engine=engine)
    image = photograph(32, 32)
    image[0, 0, 9, 9] = torch.nan
    assert bool(restorer(image).isnan().any())


@pytest.mark.parametrize("engine", ENGINES)
def test_memory_that_runs_out_is_reported_as_such(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restorer: Restorer = open_restorer(str(weights(tmp_path)), device="cpu", precision="fp32", engine=engine)
    runner = restorer._run  # type: ignore[attr-defined]

    def raises(message: str) -> Callable[..., None]:
        def run(*args: object) -> None:
            raise RuntimeError(message)

        return run

    monkeypatch.setattr(runner, "_run", raises("Exception from plugin.cpp:1: std::bad_alloc"))
    with pytest.raises(MemoryError):
        restorer(photograph(32, 32))
    monkeypatch.setattr(runner, "_run", raises("something else"))
    with pytest.raises(RestoreError, match=f"{engine} failed: something else"):
        restorer(photograph(32, 32))


def test_the_drawn_image_differs_from_what_is_traced() -> None:
    """A size that a trace took for a constant must show in the check."""
    model = UNet(**SMALL)
    image, mask = drawn(Network("x", model, 3, False, None))
    assert mask is not None
    assert image.shape[-2:] == mask.shape[-2:]
    assert image.shape[-2:] != (2 * model.smallest_side, 3 * model.smallest_side)
    assert 0.05 < float(mask.mean()) < 0.5


def test_the_check_notices_a_difference() -> None:
    torch.manual_seed(0)
    network = Network("x", UNet(**SMALL), 3, False, None)
    exact = TorchRunner(network.model, CPU, "fp32")

    class Off:
        engine, precision = "openvino", "fp32"

        def __init__(self, by: float) -> None:
            self.by = by

        def __call__(self, image: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            out = exact(image, mask)
            out[..., 3, 3] += self.by
            return out

    assert check(exact, network).difference == 0
    assert check(Off(0.5 / 255), network).passed
    assert not check(Off(3 / 255), network).passed
    assert not check(Off(float("nan")), network).passed
