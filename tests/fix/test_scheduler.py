"""Company changes nothing: pictures in groups, on several devices, many at once come out as alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from restore.fix.batches import goes_whole, places
from restore.fix.scheduler import _Flow, stream
from restore.restorers.base import ModelRequirements
from restore.restorers.registry import open_restorers
from tests.fix.conftest import Filler, Inverter, fix_with, hole, load, logged, photo, save, snapshot


class Grouped(Inverter):
    """Takes four pictures of 8×8 at once, and notes how many came and how many were different."""

    max_batch_pixels = 256

    def __init__(self):
        super().__init__()
        self.batches, self.threads = [], set()

    def _restore(self, image, mask):
        self.batches.append((len(image), len({one.numpy().tobytes() for one in image})))
        self.threads.add(threading.current_thread().name)
        return super()._restore(image, mask)


class GroupedFiller(Grouped):
    requirements = ModelRequirements(needs_mask=True)

    def _restore(self, image, mask):
        super()._restore(image, mask)
        return image.new_ones(image.shape)


@pytest.fixture
def crowd(tmp_path):
    """Ten of 8×8, three of 9×8, one that is broken, one too large for company."""
    for number in range(10):
        save(tmp_path / f"in/{number}.png", photo(8, 8, number))
    for number in range(3):
        save(tmp_path / f"in/4{number}.png", photo(9, 8, number))
    (tmp_path / "in/6_broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    save(tmp_path / "in/99.png", photo(30, 40))
    return tmp_path / "in"


def read_everything_first(monkeypatch):
    """Groups are of what has been read; here the network waits for the readers, so that they are full."""
    take = _Flow._take

    def patient(self, network):
        with self._lock:
            self._read_ahead()
        while any(not read.done() for read in list(self._reads)):
            time.sleep(0.001)
        return take(self, network)

    monkeypatch.setattr(_Flow, "_take", patient)


def test_equal_small_pictures_go_together_and_come_out_as_alone(crowd, tmp_path, monkeypatch):
    read_everything_first(monkeypatch)
    alone, together = Inverter(), Grouped()
    fix_with(crowd, tmp_path / "alone", alone)
    summary = fix_with(crowd, tmp_path / "together", together, log=tmp_path / "log")
    assert snapshot(tmp_path / "alone") == snapshot(tmp_path / "together")
    assert (summary.done, len(summary.failed)) == (14, 1)
    assert len(together.batches) < len(alone.calls)
    assert max(different for _, different in together.batches) == 4
    # What goes in groups does so in groups of one size, also alone: the same kernels, hence the same rounding.
    assert {count for count, _ in together.batches} == {1, 3, 4}
    assert sorted(line["input"] for line in logged(tmp_path / "log")) == sorted(str(path) for path in crowd.iterdir())


def test_holes_go_together_too(tmp_path, monkeypatch):
    read_everything_first(monkeypatch)
    for number in range(6):
        save(tmp_path / f"in/{number}.png", photo(8, 8, number))
        save(tmp_path / f"masks/{number}.png", hole(8, 8, (number, 2, number + 2, 5)))
    save(tmp_path / "masks/3.png", hole(8, 8))  # nothing to repair: copied
    restorer = GroupedFiller()
    told = {"masks": tmp_path / "masks", "provenance": False}  # which would tell them apart by name
    fix_with(tmp_path / "in", tmp_path / "alone", Filler(), **told)
    summary = fix_with(tmp_path / "in", tmp_path / "together", restorer, **told)
    assert snapshot(tmp_path / "alone") == snapshot(tmp_path / "together")
    assert (summary.done, summary.copied) == (6, 1)
    assert max(different for _, different in restorer.batches) > 1


def test_one_that_fails_in_company_fails_alone(tmp_path, monkeypatch):
    read_everything_first(monkeypatch)

    class Touchy(Grouped):
        def _restore(self, image, mask):
            if len(image) > 1 and any(float(one.mean()) > 0.9 for one in image):
                raise RuntimeError("out of memory")
            out = super()._restore(image, mask)
            return torch.where(image.mean((1, 2, 3), keepdim=True) < 0.01, torch.nan, out)

    for number in range(4):
        save(tmp_path / f"in/{number}.png", photo(8, 8, number))
    save(tmp_path / "in/4_black.png", np.zeros((8, 8, 3), np.uint8))
    summary = fix_with(tmp_path / "in", tmp_path / "out", Touchy())
    assert [(failure.path.name, "NaN or Inf" in failure.reason) for failure in summary.failed] == [
        ("4_black.png", True)
    ]
    assert summary.done == 4
    save(tmp_path / "in/4_black.png", np.full((8, 8, 3), 255, np.uint8))
    summary = fix_with(tmp_path / "in", tmp_path / "out", Touchy(), overwrite=True)
    assert (summary.done, summary.failed) == (5, [])
    np.testing.assert_array_equal(load(tmp_path / "out/4_black.png"), 0)


def test_the_places_are_a_matter_of_size_alone():
    assert [places(Grouped(), *size, 0) for size in ((8, 8), (9, 8), (16, 8), (16, 9), (300, 300))] == [4, 3, 2, 1, 1]
    assert places(Inverter(), 1, 1, 0) == 1
    assert places(Grouped(), 8, 8, 4) == 1, "tiled"
    far_apart = np.zeros((8, 2000), np.float32)
    far_apart[:, 0] = far_apart[:, -1] = 1
    assert not goes_whole(Filler(), far_apart)
    assert goes_whole(Filler(), far_apart[:, :100])


def test_several_devices_share_a_folder_and_nothing_else_changes(crowd, tmp_path):
    class Slow(Inverter):
        def _restore(self, image, mask):
            time.sleep(0.01)  # so that none does all of it
            return super()._restore(image, mask)

    fix_with(crowd, tmp_path / "one", Inverter(), log=tmp_path / "one.jsonl")
    several = [Slow(), Slow(), Slow()]
    summary = fix_with(crowd, tmp_path / "several", several, log=tmp_path / "several.jsonl")
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "several")
    assert (summary.done, len(summary.failed), summary.exit_code) == (14, 1, 1)
    assert all(restorer.calls for restorer in several)
    assert sum(len(restorer.calls) for restorer in several) == 14

    def entries(log):
        known = logged(tmp_path / log)
        for entry in known:
            entry.update(seconds=0, time="", run="", output=entry["output"].rpartition("/")[2])
        return sorted(known, key=lambda entry: entry["input"])

    one, many = entries("one.jsonl"), entries("several.jsonl")
    assert {entry["settings"].pop("device") for entry in many} == {"cpu,cpu,cpu"}
    assert {entry["settings"].pop("log") for entry in many} == {str(tmp_path / "several.jsonl")}
    assert {entry["settings"].pop("device") for entry in one} == {"cpu"}
    assert {entry["settings"].pop("log") for entry in one} == {str(tmp_path / "one.jsonl")}
    assert one == many


def test_trained_networks_side_by_side_give_the_same_bits(tmp_path):
    for number in range(4):
        save(tmp_path / f"in/{number}.png", photo(24, 40, number))
    fix_with(tmp_path / "in", tmp_path / "one", open_restorers("photo", device="cpu", precision="fp32"))
    fix_with(tmp_path / "in", tmp_path / "two", open_restorers("photo", device="cpu,cpu", precision="fp32"))
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
    assert torch.get_num_threads() == 1, "as it was"


def test_ctrl_c_and_fail_fast_end_several_networks(tmp_path):
    for number in range(12):
        save(tmp_path / f"in/{number:02}.png", photo(30, 30, number))

    class Interrupted(Inverter):
        def _restore(self, image, mask):
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super()._restore(image, mask)

    summary = fix_with(tmp_path / "in", tmp_path / "out", [Interrupted(), Interrupted()])
    assert summary.exit_code == 130
    assert 2 <= summary.done < 12
    assert summary.done == len(list((tmp_path / "out").iterdir()))
    (tmp_path / "in/00.png").write_bytes(b"\xff\xd8\xff broken")
    summary = fix_with(tmp_path / "in", tmp_path / "fast", [Inverter(), Inverter()], fail_fast=True)
    assert (len(summary.failed), summary.exit_code) == (1, 1)
    assert summary.not_started > 0


def test_what_the_progress_display_raises_is_not_lost_with_several(tmp_path):
    save(tmp_path / "in/0.png", photo(8, 8))

    def broken(record, done, total):
        raise ZeroDivisionError

    for restorers in ([Inverter()], [Inverter(), Inverter()]):
        with pytest.raises(ZeroDivisionError):
            fix_with(tmp_path / "in", tmp_path / "out", restorers, progress=broken, overwrite=True)


def test_reading_ahead_stops_where_pictures_are_large(tmp_path):
    """Small ones may wait in numbers; of larger ones no more than before there were groups."""
    waited = {}
    for name, side, count in (("small", 8, 40), ("large", 1100, 7)):
        flat = np.full((side, side), 128, np.uint8)
        for number in range(count):
            save(tmp_path / name / f"{number}.png", flat, compress_level=1)
        most = 0
        original = _Flow._take

        def counting(self, network, original=original):
            nonlocal most
            wait(self._reads)  # reading is as far ahead as it may be, however slow the machine is
            group = original(self, network)
            most = max(most, len(self._reads))
            return group

        _Flow._take = counting
        try:
            fix_with(tmp_path / name, tmp_path / f"{name}_out", Inverter())
        finally:
            _Flow._take = original
        waited[name] = most
    assert waited["small"] > 8
    assert waited["large"] <= 4


def test_reading_pauses_while_the_waiting_images_would_fill_memory():
    """Two of 30 megapixels are over the limit together, though four images may wait by number."""

    class Large:
        networks, loaded, taken = 1, 0, 0

        def __init__(self):
            self.reader, self.writer, self.waiting = self, self, []

        def load(self, job):
            self.loaded += 1
            return SimpleNamespace(pixels=30_000_000)

        def room_for(self, item):
            return 1

        def repair_group(self, group, network):
            self.taken += len(group)
            time.sleep(0.02)  # long enough for the reader to read as far ahead as it may
            self.waiting.append(self.loaded - self.taken)
            return group

        def save(self, item):
            pass

    stages = Large()
    stream(range(12), stages, SimpleNamespace(summary=SimpleNamespace(stopped="")))
    assert stages.taken == 12
    in_the_middle = stages.waiting[2:-5]
    assert min(in_the_middle) <= 2
