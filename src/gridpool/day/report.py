"""The report of a day: one self-contained page for somebody who sees gridpool for the first time."""

from html import escape

from gridpool.day.charts import coins_chart, connectivity_chart, feeder_map, market_chart, power_chart
from gridpool.day.results import DayResult, SliceStory

__all__ = ["report_page"]

STYLE = """
:root { --ink: #1f2933; --soft: #52606d; --line: #e2e8f0; --teal: #0f766e; --paper: #ffffff; --back: #f8fafc; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 1.7rem; margin: 0 0 4px; } h2 { font-size: 1.15rem; margin: 0 0 4px; }
p { margin: 0 0 10px; } .soft { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 20px 0; }
.tile { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.25; color: var(--teal); }
.tile span { font-size: .85rem; color: var(--soft); }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 16px; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px;
  margin-bottom: 16px; min-width: 0; }
.grid section { margin-bottom: 0; }
svg { width: 100%; height: auto; display: block; margin: 0 auto; max-width: 760px; }
th { white-space: nowrap; }
.story th { width: 1%; }
@media (max-width: 600px) { .story th { white-space: normal; } }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
h3 { font-size: 1rem; margin: 14px 0 2px; } summary { cursor: pointer; margin-top: 8px; }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: .85em ui-monospace, monospace; overflow-wrap: anywhere; }
.ok { color: var(--teal); font-weight: 600; } .bad { color: #b91c1c; font-weight: 600; }
"""


def report_page(result: DayResult) -> str:
    """Return the report as one HTML page without outside references."""
    head = result.headline
    title = f"One day of {head.feeder}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(result.date)}, {head.intervals} quarter hours, seed {head.seed}. '
        "Sensors and actuators got 5G slices, prosumers traded energy, a bank lent coins, "
        "and a ledger kept the books.</p>",
        _tiles(result),
        '<div class="grid" style="margin-bottom:16px">',
        _section(
            "Served power",
            "What the feeder could serve within its voltage limits, given who was observed and controlled.",
            power_chart(result),
        ),
        _section(
            "Observation and control",
            "Nodes whose meters reach the operator, and devices it can steer. The shaded span is the scripted event.",
            connectivity_chart(result),
        ),
        _section(
            "The energy market",
            "Energy traded between prosumers in each quarter hour, and its price.",
            market_chart(result),
        ),
        _section("Coins and loans", "Prosumers short of coins borrow a token from the bank.", coins_chart(result)),
        "</div>",
        _section(
            "The feeder and its slices",
            "Each node with its lowest voltage (per unit) when demand was greatest.",
            feeder_map(result.feeder),
        ),
        _story(result),
        _slices(result),
        _accounts(result),
        _ledger(result),
        _method(result),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def _tiles(result: DayResult) -> str:
    head = result.headline
    verdict = '<b class="ok">verified</b>' if head.verified else '<b class="bad">not verified</b>'
    tiles = [
        (f"<b>{head.served_share:.2%}</b>", "of the demanded energy was served"),
        (f"<b>{head.score:.2%}</b>", "of what full connectivity would serve"),
        (f"<b>{head.energy_traded_wh / 1000:,.0f} kWh</b>", f"traded in {head.trades:,} trades"),
        (f"<b>{head.loans}</b>", f"loans, {head.loans_late} of them late"),
        (f"<b>{head.transactions:,}</b>", f"transactions in {head.height:,} blocks"),
        (verdict, "by replaying the ledger"),
    ]
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile">{big}<span>{small}</span></div>' for big, small in tiles)
        + "</div>"
    )


def _section(title: str, text: str, content: str) -> str:
    return f'<section><h2>{escape(title)}</h2><p class="soft">{escape(text)}</p>{content}</section>'


def _story(result: DayResult) -> str:
    if not result.story:
        return ""
    rows = "".join(f"<tr><th>{escape(title)}</th><td>{escape(text)}</td></tr>" for title, text in result.story)
    return _section("What happened", "The day in the order it was played.", f'<table class="story">{rows}</table>')


def _slices(result: DayResult) -> str:
    if not result.slices:
        return ""
    return _section(
        "The slices' contracts",
        "What operators offered, what the contract chose, which quarter hours fell short, and where the money went. "
        "What fell due bears the transaction that moved market time there.",
        "".join(map(_slice, result.slices)),
    )


