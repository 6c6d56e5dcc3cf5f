"""Market time: the only clock that contracts see."""

from gridpool.ledger.contract import CLOCK, Context, Contract, Number, Refused
from gridpool.ledger.types import Call, Millis, Value, Wallet

__all__ = ["AdvanceClock", "clock"]

clock = Contract("ledger")


class AdvanceClock(Call, tag="ledger.advance_clock"):
    """Move market time forward to ``to`` (``market_clock = ticks`` only, by the clock keeper)."""

    to: Millis


class ClockKeeper(Value):
    """Who may advance market time, and by how much at once."""

    keeper: Wallet
    max_step_ms: Millis


KEEPER = clock.table("clock_keeper", key=str, value=ClockKeeper)


def appoint(ctx: Context, keeper: bytes, max_step_ms: int) -> None:
    """Name the wallet whose ticks move market time."""
    ctx.put(KEEPER, "keeper", ClockKeeper(keeper, max_step_ms))


@clock.call(AdvanceClock)
def advance_clock(ctx: Context, call: AdvanceClock) -> None:
    """Move market time; refused unless signed by the keeper, forward, and within the allowed step."""
    rule = ctx.get(KEEPER, "keeper")
    if rule is None or rule.keeper != ctx.sender:
        raise Refused("not_the_clock_keeper")
    if call.to <= ctx.now:
        raise Refused("clock_moves_forward", f"{call.to} is not after {ctx.now}")
    if call.to - ctx.now > rule.max_step_ms:
        raise Refused("step_too_long", f"at most {rule.max_step_ms} ms at once")
    ctx.put(CLOCK, "now", Number(call.to))
