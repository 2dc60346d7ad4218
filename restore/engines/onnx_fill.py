"""The filling of holes as part of an ONNX graph, so that a file needs no other program to start from."""

from __future__ import annotations

from typing import Any

import numpy as np

from restore.engines.onnx_graph import IMAGE, MASK
from restore.models.base import RestorationNetwork
from restore.models.unet import SWEEPS

#: The image whose holes are filled, inside a graph that fills them.
FILLED = "filled"

#: Halvings of the image. Up to sides of 2 to this power, the result is that of `harmonic_fill`.
LEVELS = 13

_OPENING = "fill_"


def with_fill(data: bytes, model: RestorationNetwork, channels: int) -> bytes:
    """A graph that fills holes itself: what is under the mask is ignored.

    Args:
        data: what `onnx_bytes` returned for the network, or the same in other numbers.
        model: the network, without condition images; it fills holes smoothly or with 0.5.
        channels: of the image.
    """
    import onnx
    from onnx import helper

    proto = onnx.load_from_string(data)
    graph = proto.graph
    for node in graph.node:
        node.input[:] = [FILLED if name == IMAGE else name for name in node.input]
    if all(place.name != MASK for place in graph.input):
        sizes: list[str | int | None] = ["batch", 1, "height", "width"]
        graph.input.append(helper.make_tensor_value_info(MASK, onnx.TensorProto.FLOAT, sizes))
    builder = _Builder()
    if model.prefill:
        _fill_smoothly(builder, channels)
    else:
        hole = builder("Greater", MASK, builder.constant(0.0))
        builder("Where", hole, builder.constant(0.5), IMAGE, out=FILLED)
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*builder.nodes, *rest])
    graph.initializer.extend(builder.constants)
    out: bytes = proto.SerializeToString(deterministic=True)
    return out


def without_fill(proto: Any) -> Any:
    """The graph behind the filling, which takes `filled` in place of `image`; the model itself if it fills nothing."""
    import onnx
    from onnx import helper

    if all(FILLED not in node.output for node in proto.graph.node):
        return proto
    cut = onnx.ModelProto()
    cut.CopyFrom(proto)
    graph = cut.graph
    needed, kept = {place.name for place in graph.output}, []
    for node in reversed(graph.node):
        if FILLED not in node.output and needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    tensors = [one for one in graph.initializer if one.name in needed]
    inputs = []
    for place in graph.input:
        if place.name == IMAGE:
            sizes = [size.dim_param or size.dim_value for size in place.type.tensor_type.shape.dim]
            inputs.append(helper.make_tensor_value_info(FILLED, onnx.TensorProto.FLOAT, sizes))
        elif place.name in needed:
            inputs.append(place)
    inner = helper.make_graph(kept[::-1], graph.name, inputs, list(graph.output), tensors)
    cut.graph.CopyFrom(inner)
    return cut


class _Builder:
    """Nodes and constants with names of their own."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def __call__(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """Add a node; returns the name of its output."""
        from onnx import helper

        name = out or f"{_OPENING}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any) -> str:
        """Add a constant; returns its name."""
        from onnx import numpy_helper

        array = np.asarray(value, np.float32) if isinstance(value, float) else value
        name = f"{_OPENING}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name


def _fill_smoothly(add: _Builder, channels: int) -> None:
    """`harmonic_fill`, with a fixed number of halvings: those of an image of one pixel change nothing."""
    from onnx import TensorProto

    zero, half, quarter = (add.constant(value) for value in (0.0, 0.5, 0.25))
    least = add.constant(1e-8)
    around = np.zeros((channels, 1, 3, 3), np.float32)
    around[:, 0, [0, 1, 1, 2], [1, 0, 2, 1]] = 0.25
    neighbors = add.constant(around)
    border = add.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))

    outside = add("LessOrEqual", MASK, zero)
    colors, weights = [add("Where", outside, IMAGE, zero)], [add("Cast", outside, to=TensorProto.FLOAT)]
    # An odd side gets its last pixels twice, whose mean they are; libraries differ in how they pool a half window.
    further = add.constant(np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64))
    for _ in range(LEVELS):
        for levels in (colors, weights):
            longer = add("Pad", levels[-1], further, mode="edge")
            levels.append(add("AveragePool", longer, kernel_shape=[2, 2], strides=[2, 2]))
    guess = ""
    for color, weight in zip(reversed(colors), reversed(weights)):
        average = add("Div", color, add("Max", weight, least))
        if not guess:
            guess = add("Where", add("Greater", weight, zero), average, half)
            continue
        free = add("Less", weight, quarter)
        size = add("Shape", color)
        guess = add("Resize", guess, "", "", size, mode="linear", coordinate_transformation_mode="half_pixel")
        guess = add("Where", free, guess, average)
        for _ in range(SWEEPS):
            mean = add("Conv", add("Pad", guess, border, mode="edge"), neighbors, group=channels)
            guess = add("Where", free, mean, average)
    add("Where", outside, IMAGE, guess, out=FILLED)
