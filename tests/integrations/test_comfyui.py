"""The nodes for ComfyUI, loaded as its `load_custom_node` does it, with stand-ins for the modules that they use."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import restore.restorers.detector
from restore.checkpoints import shipped_weights
from restore.restorers.detector import open_detector
from restore.restorers.hybrid_inpainting import HybridInpainter
from restore.restorers.registry import open_restorer
from tests.integrations.conftest import INTEGRATIONS
from tests.integrations.test_spandrel_restore import photograph, with_scratches

pytest.importorskip("spandrel")

import spandrel

PACK = INTEGRATIONS / "comfyui" / "restore_nodes"


class Progress:
    """ComfyUI's progress bar, which counts."""

    last: Progress

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        Progress.last = self

    def update(self, value: int) -> None:
        self.done += value


def stand_ins(base: Path) -> dict[str, ModuleType]:
    """`folder_paths`, `comfy.model_management` and `comfy.utils` with the functions that ComfyUI documents."""
    folder_paths = ModuleType("folder_paths")
    folder_paths.models_dir = str(base / "models")
    folder_paths.folder_names_and_paths = {}

    def add_model_folder_path(name: str, path: str, is_default: bool = False) -> None:
        folder_paths.folder_names_and_paths.setdefault(name, ([], set()))[0].append(path)

    def get_filename_list(name: str) -> list[str]:
        folders, endings = folder_paths.folder_names_and_paths[name]
        return sorted(f for folder in folders for f in os.listdir(folder) if Path(f).suffix in endings)

    def get_full_path_or_raise(name: str, file: str) -> str:
        return next(
            str(Path(f) / file) for f in folder_paths.folder_names_and_paths[name][0] if (Path(f) / file).exists()
        )

    for function in (add_model_folder_path, get_filename_list, get_full_path_or_raise):
        setattr(folder_paths, function.__name__, function)
    management = ModuleType("comfy.model_management")
    management.get_torch_device = management.intermediate_device = lambda: torch.device("cpu")
    management.free_memory = lambda memory_required, device: None
    management.throw_exception_if_processing_interrupted = lambda: None
    utils = ModuleType("comfy.utils")
    utils.ProgressBar = Progress
    comfy = ModuleType("comfy")
    comfy.model_management, comfy.utils = management, utils
    return {"folder_paths": folder_paths, "comfy": comfy, "comfy.model_management": management, "comfy.utils": utils}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The pack in `custom_nodes/restore`, and the weights in `models/restore`."""
    base = tmp_path_factory.mktemp("comfyui")
    place = base / "custom_nodes" / "restore"
    shutil.copytree(PACK, place, ignore=shutil.ignore_patterns("__pycache__"))
    (base / "models" / "restore").mkdir(parents=True)
    for name, path in shipped_weights().items():
        os.link(path, base / "models" / "restore" / f"{name}.safetensors")
    (base / "models" / "restore" / "notes.txt").write_text("no weights")
    modules = stand_ins(base)
    kept = vars(spandrel.MAIN_REGISTRY).copy()
    sys.modules.update(modules)
    name = str(place).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, place / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    for one in [*modules, *(m for m in sys.modules if m.startswith(name))]:
        del sys.modules[one]
    vars(spandrel.MAIN_REGISTRY).update(kept)


def call(pack: ModuleType, node: str, **inputs: Any) -> tuple[Any, ...]:
    """Run a node as ComfyUI does: its function by name, with the inputs that it declares."""
    cls = pack.NODE_CLASS_MAPPINGS[node]
    declared = cls.INPUT_TYPES()
    known = {**declared["required"], **declared.get("optional", {})}
    assert set(inputs) <= set(known)
    for name, (kind, *options) in declared["required"].items():
        if name not in inputs:
            inputs[name] = kind[0] if isinstance(kind, list) else options[0]["default"]
    result = getattr(cls(), cls.FUNCTION)(**inputs)
    assert len(result) == len(cls.RETURN_TYPES)
    return result


def model(pack: ModuleType, name: str, **options: str) -> Any:
    return call(pack, "RestoreLoadModel", model_name=f"{name}.safetensors", **options)[0]


def for_comfy(image: Tensor) -> Tensor:
    return image.movedim(1, -1)


def test_every_node_declares_what_comfyui_asks_for(pack: ModuleType) -> None:
    assert set(pack.NODE_CLASS_MAPPINGS) == set(pack.NODE_DISPLAY_NAME_MAPPINGS)
    for cls in pack.NODE_CLASS_MAPPINGS.values():
        assert cls.CATEGORY == "restore"
        assert callable(getattr(cls, cls.FUNCTION))
        for group in cls.INPUT_TYPES().values():
            for name, (kind, *options) in group.items():
                assert isinstance(kind, list) or kind in ("IMAGE", "MASK", "RESTORE_MODEL", "INT", "FLOAT"), name
                assert not options or options[0]["min"] <= options[0]["default"] <= options[0]["max"]
    files = pack.NODE_CLASS_MAPPINGS["RestoreLoadModel"].INPUT_TYPES()["required"]["model_name"][0]
    assert files == sorted(f"{name}.safetensors" for name in shipped_weights())


def test_repair_is_that_of_the_command(pack: ModuleType) -> None:
    image, _ = photograph(61, 99)
    out = call(pack, "RestoreRepair", model=model(pack, "photo"), image=for_comfy(image))[0]
    ours = open_restorer("photo", device="cpu", precision="fp32")(image)
    assert out.shape == (1, 61, 99, 3)
    assert torch.allclose(out, for_comfy(ours), rtol=0, atol=1e-6)
    assert (Progress.last.done, Progress.last.total) == (1, 1)


def test_tiles_agree_with_the_whole_image(pack: ModuleType) -> None:
    image, mask = photograph(96, 208)
    photo, inpaint = model(pack, "photo"), model(pack, "inpaint")
    whole = call(pack, "RestoreRepair", model=photo, image=for_comfy(image), tile_px=0)[0]
    tiled = call(pack, "RestoreRepair", model=photo, image=for_comfy(image), tile_px=64)[0]
    assert (Progress.last.done, Progress.last.total) == (8, 8)
    assert 0 < (tiled - whole).abs().max() < 1 / 255
    filled = [
        call(pack, "RestoreFill", model=inpaint, image=for_comfy(image), mask=mask[:, 0], tile_px=t)[0] for t in (0, 64)
    ]
    assert (filled[0] - filled[1]).abs().max() < 1 / 255


def test_repair_in_a_region_keeps_the_rest_and_alpha(pack: ModuleType) -> None:
    image, mask = photograph(40, 48)
    given = torch.cat([for_comfy(image), torch.full((1, 40, 48, 1), 0.25)], -1)
    out = call(pack, "RestoreRepair", model=model(pack, "photo"), image=given, mask=mask[0, 0])[0]
    assert torch.equal(out[..., 3], given[..., 3])
    changed = (out != given).any(-1)
    assert changed.any()
    assert not changed[mask[:, 0] == 0].any()


def test_masks_are_those_of_the_command_with_one_network(pack: ModuleType) -> None:
    scratched = with_scratches(photograph(112, 128)[0])
    mask, probability = call(pack, "RestoreFindDamage", model=model(pack, "detector"), image=for_comfy(scratched))
    detector = open_detector(device="cpu", precision="fp32")
    detector.second = None  # a node has one network
    array = np.ascontiguousarray(scratched[0].permute(1, 2, 0).numpy())
    assert torch.allclose(probability[0], torch.from_numpy(detector.probability(array)), rtol=0, atol=1e-5)
    assert np.array_equal(mask[0].numpy(), detector.detect(array))
    assert mask.sum() > 300
    wider = call(
        pack, "RestoreFindDamage", model=model(pack, "detector"), image=for_comfy(scratched), margin_px=3, threshold=0.7
    )[0]
    assert np.array_equal(wider[0].numpy(), detector.adjusted(threshold=0.7, margin_px=3).detect(array))


def test_large_images_are_searched_at_two_levels_as_the_command_does(
    pack: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (restore.restorers.detector, pack.nodes):
        monkeypatch.setattr(module, "ALL_VIEWS_MAX_PX", 10_000)
        monkeypatch.setattr(module, "COARSE_MAX_PX", 10_000)
    scratched = with_scratches(photograph(224, 256)[0])
    mask, probability = call(pack, "RestoreFindDamage", model=model(pack, "detector"), image=for_comfy(scratched))
    detector = open_detector(device="cpu", precision="fp32")
    detector.second = None
    array = np.ascontiguousarray(scratched[0].permute(1, 2, 0).numpy())
    likely = torch.from_numpy(detector.probability(array))
    assert torch.allclose(probability[0], likely, rtol=0, atol=1e-3)
    assert mask.sum() > 300
    monkeypatch.undo()
    assert not torch.allclose(torch.from_numpy(detector.probability(array)), likely, rtol=0, atol=0.1)


def test_the_threshold_is_that_of_the_weights_file(pack: ModuleType) -> None:
    weights = shipped_weights()["detector"]
    with safe_open(weights, framework="pt") as file:
        description = json.loads(file.metadata()["restore"])
    description["finds"]["threshold"] = 0.05
    place = Path(sys.modules["folder_paths"].models_dir) / "restore" / "other.safetensors"
    save_file(load_file(weights), place, {"restore": json.dumps(description)})
    scratched = for_comfy(with_scratches(photograph(112, 128)[0]))
    mask, probability = call(pack, "RestoreFindDamage", model=model(pack, "other"), image=scratched)
    place.unlink()
    assert torch.equal(mask, (probability >= 0.05).float())
    assert mask.sum() > (probability >= 0.5).sum()


def test_fill_is_that_of_the_network_and_keeps_the_rest(pack: ModuleType) -> None:
    image, mask = photograph(61, 99)
    out = call(pack, "RestoreFill", model=model(pack, "inpaint"), image=for_comfy(image), mask=mask[:, 0])[0]
    hybrid = open_restorer("inpaint", device="cpu", precision="fp32")
    assert isinstance(hybrid, HybridInpainter)
    assert torch.allclose(out, for_comfy(hybrid.filler(image, mask)), rtol=0, atol=1e-6)
    assert torch.equal(out[mask[:, 0] == 0], for_comfy(image)[mask[:, 0] == 0])


def test_batches_share_a_mask_or_have_their_own(pack: ModuleType) -> None:
    image, mask = photograph(32, 40)
    batch = torch.cat([for_comfy(image), for_comfy(image).flip(1)])
    filler = model(pack, "inpaint")
    shared = call(pack, "RestoreFill", model=filler, image=batch, mask=mask[0, 0])[0]
    own = call(pack, "RestoreFill", model=filler, image=batch, mask=mask[:, 0].expand(2, -1, -1))[0]
    assert torch.equal(shared, own)
    first = call(pack, "RestoreFill", model=filler, image=batch[:1], mask=mask[:, 0])[0]
    assert torch.equal(shared[:1], first)
    with pytest.raises(ValueError, match="3 masks for 2 images"):
        call(pack, "RestoreFill", model=filler, image=batch, mask=mask[:, 0].expand(3, -1, -1))


def test_the_empty_mask_of_load_image_changes_nothing(pack: ModuleType) -> None:
    image, _ = photograph(40, 48)
    out = call(pack, "RestoreFill", model=model(pack, "inpaint"), image=for_comfy(image), mask=torch.zeros(1, 64, 64))[
        0
    ]
    assert torch.equal(out, for_comfy(image))


def test_the_example_is_a_prompt_that_repairs_an_old_photograph(pack: ModuleType) -> None:
    prompt = json.loads((PACK / "example_workflows" / "old_photograph.json").read_text())
    image, _ = photograph(112, 128)
    scratched = with_scratches(image)
    results: dict[str, tuple[Any, ...]] = {}

    def result(number: str) -> tuple[Any, ...]:
        """As ComfyUI runs a prompt: a list as input is the output of another node."""
        if number not in results:
            node, inputs = prompt[number]["class_type"], prompt[number]["inputs"]
            values = {k: result(v[0])[v[1]] if isinstance(v, list) else v for k, v in inputs.items()}
            stand_in = {"LoadImage": (for_comfy(scratched),), "SaveImage": (values.get("images"),)}
            results[number] = stand_in[node] if node in stand_in else call(pack, node, **values)
        return results[number]

    out = result(next(number for number, one in prompt.items() if one["class_type"] == "SaveImage"))[0]
    assert out.shape == (1, 112, 128, 3)
    damaged = (scratched != image).any(1)
    before, after = ((one - for_comfy(image)).abs()[damaged].mean() for one in (for_comfy(scratched), out))
    assert after < before / 3


def test_half_precision_and_other_models(pack: ModuleType) -> None:
    image, mask = photograph(32, 40)
    whole = call(pack, "RestoreRepair", model=model(pack, "photo"), image=for_comfy(image))[0]
    half = call(pack, "RestoreRepair", model=model(pack, "photo", precision="bf16"), image=for_comfy(image))[0]
    assert half.dtype == torch.float32
    assert (half - whole).abs().max() < 2 / 255
    for node, wrong in (("RestoreRepair", "inpaint"), ("RestoreRepair", "detector"), ("RestoreFindDamage", "photo")):
        with pytest.raises(ValueError, match="this model does not"):
            call(pack, node, model=model(pack, wrong), image=for_comfy(image))
    with pytest.raises(ValueError, match="does not fill holes"):
        call(pack, "RestoreFill", model=model(pack, "photo"), image=for_comfy(image), mask=mask[:, 0])
