"""Transfers a second through the whole embedded ledger against raw signature verification, in one run."""

import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridpool import contracts
from gridpool.contracts.coins import CoinParameters, Payment, Transfer
from gridpool.contracts.energy import EnergyParameters, NewMeter, PlaceOrder, RegisterMeters
from gridpool.contracts.members import FoundingMember, MemberParameters, Role
from gridpool.engines.verifying import VerifyingThreads
from gridpool.ledger.chain import Ledger
from gridpool.ledger.execution import Block
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair, verify
from gridpool.ledger.transaction import Transaction, sign, signed_messages
from gridpool.ledger.transition import Pending
from gridpool.ledger.types import encode

__all__ = [
    "Rates",
    "measure_blocks",
    "measure_orders",
    "measure_transfers",
    "order_ledger",
    "run",
    "transfer_ledger",
]

CHAIN = "bench"
BLOCK = 2_000
SENDERS = 20_000
TURN = 6
"""Blocks between two turns of raw verification: enough for the pipeline to fill."""


@dataclass(frozen=True)
class Rates:
    """Raw verifications and ledger transactions a second, measured in turns; and the times of single commits."""

    verify_per_s: float
    transaction_per_s: float
    commit_s: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Transactions a second over verifications a second."""
        return self.transaction_per_s / self.verify_per_s


def run(accounts: int = 20_000, blocks: int = 12) -> dict[str, Any]:
    """Measure transfers in blocks of 2,000 on ``accounts`` accounts, tree and durable commit included.

    Signatures are fresh in every run; one thread verifies them beside execution. Raw verification takes turns with
    the blocks, on one core.
    """
    with transfer_ledger(accounts) as (ledger, keys, wallets):
        rates = measure_transfers(ledger, keys, wallets, blocks=blocks)
    return {
        "verify_per_s": round(rates.verify_per_s),
        "transfer_per_s": round(rates.transaction_per_s),
        "ratio": round(rates.ratio, 4),
        "accounts": accounts,
        "block": BLOCK,
        "transfers": blocks * BLOCK,
    }


@contextmanager
def transfer_ledger(accounts: int) -> Iterator[tuple[Ledger, list[KeyPair], list[bytes]]]:
    """Make a ledger whose genesis fills ``accounts`` accounts; gives it with the senders' keys and all wallets."""
    keys = [KeyPair(os.urandom(32)) for _ in range(min(accounts, SENDERS))]
    wallets = [key.public for key in keys] + [os.urandom(32) for _ in range(accounts - len(keys))]
    with _ledger(keys[0], (("coins", encode(_opening(wallets))),)) as ledger:
        yield ledger, keys, wallets


@contextmanager
def order_ledger(accounts: int) -> Iterator[tuple[Ledger, list[KeyPair]]]:
    """Make a ledger of ``accounts`` prosumers with coins; gives it with their keys."""
    keys = [KeyPair(os.urandom(32)) for _ in range(accounts)]
    utility = KeyPair(os.urandom(32))
    stop, grid, market = (*(KeyPair(os.urandom(32)).public for _ in range(2)), utility.public)
    founders = (
        FoundingMember(stop, "back-stop", (Role.BACK_STOP,)),
        *(FoundingMember(wallet, "utility", (Role.UTILITY,)) for wallet in (grid, market)),
        *(FoundingMember(key.public, "", (Role.PROSUMER,)) for key in keys),
    )
    parameters = (
        ("energy", encode(EnergyParameters(back_stop=stop, grid=grid, market=market))),
        ("members", encode(MemberParameters(founders=founders))),
        ("coins", encode(_opening([key.public for key in keys]))),
    )
    meters = [NewMeter(key.public, "load", "", 100_000, 0) for key in keys]
    registrations = [
        sign(utility, CHAIN, nonce, 10**9, [RegisterMeters(tuple(meters[at : at + 500]))])
        for nonce, at in enumerate(range(0, len(meters), 500), 1)
    ]
    with _ledger(keys[0], parameters) as ledger:
        measure_blocks(ledger, [registrations])
        yield ledger, keys


