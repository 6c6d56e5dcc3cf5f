"""``gridpool council``: found a consortium, propose, sign and list decisions, move market time."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from gridpool.cli.output import emit, table

__all__ = ["app"]

app = App(name="council", help="Propose, sign and list decisions of the council.")
propose = App(name="propose", help="Put a decision before the council.")
app.command(propose)

Json = Annotated[bool, Parameter(negative="")]
Home = Path | None
Url = str | None


@app.command
def found(
    home: Path,
    /,
    *,
    seat: Annotated[tuple[str, ...], Parameter(negative="")],
    threshold: int = 1,
    member: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    auditor: str | None = None,
    clock: str | None = None,
    start: str = "2026-06-21T00:00:00Z",
    chain: str = "gridpool",
    json: Json = False,
) -> None:
    """Found a consortium on this machine: its council, organisations, market and ledger.

    Example: ``gridpool council found out/home --seat a.wallet --member Hub:aggregator:hub.wallet --clock a.wallet``

    Parameters
    ----------
    home
        New folder for the ledger.
    seat
        A council key (a wallet file or 64 hexadecimal digits); may be given more than once.
    threshold
        How many seats a decision needs.
    member
        A founding organisation as NAME:ROLE:KEY (roles joined by +); may be given more than once.
    auditor
        Key to which pools seal the links from wallets to members.
    clock
        Key whose ticks move market time; without it market time is real time.
    start
        Market time of the beginning.
    chain
        Name of the chain.
    json
        Print one JSON object.
    """
    from gridpool.agents.meter import parse_time
    from gridpool.agents.wallet_founding import found_consortium, parse_founder, public_of
    from gridpool.ledger.genesis import genesis_hash

    genesis = found_consortium(
        home,
        chain=chain,
        seats=tuple(public_of(text) for text in seat),
        threshold=threshold,
        founders=tuple(parse_founder(text) for text in member),
        clock=None if clock is None else public_of(clock),
        start_ms=parse_time(start),
        auditor=None if auditor is None else public_of(auditor),
    )
    emit({"home": str(home), "chain": chain, "genesis": genesis_hash(genesis).hex()}, json=json)


@propose.command
def admit(
    applications: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)],
    /,
    *,
    wallet: Path,
    aggregator: str,
    role: str = "prosumer",
    valid_until: str | None = None,
    home: Home = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Propose to admit applicants and certify their keys.

    Example: ``gridpool council propose admit ann.json --aggregator 9f... --wallet seat.wallet --home out/home``

    Parameters
    ----------
    applications
        Applications (``gridpool wallet apply``).
    wallet
        Wallet file that holds a council key.
    aggregator
        Certificate key of the members' aggregator.
    role
        Role of the members; several joined by +.
    valid_until
        When the certificates end; by default they do not.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.meter import parse_time
    from gridpool.agents.wallet_text import parse_address, read_application
    from gridpool.contracts.members import FOREVER, Admit, NewMember, Role
    from gridpool.errors import RefusedInput

    known = {kind.value: kind for kind in Role}
    for name in role.split("+"):
        if name not in known:
            raise RefusedInput(f"no role {name!r}; the roles are {', '.join(known)}")
    roles = tuple(known[name] for name in role.split("+"))
    end = FOREVER if valid_until is None else parse_time(valid_until)
    hub = parse_address(aggregator)
    read = [read_application(path) for path in applications]
    entries = tuple(NewMember(a.key, "", roles, hub, valid_until=end, sealed=a.sealed_identity) for a in read)
    _propose(Admit(entries), wallet, home, url, json)


@propose.command
def mint(
    *,
    wallet: Path,
    to: Annotated[tuple[str, ...], Parameter(negative="")],
    amount: int,
    reason: str = "",
    home: Home = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Propose to mint coins.

    Example: ``gridpool council propose mint --to 3b6a... --amount 5000000 --wallet seat.wallet --home out/home``

    Parameters
    ----------
    wallet
        Wallet file that holds a council key.
    to
        Wallet that receives them; may be given more than once.
    amount
        Micro-coins for each wallet.
    reason
        What they are minted for.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.wallet_text import parse_address, parse_amount
    from gridpool.contracts.coins import Mint, Payment

    payments = tuple(Payment(parse_address(address), parse_amount(amount)) for address in to)
    _propose(Mint(payments, reason[:256]), wallet, home, url, json)


@propose.command
def ban(
    *,
    wallet: Path,
    member: str,
    until: str,
    why: str,
    auditor: Path,
    home: Home = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Propose to ban a member, publishing the openings of all its wallets.

    Example: ``gridpool council propose ban --member 5c... --until 2027-01-01 --why unpaid --auditor a.wallet ...``

    Parameters
    ----------
    wallet
        Wallet file that holds a council key.
    member
        Certificate key of the member.
    until
        When the ban ends.
    why
        Why; everybody can read it.
    auditor
        Wallet file of a reader of the links (auditor, regulator or the member's aggregator).
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.aggregator import openings
    from gridpool.agents.meter import parse_time
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.agents.wallet_session import open_session
    from gridpool.agents.wallet_text import parse_address
    from gridpool.contracts.members import BanMember

    key = parse_address(member)
    with open_session(home, url, writable=False) as session:
        opened = openings(session.state, load_wallet(auditor).certificate, key)
    _propose(BanMember(key, parse_time(until), "council", why[:256], opened), wallet, home, url, json)


@propose.command
def recover(*, wallet: Path, lost: str, home: Home = None, url: Url = None, json: Json = False) -> None:
    """Propose to replace a lost wallet by the one its aggregator has consented to.

    Example: ``gridpool council propose recover --lost 3b6a... --wallet seat.wallet --home out/home``

    Parameters
    ----------
    wallet
        Wallet file that holds a council key.
    lost
        Address of the lost wallet.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.wallet_text import parse_hash
    from gridpool.contracts.members import Recover

    _propose(Recover(parse_hash(lost, "wallet address")), wallet, home, url, json)


