"""What aggregators and devices do with files of readings: ingest, prove one, check a proof, compare two trees."""

import base64
import os
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from gridpool.agents.edge_aggregator import Anchored, EdgeAggregator, Gathered, anchor
from gridpool.agents.telemetry_file import Line, read_lines
from gridpool.agents.telemetry_tree import ROW_BYTES, ReadingTree, sorted_order
from gridpool.contracts import members
from gridpool.contracts.records_telemetry import (
    ANCHORS,
    AnchorName,
    ShowDifference,
)
from gridpool.contracts.records_tree import (
    KEY_BYTES,
    ReadingProof,
    reading_key,
    reading_message,
    reading_row,
    root_of_proof,
)
from gridpool.engines.verifying import VerifyingThreads
from gridpool.errors import RefusedInput, VerificationFault
from gridpool.ledger.keys import KeyPair, verify
from gridpool.ledger.state import State
from gridpool.ledger.types import decode, encode

if TYPE_CHECKING:
    from gridpool.agents.wallet_session import Session

__all__ = [
    "AnchoredRoot",
    "Comparison",
    "DifferentReading",
    "Ingested",
    "anchors_of",
    "check_proof",
    "compare_files",
    "difference_call",
    "ingest",
    "prove_reading",
    "registered_devices",
    "show_differences",
]

FEW_BYTES = 1 << 20
"""Files up to this size are verified in the calling thread: starting others would take longer."""
MOST_PROOF = 8_192
MOST_SHOWN = 100

Advance = Callable[[int], None]


class Ingested(msgspec.Struct, frozen=True):
    """An ingested file: what was gathered, where it was anchored, and the seconds from opening it to the end."""

    gathered: Gathered
    anchored: Anchored | None
    seconds: float


class DifferentReading(msgspec.Struct, frozen=True):
    """A reading on which two files differ: value and whether the device signed it, on each side (None: it lacks it)."""

    device: str
    start: int
    first: int | None
    second: int | None
    first_signed: bool
    second_signed: bool


class Comparison(msgspec.Struct, frozen=True):
    """Where two files differ, how many hashes were compared, and both trees with the signatures at stake."""

    found: list[DifferentReading]
    hashes: int
    trees: tuple[ReadingTree, ReadingTree]
    signatures: tuple[dict[bytes, bytes], dict[bytes, bytes]]


class AnchoredRoot(msgspec.Struct, frozen=True):
    """A root on the ledger: whose, of which readings' starts [start, end), its number, and its transaction."""

    aggregator: str
    start: int
    end: int
    number: int
    root: str
    count: int
    at: int
    tx: str


def ingest(
    path: Path,
    *,
    session: "Session | None" = None,
    key: KeyPair | None = None,
    known: Callable[[bytes], bool] | None = None,
    threads: int | None = None,
    advance: Advance | None = None,
) -> Ingested:
    """Verify a file of readings, build its tree and, with a ``session``, anchor it as the aggregator ``key``.

    Readings are refused one by one. ``threads`` verify signatures: by default none for small files, else one a core.
    Raises RefusedInput where the file as a whole cannot be read or the ledger refuses the root.
    """
    begun = time.perf_counter()
    if not path.is_file():
        raise RefusedInput(f"no file {path}; give readings as .jsonl or .parquet")
    if threads is None:
        threads = 0 if path.stat().st_size <= FEW_BYTES else len(os.sched_getaffinity(0))
    with closing(VerifyingThreads(threads)) if threads else nullcontext() as verifier:
        aggregator = EdgeAggregator(key=key, verifier=verifier, known=known)
        for seen in aggregator.take(read_lines(path)):
            if advance is not None:
                advance(seen)
        gathered = aggregator.gather()
    anchored = None
    if session is not None:
        if key is None:
            raise RefusedInput("an aggregator anchors with its key; give its wallet")
        anchored = anchor(session, key, gathered)
    return Ingested(gathered, anchored, time.perf_counter() - begun)


def registered_devices(session: "Session") -> Callable[[bytes], bool]:
    """Return the question whether a device's key is a registered wallet, valid now, neither replaced nor banned."""
    state, now = session.state, session.now

    def known(device: bytes) -> bool:
        record = state.get(members.WALLETS, device)
        ban = state.get(members.BANNED, device)
        banned = ban is not None and now < ban.until
        return record is not None and record.valid_from <= now < record.valid_until and not banned

    return known


def prove_reading(tree: ReadingTree, device: bytes, start: int) -> bytes:
    """Write the proof of a reading under a tree's root as one line of JSON.

    Raises RefusedInput where the tree has no such reading.
    """
    key = reading_key(device, start)
    proof = tree.prove(key) if tree.count else None
    if proof is None or not reading_row(proof.reading).startswith(key):
        raise RefusedInput(f"no accepted reading of {device.hex()} at {start} in these readings")
    packed = base64.b64encode(encode(proof)).decode()
    return msgspec.json.encode({"format": "gridpool-reading-1", "proof": packed}) + b"\n"


