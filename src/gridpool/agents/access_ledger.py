"""What an organisation does with access on a ledger: rules, checks of what they would answer, and the audit."""

from typing import Any

import msgspec

from gridpool.agents.access_gate import LoggedDecision
from gridpool.agents.wallet_session import Session
from gridpool.contracts import access, members
from gridpool.contracts.access import BATCHES, BLOCKS, RESOURCES, rules_of
from gridpool.contracts.access_rules import Answer, Request, Rule, StoredRule, Who, answer
from gridpool.contracts.members import Role
from gridpool.errors import RefusedInput, VerificationFault
from gridpool.ledger.merkle import list_root
from gridpool.ledger.state import State

__all__ = ["audit", "check_access", "parse_who", "rule_row", "verify_decisions"]

MOST_DECISIONS = 1_000_000


def parse_who(state: State, text: str) -> tuple[Who, bytes]:
    """Read ``anyone``, ``role:NAME``, ``organisation:NAME|KEY`` or ``wallet:ADDRESS``."""
    kind, _, name = text.partition(":")
    if kind == "anyone" and not name:
        return "anyone", b""
    if kind == "role":
        if name not in {role.value for role in Role}:
            raise RefusedInput(f"no role {name!r}; the roles are {', '.join(role.value for role in Role)}")
        return "role", name.encode()
    if kind == "organisation":
        for key, member in state.scan(members.MEMBERS):
            if name and name in (member.name, key.hex()):
                return "organisation", key
        raise RefusedInput(f"no organisation is called {name!r}; give its public name or certificate key")
    if kind == "wallet":
        return "wallet", _wallet(name)
    raise RefusedInput(f"{text!r} names nobody; write anyone, role:NAME, organisation:NAME or wallet:ADDRESS")


def check_access(
    session: Session, resource: str, wallet: str, action: str, *, place: str = "", at: int | None = None
) -> dict[str, Any]:
    """Say what the rules on the ledger answer to a wallet, and why; nothing is recorded."""
    state = session.state
    now = session.now if at is None else at
    address = _wallet(wallet)
    if not 1 <= len(resource) <= 128 or "\0" in resource or len(action) > 256 or len(place) > 256:
        raise RefusedInput("the resource has 1 to 128 characters, action and place at most 256")
    if not 0 <= now < 2**62:
        raise RefusedInput(f"{now} is no market time in ms")
    record = state.get(members.WALLETS, address)
    row: dict[str, Any] = {"resource": resource, "wallet": wallet, "action": action, "place": place, "at": now}
    refusal = _bar(state, address, record, now)
    if refusal is not None or record is None:
        return row | {"allowed": False, "rule": None, "per_minute": 0, "reason": refusal}
    roles = tuple(role.value for role in record.roles)
    decided: Answer = answer(
        rules_of(state, resource), Request(address, record.member, roles, resource, action, place, now)
    )
    return row | {
        "allowed": decided.allowed,
        "rule": decided.rule,
        "per_minute": decided.per_minute,
        "reason": decided.reason,
    }


def rule_row(stored: StoredRule) -> dict[str, Any]:
    """Write a rule for people and programs."""
    rule: Rule = stored.rule
    name = rule.name.decode("ascii", "replace") if rule.who == "role" else rule.name.hex()
    return {
        "number": stored.number,
        "allow": rule.allow,
        "who": f"{rule.who}:{name}" if name else rule.who,
        "action": rule.action,
        "start": rule.start,
        "end": rule.end,
        "place": rule.place,
        "per_minute": rule.per_minute,
        "set_at": stored.set_at,
    }


def audit(state: State, now: int, resource: str | None = None) -> dict[str, Any]:
    """List resources with their rules, the roots of decisions by node, and who is blocked until when and why."""
    names = [(name, held) for name, held in state.scan(RESOURCES) if resource in (None, name)]
    if resource is not None and not names:
        raise RefusedInput(f"no resource {resource!r} on this ledger; its first rule makes it")
    return {
        "resources": [
            {"resource": name, "owner": held.owner.hex(), "rules": [rule_row(rule) for rule in rules_of(state, name)]}
            for name, held in names
        ],
        "batches": [
            {
                "node": node.hex(),
                "number": number,
                "root": batch.root.hex(),
                "allowed": batch.allowed,
                "refused": batch.refused,
                "start": batch.start,
                "end": batch.end,
            }
            for (node, number), batch in state.scan(BATCHES)
        ],
        "blocks": [
            {
                "wallet": wallet.hex(),
                "until": block.until,
                "in_force": now < block.until,
                "why": block.why,
                "strikes": block.strikes,
                "tx": block.evidence.hex(),
            }
            for wallet, block in state.scan(BLOCKS)
        ],
    }


def verify_decisions(state: State, node: bytes, number: int, entries: list[bytes]) -> dict[str, Any]:
    """Check a node's log of a batch (encoded ``LoggedDecision``) against the ledger.

    Raises VerificationFault where it is not what the node committed to, RefusedInput where there is no such batch.
    """
    batch = state.get(BATCHES, (node, number))
    if batch is None:
        raise RefusedInput(f"no batch {number} of node {node.hex()} on this ledger")
    try:
        decided = [msgspec.msgpack.decode(entry, type=LoggedDecision) for entry in entries[:MOST_DECISIONS]]
    except ValueError as error:
        raise VerificationFault(f"an entry is no decision: {error}") from None
    if list_root(entries) != batch.root:
        raise VerificationFault(f"these {len(entries)} decisions are not those that node {node.hex()} committed to")
    return {"ok": True, "decisions": len(decided), "allowed": sum(entry.allowed for entry in decided)}


def _bar(state: State, wallet: bytes, record: members.WalletRecord | None, now: int) -> str | None:
    if record is None:
        return "the wallet is not registered"
    if record.successor or not record.valid_from <= now < record.valid_until:
        return "the wallet is replaced, or not valid at this time"
    ban = state.get(members.BANNED, wallet)
    if ban is not None and now < ban.until:
        return f"the wallet is banned until {ban.until}: {ban.why}"
    until = access.blocked_until(state, wallet, now)
    return None if until is None else f"the wallet is blocked until {until}"


def _wallet(text: str) -> bytes:
    try:
        wallet = bytes.fromhex(text)
    except ValueError:
        wallet = b""
    if len(wallet) != 32:
        raise RefusedInput(f"{text!r} is no wallet address; give its 64 hexadecimal digits")
    return wallet
