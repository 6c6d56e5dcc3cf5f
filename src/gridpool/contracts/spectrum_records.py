"""What the spectrum register stores: band classes, licences, protected uses, idle bands, leases and where they stand.

Bands are half-open [low, high) in Hz, times half-open [start, end) in ms, areas ascending H3 cells at the band class's
resolution, levels mdBm per MHz. A *bin* is a slice of a class's band, a *strip* eight bins, an *epoch* four weeks; a
*sheet* lists what transmits (or is protected) in the cells of one parent cell, in one strip, in one epoch: the unit of
storage and proof.
"""

from struct import Struct as Layout
from typing import Annotated, Literal, TypeVar

import msgspec

from gridpool.ledger.contract import Contract
from gridpool.ledger.table import Table
from gridpool.ledger.types import Coins, Due, Millis, Natural, PartsPerMillion, Text, Value, Wallet

__all__ = [
    "AREAS",
    "CLASSES",
    "DAY_MS",
    "EPOCH_MS",
    "GUARDED",
    "GUARDS",
    "HEARTBEAT_MS",
    "HOUR_MS",
    "IDLE",
    "LEASES",
    "LICENCES",
    "LIVE",
    "LOSSES",
    "NUMBERS",
    "PROTECTED",
    "SHEETS",
    "AccessRule",
    "Area",
    "BandClass",
    "Cells",
    "Counter",
    "EndLease",
    "Entry",
    "Guard",
    "Hertz",
    "IdleBand",
    "Kind",
    "Lease",
    "Level",
    "Licence",
    "Losses",
    "Offered",
    "Pages",
    "Pricing",
    "ProtectedUse",
    "Sheet",
    "Standing",
    "spectrum",
]

spectrum = Contract("spectrum")

V = TypeVar("V")
_FOUR = Layout(">4Q").pack

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
EPOCH_MS = 28 * DAY_MS
HEARTBEAT_MS = 240_000
"""A heartbeat authorises transmission at most this far ahead (WINNF-TS-0016)."""

Hertz = Annotated[int, msgspec.Meta(ge=0, le=10**13)]
Level = Annotated[int, msgspec.Meta(ge=-300_000, le=120_000)]
"""mdBm per MHz."""
Cell = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Cells = Annotated[tuple[Cell, ...], msgspec.Meta(min_length=1, max_length=5_000)]
Kind = Literal["exclusive", "shared", "general"]
"""``exclusive``: nobody else in the cells; ``shared``: exclusive but for the incumbent (LSA); ``general``: anybody."""
Pricing = Literal["fixed", "payg", "auction"]
"""``fixed``: coins a lease; ``payg``: coins per MHz, hour and cell; ``auction``: sold by auction only."""
Standing = Literal["granted", "authorized", "suspended", "terminated", "expired", "relinquished"]
LIVE = ("granted", "authorized", "suspended")
"""The states in which a lease holds its band."""


class BandClass(Value):
    """The rules of a range of bands.

    ``adjacent_mdb`` is the extra loss into the bin next door; what lies further is not counted. ``lessee_limit``
    bounds what a lessee's receiver hears from others. ``heights_m`` are the upper ends of the antenna height classes.
    """

    name: Text
    low: Hertz
    high: Hertz
    resolution: Annotated[int, msgspec.Meta(ge=3, le=12)]
    bin_hz: Annotated[int, msgspec.Meta(ge=10_000, le=10**10)]
    adjacent_mdb: Annotated[int, msgspec.Meta(ge=0, le=200_000)]
    lessee_limit: Level
    least_eirp: Level
    most_eirp: Level
    heights_m: Annotated[tuple[Annotated[int, msgspec.Meta(ge=1, le=20_000)], ...], msgspec.Meta(min_length=1)]


class Losses(Value):
    """A version of a class's path-loss table: for each height class, the least loss in mdB by H3 ring distance.

    A transmitter is not heard beyond the last ring. ``source`` says which model made the table.
    """

    version: Natural
    source: Text
    rings: Annotated[
        tuple[Annotated[tuple[Annotated[int, msgspec.Meta(ge=0, le=400_000)], ...], msgspec.Meta(max_length=41)], ...],
        msgspec.Meta(min_length=1),
    ]


class Licence(Value):
    """The right to a band, an area and a time; ``leasable`` says whether it may be leased on."""

    holder: Wallet
    band: Natural
    low: Hertz
    high: Hertz
    cells: Cells
    start: Millis
    end: Millis
    max_eirp: Level
    kind: Kind
    leasable: bool


class ProtectedUse(Value):
    """An incumbent's use: at these cells and in these windows no more than ``limit`` may be heard.

    ``rule`` is the local-time schedule for people; the windows are what it came to in market time.
    """

    incumbent: Wallet
    band: Natural
    low: Hertz
    high: Hertz
    cells: Cells
    windows: Annotated[tuple[tuple[Millis, Millis], ...], msgspec.Meta(min_length=1, max_length=4_000)]
    limit: Level
    rule: Text


