"""`--ray` on the command line, and the examples: what can be said without a cluster."""

from __future__ import annotations

import json
import os
import shlex
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from restore.cli.main import app
from restore.cluster.connect import connected
from restore.cluster.options import ClusterOptions
from restore.errors import RestoreError
from tests.fix.conftest import photo, save

EXAMPLES = Path(__file__).parents[2] / "examples"


def call(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    save(tmp_path / "scans/a.png", photo(8, 8))
    return tmp_path / "scans"


@pytest.mark.parametrize("option", ["--ray-workers", "--cpus-per-worker", "--gpus-per-worker"])
@pytest.mark.parametrize("command", ["fix", "detect"])
def test_options_of_a_cluster_need_one(scans, command, option):
    refused = call(command, scans, scans.parent / "out", option, 1).exception
    assert isinstance(refused, RestoreError)
    assert (refused.what, refused.where, refused.exit_code) == ("requires --ray", option, 2)


def test_a_watched_folder_has_no_cluster(scans):
    refused = call("fix", scans, scans.parent / "out", "--watch", "--ray", "auto").exception
    assert "cannot be combined with --watch" in str(refused)


def test_a_missing_ray_is_told(scans, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    refused = call("fix", scans, scans.parent / "out", "--ray", "local").exception
    assert str(refused) == '--ray: Ray is not installed; pip install "restore-toolkit[ray]"'
    assert not (scans.parent / "out").exists()


def test_nothing_to_do_starts_no_cluster(scans, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # it would be told
    save(scans.parent / "out/a.png", photo(8, 8))
    done = call("fix", scans, scans.parent / "out", "--ray", "local", "--skip-existing")
    assert done.exit_code == 0
    assert "1 skipped: the output exists" in done.output


def test_the_manifest_plans_what_its_command_says(scans):
    """The parts of a KubeRay job fit together, and its command is one of this version."""
    job = yaml.safe_load((EXAMPLES / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"] for volume in pod["volumes"]]
        assert container["resources"]["requests"] == container["resources"]["limits"]
    assert len({group["template"]["spec"]["containers"][0]["image"] for group in groups}) == 1
    program, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert program == "restore"
    worker = spec["workerGroupSpecs"][0]
    limits = worker["template"]["spec"]["containers"][0]["resources"]["limits"]
    given = dict(pairwise(arguments))
    assert worker["replicas"] * int(limits["nvidia.com/gpu"]) == int(given["--ray-workers"])
    assert int(given["--cpus-per-worker"]) < int(limits["cpu"])  # one is left over for Ray
    done = call(*(one.replace("/data", str(scans.parent)) for one in arguments), "--dry-run")
    assert (done.exit_code, done.exception) == (0, None)
    assert done.stdout.splitlines() == [f"{scans / 'a.png'} -> {scans.parent / 'repaired/a.png'}"]


def test_the_notebook_plans_what_it_would_do(scans, monkeypatch, capsys):
    monkeypatch.chdir(scans.parent)
    notebook = json.loads((EXAMPLES / "cluster.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert "DRY_RUN = False" in cells[0]
    names: dict[str, Any] = {}
    for cell in [cells[0].replace("DRY_RUN = False", "DRY_RUN = True"), *cells[1:]]:
        exec(cell, names)
    assert capsys.readouterr().out == "scans/a.png -> repaired/a.png\n"
    assert sorted(path.name for path in scans.parent.iterdir()) == ["scans"]
    assert names["cluster"].workers == 2


@pytest.mark.parametrize(("address", "niceness"), [("local", "0"), ("auto", None)])
def test_workers_of_an_own_cluster_are_as_important_as_this_process(monkeypatch, address, niceness):
    """What others have started has the priorities that they have chosen."""
    environment, seen = {"PATH": ""}, []
    ray = SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda **given: seen.append((given["address"], environment.get("RAY_worker_niceness"))),
        shutdown=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(os, "environ", environment)
    with connected(ClusterOptions(address=address)):
        assert seen == [(address, niceness)]
