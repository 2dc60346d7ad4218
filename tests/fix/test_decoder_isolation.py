"""Decoders that crash or hang, signals, and processes that are killed: the command line goes on or ends in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from restore import signals as interrupts
from restore.cli.main import app
from restore.fix.batch_options import MAX_PIXELS
from tests.fix.conftest import logged, photo, save, snapshot
from tests.processes import RUN, Nursery, alive, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the work is done where it is called")


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("told"))
    yield nursery
    nursery.close()


def folder(tmp_path: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        save(tmp_path / "in" / f"{name}.png", photo(12, 12, seed))
    return tmp_path / "in"


def records(log: Path) -> list[dict]:
    return logged(log)


def statuses(log: Path) -> dict[str, str]:
    return {Path(record["input"]).stem: record["status"] for record in records(log)}


def test_crashes_are_one_file_s_failure_each(nursery, tmp_path):
    source = folder(tmp_path, "a", "b_segv", "c", "d_abort", "e", "f_exit", "g_bus", "h", "i", "j_segv")
    (source / "k.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (source / "l.txt").write_text("no picture")
    done = nursery.run("fix", source, tmp_path / "out", "--log", tmp_path / "log")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(snapshot(tmp_path / "out")) == ["a.png", "c.png", "e.png", "h.png", "i.png"]
    assert Counter(Path(record["input"]).stem for record in records(tmp_path / "log")) == Counter(
        ["a", "b_segv", "c", "d_abort", "e", "f_exit", "g_bus", "h", "i", "j_segv", "k", "l"]
    )
    reasons = {Path(r["input"]).stem: r["reason"] for r in records(tmp_path / "log") if r["status"] == "failed"}
    for name, how in (("b_segv", "SIGSEGV"), ("d_abort", "SIGABRT"), ("f_exit", "exit 0"), ("g_bus", "SIGBUS")):
        assert reasons[name] == f"the decoder crashed ({how}); the run continued without this file"
    lines = done.stderr.splitlines()
    assert any(line.startswith("5 done, 1 skipped: not an image, 6 failed; ") for line in lines)
    failures = [Path(line.split(": ")[1]).stem for line in lines[-6:]]
    assert failures == ["b_segv", "d_abort", "f_exit", "g_bus", "j_segv", "k"]
    assert "terminated by SIGSEGV; restarting it" in done.stderr

    plain = folder(tmp_path / "plain", "a", "-", "c", "-", "e", "-", "-", "h", "i")
    assert nursery.run("fix", plain, tmp_path / "same", "--exclude", "-.png").returncode == 0
    assert snapshot(tmp_path / "same") == snapshot(tmp_path / "out")


def test_a_decoder_that_hangs_is_given_up(nursery, tmp_path):
    source = folder(tmp_path, "a", "b_hang", "c", "d_slow")
    done = nursery.run("fix", source, tmp_path / "out", "--log", tmp_path / "log", "--decode-timeout", 3)
    assert done.returncode == 1, done.stderr
    assert statuses(tmp_path / "log") == {"a": "done", "b_hang": "failed", "c": "done", "d_slow": "done"}
    assert "b_hang.png: decoding took longer than 3 seconds; raise --decode-timeout" in done.stderr


def test_limits_reach_the_readers_from_the_command_line(nursery, tmp_path):
    source = folder(tmp_path, "a", "b")
    (source / "b.png").write_bytes((source / "b.png").read_bytes()[:-60])
    small = nursery.run("fix", source, tmp_path / "out", "--max-pixels", 143, "--allow-truncated")
    assert small.returncode == 1
    assert small.stderr.count("12×12 is over the limit of 0.000143 megapixels") == 2
    strict = nursery.run("fix", source, tmp_path / "out", "--max-pixels", 144)
    assert "1 done, 1 failed" in strict.stderr
    lenient = nursery.run("fix", source, tmp_path / "out", "--allow-truncated", "--overwrite")
    assert lenient.returncode == 0
    assert "b.png: the file is damaged; decoded as far as possible" in lenient.stderr
    nonsense = nursery.run("fix", source, tmp_path / "out", "--max-pixels", 0)
    assert nonsense.returncode == 2


def test_the_command_line_s_limit_is_the_library_s():
    defaults = {parameter.name: parameter.default for parameter in typer.main.get_command(app).commands["fix"].params}
    assert defaults["max_pixels"] == MAX_PIXELS


def test_fail_fast_holds_over_starts(nursery, tmp_path):
    source = folder(tmp_path, "a_segv", "b", "c")
    done = nursery.run("fix", source, tmp_path / "out", "--fail-fast")
    assert done.returncode == 1
    assert "stopped: an image failed (--fail-fast)" in done.stderr


def test_a_single_picture_that_crashes(nursery, tmp_path):
    done = nursery.run("fix", folder(tmp_path, "a_segv") / "a_segv.png", tmp_path / "out.png")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("the decoder crashed (SIGSEGV); the run continued without this file")


def test_overwriting_and_skipping_mean_what_they_meant_at_the_first_start(nursery, tmp_path):
    source = folder(tmp_path, "a", "b", "c_segv")
    for name in ("a", "b"):
        save(tmp_path / f"out/{name}.png", photo(1, 1))
    skipped = nursery.run("fix", source, tmp_path / "out", "--skip-existing", "--log", tmp_path / "log")
    assert "0 done, 2 skipped: the output exists, 1 failed" in skipped.stderr
    refused = nursery.run("fix", source, tmp_path / "out")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    replaced = nursery.run("fix", source, tmp_path / "out", "--overwrite")
    assert "2 done, 1 failed" in replaced.stderr


def test_a_model_that_crashes_ends_the_run_instead_of_starting_for_ever(nursery, tmp_path):
    source = folder(tmp_path, *"abcdefgh")
    program = (
        "import restore.fix.stages as s\ns.run_steps = lambda *a, **k: signal.raise_signal(signal.SIGSEGV)\n" + RUN
    )
    done = nursery.run("fix", source, tmp_path / "out", "--log", tmp_path / "log", program=program)
    assert done.returncode == 1
    assert "3 failed, 5 not started" in done.stderr
    assert "not caused by the files" in done.stderr


def test_a_crash_that_is_no_file_s_is_told_and_ends_it(nursery, tmp_path):
    program = "import restore.fix.stages as stages\nstages.Stages = lambda *a: os.abort()\n" + RUN
    done = nursery.run("fix", folder(tmp_path, "a"), tmp_path / "out", program=program)
    assert done.returncode == 1
    assert "terminated by SIGABRT; no input file is implicated" in done.stderr


def test_the_system_that_kills_for_want_of_memory_is_told_from_a_person_who_does(nursery, tmp_path):
    source = folder(tmp_path, "a", "b_shot", "c")
    by_hand = nursery.run("fix", source, tmp_path / "out")
    assert by_hand.returncode == 128 + signal.SIGKILL
    assert "terminated by SIGKILL; run the same command with --skip-existing to continue" in by_hand.stderr
    program = "from itertools import count\nsupervise._times_out_of_memory = count().__next__\n" + RUN
    by_system = nursery.run("fix", source, tmp_path / "out", "--overwrite", program=program)
    assert by_system.returncode == 1
    assert "2 done, 1 failed" in by_system.stderr
    assert "b_shot.png: the decoder crashed (the system, out of memory)" in by_system.stderr


def test_the_waiting_process_has_loaded_nothing_heavy(tmp_path):
    program = """
