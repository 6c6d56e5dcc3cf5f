"""``gridpool market``: clear an energy market from a file of orders."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from gridpool.cli.output import emit, progress, table

__all__ = ["app"]

app = App(name="market", help="Clear an energy market from a file of orders.")


@app.command
def clear(
    orders: Path,
    *,
    rule: Literal["uniform", "pay_as_bid", "mcafee", "trade_reduction", "vcg"] = "uniform",
    k_ppm: int = 500_000,
    tick: int = 1,
    rationing: Literal["arrival", "pro_rata"] = "arrival",
    coupling: Literal["none", "fee"] | None = None,
    fee: tuple[str, ...] = (),
    certificate: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Clear the orders of one market interval; amounts are exact to the micro-coin.

    Example: ``gridpool market clear orders.csv --rule uniform --json``

    Parameters
    ----------
    orders
        CSV with columns id, side (buy or sell), quantity_wh, price (micro-coins per kWh), owner, and area if wanted;
        earlier rows arrived earlier.
    rule
        How prices form: one price, each its own, or one of three truthful rules.
    k_ppm
        Where the uniform price lies in the clearing interval, 0 at the sellers' end, 1000000 at the buyers' end.
    tick
        Smallest price step; the uniform price is rounded down to it.
    rationing
        Who is served at the last price when not all can be: earlier orders first, or all in proportion.
    coupling
        Clear each area alone (none) or all together at grid fees (fee); left out, areas are ignored.
    fee
        Grid fee of two areas as A:B:MICRO_COINS_PER_KWH; repeat it for every pair that is joined.
    certificate
        Add the dual prices that prove welfare and volume, as an outside matcher hands them to the contract.
    json
        Print one JSON object.
    """
    from msgspec import to_builtins

    from gridpool.errors import RefusedInput
    from gridpool.markets.certificate import propose
    from gridpool.markets.coupling import clear_areas
    from gridpool.markets.double_auction import clear as clear_orders
    from gridpool.markets.order_file import read_orders

    fees = _fees(fee)
    if fees and coupling != "fee":
        raise RefusedInput("--fee has no meaning without --coupling fee")
    proof = None
    with progress("read, then clear", 2) as advance:
        book = read_orders(orders)
        advance()
        if certificate:
            proposal = propose(
                book, rule=rule, k_ppm=k_ppm, tick=tick, rationing=rationing, coupling=coupling, fees=fees
            )
            clearing, proof = proposal.clearing, proposal.certificate
        elif coupling is None:
            clearing = clear_orders(book, rule=rule, k_ppm=k_ppm, tick=tick, rationing=rationing)
        else:
            clearing = clear_areas(
                book, rule=rule, k_ppm=k_ppm, tick=tick, rationing=rationing, coupling=coupling, fees=fees
            )
        advance()
    trades: list[dict[str, object]] = [
        {"buy_id": t.buy_id, "sell_id": t.sell_id, "quantity_wh": t.quantity_wh, "price": t.price, "amount": t.amount}
        | ({} if coupling is None else {"fee": t.fee})
        for t in clearing.trades
    ]
    figures: dict[str, object] = {
        "volume_wh": clearing.volume_wh,
        "price": clearing.price,
        "buy_price": clearing.buy_price,
        "sell_price": clearing.sell_price,
        "surplus": clearing.surplus,
        "deficit": clearing.deficit,
    }
    if coupling is not None:
        figures |= {"fees": clearing.fees, "area_prices": clearing.area_prices}
    if proof is not None:
        figures["certificate"] = to_builtins(proof)
    emit(
        {**figures, "trades": trades, "payments": clearing.payments},
        json=json,
        text=None
        if json
        else "\n".join(
            [
                *(f"{key.replace('_', ' '):<12}{'-' if value is None else value}" for key, value in figures.items()),
                "",
                table(list(trades[0]) if trades else ("trades",), [list(trade.values()) for trade in trades]),
                "",
                table(("owner", "pays"), clearing.payments.items()),
            ]
        ),
    )


def _fees(texts: tuple[str, ...]) -> dict[tuple[str, str], int]:
    from gridpool.errors import RefusedInput

    fees: dict[tuple[str, str], int] = {}
    for text in texts:
        parts = text.split(":")
        if len(parts) != 3 or not parts[2].isdecimal() or len(parts[2]) > 18:
            raise RefusedInput(f"--fee is {text!r}; give AREA:AREA:MICRO_COINS_PER_KWH")
        pair = (min(parts[:2]), max(parts[:2]))
        if pair in fees:
            raise RefusedInput(f"--fee names the areas {pair[0]!r} and {pair[1]!r} twice")
        fees[pair] = int(parts[2])
    return fees
