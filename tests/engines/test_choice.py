"""Which engine runs a network, what is kept of it, and what happens if one cannot."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from restore import FixOptions, RestoreError, fix_folder
from restore.engines import cache, check, choice, openvino_engine
from restore.files import process_id
from restore.fix.run_models import planned_engine
from restore.images import write_png
from restore.restorers.registry import open_restorer
from tests.engines.test_runners import photograph, weights

CPU = torch.device("cpu")
needs_openvino = pytest.mark.skipif(not choice.is_installed("openvino"), reason="openvino is not installed")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RESTORE_CACHE", str(folder))
    monkeypatch.delenv("RESTORE_ENGINE", raising=False)
    monkeypatch.setattr(choice.platform, "machine", lambda: "x86_64")  # a processor that the engines were measured on
    return folder / "engines"


def have(monkeypatch: pytest.MonkeyPatch, *engines: str) -> None:
    monkeypatch.setattr(choice, "is_installed", lambda engine: engine in engines)


def test_auto_tries_the_fastest_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, "openvino", "onnx")
    assert choice.candidates("auto", "fp32", CPU) == ("openvino", "onnx", "torch")
    assert choice.candidates("auto", "bf16", CPU) == ("openvino", "torch")
    assert choice.candidates("auto", "fp32", torch.device("cuda", 0)) == ("torch",)
    assert choice.candidates("onnx", "fp32", CPU) == ("onnx",)
    have(monkeypatch)
    assert choice.candidates("auto", "fp32", CPU) == ("torch",)
    monkeypatch.setattr(choice.platform, "machine", lambda: "aarch64")
    have(monkeypatch, "openvino", "onnx")
    assert choice.candidates("auto", "fp32", CPU) == ("torch",)


def test_a_variable_says_what_auto_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, "openvino", "onnx")
    for value, tried in {"torch": ("torch",), "onnx": ("onnx", "torch"), "auto": ("openvino", "onnx", "torch")}.items():
        monkeypatch.setenv("RESTORE_ENGINE", value)
        assert choice.candidates("auto", "fp32", CPU) == tried
        assert choice.candidates("openvino", "fp32", CPU) == ("openvino",)
    monkeypatch.setenv("RESTORE_ENGINE", "tensorflow")
    with pytest.raises(RestoreError, match="tensorflow"):
        choice.candidates("auto", "fp32", CPU)


def test_what_cannot_be_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch)
    with pytest.raises(RestoreError, match=r'OpenVINO is not installed.*pip install "restore-toolkit\[cpu\]"'):
        open_restorer("photo", device="cpu", engine="openvino")
    with pytest.raises(RestoreError, match=r'onnxruntime is not installed.*pip install "restore-toolkit\[onnx\]"'):
        open_restorer("photo", device="cpu", engine="onnx")
    have(monkeypatch, "openvino", "onnx")
    with pytest.raises(RestoreError, match="computes in fp32"):
        choice.settle_precision("onnx", "bf16", CPU)
    with pytest.raises(RestoreError, match="on the CPU, not on cuda:0"):
        choice.settle_precision("openvino", "auto", torch.device("cuda", 0))
    with pytest.raises(RestoreError, match="no such engine"):
        choice.settle_precision("tensorflow", "auto", CPU)
    assert choice.settle_precision("onnx", "auto", CPU) == "fp32"
    with pytest.raises(RestoreError, match="--engine"):
        FixOptions(engine="tensorflow")  # type: ignore[arg-type]


def test_methods_without_networks_have_no_engine() -> None:
    assert open_restorer("telea", engine="auto").engine is None
    assert planned_engine("telea", FixOptions(masks="m", device="cpu")) is None
    assert planned_engine("telea", FixOptions(masks="auto", device="cpu", engine="torch", precision="fp32")) == (
        "torch",
        "fp32",
    )


@needs_openvino
def test_a_network_is_compiled_once(tmp_path: Path, own_cache: Path) -> None:
    path, lines = str(weights(tmp_path)), list[str]()
    first = open_restorer(path, device="cpu", precision="fp32", on_event=lines.append)
    assert first.engine == "openvino"
    (line,) = lines
    assert line.startswith("preparing ")
    assert str(own_cache) in line
    (file,) = own_cache.iterdir()
    before = file.read_bytes()
    again = open_restorer(path, device="cpu", precision="fp32", on_event=lines.append)
    assert len(lines) == 1
    image = photograph(40, 56)
    assert torch.equal(first(image), again(image))
    facts = json.loads(before.partition(b"\n")[0])
    assert facts["difference"] < facts["limit"]
    open_restorer(str(weights(tmp_path, kind="filler")), device="cpu", precision="fp32")
    assert len(list(own_cache.iterdir())) == 2  # other weights


def test_a_file_that_is_not_whole_is_not_read(own_cache: Path) -> None:
    entry = cache.Entry({"network": "x"}, b"payload\nwith a line")
    cache.store("k", entry)
    found = cache.find("k")
    assert found is not None
    assert found.payload == entry.payload
    (file,) = own_cache.iterdir()
    whole = file.read_bytes()
    for broken in (whole[:-1], whole[:10], b"", b"\0" * 100, b"{}\n", b"[]\n", whole.replace(b"with", b"w1th")):
        file.write_bytes(broken)
        assert cache.find("k") is None


@needs_openvino
@pytest.mark.parametrize("damage", ["cut", "zeros", "empty", "wrong"])
def test_a_damaged_file_is_compiled_again(damage: str, tmp_path: Path, own_cache: Path) -> None:
    path, image = str(weights(tmp_path)), photograph(40, 56)
    expected = open_restorer(path, device="cpu", precision="fp32", engine="openvino")(image)
    (file,) = own_cache.iterdir()
    whole = file.read_bytes()
    if damage == "wrong":  # whole, but nothing that the engine can load
        cache.store(file.stem, cache.Entry({}, b"something else"))
    else:
        zeros = whole[: len(whole) // 2] + bytes(999) + whole[len(whole) // 2 + 999 :]
        file.write_bytes({"cut": whole[:-9], "zeros": zeros, "empty": b""}[damage])
    lines = list[str]()
    again = open_restorer(path, device="cpu", precision="fp32", engine="openvino", on_event=lines.append)
    assert len(lines) == 1
    assert torch.equal(again(image), expected)
    assert json.loads(file.read_bytes().partition(b"\n")[0])["engine"] == "openvino"


@needs_openvino
def test_a_folder_that_cannot_be_written_to_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESTORE_CACHE", str(tmp_path / "file"))
    restorer = open_restorer(str(weights(tmp_path)), device="cpu", precision="fp32", engine="openvino")
    image, before = photograph(24, 24), torch.get_num_threads()
    expected = restorer(image)
    try:
        torch.set_num_threads(2)  # it is loaded again, and must be compiled for that
        assert torch.equal(restorer(image), expected)
    finally:
        torch.set_num_threads(before)


@needs_openvino
def test_a_user_without_a_home_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("RESTORE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cache.Path, "home", no_home)
    lines = list[str]()
    path = str(weights(tmp_path))
    restorer = open_restorer(path, device="cpu", precision="fp32", engine="openvino", on_event=lines.append)
    assert restorer.engine == "openvino"
    assert lines == [f"preparing {path} for OpenVINO"]
    assert cache.stored_bytes() == 0


@needs_openvino
def test_processes_may_compile_at_the_same_time(tmp_path: Path, own_cache: Path) -> None:
    path = str(weights(tmp_path))
    code = f"""
