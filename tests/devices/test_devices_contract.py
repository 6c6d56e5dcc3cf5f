"""Deposits, receipts and rewards on the ledger: settled once, bounded, highest total, one member earns nothing."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.contracts import coins, devices, members
from gridpool.contracts.coins import Mint, Payment
from gridpool.contracts.device_receipts import CoSigned, Receipt, distinct_bytes, sign_receipt
from gridpool.contracts.devices import DEPOSITS, FundPool, OpenDeposit, Settle
from gridpool.contracts.members import (
    Admit,
    FoundingMember,
    MemberParameters,
    NewMember,
    NewSeat,
    NewWallet,
    RegisterWallets,
    Rekey,
    Role,
    commitment_of,
    propose,
)
from gridpool.ledger.contract import Refused
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import Rehearsal
from gridpool.ledger.rules import Rules
from gridpool.ledger.types import Call, encode

START = 1_782_000_000_000
DAY = 86_400_000
COINS = 1_000_000


def key(name: str) -> KeyPair:
    return KeyPair(hashlib.sha256(name.encode()).digest())


KEEPER, HUB, DSO, FAR = key("keeper"), key("hub"), key("dso"), key("far")
PAYER, TWIN, PAYEE, AWAY = key("payer"), key("twin"), key("payee"), key("away")
WALLETS = {PAYER: "ann", TWIN: "ann", PAYEE: "bob"}


def world() -> Rehearsal:
    founders = (
        FoundingMember(HUB.public, "Hub", (Role.AGGREGATOR,)),
        FoundingMember(FAR.public, "Far", (Role.AGGREGATOR,)),
        FoundingMember(DSO.public, "Grid", (Role.UTILITY,)),
    )
    seats = (NewSeat(KEEPER.public, "council"),)
    genesis = Genesis(
        chain="devices",
        time_ms=START,
        market_clock="ticks",
        clock_keeper=KEEPER.public,
        parameters=(("members", encode(MemberParameters(seats, founders=founders))),),
    )
    chain = Rehearsal(Rules([members.members, coins.coins, devices.devices]), genesis, clock_keeper=KEEPER)
    admitted = [NewMember(key(name).public, "", (Role.PROSUMER,), HUB.public) for name in ("ann", "bob")]
    admitted.append(NewMember(key("cat").public, "", (Role.PROSUMER,), FAR.public))
    chain.expect(KEEPER, propose(Admit(tuple(admitted))))
    entries = [
        NewWallet(wallet.public, commitment_of(key(name).public, wallet.public, bytes(32)))
        for wallet, name in WALLETS.items()
    ]
    chain.expect(HUB, RegisterWallets(tuple(sorted(entries, key=lambda entry: entry.wallet))))
    chain.expect(FAR, RegisterWallets((NewWallet(AWAY.public, bytes(32)),)))
    paid = tuple(Payment(wallet.public, COINS) for wallet in (*WALLETS, AWAY, DSO))
    chain.expect(KEEPER, propose(Mint(paid, "test")))
    return chain


@pytest.fixture
def chain() -> Rehearsal:
    return world()


def signed(units: int, total: int, *, payer: KeyPair = PAYER, payee: KeyPair = PAYEE, number: int = 1) -> CoSigned:
    receipt = Receipt("devices", payer.public, payee.public, number, units, total)
    return CoSigned(receipt, sign_receipt(payer, receipt, payer=True), sign_receipt(payee, receipt, payer=False))


def refusal(chain: Rehearsal, signer: KeyPair, call: Call) -> str:
    with pytest.raises(Refused) as error:
        chain.expect(signer, call)
    return error.value.code


def balances(chain: Rehearsal, *wallets: KeyPair) -> list[int]:
    return [coins.balance(chain.state, wallet.public) - COINS for wallet in wallets]


def test_a_payee_settles_days_later_once_and_within_the_deposit(chain: Rehearsal) -> None:
    chain.expect(PAYER, OpenDeposit(PAYEE.public, 1_000, START + 30 * DAY))
    assert balances(chain, PAYER, PAYEE) == [-1_000, 0]
    chain.advance(START + 20 * DAY)
    assert refusal(chain, PAYEE, Settle(signed(10, 1_001))) == "above_deposit"
    assert refusal(chain, TWIN, Settle(signed(10, 500))) == "not_of_this_exchange"
    assert refusal(chain, AWAY, Settle(signed(10, 500, payee=AWAY))) == "not_the_payee"
    lied = CoSigned(signed(10, 600).receipt, signed(10, 500).payer_signature, signed(10, 600).payee_signature)
    assert refusal(chain, PAYEE, Settle(lied)) == "payer_has_not_signed"
    half = CoSigned(signed(10, 600).receipt, signed(10, 600).payer_signature, bytes(64))
    assert refusal(chain, PAYER, Settle(half)) == "payee_has_not_signed"
    chain.expect(PAYEE, Settle(signed(10, 500)))
    assert balances(chain, PAYER, PAYEE) == [-500, 500]
    assert refusal(chain, PAYEE, Settle(signed(10, 500))) == "no_such_deposit"
    chain.advance(START + 40 * DAY)
    assert balances(chain, PAYER, PAYEE) == [-500, 500]
    # the number is not given again, so the receipt never counts again
    chain.expect(PAYER, OpenDeposit(PAYEE.public, 1_000, chain.now + DAY))
    assert refusal(chain, PAYEE, Settle(signed(10, 500))) == "no_such_deposit"
    chain.expect(PAYEE, Settle(signed(1, 7, number=2)))


def test_a_payers_low_receipt_is_overturned_in_the_challenge_time(chain: Rehearsal) -> None:
    chain.expect(PAYER, OpenDeposit(PAYEE.public, 1_000, START + 30 * DAY))
    chain.expect(PAYER, Settle(signed(2, 100)))
    chain.expect(PAYER, Settle(signed(3, 150)))
    assert refusal(chain, PAYER, Settle(signed(1, 50))) == "higher_receipt_stands"
    chain.advance(START + 2 * DAY)
    assert refusal(chain, PAYEE, Settle(signed(2, 100))) == "higher_receipt_stands"
    chain.expect(PAYEE, Settle(signed(10, 500)))
    assert balances(chain, PAYER, PAYEE) == [-500, 500]
    chain.expect(PAYER, OpenDeposit(PAYEE.public, 1_000, chain.now + 30 * DAY))
    chain.expect(PAYER, Settle(signed(2, 100, number=2)))
    chain.advance(chain.now + 3 * DAY)
    assert balances(chain, PAYER, PAYEE) == [-600, 600]
    assert list(chain.scan(DEPOSITS)) == []


def test_a_payer_cannot_shorten_the_challenge_by_the_expiry_nor_lengthen_it(chain: Rehearsal) -> None:
    chain.expect(PAYER, OpenDeposit(PAYEE.public, 1_000, START + DAY))
    chain.advance(START + DAY - 1_000)
    chain.expect(PAYER, Settle(signed(2, 100)))
    chain.expect(PAYER, Settle(signed(3, 150)))
    chain.advance(START + 2 * DAY)
    chain.expect(PAYEE, Settle(signed(10, 500)))
    assert balances(chain, PAYER, PAYEE) == [-500, 500]


def test_an_unused_deposit_returns_when_it_expires(chain: Rehearsal) -> None:
    chain.expect(PAYER, OpenDeposit(PAYEE.public, 1_000, START + DAY))
    chain.advance(START + DAY)
    assert balances(chain, PAYER, PAYEE) == [0, 0]
    assert refusal(chain, PAYEE, Settle(signed(1, 1))) == "no_such_deposit"


def test_deposits_are_bounded(chain: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(chain, PAYER, OpenDeposit(PAYER.public, 1, START + DAY)) == "own_wallet"
    assert refusal(chain, PAYER, OpenDeposit(bytes(32), 1, START + DAY)) == "unknown_wallet"
    assert refusal(chain, PAYER, OpenDeposit(PAYEE.public, COINS + 1, START + DAY)) == "not_enough_coins"
    for expires in (START, START + 367 * DAY):
        assert refusal(chain, PAYER, OpenDeposit(PAYEE.public, 1, expires)) == "expiry_out_of_range"
    monkeypatch.setattr(devices, "MOST_OPEN", 1)
    chain.expect(PAYER, OpenDeposit(PAYEE.public, 1, START + DAY))
    assert refusal(chain, PAYER, OpenDeposit(PAYEE.public, 1, START + DAY)) == "too_many_deposits"


def test_a_replaced_wallets_payee_still_gets_its_coins(chain: Rehearsal) -> None:
    chain.expect(PAYER, OpenDeposit(PAYEE.public, 1_000, START + DAY))
    new = key("new payee")
    chain.expect(PAYEE, Rekey(new.public, commitment_of(key("bob").public, new.public, bytes(32))))
    assert refusal(chain, PAYEE, Settle(signed(10, 500))) in ("certificate_not_valid_now", "not_of_this_exchange")
    chain.expect(new, Settle(signed(10, 500)))
    assert coins.balance(chain.state, new.public) == COINS + 500


def test_sharing_earns_from_a_pool_but_never_from_oneself(chain: Rehearsal) -> None:
    chain.expect(DSO, FundPool("maps", 1_000, 30, 20, START + 90 * DAY))
    assert refusal(chain, PAYER, FundPool("own", 1, 1, 1, START + DAY)) == "needs_a_public_wallet"
    assert refusal(chain, DSO, FundPool("maps", 1, 31, 20, START + 90 * DAY)) == "terms_stand"
    word = HUB.sign(distinct_bytes("devices", PAYER.public, PAYEE.public))
    chain.expect(PAYER, OpenDeposit(PAYEE.public, 0, START + 30 * DAY))
    assert refusal(chain, PAYEE, Settle(signed(10, 0), "maps")) == "one_member_earns_nothing"
    forged = PAYEE.sign(distinct_bytes("devices", PAYER.public, PAYEE.public))
    assert refusal(chain, PAYEE, Settle(signed(10, 0), "maps", forged)) == "one_member_earns_nothing"
    assert refusal(chain, PAYEE, Settle(signed(10, 0), "none", word)) == "no_such_pool"
    assert refusal(chain, PAYER, Settle(signed(10, 0), "maps", word)) == "only_the_payee_earns"
    chain.expect(PAYEE, Settle(signed(10, 0), "maps", word))
    assert balances(chain, PAYEE) == [300]
    # two wallets of one member: the aggregator's word for another pair does not fit, and it has none for this one
    chain.expect(PAYER, OpenDeposit(TWIN.public, 0, START + 30 * DAY))
    own = signed(10, 0, payee=TWIN, number=2)
    for distinct in (b"", word):
        assert refusal(chain, TWIN, Settle(own, "maps", distinct)) == "one_member_earns_nothing"
    chain.expect(TWIN, Settle(own))
    # wallets of two pools are of two members; rewards end with the units allowed and the coins left
    chain.expect(PAYER, OpenDeposit(AWAY.public, 0, START + 30 * DAY))
    chain.expect(AWAY, Settle(signed(1_000, 0, payee=AWAY, number=3), "maps"))
    assert balances(chain, AWAY, TWIN) == [600, 0]
    chain.expect(PAYER, OpenDeposit(AWAY.public, 0, START + 30 * DAY))
    chain.expect(AWAY, Settle(signed(1_000, 0, payee=AWAY, number=4), "maps"))
    assert balances(chain, AWAY) == [700]
    chain.expect(DSO, FundPool("maps", 50, 30, 20, START + 90 * DAY))
    chain.advance(START + 90 * DAY)
    assert balances(chain, DSO) == [-1_000]


@settings(max_examples=25, deadline=None)
@given(
    deposit=st.integers(0, 1_000),
    steps=st.lists(
        st.tuples(st.sampled_from(["payer", "payee", "wait"]), st.integers(0, 12), st.integers(0, 1_100)), max_size=8
    ),
)
def test_whatever_is_brought_the_payee_gets_one_signed_total(deposit: int, steps: list[tuple[str, int, int]]) -> None:
    """Invariants (coins conserved, escrows cover deposits) are checked after every block by the rehearsal."""
    chain = world()
    chain.expect(PAYER, OpenDeposit(PAYEE.public, deposit, START + 10 * DAY))
    brought, final = [0], None
    for who, units, total in steps:
        if who == "wait":
            chain.advance(chain.now + units * DAY // 2)
            continue
        receipt = chain.submit(PAYER if who == "payer" else PAYEE, Settle(signed(units, total)))
        if receipt.ok:
            assert total <= deposit
            brought.append(total)
            if who == "payee":
                assert final is None
                final = total
    chain.advance(START + 60 * DAY)
    paid, got = balances(chain, PAYER, PAYEE)
    assert paid + got == 0
    assert got == (brought[-1] if final is None else final) == max(brought)
    assert list(chain.scan(DEPOSITS)) == []
