"""The books of a day: read from the ledger, joined with the physical day, balanced to the coin and the watt-hour."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from gridpool.contracts import RULES, coins, credit
from gridpool.contracts.credit import LoanLate, LoanOpened, LoanRepaid
from gridpool.contracts.energy_clearing import TRADES
from gridpool.contracts.energy_market import INTERVALS
from gridpool.day.calendar import INTERVAL_MS
from gridpool.day.cast import Cast
from gridpool.day.physics import PhysicalDay
from gridpool.day.results import Account, DayResult, FeederView, Headline, Interval, SliceStep, SliceStory, Trade
from gridpool.day.slice_market import PRICE_PERCENT
from gridpool.day.slice_story import slice_stories
from gridpool.ledger.clock import AdvanceClock
from gridpool.ledger.state import State
from gridpool.ledger.transaction import TransactionDecoder
from gridpool.ledger.view import View

__all__ = ["day_result"]

MOST_NAMED = 3
"""The story names this many transactions of a step; ``slices`` in results.json has them all."""


def day_result(day: PhysicalDay, cast: Cast, view: View, *, verified: bool, report: str) -> DayResult:
    """Gather everything that a day leaves behind from its ledger and its physical side."""
    state = view.state
    transactions = sum(len(view.transactions(height)) for height in range(1, view.height + 1))
    credit_story = _credit_story(day, view)
    supply = state.get(coins.SUPPLY, "coins")
    minted, redeemed = (0, 0) if supply is None else (supply.minted, supply.redeemed)
    accounts = _accounts(cast, state)
    trades = _trades(day, state)
    served_w, full_w = sum(s.served_w for s in day.served), float(day.served_full_w.sum())
    demanded_w = float(day.demand_w.sum())
    headline = Headline(
        feeder=day.feeder.name,
        seed=day.scenario.seed,
        intervals=len(day.calendar),
        served_share=served_w / demanded_w if demanded_w else 1.0,
        score=min(1.0, served_w / full_w) if full_w else 1.0,
        energy_traded_wh=sum(trade.quantity_wh for trade in trades),
        trades=len(trades),
        loans=sum(credit_story.opened),
        loans_late=credit_story.late,
        transactions=transactions,
        height=view.height,
        app_hash=view.header(view.height).header.app_hash.hex(),
        verified=verified,
        coins_minted=minted,
        coins_redeemed=redeemed,
        coins_held=sum(account.coins for account in accounts),
        report=report,
    )
    slices = slice_stories(day, cast, view)
    return DayResult(
        headline=headline,
        date=day.scenario.date.isoformat(),
        intervals=_intervals(day, state, credit_story),
        trades=trades,
        accounts=accounts,
        feeder=_feeder_view(day),
        conservation=_conservation(state, headline),
        credit_values=tuple(record.value for _, record in state.scan(credit.RECORDS)),
        method=_method(day),
        assumptions=_assumptions(day),
        story=_story(day, credit_story, headline, slices),
        slices=slices,
    )


class _CreditStory(msgspec.Struct):
    """Loans opened, coins lent and loans ended in each interval, and how many were late."""

    opened: list[int]
    lent: list[int]
    ended: list[int]
    late: int = 0


def _credit_story(day: PhysicalDay, view: View) -> _CreditStory:
    count = len(day.calendar)
    story = _CreditStory([0] * count, [0] * count, [0] * count)
    decode = msgspec.msgpack.Decoder(RULES.event_union).decode
    transactions = TransactionDecoder(RULES)
    now = 0
    for height in range(1, view.height + 1):
        for wire in view.transactions(height):
            for call in transactions.decode(wire).body.calls:
                now = call.to if isinstance(call, AdvanceClock) else now
        k = min(count - 1, max(0, (now - day.calendar.starts_ms[0]) // INTERVAL_MS))
        for receipt in view.receipts(height):
            for event in map(decode, receipt.events):
                if isinstance(event, LoanOpened):
                    story.opened[k] += 1
                    story.lent[k] += event.amount
                elif isinstance(event, LoanRepaid):
                    story.ended[k] += 1
                elif isinstance(event, LoanLate):
                    story.late += 1
    return story


def _intervals(day: PhysicalDay, state: State, story: _CreditStory) -> tuple[Interval, ...]:
    rows = []
    loans_open = lent = 0
    for t, start in enumerate(day.calendar.starts_ms):
        held = state.get(INTERVALS, start)
        loans_open += story.opened[t] - story.ended[t]
        lent += story.lent[t]
        served = day.served[t]
        rows.append(
            Interval(
                interval=t,
                start=_rfc3339(start),
                demand_w=round(served.nominal_w, 3),
                served_w=round(served.served_w, 3),
                observed=len(day.links[t].observed),
                controlled=len(day.links[t].controlled),
                traded_wh=0 if held is None else held.volume_wh,
                price=None if held is None else held.price,
                served_full_w=round(float(day.served_full_w[t]), 3),
                imported_wh=0 if held is None else held.imported_wh,
                exported_wh=0 if held is None else held.exported_wh,
                loans_open=loans_open,
                coins_lent=lent,
                lowest_pu=round(min(v for values in served.voltages.values() for v in values), 6),
                event=day.event_of[t],
            )
        )
    return tuple(rows)


def _trades(day: PhysicalDay, state: State) -> tuple[Trade, ...]:
    first = day.calendar.starts_ms[0]
    return tuple(
        Trade(
            interval=(start - first) // INTERVAL_MS,
            buyer=trade.buyer.hex(),
            seller=trade.seller.hex(),
            quantity_wh=trade.quantity_wh,
            price=trade.price,
        )
        for (start, _), trade in state.scan(TRADES)
    )


def _accounts(cast: Cast, state: State) -> tuple[Account, ...]:
    roles = cast.roles
    rows = [
        Account(
            account=wallet.hex(),
            role=roles.get(wallet, "member"),
            coins=account.balance,
            reserved=account.reserved,
            credit_value=None if (record := state.get(credit.RECORDS, wallet)) is None else record.value,
        )
        for wallet, account in state.scan(coins.ACCOUNTS)
    ]
    order = list(dict.fromkeys((*roles.values(), "member")))
    rows.sort(key=lambda row: (order.index(row.role), row.account))
    escrows = [
        Account(account=held.label, role="escrow", coins=held.balance, reserved=0)
        for _, held in state.scan(coins.ESCROWS)
    ]
    return (*rows, *escrows)


def _conservation(state: State, headline: Headline) -> dict[str, int]:
    """Both sides of both balances: coins over accounts and escrows, energy over every metered interval."""
    intervals = [interval for _, interval in state.scan(INTERVALS)]
    imported, exported = (sum(getattr(i, name) for i in intervals) for name in ("imported_wh", "exported_wh"))
    supplied, absorbed = (sum(getattr(i, name) for i in intervals) for name in ("supplied_wh", "absorbed_wh"))
    return {
        "coins_minted_less_redeemed": headline.coins_minted - headline.coins_redeemed,
        "coins_in_accounts_and_escrows": headline.coins_held,
        "coins_unaccounted_for": headline.coins_minted - headline.coins_redeemed - headline.coins_held,
        "wh_metered_in_by_members": imported,
        "wh_metered_out_by_members": exported,
        "wh_bought_from_back_stop": supplied,
        "wh_sold_to_back_stop": absorbed,
        "wh_unaccounted_for": exported + supplied - imported - absorbed,
    }


def _feeder_view(day: PhysicalDay) -> FeederView:
    feeder, peak = day.feeder, day.served[day.peak_interval]
    lowest: dict[str, float] = {}
    for bus, values in peak.voltages.items():
        node = feeder.node_of_bus.get(bus, bus)
        lowest[node] = min(lowest.get(node, 9.0), *values)
    controllable = {link.node for link in day.instance.links if link.urllc}
    quiet = day.links[0]
    return FeederView(
        nodes=feeder.nodes,
        edges=feeder.edges,
        coordinates=dict(feeder.coordinates),
        observed=quiet.observed,
        controlled=quiet.controlled,
        devices=tuple(node for node in feeder.nodes if node in controllable),
        voltages={node: round(lowest[node], 4) for node in feeder.nodes if node in lowest},
        prosumers=dict(Counter(day.fleet.buses)),
    )


def _story(
    day: PhysicalDay, credit_story: _CreditStory, headline: Headline, slices: Sequence[SliceStory]
) -> tuple[tuple[str, str], ...]:
    quiet = day.links[0]
    begin = day.event_of.index("gNB sector down") if "gNB sector down" in day.event_of else None
    lines = [
        (
            "before the day",
            f"The council admitted its members and minted coins. The utility ordered {len(slices)} slices: "
            f"{len(quiet.observed)} of {len(day.feeder.nodes)} nodes are observed, {len(quiet.controlled)} controlled.",
        )
    ]
    lines += _slice_lines(slices, "order", "offers", "choice", "delivery")
    if begin is not None:
        down = day.links[begin]
        lost = day.served[begin - 1].served_share - day.served[begin].served_share if begin else 0.0
        lines.append(
            (
                f"{day.calendar.local[begin]:%H:%M}",
                f"A gNB sector fails: of the nodes, {len(down.observed)} stay observed and {len(down.controlled)} "
                f"controlled; the served share changes by {-lost:+.1%}. Meters behind dead links send their readings "
                "later.",
            )
        )
    lines += _slice_lines(slices, "violations", "money")
    lines += [
        (
            "over the day",
            f"{headline.trades:,} trades moved {headline.energy_traded_wh / 1000:,.1f} kWh between prosumers; "
            f"{headline.loans} loans were taken, {credit_story.late} of them paid back late or not yet.",
        ),
        (
            "a week later",
            "Late, missing and corrected readings have been settled in the initial, revised and final runs, and "
            f"members had {headline.coins_redeemed / 1e6:,.0f} coins paid out.",
        ),
    ]
    return tuple(lines)


def _slice_lines(slices: Sequence[SliceStory], *names: str) -> list[tuple[str, str]]:
    return [(f"{one.name}: {step.step}", _told(step)) for one in slices for step in one.steps if step.step in names]


def _told(step: SliceStep) -> str:
    """Return a step's sentence and the beginnings of the first transactions that made it."""
    if not step.transactions:
        return step.text
    named = ", ".join(tx[:12] for tx in step.transactions[:MOST_NAMED])
    more = f" and {len(step.transactions) - MOST_NAMED} more" if len(step.transactions) > MOST_NAMED else ""
    return f"{step.text} Transaction {named}{more}."


