"""Training in linear light: what the network sees, what is scored, and what `fix` gives back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from restore import fix_image
from restore.checkpoints import load_generator, read_description
from restore.config import build
from restore.data.build import open_source
from restore.data.config import DataConfig
from restore.data.loader import in_srgb
from restore.degradations import degradation_from
from restore.errors import RestoreError
from restore.linear_light import from_linear, to_linear
from restore.models.unet import UNet
from restore.restorers.base import ModelRequirements
from restore.restorers.model_card import model_card
from restore.restorers.network import NetworkRestorer
from restore.restorers.registry import open_restorer
from restore.training.dry_run import preview
from restore.training.loop import train
from restore.training.validation import restore_batch
from tests.training.test_loop import config, state

UNET = {"builder": "unet", "args": {"widths": [8, 12], "blocks": [1, 1], "mask": False}}
NOISE = [{"name": "noise", "sigma": [25, 25], "clip": False}]
CPU = torch.device("cpu")


def linear_config(clean: Path, out: Path, **changes: object):
    data = {
        "folders": [str(clean)], "transfer": "linear", "patch": 32, "batch": 2,
        "validation_percent": 50, "validation_size": 64, **changes.pop("data", {}),  # type: ignore[dict-item]
    }  # fmt: skip
    values = {"data": data, "model": UNET, "damage": NOISE, "total_steps": 3, "discriminator": {"args": {"ndf": 8}}}
    return config(clean, out, **values | changes)


def test_the_curve_is_that_of_the_standard() -> None:
    # IEC 61966-2-1: mid-gray, the knee, and white.
    values = torch.tensor([0.0, 0.04045, 0.5, 1.0])
    assert torch.allclose(to_linear(values), torch.tensor([0.0, 0.0031308, 0.2140411, 1.0]), atol=1e-6)
    everything = torch.linspace(-0.3, 1.5, 10_001, requires_grad=True)
    assert torch.allclose(from_linear(to_linear(everything)), everything, atol=2e-6)
    from_linear(torch.linspace(-0.3, 1.5, 10_001, requires_grad=True)).sum().backward()
    (gradient,) = torch.autograd.grad(from_linear(everything).sum(), everything)
    assert gradient.isfinite().all()
    assert gradient.max() <= 12.92


def test_batches_are_decoded_after_they_were_degraded(clean: Path) -> None:
    damage = degradation_from(NOISE, "test")
    plain, linear = (
        open_source(
            build(DataConfig, {"folders": [str(clean)], "patch": 32, "transfer": transfer}, where="test"),
            damage, multiple=4, device=CPU, on_event=lambda line: None,
        )
        for transfer in ("srgb", "linear")
    )  # fmt: skip
    for one, other in ((plain[0].batch(0, 0, 4), linear[0].batch(0, 0, 4)), (plain[1][0], linear[1][0])):
        assert torch.allclose(other.clean, to_linear(one.clean), atol=1e-7)
        assert torch.allclose(other.damaged, to_linear(one.damaged), atol=1e-7)
        assert torch.equal(other.mask, one.mask)
        back = in_srgb(other)
        assert torch.allclose(back.damaged, one.damaged, atol=2e-6)
        assert torch.allclose(back.clean, one.clean, atol=2e-6)
    whole = linear[0].batch(0, 7, 4)
    halves = [linear[0].batch(0, 7, 2, first) for first in (0, 2)]
    assert torch.equal(whole.damaged, torch.cat([half.damaged for half in halves])), "whatever the batch"


class Halver(UNet):
    """Halves the light of an image."""

    def __init__(self) -> None:
        super().__init__([4], [1], mask=False)

    def forward(self, image: torch.Tensor, mask: torch.Tensor | None = None, filled: bool = False) -> torch.Tensor:
        return image / 2


def test_a_restorer_decodes_and_encodes() -> None:
    image = torch.rand(1, 3, 24, 24)
    halver = NetworkRestorer("halver", Halver(), ModelRequirements(False, linear=True), "", CPU, "fp32")
    assert torch.allclose(halver(image), from_linear(to_linear(image) / 2), atol=1e-6)
    plain = NetworkRestorer("halver", Halver(), ModelRequirements(False), "", CPU, "fp32")
    assert torch.allclose(plain(image), image / 2)


def test_scores_are_of_srgb(clean: Path) -> None:
    found = build(DataConfig, {"folders": [str(clean)], "patch": 32, "transfer": "linear"}, where="test")
    _, validation = open_source(
        found, degradation_from(NOISE, "test"), multiple=4, device=CPU, on_event=lambda line: None
    )
    batch = replace(validation[0], damaged=validation[0].clean)
    restored, shown = restore_batch(Halver(), batch, "fp32", linear=True)
    expected = from_linear(batch.clean / 2)
    assert (restored - expected).abs().max() <= 0.51 / 255, "rounded to 8 bits, like the clean image"
    assert torch.allclose(restored * 255, (restored * 255).round(), atol=1e-3)
    assert torch.allclose(shown.clean * 255, (shown.clean * 255).round(), atol=1e-3)


def test_a_run_in_linear_light_is_used_in_linear_light(clean: Path, tmp_path: Path) -> None:
    train(linear_config(clean, tmp_path / "run"))
    description = read_description(tmp_path / "run" / "best.safetensors")
    assert description.transfer == "linear"
    assert "image (in linear light)" in "\n".join(model_card(str(tmp_path / "run")).format())
    network, _ = load_generator(tmp_path / "run" / "best.safetensors")
    image = np.random.default_rng(0).integers(0, 255, (40, 52, 3)).astype(np.uint8)
    with torch.no_grad():
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        expected = from_linear(network(to_linear(tensor))).clamp(0, 1)[0].permute(1, 2, 0).numpy() * 255
    restorer = open_restorer(str(tmp_path / "run"), device="cpu", precision="fp32")
    assert np.abs(fix_image(image, model=restorer) - expected).max() <= 0.51
    with pytest.raises(RestoreError, match=r"data\.transfer was linear, is srgb"):
        train(linear_config(clean, tmp_path / "run", data={"transfer": "srgb"}))


def test_a_run_in_linear_light_resumes_bit_for_bit(clean: Path, tmp_path: Path) -> None:
    for name, stops in (("whole", [4]), ("parts", [2, 4])):
        for steps in stops:
            train(linear_config(clean, tmp_path / name, total_steps=steps, optimizer={"schedule": "constant"}, loss={}))
    whole, parts = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_holes_are_filled_in_linear_light_and_the_rest_stays(clean: Path, tmp_path: Path) -> None:
    model = {"builder": "unet", "args": {"widths": [8, 12], "blocks": [1, 1], "prefill": True}}
    damage = "inpaint-medium"
    train(linear_config(clean, tmp_path / "run", model=model, damage=damage, data={"channels": "gray"}))
    restorer = open_restorer(str(tmp_path / "run"), device="cpu", precision="fp32")
    gray = np.random.default_rng(2).integers(0, 255, (48, 60)).astype(np.uint8)
    mask = np.zeros((48, 60), bool)
    mask[20:24, 5:50] = True
    fixed = fix_image(gray, model=restorer, mask=mask)
    assert np.array_equal(fixed[~mask], gray[~mask])
    assert not np.array_equal(fixed[mask], gray[mask])


def test_the_dry_run_shows_srgb(clean: Path, tmp_path: Path) -> None:
    assert preview(linear_config(clean, tmp_path / "run", total_steps=2)).image.exists()


def test_detection_is_not_in_linear_light(clean: Path, tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match=r"data\.transfer: linear has no effect"):
        linear_config(clean, tmp_path, task="detection", best_by="f1", loss={}, discriminator={}, model={})
