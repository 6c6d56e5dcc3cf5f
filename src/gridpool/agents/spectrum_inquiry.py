"""Inquiry by place: which channels may be used here, how loudly, from whom, until when; and a proof of the answer.

The answer is a pure function of the ledger's state at one height. It reads keys only by name, so a client that holds
proofs of exactly these keys (present or absent) repeats the computation and compares: nothing can be left out.
Conservative: a channel is listed only if it may be used in every cell where the asker may stand, at the lowest level
that any of them allows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from gridpool.agents.spectrum_place import cells_under, check_place
from gridpool.contracts.members import MEMBERS
from gridpool.contracts.spectrum_interference import Newcomer, scene
from gridpool.contracts.spectrum_power import density
from gridpool.contracts.spectrum_records import (
    AREAS,
    CLASSES,
    DAY_MS,
    IDLE,
    LOSSES,
    NUMBERS,
    BandClass,
    Entry,
    IdleBand,
)
from gridpool.contracts.spectrum_scene import Scene
from gridpool.errors import RefusedInput
from gridpool.ledger.state import Reader, State

__all__ = ["Answer", "Channel", "Inquired", "Question", "RecordingReader", "RefusedRange", "answer"]

HORIZON_MS = 7 * DAY_MS
MOST_HORIZON_MS = 366 * DAY_MS


@dataclass(frozen=True, slots=True)
class Question:
    """Where (degrees, with uncertainty in m), how high (m), which band, how wide (Hz), when (ms), for how long (ms)."""

    latitude: float
    longitude: float
    uncertainty_m: float
    height_m: float
    low: int
    high: int
    bandwidth: int
    at: int
    horizon: int = HORIZON_MS

    def check(self) -> None:
        """Refuse values that make no question; raises RefusedInput saying which."""
        if not 0 <= self.low < self.high <= 10**13:
            raise RefusedInput(f"no band from {self.low} to {self.high} Hz; give 0 <= low < high <= 10^13")
        if not 0 < self.bandwidth <= 10**13:
            raise RefusedInput(f"a bandwidth of {self.bandwidth} Hz is outside 1..10^13")
        if not 0 <= self.height_m <= 20_000:
            raise RefusedInput(f"an antenna at {self.height_m} m is outside 0..20000 m")
        if not 0 <= self.at < 2**62:
            raise RefusedInput(f"market time {self.at} is out of range")
        if not 60_000 <= self.horizon <= MOST_HORIZON_MS:
            raise RefusedInput("a question looks ahead between a minute and 366 days")
        check_place(self.latitude, self.longitude, self.uncertainty_m)


class Channel(msgspec.Struct, frozen=True):
    """A band on offer: the highest EIRP, the price by its rule, whose it is, and until when it is free."""

    idle: int
    low: int
    high: int
    max_eirp: int
    kind: str
    pricing: str
    price: int
    holder: bytes
    name: str
    until: int


class RefusedRange(msgspec.Struct, frozen=True):
    """A part of an offer that cannot be had, and why."""

    low: int
    high: int
    reason: str


class Answer(msgspec.Struct, frozen=True):
    """Channels in order of band, then number of the offer; what was refused; the cells where the asker may be."""

    channels: tuple[Channel, ...]
    refused: tuple[RefusedRange, ...]
    cells: int


class Inquired(msgspec.Struct, frozen=True):
    """An answer, the height it was read at, and every key it was read from."""

    answer: Answer
    height: int
    app_hash: bytes
    read: dict[bytes, bytes | None]


class RecordingReader:
    """A reader that remembers which keys were asked for, and what they held."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.read: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """Return the value under ``key`` and remember both."""
        value = self.read[key] = self._reader.get(key)
        return value

    def scan(self, prefix: bytes, start: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Refuse: a scan cannot be proved key by key."""
        raise NotImplementedError("an inquiry reads keys by name")


def answer(state: State, question: Question) -> Answer:
    """Answer an inquiry; raises RefusedInput for values that make no question."""
    question.check()
    channels: list[Channel] = []
    refused: list[RefusedRange] = []
    most_cells = 0
    known = state.get(NUMBERS, "class")
    for band in range(1, (known.last if known is not None else 0) + 1):
        rules = state.get(CLASSES, band)
        if rules is None or question.high <= rules.low or rules.high <= question.low:
            continue
        cells = cells_under(question.latitude, question.longitude, question.uncertainty_m, rules.resolution)
        most_cells = max(most_cells, len(cells))
        offers = _offers(state, band, cells, question)
        if not offers:
            continue
        height = next((i for i, top in enumerate(rules.heights_m) if question.height_m <= top), -1)
        if height < 0:
            refused += [RefusedRange(*_clip(offer, question), "antenna too high") for _, offer in offers]
            continue
        losses = state.get(LOSSES, band)
        if losses is None:
            continue
        rings = 2 * (len(losses.rings[0]) - 1)
        bands = [_clip(offer, question) for _, offer in offers]
        around = scene(state, band, bands, cells, question.at, question.at + question.horizon, rings=rings)
        for number, offer in offers:
            _judge(state, question, rules, around, cells, number, offer, height, channels, refused)
    channels.sort(key=lambda channel: (channel.low, channel.high, channel.idle))
    refused.sort(key=lambda part: (part.low, part.high, part.reason))
    return Answer(tuple(channels), tuple(refused), most_cells)


