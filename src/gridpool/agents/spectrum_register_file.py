"""Register files: JSON that people and tools write, read whole or refused whole, and turned into a genesis.

Times are RFC 3339 with an offset, cells H3 indexes as text, frequencies Hz, levels mdBm per MHz. Licences, idle bands
and leases refer to one another by their place in the file, counted from 1.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, dataclass_transform

import msgspec

from gridpool.agents.path_loss_table import losses_for
from gridpool.agents.spectrum_place import Schedule, windows
from gridpool.contracts.coins import CoinParameters
from gridpool.contracts.coins import Payment as Account
from gridpool.contracts.members import FoundingMember, MemberParameters, Role
from gridpool.contracts.spectrum_records import (
    AccessRule,
    BandClass,
    IdleBand,
    Kind,
    Lease,
    Licence,
    Losses,
    Pricing,
    ProtectedUse,
)
from gridpool.contracts.spectrum_register import SpectrumParameters
from gridpool.errors import RefusedInput
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.types import encode

__all__ = ["FORMAT", "Founding", "RegisterFile", "founding", "leases_of", "millis", "read_register", "timestamp"]

FORMAT = "gridpool-spectrum-1"
MOST_BYTES = 1 << 30
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Index = Annotated[int, msgspec.Meta(ge=1)]
CellText = Annotated[str, msgspec.Meta(pattern="^8[0-9a-f]{14}$")]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
Hz = Annotated[int, msgspec.Meta(ge=0, le=10**13)]
Level = Annotated[int, msgspec.Meta(ge=-300_000, le=120_000)]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of what a register file holds: named fields, none unknown."""


class ClassEntry(_Part):
    """A band class; without ``losses_mdb`` its path-loss table is made from the radio model up to ring ``reach``."""

    name: Name
    low_hz: Hz
    high_hz: Hz
    resolution: Annotated[int, msgspec.Meta(ge=3, le=12)]
    bin_hz: Annotated[int, msgspec.Meta(ge=10_000, le=10**10)]
    adjacent_mdb: Annotated[int, msgspec.Meta(ge=0, le=200_000)]
    lessee_limit_mdbm_per_mhz: Level
    least_eirp_mdbm_per_mhz: Level
    most_eirp_mdbm_per_mhz: Level
    heights_m: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=1, le=20_000)], ...], msgspec.Meta(min_length=1, max_length=16)
    ]
    reach: Annotated[int, msgspec.Meta(ge=0, le=40)] = 6
    losses_mdb: tuple[tuple[Annotated[int, msgspec.Meta(ge=0, le=400_000)], ...], ...] = ()


class MemberEntry(_Part):
    """A member: without ``wallet`` (hex public key) a key is made for it when the register is loaded."""

    name: Name
    roles: Annotated[tuple[Role, ...], msgspec.Meta(min_length=1, max_length=8)]
    coins: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    wallet: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""


class LicenceEntry(_Part):
    """A licence."""

    holder: Name
    band_class: Name
    low_hz: Hz
    high_hz: Hz
    cells: tuple[CellText, ...]
    start: Instant
    end: Instant
    max_eirp_mdbm_per_mhz: Level
    kind: Kind
    leasable: bool = True


class ProtectedEntry(_Part):
    """A protected use, by a local-time schedule or by windows of time."""

    incumbent: Name
    band_class: Name
    low_hz: Hz
    high_hz: Hz
    cells: tuple[CellText, ...]
    limit_mdbm_per_mhz: Level
    schedule: Schedule | None = None
    windows: tuple[tuple[Instant, Instant], ...] = ()


class IdleEntry(_Part):
    """An idle band of a licence; what is left out is the licence's."""

    licence: Index
    pricing: Pricing
    price: Annotated[int, msgspec.Meta(ge=0, le=10**15)]
    low_hz: Hz | None = None
    high_hz: Hz | None = None
    cells: tuple[CellText, ...] | None = None
    start: Instant | None = None
    end: Instant | None = None
    max_eirp_mdbm_per_mhz: Level | None = None
    kind: Kind | None = None
    notice_s: Annotated[int, msgspec.Meta(ge=240, le=366 * 86_400)] = 3_600
    transferable: bool = False


