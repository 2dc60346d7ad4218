"""Open ONNX files from strangers: what a file could do to the machine is refused before a library runs its graph."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from restore.errors import RestoreError

INSTALL = 'pip install "restore-toolkit[onnx]"'

#: The most that a file and the weights beside it may hold; a message of protobuf cannot be larger.
MAX_BYTES = (1 << 31) - 1

#: The most values that a node may make from a constant size (1 GB of float32); images make sizes of their own.
MAX_CONSTANT_VALUES = 1 << 28

#: The side of the image that the sizes of all arrays are worked out for.
_SMALL_PX = 64

#: Nodes that may never end, or call what the file itself defines.
_REFUSED = ("Loop", "Scan")
_STANDARD = ("", "ai.onnx")

_NO_LINK_NOR_WAIT = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

#: Attributes that hold graphs or tensors, by the type number of protobuf (`AttributeProto.AttributeType`).
_TENSOR, _GRAPH, _TENSORS, _GRAPHS = 4, 5, 9, 10


def read_onnx(path: Path) -> Any:
    """An ONNX file as a checked `onnx.ModelProto` with all of its weights inside.

    Weights in a second file are read only from the folder of the first. Nothing is computed.

    Raises:
        RestoreError: `onnx` is not installed; not a whole ONNX file, or one that is too large, invalid, has nodes of
            its own, or refers to files elsewhere.
    """
    try:
        import onnx
    except ImportError as error:
        raise RestoreError("ONNX files need more packages", where=path, hint=INSTALL) from error
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise RestoreError(f"is larger than an ONNX file can be ({size / 1e9:.1f} GB)", where=path)
        data = path.read_bytes()
    except OSError as error:
        raise RestoreError(f"cannot be read: {error.strerror}", where=path) from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's own class depends on its implementation
        raise RestoreError("not a complete ONNX file", where=path, hint="copy or download it again") from error
    if not model.graph.node:
        raise RestoreError("not a complete ONNX file", where=path, hint="copy or download it again")
    try:
        _check_nodes(model)
        _check_weights(model.graph, path.parent, MAX_BYTES - size)
        onnx.checker.check_model(model)
        _check_memory(model)
    except RestoreError as error:
        raise RestoreError(error.what, where=path, hint=error.hint) from error
    except Exception as error:  # a checker written in C++: its errors are of several kinds
        raise RestoreError(f"not a valid ONNX graph: {_first_line(error)}", where=path) from error
    return model


def _check_nodes(model: Any) -> None:
    """Refuse nodes that are not ONNX's own, that may never end, or that make arrays of an absurd size."""
    if model.functions:
        raise RestoreError("defines nodes of its own", hint="inline them first, with onnx.inliner")
    for entry in model.opset_import:
        if entry.domain not in _STANDARD and any(node.domain == entry.domain for node in _nodes(model.graph)):
            raise RestoreError(f"has nodes that are not ONNX's own ({entry.domain[:40]}), which could run other code")
    constants = {one.name: one for one in _tensors(model.graph)}
    for node in _nodes(model.graph):
        if node.domain not in _STANDARD:
            raise RestoreError(f"has nodes that are not ONNX's own ({node.domain[:40]}), which could run other code")
        if node.op_type in _REFUSED:
            raise RestoreError(f"has a {node.op_type}, which may never end")
        if node.op_type in ("ConstantOfShape", "Expand", "Tile", "RandomNormal", "RandomUniform"):
            _check_size_made(node, constants)


def _check_size_made(node: Any, constants: dict[str, Any]) -> None:
    """Refuse a node that makes an array of an absurd constant size out of nothing."""
    from onnx import numpy_helper

    sizes: list[int] = [number for one in node.attribute if one.name == "shape" for number in one.ints]
    given = constants.get(node.input[-1]) if node.input else None
    if given is not None and given.data_type == 7 and math.prod(given.dims) <= 64:  # a few int64
        try:
            sizes = [abs(int(number)) for number in numpy_helper.to_array(given).ravel()]
        except Exception as error:
            raise RestoreError("holds a tensor whose values do not fit its size") from error
    if math.prod(sizes) > MAX_CONSTANT_VALUES:
        raise RestoreError(
            f"has a {node.op_type} of {'x'.join(map(str, sizes))[:60]} values, which takes too much memory"
        )


def _check_memory(model: Any) -> None:
    """Refuse a graph in which a small image becomes an absurdly large array, as far as its nodes state their sizes."""
    from onnx import ModelProto, shape_inference

    small = ModelProto()
    small.CopyFrom(model)
    del small.graph.value_info[:]
    for place in small.graph.input:
        for number, size in enumerate(place.type.tensor_type.shape.dim):
            if not size.HasField("dim_value"):
                size.dim_value = 1 if number == 0 else _SMALL_PX
    for place in small.graph.output:
        place.type.tensor_type.ClearField("shape")
    sized = shape_inference.infer_shapes(small, data_prop=True)
    for value in (*sized.graph.value_info, *sized.graph.output):
        sizes = [size.dim_value for size in value.type.tensor_type.shape.dim]
        if math.prod(sizes) > MAX_CONSTANT_VALUES:
            shape = "x".join(map(str, sizes))
            raise RestoreError(
                f"makes {shape[:60]} values of an image of {_SMALL_PX} pixels, which takes too much memory"
            )


