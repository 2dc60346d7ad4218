"""Fetch weights by the name of a repository on a hub, or by an address, into the user's folder of models."""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from restore.checkpoints import is_described, is_path, models_dir, shipped_weights
from restore.errors import RestoreError, printable
from restore.files import write_atomically
from restore.hub.download import check_address, download, read_small, unreachable
from restore.restorers.network import sha256_of
from restore.restorers.registry import CLASSICAL_NAMES

INSTALL = 'pip install "restore-toolkit[hub]"'

#: Files larger than this are not fetched, unless a larger limit is given.
MAX_MB = 2048
_MAX_TEXT_BYTES = 1 << 20

#: Names that mean something else after `restore models`.
_COMMANDS = ("get", "push", "card")
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_LICENCE_FILES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE", "LICENCE.md", "LICENCE.txt", "COPYING")


@dataclass(frozen=True)
class Origin:
    """Where fetched weights came from: `NAME.origin.json` beside them.

    Attributes:
        source: the repository, or the address without its query.
        file: in the repository; None for an address.
        revision: commit of the repository; None for an address.
        sha256: of the weights.
        licence: as the repository states it; None: it does not.
    """

    source: str
    file: str | None
    revision: str | None
    sha256: str
    licence: str | None


@dataclass(frozen=True)
class Fetched:
    """A model that has been fetched.

    Attributes:
        name: for `--model`.
        path: of the weights.
        origin: where they came from.
        notes: what the user should know.
    """

    name: str
    path: Path
    origin: Origin
    notes: tuple[str, ...] = ()


