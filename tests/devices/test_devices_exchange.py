"""Two devices over real byte streams: honest, cut after any piece, impersonated, eavesdropped, replayed, altered."""

import contextlib
import hashlib
import os
import socket
import threading
from pathlib import Path
from typing import Any, cast

import pytest
from devices_world import CHAIN, DAY, PRICE, AccessWorld, Side, Wire, exchange, key, now, together

from gridpool.agents.access_credential import Distrusted
from gridpool.agents.device_channel import Channel, ConnectionCut, SocketStream
from gridpool.agents.device_units import EnergyUnits, FileUnits, Terms, Unit, check_data_unit
from gridpool.agents.receipts import ReceiptBook
from gridpool.contracts.device_receipts import CoSigned
from gridpool.contracts.devices import Settle
from gridpool.contracts.members import BanMember, Rekey, WalletOpening
from gridpool.errors import RefusedInput
from gridpool.ledger.keys import KeyPair


def test_a_file_crosses_unit_by_unit_and_one_transaction_settles(
    world: AccessWorld, sides: tuple[Side, Side], source: FileUnits, tmp_path: Path
) -> None:
    got: list[bytes] = []
    fetched, served = exchange(sides, source, got)
    assert (fetched.units, fetched.total, fetched.complete) == (5, 35, True)
    assert (served.units, served.total, served.complete) == (5, 35, True)
    assert b"".join(got) == (tmp_path / "map.bin").read_bytes()
    car, charger = sides
    held = [side.book.find(car.wallet.public, charger.wallet.public, 1) for side in sides]
    assert held[0] == held[1]
    both = held[1].co_signed if held[1] else None
    assert isinstance(both, CoSigned)
    world.submit(charger.wallet, Settle(both))
    # the deposit's totals grow over several exchanges, and a settled deposit is not served again
    fetched, _ = exchange(sides, source, [])
    assert (fetched.units, fetched.total_units, fetched.total) == (5, 10, 70)


def test_whenever_the_connection_is_cut_neither_side_loses_more_than_a_unit(
    sides: tuple[Side, Side], source: FileUnits, tmp_path: Path
) -> None:
    content = (tmp_path / "map.bin").read_bytes()
    car, charger = sides
    payer, payee = car.wallet.public, charger.wallet.public
    cuts = 0
    for side in ("car", "charger"):
        for pieces in range(2, 14):
            for each in sides:
                for path in each.book._folder.glob("*.json"):
                    path.unlink()
                each.book = ReceiptBook(each.book._folder)
            got: list[bytes] = []
            cut = {f"cut_{side}": pieces}
            first, _ = exchange(sides, source, got, **cut)  # type: ignore[arg-type]
            signed, held = car.book.find(payer, payee, 1), charger.book.find(payer, payee, 1)
            paid = signed.receipt.units if signed else 0
            earned = held.receipt.units if held else 0
            assert paid == len(got), "the car signs for what it has, no more"
            assert len(got) - 1 <= earned <= len(got), "the charger is at most one unit behind"
            cuts += isinstance(first, ConnectionCut)
            again, served = exchange(sides, source, got)
            assert b"".join(got) == content
            assert (again.complete, again.total, served.total) == (True, 5 * PRICE, 5 * PRICE)
    assert cuts >= 16


def test_a_receiver_that_stops_signing_gets_one_unit_and_no_more(sides: tuple[Side, Side], source: FileUnits) -> None:
    got: list[bytes] = []

    def third_only_in_part(terms: Terms, unit: Unit) -> bool:
        return check_data_unit(terms, unit) and unit.index < 2

    fetched, served = exchange(sides, source, got, accept=third_only_in_part)
    assert isinstance(fetched, Distrusted)
    assert isinstance(served, ConnectionCut)
    held = sides[1].book.all()
    assert [entry.receipt.units for entry in held] == [2]


def test_a_giver_that_sends_rubbish_is_not_paid_for_it(sides: tuple[Side, Side], source: FileUnits) -> None:
    class Rubbish:
        terms = source.terms

        def unit(self, index: int) -> Unit:
            true = source.unit(index)
            return true if index < 3 else Unit(index, bytes(len(true.data)), true.path)

    got: list[bytes] = []
    fetched, _ = exchange(sides, Rubbish(), got)
    assert "not what was offered" in str(fetched)
    assert [entry.receipt.units for entry in sides[0].book.all()] == [3]


