"""Jobs that wait for a worker, that run, and that have ended. Threads run them, coroutines wait for them."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from restore.serve.workers import Json, Kind, Outcome, TaskFailed, Worker, problem_of

State = Literal["queued", "running", "done", "failed", "cancelled"]
FINISHED = ("done", "failed", "cancelled")

#: Jobs of a group that are run together.
_TOGETHER = 16
#: Jobs that are remembered after they are finished.
_REMEMBERED = 1000

logger = logging.getLogger(__name__)


class QueueFull(Exception):
    """No further job may wait.

    Args:
        retry_seconds: after which it is worth another try.
    """

    def __init__(self, retry_seconds: int) -> None:
        super().__init__("the queue is full")
        self.retry_seconds = retry_seconds


class Stopping(Exception):
    """The server stops and takes no further jobs."""


class Job:
    """One task with its parameters. `Jobs.submit` makes it; its attributes are read, not set.

    Attributes:
        id: unguessable.
        task, params, worker, priority: as submitted.
        about: what it concerns, for those who submitted it, such as a file's identifier.
        state: `queued`, `running`, `done`, `failed` or `cancelled`.
        progress: in [0, 1]; None: not known.
        message: what is being done.
        result: of a job that is done.
        problem: of one that failed: {detail, code, where, hint}.
        created, started, finished: Unix times; None: not yet.
        begun, ended: the same as `started` and `finished` by a clock that nobody sets.
    """

    def __init__(
        self, owner: Jobs, task: str, params: Json, worker: Kind, priority: int, about: str, counted: bool
    ) -> None:
        self.id = secrets.token_urlsafe(16)
        self.task, self.params, self.worker, self.priority, self.about = task, params, worker, priority, about
        self.counted = counted
        self.state: State = "queued"
        self.progress: float | None = None
        self.message = ""
        self.result: Json | None = None
        self.problem: Json | None = None
        self.created = time.time()
        self.started: float | None = None
        self.finished: float | None = None
        self.begun: float | None = None
        self.ended: float | None = None
        self.cancelled = threading.Event()
        self.over = threading.Event()
        self.finishing: Callable[[Outcome], Outcome] | None = None
        self.group = ""
        self._owner = owner
        self._watchers: set[Callable[[], None]] = set()

    def to_dict(self) -> Json:
        """The job as JSON holds it."""
        names = ("id", "task", "state", "progress", "message", "result", "problem", "created", "started", "finished")
        with self._owner.lock:
            return {name: getattr(self, name) for name in names}

    @property
    def is_finished(self) -> bool:
        """Whether it is done, failed or cancelled."""
        return self.state in FINISHED

    def cancel(self) -> None:
        """Take it out of the queue, or interrupt it. Does nothing to a job that is finished."""
        self._owner._cancel(self)

    def wait_in_thread(self, seconds: float | None = None) -> Job:
        """Wait until it is finished; not in a coroutine."""
        self.over.wait(seconds)
        return self

    async def wait(self) -> Job:
        """Wait until it is finished. Cancelling the coroutine does not cancel the job."""
        async for _ in self.events():
            pass
        return self

    async def events(self) -> AsyncIterator[Json]:
        """The job now, and again whenever it has changed, until it is finished. A slow reader misses steps between."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(changed.set)

        with self._owner.lock:
            self._watchers.add(wake)
        try:
            last: Json | None = None
            while True:
                changed.clear()
                now = self.to_dict()
                if now != last:
                    yield now
                    last = now
                if now["state"] in FINISHED:
                    return
                await changed.wait()
        finally:
            with self._owner.lock:
                self._watchers.discard(wake)


@dataclass
class _Pool:
    """The queue of one kind of worker, and the threads that take from it."""

    kind: Kind
    devices: list[str]
    waiting: list[tuple[int, int, Job]] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    workers: dict[str, Worker] = field(default_factory=dict)


