"""``gridpool energy``: place and follow energy orders; issue tags and clear as others do."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from gridpool.cli.output import emit, table

__all__ = ["app"]

app = App(name="energy", help="Place and follow energy orders.")

Json = Annotated[bool, Parameter(negative="")]
Home = Path | None
Url = str | None


@app.command
def order(
    *,
    wallet: Path,
    side: Literal["buy", "sell"],
    quantity: int,
    price: int,
    interval: str,
    loan: str | None = None,
    attributes: str = "",
    number: int | None = None,
    home: Home = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Place an order for one market interval; it can be changed until gate closure.

    Example::

        gridpool energy order --wallet ann.wallet --side buy --quantity 800 --price 210000 \\
            --interval 2026-06-21T10:15:00Z --home out/home

    Parameters
    ----------
    wallet
        Wallet file.
    side
        Buy or sell.
    quantity
        Wh.
    price
        Highest price to pay or lowest to get, micro-coins per kWh.
    interval
        Start of the interval.
    loan
        Token that backs a purchase, instead of the wallet's coins.
    attributes
        What to say about the energy, as in solar.
    number
        Which of the member's wallets trades; by default its first.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.meter import parse_time
    from gridpool.agents.wallet_text import parse_amount, parse_hash
    from gridpool.contracts.energy import PlaceOrder

    start = parse_time(interval)
    token = b"" if loan is None else parse_hash(loan, "loan")
    call = PlaceOrder(start, side, parse_amount(quantity), parse_amount(price), attributes[:256], token)
    _act(wallet, number, home, url, json, call, start)


@app.command
def cancel(
    *,
    wallet: Path,
    interval: str,
    serial: int,
    number: int | None = None,
    home: Home = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Take an order back before gate closure.

    Example: ``gridpool energy cancel --wallet ann.wallet --interval 2026-06-21T10:15Z --serial 3 --home out/home``

    Parameters
    ----------
    wallet
        Wallet file.
    interval
        Start of the interval.
    serial
        The order's serial number.
    number
        Which of the member's wallets placed it.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.meter import parse_time
    from gridpool.agents.wallet_text import parse_amount
    from gridpool.contracts.energy import CancelOrder

    start = parse_time(interval)
    _act(wallet, number, home, url, json, CancelOrder(start, parse_amount(serial)), start)


@app.command
def replace(
    *,
    wallet: Path,
    interval: str,
    serial: int,
    quantity: int,
    price: int,
    number: int | None = None,
    home: Home = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Change an order's quantity and price before gate closure; it goes to the end of the queue.

    Example::

        gridpool energy replace --wallet ann.wallet --interval 2026-06-21T10:15:00Z --serial 3 \\
            --quantity 600 --price 190000 --home out/home

    Parameters
    ----------
    wallet
        Wallet file.
    interval
        Start of the interval.
    serial
        The order's serial number.
    quantity
        Wh.
    price
        Micro-coins per kWh.
    number
        Which of the member's wallets placed it.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.meter import parse_time
    from gridpool.agents.wallet_text import parse_amount
    from gridpool.contracts.energy import ReplaceOrder

    start = parse_time(interval)
    call = ReplaceOrder(start, parse_amount(serial), parse_amount(quantity), parse_amount(price))
    _act(wallet, number, home, url, json, call, start)


@app.command
def orders(
    *, interval: str | None = None, wallet: Path | None = None, home: Home = None, url: Url = None, json: Json = False
) -> None:
    """List the open orders of an interval, or of all of them.

    Example: ``gridpool energy orders --interval 2026-06-21T10:15:00Z --home out/home``

    Parameters
    ----------
    interval
        Start of the interval; by default all.
    wallet
        Show only the orders of this wallet file.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.meter import parse_time, time_text
    from gridpool.agents.wallet_session import open_session
    from gridpool.contracts import energy

    prefix: tuple[int, ...] = () if interval is None else (parse_time(interval),)
    with open_session(home, url, writable=False) as session:
        mine = _addresses(wallet)
        rows = [
            {
                "interval": time_text(start),
                "serial": held.serial,
                "side": held.side,
                "quantity_wh": held.quantity_wh,
                "price": held.price,
                "area": held.area,
                "wallet": held.wallet.hex(),
                "reserved": held.reserved,
                "loan": held.loan.hex() or None,
                "attributes": held.attributes,
            }
            for (start, _), book in session.state.scan(energy.BOOKS, prefix)
            for held in book.orders
            if mine is None or held.wallet in mine
        ]
    rows.sort(key=lambda row: (str(row["interval"]), row["serial"]))
    columns = ("interval", "serial", "side", "quantity_wh", "price", "wallet")
    emit({"orders": rows}, json=json, text=table(columns, [[row[c] for c in columns] for row in rows]))


