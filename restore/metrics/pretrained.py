"""Pretrained networks of metrics: published weights from a file, the cache or a download; full precision."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import socket
import sys
import warnings
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor

from restore.errors import RestoreError

_TIMEOUT_SECONDS = 10.0


def cache_of(url: str) -> Path:
    """Where torch.hub keeps the download of `url`."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def downloaded(url: str, what: str, option: str) -> Path:
    """The file in torch.hub's cache, downloaded if it is not there yet.

    Args:
        url: address of the file; a hash in its name (`-0123abcd.`) is verified.
        what: name of the network, for error messages.
        option: the command-line option that names a file instead.

    Raises:
        RestoreError: exit code 1; the download failed or timed out.
    """
    cache = cache_of(url)
    if cache.is_file():
        return cache
    published_hash = re.search(r"-([0-9a-f]{8,})\.", cache.name)
    # torch.hub has no timeout parameter, so the default of the process is changed and restored below.
    timeout_before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(
            url,
            os.fspath(cache),
            hash_prefix=published_hash.group(1) if published_hash else None,
            progress=sys.stderr.isatty(),
        )
    except (OSError, HTTPException, RuntimeError) as error:
        reason = getattr(error, "reason", None) or error
        raise RestoreError(
            f"{what} is not on this machine, and the download from {url} failed: {reason}",
            hint=f"name a file with {option}, or copy it to {cache.parent}",
            exit_code=1,
        ) from error
    finally:
        socket.setdefaulttimeout(timeout_before)
    return cache


def read_tensors(path: Path, hint: str) -> dict[str, Tensor]:
    """Read a state dict from a safetensors or PyTorch file without executing code from it.

    Raises:
        RestoreError: exit code 2, with the hint; the file is not a state dict.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols
            state = load_file(path) if is_safetensors else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RestoreError(
            "the file contains more than weights, and only weights are loaded", where=path, hint=hint
        ) from error
    except OSError as error:
        raise RestoreError(f"the file cannot be read: {error.strerror or error}", where=path, hint=hint) from error
    except (
        SafetensorError,
        RuntimeError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        EOFError,
    ) as error:
        reason = str(error).strip().partition("\n")[0]
        raise RestoreError(f"the weights are damaged: {reason}", where=path, hint=hint) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise RestoreError("this is not a state dict", where=path, hint=hint)
    return state


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Disable autocast and TF32, so that a score does not depend on the device or the caller."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, enabled=False))
        if device.type == "cuda":  # a process-wide switch, so it is restored
            tf32 = torch.backends.cudnn.allow_tf32
            stack.callback(setattr, torch.backends.cudnn, "allow_tf32", tf32)
            torch.backends.cudnn.allow_tf32 = False
        yield
