"""Lets the tests import what is beside the package: `integrations/`, without an installation."""

import sys
from pathlib import Path

INTEGRATIONS = Path(__file__).parents[2] / "integrations"
sys.path.insert(0, str(INTEGRATIONS / "spandrel_restore"))
