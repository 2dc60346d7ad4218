"""Weights as the hub's library sees a model: `HubModel.from_pretrained`, `push_to_hub`, `save_pretrained`.

This module needs the package `huggingface_hub` (the extra `hub`).
"""

from __future__ import annotations

import re
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, ModelHubMixin, constants

from restore.checkpoints import Description, find_weights, is_described, models_dir, read_description, shipped_weights
from restore.errors import RestoreError
from restore.hub.fetch import endpoint, fetch_model, hub_errors, origin_of
from restore.restorers.base import Restorer
from restore.restorers.detector import Detector, open_detector
from restore.restorers.registry import open_restorer

WEIGHTS = "model.safetensors"
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n+", re.DOTALL)


class HubModel(ModelHubMixin, library_name="restore-toolkit", pipeline_tag="image-to-image"):
    """Weights that can be pushed to a hub and come from one, with their card and licence.

    Args:
        weights: a weights file of this package.

    Raises:
        RestoreError: it is not one.
    """

    def __init__(self, weights: Path) -> None:
        if not is_described(weights):
            raise RestoreError("only weights of this package are pushed", where=weights)
        self.weights = weights
        self.description: Description = read_description(weights)
        #: The licence's name, as the hub spells it; it is written into the card.
        self.licence: str | None = _stated_licence(weights)

    def open(self, *, device: str = "auto", precision: str = "auto", engine: str = "auto") -> Restorer | Detector:
        """The restorer, or the detector; see `restore.open_restorer` and `restore.open_detector`."""
        name = self.weights.stem if self.weights.parent == models_dir() else str(self.weights)
        opened = open_restorer if self.description.finds is None else open_detector
        return opened(name, device=device, precision=precision, engine=engine)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        sha256: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        **options: Any,
    ) -> HubModel:
        """Fetch a model into the folder of `restore models get`, or take it from there.

        Args:
            pretrained_model_name_or_path: `OWNER/NAME`; or a folder that `save_pretrained` wrote, or any name or file
                that `--model` takes.
            sha256, revision, token: see `restore.hub.fetch.fetch_model`; `name` and `file` may be given, too.
            force_download: fetch it again.
            local_files_only: fetch nothing; use what is there.
            options: others of `fetch_model`.

        Raises:
            RestoreError: see `fetch_model`.
        """
        source = str(pretrained_model_name_or_path)
        if Path(source).is_dir():
            return cls(Path(source) / WEIGHTS)
        if "/" not in source or Path(source).is_file():
            return cls(find_weights(source))
        if local_files_only:
            name = options.get("name") or source.partition("/")[2].replace(".", "-")
            return cls(find_weights(name))
        fetched = fetch_model(
            source, sha256=sha256, revision=revision, token=token, overwrite=force_download, **options
        )  # fmt: skip
        return cls(fetched.path)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Push weights, card and licence in one commit; arguments are those of `ModelHubMixin.push_to_hub`.

        Returns:
            The address of the commit.

        Raises:
            RestoreError: the licence is not known (`licence`), or the hub does not take it.
        """
        if self.licence is None:
            raise RestoreError(
                "the licence of these weights is not known", where=self.weights, hint="state it with --license"
            )
        address = endpoint() or constants.ENDPOINT
        api = HfApi(endpoint=address, token=options.pop("token", None))
        private, message = options.pop("private", None), options.pop("commit_message", "Add weights")
        with hub_errors(address, repo_id):
            repository = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id
            with tempfile.TemporaryDirectory() as folder:
                self.save_pretrained(folder)
                return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message, **options))

    def _save_pretrained(self, save_directory: Path) -> None:
        shutil.copyfile(self.weights, save_directory / WEIGHTS)
        (save_directory / "README.md").write_text(self._card(), encoding="utf-8")
        terms = _licence_text(self.weights)
        if terms is not None:
            (save_directory / "LICENSE").write_text(terms, encoding="utf-8")
        credits = self.weights.with_name("CREDITS.tsv")
        if credits.is_file():  # photographs whose licences ask for it
            shutil.copyfile(credits, save_directory / "CREDITS.tsv")

    def _card(self) -> str:
        """The card beside the weights, or a line; with the facts that the hub reads in front."""
        beside = self.weights.with_suffix(".md")
        text = beside.read_text(encoding="utf-8") if beside.is_file() else f"# {self.weights.stem}\n"
        if not beside.is_file() and self.description.purpose:
            text += f"\n{self.description.purpose}\n"
        found = _FRONT_MATTER.match(text)
        facts = dict(_front_matter(text))
        facts.setdefault("library_name", "restore-toolkit")
        facts.setdefault("pipeline_tag", "mask-generation" if self.description.finds else "image-to-image")
        if self.licence is not None:
            facts["license"] = self.licence
        body = text[found.end() :] if found else text
        return f"---\n{yaml.safe_dump(facts, sort_keys=True, allow_unicode=True)}---\n\n{body}"


def _front_matter(text: str) -> dict[str, Any]:
    """The facts in front of a card."""
    found = _FRONT_MATTER.match(text)
    try:
        facts = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _stated_licence(weights: Path) -> str | None:
    """What a fetched model's origin, its card, or the package says."""
    if weights in shipped_weights().values():
        return "apache-2.0"
    origin = origin_of(weights)
    if origin is not None and origin.licence is not None:
        return origin.licence
    for card in (weights.with_suffix(".md"), weights.with_name("README.md")):
        if card.is_file():
            stated = _front_matter(card.read_text(encoding="utf-8", errors="replace")).get("license")
            if isinstance(stated, str):
                return stated
    return None


def _licence_text(weights: Path) -> str | None:
    """The terms beside the weights; of shipped weights, those of the package."""
    for beside in (weights.with_suffix(".LICENSE"), weights.with_name("LICENSE")):
        if beside.is_file():
            return beside.read_text(encoding="utf-8", errors="replace")
    if weights not in shipped_weights().values():
        return None
    try:
        files = metadata.files("restore-toolkit") or []
    except metadata.PackageNotFoundError:
        return None
    found = next((one for one in files if one.name == "LICENSE"), None)
    return None if found is None else found.read_text(encoding="utf-8")