class LeaseEntry(_Part):
    """A lease in force; its terms are those of its idle band."""

    idle: Index
    lessee: Name
    cells: tuple[CellText, ...]
    start: Instant
    end: Instant
    eirp_mdbm_per_mhz: Level
    height_m: Annotated[float, msgspec.Meta(ge=0, le=20_000)] = 0.0
    low_hz: Hz | None = None
    high_hz: Hz | None = None


class AccessEntry(_Part):
    """A threshold of access; a share of 0 or a count of 0 leaves it out."""

    name: Name
    window_s: Annotated[int, msgspec.Meta(ge=1, le=400 * 86_400)]
    deny_s: Annotated[int, msgspec.Meta(ge=1, le=400 * 86_400)]
    most_share_ppm: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    most_grants: Annotated[int, msgspec.Meta(ge=0, le=10**6)] = 0
    band_class: Name | None = None


class RegisterFile(_Part):
    """A whole register. ``key_seed`` (hex) makes the members' keys repeatable: for examples and tests only."""

    format: str
    name: Name
    start: Instant
    end: Instant
    classes: tuple[ClassEntry, ...]
    members: tuple[MemberEntry, ...]
    licences: tuple[LicenceEntry, ...] = ()
    protected: tuple[ProtectedEntry, ...] = ()
    idle: tuple[IdleEntry, ...] = ()
    leases: tuple[LeaseEntry, ...] = ()
    access_rules: tuple[AccessEntry, ...] = ()
    fee_ppm: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 10_000
    fee_account: Name | None = None
    key_seed: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""


class Founding(msgspec.Struct, frozen=True):
    """What a register becomes: genesis parameters by contract, start of market time, and the keys made for members."""

    name: str
    start: int
    end: int
    parameters: tuple[tuple[str, bytes], ...]
    keys: dict[str, KeyPair]
    node: KeyPair


def leases_of(register: RegisterFile, entries: Sequence[LeaseEntry]) -> tuple[Lease, ...]:
    """Turn some of a register's leases into records; members' wallets are those of ``founding``."""
    keys = {m.name: bytes.fromhex(m.wallet) if m.wallet else _key(register, m.name).public for m in register.members}
    classes = {entry.name: number for number, entry in enumerate(register.classes, 1)}
    licences = tuple(_licence(entry, keys[entry.holder], classes[entry.band_class]) for entry in register.licences)
    idle = tuple(_idle(entry, licences) for entry in register.idle)
    heights = [entry.heights_m for entry in register.classes]
    return tuple(_lease(entry, idle, keys[entry.lessee], heights) for entry in entries)


def millis(instant: datetime) -> int:
    """Return a moment as milliseconds of market time; raises RefusedInput before 1970."""
    value = round(instant.timestamp() * 1000)
    if value < 0:
        raise RefusedInput(f"{instant.isoformat()} lies before market time begins (1970)")
    return value


def timestamp(at: int) -> str:
    """Write milliseconds of market time as RFC 3339 in UTC."""
    from datetime import UTC

    text = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds" if at % 1000 == 0 else "milliseconds")
    return text.replace("+00:00", "Z")


