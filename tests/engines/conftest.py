"""Lets the engines' tests use the ledger's toy contract."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "ledger"))
