"""Who takes part in a day, with which keys.

Every key is derived from the scenario's seed, so that the same day gives the same ledger; members of a real consortium
draw theirs from the operating system's randomness (``gridpool wallet new``).
"""

import hashlib
from dataclasses import dataclass

from gridpool.ledger.keys import KeyPair
from gridpool.ledger.types import encode

__all__ = ["Cast", "Consortium", "make_cast"]

OPERATORS = 3


@dataclass(frozen=True, slots=True)
class Consortium:
    """What a day needs of a running consortium: its council's keys, how many decide, and who moves market time."""

    council: tuple[KeyPair, ...]
    threshold: int
    clock: KeyPair


@dataclass(frozen=True, slots=True)
class Cast:
    """The members of a day; prosumers have a certificate key and a pseudonymous wallet each."""

    seed: int
    council: tuple[KeyPair, ...]
    deciders: tuple[KeyPair, ...]
    """The council keys that sign each decision: as many as it takes."""
    clock: KeyPair
    node: KeyPair
    utility: KeyPair
    operator: KeyPair
    rivals: tuple[KeyPair, ...]
    """Operators that compete with ``operator`` for transport and core."""
    back_stop: KeyPair
    regulator: KeyPair
    aggregators: tuple[KeyPair, ...]
    banks: tuple[KeyPair, ...]
    """The credit bank of each aggregator."""
    members: tuple[KeyPair, ...]
    wallets: tuple[KeyPair, ...]

    def aggregator_of(self, prosumer: int) -> int:
        """Return which aggregator a prosumer is with at the start of the day."""
        return prosumer % len(self.aggregators)

    def secret(self, *parts: str | int | bytes) -> bytes:
        """Return 32 bytes that only this day's members know: salts, pool keys."""
        return _secret(self.seed, *parts)

    @property
    def roles(self) -> dict[bytes, str]:
        """Public wallet -> the role the report gives it."""
        named = {
            self.utility.public: "utility",
            self.operator.public: "operator",
            self.back_stop.public: "back-stop supplier",
            self.regulator.public: "regulator",
        }
        named |= dict.fromkeys((key.public for key in self.rivals), "operator")
        named |= dict.fromkeys((key.public for key in self.aggregators), "aggregator")
        named |= dict.fromkeys((key.public for key in self.banks), "bank")
        return named | dict.fromkeys((key.public for key in self.wallets), "prosumer")


def make_cast(seed: int, prosumers: int, aggregators: int, *, consortium: Consortium | None = None) -> Cast:
    """Derive every key of a day from its seed; council and clock are the consortium's where one is given."""

    def key(*parts: str | int) -> KeyPair:
        return KeyPair(_secret(seed, *parts))

    council = tuple(key("council", name) for name in ("utility", "operator", "aggregator"))
    return Cast(
        seed=seed,
        council=council if consortium is None else consortium.council,
        deciders=council[:2] if consortium is None else consortium.council[: consortium.threshold],
        clock=key("clock") if consortium is None else consortium.clock,
        node=key("node"),
        utility=key("utility"),
        operator=key("operator"),
        rivals=tuple(key("operator", number) for number in range(2, OPERATORS + 1)),
        back_stop=key("back-stop"),
        regulator=key("regulator"),
        aggregators=tuple(key("aggregator", i) for i in range(aggregators)),
        banks=tuple(key("bank", i) for i in range(aggregators)),
        members=tuple(key("member", i) for i in range(prosumers)),
        wallets=tuple(key("wallet", i) for i in range(prosumers)),
    )


def _secret(seed: int, *parts: str | int | bytes) -> bytes:
    return hashlib.sha256(b"gridpool/day/1\0" + encode((seed, parts))).digest()
