"""Usage records of two operators: matched pair by pair, rated by a roaming agreement, invoiced to the unit.

A record is one use of a service by a customer of the *home* operator in the network of the *serving* one; both write
it down. Equal pairs (within the agreement's tolerance) are matched, a record without a partner is one-sided, the rest
is disputed. Money is integer throughout: an invoice line is a sum of exact fractions, rounded once.
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, NamedTuple

import msgspec

from gridpool.errors import RefusedInput

__all__ = [
    "Agreement",
    "InvoiceLine",
    "Matching",
    "Mismatch",
    "Record",
    "Service",
    "Tariff",
    "Tier",
    "invoice",
    "match",
    "read_agreement",
    "read_records",
]

Service = Literal["voice", "sms", "data", "slice"]
Rounding = Literal["down", "up", "half_up", "half_even"]
COLUMNS = ("id", "service", "start", "quantity")
MOST = 10**15
SERVICES = frozenset(("voice", "sms", "data", "slice"))
MINUTES = {f"T{minute // 60:02}:{minute % 60:02}": minute * 60_000 for minute in range(1_440)}
SECONDS = {f":{second:02}Z": second * 1_000 for second in range(60)}
"""The parts of a time like 2026-01-01T00:00:00Z after its day, in ms."""
MOST_DAYS = 4_000
Quantity = Annotated[int, msgspec.Meta(ge=0, le=MOST)]


class Record(NamedTuple):
    """One use: seconds of voice, messages, bytes of data, or slice minutes, from ``start`` (ms since the epoch)."""

    id: str
    service: Service
    start: int
    quantity: int


class Tier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A price up to a volume of the period (0: without end), in micro-units of currency for each ``per``."""

    up_to: Quantity
    price: Quantity


class Tariff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A service's tiers, in order; ``per`` is the quantity that a price is for (60 s, 10^6 bytes)."""

    service: Service
    per: Annotated[int, msgspec.Meta(ge=1, le=MOST)]
    tiers: Annotated[tuple[Tier, ...], msgspec.Meta(min_length=1, max_length=64)]


class Agreement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A roaming agreement as data.

    Tariffs are in ``tariff_currency``; a line becomes units of ``currency`` (each 1/10^``decimals``) by the fixed rate
    ``rate_numerator / rate_denominator`` and one rounding. Tax is one line. Validity is [valid_from, valid_until).
    """

    home: str
    serving: str
    valid_from: datetime
    valid_until: datetime
    tariffs: tuple[Tariff, ...]
    currency: str = "EUR"
    tariff_currency: str = "EUR"
    rate_numerator: Annotated[int, msgspec.Meta(ge=1, le=10**12)] = 1
    rate_denominator: Annotated[int, msgspec.Meta(ge=1, le=10**12)] = 1
    decimals: Annotated[int, msgspec.Meta(ge=0, le=6)] = 2
    rounding: Rounding = "half_even"
    tax_ppm: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    quantity_tolerance_ppm: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    start_tolerance_ms: Annotated[int, msgspec.Meta(ge=0, le=3_600_000)] = 0

    def covers(self, record: Record) -> bool:
        """Tell whether a record is of a service with a tariff, at a time when the agreement is valid."""
        valid = _ms(self.valid_from) <= record.start < _ms(self.valid_until)
        return valid and any(tariff.service == record.service for tariff in self.tariffs)

    def check(self) -> None:
        """Refuse an agreement that contradicts itself; raises RefusedInput."""
        if self.valid_from.tzinfo is None or self.valid_until.tzinfo is None:
            raise RefusedInput("valid_from and valid_until need an offset, as in 2026-01-01T00:00:00Z")
        if self.valid_until <= self.valid_from:
            raise RefusedInput("the agreement ends before it begins")
        if self.home == self.serving or not self.home or not self.serving:
            raise RefusedInput("an agreement is between two operators")
        services = [tariff.service for tariff in self.tariffs]
        if len(set(services)) != len(services):
            raise RefusedInput("a service has one tariff")
        if self.currency == self.tariff_currency and self.rate_numerator != self.rate_denominator:
            raise RefusedInput("one currency has the rate 1")
        for tariff in self.tariffs:
            ends = [tier.up_to for tier in tariff.tiers]
            if ends[-1] != 0 or ends[:-1] != sorted(set(ends[:-1])) or 0 in ends[:-1]:
                raise RefusedInput(f"the tiers of {tariff.service} ascend, and the last has no end (up_to 0)")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A record that is not matched: what each side says (None: nothing), and why."""

    id: str
    reason: Literal["only_home", "only_serving", "service", "start", "quantity", "outside_validity", "no_tariff"]
    home: Record | None
    serving: Record | None


