"""What a member does with the slices of a ledger from outside: order one, and read offers, contracts and statements."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gridpool.agents.wallet_keys import WalletKeys
from gridpool.agents.wallet_session import Session, open_session, signer_of
from gridpool.contracts import members
from gridpool.contracts.slices.offers import OFFERS
from gridpool.contracts.slices.orders import ORDERS, PROGRESS, SLICES, OrderSlice, Request, phase_of, sub_slices
from gridpool.contracts.slices.statements import statement
from gridpool.contracts.slices.supervision import VERDICTS
from gridpool.engines.network import node_file_at
from gridpool.errors import RefusedInput
from gridpool.ledger.state import State

__all__ = ["offer_rows", "place_order", "slice_rows", "slice_session", "statement_rows"]


@contextmanager
def slice_session(where: str, *, writable: bool = False) -> Iterator[Session]:
    """Open the ledger in a node's home or a ledger's folder, or behind a node's address.

    Orders to the home of a consortium's node go to its running process; an embedded ledger at rest is written directly.
    """
    if where.startswith(("http://", "https://")):
        with open_session(None, where) as remote:
            yield remote
        return
    node = node_file_at(Path(where)) if writable else None
    url = None if node is None else f"http://{node.ports.host}:{node.ports.http}"
    with open_session(None if url else Path(where), url, writable=writable) as session:
        yield session


def place_order(
    where: str, keys: WalletKeys, name: str, request: Request, *, number: int | None = None
) -> dict[str, Any]:
    """Sign an order, submit it and return its transaction; ``number`` chooses among a member's wallets.

    Raises RefusedInput where the ledger refuses it.
    """
    with slice_session(where, writable=True) as session:
        receipt = session.submit(signer_of(session, keys, number), OrderSlice(name, request))
        record = session.state.get(SLICES, name)
        return {"slice": name, "generation": 0 if record is None else record.generation, "tx": receipt.tx.hex()}


def slice_rows(state: State, name: str | None = None) -> list[dict[str, Any]]:
    """List slices with their sub-slice contracts, money and verdicts; all, or one by name."""
    rows = []
    for (slice_, generation), progress in state.scan(PROGRESS):
        key = (slice_, generation)
        order = state.get(ORDERS, key)
        if order is None or name not in (None, slice_):
            continue
        segments = []
        for segment, sub in sub_slices(state, key).items():
            verdicts = [verdict for _, verdict in state.scan(VERDICTS, (*key, segment))]
            segments.append(
                {
                    "segment": segment,
                    "state": phase_of(progress, sub),
                    "offer": None if sub.offer == "-" else sub.offer,
                    "party": sub.party.hex() or None,
                    "payment": sub.payment,
                    "intervals": len(verdicts),
                    "violated": sum(1 for verdict in verdicts if verdict.severity),
                    "penalties": sub.penalties,
                }
            )
        rows.append(
            {
                "slice": slice_,
                "generation": generation,
                "phase": progress.phase,
                "tenant": progress.tenant.hex(),
                "start": order.request.start,
                "end": progress.until,
                "objective": order.request.objective,
                "escrowed": progress.money.escrowed,
                "paid": progress.money.paid,
                "penalties": progress.money.penalties,
                "refunded": progress.money.refunded,
                "escrow_left": progress.money.left,
                "segments": segments,
            }
        )
    return rows


def offer_rows(state: State, name: str | None = None) -> list[dict[str, Any]]:
    """List the offers for slices; all, or those for one."""
    rows = []
    for (slice_, generation, segment, offer_id), offer in state.scan(OFFERS, () if name is None else (name,)):
        figures = offer.figures
        rows.append(
            {
                "slice": slice_,
                "generation": generation,
                "segment": segment,
                "offer": offer_id,
                "party": offer.party.hex(),
                "cost": figures.cost,
                "delay_us": figures.delay_us,
                "bandwidth_kbps": figures.bandwidth_kbps,
                "risk_nano": figures.risk_nano,
                "status": offer.status,
            }
        )
    return rows


def statement_rows(state: State, member: str, start: int = 0, end: int = 2**62) -> dict[str, Any]:
    """Give a member's statement; ``member`` is a wallet in hex or the public name of an organisation."""
    wallet = _wallet(state, member)
    lines = statement(state, wallet, start, end)
    totals: dict[str, int] = {}
    for line in lines:
        totals[line.kind] = totals.get(line.kind, 0) + line.amount
    return {
        "member": member,
        "wallet": wallet.hex(),
        "lines": [{name: getattr(line, name) for name in line.__struct_fields__} for line in lines],
        "totals": dict(sorted(totals.items())),
    }


def _wallet(state: State, member: str) -> bytes:
    for key, certificate in state.scan(members.MEMBERS):
        if certificate.name and certificate.name == member:
            return certificate.public_wallets[0] if certificate.public_wallets else key
    try:
        wallet = bytes.fromhex(member)
    except ValueError:
        wallet = b""
    if len(wallet) != 32:
        raise RefusedInput(f"no member is called {member!r}; give a wallet as 64 hex digits or an organisation's name")
    return wallet