def _slice(told: SliceStory) -> str:
    segments = list(dict.fromkeys(one.segment for one in told.offers))
    offers = "".join(
        f"<tr><td>{escape(one.segment)}</td><td>{escape(one.party)}</td>"
        f'<td class="ok">{"chosen" if one.chosen else ""}</td><td class="n">{one.cost / 1e6:,.2f}</td>'
        f'<td class="n">{one.delay_us / 1000:,g}</td>'
        f'<td class="n">{one.bandwidth_kbps:,}</td><td class="n"><code>{one.transaction[:12]}</code></td></tr>'
        for one in sorted(told.offers, key=lambda one: segments.index(one.segment))
    )
    violations = "".join(
        f"<tr><td>{escape(one.start)}</td><td>{escape(one.segment)}</td>"
        f'<td class="n">{one.availability_ppm / 10_000:.4g}%</td><td class="n">{one.paid / 1e6:,.4f}</td>'
        f'<td class="n">{one.penalty / 1e6:,.4f}</td><td class="n"><code>{one.transaction[:12]}</code></td></tr>'
        for one in told.violations
    )
    money = " ".join(
        f"{amount / 1e6:,.2f} {name}{end}"
        for amount, name, end in (
            (told.escrowed, "coins in escrow", ":"),
            (told.paid, "paid", ","),
            (told.penalties, "in penalties", ","),
            (told.refunded, "returned", ","),
            (told.escrow_left, "left", "."),
        )
    )
    head = f"<h3>{escape(told.name)} ({escape(told.kind)}, {escape(told.phase)})</h3><p>{escape(money)}</p>"
    if not told.offers:
        return head
    judged = f"of {told.judged} judged quarter hours of its segments"
    return (
        head + '<div class="scroll"><table><tr><th>segment</th><th>offered by</th><th></th><th class="n">coins</th>'
        '<th class="n">delay, ms</th><th class="n">kbit/s</th><th class="n">transaction</th></tr>'
        f"{offers}</table></div>"
        + (
            f"<details><summary>{told.violated} {judged} were violated</summary>"
            '<div class="scroll"><table><tr><th>start</th><th>segment</th><th class="n">available</th>'
            '<th class="n">paid</th><th class="n">penalty</th><th class="n">transaction</th></tr>'
            f"{violations}</table></div></details>"
            if violations
            else f"<p>None {judged} was violated.</p>"
        )
    )


def _accounts(result: DayResult) -> str:
    roles: dict[str, list[int]] = {}
    for account in result.accounts:
        roles.setdefault(account.role, []).append(account.coins)
    rows = "".join(
        f'<tr><td>{escape(role)}</td><td class="n">{len(coins)}</td><td class="n">{sum(coins) / 1e6:,.6f}</td></tr>'
        for role, coins in roles.items()
    )
    held = result.headline
    balance = "".join(
        f'<tr><td>{escape(name.replace("_", " "))}</td><td class="n">{value:,}</td></tr>'
        for name, value in result.conservation.items()
    )
    values = sorted(result.credit_values)
    credit = (
        f"Credit values at the end, in coins: lowest {values[0] / 1e6:.2f}, "
        f"middle {values[len(values) // 2] / 1e6:.2f}, "
        f"highest {values[-1] / 1e6:.2f}."
        if values
        else ""
    )
    return _section(
        "Every coin and watt-hour",
        f"{held.coins_minted / 1e6:,.2f} coins were minted, {held.coins_redeemed / 1e6:,.2f} redeemed, "
        f"{held.coins_held / 1e6:,.2f} are held. {credit}",
        '<div class="grid"><div class="scroll"><table><tr><th>role</th><th>accounts</th><th>coins</th></tr>'
        f'{rows}</table></div><div class="scroll"><table><tr><th>balance</th><th></th></tr>{balance}</table></div>'
        "</div>",
    )


def _ledger(result: DayResult) -> str:
    head = result.headline
    verdict = (
        '<span class="ok">Replaying every block gave the same state and the same hashes.</span>'
        if head.verified
        else '<span class="bad">Replaying the ledger did not reproduce its hashes.</span>'
    )
    return _section(
        "The ledger",
        "Whoever holds a copy can check it.",
        f"<p>{verdict}</p><p>Height {head.height:,}, {head.transactions:,} transactions, application hash "
        f"<code>{head.app_hash}</code>.</p><p>Check it yourself: <code>gridpool ledger verify DIR</code> "
        "with the folder that holds this report.</p>",
    )


def _method(result: DayResult) -> str:
    rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in result.method.items())
    listed = "".join(f"<li>{escape(text)}</li>" for text in result.assumptions)
    return _section(
        "Method, seed and assumptions",
        "Same arguments, same bytes: every value is rounded to integers before it is signed.",
        f'<div class="scroll"><table>{rows}</table></div><ul>{listed}</ul>',
    )
