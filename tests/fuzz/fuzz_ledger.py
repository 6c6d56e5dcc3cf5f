"""Coverage-guided fuzzing of everything that reads a stranger's bytes; run by ``make fuzz``.

``python tests/fuzz/fuzz_ledger.py TARGET [libFuzzer options]``; TARGET is one of ``TARGETS``. A finding is an uncaught
exception, more than ten seconds, or more than a gigabyte.
"""

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gridpool.ledger"]):
    from gridpool.contracts import RULES
    from gridpool.errors import RefusedInput, VerificationFault
    from gridpool.ledger import light
    from gridpool.ledger.archive import export_ledger, import_ledger
    from gridpool.ledger.chain import Ledger
    from gridpool.ledger.clock import AdvanceClock
    from gridpool.ledger.execution import Block
    from gridpool.ledger.genesis import Genesis
    from gridpool.ledger.keys import KeyPair
    from gridpool.ledger.proof import state_proof, transaction_proof, trust
    from gridpool.ledger.snapshots import restore_snapshot, write_snapshot
    from gridpool.ledger.transaction import Malformed, TransactionDecoder, sign
    from gridpool.ledger.tree import damaged_nodes
    from gridpool.ledger.verification import name_key

DECODER = TransactionDecoder(RULES)
PLACE = Path(tempfile.mkdtemp(prefix="gridpool-fuzz-"))
TRUST: dict[str, object] = {"format": "gridpool-trust-1", "chain": "c", "signer": "A" * 43 + "="}


def decoder(data: bytes) -> None:
    """Transactions."""
    try:
        wire = DECODER.decode(data).wire
    except Malformed:
        return
    assert wire == data


def proof(data: bytes) -> None:
    """Proofs, as text and by their inner binary parser."""
    with contextlib.suppress(light.Invalid):
        light._decode(data)
    with contextlib.suppress(light.Invalid, ValueError, RecursionError):
        light.check(json.loads(data), TRUST)


def archive(data: bytes) -> None:
    """Files to import."""
    _file(data, lambda file: import_ledger(file, PLACE / "out", RULES))


def snapshot(data: bytes) -> None:
    """Files to restore."""
    _file(b"gridpool-snapshot-1\n" + data, lambda file: restore_snapshot(file, PLACE / "out" / "ledger", RULES))


def keys(data: bytes) -> None:
    """Keys as people write them, keys as they are stored, and tree nodes."""
    list(damaged_nodes([(b"", data)]))
    name_key(RULES, data)
    text = data.decode("utf-8", "replace")
    for table in RULES.tables.values():
        try:
            parsed = table.parse_key(text)
            encoded = table.encode_key(parsed)
        except (RefusedInput, ValueError):
            continue
        assert table.decode_key(encoded) == parsed


def _file(data: bytes, read: Callable[[Path], object]) -> None:
    file = PLACE / "file"
    file.write_bytes(data)
    try:
        read(file)
    except (RefusedInput, VerificationFault):
        assert not (PLACE / "out" / "ledger").exists()
        return
    finally:
        shutil.rmtree(PLACE / "out", ignore_errors=True)


def sound(name: str) -> list[bytes]:
    """What the target accepts, to begin from."""
    key = KeyPair(bytes([1]) * 32)
    transaction = sign(key, "c", 1, 99, [AdvanceClock(5)])
    with Ledger.create(PLACE / "ledger", Genesis(chain="c", time_ms=0), RULES, signer=key) as ledger:
        ledger.commit(ledger.execute(Block(1, 5, (transaction.wire,))))
        with ledger.view() as view:
            export_ledger(view, PLACE / "archive")
            write_snapshot(view, PLACE / "snapshot")
            proofs = [state_proof(view, b"coins.supply\0coins"), transaction_proof(view, transaction.id)]
            TRUST.update(trust(view))
            stored = [data for _, data in view.snapshot.items("tree")]
    return {
        "decoder": [transaction.wire],
        "proof": [json.dumps(made).encode() for made in proofs],
        "archive": [(PLACE / "archive").read_bytes()],
        "snapshot": [(PLACE / "snapshot").read_bytes()[20:]],
        "keys": [*stored, b"coins.supply\0coins", b"7/x/" + b"00" * 32],
    }[name]


TARGETS = {target.__name__: target for target in (decoder, proof, archive, snapshot, keys)}

if __name__ == "__main__":
    name = sys.argv.pop(1)
    seeds = PLACE / "seeds"
    seeds.mkdir()
    for number, seed in enumerate(sound(name)):
        (seeds / str(number)).write_bytes(seed)
    atheris.Setup([*sys.argv, "-timeout=10", "-rss_limit_mb=1024", str(seeds)], TARGETS[name])
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(PLACE, ignore_errors=True)
