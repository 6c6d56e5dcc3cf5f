"""Alters an archive or snapshot byte by byte and imports it; run in a process of its own, which may die.

``python altered_archive.py FILE SEED ROUNDS``: ends with 0 unless an altered file was taken, or something other than a
refusal came out. Every region of the file gets its share: rounds go evenly over it.
"""

import random
import resource
import shutil
import sys
import time
from pathlib import Path

from toy_contract import TOY

from gridpool.errors import RefusedInput, VerificationFault
from gridpool.ledger.archive import import_ledger
from gridpool.ledger.block import SignedHeader
from gridpool.ledger.snapshots import restore_snapshot

MEMORY_BYTES = 6 << 30
SECONDS = 10.0


def bring_in(file: Path, out: Path) -> SignedHeader:
    """Import or restore, by the file's name."""
    if file.name == "snapshot":
        return restore_snapshot(file, out / "ledger", TOY)
    return import_ledger(file, out, TOY)


def main(sound: Path, seed: int, rounds: int) -> None:
    place = sound.with_name("altered")
    place.mkdir()
    wanted = bring_in(sound, place / "sound")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    data = sound.read_bytes()
    moments = random.Random(seed)
    file = place / sound.name
    refused = 0
    for turn in range(rounds):
        changed = bytearray(data)
        at = int((turn + moments.random()) * len(data) / rounds)
        kind = moments.choice(["flip", "flip", "set", "cut", "insert"])
        if kind == "flip":
            changed[at] ^= 1 << moments.randrange(8)
        elif kind == "set":
            changed[at] = moments.choice([0, 0x7F, 0x80, 0xFF])
        elif kind == "cut":
            del changed[at : at + moments.choice([1, 7, len(data)])]
        else:
            changed[at:at] = moments.randbytes(moments.choice([1, 9]))
        if changed == data:
            continue
        file.write_bytes(changed)
        start = time.process_time()
        try:
            head = bring_in(file, place / "out")
        except (RefusedInput, VerificationFault):
            assert not (place / "out" / "ledger").exists(), (turn, kind, at)
        except BaseException:
            print(f"turn {turn} of seed {seed}: {kind} at {at}", file=sys.stderr, flush=True)
            raise
        else:
            raise AssertionError(f"turn {turn}: {kind} at {at} was taken, {head == wanted}")
        refused += 1
        assert time.process_time() - start < SECONDS, (turn, kind, at)
        shutil.rmtree(place / "out", ignore_errors=True)
    print(refused, "refused")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
