"""ONNX files of this package, run by OpenVINO as by onnxruntime."""

from pathlib import Path

import pytest
import torch

from restore import RestoreError
from restore.checkpoints import load_generator
from restore.engines import choice
from restore.restorers.registry import open_restorer
from tests.engines.test_runners import hole, levels, photograph, weights

pytestmark = pytest.mark.skipif(
    not all(map(choice.is_installed, choice.OTHERS)), reason="openvino or onnxruntime is not installed"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RESTORE_ENGINE", raising=False)
    monkeypatch.setattr(choice.platform, "machine", lambda: "x86_64")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Weights of a network that fills holes, and its ONNX file."""
    from restore.engines.onnx_graph import facts, onnx_bytes

    folder = tmp_path_factory.mktemp("files")
    path = weights(folder, kind="filler")
    model, description = load_generator(path)
    file = folder / "filler.onnx"
    file.write_bytes(onnx_bytes(model, 3, facts(description)))
    return path, file


def test_both_engines_give_what_pytorch_gives(files: tuple[Path, Path]) -> None:
    path, file = files
    exact = open_restorer(str(path), device="cpu", precision="fp32", engine="torch")
    image, mask = photograph(50, 70), hole(50, 70)
    lines = list[str]()
    for engine, expected in (("openvino", "openvino"), ("onnx", "onnx"), ("auto", "openvino")):
        fast = open_restorer(str(file), device="cpu", precision="fp32", engine=engine, on_event=lines.append)
        assert (fast.engine, fast.precision) == (expected, "fp32")
        assert levels(fast(image, mask), exact(image, mask)) < 0.01
    assert len(lines) == 1  # compiled once
    assert fast.in_precision("fp32").engine == "onnx"
    with pytest.raises(RestoreError, match="run by OpenVINO or onnxruntime"):
        open_restorer(str(file), device="cpu", engine="torch")


def test_onnxruntime_runs_what_openvino_cannot(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from restore.engines import openvino_engine

    def fails(*given: object) -> bytes:
        raise RuntimeError("no such operation")

    monkeypatch.setattr(openvino_engine, "compile_onnx", fails)
    lines = list[str]()
    assert open_restorer(str(files[1]), device="cpu", precision="fp32", on_event=lines.append).engine == "onnx"
    assert "no such operation" in lines[-1]
    with pytest.raises(RestoreError, match="no such operation"):
        open_restorer(str(files[1]), device="cpu", precision="fp32", engine="openvino")


def test_integers_may_round_differently() -> None:
    from restore.engines.check import Network, check_graph
    from restore.models.unet import UNet

    class Off:
        engine, precision = "openvino", "fp32"

        def __init__(self, everywhere: float, somewhere: float) -> None:
            self.everywhere, self.somewhere = everywhere, somewhere

        def __call__(self, image: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            out = torch.full_like(image, 0.5) + self.everywhere / 255
            out[..., 3, 3] += self.somewhere / 255
            return out

    network = Network("x", UNet(widths=[8, 8], blocks=[1, 1]), 3, False, None)
    for off, quantized, passed in (
        (Off(0, 4), True, True), (Off(0, 4), False, False), (Off(0.5, 4), True, True), (Off(2, 0), True, False),
        (Off(0, 20), True, False), (Off(0.5, 0), False, True),
    ):  # fmt: skip
        assert check_graph(off, Off(0, 0), network, quantized=quantized).passed is passed
