"""Whole units shared out: against unit-by-unit definitions."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.markets.rationing import amounts_of, bear_equally, share_by_weight


@given(st.lists(st.integers(0, 40), max_size=12), st.data())
@settings(deadline=None, max_examples=300)
def test_burdens_are_taken_a_unit_at_a_time_from_everyone_who_still_can(limits, data):
    burden = data.draw(st.integers(0, sum(limits)))
    slow = [0] * len(limits)
    left = burden
    while left:
        able = [i for i, limit in enumerate(limits) if slow[i] < limit]
        for i in able[len(able) - left :] if left < len(able) else able:
            slow[i] += 1
            left -= 1
    assert bear_equally(burden, limits) == slow


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=12), st.integers(0, 10**15))
@settings(deadline=None, max_examples=200)
def test_shares_by_weight_add_up_and_stay_within_one_unit(weights, total):
    shares = share_by_weight(total, weights)
    whole = sum(weights)
    if not whole:
        assert shares == [0] * len(weights)
        return
    assert sum(shares) == total
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share - Fraction(total * weight, whole)) < 1
    # no unit could be moved to a larger remainder
    up = [Fraction(total * w, whole) % 1 for s, w in zip(shares, weights, strict=True) if s > total * w // whole]
    down = [Fraction(total * w, whole) % 1 for s, w in zip(shares, weights, strict=True) if s == total * w // whole]
    assert not up or not down or min(up) >= max(down)


@given(st.lists(st.integers(0, 10**15), max_size=12))
@settings(deadline=None, max_examples=200)
def test_amounts_add_up_to_the_sum_rounded_down(values):
    amounts = amounts_of(values)
    assert sum(amounts) == sum(values) // 1000
    for amount, value in zip(amounts, values, strict=True):
        assert abs(amount - Fraction(value, 1000)) < 1


def test_a_large_adversarial_burden_is_shared_at_once():
    limits = list(range(1, 200_001))
    taken = bear_equally(sum(limits) * 3 // 4, limits)
    assert sum(taken) == sum(limits) * 3 // 4
