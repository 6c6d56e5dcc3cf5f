"""What a member does with the slices of a ledger from outside: order one, and read offers, contracts and statements."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gridpool.contracts import RULES, members
from gridpool.contracts.slices.offers import OFFERS
from gridpool.contracts.slices.orders import ORDERS, PROGRESS, OrderSlice, Request, phase_of, sub_slices
from gridpool.contracts.slices.statements import statement
from gridpool.contracts.slices.supervision import VERDICTS
from gridpool.engines.embedded import Embedded
from gridpool.errors import RefusedInput
from gridpool.ledger.chain import Ledger, locate
from gridpool.ledger.contract import NONCES
from gridpool.ledger.execution import market_time
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.state import State
from gridpool.ledger.transaction import sign

__all__ = ["market_now", "offer_rows", "place_order", "read_state", "slice_rows", "statement_rows"]

VALID_BLOCKS = 100
"""An order that no block took within so many heights expires."""


@contextmanager
def read_state(directory: Path) -> Iterator[State]:
    """Read the slices of a ledger (a node's home or a ledger's folder), also while its node runs."""
    with Ledger.open(locate(directory), RULES, writable=False) as ledger, ledger.view() as view:
        yield view.state


def market_now(directory: Path) -> int:
    """Return market time of a ledger, ms."""
    with read_state(directory) as state:
        return market_time(state)


def place_order(directory: Path, key: KeyPair, name: str, request: Request) -> dict[str, Any]:
    """Sign an order and seal it into the next block of an embedded ledger.

    Raises RefusedInput with the ledger's code where it is refused.
    """
    with Embedded.open(directory, RULES, interval_ms=None) as engine:
        with engine.view() as view:
            used = view.state.get(NONCES, key.public)
        nonce = 1 if used is None else used.number + 1
        chain = engine.ledger.genesis.chain
        transaction = sign(key, chain, nonce, engine.height + VALID_BLOCKS, [OrderSlice(name, request)])
        accepted = engine.submit(transaction.wire)
        code, info = getattr(accepted, "code", "ok"), getattr(accepted, "info", "")
        if code == "ok":
            receipt = engine.seal(engine.ledger.head.header.time_ms).receipts[0]
            code, info = receipt.code, receipt.info
        if code != "ok":
            raise RefusedInput(f"the ledger refuses the order: {code} {info}")
        return {"slice": name, "tx": transaction.id.hex(), "height": engine.height, "app_hash": engine.app_hash.hex()}


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
