"""Founding a small consortium on one machine: genesis with its council, organisations and energy market."""

from pathlib import Path

from gridpool.agents.wallet_keys import load_wallet
from gridpool.agents.wallet_sealing import box_key
from gridpool.agents.wallet_text import parse_address
from gridpool.contracts import RULES
from gridpool.contracts.energy_intervals import EnergyParameters
from gridpool.contracts.members import FoundingMember, MemberParameters, NewSeat, Role
from gridpool.engines.embedded import Embedded
from gridpool.errors import RefusedInput
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.types import encode

__all__ = ["found_consortium", "parse_founder", "public_of"]


def public_of(text: str) -> bytes:
    """Read a certificate key: 64 hexadecimal digits, or the wallet file that holds it."""
    if len(text) == 64 and not Path(text).exists():
        return parse_address(text)
    return load_wallet(Path(text)).certificate.public


def parse_founder(text: str) -> FoundingMember:
    """Read ``NAME:ROLE[+ROLE...]:KEY`` of a founding organisation, KEY as in ``public_of``."""
    parts = text.split(":", 2)
    if len(parts) != 3 or not parts[0]:
        raise RefusedInput(f"{text!r} is no founding member; write NAME:ROLE:KEY, as in Hub:aggregator:hub.wallet")
    known = {role.value: role for role in Role}
    roles = parts[1].split("+")
    for role in roles:
        if role not in known:
            raise RefusedInput(f"no role {role!r}; the roles are {', '.join(known)}")
    return FoundingMember(public_of(parts[2]), parts[0], tuple(known[role] for role in roles))


def found_consortium(
    home: Path,
    *,
    chain: str,
    seats: tuple[bytes, ...],
    threshold: int,
    founders: tuple[FoundingMember, ...],
    clock: bytes | None,
    start_ms: int,
    auditor: bytes | None = None,
) -> Genesis:
    """Lay the home of a node that seals blocks by itself; returns its genesis.

    With ``clock`` market time moves by that key's ticks, else it is the blocks' time. The energy market is set up with
    the first back-stop supplier and the first utility (which keeps the grid's and the market's account).
    Raises RefusedInput where the threshold cannot be reached or the home holds another chain.
    """
    if not seats:
        raise RefusedInput("a council needs at least one seat; give --seat")
    if len(set(seats)) != len(seats) or not 1 <= threshold <= len(seats):
        raise RefusedInput(f"{threshold} of {len(set(seats))} seats cannot decide; give a threshold that they reach")
    if len({founder.key for founder in founders}) != len(founders):
        raise RefusedInput("two founding members have one key; give each its own")
    stops = [founder.key for founder in founders if Role.BACK_STOP in founder.roles]
    grids = [founder.key for founder in founders if Role.UTILITY in founder.roles]
    market = EnergyParameters()
    if stops and grids:
        market = EnergyParameters(back_stop=stops[0], grid=grids[0], market=grids[0])
    members = MemberParameters(
        seats=tuple(NewSeat(key, f"organisation {number + 1}") for number, key in enumerate(seats)),
        threshold=threshold,
        founders=founders,
        audit_key=bytes(32) if auditor is None else box_key(auditor),
    )
    parameters = (("members", encode(members)), ("energy", encode(market)))
    genesis = (
        Genesis(chain=chain, time_ms=start_ms, parameters=parameters)
        if clock is None
        else Genesis(chain=chain, time_ms=start_ms, market_clock="ticks", clock_keeper=clock, parameters=parameters)
    )
    if (home / "genesis").exists() or (home / "ledger").exists():
        raise RefusedInput(f"{home} holds a ledger already; choose another folder")
    Embedded.create(home, genesis, RULES, interval_ms=None).close()
    return genesis
