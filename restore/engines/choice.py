"""Which engine runs a network: the one that was asked for, or the fastest that is installed and passes its check."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch

from restore.devices import pick_precision
from restore.engines.cache import Entry, attempt, cache_folder, find, forget, has_ended_a_program, key_of, store
from restore.engines.check import Check, Network, check, check_graph
from restore.engines.runner import GraphRunner, Runner, TorchRunner
from restore.errors import RestoreError, printable

ENGINES = ("auto", "torch", "openvino", "onnx")

#: The engines other than PyTorch, fastest first.
OTHERS = ("openvino", "onnx")

TITLES = {"torch": "PyTorch", "openvino": "OpenVINO", "onnx": "onnxruntime"}

#: What an engine imports, and the extra that installs it.
_PACKAGES = {"openvino": ("openvino",), "onnx": ("onnxruntime", "onnx", "onnxscript")}
_EXTRAS = {"openvino": "cpu", "onnx": "onnx"}

#: What `auto` tries before PyTorch, instead of all engines.
_VARIABLE = "RESTORE_ENGINE"

OnEvent = Callable[[str], None]


class _Refused(Exception):
    """Why an engine does not run a network."""


def is_installed(engine: str) -> bool:
    """Whether an engine's packages are installed. They are not imported."""
    return all(find_spec(name) is not None for name in _PACKAGES.get(engine, ()))


def how_to_install(engine: str) -> str:
    """The command that installs an engine."""
    return f'pip install "restore-toolkit[{_EXTRAS[engine]}]"'


def settle_precision(engine: str, precision: str, device: torch.device) -> str:
    """The precision that networks run in, after a check that the engine can run them on the device.

    Args:
        engine: one of `ENGINES`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        device: where they run.

    Returns:
        `fp32`, `bf16` or `fp16`.

    Raises:
        RestoreError: no such engine or precision; the engine is not installed, or cannot do it.
    """
    if engine not in ENGINES:
        raise RestoreError("no such engine", where=f"engine {engine}", hint=f"use {', '.join(ENGINES)}")
    if engine in OTHERS:
        title, where = TITLES[engine], f"engine {engine}"
        if device.type != "cpu":
            hint = "add --device cpu, or use --engine torch"
            raise RestoreError(f"{title} runs networks on the CPU, not on {device}", where=where, hint=hint)
        if not is_installed(engine):
            raise RestoreError(f"{title} is not installed", where=where, hint=how_to_install(engine))
        if engine == "onnx" and precision not in ("auto", "fp32"):
            raise RestoreError(f"{title} computes in fp32 on a CPU", where=where, hint="leave out --precision")
    return "fp32" if engine == "onnx" else pick_precision(precision, device)


def candidates(engine: str, precision: str, device: torch.device) -> tuple[str, ...]:
    """The engines to try, in order.

    Args:
        engine: one of `ENGINES`. `auto` leaves all networks on GPUs, and on processors that the other engines were not
            measured on, to PyTorch.
        precision: `fp32`, `bf16` or `fp16`.
        device: where networks run.

    Raises:
        RestoreError: the variable RESTORE_ENGINE holds no engine.
    """
    if engine != "auto":
        return (engine,)
    preferred = os.environ.get(_VARIABLE) or "auto"
    if preferred not in ENGINES:
        raise RestoreError(f"no engine is called {preferred!r}", where=_VARIABLE, hint=f"use {', '.join(ENGINES)}")
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return ("torch",)
    tried = OTHERS if preferred == "auto" else (preferred,)
    # onnxruntime has no half precision on CPUs: it is slower than PyTorch where that is fast.
    able = (name for name in tried if name in OTHERS and is_installed(name) and (name, precision) != ("onnx", "bf16"))
    return (*able, "torch")


def open_runner(
    network: Network,
    device: torch.device,
    precision: str,
    engine: str = "auto",
    on_event: OnEvent = lambda line: None,
) -> Runner:
    """Run a network by the engine that was chosen.

    Args:
        network: what runs.
        device: where it runs.
        precision: `fp32`, `bf16` or `fp16`.
        engine: one of `ENGINES`, after `settle_precision`.
        on_event: called with a line if the network is prepared for an engine, or if the fastest engine does not run it.

    Raises:
        RestoreError: the engine that was asked for cannot run this network, or gives other results than PyTorch.
    """
    sha256 = None if network.model.can_change else network.sha256
    if sha256 is None:
        only_torch(engine, network.name)
    for name in candidates(engine, precision, device):
        if name == "torch" or sha256 is None:
            break
        try:
            return _open(name, network, sha256, precision, on_event, again=engine != "auto")
        except _Refused as refused:
            if engine != "auto":
                raise RestoreError(
                    f"{TITLES[name]} cannot run {network.name}: {refused}",
                    where=f"engine {name}",
                    hint="use --engine auto or torch",
                ) from refused
            on_event(f"{TITLES[name]} does not run {network.name}: {refused}")
    return TorchRunner(network.model, device, precision)


