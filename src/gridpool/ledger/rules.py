"""The rules of a chain: a version and the contracts that make it up, with the decoders they imply."""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Union

import msgspec

from gridpool.errors import RefusedInput
from gridpool.ledger.clock import clock
from gridpool.ledger.contract import LEDGER_TABLES, Context, Contract
from gridpool.ledger.state import State
from gridpool.ledger.table import Table
from gridpool.ledger.types import Due, Event

__all__ = ["Rules"]


class Rules:
    """A rules version: its contracts, and what follows from them. A node may know several."""

    def __init__(self, contracts: Iterable[Contract], *, version: int = 1) -> None:
        self.version = version
        self.contracts = (clock, *contracts)
        self.tables: dict[str, Table[Any, Any]] = {
            table.name: table for table in (*LEDGER_TABLES, *(t for c in self.contracts for t in c.tables))
        }
        self.call_handlers: dict[type, Callable[[Context, Any], None]] = {
            kind: function for c in self.contracts for kind, function in c.calls.items()
        }
        self.due_handlers: dict[type, Callable[[Context, Any], None]] = {
            kind: function for c in self.contracts for kind, function in c.dues.items()
        }
        self.admissions = tuple(check for c in self.contracts for check in c.admissions)
        self.misbehaviours = tuple(function for c in self.contracts for function in c.misbehaviours)

    @cached_property
    def call_union(self) -> Any:
        """The union type of all calls."""
        return Union[tuple(self.call_handlers)]  # noqa: UP007 (built at run time)

    @cached_property
    def due_decoder(self) -> Callable[[bytes], Due]:
        """Decodes work that fell due."""
        return msgspec.msgpack.Decoder(Union[tuple(self.due_handlers)]).decode  # noqa: UP007

    @cached_property
    def event_union(self) -> Any:
        """The union type of all events."""
        kinds = tuple(kind for c in self.contracts for kind in c.events)
        return Union[kinds] if kinds else Event  # noqa: UP007

    @cached_property
    def event_decoder(self) -> Callable[[bytes], Event]:
        """Decodes an event of a receipt."""
        return msgspec.msgpack.Decoder(self.event_union).decode

    def table(self, name: str) -> Table[Any, Any]:
        """Return the table called ``name``; raises RefusedInput naming the tables there are."""
        if name not in self.tables:
            raise RefusedInput(f"no table {name!r}; the tables are {', '.join(sorted(self.tables))}")
        return self.tables[name]

    def name_key(self, key: bytes) -> tuple[str, str]:
        """Return table and key of a full state key, as people write them; unknown tables and keys as hex."""
        name, _, rest = key.partition(b"\0")
        table = self.tables.get(name.decode("ascii", "replace"))
        if table is None:
            return "state", key.hex()
        try:
            return table.name, table.key_text(table.decode_key(key))
        except (ValueError, UnicodeDecodeError):
            return table.name, rest.hex()

    def broken_invariants(self, state: State) -> list[str]:
        """Return ``contract.invariant`` of each invariant that does not hold."""
        return [
            f"{contract.name}.{getattr(invariant, '__name__', 'invariant')}"
            for contract in self.contracts
            for invariant in contract.invariants
            if not invariant(state)
        ]
