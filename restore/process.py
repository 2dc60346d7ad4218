"""Settings of a whole process, made where a program starts: the command line, and the workers of the server."""

from __future__ import annotations

import ctypes
import logging
import os
import warnings
from contextlib import suppress

# Numbers of options in <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def limit_thread_spinning() -> None:
    """Let waiting threads sleep after about 50 µs instead of milliseconds, unless the user has set a policy.

    The threads of a network synchronize hundreds of times per image. If another thread, such as a decoder, needs the
    processor too, spinning threads keep it from the one that they wait for: 30 images of 128×128 took 25 s on two busy
    cores, and 3 s with this limit. OpenMP reads the variable when PyTorch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def reuse_large_blocks() -> None:
    """Let glibc keep large blocks of freed memory for the next tensors, unless the user has set its thresholds.

    By default, glibc returns every block of more than 32 MiB to the kernel at once, and each new one is cleared page by
    page: a network's tensors cost millions of page faults per photograph. Other C libraries have no such setting.
    """
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return
    with suppress(OSError, AttributeError, TypeError):  # no glibc
        set_option = ctypes.CDLL(None).mallopt
        set_option(_M_MMAP_THRESHOLD, 1 << 30)
        set_option(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def quiet_pillow() -> None:
    """Silence Pillow's warnings about broken metadata. Relevant problems become notes or errors of the file.

    Warning filters are process-wide, so programs set them, not the code that reads images.
    """
    for category in (UserWarning, RuntimeWarning):  # `DecompressionBombWarning` is one: `check_size` has its own limit
        warnings.filterwarnings("ignore", category=category, module=r"PIL\..*")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