import sys
from restore.cli import main as cli
from restore.fix import decoder_isolation as supervise
wait = supervise._Supervisor.wait
def waited(self, say):
    code = wait(self, say)
    print([name for name in ("torch", "numpy", "pyvips", "PIL", "rich") if name in sys.modules])
    return code
supervise._Supervisor.wait = waited
cli.main()
"""
    source = folder(tmp_path, "a") / "a.png"
    ran = subprocess.run([sys.executable, "-c", program, "fix", source, f"{tmp_path}/"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "[]\n"), ran.stderr


@pytest.mark.parametrize(
    ("number", "everybody"), [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGTERM, False)]
)
def test_signals_finish_what_is_being_written_and_say_how_to_go_on(nursery, tmp_path, number, everybody):
    source = folder(tmp_path, *(f"{index:02}_slow" for index in range(40)))
    arguments = ("fix", source, tmp_path / "out", "--log", tmp_path / "log")
    run = nursery.start(*arguments)
    until(lambda: len(list((tmp_path / "out").glob("*.png"))) > 2)
    # A terminal sends Ctrl-C to both processes, `kill` to one.
    (os.killpg if everybody else os.kill)(run.pid, number)
    assert run.wait().returncode == 130, run.stderr
    assert "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1] == "interrupted; resume with the same command and --skip-existing"
    written = snapshot(tmp_path / "out")
    assert all(name.endswith(".png") for name in written), "no temporary file is left"
    assert statuses(tmp_path / "log") == dict.fromkeys((Path(name).stem for name in written), "done")
    assert 2 < len(written) < 40
    again = nursery.run(*arguments, "--skip-existing")
    assert again.returncode == 0, again.stderr
    assert len(snapshot(tmp_path / "out")) == 40


def test_an_interrupt_is_not_lost_in_what_c_calls():
    ended = []

    def _log_handler_callback() -> None:  # as pyvips calls it
        signal.raise_signal(signal.SIGUSR1)
        ended.append(True)

    def call_and_wait() -> None:  # the interrupt may come as soon as the callback has returned
        _log_handler_callback()
        time.sleep(60)

    before = signal.signal(signal.SIGUSR1, interrupts.Interrupt(once=True))
    try:
        with pytest.raises(KeyboardInterrupt):
            call_and_wait()
        assert ended
        signal.raise_signal(signal.SIGUSR1)  # once is enough
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_interrupt_waits_for_what_is_to_be_finished():
    done = []

    def finish() -> None:
        with interrupts.defer_signals():
            signal.raise_signal(signal.SIGINT)
            done.append(1)
        done.append(2)

    with pytest.raises(KeyboardInterrupt):
        finish()
    assert done == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_asks_twice_does_not_wait(nursery, tmp_path):
    run = nursery.start("fix", folder(tmp_path, "a", "b_hang"), tmp_path / "out")
    until((tmp_path / "out" / "a.png").exists)
    os.kill(run.pid, signal.SIGINT)
    time.sleep(1.2)
    os.kill(run.pid, signal.SIGINT)
    assert run.wait().returncode == 130
    assert run.stderr.splitlines()[-1] == "stopped immediately; run the same command with --skip-existing to continue"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_work_begins(nursery, tmp_path, number):
    program = "def wait(*a, **k):\n    print('planning', flush=True)\n    time.sleep(60)\nplan.plan_fix = wait\n" + RUN
    run = nursery.start("fix", folder(tmp_path, "a"), tmp_path / "out", program=program)
    until(lambda: run.stdout == "planning\n")
    os.killpg(run.pid, number)
    assert run.wait().returncode == 130
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()


def test_kill_9_takes_both_processes(nursery, tmp_path):
    source = folder(tmp_path, *(f"{index:02}_slow" for index in range(60)))
    run = nursery.start("fix", source, tmp_path / "out")
    until(lambda: len(list((tmp_path / "out").glob("*.png"))) > 1)
    worker = run.worker()
    assert alive(worker)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait().returncode == -signal.SIGKILL
    until(lambda: not alive(worker), seconds=10)
    assert len(snapshot(tmp_path / "out")) < 60
