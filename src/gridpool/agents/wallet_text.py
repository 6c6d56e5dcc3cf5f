"""What members hand each other as text: addresses, amounts, applications."""

import os
from pathlib import Path

import msgspec

from gridpool.agents.aggregator import Application
from gridpool.errors import RefusedInput
from gridpool.ledger.keys import is_sound_key

__all__ = ["parse_address", "parse_amount", "parse_hash", "read_application", "read_text", "write_application"]

MOST_BYTES = 1 << 20


def parse_hash(text: str, name: str) -> bytes:
    """Read 64 hexadecimal digits; ``name`` says what they should be."""
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != 32:
        raise RefusedInput(f"{text!r} is no {name}; give its 64 hexadecimal digits")
    return data


def parse_address(text: str) -> bytes:
    """Read a wallet address or certificate key."""
    key = parse_hash(text, "wallet address or key")
    if not is_sound_key(key):
        raise RefusedInput(f"{text} is no key that anybody can sign with; check it for misprints")
    return key


def parse_amount(amount: int) -> int:
    """Check an amount, price or quantity."""
    if not 0 <= amount < 2**62:
        raise RefusedInput(f"{amount} is out of range; give 0 or more")
    return amount


def read_text(path: Path, *, most: int = MOST_BYTES) -> str:
    """Read a small text file."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise RefusedInput(f"{path} has more than {most} bytes")
        return data.decode("utf-8")
    except FileNotFoundError:
        raise RefusedInput(f"no file {path}") from None
    except UnicodeDecodeError:
        raise RefusedInput(f"{path} is no text file") from None


def write_application(path: Path, application: Application) -> None:
    """Write an application as JSON into a new file."""
    partial = path.with_name(path.name + ".partial")
    if path.exists():
        raise RefusedInput(f"{path} exists; choose another name")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(application)))
    os.replace(partial, path)


def read_application(path: Path) -> Application:
    """Read an application; raises RefusedInput where it is malformed."""
    try:
        return msgspec.json.decode(read_text(path).encode(), type=Application)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RefusedInput(f"{path} is no application: {error}") from None
