"""Fails on words that this project has retired: `docs/vocabulary.tsv` lists each with the word to use.

    python tests/vocabulary.py

A line with `vocabulary: ok` is exempt.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = ROOT / "docs" / "vocabulary.tsv"
CHECKED = (
    "restore/**/*.py", "restore/html/assets/*", "restore/weights/*.md", "configs/**/*.yaml",
    "docs/**/*.md", "examples/**/*",
    "integrations/**/*.py", "integrations/**/*.md",
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "data/README.md",
)  # fmt: skip


def retired_words() -> list[tuple[re.Pattern[str], str]]:
    """The patterns of the list, each with the word to use instead."""
    lines = LIST.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [(re.compile(rf"(?<![\w-])(?:{word})(?![\w-])", re.IGNORECASE), instead) for word, instead in rows]


def findings(text: str) -> Iterator[tuple[int, str, str]]:
    """(line number, retired word, word to use) for every retired word in a text."""
    words = retired_words()
    for number, line in enumerate(text.splitlines(), 1):
        if "vocabulary: ok" not in line:
            for pattern, instead in words:
                if found := pattern.search(line):
                    yield number, found[0], instead


def main() -> int:
    """Print every finding; 1 if there is one."""
    failed = False
    for path in sorted({path for pattern in CHECKED for path in ROOT.glob(pattern) if path.is_file()}):
        for number, word, instead in findings(path.read_text(encoding="utf-8")):
            print(f"{path.relative_to(ROOT)}:{number}: {word!r}: write {instead}")
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
