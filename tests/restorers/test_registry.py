"""What a model may be called by: a name, a file, the folder of a run, or a name of the user's own for any of these."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from restore.checkpoints import shipped_weights
from restore.errors import RestoreError
from restore.restorers.classical import CLASSICAL
from restore.restorers.detector import open_detector
from restore.restorers.hybrid_inpainting import HybridInpainter
from restore.restorers.model_card import model_card
from restore.restorers.network import NetworkRestorer
from restore.restorers.registry import CLASSICAL_NAMES, ModelSpec, list_restorers, open_restorer, parse_model


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a training run, `mine`, with the weights of `photo`."""
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    shutil.copy(shipped_weights()["photo"], folder / "best.safetensors")
    (folder / "config.yaml").write_text("damage: noise\ntotal_steps: 300\ndata:\n  batch: 8\n  folders: [a, b]\n")
    return folder


def test_a_run_s_folder_is_opened_and_called_by_its_name(run: Path) -> None:
    restorer = open_restorer(str(run), device="cpu", precision="fp32")
    assert (restorer.name, restorer.sha256) == ("mine", open_restorer("photo", device="cpu").sha256)
    assert open_restorer(f"{run}/", device="cpu").name == "mine"
    assert open_restorer(str(run / "best.safetensors"), device="cpu").name == "mine"
    assert parse_model(str(run)).label == "mine"


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match=r"this folder has no best\.safetensors") as error:
        open_restorer(str(tmp_path), device="cpu")
    assert error.value.exit_code == 2


def test_any_model_can_be_given_a_name(run: Path) -> None:
    assert open_restorer(f"new={run}", device="cpu").name == "new"
    assert open_restorer("old=photo", device="cpu").name == "old"
    assert open_restorer("fast=telea", device="cpu").name == "fast"
    assert CLASSICAL["telea"].name == "telea", "the others keep theirs"
    assert open_detector("found=detector", device="cpu").name == "found"


def test_a_path_may_hold_an_equals_sign(tmp_path: Path) -> None:
    odd = tmp_path / "lr=1e-4.safetensors"
    shutil.copy(shipped_weights()["photo"], odd)
    assert parse_model(str(odd)) == ModelSpec(str(odd), str(odd))
    assert open_restorer(str(odd), device="cpu").name == str(odd)
    assert parse_model(str(odd)).label == "lr=1e-4"


@pytest.mark.parametrize("name", ["phto", "mine", "x=phto"])
def test_a_bare_name_is_never_looked_up_in_the_working_directory(
    name: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    with pytest.raises(RestoreError, match=r"no model is called .*known: .*inpaint, photo.*contains a slash"):
        open_restorer(name, device="cpu")


def test_networks_that_take_a_mask_fill_deep_holes_with_texture() -> None:
    photo, inpaint = (open_restorer(name, device="cpu", precision="fp32") for name in ("photo", "inpaint"))
    assert type(photo) is NetworkRestorer
    assert type(inpaint) is HybridInpainter
    assert type(inpaint.in_precision("bf16")) is HybridInpainter
    assert inpaint.in_precision("bf16").network is inpaint.network


def test_the_names_of_classical_methods_are_listed_without_loading_them() -> None:
    assert tuple(CLASSICAL) == CLASSICAL_NAMES
    probe = (
        "import sys; from restore.restorers.registry import open_restorer; open_restorer('photo', device='cpu');"
        "heavy = ('cv2', 'scipy', 'skimage', 'lightning_fabric', 'torchvision');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_card_of_every_model_states_its_facts() -> None:
    for info in list_restorers():
        card = model_card(info.name)
        assert (card.name, card.purpose) == (info.name, info.purpose)
        assert (card.kind == "detector") == info.finds
        assert (card.parameters is None) == (info.name in CLASSICAL)
        assert card.requirements.needs_mask == info.needs_mask
    photo = model_card("photo")
    assert photo.parameters == sum(p.numel() for p in open_restorer("photo", device="cpu").network.parameters())
    assert photo.macs == pytest.approx(11.79e9, rel=1e-3)
    assert photo.card is not None
    assert any(line.endswith(photo.sha256) for line in photo.format())


def test_shipped_cards_tell_of_data_steps_time_scores_and_failures() -> None:
    rows = ("network", "photographs", "degradation", "steps", "device and time", "scores")
    for name, weights in shipped_weights().items():
        card = weights.with_suffix(".md").read_text(encoding="utf-8")
        assert [row for row in rows if f"\n| {row} | " not in card] == [], name
        assert "\n**Weaknesses" in card, name


def test_the_card_of_a_run_tells_how_it_was_trained(run: Path) -> None:
    card = model_card(str(run))
    assert card.training == {"damage": "noise", "total_steps": 300, "data.batch": 8}
    assert "  training      damage=noise, total_steps=300, data.batch=8" in card.format()
    assert card.card is None
    assert card.to_dict()["multiple"] == 8


def test_the_card_of_a_published_generator(tmp_path: Path) -> None:
    from restore.models.pix2pix import Pix2Pix

    torch.save(Pix2Pix(num_downs=5, ngf=8).state_dict(), tmp_path / "latest_net_G.pth")
    card = model_card(str(tmp_path / "latest_net_G.pth"))
    assert (card.architecture, card.requirements.tileable) == ("Pix2Pix", False)
    assert card.macs
