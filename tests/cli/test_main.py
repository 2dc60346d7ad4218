"""The command line as a user meets it."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import typer.main
import yaml
from PIL import Image
from skimage import data as pictures

from restore.cli import main as cli
from restore.cli.main import app
from restore.fix.decoder_isolation import SupervisorLink
from restore.images import read_rgb8, write_png
from tests.fix.conftest import logged

ROOT = Path(__file__).parents[2]


def restore(*args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "restore.cli", *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment
    )


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def restore_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`restore` in this process, because to start another takes seconds. Its settings stay as they are."""
    for setting in ("limit_thread_spinning", "reuse_large_blocks", "quiet_pillow", "_quiet_fabric"):
        monkeypatch.setattr(cli, setting, lambda: None)
    monkeypatch.setattr(cli, "interrupt_by_signals", lambda once: None)
    monkeypatch.setattr("restore.fix.decoder_isolation.supervise", lambda seconds, on_event: SupervisorLink())
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["restore", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        told = capsys.readouterr()
        return subprocess.CompletedProcess(args, int(end.value.code or 0), told.out, told.err)

    return run


def test_libraries_write_no_lines_of_their_own(tmp_path: Path) -> None:
    """libjpeg warns on standard error when it writes tables of more than 8 bits."""
    tables = [[300] * 64, [300] * 64]
    (tmp_path / "in").mkdir()
    Image.fromarray(pictures.chelsea()[:32, :32]).save(tmp_path / "in/coarse.jpg", qtables=tables)
    write_png(tmp_path / "mask.png", np.pad(np.full((4, 4), 255, np.uint8), 14))
    done = restore("fix", tmp_path / "in", tmp_path / "out", "--masks", tmp_path / "mask.png", "--model", "telea")
    assert done.returncode == 0
    assert re.fullmatch(r"1 done; .* s; written to .*\n", done.stderr), done.stderr
    assert (
        "Caution"
        in restore(
            "--debug", "fix", tmp_path / "in", tmp_path / "again", "--masks", tmp_path / "mask.png", "--model", "telea"
        ).stderr
    ), "this test needs a library that writes lines"


def described_keys(schema: object, at: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Every property in a JSON schema, however deep, by where it stands, with its description."""
    if isinstance(schema, list):
        for part in schema:
            yield from described_keys(part, at)
    elif isinstance(schema, dict):
        for name, part in schema.get("properties", {}).items():
            yield ".".join((*at, name)), part.get("description", "")
            yield from described_keys(part, (*at, name))
        for name, part in schema.get("$defs", {}).items():
            yield from described_keys(part, (*at, name))
        for name, part in schema.items():
            if name not in ("properties", "$defs"):
                yield from described_keys(part, at)


def commands() -> dict[str, typer.core.TyperCommand]:
    return typer.main.get_command(app).commands


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clean photographs, one of them in a subfolder."""
    root = tmp_path_factory.mktemp("pictures") / "clean"
    (root / "sub").mkdir(parents=True)
    write_png(root / "cat.png", np.ascontiguousarray(pictures.chelsea()[50:114, 100:180]))
    write_png(root / "sub" / "cup.png", np.ascontiguousarray(pictures.coffee()[50:114, 100:180]))
    return root


@pytest.mark.parametrize("name", commands())
def test_every_option_has_its_help(name: str) -> None:
    command = commands()[name]
    assert command.help
    for parameter in command.params:
        if parameter.name != "help":
            assert getattr(parameter, "help", None), f"{name} {parameter.name} has no help"


def test_help_needs_nothing_heavy() -> None:
    done = restore("--help")
    assert done.returncode == 0
    assert "fix" in done.stdout
    heavy = ("torch", "cv2", "numpy", "skimage", "pyvips")
    probe = f"import sys, restore.cli; print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert loaded.stdout.strip() == "[]"


def test_version_and_doctor() -> None:
    assert re.match(r"restore \d+\.\d+", restore("--version").stdout)
    found = restore("doctor").stdout
    for word in ("torch", "processor", "CUDA", "LPIPS squeeze", "weights photo", "weights inpaint"):
        assert word in found


def test_models_are_listed_with_what_they_need() -> None:
    infos = {info["name"]: info for info in json.loads(restore("models", "--json").stdout)}
    assert {"photo", "inpaint", "telea", "navier-stokes", "biharmonic", "nlmeans", "tv"} <= infos.keys()
    assert infos["inpaint"]["needs_mask"]
    assert not infos["photo"]["needs_mask"]
    assert max(info["size_mb"] or 0 for info in infos.values()) <= 12


def test_a_model_s_card_is_shown(restore_here: Run) -> None:
    card = (ROOT / "restore" / "weights" / "photo.md").read_text(encoding="utf-8")
    assert restore_here("models", "photo").stdout.endswith("\n\n" + card.rstrip() + "\n")
    as_json = json.loads(restore_here("models", "photo", "--json").stdout)
    assert (as_json["name"], as_json["needs_mask"], as_json["card"]) == ("photo", False, card)
    assert "fast marching" in restore_here("models", "telea").stdout


def test_damage_is_found_and_the_picture_cleaned_up(folder: Path, tmp_path: Path) -> None:
    """With a detector that finds one corner in the place of the trained one."""
    program = (
        "import sys, types, numpy as np\n"
        "class Corner:\n"
        "    name, sha256, engine, precision = 'detector', 'd' * 64, 'torch', 'fp32'\n"
        "    def detect(self, shown, *, tile_px, on_event):\n"
        "        mask = np.zeros(shown.shape[:2], np.float32)\n"
        "        mask[:5, :7] = 1\n"
        "        return mask\n"
        "module = types.ModuleType('restore.restorers.detector')\n"
        "module.open_detector = lambda name, **how: Corner()\n"
        "sys.modules[module.__name__] = module\n"
        "from restore.cli.main import main; main()"
    )
    clean = folder / "cat.png"
    source, noisy = read_rgb8(clean), tmp_path / "noisy.png"
    grain = np.random.default_rng(0).normal(0, 12, source.shape)
    write_png(noisy, (source + grain).clip(0, 255).round().astype(np.uint8))
    for name, picture, options in (
        ("noisy", noisy, []),
        ("spared", clean, []),
        ("asked_for", clean, ["--clean-up"]),
        ("as_it_is", noisy, ["--no-clean-up"]),
    ):
        (tmp_path / name).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", program, "fix", str(picture), str(tmp_path / f"{name}/out.png"),
             "--masks", "auto", *options, "--log", str(tmp_path / f"{name}/log")],
            capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        entry = logged(tmp_path / name / "log")[0]
        cleaned = name in ("noisy", "asked_for")
        assert list(entry["models"]) == ["detector", "inpaint"] + ["photo"] * cleaned, name
        assert entry["mask_coverage"] == 35 / (64 * 80)
        assert b"detector sha256 dddd" in (tmp_path / name / "out.png").read_bytes()
        left = read_rgb8(tmp_path / name / "out.png")[5:]
        assert np.array_equal(left, read_rgb8(picture)[5:]) is not cleaned, name


def test_the_whole_road(folder: Path, tmp_path: Path, restore_here: Run) -> None:
    done = restore_here("degrade", folder, tmp_path / "d", "--damage", "inpaint-thin", "--seed", 3)
    assert done.returncode == 0, done.stderr
    damaged, masks = tmp_path / "d" / "damaged", tmp_path / "d" / "masks"

    fixed = restore("fix", damaged, tmp_path / "out", "--masks", masks, "--log", tmp_path / "log.jsonl")
    assert fixed.returncode == 0, fixed.stderr
    assert fixed.stdout == "", "stdout is data; there is none"
    assert (tmp_path / "out" / "sub" / "cup.png").exists()
    for name in ("cat.png", "sub/cup.png"):
        before, after, mask = read_rgb8(damaged / name), read_rgb8(tmp_path / "out" / name), read_rgb8(masks / name)
        assert np.array_equal(before[mask == 0], after[mask == 0]), "known pixels are equal"
    lines = logged(tmp_path / "log.jsonl")
    assert {line["status"] for line in lines} == {"done"}
    assert {line["model"] for line in lines} == {"inpaint"}

    scores = {}
    for part in (damaged, tmp_path / "out"):
        done = restore_here(
            "eval", part, folder, "--metrics", "psnr,ssim", "--json", tmp_path / "s.json", "--csv", tmp_path / "s.csv"
        )
        assert done.returncode == 0, done.stderr
        report = json.loads((tmp_path / "s.json").read_text())
        scores[part.name] = report["summary"]["psnr"]["mean"]
        assert [image["name"] for image in report["images"]] == ["cat", "sub/cup"]
        assert report["convention"]
    assert scores["out"] > scores["damaged"] + 3
    assert (tmp_path / "s.csv").read_text().startswith("name,psnr,ssim")


def test_without_masks_the_right_model_is_taken(folder: Path, tmp_path: Path) -> None:
    done = restore("fix", folder / "cat.png", tmp_path / "out.png", "--log", tmp_path / "log.jsonl")
    assert done.returncode == 0, done.stderr
    assert logged(tmp_path / "log.jsonl")[0]["model"] == "photo"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("fix", "nowhere", "out"), 2, "nowhere"),
        (("fix", "{folder}", "{folder}"), 2, "{folder}"),
        (("fix", "{folder}", "{folder}/inside"), 2, "inside"),
        (("fix", "{folder}", "{tmp}/o", "--model", "foto"), 2, "did you mean 'photo'"),
        (("fix", "{folder}", "{tmp}/o", "--model", "{folder}/cat.png"), 2, "cat.png"),
        (("fix", "{folder}", "{tmp}/o", "--masks", "{tmp}/none"), 2, "none"),
        (("fix", "{folder}", "{tmp}/o", "--model", "telea"), 2, "--masks"),
        (("fix", "{folder}", "{tmp}/o", "--device", "cuda:77"), 2, "cuda:77"),
        (("fix", "{folder}", "{tmp}/o", "--device", "cpu,cuda"), 2, "CUDA device"),
        (("fix", "{folder}", "{tmp}/o", "--device", "cpu,cup"), 2, "device cup: no such device"),
        (("fix", "{folder}", "-"), 2, "cannot be written to standard output"),
        (("fix", "{folder}/cat.png", "-", "--json"), 2, "both would go to standard output"),
        (("fix", "{folder}", "{tmp}/o", "--precision", "fp7"), 2, "fp7"),
        (("fix", "{folder}", "{tmp}/o", "--tile", "small"), 2, "small"),
        (("fix", "{folder}", "{tmp}/o", "--quality", "101"), 2, "--quality"),
        (("fix", "{folder}", "{tmp}/o", "--overwrit"), 2, "--overwrit"),
        (("fix", "{folder}", "{tmp}/o", "--mask-invert"), 2, "--mask-invert"),
        (("fix", "{folder}", "{tmp}/o", "--mask-dilate", "3"), 2, "--mask-dilate"),
        (
            ("fix", "{folder}", "{tmp}/o", "--masks", "alpha", "--mask-dilate", "much"),
            2,
            "0 and 500, auto or scan",
        ),
        (("fix", "{folder}", "{tmp}/o", "--mask-dilate", "auto"), 2, "requires --masks"),
        (("fix", "{folder}", "{tmp}/o", "--mask-missing", "clean"), 2, "requires --masks"),
        (("fix", "{folder}", "{folder}/cat.png/out"), 2, "or inside it"),
        (("fix", "{folder}", "{tmp}/o", "--strength", "1.1"), 2, "--strength"),
        (("fix", "{folder}", "{tmp}/o", "--clean-up"), 2, "requires --masks"),
        (("fix", "{folder}", "{tmp}/o", "--masks", "auto", "--mask-invert"), 2, "--mask-invert"),
        (("models", "foto"), 2, "did you mean 'photo'? known: detector, detector-plain, enlarge-x2, "),
        (("models", "../weights/photo"), 2, "../weights/photo"),
        (("eval", "{folder}", "{folder}", "--json", "{folder}/cat.png"), 2, "exists and is not a JSON report"),
        (("eval", "{folder}", "{folder}", "--csv", "{tmp}/none/s.csv"), 2, "no such folder"),
        (("eval", "{folder}", "{folder}", "--csv", "-", "--json", "-"), 2, "the same place"),
        (("eval", "{folder}", "{folder}/none"), 2, "no such folder"),
        (("degrade", "{folder}", "{folder}/../clean/cat.png", "--damage", "noise"), 2, "cat.png"),
        (("demo", "{folder}/cat.png"), 2, "is a file where a folder is needed"),
        (("demo", "{folder}"), 2, "not from a demo"),
        (("eval", "{folder}", "nowhere"), 2, "nowhere"),
        (("eval", "{folder}", "{folder}", "--metrics", "psnrr"), 2, "psnrr"),
        (("eval", "{folder}", "{folder}", "--metrics", "seam"), 2, "give --masks"),
        (("eval", "{folder}", "{folder}", "--convention", "mine"), 2, "mine"),
        (("eval", "{folder}", "{folder}", "--crop-border", "-1"), 2, "--crop-border"),
        (("eval", "{folder}", "{folder}", "--baseline", "nowhere"), 2, "nowhere"),
        (("eval", "{folder}", "{folder}", "--metrics", "fid", "--fid-weights", "{folder}/cat.png"), 2, "cat.png"),
        (("train", "phot"), 2, "did you mean 'photo'"),
        (("train", "photo", "data.bacth=3"), 2, "did you mean 'data.batch'"),
        (("train", "photo", "data.folders=[nowhere]"), 2, "nowhere"),
        (
            ("train",),
            2,
            "no config given; use one of colorize, cut, cyclegan, dcgan, detector, detector-plain, enlarge-x2, "
            "enlarge-x2-clean, enlarge-x4, enlarge-x4-clean, inpaint, photo, pix2pix",
        ),
        (("train", "photo", "data.folders=[nowhere]", "out={tmp}/run", "--dry-run"), 2, "nowhere"),
        (("export", "photo", "{tmp}/net", "--format", "pix2pix"), 2, "is a unet"),
        (("export", "photo", "{tmp}/net", "--format", "onnx"), 2, "onnx"),
        (("degrade", "{folder}", "{tmp}/o", "--damage", "scrach"), 2, "did you mean 'scratch'"),
        (("degrade", "{folder}", "{tmp}/o"), 2, "--damage: is missing"),
        (("degrade", "{folder}", "--damage", "noise"), 2, "OUT_DIR: is missing"),
        (
            ("degrade", "--gallery", "{tmp}/g.png", "{folder}/cat.png", "{tmp}/o"),
            2,
            "OUT_DIR: cannot be combined with --gallery",
        ),
        (
            ("degrade", "--gallery", "{tmp}/g.png", "--damage", "noise"),
            2,
            "--damage: cannot be combined with --gallery",
        ),
        (("degrade", "--gallery", "{tmp}/g.jpg"), 2, "the output must be a PNG file"),
        (("degrade", "--gallery", "{tmp}/g.png", "nowhere.jpg"), 2, "nowhere.jpg"),
        (("compare", "{folder}/cat.png", "--out", "{tmp}/s.png"), 2, "a single image cannot be compared"),
        (("compare", "{folder}/cat.png", "nowhere.png", "--out", "{tmp}/s.png"), 2, "nowhere.png"),
        (("bench", "{folder}", "--out", "{tmp}/o"), 2, "give --damage NAME; known: none, awgn-15"),
        (("bench", "{folder}", "--out", "{tmp}/o", "--damage", "awgn-26"), 2, "did you mean 'awgn-2"),
        (("bench", "{folder}", "--out", "{tmp}/o", "--damage", "none", "--model", "foto"), 2, "did you mean 'photo'"),
        (("bench", "{folder}", "--out", "{tmp}/o", "--damage", "none", "--published", "cbsd68"), 2, "68 images"),
    ],
)
def test_bad_input_is_one_clear_line(
    folder: Path, tmp_path: Path, restore_here: Run, args: tuple, code: int, words: str
) -> None:
    filled = [str(a).format(folder=folder, tmp=tmp_path) for a in args]
    done = (restore if args[0] == "train" else restore_here)(*filled)  # training sets up devices and threads
    assert done.returncode == code, done.stderr
    assert words.format(folder=folder, tmp=tmp_path) in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [], "nothing is written"
    assert sorted(p.name for p in folder.rglob("*.png")) == ["cat.png", "cup.png"]


