"""DRUNet: the names and the output of the published network, and a start near the identity."""

from pathlib import Path

import pytest
import torch

from restore.checkpoints import Description, save_weights
from restore.errors import RestoreError
from restore.export.write import export
from restore.models.drunet import DRUNet
from restore.models.registry import build_generator, count_parameters


def small() -> DRUNet:
    torch.manual_seed(0)
    return DRUNet(widths=(4, 6, 8, 10), blocks=2)


def test_an_untrained_network_changes_little() -> None:
    image = torch.rand(2, 3, 24, 16)
    assert (DRUNet()(image) - image).abs().mean() < 0.1


def test_every_parameter_gets_a_gradient() -> None:
    model = small()
    model(torch.rand(1, 3, 32, 32)).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_the_default_fits_the_budget_and_has_no_bias() -> None:
    assert not any(name.endswith("bias") for name, _ in DRUNet().named_parameters())
    assert count_parameters(DRUNet()) == pytest.approx(4.25e6, rel=0.01)


@pytest.mark.parametrize(
    "args", [{"widths": [8, 16]}, {"blocks": 1}, {"channels": 4}, {"widths": [2, 4, 8, 16]}, {"width": 3}]
)
def test_arguments_out_of_range(args: dict[str, object]) -> None:
    with pytest.raises(RestoreError, match="drunet"):
        build_generator("drunet", args)


@pytest.mark.parametrize("channels", [1, 3])
def test_spandrel_opens_an_export(channels: int, tmp_path: Path) -> None:
    spandrel = pytest.importorskip("spandrel")
    args = {"widths": [4, 6, 8, 10], "blocks": 3, "channels": channels}
    torch.manual_seed(0)
    model = build_generator("drunet", args).eval()
    description = Description(
        builder="drunet", args=args, purpose="a test", needs_mask=False, multiple=8, minimum=8, overlap_px=8,
        **({"channels": 1} if channels == 1 else {}),
    )  # fmt: skip
    weights, out = tmp_path / "own.safetensors", tmp_path / "plain.safetensors"
    save_weights(weights, model.state_dict(), description, half=False)
    notes = export(weights, out, "spandrel").notes
    assert any("opens it as a DRUNet" in note for note in notes)
    opened = spandrel.ModelLoader(device="cpu").load_from_file(out)
    assert opened.architecture.name == "DRUNet"
    image = torch.rand(1, channels, 24, 40)
    with torch.inference_mode():
        assert torch.allclose(opened(image), model(image).clamp(0, 1), atol=1e-6)
