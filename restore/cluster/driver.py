"""The driver of a run: it connects to the cluster, starts the workers, and lets them share the images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from restore.cluster.connect import connected
from restore.cluster.groups import Queue
from restore.cluster.options import ClusterOptions
from restore.cluster.pool import Pool, Receiver
from restore.cluster.worker import Assignment, Worker
from restore.errors import RestoreError
from restore.fix.batch_options import BatchOptions


def check_device(options: BatchOptions) -> None:
    """Refuse lists of devices: a worker has one.

    Raises:
        RestoreError: exit code 2.
    """
    if "," in options.device or options.device.endswith(":all"):
        raise RestoreError(
            "names several devices, and a worker has one", where="--device", hint="use --gpus-per-worker 1"
        )


class Source(Receiver, Protocol):
    """What a run gives to its workers, and what becomes of their results.

    Attributes:
        on_event: called with a line when workers come and go.
        pool: the workers, while they are at work.
    """

    on_event: Callable[[str], None]
    pool: Pool | None

    def items(self) -> Iterator[Any]:
        """The images to hand out."""


class Ending(NamedTuple):
    """How the work of a cluster ended: by Ctrl-C, or early, and why."""

    interrupted: bool = False
    stopped: str = ""


def share_out(
    assignment: Assignment,
    cluster: ClusterOptions,
    source: Source,
    total: int,
    *,
    together: int = 1,
    decode_seconds: float = math.inf,
) -> Ending:
    """Let the workers of a cluster work on the images of a run. Ctrl-C lets them finish what they have begun.

    Args:
        assignment: what each worker is told.
        cluster: which cluster, and how many workers.
        source: gives the images, and receives what came of them.
        total: how many images there are to hand out.
        together: groups that a worker has in work at a time: while one is repaired, one comes and one goes.
        decode_seconds: an image that is decoded for longer fails.

    Raises:
        RestoreError: exit code 2; no cluster answers, or no worker can take part. Nothing has been written.
    """
    with connected(cluster) as ray:
        resources = ray.cluster_resources()
        count, cpus = cluster.size(resources.get("CPU", 1), resources.get("GPU", 0))
        count = min(count, total)
        kind = ray.remote(
            num_cpus=cpus,
            num_gpus=cluster.gpus_per_worker,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=together,
            scheduling_strategy="SPREAD",
            concurrency_groups={"control": 1},
        )(Worker)
        told = ray.put(replace(assignment, cpus=cpus))
        pool = source.pool = Pool(
            ray, lambda: kind.remote(told), count, Queue(source.items(), total, count), source, source.on_event,
            depth=max(2, together), decode_seconds=decode_seconds, silent_seconds=cluster.silent_seconds,
        )  # fmt: skip
        interrupted = False
        try:
            try:
                pool.run()
            except KeyboardInterrupt:
                interrupted = True
                pool.stop("interrupted")
                with suppress(KeyboardInterrupt):  # the second one ends the workers at once
                    pool.run()
        finally:
            pool.close()
        return Ending(interrupted, "" if interrupted else pool.stopped)
