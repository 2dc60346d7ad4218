"""Trackers get what is logged, and neither change nor stop a run."""

import importlib.machinery
import json
import sys
import threading
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from restore.errors import RestoreError
from restore.training import trackers as trackers_module
from restore.training.config import TrackerConfig, TrainConfig
from restore.training.loop import TrainCallbacks, train
from restore.training.run_dir import RunFolder
from restore.training.tracker_libraries import OPENERS, RunFacts
from restore.training.trackers import Trackers
from tests.training.test_loop import config, state

QUICK = {"total_steps": 4, "log_every": 1, "validate_every": 2, "save_every": 2, "loss": {}}


def events_of(settings: TrainConfig) -> list[str]:
    said: list[str] = []
    assert train(settings, TrainCallbacks(on_event=said.append)).finished
    return said


def assert_same_weights(one: Path, other: Path) -> None:
    expected, found = state(one), state(other)
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


@pytest.fixture(scope="module")
def plain(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without trackers."""
    out = tmp_path_factory.mktemp("plain") / "run"
    train(config(clean, out, **QUICK))
    return out


class Fake:
    """A tracker that remembers what it was told, or fails."""

    def __init__(self, broken: bool = False) -> None:
        self.run_id, self.place = "id-7", "nowhere"
        self.told: list[tuple[int, dict[str, float]]] = []
        self.closed: list[bool] = []
        self.opened: list[RunFacts] = []
        self.broken = broken

    def open(self, tracker: TrackerConfig, run: RunFacts) -> "Fake":
        self.opened.append(run)
        return self

    def log(self, numbers: dict[str, float], step: int) -> None:
        if self.broken:
            raise OSError("no route\nto host")
        self.told.append((step, numbers))

    def close(self, ok: bool) -> None:
        self.closed.append(ok)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """In the place of wandb, which counts as installed."""
    module = types.ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None, origin="fake")
    monkeypatch.setitem(sys.modules, "wandb", module)
    one = Fake()
    monkeypatch.setitem(OPENERS, "wandb", one.open)
    return one


@pytest.mark.parametrize("value", ["wandb", ["wandb"], {"kind": "wandb"}, [{"kind": "wandb"}]])
def test_trackers_are_named_or_have_options(clean: Path, tmp_path: Path, value: object) -> None:
    assert config(clean, tmp_path, trackers=value).trackers == (TrackerConfig(kind="wandb"),)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("comet", "wandb"),
        (["aim", {"kind": "aim"}], "each kind"),
        ([{"kind": "aim", "nmae": "x"}], "nmae"),
        (3, "must be a list"),
    ],
)
def test_other_trackers_are_refused(clean: Path, tmp_path: Path, value: object, expected: str) -> None:
    with pytest.raises(RestoreError, match=expected):
        config(clean, tmp_path, trackers=value)


@pytest.mark.parametrize("name", ["wandb", "mlflow", "aim"])
def test_a_missing_library_is_told_before_anything_is_written(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        RestoreError, match=rf'needs the package {name}; pip install "restore-toolkit\[{name}\]"'
    ) as error:
        train(config(clean, tmp_path / "run", trackers=[name], **QUICK))
    assert error.value.exit_code == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_a_folder_is_no_library(clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()  # as wandb leaves it in the current folder
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RestoreError, match="needs the package wandb"):
        train(config(clean, tmp_path / "run", trackers=["wandb"], **QUICK))


def test_a_tracker_gets_every_number_of_the_log(clean: Path, tmp_path: Path, plain: Path, fake: Fake) -> None:
    settings = config(clean, tmp_path / "run", trackers=["wandb"], **QUICK)
    assert "wandb: nowhere" in events_of(settings)
    expected = []
    for line in map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()):
        numbers = {k: v for k, v in line.items() if k != "step"}
        group = "training/" if "pixel" in line else ""
        expected.append(
            (line["step"], {(group or "") + k.replace("validation_", "validation/"): v for k, v in numbers.items()})
        )
    assert fake.told == expected
    assert [step for step, _ in fake.told] == [0, 1, 2, 2, 3, 4, 4]
    assert {"training/pixel", "training/lr"} <= fake.told[1][1].keys()
    assert {"validation/psnr", "validation/ssim"} == fake.told[0][1].keys()
    assert fake.closed == [True]
    assert fake.opened[0].run_id is None
    assert fake.opened[0].values["data"]["batch"] == 2
    assert_same_weights(plain, tmp_path / "run")


def test_a_resumed_run_continues_the_run_of_its_tracker(clean: Path, tmp_path: Path, fake: Fake) -> None:
    train(config(clean, tmp_path / "run", trackers=["wandb"], **QUICK))
    train(config(clean, tmp_path / "run", trackers=["wandb"], **QUICK | {"total_steps": 5}))
    assert [run.run_id for run in fake.opened] == [None, "id-7"]
    assert fake.told[-1][0] == 5
    train(config(clean, tmp_path / "other", trackers=["wandb"], **QUICK))
    assert fake.opened[-1].run_id is None


def test_a_tracker_that_fails_does_not_stop_the_run(clean: Path, tmp_path: Path, plain: Path, fake: Fake) -> None:
    fake.broken = True
    said = events_of(config(clean, tmp_path / "run", trackers=["wandb"], **QUICK))
    assert said.count("wandb failed: no route; training continues, and it is tried again") == 1
    assert said[-1] == "wandb was not closed: 7 log lines were not sent; metrics.jsonl is complete"
    assert_same_weights(plain, tmp_path / "run")


def test_what_was_logged_while_a_tracker_failed_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(trackers_module.time, "monotonic", lambda: now[0])
    said: list[str] = []
    fake, trackers = Fake(broken=True), Trackers()
    trackers.on_event = said.append
    trackers.add("wandb", fake)
    tried = []
    for step in range(1, 8):
        fake.broken = step < 6
        trackers.log({"step": step, "pixel": 0.5})
        tried.append(len(fake.told))
        now[0] += 50
    assert tried == [0, 0, 0, 0, 0, 6, 7], "again after 60 s, and after 120 s more"
    assert [step for step, _ in fake.told] == list(range(1, 8))
    assert said[0].startswith("wandb failed: no route")
    assert said[1:] == ["wandb works again"]


def test_a_new_run_needs_its_trackers_and_a_resumed_run_does_not(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: Fake
) -> None:
    train(config(clean, tmp_path / "run", trackers=["wandb"], **QUICK))

    def fail(tracker: TrackerConfig, run: RunFacts) -> Fake:
        raise ValueError("no key")

    monkeypatch.setitem(OPENERS, "wandb", fail)
    with pytest.raises(RestoreError, match="trackers: wandb: no key"):
        train(config(clean, tmp_path / "new", trackers=["wandb"], **QUICK))
    said = events_of(config(clean, tmp_path / "run", trackers=["wandb"], **QUICK | {"total_steps": 5}))
    assert "continues without wandb, which cannot be opened: no key" in said
    assert json.loads((tmp_path / "run" / "trackers.json").read_text()) == {"wandb": "id-7"}, "for the next resume"


def test_a_tracker_that_does_not_end_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers_module, "_CLOSE_SECONDS", 0.2)
    said: list[str] = []
    fake, ended = Fake(), threading.Event()
    monkeypatch.setattr(fake, "close", lambda ok: ended.wait(20))
    with RunFolder(tmp_path / "run") as run:
        run._trackers.on_event = said.append
        run._trackers.add("wandb", fake)
    ended.set()
    assert said == ["wandb was not closed: it takes longer than 0 seconds; metrics.jsonl is complete"]


def test_a_tracker_learns_that_an_error_ended_the_run(tmp_path: Path) -> None:
    fake = Fake()
    with RunFolder(tmp_path / "run") as run:
        run._trackers.add("wandb", fake)
        error = RestoreError("diverged", exit_code=3)
        run.__exit__(RestoreError, error, None)
    assert fake.closed == [False]


# With the libraries themselves, offline.


def in_two_parts(clean: Path, out: Path, tracker: object) -> None:
    train(config(clean, out, trackers=[tracker], **QUICK | {"total_steps": 2, "optimizer": {"schedule": "constant"}}))
    train(config(clean, out, trackers=[tracker], **QUICK | {"optimizer": {"schedule": "constant"}}))


@pytest.fixture(scope="module")
def plain_in_two_parts(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "run"
    train(config(clean, out, **QUICK | {"total_steps": 2, "optimizer": {"schedule": "constant"}}))
    train(config(clean, out, **QUICK | {"optimizer": {"schedule": "constant"}}))
    return out


def pixel_losses(out: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [(line["step"], line["pixel"]) for line in lines if "pixel" in line]


def test_wandb_offline(clean: Path, tmp_path: Path, plain_in_two_parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    out = tmp_path / "run"
    in_two_parts(clean, out, {"kind": "wandb", "project": "scans", "name": "first"})
    files = sorted((out / "wandb").glob("offline-run-*/run-*.wandb"))
    run_id = json.loads((out / "trackers.json").read_text())["wandb"]
    assert [file.name for file in files] == [f"run-{run_id}.wandb"] * 2
    rows, started = [], []
    for file in files:
        for record in _wandb_records(file):
            if record.WhichOneof("record_type") == "run":
                started.append((record.run.project, record.run.display_name))
                keys = {item.key for item in record.run.config.update}
            if record.WhichOneof("record_type") == "history":
                items = {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                rows.append(items)
    assert {("scans", "first")} == set(started)
    assert {"data", "optimizer", "total_steps"} <= keys
    logged = [(row["step"], row["training/pixel"]) for row in rows if "training/pixel" in row]
    assert logged == pixel_losses(out)
    assert [row["step"] for row in rows if "validation/psnr" in row] == [0, 2, 4]
    assert_same_weights(plain_in_two_parts, out)


def _wandb_records(file: Path) -> list[Any]:
    """What `wandb sync` would send. The format: https://github.com/google/leveldb/blob/main/doc/log_format.md."""
    from wandb.proto import wandb_internal_pb2

    data, at, records, parts = file.read_bytes(), 7, [], b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return records


def test_mlflow_in_a_file(
    clean: Path, tmp_path: Path, plain_in_two_parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "run"
    in_two_parts(clean, out, "mlflow")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("restore").experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["data.batch"] == "2"
    history = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "training/pixel")]
    assert sorted(history) == pixel_losses(out)
    assert sorted(m.step for m in client.get_metric_history(run.info.run_id, "validation/psnr")) == [0, 2, 4]
    assert_same_weights(plain_in_two_parts, out)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_aim_in_a_folder(clean: Path, tmp_path: Path, plain_in_two_parts: Path) -> None:
    aim = pytest.importorskip("aim")
    out = tmp_path / "run"
    in_two_parts(clean, out, {"kind": "aim", "project": "scans"})
    run_id = json.loads((out / "trackers.json").read_text())["aim"]
    run = aim.Run(run_hash=run_id, repo=str(out), log_system_params=False, capture_terminal_logs=False)
    assert (run.experiment, run.name, run["config"]["data"]["batch"]) == ("scans", "run", 2)
    logged = {}
    for metric in run.metrics():
        steps, (values, *_) = metric.data.items_list()
        logged[metric.name] = sorted(zip(steps, values))
    run.close()
    assert logged["training/pixel"] == pixel_losses(out)
    assert [step for step, _ in logged["validation/psnr"]] == [0, 2, 4]
    assert_same_weights(plain_in_two_parts, out)