def _clip(offer: IdleBand, question: Question) -> tuple[int, int]:
    return max(offer.low, question.low), min(offer.high, question.high)


def _offers(state: State, band: int, cells: tuple[int, ...], question: Question) -> list[tuple[int, IdleBand]]:
    """Return the idle bands that cover every cell now, inside the asked range and wide enough there."""
    common: set[int] | None = None
    at, least, most = question.at, question.low + question.bandwidth, question.high - question.bandwidth
    if question.low > most:
        return []
    for cell in cells:
        page = state.get(AREAS, (band, cell))
        here = (
            {
                offered.number
                for offered in page.idle
                if offered.high >= least
                and offered.low <= most
                and offered.start <= at < offered.end
                and offered.high - offered.low >= question.bandwidth
            }
            if page is not None
            else set()
        )
        common = here if common is None else common & here
        if not common:
            return []
    found = []
    for number in sorted(common or ()):
        offer = state.get(IDLE, number)
        if offer is not None:
            found.append((number, offer))
    return found


def _judge(
    state: State,
    question: Question,
    rules: BandClass,
    around: Scene,
    cells: tuple[int, ...],
    number: int,
    offer: IdleBand,
    height: int,
    channels: list[Channel],
    refused: list[RefusedRange],
) -> None:
    """Sort the parts of one offer into channels and refusals."""
    low, high = _clip(offer, question)
    if offer.pricing == "auction":
        refused.append(RefusedRange(low, high, "sold by auction only"))
        return
    in_way = around.holders(frozenset(cells), low, high, general=offer.kind == "general")
    parts: list[_Part] | None = None
    dropped: set[RefusedRange] = set()
    for cell in cells:
        here = _parts_in(question, rules, around, cell, offer, height, [e for e in in_way if e.cell == cell], dropped)
        parts = here if parts is None else _common(parts, here)
    holder = state.get(MEMBERS, offer.holder)
    name = holder.name if holder is not None else offer.holder.hex()
    for part in parts or ():
        if part.high - part.low < question.bandwidth:
            dropped.add(RefusedRange(part.low, part.high, "narrower than asked"))
            continue
        channels.append(
            Channel(
                number,
                part.low,
                part.high,
                part.eirp,
                offer.kind,
                offer.pricing,
                offer.price,
                offer.holder,
                name,
                part.until,
            )
        )
    refused += dropped


class _Part(NamedTuple):
    """A part of an offer that can be had in a cell, how loudly, and until when."""

    low: int
    high: int
    eirp: int
    until: int


def _common(one: list[_Part], two: list[_Part]) -> list[_Part]:
    """Return what can be had in either of two places.

    Each part lies inside one of both, so that who knows its place better is never offered less. To judge parts for
    all places at once would not keep that: a lease in one of them cuts an offer in pieces, and a piece may be free of
    what the whole disturbs.
    """
    return [
        _Part(max(a.low, b.low), min(a.high, b.high), min(a.eirp, b.eirp), min(a.until, b.until))
        for a in one
        for b in two
        if max(a.low, b.low) < min(a.high, b.high)
    ]


def _parts_in(
    question: Question,
    rules: BandClass,
    around: Scene,
    cell: int,
    offer: IdleBand,
    height: int,
    in_way: list[Entry],
    dropped: set[RefusedRange],
) -> list[_Part]:
    """Return, ascending, what of an offer can be had in a cell where ``in_way`` stands; note the rest as dropped."""
    low, high = _clip(offer, question)
    general = offer.kind == "general"
    taken = sorted((max(entry.low, low), min(entry.high, high)) for entry in in_way if entry.start <= question.at)
    edge = low
    pieces: list[tuple[int, int]] = []
    for start, end in taken:
        if start > edge:
            pieces.append((edge, start))
        if end > edge:
            dropped.add(RefusedRange(max(start, edge), end, "leased"))
        edge = max(edge, end)
    if edge < high:
        pieces.append((edge, high))
    last = min(offer.end, question.at + question.horizon)
    limit = density(rules.lessee_limit)
    found: list[_Part] = []
    for start, end in pieces:
        if end - start < question.bandwidth:
            dropped.add(RefusedRange(start, end, "narrower than asked"))
            continue
        later = [e for e in in_way if e.start > question.at and e.low < end and start < e.high]
        newcomer = Newcomer(offer.band, start, end, (cell,), question.at, last, 0, height, not general)
        eirp, why = around.allowed_level(cell, newcomer, offer.max_eirp)
        # Who holds this cell later does not count: the channel is free until then only.
        own = frozenset(e.lease for e in later)
        if not general and around.heard(cell, start, end, question.at, last, own, limit=limit) > limit:
            eirp, why = -(10**6), "interference here"
        if eirp < rules.least_eirp:
            dropped.add(RefusedRange(start, end, _reason(why)))
            continue
        found.append(_Part(start, end, eirp, min((e.start for e in later), default=last)))
    return found


def _reason(why: str) -> str:
    """Say why without naming the disturbed lease (its number would tell where it is used)."""
    if why.startswith("lease"):
        return "would disturb another lessee"
    if why.startswith("protected"):
        return f"would disturb {why}"
    return why or "not enough power left"
