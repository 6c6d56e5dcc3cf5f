"""``gridpool spectrum``: load a register, inquire by place, lease, follow and auction bands."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from gridpool.cli.output import emit, note, table
from gridpool.errors import RefusedInput

if TYPE_CHECKING:
    from gridpool.ledger.transaction import Receipt

__all__ = ["app"]

app = App(name="spectrum", help="Load a register, inquire, lease and auction bands.")

Json = Annotated[bool, Parameter(negative="")]


@app.command
def load(register: Path, /, *, out: Path, json: Json = False) -> None:
    """Load a register into a new ledger: validated whole, or refused whole with nothing left behind.

    Example: ``gridpool spectrum load register.json --out out/register``

    Parameters
    ----------
    register
        A register file (``gridpool spectrum make`` writes one).
    out
        New folder for the ledger and the keys of members without a wallet of their own.
    json
        Print one JSON object.
    """
    from gridpool.agents.spectrum_home import load_register

    if register.is_file() and register.stat().st_size > 5_000_000:
        note("checking every limit of a large register; this takes about a minute for each 100,000 leases")
    loaded = load_register(register, out)
    emit({"height": loaded.height, "app_hash": loaded.app_hash.hex(), **loaded.counts, "ledger": str(out)}, json=json)


@app.command
def make(*, licences: int, leases: int, out: Path, seed: int = 1, json: Json = False) -> None:
    """Make a synthetic register around one place; the same seed makes the same file.

    Example: ``gridpool spectrum make --licences 200 --leases 1000 --seed 1 --out register.json``

    Parameters
    ----------
    licences
        Number of licences, each offered idle.
    leases
        Number of leases in force or to come.
    out
        File to write.
    seed
        Seed of all random choices.
    json
        Print one JSON object.
    """
    import msgspec
    import numpy as np

    from gridpool.agents.spectrum_synthetic import make_register

    if seed < 0:
        raise RefusedInput(f"a seed is not negative, {seed} is")
    register, extent = make_register(licences, leases, np.random.default_rng(seed), seed=seed)
    partial = out.with_name(out.name + ".partial")
    partial.write_bytes(msgspec.json.encode(register))
    partial.replace(out)
    emit(
        {
            "lat": list(extent.lat),
            "lon": list(extent.lon),
            "low_hz": extent.low_hz,
            "high_hz": extent.high_hz,
            "start": extent.start,
            "end": extent.end,
            "licences": len(register.licences),
            "leases": len(register.leases),
            "file": str(out),
        },
        json=json,
    )


@app.command
def inquire(
    directory: Path,
    /,
    *,
    lat: float,
    lon: float,
    low_hz: int,
    high_hz: int,
    bandwidth_hz: int,
    at: str,
    uncertainty_m: float = 0.0,
    height_m: float = 10.0,
    hours: float = 168.0,
    proof: Path | None = None,
    json: Json = False,
) -> None:
    """Ask which channels may be used at a place: their highest power, price, holder, and until when they are free.

    Example: ``gridpool spectrum inquire out/register --lat 52.0 --lon -1.5 --low-hz 3400000000 --high-hz 3500000000
    --bandwidth-hz 10000000 --at 2026-06-21T12:00:00Z``

    Parameters
    ----------
    directory
        Folder of a loaded register.
    lat
        Latitude in degrees.
    lon
        Longitude in degrees.
    low_hz
        Lower end of the range in Hz.
    high_hz
        Upper end of the range in Hz.
    bandwidth_hz
        Least width of a channel in Hz.
    at
        Time, RFC 3339 with an offset.
    uncertainty_m
        How far from the place one may be, in metres; it can only shrink the answer.
    height_m
        Height of the antenna in metres.
    hours
        How far ahead a channel's power must hold.
    proof
        File that receives everything the answer was read from, for a client to check.
    json
        Print one JSON object.
    """
    from gridpool.agents.spectrum_home import SpectrumHome
    from gridpool.agents.spectrum_inquiry import Question
    from gridpool.agents.spectrum_proof import digest_of, write_proof
    from gridpool.agents.spectrum_register_file import timestamp

    question = Question(
        _number(lat, "lat"),
        _number(lon, "lon"),
        _number(uncertainty_m, "uncertainty-m"),
        _number(height_m, "height-m"),
        low_hz,
        high_hz,
        bandwidth_hz,
        _time(at),
        round(_number(hours, "hours") * 3_600_000),
    )
    question.check()
    with SpectrumHome(directory, writable=False) as home:
        found = home.inquire(question)
        if proof is not None:
            write_proof(proof, home.ledger, question, found)
    channels = [
        {
            "low_hz": channel.low,
            "high_hz": channel.high,
            "max_eirp_mdbm_per_mhz": channel.max_eirp,
            "price": channel.price,
            "holder": channel.name,
            "until": timestamp(channel.until),
            "pricing": channel.pricing,
            "kind": channel.kind,
            "idle": channel.idle,
        }
        for channel in found.answer.channels
    ]
    refused = [{"low_hz": part.low, "high_hz": part.high, "reason": part.reason} for part in found.answer.refused]
    evidence = {
        "height": found.height,
        "app_hash": found.app_hash.hex(),
        "keys": len(found.read),
        "digest": digest_of(found.read).hex(),
    }
    shown = ("idle", "low_hz", "high_hz", "max_eirp_mdbm_per_mhz", "price", "holder", "until")
    rows = [[channel[name] for name in shown] for channel in channels]
    text = table(("idle", "low Hz", "high Hz", "mdBm/MHz", "price", "holder", "until"), rows)
    if refused:
        parts = [(part["low_hz"], part["high_hz"], part["reason"]) for part in refused]
        text += "\n\n" + table(("low Hz", "high Hz", "refused because"), parts)
    emit(
        {
            "height": found.height,
            "channels": channels,
            "refused": refused,
            "proof": evidence,
            "cells": found.answer.cells,
        },
        json=json,
        text=f"{text}\n\nread at height {found.height} from {len(found.read)} keys",
    )


@app.command
def check(proof: Path, /, *, trust: Path, json: Json = False) -> None:
    """Check an inquiry's proof: repeat the computation from what it proves, and compare; exit 3 where it differs.

    Example: ``gridpool spectrum check answer.proof --trust trust.json``

    Parameters
    ----------
    proof
        File that ``gridpool spectrum inquire --proof`` wrote.
    trust
        Trust file of the ledger (``gridpool ledger trust DIR --out FILE`` writes it).
    json
        Print one JSON object.
    """
    from gridpool.agents.spectrum_proof import check_proof

    emit(check_proof(proof, trust), json=json)


@app.command
def lease(
    directory: Path,
    /,
    *,
    as_: Annotated[str, Parameter(name="--as")],
    idle: int,
    lat: float,
    lon: float,
    eirp_mdbm: int,
    until: str,
    since: Annotated[str | None, Parameter(name="--from")] = None,
    low_hz: int | None = None,
    high_hz: int | None = None,
    height_m: float = 10.0,
    most_price: int | None = None,
    at: str | None = None,
    json: Json = False,
) -> None:
    """Lease an idle band, or a part of it, in the cell of a place; granted at once or refused with the reason.

    Example: ``gridpool spectrum lease out/register --as lessee-1 --idle 7 --lat 52.0 --lon -1.5 --eirp-mdbm 10000
    --from 2026-06-21T00:00:00Z --until 2026-06-28T00:00:00Z``

    Parameters
    ----------
    directory
        Folder of a loaded register.
    as_
        Member whose key is in DIR/keys.
    idle
        Number of the idle band, as ``inquire`` shows it.
    lat
        Latitude in degrees.
    lon
        Longitude in degrees.
    eirp_mdbm
        Power in mdBm per MHz, at most what ``inquire`` allows.
    until
        End of the lease.
    since
        Start of the lease (default: now).
    low_hz
        Lower end of the part (default: of the idle band).
    high_hz
        Upper end of the part (default: of the idle band).
    height_m
        Height of the antenna in metres.
    most_price
        Refuse where the price is higher.
    at
        Move market time there first.
    json
        Print one JSON object.
    """
    from gridpool.agents.spectrum_home import SpectrumHome
    from gridpool.agents.spectrum_register_file import timestamp

    with SpectrumHome(directory, writable=True) as home:
        now = _time(at) if at is not None else home.now()
        wish = home.wish(
            idle,
            _number(lat, "lat"),
            _number(lon, "lon"),
            _number(height_m, "height-m"),
            eirp_mdbm,
            _time(since) if since is not None else now,
            _time(until),
            low=low_hz,
            high=high_hz,
            most_price=most_price,
        )
        receipt = home.submit(as_, wish, at=now)
        number = home.last_number("lease")
        made = home.lease(number)
        emit(
            {
                "lease": number,
                "standing": made.standing,
                "low_hz": made.low,
                "high_hz": made.high,
                "start": timestamp(made.start),
                "end": timestamp(made.end),
                "eirp_mdbm_per_mhz": made.eirp,
                "charged": made.charged,
                **_sealed(receipt, home.ledger.height),
            },
            json=json,
        )


@app.command
def heartbeat(
    directory: Path,
    number: int,
    /,
    *,
    as_: Annotated[str, Parameter(name="--as")],
    at: str | None = None,
    json: Json = False,
) -> None:
    """Ask to go on transmitting; answered for at most 240 s, refused once suspended, recalled or unpaid.

    Example: ``gridpool spectrum heartbeat out/register 12 --as lessee-1``

    Parameters
    ----------
    directory
        Folder of a loaded register.
    number
        Number of the lease.
    as_
        The lessee.
    at
        Move market time there first.
    json
        Print one JSON object.
    """
    from gridpool.contracts.spectrum_leases import Heartbeat

    _act(directory, number, as_, Heartbeat(_natural(number)), at, json)


@app.command
def recall(
    directory: Path,
    number: int,
    /,
    *,
    as_: Annotated[str, Parameter(name="--as")],
    at: str | None = None,
    json: Json = False,
) -> None:
    """Take a lease back; it ends when the notice of its terms is over.

    Example: ``gridpool spectrum recall out/register 12 --as operator-3``

    Parameters
    ----------
    directory
        Folder of a loaded register.
    number
        Number of the lease.
    as_
        The holder of the band.
    at
        Move market time there first.
    json
        Print one JSON object.
    """
    from gridpool.contracts.spectrum_leases import RecallLease

    _act(directory, number, as_, RecallLease(_natural(number)), at, json)


@app.command
def relinquish(
    directory: Path,
    number: int,
    /,
    *,
    as_: Annotated[str, Parameter(name="--as")],
    at: str | None = None,
    json: Json = False,
) -> None:
    """Give a lease up before its end.

    Example: ``gridpool spectrum relinquish out/register 12 --as lessee-1``

    Parameters
    ----------
    directory
        Folder of a loaded register.
    number
        Number of the lease.
    as_
        The lessee.
    at
        Move market time there first.
    json
        Print one JSON object.
    """
    from gridpool.contracts.spectrum_leases import RelinquishLease

    _act(directory, number, as_, RelinquishLease(_natural(number)), at, json)


@app.command
def history(directory: Path, /, *, member: str | None = None, json: Json = False) -> None:
    """Show who used which band where, who is denied access and until when, and Jain's fairness index.

    Example: ``gridpool spectrum history out/register``

    Parameters
    ----------
    directory
        Folder of a loaded register.
    member
        Show this member alone.
    json
        Print one JSON object.
    """
    from gridpool.agents.spectrum_home import SpectrumHome

    with SpectrumHome(directory, writable=False) as home:
        shown = home.history(member)
    rows = [
        (u["member"], u["band_class"], u["cell"], u["used_ms"], u["grants"], u["denied_until"]) for u in shown["uses"]
    ]
    emit(
        shown,
        json=json,
        text=table(("member", "class", "cell", "used ms", "grants", "denied until"), rows)
        + f"\n\nJain index {shown['jain_ppm']} ppm over {shown['members']} members",
    )


@app.command
def incidents(directory: Path, /, *, json: Json = False) -> None:
    """List transmissions without a lease that sensors found, and the claims of those disturbed.

    Example: ``gridpool spectrum incidents out/register``

    Parameters
    ----------
    directory
        Folder of a loaded register.
    json
        Print one JSON object.
    """
    from gridpool.agents.spectrum_home import SpectrumHome

    with SpectrumHome(directory, writable=False) as home:
        shown = home.incidents()
    rows = [(i["incident"], i["cell"], i["low_hz"], i["start"], i["belief_ppm"], len(i["claims"])) for i in shown]
    emit(
        {"incidents": shown},
        json=json,
        text=table(("incident", "cell", "low Hz", "start", "belief ppm", "claims"), rows) if rows else "no incidents",
    )


@app.command
def auction(
    bids: Path,
    /,
    *,
    rule: Literal["second_price", "vcg", "clock", "greedy", "double"],
    json: Json = False,
) -> None:
    """Decide an auction of lots that bidders without a conflict may share.

    Example: ``gridpool spectrum auction bids.json --rule vcg``

    Parameters
    ----------
    bids
        JSON file with lots, bidders, conflicts, asks (one unit of a lot each) and reserve prices.
    rule
        How winners and payments are found.
    json
        Print one JSON object.
    """
    from gridpool.markets.spectrum_auction import read_auction, run_auction

    outcome = run_auction(read_auction(bids.read_bytes(), str(bids)), rule)
    winners: list[dict[str, Any]] = [
        {"bidder": win.bidder, "lots": list(win.lots), "price": win.price, "payment": win.payment}
        for win in outcome.winners
    ]
    result = {
        "winners": winners,
        "welfare": outcome.welfare,
        "payments": {str(bidder): amount for bidder, amount in outcome.payments.items()},
        "bound": outcome.bound,
        "exact": outcome.exact,
        "seconds": outcome.seconds,
    }
    if rule == "double":
        result["receipts"] = {str(ask): amount for ask, amount in outcome.receipts.items()}
    rows = [(w["bidder"], " ".join(map(str, w["lots"])), w["price"], w["payment"]) for w in winners]
    emit(
        result,
        json=json,
        text=table(("bidder", "lots", "price", "payment"), rows)
        + f"\n\nwelfare {outcome.welfare}, {'proven' if outcome.exact else f'at most {outcome.bound}'}",
    )


def _act(directory: Path, number: int, name: str, call: Any, at: str | None, json: bool) -> None:
    from gridpool.agents.spectrum_home import SpectrumHome
    from gridpool.agents.spectrum_register_file import timestamp

    with SpectrumHome(directory, writable=True) as home:
        receipt = home.submit(name, call, at=_time(at) if at is not None else None)
        now = home.lease(number)
        emit(
            {
                "lease": number,
                "standing": now.standing,
                "authorized_until": timestamp(now.authorized_until) if now.authorized_until else None,
                "recalled_at": timestamp(now.recalled_at) if now.recalled_at else None,
                "charged": now.charged,
                **_sealed(receipt, home.ledger.height),
            },
            json=json,
        )


def _sealed(receipt: "Receipt", height: int) -> dict[str, Any]:
    return {"transaction": receipt.tx.hex(), "height": height}


def _number(value: float, name: str) -> float:
    from math import isfinite

    if not isfinite(value):
        raise RefusedInput(f"--{name} {value} is not a number to work with")
    return value


def _natural(value: int) -> int:
    if not 0 <= value < 2**63:
        raise RefusedInput(f"{value} is not the number of a lease")
    return value


def _time(text: str) -> int:
    from gridpool.agents.spectrum_register_file import millis

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise RefusedInput(f"{text!r} is no time; write it as 2026-06-21T12:00:00Z") from None
    if moment.tzinfo is None:
        raise RefusedInput(f"{text!r} has no offset; write it as {text}Z for UTC")
    return millis(moment)