def fetch_model(
    source: str,
    *,
    sha256: str | None = None,
    name: str | None = None,
    file: str | None = None,
    revision: str | None = None,
    max_mb: float = MAX_MB,
    token: str | bool | None = None,
    overwrite: bool = False,
) -> Fetched:
    """Fetch weights, with the card and the licence of their repository, into `models_dir()`.

    Args:
        source: `OWNER/NAME` on the hub, or the https address of a `.safetensors` file.
        sha256: of the weights, in hex, as their author states it. Required for an address; for the hub, None: what the
            hub itself states.
        name: for `--model`; None: that of the repository or file.
        file: of the repository; None: its only `.safetensors`, or `model.safetensors`.
        revision: branch, tag or commit of the repository; None: its main branch.
        max_mb: a larger file is refused.
        token: of the hub; None: that of `hf auth login` or HF_TOKEN, if there is one; False: none.
        overwrite: replace a fetched model of the same name.

    Raises:
        RestoreError: exit code 2: the arguments are wrong, or the name is taken. Exit code 1: the model cannot be
            fetched, or is not the one that was named. Nothing is kept then.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise RestoreError("a SHA-256 has 64 hexadecimal digits", where=f"--sha256 {sha256}")
    if "://" in source:
        return _fetch_address(source, sha256, name, file or revision, max_mb, overwrite)
    if not _REPOSITORY.fullmatch(source):
        raise RestoreError(
            "is neither OWNER/NAME on the hub nor the https address of a file", where=f"{printable(source)!r}"
        )
    return _fetch_repository(source, sha256, name, file, revision, max_mb, token, overwrite)


def origin_of(weights: Path) -> Origin | None:
    """Where fetched weights came from; None if nothing readable says it."""
    try:
        return Origin(**json.loads(weights.with_suffix(".origin.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _fetch_address(
    url: str, sha256: str | None, name: str | None, extra: str | None, max_mb: float, overwrite: bool
) -> Fetched:
    check_address(url)
    file = unquote(urlsplit(url).path.rpartition("/")[2])
    if not file.endswith(".safetensors"):
        raise RestoreError("only .safetensors files are fetched, which cannot hold code", where=url)
    if extra is not None:
        raise RestoreError("--file and --revision are for repositories", where=url)
    if sha256 is None:
        raise RestoreError(
            "an address needs --sha256, the file's SHA-256 as its author states it", where=url,
            hint="without it, nothing says that the file is the right one",
        )  # fmt: skip
    target = _target(name or file.removesuffix(".safetensors"))
    if (there := _already(target, sha256, overwrite)) is not None:
        return there
    check = _Check(url)
    digest = download(
        url, target, sha256=sha256, max_bytes=int(max_mb * 1e6), check=check, overwrite=overwrite
    )  # fmt: skip
    # A query may hold a password or a signature.
    origin = Origin(urlsplit(url)._replace(query="", fragment="").geturl(), None, None, digest, None)
    _write_beside(target, None, None, origin)
    return Fetched(target.stem, target, origin, (*check.notes, "the address states no licence: ask the author"))


def _fetch_repository(
    repository: str,
    sha256: str | None,
    name: str | None,
    file: str | None,
    revision: str | None,
    max_mb: float,
    token: str | bool | None,
    overwrite: bool,
) -> Fetched:
    hub = hub_library()
    target = _target(name or repository.partition("/")[2].replace(".", "-"))
    if sha256 is not None and (there := _already(target, sha256, overwrite)) is not None:
        return there  # also without a connection
    api = hub.HfApi(endpoint=endpoint(), token=token)
    with hub_errors(api.endpoint, repository):
        info = api.model_info(repository, revision=revision, files_metadata=True)
    sizes = {one.rfilename: one for one in info.siblings or ()}
    file = _weights_file(repository, list(sizes), file)
    stated = getattr(sizes[file].lfs, "sha256", None)
    licence = _licence(info)
    if (there := _already(target, sha256 or stated, overwrite)) is not None:
        return there
    sent_token = None if token is False else token if isinstance(token, str) else hub.get_token()

    def address(one: str) -> str:
        return str(hub.hf_hub_url(repository, one, revision=info.sha, endpoint=api.endpoint))

    def text(one: str | None) -> bytes | None:
        return None if one is None else read_small(address(one), max_bytes=_MAX_TEXT_BYTES, token=sent_token)

    card = text("README.md" if "README.md" in sizes else None)
    terms = text(next((one for one in _LICENCE_FILES if one in sizes), None))
    check = _Check(f"{repository}/{file}")
    digest = download(
        address(file),
        target,
        sha256=sha256 or stated,
        max_bytes=int(max_mb * 1e6),
        check=check,
        token=sent_token,
        overwrite=overwrite,
    )
    origin = Origin(repository, file, info.sha, digest, licence)
    _write_beside(target, card, terms, origin)
    notes = check.notes if licence else (*check.notes, "the repository states no licence: ask its owner")
    return Fetched(target.stem, target, origin, tuple(notes))


class _Check:
    """Checks that a file is a whole safetensors file, and notes what it lacks."""

    def __init__(self, where: str) -> None:
        self.where, self.notes = where, list[str]()

    def __call__(self, path: Path) -> None:
        try:
            described = is_described(path)
        except RestoreError as error:
            raise RestoreError(error.what, where=self.where, hint="nothing was kept", exit_code=1) from error
        if not described:
            self.notes.append("it is another project's network, which needs spandrel (the extra zoo)")


def _target(name: str) -> Path:
    """The place of a model in the user's folder.

    Raises:
        RestoreError: nothing can go by this name.
    """
    hint = "choose another name with --as"
    if not re.fullmatch(r"\w[\w-]*", name, re.ASCII) or is_path(name):
        raise RestoreError("the name of a model has letters, digits, - and _", where=f"{printable(name)!r}", hint=hint)
    if name in shipped_weights() or name in CLASSICAL_NAMES or name in _COMMANDS:
        raise RestoreError("this name is taken", where=name, hint=hint)
    return models_dir() / f"{name}.safetensors"


def _already(target: Path, sha256: str | None, overwrite: bool) -> Fetched | None:
    """The model that is there already; None if there is none, or another one that may be replaced.

    Raises:
        RestoreError: another one is there.
    """
    if not target.exists():
        return None
    found = sha256_of(target)
    if found is not None and sha256 is not None and found == sha256.lower():
        origin = origin_of(target) or Origin("an earlier call", None, None, found, None)
        return Fetched(target.stem, target, origin, ("it was there already",))
    if not overwrite:
        raise RestoreError(
            "another model has this name", where=target, hint="choose one with --as, or add --overwrite"
        )  # fmt: skip
    return None


def _weights_file(repository: str, files: list[str], wanted: str | None) -> str:
    weights = sorted(one for one in files if one.endswith(".safetensors"))
    if wanted is not None:
        if wanted not in weights:
            listed = ", ".join(map(printable, weights)) or "none"
            raise RestoreError(f"has no weights file {wanted!r}", where=repository, hint=f"there are: {listed}")
        return wanted
    if "model.safetensors" in weights:
        return "model.safetensors"
    if len(weights) == 1:
        return weights[0]
    if not weights:
        raise RestoreError("holds no .safetensors file", where=repository, exit_code=1)
    listed = ", ".join(map(printable, weights))
    raise RestoreError("holds several weights files", where=repository, hint=f"choose one with --file: {listed}")


def _licence(info: Any) -> str | None:
    card = info.card_data or {}
    stated = card.get("license")
    if isinstance(stated, str) and stated == "other":
        stated = card.get("license_name") or stated
    return printable(stated) if isinstance(stated, str) and stated else None


def _write_beside(target: Path, card: bytes | None, terms: bytes | None, origin: Origin) -> None:
    """Write the card, the licence and the origin of a model that was fetched; without them, it does not stay."""
    beside = {".md": card, ".LICENSE": terms, ".origin.json": json.dumps(asdict(origin), indent=1).encode()}
    try:
        for ending, content in beside.items():
            if content is None:
                target.with_suffix(ending).unlink(missing_ok=True)  # of a model that was replaced
            else:
                write_atomically(target.with_suffix(ending), content)
    except BaseException:
        for ending in (target.suffix, *beside):
            target.with_suffix(ending).unlink(missing_ok=True)
        raise


# The hub's library.


def endpoint() -> str | None:
    """The hub's address from the environment, checked; None: the library's own."""
    address = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    if address:
        check_address(address)
    return address or None


def hub_library() -> Any:
    """The package `huggingface_hub`.

    Raises:
        RestoreError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise RestoreError("models on a hub need the package huggingface_hub", hint=INSTALL) from error
    return huggingface_hub