@contextmanager
def _ledger(signer: KeyPair, parameters: tuple[tuple[str, bytes], ...]) -> Iterator[Ledger]:
    genesis = Genesis(chain=CHAIN, time_ms=0, parameters=parameters)
    folder = Path(tempfile.mkdtemp(prefix="gridpool-bench-"))
    verifier = VerifyingThreads()
    try:
        with Ledger.create(
            folder / "ledger", genesis, contracts.RULES, signer=signer, verifier=verifier, map_size=1 << 32
        ) as ledger:
            yield ledger
    finally:
        verifier.close()
        shutil.rmtree(folder, ignore_errors=True)


def _opening(wallets: list[bytes]) -> CoinParameters:
    return CoinParameters(tuple(Payment(wallet, 10**9) for wallet in wallets))


def measure_orders(ledger: Ledger, keys: list[KeyPair], *, blocks: int) -> Rates:
    """Carry out ``blocks`` blocks of purchase orders (place, reserve, store, event), each of another prosumer."""
    choice = random.Random(os.urandom(16))
    places = [(key, interval) for interval in range(4, 4 + 1 + blocks * BLOCK // len(keys)) for key in keys]
    choice.shuffle(places)
    nonces: dict[bytes, int] = {}
    made = []
    for key, interval in places[: blocks * BLOCK]:
        nonces[key.public] = nonce = nonces.get(key.public, 0) + 1
        order = PlaceOrder(interval * 900_000, "buy", choice.randrange(1, 2_000), choice.randrange(80_000, 300_000))
        made.append(sign(key, CHAIN, nonce, 10**9, [order]))
    return measure_blocks(ledger, [made[at : at + BLOCK] for at in range(0, len(made), BLOCK)])


def measure_transfers(ledger: Ledger, keys: list[KeyPair], wallets: list[bytes], *, blocks: int) -> Rates:
    """Carry out ``blocks`` blocks of single transfers between random wallets."""
    choice = random.Random(os.urandom(16))
    nonces: dict[bytes, int] = {}

    def block() -> list[Transaction]:
        made = []
        for _ in range(BLOCK):
            key = choice.choice(keys)
            nonces[key.public] = nonce = nonces.get(key.public, 0) + 1
            call = Transfer(choice.choice(wallets), choice.randrange(1, 1_000))
            if call.to == key.public:
                call = Transfer(wallets[0] if key.public != wallets[0] else wallets[1], call.amount)
            made.append(sign(key, CHAIN, nonce, 10**9, [call]))
        return made

    return measure_blocks(ledger, [block() for _ in range(blocks)])


def measure_blocks(ledger: Ledger, blocks: list[list[Transaction]]) -> Rates:
    """Carry out blocks, and verify their signatures raw in turns.

    While a block is executed the next one is being verified; while it is written the one after is decoded.

    Raw verification of a few blocks stands directly before their execution, so that both see the same machine; the
    verifying thread is idle then. The rates are those of the turn with the median ratio.
    """
    turns: list[tuple[float, float]] = []
    committing = ThreadPoolExecutor(1)
    commits = []
    wires = [tuple(transaction.wire for transaction in block) for block in blocks]
    for first in range(0, len(blocks), TURN):
        turn = range(first, min(first + TURN, len(blocks)))
        messages = [message for i in turn for message in signed_messages(blocks[i])]
        start = time.perf_counter()
        held = all(verify(*message) for message in messages)
        verify_per_s = len(messages) / (time.perf_counter() - start)
        if not held:
            raise AssertionError("a fresh signature does not hold")
        start = time.perf_counter()
        for i in turn[:2]:
            ledger.prepare(wires[i])
        for i in turn:
            height = ledger.height + 1
            pending = ledger.execute(Block(height, height * 1_000, wires[i]))
            stored = committing.submit(_timed_commit, ledger, pending)
            if i + 2 in turn:
                ledger.prepare(wires[i + 2])
            commits.append(stored.result())
            bad = [receipt for receipt in pending.executed.receipts if not receipt.ok]
            if bad:
                raise AssertionError(f"{len(bad)} transactions were refused: {bad[0].code} {bad[0].info}")
        count = sum(len(blocks[i]) for i in turn)
        turns.append((verify_per_s, count / (time.perf_counter() - start)))
    committing.shutdown()
    verify_per_s, transaction_per_s = sorted(turns, key=lambda rates: rates[1] / rates[0])[(len(turns) - 1) // 2]
    return Rates(verify_per_s, transaction_per_s, tuple(commits))


def _timed_commit(ledger: Ledger, pending: Pending) -> float:
    start = time.perf_counter()
    ledger.commit(pending)
    return time.perf_counter() - start
