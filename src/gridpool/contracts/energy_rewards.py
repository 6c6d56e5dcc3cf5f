"""Proof of flow: once a period the seller that contributed most metered energy to each aggregator is rewarded.

Li et al. 2018, section II-B. The reward is paid by the market's account, as far as its coins go; nothing is minted.
"""

from gridpool.contracts import coins
from gridpool.contracts.energy_intervals import MARKETS, EnergyParameters, RewardPeriodEnds, energy, latest_market
from gridpool.ledger.contract import Context
from gridpool.ledger.types import Coins, Event, Millis, Value, Wallet, WattHours

__all__ = ["CONTRIBUTIONS", "Contribution", "Rewarded", "contribute"]


class Contribution(Value):
    """Energy that a seller has delivered to its buyers, as metered."""

    delivered_wh: WattHours


@energy.event
class Rewarded(Event, tag="energy.rewarded"):
    """A seller got the proof-of-flow reward of a period."""

    period: Millis
    aggregator: Wallet
    wallet: Wallet
    delivered_wh: WattHours
    amount: Coins


CONTRIBUTIONS = energy.table("contribution", key=(int, bytes, bytes), value=Contribution)
"""(period, aggregator, wallet) -> contribution; removed when the reward is paid."""


def contribute(
    ctx: Context, market: EnergyParameters, start: int, aggregator: bytes, wallet: bytes, delivered_wh: int
) -> None:
    """Count energy that was delivered (or, after a correction, was not) towards the period's reward."""
    period = start - start % market.reward_period_ms
    over = period + market.reward_period_ms + market.initial_ms + market.consent_intervals * market.interval_ms
    if not delivered_wh or not market.reward or ctx.now > over:
        return
    known = ctx.get(CONTRIBUTIONS, (period, aggregator, wallet))
    total = delivered_wh + (known.delivered_wh if known else 0)
    ctx.put(CONTRIBUTIONS, (period, aggregator, wallet), Contribution(max(0, total)))


@energy.due(RewardPeriodEnds)
def reward(ctx: Context, due: RewardPeriodEnds) -> None:
    """Pay the largest contributor of each aggregator; among equals the smaller address."""
    market = ctx.require(MARKETS, latest_market(ctx), "no_market")
    best: dict[bytes, tuple[int, bytes]] = {}
    for (period, aggregator, wallet), contribution in list(ctx.scan(CONTRIBUTIONS, (due.period,))):
        ctx.delete(CONTRIBUTIONS, (period, aggregator, wallet))
        if aggregator not in best or contribution.delivered_wh > best[aggregator][0]:
            best[aggregator] = (contribution.delivered_wh, wallet)
    for aggregator, (delivered_wh, wallet) in best.items():
        amount = min(market.reward, coins.free(ctx, market.market))
        if delivered_wh and amount:
            coins.move(ctx, market.market, wallet, amount)
            ctx.emit(Rewarded(due.period, aggregator, wallet, delivered_wh, amount))
