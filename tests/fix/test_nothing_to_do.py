"""A run that has nothing to do costs no more than its plan."""

from __future__ import annotations

import subprocess
import sys

from tests.fix.conftest import photo, save

PROGRAM = """
import sys
from restore.cli.main import main
sys.argv = ["restore", "fix", "in", "out", "--skip-existing"]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print("torch" in sys.modules)
"""


def test_no_network_library_is_loaded(tmp_path):
    for folder in ("in", "out"):
        save(tmp_path / folder / "a.png", photo(4, 4))
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # The process that supervises the run prints a line, too.
    assert set(done.stdout.split()) == {"False"}
