"""What the cache depends on: the code that decides a result, and nothing else."""

import ast
from pathlib import Path

import pytest

import restore
from restore.benchmark import cache

PACKAGE = Path(restore.__file__).parent

#: What restoring code may import although it is no part of the key: errors, files, and reading of images, whose pixels
#: are part of the key.
NEUTRAL = {"errors", "files", "images", "signals", "config", "hashed_random", "__init__"}


@pytest.fixture
def code_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Hash a module of this text."""
    monkeypatch.setattr(restore, "__file__", str(tmp_path / "__init__.py"))

    def hash_of(text: str) -> str:
        cache.code_hash.cache_clear()
        (tmp_path / "part").mkdir(exist_ok=True)
        (tmp_path / "part" / "module.py").write_text(text)
        return cache.code_hash("part")

    yield hash_of
    cache.code_hash.cache_clear()


CODE = """
class A:
    x = 1

    def f(self):
        return "text"
"""

DOCUMENTED = """\"\"\"A module.\"\"\"


class A:  # a comment
    \"\"\"A class.\"\"\"

    x = 1
    \"\"\"An attribute.\"\"\"

    def f(self):
        \"\"\"A function.\"\"\"
        return \\
            "text"
"""


def test_docstrings_comments_and_layout_keep_results_valid(code_hash) -> None:
    assert code_hash(CODE) == code_hash(DOCUMENTED)


@pytest.mark.parametrize(("old", "new"), [("x = 1", "x = 2"), ('"text"', '"other"'), ("return", "yield")])
def test_other_code_is_another_key(code_hash, old: str, new: str) -> None:
    assert code_hash(CODE) != code_hash(CODE.replace(old, new))


@pytest.mark.parametrize("parts", [cache.RESTORING_CODE, cache.SCORING_CODE])
def test_all_code_that_decides_a_result_is_in_the_key(parts: tuple[str, ...]) -> None:
    known = {part.removesuffix(".py").partition("/")[0] for part in parts} | NEUTRAL
    for part in parts:
        path = PACKAGE / part
        for module in path.rglob("*.py") if path.is_dir() else [path]:
            for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("restore."):
                    used = (node.module or "").split(".")[1]
                    assert used in known, f"{module} uses restore.{used}: add it to the code in the key"
