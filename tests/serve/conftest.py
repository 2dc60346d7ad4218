"""What the tests of the page share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.html.browser import started


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium."""
    with started() as running:
        yield running
