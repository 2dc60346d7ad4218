"""Run jobs through the stages: images are read while others are repaired and written. What waits is bounded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING

from restore.fix.jobs import Job
from restore.fix.reader import HugeItem, WorkItem
from restore.fix.stages import Stages

if TYPE_CHECKING:
    from restore.fix.results import ResultRecorder

#: Images per device that may wait for its network; the same number may wait to be written.
_WAITING_PICTURES = 4
#: Reading pauses if the waiting images have this many pixels together (a pixel takes some 30 bytes).
_WAITING_PIXELS = 48_000_000
#: Up to this many may wait as long as all together are small: the network takes these in batches.
_WAITING_SMALL, _SMALL_PIXELS = 64, 4_000_000


def stream(jobs: Iterable[Job], stages: Stages, ledger: ResultRecorder) -> None:
    """Run jobs through the stages, in order, until they are done or the run is stopped.

    A single network runs in the caller's thread, so that Ctrl-C ends it at once. Several run in a thread each, which
    takes the next image when it is free; Ctrl-C ends the run when these are finished.

    Raises:
        KeyboardInterrupt: Ctrl-C, after the waiting images are written; several networks finish theirs first.
    """
    from restore.devices import usable_cpus

    threads = max(1, min(4 * stages.networks, usable_cpus() // 2))
    with (
        ThreadPoolExecutor(threads, "restore-read") as reading,
        ThreadPoolExecutor(threads, "restore-write") as writing,
    ):
        flow = _Flow(jobs, stages, ledger, reading, writing)
        try:
            if stages.networks == 1:
                flow.work(0)
            else:
                _work_side_by_side(flow, stages)
            flow.finish()
        finally:
            flow.close()
            reading.shutdown(wait=False, cancel_futures=True)


def _work_side_by_side(flow: _Flow, stages: Stages) -> None:
    import torch

    before = torch.get_num_threads()
    # Networks on one processor share its cores; those on GPUs need one each to feed them.
    each = max(1, before // stages.networks)
    with ThreadPoolExecutor(
        stages.networks, "restore-network", initializer=torch.set_num_threads, initargs=(each,)
    ) as networks:
        running = [networks.submit(flow.work, number) for number in range(stages.networks)]
        try:
            for one in as_completed(running):
                one.result()
        finally:
            flow.close()
    torch.set_num_threads(before)  # the initializer changed the default of new threads, too


class _Flow:
    """The queues between the stages. Every method may be called from any thread."""

    def __init__(
        self,
        jobs: Iterable[Job],
        stages: Stages,
        ledger: ResultRecorder,
        reading: ThreadPoolExecutor,
        writing: ThreadPoolExecutor,
    ) -> None:
        self._to_read = iter(jobs)
        self._stages, self._ledger = stages, ledger
        self._reading, self._writing = reading, writing
        self._reads: deque[Future[WorkItem | HugeItem | None]] = deque()
        self._writes: deque[tuple[Future[None], int]] = deque()
        self._waiting = _WAITING_PICTURES * stages.networks
        self._closed = False
        # Reentrant: a future that is done already calls back at once, in the thread that holds the lock.
        self._lock = threading.RLock()

    def close(self) -> None:
        """Read and take nothing more."""
        with self._lock:
            self._closed = True

    def finish(self) -> None:
        """Wait for what is being written."""
        for saved, _ in list(self._writes):
            saved.result()

    def work(self, network: int) -> None:
        """Repair the images that are read on one of the devices, until none is left."""
        while group := self._take(network):
            for item in self._stages.repair_group(group, network):
                self._put(item)

    def _take(self, network: int) -> list[WorkItem]:
        """The next image, and those behind it that can be repaired in the same batch; empty at the end."""
        while True:
            with self._lock:
                self._read_ahead()
                if not self._reads or self._stopped():
                    return []
                first = self._reads.popleft()
            item = first.result()
            if self._stopped():
                return []
            if isinstance(item, HugeItem):
                item = self._stages.repair_in_parts(item, network)
            if item is not None:
                break
        group = [item]
        with self._lock:
            room = self._stages.room_for(item)
            while len(group) < room and self._reads and self._reads[0].done() and not self._stopped():
                other = self._reads[0].result()
                if isinstance(other, HugeItem) or (other is not None and not self._stages.go_together(item, other)):
                    break
                self._reads.popleft()
                if other is not None:
                    group.append(other)
            self._read_ahead()
        return group

    def _put(self, item: WorkItem) -> None:
        """Queue an image for writing; waits for room."""
        while True:
            with self._lock:
                while self._writes and self._writes[0][0].done():
                    self._writes.popleft()[0].result()
                pixels = sum(pixels for _, pixels in self._writes)
                if not self._crowded(len(self._writes), pixels):
                    saved = self._writing.submit(self._stages.writer.save, item)
                    self._writes.append((saved, item.pixels))
                    return
                oldest = self._writes[0][0]
            oldest.result()

    def _read_ahead(self) -> None:
        """Start reading while there is room; called again whenever an image has been read."""
        with self._lock:
            while not self._stopped() and self._has_room():
                job = next(self._to_read, None)
                if job is None:
                    return
                read = self._reading.submit(self._stages.reader.load, job)
                self._reads.append(read)
                read.add_done_callback(lambda _: self._read_ahead())

    def _has_room(self) -> bool:
        if not self._reads:
            return True
        read = [one.result() for one in self._reads if one.done() and one.exception() is None]
        sizes = [one.pixels for one in read if one is not None]
        pixels = sum(sizes) + sum(pixels for saved, pixels in self._writes if not saved.done())
        if pixels >= _WAITING_PIXELS or sum(not one.done() for one in self._reads) >= self._waiting:
            return False
        # Images that are still being read are assumed to be as large as the largest that waits.
        coming = (len(self._reads) - len(read)) * max(sizes, default=_SMALL_PIXELS)
        return not self._crowded(len(self._reads), pixels + coming)

    def _crowded(self, images: int, pixels: int) -> bool:
        return images >= self._waiting and (images >= _WAITING_SMALL or pixels >= _SMALL_PIXELS)

    def _stopped(self) -> bool:
        return self._closed or bool(self._ledger.summary.stopped)
