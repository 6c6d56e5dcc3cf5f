"""Pools: what is free over a window equals a look at every instant."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.contracts.slices.pools import CAPACITIES, PROMISES, Amount, Capacity, Promise, fits, peak
from gridpool.ledger.state import Layer, MemoryReader, State

amounts = st.dictionaries(st.sampled_from(["kbps", "devices"]), st.integers(0, 9), max_size=2).map(
    lambda chosen: tuple(Amount(name, amount) for name, amount in chosen.items())
)
spans = st.tuples(st.integers(0, 12), st.integers(1, 6)).map(lambda s: (s[0], s[0] + s[1]))


@settings(deadline=None, max_examples=300)
@given(
    amounts,
    st.dictionaries(st.integers(1, 15), amounts, max_size=4),
    st.lists(st.tuples(spans, amounts)),
    spans,
    amounts,
)
def test_the_least_free_amount_equals_a_look_at_every_instant(first, steps, promises, window, wanted):
    layer = Layer()
    layer.put(CAPACITIES, ("p", 0), Capacity(first))
    for time, step in steps.items():
        layer.put(CAPACITIES, ("p", time), Capacity(step))
    for number, ((start, end), promised) in enumerate(promises):
        layer.put(PROMISES, ("p", end, str(number)), Promise("p", start, end, promised))
    state = State(MemoryReader(layer.encoded()))
    start, end = window

    def free(instant, resource):
        current = [step for time, step in sorted({0: first, **steps}.items()) if time <= instant][-1]
        given_ = sum(a.amount for a in current if a.resource == resource)
        held = [p for (s, e), p in promises if s <= instant < e]
        return given_ - sum(a.amount for promised in held for a in promised if a.resource == resource)

    least = peak(state, "p", start, end)
    expected = {name: min(free(t, name) for t in range(start, end)) for name in ("kbps", "devices")}
    for name, amount in expected.items():
        assert least.get(name, 0) == amount
    possible = all(amount >= 0 for amount in expected.values()) and all(
        expected[a.resource] >= a.amount for a in wanted
    )
    assert fits(state, "p", wanted, start, end) == possible