def check_proof(data: bytes, state: State) -> tuple[ReadingProof, list[AnchoredRoot]]:
    """Return a proof and the anchors whose root it leads to; raises VerificationFault where there is none."""
    try:
        if len(data) > MOST_PROOF:
            raise ValueError("it is too long")
        held = msgspec.json.decode(data, type=dict[str, str])
        if held.get("format") != "gridpool-reading-1":
            raise ValueError("it is of another format")
        proof = decode(base64.b64decode(held["proof"], validate=True), ReadingProof)
    except (msgspec.DecodeError, ValueError, KeyError, RecursionError) as error:
        raise RefusedInput(f"this is no proof of a reading: {error}") from None
    reading = proof.reading
    root = root_of_proof(proof, reading_key(reading.device, reading.start))
    found = [row for row in anchors_of(state) if root is not None and row.root == root.hex()]
    if not any(row.start <= reading.start < row.end and row.count == proof.count for row in found):
        raise VerificationFault("the proof leads to no root that is anchored on this ledger")
    return proof, found


def anchors_of(state: State, aggregator: bytes | None = None) -> list[AnchoredRoot]:
    """List the anchored roots of all aggregators, or of one."""
    return [
        AnchoredRoot(
            whose.hex(), start, anchor.end, number, anchor.root.hex(), anchor.count, anchor.at, anchor.tx.hex()
        )
        for (whose, start, number), anchor in state.scan(ANCHORS, () if aggregator is None else (aggregator,))
    ]


def compare_files(first: Path, second: Path) -> Comparison:
    """Find the devices whose readings differ between two aggregators' files, as these present them.

    The trees are over what the files say, signed or not, since a file under suspicion is looked at; of a repeated
    reading the first counts.
    """
    trees = (_presented(first), _presented(second))
    keys, compared = trees[0].differences(trees[1])
    wanted = set(keys)
    signatures = (_signatures(first, wanted), _signatures(second, wanted))
    found = []
    for key in keys:
        sides = [_presented_side(tree, known, key) for tree, known in zip(trees, signatures, strict=True)]
        (value, signed), (other, other_signed) = sides
        start = int.from_bytes(key[32:], "big")
        found.append(DifferentReading(key[:32].hex(), start, value, other, signed, other_signed))
    return Comparison(found, compared, trees, signatures)


def difference_call(
    trees: tuple[ReadingTree, ReadingTree],
    anchors: tuple[AnchorName, AnchorName],
    device: bytes,
    start: int,
    signatures: tuple[bytes, bytes] = (b"", b""),
) -> ShowDifference:
    """Return the call that establishes a difference between two anchored trees on the ledger."""
    key = reading_key(device, start)
    sides = sorted(zip(anchors, trees, signatures, strict=True), key=lambda side: side[0].aggregator)
    (one, tree_one, signed_one), (two, tree_two, signed_two) = sides
    return ShowDifference(device, start, one, two, tree_one.prove(key), tree_two.prove(key), signed_one, signed_two)


def show_differences(session: "Session", key: KeyPair, comparison: Comparison) -> list[str]:
    """Establish the first hundred differences between two anchored files on the ledger; returns the transactions.

    Raises RefusedInput where a file's root is not anchored, or the ledger knows the difference already.
    """
    anchors = []
    for tree in comparison.trees:
        name = next((one for one in anchors_of(session.state) if one.root == tree.root.hex()), None)
        if name is None:
            raise RefusedInput(f"root {tree.root.hex()} is not anchored on this ledger; nothing can be shown about it")
        anchors.append(AnchorName(bytes.fromhex(name.aggregator), name.start, name.number))
    transactions = []
    for one in comparison.found[:MOST_SHOWN]:
        device = bytes.fromhex(one.device)
        place = reading_key(device, one.start)
        held = (comparison.signatures[0].get(place, b""), comparison.signatures[1].get(place, b""))
        call = difference_call(comparison.trees, (anchors[0], anchors[1]), device, one.start, held)
        transactions.append(session.submit(key, call).tx.hex())
    return transactions


def _presented(path: Path) -> ReadingTree:
    """Build the tree over what a file says, without verifying it."""
    rows = bytearray()
    for _, line in read_lines(path):
        key = _key(line)
        if key is not None and not isinstance(line, str) and line.value is not None:
            rows += key + line.value.to_bytes(8, "big", signed=True)
    table = np.frombuffer(bytes(rows), np.uint8).reshape(-1, ROW_BYTES)
    table = table[sorted_order(table)]
    fresh = np.ones(len(table), bool)
    if len(table):
        fresh[1:] = (table[1:, :KEY_BYTES] != table[:-1, :KEY_BYTES]).any(axis=1)
    return ReadingTree(table[fresh])


def _signatures(path: Path, wanted: set[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for _, line in read_lines(path) if wanted else ():
        key = _key(line)
        if key is None or key not in wanted or key in found or isinstance(line, str) or line.value is None:
            continue
        try:
            signature = bytes.fromhex(line.signature)
        except ValueError:
            signature = b""
        found[key] = signature if len(signature) == 64 else bytes(64)
    return found


def _key(line: Line | str) -> bytes | None:
    if isinstance(line, str) or line.value is None or len(line.device) != 64:
        return None
    try:
        device = bytes.fromhex(line.device)
    except ValueError:
        return None
    return reading_key(device, line.start) if len(device) == 32 else None


def _presented_side(tree: ReadingTree, signatures: dict[bytes, bytes], key: bytes) -> tuple[int | None, bool]:
    """Return a side's value under a key, and whether the device has signed it."""
    value = _value_of(tree, key)
    if value is None:
        return None, False
    row = key + value.to_bytes(8, "big", signed=True)
    return value, verify(key[:32], signatures.get(key, bytes(64)), reading_message(row))


def _value_of(tree: ReadingTree, key: bytes) -> int | None:
    if not tree.count:
        return None
    reading = tree.prove(key).reading
    return reading.value if reading_key(reading.device, reading.start) == key else None
