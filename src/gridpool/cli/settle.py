"""``gridpool settle``: net obligations, match usage records, show who bears a default."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from gridpool.cli.output import emit, table
from gridpool.errors import RefusedInput

__all__ = ["app"]

app = App(name="settle", help="Match usage records and net obligations.")

Json = Annotated[bool, Parameter(negative="")]


@app.command
def net(
    obligations: Path,
    /,
    *,
    default: str | None = None,
    deposit: int = 0,
    fund: int = 0,
    json: Json = False,
) -> None:
    """Net a period's obligations into one position a member and at most n - 1 payments, exact to the unit.

    Example: ``gridpool settle net obligations.csv --default alfa --deposit 500 --fund 200``

    Parameters
    ----------
    obligations
        CSV with the columns debtor, creditor, amount.
    default
        Show who bears the default of this member: its deposit, the guarantee fund, the creditors pro rata.
    deposit
        Deposit of the member that defaults.
    fund
        What is in the guarantee fund.
    json
        Print one JSON object.
    """
    from gridpool.markets.netting import cover_default, net, read_obligations

    if default is None and (deposit or fund):
        raise RefusedInput("--deposit and --fund belong to --default")
    netting = net(read_obligations(obligations.read_bytes(), str(obligations)))
    result: dict[str, Any] = {
        "gross": netting.gross,
        "net": netting.net,
        "positions": netting.positions,
        "payments": [{"from": p.debtor, "to": p.creditor, "amount": p.amount} for p in netting.payments],
    }
    text = table(("from", "to", "amount"), [(p.debtor, p.creditor, p.amount) for p in netting.payments])
    text += f"\n\n{netting.net} moves instead of {netting.gross}"
    if default is not None:
        fall = cover_default(netting, default, deposit=deposit, fund=fund)
        result["waterfall"] = {
            "defaulter": fall.defaulter,
            "owed": fall.owed,
            "deposit": fall.deposit,
            "guarantee_fund": fall.fund,
            "pro_rata": [{"id": loss.member, "loss": loss.amount} for loss in fall.losses],
            "receives": fall.receives,
        }
        text += f"\n{default} owes {fall.owed}: deposit {fall.deposit}, guarantee fund {fall.fund}, "
        text += "pro rata " + (", ".join(f"{loss.member} {loss.amount}" for loss in fall.losses) or "0")
    emit(result, json=json, text=text)


@app.command
def match(
    home: Path,
    serving: Path,
    /,
    *,
    agreement: Path,
    final: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Match the usage records of a home and a serving operator, and rate what is final by their agreement.

    Example: ``gridpool settle match home.csv serving.csv --agreement agreement.toml``

    Parameters
    ----------
    home
        CSV of the home operator: id, service, start, quantity.
    serving
        CSV of the serving operator, with the same columns.
    agreement
        TOML file of the roaming agreement.
    final
        The deadline is over: what only the serving operator recorded counts too, what only the home operator did not.
    json
        Print one JSON object.
    """
    from gridpool.markets.usage_records import invoice, match, read_agreement, read_records

    terms = read_agreement(agreement.read_bytes(), str(agreement))
    found = match(read_records(home.read_bytes(), str(home)), read_records(serving.read_bytes(), str(serving)), terms)
    billed = list(found.matched)
    if final:
        billed += [one.serving for one in found.one_sided if one.serving is not None and terms.covers(one.serving)]
    lines = invoice(billed, terms)
    exceptions = [
        {
            "id": one.id,
            "reason": one.reason,
            "home": None if one.home is None else one.home.quantity,
            "serving": None if one.serving is None else one.serving.quantity,
        }
        for one in (*found.one_sided, *found.disputed)
    ]
    shown = [(line.line, line.records, line.quantity, line.amount) for line in lines]
    emit(
        {
            "matched": len(found.matched),
            "one_sided": len(found.one_sided),
            "disputed": len(found.disputed),
            "invoice": [
                {
                    "line": line.line,
                    "records": line.records,
                    "quantity": line.quantity,
                    "price": line.price,
                    "amount": line.amount,
                }
                for line in lines
            ],
            "currency": terms.currency,
            "decimals": terms.decimals,
            "from": terms.serving,
            "to": terms.home,
            "exceptions": exceptions,
        },
        json=json,
        text=table(("line", "records", "quantity", "amount"), shown)
        + f"\n\nmatched {len(found.matched)}, one-sided {len(found.one_sided)}, disputed {len(found.disputed)}",
    )


@app.command
def example(*, out: Path, records: int = 100, seed: int = 1, json: Json = False) -> None:
    """Write an agreement and two operators' records to try ``match`` with.

    Example: ``gridpool settle example --out roaming``

    Parameters
    ----------
    out
        New folder for agreement.toml, home.csv and serving.csv.
    records
        Number of uses; a few are missing or differ on one side.
    seed
        Seed of all random choices.
    json
        Print one JSON object.
    """
    import numpy as np

    from gridpool.agents.roaming_example import write_example

    if seed < 0:
        raise RefusedInput(f"a seed is not negative, {seed} is")
    emit(write_example(out, records, np.random.default_rng(seed)), json=json)
