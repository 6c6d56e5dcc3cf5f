"""The rules members trade by: one file, one market or register."""

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gridpool.ledger.rules import Rules

    RULES: Rules
    """All contracts of this version, built when first asked for."""

__all__ = ["RULES"]


@cache
def _rules() -> "Rules":
    from gridpool.contracts.access import access
    from gridpool.contracts.coins import coins
    from gridpool.contracts.credit import credit
    from gridpool.contracts.devices import devices
    from gridpool.contracts.energy import energy
    from gridpool.contracts.members import members
    from gridpool.contracts.records import records
    from gridpool.contracts.settlement_bundles import settlement
    from gridpool.contracts.slices import slices
    from gridpool.contracts.spectrum import spectrum
    from gridpool.contracts.validators import validators
    from gridpool.ledger.rules import Rules

    return Rules([members, coins, energy, credit, slices, access, spectrum, records, settlement, devices, validators])


def __getattr__(name: str) -> Any:
    if name == "RULES":
        return _rules()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