class IdleBand(Value):
    """A band that its holder offers, at a price and with terms; a recall takes effect after ``notice_ms``."""

    licence: Natural
    holder: Wallet
    band: Natural
    low: Hertz
    high: Hertz
    cells: Cells
    start: Millis
    end: Millis
    max_eirp: Level
    kind: Kind
    pricing: Pricing
    price: Coins
    notice_ms: Annotated[int, msgspec.Meta(ge=HEARTBEAT_MS, le=366 * DAY_MS)]
    transferable: bool
    """Lessees may sub-lease, split and merge."""


class Lease(Value):
    """A lease and its state. ``charged = paid_out + fees + held`` always; ``held`` is a fixed price not yet earned."""

    idle: Natural
    holder: Wallet
    lessee: Wallet
    band: Natural
    low: Hertz
    high: Hertz
    cells: Cells
    start: Millis
    end: Millis
    eirp: Level
    height: Natural
    """Antenna height class."""
    kind: Kind
    standing: Standing
    pricing: Pricing
    price: Coins
    notice_ms: Natural
    transferable: bool
    present: bool = False
    """Whether the lessee declared that it is there (arrival, departure)."""
    authorized_until: Millis = 0
    recalled_at: Millis = 0
    """When a recall takes effect; 0 where none was made."""
    paid_until: Millis = 0
    charged: Coins = 0
    paid_out: Coins = 0
    fees: Coins = 0
    held: Coins = 0
    refunded: Coins = 0
    origin: Natural = 0
    """The lease that this one was split or sub-leased from; 0 where none."""
    offered_to: bytes = b""
    """Wallet to which a sub-lease is offered, and below for how much."""
    offered_for: Coins = 0


class Entry(Value, gc=False):
    """A lease in one cell, as sheets hold it."""

    cell: Cell
    lease: Natural
    low: Hertz
    high: Hertz
    start: Millis
    end: Millis
    eirp: Level
    height: Natural
    general: bool


class Guard(Value, gc=False):
    """A window of a protected use in one cell, as sheets hold it; ``limit`` in linear units."""

    cell: Cell
    use: Natural
    low: Hertz
    high: Hertz
    start: Millis
    end: Millis
    limit: Natural


class Sheet(Value):
    """What transmits, or what is protected, in one parent cell, strip and epoch; ``spectrum_sheets`` reads it."""

    rows: bytes


class Offered(Value):
    """An idle band or a licence as a cell's page holds it."""

    number: Natural
    low: Hertz
    high: Hertz
    start: Millis
    end: Millis


class Area(Value):
    """A cell's page: which licences cover it and which idle bands are on offer in it."""

    licences: tuple[Offered, ...]
    idle: tuple[Offered, ...]


class Counter(Value):
    """The last number given out."""

    last: Natural


class AccessRule(Value):
    """A threshold of access: share of time (ppm) or number of grants within a sliding window, and the denial after.

    0 leaves a threshold out.
    """

    name: Text
    band: Natural
    window_ms: Annotated[int, msgspec.Meta(ge=1_000, le=400 * DAY_MS)]
    most_share_ppm: PartsPerMillion
    most_grants: Natural
    deny_ms: Annotated[int, msgspec.Meta(ge=1, le=400 * DAY_MS)]


class EndLease(Due, tag="spectrum.end_lease"):
    """A lease reaches its end."""

    lease: Natural


CLASSES = spectrum.table("class", key=int, value=BandClass)
LOSSES = spectrum.table("losses", key=int, value=Losses)
"""Band class -> the path-loss table in force."""
LICENCES = spectrum.table("licence", key=int, value=Licence)
PROTECTED = spectrum.table("protected", key=int, value=ProtectedUse)
IDLE = spectrum.table("idle", key=int, value=IdleBand)
LEASES = spectrum.table("lease", key=int, value=Lease)


class Pages(Table[tuple[int, int, int, int], V]):
    """A table keyed by four integers that packs them in one step: an inquiry reads dozens of these keys."""

    __slots__ = ()

    def encode_key(self, key: tuple[int, int, int, int]) -> bytes:
        """Return namespace and order-preserving key bytes."""
        return self.namespace + _FOUR(*key)


SHEETS: Pages[Sheet] = Pages("spectrum.sheet", (int, int, int, int), Sheet)
"""(class, parent cell, strip, epoch) -> what transmits there."""
GUARDS: Pages[Sheet] = Pages("spectrum.guard", (int, int, int, int), Sheet)
"""(class, parent cell, strip, epoch) -> what is protected there."""
spectrum.tables += (SHEETS, GUARDS)
GUARDED = spectrum.table("guarded", key=(int, int), value=Counter)
"""(class, parent cell) -> 1 where anything is ever protected there."""
AREAS = spectrum.table("area", key=(int, int), value=Area)
"""(class, cell) -> licences and offers of the cell."""
NUMBERS = spectrum.table("number", key=str, value=Counter)
"""``licence``, ``protected``, ``idle``, ``lease``, ``auction``, ``incident`` -> the last number given out."""
