"""The same ledger as for the tests of gates."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "access"))

from access_world import CHAIN, DSO, HUB, AccessWorld, key, now

__all__ = ["CHAIN", "DSO", "HUB", "AccessWorld", "key", "now"]
