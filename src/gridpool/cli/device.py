"""``gridpool device``: two devices exchange data or energy without a server, and settle later in one transaction."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from gridpool.cli.output import emit, note

__all__ = ["app"]

app = App(name="device", help="Exchange data or energy between two devices.")

Json = Annotated[bool, Parameter(negative="")]


@app.command
def init(
    folder: Path,
    /,
    *,
    wallet: Path | None = None,
    number: int | None = None,
    home: Path | None = None,
    url: str | None = None,
    deposit: int | None = None,
    payee: str | None = None,
    days: int = 30,
    json: Json = False,
) -> None:
    """Give a device all that it needs to go offline with: key, trust file, and its wallet's credential.

    Run it again on the same folder to renew the credential, or to open a deposit for a device that will be paid.

    Example: ``gridpool device init car --wallet ann.wallet --home out/home --deposit 500000 --payee 3b6a...``

    Parameters
    ----------
    folder
        The device's folder; made where there is none.
    wallet
        Wallet file of the member; needed the first time.
    number
        Which of the member's wallets the device carries; by default its public wallet or its first.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    deposit
        Micro-coins to set aside on the ledger for exchanges with ``payee``.
    payee
        Wallet of the device that the deposit is for (64 hexadecimal digits).
    days
        How long the deposit stays open.
    json
        Print one JSON object.
    """
    import msgspec

    from gridpool.agents.device_issuance import provision

    made = provision(
        folder, wallet, number, home=home, url=url, deposit=deposit, payee=payee, expires_ms=days * 86_400_000
    )
    emit({"folder": str(folder), **msgspec.to_builtins(made)}, json=json)


@app.command
def serve(
    folder: Path,
    files: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)],
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 7447,
    price: int = 0,
    unit_bytes: int = 65_536,
    count: int | None = None,
    max_age_s: int = 86_400,
    json: Json = False,
) -> None:
    """Offer files, unit by unit, to whoever proves itself; ends on interrupt, or after ``count`` connections.

    Example: ``gridpool device serve charger map.bin --port 7447 --price 50``

    Parameters
    ----------
    folder
        The device's folder, as ``device init`` makes it.
    files
        Files to offer under their names.
    host
        Address to listen on.
    port
        Port to listen on; 0 takes a free one, which is printed on standard error.
    price
        Micro-coins a unit; above 0 the peer needs a deposit for this device.
    unit_bytes
        Bytes of a unit: the most that either side can lose.
    count
        End after so many connections.
    max_age_s
        Oldest header, in seconds, by which a peer may prove itself.
    json
        Print one JSON object at the end.
    """
    import signal
    import socket

    from gridpool.agents.access_credential import Distrusted
    from gridpool.agents.device_folder import open_device
    from gridpool.agents.device_service import Service
    from gridpool.agents.device_units import FileUnits, Units
    from gridpool.errors import RefusedInput

    device = open_device(folder)
    if not 0 <= price < 2**46 or not 0 <= port < 65_536 or max_age_s < 1 or (count is not None and count < 1):
        raise RefusedInput("--price, --port, --max-age-s or --count is out of range")
    sources: dict[str, Units] = {}
    for path in files:
        if not path.is_file():
            raise RefusedInput(f"no file {path}")
        try:
            sources[path.name] = FileUnits(path, unit_bytes=unit_bytes, price=price)
        except Distrusted as error:
            raise RefusedInput(str(error)) from None
    with socket.create_server((host, port)) as listener:
        bound = listener.getsockname()[1]
        service = Service(device, sources, listener, max_age_ms=max_age_s * 1_000, report=note)
        for stopping in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stopping, lambda *_: service.stop())
        note(f"listening on {host}:{bound} as {device.key.public.hex()}")
        service.run(count)
    emit(
        {
            "wallet": device.key.public.hex(),
            "port": bound,
            "exchanges": len(service.exchanged),
            "units": sum(done.units for done in service.exchanged),
            "refused": service.refused,
            "cut": service.cut,
        },
        json=json,
    )


@app.command
def fetch(
    folder: Path,
    peer: str,
    /,
    *,
    out: Path,
    item: str = "",
    pay_most: int = 0,
    max_age_s: int = 86_400,
    json: Json = False,
) -> None:
    """Fetch a file from another device, signing a receipt for each unit; after a cut, run it again to go on.

    Exit 3 where the other device does not prove itself or sends what it did not offer.

    Example: ``gridpool device fetch car 127.0.0.1:7447 --item map.bin --out map.bin --pay-most 5000``

    Parameters
    ----------
    folder
        The device's folder, as ``device init`` makes it.
    peer
        HOST:PORT of the device that serves.
    out
        New file.
    item
        Name of the file; may be left out where one is offered.
    pay_most
        Most micro-coins that this fetch may cost; where it would cost more, nothing is fetched (exit 1).
    max_age_s
        Oldest header, in seconds, by which the peer may prove itself.
    json
        Print one JSON object.
    """
    import time

    from gridpool.agents.device_folder import open_device
    from gridpool.agents.device_service import fetch_file
    from gridpool.errors import RefusedInput

    host, _, port = peer.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise RefusedInput(f"{peer!r} is no HOST:PORT, as in 127.0.0.1:7447")
    device = open_device(folder)
    start = time.perf_counter()
    got = fetch_file(device, (host, int(port)), out, item=item, pay_most=pay_most, max_age_ms=max_age_s * 1_000)
    done = got.exchanged
    emit(
        {
            "out": str(out),
            "item": done.item,
            "peer": done.peer.hex(),
            "deposit": done.number,
            "units": done.units,
            "bytes": got.size,
            "sha256": got.sha256,
            "total_units": done.total_units,
            "total": done.total,
            "seconds": time.perf_counter() - start,
        },
        json=json,
    )


@app.command
def receipts(folder: Path, /, *, json: Json = False) -> None:
    """List the receipts that a device holds, and what each is worth.

    Example: ``gridpool device receipts car``

    Parameters
    ----------
    folder
        The device's folder.
    json
        Print one JSON object.
    """
    from gridpool.agents.device_folder import open_device
    from gridpool.cli.output import table

    device = open_device(folder)
    rows = [
        {
            "role": "payer" if held.receipt.payer == device.key.public else "payee",
            "payer": held.receipt.payer.hex(),
            "payee": held.receipt.payee.hex(),
            "deposit": held.receipt.number,
            "units": held.receipt.units,
            "total": held.receipt.total,
            "co_signed": held.co_signed is not None,
            "settled": held.settled,
        }
        for held in device.book.all()
    ]
    columns = ("role", "payer", "payee", "deposit", "units", "total", "co_signed", "settled")
    emit(
        {"wallet": device.key.public.hex(), "receipts": rows},
        json=json,
        text=table(columns, [[row[column] for column in columns] for row in rows]) if rows else "no receipts yet",
    )


@app.command
def settle(
    folder: Path,
    /,
    *,
    home: Path | None = None,
    url: str | None = None,
    pool: str = "",
    distinct: str = "",
    json: Json = False,
) -> None:
    """Settle each deposit by its highest co-signed receipt, in one transaction; days later is early enough.

    What a payee brings is paid at once. What a payer brings waits for the challenge time.

    Example: ``gridpool device settle charger --home out/home``

    Parameters
    ----------
    folder
        The device's folder.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    pool
        Reward pool to claim from, as payee.
    distinct
        The aggregator's word (128 hexadecimal digits) that both wallets are of two members, where it serves both.
    json
        Print one JSON object.
    """
    from gridpool.agents.device_issuance import settle_receipts

    settled = settle_receipts(folder, home=home, url=url, pool=pool, distinct=distinct)
    emit(
        {"settled": settled, "total": sum(row["total"] for row in settled if row["role"] == "payee")},
        json=json,
        text="\n".join(f"deposit {row['deposit']}: {row['total']} for {row['units']} units" for row in settled)
        or "nothing to settle",
    )
