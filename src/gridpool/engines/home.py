"""A node's home folder: HOME/ledger (the store), HOME/genesis, HOME/node.key."""

import fcntl
import os
from pathlib import Path
from typing import IO

import msgspec

from gridpool.errors import RefusedInput
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair, load_key, save_key
from gridpool.ledger.types import decode, encode

__all__ = ["found", "genesis_at", "locked", "node_key_at"]


def found(home: Path, genesis: Genesis, *, key: KeyPair | None = None) -> KeyPair:
    """Lay the home of a new node: its genesis and its key (a fresh one by default, readable by the owner alone).

    Returns the key. Raises RefusedInput where the home holds another genesis or another key already.
    """
    home.mkdir(parents=True, exist_ok=True)
    place = home / "genesis"
    data = encode(genesis)
    if place.exists():
        if place.read_bytes() != data:
            raise RefusedInput(f"{place} is the genesis of another chain; choose another folder")
    else:
        partial = home / "genesis.partial"
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(place)
    if (home / "node.key").exists():
        present = load_key(home / "node.key")
        if key is not None and key.public != present.public:
            raise RefusedInput(f"{home / 'node.key'} is another key; choose another folder")
        return present
    made = key or KeyPair.generate()
    save_key(home / "node.key", made)
    return made


def genesis_at(home: Path) -> Genesis:
    """Read the genesis of a home; raises RefusedInput where there is none."""
    try:
        return decode((home / "genesis").read_bytes(), Genesis)
    except FileNotFoundError:
        raise RefusedInput(f"{home} is no node's home (no genesis); make one first") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedInput(f"{home / 'genesis'} is damaged: {error}") from None


def node_key_at(home: Path) -> KeyPair:
    """Read the node key of a home; raises RefusedInput where there is none or others could read it."""
    try:
        return load_key(home / "node.key")
    except FileNotFoundError:
        raise RefusedInput(f"{home} has no node.key; restore it from a backup") from None


def locked(home: Path) -> IO[bytes]:
    """Take a home for this process until the returned file is closed or the process ends, however it ends.

    Raises RefusedInput where another process runs the node.
    """
    file = (home / "lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RefusedInput(f"{home} is in use by another process; stop that node first") from None
    return file
