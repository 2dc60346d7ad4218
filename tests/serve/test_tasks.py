"""The tasks of a worker, in this process: the same bytes as the command line's, and why a task failed."""

from __future__ import annotations

from collections import OrderedDict
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restore.engines.choice import is_installed
from restore.errors import RestoreError
from restore.fix.options import FixOptions
from restore.fix.run import fix_folder
from restore.images import write_png
from restore.restorers.detector import ENSEMBLE
from restore.serve.tasks import TASKS
from restore.serve.workers import Report, TaskFailed


def run(task: str, params: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    ours, theirs = Pipe()
    result = TASKS[task](params, Report(theirs, "cpu", 60.0))
    told = []
    while ours.poll():
        told.append(ours.recv())
    return result, told


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    write_png(tmp_path / "x.png", noise)
    mask = np.zeros((64, 96), np.uint8)
    mask[20:30, 40:60] = 255
    write_png(tmp_path / "mask.png", mask)
    return tmp_path / "x.png"


def test_a_repair_has_the_bytes_of_fix(photo: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    fix_folder(photo, tmp_path / "by_fix.png", "telea", options=FixOptions(masks=mask, device="cpu"))
    params = {"input": str(photo), "output": str(tmp_path / "out.png"), "mask": str(mask), "model": "telea"}
    result, told = run("fix", params)
    assert (tmp_path / "out.png").read_bytes() == (tmp_path / "by_fix.png").read_bytes()
    assert result["output"] == str(tmp_path / "out.png")
    assert (result["width"], result["height"], result["model"], result["warnings"]) == (96, 64, "telea", [])
    assert result["steps"] == ["fill_holes"]
    kinds = [kind for kind, _ in told]
    assert "progress" in kinds
    assert kinds.count("decoding") % 2 == 0
    assert "decoding" in kinds


def test_a_task_says_how_far_it_is_within_an_image(photo: Path, tmp_path: Path) -> None:
    """Small images are searched in several views, each on the levels of a pyramid."""
    _, told = run("detect", {"input": str(photo), "output": str(tmp_path / "found.png")})
    shares = [fraction for kind, what in told if kind == "progress" for fraction in [what[0]] if fraction is not None]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1
    for view in range(1, len(ENSEMBLE)):
        assert min(abs(share - view / len(ENSEMBLE)) for share in shares) < 1e-9
    assert len(shares) > len(ENSEMBLE) + 1


def test_images_that_are_repaired_together_have_the_same_bytes_and_fail_alone(photo: Path, tmp_path: Path) -> None:
    items = []
    for number, data in enumerate((photo.read_bytes(), b"no image", photo.read_bytes()[:2000], photo.read_bytes())):
        folder = tmp_path / str(number)
        (folder / "out").mkdir(parents=True)
        (folder / "image.png").write_bytes(data)
        (folder / "mask.png").write_bytes((tmp_path / "mask.png").read_bytes())
        names = {"input": str(folder / "image.png"), "mask": str(folder / "mask.png"), "output": f"{folder / 'out'}/"}
        items.append(names | {"model": "telea", "options": {"mask_dilate": 1}})
    mask = tmp_path / "mask.png"
    fix_folder(photo, tmp_path / "by_fix.png", "telea", options=FixOptions(masks=mask, mask_dilate=1, device="cpu"))
    ended = run("fix_together", {"items": items})[0]["items"]
    codes = [one["problem"] and one["problem"]["code"] for one in ended]
    assert codes == [None, "not_an_image", "damaged", None]
    for number in (0, 3):
        assert ended[number]["result"]["output"] == str(tmp_path / str(number) / "out" / "image.png")
        assert Path(ended[number]["result"]["output"]).read_bytes() == (tmp_path / "by_fix.png").read_bytes()


def test_an_image_that_fails_says_why_and_for_programs(tmp_path: Path, photo: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:2000])
    with pytest.raises(TaskFailed) as error:
        run(
            "fix",
            {
                "input": str(broken),
                "output": str(tmp_path / "out.png"),
                "options": {"masks": "alpha"},
                "model": "telea",
            },
        )
    assert error.value.code == "damaged"
    assert not (tmp_path / "out.png").exists()


def test_options_that_make_no_sense_are_refused_as_on_the_command_line(tmp_path: Path, photo: Path) -> None:
    with pytest.raises(RestoreError, match="must be a number between 0 and 1"):
        run("fix", {"input": str(photo), "output": str(tmp_path / "out.png"), "options": {"strength": 2}})


@pytest.mark.skipif(not is_installed("openvino"), reason="openvino is not installed")
def test_networks_are_not_prepared_silently(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from restore.serve import tasks

    monkeypatch.setattr(tasks, "_opened", OrderedDict())
    monkeypatch.setenv("RESTORE_CACHE", str(tmp_path / "cache"))
    options = {"engine": "openvino", "precision": "fp32"}
    params = {"input": str(photo), "output": str(tmp_path / "out.png"), "options": options}
    lines = [what for kind, what in run("fix", params)[1] if kind == "event"]
    lines += [what for kind, what in run("detect", params | {"output": str(tmp_path / "m.png")})[1] if kind == "event"]
    kept = f"for OpenVINO, once (kept in {tmp_path / 'cache' / 'engines'})"
    assert lines == [f"preparing {name} {kept}" for name in ("photo", "detector", "detector-plain")]


def test_models_are_opened_once(photo: Path, tmp_path: Path) -> None:
    from restore.serve import tasks

    assert run("warm", {"models": ["telea"]})[0]["models"] == ["telea"]
    (key,) = (key for key in tasks._opened if key[0] == "telea")
    opened = tasks._opened[key]
    run(
        "fix",
        {"input": str(photo), "output": str(tmp_path / "o.png"), "mask": str(tmp_path / "mask.png"), "model": "telea"},
    )
    assert tasks._opened[key] is opened