@contextmanager
def hub_errors(address: str, repository: str) -> Iterator[None]:
    """Turn the errors of the hub's library into one line each."""
    errors: Any = importlib.import_module("huggingface_hub.errors")
    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise RestoreError("the hub cannot be reached: HF_HUB_OFFLINE is set", exit_code=1) from error
    except errors.GatedRepoError as error:
        raise RestoreError(
            "asks for its conditions to be accepted on the hub", where=repository, exit_code=1
        ) from error
    except errors.RevisionNotFoundError as error:
        raise RestoreError("has no such revision", where=repository) from error
    except errors.RepositoryNotFoundError as error:
        private = "if it is private, log in with `hf auth login`, or set HF_TOKEN"
        raise RestoreError("there is no such repository on the hub", where=repository, hint=private) from error
    except errors.LocalTokenNotFoundError as error:
        raise RestoreError("the hub wants to know who asks", hint="`hf auth login`, or set HF_TOKEN") from error
    except errors.HFValidationError as error:
        raise RestoreError("is no name of a repository", where=repository) from error
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        hint = "log in with `hf auth login`, or set HF_TOKEN" if code in (401, 403) else None
        raise RestoreError(f"the hub answered {code}", where=repository, hint=hint, exit_code=1) from error
    except (errors.HTTPError, ConnectionError, TimeoutError) as error:  # of the library below: no answer
        raise unreachable(address) from error