def _method(day: PhysicalDay) -> dict[str, str]:
    scenario, served = day.scenario, day.served[0]
    certified = {"nominal": "at the nominal demand", "worst_case": "at every worst-case demand"}[served.certified]
    return {
        "served power": f"LinDist3Flow linear programme, set points replayed in OpenDSS {certified}",
        "slices": f"{scenario.radio.method} allocation of {scenario.radio.resource_blocks} resource blocks in one cell",
        "slice contracts": f"arbitration by cost in the ledger's contract, judged every quarter hour, at most "
        f"{scenario.slices.reserve / 1e6:g} coins a slice and quarter hour, {scenario.slices.penalty:.0%} of the price "
        "back without service",
        "market": f"rule {scenario.market.rule}"
        if scenario.market.mode == "auction"
        else "prices posted by the aggregator",
        "demand": "BDEW standard load profiles H0 and G0, clear-sky PV",
        "ledger": "embedded engine, one block at gate closure and one ten minutes before each interval",
        "seed": str(scenario.seed),
        "place": f"{scenario.place.latitude:g} N, {scenario.place.longitude:g} E, {scenario.place.timezone}",
    }


def _assumptions(day: PhysicalDay) -> tuple[str, ...]:
    scenario, served = day.scenario, day.served[0]
    peak = "this day's" if scenario.grid.nominal_load == "day_peak" else "the year's"
    texts: Sequence[str] = (
        f"The feeder's published load is {peak} peak; buses from 150 kW follow the commercial profile.",
        f"Voltages stay within {served.lower_pu:g} and {served.upper_pu:g} per unit; an unobserved demand lies within "
        f"{scenario.grid.blind_error:.0%} of its value.",
        f"A PV inverter without a control link feeds in at most {scenario.grid.inverter_default:.0%} of its peak.",
        f"Operators' prices are drawn from {PRICE_PERCENT[0]} to {PRICE_PERCENT[1]}% of assumed usual ones. Only the "
        "operator whose cell covers the nodes offers radio; a slice that falls short is not ordered anew elsewhere.",
        "A simulated network carries the slices' traffic; while a sector is down, a slice's radio is available to the "
        "share of its nodes that are still connected, and both sides measure the same.",
        "Nodes with PV inverters ask for a control slice as the feeder's own devices do.",
        "What a prosumer uses is its demand times the served share of its bus; generation beyond a bus's demand is "
        "metered, but not fed back into the power flow.",
        f"Forecasts err by {scenario.forecast.error:.0%}; {scenario.meters.late:.0%} of the readings are late, "
        f"{scenario.meters.missing:.0%} missing, {scenario.meters.corrected:.0%} corrected.",
        "Meters without a working uplink send when it is back, or are read on site six hours after the day.",
        "All keys are derived from the seed, so that the same day gives the same ledger.",
    )
    return tuple(texts)


def _rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, tz=UTC).isoformat().replace("+00:00", "Z")