def test_a_dry_run_prints_a_config_and_trains_nothing(folder: Path, tmp_path: Path) -> None:
    done = restore(
        "train", "photo", f"data.folders=[{folder}]", "data.patch=32", "data.batch=1", "data.validation_size=32",
        "lpips_net=none", "device=cpu", f"out={tmp_path}/run", "--dry-run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["data"]["patch"] == 32
    assert "# time, about: " in done.stdout
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["dry_run.png"]


def test_the_schema_knows_every_key_of_a_config() -> None:
    done = restore("train", "--schema")
    assert done.returncode == 0, done.stderr
    schema = json.loads(done.stdout)
    assert {"total_steps", "data", "optimizer", "keep_checkpoints"} <= schema["properties"].keys()
    assert "side_by_side" in schema["$defs"]["DataConfig"]["properties"]
    assert schema["additionalProperties"] is False


def test_the_schema_says_of_every_key_what_it_is_and_when_to_touch_it() -> None:
    described = dict(described_keys(json.loads(restore("train", "--schema").stdout)))
    named = {".".join(at.split(".")[-2:]) for at in described}
    expected = {
        "total_steps",
        "data",
        "LossConfig.r1",
        "CollapseConfig.min_d_sensitivity",
        "DataConfig.scale",
        "Folder.weight",
    }
    assert expected <= named, expected - named
    assert {at for at, text in described.items() if not text.strip()} == set()
    assert {at for at, text in described.items() if "\n" in text} == set(), "editors show a line as a paragraph"


def test_weights_are_exported_and_named(tmp_path: Path, restore_here: Run) -> None:
    from restore.models.pix2pix import Pix2Pix

    torch.save(Pix2Pix(num_downs=5, ngf=4).state_dict(), tmp_path / "small_net_G.pth")
    done = restore_here(
        "export", tmp_path / "small_net_G.pth", tmp_path / "small.safetensors", "--format", "safetensors"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/small.safetensors\n"
    back = restore_here("export", tmp_path / "small.safetensors", tmp_path / "back", "--format", "pix2pix")
    assert back.stdout == f"{tmp_path}/back/latest_net_G.pth\n"
    assert "no discriminator" in back.stderr
    again = restore_here("export", tmp_path / "small.safetensors", tmp_path / "back", "--format", "pix2pix")
    assert again.returncode == 2
    assert "--overwrite" in again.stderr


def test_debug_shows_the_traceback_wherever_it_stands() -> None:
    assert "Traceback" in restore("--debug", "fix", "nowhere", "out").stderr
    assert "Traceback" in restore("fix", "nowhere", "out", "--debug").stderr
    after = restore("fix", "nowhere", "--", "--debug")
    assert after.stderr == "error: nowhere: there is no such file or folder\n", "there, it is a name"


def test_debug_shows_why_a_file_failed_unexpectedly(folder: Path, tmp_path: Path) -> None:
    """The line about the file says `--debug shows more`."""
    program = (
        "import sys; from restore.cli import main as cli; from restore.restorers.base import Restorer\n"
        "def broken(self, *a, **k): raise ZeroDivisionError('a fault')\n"
        "import restore.fix.steps as steps; steps.restore_everywhere = broken\n"
        "sys.argv = ['restore', *sys.argv[1:]]; cli.main()"
    )
    for debug in ([], ["--debug"]):
        command = [sys.executable, "-c", program, "fix", str(folder / "cat.png"), f"{tmp_path}/", *debug]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1
        assert "ZeroDivisionError: a fault (--debug shows more)" in done.stderr
        assert ("Traceback" in done.stderr) == bool(debug)


@pytest.mark.parametrize("wrong", [("fix", "nowhere", "out"), ("fix", "--overwrit"), ("fly",)])
def test_only_the_first_of_several_processes_tells_what_is_wrong(wrong: tuple[str, ...]) -> None:
    first, second = (restore(*wrong, LOCAL_RANK=rank) for rank in "01")
    assert first.returncode == second.returncode == 2
    assert first.stderr
    assert second.stderr == second.stdout == ""


def test_a_dangling_link_is_called_that(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to("gone.png")
    for command in (("fix", tmp_path / "link.png", "out"), ("eval", tmp_path / "link.png", folder)):
        done = restore(*command)
        assert done.returncode == 2
        assert "link.png: a dangling link" in done.stderr


def test_an_empty_folder_is_a_wrong_command(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for command in (
        ("fix", tmp_path / "empty", tmp_path / "out"),
        ("degrade", tmp_path / "empty", tmp_path / "out", "--damage", "noise"),
    ):
        done = restore(*command)
        assert (done.returncode, "no images" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")]
)
def test_threads_that_wait_give_way_unless_the_user_has_said(given: dict[str, str], spins: str) -> None:
    program = (
        "import atexit, os, sys; sys.argv = ['restore', '--version']\n"
        "atexit.register(lambda: print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'), file=sys.stderr))\n"
        "from restore.cli.main import main; main()"
    )
    clean = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=clean | given)
    assert done.stderr.split() == ["False", spins]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
@pytest.mark.parametrize(("given", "reused"), [({}, True), ({"MALLOC_ARENA_TEST": "8"}, False)])
def test_large_blocks_of_memory_are_used_again_unless_the_user_has_said(given: dict[str, str], reused: bool) -> None:
    program = (
        "import atexit, resource, sys; sys.argv = ['restore', '--version']\n"
        "def fill():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    bytearray(64 << 20)[:: 4096]\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "atexit.register(lambda: print(fill(), fill(), file=sys.stderr))\n"
        "from restore.cli.main import main; main()"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=clean | given)
    first, second = map(int, done.stderr.split())
    assert first > 8000  # 16,384 pages
    assert (second < 1000) is reused


def test_the_manifest_can_go_to_stdout(folder: Path, tmp_path: Path) -> None:
    done = restore("fix", folder, tmp_path / "out", "--log", "-")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["start", "image", "image"]


def test_the_summary_as_json(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a_broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    write_png(source / "good.png", read_rgb8(folder / "cat.png"))
    planned = json.loads(restore("fix", source, tmp_path / "out", "--dry-run", "--json").stdout)
    assert [Path(job["output"]).name for job in planned["jobs"]] == ["a_broken.png", "good.png"]
    assert not (tmp_path / "out").exists()
    done = restore("fix", source, tmp_path / "out", "--model", "tv", "--json")
    summary = json.loads(done.stdout)
    assert done.returncode == summary["exit_code"] == 1
    assert (summary["total"], summary["done"], summary["not_started"]) == (2, 1, 0)
    assert [Path(failure["input"]).name for failure in summary["failed"]] == ["a_broken.png"]
    assert summary["failed"][0]["reason"] in done.stderr
    assert summary["megapixels"] == pytest.approx(64 * 80 / 1e6)
    assert (summary["model"], summary["settings"]["device"]) == ("tv", "cpu")
    assert 0 < summary["seconds"] < 60


def test_a_picture_through_a_pipe(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "restore.cli", "fix", "-", "-", "--model", "tv", "--ext", "tiff"]
    with open(folder / "cat.png", "rb") as given:
        done = subprocess.run(command, stdin=given, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    (tmp_path / "out.tiff").write_bytes(done.stdout)
    assert read_rgb8(tmp_path / "out.tiff").shape == (64, 80, 3)


def completed(line: str) -> tuple[list[str], list[str]]:
    """What the shell is offered for the last word of a line, and what heavy had to be imported for it."""
    program = (
        "import atexit, sys; sys.argv = ['restore']\n"
        "heavy = ('torch', 'numpy', 'cv2', 'skimage')\n"
        "atexit.register(lambda: print([m for m in heavy if m in sys.modules], file=sys.stderr))\n"
        "from restore.cli.main import main; main()"
    )
    words = {"_RESTORE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | words)
    return done.stdout.split(), done.stderr.split()


def test_the_shell_completes_names_without_loading_anything() -> None:
    from restore.restorers.registry import list_restorers

    models, heavy = completed("restore fix in out --model ")
    assert set(models) == {info.name for info in list_restorers()}
    assert heavy == ["[]"]
    assert completed("restore fix in out --model tel") == (["telea"], ["[]"])
    assert completed("restore fix in out --model ./my") == ([], ["[]"]), "files are the shell's"
    damages, heavy = completed("restore degrade in out --damage inp")
    kinds = ("blobs", "border", "large", "medium", "text", "thick", "thin")
    assert (damages, heavy) == ([f"inpaint-{kind}" for kind in kinds], ["[]"])
    configs, heavy = completed("restore train ")
    assert (set(configs), heavy) == ({path.stem for path in (ROOT / "configs" / "train").glob("*.yaml")}, ["[]"])


def test_scores_can_go_to_stdout_and_the_table_steps_aside(folder: Path) -> None:
    done = restore("eval", folder, folder, "--metrics", "psnr", "--json", "-")
    assert [image["psnr"] for image in json.loads(done.stdout)["images"]] == ["inf", "inf"]
    assert "PSNR (dB)" in done.stderr
    by_name = restore("eval", folder, folder, "--metrics", "psnr", "--csv", "/dev/stdout")
    assert by_name.stdout.startswith("name,psnr,note\ncat,inf,")


def test_an_empty_folder_is_a_report_without_scores(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = restore("eval", tmp_path / "empty", folder, "--metrics", "psnr")
    assert done.returncode == 1
    assert f"{tmp_path}/empty: there are no images in this folder" in done.stderr
    assert "2 without a counterpart" in done.stderr
    assert done.stdout.splitlines()[1].split()[:3] == ["PSNR", "(dB)", "-"]


def test_scores_beside_those_of_a_baseline(folder: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("cat.png", "sub/cup.png"):
        clean = read_rgb8(folder / name)
        for part, sigma in (("better", 5), ("worse", 20)):
            noisy = np.clip(clean + random.normal(0, sigma, clean.shape), 0, 255).astype(np.uint8)
            (tmp_path / part / name).parent.mkdir(parents=True, exist_ok=True)
            write_png(tmp_path / part / name, noisy)
    command = ("eval", tmp_path / "better", folder, "--baseline", tmp_path / "worse", "--metrics", "psnr,ssim")
    done = restore(*command, "--border", 4)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 (100 %)" in done.stdout
    assert "95 % interval" in done.stdout
    assert done.stdout == restore(*command, "--border", 4).stdout, "the same numbers in every run"
    (tmp_path / "worse" / "cat.png").unlink()
    done = restore(*command)
    assert done.returncode == 1
    assert "cat: not in the baseline" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_the_table_is_printed_though_the_file_cannot_be_written(folder: Path) -> None:
    done = restore("eval", folder, folder, "--metrics", "psnr", "--csv", "/dev/full")
    assert done.returncode == 1
    assert "PSNR (dB)" in done.stdout
    assert "/dev/full: the disk is full" in done.stderr


def test_one_bad_file_never_stops_the_rest(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a_broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (source / "notes.txt").write_text("not a picture")
    write_png(source / "good.png", read_rgb8(folder / "cat.png"))
    done = restore("fix", source, tmp_path / "out")
    assert done.returncode == 1
    assert (tmp_path / "out" / "good.png").exists()
    assert "a_broken.png" in done.stderr.splitlines()[-1]
    assert "1 skipped" in done.stderr


def test_ctrl_c_is_not_forgotten_by_a_library_that_was_called_from_c(monkeypatch: pytest.MonkeyPatch) -> None:
    import restore.cli.main as entry
    from restore.signals import STOP_SIGNALS, Interrupt

    met: list[object] = []
    monkeypatch.setattr(entry, "app", lambda arguments: met.extend(signal.getsignal(wish) for wish in STOP_SIGNALS))
    entry.main()
    assert len(met) == 2
    assert all(isinstance(handler, Interrupt) for handler in met), "the default one is lost in what libvips calls"


@pytest.mark.parametrize(
    ("work", "code", "out"),
    [
        ("print('kept')", 0, "kept\n"),
        ("raise SystemExit(3)", 3, ""),
        ("import atexit; atexit.register(print, 'at exit')", 0, "at exit\n"),
        (
            "from concurrent.futures import ThreadPoolExecutor as Pool; "
            "Pool(1).submit(lambda: (time.sleep(0.3), print('done')))",
            0,
            "done\n",
        ),
    ],
)
def test_the_quick_end_of_the_program_loses_nothing(work: str, code: int, out: str) -> None:
    program = f"import time, restore.cli.main as entry\ndef app(arguments): {work}\nentry.app = app\nentry.run()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (code, out, "")
