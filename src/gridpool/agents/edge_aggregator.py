"""An aggregator at the edge: takes in signed readings, refuses bad ones one by one, and builds the interval's tree.

Signatures are verified in chunks by threads beside this one, codes in chunks by the compiled loop; what is left here is
one pass over the lines, a sort, and the tree.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import NamedTuple

import msgspec
import numpy as np
from nacl.exceptions import CryptoError
from numpy.typing import NDArray

from gridpool.agents.telemetry_file import Line
from gridpool.agents.telemetry_session import HOLDS, VERDICTS, SessionReceivers, first_key, opening_message
from gridpool.agents.telemetry_tree import ROW_BYTES, ReadingTree, sorted_order
from gridpool.agents.wallet_session import Session
from gridpool.contracts.records_telemetry import AnchorReadings, latest_anchor
from gridpool.contracts.records_tree import KEY_BYTES, reading_message
from gridpool.errors import RefusedInput
from gridpool.ledger.keys import KeyPair, verify_all
from gridpool.ledger.signatures import Verifier
from gridpool.ledger.transaction import SignedMessage

__all__ = ["Anchored", "EdgeAggregator", "Gathered", "Refusal", "anchor"]

CHUNK = 1_024
AHEAD = 16
"""Most chunks under way; bounds what waits in memory."""
MOST_NAMED = 100_000
"""Refusals that are named; beyond, they are counted."""
MOST_CACHED = 50_000


class Refusal(msgspec.Struct, frozen=True):
    """A line (from 1) that was refused, and why."""

    line: int
    reason: str


class Gathered(msgspec.Struct, frozen=True):
    """An interval's readings after all were looked at: how many came, what was refused, and the tree over the rest.

    ``sessions`` counts opened sessions, which are no readings; [``start``, ``end``) spans the accepted ones.
    """

    readings: int
    refused: int
    refusals: list[Refusal]
    sessions: int
    tree: ReadingTree
    start: int
    end: int

    @property
    def accepted(self) -> int:
        """Number of readings in the tree."""
        return self.tree.count


class Anchored(msgspec.Struct, frozen=True):
    """Where a tree stands on the ledger: its transaction, and its number among the anchors of one start."""

    tx: bytes
    number: int


class _Opening(NamedTuple):
    line: int
    name: tuple[bytes, str]
    session: bytes
    message: SignedMessage


class _Codes:
    """Readings whose codes wait to be checked: their places among the rows, and what ``verdicts`` takes."""

    def __init__(self) -> None:
        self.places: list[int] = []
        self.rows = bytearray()
        self.sessions = array("I")
        self.sequences = array("Q")
        self.macs = bytearray()

    def add(self, place: int, row: bytes, session: int, sequence: int, mac: bytes) -> None:
        self.places.append(place)
        self.rows += row
        self.sessions.append(session)
        self.sequences.append(sequence)
        self.macs += mac


class EdgeAggregator:
    """Takes lines in, in order; ``gather`` ends the interval."""

    def __init__(
        self,
        *,
        key: KeyPair | None = None,
        verifier: Verifier | None = None,
        known: Callable[[bytes], bool] | None = None,
    ) -> None:
        """Verify in the calling thread, or by a ``verifier`` beside it.

        ``key`` opens sessions that devices have with this aggregator; ``known`` says whether a device is admitted (by
        default each is whose signature holds).
        """
        self._key = key
        self._verifier = verifier
        self._known = known
        self._rows = bytearray()
        self._lines = array("Q")
        self._held = bytearray()
        self._refusals: list[Refusal] = []
        self._refused = 0
        self._readings = 0
        self._sessions: dict[tuple[bytes, str], int] = {}
        self._receivers = SessionReceivers()
        self._openings: list[_Opening] = []
        self._codes = _Codes()
        self._keys: dict[str, bytes] = {}
        self._admitted: dict[bytes, bool] = {}
        self._waiting: list[SignedMessage] = []
        self._places: list[int] = []
        self._under_way: deque[tuple[Future[bytes], list[int]]] = deque()

    def take(self, lines: Iterable[tuple[int, Line | str]]) -> Iterator[int]:
        """Take lines in, yielding how many were seen after every thousand."""
        for count, (number, line) in enumerate(lines, 1):
            if isinstance(line, str):
                self._readings += 1
                self._refuse(number, line)
            elif line.aggregator and line.value is None:
                reason = self._open(number, line)
                if reason:
                    self._refuse(number, reason, reading=False)
            else:
                self._readings += 1
                reason = self._take(number, line)
                if reason:
                    self._refuse(number, reason)
            if not count % 1_000:
                yield 1_000

    def gather(self) -> Gathered:
        """Wait for all signatures, refuse what does not hold or repeats a reading, and build the tree."""
        self._settle()
        self._send()
        while self._under_way:
            self._collect()
        rows: NDArray[np.uint8] = np.frombuffer(bytes(self._rows), np.uint8).reshape(-1, ROW_BYTES)
        lines = np.frombuffer(self._lines, np.uint64) if self._lines else np.zeros(0, np.uint64)
        verdicts = np.frombuffer(bytes(self._held), np.uint8)
        held = verdicts == HOLDS
        for place in np.flatnonzero(~held):
            self._refuse(int(lines[place]), VERDICTS[verdicts[place]] or "signature does not hold")
        rows, lines = rows[held], lines[held]
        order = sorted_order(rows)
        rows, lines = rows[order], lines[order]
        fresh = np.ones(len(rows), bool)
        if len(rows):
            fresh[1:] = (rows[1:, :KEY_BYTES] != rows[:-1, :KEY_BYTES]).any(axis=1)
            first = np.maximum.accumulate(np.where(fresh, np.arange(len(rows)), 0))
            for place in np.flatnonzero(~fresh):
                self._refuse(int(lines[place]), f"repeats line {int(lines[first[place]])}")
        rows = rows[fresh]
        starts = np.ascontiguousarray(rows[:, 32:KEY_BYTES]).view(">u8")
        tree = ReadingTree(rows)
        self._refusals.sort(key=lambda refusal: refusal.line)
        return Gathered(
            self._readings,
            self._refused,
            self._refusals,
            len(self._sessions),
            tree,
            int(starts.min()) if len(rows) else 0,
            int(starts.max()) + 1 if len(rows) else 0,
        )

    def _take(self, number: int, line: Line) -> str:
        device = self._keys.get(line.device) or self._parse(line.device)
        if device is None:
            return "malformed: device is no key of 64 hexadecimal digits"
        if line.value is None:
            return "malformed: it has no value"
        if self._known is not None and not self._admits(device):
            return "device is not registered or no longer valid"
        row = device + line.start.to_bytes(8, "big") + line.value.to_bytes(8, "big", signed=True)
        if line.mac:
            session = self._sessions.get((device, line.session))
            mac = _bytes(line.mac, 16)
            if session is not None and (line.sequence is None or mac is None):
                self._settle()  # whether its session was opened comes first
                session = self._sessions.get((device, line.session))
            if session is None:
                return "session was not opened"
            if line.sequence is None or mac is None:
                return "malformed: it lacks a sequence number or its mac has not 32 hexadecimal digits"
            self._codes.add(len(self._held), row, session, line.sequence, mac)
            self._held.append(0)
            if len(self._codes.places) == CHUNK:
                self._settle()
        else:
            signature = _bytes(line.signature, 64)
            if signature is None:
                return "malformed: signature has not 128 hexadecimal digits"
            self._waiting.append((device, signature, reading_message(row)))
            self._places.append(len(self._held))
            self._held.append(0)
            if len(self._waiting) == CHUNK:
                self._send()
        self._rows += row
        self._lines.append(number)
        return ""

    def _open(self, number: int, line: Line) -> str:
        device, aggregator = _bytes(line.device, 32), _bytes(line.aggregator, 32)
        session, signature = _bytes(line.session, 16), _bytes(line.signature, 64)
        if device is None or aggregator is None or session is None or signature is None:
            return "malformed: a session has device, aggregator, session and signature in hexadecimal"
        if self._key is None or aggregator != self._key.public:
            return "session is with another aggregator; give its wallet"
        if self._known is not None and not self._admits(device):
            return "device is not registered or no longer valid"
        name = (device, session.hex())
        if name in self._sessions:
            self._settle()  # one that is not open yet may turn out to be forged
            if name in self._sessions:
                return "session is open already"
        message = (device, signature, opening_message(device, aggregator, session, line.start))
        self._sessions[name] = self._receivers.reserve()
        self._openings.append(_Opening(number, name, session, message))
        if len(self._openings) == CHUNK:
            self._settle()
        return ""

    def _settle(self) -> None:
        """Open the sessions that wait, or refuse them, and then check the codes that wait."""
        openings, self._openings = self._openings, []
        messages = [opening.message for opening in openings]
        if self._verifier is None or not openings:
            held = verify_all(messages)
            keys = [self._first_key(opening) if holds else None for opening, holds in zip(openings, held, strict=True)]
        else:
            under_way = self._verifier.submit(messages)
            keys = [self._first_key(opening) for opening in openings]
            held = under_way.result()
        closed = []
        for opening, holds, key in zip(openings, held, keys, strict=True):
            if holds and key is not None:
                self._receivers.open(self._sessions[opening.name], key)
                continue
            closed.append(self._sessions.pop(opening.name))
            self._refuse(opening.line, "device is no sound key" if holds else "signature does not hold", reading=False)
        codes, self._codes = self._codes, _Codes()
        if codes.places:
            verdicts = self._receivers.verdicts(bytes(codes.rows), codes.sessions, codes.sequences, bytes(codes.macs))
            self._note(verdicts, codes.places)
        self._receivers.give_back(closed)

    def _first_key(self, opening: "_Opening") -> bytes | None:
        assert self._key is not None
        device = opening.name[0]
        try:
            return first_key(self._key, device, device, self._key.public, opening.session)
        except (CryptoError, RefusedInput):
            return None

    def _parse(self, text: str) -> bytes | None:
        key = _bytes(text, 32)
        if key is not None:
            if len(self._keys) >= MOST_CACHED:
                self._keys.clear()
            self._keys[text] = key
        return key

    def _admits(self, device: bytes) -> bool:
        answer = self._admitted.get(device)
        if answer is None:
            if len(self._admitted) >= MOST_CACHED:
                self._admitted.clear()
            assert self._known is not None
            answer = self._admitted[device] = self._known(device)
        return answer

    def _refuse(self, line: int, reason: str, *, reading: bool = True) -> None:
        self._refused += reading
        if len(self._refusals) < MOST_NAMED:
            self._refusals.append(Refusal(line, reason))

    def _send(self) -> None:
        """Hand a chunk of signatures on; in this thread where there is no verifier."""
        messages, places = self._waiting, self._places
        if not messages:
            return
        self._waiting, self._places = [], []
        if self._verifier is None:
            self._note(verify_all(messages), places)
            return
        self._under_way.append((self._verifier.submit(messages), places))
        while len(self._under_way) > AHEAD:
            self._collect()

    def _collect(self) -> None:
        answer, places = self._under_way.popleft()
        self._note(answer.result(), places)

    def _note(self, held: bytes, places: list[int]) -> None:
        self._held[places[0] : places[-1] + 1] = (
            held if places[-1] - places[0] + 1 == len(places) else self._scattered(held, places)
        )

    def _scattered(self, held: bytes, places: list[int]) -> bytes:
        between = bytearray(self._held[places[0] : places[-1] + 1])
        for place, answer in zip(places, held, strict=True):
            between[place - places[0]] = answer
        return bytes(between)


def anchor(session: Session, key: KeyPair, gathered: Gathered) -> Anchored | None:
    """Anchor a tree on the ledger; the one that stands last for its start is not anchored twice.

    Returns where it stands, None for an interval without accepted reading. Raises RefusedInput where refused.
    """
    if not gathered.accepted:
        return None
    tree = gathered.tree
    last = latest_anchor(session.state, key.public, gathered.start)
    if last is None or (last[1].root, last[1].end) != (tree.root, gathered.end):
        session.submit(key, AnchorReadings(gathered.start, gathered.end, tree.root, tree.count))
        last = latest_anchor(session.state, key.public, gathered.start)
    if last is None:
        raise RefusedInput("the ledger took the anchor and does not show it yet; ask again in a moment")
    return Anchored(last[1].tx, last[0])


def _bytes(text: str, size: int) -> bytes | None:
    if len(text) != 2 * size:
        return None
    try:
        data = bytes.fromhex(text)
    except ValueError:
        return None
    return data if len(data) == size else None
