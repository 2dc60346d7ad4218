"""Every fenced command of the README and the documentation runs as it stands in bash.

zsh, if installed, must pass the same arguments. It expands words by other rules, and the commands themselves do not
know which shell calls them, so they need not run again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from restore.checkpoints import shipped_weights
from tests.docs.server import install, start
from tests.hub.stand_in import running

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
PROGRAMS = ("restore", "torchrun")
#: ```bash or ```python, indented or not; `<!-- skip: reason -->` on the line before leaves a block out, and
#: `<!-- needs: package -->` does so where the package is not installed.
BLOCK = re.compile(
    r"^(?P<skip> *<!-- skip: [^\n]+ -->\n)?(?: *<!-- needs: (?P<needs>\S+) -->\n)?"
    r"(?P<indent> *)```(?P<kind>bash|python)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the commands are run by a server that forks")


def blocks(page: Path, kind: str) -> list[str]:
    """The fenced blocks of a page that are to run, in order."""
    found = []
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        here = match["needs"] is None or find_spec(match["needs"]) is not None
        if match["kind"] == kind and here and not match["skip"]:
            found.append(re.sub(rf"^{match['indent']}", "", match["text"], flags=re.M))
    return found


def with_blocks(kind: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, kind)]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a quick `restore` for the PATH."""
    folder = tmp_path_factory.mktemp("bin")
    address = folder / "socket"
    server = start(address)
    install(folder, address)
    yield folder
    server.kill()
    server.wait()


@pytest.fixture(autouse=True)
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stand-in for a hub, with the one model that the pages fetch, and an own data directory to fetch it into."""
    home = tmp_path_factory.mktemp("home")
    with running() as hub:
        card = b"---\nlicense: cc-by-4.0\n---\n"
        weights = shipped_weights()["photo"].read_bytes()
        hub.files["someone/old-film"] = {"model.safetensors": weights, "README.md": card}
        for key, value in (("HF_ENDPOINT", hub.address), ("HF_TOKEN", "mine"), ("HF_HOME", f"{home}/hf")):
            monkeypatch.setenv(key, value)
        monkeypatch.setenv("XDG_DATA_HOME", str(home))
        yield


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with what the pages speak of: photographs, scans with noise and a scratch, other images of theirs."""
    noise = np.random.default_rng(0)
    photograph = data.astronaut()
    for number, letter in enumerate("abc"):
        clean = photograph[60 * number : 60 * number + 96, 150:280]
        scan = np.clip(clean + noise.normal(0, 12, clean.shape), 0, 255).astype(np.uint8)
        scan[40:43, 10:100] = 235
        for folder, image in (("originals", clean), ("scans", scan)):
            path = tmp_path / folder / f"{letter}.{'jpg' if letter == 'a' and folder == 'scans' else 'png'}"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(image).save(path, quality=92)
    if find_spec("av") is not None:
        from tests.video.conftest import make_video, moving

        make_video(tmp_path / "reel.mp4", moving(6))
        make_video(tmp_path / "reels" / "first.mp4", moving(6))
    (tmp_path / "my-photos").mkdir()
    for other in ("measurements", "depth", "edges"):
        (tmp_path / other).mkdir()
    for number in range(6):
        part = photograph[40 * number : 40 * number + 256, 128:384]
        Image.fromarray(part).save(tmp_path / "my-photos" / f"{number}.png")
        depth = part[:, :, 0].astype(np.uint16) * np.uint16(257)
        Image.fromarray(depth).save(tmp_path / "depth" / f"{number}.png")
        Image.fromarray(255 - part).save(tmp_path / "edges" / f"{number}_edge.png")
        Image.fromarray(part[:, :, 1] / np.float32(255) * 4000).save(tmp_path / "measurements" / f"{number}.tiff")
    return tmp_path


def test_there_are_pages_with_commands() -> None:
    assert len(with_blocks("bash")) > 10


@pytest.mark.parametrize("page", with_blocks("bash"), ids=name)
def test_every_command_of_a_page_runs(page: Path, command: Path, place: Path) -> None:
    script = "\n".join(blocks(page, "bash"))
    done = run("bash", "set -e\n" + script, command, place)
    assert done.returncode == 0, f"{name(page)}:\n{script}\n{done.stdout}\n{done.stderr}"
    if shutil.which("zsh"):
        assert arguments_of("zsh", script, place) == arguments_of("bash", script, place), f"{name(page)}:\n{script}"


def run(shell: str, script: str, commands: Path, place: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder, without anybody's own settings, with a folder of commands first in the PATH."""
    environment = {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
    options = ["-f"] if shell == "zsh" else ["--norc"]
    return subprocess.run(
        [shell, *options, "-c", script], cwd=place, env=environment, capture_output=True, text=True, timeout=600,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def arguments_of(shell: str, script: str, place: Path) -> list[str]:
    """The calls of `restore` and `torchrun` in a script, which here do nothing but write down their arguments."""
    folder = place / "recorders"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for program in PROGRAMS:
        (folder / program).write_text(f'#!/bin/sh\necho "$(printf \' <%s>\' {program} "$@")" >> {folder}/calls\n')
        (folder / program).chmod(0o755)
    done = run(shell, script.replace("RANDOM", "1"), folder, place)
    calls = folder / "calls"
    # Sorted, because commands in the background overtake each other.
    return sorted(calls.read_text().splitlines()) if calls.exists() else [done.stdout, done.stderr]


@pytest.mark.parametrize("page", with_blocks("python"), ids=name)
def test_python_of_a_page_runs(page: Path, place: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT), "OMP_NUM_THREADS": "1"}
    program = "\n".join(blocks(page, "python"))
    done = subprocess.run([sys.executable, "-c", program], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{name(page)}:\n{program}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    generated = {"cli.md", "python.md", "config.md"}
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target and not (Path(target).name in generated and "reference" in str(page.parent / target)):
            assert (page.parent / target).resolve().exists(), f"{name(page)} links to {target}"
