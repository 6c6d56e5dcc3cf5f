"""CometBFT's headers for a light client: from the genesis validators to the application hash of a height.

A step of trust is a header with the validators of its height and their commit. It holds if the validators are those
the header names, more than two thirds of their power signed the header, and more than a third of the power trusted so
far signed it too; its validators are then what is trusted (CometBFT, light client specification, skipping
verification). Trusting periods are left out: who holds the keys of validators that have long left can make a second
history, so a trust file should be renewed now and then.

Like ``light``, this module needs nothing but the standard library and PyNaCl.
"""

import base64
import binascii
import hashlib
import re
from typing import Any

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

__all__ = ["BrokenTrust", "application_hash_of", "header_hash", "milliseconds", "sign_bytes", "validators_hash"]

MOST_STEPS = 256
MOST_VALIDATORS = 1_000
COMMITTED = 2
PRECOMMIT = 2
TIME = re.compile(r"^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?Z$")


class BrokenTrust(ValueError):
    """The steps do not lead from the trusted validators to the header; the message says why."""


def application_hash_of(steps: Any, chain: str, trusted: dict[bytes, int], height: int) -> bytes:
    """Follow the steps and return the application hash that the last one commits to for ``height``.

    ``trusted`` are the genesis validators, key -> power. Raises BrokenTrust.
    """
    if not isinstance(steps, list) or not 1 <= len(steps) <= MOST_STEPS:
        raise BrokenTrust(f"1 to {MOST_STEPS} steps of trust are needed")
    known = trusted
    last = 0
    header: dict[str, Any] = {}
    for step in steps:
        header, known = _follow(step, chain, known)
        if _whole(header.get("height")) <= last:
            raise BrokenTrust("the steps of trust do not go upwards")
        last = _whole(header.get("height"))
    if last != height + 1:
        raise BrokenTrust(f"the last step is of height {last}, the application hash of {height} stands in the next one")
    return _hex(header.get("app_hash"))


def _follow(step: Any, chain: str, trusted: dict[bytes, int]) -> tuple[dict[str, Any], dict[bytes, int]]:
    if not isinstance(step, dict):
        raise BrokenTrust("a step of trust is an object")
    header, commit = _object(step, "header"), _object(step, "commit")
    validators = _validators(step.get("validators"))
    if header.get("chain_id") != chain:
        raise BrokenTrust(f"the header is of chain {header.get('chain_id')!r}, {chain!r} is trusted")
    if validators_hash(validators) != _hex(header.get("validators_hash")):
        raise BrokenTrust("the validators are not those that the header names")
    block = _object(commit, "block_id")
    if header_hash(header) != _hex(block.get("hash")) or _whole(commit.get("height")) != _whole(header.get("height")):
        raise BrokenTrust("the commit is not that of the header")
    signers = _signers(commit, chain, validators)
    total, power = sum(power for _, power in validators), dict(validators)
    if 3 * sum(power[key] for key in signers) <= 2 * total:
        raise BrokenTrust("no more than two thirds of the validators' power signed the header")
    if 3 * sum(trusted.get(key, 0) for key in signers) <= sum(trusted.values()):
        raise BrokenTrust("no more than a third of the power trusted so far signed the header")
    return header, power


def _signers(commit: dict[str, Any], chain: str, validators: list[tuple[bytes, int]]) -> list[bytes]:
    """Return the keys of the validators whose signature in the commit holds, each once."""
    signatures = commit.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != len(validators):
        raise BrokenTrust("the commit has not one entry a validator")
    signers = []
    for (key, _), entry in zip(validators, signatures, strict=True):
        if not isinstance(entry, dict) or entry.get("block_id_flag") != COMMITTED:
            continue
        try:
            signature = base64.b64decode(str(entry.get("signature")), validate=True)
            VerifyKey(key).verify(sign_bytes(commit, chain, str(entry.get("timestamp"))), signature)
        except (BadSignatureError, ValueError, TypeError, binascii.Error):
            raise BrokenTrust(f"validator {key.hex()} has not signed the header") from None
        signers.append(key)
    return signers


