"""A decoder that crashes in a run over URLs costs one file: the work folder and the store tell what is done."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.places.conftest import image_bytes, mask_bytes
from tests.processes import RUN, Nursery

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the work is done where it is called")


def test_crashes_are_one_file_s_failure_each(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "work"))
    names = ["a", "b_segv", "c", "d", "e", "f_abort", "g"]
    for number, name in enumerate(names):
        s3.put_object(Bucket="scans", Key=f"in/{name}.png", Body=image_bytes(number))
    s3.put_object(Bucket="scans", Key="mask.png", Body=mask_bytes())
    nursery = Nursery(tmp_path)
    try:
        done = nursery.run(
            "fix", "s3://scans/in", "s3://repaired", "--masks", "s3://scans/mask.png", "--model", "telea",
            "--log", "s3://repaired/log", program="import restore.places.plan as p\np.GROUP_FILES = 2\n" + RUN,
        )  # fmt: skip
    finally:
        nursery.close()
    assert done.returncode == 1, done.stderr
    assert "5 done, 2 failed" in done.stderr
    assert "Traceback" not in done.stderr
    keys = {item["Key"] for item in s3.list_objects_v2(Bucket="repaired")["Contents"]}
    assert keys == {"a.png", "c.png", "d.png", "e.png", "g.png", "log"}
    lines = [json.loads(line) for line in s3.get_object(Bucket="repaired", Key="log")["Body"].read().splitlines()]
    assert Counter(line.get("input") for line in lines) == Counter(
        ["s3://scans/in", *(f"s3://scans/in/{name}.png" for name in names)]
    )
    assert len({line["run"] for line in lines}) == 1
    reasons = {line["input"]: line["reason"] for line in lines[1:] if line["status"] == "failed"}
    assert reasons == {
        "s3://scans/in/b_segv.png": "the decoder crashed (SIGSEGV); the run continued without this file",
        "s3://scans/in/f_abort.png": "the decoder crashed (SIGABRT); the run continued without this file",
    }
    assert not list((tmp_path / "work").glob("restore-*"))
