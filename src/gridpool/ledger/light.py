"""The light client: checks a proof offline with nothing but a trust file.

This module needs the standard library and PyNaCl, nothing else, so that a small device can carry it alone::

    answer = check(json.load(open("proof.json")), json.load(open("trust.json")))

A proof holds if the trusted node key signed its header, and the header's roots lead to what is claimed.
"""

import base64
import binascii
import hashlib
from typing import Any

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from gridpool.ledger.light_commit import BrokenTrust, application_hash_of, milliseconds

__all__ = ["Invalid", "check", "check_header", "check_state"]

HEADER_DOMAIN = b"gridpool/header/1\0"
EMPTY = hashlib.sha256(b"\x02").digest()
HEADER_FIELDS = (
    "chain",
    "height",
    "time_ms",
    "rules_version",
    "state_root",
    "receipts_root",
    "change_hash",
    "previous_app_hash",
    "app_hash",
    "transactions_root",
    "misbehaving",
)
LARGEST_PART = 1 << 20
DEEPEST = 32


class Invalid(ValueError):
    """A proof that does not hold; the message says why."""


def check(proof: Any, trust: Any) -> dict[str, Any]:
    """Check a proof against a trust file, both as parsed JSON.

    Returns ``ok``, ``height``, ``present``, ``value`` (base64; None for a proof of absence) and either ``key`` (hex of
    the full key), ``table`` and the key's own part ``key_bytes`` (hex), or ``tx`` with the receipt's ``code`` and
    ``info``. Raises Invalid.
    """
    if not isinstance(proof, dict) or proof.get("format") != "gridpool-proof-1":
        raise Invalid("this is no proof of format gridpool-proof-1")
    header = check_header(proof, trust)
    if "tx" in proof:
        return {"ok": True, "height": header["height"], **_check_transaction(proof, header)}
    return {"ok": True, "height": header["height"], **check_state(proof, header)}


def check_header(proof: Any, trust: Any) -> dict[str, Any]:
    """Return the fields of the proof's header if the trusted key signed it; raises Invalid."""
    if not isinstance(trust, dict) or trust.get("format") != "gridpool-trust-1":
        raise Invalid("this is no trust file of format gridpool-trust-1")
    data = _bytes(proof, "header")
    fields = _decode(data)
    if not isinstance(fields, list) or len(fields) != len(HEADER_FIELDS):
        raise Invalid("the header has not the fields of a header")
    header = dict(zip(HEADER_FIELDS, fields, strict=True))
    roots = [header[name] for name in HEADER_FIELDS[4:10]]
    numbers = [header[name] for name in HEADER_FIELDS[1:4]]
    if (
        not all(type(root) is bytes and len(root) == 32 for root in roots)
        or not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
        or not isinstance(header["misbehaving"], list)
    ):
        raise Invalid("the header has not the fields of a header")
    if header["chain"] != trust.get("chain"):
        raise Invalid(f"the header is of chain {header['chain']!r}, the trust file of {trust.get('chain')!r}")
    if trust.get("signer") is None:
        _check_steps(proof, trust, header)
    else:
        try:
            VerifyKey(_bytes(trust, "signer")).verify(HEADER_DOMAIN + data, _bytes(proof, "signature"))
        except (BadSignatureError, ValueError, TypeError):
            raise Invalid("the trusted node key has not signed this header") from None
    version, root, receipts, changes, before = (
        header[name] for name in ("rules_version", "state_root", "receipts_root", "change_hash", "previous_app_hash")
    )
    if hashlib.sha256(version.to_bytes(8, "big") + root + receipts + changes + before).digest() != header["app_hash"]:
        raise Invalid("the header's application hash does not follow from its roots")
    return header


def _check_steps(proof: Any, trust: Any, header: dict[str, Any]) -> None:
    """Follow the engine's headers from the genesis validators to this header's application hash; raises Invalid."""
    validators = trust.get("validators")
    if not isinstance(validators, list) or not 1 <= len(validators) <= 1_000:
        raise Invalid("the trust file names neither a node key nor validators")
    trusted: dict[bytes, int] = {}
    for entry in validators:
        if not isinstance(entry, dict) or type(entry.get("power")) is not int or entry["power"] <= 0:
            raise Invalid("a trusted validator has a key and a positive power")
        trusted[_bytes(entry, "key")] = entry["power"]
    try:
        committed = application_hash_of(proof.get("steps"), header["chain"], trusted, header["height"])
        above_ms = milliseconds(proof["steps"][-1]["header"].get("time"))
    except BrokenTrust as error:
        raise Invalid(str(error)) from None
    if committed != header["app_hash"]:
        raise Invalid("the engine's validators committed to another application hash")
    # The hash says nothing of the time, and whoever shows an old proof would like it to be a fresh one.
    if header["time_ms"] > above_ms:
        raise Invalid("the header's time lies after that of the block which commits to it")