def test_the_deposit_and_the_receivers_own_limit_bound_an_exchange(sides: tuple[Side, Side], tmp_path: Path) -> None:
    dear = (
        FileUnits(tmp_path / "dear", unit_bytes=100, price=300) if (tmp_path / "dear").write_bytes(bytes(500)) else None
    )
    assert dear is not None
    fetched, _ = exchange(sides, dear, [], pay_most=1_499)
    assert "cost more" in str(fetched)
    fetched, served = exchange(sides, dear, [], pay_most=1_500)
    assert (fetched.units, fetched.total, fetched.complete) == (3, 900, False)
    assert "used up" in fetched.ended
    assert (served.units, served.complete) == (3, False)
    fetched, served = exchange(sides, dear, [], number=0, pay_most=1_500)
    assert "open a deposit" in str(fetched)
    assert isinstance(served, Distrusted)
    fetched, _ = exchange(sides, dear, [], number=2, pay_most=1_500)
    assert "no deposit 2" in str(fetched)


def test_metered_energy_is_given_and_signed_by_the_same_rule(sides: tuple[Side, Side]) -> None:
    meter = {"given": 0, "taken": 0}

    def deliver(index: int) -> int:
        meter["given"] += 100
        return meter["given"]

    def compare(terms: Terms, unit: Unit) -> bool:
        meter["taken"] += 100
        if unit.index == 6:
            meter["taken"] -= 100  # the car's own meter saw nothing of this unit
        return terms.kind == "energy" and int.from_bytes(unit.data, "big") == meter["taken"]

    fetched, served = exchange(
        sides, EnergyUnits("charge", wh=100, units=10, price=20, deliver=deliver), [], accept=compare
    )
    assert "unit 6" in str(fetched)
    assert isinstance(served, ConnectionCut)
    assert [entry.receipt.units for entry in sides[1].book.all()] == [6]
    assert meter["given"] == 700


def test_a_cloned_device_is_noticed_by_the_receipt_it_lacks(
    sides: tuple[Side, Side], source: FileUnits, tmp_path: Path
) -> None:
    exchange(sides, source, [])
    car, charger = sides
    clone = Side(car.wallet, car.credential, car.credentials, tmp_path / "clone")
    fetched, served = exchange((clone, charger), source, [])
    assert "was this wallet's key or folder copied?" in str(fetched)
    assert "copied" in str(served)
    assert [entry.receipt.units for entry in charger.book.all()] == [5]


def handshake(car: Side, charger: Side, **times: int) -> tuple[Any, Any]:
    here, there = socket.socketpair()

    def run(side: Side, connection: socket.socket, client: bool) -> Channel:
        with connection:
            return side.open(SocketStream(connection, timeout_s=5), client=client, at=times.get("at"))

    return together(lambda: run(car, here, True), lambda: run(charger, there, False))


def test_both_learn_the_others_wallet_and_role_and_an_eavesdropper_neither(sides: tuple[Side, Side]) -> None:
    car, charger = sides
    here, there = socket.socketpair()
    wires = Wire(here), Wire(there)
    one, other = together(lambda: car.open(wires[0], client=True), lambda: charger.open(wires[1], client=False))
    here.close()
    there.close()
    assert one.peer.wallet == charger.wallet.public
    assert (other.peer.wallet, other.peer.roles, other.peer.organisation) == (car.wallet.public, ("prosumer",), b"")
    heard = wires[0].sent + wires[1].sent
    for secret in (car.wallet.public, charger.wallet.public, car.wallet.public.hex().encode(), b"prosumer"):
        assert secret not in heard


class Impostor:
    """Claims a wallet whose credential it has copied, and signs with a key of its own."""

    def __init__(self, public: bytes, own: KeyPair) -> None:
        self.public, self.sign = public, own.sign


def test_revoked_forged_and_cloned_identities_get_no_channel(
    world: AccessWorld, sides: tuple[Side, Side], tmp_path: Path
) -> None:
    car, charger = sides
    thief = key("thief")
    cases = {
        "has not signed|another wallet": Side(thief, car.credential, car.credentials, tmp_path / "1"),
        "not registered": Side(thief, world.credential(thief), car.credentials, tmp_path / "2"),
        "has not signed this": Side(
            cast("KeyPair", Impostor(car.wallet.public, thief)), car.credential, car.credentials, tmp_path / "6"
        ),
        "own wallet": Side(charger.wallet, charger.credential, car.credentials, tmp_path / "3"),
    }
    opening = WalletOpening(car.wallet.public, bytes(32))
    replaced = world.wallets["b1"]
    world.decide(BanMember(key("person a").public, 2**62, "council", "test", (opening,)))
    world.submit(replaced, Rekey(key("new").public, bytes(32)))
    cases["banned or blocked"] = Side(car.wallet, world.credential(car.wallet), car.credentials, tmp_path / "4")
    cases["revoked"] = Side(replaced, world.credential(replaced), car.credentials, tmp_path / "5")
    for reason, intruder in cases.items():
        opened, refused = handshake(intruder, charger)
        assert not isinstance(refused, Channel), reason
        assert any(part in f"{opened} {refused}" for part in reason.split("|")), (reason, opened, refused)
        served, _ = handshake(charger, intruder)
        assert isinstance(served, Distrusted), reason
    # the proof from before the ban is good until its header is too old
    assert isinstance(handshake(car, charger)[1], Channel)
    # (both refuse, and whoever is second finds the connection cut)
    assert any("old" in str(answer) for answer in handshake(car, charger, at=now() + 2 * DAY))