from restore import open_restorer
import torch
torch.set_num_threads(1)
r = open_restorer({path!r}, device="cpu", precision="fp32", engine="openvino")
print(float(r(torch.linspace(0, 1, 3 * 24 * 24).reshape(1, 3, 24, 24)).sum()))
"""
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate()[0] for process in running]
    assert answers[0] == answers[1] != ""
    (file,) = own_cache.iterdir()
    assert cache.find(file.stem) is not None


@needs_openvino
def test_an_engine_that_differs_does_not_run(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, lines = str(weights(tmp_path)), list[str]()
    have(monkeypatch, "openvino")
    right = openvino_engine.OpenVinoRunner._run
    monkeypatch.setattr(openvino_engine.OpenVinoRunner, "_run", lambda *given: right(*given) + np.float32(0.1))
    restorer = open_restorer(path, device="cpu", precision="fp32", on_event=lines.append)
    assert restorer.engine == "torch"
    assert lines[-1].startswith("OpenVINO does not run ")
    assert "it differs by 25.5 levels" in lines[-1]
    with pytest.raises(RestoreError, match="it differs by"):
        open_restorer(path, device="cpu", precision="fp32", engine="openvino")
    # The result is kept: it is not tried again, and every run says why.
    monkeypatch.setattr(openvino_engine, "compile_network", None)
    assert open_restorer(path, device="cpu", precision="fp32", on_event=lines.append).engine == "torch"
    assert lines[-1] == lines[-2]


@needs_openvino
def test_an_engine_that_fails_leaves_the_network_to_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: object) -> bytes:
        raise RuntimeError("no such operation")

    path, lines = str(weights(tmp_path)), list[str]()
    have(monkeypatch, "openvino")
    monkeypatch.setattr(openvino_engine, "compile_network", fails)
    assert open_restorer(path, device="cpu", precision="fp32", on_event=lines.append).engine == "torch"
    assert "no such operation" in lines[-1]


@needs_openvino
def test_an_attempt_that_ended_the_program_is_not_repeated(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lines = str(weights(tmp_path)), list[str]()
    have(monkeypatch, "openvino")
    code = f"""
