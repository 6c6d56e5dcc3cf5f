"""``gridpool slice``: templates, arbitration, orders and whole life cycles of slices."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from gridpool.cli.output import emit, progress, table

__all__ = ["app"]

app = App(name="slice", help="Order slices, offer resources, follow contracts.")

Json = Annotated[bool, Parameter(negative="")]


@app.command
def templates(name: str | None = None, /, *, json: Json = False) -> None:
    """List the ready slice templates of the grid's sections, each figure with its public source.

    Example: ``gridpool slice templates load_control --json``

    Parameters
    ----------
    name
        Show this template alone.
    json
        Print one JSON object.
    """
    from gridpool.contracts.slices.templates import TEMPLATES, template
    from gridpool.errors import RefusedInput

    chosen = TEMPLATES if name is None else tuple(one for one in (template(name),) if one is not None)
    if not chosen:
        raise RefusedInput(f"no template {name!r}; choose one of {', '.join(one.name for one in TEMPLATES)}")
    rows = [(one.name, one.section, one.sst, f"{one.sd:06x}", one.attributes.latency) for one in chosen]
    text = table(("template", "section", "sst", "sd", "latency us"), rows)
    if name is not None:
        attributes: Any = chosen[0].as_dict()["attributes"]
        text += "\n\n" + table(("attribute", "value"), attributes.items()) + "\n\n" + "\n".join(chosen[0].sources)
    emit({"templates": [one.as_dict() for one in chosen]}, json=json, text=text)


@app.command(name="import-gst")
def import_gst(file: Path, /, *, json: Json = False) -> None:
    """Import a GSMA generic slice template (TMF633 characteristics) and say what mapped, what not, what was assumed.

    Example: ``gridpool slice import-gst template.json --json``

    Parameters
    ----------
    file
        JSON of a TMF633 service specification whose characteristics bear NG.116 names.
    json
        Print one JSON object.
    """
    from gridpool.contracts.slices.generic_template import import_template

    imported = import_template(_bounded(file), str(file))
    lines = [
        *(f"mapped    {one}" for one in imported.mapped),
        *(f"unmapped  {one}" for one in imported.unmapped),
        *(f"assumed   {one}" for one in imported.assumed),
    ]
    emit(imported.as_dict(), json=json, text="\n".join(lines))


@app.command
def arbitrate(
    request: Path,
    offers: Path,
    /,
    *,
    objective: Literal["cost", "delay", "bandwidth", "availability"] = "cost",
    payment: Literal["offer", "vcg"] = "offer",
    json: Json = False,
) -> None:
    """Choose one offer a segment exactly, as the ledger's contract does.

    ``candidates`` counts the offers read, ``pareto`` those that keep the limits beside the smallest figures of the
    other segments and that no other of their segment undercuts in cost, delay and risk. Where nothing is feasible,
    ``binding`` names a smallest set of constraints without which something is, and ``pareto`` counts without them; it
    is 0 where a segment has no offer (``missing``).

    Example: ``gridpool slice arbitrate request.json offers.csv --objective cost --payment vcg --json``

    Parameters
    ----------
    request
        JSON with segments, max_delay_us, min_bandwidth_kbps, max_risk_nano, reserve and optionally budget.
    offers
        CSV with the columns id,segment,party,cost,delay_us,bandwidth_kbps,risk_nano (integers).
    objective
        What is minimised first; bandwidth maximises the smallest bandwidth, availability minimises the risks' sum.
    payment
        Pay as offered, or by Vickrey, Clarke and Groves (objective cost only).
    json
        Print one JSON object.
    """
    import time

    from gridpool.errors import RefusedInput
    from gridpool.markets.slice_arbitration import OfferBook
    from gridpool.markets.slice_arbitration import arbitrate as decide
    from gridpool.markets.slice_arbitration_files import parse_offers, parse_request

    if payment == "vcg" and objective != "cost":
        raise RefusedInput(f"vcg exists for objective cost only, not {objective}; choose --payment offer")
    asked = parse_request(_bounded(request), str(request))
    with offers.open(encoding="utf-8", newline="") as lines:
        read = parse_offers(lines, asked, str(offers))
    book = OfferBook(asked.segments, read)
    if book.columns is not None:
        from gridpool.markets.slice_arbitration_kernels import warm_up

        warm_up()
    begun = time.perf_counter()
    answer = decide(asked, book, objective=objective, payment=payment)
    seconds = time.perf_counter() - begun
    result: dict[str, Any] = {
        "feasible": answer.feasible,
        "objective": answer.objective,
        "chosen": [{"segment": o.segment, "offer": o.id, "party": o.party, "cost": o.cost} for o in answer.chosen],
        "cost": answer.cost,
        "delay_us": answer.delay_us,
        "bandwidth_kbps": answer.bandwidth_kbps,
        "risk_nano": answer.risk_nano,
        "payments": answer.payments,
        "over_budget": answer.over_budget,
        "candidates": answer.candidates,
        "pareto": answer.pareto,
        "seconds": seconds,
    }
    if not answer.feasible:
        result |= {"binding": list(answer.binding), "missing": list(answer.missing)}
    emit(result, json=json)


@app.command
def order(
    directory: str,
    name: str,
    /,
    *,
    wallet: Path,
    template: str,
    devices: int,
    start: str,
    minutes: int,
    reserve: int,
    device_kbps: int | None = None,
    objective: Literal["cost", "delay", "bandwidth", "availability"] = "cost",
    payment: Literal["offer", "vcg"] = "offer",
    offers_minutes: int = 10,
    deposit: int = 0,
    number: int | None = None,
    json: Json = False,
) -> None:
    """Order a slice from a template on a ledger; its reserve goes into escrow.

    Example: ``gridpool slice order node robots --wallet tenant.wallet --template robot_inspection --devices 3
    --start 2026-06-21T12:00:00Z --minutes 60 --reserve 2000000``

    Parameters
    ----------
    directory
        A node's home, or the address of its HTTP face.
    name
        Name of the slice.
    wallet
        The tenant's wallet file; ``gridpool wallet new`` makes one.
    template
        A ready template; ``gridpool slice templates`` lists them.
    devices
        How many devices the slice serves.
    start
        Begin of service, RFC 3339.
    minutes
        Length of service.
    reserve
        Micro-coins to be spent at most.
    device_kbps
        What each device sends (default: from the template).
    objective
        What the arbitration minimises first.
    payment
        Pay as offered, or by VCG (objective cost only).
    offers_minutes
        How long offers are taken, from now on in market time.
    deposit
        Micro-coins that each offer deposits.
    number
        Which of the member's wallets orders; by default its public one.
    json
        Print one JSON object.
    """
    from datetime import datetime

    from gridpool.agents.slice_ledger import place_order, slice_session
    from gridpool.agents.slice_parties import template_request
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.errors import RefusedInput

    try:
        begin = datetime.fromisoformat(start)
    except ValueError:
        raise RefusedInput(f"--start {start!r} is no RFC 3339 time; write 2026-06-21T12:00:00Z") from None
    if begin.tzinfo is None:
        raise RefusedInput(f"--start {start!r} names no time zone; end it with Z for UTC")
    begin_ms = round(begin.timestamp() * 1000)
    with slice_session(directory) as session:
        now = session.now
    request = template_request(
        template,
        devices=devices,
        device_kbps=device_kbps,
        start_ms=begin_ms,
        end_ms=begin_ms + 60_000 * minutes,
        reserve=reserve,
        objective=objective,
        payment=payment,
        offers_until=now + 60_000 * offers_minutes,
        deposit=deposit,
    )
    emit(place_order(directory, load_wallet(wallet), name, request, number=number), json=json)


@app.command
def offers(directory: str, name: str | None = None, /, *, json: Json = False) -> None:
    """List the offers for slices on a running or stored ledger.

    Example: ``gridpool slice offers out/substation robots``

    Parameters
    ----------
    directory
        A node's home, a ledger's folder, or the address of a node's HTTP face.
    name
        List the offers for this slice alone.
    json
        Print one JSON object.
    """
    from gridpool.agents.slice_ledger import offer_rows, slice_session

    with slice_session(directory) as session:
        rows = offer_rows(session.state, name)
    header = ("slice", "generation", "segment", "offer", "cost", "delay_us", "bandwidth_kbps", "risk_nano", "status")
    emit({"offers": rows}, json=json, text=table(header, [[row[column] for column in header] for row in rows]))


@app.command
def show(directory: str, name: str | None = None, /, *, json: Json = False) -> None:
    """Show slices, their sub-slice contracts and their money on a running or stored ledger.

    Example: ``gridpool slice show out/substation --json``

    Parameters
    ----------
    directory
        A node's home, a ledger's folder, or the address of a node's HTTP face.
    name
        Show this slice alone.
    json
        Print one JSON object.
    """
    from gridpool.agents.slice_ledger import slice_rows, slice_session
    from gridpool.errors import RefusedInput

    with slice_session(directory) as session:
        rows = slice_rows(session.state, name)
    if name is not None and not rows:
        raise RefusedInput(f"{directory} knows no slice {name!r}; leave the name out to see all")
    header = ("slice", "generation", "segment", "state", "offer", "payment", "intervals", "violated", "penalties")
    lines = [{**row, **segment} for row in rows for segment in row["segments"]]
    emit({"slices": rows}, json=json, text=table(header, [[line[column] for column in header] for line in lines]))


@app.command
def statement(directory: str, /, *, member: str, json: Json = False) -> None:
    """Give a member's statement: orders, awards, use, penalties and payments, each line with its transaction.

    Example: ``gridpool slice statement out/substation --member utility``

    Parameters
    ----------
    directory
        A node's home, a ledger's folder, or the address of a node's HTTP face.
    member
        A wallet as 64 hex digits, or the name of an organisation.
    json
        Print one JSON object.
    """
    from gridpool.agents.slice_ledger import slice_session, statement_rows

    with slice_session(directory) as session:
        result = statement_rows(session.state, member)
    header = ("time", "kind", "slice", "generation", "segment", "interval", "amount", "tx")
    rows = [[line[column] if column != "tx" else line["tx"][:12] for column in header] for line in result["lines"]]
    emit(result, json=json, text=table(header, rows))


@app.command
def run(scenario: str, /, *, out: Path, json: Json = False) -> None:
    """Play whole life cycles: tenants order, parties offer, the contract chooses, networks serve and fail, money moves.

    Example: ``gridpool slice run substation --out out/substation``

    Parameters
    ----------
    scenario
        ``substation``, ``load_control``, ``metering``, ``line_inspection``, or a TOML file like them.
    out
        New folder that receives the ledger and ``results.json``; ``gridpool ledger verify`` checks it.
    json
        Print one JSON object.
    """
    import msgspec

    from gridpool.agents.slice_run import play
    from gridpool.agents.slice_scenario import read_scenario

    wanted = read_scenario(scenario)
    with progress(f"playing {wanted.title}", 100) as bar:
        shown = 0

        def tell(done: int, total: int) -> None:
            nonlocal shown
            bar(100 * done // total - shown)
            shown = 100 * done // total

        played = play(wanted, out, advance=tell)
    result: dict[str, Any] = msgspec.to_builtins(played)
    short = {name: value for name, value in result.items() if name not in ("story", "slices")}
    width = max(len(name) for name in short)
    lines = [f"{name.replace('_', ' '):<{width}}  {value}" for name, value in short.items()]
    emit(result, json=json, text="\n".join(lines) + f"\n\n{len(played.story)} steps in {out / 'results.json'}")


def _bounded(file: Path) -> bytes:
    from gridpool.errors import RefusedInput

    if file.stat().st_size > 16 << 20:
        raise RefusedInput(f"{file} is larger than 16 MiB; such a file is not")
    return file.read_bytes()
