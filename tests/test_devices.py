"""Which devices and how many threads a machine is used with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from restore import devices
from restore.devices import limit_threads, pick_devices, usable_cpus
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
