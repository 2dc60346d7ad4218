"""A worker that does what the names of images say: crashes, or stands still."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from restore.cluster.worker import Result, Worker
from restore.fix.jobs import Job


class OddWorker(Worker):
    """`crash` in the name of an image ends every worker that reads it; `still` stops the first one."""

    def run(self, number: int, items: Sequence[Job], *, again: bool) -> list[Result]:
        from restore.fix import reader

        read = reader.Reader.load

        def load(self: reader.Reader, job: Job) -> object:
            mark = Path(job.source).parents[2] / "stopped"
            if "crash" in job.source.name:
                os.kill(os.getpid(), signal.SIGKILL)
            if "still" in job.source.name and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGSTOP)
            return read(self, job)

        reader.Reader.load = load  # type: ignore[method-assign, assignment]
        try:
            return super().run(number, items, again=again)
        finally:
            reader.Reader.load = read  # type: ignore[method-assign]
