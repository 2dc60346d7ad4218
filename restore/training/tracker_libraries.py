"""The libraries of trackers behind one interface. Each is imported when its tracker is opened."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from restore.training.config import TrackerConfig

_PROJECT = "restore"
_MLFLOW_PARAMS_PER_CALL = 100
_MLFLOW_VALUE_CHARS = 500


class Tracker(Protocol):
    """A run of a tracker that is open. Any method may raise any error.

    Attributes:
        run_id: with which a resumed run continues it.
        place: an address, a file or a command, for the user.
    """

    run_id: str
    place: str

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Log values of a step. After a resume, steps may come again."""

    def close(self, ok: bool) -> None:
        """Send what is left; `ok`: no error ended the run."""


@dataclass(frozen=True)
class RunFacts:
    """What a tracker is told of a run.

    Attributes:
        out: the folder.
        values: the resolved config.
        run_id: of the tracker's run to continue; None: a new one.
    """

    out: Path
    values: dict[str, Any]
    run_id: str | None


class TensorBoard:
    """Writes the logs of TensorBoard.

    Args:
        folder: for the logs.
        step: what was logged after it is dropped.

    Raises:
        ImportError: TensorBoard is not installed.
    """

    run_id = ""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=step + 1)
        self.place = str(folder)

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Add scalars."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self, ok: bool) -> None:
        """Flush the file."""
        self._writer.close()


class _Wandb:
    def __init__(self, tracker: TrackerConfig, run: RunFacts) -> None:
        import wandb

        # Its own output and its copy of the console would disturb the progress bar.
        settings: dict[str, Any] = {"silent": True, "console": "off"}
        if tracker.url is not None:
            settings["base_url"] = tracker.url
        self._run = wandb.init(
            project=tracker.project or os.environ.get("WANDB_PROJECT", _PROJECT),
            name=tracker.name or os.environ.get("WANDB_NAME", run.out.name),
            id=run.run_id,
            resume="allow" if run.run_id else None,
            dir=os.environ.get("WANDB_DIR", str(run.out)),
            config=run.values,
            settings=wandb.Settings(**settings),
        )
        # With wandb's own steps, values of earlier steps than the last are dropped.
        self._run.define_metric("*", step_metric="step")
        self.run_id = str(self._run.id)
        offline = f"offline; to send it: wandb sync {self._run.settings.sync_dir}"
        self.place = offline if self._run.offline else str(self._run.url)

    def log(self, numbers: dict[str, float], step: int) -> None:
        self._run.log({**numbers, "step": step})

    def close(self, ok: bool) -> None:
        self._run.finish(exit_code=0 if ok else 1)


class _Mlflow:
    def __init__(self, tracker: TrackerConfig, run: RunFacts) -> None:
        # By default, each call that a server does not answer is repeated for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):  # they report the creation of each table
            logging.getLogger(name).setLevel(logging.WARNING)
        self._metric = Metric
        file = f"sqlite:///{(run.out / 'mlflow.db').resolve()}"
        self.place = tracker.url or os.environ.get("MLFLOW_TRACKING_URI") or file
        self._client = MlflowClient(tracking_uri=self.place)
        if run.run_id is not None:
            self.run_id = run.run_id
            self._client.update_run(self.run_id, status="RUNNING")
            return
        project = tracker.project or os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(project)
        number = self._client.create_experiment(project) if experiment is None else experiment.experiment_id
        name = tracker.name or os.environ.get("MLFLOW_RUN_NAME", run.out.name)
        self.run_id = str(self._client.create_run(number, run_name=name).info.run_id)
        params = [Param(key, str(value)[:_MLFLOW_VALUE_CHARS]) for key, value in _flat(run.values)]
        for start in range(0, len(params), _MLFLOW_PARAMS_PER_CALL):
            self._client.log_batch(self.run_id, params=params[start : start + _MLFLOW_PARAMS_PER_CALL])

    def log(self, numbers: dict[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(self.run_id, metrics=[self._metric(k, v, now, step) for k, v in numbers.items()])

    def close(self, ok: bool) -> None:
        self._client.set_terminated(self.run_id, "FINISHED" if ok else "FAILED")


class _Aim:
    def __init__(self, tracker: TrackerConfig, run: RunFacts) -> None:
        from aim import Run

        self.place = tracker.url or str(run.out)
        self._run = Run(
            run_hash=run.run_id,
            repo=self.place,
            experiment=tracker.project or _PROJECT,
            system_tracking_interval=None,
            log_system_params=False,
            capture_terminal_logs=False,
        )
        self.run_id = str(self._run.hash)
        self._run.name = tracker.name or run.out.name
        self._run["config"] = run.values

    def log(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._run.track(value, name=name, step=step)

    def close(self, ok: bool) -> None:
        self._run.close()


OPENERS: dict[str, Callable[[TrackerConfig, RunFacts], Tracker]] = {"wandb": _Wandb, "mlflow": _Mlflow, "aim": _Aim}
"""Opens the tracker of a kind."""


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
