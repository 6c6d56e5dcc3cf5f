"""``gridpool access``: whose a resource is, who may use it, and what nodes decided."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from gridpool.cli.output import emit, table

__all__ = ["app"]

app = App(name="access", help="Set, check and audit access rules.")

Json = Annotated[bool, Parameter(negative="")]


@app.command
def rule(
    resource: str,
    /,
    *,
    wallet: Path,
    who: str = "",
    action: str = "",
    start: str | None = None,
    end: str | None = None,
    place: str = "",
    per_minute: int = 0,
    deny: Annotated[bool, Parameter(negative="")] = False,
    remove: int | None = None,
    number: int | None = None,
    home: Path | None = None,
    url: str | None = None,
    json: Json = False,
) -> None:
    """Set a rule on a resource; the first makes the resource yours. The latest matching rule decides; else denied.

    Example: ``gridpool access rule feeder/7 --who role:sensor --action read --wallet dso.wallet --home out/home``

    Parameters
    ----------
    resource
        Name of the resource, 1 to 128 characters.
    wallet
        Wallet file of the organisation that owns it.
    who
        ``anyone``, ``role:NAME``, ``organisation:NAME`` or ``wallet:ADDRESS``.
    action
        What may be done; anything where left out.
    start
        From when (ISO 8601 market time); always where left out.
    end
        Until when (ISO 8601 market time), exclusive.
    place
        At nodes of which place; anywhere where left out.
    per_minute
        How often one wallet may ask in a minute; 0 without limit.
    deny
        Deny instead of allow.
    remove
        Take back the rule with this number instead.
    number
        Which of the member's wallets signs; by default its public one.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.access_ledger import parse_who, rule_row
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.agents.wallet_session import open_session, signer_of
    from gridpool.contracts.access import RESOURCES, RULES, RemoveRule, SetRule
    from gridpool.contracts.access_rules import Rule
    from gridpool.errors import RefusedInput

    if (remove is None) == (not who):
        raise RefusedInput("give either --who, to set a rule, or --remove NUMBER")
    if not 1 <= len(resource) <= 128 or "\0" in resource or len(action) > 256 or len(place) > 256:
        raise RefusedInput("the resource has 1 to 128 characters, action and place at most 256")
    if not 0 <= per_minute <= 256:
        raise RefusedInput("--per-minute is 0 to 256, so that an excess can be shown on the ledger")
    keys = load_wallet(wallet)
    first, last = _time(start, 0), _time(end, 2**62)
    with open_session(home, url) as session:
        key = signer_of(session, keys, number)
        if remove is not None:
            if not 0 <= remove < 2**62:
                raise RefusedInput(f"no rule {remove}")
            receipt = session.submit(key, RemoveRule(resource, remove))
            emit({"resource": resource, "removed": remove, "tx": receipt.tx.hex()}, json=json)
            return
        kind, name = parse_who(session.state, who)
        made = Rule(not deny, kind, name, action, first, last, place, per_minute)
        receipt = session.submit(key, SetRule(resource, made))
        held = session.state.get(RESOURCES, resource)
        stored = None if held is None else session.state.get(RULES, (resource, held.last))
    row = {} if stored is None else rule_row(stored)
    emit({"resource": resource, **row, "tx": receipt.tx.hex()}, json=json)


@app.command
def check(
    resource: str,
    /,
    *,
    wallet: str,
    action: str,
    place: str = "",
    at: str | None = None,
    home: Path | None = None,
    url: str | None = None,
    json: Json = False,
) -> None:
    """Say what the rules answer to a wallet, and which of them decides.

    Example: ``gridpool access check feeder/7 --wallet 3b6a... --action read --home out/home``

    Parameters
    ----------
    resource
        Name of the resource.
    wallet
        Address of the wallet that would ask (64 hexadecimal digits).
    action
        What it would do.
    place
        Place of the node that it would ask.
    at
        When (ISO 8601 market time); now where left out.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.access_ledger import check_access
    from gridpool.agents.wallet_session import open_session

    moment = None if at is None else _time(at, 0)
    with open_session(home, url, writable=False) as session:
        answer = check_access(session, resource, wallet, action, place=place, at=moment)
    emit(answer, json=json, text=f"{'allowed' if answer['allowed'] else 'denied'}: {answer['reason']}")


@app.command
def audit(
    resource: str | None = None,
    /,
    *,
    home: Path | None = None,
    url: str | None = None,
    node: str | None = None,
    batch: int = 0,
    decisions: Path | None = None,
    json: Json = False,
) -> None:
    """List rules, roots of decisions, and blocks; or check a node's log of decisions against its root (exit 3).

    Example: ``gridpool access audit feeder/7 --home out/home``

    Parameters
    ----------
    resource
        One resource; all where left out.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    node
        Wallet of the node whose log is to be checked.
    batch
        Number of its batch.
    decisions
        The node's log of that batch: one decision a line, in hexadecimal.
    json
        Print one JSON object.
    """
    from gridpool.agents import access_ledger
    from gridpool.agents.wallet_session import open_session
    from gridpool.agents.wallet_text import parse_hash, read_text
    from gridpool.errors import RefusedInput

    if (node is None) != (decisions is None):
        raise RefusedInput("to check a log, give both --node and --decisions")
    with open_session(home, url, writable=False) as session:
        if node is not None and decisions is not None:
            lines = read_text(decisions, most=64 << 20).split()
            try:
                entries = [bytes.fromhex(line) for line in lines]
            except ValueError as error:
                raise RefusedInput(f"{decisions} holds a line that is not hexadecimal: {error}") from None
            if not 0 <= batch < 2**62:
                raise RefusedInput(f"no batch {batch}")
            checked = access_ledger.verify_decisions(session.state, parse_hash(node, "wallet"), batch, entries)
            emit(checked, json=json)
            return
        found = access_ledger.audit(session.state, session.now, resource)
    columns = ("number", "allow", "who", "action", "place", "per_minute")
    text = "\n".join(
        f"{entry['resource']}\n{table(columns, [[row[column] for column in columns] for row in entry['rules']])}"
        for entry in found["resources"]
    )
    summary = f"{len(found['batches'])} batches of decisions, {len(found['blocks'])} blocks"
    emit(found, json=json, text=f"{text}\n{summary}" if text else summary)


def _time(text: str | None, default: int) -> int:
    """Read an ISO 8601 time as ms."""
    from gridpool.agents.meter import parse_time

    return default if text is None else parse_time(text)
