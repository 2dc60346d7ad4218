"""ONNX files from strangers: what a file could do to the machine is refused, before anything of it runs."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restore.engines.onnx_check import read_onnx
from restore.errors import RestoreError

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def graph(nodes: list[Any], weights: list[Any], name: str = "y") -> Any:
    """A model with an image `x` and an output."""
    places = [
        helper.make_tensor_value_info(place, TensorProto.FLOAT, ["b", 3, "h", "w"]) for place in ("x", name)
    ]  # fmt: skip
    inner = helper.make_graph(nodes, "g", places[:1], places[1:], weights)
    return helper.make_model(inner, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def kernel(name: str = "k") -> Any:
    return numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), name)


def plain() -> Any:
    return graph([helper.make_node("Conv", ["x", "k"], ["y"])], [kernel()])


def opened(model: Any, folder: Path) -> Any:
    path = folder / "net.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return read_onnx(path)


def refusal(model: Any, folder: Path) -> str:
    with pytest.raises(RestoreError) as caught:
        opened(model, folder)
    assert caught.value.where == str(folder / "net.onnx")
    return caught.value.what


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    assert opened(plain(), tmp_path) == plain()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.97])
def test_a_file_that_is_cut_off_is_refused(share: float, tmp_path: Path) -> None:
    data = plain().SerializeToString()
    words = refusal(data[: int(len(data) * share)], tmp_path)
    assert "not a complete ONNX file" in words or "not a valid ONNX graph" in words or "states" in words


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    assert "not a complete ONNX file" in refusal(b"\x89PNG\r\n\x1a\n" + bytes(100), tmp_path)
    assert "not a complete ONNX file" in refusal(b"PK\x03\x04" * 30, tmp_path)


def test_a_tensor_must_hold_what_it_states(tmp_path: Path) -> None:
    for dims in ([3, 3, 1, 2], [1 << 40, 3, 1, 1], [-1, 3, 1, 1], [1 << 62, 1 << 62]):
        model = plain()
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(dims)
        words = refusal(model, tmp_path)
        assert "states 18 values" in words or "too large" in words or "negative" in words, words
    model = plain()
    model.graph.initializer[0].data_type = TensorProto.DOUBLE
    assert "states 9 values, but holds 36 bytes" in refusal(model, tmp_path)
    model.graph.initializer[0].data_type = 99
    assert "unknown type" in refusal(model, tmp_path)
    model.graph.initializer[0].data_type = TensorProto.STRING
    assert "holds text" in refusal(model, tmp_path)


def external(location: str, **said: str) -> Any:
    model = plain()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **said}.items():
        tensor.external_data.add(key=key, value=value)
    return model


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "net.onnx.data").write_bytes(bytes(8) + np.arange(9, dtype=np.float32).tobytes())
    found = opened(external("net.onnx.data", offset="8", length="36"), tmp_path)
    np.testing.assert_array_equal(numpy_helper.to_array(found.graph.initializer[0]).ravel(), np.arange(9))
    assert not found.graph.initializer[0].external_data


def test_weights_elsewhere_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(36))
    (folder / "sub").mkdir()
    (folder / "sub" / "w").write_bytes(bytes(36))
    for location in ("../secret", str(secret), "sub/w", "..", "", "a\\b", "/dev/zero"):
        assert "elsewhere" in refusal(external(location), folder), location
    os.symlink(secret, folder / "link")
    assert "cannot be read" in refusal(external("link"), folder)
    os.mkfifo(folder / "pipe")
    os.symlink("/dev/zero", folder / "zero")
    assert "cannot be read" in refusal(external("zero"), folder)
    assert "cannot be read" in refusal(external("missing"), folder)
    assert "which is no file" in refusal(external("pipe"), folder)
    assert "cannot be read" in refusal(external("sub"), folder)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"length": "35"}, "states 36 bytes, but 35"),
        ({"offset": "-4"}, "states 36 bytes"),
        ({"offset": "x"}, "no readable place"),
        ({"offset": "1"}, "too short"),
        ({"offset": str(1 << 62)}, "too short"),
    ],
)
def test_a_wrong_place_in_the_weights_is_refused(said: dict[str, str], words: str, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(bytes(36))
    assert words in refusal(external("w", **said), tmp_path)


def test_a_graph_that_never_ends_is_refused(tmp_path: Path) -> None:
    cyclic = graph([helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])], [], "a")
    assert "not a valid ONNX graph" in refusal(cyclic, tmp_path)
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Identity", ["v"], ["u"])], "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("c", 9, []),
         helper.make_tensor_value_info("v", 1, None)],
        [helper.make_tensor_value_info("d", 9, []), helper.make_tensor_value_info("u", 1, None)],
    )  # fmt: skip
    endless = graph([helper.make_node("Loop", ["", "t", "x"], ["y"], body=body)], [
        numpy_helper.from_array(np.array(True), "t")
    ])  # fmt: skip
    assert "a Loop, which may never end" in refusal(endless, tmp_path)
    branch = helper.make_graph(
        [helper.make_node("Loop", ["", "t", "x"], ["y"], body=body)], "then", [], endless.graph.output
    )
    hidden = graph([helper.make_node("If", ["t"], ["y"], then_branch=branch, else_branch=branch)], [
        numpy_helper.from_array(np.array(True), "t")
    ])  # fmt: skip
    assert "a Loop, which may never end" in refusal(hidden, tmp_path)


def test_code_of_its_own_is_refused(tmp_path: Path) -> None:
    model = plain()
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    assert "not ONNX's own (com.example)" in refusal(model, tmp_path)
    model = plain()
    model.graph.node[0].op_type = "Convolve"
    assert "not a valid ONNX graph" in refusal(model, tmp_path)
    model = plain()
    function = helper.make_function(
        "own", "f", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    model.functions.append(function)
    assert "defines nodes of its own" in refusal(model, tmp_path)


def test_memory_is_bounded(tmp_path: Path) -> None:
    def of(*numbers: int, name: str = "s") -> Any:
        return numpy_helper.from_array(np.array(numbers, np.int64), name)

    def fills(*nodes: Any, weights: list[Any]) -> Any:
        return graph([*nodes, helper.make_node("Add", ["x", "z"], ["y"])], weights)

    make = helper.make_node("ConstantOfShape", ["s"], ["z"])
    assert "ConstantOfShape of 100000x100000" in refusal(fills(make, weights=[of(100_000, 100_000)]), tmp_path)
    product = helper.make_node("Mul", ["p", "p"], ["s"])
    assert "takes too much memory" in refusal(
        fills(product, make, weights=[of(1, 3, 1 << 14, 1 << 14, name="p")]), tmp_path
    )
    large = helper.make_node("Resize", ["x", "", "s"], ["z"])
    scales = numpy_helper.from_array(np.array([1, 1, 1000, 1000], np.float32), "s")
    model = graph([large, helper.make_node("Relu", ["z"], ["y"])], [scales])
    assert "makes 1x3x64000x64000 values of an image of 64 pixels" in refusal(model, tmp_path)
