"""The driver's side of the workers: it starts them, hands out groups, collects results, and replaces what is gone.

Workers are plain Ray actors, and the queue is the driver's own. Ray Data would add a second scheduler between both: its
operators restart whole batches without telling which row was in work, and its checkpoints are written when a batch
ends. Here, each result arrives within half a second, so an image that kills its worker is found, and what a lost
machine had is handed to another one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from restore import __version__
from restore.cluster.groups import DEATHS_TO_BLAME, Group, Item, Queue
from restore.cluster.worker import Introduction, Report, Result
from restore.errors import RestoreError
from restore.signals import defer_signals

#: Seconds between two reports of a worker.
REPORT_SECONDS = 0.5
#: Workers that die one after the other, without a result between them, before the run stops; at least.
_DEATHS_TO_STOP = 12
#: How often a worker that dies before its models are open is replaced.
_OPENINGS = 12
#: A run whose workers are all gone waits so long for a place for new ones.
_WAIT_SECONDS = 600.0


class Receiver(Protocol):
    """What becomes of the results."""

    def opened(self, worker: Introduction) -> None:
        """A worker has opened its models."""

    def result(self, worker: Introduction, result: Result) -> None:
        """An image has a result."""

    def blame(self, item: Item, reason: str) -> None:
        """An image fails, because it ends its workers."""

    def lost(self, worker: Introduction, groups: list[Group]) -> None:
        """A worker is gone that had these groups."""


@dataclass
class _Member:
    """A worker as the driver knows it.

    Attributes:
        actor: Ray's handle.
        opening: the answer of `Worker.open`, until it came.
        worker: what it said about itself then.
        groups: those it has, the one in work first, with the answers of `Worker.run`.
        asked: the answer of `Worker.report`, until it comes.
        heard: when the last answer came.
        since: when it began the group in work.
        is_warm: it has done a group; the first one takes longer, because it loads what it needs.
    """

    actor: Any
    opening: Any
    worker: Introduction | None = None
    groups: deque[tuple[Group, Any]] = field(default_factory=deque)
    asked: Any = None
    heard: float = 0.0
    since: float = 0.0
    is_warm: bool = False


class Pool:
    """The workers of a run.

    Args:
        ray: the module, connected.
        start: makes an actor of `Worker`.
        count: how many workers.
        queue: what they share.
        receiver: gets the results, in the caller's thread.
        on_event: called with a line when workers are lost.
        depth: groups that a worker has at most: those in work, and the next.
        decode_seconds: an image that is decoded for longer fails.
        silent_seconds: a worker that answers nothing for so long is given up.
    """

    def __init__(
        self,
        ray: Any,
        start: Callable[[], Any],
        count: int,
        queue: Queue,
        receiver: Receiver,
        on_event: Callable[[str], None],
        *,
        depth: int,
        decode_seconds: float,
        silent_seconds: float,
    ) -> None:
        self._ray, self._start, self._count = ray, start, count
        self._queue, self._receiver, self._on_event = queue, receiver, on_event
        self._depth, self._decode_seconds, self._silent_seconds = depth, decode_seconds, silent_seconds
        self._members: list[_Member] = []
        self._deaths = 0
        self._failed_openings = 0
        self._ever_opened = False
        self.stopped = ""

    def run(self) -> None:
        """Work until the queue is empty, or `stop` is called.

        A `KeyboardInterrupt` leaves everything as it was: call it again, after `stop`, to collect what workers finish.

        Raises:
            RestoreError: exit code 2; no worker can repair. Nothing has been written.
        """
        while len(self._members) < self._count and not self.stopped:
            self._add()
        alone_since = time.monotonic()
        while True:
            with defer_signals():
                for member in list(self._members):
                    self._fill(member)
            if not any(member.groups for member in self._members) and (self.stopped or self._queue.is_empty):
                return
            if any(member.worker is not None for member in self._members):
                alone_since = time.monotonic()
            elif not self._members:
                self.stop("no worker is left")
            elif time.monotonic() - alone_since > _WAIT_SECONDS:
                self.stop(f"no worker found a place in the cluster for {_WAIT_SECONDS:.0f} s")
            self._listen()

    def stop(self, reason: str) -> None:
        """Hand out nothing more, and let workers finish what they repair."""
        if self.stopped:
            return
        self.stopped = reason
        for member in self._members:
            if member.groups:
                member.actor.stop.options(concurrency_group="control").remote(reason)

    def close(self) -> None:
        """End all workers."""
        for member in self._members:
            self._ray.kill(member.actor)
        self._members = []

    def _add(self) -> None:
        actor = self._start()
        self._members.append(_Member(actor, actor.open.remote()))

    def _fill(self, member: _Member) -> None:
        """Give a worker its next groups."""
        while member.worker is not None and not self.stopped and len(member.groups) < self._depth:
            # An image that may kill its worker has it alone.
            if member.groups and member.groups[0][0].size == 1 and member.groups[0][0].again:
                return
            group = self._queue.take(busy=bool(member.groups))
            if group is None:
                return
            if not member.groups:
                member.since = time.monotonic()
            answer = member.actor.run.remote(group.number, group.items, again=group.again)
            member.groups.append((group, answer))

    def _listen(self) -> None:
        """Wait for answers, for half a second at most, and act on them."""
        now = time.monotonic()
        answers: dict[Any, _Member] = {}
        for member in self._members:
            if member.opening is not None:
                answers[member.opening] = member
            if member.groups:
                answers.update((answer, member) for _, answer in member.groups)
                if member.asked is None and now - member.heard >= REPORT_SECONDS:
                    ask = member.actor.report.options(concurrency_group="control")
                    member.asked = ask.remote({group.number: group.results for group, _ in member.groups})
            if member.asked is not None:
                answers[member.asked] = member
        if not answers:
            time.sleep(REPORT_SECONDS)
            return
        ready, _ = self._ray.wait(list(answers), num_returns=1, timeout=REPORT_SECONDS)
        if ready:
            ready, _ = self._ray.wait(list(answers), num_returns=len(answers), timeout=0)
        for answer in ready:
            member = answers[answer]
            if member in self._members:
                with defer_signals():
                    self._receive(member, answer)
        now = time.monotonic()
        for member in list(self._members):
            if member.groups and now - max(member.heard, member.since) > self._silent_seconds:
                with defer_signals():
                    self._give_up(member, f"said nothing for {self._silent_seconds:.0f} s")

    def _receive(self, member: _Member, answer: Any) -> None:
        try:
            value = self._ray.get(answer)
        except self._ray.exceptions.RayError as error:
            if member.worker is None:
                self._not_opened(member, error)
            else:
                self._give_up(member, _cause(error))
            return
        member.heard = time.monotonic()
        if answer == member.opening:
            self._opened(member, value)
        elif answer == member.asked:
            member.asked = None
            self._read(member, value)
        else:
            self._end(member, answer, value)

    def _opened(self, member: _Member, value: Introduction | RestoreError) -> None:
        member.opening = None
        if isinstance(value, RestoreError):
            self._not_opened(member, value)
            return
        if value.version != __version__:
            what = f"has version {value.version} of restore, and this machine has {__version__}"
            self._not_opened(member, RestoreError(what, where=value.name))
            return
        member.worker, self._ever_opened = value, True
        self._receiver.opened(value)

    def _not_opened(self, member: _Member, error: Exception) -> None:
        """A worker could not open its models."""
        self._drop(member)
        self._failed_openings += 1
        if isinstance(error, RestoreError):
            if not self._ever_opened:
                raise error
            self._on_event(f"a worker cannot take part: {error}")  # and is not replaced: its machine is the reason
        elif not self._ever_opened and (
            self._failed_openings >= _OPENINGS or not isinstance(error, self._ray.exceptions.RayActorError)
        ):
            raise RestoreError(f"no worker can be started: it {_cause(error)}", where="--ray") from error
        elif self._failed_openings < _OPENINGS * self._count:
            self._replace(f"a worker could not be started: it {_cause(error)}")

    def _read(self, member: _Member, reports: list[Report]) -> None:
        """Act on the reports about groups."""
        groups = {group.number: group for group, _ in member.groups}
        late = ""
        for report in reports:
            group = groups.get(report.group)
            if group is None:  # it has ended meanwhile
                continue
            group.begun = max(group.begun, report.begun)
            self._take(member, group, report.results)
            for name, seconds in report.decoding.items():
                if seconds <= self._decode_seconds:
                    continue
                late = f"decoding took longer than {self._decode_seconds:g} seconds"
                only = next(iter(group.left)) if len(group.left) == 1 else ""
                if item := group.left.pop(name, None) or group.left.pop(only, None):
                    self._receiver.blame(item, f"{late}; raise --decode-timeout to allow more")
        if late:
            self._give_up(member, f"is given up: {late}")

    def _end(self, member: _Member, answer: Any, results: list[Result]) -> None:
        """A group is done."""
        group = next(group for group, own in member.groups if own == answer)
        member.groups = deque(pair for pair in member.groups if pair[0] is not group)
        self._take(member, group, results[group.results :])
        now = time.monotonic()
        if member.is_warm:
            self._queue.took(group.size, now - member.since)
        member.since, member.is_warm = now, True
        if not self.stopped:  # else the worker has ended before the last of them
            self._queue.put_back(group)

    def _take(self, member: _Member, group: Group, results: list[Result]) -> None:
        """Take further results of a group."""
        assert member.worker is not None
        for result in results:
            group.results += 1
            record = result.get("record")
            if record is None or group.left.pop(record["input"], None) is not None:
                self._receiver.result(member.worker, result)
                self._deaths = 0

    def _give_up(self, member: _Member, why: str) -> None:
        """A worker is gone, or is not to be trusted: others get what it had."""
        assert member.worker is not None
        self._drop(member)
        self._deaths += 1
        groups = [group for group, _ in member.groups]
        # The group that it was repairing: behind it, none is begun.
        suspect = next((group for group in reversed(groups) if group.begun), groups[0] if groups else None)
        for group in groups:
            group.again = True  # its last report may be older than what it has written
            if group is not suspect or not self._is_alive(member.worker.node):
                self._queue.put_back(group)
            elif item := self._queue.died(group):
                self._receiver.blame(item, f"{DEATHS_TO_BLAME} workers died, each alone with this file")
        self._receiver.lost(member.worker, groups)
        if self._deaths >= max(_DEATHS_TO_STOP, 3 * self._count):
            self.stop(f"{self._deaths} workers died without a result between them; the last one {why}")
            return
        self._replace(f"the worker {member.worker.name} {why}")

    def _is_alive(self, node: str) -> bool:
        return any(one["NodeID"] == node and one["Alive"] for one in self._ray.nodes())

    def _drop(self, member: _Member) -> None:
        self._members.remove(member)
        self._ray.kill(member.actor)

    def _replace(self, why: str) -> None:
        if self.stopped:
            return
        self._on_event(f"{why}; another one takes its place")
        if len(self._members) < self._count:
            self._add()


def _cause(error: BaseException) -> str:
    """Why a worker is gone, in a few words."""
    text = " ".join(str(error).split())
    for sign, words in (
        ("node died", "was lost with its machine"),
        ("ode was terminated", "was lost with its machine"),
        ("OOM", "died"),
    ):
        if sign in text:
            return words
    return f"died: {text[:200]}"