@propose.command(name="file")
def from_file(decision: Path, /, *, wallet: Path, home: Home = None, url: Url = None, json: Json = False) -> None:
    """Propose any decision, written as JSON: its tag, then its fields; bytes in base64.

    Example: ``gridpool council propose file decision.json --wallet seat.wallet --home out/home``

    Parameters
    ----------
    decision
        File such as ["members.set_council_rule", 2, 604800000].
    wallet
        Wallet file that holds a council key.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.wallet_text import read_text
    from gridpool.contracts import RULES
    from gridpool.contracts.members_council import read_decision

    assert RULES.version  # every contract's kinds of decision are known once the rules are
    _propose(read_decision(read_text(decision)), wallet, home, url, json)


@app.command
def sign(number: int, /, *, wallet: Path, home: Home = None, url: Url = None, json: Json = False) -> None:
    """Sign a proposal; with enough signatures it takes effect at once.

    Example: ``gridpool council sign 3 --wallet seat.wallet --home out/home``

    Parameters
    ----------
    number
        Number of the proposal (``gridpool council list``).
    wallet
        Wallet file that holds a council key.
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.agents.wallet_session import open_session
    from gridpool.contracts import members
    from gridpool.errors import RefusedInput

    keys = load_wallet(wallet)
    with open_session(home, url) as session:
        proposal = session.state.get(members.PROPOSALS, number) if 0 <= number < 2**63 else None
        if proposal is None:
            raise RefusedInput(f"no proposal {number}; see: gridpool council list")
        receipt = session.submit(keys.certificate, members.Approve(number, proposal.digest))
        after = session.state.get(members.PROPOSALS, number) or proposal
        emit({"tx": receipt.tx.hex(), **_described(session.state, number, after, session.now)}, json=json)


@app.command(name="list")
def list_proposals(*, home: Home = None, url: Url = None, json: Json = False) -> None:
    """List the council's seats and proposals, and what each would do.

    Example: ``gridpool council list --home out/home``

    Parameters
    ----------
    home
        Home of a node on this machine.
    url
        Address of a node's HTTP face.
    json
        Print one JSON object.
    """
    from gridpool.agents.wallet_session import open_session
    from gridpool.contracts import members

    with open_session(home, url, writable=False) as session:
        state, now = session.state, session.now
        rule = state.get(members.COUNCIL, "rule")
        seats = [
            {"key": key.hex(), "organisation": seat.organisation, "weight": seat.weight}
            for key, seat in state.scan(members.SEATS)
        ]
        proposals = [_described(state, number, held, now) for number, held in state.scan(members.PROPOSALS)]
    columns = ("proposal", "status", "weight", "threshold", "decision")
    emit(
        {"threshold": 0 if rule is None else rule.threshold, "seats": seats, "proposals": proposals},
        json=json,
        text=table(columns, [[row[column] for column in columns] for row in proposals]),
    )


@app.command
def advance(*, to: str, wallet: Path, home: Home = None, url: Url = None, json: Json = False) -> None:
    """Move market time forward, as the clock keeper of a ledger that runs by ticks; what falls due happens.

    Example: ``gridpool council advance --to 2026-06-21T10:15:00Z --wallet clock.wallet --home out/home``

    Parameters
    ----------
    to
        New market time.
    wallet
        Wallet file of the clock keeper.
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
    from gridpool.ledger.clock import KEEPER, AdvanceClock

    target = parse_time(to)
    key = load_wallet(wallet).certificate
    with open_session(home, url) as session:
        rule = session.state.get(KEEPER, "keeper")
        step = 86_400_000 if rule is None else rule.max_step_ms
        while True:
            session.submit(key, AdvanceClock(min(target, session.now + step)))
            if session.now >= target:
                break
        emit({"now": time_text(session.now), "now_ms": session.now}, json=json)


def _propose(decision: Any, wallet: Path, home: Path | None, url: str | None, json: bool) -> None:
    from gridpool.agents.wallet_keys import load_wallet
    from gridpool.agents.wallet_session import open_session
    from gridpool.contracts import members

    keys = load_wallet(wallet)
    with open_session(home, url) as session:
        receipt = session.submit(keys.certificate, members.propose(decision))
        number, held = next(session.state.scan(members.PROPOSALS, reverse=True, limit=1))
        emit({"tx": receipt.tx.hex(), **_described(session.state, number, held, session.now)}, json=json)


def _described(state: Any, number: int, proposal: Any, now: int) -> dict[str, Any]:
    import msgspec

    from gridpool.agents.meter import time_text
    from gridpool.contracts import RULES, members

    assert RULES.version  # every contract's kinds of decision are known once the rules are
    decision = members.decode_decision(proposal.data)
    weight = sum(seat.weight for key in proposal.approvals if (seat := state.get(members.SEATS, key)) is not None)
    rule = state.get(members.COUNCIL, "rule")
    expired = proposal.status == "open" and now >= proposal.expires
    return {
        "proposal": number,
        "status": "expired" if expired else proposal.status,
        "decision": decision.__struct_config__.tag,
        "content": msgspec.json.decode(msgspec.json.encode(decision)),
        "digest": proposal.digest.hex(),
        "signed_by": [key.hex() for key in proposal.approvals],
        "weight": weight,
        "threshold": 0 if rule is None else rule.threshold,
        "expires": time_text(proposal.expires),
    }