def open_graph(
    network: Network,
    data: bytes,
    precision: str,
    engine: str = "auto",
    *,
    quantized: bool = False,
    on_event: OnEvent = lambda line: None,
) -> Runner:
    """Run the graph of an ONNX file on the CPU: by OpenVINO, if it gives what onnxruntime gives, or by onnxruntime.

    Args:
        network: the name and hash of the file, and a network of its architecture, whose weights are not used.
        data: the serialized graph, with its weights.
        precision: `fp32` or `bf16`, of OpenVINO; onnxruntime takes the file's own.
        engine: one of `ENGINES`, after `settle_precision`.
        quantized: it computes in 8-bit integers.
        on_event: as for `open_runner`.

    Raises:
        ImportError: onnxruntime is not installed.
        RestoreError: the engine that was asked for cannot run it, or gives other results than onnxruntime.
        Exception: onnxruntime cannot load it.
    """
    from restore.engines.onnx_engine import OnnxRunner

    if engine == "torch":
        raise RestoreError("ONNX files are run by OpenVINO or onnxruntime", where="engine torch", hint="leave it out")
    if "openvino" not in candidates(engine, precision, torch.device("cpu")) or network.sha256 is None:
        return OnnxRunner(lambda: data)
    try:
        return _compiled(
            "openvino",
            network.name,
            precision,
            {"weights": network.sha256, "graph": hashlib.sha256(data).hexdigest()},
            compile=lambda library: library.compile_onnx(data, precision),
            check=lambda runner: check_graph(runner, OnnxRunner(lambda: data), network, quantized=quantized),
            on_event=on_event,
            again=engine != "auto",
        )
    except _Refused as refused:
        if engine != "auto":
            raise RestoreError(
                f"{TITLES['openvino']} cannot run {network.name}: {refused}", where="engine openvino",
                hint="use --engine onnx",
            ) from refused  # fmt: skip
        on_event(f"{TITLES['openvino']} does not run {network.name}: {refused}")
        return OnnxRunner(lambda: data)


def only_torch(engine: str, name: str) -> None:
    """Refuse another engine for a network that only PyTorch runs.

    Raises:
        RestoreError: another engine was asked for.
    """
    if engine in OTHERS:
        raise RestoreError(
            f"{TITLES[engine]} cannot run {name}, only {TITLES['torch']} can",
            where=f"engine {engine}",
            hint="use --engine auto or torch",
        )


def _open(name: str, network: Network, sha256: str, precision: str, on_event: OnEvent, *, again: bool) -> Runner:
    """A network run by an engine; see `_compiled`.

    Raises:
        _Refused: the engine does not run it.
    """
    return _compiled(
        name,
        network.name,
        precision,
        {"weights": sha256, "channels": network.channels},
        compile=lambda library: library.compile_network(network.model, network.channels, precision),
        check=lambda runner: check(runner, network),
        on_event=on_event,
        again=again,
    )


def _compiled(
    name: str,
    title: str,
    precision: str,
    identity: dict[str, Any],
    *,
    compile: Callable[[Any], Any],
    check: Callable[[Runner], Check],
    on_event: OnEvent,
    again: bool,
) -> Runner:
    """What an engine has compiled: from the cache, or else compiled and checked now.

    Args:
        name: of the engine.
        title: the user's name for the network.
        precision: `fp32` or `bf16`.
        identity: what decides the result, beside the engine and its version.
        compile: (module of the engine) -> what its runner loads.
        check: compares the runner with another engine.
        on_event: called with a line if it is compiled now.
        again: try it even if that has ended a program before.

    Raises:
        _Refused: the engine does not run it.
    """
    try:
        library, runner_of = _library(name)
        version = library.version()
    except Exception as error:  # what a broken installation raises is anything
        raise _Refused(f"it does not start ({_line(error)})") from error
    key = key_of(engine=name, version=version, precision=precision, **identity)
    entry = find(key)
    if entry is not None and not entry.payload:
        raise _Refused(str(entry.facts.get("reason")))
    payload = _Payload(key, lambda: bytes(compile(library)))
    if entry is not None:
        payload.fresh = entry.payload
        try:
            return runner_of(payload, precision)
        except Exception:  # whole, but it does not suit this machine after all
            forget(key)
    if has_ended_a_program(key) and not again:
        raise _Refused(f"a program ended while it was prepared; --engine {name} tries again")
    folder = cache_folder()
    kept = "" if folder is None else f", once (kept in {printable(folder)})"
    on_event(f"preparing {title} for {TITLES[name]}{kept}")
    try:
        with attempt(key):  # a crash inside the engine raises nothing
            compiled = payload.fresh = payload.compile()
            runner = runner_of(payload, precision)
            result = check(runner)
    except Exception as error:
        raise _Refused(f"it fails ({_line(error)})") from error
    facts = {
        "network": title, **identity, "engine": name, "version": version, "precision": precision,
        "difference": result.difference, "limit": result.limit,
    }  # fmt: skip
    if not result.passed:
        reason = f"it differs by {result.difference * 255:.1f} levels of 255"
        store(key, Entry(facts | {"reason": reason}, b""))
        raise _Refused(reason)
    store(key, Entry(facts, compiled))
    return runner


class _Payload:
    """What a runner loads, from the cache: compiled again if it is lost there."""

    def __init__(self, key: str, compile: Callable[[], bytes]) -> None:
        self.key, self.compile = key, compile
        self.fresh: bytes | None = None

    def __call__(self) -> bytes:
        payload, self.fresh = self.fresh, None  # it need not stay in memory
        if payload is None:
            entry = find(self.key)
            payload = entry.payload if entry is not None and entry.payload else self.compile()
        return payload


def _library(name: str) -> tuple[Any, Callable[[Callable[[], bytes], str], GraphRunner]]:
    if name == "openvino":
        from restore.engines import openvino_engine

        return openvino_engine, openvino_engine.OpenVinoRunner
    from restore.engines import onnx_engine

    return onnx_engine, onnx_engine.OnnxRunner


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[-160:]}"
