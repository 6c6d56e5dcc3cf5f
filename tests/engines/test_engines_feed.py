"""The blocks that an engine keeps at hand: the last ones, in bounded memory."""

from hypothesis import given
from hypothesis import strategies as st

from gridpool.engines.engine import Sealed
from gridpool.engines.feed import MOST_BLOCKS, RecentBlocks
from gridpool.ledger.transaction import CallResult, Receipt

RECEIPT = Receipt(b"t" * 32, "ok", "", (), ())
BUNDLE = Receipt(b"b" * 32, "ok", "", (CallResult("ok", ""),) * 4, ())


@given(st.lists(st.lists(st.sampled_from([RECEIPT, BUNDLE]), max_size=12), min_size=1, max_size=100))
def test_the_longest_run_of_last_blocks_within_the_bounds_is_at_hand(blocks: list[list[Receipt]]) -> None:
    recent = RecentBlocks(most_receipts=30)
    made = [Sealed(height, 0, b"", tuple(receipts)) for height, receipts in enumerate(blocks, 1)]
    for sealed in made:
        recent.add(sealed)
    kept = [sealed for sealed in made if recent.find(sealed.height) is sealed]
    assert kept == made[-len(kept) :]

    def weight(count: int) -> int:
        return sum(1 if receipt is RECEIPT else 5 for sealed in made[-count:] for receipt in sealed.receipts)

    assert len(kept) == 1 or (weight(len(kept)) <= 30 and len(kept) <= MOST_BLOCKS)
    if len(kept) < min(len(made), MOST_BLOCKS):
        assert weight(len(kept) + 1) > 30
    assert recent.find(0) is None
