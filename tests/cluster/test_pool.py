"""Workers that die, hang or cannot start: what they had is repaired by others, and every image has one result."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from restore.cluster import pool as pool_module
from restore.cluster.groups import DEATHS_TO_BLAME, FIRST_IMAGES, MOST_IMAGES, Group, Queue
from restore.cluster.options import ClusterOptions
from restore.cluster.pool import Pool
from restore.cluster.worker import Introduction, Report
from restore.errors import RestoreError
from restore.fix.jobs import Job


class RayError(Exception):
    pass


class RayActorError(RayError):
    pass


class Answer:
    def __init__(self, value: Any = None, *, ready: bool = True) -> None:
        self.value, self.ready = value, ready


class Method:
    def __init__(self, call: Any) -> None:
        self._call = call

    def options(self, **options: Any) -> Method:
        assert options == {"concurrency_group": "control"}
        return self

    def remote(self, *arguments: Any, **options: Any) -> Answer:
        return self._call(*arguments, **options)


class Actor:
    """A worker in this process. `happens` says what comes of an image: "", "die", "die unseen" or "hang"."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.number = cluster, len(cluster.actors)
        self.group, self.results, self.state, self.decoding = -1, [], "", {}
        self.answers: list[Answer] = []
        cluster.actors.append(self)
        self.open, self.run = Method(self._open), Method(self._run)
        self.report, self.stop = Method(self._report), Method(lambda reason: Answer())

    def _answer(self, value: Any) -> Answer:
        """Fails if the worker is dead, and never comes if it hangs."""
        answer = Answer(value, ready=self.state != "hang")
        if self.state == "dead":
            answer.value = RayError("died")
        self.answers.append(answer)
        return answer

    def _open(self) -> Answer:
        value = self.cluster.openings.pop(0) if self.cluster.openings else None
        name = f"worker {self.number}"
        return self._answer(
            value or Introduction(name, f"node {self.number}", "m-1", pool_module.__version__, "x", None, {})
        )

    def _run(self, number: int, jobs: list[Job], *, again: bool) -> Answer:
        if self.state:
            return self._answer(None)
        self.cluster.groups.append((self.number, [job.source.name for job in jobs], again))
        self.group, self.results = number, []
        for job in jobs:
            what = self.cluster.happens(self, job.source.name)
            if what in ("die", "hang"):
                self.state = "dead" if what == "die" else "hang"
                break
            if what == "decode":
                self.state, self.decoding = "hang", {os.fspath(job.source): 1e9}
                break
            self.results.append({"record": {"input": os.fspath(job.source)}})
        return self._answer(list(self.results))

    def _report(self, asked: dict[int, int]) -> Answer:
        own = [number for number in asked if number == self.group]
        answer = self._answer(
            [Report(one, self.results[asked[one] :], len(self.results) + 1, self.decoding) for one in own]
        )
        answer.ready = answer.ready or bool(self.decoding)  # reports come while a decoder hangs
        return answer


class Cluster:
    """Stands in for the module `ray`."""

    exceptions = SimpleNamespace(RayError=RayError, RayActorError=RayActorError)

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self.killed: list[int] = []
        self.openings: list[Any] = []
        self.groups: list[tuple[int, list[str], bool]] = []
        self.dead_nodes: set[str] = set()
        self.happens = lambda actor, name: ""

    def wait(self, answers: list[Answer], num_returns: int, timeout: float) -> tuple[list[Answer], list[Answer]]:
        return [one for one in answers if one.ready][:num_returns], []

    def get(self, answer: Answer) -> Any:
        if isinstance(answer.value, RayError):
            raise answer.value
        return answer.value

    def kill(self, actor: Actor) -> None:
        self.killed.append(actor.number)

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"NodeID": f"node {one.number}", "Alive": f"node {one.number}" not in self.dead_nodes}
            for one in self.actors
        ]


class Results:
    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.blamed: dict[str, str] = {}
        self.gone: list[str] = []

    def opened(self, worker: Introduction) -> None:
        pass

    def result(self, worker: Introduction, result: dict[str, Any]) -> None:
        self.count[result["record"]["input"]] += 1

    def blame(self, job: Job, reason: str) -> None:
        self.blamed[job.source.name] = reason

    def lost(self, worker: Introduction, groups: list[Group]) -> None:
        self.gone.append(worker.name)


