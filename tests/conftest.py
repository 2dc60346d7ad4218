"""What all tests share."""

import os
import signal
from collections.abc import Iterator

import pytest
import torch

from restore.signals import STOP_SIGNALS

# What is measured and compared is PyTorch's, on every machine; `tests/engines` chooses others itself.
os.environ.setdefault("RESTORE_ENGINE", "torch")

# Many small networks on few busy cores: threads that wait for each other cost more than they bring.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_handlers() -> Iterator[None]:
    """What the program settles about Ctrl-C, when a test calls it in this process, ends with that test."""
    before = {wish: signal.getsignal(wish) for wish in STOP_SIGNALS}
    yield
    for wish, handler in before.items():
        signal.signal(wish, handler)
