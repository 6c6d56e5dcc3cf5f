"""The ledger's rows: transfers and orders against raw verification, tree against hashing, commits against LMDB."""

import json
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import lmdb

from bench.harness import Row
from gridpool import contracts
from gridpool.bench.ledger import measure_orders, measure_transfers, order_ledger, transfer_ledger
from gridpool.engines.embedded import Embedded
from gridpool.engines.engine import Accepted
from gridpool.ledger import light
from gridpool.ledger.chain import Ledger
from gridpool.ledger.clock import AdvanceClock
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.proof import state_proof, trust
from gridpool.ledger.store import Store, Writer
from gridpool.ledger.transaction import sign
from gridpool.ledger.tree import update

CHANGED = 2_000
INTERVAL_MS = 200
VERIFICATION = "raw PyNaCl verification, one core"


def run() -> list[Row]:
    """Measure every row; takes a few minutes."""
    return [
        *(row for accounts in (10_000, 20_000, 100_000, 1_000_000) for row in transfers(accounts)),
        orders(),
        latency(),
        *(tree(keys, target) for keys, target in ((10_000, 40.0), (100_000, 40.0), (1_000_000, 40.0))),
        commits(),
    ]


def transfers(accounts: int) -> list[Row]:
    """Blocks of 2,000 transfers through the whole ledger, tree and durable commit included; and proofs from it."""
    with transfer_ledger(accounts) as (ledger, keys, wallets):
        rates = measure_transfers(ledger, keys, wallets, blocks=18)
        light_rows = proofs(ledger, wallets) if accounts == 1_000_000 else []
    return [
        Row(
            room="ledger",
            figure=f"transfers, {accounts:,} accounts, blocks of 2,000, one verifying thread",
            ratio=rates.ratio,
            target=0.65 if accounts <= 20_000 else 0.35,
            sense="at least",
            peer=VERIFICATION,
            detail={"verify_per_s": rates.verify_per_s, "transfer_per_s": rates.transaction_per_s},
        ),
        *light_rows,
    ]


def proofs(ledger: Ledger, wallets: list[bytes]) -> list[Row]:
    """The size of a light client's state proof without its header, and the processor time to check it with it."""
    with ledger.view() as view:
        trusted = trust(view)
        made = [state_proof(view, b"coins.account\0" + wallet) for wallet in random.Random(1).sample(wallets, 200)]
    heads = {"format", "header", "signature"}
    sizes = [len(json.dumps({name: part for name, part in one.items() if name not in heads})) for one in made]
    start = time.thread_time()
    if not all(light.check(one, trusted)["present"] for one in made):
        raise AssertionError("a proof of an account does not show it")
    spent = (time.thread_time() - start) / len(made)
    detail = {"bytes": max(sizes), "header_bytes": len(json.dumps(made[0])) - sizes[0], "check_ms": spent * 1_000}
    return [
        Row(
            room="ledger",
            figure=figure,
            ratio=ratio,
            target=1.0,
            sense="at most",
            peer=peer,
            detail=detail,
        )
        for figure, ratio, peer in (
            ("largest state proof at 1,000,000 keys, after a trusted header", max(sizes) / 2_000, "2 kB"),
            ("check of a state proof with its header at 1,000,000 keys", spent / 0.002, "2 ms"),
        )
    ]


def orders() -> Row:
    """Blocks of 2,000 energy orders: place, reserve, store, event."""
    with order_ledger(20_000) as (ledger, keys):
        rates = measure_orders(ledger, keys, blocks=12)
    return Row(
        room="ledger",
        figure="energy orders, 20,000 accounts, blocks of 2,000",
        ratio=rates.ratio,
        target=0.3,
        sense="at least",
        peer=VERIFICATION,
        detail={"verify_per_s": rates.verify_per_s, "order_per_s": rates.transaction_per_s},
    )


