"""A load on a running consortium: signed transfers at a steady rate, and how long each took to its receipt."""

import base64
import contextlib
import hashlib
import http.client
import itertools
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from gridpool.agents.network_council import Council
from gridpool.agents.wallet_session import open_session
from gridpool.contracts import coins, members
from gridpool.contracts.members import Role
from gridpool.engines.cometbft_rpc import ENGINE_FAILED, Rpc, RpcError
from gridpool.engines.network import NodeFile, node_file_at, read_network
from gridpool.errors import RefusedInput
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.transaction import Transaction, sign

__all__ = ["LoadResult", "funded_wallets", "load_network", "timed_load"]

WALLETS = 200
WALLETS_A_MEMBER = 50
COINS_EACH = 10**12
TICK_S = 0.05
"""A request to a node costs it and us more than a transaction does, so those of a twentieth of a second go together."""
DOORS_A_NODE = 3
"""The engine checks one transaction after the other of a connection, and flushes between."""
MOST_A_TURN = 500
SIGNED_AHEAD_CALLS = 200_000
GRACE_S = 1.0
DRAIN_S = 30.0
SILENCE_S = 15.0
"""No receipt for so long after the last transaction: what is missing was lost with the node that had accepted it."""
RETRY_S = 0.2
ANSWER_S = 1.0
"""A node that takes longer to answer is taken for one that is down, and its transactions go to the next."""
SEED_FILE = "load.seed"


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a load met; latencies run from submission to the receipt, null where nothing was included."""

    submitted: int
    included: int
    refused: int
    tx_per_s: float
    calls_per_s: float
    p50_s: float | None
    p99_s: float | None
    seconds: float


def load_network(
    folder: Path,
    *,
    rate: float,
    seconds: float,
    bundle: int = 1,
    advance: Callable[[int], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> LoadResult:
    """Send ``rate`` transactions a second for ``seconds`` to all nodes in turn, each of ``bundle`` transfers.

    The first load of a network admits a member with wallets for it through the council. ``advance`` is told how many
    were just handed in, ``tell`` a line before each step that takes seconds. Raises RefusedInput for numbers out of
    range, GridpoolError where no node answers.
    """
    return timed_load(folder, rate=rate, seconds=seconds, bundle=bundle, advance=advance, tell=tell)[0]


def timed_load(
    folder: Path,
    *,
    rate: float,
    seconds: float,
    bundle: int = 1,
    advance: Callable[[int], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[LoadResult, NDArray[np.float64]]:
    """Do as ``load_network`` and also return the seconds from submission to receipt of each transaction included."""
    if not 0 < rate <= 100_000 or not 0 < seconds <= 86_400 or not 1 <= bundle <= 500:
        raise RefusedInput("give a rate up to 100000 a second, up to 86400 seconds, and bundles of 1 to 500 calls")
    network = read_network(folder)
    nodes = [node for name in network.nodes if (node := node_file_at(folder / name)) is not None]
    if not (folder / SEED_FILE).exists():
        tell(f"admitting {WALLETS} wallets for the load through the council")
    wallets = funded_wallets(folder, nodes)
    with _Receipts(nodes) as receipts:
        sent, refused = _send(network.chain, nodes, wallets, rate, seconds, bundle, advance, tell)
        tell(f"waiting for the receipts of {len(sent):,} accepted transactions")
        receipts.await_all(sent, DRAIN_S)
        times, failed = receipts.times, receipts.failed
    refused += len(sent.keys() & failed)
    sent = {tx: moment for tx, moment in sent.items() if tx not in failed}
    latencies = np.array([times[tx] - moment for tx, moment in sent.items() if tx in times])
    elapsed = max(times[tx] for tx in sent if tx in times) - min(sent.values()) if len(latencies) else seconds
    included = len(latencies)
    result = LoadResult(
        submitted=len(sent) + refused,
        included=included,
        refused=refused,
        tx_per_s=included / elapsed,
        calls_per_s=included * bundle / elapsed,
        p50_s=float(np.percentile(latencies, 50)) if included else None,
        p99_s=float(np.percentile(latencies, 99)) if included else None,
        seconds=elapsed,
    )
    return result, latencies


def _send(
    chain: str,
    nodes: list[NodeFile],
    wallets: list[KeyPair],
    rate: float,
    seconds: float,
    bundle: int,
    advance: Callable[[int], None],
    tell: Callable[[str], None],
) -> tuple[dict[bytes, float], int]:
    """Submit at the rate; returns when each accepted transaction was handed in, and how many were refused.

    Signing happens beforehand as far as memory allows. A wallet always takes the same door, so that its nonces arrive
    in order; where the doors cannot keep up with the rate, what is still before them at the end was never submitted.
    """
    made = _signed(chain, wallets, bundle)
    ahead = min(int(rate * seconds) + 1, SIGNED_AHEAD_CALLS // bundle + 1)
    tell(f"signing {ahead:,} transactions beforehand")
    ready = deque(itertools.islice(made, ahead))
    begin = time.monotonic()
    doors = [_Door([*nodes[i:], *nodes[:i]], begin + seconds) for i in range(len(nodes)) for _ in range(DOORS_A_NODE)]
    count = turn = 0
    while (elapsed := time.monotonic() - begin) < seconds:
        due = int(elapsed * rate) + 1 - count
        batches: list[list[Transaction]] = [[] for _ in doors]
        for i in range(min(due, MOST_A_TURN)):
            batches[(count + i) % len(wallets) % len(doors)].append(ready.popleft() if ready else next(made))
        for door, batch in zip(doors, batches, strict=True):
            if batch:
                door.take(batch)
        count += min(due, MOST_A_TURN)
        turn += 1
        advance(min(due, MOST_A_TURN))
        time.sleep(max(0.0, begin + turn * TICK_S - time.monotonic()))
    sent: dict[bytes, float] = {}
    refused = 0
    for door in doors:
        door.close()
        sent.update(door.sent)
        refused += door.refused
    return sent, refused


def _signed(chain: str, wallets: list[KeyPair], bundle: int) -> Iterator[Transaction]:
    """Sign transfers of each wallet in turn to the next one, without end."""
    # Nonces only have to grow, so the clock gives them without a question to the ledger.
    first = time.time_ns() // 1_000
    for count in itertools.count():
        sender = count % len(wallets)
        to = wallets[(sender + 1) % len(wallets)].public
        calls = [coins.Transfer(to, 1 + i) for i in range(bundle)]
        yield sign(wallets[sender], chain, first + count, 2**62, calls)


class _Door:
    """A way in for transactions, with a thread of its own until ``end`` (monotonic): the first node that answers."""

    def __init__(self, nodes: list[NodeFile], end: float) -> None:
        self.sent: dict[bytes, float] = {}
        self.refused = 0
        self._end = end
        self._entrances = deque(_Entrance(node) for node in nodes)
        self._queue: queue.SimpleQueue[tuple[float, list[Transaction]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="door", daemon=True)
        self._thread.start()

    def take(self, batch: list[Transaction]) -> None:
        """Queue a batch; a transaction's time runs from here."""
        self._queue.put((time.time(), batch))

    def close(self) -> None:
        """Wait for what is under way."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if time.monotonic() > self._end + GRACE_S:
                continue
            moment, batch = item
            accepted = self._submit([transaction.wire for transaction in batch])
            self.sent.update((tx.id, moment) for tx, taken in zip(batch, accepted, strict=True) if taken)
            self.refused += accepted.count(False)
        for entrance in self._entrances:
            entrance.close()

    def _submit(self, wires: list[bytes]) -> list[bool]:
        """Hand transactions to the node that answered last, or to the next one that answers."""
        for _ in range(len(self._entrances)):
            try:
                return self._entrances[0].submit(wires)
            except (RpcError, OSError, http.client.HTTPException):
                self._entrances.rotate(-1)
        return [False] * len(wires)


class _Entrance:
    """A node's entrance for many transactions: the engine's own where it takes batches, else the HTTP face."""

    def __init__(self, node: NodeFile) -> None:
        self._rpc = Rpc(node.ports.rpc, timeout_s=ANSWER_S) if node.engine == "cometbft" else None
        self._http = http.client.HTTPConnection("127.0.0.1", node.ports.http, timeout=ANSWER_S)

    def submit(self, wires: list[bytes]) -> list[bool]:
        """Hand transactions in; tells for each whether it was accepted. Raises where the node does not answer."""
        if self._rpc is not None:
            answers = self._rpc.broadcast(wires)
            for answer in answers:
                if answer.codespace == ENGINE_FAILED:  # its application has died; what it took before is harmless twice
                    raise RpcError(answer.log)
            return [answer.code == 0 for answer in answers]
        try:
            return [self._post(wire) for wire in wires]
        except (OSError, http.client.HTTPException):
            self._http.close()
            raise

    def close(self) -> None:
        if self._rpc is not None:
            self._rpc.close()
        self._http.close()

    def _post(self, wire: bytes) -> bool:
        body = msgspec.json.encode({"transaction": base64.b64encode(wire).decode("ascii")})
        self._http.request("POST", "/tx", body, {"Content-Type": "application/json"})
        answer = self._http.getresponse()
        answer.read(1 << 20)
        return answer.status == 202


class _Receipts:
    """Follows the event stream of a node that answers and notes when each receipt came."""

    def __init__(self, nodes: list[NodeFile]) -> None:
        self.times: dict[bytes, float] = {}
        self.failed: set[bytes] = set()
        self._nodes = deque(nodes)
        self._height: int | None = None
        self._ended = threading.Event()
        self._connection, self._response = self._open()
        self._thread = threading.Thread(target=self._run, name="receipts", daemon=True)
        self._thread.start()

    def __enter__(self) -> "_Receipts":
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._connection.sock is not None:
            self._connection.sock.close()
        self._connection.close()

    def await_all(self, sent: dict[bytes, float], patience_s: float) -> None:
        begin = news = time.monotonic()
        known = len(self.times)
        while not sent.keys() <= self.times.keys():
            now = time.monotonic()
            if len(self.times) > known:
                known, news = len(self.times), now
            if now > begin + patience_s or now > news + SILENCE_S:
                return
            time.sleep(0.05)

    def _open(self) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Open the event stream of the first node that answers, after the last block seen; or raise RefusedInput."""
        for _ in range(len(self._nodes)):
            connection = http.client.HTTPConnection("127.0.0.1", self._nodes[0].ports.http, timeout=60)
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/events" if self._height is None else f"/events?after={self._height}")
                response = connection.getresponse()
                if response.status == 200:
                    return connection, response
            connection.close()
            self._nodes.rotate(-1)
        raise RefusedInput("no node answers; start the network first: gridpool network start DIR")

    def _run(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException, AttributeError):
                self._read()
            # That node has ended; another one tells the rest.
            self._nodes.rotate(-1)
            with contextlib.suppress(RefusedInput):
                if not self._ended.wait(RETRY_S):
                    self._connection, self._response = self._open()

    def _read(self) -> None:
        for line in self._response:
            if line.startswith(b"data:"):
                moment = time.time()
                event = msgspec.json.decode(line[5:])
                for receipt in event["receipts"]:
                    tx = bytes.fromhex(receipt["tx"])
                    self.times.setdefault(tx, moment)
                    if receipt["code"] != "ok":
                        self.failed.add(tx)
                self._height = event["height"]


def funded_wallets(folder: Path, nodes: list[NodeFile]) -> list[KeyPair]:
    """Return the load's wallets, admitted and funded through the council the first time."""
    path = folder / SEED_FILE
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(os.urandom(32).hex())
    seed = bytes.fromhex(path.read_text(encoding="ascii"))
    keys = [KeyPair(hashlib.sha256(b"gridpool/load/1\0" + seed + bytes([i])).digest()) for i in range(WALLETS)]
    council = Council(folder)
    with open_session(None, council.url()) as session:
        if session.state.get(members.WALLETS, keys[-1].public) is not None:
            return keys
    groups = [keys[at : at + WALLETS_A_MEMBER] for at in range(0, WALLETS, WALLETS_A_MEMBER)]
    council.decide(
        members.Admit(
            tuple(
                members.NewMember(
                    group[0].public, "load", (Role.PROSUMER,), public_wallets=tuple(key.public for key in group)
                )
                for group in groups
            )
        ),
        coins.Mint(tuple(coins.Payment(key.public, COINS_EACH) for key in keys), "load"),
    )
    return keys
