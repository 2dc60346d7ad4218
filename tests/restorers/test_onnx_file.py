"""ONNX files of other projects repair images as soon as it is known how their tensors are meant."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from restore.errors import RestoreError
from restore.fix.options import FixOptions
from restore.fix.run import fix_folder
from restore.images import read_rgb8, write_png
from restore.restorers.base import Restorer, run_restorer
from restore.restorers.foreign_onnx import Declared, parse_args
from restore.restorers.model_card import model_card
from restore.restorers.registry import open_restorer, open_restorers

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def save(
    path: Path, nodes: list[Any], weights: dict[str, np.ndarray], *, takes: Any = 3, gives: Any = 3,
    kind: int = TensorProto.FLOAT, size: Any = ("h", "w"), out: Any = ("oh", "ow"), batch: Any = 1, mask: Any = None,
) -> Path:  # fmt: skip
    """A graph from `x` (and `m`) to `y`."""
    inputs = [helper.make_tensor_value_info("x", kind, [batch, takes, *size])]
    if mask is not None:
        inputs.append(helper.make_tensor_value_info("m", kind, [batch, mask, *size]))
    outputs = [helper.make_tensor_value_info("y", kind, [batch, gives, *out])]
    tensors = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, tensors),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    path.write_bytes(model.SerializeToString())
    return path


def blur(channels: int, kind: type = np.float32) -> dict[str, np.ndarray]:
    """The kernel of a mean over 3×3 pixels, for each channel."""
    kernel = np.zeros((channels, channels, 3, 3), kind)
    kernel[range(channels), range(channels)] = 1 / 9
    return {"k": kernel}


def convolve(source: str = "x", out: str = "y") -> Any:
    return helper.make_node("Conv", [source, "k"], [out], pads=[1, 1, 1, 1])


def blurred(image: torch.Tensor) -> torch.Tensor:
    kernel = torch.full((3, 1, 3, 3), 1 / 9)
    return torch.nn.functional.conv2d(image, kernel, padding=1, groups=3)


def photo(height: int = 70, width: int = 61) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(5))


def opened(path: Path, *args: str) -> Restorer:
    return open_restorer(str(path), device="cpu", args=args)


def refusal(path: Path, *args: str) -> str:
    with pytest.raises(RestoreError) as caught:
        opened(path, *args)
    return str(caught.value)


def test_a_network_of_three_channels_repairs(tmp_path: Path) -> None:
    restorer = opened(save(tmp_path / "net.onnx", [convolve()], blur(3)))
    torch.testing.assert_close(restorer(photo()), blurred(photo()), rtol=0, atol=1e-5)
    needs = restorer.requirements
    assert (needs.multiple, needs.scale, needs.tileable, needs.needs_mask) == (1, 1, True, False)
    in_tiles = run_restorer(restorer, photo(90, 130)[0], None, 48, lambda line: None)
    torch.testing.assert_close(in_tiles, blurred(photo(90, 130))[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("batch", "size"), [(1, ("h", "w")), ("b", ("h", "w")), (1, (32, 48)), ("b", (61, 61)), (1, (8, 8))]
)
def test_free_and_fixed_sizes(batch: Any, size: Any, tmp_path: Path) -> None:
    restorer = opened(save(tmp_path / "net.onnx", [convolve()], blur(3), batch=batch, size=size, out=size))
    for image in (photo(), photo(5, 7), photo(1, 1), torch.cat([photo(), photo().flip(-1)])):
        expected = blurred(image)
        found = restorer(image)
        assert found.shape == image.shape
        # At the border, a smaller image is padded by reflection, and the network pads by zeros.
        inside = (..., slice(1, -1), slice(1, -1))
        torch.testing.assert_close(found[inside], expected[inside], rtol=0, atol=1e-5)


def test_half_precision(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", [convolve()], blur(3, np.float16), kind=TensorProto.FLOAT16)
    torch.testing.assert_close(opened(path)(photo()), blurred(photo()), rtol=0, atol=2e-3)


def test_one_channel_repairs_each_color(tmp_path: Path) -> None:
    restorer = opened(save(tmp_path / "net.onnx", [convolve()], blur(1), takes=1, gives=1))
    torch.testing.assert_close(restorer(photo()), blurred(photo()), rtol=0, atol=1e-5)
    assert not restorer.requirements.adds_color


def test_one_channel_to_three_adds_color(tmp_path: Path) -> None:
    kernel = np.zeros((3, 1, 1, 1), np.float32)
    kernel[:, 0, 0, 0] = (1, 0.5, 0.25)
    node = helper.make_node("Conv", ["x", "k"], ["y"])
    restorer = opened(save(tmp_path / "net.onnx", [node], {"k": kernel}, takes=1))
    assert restorer.requirements.adds_color
    luma = (photo() * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    expected = luma * torch.tensor([1, 0.5, 0.25]).view(1, 3, 1, 1)
    torch.testing.assert_close(restorer(photo()), expected, rtol=0, atol=1e-5)


def test_the_fourth_channel_is_asked_for(tmp_path: Path) -> None:
    # Each color plus the fourth channel.
    kernel = np.concatenate([np.eye(3, dtype=np.float32), np.ones((3, 1), np.float32)], 1)[:, :, None, None]
    node = helper.make_node("Conv", ["x", "k"], ["y"])
    path = save(tmp_path / "net.onnx", [node], {"k": kernel}, takes=4)
    assert "does not say what the fourth is; say it: --model-args fourth=mask" in refusal(path)
    dark = photo() * 0.5
    torch.testing.assert_close(opened(path, "fourth=0.25")(dark), dark + 0.25, rtol=0, atol=1e-5)
    fills = opened(path, "fourth=mask")
    assert fills.requirements.needs_mask
    hole = torch.zeros(1, 1, 70, 61)
    hole[..., 10:20, 10:20] = 1
    found = fills(dark, hole)
    torch.testing.assert_close(found, torch.where(hole > 0, 1.0, dark), rtol=0, atol=1e-5)  # 0.5 under it, and 1
    assert torch.equal(found[..., 30:, :], dark[..., 30:, :])
    three = save(tmp_path / "three.onnx", [convolve()], blur(3))
    assert "takes 3 channels, not four" in refusal(three, "fourth=mask")


def test_a_second_input_is_the_mask(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", [helper.make_node("Add", ["x", "m"], ["y"])], {}, mask=1)
    hole = torch.zeros(1, 1, 70, 61)
    hole[..., 10:20, 10:20] = 1
    assert opened(path).requirements.needs_mask
    torch.testing.assert_close(opened(path)(photo(), hole), torch.where(hole > 0, 1.0, photo()))
    torch.testing.assert_close(opened(path, "mask=0")(photo(), hole), torch.where(hole > 0, 0.5, photo()))
    assert "second input has 3 channels" in refusal(
        save(tmp_path / "two.onnx", [helper.make_node("Add", ["x", "m"], ["y"])], {}, mask=3)
    )


def test_ranges_and_order_are_said(tmp_path: Path) -> None:
    double = helper.make_node("Mul", ["x", "k"], ["y"])
    path = save(tmp_path / "net.onnx", [double], {"k": np.array([255, 0, 0], np.float32).reshape(1, 3, 1, 1)})
    assert "gives values between 0 and 186; say what black and white are: --model-args range=0,255" in refusal(path)
    first_kept = photo() * torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    last_kept = photo() * torch.tensor([0, 0, 1.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(opened(path, "output-range=0,255")(photo()), first_kept, rtol=0, atol=1e-5)
    torch.testing.assert_close(opened(path, "output-range=0,255", "order=bgr")(photo()), last_kept, rtol=0, atol=1e-5)
    halved = save(tmp_path / "half.onnx", [helper.make_node("Mul", ["x", "k"], ["y"])], {"k": np.float32(0.5)})
    torch.testing.assert_close(opened(halved, "range=-1,1")(photo()), photo() * 0.5 + 0.25, rtol=0, atol=1e-5)


def test_a_network_that_enlarges(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["z"]),
        helper.make_node("DepthToSpace", ["z"], ["y"], blocksize=2, mode="CRD"),
    ]
    kernel = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)[:, :, None, None]
    restorer = opened(save(tmp_path / "net.onnx", nodes, {"k": kernel}))
    assert restorer.requirements.scale == 2
    expected = photo().repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(restorer(photo()), expected, rtol=0, atol=1e-6)
    fixed = opened(save(tmp_path / "fixed.onnx", nodes, {"k": kernel}, size=(32, 32), out=(64, 64)))
    torch.testing.assert_close(fixed(photo()), expected, rtol=0, atol=1e-6)


def test_the_multiple_is_tried_out(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("SpaceToDepth", ["x"], ["z"], blocksize=4),
        helper.make_node("DepthToSpace", ["z"], ["y"], blocksize=4),
    ]
    path = save(tmp_path / "net.onnx", nodes, {})
    assert opened(path).requirements.multiple == 4
    assert torch.equal(opened(path)(photo()), photo())
    assert "no image runs through it" in refusal(path, "multiple=2")


def test_a_network_that_sees_the_whole_image_is_not_cut_into_tiles(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["z"]),
        helper.make_node("Mul", ["x", "z"], ["y"]),
    ]
    path = save(tmp_path / "net.onnx", nodes, {})
    assert not opened(path).requirements.tileable
    declared = opened(path, "overlap=16").requirements
    assert (declared.tileable, declared.overlap_px) == (True, 16)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"takes": 6, "gives": 6}, "takes 6 channels and gives 6; it is not for images"),
        ({"kind": TensorProto.UINT8}, "is of type tensor(uint8), not float"),
        ({"size": ("h",), "out": ("h",)}, "has 3 dimensions"),
        ({"batch": 2}, "batches of a fixed size"),
        ({"takes": 61, "gives": 61, "size": (61, 3), "out": (61, 3)}, "takes 61 channels"),
    ],
)
def test_what_is_no_restorer_is_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", [helper.make_node("Identity", ["x"], ["y"])], {}, **changes)
    assert words in refusal(path)


def test_a_graph_of_mixed_types_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", [convolve()], blur(3, np.float16))
    assert "cannot load it" in refusal(path) or "not a valid ONNX graph" in refusal(path)


def test_shapes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    assert refusal(save(tmp_path / "net.onnx", [convolve()], blur(5)))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["ranges=0,255"], "did you mean 'range'?"),
        (["range"], "unknown: 'range'"),
        (["range=255"], "'255' is not BLACK,WHITE"),
        (["range=1,1"], "is not BLACK,WHITE"),
        (["range=0,nan"], "is not BLACK,WHITE"),
        (["order=brg"], "'brg' is not one of rgb, bgr"),
        (["fourth=x"], "not understood"),
        (["multiple=0"], "multiple is 1 to 4096, not 0"),
        (["overlap=many"], "not understood"),
    ],
)
def test_arguments_are_checked(args: Sequence[str], words: str) -> None:
    with pytest.raises(RestoreError) as caught:
        parse_args(args)
    assert words in str(caught.value)
    assert str(caught.value).startswith("--model-args: ")


def test_the_output_has_the_range_of_the_input_unless_it_is_said() -> None:
    assert parse_args(["range=0,255"]) == Declared((0, 255), (0, 255))
    assert parse_args(["range=0,255", "output-range=-1,1"]) == Declared((0, 255), (-1, 1))
    assert parse_args([]) == Declared()


def test_a_folder_is_repaired_by_a_file(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", [helper.make_node("Sub", ["k", "x"], ["y"])], {"k": np.float32(255)})
    (tmp_path / "in").mkdir()
    pixels = (photo()[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    write_png(tmp_path / "in" / "a.png", pixels)
    options = FixOptions(device="cpu", model_args=("range=0,255",))
    fix_folder(tmp_path / "in", tmp_path / "out", model=str(path), options=options)
    np.testing.assert_array_equal(read_rgb8(tmp_path / "out" / "a.png"), 255 - pixels)
    with pytest.raises(RestoreError, match="--model-args: only applies to ONNX files"):
        fix_folder(tmp_path / "in", tmp_path / "b", model="telea", options=options)
    with pytest.raises(RestoreError, match="--model-args: needs a model by path"):
        fix_folder(tmp_path / "in", tmp_path / "c", model=open_restorer("telea"), options=options)


def test_a_file_has_a_card(tmp_path: Path) -> None:
    card = model_card(str(save(tmp_path / "net.onnx", [convolve()], blur(3))))
    assert (card.kind, card.architecture, card.parameters) == ("restorer", "ONNX graph", None)
    assert "ONNX file: restores" in card.format()[0]


def test_other_devices_are_refused(tmp_path: Path) -> None:
    from restore.restorers.onnx_file import open_onnx

    with pytest.raises(RestoreError, match="run on the CPU"):
        open_onnx("net", save(tmp_path / "net.onnx", [convolve()], blur(3)), torch.device("cuda"), None)


def test_auto_is_the_cpu_beside_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restore.devices.torch.cuda.is_available", lambda: True)
    path = save(tmp_path / "net.onnx", [convolve()], blur(3))
    assert [one.device.type for one in open_restorers(str(path))] == ["cpu"]
