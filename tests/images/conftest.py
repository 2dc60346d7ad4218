"""Pillow's warnings on broken metadata are what these tests are about."""

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/images/" in item.path.as_posix():
            item.add_marker(pytest.mark.filterwarnings("ignore::UserWarning:PIL"))