class Jobs:
    """The queues of a server, and the workers behind them. Workers start with the first job of their kind.

    Args:
        devices: of the networks; each gets a worker. See `restore.serve.workers.devices_of`.
        decoders: workers that decode images.
        queue: counted jobs that may wait.
        job_seconds: the time limit of a counted job; None: there is none.
        decode_seconds: the time limit of decoding one image.
        tasks: the module whose `TASKS` the workers run.
    """

    def __init__(
        self,
        *,
        devices: Iterable[str] = ("auto",),
        decoders: int = 1,
        queue: int = 16,
        job_seconds: float | None = None,
        decode_seconds: float = 120.0,
        tasks: str = "restore.serve.tasks",
    ) -> None:
        self.queue, self.job_seconds, self.decode_seconds, self.tasks = queue, job_seconds, decode_seconds, tasks
        self.lock = threading.RLock()
        self._wake = threading.Condition(self.lock)
        self._pools: dict[Kind, _Pool] = {
            "models": _Pool("models", list(devices)),
            "decoder": _Pool("decoder", [""] * decoders),
        }
        self._jobs: dict[str, Job] = {}
        self._room = _REMEMBERED
        self._numbers = itertools.count()
        self._listeners: list[Callable[[Job], None]] = []
        self._stopping = False
        self._recent_seconds = 1.0
        self.finished: dict[tuple[str, State], int] = {}
        self.restarts = 0

    # Submitting and following jobs

    def submit(
        self,
        task: str,
        params: Json,
        *,
        worker: Kind = "models",
        priority: int = 0,
        about: str = "",
        counted: bool = False,
        finishing: Callable[[Outcome], Outcome] | None = None,
        group: str = "",
    ) -> Job:
        """Queue a task.

        Args:
            task: a name of `restore.serve.tasks.TASKS`.
            params: what the task takes; it is pickled.
            worker: the kind of worker.
            priority: higher goes first; equals in the order of submission.
            about: what it concerns; returned with the job.
            counted: the job counts against the limit of the queue, and has a time limit.
            group: jobs of the same group may be run together, by the task of that name with `_together`.
            finishing: called with its outcome before anybody sees it, from any thread; what it returns counts.

        Raises:
            QueueFull: counted jobs fill the queue.
            Stopping: the server stops.
        """
        with self.lock:
            self.check_open()
            pool = self._pools[worker]
            if counted and self.queue_length(worker) >= self.queue:
                raise QueueFull(self.retry_seconds(worker))
            job = Job(self, task, params, worker, priority, about, counted)
            job.finishing, job.group = finishing, group
            self._start_threads(pool)  # first, because the system may refuse
            self._jobs[job.id] = job
            self._forget()
            heapq.heappush(pool.waiting, (-priority, next(self._numbers), job))
            self._changed(job)  # before a worker reports that it runs
            self._wake.notify_all()
        return job

    def get(self, identifier: str) -> Job | None:
        """A job by its identifier; None: there is none, or it was long ago."""
        with self.lock:
            return self._jobs.get(identifier)

    def forget(self, job: Job) -> None:
        """Drop a job that is finished."""
        with self.lock:
            self._jobs.pop(job.id, None)

    def listen(self, listener: Callable[[Job], None]) -> Callable[[], None]:
        """Report every change of a job, from any thread. Returns a function that ends this."""
        with self.lock:
            self._listeners.append(listener)

        def stop() -> None:
            with self.lock, suppress(ValueError):
                self._listeners.remove(listener)

        return stop

    # The state of the queues

    def queue_length(self, worker: Kind = "models", *, counted: bool = True) -> int:
        """Jobs that wait for a kind of worker: only the counted ones, or all."""
        with self.lock:
            return sum(job.counted or not counted for _, _, job in self._pools[worker].waiting)

    def check_open(self) -> None:
        """Check that the server takes jobs.

        Raises:
            Stopping: it stops.
        """
        if self._stopping:
            raise Stopping

    def retry_seconds(self, worker: Kind = "models") -> int:
        """After how many seconds a client that was refused may try again: when half of the queue is done, about."""
        with self.lock:
            pool = self._pools[worker]
            ahead = len(pool.waiting) + len(pool.devices)
            return max(1, min(600, round(self._recent_seconds * ahead / len(pool.devices) / 2)))

    def running(self) -> list[Job]:
        """The running jobs."""
        with self.lock:
            return [job for job in self._jobs.values() if job.state == "running"]

    def live_workers(self, worker: Kind = "models") -> list[int]:
        """The process identifiers of the workers that are alive."""
        with self.lock:
            return [one.pid for one in self._pools[worker].workers.values() if one.alive]

    @property
    def is_stopping(self) -> bool:
        """Whether it takes no further jobs."""
        return self._stopping

    # Stopping

    def refuse(self) -> None:
        """Take no further jobs, and cancel those that wait. Running jobs continue, unless they only open models."""
        with self.lock:
            self._stopping = True
            useless = [job for pool in self._pools.values() for _, _, job in pool.waiting]
            useless += [job for job in self.running() if job.task == "warm"]
            self._wake.notify_all()
        for job in useless:
            job.cancel()

    def stop(self, seconds: float = 0.0) -> None:
        """End all workers when the running jobs have ended or `seconds` have passed. Blocks."""
        self.refuse()
        deadline = time.monotonic() + seconds
        for job in self.running():
            job.over.wait(max(0.0, deadline - time.monotonic()))
            job.cancel()
        with self.lock:
            threads = [thread for pool in self._pools.values() for thread in pool.threads]
        for thread in threads:
            thread.join(10)
        with self.lock:
            for pool in self._pools.values():
                for worker in pool.workers.values():
                    worker.kill()
                pool.workers.clear()

    # The threads

    def _start_threads(self, pool: _Pool) -> None:
        for number, device in enumerate(pool.devices[len(pool.threads) :], start=len(pool.threads)):
            name = f"restore-{pool.kind}-{number}"
            thread = threading.Thread(target=self._work, args=(pool, name, device), name=name, daemon=True)
            thread.start()
            pool.threads.append(thread)

    def _work(self, pool: _Pool, name: str, device: str) -> None:
        """Run jobs, one after another or several alike together, in one worker: the life of a thread."""
        while jobs := self._take(pool):
            if len(jobs) > 1 and self._finish_together(jobs, self._run(pool, name, device, jobs)):
                continue
            for job in jobs:
                cancelled = job.cancelled.is_set()
                self._finish(job, Outcome("cancelled") if cancelled else self._run(pool, name, device, [job]))
        with self.lock:
            last = pool.workers.pop(name, None)
        if last is not None:
            last.kill()

    def _run(self, pool: _Pool, name: str, device: str, jobs: list[Job]) -> Outcome:
        """Run a job, or several together, in a worker that is started if there is none."""
        job = jobs[0]
        try:
            try:
                worker = self._worker(pool, name, device)
            except OSError as error:  # the limit of processes or files, or no memory
                reason = f"no process can be started for it: {error.strerror or error}"
                return Outcome("failed", problem=problem_of(TaskFailed(reason, "no_worker")))
            if len(jobs) == 1:
                task, params = job.task, job.params
            else:
                task, params = f"{job.task}_together", {"items": [one.params for one in jobs]}
            return worker.run(
                task,
                params,
                is_cancelled=lambda: all(one.cancelled.is_set() for one in jobs),
                seconds=self.job_seconds if job.counted else None,
                on_progress=partial(self._progress, jobs),
            )
        except Exception as error:  # no process, or parameters that cannot be pickled
            logger.debug("%s", job.task, exc_info=error)
            return Outcome("failed", problem=problem_of(error))

    def _finish_together(self, jobs: list[Job], outcome: Outcome) -> bool:
        """Finish several jobs with their outcomes; False: all failed, so each must be tried alone to find out why."""
        if outcome.state == "failed":
            return False
        items = (outcome.result or {}).get("items") or [None] * len(jobs)
        for job, item in zip(jobs, items):
            if item is None or job.cancelled.is_set():
                self._finish(job, Outcome("cancelled"))
            elif item["problem"] is None:
                self._finish(job, Outcome("done", result=item["result"]))
            else:
                self._finish(job, Outcome("failed", problem=item["problem"]))
        return True

    def _take(self, pool: _Pool) -> list[Job]:
        """Wait for the next job, and take those along that can be run with it; empty at the end."""
        with self.lock:
            while not pool.waiting:
                if self._stopping:
                    return []
                self._wake.wait()
            job = heapq.heappop(pool.waiting)[2]
            jobs = [job]
            if job.group:
                # Other devices have their share of those that wait.
                room = min(_TOGETHER, 1 + len(pool.waiting) // len(pool.devices))
                alike = sorted(entry for entry in pool.waiting if entry[2].group == job.group)[: room - 1]
                jobs += [entry[2] for entry in alike]
                pool.waiting = [entry for entry in pool.waiting if entry[2] not in jobs]
                heapq.heapify(pool.waiting)
            for one in jobs:
                one.state, one.started, one.begun = "running", time.time(), time.monotonic()
                self._changed(one)
            return jobs

    def _worker(self, pool: _Pool, name: str, device: str) -> Worker:
        worker = pool.workers.get(name)
        if worker is None or not worker.alive:
            if worker is not None:
                worker.kill()
                self.restarts += 1
            worker = Worker(pool.kind, device, decode_seconds=self.decode_seconds, tasks=self.tasks)
            with self.lock:
                pool.workers[name] = worker
        return worker

    def _progress(self, jobs: list[Job], fraction: float | None, message: str) -> None:
        for job in jobs:
            with self.lock:
                job.progress, job.message = fraction, message
            self._changed(job)

    def _finish(self, job: Job, outcome: Outcome) -> None:
        if job.finishing is not None and not job.is_finished:
            try:
                outcome = job.finishing(outcome)
            except Exception as error:
                logger.debug("%s", job.task, exc_info=error)
                outcome = Outcome("failed", problem=problem_of(error))
        with self.lock:
            if job.is_finished:
                return
            job.finished, job.ended = time.time(), time.monotonic()
            job.result, job.problem = outcome.result, outcome.problem
            job.state = outcome.state
            if outcome.state == "done":
                job.progress = 1.0
                if job.counted:
                    self._recent_seconds += 0.2 * (job.ended - (job.begun or job.ended) - self._recent_seconds)
            key = (job.task, job.state)
            self.finished[key] = self.finished.get(key, 0) + 1
        job.over.set()
        self._changed(job)

    def _cancel(self, job: Job) -> None:
        with self.lock:
            job.cancelled.set()
            if job.state != "queued":
                return  # its worker sees the flag
            pool = self._pools[job.worker]
            pool.waiting = [entry for entry in pool.waiting if entry[2] is not job]
            heapq.heapify(pool.waiting)
        self._finish(job, Outcome("cancelled"))

    def _changed(self, job: Job) -> None:
        with self.lock:
            watchers, listeners = list(job._watchers), list(self._listeners)
        for watcher in watchers:
            watcher()
        for listener in listeners:
            listener(job)

    def _forget(self) -> None:
        """Drop the oldest of too many finished jobs."""
        if len(self._jobs) > self._room:
            for identifier in [key for key, job in self._jobs.items() if job.is_finished][: len(self._jobs) // 4]:
                del self._jobs[identifier]
            # Where thousands wait, looking through them for each new one would take seconds.
            self._room = max(_REMEMBERED, 2 * len(self._jobs))
