"""Networks of other projects: small ones with random weights, built by spandrel's own classes and opened by file."""

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage import data
from torch import nn
from typer.testing import CliRunner

import restore.fix.decoder_isolation as supervising
from restore.cli.main import app
from restore.errors import RestoreError
from restore.fix.steps import repair
from restore.restorers import spandrel as zoo
from restore.restorers.registry import open_restorer
from restore.tiling import smallest_tile
from tests.fix.conftest import fix_with

pytest.importorskip("spandrel")


def compact(scale: int = 2, channels: int = 3) -> nn.Module:
    from spandrel.architectures.Compact import Compact

    return Compact(num_in_ch=channels, num_out_ch=channels, num_feat=16, num_conv=4, upscale=scale)


def esrgan() -> nn.Module:
    from spandrel.architectures.ESRGAN import ESRGAN

    return ESRGAN(in_nc=3, out_nc=3, num_filters=8, num_blocks=1, scale=4)


def drunet() -> nn.Module:
    from spandrel.architectures.DRUNet import DRUNet

    return DRUNet(in_nc=4, out_nc=3, nc=[8, 16, 16, 16], nb=2)


def dncnn() -> nn.Module:
    from spandrel.architectures.DnCNN import DnCNN

    return DnCNN(in_nc=1, out_nc=1, nc=8, nb=8, act_mode="R")


def swinir() -> nn.Module:
    from spandrel.architectures.SwinIR import SwinIR

    return SwinIR(
        img_size=64, embed_dim=12, depths=[2], num_heads=[2], window_size=8, upscale=2, upsampler="pixelshuffle"
    )


def nafnet() -> nn.Module:
    from spandrel.architectures.NAFNet import NAFNet

    network = NAFNet(img_channel=3, width=8, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1])
    for name, parameter in network.named_parameters():
        if name.endswith(("beta", "gamma")):  # zero before training: blocks that do nothing
            nn.init.ones_(parameter)
    return network


def real_plksr() -> nn.Module:
    from spandrel.architectures.PLKSR import RealPLKSR

    return RealPLKSR(dim=16, n_blocks=1, upscaling_factor=2, kernel_size=5, norm_groups=4)


def lama_state() -> dict[str, torch.Tensor]:
    """LaMa has one size; its 51 million weights are views of a few numbers, so that the file stays small."""
    from spandrel.architectures.LaMa import LaMa

    with torch.device("meta"):
        network = LaMa(in_nc=4, out_nc=3)
    numbers = torch.randn(1 << 14, generator=torch.Generator().manual_seed(0))
    state = {}
    for key, value in network.state_dict().items():
        if value.ndim < 2:
            plain = 1.0 if key.endswith(("running_var", "weight")) else 0.0
            state[key] = torch.full((), plain, dtype=value.dtype).expand(value.shape)
        else:
            spread = (0.5 / value[0].numel()) ** 0.5
            state[key] = (numbers * spread).as_strided(value.shape, (13, 11, 3, 1))
    state["model.model.34.weight"] = state["model.model.34.weight"] / 10  # clear of black and white
    return state


def saved(network: nn.Module, file: Path, wrap: Callable[[Any], Any] = lambda state: state) -> str:
    torch.manual_seed(1)
    for parameter in network.parameters():  # away from initial weights that hardly do anything
        if parameter.ndim > 1:
            parameter.data += torch.randn_like(parameter) * 0.7 * parameter[0].numel() ** -0.5
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save(wrap(state), file)
    return str(file)


def opened(path: str, precision: str = "fp32") -> Any:
    return open_restorer(path, device="cpu", precision=precision)


@pytest.fixture(scope="module")
def photograph() -> torch.Tensor:
    """A cat, 1×3×240×330."""
    return torch.from_numpy(data.chelsea()[30:270, 60:390].copy()).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="module")