def read_register(data: bytes, where: str) -> RegisterFile:
    """Read a register file; raises RefusedInput naming ``where`` and the field."""
    if len(data) > MOST_BYTES:
        raise RefusedInput(f"{where} has {len(data)} bytes; a register has at most {MOST_BYTES}")
    try:
        register = msgspec.json.decode(data, type=RegisterFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedInput(f"{where}: {error}") from None
    if register.format != FORMAT:
        raise RefusedInput(f"{where}: format {register.format!r} is not {FORMAT!r}")
    if register.end <= register.start:
        raise RefusedInput(f"{where}: the register ends before it starts")
    return register


def founding(register: RegisterFile, where: str) -> Founding:
    """Turn a register into a founding; raises RefusedInput naming ``where`` and the entry that does not fit."""
    try:
        return _founding(register)
    except RefusedInput as error:
        raise RefusedInput(f"{where}: {error}") from None
    except msgspec.ValidationError as error:
        raise RefusedInput(f"{where}: {error}") from None


def _founding(register: RegisterFile) -> Founding:
    names = [member.name for member in register.members]
    if len(set(names)) != len(names):
        raise RefusedInput(f"member {next(n for n in names if names.count(n) > 1)!r} stands twice")
    if len(register.members) > 100_000:
        raise RefusedInput("a register has at most 100000 members")
    keys = {m.name: _key(register, m.name) for m in register.members if not m.wallet}
    wallets = {m.name: keys[m.name].public if m.name in keys else bytes.fromhex(m.wallet) for m in register.members}
    node = _key(register, "")
    class_numbers = {entry.name: number for number, entry in enumerate(register.classes, 1)}
    if len(class_numbers) != len(register.classes):
        raise RefusedInput("a band class stands twice")
    classes = tuple(_class(entry) for entry in register.classes)

    def wallet(name: str) -> bytes:
        if name not in wallets:
            raise RefusedInput(f"no member {name!r}")
        return wallets[name]

    def band(name: str) -> int:
        if name not in class_numbers:
            raise RefusedInput(f"no band class {name!r}; the classes are {', '.join(class_numbers)}")
        return class_numbers[name]

    founders = tuple(FoundingMember(wallets[m.name], m.name, m.roles) for m in register.members)
    accounts = tuple(Account(wallets[m.name], m.coins) for m in register.members if m.coins)
    licences = tuple(_licence(entry, wallet(entry.holder), band(entry.band_class)) for entry in register.licences)
    idle = tuple(_idle(entry, licences) for entry in register.idle)
    heights = [entry.heights_m for entry in register.classes]
    return Founding(
        register.name,
        millis(register.start),
        millis(register.end),
        (
            ("members", encode(MemberParameters(founders=founders))),
            ("coins", encode(CoinParameters(accounts))),
            (
                "spectrum",
                encode(
                    SpectrumParameters(
                        fee_ppm=register.fee_ppm,
                        fee_account=wallet(register.fee_account) if register.fee_account else b"",
                        access_rules=tuple(
                            AccessRule(
                                entry.name,
                                band(entry.band_class) if entry.band_class else 0,
                                entry.window_s * 1000,
                                entry.most_share_ppm,
                                entry.most_grants,
                                entry.deny_s * 1000,
                            )
                            for entry in register.access_rules
                        ),
                        classes=classes,
                        licences=licences,
                        protected=tuple(
                            _protected(entry, wallet(entry.incumbent), band(entry.band_class))
                            for entry in register.protected
                        ),
                        idle=idle,
                        leases=tuple(_lease(entry, idle, wallet(entry.lessee), heights) for entry in register.leases),
                    )
                ),
            ),
        ),
        keys,
        node,
    )


def _key(register: RegisterFile, name: str) -> KeyPair:
    if not register.key_seed:
        return KeyPair.generate()
    return KeyPair(
        hashlib.sha256(b"gridpool/register-key/1\0" + bytes.fromhex(register.key_seed) + name.encode()).digest()
    )


def _class(entry: ClassEntry) -> tuple[BandClass, Losses]:
    rules = BandClass(
        entry.name,
        entry.low_hz,
        entry.high_hz,
        entry.resolution,
        entry.bin_hz,
        entry.adjacent_mdb,
        entry.lessee_limit_mdbm_per_mhz,
        entry.least_eirp_mdbm_per_mhz,
        entry.most_eirp_mdbm_per_mhz,
        entry.heights_m,
    )
    if entry.losses_mdb:
        return rules, Losses(1, "given in the register file", entry.losses_mdb)
    if list(entry.heights_m) != sorted(set(entry.heights_m)):
        raise RefusedInput(f"band class {entry.name}: heights ascend")
    if not 100_000_000 <= entry.low_hz <= 100_000_000_000:
        raise RefusedInput(f"band class {entry.name}: outside the radio model (0.1 to 100 GHz), give losses_mdb")
    return rules, losses_for(rules, entry.reach)


def _cells(texts: tuple[str, ...]) -> tuple[int, ...]:
    cells = sorted(int(text, 16) for text in texts)
    if not cells or len(cells) > 5_000:
        raise RefusedInput(f"an area has 1 to 5000 cells, not {len(cells)}")
    return tuple(cells)


def _licence(entry: LicenceEntry, holder: bytes, band: int) -> Licence:
    return Licence(
        holder,
        band,
        entry.low_hz,
        entry.high_hz,
        _cells(entry.cells),
        millis(entry.start),
        millis(entry.end),
        entry.max_eirp_mdbm_per_mhz,
        entry.kind,
        entry.leasable,
    )


def _protected(entry: ProtectedEntry, incumbent: bytes, band: int) -> ProtectedUse:
    if (entry.schedule is None) == (not entry.windows):
        raise RefusedInput("a protected use has a schedule or windows, one of them")
    if entry.schedule is not None:
        spans = windows(entry.schedule)
        rule = (
            f"{entry.schedule.since}-{entry.schedule.until} {'+'.join(entry.schedule.days)} "
            f"{entry.schedule.first}..{entry.schedule.last} {entry.schedule.timezone}"
        )
    else:
        spans = [(millis(start), millis(end)) for start, end in entry.windows]
        rule = "windows"
    if not spans or len(spans) > 4_000:
        raise RefusedInput(f"a protected use has 1 to 4000 windows, not {len(spans)}; {rule}")
    return ProtectedUse(
        incumbent,
        band,
        entry.low_hz,
        entry.high_hz,
        _cells(entry.cells),
        tuple(spans),
        entry.limit_mdbm_per_mhz,
        rule[:256],
    )


def _idle(entry: IdleEntry, licences: tuple[Licence, ...]) -> IdleBand:
    if entry.licence > len(licences):
        raise RefusedInput(f"an idle band names licence {entry.licence}; there are {len(licences)}")
    licence = licences[entry.licence - 1]
    return IdleBand(
        entry.licence,
        licence.holder,
        licence.band,
        licence.low if entry.low_hz is None else entry.low_hz,
        licence.high if entry.high_hz is None else entry.high_hz,
        licence.cells if entry.cells is None else _cells(entry.cells),
        licence.start if entry.start is None else millis(entry.start),
        licence.end if entry.end is None else millis(entry.end),
        licence.max_eirp if entry.max_eirp_mdbm_per_mhz is None else entry.max_eirp_mdbm_per_mhz,
        licence.kind if entry.kind is None else entry.kind,
        entry.pricing,
        entry.price,
        entry.notice_s * 1000,
        entry.transferable,
    )


def _lease(entry: LeaseEntry, idle: tuple[IdleBand, ...], lessee: bytes, heights: list[tuple[int, ...]]) -> Lease:
    if entry.idle > len(idle):
        raise RefusedInput(f"a lease names idle band {entry.idle}; there are {len(idle)}")
    terms = idle[entry.idle - 1]
    height = next((i for i, top in enumerate(heights[terms.band - 1]) if entry.height_m <= top), None)
    if height is None:
        raise RefusedInput(
            f"a lease of idle band {entry.idle} has an antenna at {entry.height_m} m, too high for its class"
        )
    start = millis(entry.start)
    return Lease(
        entry.idle,
        terms.holder,
        lessee,
        terms.band,
        terms.low if entry.low_hz is None else entry.low_hz,
        terms.high if entry.high_hz is None else entry.high_hz,
        _cells(entry.cells),
        start,
        millis(entry.end),
        entry.eirp_mdbm_per_mhz,
        height,
        terms.kind,
        "granted",
        terms.pricing,
        terms.price,
        terms.notice_ms,
        terms.transferable,
        paid_until=start,
    )
