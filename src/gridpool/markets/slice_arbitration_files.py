"""Requests and offers as files hold them: JSON and CSV text into checked values, whole or not at all."""

import csv
import re
from collections.abc import Iterable

import msgspec

from gridpool.errors import RefusedInput
from gridpool.markets.slice_arbitration import LARGEST, SegmentOffer, SliceRequest

__all__ = ["COLUMNS", "parse_offers", "parse_request"]

COLUMNS = ("id", "segment", "party", "cost", "delay_us", "bandwidth_kbps", "risk_nano")
KNOWN_SEGMENTS = ("ran", "transport", "core", "compute", "storage")
MOST_SEGMENTS = 16
MOST_OFFERS = 4_000_000
INTEGER = re.compile(r"[0-9]{1,16}")


def parse_request(data: bytes, where: str) -> SliceRequest:
    """Read a request from JSON; raises RefusedInput naming ``where``, the field and what is allowed."""
    try:
        request = msgspec.json.decode(data, type=SliceRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedInput(f"{where}: {error}; the fields are {', '.join(SliceRequest.__struct_fields__)}") from error
    if not 1 <= len(request.segments) <= MOST_SEGMENTS or not all(request.segments):
        raise RefusedInput(f"{where}: segments must name 1 to {MOST_SEGMENTS} segments")
    if len(set(request.segments)) != len(request.segments):
        raise RefusedInput(f"{where}: segments names one segment twice")
    for name in ("max_delay_us", "min_bandwidth_kbps", "max_risk_nano", "reserve", "budget"):
        value = getattr(request, name)
        if value is not None and not 0 <= value <= LARGEST:
            raise RefusedInput(f"{where}: {name} must lie in 0..10^15, not {value}")
    return request


def parse_offers(lines: Iterable[str], request: SliceRequest, where: str) -> list[SegmentOffer]:
    """Read offers from CSV text with the header ``id,segment,party,cost,delay_us,bandwidth_kbps,risk_nano``.

    A segment that the request does not ask for is read and left aside, unless it is no known segment at all: then it
    is taken for a slip. Raises RefusedInput naming ``where``, the line and what is allowed.
    """
    reader = csv.reader(lines, strict=True)
    offers: list[SegmentOffer] = []
    allowed = {*request.segments, *KNOWN_SEGMENTS}
    try:
        header = [name.strip().lstrip("﻿") for name in next(reader, [])]
        if sorted(header) != sorted(COLUMNS):
            raise RefusedInput(f"{where}, line 1: the columns must be {','.join(COLUMNS)}")
        places = [header.index(name) for name in COLUMNS]
        for row in reader:
            if not row:
                continue
            if len(row) != len(COLUMNS):
                raise RefusedInput(f"{where}, line {reader.line_num}: {len(row)} columns, not {len(COLUMNS)}")
            if len(offers) == MOST_OFFERS:
                raise RefusedInput(f"{where}: more than {MOST_OFFERS} offers")
            offers.append(_offer([row[place].strip() for place in places], allowed, f"{where}, line {reader.line_num}"))
    except csv.Error as error:
        raise RefusedInput(f"{where}, line {reader.line_num}: {error}") from error
    except UnicodeDecodeError as error:
        raise RefusedInput(f"{where} is no UTF-8 text: {error}") from error
    return offers


def _offer(cells: list[str], allowed: set[str], place: str) -> SegmentOffer:
    name, segment, party = cells[:3]
    if segment not in allowed:
        raise RefusedInput(f"{place}: segment {segment!r} is none of {', '.join(sorted(allowed))}")
    if not name or not party:
        raise RefusedInput(f"{place}: id and party must not be empty")
    figures = []
    for column, cell in zip(COLUMNS[3:], cells[3:], strict=True):
        if not INTEGER.fullmatch(cell) or int(cell) > LARGEST:
            raise RefusedInput(f"{place}: {column} must be an integer in 0..10^15, not {cell!r}")
        figures.append(int(cell))
    return SegmentOffer(name, segment, party, *figures)
