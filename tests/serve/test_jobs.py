"""Jobs and their workers: order, limits, cancellation, crashes. The workers run tasks that load nothing."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from restore.serve.jobs import Job, Jobs, QueueFull, Stopping
from restore.serve.workers import devices_of
from tests.processes import alive, until


@pytest.fixture(scope="module")
def jobs() -> Iterator[Jobs]:
    jobs = Jobs(devices=["cpu"], decode_seconds=1.0, tasks="tests.serve.odd_tasks")
    yield jobs
    jobs.stop()


def done(job: Job) -> Job:
    assert job.wait_in_thread(30).is_finished
    return job


def echo(jobs: Jobs) -> Job:
    return done(jobs.submit("echo", {"say": "x"}))


def test_a_task_runs_in_another_process_and_its_result_comes_back(jobs: Jobs) -> None:
    job = echo(jobs)
    assert (job.state, job.progress, job.message) == ("done", 1.0, "echoing")
    assert job.result is not None
    assert job.result["said"] == "x"
    assert job.result["device"] == "cpu"
    assert job.result["pid"] != os.getpid()


def test_the_worker_stays_for_the_next_job(jobs: Jobs) -> None:
    first, second = echo(jobs).result, echo(jobs).result
    assert first == second


def test_a_crash_fails_one_job_and_the_next_runs_in_a_new_process(jobs: Jobs) -> None:
    before = echo(jobs).result
    job = done(jobs.submit("crash", {}))
    assert job.state == "failed"
    assert job.problem == {
        "detail": "the decoder crashed (SIGSEGV)", "code": "crashed", "where": None, "hint": None,
    }  # fmt: skip
    assert echo(jobs).result != before


def test_a_decoder_that_hangs_in_c_is_killed(jobs: Jobs) -> None:
    job = done(jobs.submit("hang_in_c", {"seconds": 20}))
    assert job.problem is not None
    assert job.problem["detail"] == "decoding took longer than 1 seconds"
    assert job.finished is not None
    assert job.started is not None
    assert job.finished - job.started < 10


def test_errors_keep_their_words(jobs: Jobs) -> None:
    known = done(jobs.submit("fail", {"known": True})).problem
    wrong = done(jobs.submit("fail", {"wrong": True})).problem
    unknown = done(jobs.submit("fail", {})).problem
    assert known == {"detail": "it is damaged", "code": "damaged", "where": None, "hint": None}
    assert wrong == {"detail": "must be even", "code": "bad_request", "where": "--tile", "hint": "use 2"}
    assert unknown is not None
    assert unknown["detail"] == "unexpected ValueError: odd"


def test_what_takes_long_is_told_to_the_operator_and_to_who_waits(jobs: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    job = jobs.submit("prepare", {"seconds": 0.5})
    until(lambda: job.message == "preparing photo for OpenVINO, once")
    done(job)
    assert caplog.messages == ["preparing photo for OpenVINO, once (kept in /home/someone)"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]  # these reach the terminal


def test_cancelling_interrupts_the_task_and_keeps_the_process(jobs: Jobs) -> None:
    before = echo(jobs).result
    job = jobs.submit("sleep", {"seconds": 60})
    until(lambda: job.message == "sleeping")
    job.cancel()
    assert done(job).state == "cancelled"
    assert echo(jobs).result == before


def test_higher_priority_goes_first_and_cancelled_jobs_never_run(jobs: Jobs) -> None:
    order: list[str] = []
    stop = jobs.listen(lambda job: order.append(job.about) if job.state == "running" else None)
    blocker = jobs.submit("sleep", {"seconds": 0.5}, about="first")
    until(lambda: blocker.state == "running")
    low = jobs.submit("echo", {"say": ""}, about="low")
    gone = jobs.submit("echo", {"say": ""}, about="gone")
    high = jobs.submit("echo", {"say": ""}, about="high", priority=10)
    gone.cancel()
    for job in (low, high, gone):
        done(job)
    stop()
    assert list(dict.fromkeys(order)) == ["first", "high", "low"]
    assert gone.state == "cancelled"


def test_only_counted_jobs_fill_the_queue() -> None:
    jobs = Jobs(devices=["cpu"], queue=2, tasks="tests.serve.odd_tasks")
    try:
        running = jobs.submit("sleep", {"seconds": 60})
        until(lambda: running.state == "running")
        for _ in range(5):
            jobs.submit("echo", {"say": ""})
        for _ in range(2):
            jobs.submit("echo", {"say": ""}, counted=True)
        with pytest.raises(QueueFull) as refused:
            jobs.submit("echo", {"say": ""}, counted=True)
        assert refused.value.retry_seconds >= 1
        assert jobs.queue_length() == 2
    finally:
        jobs.stop()
    assert running.state == "cancelled"
    with pytest.raises(Stopping):
        jobs.submit("echo", {"say": ""})


def test_stopping_waits_for_what_is_in_work_and_drops_what_waits() -> None:
    jobs = Jobs(devices=["cpu"], tasks="tests.serve.odd_tasks")
    running = jobs.submit("sleep", {"seconds": 0.5})
    waiting = jobs.submit("echo", {"say": ""})
    until(lambda: running.message == "sleeping")
    pids = jobs.live_workers()
    jobs.stop(30)
    assert (running.state, waiting.state) == ("done", "cancelled")
    until(lambda: not any(alive(pid) for pid in pids))


def test_a_counted_job_has_a_time_limit() -> None:
    jobs = Jobs(devices=["cpu"], job_seconds=1.0, tasks="tests.serve.odd_tasks")
    try:
        job = done(jobs.submit("sleep", {"seconds": 60}, counted=True))
    finally:
        jobs.stop()
    assert job.problem is not None
    assert job.problem["code"] == "late"


def test_coroutines_see_every_state_until_the_end(jobs: Jobs) -> None:
    async def states() -> list[str]:
        job = jobs.submit("sleep", {"seconds": 0.3})
        return [event["state"] async for event in job.events()]

    seen = asyncio.run(states())
    assert list(dict.fromkeys(seen)) == ["queued", "running", "done"] or seen[-2:] == ["running", "done"]


def together(jobs: Jobs, words: list[str]) -> list[Job]:
    """Jobs of one group that wait while another one runs, and one of another group among them."""
    blocker = jobs.submit("sleep", {"seconds": 0.5})
    until(lambda: blocker.state == "running")
    group = [jobs.submit("echo", {"say": word}, group="alike") for word in words]
    other = jobs.submit("echo", {"say": "other"}, group="unlike")
    for job in (*group, other):
        done(job)
    assert other.result is not None
    assert "together" not in other.result
    return group


def test_jobs_of_a_group_run_together_and_each_has_its_own_end(jobs: Jobs) -> None:
    a, failed, b = together(jobs, ["a", "fail", "b"])
    assert (a.result, b.result) == ({"said": "a", "together": True}, {"said": "b", "together": True})
    assert (failed.state, failed.problem and failed.problem["code"]) == ("failed", "damaged")


def test_jobs_of_a_group_that_crashes_are_each_tried_alone(jobs: Jobs) -> None:
    a, crash, b = together(jobs, ["a", "crash", "b"])
    assert [job.state for job in (a, crash, b)] == ["done", "done", "done"]  # alone, it only says so
    assert [job.result["said"] for job in (a, crash, b) if job.result] == ["a", "crash", "b"]
    assert "together" not in (a.result or {})


def test_a_job_of_a_group_can_be_cancelled_while_it_waits(jobs: Jobs) -> None:
    blocker = jobs.submit("sleep", {"seconds": 0.5})
    until(lambda: blocker.state == "running")
    kept, gone = (jobs.submit("echo", {"say": word}, group="alike") for word in "ab")
    gone.cancel()
    assert done(kept).result == {"said": "a", "pid": jobs.live_workers()[0], "device": "cpu"}
    assert gone.state == "cancelled"


def test_each_device_has_a_worker_of_its_own() -> None:
    jobs = Jobs(devices=["cpu", "cpu"], tasks="tests.serve.odd_tasks")
    try:
        both = [jobs.submit("sleep", {"seconds": 0.5}) for _ in range(2)]
        pids = {done(job).result["pid"] for job in both}  # type: ignore[index]
    finally:
        jobs.stop()
    assert len(pids) == 2
    assert devices_of("cuda:0, cuda:1") == ["cuda:0", "cuda:1"]
    assert devices_of("auto") == ["auto"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_die_with_a_server_that_is_killed() -> None:
    code = (
        "import time; from restore.serve.jobs import Jobs\n"
        "if __name__ == '__main__':\n"
        "    jobs = Jobs(devices=['cpu'], tasks='tests.serve.odd_tasks')\n"
        "    job = jobs.submit('echo', {'say': ''}).wait_in_thread(60)\n"
        "    jobs.submit('sleep', {'seconds': 60})\n"
        "    print(job.result['pid'], flush=True)\n"
        "    time.sleep(60)\n"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    worker = int(server.stdout.readline())
    assert alive(worker)
    server.kill()
    server.wait()
    until(lambda: not alive(worker), 20)


def test_the_server_process_loads_no_network_library() -> None:
    code = (
        "import sys, restore.serve.app, restore.serve.tasks\n"
        "print({'torch', 'cv2', 'pyvips', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
