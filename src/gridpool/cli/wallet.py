"""``gridpool wallet``: make keys, look at accounts, send coins, keep a backup, join a pool."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from gridpool.cli.output import emit, note, table

__all__ = ["app"]

app = App(name="wallet", help="Make keys, look at accounts, send coins.")

Json = Annotated[bool, Parameter(negative="")]


@app.command
def new(file: Path, /, *, wallets: int = 1, json: Json = False) -> None:
    """Make a member's keys: one seed, from which certificate key and all wallets derive.

    Example: ``gridpool wallet new ann.wallet``

    Parameters
    ----------
    file
        New file for the seed; only you can read it. Make a backup next.
    wallets
        How many wallet addresses to show.
    json
        Print one JSON object.
    """
    from gridpool.agents.wallet_keys import WalletKeys, save_wallet

    keys = WalletKeys.generate()
    addresses = [keys.wallet(number).public.hex() for number in range(wallets)]
    save_wallet(file, keys)
    if not json:
        note(f"write the seed down: gridpool wallet backup {file}")
    emit({"file": str(file), "certificate": keys.certificate.public.hex(), "wallets": addresses}, json=json)


@app.command
def show(
    file: Path,
    /,
    *,
    home: Path | None = None,
    url: str | None = None,
    wallets: int = 8,
    json: Json = False,
) -> None:
    """Show a member's keys; with a ledger also coins, credit, and what is owed.

    Example: ``gridpool wallet show ann.wallet --home out/home``

    Parameters
    ----------
    file
        Wallet file.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    wallets
        How many wallet numbers to look at.
    json
        Print one JSON object.
    """
    from gridpool.agents.wallet_keys import load_wallet

    keys = load_wallet(file)
    named = [(None, keys.certificate.public), *((n, keys.wallet(n).public) for n in range(wallets))]
    if home is None and url is None:
        plain = [{"number": n, "address": address.hex()} for n, address in named]
        emit(
            {"certificate": keys.certificate.public.hex(), "wallets": plain[1:]},
            json=json,
            text=table(("number", "address"), [(row["number"], row["address"]) for row in plain]),
        )
        return
    from gridpool.agents.wallet_session import open_session
    from gridpool.contracts import coins, credit, energy, members

    with open_session(home, url, writable=False) as session:
        rows = []
        state = session.state
        for n, address in named:
            record = state.get(members.WALLETS, address)
            if record is None:
                continue
            account = state.get(coins.ACCOUNTS, address) or coins.Account(0)
            known = state.get(credit.RECORDS, address)
            rows.append(
                {
                    "number": n,
                    "address": address.hex(),
                    "roles": [role.value for role in record.roles],
                    "coins": account.balance,
                    "reserved": account.reserved,
                    "credit_value": None if known is None else known.value,
                    "owed": sum(owed.amount for _, owed in state.scan(energy.ARREARS, (address,))),
                    "banned": state.get(members.BANNED, address) is not None,
                    "successor": record.successor.hex() or None,
                }
            )
        certified = state.get(members.MEMBERS, keys.certificate.public) is not None
    columns = ("number", "address", "coins", "reserved", "credit_value", "owed")
    emit(
        {"certificate": keys.certificate.public.hex(), "certified": certified, "wallets": rows},
        json=json,
        text=table(columns, [[row[column] for column in columns] for row in rows])
        if rows
        else "no wallet of this file is registered on this ledger yet",
    )


@app.command
def send(
    file: Path,
    /,
    *,
    to: str,
    amount: int,
    reference: str = "",
    number: int | None = None,
    home: Path | None = None,
    url: str | None = None,
    json: Json = False,
) -> None:
    """Send coins to another wallet.

    Example: ``gridpool wallet send ann.wallet --to 3b6a... --amount 250000 --home out/home``

    Parameters
    ----------
    file
        Wallet file of the sender.
    to
        Address of the receiver (64 hexadecimal digits).
    amount
        Micro-coins.
    reference
        What it is for; everybody can read it.
    number
        Which of the sender's wallets pays; by default its first.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.agents.wallet_session import open_session, signer_of
    from gridpool.agents.wallet_text import parse_address, parse_amount
    from gridpool.contracts import coins

    target = parse_address(to)
    call = coins.Transfer(target, parse_amount(amount), reference[:256])
    keys = load_wallet(file)
    with open_session(home, url) as session:
        key = signer_of(session, keys, number)
        receipt = session.submit(key, call)
        left = coins.balance(session.state, key.public)
    emit({"tx": receipt.tx.hex(), "from": key.public.hex(), "to": to, "amount": amount, "left": left}, json=json)


@app.command
def backup(file: Path, /, *, json: Json = False) -> None:
    """Print the seed as seven rows to write on paper; whoever has them has everything.

    Example: ``gridpool wallet backup ann.wallet``

    Parameters
    ----------
    file
        Wallet file.
    json
        Print one JSON object.
    """
    from gridpool.agents.wallet_keys import load_wallet, write_backup

    rows = write_backup(load_wallet(file).seed)
    emit({"rows": rows}, json=json, text="\n".join(rows))


