"""Alters a ledger's data file in one place after another and asks every command about it; run in a process of its own.

``python altered_store.py FOLDER SEED ROUNDS``: prints how often each outcome came. Ends with 0 unless something other
than a whole answer or a refusal came out; dies where LMDB or the memory limit ends it.
"""

import random
import resource
import shutil
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from toy_contract import ALICE, NODE, TOY, Add, signed

from gridpool.errors import RefusedInput, VerificationFault
from gridpool.ledger import inspection, store
from gridpool.ledger.archive import export_ledger, prune_ledger
from gridpool.ledger.chain import Ledger
from gridpool.ledger.comparison import compare_ledgers
from gridpool.ledger.execution import Block, ContractFault
from gridpool.ledger.proof import key_proof, transaction_proof, trust
from gridpool.ledger.snapshots import write_snapshot
from gridpool.ledger.verification import verify_ledger

MEMORY_BYTES = 4 << 30
"""Address space, most of it LMDB's map."""
SECONDS = 10.0
PAGE = 4096
KEY = f"{ALICE.public.hex()}/3-1"
TX = signed(ALICE, 3, *(Add(f"3-{i}", 1) for i in range(12))).id


def alter(data: bytearray, moments: random.Random) -> str:
    """Change one thing, most often where LMDB keeps its books."""
    page = moments.randrange(len(data) // PAGE) * PAGE
    lower = struct.unpack_from("<H", data, page + 12)[0]
    nodes = max(0, min(lower, PAGE) - 16) // 2
    kinds = ["page head", "file head", "byte", "zeros", "page", "cut"]
    if nodes:
        kinds += ["page head", "node place", "node head", "node head", "value", "value"]
    kind = moments.choice(kinds)
    if kind == "page head":
        _set(data, page + moments.choice([0, 1, 2, 7, 10, 11, 12, 13, 14, 15]), moments)
    elif kind == "node place":
        _set(data, page + 16 + moments.randrange(2 * nodes), moments)
    elif kind == "node head":
        at = struct.unpack_from("<H", data, page + 16 + 2 * moments.randrange(nodes))[0]
        _set(data, page + min(at + moments.randrange(16), PAGE - 1), moments)
    elif kind == "value":
        at = min(struct.unpack_from("<H", data, page + 16 + 2 * moments.randrange(nodes))[0], PAGE - 8)
        key = struct.unpack_from("<H", data, page + at + 6)[0]
        _set(data, page + min(at + 8 + key + moments.randrange(16), PAGE - 1), moments)
    elif kind == "file head":
        _set(data, moments.randrange(2) * PAGE + moments.randrange(152), moments)
    elif kind == "byte":
        _set(data, moments.randrange(len(data)), moments)
    elif kind == "zeros":
        data[page : page + PAGE] = bytes(PAGE)
    elif kind == "page":
        other = moments.randrange(len(data) // PAGE) * PAGE
        data[page : page + PAGE] = data[other : other + PAGE]
        if moments.random() < 0.5:
            struct.pack_into("<Q", data, page, page // PAGE)
    else:
        del data[moments.randrange(len(data)) :]
    return kind


def _set(data: bytearray, at: int, moments: random.Random) -> None:
    data[at] = moments.choice([0, 1, 255, data[at] ^ 1 << moments.randrange(8), moments.randrange(256)])


def look(path: Path, sound: Path) -> None:
    """Ask all that the commands ask; the first complaint ends it."""
    with Ledger.open(path, TOY, writable=False) as ledger, ledger.view() as view:
        trust(view)
        inspection.show_ledger(view, ledger.known)
        inspection.show_height(view, view.height // 2)
        inspection.show_account(view, ledger.known, ALICE.public)
        inspection.show_transaction(view, ledger.known, TX)
        inspection.table_keys(view, ledger.known, "counter.count")
        key_proof(view, ledger.known, "counter.count", KEY)
        transaction_proof(view, TX)
        export_ledger(view, path.with_name("export.jsonl"))
        write_snapshot(view, path.with_name("snapshot"))
    for deep in (False, True):
        compare_ledgers(path, sound, TOY, deep=deep)


def go_on(path: Path) -> None:
    """Add blocks, take one back, and prune."""
    with Ledger.open(path, TOY, signer=NODE) as ledger:
        for nonce in range(1_000, 1_003):
            wire = signed(ALICE, nonce, *(Add(f"{nonce}-{i}", 1) for i in range(60))).wire
            height = ledger.height + 1
            ledger.commit(ledger.execute(Block(height, ledger.head.header.time_ms + 1, (wire,))))
        ledger.rollback()
    prune_ledger(path, TOY, keep=2)


def main(sound: Path, seed: int, rounds: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    moments = random.Random(seed)
    data = (sound / "data.mdb").read_bytes()
    with Ledger.open(sound, TOY, writable=False) as ledger, ledger.view() as view:
        heights = {view.header(h).header.app_hash.hex() for h in range(view.height + 1)}
    other = sound.with_name("other")
    outcomes: Counter[str] = Counter()
    tasks: list[tuple[str, Callable[[], object]]] = [
        ("verify", lambda: verify_ledger(other, TOY)),
        ("look", lambda: look(other, sound)),
        ("write", lambda: go_on(other)),
    ]
    for turn in range(rounds):
        shutil.rmtree(other, ignore_errors=True)
        other.mkdir()
        changed = bytearray(data)
        kind = alter(changed, moments)
        (other / "data.mdb").write_bytes(changed)
        for name, task in tasks:
            start = time.process_time()
            try:
                result = task()
            except (RefusedInput, VerificationFault, ContractFault):
                outcome = "refused"
            except BaseException:
                print(f"turn {turn} of seed {seed}: {kind}, {name}", file=sys.stderr, flush=True)
                raise
            else:
                outcome = "whole"
                if name == "verify":
                    outcome = "whole" if result.ok else "fault"
                    assert not result.ok or result.app_hash in heights
            assert time.process_time() - start < SECONDS, (turn, kind, name)
            assert not store._open, (turn, kind, name)
            outcomes[f"{name} {outcome}"] += 1
    print(dict(sorted(outcomes.items())))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
