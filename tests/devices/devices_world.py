"""The same ledger as for the tests of gates, and two devices on it with the stream between them."""

import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "access"))

from access_world import CHAIN, DSO, HUB, AccessWorld, key, now

from gridpool.agents.access_credential import Credentials, Distrusted
from gridpool.agents.device_channel import Channel, ConnectionCut, SocketStream, open_channel
from gridpool.agents.device_exchange import Exchanged, fetch_units, serve_units
from gridpool.agents.device_units import Terms, Unit, Units, check_data_unit
from gridpool.agents.receipts import ReceiptBook
from gridpool.errors import RefusedInput
from gridpool.ledger.keys import KeyPair

__all__ = [
    "CHAIN",
    "DAY",
    "DSO",
    "HUB",
    "PRICE",
    "AccessWorld",
    "Side",
    "Wire",
    "exchange",
    "key",
    "now",
    "together",
]

DAY = 86_400_000
PRICE = 7


class Wire:
    """A stream that counts what it carries and can be cut, altered or recorded."""

    def __init__(self, connection: socket.socket, *, cut_after: int | None = None) -> None:
        self._stream = SocketStream(connection, timeout_s=10)
        self._connection = connection
        self._left = cut_after
        self.sent = b""
        self.writes = 0

    def read(self, count: int) -> bytes:
        return self._stream.read(count)

    def write(self, data: bytes) -> None:
        if self._left is not None:
            if self._left == 0:
                self._connection.shutdown(socket.SHUT_RDWR)
                raise ConnectionCut("cut by the test")
            self._left -= 1
        self.sent += data
        self.writes += 1
        self._stream.write(data)


class Side:
    """One device: its wallet, credential, trust and book."""

    def __init__(self, wallet: KeyPair, credential: bytes, credentials: Credentials, folder: Path) -> None:
        self.wallet, self.credential, self.credentials = wallet, credential, credentials
        self.book = ReceiptBook(folder)

    def open(self, stream: Any, *, client: bool, at: int | None = None) -> Channel:
        return open_channel(
            stream,
            self.wallet,
            self.credential,
            self.credentials,
            client=client,
            now_ms=now() if at is None else at,
            max_age_ms=DAY,
        )


def together(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
    """Run both sides; returns what each returned, or the exception that ended it."""
    results: list[Any] = [None, None]

    def run(place: int, work: Callable[[], Any]) -> None:
        try:
            results[place] = work()
        except (Distrusted, ConnectionCut, RefusedInput) as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=(i, work)) for i, work in enumerate((first, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return results[0], results[1]


def exchange(
    sides: tuple[Side, Side],
    source: Units,
    got: list[bytes],
    *,
    cut_car: int | None = None,
    cut_charger: int | None = None,
    number: int = 1,
    pay_most: int = 1_000,
    accept: Callable[[Terms, Unit], bool] = check_data_unit,
) -> tuple[Any, Any]:
    car, charger = sides
    here, there = socket.socketpair()

    def take(terms: Terms, unit: Unit) -> bool:
        if not accept(terms, unit):
            return False
        got.append(unit.data)
        return True

    def fetch() -> Exchanged:
        with here:
            channel = car.open(Wire(here, cut_after=cut_car), client=True)
            return fetch_units(
                channel, car.wallet, "", car.book, chain=CHAIN, number=number, begin=lambda terms: len(got),
                accept=take, pay_most=pay_most,
            )  # fmt: skip

    def serve() -> Exchanged:
        with there:
            channel = charger.open(Wire(there, cut_after=cut_charger), client=False)
            return serve_units(
                channel, charger.wallet, {"map.bin": source}, charger.book, chain=CHAIN, clock=now, max_age_ms=DAY
            )

    return together(fetch, serve)