def _check_weights(graph: Any, folder: Path, allowed_bytes: int) -> None:
    """Check that every tensor holds the values that its size states; fetch those that lie beside the file."""
    from onnx import TensorProto, helper

    beside = 0
    for tensor in _tensors(graph):
        name = tensor.name[:40] or "a constant"
        if any(size < 0 for size in tensor.dims):
            raise RestoreError(f"{name} has a negative size")
        try:
            width = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        except (KeyError, TypeError, ValueError) as error:
            raise RestoreError(f"{name} is of an unknown type ({tensor.data_type})") from error
        count = math.prod(tensor.dims)
        if tensor.data_type == TensorProto.STRING:
            raise RestoreError(f"{name} holds text")
        if count * width > MAX_BYTES:
            raise RestoreError(f"{name} of {'x'.join(map(str, tensor.dims))} values is too large")
        if tensor.data_location == TensorProto.EXTERNAL:
            beside += count * width
            if beside > allowed_bytes:
                raise RestoreError("holds more weights than fit into memory (2 GB)")
            _fetch(tensor, folder, count * width, name)
        elif tensor.HasField("raw_data"):
            # Types of less than a byte are packed.
            if tensor.data_type < TensorProto.UINT4 and len(tensor.raw_data) != count * width:
                raise RestoreError(f"{name} states {count} values, but holds {len(tensor.raw_data)} bytes")
        else:
            held = max(len(values) for values in _typed_values(tensor))
            if held > 2 * count or (count and not held):
                raise RestoreError(f"{name} states {count} values, but holds {held}")


def _fetch(tensor: Any, folder: Path, length: int, name: str) -> None:
    """Read the values of a tensor from the file beside the model, which must be in the same folder."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    location = said.get("location", "")
    if (
        not location
        or Path(location).name != location
        or "\\" in location
        or "\0" in location
        or location in (".", "..")
    ):
        raise RestoreError(f"keeps weights elsewhere ({location[:60]!r}), which is not opened")
    try:
        offset = int(said.get("offset", "0"))
        stated = int(said.get("length", str(length)))
    except ValueError as error:
        raise RestoreError(f"{name} has no readable place in {location[:60]}") from error
    if offset < 0 or stated != length:
        raise RestoreError(f"{name} states {length} bytes, but {stated} in {location[:60]}")
    try:
        # A link could lead out of the folder, and a pipe would be waited for.
        with open(folder / location, "rb", opener=lambda path, flags: os.open(path, flags | _NO_LINK_NOR_WAIT)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise RestoreError(f"keeps weights in {location[:60]}, which is no file")
            if offset + length > status.st_size:
                raise RestoreError(
                    f"keeps weights in {location[:60]}, which is too short", hint="copy or download it again"
                )
            file.seek(offset)
            values = file.read(length)
    except OSError as error:
        raise RestoreError(f"keeps weights in {location[:60]}, which cannot be read: {error.strerror}") from error
    tensor.raw_data = values
    tensor.data_location = 0
    del tensor.external_data[:]


def _typed_values(tensor: Any) -> Iterator[Any]:
    for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        yield getattr(tensor, field)


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph and all graphs inside its nodes."""
    waiting = [graph]
    while waiting:
        one = waiting.pop()
        yield one
        for node in one.node:
            for attribute in node.attribute:
                if attribute.type == _GRAPH:
                    waiting.append(attribute.g)
                elif attribute.type == _GRAPHS:
                    waiting.extend(attribute.graphs)


def _nodes(graph: Any) -> Iterator[Any]:
    for one in _graphs(graph):
        yield from one.node


def _tensors(graph: Any) -> Iterator[Any]:
    """Every constant tensor of a graph, also those inside nodes."""
    for one in _graphs(graph):
        yield from one.initializer
        for sparse in one.sparse_initializer:
            yield sparse.values
            yield sparse.indices
        for node in one.node:
            for attribute in node.attribute:
                if attribute.type == _TENSOR or attribute.HasField("t"):
                    tensor = attribute.t
                    if node.op_type == "Constant" and not tensor.name and node.output:
                        tensor.name = node.output[0]
                    yield tensor
                elif attribute.type == _TENSORS:
                    yield from attribute.tensors
                if attribute.HasField("sparse_tensor"):
                    raise RestoreError("holds sparse tensors, which are not supported")


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