import os
from restore import open_restorer
from restore.engines import choice, openvino_engine
choice.platform.machine = lambda: "x86_64"
openvino_engine.compile_network = lambda *given: os._exit(77)
open_restorer({path!r}, device="cpu", precision="fp32", engine="auto")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 77, done.stderr
    (marker,) = own_cache.iterdir()
    assert marker.suffix == ".begun"
    for _ in range(2):
        assert open_restorer(path, device="cpu", precision="fp32", on_event=lines.append).engine == "torch"
    why = "a program ended while it was prepared; --engine openvino tries again"
    assert lines == [f"OpenVINO does not run {path}: {why}"] * 2
    restorer = open_restorer(path, device="cpu", precision="fp32", engine="openvino", on_event=lines.append)
    assert restorer.engine == "openvino"
    assert [file.suffix for file in own_cache.iterdir()] == [".engine"]
    assert open_restorer(path, device="cpu", precision="fp32", on_event=lines.append).engine == "openvino"
    assert len(lines) == 3


def test_an_attempt_of_another_process_is_none_that_ended(own_cache: Path) -> None:
    own_cache.mkdir()
    running = own_cache / f"k.{process_id().rpartition('-')[0]}-{os.getppid()}.begun"
    elsewhere = own_cache / "k.0123abcd-1.begun"
    for marker in (running, elsewhere):
        marker.touch()
        assert not cache.has_ended_a_program("k")
    os.utime(elsewhere, (0, 0))  # for longer than an attempt takes
    assert cache.has_ended_a_program("k")
    with cache.attempt("k"):
        assert len(list(own_cache.iterdir())) == 3
    assert list(own_cache.iterdir()) == [running]


@needs_openvino
def test_the_import_reports_to_nobody() -> None:
    code = """
import sys, types
telemetry = types.ModuleType("openvino_telemetry")
def stop(*given, **named): raise AssertionError("reported")
telemetry.Telemetry = stop
sys.modules["openvino_telemetry"] = telemetry
from restore.engines.openvino_engine import import_openvino
print(import_openvino().__name__, sys.modules["openvino_telemetry"] is telemetry)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["openvino", "True"], done.stderr


def test_pytorch_alone_loads_no_other_engine() -> None:
    probe = (
        "import sys, restore; restore.open_restorer('photo', device='cpu', engine='torch');"
        "print({'openvino', 'onnxruntime', 'onnx', 'onnxscript'} & set(sys.modules) or '')"
    )
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout.strip() == ""


def test_a_plan_says_what_only_pytorch_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    have(monkeypatch, "openvino")
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    options = FixOptions(device="cpu", precision="fp32")
    for path, engine in (
        (str(weights(tmp_path)), "openvino"), ("photo", "openvino"), (None, "openvino"),
        (str(tmp_path / "foreign.safetensors"), "torch"), ("x/latest_net_G.pth", "torch"), ("x/net.onnx", "openvino"),
    ):  # fmt: skip
        assert planned_engine(path, options) == (engine, "fp32"), path


@needs_openvino
def test_a_run_says_what_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(weights(tmp_path))
    have(monkeypatch, "openvino")
    (tmp_path / "in").mkdir()
    pixels = (photograph(30, 40)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    write_png(tmp_path / "in" / "a.png", pixels)
    options = FixOptions(device="cpu", precision="fp32", log=tmp_path / "log.jsonl")
    summary = fix_folder(tmp_path / "in", tmp_path / "out", path, options=options)
    assert summary.done == 1, summary.failed
    assert (summary.settings["engine"], summary.settings["precision"]) == ("openvino", "fp32")
    assert " s (openvino, fp32); written to " in summary.format()[-1]
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["settings"]["engine"] == "openvino"
    assert b"precision fp32; engine openvino" in (tmp_path / "out" / "a.png").read_bytes()
    assert planned_engine(path, options) == ("openvino", "fp32")


def test_half_precision_may_differ_as_much_as_pytorchs_own() -> None:
    assert check.Check(1.9 / 255, check.HALF_LIMIT).passed
    assert not check.Check(2.1 / 255, check.HALF_LIMIT).passed
