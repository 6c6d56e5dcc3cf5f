"""Looking into a ledger: blocks, transactions, accounts and tables as plain data for people and JSON."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from gridpool.errors import RefusedInput
from gridpool.ledger.contract import NONCES
from gridpool.ledger.rules import Rules
from gridpool.ledger.transaction import Malformed, Receipt, TransactionDecoder, transaction_id
from gridpool.ledger.view import View, at_place, rules_for

__all__ = [
    "parse_hash",
    "plain",
    "show_account",
    "show_height",
    "show_ledger",
    "show_receipt",
    "show_transaction",
    "show_wallet",
    "table_keys",
]


def parse_hash(text: str, what: str) -> bytes:
    """Read 32 bytes as hex; raises RefusedInput naming ``what`` was expected."""
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != 32:
        raise RefusedInput(f"{text!r} is no {what}: 64 hexadecimal digits are expected")
    return data


_PLAIN = frozenset({int, str, bool, type(None)})


def plain(value: Any) -> Any:
    """Turn structs, tuples and bytes (as hex) into JSON-ready data; structs become objects by field name."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, msgspec.Struct):
        data = {name: plain(getattr(value, name)) for name in value.__struct_fields__}
        tag = value.__struct_config__.tag
        return data if tag is None else {"type": tag, **data}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def show_ledger(view: View, known: Mapping[int, Rules]) -> dict[str, Any]:
    """Summarise a ledger: chain, height, time, application hash, and how much of what it holds."""
    header = view.header(view.height).header
    counts: dict[str, int] = {}
    for key, _ in view.snapshot.items("state"):
        name = key.partition(b"\0")[0].decode("ascii", "replace")
        counts[name] = counts.get(name, 0) + 1
    return {
        "chain": header.chain,
        "height": header.height,
        "app_hash": header.app_hash.hex(),
        "state_root": header.state_root.hex(),
        "time": _time(header.time_ms),
        "rules_version": header.rules_version,
        "transactions": view.snapshot.count("transaction"),
        "tables": counts,
    }


def show_height(view: View, height: int) -> dict[str, Any]:
    """Show a block: its header, the ids of its transactions, and the code of each receipt."""
    signed = view.header(height)
    header = signed.header
    receipts = view.receipts(height)
    wires = view.transactions(height)
    return {
        "height": height,
        "app_hash": header.app_hash.hex(),
        "transactions": [receipt.tx.hex() for receipt in receipts[: len(wires)]],
        "codes": [receipt.code for receipt in receipts[: len(wires)]],
        "due_work": [plain(result) for receipt in receipts[len(wires) :] for result in receipt.results],
        "time": _time(header.time_ms),
        "chain": header.chain,
        "rules_version": header.rules_version,
        "state_root": header.state_root.hex(),
        "receipts_root": header.receipts_root.hex(),
        "change_hash": header.change_hash.hex(),
        "transactions_root": header.transactions_root.hex(),
        "previous_app_hash": header.previous_app_hash.hex(),
        "signature": signed.signature.hex(),
    }


def show_transaction(view: View, known: Mapping[int, Rules], tx_id: bytes) -> dict[str, Any]:
    """Show a transaction and its receipt."""
    place = view.find(tx_id)
    if place is None:
        raise RefusedInput(f"no transaction {tx_id.hex()} in this ledger")
    rules = rules_for(known, view.snapshot, place.height)
    receipt = msgspec.msgpack.decode(at_place(view.encoded_receipts(place.height), place), type=Receipt)
    shown: dict[str, Any] = {"tx": tx_id.hex(), "height": place.height, "position": place.position}
    shown |= show_receipt(receipt, rules)
    try:
        wire = at_place(view.transactions(place.height), place)
        body = TransactionDecoder(rules).decode(wire).body
    except (Malformed, RefusedInput) as error:
        return shown | {"body": None, "note": str(error)}
    return shown | {
        "sender": body.sender.hex(),
        "nonce": body.nonce,
        "last_valid_height": body.last_valid_height,
        "mode": body.mode,
        "calls": [plain(call) for call in body.calls],
    }


def show_receipt(receipt: Receipt, rules: Rules) -> dict[str, Any]:
    """Show a receipt with its events decoded."""
    decode = rules.event_decoder
    events = []
    for raw in receipt.events:
        try:
            events.append(plain(decode(raw)))
        except (msgspec.DecodeError, UnicodeDecodeError):
            events.append({"undecoded": base64.b64encode(bytes(raw)).decode()})
    return {
        "code": receipt.code,
        "info": receipt.info,
        "results": [plain(result) for result in receipt.results],
        "events": events,
    }


def show_wallet(view: View, known: Mapping[int, Rules], wallet: bytes, *, limit: int = 1_000) -> dict[str, Any]:
    """Show what the state holds under a wallet, up to ``limit`` entries a table."""
    rules = rules_for(known, view.snapshot, view.height + 1)
    entries = []
    for table in rules.tables.values():
        if table.parts[0] is not bytes:
            continue
        single = len(table.parts) == 1
        rows = [(wallet, view.state.get(table, wallet))] if single else view.state.scan(table, (wallet,), limit=limit)
        entries += [
            {"table": table.name, "key": table.key_text(key), "value": plain(value)}
            for key, value in rows
            if value is not None
        ]
    nonce = view.state.get(NONCES, wallet)
    balance: dict[str, Any] = next((e["value"] for e in entries if e["table"] == "coins.account"), {})
    return {
        "account": wallet.hex(),
        "height": view.height,
        "nonce": 0 if nonce is None else nonce.number,
        "coins": balance.get("coins", balance.get("balance", 0)),
        "entries": entries,
    }


def show_account(view: View, known: Mapping[int, Rules], wallet: bytes) -> dict[str, Any]:
    """Show what the state holds under a wallet, and the transactions it signed.

    Reads every block that is kept: history at scale is the read model's task.
    """
    mine = []
    for key, data in view.snapshot.items("body"):
        for position, wire in enumerate(msgspec.msgpack.decode(data, type=tuple[bytes, ...])):
            if wallet in wire[:256] and _sender(wire) == wallet:
                mine.append(
                    {"tx": transaction_id(wire[64:]).hex(), "height": int.from_bytes(key, "big"), "position": position}
                )
    return show_wallet(view, known, wallet) | {"transactions": mine}


def table_keys(view: View, known: Mapping[int, Rules], name: str) -> list[str]:
    """Return every key of a table as text, in order."""
    table = rules_for(known, view.snapshot, view.height + 1).table(name)
    return [table.key_text(table.decode_key(key)) for key, _ in view.snapshot.scan(table.namespace, b"", False)]


def _sender(wire: bytes) -> bytes | None:
    try:
        fields = msgspec.msgpack.decode(wire[64:])
        return fields[1] if isinstance(fields, list) and isinstance(fields[1], bytes) else None
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError, ValueError):
        return None


def _time(milliseconds: int) -> str:
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{milliseconds} ms"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