@app.command
def restore(file: Path, /, *, rows: Path, json: Json = False) -> None:
    """Make a wallet file again from a written backup; a row that was not copied right is named.

    Example: ``gridpool wallet restore ann.wallet --rows paper.txt``

    Parameters
    ----------
    file
        New wallet file.
    rows
        Text file with the rows of the backup ("-" reads standard input).
    json
        Print one JSON object.
    """
    import sys

    from gridpool.agents.wallet_keys import WalletKeys, read_backup, save_wallet
    from gridpool.agents.wallet_text import read_text

    keys = WalletKeys(read_backup(sys.stdin.read(10_000) if str(rows) == "-" else read_text(rows, most=10_000)))
    save_wallet(file, keys)
    emit({"file": str(file), "certificate": keys.certificate.public.hex()}, json=json)


@app.command(name="apply")
def apply_(
    file: Path,
    /,
    *,
    identity: str,
    aggregator: str,
    out: Path,
    first: int = 0,
    count: int = 1,
    home: Path | None = None,
    url: str | None = None,
    json: Json = False,
) -> None:
    """Write the application that a new member hands to its aggregator and the council.

    Example: ``gridpool wallet apply ann.wallet --identity "Ann" --aggregator 9f... --out ann.json --home out/home``

    Parameters
    ----------
    file
        Wallet file of the new member.
    identity
        True identity; sealed to auditor, regulator and aggregator.
    aggregator
        Certificate key of the aggregator (64 hexadecimal digits).
    out
        New file for the application.
    first
        Number of the first wallet to register.
    count
        How many wallets to register.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.aggregator import apply_for, member_parameters
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.agents.wallet_session import open_session
    from gridpool.agents.wallet_text import parse_address, write_application

    keys = load_wallet(file)
    hub = parse_address(aggregator)
    with open_session(home, url, writable=False) as session:
        parameters = member_parameters(session.state)
    application = apply_for(keys, identity, hub, parameters, first=first, count=count)
    write_application(out, application)
    emit({"file": str(out), "certificate": application.key.hex(), "wallets": len(application.wallets)}, json=json)


@app.command
def register(
    applications: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)],
    /,
    *,
    wallet: Path,
    kind: Literal["load", "generator", "battery", "vehicle", "charger"] = "battery",
    area: str = "",
    import_wh: int = 10_000,
    export_wh: int = 10_000,
    home: Path | None = None,
    url: str | None = None,
    json: Json = False,
) -> None:
    """Register the wallets and meters of admitted members, as their aggregator.

    Example: ``gridpool wallet register ann.json bob.json --wallet hub.wallet --home out/home``

    Parameters
    ----------
    applications
        Applications; several at once, so that their order tells nothing.
    wallet
        Wallet file of the aggregator.
    kind
        What stands behind the meters.
    area
        Grid area.
    import_wh
        Most Wh that a meter can import in an interval.
    export_wh
        Most Wh that a meter can export in an interval.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.aggregator import register_wallets
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.agents.wallet_session import open_session
    from gridpool.agents.wallet_text import parse_amount, read_application
    from gridpool.contracts import energy
    from gridpool.contracts.members import FOREVER

    keys = load_wallet(wallet)
    read = [read_application(path) for path in applications]
    parse_amount(import_wh), parse_amount(export_wh)
    meters = sorted(entry.wallet for application in read for entry in application.wallets)
    with open_session(home, url) as session:
        for call in register_wallets(read, valid_until=FOREVER):
            session.submit(keys.certificate, call)
        entries = tuple(energy.NewMeter(address, kind, area, import_wh, export_wh) for address in meters)
        for at in range(0, len(entries), 500):
            session.submit(keys.certificate, energy.RegisterMeters(entries[at : at + 500]))
    emit({"wallets": len(meters), "kind": kind}, json=json)


@app.command
def consent(
    file: Path,
    /,
    *,
    lost: str,
    wallet: Path,
    number: int = 0,
    home: Path | None = None,
    url: str | None = None,
    json: Json = False,
) -> None:
    """Vouch, as aggregator, that a lost wallet's owner asks for a new one; the council decides (propose recover).

    Example: ``gridpool wallet consent bob-new.wallet --lost 3b6a... --wallet hub.wallet --home out/home``

    Parameters
    ----------
    file
        The owner's new wallet file; it stays under the member's old certificate.
    lost
        Address of the lost wallet.
    wallet
        Wallet file of the aggregator.
    number
        Which wallet of the new file takes its place.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.aggregator import consent_to
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.agents.wallet_session import open_session
    from gridpool.agents.wallet_text import parse_address

    keys, hub = load_wallet(file), load_wallet(wallet).certificate
    gone = parse_address(lost)
    with open_session(home, url) as session:
        receipt = session.submit(hub, consent_to(session.state, hub, gone, keys, number))
    emit({"tx": receipt.tx.hex(), "lost": lost, "wallet": keys.wallet(number).public.hex()}, json=json)
