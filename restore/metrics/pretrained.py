"""Networks that metrics stand on: their published weights, from a file, a cache or a download; and how they compute."""

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

_SECONDS_WITHOUT_AN_ANSWER = 10.0


def cache_of(url: str) -> Path:
    """The file that a download leaves, and that is used from then on."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def downloaded(url: str, what: str, option: str) -> Path:
    """The file in torch.hub's cache, downloaded if it is not there yet.

    Args:
        url: where it is published; a hash in its name (`-0123abcd.`) is checked.
        what: the network, for the complaint.
        option: of the command line, that gives a file instead.

    Raises:
        RestoreError: exit code 1; it cannot be had, which takes no longer than a short timeout.
    """
    cache = cache_of(url)
    if cache.is_file():
        return cache
    published_hash = re.search(r"-([0-9a-f]{8,})\.", cache.name)
    timeout_before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS_WITHOUT_AN_ANSWER)
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
            f"{what} is not on this machine, and {url} gave no file: {reason}",
            hint=f"give one with {option} FILE, or put it into {cache.parent}",
            exit_code=1,
        ) from error
    finally:
        socket.setdefaulttimeout(timeout_before)
    return cache


def read_tensors(path: Path, hint: str) -> dict[str, Tensor]:
    """A state dict from safetensors or from a PyTorch file; nothing in it can run code.

    Raises:
        RestoreError: exit code 2, with the hint; it is no such file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle's dialects
            state = load_file(path) if is_safetensors else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RestoreError("this is no file of weights alone; nothing else is loaded", where=path, hint=hint) from error
    except OSError as error:
        raise RestoreError(f"cannot be read: {error.strerror or error}", where=path, hint=hint) from error
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
    """No autocast of a caller, and no TF32: a score must not depend on the device."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, enabled=False))
        if device.type == "cuda":  # the switch is the whole process's: on a CPU leave it alone
            tf32 = torch.backends.cudnn.allow_tf32
            stack.callback(setattr, torch.backends.cudnn, "allow_tf32", tf32)
            torch.backends.cudnn.allow_tf32 = False
        yield
