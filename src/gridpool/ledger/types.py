"""The domain types of transactions and stored values: bounded integers, bytes and text, and their codec."""

from typing import Annotated, Any, TypeVar, dataclass_transform

import msgspec

__all__ = [
    "Bytes",
    "Call",
    "Coins",
    "Due",
    "Event",
    "Hash",
    "Millis",
    "Natural",
    "PartsPerMillion",
    "Power",
    "Price",
    "Signature",
    "SignedInteger",
    "Text",
    "Value",
    "Wallet",
    "WattHours",
    "decode",
    "encode",
]

LIMIT = 2**63 - 1

Natural = Annotated[int, msgspec.Meta(ge=0, le=LIMIT)]
"""A non-negative integer of at most 63 bits."""
SignedInteger = Annotated[int, msgspec.Meta(ge=-LIMIT, le=LIMIT)]
Coins = Natural
"""Micro-coins."""
Price = Natural
"""Micro-coins per kWh."""
WattHours = Natural
Power = Natural
"""Watts."""
Millis = Natural
"""Milliseconds of market time since the Unix epoch."""
PartsPerMillion = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
Wallet = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
"""An Ed25519 public key, which is the address of a wallet."""
Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=256, pattern="^[^\\x00]*$")]
Bytes = Annotated[bytes, msgspec.Meta(max_length=65_536)]


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Value(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of what tables store. Integers, text, bytes and tuples of them only: no float, no mapping, no set."""


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Call(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=True):
    """Base of what members may ask for; give each a tag ``contract.verb``."""


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Due(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=True):
    """Base of work that falls due at a market time; give each a tag ``contract.noun``."""


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Event(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=True):
    """Base of what a contract tells the world in a receipt; give each a tag ``contract.noun``."""


T = TypeVar("T")
_ENCODER = msgspec.msgpack.Encoder()


def encode(value: Any) -> bytes:
    """Return the canonical MessagePack bytes of a struct or tuple."""
    return _ENCODER.encode(value)


def decode(data: bytes, kind: type[T]) -> T:
    """Decode ``data`` as ``kind``.

    Raises ``msgspec.DecodeError`` where the bytes are malformed, out of range or not the canonical encoding.
    """
    try:
        value = msgspec.msgpack.decode(data, type=kind)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"text is not UTF-8: {error}") from None
    if _ENCODER.encode(value) != data:
        raise msgspec.ValidationError("not the canonical encoding")
    return value
