"""Ray itself: reaching a cluster, and errors about it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from restore.cluster.options import ClusterOptions
from restore.errors import RestoreError
from restore.signals import STOP_SIGNALS


@contextmanager
def connected(cluster: ClusterOptions) -> Iterator[Any]:
    """Reach the cluster for the block, or start one. A connection that this process has already is used and kept.

    Yields:
        The module `ray`.

    Raises:
        RestoreError: exit code 2; Ray is not installed, or no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray asks a server of its makers otherwise
    try:
        import ray
    except ImportError as error:
        raise RestoreError("Ray is not installed", where="--ray", hint='pip install "restore-toolkit[ray]"') from error
    if ray.is_initialized():
        yield ray
        return
    # Its output would go between the lines of this program; workers say what matters in their reports.
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    try:
        if cluster.address == "local":
            # Else Ray gives its workers the lowest priority, and other programs of this machine come first.
            os.environ.setdefault("RAY_worker_niceness", "0")
            ray.init(address="local", num_cpus=_own_cpus(cluster), include_dashboard=False, **quiet)
        else:
            ray.init(address=cluster.address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise RestoreError(
            f"no Ray cluster answers: {' '.join(str(error).split())[:200]}",
            where=f"--ray {cluster.address}",
            hint="start one with `ray start --head`, or use --ray local",
        ) from error
    # Ray lets SIGTERM end the process at once.
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)
    try:
        yield ray
    finally:
        with suppress(Exception):  # the cluster may be gone
            ray.shutdown()


def _own_cpus(cluster: ClusterOptions) -> int:
    """Processors that a cluster on this machine offers: its own, or more if the user asks for more workers."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(own, (cluster.workers or 0) * (cluster.cpus_per_worker or 1))