def test_a_man_in_the_middle_is_found_out(sides: tuple[Side, Side]) -> None:
    """He speaks to each side with keys of his own and passes on what they prove."""
    car, charger = sides
    here, left = socket.socketpair()
    right, there = socket.socketpair()
    passed: list[bytes] = []

    def middle() -> None:
        towards_car = relay_channel(SocketStream(left, timeout_s=1), client=False)
        towards_charger = relay_channel(SocketStream(right, timeout_s=1), client=True)
        proof = towards_charger.receive()
        passed.append(proof)
        towards_car.send(proof)
        towards_charger.send(towards_car.receive())

    def relay() -> None:
        with contextlib.suppress(ConnectionCut, Distrusted):
            middle()

    thread = threading.Thread(target=relay)
    thread.start()

    def side(one: Side, connection: socket.socket, client: bool) -> Channel:
        with connection:
            return one.open(SocketStream(connection, timeout_s=2), client=client)

    victim, other = together(lambda: side(car, here, True), lambda: side(charger, there, False))
    left.close()
    right.close()
    thread.join(10)
    assert len(passed) == 1, "the relay did pass a true proof on"
    assert "somebody may sit in between" in str(victim)
    assert isinstance(other, ConnectionCut | Distrusted)


def relay_channel(stream: SocketStream, *, client: bool) -> Channel:
    from nacl import bindings

    from gridpool.agents.device_channel import HELLO_BYTES, MAGIC, read_exactly

    public, secret = bindings.crypto_kx_keypair()
    stream.write(MAGIC + public + os.urandom(32))
    other = read_exactly(stream, HELLO_BYTES)[len(MAGIC) : len(MAGIC) + 32]
    keys = bindings.crypto_kx_client_session_keys if client else bindings.crypto_kx_server_session_keys
    return Channel(stream, *keys(public, secret, other))


def test_a_replayed_connection_proves_nothing(sides: tuple[Side, Side]) -> None:
    car, charger = sides
    here, there = socket.socketpair()
    recorded = Wire(here)
    together(lambda: car.open(recorded, client=True), lambda: charger.open(Wire(there), client=False))
    here.close()
    there.close()
    again, target = socket.socketpair()
    again.sendall(recorded.sent)
    again.shutdown(socket.SHUT_WR)
    with target, again, pytest.raises((Distrusted, ConnectionCut)):
        charger.open(SocketStream(target, timeout_s=5), client=False)


@pytest.mark.parametrize("what", ["altered", "repeated", "left out", "huge", "junk", "low order"])
def test_a_tampered_stream_is_refused(sides: tuple[Side, Side], what: str) -> None:
    car, charger = sides

    class Tamper:
        def __init__(self, connection: socket.socket) -> None:
            self.stream, self.count = SocketStream(connection, timeout_s=5), 0

        def read(self, count: int) -> bytes:
            return self.stream.read(count)

        def write(self, data: bytes) -> None:
            self.count += 1
            if what == "junk" and self.count == 1:
                data = os.urandom(len(data))
            elif what == "low order" and self.count == 1:
                data = data[:8] + bytes(32) + data[40:]
            elif self.count == 3:
                if what == "altered":
                    data = data[:-1] + bytes([data[-1] ^ 1])
                elif what == "repeated":
                    data += data
                elif what == "huge":
                    data = b"\xff\xff\xff\xff" + data
                elif what == "left out":
                    return
            self.stream.write(data)

    here, there = socket.socketpair()

    def serve() -> bytes:
        with there:
            channel = charger.open(SocketStream(there, timeout_s=2), client=False)
            return channel.receive() + channel.receive()

    def fetch() -> None:
        with here:
            channel = car.open(Tamper(here), client=True)
            channel.send(b"1")
            channel.send(b"2")

    _, served = together(fetch, serve)
    assert isinstance(served, Distrusted), served


def test_a_book_keeps_the_highest_receipt_alone(sides: tuple[Side, Side], source: FileUnits) -> None:
    exchange(sides, source, [])
    (held,) = sides[1].book.all()
    lower = held.receipt.__class__(CHAIN, held.receipt.payer, held.receipt.payee, 1, 1, 7)
    with pytest.raises(RefusedInput, match="lower"):
        sides[1].book.keep(held.__class__(lower))
    path = next(sides[1].book._folder.glob("*.json"))
    path.write_bytes(hashlib.sha256(b"x").digest())
    with pytest.raises(RefusedInput, match="no receipt"):
        sides[1].book.all()