def check_state(proof: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    """Check what a proof says of a key against the fields of a header that was checked before; raises Invalid."""
    key = _bytes(proof, "key")
    name, mark, own = key.partition(b"\0")
    if not mark:
        raise Invalid("the key names no table")
    path = hashlib.sha256(key).digest()
    siblings = _bytes(proof, "siblings")
    if len(siblings) % 32 or len(siblings) > 256 * 32:
        raise Invalid("the siblings are not up to 256 hashes of 32 bytes")
    depth = len(siblings) // 32
    value = None if proof.get("value") is None else _bytes(proof, "value")
    if value is not None:
        digest = _leaf(path, hashlib.sha256(value).digest())
    elif proof.get("other") is not None:
        other = proof["other"]
        if not isinstance(other, dict):
            raise Invalid("the other leaf is not an object")
        other_path, other_hash = _bytes(other, "path"), _bytes(other, "value_hash")
        if len(other_path) != 32 or len(other_hash) != 32 or other_path == path:
            raise Invalid("the other leaf is not another leaf")
        if _number(other_path) >> (256 - depth) != _number(path) >> (256 - depth):
            raise Invalid("the other leaf does not stand where the key would")
        digest = _leaf(other_path, other_hash)
    else:
        digest = EMPTY
    bits = _number(path)
    for level in range(depth - 1, -1, -1):
        sibling = siblings[32 * level : 32 * level + 32]
        right = bits >> (255 - level) & 1
        digest = hashlib.sha256(b"\1" + (sibling + digest if right else digest + sibling)).digest()
    if digest != header["state_root"]:
        raise Invalid("the path does not lead to the header's state root")
    return {
        "present": value is not None,
        "table": name.decode("ascii", "replace"),
        "key": key.hex(),
        "key_bytes": own.hex(),
        "value": None if value is None else base64.b64encode(value).decode("ascii"),
    }


def _check_transaction(proof: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    receipt = _bytes(proof, "value")
    position, count = proof.get("position"), proof.get("count")
    if type(position) is not int or type(count) is not int or not 0 <= position < count < 1 << 32:
        raise Invalid("position and count are not those of a list")
    path = _bytes(proof, "siblings")
    if len(path) % 32 or len(path) > 64 * 32:
        raise Invalid("the siblings are not hashes of 32 bytes")
    rest = [path[i : i + 32] for i in range(0, len(path), 32)]
    digest = hashlib.sha256(b"\0" + receipt).digest()
    at, last = position, count - 1
    while last:
        if at & 1 or at < last:
            if not rest:
                raise Invalid("the path is too short")
            sibling = rest.pop(0)
            digest = hashlib.sha256(b"\1" + (sibling + digest if at & 1 else digest + sibling)).digest()
        at >>= 1
        last >>= 1
    if rest or digest != header["receipts_root"]:
        raise Invalid("the path does not lead to the header's receipts root")
    fields = _decode(receipt)
    if not isinstance(fields, list) or len(fields) != 5 or fields[0] != _hex(proof, "tx"):
        raise Invalid("the receipt is of another transaction")
    return {
        "present": True,
        "tx": proof["tx"],
        "code": fields[1],
        "info": fields[2],
        "value": base64.b64encode(receipt).decode("ascii"),
    }


def _leaf(path: bytes, value_hash: bytes) -> bytes:
    return hashlib.sha256(b"\0" + path + value_hash).digest()


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _bytes(data: dict[str, Any], name: str) -> bytes:
    text = data.get(name)
    if not isinstance(text, str) or len(text) > 2 * LARGEST_PART:
        raise Invalid(f"{name} is missing or too long")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid(f"{name} is not base64") from None


def _hex(data: dict[str, Any], name: str) -> bytes:
    try:
        return bytes.fromhex(data[name])
    except (ValueError, TypeError, KeyError):
        raise Invalid(f"{name} is not hexadecimal") from None


def _decode(data: bytes) -> Any:
    """Decode MessagePack without maps, floats and extensions; raises Invalid."""
    value, end = _item(data, 0, 0)
    if end != len(data):
        raise Invalid("bytes are left over after a MessagePack value")
    return value


def _item(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if at >= len(data) or depth > DEEPEST:
        raise Invalid("a MessagePack value is cut short or too deep")
    code = data[at]
    at += 1
    if code < 0x80:
        return code, at
    if code >= 0xE0:
        return code - 0x100, at
    if 0x90 <= code < 0xA0:
        return _array(data, at, code & 15, depth)
    if 0xA0 <= code < 0xC0:
        return _text(data, at, code & 31)
    if code in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[code], at
    width = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
             0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4}.get(code)  # fmt: skip
    if width is None or at + width > len(data):
        raise Invalid("a MessagePack value is of a kind that the ledger does not use, or cut short")
    number = int.from_bytes(data[at : at + width], "big", signed=0xD0 <= code <= 0xD3)
    at += width
    if code <= 0xC6:
        if at + number > len(data):
            raise Invalid("a MessagePack value is cut short")
        return data[at : at + number], at + number
    if code <= 0xD3:
        return number, at
    return _text(data, at, number) if code <= 0xDB else _array(data, at, number, depth)


def _text(data: bytes, at: int, size: int) -> tuple[str, int]:
    if at + size > len(data):
        raise Invalid("a MessagePack value is cut short")
    try:
        return data[at : at + size].decode("utf-8"), at + size
    except UnicodeDecodeError:
        raise Invalid("a text is not UTF-8") from None


def _array(data: bytes, at: int, count: int, depth: int) -> tuple[list[Any], int]:
    if count > len(data) - at:
        raise Invalid("a MessagePack value is cut short")
    items = []
    for _ in range(count):
        item, at = _item(data, at, depth + 1)
        items.append(item)
    return items, at