@dataclass(frozen=True, slots=True)
class Matching:
    """The outcome of matching: the records that are final, and the exceptions one by one, all in order of id."""

    matched: tuple[Record, ...]
    one_sided: tuple[Mismatch, ...]
    disputed: tuple[Mismatch, ...]


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """A line: a service's tier with its quantity and amount, the tax, or the total; amounts in units of currency."""

    line: str
    records: int
    quantity: int
    price: int
    amount: int


def read_records(data: bytes, where: str) -> dict[str, Record]:
    """Read records by id from CSV (columns id, service, start, quantity); a bad row refuses the file.

    Raises RefusedInput naming the line.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RefusedInput(f"{where} line {line}: byte {data[error.start]:#04x} is no UTF-8") from None
    rows = csv.reader(io.StringIO(text), strict=True)
    try:
        header = next(rows, None)
        if header is None or tuple(header) != COLUMNS:
            raise RefusedInput(f"{where}: the columns are {','.join(COLUMNS)}")
        records: dict[str, Record] = {}
        days: dict[str, int] = {}
        new = tuple.__new__
        for row in rows:
            # The common case written out, as a day has a million rows: any doubt goes to ``_record``, which explains.
            if len(row) == 4:
                name, service, start, quantity = row
                day, minute, second = days.get(start[:10]), MINUTES.get(start[10:16]), SECONDS.get(start[16:])
                if (
                    day is not None
                    and minute is not None
                    and second is not None
                    and service in SERVICES
                    and quantity.isdigit()
                    and quantity.isascii()
                    and len(quantity) < 16
                    and 0 < len(name) <= 128
                    and name not in records
                ):
                    records[name] = new(Record, (name, service, day + minute + second, int(quantity)))
                    continue
            record = _record(row, where, rows.line_num)
            if record.id in records:
                raise RefusedInput(f"{where} line {rows.line_num}: record {record.id!r} stands twice")
            records[record.id] = record
            minute, second = MINUTES.get(row[2][10:16]), SECONDS.get(row[2][16:])
            if minute is not None and second is not None and len(days) < MOST_DAYS:
                days[row[2][:10]] = record.start - minute - second
    except csv.Error as error:
        raise RefusedInput(f"{where} line {rows.line_num}: {error}") from None
    return records


def read_agreement(data: bytes, where: str) -> Agreement:
    """Read an agreement from TOML; raises RefusedInput."""
    try:
        agreement = msgspec.toml.decode(data, type=Agreement)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise RefusedInput(f"{where}: {error}") from None
    try:
        agreement.check()
    except RefusedInput as error:
        raise RefusedInput(f"{where}: {error}") from None
    return agreement


def match(home: dict[str, Record], serving: dict[str, Record], agreement: Agreement) -> Matching:
    """Match two operators' records; a pair within tolerance counts with the smaller quantity."""
    begin, end = _ms(agreement.valid_from), _ms(agreement.valid_until)
    services = {tariff.service for tariff in agreement.tariffs}
    tolerance, slack = agreement.quantity_tolerance_ppm, agreement.start_tolerance_ms
    matched: list[Record] = []
    one_sided: list[Mismatch] = []
    disputed: list[Mismatch] = []
    for name in sorted(home.keys() | serving.keys()):
        mine, theirs = home.get(name), serving.get(name)
        if mine is None or theirs is None:
            one_sided.append(Mismatch(name, "only_serving" if mine is None else "only_home", mine, theirs))
        elif mine.service != theirs.service:
            disputed.append(Mismatch(name, "service", mine, theirs))
        elif abs(mine.start - theirs.start) > slack:
            disputed.append(Mismatch(name, "start", mine, theirs))
        elif abs(mine.quantity - theirs.quantity) * 1_000_000 > tolerance * max(mine.quantity, theirs.quantity):
            disputed.append(Mismatch(name, "quantity", mine, theirs))
        elif not (begin <= mine.start < end and begin <= theirs.start < end):
            disputed.append(Mismatch(name, "outside_validity", mine, theirs))
        elif mine.service not in services:
            disputed.append(Mismatch(name, "no_tariff", mine, theirs))
        else:
            matched.append(mine if mine.quantity <= theirs.quantity else theirs)
    return Matching(tuple(matched), tuple(one_sided), tuple(disputed))


