"""Weights files from strangers: one that is damaged, lies or asks for too much is refused, with the reason."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from restore.errors import RestoreError
from restore.models.registry import GENERATORS, build_generator
from restore.models.unet import UNet
from restore.restorers.registry import open_restorer

SMALL = {"widths": [4, 8], "blocks": [1, 1], "mask": False}
DESCRIPTION: dict[str, Any] = {"builder": "unet", "args": SMALL, "needs_mask": False, "multiple": 2, "minimum": 2}


def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(UNet(**SMALL).state_dict())


def file_of(state: dict[str, Tensor], description: dict[str, Any] | str) -> bytes:
    text = description if isinstance(description, str) else json.dumps(description)
    return save(state, {"restore": text})


def refusal(data: bytes, folder: Path) -> str:
    path = folder / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(RestoreError) as caught:
        open_restorer(str(path), device="cpu", engine="torch")(torch.rand(1, 3, 9, 11))
    assert "\n" not in str(caught.value)
    return caught.value.what


def test_a_sound_file_opens(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(file_of(tensors(), DESCRIPTION))
    restorer = open_restorer(str(tmp_path / "x.safetensors"), device="cpu", engine="torch")
    assert restorer(torch.rand(1, 3, 9, 11)).shape == (1, 3, 9, 11)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_file_that_is_cut_off(share: float, tmp_path: Path) -> None:
    data = file_of(tensors(), DESCRIPTION)
    assert "not a complete safetensors file" in refusal(data[: int(len(data) * share)], tmp_path)


@pytest.mark.parametrize("length", [1 << 40, (1 << 63) - 1, 100_000_001])
def test_a_header_that_states_a_giant_size(length: int, tmp_path: Path) -> None:
    data = file_of(tensors(), DESCRIPTION)
    assert "not a complete safetensors file" in refusal(struct.pack("<Q", length) + data[8:], tmp_path)


@pytest.mark.parametrize(
    "changed", [{"shape": [1 << 40]}, {"data_offsets": [0, 1 << 40]}, {"data_offsets": [-4, 0]}, {"dtype": "F128"}]
)
def test_a_header_that_lies(changed: dict[str, Any], tmp_path: Path) -> None:
    data = file_of(tensors(), DESCRIPTION)
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["tail.bias"] |= changed
    text = json.dumps(header).encode()
    lying = struct.pack("<Q", len(text)) + text + data[8 + length :]
    assert "not a complete safetensors file" in refusal(lying, tmp_path)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_values_of_another_type(dtype: torch.dtype, tmp_path: Path) -> None:
    state = tensors()
    state["bottom.0.conv1.weight"] = state["bottom.0.conv1.weight"].to(dtype)
    assert "bottom.0.conv1.weight is of type" in refusal(file_of(state, DESCRIPTION), tmp_path)


def test_tensors_of_another_network(tmp_path: Path) -> None:
    state = tensors()
    for wrong in (
        {k: v for k, v in state.items() if k != "tail.bias"},
        state | {"more": torch.zeros(3)},
        state | {"tail.bias": torch.zeros(4)},
    ):
        assert "weights of another architecture" in refusal(file_of(wrong, DESCRIPTION), tmp_path)


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "mapping"),
        ('"unet"', "mapping"),
        ({"builder": "os.system", "needs_mask": False}, "unknown model builder"),
        (DESCRIPTION | {"args": {"code": 1}}, "no argument"),
        (DESCRIPTION | {"multiple": 1 << 40}, "multiple"),
        (DESCRIPTION | {"minimum": 1 << 20}, "minimum"),
        (DESCRIPTION | {"scale": 4000}, "scale"),
        (DESCRIPTION | {"overlap_px": 1 << 30}, "overlap_px"),
        (DESCRIPTION | {"format": 99}, "format 99"),
    ],
)
def test_a_description_that_makes_no_sense(description: dict[str, Any] | str, words: str, tmp_path: Path) -> None:
    assert words in refusal(file_of(tensors(), description), tmp_path)


@pytest.mark.parametrize(
    ("builder", "args"),
    [
        ("unet", {"widths": [100_000, 100_000], "blocks": [1, 1]}),
        ("unet", {"widths": [1 << 62, 8], "blocks": [1, 1]}),
        ("unet", {"widths": [1 << 80, 8], "blocks": [1, 1]}),
        ("unet", {"widths": [8, 8], "blocks": [1, 1_000_000_000]}),
        ("unet", {"widths": [8] * 100_000, "blocks": [1] * 100_000}),
        ("unet", {"widths": [8, 8], "blocks": [1, 1], "dilations": [1 << 30]}),
        ("unet", {"widths": [8, 8], "blocks": [1, 1], "conditions": 1 << 40}),
        ("pyramid-unet", {"widths": [8, 8], "blocks": [1_000_000_000, 1]}),
        ("drunet", {"blocks": 1_000_000_000}),
        ("drunet", {"widths": [1_000_000] * 4}),
        ("pix2pix", {"ngf": 1_000_000}),
    ],
)
def test_a_description_of_a_giant_network_takes_no_memory(builder: str, args: dict[str, Any], tmp_path: Path) -> None:
    assert f"{builder} cannot be built" in refusal(
        file_of(tensors(), {"builder": builder, "args": args, "needs_mask": False}), tmp_path
    )


@pytest.mark.parametrize("builder", list(GENERATORS))
def test_the_size_of_every_network_can_be_told_without_memory(builder: str) -> None:
    assert sum(one.numel() for one in build_generator(builder, {}).parameters()) > 100_000
