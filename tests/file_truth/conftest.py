"""Fixtures that these tests share with those of `fix`."""

from tests.fix.conftest import one_thread, pictures  # noqa: F401
