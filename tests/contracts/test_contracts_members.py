"""Council, certificates, wallets, tags, bans, re-keying and recovery."""

import hashlib

import pytest

from gridpool.contracts import coins, members
from gridpool.contracts.coins import Mint, Payment, Transfer
from gridpool.contracts.members import (
    Admit,
    Approve,
    BanMember,
    ConsentToRecovery,
    Decision,
    IssueTags,
    LiftBan,
    MemberParameters,
    NewMember,
    NewSeat,
    NewWallet,
    Recover,
    RegisterWallets,
    Rekey,
    Renew,
    Role,
    SetCouncilRule,
    SetSeat,
    WalletOpening,
    commitment_of,
    propose,
)
from gridpool.ledger.contract import Refused
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import Rehearsal
from gridpool.ledger.rules import Rules
from gridpool.ledger.types import encode


def key(name: str) -> KeyPair:
    return KeyPair(hashlib.sha256(name.encode()).digest())


def salt(number: int) -> bytes:
    return bytes([number]) * 32


KEEPER = key("keeper")
COUNCIL = [key(f"council {i}") for i in range(3)]
HUB, ANN, ANNS, NEW = key("hub"), key("ann"), [key(f"ann wallet {i}") for i in range(2)], key("ann new")
START = 1_000_000_000_000


@pytest.fixture
def chain() -> Rehearsal:
    parameters = MemberParameters(
        seats=tuple(NewSeat(k.public, f"organisation {i}") for i, k in enumerate(COUNCIL)),
        threshold=2,
        lifetime_ms=10_000,
        wallets_per_member=2,
    )
    genesis = Genesis(
        chain="members-1",
        time_ms=START,
        market_clock="ticks",
        clock_keeper=KEEPER.public,
        parameters=(("members", encode(parameters)),),
    )
    return Rehearsal(Rules([members.members, coins.coins]), genesis, clock_keeper=KEEPER)


def pass_decision(chain: Rehearsal, decided: Decision) -> None:
    chain.expect(COUNCIL[0], propose(decided))
    number, proposal = max(chain.scan(members.PROPOSALS))
    assert proposal.status == "open"
    chain.expect(COUNCIL[1], Approve(number, proposal.digest))


@pytest.fixture
def pool(chain: Rehearsal) -> Rehearsal:
    """The hub and Ann are members; Ann has two wallets."""
    pass_decision(
        chain,
        Admit(
            (
                NewMember(HUB.public, "Hub", (Role.AGGREGATOR,), public_wallets=(HUB.public,)),
                NewMember(ANN.public, "", (Role.PROSUMER,), aggregator=HUB.public),
            )
        ),
    )
    chain.expect(HUB, RegisterWallets(entries()))
    return chain


def entries() -> tuple[NewWallet, ...]:
    made = (NewWallet(w.public, commitment_of(ANN.public, w.public, salt(i))) for i, w in enumerate(ANNS))
    return tuple(sorted(made, key=lambda entry: entry.wallet))


def test_decision_takes_effect_with_the_second_of_three_keys(chain: Rehearsal) -> None:
    admission = Admit((NewMember(HUB.public, "Hub", (Role.AGGREGATOR,), public_wallets=(HUB.public,)),))
    chain.expect(COUNCIL[0], propose(admission))
    assert chain.get(members.MEMBERS, HUB.public) is None
    digest = chain.get(members.PROPOSALS, 1).digest  # type: ignore[union-attr]
    assert chain.submit(COUNCIL[0], Approve(1, digest)).code == "already_signed"
    assert chain.submit(ANN, Approve(1, digest)).code == "not_of_the_council"
    assert chain.submit(COUNCIL[1], Approve(1, bytes(32))).code == "other_content"
    chain.expect(COUNCIL[1], Approve(1, digest))
    assert chain.get(members.MEMBERS, HUB.public) is not None
    assert chain.submit(COUNCIL[2], Approve(1, digest)).code == "already_decided"


def test_proposal_expires(chain: Rehearsal) -> None:
    chain.expect(COUNCIL[0], propose(SetCouncilRule(1, 10_000)))
    digest = chain.get(members.PROPOSALS, 1).digest  # type: ignore[union-attr]
    chain.advance(START + 10_000)
    assert chain.submit(COUNCIL[1], Approve(1, digest)).code == "proposal_expired"


def test_nobody_else_and_nothing_malformed_comes_before_the_council(chain: Rehearsal) -> None:
    assert chain.submit(ANN, propose(SetCouncilRule(1, 1))).code == "not_of_the_council"
    assert chain.submit(COUNCIL[0], members.Propose(b"\x91\xa1x")).code == "no_such_decision"
    assert chain.submit(COUNCIL[0], members.Propose(encode(SetCouncilRule(1, 1)) + b"\0")).code == "no_such_decision"


def test_council_keys_rotate_but_never_below_the_threshold(chain: Rehearsal) -> None:
    fresh = key("council 2 new")
    pass_decision(chain, SetSeat(fresh.public, "organisation 2", 1, replaces=COUNCIL[2].public))
    assert chain.get(members.SEATS, COUNCIL[2].public) is None
    assert chain.submit(COUNCIL[2], propose(SetCouncilRule(1, 1))).code == "not_of_the_council"
    pass_decision(chain, SetSeat(fresh.public, "", 0))
    with pytest.raises(Refused, match="council_could_not_decide"):
        pass_decision(chain, SetSeat(COUNCIL[1].public, "", 0))


def test_weights_count(chain: Rehearsal) -> None:
    pass_decision(chain, SetSeat(COUNCIL[2].public, "organisation 2", 5))
    chain.expect(COUNCIL[2], propose(SetCouncilRule(3, 10_000)))
    assert max(chain.scan(members.PROPOSALS))[1].status == "done"


