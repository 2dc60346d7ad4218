"""Files for other programs open there alone, compute what PyTorch computes, and say what they are."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from restore.checkpoints import Description, load_generator, read_description, save_weights
from restore.errors import RestoreError
from restore.export import Quantization, export
from restore.export.calibration import Loss
from restore.export.parity import check_parity
from restore.models.enlarge import Enlarge
from restore.models.unet import UNet
from restore.restorers.detector import open_detector
from restore.restorers.hybrid_inpainting import HybridInpainter
from restore.restorers.network import sha256_of
from restore.restorers.registry import open_restorer

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def files(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """ONNX files by the name of their network."""
    folder = tmp_path_factory.mktemp("onnx")
    return {name: export(path, folder / f"{name}.onnx", "onnx").files[0] for name, path in weights.items()}


def facts_of(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_an_onnx_file_says_what_it_is(weights: dict[str, Path], files: dict[str, Path]) -> None:
    said = facts_of(files["fill"])
    description = read_description(weights["fill"])
    assert json.loads(said["restore"]) == json.loads(description.model_dump_json(exclude_none=True))
    assert said["sha256"] == sha256_of(weights["fill"])
    assert said["purpose"] == "a fill"
    assert said["multiple"] == "2"
    assert "license" not in said, "nobody stated one"
    assert said["holes"].startswith("filled by the graph")
    assert facts_of(files["detector"])["threshold"] == "0.4"


@pytest.mark.parametrize("name", ["plain", "fill", "linear gray", "pix2pix", "pix2pix that fills"])
def test_an_own_file_repairs_as_its_weights_do(name: str, weights: dict[str, Path], files: dict[str, Path]) -> None:
    straight = open_restorer(str(weights[name]), device="cpu", precision="fp32")
    exported = open_restorer(str(files[name]), device="cpu")
    assert exported.requirements == straight.requirements
    assert exported.purpose == straight.purpose
    assert isinstance(exported, HybridInpainter) == ("fill" in name), "deep holes get texture, too"
    generator = torch.Generator().manual_seed(2)
    image = torch.rand(2, 3, 37, 41, generator=generator)
    mask = (torch.rand(2, 1, 37, 41, generator=generator) > 0.7).float() if "fill" in name else None
    whole = exported(image, mask)
    torch.testing.assert_close(whole, straight(image, mask), rtol=0, atol=2e-5)
    assert not torch.equal(whole, image)
    alone = exported(image[:1], None if mask is None else mask[:1])
    # PyTorch's own curve of linear light depends on the place in an array by a rounding.
    within = 1e-6 if name == "linear gray" else 0
    torch.testing.assert_close(alone, whole[:1], rtol=0, atol=within)


def test_a_network_that_enlarges_is_exported_but_not_to_8_bits(photographs: Path, tmp_path: Path) -> None:
    model = Enlarge(2, width=8, blocks=1)
    args = {"scale": 2, "width": 8, "blocks": 1}
    described = Description(builder="enlarge", args=args, needs_mask=False, scale=2, overlap_px=model.reach_px)
    save_weights(tmp_path / "larger.safetensors", model.state_dict(), described)
    path = str(tmp_path / "larger.safetensors")
    file = export(path, tmp_path / "larger.onnx", "onnx").files[0]
    straight, exported = (open_restorer(one, device="cpu", precision="fp32") for one in (path, str(file)))
    assert exported.requirements == straight.requirements
    image = torch.rand(1, 3, 21, 34)
    torch.testing.assert_close(exported(image), straight(image), rtol=0, atol=2e-5)
    with pytest.raises(RestoreError, match="networks that enlarge"):
        export(path, tmp_path / "a.onnx", "onnx", quantization=Quantization(photographs))
    with pytest.raises(RestoreError, match="spandrel has no place"):
        export(path, tmp_path / "a.safetensors", "spandrel")


def test_a_detector_is_no_restorer(files: dict[str, Path]) -> None:
    with pytest.raises(RestoreError, match="is a detector, not a restorer"):
        open_restorer(str(files["detector"]), device="cpu")


def test_a_description_of_another_network_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    proto = onnx.load(files["plain"])
    said = facts_of(files["fill"])
    del proto.metadata_props[:]
    proto.metadata_props.add(key="restore", value=said["restore"])
    onnx.save(proto, tmp_path / "mixed.onnx")
    with pytest.raises(RestoreError, match="description inside this file is of another network"):
        open_restorer(str(tmp_path / "mixed.onnx"), device="cpu")


def test_the_check_is_printed(weights: dict[str, Path], tmp_path: Path) -> None:
    notes = export(weights["plain"], tmp_path / "a.onnx", "onnx").notes
    assert notes[0].startswith("ONNX opset 20, inputs image: differs from PyTorch by ")
    assert "1×2×2, 2×78×26, 1×26×130, 3×26×26, 1×130×78" in notes[0]


@pytest.mark.parametrize("size", [(2, 2), (4, 6), (22, 38), (130, 34)])
def test_a_file_fills_holes_itself(size: tuple[int, int], files: dict[str, Path], weights: dict[str, Path]) -> None:
    session = onnxruntime.InferenceSession(str(files["fill"]), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(4)
    image = torch.rand(3, 3, *size, generator=generator)
    mask = (torch.rand(3, 1, *size, generator=generator) > 0.5).float()
    mask[1] = 1  # no pixel is known
    mask[2] = 0
    mask[0, :, : size[0] // 2] = 1
    with torch.no_grad():
        expected = load_generator(weights["fill"])[0](image, mask)
    hidden = torch.where(mask > 0, 99.0, image)
    found = session.run(None, {"image": hidden.numpy(), "mask": mask.numpy()})[0]
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("format", ["onnx", "openvino", "torchscript"])
def test_nothing_is_written_if_the_outputs_differ(
    format: Any, weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if format == "openvino":
        pytest.importorskip("openvino")
    honest = UNet.forward
    # While the graph is traced, the network computes something else than when it is compared.
    monkeypatch.setattr(
        UNet,
        "forward",
        lambda self, image, mask=None, filled=False: (
            honest(self, image, mask, filled) + (0 if torch.is_inference_mode_enabled() else 0.001)
        ),
    )
    name = {"onnx": "a.onnx", "openvino": "a.xml", "torchscript": "a.pt"}[format]
    with pytest.raises(RestoreError, match=r"differs from PyTorch by 1\.0e-03") as caught:
        export(weights["plain"], tmp_path / name, format)
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_outputs_of_another_shape_or_without_a_value_fail_the_check() -> None:
    model = UNet((4, 8), (1, 1), mask=False).eval()

    def cut(inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return model(inputs[0])[..., :-1]

    def empty(inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        return model(inputs[0]) * torch.nan

    with pytest.raises(RestoreError, match="another shape"):
        check_parity(model, 3, cut, "ONNX")
    with pytest.raises(RestoreError, match="differs from PyTorch by inf"):
        check_parity(model, 3, empty, "ONNX")


def test_openvino_opens_its_own_format(weights: dict[str, Path], tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    written = export(weights["fill"], tmp_path / "net.xml", "openvino")
    assert [file.name for file in written.files] == ["net.xml", "net.bin"]
    graph = openvino.Core().read_model(tmp_path / "net.xml")
    assert graph.get_rt_info(["restore", "purpose"]).astype(str) == "a fill"
    assert [str(one.get_partial_shape()) for one in graph.inputs] == ["[?,3,?,?]", "[?,1,?,?]"]
    with pytest.raises(RestoreError, match="exists already"):
        export(weights["fill"], tmp_path / "net.xml", "openvino")
    (tmp_path / "net.xml").unlink()
    with pytest.raises(RestoreError, match=r"net\.bin: exists already"):
        export(weights["fill"], tmp_path / "net.xml", "openvino")


def test_torchscript_opens_without_this_package(weights: dict[str, Path], tmp_path: Path) -> None:
    written = export(weights["fill"], tmp_path / "net.pt", "torchscript")
    extra = {"purpose": "", "restore": ""}
    opened = torch.jit.load(written.files[0], _extra_files=extra)
    assert extra["purpose"] == b"a fill"
    image, mask = torch.rand(3, 3, 14, 10), torch.zeros(3, 1, 14, 10)
    model = load_generator(weights["fill"])[0]
    with torch.no_grad():
        torch.testing.assert_close(opened(image, mask), model(image, mask, filled=True), rtol=0, atol=1e-6)
    with pytest.raises(RestoreError, match="holds code"):
        open_restorer(str(written.files[0]), device="cpu")


def test_plain_weights_for_spandrel_have_no_description(weights: dict[str, Path], tmp_path: Path) -> None:
    written = export(weights["plain"], tmp_path / "plain.safetensors", "spandrel")
    assert "beside the module spandrel_restore" in written.notes[0]
    own = load_generator(weights["plain"])[0].state_dict()
    with safe_open(written.files[0], framework="pt") as file:
        assert file.metadata() is None
        assert set(file.keys()) == set(own)
        assert all(torch.equal(file.get_tensor(name), value) for name, value in own.items())


@pytest.mark.parametrize(
    ("format", "out", "words"),
    [
        ("onnx", "a.bin", "an ONNX file must end with .onnx"),
        ("openvino", "a.onnx", "must end with .xml"),
        ("torchscript", "a.onnx", "must end with .pt"),
        ("spandrel", "a.pth", "must end with .safetensors"),
        ("tflite", "a.tflite", "unknown: 'tflite'; known: onnx"),
    ],
)
def test_names_that_other_programs_would_not_know_are_refused(
    format: Any, out: str, words: str, weights: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(RestoreError, match=words):
        export(weights["plain"], tmp_path / out, format)
    assert list(tmp_path.iterdir()) == []


def test_what_is_exported_is_not_replaced(weights: dict[str, Path], tmp_path: Path) -> None:
    own, link = tmp_path / "own.safetensors", tmp_path / "link.safetensors"
    own.write_bytes(weights["plain"].read_bytes())
    link.symlink_to(own)
    for out in (own, link):
        with pytest.raises(RestoreError, match="is what is exported"):
            export(own, out, "spandrel", overwrite=True)
    assert own.read_bytes() == weights["plain"].read_bytes()


def test_8_bits_are_measured_and_said(weights: dict[str, Path], photographs: Path, tmp_path: Path) -> None:
    for name, words in (("plain", r"dB at noise of 25, -?\d\.\d\d dB on clean images"), ("fill", "dB inside holes")):
        written = export(
            weights[name], tmp_path / f"{name}.onnx", "onnx", quantization=Quantization(photographs, accept_loss=True)
        )
        assert "8-bit integers" in written.notes[0]
        proto = onnx.load(written.files[0])
        weights_of = {one.name: one for one in proto.graph.initializer}
        kinds = {weights_of[n.input[0]].data_type for n in proto.graph.node if n.input and n.input[0] in weights_of}
        assert onnx.TensorProto.INT8 in kinds
        assert facts_of(written.files[0])["precision"] == "int8"
        assert facts_of(written.files[0])["loss"] in written.notes[1]
        assert re.search(words, written.notes[1])
        exported, straight = (open_restorer(str(p), device="cpu") for p in (written.files[0], weights[name]))
        image, mask = torch.rand(1, 3, 30, 34), torch.zeros(1, 1, 30, 34)
        mask[..., 10:13, 10:13] = 1
        difference = (exported(image, mask) - straight(image, mask)).abs().max()
        assert 0 < difference < 0.02


def test_8_bits_are_those_whose_loss_is_small(
    weights: dict[str, Path], photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([Loss(0.01, clean=9.0), Loss(0.02, clean=0.1)])
    monkeypatch.setattr("restore.export.calibration._RestorerJudge.loss", lambda *given: next(losses))
    monkeypatch.setattr("restore.export.quantize._KEPT", (0, 1))
    written = export(weights["plain"], tmp_path / "a.onnx", "onnx", quantization=Quantization(photographs))
    assert "0.10 dB on clean images" in written.notes[1]


def test_8_bits_that_lose_too_much_are_refused(
    weights: dict[str, Path], photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restore.export.calibration.MAX_LOSS_DB", -99.0)
    out = tmp_path / "small.onnx"
    with pytest.raises(RestoreError, match="which is too much; nothing is written; --accept-loss") as caught:
        export(weights["plain"], out, "onnx", quantization=Quantization(photographs))
    assert caught.value.exit_code == 1
    assert not out.exists()


def test_a_detector_of_8_bits_finds_what_it_found(
    weights: dict[str, Path], photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = open_detector(str(weights["detector"]), device="cpu", precision="fp32")
    written = export(weights["detector"], tmp_path / "d.onnx", "onnx", quantization=Quantization(photographs, True))
    assert re.search(r"loses -?0\.\d{3} of F1 on drawn scratches, on 1 image ", written.notes[1])
    exported = open_detector(str(written.files[0]))
    assert (str(exported.device), exported.engine, exported.threshold) == ("cpu", "onnx", straight.threshold)
    image = np.random.default_rng(0).random((100, 110, 3), np.float32)
    found, expected = exported.probability(image), straight.probability(image)
    assert expected.std() > 0.002
    assert 0 < np.abs(found - expected).max() < 0.1
    monkeypatch.setattr("restore.export.calibration.MAX_LOSS_F1", -1.0)
    with pytest.raises(RestoreError, match="of F1 on drawn scratches, which is too much"):
        export(weights["detector"], tmp_path / "e.onnx", "onnx", quantization=Quantization(photographs))


def test_a_detector_opens_from_its_onnx_file(files: dict[str, Path], weights: dict[str, Path], tmp_path: Path) -> None:
    exported = open_detector(str(files["detector"]))
    straight = open_detector(str(weights["detector"]), device="cpu", precision="fp32")
    image = np.random.default_rng(0).random((100, 110, 3), np.float32)
    assert np.abs(exported.probability(image) - straight.probability(image)).max() < 1e-5
    assert (exported.threshold, exported.margin_px, exported.purpose) == (0.4, 1, "a detector")
    with pytest.raises(RestoreError, match="is a restorer, not a detector"):
        open_detector(str(files["plain"]))
    proto = onnx.load(files["detector"])
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "silent.onnx")
    with pytest.raises(RestoreError, match="does not describe a detector"):
        open_detector(str(tmp_path / "silent.onnx"))


def test_8_bits_need_images(weights: dict[str, Path], photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RestoreError, match="has 0 images"):
        export(weights["plain"], tmp_path / "a.onnx", "onnx", quantization=Quantization(tmp_path / "empty"))
    with pytest.raises(RestoreError, match="only applies to --format onnx"):
        export(weights["plain"], tmp_path / "a.pt", "torchscript", quantization=Quantization(photographs))


def test_a_file_runs_by_onnxruntime_and_numpy_alone(files: dict[str, Path], weights: dict[str, Path]) -> None:
    session = onnxruntime.InferenceSession(str(files["plain"]), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((1, 3, 24, 30), np.float32)
    straight = open_restorer(str(weights["plain"]), device="cpu", precision="fp32")(torch.from_numpy(image))
    found = session.run(None, {"image": image})[0].clip(0, 1)
    np.testing.assert_allclose(found, straight.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["plain", "fill", "detector"])
def test_opencv_runs_a_file(name: str, files: dict[str, Path]) -> None:
    cv2 = pytest.importorskip("cv2")
    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("OpenCV 4 takes no sizes that follow from the image")
    session = onnxruntime.InferenceSession(str(files[name]), providers=["CPUExecutionProvider"])
    network = cv2.dnn.readNetFromONNX(str(files[name]))
    generator = np.random.default_rng(0)
    for height, width in ((22, 30), (30, 14)):
        sizes = (one.shape[1] for one in session.get_inputs())
        arrays = [generator.random((1, size, height, width), np.float32).round(1) for size in sizes]
        feeds = {one.name: array for one, array in zip(session.get_inputs(), arrays)}
        for place, array in feeds.items():
            network.setInput(array, place)
        np.testing.assert_allclose(network.forward(), session.run(None, feeds)[0], rtol=0, atol=1e-5)
