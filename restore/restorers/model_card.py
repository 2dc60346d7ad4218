"""Everything about one model, for `restore models NAME`: its facts, and its card if it has one."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from restore.checkpoints import find_weights, is_described, is_path, named_weights, read_description
from restore.errors import RestoreError, did_you_mean
from restore.models.profiling import count_macs
from restore.models.registry import count_parameters
from restore.restorers.base import ModelRequirements
from restore.restorers.detector import Detector, open_detector
from restore.restorers.registry import CLASSICAL_NAMES, ONNX_SUFFIX, list_restorers, open_restorer, parse_model

#: The image size that multiply-accumulate operations are counted at, rounded up to what the network takes.
MACS_AT_PX = 256

#: Keys of a run's config that the card lists.
_TRAINING_KEYS = ("task", "damage", "init", "total_steps", "data.batch", "data.patch", "loss.adversarial", "ema")


@dataclass(frozen=True)
class ModelCard:
    """The facts of a model, and the text that its author wrote about it.

    Attributes:
        name, purpose: as in `restore models`.
        kind: `restorer`, `inpainter` (it needs a mask) or `detector`.
        architecture: builder and arguments, or the network's class; None for classical methods, as all below.
        parameters: their number.
        macs: multiply-accumulate operations at 256×256.
        requirements: of its input.
        threshold, margin_px: of a detector.
        ensemble_with, expected_share: of a detector; see `restore.checkpoints.DetectorSettings`.
        file, size_mb, sha256: of the weights.
        training: some keys of the run's config, if it is beside the weights.
        origin: where fetched weights came from: source, revision, licence; `NAME.origin.json` beside the weights.
        card: Markdown: `NAME.md` beside the weights.
    """

    name: str
    purpose: str
    kind: str
    requirements: ModelRequirements
    architecture: str | None = None
    parameters: int | None = None
    macs: int | None = None
    threshold: float | None = None
    margin_px: int | None = None
    ensemble_with: str | None = None
    expected_share: float | None = None
    file: str | None = None
    size_mb: float | None = None
    sha256: str | None = None
    training: dict[str, Any] | None = None
    origin: dict[str, Any] | None = None
    card: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values, the requirements among them; facts that do not apply are null."""
        values = asdict(self)
        return {"name": values.pop("name"), "purpose": values.pop("purpose"), **values.pop("requirements"), **values}

    def format(self) -> list[str]:
        """As lines of text: the facts, then the card."""
        lines = [f"{self.name}: {self.purpose}", f"  kind          {self.kind}"]
        if self.architecture is not None:
            lines.append(f"  architecture  {self.architecture}")
        if self.parameters is not None:
            macs = "" if self.macs is None else f", {self.macs / 1e9:.2f} GMACs at {MACS_AT_PX}×{MACS_AT_PX}"
            lines.append(f"  size          {self.parameters / 1e6:.2f} M parameters{macs}")
        lines.append(f"  input         {_in_words(self.requirements)}")
        if self.threshold is not None:
            lines.append(f"  mask          probability of at least {self.threshold:g}, dilated by {self.margin_px} px")
        if self.ensemble_with is not None:
            lines.append(f"  ensemble      probabilities are averaged with those of {self.ensemble_with}")
        if self.expected_share is not None:
            lines.append(
                f"  prior         {100 * self.expected_share:g}% damage: probabilities rise in images that look more "
                "damaged, and fall in others"
            )
        if self.file is not None:
            lines += [f"  weights       {self.file} ({self.size_mb:.1f} MB)", f"  sha256        {self.sha256}"]
        if self.training:
            lines.append(f"  training      {', '.join(f'{key}={value}' for key, value in self.training.items())}")
        if self.origin is not None:
            revision = f" at {str(self.origin['revision'])[:12]}" if self.origin.get("revision") else ""
            lines.append(f"  from          {self.origin.get('source')}{revision}")
            lines.append(f"  licence       {self.origin.get('licence') or 'not stated'}")
        return lines if self.card is None else [*lines, "", *self.card.rstrip().splitlines()]