def header_hash(header: dict[str, Any]) -> bytes:
    """Return the hash of a header as CometBFT's RPC shows it."""
    version, last = _object(header, "version"), _object(header, "last_block_id")
    return _merkle(
        [
            _varint_field(1, _whole(version.get("block", 0))) + _varint_field(2, _whole(version.get("app", 0))),
            _bytes_field(1, str(header.get("chain_id")).encode()),
            _varint_field(1, _whole(header.get("height"))),
            _timestamp(str(header.get("time"))),
            _block_id(last),
            *(
                _bytes_field(1, _hex(header.get(name)))
                for name in (
                    "last_commit_hash",
                    "data_hash",
                    "validators_hash",
                    "next_validators_hash",
                    "consensus_hash",
                    "app_hash",
                    "last_results_hash",
                    "evidence_hash",
                    "proposer_address",
                )
            ),
        ]
    )


def validators_hash(validators: list[tuple[bytes, int]]) -> bytes:
    """Return the hash of validators (key, power) in their order."""
    return _merkle([_bytes_field(1, _bytes_field(1, key)) + _varint_field(2, power) for key, power in validators])


def sign_bytes(commit: dict[str, Any], chain: str, timestamp: str) -> bytes:
    """Return what a validator signs when it commits: the delimited canonical precommit vote."""
    message = (
        _varint_field(1, PRECOMMIT)
        + _fixed_field(2, _whole(commit.get("height")))
        + _fixed_field(3, _whole(commit.get("round", 0)))
        + _bytes_field(4, _block_id(_object(commit, "block_id")))
        + _bytes_field(5, _timestamp(timestamp), always=True)
        + _bytes_field(6, chain.encode())
    )
    return _varint(len(message)) + message


def _block_id(block: dict[str, Any]) -> bytes:
    parts = block.get("parts", {})
    if not isinstance(parts, dict):
        raise BrokenTrust("a block's parts are an object")
    inner = _varint_field(1, _whole(parts.get("total", 0))) + _bytes_field(2, _hex(parts.get("hash", "")))
    return _bytes_field(1, _hex(block.get("hash", ""))) + _bytes_field(2, inner, always=True)


def _merkle(leaves: list[bytes]) -> bytes:
    """Return the root of RFC 6962's tree over the leaves."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + _merkle(leaves[:split]) + _merkle(leaves[split:])).digest()


def milliseconds(text: Any) -> int:
    """Return a time as the engine writes it (RFC 3339, UTC) in milliseconds since the Unix epoch."""
    seconds, nanos = _instant(str(text))
    return seconds * 1_000 + nanos // 1_000_000


def _timestamp(text: str) -> bytes:
    seconds, nanos = _instant(text)
    return _varint_field(1, seconds) + _varint_field(2, nanos)


def _instant(text: str) -> tuple[int, int]:
    """Return (seconds since the Unix epoch, nanoseconds)."""
    match = TIME.match(text)
    if match is None:
        raise BrokenTrust(f"{text[:40]!r} is no time")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        raise BrokenTrust(f"{text[:40]!r} is no time")
    nanos = int((match.group(7) or "0").ljust(9, "0"))
    return _days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second, nanos


def _days(year: int, month: int, day: int) -> int:
    """Return the days from 1970-01-01 in the proleptic Gregorian calendar."""
    year -= month <= 2
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _varint_field(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number) if number else b""


def _fixed_field(field: int, number: int) -> bytes:
    return _varint(field << 3 | 1) + number.to_bytes(8, "little") if number else b""


def _bytes_field(field: int, data: bytes, *, always: bool = False) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data if data or always else b""


def _validators(listed: Any) -> list[tuple[bytes, int]]:
    if not isinstance(listed, list) or not 1 <= len(listed) <= MOST_VALIDATORS:
        raise BrokenTrust(f"1 to {MOST_VALIDATORS} validators are needed")
    found = []
    for entry in listed:
        try:
            key, power = base64.b64decode(entry["key"], validate=True), entry["power"]
        except (KeyError, TypeError, ValueError):
            raise BrokenTrust("a validator has a key in base64 and a power") from None
        if len(key) != 32 or type(power) is not int or not 0 < power < 1 << 60:
            raise BrokenTrust("a validator has a key of 32 bytes and a positive power")
        found.append((key, power))
    if len({key for key, _ in found}) != len(found):
        raise BrokenTrust("a validator is listed twice")
    return found


def _object(data: dict[str, Any], name: str) -> dict[str, Any]:
    found = data.get(name)
    if not isinstance(found, dict):
        raise BrokenTrust(f"{name} is missing")
    return found


def _whole(value: Any) -> int:
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        value = int(value)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise BrokenTrust("a number is missing or out of range")
    return value


def _hex(value: Any) -> bytes:
    try:
        return bytes.fromhex(value)
    except (TypeError, ValueError):
        raise BrokenTrust("a hash is missing") from None
