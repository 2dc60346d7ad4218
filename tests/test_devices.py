"""Which devices and how many threads a machine is used with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from restore import devices
from restore.devices import (
    free_memory,
    free_ram,
    idle_cpus,
    installed_ram,
    is_out_of_memory,
    limit_threads,
    pick_devices,
    restored_cuda_flags,
    restored_threads,
    threads_for_load,
    usable_cpus,
)
from restore.errors import RestoreError


def test_several_devices_of_one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_devices("cpu") == [torch.device("cpu")]
    assert pick_devices("cpu,cpu") == [torch.device("cpu")] * 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [str(device) for device in pick_devices("cuda:2, cuda:0")] == ["cuda:2", "cuda:0"]
    assert [str(device) for device in pick_devices("cuda:all")] == ["cuda:0", "cuda:1", "cuda:2"]


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ("cuda:0,cuda:0", "cuda:0 is named twice"),
        ("cuda,cuda:0", "cuda:0 is named twice"),
        ("cuda:0,cpu", "only devices of one kind"),
        ("cuda:0,cuda:7", "3 CUDA device(s) found"),
        ("cuda:0,", "no such device"),
        ("gpu,cpu", "no such device"),
    ],
)
def test_devices_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch, wish: str, words: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    with pytest.raises(RestoreError) as caught:
        pick_devices(wish)
    assert caught.value.exit_code == 2
    assert words in str(caught.value)


def test_threads_heed_affinity_quota_and_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)), raising=False)
    monkeypatch.setattr(devices, "_cgroup_cpus", lambda root: None)
    assert usable_cpus() == 12
    monkeypatch.setattr(devices, "_cgroup_cpus", lambda root: 2.5)
    assert usable_cpus() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")
    assert usable_cpus() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert usable_cpus() == 3


def test_quotas_of_both_kinds_of_control_groups(tmp_path: Path) -> None:
    assert devices._cgroup_cpus(tmp_path) is None
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert devices._cgroup_cpus(tmp_path) is None
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("150000\n")
    assert devices._cgroup_cpus(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert devices._cgroup_cpus(tmp_path) is None
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert devices._cgroup_cpus(tmp_path) == 0.5


def test_the_network_gets_no_more_threads_than_there_are_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        monkeypatch.setattr(devices, "usable_cpus", lambda: 3)
        limit_threads()
        assert torch.get_num_threads() == 3
        monkeypatch.setattr(devices, "usable_cpus", lambda: 8)
        limit_threads()
        assert torch.get_num_threads() == 3, "what the user has set lower stays"
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("most", "idle", "threads"),
    [
        (2, 2.0, 2),
        (2, 1.6, 2),
        (2, 1.1, 1),
        (2, 0.0, 1),
        (1, 0.0, 1),
        (8, 5.2, 5),
        (8, 0.3, 4),
        (8, 14.0, 8),
        (8, None, 8),
    ],
)
def test_training_takes_idle_processors_and_at_least_half(
    monkeypatch: pytest.MonkeyPatch, most: int, idle: float | None, threads: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(devices, "usable_cpus", lambda: most)
    monkeypatch.setattr(devices, "idle_cpus", lambda: idle)
    with restored_threads():
        torch.set_num_threads(8)
        assert threads_for_load() == threads
        monkeypatch.setenv("OMP_NUM_THREADS", str(most))
        assert threads_for_load() == most, "what the user has set wins"
        torch.set_num_threads(1)
        assert threads_for_load() == 1, "what the user has set lower stays"


def test_idle_processors_are_those_of_the_affinity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "stat"
    ticks = os.sysconf("SC_CLK_TCK")

    def write(*rows: tuple[int, int]) -> None:
        lines = [
            f"cpu{number} 900 50 {70 + idle} {idle} {waiting} 4 4 4 0 0" for number, (idle, waiting) in enumerate(rows)
        ]
        file.write_text("\n".join(["cpu  1 2 3 999999 5 6 7 8 0 0", *lines, "intr 12345", "cpus 3"]) + "\n")

    clock = iter([10.0, 10.5, 11.0, 11.5, 12.0])
    monkeypatch.setattr(devices, "_STAT", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2}, raising=False)
    monkeypatch.setattr(devices.time, "perf_counter", lambda: next(clock))
    write((1000, 10), (0, 0), (2000, 0))
    # The first was idle for all of the half second, or waited for a disk; the third for a fifth of it.
    later = [(1000 + ticks // 4, 10 + ticks // 4), (5000, 0), (2000 + ticks // 10, 0)]
    monkeypatch.setattr(devices.time, "sleep", lambda seconds: write(*later))
    # In a second window, none is idle.
    assert idle_cpus(windows=2) == pytest.approx(1.2)
    monkeypatch.setattr(devices, "_STAT", tmp_path / "none")
    monkeypatch.undo()
    monkeypatch.setattr(devices, "_STAT", tmp_path / "none")
    assert idle_cpus() is None


GIB = 2**30


def machine(monkeypatch: pytest.MonkeyPatch, root: Path, *, available: int, files: dict[str, str]) -> None:
    """A machine with so much memory available, whose control group has these files."""
    (root / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available // 1024} kB\n")
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(devices, "_MEMINFO", root / "meminfo")
    monkeypatch.setattr(devices, "_CGROUP", root)


def test_free_memory_is_that_of_the_container_with_its_page_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(monkeypatch, tmp_path, available=64 * GIB, files={})
    assert free_ram() == free_memory("cpu") == 64 * GIB
    files = {
        "memory.max": f"{8 * GIB}\n",
        "memory.current": f"{7 * GIB}\n",
        "memory.stat": f"anon 1\ninactive_file {3 * GIB}\n",
    }
    machine(monkeypatch, tmp_path, available=64 * GIB, files=files)
    assert (free_ram(), installed_ram()) == (4 * GIB, min(8 * GIB, installed_ram()))
    machine(monkeypatch, tmp_path, available=2 * GIB, files={})
    assert free_ram() == 2 * GIB
    machine(monkeypatch, tmp_path, available=2 * GIB, files={"memory.max": "max\n"})
    assert free_ram() == 2 * GIB


def test_free_memory_heeds_the_older_control_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": f"{8 * GIB}\n",
        "memory/memory.usage_in_bytes": f"{7 * GIB}\n",
        "memory/memory.stat": f"cache 1\ninactive_file 5\ntotal_inactive_file {GIB}\n",
    }
    machine(monkeypatch, tmp_path, available=64 * GIB, files=files)
    assert free_ram() == 2 * GIB


def test_free_memory_of_this_machine_is_a_number_of_bytes() -> None:
    assert 2**20 < free_ram() < 2**46
    assert 2**20 < installed_ram() < 2**46


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("could not create a primitive: not enough memory"), True),
        (RuntimeError("expected 4 channels"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_that_mean_out_of_memory(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_cuda_flags_are_restored() -> None:
    before = torch.backends.cudnn.allow_tf32

    @restored_cuda_flags()
    def change() -> None:
        torch.backends.cudnn.allow_tf32 = not before

    change()
    assert torch.backends.cudnn.allow_tf32 == before
