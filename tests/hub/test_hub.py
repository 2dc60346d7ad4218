"""Models from a hub and from an address: what is fetched is checked, lands in one folder, and goes by its name."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from typer.testing import CliRunner

from restore.checkpoints import Description, find_weights, models_dir, save_weights
from restore.cli.main import app
from restore.errors import RestoreError
from restore.files import temporary_path
from restore.hub.download import _CheckedRedirections, check_address
from restore.hub.fetch import Fetched, fetch_model
from restore.models.registry import build_generator
from restore.restorers.detector import Detector
from restore.restorers.model_card import model_card
from restore.restorers.registry import list_restorers, open_restorer
from tests.hub.stand_in import COMMIT, Hub, running

ARGS = {"widths": [4, 8], "blocks": [1, 1], "mask": False}
CARD = b"---\nlicense: cc-by-4.0\nlibrary_name: restore-toolkit\n---\n\n# Film\n\nCleans up film.\n"


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path / "data" / "restore" / "models"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "film.safetensors"
    torch.manual_seed(0)
    network = build_generator("unet", ARGS)
    save_weights(path, network.state_dict(), Description(builder="unet", args=ARGS, purpose="film", needs_mask=False))
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*")) if folder.exists() else []


def needs_library() -> None:
    pytest.importorskip("huggingface_hub")


def test_a_repository_s_model_goes_by_its_name_with_card_and_licence(
    hub: Hub, weights: Path, data_folder: Path
) -> None:
    needs_library()
    content = weights.read_bytes()
    hub.files["someone/old-film"] = {
        "model.safetensors": content,
        "README.md": CARD,
        "LICENSE": b"the terms",
        "x.py": b"",
    }
    fetched = fetch_model("someone/old-film", sha256=sha256(content).upper())
    assert fetched.name == "old-film"
    assert not fetched.notes
    assert kept(data_folder) == [f"old-film.{e}" for e in ("LICENSE", "md", "origin.json", "safetensors")]
    assert fetched.path.read_bytes() == content
    assert (data_folder / "old-film.md").read_bytes() == CARD
    assert (data_folder / "old-film.LICENSE").read_bytes() == b"the terms"
    assert fetched.origin.licence == "cc-by-4.0"
    assert fetched.origin.revision == COMMIT

    image = torch.rand(1, 3, 16, 16)
    named = open_restorer("old-film", device="cpu", precision="fp32")
    assert torch.equal(named(image), open_restorer(str(weights), device="cpu", precision="fp32")(image))
    assert find_weights("old-film") == fetched.path
    assert "old-film" in [info.name for info in list_restorers()]
    lines = "\n".join(model_card("old-film").format())
    assert "from          someone/old-film at 0123456789ab" in lines
    assert "licence       cc-by-4.0" in lines
    assert "# Film\n\nCleans up film." in lines
    assert "library_name" not in lines
    assert {path for _, path, _ in hub.asked if path.endswith("x.py")} == set(), "only what is needed is fetched"

    hub.asked.clear()
    assert fetch_model("someone/old-film").notes == ("it was there already",)
    assert not [path for _, path, _ in hub.asked if "/resolve/" in path]
    hub.asked.clear()
    assert fetch_model("someone/old-film", sha256=sha256(content)).path == fetched.path
    assert hub.asked == [], "a model that is there with the right sum needs no connection"


def test_an_address_needs_the_sum_and_states_no_licence(hub: Hub, weights: Path, data_folder: Path) -> None:
    content = weights.read_bytes()
    hub.plain["/files/film 2.safetensors"] = content
    address = f"{hub.address}/files/film%202.safetensors?token=hidden"
    with pytest.raises(RestoreError, match="an address needs --sha256"):
        fetch_model(address)
    with pytest.raises(RestoreError, match="letters, digits, - and _"):
        fetch_model(address, sha256=sha256(content))
    fetched = fetch_model(address, sha256=sha256(content), name="film2")
    assert fetched.path == data_folder / "film2.safetensors"
    assert any("no licence" in note for note in fetched.notes)
    assert fetched.origin.source == f"{hub.address}/files/film%202.safetensors", "a query may hold a secret"
    assert fetch_model(address, sha256=sha256(content), name="film2").notes == ("it was there already",)


@pytest.mark.parametrize("source", ["repository", "address"])
def test_another_file_than_the_one_named_is_not_kept(hub: Hub, weights: Path, data_folder: Path, source: str) -> None:
    if source == "repository":
        needs_library()
    content = weights.read_bytes()
    hub.files["a/b"] = {"model.safetensors": content}
    hub.plain["/b.safetensors"] = content
    with pytest.raises(RestoreError, match=f"its SHA-256 is {sha256(content)}, not {'0' * 64}; nothing was kept"):
        fetch_model("a/b" if source == "repository" else f"{hub.address}/b.safetensors", sha256="0" * 64)
    assert kept(data_folder) == []


def test_what_the_hub_states_is_checked_without_an_option(hub: Hub, weights: Path, data_folder: Path) -> None:
    needs_library()
    hub.files["a/b"] = {"model.safetensors": weights.read_bytes()}
    hub.stated["model.safetensors"] = "1" * 64
    with pytest.raises(RestoreError, match="is another file"):
        fetch_model("a/b")
    assert kept(data_folder) == []


def fetch_address(hub: Hub, content: bytes, **options: float) -> Fetched:
    hub.plain["/x.safetensors"] = content
    return fetch_model(f"{hub.address}/x.safetensors", sha256=sha256(content), **options)


def test_a_file_that_is_too_long_is_refused(hub: Hub, weights: Path, data_folder: Path) -> None:
    with pytest.raises(RestoreError, match=r"is longer than 0\.001 MB"):
        fetch_address(hub, weights.read_bytes(), max_mb=0.001)
    assert kept(data_folder) == []


def test_a_connection_that_breaks_off_leaves_nothing(hub: Hub, weights: Path, data_folder: Path) -> None:
    hub.cut.add("/x.safetensors")
    with pytest.raises(RestoreError, match=r"broke off after \d+ of \d+ bytes; run again"):
        fetch_address(hub, weights.read_bytes())
    assert kept(data_folder) == []


def test_what_a_killed_call_left_is_removed(hub: Hub, weights: Path, data_folder: Path) -> None:
    left = temporary_path(data_folder / "x.safetensors")
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left = left.with_name(left.name.replace(f"-{os.getpid()}-", f"-{ended.stdout.strip()}-"))
    data_folder.mkdir(parents=True)
    left.write_bytes(b"half")
    fetch_address(hub, weights.read_bytes())
    assert kept(data_folder) == ["x.origin.json", "x.safetensors"]


@pytest.mark.parametrize("content", [b"", b"no weights", b"\x10\0\0\0\0\0\0\0{}", b"PK\x03\x04" + bytes(90)])
def test_a_file_that_is_no_weights_file_is_not_kept(hub: Hub, data_folder: Path, content: bytes) -> None:
    with pytest.raises(RestoreError, match=r"not a complete safetensors file.*nothing was kept"):
        fetch_address(hub, content)
    assert kept(data_folder) == []


def test_a_model_whose_licence_cannot_be_written_is_not_kept(
    hub: Hub, weights: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_library()
    hub.files["someone/film"] = {"model.safetensors": weights.read_bytes(), "README.md": CARD, "LICENSE": b"the terms"}

    def full(path: Path, data: bytes) -> None:
        if path.suffix == ".LICENSE":
            raise RestoreError("the disk is full", where=path, exit_code=1)
        path.write_bytes(data)

    monkeypatch.setattr("restore.hub.fetch.write_atomically", full)
    with pytest.raises(RestoreError, match="the disk is full"):
        fetch_model("someone/film")
    assert kept(data_folder) == []


def test_another_project_s_weights_are_kept_with_a_note(hub: Hub) -> None:
    fetched = fetch_address(hub, save({"weight": torch.zeros(2)}))
    assert "another project's network" in fetched.notes[0]
    assert {info.name: info.purpose for info in list_restorers()}["x"] == "another project's network"


def test_a_damaged_model_does_not_hide_the_others(data_folder: Path) -> None:
    data_folder.mkdir(parents=True)
    (data_folder / "broken.safetensors").write_bytes(b"broken")
    infos = {info.name: info.purpose for info in list_restorers()}
    assert "not a complete safetensors file" in infos["broken"]
    assert "photo" in infos


def test_without_a_home_the_shipped_models_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert find_weights("photo").name == "photo.safetensors"
    with pytest.raises(RestoreError, match="no home folder for models"):
        models_dir()


@pytest.mark.parametrize(
    "address",
    ["http://example.org/x.safetensors", "ftp://example.org/x.safetensors", "file:///etc/passwd", "http://[::1",
     "http://localhost.example.org/x.safetensors", "https:///x.safetensors", "http://127.0.0.1.example.org/x"],
)  # fmt: skip
def test_only_https_is_fetched_except_from_this_machine(address: str) -> None:
    with pytest.raises(RestoreError, match=r"only https addresses are fetched|is not an address"):
        check_address(address)


@pytest.mark.parametrize("address", ["https://example.org/x", "http://127.0.0.1:9/x", "http://[::1]/x"])
def test_these_addresses_are_allowed(address: str) -> None:
    check_address(address)


def test_a_redirection_leads_neither_out_of_https_nor_takes_the_token_along(hub: Hub, weights: Path) -> None:
    needs_library()
    content = weights.read_bytes()
    hub.files["a/b"] = {"model.safetensors": content}
    hub.tokens["a/b"] = "secret"
    here = f"/a/b/resolve/{COMMIT}/model.safetensors"
    hub.redirects[here] = "http://example.org/model.safetensors"
    with pytest.raises(RestoreError, match="only https"):
        fetch_model("a/b", token="secret")
    hub.redirects[here] = "file:///etc/passwd"
    with pytest.raises(RestoreError, match="is not allowed"):
        fetch_model("a/b", token="secret")
    hub.redirects[here] = f"{hub.address}/elsewhere"
    hub.plain["/elsewhere"] = content
    assert fetch_model("a/b", token="secret").name == "b"
    assert [token for _, path, token in hub.asked if path == here][-1] == "Bearer secret"
    assert [token for _, path, token in hub.asked if path == "/elsewhere"] == [None]


def test_a_hub_does_not_have_this_machine_asked() -> None:
    request = urllib.request.Request("https://hub.example/model.safetensors")
    redirected = _CheckedRedirections().redirect_request
    for inside in ("http://127.0.0.1:8000/v1/models", "http://localhost/", "HTTP://[::1]/"):
        with pytest.raises(RestoreError, match="only https addresses are fetched"):
            redirected(request, io.BytesIO(), 302, "Found", Message(), inside)
    assert redirected(request, io.BytesIO(), 302, "Found", Message(), "https://files.example/x") is not None


def test_redirections_in_a_circle_end(hub: Hub) -> None:
    hub.redirects["/x.safetensors"] = "/x.safetensors"
    with pytest.raises(RestoreError, match="the server answered 302"):
        fetch_model(f"{hub.address}/x.safetensors", sha256="0" * 64)


@pytest.mark.parametrize(
    ("source", "message"),
    [("photo", "neither OWNER/NAME"), ("a/b/c", "neither OWNER/NAME"), ("../x", "neither OWNER/NAME"),
     ("a/photo", "this name is taken"), ("a/telea", "this name is taken"), ("a/get", "this name is taken"),
     ("https://example.org/x.pth", "only .safetensors files"), ("https://example.org/", "only .safetensors files")],
)  # fmt: skip
def test_what_is_no_model_s_name_is_refused_before_anything_is_asked(source: str, message: str, hub: Hub) -> None:
    if "://" not in source:
        needs_library()
    with pytest.raises(RestoreError, match=message):
        fetch_model(source, sha256="0" * 64)
    assert hub.asked == []


def test_a_repository_with_several_files_asks_which(hub: Hub, weights: Path) -> None:
    needs_library()
    hub.files["a/b"] = {"x/one.safetensors": weights.read_bytes(), "two.safetensors": weights.read_bytes()}
    with pytest.raises(RestoreError, match=r"choose one with --file: two\.safetensors, x/one\.safetensors"):
        fetch_model("a/b")
    with pytest.raises(RestoreError, match=r"no weights file 'three.*there are: two"):
        fetch_model("a/b", file="three.safetensors")
    assert fetch_model("a/b", file="x/one.safetensors").name == "b"
    hub.files["a/c"] = {"pytorch_model.bin": b""}
    with pytest.raises(RestoreError, match=r"holds no \.safetensors file"):
        fetch_model("a/c")


def test_a_model_is_replaced_only_on_request(hub: Hub, weights: Path) -> None:
    needs_library()
    hub.files["a/b"] = {"model.safetensors": weights.read_bytes(), "README.md": CARD}
    fetch_model("a/b")
    hub.files["a/b"] = {"model.safetensors": save({"weight": torch.zeros(2)})}
    with pytest.raises(RestoreError, match=r"another model has this name.*--overwrite"):
        fetch_model("a/b")
    fetched = fetch_model("a/b", overwrite=True)
    assert not fetched.path.with_suffix(".md").exists(), "the card was the other model's"
    assert any("states no licence" in note for note in fetched.notes)


def test_errors_of_the_hub_are_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_library()
    with pytest.raises(RestoreError, match="there is no such repository on the hub"):
        fetch_model("a/nothing")
    hub.files["a/b"] = {}
    with pytest.raises(RestoreError, match="has no such revision"):
        fetch_model("a/b", revision="v9")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", f"http://{closed}")
    with pytest.raises(RestoreError) as offline:
        fetch_model("a/b")
    assert str(offline.value) == f"{closed} cannot be reached; is this machine offline?"
    assert offline.value.exit_code == 1
    with pytest.raises(RestoreError, match=f"{closed} cannot be reached"):
        fetch_model(f"http://{closed}/x.safetensors", sha256="0" * 64)
    monkeypatch.setenv("HF_ENDPOINT", "http://example.org")
    with pytest.raises(RestoreError, match="only https"):
        fetch_model("a/b")


def test_without_the_library_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(RestoreError, match=r'need the package huggingface_hub; pip install "restore-toolkit\[hub\]"'):
        fetch_model("a/b")
    done = CliRunner().invoke(app, ["models", "push", "photo", "a/b"])
    assert isinstance(done.exception, RestoreError)


def test_what_is_pushed_comes_back_with_card_licence_and_credits(hub: Hub, weights: Path, tmp_path: Path) -> None:
    needs_library()
    from restore.hub.mixin import HubModel

    mine = tmp_path / "mine" / "film.safetensors"
    mine.parent.mkdir()
    mine.write_bytes(weights.read_bytes())
    (mine.parent / "film.md").write_text("# Film\n\nMine.\n")
    (mine.parent / "CREDITS.tsv").write_text("photograph\tauthor\n")
    model = HubModel(mine)
    with pytest.raises(RestoreError, match=r"the licence of these weights is not known.*--license"):
        model.push_to_hub("me/film", token="secret")
    model.licence = "cc-by-4.0"
    with pytest.raises(RestoreError, match=r"log in|who asks"):
        model.push_to_hub("me/film", token=False)
    assert model.push_to_hub("me/film", token="secret").endswith(COMMIT)
    pushed = hub.files["me/film"]
    assert {"model.safetensors", "README.md", "CREDITS.tsv"} <= pushed.keys()
    assert pushed["model.safetensors"] == weights.read_bytes()
    assert b"license: cc-by-4.0" in pushed["README.md"]
    assert pushed["README.md"].endswith(b"# Film\n\nMine.\n")

    back = HubModel.from_pretrained("me/film")
    assert back.licence == "cc-by-4.0"
    assert back.weights == models_dir() / "film.safetensors"
    image = torch.rand(1, 3, 16, 16)
    opened = back.open(device="cpu", precision="fp32")
    assert not isinstance(opened, Detector)
    assert torch.equal(opened(image), open_restorer(str(weights), device="cpu", precision="fp32")(image))
    hub.asked.clear()
    assert HubModel.from_pretrained("me/film", local_files_only=True).weights == back.weights
    assert hub.asked == []

    back.save_pretrained(tmp_path / "saved")
    again = HubModel.from_pretrained(tmp_path / "saved")
    assert again.licence == "cc-by-4.0"
    assert (tmp_path / "saved" / "README.md").read_text().count("---\n") == 2


def test_shipped_weights_travel_with_the_package_s_licence_and_credits(tmp_path: Path) -> None:
    needs_library()
    from restore.hub.mixin import HubModel

    HubModel.from_pretrained("detector").save_pretrained(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "pipeline_tag: mask-generation" in card
    assert (tmp_path / "out" / "CREDITS.tsv").stat().st_size > 1000
    other = tmp_path / "other.safetensors"
    other.write_bytes(save({"weight": torch.zeros(2)}))
    with pytest.raises(RestoreError, match="only weights of this package"):
        HubModel(other)


def test_the_command_line(hub: Hub, weights: Path, tmp_path: Path) -> None:
    """In a process of its own, as `HF_ENDPOINT` is meant: the library reads it when it is imported."""
    needs_library()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_TOKEN": "secret"}

    def restore(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "restore.cli", "models", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    done = restore("push", str(weights), "me/film", "--license", "mit")
    assert done.stdout.endswith(f"{COMMIT}\n"), done.stderr
    content = hub.files["me/film"]["model.safetensors"]
    got = restore("get", "me/film", "--sha256", sha256(content), "--as", "mine")
    assert got.returncode == 0, got.stderr
    assert got.stdout.splitlines()[0].startswith("mine: 0.0 MB, licence mit, ")
    assert got.stdout.splitlines()[1] == f"sha256 {sha256(content)}, revision {COMMIT}"
    assert not [path for _, path, _ in hub.asked if "harness" in path], "nothing else is asked of the hub"
    wrong = restore("get", "me/film", "--sha256", "0" * 64, "--as", "other")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)


def test_models_still_lists_and_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    def output(*arguments: str) -> str:
        return CliRunner().invoke(app, ["models", *arguments], catch_exceptions=False).stdout

    assert "photo" in output()
    assert {"photo", "telea"} <= {info["name"] for info in json.loads(output("--json"))}
    assert output("telea").startswith("telea:")
    assert output("card", "telea") == output("telea")
    assert json.loads(output("telea", "--json")) == json.loads(output("--json", "telea"))
    assert "get" in output("--help")


def test_the_shell_completes_commands_and_models(data_folder: Path) -> None:
    data_folder.mkdir(parents=True)
    (data_folder / "pretty.safetensors").touch()

    def completed(line: str) -> list[str]:
        words = {"_RESTORE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        return sorted(CliRunner().invoke(app, [], env=words, prog_name="restore").stdout.split())

    assert completed("restore models p") == ["photo", "pretty", "push"]
    assert completed("restore models card pr") == ["pretty"]