def model_card(name_or_path: str) -> ModelCard:
    """The card of a shipped model, a classical method, a weights file or a run's folder. It is opened on the CPU.

    Raises:
        RestoreError: there is no such model, or it cannot be opened.
    """
    spec = parse_model(name_or_path)
    if spec.source in CLASSICAL_NAMES:
        restorer = open_restorer(spec.source, device="cpu")
        kind = "inpainter" if restorer.requirements.needs_mask else "restorer"
        return ModelCard(spec.name, restorer.purpose, kind, restorer.requirements)
    if not is_path(spec.source) and spec.source not in named_weights():
        known = [info.name for info in list_restorers()]
        raise RestoreError(f"no model is called {spec.source!r}", hint=did_you_mean(spec.source, known))
    path = find_weights(spec.source)
    description = read_description(path) if path.suffix == ".safetensors" and is_described(path) else None
    if description is not None and description.finds is not None:
        model: Any = open_detector(spec.source, device="cpu", precision="fp32", engine="torch")
        kind = "detector"
    else:
        engine = "onnx" if path.suffix.lower() == ONNX_SUFFIX else "torch"
        model = open_restorer(spec.source, device="cpu", precision="fp32", engine=engine)
        kind = "inpainter" if model.requirements.needs_mask else "restorer"
    network: nn.Module | None = model.network
    if network is None:
        architecture = "ONNX graph"
    elif description is None:
        architecture = type(network).__name__
    else:
        architecture = f"{description.builder}({', '.join(f'{k}={v}' for k, v in description.args.items())})"
    card = path.with_suffix(".md")
    return ModelCard(
        name=spec.name,
        purpose=model.purpose,
        kind=kind,
        requirements=model.requirements,
        architecture=architecture,
        parameters=None if network is None else count_parameters(network),
        macs=None if network is None else _macs(network, model.requirements),
        threshold=model.threshold if isinstance(model, Detector) else None,
        margin_px=model.margin_px if isinstance(model, Detector) else None,
        ensemble_with=model.second.name if isinstance(model, Detector) and model.second is not None else None,
        expected_share=model.expected_share if isinstance(model, Detector) else None,
        file=str(path),
        size_mb=path.stat().st_size / 1e6,
        sha256=model.sha256,
        training=_training(path.parent / "config.yaml"),
        origin=_origin(path.with_suffix(".origin.json")),
        card=_without_front_matter(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None,
    )


def _macs(network: nn.Module, requirements: ModelRequirements) -> int | None:
    side = -(-max(MACS_AT_PX, requirements.minimum) // requirements.multiple) * requirements.multiple
    channels = (1 if requirements.gray else 3) + sum(condition.channels for condition in requirements.conditions)
    image: Tensor = torch.full((1, channels, side, side), 0.5)
    arguments = (image, torch.zeros_like(image[:, :1])) if requirements.needs_mask else (image,)
    try:
        return count_macs(lambda: network(*arguments))
    except (RuntimeError, MemoryError, TypeError):  # another project's network, with inputs of its own
        return None


def _origin(file: Path) -> dict[str, Any] | None:
    """Where `restore models get` found the weights; None if they were not fetched."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _without_front_matter(card: str) -> str:
    """A card without the facts in YAML that a hub reads."""
    return re.sub(r"\A---\n.*?\n---\n+", "", card, flags=re.DOTALL)


def _training(config: Path) -> dict[str, Any] | None:
    """Some keys of the config that a run keeps beside its weights; None without one."""
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    found: dict[str, Any] = {}
    for key in _TRAINING_KEYS:
        value = values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, (str, int, float)):
            found[key] = value
    return found or None


def _in_words(requirements: ModelRequirements) -> str:
    image = "gray image" if requirements.gray else "image"
    seen = [image, *(["mask"] if requirements.needs_mask else []), *map(str, requirements.conditions)]
    if requirements.linear:
        seen[0] += " (in linear light)"
    parts = [" and ".join([", ".join(seen[:-1]), seen[-1]]) if len(seen) > 1 else seen[0]]
    if requirements.minimum > 1 or requirements.multiple > 1:
        sides = f"sides from {requirements.minimum} px" if requirements.minimum > 1 else "any size"
        parts.append(f"{sides}, padded to multiples of {requirements.multiple}")
    parts.append(f"tiles overlap by {requirements.overlap_px} px" if requirements.tileable else "not tileable")
    if requirements.scale > 1:
        parts.append(f"enlarges {requirements.scale} times")
    return "; ".join(parts)