def test_wallets_come_from_the_pool_in_order_and_within_number(pool: Rehearsal) -> None:
    assert pool.submit(HUB, RegisterWallets((NewWallet(NEW.public, bytes(32)),))).code == "too_many_wallets"
    pass_decision(pool, Admit((NewMember(key("bob").public, "", (Role.PROSUMER,), aggregator=HUB.public),)))
    two = sorted((NEW.public, key("x").public))
    backwards = RegisterWallets(tuple(NewWallet(w, bytes(32)) for w in reversed(two)))
    assert pool.submit(HUB, backwards).code == "not_in_ascending_order"
    assert pool.submit(ANNS[0], RegisterWallets((NewWallet(NEW.public, bytes(32)),))).code == "role_missing"
    bank = RegisterWallets((NewWallet(NEW.public, bytes(32)),), (Role.BANK,))
    assert pool.submit(HUB, bank).code == "role_needs_a_public_wallet"
    identity = RegisterWallets((NewWallet(b"\1" + bytes(31), bytes(32)),))
    assert pool.submit(HUB, identity).code == "unsound_key"


def test_tag_stands_and_comes_from_the_own_pool(pool: Rehearsal) -> None:
    wallet = ANNS[0].public
    pool.expect(HUB, IssueTags(START + 5, ((wallet, b"t" * 32),)))
    assert pool.submit(HUB, IssueTags(START + 5, ((wallet, b"u" * 32),))).code == "tag_stands"
    other = key("other hub")
    new = NewMember(other.public, "Other", (Role.AGGREGATOR,), public_wallets=(other.public,))
    pass_decision(pool, Admit((new,)))
    assert pool.submit(other, IssueTags(START + 1, ((wallet, b"u" * 32),))).code == "not_of_this_pool"
    assert pool.submit(HUB, IssueTags(START, ((wallet, b"t" * 32),))).code == "not_the_time_for_tags"
    assert pool.submit(HUB, IssueTags(START + 10**12, ((wallet, b"t" * 32),))).code == "not_the_time_for_tags"
    pool.advance(START + 5)
    assert not list(pool.scan(members.TAGS))


def test_ban_binds_every_opened_wallet_until_it_ends_or_is_lifted(pool: Rehearsal) -> None:
    pass_decision(pool, Mint((Payment(ANNS[0].public, 5), Payment(ANNS[1].public, 5)), "start"))
    forged = BanMember(HUB.public, START + 99, "council", "why", (WalletOpening(ANNS[0].public, salt(0)),))
    with pytest.raises(Refused, match="wrong_opening"):
        pass_decision(pool, forged)
    openings = tuple(WalletOpening(w.public, salt(i)) for i, w in enumerate(ANNS))
    pass_decision(pool, BanMember(ANN.public, START + 5_000, "council", "unpaid", openings))
    for wallet in ANNS:
        assert pool.submit(wallet, Transfer(HUB.public, 1)).code == "banned"
    opened = pool.get(members.OPENINGS, ANNS[0].public)
    assert opened is not None
    assert opened.member == ANN.public
    pool.advance(START + 5_000)
    pool.expect(ANNS[0], Transfer(HUB.public, 1))
    pass_decision(pool, BanMember(ANN.public, START + 500_000, "council", "again", openings))
    assert pool.submit(ANNS[1], Transfer(HUB.public, 1)).code == "banned"
    pass_decision(pool, LiftBan(ANN.public))
    pool.expect(ANNS[1], Transfer(HUB.public, 1))


def test_certificates_expire_and_are_renewed(pool: Rehearsal) -> None:
    pass_decision(pool, Renew(HUB.public, (Role.AGGREGATOR,), START))
    tags = IssueTags(START + 5, ((ANNS[0].public, bytes(32)),))
    assert pool.submit(HUB, tags).code == "certificate_not_valid_now"
    pass_decision(pool, Renew(HUB.public, (Role.AGGREGATOR,), START + 10**9))
    pool.expect(HUB, tags)


def test_owner_moves_to_a_new_key_and_loses_the_old_one(pool: Rehearsal) -> None:
    pass_decision(pool, Mint((Payment(ANNS[0].public, 7),), "start"))
    pool.expect(ANNS[0], Rekey(NEW.public, commitment_of(ANN.public, NEW.public, salt(9))))
    assert coins.balance(pool.state, NEW.public) == 7
    assert coins.balance(pool.state, ANNS[0].public) == 0
    assert pool.submit(ANNS[0], Rekey(key("y").public, bytes(32))).code == "certificate_not_valid_now"


def test_lost_key_needs_aggregator_and_council(pool: Rehearsal) -> None:
    pass_decision(pool, Mint((Payment(ANNS[0].public, 7),), "start"))
    lost = ANNS[0].public
    with pytest.raises(Refused, match="aggregator_has_not_consented"):
        pass_decision(pool, Recover(lost))
    consent = ConsentToRecovery(lost, NEW.public, commitment_of(ANN.public, NEW.public, salt(9)))
    assert pool.submit(ANN, consent).code == "unknown_wallet"
    pool.expect(HUB, consent)
    assert coins.balance(pool.state, NEW.public) == 0
    pass_decision(pool, Recover(lost))
    assert coins.balance(pool.state, NEW.public) == 7
    assert pool.submit(ANNS[0], Transfer(HUB.public, 1)).code == "not_enough_coins"
    pool.expect(NEW, Transfer(HUB.public, 7))


def test_regulator_trades_nothing(chain: Rehearsal) -> None:
    both = NewMember(HUB.public, "R", (Role.REGULATOR, Role.PROSUMER), public_wallets=(HUB.public,))
    with pytest.raises(Refused, match="regulator_trades_nothing"):
        pass_decision(chain, Admit((both,)))
