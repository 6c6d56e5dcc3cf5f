"""The contract object that the files of this room register their tables, calls and due work on."""

from typing import Annotated

from msgspec import Meta

from gridpool.ledger.contract import Contract
from gridpool.ledger.types import Text

__all__ = ["Name", "slices"]

slices = Contract("slices")

Name = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[^\\x00]*$")]
"""A name that a member chooses: of a slice, a pool, an offer, a node."""
Note = Text