def jobs(count: int) -> list[Job]:
    return [Job(Path(f"{number}"), Path(f"out/{number}")) for number in range(count)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(pool_module, "REPORT_SECONDS", 0.005)
    monkeypatch.setattr(pool_module, "_WAIT_SECONDS", 0.05)


def work(cluster: Cluster, count: int = 40, workers: int = 2) -> tuple[Results, Pool, list[str]]:
    results, events = Results(), []
    queue = Queue(jobs(count), count, workers)
    pool = Pool(
        cluster, lambda: Actor(cluster), workers, queue, results, events.append,
        depth=2, decode_seconds=100, silent_seconds=0.05,
    )  # fmt: skip
    pool.run()
    pool.close()
    return results, pool, events


def once(results: Results, count: int = 40) -> bool:
    every = results.count + Counter(list(results.blamed))
    return every == Counter(str(number) for number in range(count))


def test_every_image_has_one_result():
    results, pool, events = work(Cluster())
    assert once(results)
    assert (pool.stopped, events) == ("", [])


def test_a_worker_that_dies_is_replaced_and_its_images_go_on():
    cluster, died = Cluster(), []

    def happens(actor: Actor, name: str) -> str:
        if name in ("3", "20") and name not in died:
            died.append(name)
            return "die"
        return ""

    cluster.happens = happens
    results, pool, events = work(cluster)
    assert once(results)
    assert (results.blamed, pool.stopped) == ({}, "")
    assert len(events) == len(results.gone) == 2
    assert "died; another one takes its place" in events[0]
    # Their outputs may exist: those who take over are told so.
    assert all(again for _, names, again in cluster.groups[4:] if "3" in names)


def test_all_that_a_lost_worker_had_may_be_written_whatever_it_has_reported():
    cluster = Cluster()
    cluster.happens = lambda actor, name: "die" if actor.number == 0 else ""
    results, _, _ = work(cluster)
    assert once(results)
    had = {name for number, names, _ in cluster.groups if number == 0 for name in names}
    assert had
    assert all(again for number, names, again in cluster.groups if number and had & set(names))


def test_an_image_that_kills_its_workers_is_blamed_and_alone():
    cluster = Cluster()
    cluster.happens = lambda actor, name: "die" if name == "7" else ""
    results, pool, _ = work(cluster)
    assert once(results)
    assert results.blamed == {"7": f"{DEATHS_TO_BLAME} workers died, each alone with this file"}
    assert [names for _, names, _ in cluster.groups if "7" in names][-DEATHS_TO_BLAME:] == [["7"]] * DEATHS_TO_BLAME
    assert pool.stopped == ""


def test_a_lost_machine_puts_no_image_under_suspicion():
    cluster = Cluster()

    def happens(actor: Actor, name: str) -> str:
        if actor.number < 6 and name == "5":  # six machines, one after the other
            cluster.dead_nodes.add(f"node {actor.number}")
            return "die"
        return ""

    cluster.happens = happens
    results, _, _ = work(cluster)
    assert once(results)
    assert results.blamed == {}


def test_a_silent_worker_is_given_up():
    cluster = Cluster()
    cluster.happens = lambda actor, name: "hang" if actor.number == 0 else ""
    results, _, events = work(cluster)
    assert once(results)
    assert results.gone == ["worker 0"]
    assert cluster.killed[0] == 0
    assert "said nothing for 0 s" in events[0]


def test_a_decoder_that_takes_too_long_fails_its_image_alone():
    cluster = Cluster()
    cluster.happens = lambda actor, name: "decode" if name == "9" else ""
    results, _, _ = work(cluster)
    assert once(results)
    assert list(results.blamed) == ["9"]
    assert "--decode-timeout" in results.blamed["9"]


def test_a_worker_that_cannot_open_its_models_ends_the_run_before_anything_is_written():
    cluster = Cluster()
    cluster.openings = [RestoreError("no such model", where="--model")]
    with pytest.raises(RestoreError, match="no such model"):
        work(cluster)
    assert cluster.groups == []


@pytest.mark.parametrize(("error", "started"), [(RayError, 2), (RayActorError, 13)])
def test_workers_that_cannot_be_started_end_the_run(error, started):
    """One that fails is not tried again; one that dies may have been killed."""
    cluster = Cluster()
    cluster.openings = [error("no module named restore")] * 99
    with pytest.raises(RestoreError, match="no worker can be started: it died: no module named restore"):
        work(cluster)
    assert len(cluster.actors) == started


def test_workers_that_are_killed_while_they_open_are_replaced():
    cluster = Cluster()
    cluster.openings = [RayActorError("killed")] * 5
    results, _, events = work(cluster)
    assert once(results)
    assert events == ["a worker could not be started: it died: killed; another one takes its place"] * 5


def test_one_of_several_may_fail_to_open():
    cluster = Cluster()
    cluster.openings = [None, RestoreError("the disk is missing", where="host")]
    results, _, events = work(cluster)
    assert once(results)
    assert events == ["a worker cannot take part: host: the disk is missing"]


def test_another_version_does_not_take_part():
    cluster = Cluster()
    cluster.openings = [None, Introduction("other", "node", "m-1", "0.0.1", "x", None, {})]
    results, _, events = work(cluster)
    assert once(results)
    assert "has version 0.0.1 of restore" in events[0]


def test_workers_that_always_die_end_the_run():
    cluster = Cluster()
    cluster.happens = lambda actor, name: "die"
    _, pool, _ = work(cluster, count=1000)
    assert "workers died without a result between them" in pool.stopped
    assert len(cluster.actors) < 20


def test_a_cluster_without_room_is_not_waited_for_forever():
    cluster = Cluster()
    actor_open = Actor._open

    def never(self: Actor) -> Answer:
        return Answer(ready=False)

    Actor._open = never  # type: ignore[method-assign]
    try:
        _, pool, _ = work(cluster)
    finally:
        Actor._open = actor_open  # type: ignore[method-assign]
    assert "no worker found a place in the cluster" in pool.stopped


def test_a_stopped_pool_hands_out_nothing_more():
    cluster = Cluster()
    results, pools = Results(), []

    def happens(actor: Actor, name: str) -> str:
        pools[0].stop("enough")
        return ""

    cluster.happens = happens
    queue = Queue(jobs(100), 100, 1)
    pools.append(
        Pool(cluster, lambda: Actor(cluster), 1, queue, results, print, depth=2, decode_seconds=9, silent_seconds=9)
    )
    pools[0].run()
    assert 0 < sum(results.count.values()) < 20


def test_groups_grow_with_speed_and_shrink_towards_the_end():
    queue, sizes = Queue(jobs(5000), 5000, 2), []
    while group := queue.take():
        sizes.append(group.size)
        queue.took(group.size, 0.05 * group.size)  # 20 a second
    assert sizes[0] == FIRST_IMAGES
    assert max(sizes) == MOST_IMAGES
    assert sizes[-2] <= 20
    assert sum(sizes) == 5000
    assert queue.is_empty


def test_slow_images_go_alone():
    queue = Queue(jobs(50), 50, 2)
    queue.took(1, 60.0)
    assert queue.take().size == 1


@pytest.mark.parametrize(
    ("options", "cluster", "size"),
    [
        ({}, (8, 0), (7, 1)),
        ({}, (1, 0), (1, 1)),
        ({"cpus_per_worker": 4}, (16, 0), (3, 4)),
        ({"workers": 2}, (16, 0), (2, 1)),
        ({"gpus_per_worker": 1}, (32, 4), (4, 4)),
        ({"gpus_per_worker": 0.5}, (9, 2), (4, 2)),
        ({"gpus_per_worker": 1, "workers": 1, "cpus_per_worker": 8}, (32, 4), (1, 8)),
    ],
)
def test_one_processor_is_left_over(options, cluster, size):
    assert ClusterOptions(address="auto", **options).size(*cluster) == size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": ""}, "--ray: must not be empty"),
        ({"workers": 0}, "--ray-workers: must be an integer of at least 1"),
        ({"gpus_per_worker": 1.5}, "--gpus-per-worker: must be a fraction, or an integer"),
        ({"gpus_per_worker": float("inf")}, "--gpus-per-worker: must be a fraction, or an integer, not inf"),
        ({"gpus_per_worker": -1}, "--gpus-per-worker: must be a fraction, or an integer"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(RestoreError) as refused:
        ClusterOptions(**{"address": "auto", **options})
    assert message in str(refused.value)


def test_a_cluster_without_gpus_is_told():
    with pytest.raises(RestoreError, match="the cluster has 0 GPUs"):
        ClusterOptions(address="auto", gpus_per_worker=1).size(8, 0)
