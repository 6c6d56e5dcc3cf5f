"""What was on the air until a moment ago: reports of a slot are fused after it, when its lessee may have gone.

A lease that ends or moves while authorised leaves a note of where it was; it is forgotten once every round that it
could explain is fused.
"""

from collections.abc import Iterator

from gridpool.contracts.spectrum_records import Cells, Hertz, Lease, spectrum
from gridpool.contracts.spectrum_register import SpectrumParameters
from gridpool.contracts.spectrum_sheets import parent
from gridpool.ledger.contract import Context
from gridpool.ledger.state import State
from gridpool.ledger.types import Due, Millis, Natural, Value

__all__ = ["LATELY", "SLOT_MS", "Gone", "lately", "note_gone"]

SLOT_MS = 60_000
"""A round of sensing."""


class Gone(Value):
    """Where a lease was on the air: its cells under one ancestor, band, and time from its start to when it left."""

    cells: Cells
    low: Hertz
    high: Hertz
    start: Millis
    end: Millis
    present: bool


class ForgetGone(Due, tag="spectrum.forget_gone"):
    """No round of sensing looks back so far any more."""

    band: Natural
    parent: Natural
    lease: Natural
    at: Millis


LATELY = spectrum.table("lately", key=(int, int, int, int), value=Gone)
"""(class, parent cell, lease, when it left) -> where it was."""


def note_gone(ctx: Context, number: int, lease: Lease) -> None:
    """Note that a lease leaves its cells now; ``lease`` is what it was before."""
    keep = SLOT_MS + ctx.parameters("spectrum", SpectrumParameters).fusion_wait_ms
    end = min(ctx.now, lease.authorized_until)
    if end + keep <= ctx.now:
        return
    for above in sorted({parent(cell) for cell in lease.cells}):
        cells = {cell for cell in lease.cells if parent(cell) == above}
        key = (lease.band, above, number, ctx.now)
        before = ctx.get(LATELY, key)
        if before is not None:  # moved twice at one time
            cells.update(before.cells)
        ctx.put(LATELY, key, Gone(tuple(sorted(cells)), lease.low, lease.high, lease.start, end, lease.present))
        ctx.schedule(ctx.now + keep, ForgetGone(*key))


def lately(state: State, band: int, above: int) -> Iterator[Gone]:
    """Yield what left the cells under an ancestor a moment ago."""
    for _, gone in state.scan(LATELY, (band, above)):
        yield gone


@spectrum.due(ForgetGone)
def forget_gone(ctx: Context, due: ForgetGone) -> None:
    """Forget."""
    ctx.delete(LATELY, (due.band, due.parent, due.lease, due.at))