def invoice(records: Iterable[Record], agreement: Agreement) -> tuple[InvoiceLine, ...]:
    """Rate records by the agreement: a line for each service's tier, the tax, the total.

    A line's amount is price x quantity / per x rate, rounded once to the currency's unit by the agreement's rule.
    """
    counts: dict[str, int] = {}
    volumes: dict[str, int] = {}
    for record in records:
        counts[record.service] = counts.get(record.service, 0) + 1
        volumes[record.service] = volumes.get(record.service, 0) + record.quantity
    lines: list[InvoiceLine] = []
    for tariff in agreement.tariffs:
        left, since = volumes.get(tariff.service, 0), 0
        for number, tier in enumerate(tariff.tiers, 1):
            part = left if tier.up_to == 0 else min(left, tier.up_to - since)
            if part:
                numerator = part * tier.price * agreement.rate_numerator * 10**agreement.decimals
                amount = divide(numerator, tariff.per * agreement.rate_denominator * 1_000_000, agreement.rounding)
                count = counts.get(tariff.service, 0) if number == 1 else 0
                lines.append(InvoiceLine(f"{tariff.service} tier {number}", count, part, tier.price, amount))
            left, since = left - part, tier.up_to
    net = sum(line.amount for line in lines)
    tax = divide(net * agreement.tax_ppm, 1_000_000, agreement.rounding)
    lines.append(InvoiceLine("tax", 0, 0, agreement.tax_ppm, tax))
    lines.append(InvoiceLine("total", sum(counts.values()), 0, 0, net + tax))
    return tuple(lines)


def divide(numerator: int, denominator: int, rounding: Rounding) -> int:
    """Divide non-negative integers with one of the four rounding rules."""
    whole, rest = divmod(numerator, denominator)
    if rounding == "down" or not rest:
        return whole
    if rounding == "up":
        return whole + 1
    if 2 * rest == denominator:
        return whole + (whole & 1 if rounding == "half_even" else 1)
    return whole + (2 * rest > denominator)


def _record(row: list[str], where: str, line: int) -> Record:
    if len(row) != len(COLUMNS):
        raise RefusedInput(f"{where} line {line}: {len(row)} columns, {len(COLUMNS)} expected")
    name, service, start, quantity = row
    if not name or len(name) > 128:
        raise RefusedInput(f"{where} line {line}: an id has 1 to 128 characters")
    if service not in SERVICES:
        raise RefusedInput(f"{where} line {line}: {service[:40]!r} is none of voice, sms, data, slice")
    if not (quantity.isascii() and quantity.isdigit() and len(quantity) <= 20 and int(quantity) <= MOST):
        raise RefusedInput(f"{where} line {line}: {quantity[:40]!r} is no quantity (0 to 10^15)")
    try:
        moment = datetime.fromisoformat(start)
        if moment.tzinfo is None:
            raise ValueError("no offset")
    except ValueError:
        raise RefusedInput(f"{where} line {line}: {start[:40]!r} is no time like 2026-01-01T00:00:00Z") from None
    return Record(name, service, _ms(moment), int(quantity))  # type: ignore[arg-type]


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
