"""How a run uses a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass

from restore.errors import RestoreError


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """The cluster of a run, and its workers: processes that hold the models.

    Attributes:
        address: `local`: one is started on this machine for the run; `auto`: the one of this machine; or an address
            as `ray.init` takes it.
        workers: how many; None: one for each `gpus_per_worker` GPUs, or without GPUs, as many as the cluster's
            processors allow, with one left over.
        cpus_per_worker: processors of each, which is also the number of its threads; None: its share of the
            processors, at most 4, with GPUs; else 1.
        gpus_per_worker: GPUs of each; less than 1: several workers share one.
        silent_seconds: a worker that says nothing for so long is given up.

    Raises:
        RestoreError: exit code 2; a number out of range.
    """

    address: str
    workers: int | None = None
    cpus_per_worker: int | None = None
    gpus_per_worker: float = 0.0
    silent_seconds: float = 120.0

    def __post_init__(self) -> None:
        if not self.address:
            raise RestoreError("must not be empty", where="--ray", hint="auto, local or an address")
        for name, value in (("--ray-workers", self.workers), ("--cpus-per-worker", self.cpus_per_worker)):
            if value is not None and value < 1:
                raise RestoreError(f"must be an integer of at least 1, not {value}", where=name)
        gpus = self.gpus_per_worker
        if gpus < 0 or not (gpus <= 1 or float(gpus).is_integer()):
            raise RestoreError(
                f"must be a fraction, or an integer, not {gpus:g}",
                where="--gpus-per-worker",
                hint="such as 0.5 or 2",
            )

    def size(self, cpus: float, gpus: float) -> tuple[int, int]:
        """The number of workers and the processors of each, in a cluster with these processors and GPUs.

        One processor is left for the driver and for Ray itself, as long as there is more than one.

        Raises:
            RestoreError: exit code 2; the cluster has too few GPUs.
        """
        free = max(1, int(cpus) - 1)
        per_gpu = self.gpus_per_worker
        if per_gpu and gpus < per_gpu:
            raise RestoreError(
                f"the cluster has {gpus:g} GPUs", where="--gpus-per-worker", hint="leave it out, or add machines"
            )
        each = self.cpus_per_worker
        if per_gpu:
            workers = self.workers or int(gpus / per_gpu)
            return workers, each or max(1, min(4, free // workers))
        return self.workers or max(1, free // (each or 1)), each or 1
