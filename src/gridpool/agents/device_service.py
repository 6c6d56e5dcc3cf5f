"""A device's two sides over TCP: serving files or energy to whoever proves itself, and fetching a file from a peer."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from gridpool.agents.access_credential import Distrusted
from gridpool.agents.device_channel import ConnectionCut, SocketStream, open_channel
from gridpool.agents.device_exchange import Declined, Exchanged, deposits_of, fetch_units, now_ms, serve_units
from gridpool.agents.device_folder import Device
from gridpool.agents.device_units import Terms, Unit, Units, check_data_unit
from gridpool.errors import RefusedInput, VerificationFault

__all__ = ["DAY_MS", "Fetched", "Service", "fetch_file"]

DAY_MS = 86_400_000
MOST_AT_ONCE = 16
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that was fetched."""

    exchanged: Exchanged
    size: int
    sha256: str


class Service:
    """Serves units on a listening socket, at most 16 peers at once; more wait in the socket's queue."""

    def __init__(
        self,
        device: Device,
        sources: dict[str, Units],
        listener: socket.socket,
        *,
        max_age_ms: int = DAY_MS,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.exchanged: list[Exchanged] = []
        self.refused = 0
        self.cut = 0
        self._device = device
        self._sources = sources
        self._listener = listener
        self._max_age_ms = max_age_ms
        self._report = report
        self._places = threading.Semaphore(MOST_AT_ONCE)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def run(self, count: int | None = None) -> None:
        """Serve until ``stop``, or until ``count`` connections have ended."""
        self._listener.settimeout(0.2)
        taken = 0
        while not self._stop.is_set() and (count is None or taken < count):
            self._places.acquire()
            connection = None
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
            if connection is None:
                self._places.release()
                continue
            taken += 1
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads = [running for running in self._threads if running.is_alive()] + [thread]
            thread.start()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def stop(self) -> None:
        """Take no more connections."""
        self._stop.set()

    def _serve(self, connection: socket.socket) -> None:
        device = self._device
        try:
            with connection:
                channel = open_channel(
                    SocketStream(connection, timeout_s=TIMEOUT_S),
                    device.key,
                    device.credential,
                    device.credentials,
                    client=False,
                    now_ms=now_ms(),
                    max_age_ms=self._max_age_ms,
                )
                done = serve_units(
                    channel,
                    device.key,
                    self._sources,
                    device.book,
                    chain=device.chain,
                    clock=now_ms,
                    max_age_ms=self._max_age_ms,
                )
            with self._lock:
                if len(self.exchanged) < 10_000:
                    self.exchanged.append(done)
            self._report(f"{done.units} units of {done.item} to {done.peer.hex()}")
        except (Distrusted, RefusedInput) as error:
            with self._lock:
                self.refused += 1
            self._report(f"refused: {error}")
        except ConnectionCut as error:
            with self._lock:
                self.cut += 1
            self._report(str(error))
        finally:
            self._places.release()


def fetch_file(
    device: Device,
    address: tuple[str, int],
    out: Path,
    *,
    item: str = "",
    pay_most: int = 0,
    max_age_ms: int = DAY_MS,
    advance: Callable[[Terms, int], None] = lambda terms, index: None,
) -> Fetched:
    """Fetch a file from a peer; units that a cut connection left are kept beside ``out`` and not fetched again.

    The deposit is the one that the device's credential proves for the peer. Raises RefusedInput where no peer can be
    reached, it declines or stops, or asks more than ``pay_most``; VerificationFault where it does not prove itself or
    sends what it did not offer.
    """
    if out.exists():
        raise RefusedInput(f"{out} exists; choose another name")
    try:
        connection = socket.create_connection(address, timeout=TIMEOUT_S)
    except OSError as error:
        raise RefusedInput(f"no device answers at {address[0]}:{address[1]}: {error}") from None
    seen: dict[str, Terms] = {}
    partial = out
    try:
        with connection:
            channel = open_channel(
                SocketStream(connection, timeout_s=TIMEOUT_S),
                device.key,
                device.credential,
                device.credentials,
                client=True,
                now_ms=now_ms(),
                max_age_ms=max_age_ms,
            )
            numbers = [n for n, held in deposits_of(device.standing).items() if held.payee == channel.peer.wallet]

            def begin(terms: Terms) -> int:
                nonlocal partial
                if terms.kind != "data":
                    raise Distrusted(f"{terms.item[:128]!r} is {terms.kind}, not data")
                seen["terms"] = terms
                partial = out.with_name(f"{out.name}.{terms.root.hex()[:16]}.partial")
                have = partial.stat().st_size // terms.unit_bytes if partial.exists() else 0
                start = min(have, terms.units)
                if partial.exists():
                    os.truncate(partial, start * terms.unit_bytes)
                return start

            def accept(terms: Terms, unit: Unit) -> bool:
                if not check_data_unit(terms, unit):
                    return False
                with partial.open("ab") as file:
                    file.write(unit.data)
                advance(terms, unit.index)
                return True

            done = fetch_units(
                channel,
                device.key,
                item,
                device.book,
                chain=device.chain,
                number=max(numbers, default=0),
                begin=begin,
                accept=accept,
                pay_most=pay_most,
            )
    except Declined as error:
        raise RefusedInput(str(error)) from None
    except Distrusted as error:
        raise VerificationFault(str(error)) from None
    except ConnectionCut as error:
        raise RefusedInput(f"{error}; run the same command again to go on") from None
    if not done.complete:
        raise RefusedInput(f"{done.ended or 'the exchange ended early'}; {done.units} units came and are kept")
    return _finish(done, seen["terms"], partial, out)


def _finish(done: Exchanged, terms: Terms, partial: Path, out: Path) -> Fetched:
    digest, leaves, size = sha256(), [], 0
    with partial.open("rb") as file:
        while piece := file.read(terms.unit_bytes):
            digest.update(piece)
            leaves.append(sha256(b"\0" + piece).digest())
            size += len(piece)
    while len(leaves) > 1:
        above = [sha256(b"\1" + leaves[i] + leaves[i + 1]).digest() for i in range(0, len(leaves) - 1, 2)]
        leaves = above + leaves[-1:] if len(leaves) & 1 else above
    if leaves != [terms.root]:
        partial.unlink()
        raise VerificationFault("the units kept from before were altered on this device; fetch again")
    os.replace(partial, out)
    return Fetched(done, size, digest.hexdigest())
