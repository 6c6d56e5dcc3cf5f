"""Coverage-guided fuzzing of everything that reads a stranger's bytes; run by ``make fuzz``.

``python tests/fuzz/fuzz_ledger.py TARGET [libFuzzer options]``; TARGET is one of ``TARGETS``. A finding is an uncaught
exception, more than ten seconds, or more than a gigabyte.
"""

import base64
import contextlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris
import httpx
from litestar import Litestar
from litestar.testing import TestClient

with atheris.instrument_imports(include=["gridpool.ledger", "gridpool.gateway", "gridpool.engines"]):
    from gridpool.contracts import RULES
    from gridpool.engines.embedded import Embedded
    from gridpool.errors import RefusedInput, VerificationFault
    from gridpool.gateway.limits import RateLimit
    from gridpool.gateway.node_api import Node, build_app
    from gridpool.ledger import light
    from gridpool.ledger.archive import _digest, export_ledger, import_ledger
    from gridpool.ledger.chain import Ledger
    from gridpool.ledger.clock import AdvanceClock
    from gridpool.ledger.execution import Block, ContractFault
    from gridpool.ledger.genesis import Genesis
    from gridpool.ledger.keys import KeyPair
    from gridpool.ledger.proof import state_proof, transaction_proof, trust
    from gridpool.ledger.snapshots import restore_snapshot, write_snapshot
    from gridpool.ledger.transaction import Malformed, TransactionDecoder, sign
    from gridpool.ledger.tree import damaged_nodes
    from gridpool.ledger.verification import verify_ledger

DECODER = TransactionDecoder(RULES)
PLACE = Path(tempfile.mkdtemp(prefix="gridpool-fuzz-"))
KEY = KeyPair(bytes([1]) * 32)
STORE = bytearray()
FACE: list[TestClient[Litestar]] = []
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


def parquet(data: bytes) -> None:
    """Parquet files to import; some get the digest that belongs to them, so that what lies behind it is reached."""
    if data[:1] == b"\1":
        with contextlib.suppress(RefusedInput, ValueError, OSError):
            file = PLACE / "file.parquet"
            file.write_bytes(data[1:])
            held = max(re.findall(rb"[0-9a-f]{64}", data[-2_000:]), default=b"")
            at, digest = _digest(file, held)
            data = data[: at + 1] + digest + data[at + 65 :]
    _file(data[1:], lambda file: import_ledger(file, PLACE / "out", RULES), "file.parquet")


def store(data: bytes) -> None:
    """Stores' data files: groups of four bytes say where a sound one is altered, and how."""
    changed = bytearray(STORE)
    for at in range(0, min(len(data) - 3, 64), 4):
        place = int.from_bytes(data[at : at + 3], "big") % len(changed)
        changed[place] = data[at + 3]
    folder = PLACE / "store"
    folder.mkdir(exist_ok=True)
    (folder / "data.mdb").write_bytes(changed)
    (folder / "lock.mdb").unlink(missing_ok=True)
    with contextlib.suppress(RefusedInput):
        verify_ledger(folder, RULES)
    with contextlib.suppress(RefusedInput), Ledger.open(folder, RULES, writable=False) as ledger, ledger.view() as view:
        export_ledger(view, PLACE / "exported")
        write_snapshot(view, PLACE / "written")
        state_proof(view, b"coins.supply\0coins")
    try:
        with Ledger.open(folder, RULES, signer=KEY) as ledger:
            ledger.commit(
                ledger.execute(Block(ledger.height + 1, 1 << 40, (sign(KEY, "c", 9, 99, [AdvanceClock(9)]).wire,)))
            )
    except (RefusedInput, ContractFault):
        pass


def http(data: bytes) -> None:
    """Requests to a node: a line of method and path, then the body."""
    line, _, content = data.partition(b"\n")
    method, _, path = line.decode("latin-1").partition(" ")
    if not FACE:
        FACE.append(_face())
    path = "/" + path.lstrip("/")
    if path.partition("?")[0].rstrip("/") in {"/events", "/backup"}:  # endless; fills the disk
        return
    with contextlib.suppress(httpx.InvalidURL, UnicodeError, ValueError):
        answer = FACE[0].request(method if method in {"GET", "POST"} else "GET", path[:2_000], content=content)
        assert answer.status_code < 500, answer.text


def snapshot(data: bytes) -> None:
    """Files to restore."""
    _file(b"gridpool-snapshot-1\n" + data, lambda file: restore_snapshot(file, PLACE / "out" / "ledger", RULES))


def keys(data: bytes) -> None:
    """Keys as people write them, keys as they are stored, and tree nodes."""
    list(damaged_nodes([(b"", data)]))
    RULES.name_key(data)
    text = data.decode("utf-8", "replace")
    for table in RULES.tables.values():
        try:
            parsed = table.parse_key(text)
            encoded = table.encode_key(parsed)
        except (RefusedInput, ValueError):
            continue
        assert table.decode_key(encoded) == parsed


def _file(data: bytes, read: Callable[[Path], object], name: str = "file") -> None:
    file = PLACE / name
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
    transaction = sign(KEY, "c", 1, 99, [AdvanceClock(5)])
    with Ledger.create(PLACE / "ledger", Genesis(chain="c", time_ms=0), RULES, signer=KEY) as ledger:
        ledger.commit(ledger.execute(Block(1, 5, (transaction.wire,))))
        with ledger.view() as view:
            export_ledger(view, PLACE / "archive")
            export_ledger(view, PLACE / "archive.parquet")
            write_snapshot(view, PLACE / "snapshot")
            proofs = [state_proof(view, b"coins.supply\0coins"), transaction_proof(view, transaction.id)]
            TRUST.update(trust(view))
            stored = [data for _, data in view.snapshot.items("tree")]
    STORE[:] = (PLACE / "ledger" / "data.mdb").read_bytes()
    file = (PLACE / "archive.parquet").read_bytes()
    body = json.dumps({"transaction": base64.b64encode(transaction.wire).decode()}).encode()
    return {
        "decoder": [transaction.wire],
        "proof": [json.dumps(made).encode() for made in proofs],
        "archive": [(PLACE / "archive").read_bytes()],
        "parquet": [b"\0" + file, b"\1" + file],
        "store": [bytes(4), b"\0\x10\x0a\2", b"\0\x20\x0c\x12" * 4],
        "http": [
            b"POST /tx?wait_s=0\n" + body,
            b"GET /query/coins.supply/coins?prove=true\n",
            b"GET /tx/" + transaction.id.hex().encode() + b"\n",
            b"GET /accounts/" + KEY.public.hex().encode() + b"\n",
            b"GET /scan/coins.supply?limit=5&reverse=true\n",
            b"GET /blocks/1\n",
            b"GET /metrics\n",
        ],
        "snapshot": [(PLACE / "snapshot").read_bytes()[20:]],
        "keys": [*stored, b"coins.supply\0coins", b"7/x/" + b"00" * 32],
    }[name]


def _face() -> TestClient[Litestar]:
    """A node's HTTP face in this process, without limits of rate."""
    engine = Embedded.create(PLACE / "home", Genesis(chain="c", time_ms=0), RULES, key=KEY, interval_ms=50)
    most = RateLimit(1e9, 10**9)
    face = TestClient(build_app(Node(engine, RULES, submissions=most, reads=most)), raise_server_exceptions=True)
    face.__enter__()
    return face


TARGETS = {target.__name__: target for target in (decoder, proof, archive, parquet, snapshot, keys, store, http)}

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
