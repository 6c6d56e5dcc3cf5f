"""Netting: exact, order-independent, few payments; the default waterfall bears exactly what is owed."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.errors import RefusedInput
from gridpool.markets.netting import Obligation, cover_default, net, read_obligations, split

members = st.sampled_from("abcdefgh")
obligations = st.lists(
    st.tuples(members, members, st.integers(0, 10**12)).filter(lambda o: o[0] != o[1]).map(lambda o: Obligation(*o)),
    max_size=40,
)


@settings(deadline=None)
@given(obligations, st.randoms(use_true_random=False))
def test_netting_is_exact_order_independent_and_short(owed, shuffler: random.Random):
    result = net(owed)
    moved = dict.fromkeys(result.positions, 0)
    for payment in result.payments:
        assert payment.amount > 0
        assert result.positions[payment.debtor] < 0 < result.positions[payment.creditor]
        moved[payment.debtor] -= payment.amount
        moved[payment.creditor] += payment.amount
    assert moved == result.positions
    assert sum(result.positions.values()) == 0
    assert result.gross == sum(o.amount for o in owed)
    assert result.net == sum(p.amount for p in result.payments) <= result.gross
    assert len(result.payments) <= max(sum(1 for p in result.positions.values() if p) - 1, 0)
    shuffled = list(owed)
    shuffler.shuffle(shuffled)
    assert net(shuffled) == result


@settings(deadline=None)
@given(obligations, st.integers(0, 10**12), st.integers(0, 10**12), st.data())
def test_the_waterfall_bears_what_is_owed(owed, deposit, fund, data):
    result = net(owed)
    if not result.positions:
        return
    member = data.draw(st.sampled_from(sorted(result.positions)))
    waterfall = cover_default(result, member, deposit=deposit, fund=fund)
    losses = sum(loss.amount for loss in waterfall.losses)
    assert waterfall.owed == waterfall.deposit + waterfall.fund + losses
    assert waterfall.fund == 0 or waterfall.deposit == deposit
    assert losses == 0 or waterfall.fund == fund
    assert sum(waterfall.receives.values()) == result.net - losses
    assert all(amount >= 0 for amount in waterfall.receives.values())


def test_a_ring_of_debts_vanishes():
    result = net([Obligation("a", "b", 5), Obligation("b", "c", 5), Obligation("c", "a", 5)])
    assert (result.gross, result.net, result.payments) == (15, 0, ())


def test_largest_remainder_gives_the_odd_unit_to_the_lower_id():
    assert split(10, {"b": 1, "a": 1, "c": 1}) == {"a": 4, "b": 3, "c": 3}


@pytest.mark.parametrize("bad", [Obligation("a", "a", 1), Obligation("a", "b", -1)])
def test_a_bad_obligation_is_refused(bad):
    with pytest.raises(RefusedInput):
        net([Obligation("a", "b", 1), bad])


@pytest.mark.parametrize(
    "row", [b"\xff,b,1", b'"a,b,1', b"a" * 200_000 + b",b,1", b"a\x00,b,1", b"a,b," + b"9" * 400, b"a" * 129 + b",b,1"]
)
def test_hostile_bytes_refuse_the_file_in_one_line_that_names_theirs(row):
    with pytest.raises(RefusedInput, match="line 3") as caught:
        read_obligations(b"debtor,creditor,amount\na,b,1\n" + row + b"\n", "owed.csv")
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)
