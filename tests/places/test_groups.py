"""Groups of files: objects come whole, outputs go whole, nothing is overwritten unasked."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from restore.files import process_id
from restore.fix.decoder_isolation import SupervisorLink, SupervisorState
from restore.fix.options import DetectOptions, FixOptions
from restore.fix.plan import plan_fix
from restore.fix.run import run_fix
from restore.fix.run_models import open_models
from restore.packed import Packed
from restore.places.groups import GroupFile, StagedGroup, detect_group, repair_group, repairing
from tests.places.conftest import image_bytes, mask_bytes, write

OPTIONS = FixOptions(masks="masks", device="cpu")


@pytest.fixture(scope="module")
def models() -> Any:
    return open_models("telea", OPTIONS)


def put(memory: Any, **objects: bytes) -> None:
    for name, data in objects.items():
        memory.pipe_file(f"/b/{name.replace('__', '/')}", data)


def test_a_group_survives_pickling() -> None:
    group = [GroupFile("s3://a/x.png", "s3://b/x.png", None), ("a.png", "b.png")]
    assert pickle.loads(pickle.dumps(group)) == group  # noqa: S301


def test_outputs_have_the_bytes_of_a_local_run(memory: Any, models: Any, tmp_path: Path) -> None:
    for seed, name in enumerate(("x.png", "y.jpg")):
        data = image_bytes(seed, Path(name).suffix)
        write(tmp_path / "in" / name, data)
        write(tmp_path / "masks" / f"{name}.png", mask_bytes())
        memory.pipe_file(f"/b/in/{name}", data)
        memory.pipe_file(f"/b/masks/{name}.png", mask_bytes())
    local = FixOptions(masks=tmp_path / "masks", device="cpu")
    run_fix(plan_fix(tmp_path / "in", tmp_path / "out", local), models, local)
    group = [(f"memory://b/in/{n}", f"memory://b/out/{n}", f"memory://b/masks/{n}.png") for n in ("x.png", "y.jpg")]
    options = FixOptions(masks="memory://b/masks", device="cpu", log="any")
    records = repair_group(group, models, options)
    assert [(r.input, r.output, r.status, r.reason) for r in records] == [(i, o, "done", "") for i, o, _ in group]
    assert all(r.input_sha256 and r.output_sha256 and r.width == 48 for r in records)
    for name in ("x.png", "y.jpg"):
        assert memory.cat_file(f"/b/out/{name}") == (tmp_path / "out" / name).read_bytes()


def test_paths_and_urls_mix(memory: Any, models: Any, tmp_path: Path) -> None:
    write(tmp_path / "x.png", image_bytes())
    put(memory, mask=mask_bytes())
    group = [
        (str(tmp_path / "x.png"), "memory://b/o/x.png", "memory://b/mask"),
        (str(tmp_path / "x.png"), str(tmp_path / "o" / "x.png"), None),
    ]
    options = FixOptions(masks="memory://b/masks", mask_missing="copy", device="cpu")
    first = repair_group(group[:1], models, options)
    second = repair_group(group[1:], models, options)
    assert [record.status for record in first + second] == ["done", "done"]
    assert memory.exists("/b/o/x.png")
    assert (tmp_path / "o" / "x.png").read_bytes() == image_bytes()


def test_what_exists_stays(memory: Any, models: Any) -> None:
    put(memory, x=image_bytes(), m=mask_bytes(), o__x=b"mine")
    group = [("memory://b/x", "memory://b/o/x", "memory://b/m")]
    (failed,) = repair_group(group, models, OPTIONS)
    assert (failed.status, failed.reason_code) == ("failed", "output_exists")
    assert "--overwrite" in failed.reason
    (skipped,) = repair_group(group, models, FixOptions(masks="m", skip_existing=True))
    assert (skipped.status, skipped.reason_code) == ("skipped", "output_exists")
    assert memory.cat_file("/b/o/x") == b"mine"
    (done,) = repair_group(group, models, FixOptions(masks="m", overwrite=True))
    assert done.status == "done"
    assert memory.cat_file("/b/o/x")[:4] == b"\x89PNG"


def test_one_bad_file_does_not_harm_the_others(memory: Any, models: Any) -> None:
    put(memory, x=image_bytes(), m=mask_bytes(), note=b"words", **{"bad.png": image_bytes()[:60]})
    group = [
        ("memory://b/gone.png", "memory://b/o/gone.png", "memory://b/m"),
        ("memory://b/x", "memory://b/o/x", "memory://b/gone-mask"),
        ("memory://b/note", "memory://b/o/note", "memory://b/m"),
        ("memory://b/bad.png", "memory://b/o/bad.png", "memory://b/m"),
        ("memory://b/x", "memory://b/o/y", "memory://b/m"),
    ]
    records = repair_group(group, models, OPTIONS)
    assert [(r.status, r.reason_code) for r in records] == [
        ("failed", "not_found"), ("failed", "not_found"), ("skipped", "not_an_image"), ("failed", "damaged"),
        ("done", ""),
    ]  # fmt: skip
    assert records[0].reason == "vanished during the run"
    assert records[1].reason == "memory://b/gone-mask: vanished during the run"
    assert memory.ls("/b/o", detail=False) == ["/b/o/y"]


def test_one_file_has_two_outputs(memory: Any, models: Any, tmp_path: Path) -> None:
    write(tmp_path / "x.png", image_bytes())
    group = [(str(tmp_path / "x.png"), f"memory://b/o/{name}.png", None) for name in "yz"]
    options = FixOptions(masks="memory://b/masks", mask_missing="copy", device="cpu")
    assert [record.output for record in repair_group(group, models, options)] == [output for _, output, _ in group]
    assert memory.exists("/b/o/y.png")
    assert memory.exists("/b/o/z.png")


def test_a_group_that_is_started_again_repairs_what_is_not_done(memory: Any, models: Any, tmp_path: Path) -> None:
    """`x` and `y` were done, and `z` was written but not recorded; then `x` vanishes from the store."""
    put(memory, m=mask_bytes(), **{f"{name}.png": image_bytes() for name in "xyz"})
    group = [(f"memory://b/{name}.png", f"memory://b/o/{name}.png", "memory://b/m") for name in "xyz"]
    options = FixOptions(masks="memory://b/masks", device="cpu")
    results: list[Any] = []

    class Link(SupervisorLink):
        def end(self, name: str, result: Any) -> None:
            results.append(result)

    def start(link: SupervisorLink) -> StagedGroup:
        staged = StagedGroup(group, tmp_path / "group", options)
        staged.fetch(pool)
        assert staged.has_work
        staged.carry_out(repairing(models), link)
        return staged

    with ThreadPoolExecutor(2) as pool:
        start(Link())
        done = [result for result in results if not result["record"]["input"].endswith("z.png")]
        memory.rm_file("/b/x.png")
        past = SupervisorState(plan=b"kept", ended=Packed(map(json.dumps, done)))
        outcomes = start(SupervisorLink(past)).deliver(pool)
    assert [outcome.record.status for outcome in outcomes] == ["failed", "done", "done"]
    assert [memory.exists(f"/b/o/{name}.png") for name in "xyz"] == [False, True, True]


@pytest.mark.parametrize("where", ["memory://b/o", "path"])
def test_a_group_that_is_repaired_again_keeps_what_another_program_wrote(
    memory: Any, models: Any, tmp_path: Path, where: str
) -> None:
    """`x` was written by the group itself before it crashed, and `y` by another program since."""
    put(memory, m=mask_bytes(), **{"x.png": image_bytes(), "y.png": image_bytes(1)})
    out = str(tmp_path / "o") if where == "path" else where
    group = [(f"memory://b/{name}.png", f"{out}/{name}.png", "memory://b/m") for name in "xy"]
    (first,) = repair_group(group[:1], models, OPTIONS)
    if where == "path":
        write(tmp_path / "o/y.png", b"theirs")
    else:
        memory.pipe_file("/b/o/y.png", b"theirs")
    link = SupervisorLink(SupervisorState(plan=b"kept"))
    done, other = repair_group(group, models, OPTIONS, link=link)
    assert (first.status, done.status) == ("done", "done")
    assert (other.status, other.reason_code) == ("failed", "output_exists")
    assert "appeared during the run and was not overwritten" in other.reason
    here = (tmp_path / "o/y.png").read_bytes() if where == "path" else memory.cat_file("/b/o/y.png")
    assert here == b"theirs"
    (skipped,) = repair_group(group[1:], models, FixOptions(masks="m", skip_existing=True, device="cpu"), link=link)
    assert (skipped.status, skipped.reason_code) == ("skipped", "output_exists")


def test_files_of_this_machine_are_written_whole_with_their_times(memory: Any, models: Any, tmp_path: Path) -> None:
    put(memory, m=mask_bytes(), **{"x.png": image_bytes()})
    leftover = write(tmp_path / "o" / f".restore-{process_id()}0-123456789abc.tmp", b"half")
    (record,) = repair_group([("memory://b/x.png", str(tmp_path / "o/x.png"), "memory://b/m")], models, OPTIONS)
    assert (record.status, record.output) == ("done", str(tmp_path / "o/x.png"))
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["x.png"], leftover
    (tmp_path / "o/y.png").mkdir()
    group = [("memory://b/x.png", str(tmp_path / "o/y.png"), "memory://b/m")]
    (refused,) = repair_group(group, models, FixOptions(masks="m", overwrite=True, device="cpu"))
    assert (refused.status, refused.reason_code) == ("failed", "io_error")
    assert "a folder with this name exists" in refused.reason


def test_a_bad_mask_is_named_by_its_place(memory: Any, models: Any) -> None:
    put(memory, x=image_bytes(), m=b"no mask")
    (record,) = repair_group([("memory://b/x", "memory://b/o/x", "memory://b/m")], models, OPTIONS)
    assert record.reason_code == "bad_mask"
    assert record.reason.startswith("memory://b/m: ")


def test_sidecars_and_saved_masks_go_along(memory: Any, models: Any) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></x:xmpmeta>'
    put(memory, m=mask_bytes(), **{"x.png": image_bytes(), "x.xmp": xmp})
    file = GroupFile(
        "memory://b/x.png", "memory://b/o/x.png", "memory://b/m",
        side_output="memory://b/used/x.png", sidecars=(("memory://b/x.xmp", "memory://b/o/x.xmp"),),
    )  # fmt: skip
    (record,) = repair_group([file], models, OPTIONS)
    assert record.status == "done"
    assert memory.cat_file("/b/o/x.xmp") == xmp
    used = cv2.imdecode(np.frombuffer(memory.cat_file("/b/used/x.png"), np.uint8), cv2.IMREAD_UNCHANGED)
    assert used.any()


def test_names_of_all_kinds(memory: Any, models: Any) -> None:
    names = ["-x y.png", "50%20off.png", "ünï 日本.png", "a?b#c.png", "q" * 230 + ".png", "back\\slash.png", "*.png"]
    for name in names:
        memory.pipe_file(f"/b/in/{name}", image_bytes())
    put(memory, m=mask_bytes())
    group = [(f"memory://b/in/{name}", f"memory://b/o/{name}", "memory://b/m") for name in names]
    assert {record.status for record in repair_group(group, models, OPTIONS)} == {"done"}
    assert sorted(memory.find("/b/o")) == sorted(f"/b/o/{name}" for name in names)


def test_damage_is_detected_in_groups(memory: Any) -> None:
    from restore.restorers.detector import open_detector

    put(memory, **{"x.png": image_bytes()})
    detector = open_detector("detector", device="cpu")
    group = [GroupFile("memory://b/x.png", "memory://b/o/x_mask.png", side_output="memory://b/p/x.jpg")]
    (record,) = detect_group(group, detector, DetectOptions(device="cpu", preview="memory://b/p"))
    assert (record.status, record.reason) == ("done", "")
    mask = cv2.imdecode(np.frombuffer(memory.cat_file("/b/o/x_mask.png"), np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (32, 48)
    assert memory.exists("/b/p/x.jpg")


def test_old_photos_without_masks_stay_without(memory: Any) -> None:
    put(memory, x=image_bytes())
    options = FixOptions(old_photos=True, masks="none", device="cpu")
    (record,) = repair_group([("memory://b/x", "memory://b/o/x", None)], open_models("tv", options), options)
    assert (record.status, record.reason, list(record.models)) == ("done", "", ["tv"])