def latency() -> Row:
    """From submission to a durable receipt, one transaction at a time at random moments."""
    keeper = KeyPair(os.urandom(32))
    genesis = Genesis(chain="bench", time_ms=0, market_clock="ticks", clock_keeper=keeper.public)
    moments = random.Random(1)
    times = []
    with _folder() as folder, Embedded.create(folder / "home", genesis, contracts.RULES) as engine:
        for nonce in range(1, 61):
            transaction = sign(keeper, "bench", nonce, 10**9, [AdvanceClock(nonce)])
            time.sleep(moments.uniform(0, INTERVAL_MS / 1_000))
            start = time.perf_counter()
            assert isinstance(engine.submit(transaction.wire), Accepted)
            assert engine.wait(transaction.id) is not None
            times.append((time.perf_counter() - start) * 1_000)
    median = statistics.median(times)
    return Row(
        room="ledger",
        figure="submit to durable receipt, p50, over block interval + 20 ms",
        ratio=median / (INTERVAL_MS + 20),
        target=1.0,
        sense="at most",
        peer="220 ms",
        detail={"p50_ms": median, "p99_ms": sorted(times)[-1]},
    )


def tree(keys: int, target: float) -> Row:
    """Update the tree in the store for blocks of 2,000 changed keys, without writing the nodes; processor time."""
    choice = random.Random(1)
    names = [b"coins.account\0" + os.urandom(32) for _ in range(keys)]
    with _folder() as folder:
        store = Store.create(folder / "store", map_size=1 << 32)
        for at in range(0, keys, 100_000):
            part = dict.fromkeys(names[at : at + 100_000], b"\x93\x01\x00\x00")

            def work(writer: Writer, part: dict[bytes, bytes] = part) -> None:
                _, nodes = update(writer.node, part)
                writer.put_many("tree", sorted((p, data) for p, data in nodes.items() if data is not None))

            store.write(work)
        spent, hashing = [], []
        message = os.urandom(64)
        for _ in range(15):
            changes: dict[bytes, bytes | None] = {name: os.urandom(20) for name in choice.sample(names, CHANGED)}
            start = time.thread_time()
            for _ in range(CHANGED):
                sha256(message).digest()
            hashing.append(time.thread_time() - start)
            with store.snapshot() as snapshot:
                start = time.thread_time()
                update(snapshot.node, changes)
                spent.append(time.thread_time() - start)
        store.close()
    each, one = statistics.median(spent) / CHANGED, statistics.median(hashing) / CHANGED
    return Row(
        room="ledger",
        figure=f"tree, one changed key of 2,000 a block at {keys:,} keys",
        ratio=each / one,
        target=target,
        sense="at most",
        peer="one SHA-256 of 64 bytes",
        detail={"changed_key_us": each * 1e6, "sha256_us": one * 1e6, "best_us": min(spent) / CHANGED * 1e6},
    )


def commits() -> Row:
    """Durable commits of blocks of transfers against raw LMDB transactions that write the same number of bytes."""
    with transfer_ledger(20_000) as (ledger, keys, wallets):
        rates = measure_transfers(ledger, keys, wallets, blocks=12)
        with ledger.view() as view:
            sizes = [len(data) for _, data in view.snapshot.items("tree")][:5_000]
            body = len(view.snapshot.read("body", view.height.to_bytes(8, "big")) or b"")
    spent = []
    with _folder() as folder:
        environment: Any = lmdb.open(str(folder), map_size=1 << 32)
        for turn in range(8):
            pairs = sorted((os.urandom(12), bytes(size)) for size in sizes)
            start = time.perf_counter()
            with environment.begin(write=True) as transaction:
                with transaction.cursor() as cursor:
                    cursor.putmulti(pairs)
                transaction.put(b"body" + bytes([turn]), bytes(2 * body))
            spent.append(time.perf_counter() - start)
        environment.close()
    ours, raw = statistics.median(rates.commit_s), statistics.median(spent)
    return Row(
        room="ledger",
        figure="durable commit of a block of 2,000 transfers",
        ratio=ours / raw,
        target=3.0,
        sense="at most",
        peer="raw LMDB commit of as many nodes",
        detail={"commit_ms": ours * 1_000, "raw_ms": raw * 1_000},
    )


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gridpool-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
