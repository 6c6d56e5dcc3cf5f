"""``gridpool invoice``: what a member pays and receives, line by line."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gridpool.cli.output import emit, table

__all__ = ["invoice"]


def invoice(
    *,
    wallet: Path,
    start: Annotated[str | None, Parameter(name="--from")] = None,
    end: Annotated[str | None, Parameter(name="--to")] = None,
    home: Path | None = None,
    url: str | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show what a member pays and receives for energy and loans over all its wallets, line by line.

    Example: ``gridpool invoice --wallet ann.wallet --from 2026-06-21 --to 2026-06-22 --home out/home``

    Parameters
    ----------
    wallet
        Wallet file.
    start
        First interval; by default the ledger's first.
    end
        End (exclusive); by default none.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.meter import parse_time, time_text
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.agents.wallet_session import open_session
    from gridpool.contracts import credit, energy, members

    keys = load_wallet(wallet)
    low = 0 if start is None else parse_time(start)
    high = 2**63 if end is None else parse_time(end)
    addresses = [keys.certificate.public, *(keys.wallet(number).public for number in range(64))]
    lines: list[dict[str, object]] = []
    loans: list[dict[str, object]] = []
    with open_session(home, url, writable=False) as session:
        state = session.state
        addresses = [address for address in addresses if state.get(members.WALLETS, address) is not None]
        for address in addresses:
            lines += [
                {
                    "interval": time_text(line.interval),
                    "wallet": address.hex(),
                    "line": line.kind,
                    "counterparty": line.counterparty,
                    "energy_wh": line.energy_wh,
                    "amount": line.amount,
                    "status": line.status,
                }
                for line in energy.invoice_lines(state, address, low, high)
            ]
        for name, loan in state.scan(credit.LOANS):
            if loan.borrower in addresses and loan.status in ("open", "late", "repaid", "written_off"):
                extra = loan.interest if loan.status in ("open", "repaid") else loan.penalty
                if loan.status == "repaid":
                    extra = loan.paid - loan.amount
                loans.append(
                    {
                        "loan": name.hex(),
                        "status": loan.status,
                        "amount": loan.amount,
                        "interest_or_penalty": extra,
                        "paid": loan.paid,
                        "outstanding": credit.outstanding(loan),
                    }
                )
        owed = sum(entry.amount for a in addresses for _, entry in state.scan(energy.ARREARS, (a,)))
    lines.sort(key=lambda line: (str(line["interval"]), str(line["wallet"])))
    total = sum(int(str(line["amount"])) for line in lines)
    columns = ("interval", "line", "energy_wh", "amount", "status")
    body = table(columns, [[line[column] for column in columns] for line in lines])
    emit(
        {"lines": lines, "total": total, "owed": owed, "loans": loans},
        json=json,
        text=f"{body}\n\nto pay (negative: to receive) {total} micro-coins, of which {owed} are still owed",
    )
