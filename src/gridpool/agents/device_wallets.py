"""Which of its wallets a vehicle shows where: another one behind each area's border, so that a trip leaves no thread.

What makes two wallets look like one on the ledger is not their keys but what is done with them: coins sent from one to
the other, deposits opened one after the other, settlements at the hour of the visit. So wallets are funded and deposits
opened beforehand, alike for all vehicles of a pool and carried by its aggregator in order of address
(``carried_deposits``), and whoever was paid settles later, in order of address too.
"""

from collections.abc import Iterable, Iterator, Sequence

from gridpool.agents.aggregator import bundles
from gridpool.agents.wallet_keys import WalletKeys
from gridpool.contracts.devices import OpenDeposit
from gridpool.errors import RefusedInput
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.transaction import Delegated, delegate
from gridpool.ledger.types import Call

__all__ = ["AreaWallets", "carried_deposits"]


class AreaWallets:
    """The wallets of one trip, by area: each border brings the next number, and none is shown in two areas."""

    def __init__(self, keys: WalletKeys, numbers: Sequence[int]) -> None:
        """Use the wallets with ``numbers``, in this order; they should be registered and funded."""
        if len(set(numbers)) != len(numbers):
            raise RefusedInput("a wallet's number stands twice; each area needs a wallet of its own")
        self._keys = keys
        self._numbers = tuple(numbers)
        self._next = 0
        self._area: str | None = None

    def enter(self, area: str) -> KeyPair:
        """Return the wallet to show in ``area``: the same until the next border, then never again.

        Raises RefusedInput where all wallets were shown; register more, or wait for the next trip.
        """
        if area != self._area:
            if self._next >= len(self._numbers):
                raise RefusedInput(f"all {len(self._numbers)} wallets of this trip were shown; register more")
            self._area = area
            self._next += 1
        return self._keys.wallet(self._numbers[self._next - 1])


def carried_deposits(
    chain: str, wallets: Iterable[tuple[KeyPair, int]], payee: bytes, amount: int, expires: int
) -> Iterator[tuple[Delegated[Call], ...]]:
    """Yield bundles of equal deposits for one payee, in order of address, for the aggregator to carry (mode ``each``).

    ``wallets`` come with the next nonce of their delegated calls.
    """
    ordered = sorted(wallets, key=lambda pair: pair[0].public)
    calls: list[Delegated[Call]] = [
        delegate(key, chain, nonce, 2**62, OpenDeposit(payee, amount, expires)) for key, nonce in ordered
    ]
    yield from bundles(calls)
