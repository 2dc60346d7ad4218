"""A network's ONNX graph computes what the network computes, for any size and batch, and names no machine."""

from typing import Any

import numpy as np
import pytest
import torch

from restore.checkpoints import ConditionSettings, Description, DetectorSettings
from restore.engines.onnx_graph import DESCRIPTION_KEY, facts, input_names, onnx_bytes
from restore.models.base import RestorationNetwork
from restore.models.pix2pix import Pix2Pix
from restore.models.pyramid_unet import PyramidUNet
from restore.models.unet import UNet

pytest.importorskip("onnxscript")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

#: Network, channels of the image, and the inputs of its graph.
NETWORKS: dict[str, tuple[Any, int, tuple[str, ...]]] = {
    "without a mask": (lambda: UNet((4, 8), (1, 1), mask=False), 3, ("image",)),
    "mask": (lambda: UNet((4, 8, 8), (1, 1, 1), mask=True, prefill=True), 3, ("image", "mask")),
    "gray, conditions": (lambda: UNet((4, 8), (1, 1), mask=True, channels=1, conditions=2), 1, ("image", "mask")),
    "detector": (lambda: PyramidUNet((4, 8), (1, 1)), 3, ("image", "above")),
    "pix2pix": (lambda: Pix2Pix(5, 4, input_nc=1, output_nc=1), 3, ("image",)),
    "pix2pix, mask": (
        lambda: Pix2Pix(5, 4, input_nc=4, norm="instance", upsampling="resize"),
        3,
        ("image", "mask"),
    ),
}


def run(data: bytes, *inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(zip([i.name for i in session.get_inputs()], inputs)))[0])


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_graph_gives_what_the_network_gives(kind: str) -> None:
    torch.manual_seed(3)
    build, channels, names = NETWORKS[kind]
    model: RestorationNetwork = build()
    data = onnx_bytes(model, channels, {"who": "me"})
    proto = onnx.load_from_string(data)
    onnx.checker.check_model(proto, full_check=True)
    assert [(one.domain, one.version) for one in proto.opset_import] == [("", 20)]
    assert {one.key: one.value for one in proto.metadata_props} == {"who": "me"}
    assert input_names(model) == names == tuple(one.name for one in proto.graph.input)
    for batch, rows, columns in ((1, 1, 1), (2, 3, 1), (3, 2, 2), (1, 1, 5), (1, 5, 4)):
        height, width = rows * model.smallest_side, columns * model.smallest_side
        image, mask = torch.rand(batch, channels + model.conditions, height, width), torch.rand(batch, 1, height, width)
        inputs = (image, mask.round())[: len(names)]
        with torch.no_grad():
            expected = model(*inputs, filled=True)
        found = run(data, *(one.numpy() for one in inputs))
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=2e-6)


def test_a_file_says_nothing_of_the_machine_that_wrote_it() -> None:
    data = onnx_bytes(UNet((4, 8), (1, 1)), 3)
    assert not [word for word in (b"site-packages", b".py", b"torch", b"pkg.") if word in data]
    torch.manual_seed(0)
    again = UNet((4, 8), (1, 1))
    assert onnx_bytes(again, 3) == onnx_bytes(again, 3), "the same network gives the same bytes"


def test_certain_logits_of_a_detector_stay_finite() -> None:
    model = PyramidUNet((4, 8), (1, 1))
    data = onnx_bytes(model, 3)
    image = torch.rand(1, 3, 4, 4)
    for logit in (-300.0, 300.0):
        above = torch.full((1, 1, 4, 4), logit)
        with torch.no_grad():
            expected = model(image, above).numpy()
        np.testing.assert_allclose(run(data, image.numpy(), above.numpy()), expected, rtol=1e-6, atol=1e-6)


def test_the_facts_are_for_programs_and_for_people() -> None:
    description = Description(
        builder="unet", purpose="fills holes", needs_mask=True, multiple=8, minimum=16, overlap_px=52, channels=1,
        transfer="linear", conditions=[ConditionSettings(name="depth", channels=1)],
    )  # fmt: skip
    said = facts(description, sha256="ab" * 32, license="Apache-2.0")
    assert Description.model_validate_json(said.pop(DESCRIPTION_KEY)) == description
    assert said == {
        "purpose": "fills holes",
        "image": "float32, B x C x H x W, gray, linear light, 0 is black and 1 is white, then 1 of depth",
        "mask": "float32, B x 1 x H x W, 1 = hole, 0 = keep",
        "holes": "the image is filled under the mask before it comes in",
        "output": "as the image, not clamped",
        "range": "0 1", "multiple": "8", "minimum": "16", "scale": "1", "overlap_px": "52",
        "sha256": "ab" * 32, "license": "Apache-2.0",
    }  # fmt: skip
    detector = Description(builder="unet", needs_mask=False, finds=DetectorSettings(threshold=0.4, margin_px=0))
    said = facts(detector)
    assert said["output"].startswith("logits")
    assert said["threshold"] == "0.4"
    assert {"mask": "none"}.items() <= said.items()
    assert not {"sha256", "license", "holes"} & said.keys()
