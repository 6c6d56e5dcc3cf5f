"""Whatever a call or decision says, the ledger takes or refuses it: no contract fails, nothing malformed is stored."""

from typing import Any

import msgspec
from contracts_world import BANK, COUNCIL, GRID, HUB, MARKET, QUARTER, START, STOP, World, key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from gridpool.contracts import coins, credit, energy, members
from gridpool.contracts.members import propose
from gridpool.contracts.members_council import _DECISIONS
from gridpool.ledger.types import Call, encode

MOST_KEY_BYTES = 511  # what the store holds
T = START + 4 * QUARTER
NUMBERS = (0, 1, 2, 5, 999, 10**6, T, T - QUARTER, T + QUARTER, START, 10**9, 10**12, 2**53, 2**62, 2**63 - 1)
ACTORS = (COUNCIL, HUB, BANK, STOP, GRID, MARKET, key("wallet a"), key("wallet b"), key("prosumer a"), key("nobody"))
KEYS = (*(actor.public for actor in ACTORS), bytes(32), b"\xff" * 32, b"\1" + bytes(31))


LOANS = [credit.loan_id(key(f"wallet {n}").public, bytes(32)) for n in "ab"]
SMALL = (1, 100, 900, 1_000)
LIKELY: dict[str, tuple[Any, ...]] = {
    "interval": (T, T, T + QUARTER, START),
    "serial": (0, 1, 2),
    "quantity_wh": SMALL,
    "import_wh": SMALL,
    "export_wh": SMALL,
    "amount": SMALL,
    "cap": (10_000,),
    "price": (100_000, 150_000, 200_000),
    "loan": (*LOANS, b""),
    "bank": (BANK.public,),
    "wealth": (True,),
    "income": (True,),
    "demand_wh": (0, 1_000, 5_000),
    "rate_ppm": (0, 1_000),
    "term_ms": (0, QUARTER),
    "tag": (b"",),
    "tag_signature": (b"",),
    "profile": ("",),
    "to": (key("wallet a").public, key("wallet b").public),
    "payee": (key("wallet a").public, key("wallet b").public),
}


def mostly(likely: st.SearchStrategy[Any], other: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 7).flatmap(lambda n: likely if n else other)


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.IntType():
            low, high = kind.ge if kind.ge is not None else -(2**63) + 1, kind.le if kind.le is not None else 2**63 - 1
            chosen = [n for n in (*NUMBERS, -1, low, high) if low <= n <= high]
            return st.sampled_from(chosen) | st.integers(low, high)
        case inspect.BytesType():
            low, high = kind.min_length or 0, kind.max_length
            assert high is not None, "unbounded bytes in a call"
            fitting = [k for k in KEYS if low <= len(k) <= high]
            drawn = st.binary(min_size=low, max_size=min(high, 64))
            return st.sampled_from(fitting) | drawn if fitting else drawn
        case inspect.StrType():
            assert kind.max_length is not None, "unbounded text in a call"
            return st.sampled_from(["", "x", "posted", "é" * min(kind.max_length, 64), "z" * kind.max_length])
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.EnumType():
            return st.sampled_from(list(kind.cls))
        case inspect.UnionType():
            return st.one_of([values(option) for option in kind.types])
        case inspect.VarTupleType():
            assert kind.max_length is not None, "unbounded tuple in a call"
            return st.lists(
                values(kind.item_type), min_size=kind.min_length or 0, max_size=min(kind.max_length, 3)
            ).map(tuple)
        case inspect.TupleType():
            return st.tuples(*(values(item) for item in kind.item_types))
        case inspect.StructType():
            return structs(kind.cls)
    raise AssertionError(f"no strategy for {kind}")


def structs(kind: type) -> st.SearchStrategy[Any]:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    fields = {}
    for item in info.fields:
        drawn = values(item.type)
        if not item.required and item.default is not msgspec.NODEFAULT and item.name not in LIKELY:
            drawn = st.just(item.default) | drawn
        if item.name in LIKELY:
            drawn = mostly(st.sampled_from(LIKELY[item.name]), drawn)
        fields[item.name] = drawn
    return st.builds(kind, **fields)


CONTRACTS = (members.members, coins.coins, energy.energy, credit.credit)
AS_HUB = ("register_wallets", "register_meters", "issue_tags", "post_quote", "report_missing", "consent_to_recovery")
AS_BANK = ("offer_loan", "ask_bank", "grant_bank", "repay_bank")
TRADERS = (key("wallet a"), key("wallet b"))


def acts(kind: type) -> st.SearchStrategy[tuple[Any, Call]]:
    """Calls of one kind, mostly by somebody who may make them."""
    verb = str(kind.__struct_config__.tag).split(".")[1]  # type: ignore[attr-defined]
    likely = (HUB,) if verb in AS_HUB else (BANK,) if verb in AS_BANK else TRADERS
    return st.tuples(mostly(st.sampled_from(likely), st.sampled_from(ACTORS)), structs(kind))


CALLS = [acts(kind) for contract in CONTRACTS for kind in contract.calls]
NOUNS = ("members", "coins", "energy", "credit")
DECIDED = [structs(kind) for kind in _DECISIONS if kind.__module__.split(".")[-1].split("_")[0] in NOUNS]
step = st.one_of(*CALLS, st.one_of(DECIDED).map(lambda d: (COUNCIL, propose(d))))


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(step, min_size=5, max_size=30), wait=st.sampled_from([0, QUARTER, 40 * QUARTER]))
def test_no_call_stops_a_node_or_leaves_what_cannot_be_read(steps: list[tuple[Any, Call]], wait: int) -> None:
    world = World("ab")
    world.tags(T)
    world.order("a", T, "sell", 1_000, 100_000)
    world.order("b", T, "buy", 900, 200_000)
    for name, loan in zip("ab", LOANS, strict=True):
        world.chain.expect(world.wallets[name], credit.RequestLoan(BANK.public, bytes(32)))
        world.chain.expect(BANK, credit.OfferLoan(loan, 1_000, 200_000, True, True))
    world.chain.expect(world.wallets["a"], credit.AcceptLoan(LOANS[0]))
    if wait:
        world.chain.advance(T - world.market.lead_ms + wait)
    for number, (actor, call) in enumerate(steps):
        world.chain.submit(actor, call)
        if number == len(steps) // 2 and wait:
            world.chain.advance(world.chain.now + wait)
    world.chain.advance(world.chain.now + 9 * 96 * QUARTER)
    assert all(len(name) <= MOST_KEY_BYTES for name, _ in world.chain.reader.items())


def test_every_call_is_bounded() -> None:
    for contract in CONTRACTS:
        for kind in contract.calls:
            structs(kind)  # asserts a bound on every text, bytes and tuple
    assert len(encode(energy.PlaceOrder(T, "buy", 1, 1))) < 100