def lama(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("lama") / "big-lama.ckpt"
    torch.save({"state_dict": lama_state(), "epoch": 3}, file)
    return opened(str(file))


def as_array(picture: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(picture[0].permute(1, 2, 0).numpy().astype(np.float32))


def nearest_doubler(folder: Path) -> str:
    """A network that enlarges by repeating pixels, so that what comes out is known to the bit."""
    network = compact(2)
    nn.init.zeros_(network.body[-1].weight)
    nn.init.zeros_(network.body[-1].bias)
    torch.save(network.state_dict(), folder / "doubler.pth")
    return str(folder / "doubler.pth")


@dataclass(frozen=True)
class Case:
    build: Callable[[], nn.Module]
    scale: int
    tileable: bool
    purpose: str


CASES = {
    "compact": Case(compact, 2, True, "RealESRGAN Compact: enlarges 2 times"),
    "esrgan": Case(esrgan, 4, True, "ESRGAN: enlarges 4 times"),
    "drunet": Case(drunet, 1, True, "DRUNet: restores"),
    "dncnn": Case(dncnn, 1, True, "DnCNN: restores"),
    "swinir": Case(swinir, 2, True, "SwinIR: enlarges 2 times"),
    "nafnet": Case(nafnet, 1, False, "NAFNet: restores"),
    "real-plksr": Case(real_plksr, 2, False, "PLKSR: enlarges 2 times"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_network_is_recognised_and_repairs_in_tiles_as_in_one_go(
    name: str, tmp_path: Path, photograph: torch.Tensor
) -> None:
    case = CASES[name]
    suffix = ".safetensors" if name in ("drunet", "esrgan") else ".pth"
    restorer = opened(saved(case.build(), tmp_path / f"weights{suffix}"))
    needs = restorer.requirements
    assert (restorer.purpose, needs.scale, needs.tileable) == (case.purpose, case.scale, case.tileable)
    assert not needs.needs_mask
    assert len(restorer.sha256) == 64
    shown = as_array(photograph[..., :70, : 330 if case.tileable else 101])
    whole = repair(restorer, shown, None)
    assert whole.shape == (shown.shape[0] * case.scale, shown.shape[1] * case.scale, 3)
    unchanged = shown.repeat(case.scale, axis=0).repeat(case.scale, axis=1)
    assert np.abs(whole - unchanged).max() > 10 / 255, "it did something"
    if case.tileable:
        assert smallest_tile(needs.overlap_px, needs.multiple) < 330, "else nothing is cut"
        tiled = repair(restorer, shown, None, tile_px=1)
        assert np.abs(whole - tiled).max() <= 1 / 255
        assert not np.array_equal(whole, tiled), "it was cut"


@pytest.mark.parametrize("name", ["drunet", "swinir", "nafnet", "real-plksr"])
def test_any_size_is_repaired(name: str, tmp_path: Path) -> None:
    scale = CASES[name].scale
    restorer = opened(saved(CASES[name].build(), tmp_path / "weights.pth"))
    for height, width in [(1, 1), (1, 70), (37, 5)]:
        out = restorer(torch.rand(2, 3, height, width))
        assert out.shape == (2, 3, height * scale, width * scale)
        assert out.isfinite().all()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
@pytest.mark.parametrize("wrapper", ["params_ema", "state_dict"])
def test_weights_open_as_training_code_wraps_them(suffix: str, wrapper: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = compact(4)
    torch.save({wrapper: network.state_dict(), "iter": 400000}, tmp_path / f"x{suffix}")
    picture = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        expected = network(picture).clamp(0, 1)
    assert torch.allclose(opened(str(tmp_path / f"x{suffix}"))(picture), expected, atol=1e-6)


def test_a_gray_network_repairs_gray_and_every_channel_of_colour(tmp_path: Path, photograph: torch.Tensor) -> None:
    restorer = opened(saved(dncnn(), tmp_path / "gray.pth"))
    picture = photograph[..., :60, :80]
    out = restorer(picture)
    for channel in range(3):
        gray = picture[:, channel : channel + 1].expand(-1, 3, -1, -1)
        repaired = restorer(gray)
        assert torch.equal(repaired[:, :1].expand_as(repaired), repaired), "gray stays gray"
        assert torch.allclose(out[:, channel], repaired[:, 0], atol=1e-6)


def test_a_batch_is_its_pictures_one_by_one_and_the_shared_randomness_is_left_alone(
    tmp_path: Path, photograph: torch.Tensor
) -> None:
    restorer = opened(saved(nafnet(), tmp_path / "x.pth"))
    batch = torch.cat([photograph[..., :40, :40], photograph[..., 40:80, 40:80]])
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    out = restorer(batch)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(out, torch.cat([restorer(batch[:1]), restorer(batch[1:])]))


def test_lama_fills_holes_and_leaves_the_rest_to_the_bit(lama: Any, photograph: torch.Tensor) -> None:
    assert (lama.purpose, lama.requirements.needs_mask, lama.requirements.tileable) == (
        "LaMa: fills holes",
        True,
        False,
    )
    picture = photograph[..., :75, :92]
    mask = torch.zeros_like(picture[:, :1])
    mask[..., 20:50, 30:60] = 1
    pink = torch.where(mask > 0, torch.tensor([1.0, 0.1, float("nan")]).view(1, 3, 1, 1), picture)
    out = lama(picture, mask)
    assert not out.requires_grad
    assert torch.equal(lama(pink, mask), out), "what the mask hides is never looked at"
    known = (mask == 0).expand_as(picture)
    assert torch.equal(out[known], picture[known])
    with torch.no_grad():
        network = lama._descriptor.model
        padded = torch.nn.functional.pad(torch.cat([picture * (1 - mask), mask], 1), (0, 4, 0, 5), mode="reflect")
        expected = network.model(padded[:, :3], padded[:, 3:])[..., :75, :92].clamp(0, 1)
    assert torch.allclose(out[~known], expected[~known], atol=1e-4)
    half = mask / 2
    assert torch.allclose(lama(picture, half), picture + half * (out - picture), atol=1e-5), "a soft mask blends"


def test_lama_is_fixed_from_the_command_by_crops_around_holes(lama: Any, tmp_path: Path) -> None:
    picture = data.chelsea()[:120, :160]
    mask = np.zeros((120, 160), np.uint8)
    mask[40:60, 50:90] = 255
    (tmp_path / "in").mkdir()
    Image.fromarray(picture).save(tmp_path / "in" / "a.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    summary = fix_with(tmp_path / "in", tmp_path / "out", lama, masks=tmp_path / "mask.png")
    assert (summary.done, summary.failed) == (1, [])
    out = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    assert np.array_equal(out[mask == 0], picture[mask == 0])
    assert not np.array_equal(out[mask > 0], picture[mask > 0])


def test_half_precision_is_taken_where_the_network_bears_it(
    lama: Any, tmp_path: Path, photograph: torch.Tensor
) -> None:
    file = saved(compact(2), tmp_path / "x.pth")
    picture = photograph[..., :48, :64]
    mask = (torch.arange(64) < 20).float().expand(1, 1, 48, 64)
    half = opened(file, "bf16")
    assert half.precision == "bf16"
    exact = half.in_precision("fp32")
    assert exact.precision == "fp32"
    assert 0 < float((half(picture) - exact(picture)).abs().max()) < 0.05
    assert not opened(saved(drunet(), tmp_path / "y.pth")).supports_precision("fp16"), "spandrel says so"
    assert float((lama.in_precision("bf16")(picture, mask) - lama(picture, mask)).abs().max()) < 0.02


def test_a_network_that_breaks_in_half_precision_is_run_in_full(tmp_path: Path) -> None:
    restorer = opened(saved(compact(2), tmp_path / "x.pth"))

    def refuse(module: nn.Module, args: Any) -> None:
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("expected Float but found BFloat16")

    restorer._descriptor.model.register_forward_pre_hook(refuse)
    assert restorer.in_precision("bf16").precision == "fp32"


def test_infinite_values_do_not_become_white(tmp_path: Path) -> None:
    network = compact(2)
    network.body[-1].bias.data[:] = torch.inf
    torch.save(network.state_dict(), tmp_path / "x.pth")
    assert opened(str(tmp_path / "x.pth"))(torch.rand(1, 3, 8, 8)).isnan().all()


def test_too_little_memory_for_the_whole_picture_is_told_and_got_round(
    tmp_path: Path, photograph: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    restorer = opened(saved(nafnet(), tmp_path / "x.pth"))
    told: list[str] = []
    shown = np.tile(as_array(photograph[..., :100, :330]), (1, 2, 1))
    monkeypatch.setattr(zoo, "free_memory", lambda device: 300 * 340 * restorer.bytes_per_pixel)
    assert np.isfinite(repair(restorer, shown, None)).all()
    assert told == [], "it fits"
    monkeypatch.setattr(zoo, "free_memory", lambda device: 100 * 340 * restorer.bytes_per_pixel)
    out = repair(restorer, shown, None, on_event=told.append)
    assert out.shape == shown.shape
    assert told == ["out of memory; retried with 330 px tiles"]


def test_a_picture_with_alpha_is_enlarged_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This process has threads, which a fork would not take along.
    monkeypatch.setattr(supervising, "supervise", lambda seconds, on_event: supervising.SupervisorLink())
    rgba = np.dstack([data.chelsea()[:30, :40], np.full((30, 40), 255, np.uint8)])
    rgba[:, 20:, 3] = 0
    (tmp_path / "in").mkdir()
    Image.fromarray(rgba).save(tmp_path / "in" / "a.png")
    arguments = ["fix", str(tmp_path / "in"), str(tmp_path / "out"), "--model", nearest_doubler(tmp_path)]
    result = CliRunner().invoke(app, [*arguments, "--device", "cpu", "--precision", "fp32"])
    assert result.exit_code == 0, result.output
    out = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    assert out.shape == (60, 80, 4)
    assert np.array_equal(out[..., :3], rgba[..., :3].repeat(2, axis=0).repeat(2, axis=1))
    assert (out[:, :38, 3] == 255).all()
    assert (out[:, 42:, 3] == 0).all()


def enlarged(picture: Image.Image, folder: Path, **options: Any) -> Image.Image:
    (folder / "in").mkdir()
    picture.save(folder / "in" / "a.png", **options)
    summary = fix_with(folder / "in", folder / "out", opened(nearest_doubler(folder)))
    assert (summary.done, summary.failed) == (1, [])
    return Image.open(folder / "out" / "a.png")


def test_sixteen_bits_of_gray_stay_sixteen_bits_of_gray(tmp_path: Path) -> None:
    gradient = np.linspace(0, 65535, 32 * 48).astype(np.uint16).reshape(32, 48)
    out = enlarged(Image.fromarray(gradient), tmp_path)
    assert out.mode in ("I;16", "I;16B", "I")
    assert np.array_equal(np.asarray(out, np.int64), gradient.astype(np.int64).repeat(2, axis=0).repeat(2, axis=1))


def test_gray_with_alpha_stays_gray_with_alpha(tmp_path: Path) -> None:
    gray = np.dstack([data.camera()[100:120, 100:130], np.full((20, 30), 77, np.uint8)])
    out = np.asarray(enlarged(Image.fromarray(gray, "LA"), tmp_path))
    assert np.array_equal(out, gray.repeat(2, axis=0).repeat(2, axis=1))


def test_a_palette_keeps_its_transparency(tmp_path: Path) -> None:
    palette = Image.fromarray(np.repeat(np.array([[0, 1, 2]], np.uint8).repeat(8, axis=1), 12, axis=0), "P")
    palette.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    out = np.asarray(enlarged(palette, tmp_path, transparency=bytes([0, 255, 128])))
    expected = np.asarray(palette.convert("RGB")).repeat(2, axis=0).repeat(2, axis=1)
    assert out.shape == (24, 48, 4)
    assert np.array_equal(out[..., :3], expected)
    assert [int(out[5, column, 3]) for column in (5, 24, 42)] == [0, 255, 128]


def test_exif_tells_the_new_size(tmp_path: Path) -> None:
    picture = Image.fromarray(data.chelsea()[:20, :30])
    exif = Image.Exif()
    exif[0x0112] = 1
    exif.get_ifd(0x8769).update({0xA002: 30, 0xA003: 20})
    told = enlarged(picture, tmp_path, exif=exif).getexif().get_ifd(0x8769)
    assert (told[0xA002], told[0xA003]) == (60, 40)


@dataclass
class Bomb:
    """Unpickled, it would leave a file."""

    path: str
    how: str

    def __reduce__(self) -> tuple[Any, ...]:
        calls = {
            "system": (os.system, (f"touch '{self.path}'",)),
            "open": (open, (self.path, "w")),
            "eval": (eval, (f"open({self.path!r}, 'w')",)),
        }
        return calls[self.how]


@pytest.mark.parametrize("how", ["system", "open", "eval"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
@pytest.mark.parametrize("plain", [False, True], ids=["torch", "pickle"])
def test_a_pickle_with_code_is_refused_and_the_code_does_not_run(
    how: str, suffix: str, plain: bool, tmp_path: Path
) -> None:
    bomb = Bomb(str(tmp_path / "it_ran"), how)
    file = tmp_path / f"weights{suffix}"
    if plain:
        file.write_bytes(pickle.dumps({"body.0.weight": bomb}, protocol=2))
    else:
        torch.save({**compact(2).state_dict(), "extra": bomb}, file)
    with pytest.raises(RestoreError, match="could run code, and is not opened") as raised:
        opened(str(file))
    assert {"system": "system", "open": "open", "eval": "eval"}[how] in raised.value.what
    assert "\n" not in raised.value.what
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt"])
def test_torchscript_is_refused(suffix: str, tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Conv2d(3, 3, 1), torch.rand(1, 3, 4, 4)), str(tmp_path / f"x{suffix}"))
    with pytest.raises(RestoreError, match="a TorchScript archive holds code, and is not opened"):
        opened(str(tmp_path / f"x{suffix}"))


@pytest.mark.parametrize(
    "state",
    [
        {"fancy.weight": torch.zeros(3)},
        {},
        {"state_dict": {}},
        {1: torch.zeros(3)},
        {"params": {"a": 1, "b": "text"}},
    ],
    ids=["unknown", "empty", "empty inside", "numbered", "no tensors"],
)
def test_other_weights_are_refused_in_a_line(state: dict[Any, Any], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(RestoreError, match=r"unknown architecture|no state dict") as raised:
        opened(str(tmp_path / "x.pth"))
    assert "\n" not in raised.value.what
    assert len(raised.value.what) < 200


def test_weights_that_do_not_fit_are_refused_by_the_name_of_what_they_look_like(tmp_path: Path) -> None:
    state = compact(2).state_dict()
    state["body.2.weight"] = torch.zeros(5, 5)
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(RestoreError, match="looks like RealESRGAN Compact, but cannot be loaded: ") as raised:
        opened(str(tmp_path / "x.safetensors"))
    assert "\n" not in raised.value.what


def test_without_spandrel_the_way_to_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(compact(2), tmp_path / "x.pth")
    monkeypatch.setitem(__import__("sys").modules, "spandrel", None)
    with pytest.raises(RestoreError) as raised:
        opened(file)
    assert raised.value.hint is not None
    assert 'pip install "restore-toolkit[zoo]"' in raised.value.hint


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({}))
    with pytest.raises(RestoreError, match=r"weights end with \.safetensors, \.onnx, \.pth, \.pt, \.ckpt, not '\.pkl'"):
        opened(str(tmp_path / "x.pkl"))


def test_a_network_that_draws_noise_repairs_alike_every_time(tmp_path: Path, photograph: torch.Tensor) -> None:
    restorer = opened(saved(compact(2), tmp_path / "x.pth"))

    def noisy(module: nn.Module, args: Any, out: torch.Tensor) -> torch.Tensor:
        return out + torch.randn_like(out) * float(np.random.rand())  # noqa: NPY002 - as MAT does

    plain = restorer(photograph[..., :40, :40])
    restorer._descriptor.model.register_forward_hook(noisy)
    out, again = restorer(photograph[..., :40, :40]), restorer(photograph[..., :40, :40])
    assert torch.equal(out, again)
    assert not torch.equal(out, plain)


def test_face_networks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recognize = zoo._recognize

    def as_face(path: Path, state: Any) -> Any:
        descriptor = recognize(path, state)
        descriptor._purpose = "FaceSR"
        return descriptor

    monkeypatch.setattr(zoo, "_recognize", as_face)
    with pytest.raises(RestoreError, match="restores single faces, cropped and aligned, not whole images"):
        opened(saved(compact(2), tmp_path / "x.pth"))
