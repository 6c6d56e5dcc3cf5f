"""Validators: named by the council, punished for proven misbehaviour, and let back in only by the others."""

import hashlib

import pytest

from gridpool.contracts import RULES, members
from gridpool.contracts.members import MemberParameters, NewSeat
from gridpool.contracts.validators import (
    FROZEN,
    OWNERS,
    Freeze,
    NamedKey,
    NamedNode,
    NameNode,
    NameValidator,
    ValidatorParameters,
    admits,
)
from gridpool.ledger.contract import VALIDATORS
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import Rehearsal
from gridpool.ledger.types import encode

SEATS = [KeyPair(bytes([i]) * 32) for i in (1, 2, 3)]
VOTERS = [KeyPair(bytes([i]) * 32) for i in (11, 12, 13)]
NAMES = ("north", "south", "west")
NODE = "ab" * 20


@pytest.fixture
def chain() -> Rehearsal:
    seats = tuple(NewSeat(key.public, name) for key, name in zip(SEATS, NAMES, strict=True))
    owners = tuple(NamedKey(key.public, name) for key, name in zip(VOTERS, NAMES, strict=True))
    genesis = Genesis(
        chain="validators-1",
        time_ms=1_000,
        validators=tuple((key.public, 10) for key in VOTERS),
        parameters=(
            ("members", encode(MemberParameters(seats=seats, threshold=2))),
            ("validators", encode(ValidatorParameters(owners, (NamedNode(NODE, "north"),)))),
        ),
    )
    return Rehearsal(RULES, genesis)


def decide(chain: Rehearsal, decision: members.Decision, *signers: KeyPair) -> str:
    """Propose and sign; returns the code of the last transaction."""
    first, *others = signers
    receipt = chain.submit(first, members.propose(decision))
    if not receipt.ok:
        return receipt.code
    number, held = max(chain.scan(members.PROPOSALS))
    for key in others:
        receipt = chain.submit(key, members.Approve(number, held.digest))
    return receipt.code


def power(chain: Rehearsal, key: KeyPair) -> int:
    held = chain.get(VALIDATORS, key.public)
    return held.power if held else 0


def test_council_names_reweighs_and_removes_validators(chain: Rehearsal) -> None:
    new = KeyPair(bytes([99]) * 32)
    assert decide(chain, NameValidator(new.public, "north", 5), *SEATS[:2]) == "ok"
    assert power(chain, new) == 5
    assert decide(chain, NameValidator(new.public, "south", 5), *SEATS[:2]) == "validator_of_another"
    assert decide(chain, NameValidator(new.public, "north", 0), *SEATS[:2]) == "ok"
    assert power(chain, new) == 0
    for key, name in zip(VOTERS[:2], NAMES, strict=False):
        assert decide(chain, NameValidator(key.public, name, 0), *SEATS[:2]) == "ok"
    assert decide(chain, NameValidator(VOTERS[2].public, "west", 0), *SEATS[:2]) == "no_validator_left"
    assert power(chain, VOTERS[2]) == 10


def test_misbehaviour_costs_the_vote_and_freezes_the_organisation(chain: Rehearsal) -> None:
    executed = chain.carry_out([], misbehaving=(VOTERS[0].public,))
    assert executed.validators == ((VOTERS[0].public, 0),)
    assert chain.get(FROZEN, "north") is not None
    assert not admits(chain.state, NODE)
    assert decide(chain, Freeze("south", True, "revenge"), SEATS[0], SEATS[1]) == "organisation_frozen"
    assert decide(chain, NameValidator(VOTERS[0].public, "north", 10), *SEATS[1:]) == "organisation_frozen"
    assert decide(chain, Freeze("north", False, "explained"), *SEATS[1:]) == "ok"
    assert decide(chain, NameValidator(VOTERS[0].public, "north", 10), *SEATS[:2]) == "ok"
    assert power(chain, VOTERS[0]) == 10


def test_misbehaviour_of_an_unknown_key_does_no_harm(chain: Rehearsal) -> None:
    stranger = KeyPair(bytes([77]) * 32)
    executed = chain.carry_out([], misbehaving=(stranger.public,))
    assert executed.validators == (), "an engine stops when told to remove a validator that it does not have"
    assert chain.get(OWNERS, stranger.public) is None
    assert list(chain.scan(FROZEN)) == []


def test_engine_is_told_of_a_change_of_power_once(chain: Rehearsal) -> None:
    assert chain.carry_out([], misbehaving=(VOTERS[0].public,)).validators == ((VOTERS[0].public, 0),)
    assert chain.carry_out([], misbehaving=(VOTERS[0].public,)).validators == ()
    proposal = members.propose(NameValidator(VOTERS[1].public, "south", 10))
    signed = [chain.sign(SEATS[1], proposal)]
    number = max((number for number, _ in chain.scan(members.PROPOSALS)), default=0) + 1
    signed.append(chain.sign(SEATS[2], members.Approve(number, hashlib.sha256(proposal.data).digest())))
    executed = chain.carry_out([transaction.wire for transaction in signed])
    assert [receipt.code for receipt in executed.receipts] == ["ok", "ok"]
    assert executed.validators == (), "the same power again is no change"


def test_nodes_connect_by_name_only(chain: Rehearsal) -> None:
    other = "cd" * 20
    assert admits(chain.state, NODE)
    assert not admits(chain.state, other)
    assert decide(chain, NameNode(other, "west"), *SEATS[:2]) == "ok"
    assert admits(chain.state, other)
    assert decide(chain, NameNode(other, "west", admitted=False), *SEATS[:2]) == "ok"
    assert not admits(chain.state, other)
    assert decide(chain, NameNode(other, "west", admitted=False), *SEATS[:2]) == "no_such_node"