@app.command
def trades(
    *, interval: str | None = None, wallet: Path | None = None, home: Home = None, url: Url = None, json: Json = False
) -> None:
    """List trades, and what settlement has made of them.

    Example: ``gridpool energy trades --wallet ann.wallet --home out/home``

    Parameters
    ----------
    interval
        Start of the interval; by default all.
    wallet
        Show only the trades of this wallet file.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.meter import parse_time, time_text
    from gridpool.agents.wallet_session import open_session
    from gridpool.contracts import energy

    prefix: tuple[int, ...] = () if interval is None else (parse_time(interval),)
    with open_session(home, url, writable=False) as session:
        mine = _addresses(wallet)
        rows = [
            {
                "interval": time_text(start),
                "trade": number,
                "buyer": held.buyer.hex(),
                "seller": held.seller.hex(),
                "quantity_wh": held.quantity_wh,
                "price": held.price,
                "amount": held.amount,
                "fee": held.fee,
                "delivered_wh": held.delivered_wh,
                "paid": held.paid,
                "status": held.status,
            }
            for (start, number), held in session.state.scan(energy.TRADES, prefix)
            if mine is None or held.buyer in mine or held.seller in mine
        ]
    columns = ("interval", "trade", "quantity_wh", "price", "amount", "delivered_wh", "paid", "status")
    emit({"trades": rows}, json=json, text=table(columns, [[row[c] for c in columns] for row in rows]))


@app.command
def tags(
    *,
    wallet: Path,
    interval: str,
    address: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    home: Home = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Issue the tags under which a pool's wallets trade in an interval, as their aggregator.

    Two wallets of one member get one tag and are linked by it, so by default each member gets one for one wallet.

    Example: ``gridpool energy tags --wallet hub.wallet --interval 2026-06-21T10:15:00Z --home out/home``

    Parameters
    ----------
    wallet
        Wallet file of the aggregator.
    interval
        Start of the interval.
    address
        Wallets that will trade; by default the first of each member.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.aggregator import issue_tags, links, one_each
    from gridpool.agents.meter import parse_time
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.agents.wallet_session import open_session
    from gridpool.agents.wallet_text import parse_address
    from gridpool.errors import RefusedInput

    keys = load_wallet(wallet)
    start = parse_time(interval)
    chosen = [parse_address(text) for text in address]
    with open_session(home, url) as session:
        pool = links(session.state, keys.certificate, aggregator=keys.certificate.public)
        if not pool:
            raise RefusedInput("this aggregator has no wallets; register some: gridpool wallet register")
        call = issue_tags(keys, pool, start, chosen or one_each(pool))
        receipt = session.submit(keys.certificate, call)
    emit({"tx": receipt.tx.hex(), "tags": len(call.tags)}, json=json)


@app.command
def countersign(
    *, wallet: Path, interval: str, number: int | None = None, home: Home = None, url: Url = None, json: Json = False
) -> None:
    """Agree to a settled interval so that it is paid at once (else silence for two intervals agrees).

    Example: ``gridpool energy countersign --wallet ann.wallet --interval 2026-06-21T10:15:00Z --home out/home``

    Parameters
    ----------
    wallet
        Wallet file.
    interval
        Start of the interval.
    number
        Which of the member's wallets.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.meter import parse_time
    from gridpool.contracts.energy import Countersign

    start = parse_time(interval)
    _act(wallet, number, home, url, json, Countersign(start), start)


def _act(wallet: Path, number: int | None, home: Home, url: Url, json: bool, call: Any, start: int) -> None:
    from gridpool.agents.meter import time_text
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.agents.wallet_session import open_session, signer_of
    from gridpool.contracts import coins, energy

    keys = load_wallet(wallet)
    with open_session(home, url) as session:
        key = signer_of(session, keys, number)
        receipt = session.submit(key, call)
        state = session.state
        placed = [
            held.serial
            for _, book in state.scan(energy.BOOKS, (start,))
            for held in book.orders
            if held.wallet == key.public
        ]
        free = coins.free(state, key.public)
    result: dict[str, Any] = {"tx": receipt.tx.hex(), "wallet": key.public.hex(), "interval": time_text(start)}
    if isinstance(call, energy.PlaceOrder | energy.ReplaceOrder):
        result["serial"] = max(placed)
    emit({**result, "open_orders": sorted(placed), "free_coins": free}, json=json)


def _addresses(wallet: Path | None) -> set[bytes] | None:
    from gridpool.agents.wallet_keys import load_wallet

    if wallet is None:
        return None
    keys = load_wallet(wallet)
    return {keys.certificate.public, *(keys.wallet(number).public for number in range(64))}
