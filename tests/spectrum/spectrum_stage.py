"""A small register on a ledger in memory, for the tests of this folder."""

import hashlib

import h3.api.basic_int as h3

from gridpool.agents.path_loss_table import losses_for
from gridpool.contracts import coins, members
from gridpool.contracts.coins import CoinParameters
from gridpool.contracts.members import FoundingMember, MemberParameters, Role
from gridpool.contracts.spectrum import spectrum
from gridpool.contracts.spectrum_records import BandClass, IdleBand, Licence
from gridpool.contracts.spectrum_register import SpectrumParameters
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import Rehearsal
from gridpool.ledger.rules import Rules
from gridpool.ledger.types import encode

START = 1_767_225_600_000  # 2026-01-01T00:00:00Z
HOUR = 3_600_000
DAY = 24 * HOUR
MHZ = 1_000_000
LOW = 3_600 * MHZ
CENTRE = h3.latlng_to_cell(52.0, -1.5, 7)
CELLS = tuple(sorted(h3.grid_disk(CENTRE, 4)))
PEOPLE = {
    "holder": Role.OPERATOR,
    "one": Role.TENANT,
    "two": Role.TENANT,
    "three": Role.TENANT,
    "incumbent": Role.OPERATOR,
    "fees": Role.OPERATOR,
    "probe": Role.PROBE,
    **{f"sensor{i}": Role.SENSOR for i in range(7)},
}


def key(name: str) -> KeyPair:
    return KeyPair(hashlib.sha256(b"test" + name.encode()).digest())


RULES = BandClass("test", LOW, LOW + 100 * MHZ, 7, 10 * MHZ, 45_000, -90_000, -10_000, 30_000, (10, 30))
LOSSES = losses_for(RULES, 4)


def licence(**changes) -> Licence:
    base = {
        "holder": key("holder").public,
        "band": 1,
        "low": LOW,
        "high": LOW + 100 * MHZ,
        "cells": CELLS,
        "start": START,
        "end": START + 60 * DAY,
        "max_eirp": 30_000,
        "kind": "exclusive",
        "leasable": True,
    }
    return Licence(**(base | changes))


def idle(number: int = 1, **changes) -> IdleBand:
    base = {
        "licence": number,
        "holder": key("holder").public,
        "band": 1,
        "low": LOW,
        "high": LOW + 100 * MHZ,
        "cells": CELLS,
        "start": START,
        "end": START + 60 * DAY,
        "max_eirp": 30_000,
        "kind": "exclusive",
        "pricing": "payg",
        "price": 100,
        "notice_ms": HOUR,
        "transferable": True,
    }
    return IdleBand(**(base | changes))


def stage(*, coins_each: int = 10**9, **spectrum_changes) -> Rehearsal:
    """Return a ledger with one class, one licence and one idle band over 61 cells, unless told otherwise."""
    base = {
        "classes": ((RULES, LOSSES),),
        "licences": (licence(),),
        "idle": (idle(),),
        "fee_account": key("fees").public,
        "fee_ppm": 20_000,
    }
    keeper = key("keeper")
    accounts = tuple(coins.Payment(key(name).public, coins_each) for name in PEOPLE)
    founders = tuple(FoundingMember(key(name).public, name, (role,)) for name, role in PEOPLE.items())
    seats = (members.NewSeat(key("seat").public, "council"),)
    genesis = Genesis(
        chain="spectrum-test",
        time_ms=START,
        market_clock="ticks",
        clock_keeper=keeper.public,
        max_step_ms=2**60,
        parameters=(
            ("members", encode(MemberParameters(founders=founders, seats=seats))),
            ("coins", encode(CoinParameters(accounts))),
            ("spectrum", encode(SpectrumParameters(**(base | spectrum_changes)))),
        ),
    )
    return Rehearsal(Rules([members.members, coins.coins, spectrum]), genesis, clock_keeper=keeper)
