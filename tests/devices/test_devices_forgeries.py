"""Devices that lie within a channel that they have opened honestly: forged receipts, deposits, countersignatures."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from devices_world import CHAIN, DAY, PRICE, AccessWorld, Side, exchange, key, now, together

from gridpool.agents.access_credential import Distrusted, deposit_key
from gridpool.agents.device_channel import Channel, SocketStream
from gridpool.agents.device_exchange import Exchanged, fetch_units, serve_units
from gridpool.agents.device_units import FileUnits, check_data_unit
from gridpool.agents.receipts import Held
from gridpool.contracts.device_receipts import Receipt, sign_receipt
from gridpool.contracts.devices import OpenDeposit
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.types import encode


def against_the_charger(
    sides: tuple[Side, Side],
    source: FileUnits,
    script: Callable[[Channel, Side], None],
    *,
    clock: Callable[[], int] = now,
    max_age_ms: int = DAY,
) -> Any:
    """Let a scripted car speak to the honest charger; returns what the charger's side came to."""
    car, charger = sides
    here, there = socket.socketpair()

    def attack() -> None:
        with here:
            script(car.open(SocketStream(here, timeout_s=10), client=True), car)

    def serve() -> Exchanged:
        with there:
            channel = charger.open(SocketStream(there, timeout_s=10), client=False)
            return serve_units(
                channel, charger.wallet, {"m": source}, charger.book, chain=CHAIN, clock=clock, max_age_ms=max_age_ms
            )

    return together(attack, serve)[1]


def receipt_of(sides: tuple[Side, Side], units: int, total: int, *, number: int = 1) -> Receipt:
    return Receipt(CHAIN, sides[0].wallet.public, sides[1].wallet.public, number, units, total)


def signed(sides: tuple[Side, Side], units: int, total: int, *, by: KeyPair | None = None) -> tuple[int, int, bytes]:
    return units, total, sign_receipt(by or sides[0].wallet, receipt_of(sides, units, total), payer=True)


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (lambda sides: (9, 63, bytes(64)), "not signed by the receiver"),
        (lambda sides: (9, 63, b""), "not signed by the receiver"),
        (lambda sides: signed(sides, 9, 63, by=key("thief")), "not signed by the receiver"),
        (lambda sides: (9, 63, signed(sides, 9, 62)[2]), "not signed by the receiver"),
        (lambda sides: signed(sides, 9, 1_001), "above the deposit"),
        (lambda sides: (-1, 63, bytes(64)), "above the deposit"),
        (lambda sides: signed(sides, 4, 28), "copied"),
        (lambda sides: signed(sides, 9, 34), "copied"),
    ],
)
def test_a_receipt_that_a_receiver_shows_must_be_its_own_newest_within_the_deposit(
    sides: tuple[Side, Side], source: FileUnits, shown: Callable[[Any], Any], reason: str
) -> None:
    exchange(sides, source, [])
    before = sides[1].book.all()
    answer = against_the_charger(sides, source, lambda channel, _: channel.send(encode(("ask", "", 1, shown(sides)))))
    assert isinstance(answer, Distrusted)
    assert reason in str(answer)
    assert sides[1].book.all() == before


@pytest.mark.parametrize(
    "forged",
    [
        lambda sides: (1, PRICE, bytes(64)),
        lambda sides: signed(sides, 1, PRICE, by=key("thief")),
        lambda sides: signed(sides, 1, PRICE - 1),
        lambda sides: (1, PRICE, signed(sides, 1, PRICE - 1)[2]),
        lambda sides: signed(sides, 0, 0),
        lambda sides: (1, PRICE, sign_receipt(sides[0].wallet, receipt_of(sides, 1, PRICE, number=2), payer=True)),
        lambda sides: (1, PRICE, sign_receipt(sides[0].wallet, receipt_of(sides, 1, PRICE), payer=False)),
    ],
)
def test_a_receiver_that_signs_falsely_gets_one_unit_and_no_more(
    sides: tuple[Side, Side], source: FileUnits, forged: Callable[[Any], tuple[int, int, bytes]]
) -> None:
    units: list[bytes] = []

    def script(channel: Channel, _: Side) -> None:
        channel.send(encode(("ask", "", 1, None)))
        channel.receive()
        channel.send(encode(("go", 0)))
        units.append(channel.receive())
        channel.send(encode(("signed", *forged(sides))))
        units.append(channel.receive())

    answer = against_the_charger(sides, source, script)
    assert "has not signed for the last unit" in str(answer)
    assert len(units) == 1
    assert sides[1].book.all() == []


def test_nothing_is_given_on_anothers_an_expired_or_a_settled_deposit(
    world: AccessWorld, sides: tuple[Side, Side], source: FileUnits, tmp_path: Path
) -> None:
    car, charger = sides

    def ask(number: int, sides: tuple[Side, Side] = sides, **times: Any) -> str:
        return str(
            against_the_charger(
                sides, source, lambda channel, _: channel.send(encode(("ask", "", number, None))), **times
            )
        )

    late = now() + 30 * DAY
    assert "cut" in ask(1, clock=lambda: late - 60_000, max_age_ms=90 * DAY)
    assert "deposit 1 has expired" in ask(1, clock=lambda: late + 60_000, max_age_ms=90 * DAY)
    world.submit(car.wallet, OpenDeposit(world.wallets["b1"].public, 500, now() + 30 * DAY))
    proofs = [deposit_key(car.wallet.public, number) for number in (1, 2)]
    richer = Side(car.wallet, world.credential(car.wallet, *proofs), car.credentials, tmp_path / "richer")
    assert "deposit 2 is for somebody else" in ask(2, (richer, charger))
    exchange(sides, source, [])
    (held,) = charger.book.all()
    charger.book.keep(Held(held.receipt, held.payer_signature, held.payee_signature, settled=True))
    assert "deposit 1 is settled" in ask(1)


@pytest.mark.parametrize("by", ["thief", "payer"])
def test_a_giver_that_countersigns_falsely_is_left_after_one_unit(
    sides: tuple[Side, Side], source: FileUnits, by: str
) -> None:
    car, charger = sides
    here, there = socket.socketpair()
    terms = source.terms

    def fetch() -> Exchanged:
        with here:
            channel = car.open(SocketStream(here, timeout_s=10), client=True)
            return fetch_units(
                channel, car.wallet, "", car.book, chain=CHAIN, number=1, begin=lambda terms: 0,
                accept=check_data_unit, pay_most=1_000,
            )  # fmt: skip

    def attack() -> None:
        with there:
            channel = charger.open(SocketStream(there, timeout_s=10), client=False)
            channel.receive()
            channel.send(encode(("terms", terms.item, terms.kind, terms.units, terms.unit_bytes, terms.size,
                                 terms.root, terms.price)))  # fmt: skip
            channel.receive()
            unit = source.unit(0)
            channel.send(encode(("unit", unit.index, unit.data, list(unit.path))))
            channel.receive()
            signer = key("thief") if by == "thief" else car.wallet
            channel.send(encode(("acknowledged", 1, sign_receipt(signer, receipt_of(sides, 1, PRICE), payer=False))))

    fetched, _ = together(fetch, attack)
    assert "has not countersigned" in str(fetched)
    (held,) = car.book.all()
    assert (held.receipt.units, held.payee_signature) == (1, b"")
