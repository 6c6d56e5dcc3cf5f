"""The ledger's hot loops in compiled form, where this machine could build it; else ``None``, and plain Python runs."""

import ctypes
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib import import_module
from typing import Protocol, cast

from nacl._sodium import ffi, lib

__all__ = ["native"]


class Native(Protocol):
    """What ``native.c``, ``native_pages.c`` and ``native_agents.c`` offer."""

    def use(self, init: int, update: int, final: int, whole: int, sign_open: int, sign: int, blake2b: int, /) -> None:
        """Take SHA-256, Ed25519 and BLAKE2b from these addresses."""

    def update(
        self,
        read: Callable[[bytes], bytes | None],
        changes: dict[bytes, bytes | None],
        before: dict[bytes, bytes | None] | None,
        /,
    ) -> tuple[bytes, dict[bytes, bytes | None]] | bytes:
        """See ``gridpool.ledger.tree.update``; the changes must not be empty. Returns the key of an altered leaf."""

    def list_root(self, items: Sequence[bytes], /) -> bytes:
        """See ``gridpool.ledger.merkle.list_root``."""

    def walk_table(
        self, file: int, page_bytes: int, used: bytearray, root: int, depth: int, /
    ) -> tuple[int, int, int, int] | None:
        """Walk a table of an open store (``gridpool.ledger.pages``), marking each page in ``used``; None if in doubt.

        Returns how many branch, leaf and overflow pages and entries were found. Other threads run meanwhile.
        """

    def check_path(
        self,
        nodes: dict[int, bytes],
        kept_depth: int,
        root: bytes,
        key: bytes,
        siblings: bytes,
        value: bytes | None,
        other_path: bytes | None,
        other_value_hash: bytes | None,
        /,
    ) -> int:
        """See ``gridpool.agents.access_paths.ProvedTree.plain_check``; returns which fault it found, 0 for none."""

    def merge_rows(self, rows: bytes, levels: bytes, /) -> tuple[int, bytes, bytes, bytes, bytes]:
        """See ``gridpool.agents.telemetry_tree.plain_merge_rows``; at least one row."""

    def check_codes(
        self, chains: bytearray, rows: bytes, sessions: bytes, sequences: bytes, macs: bytes, most_lost: int, /
    ) -> bytes:
        """See ``gridpool.agents.telemetry_session.plain_check_codes``."""

    def sign(self, message: bytes, secret: bytes, /) -> bytes:
        """See ``gridpool.ledger.keys.KeyPair.sign``; ``secret`` is seed and public key. Other threads run meanwhile."""

    def verify_all(self, messages: Sequence[tuple[bytes, bytes, bytes]], /) -> bytes:
        """See ``gridpool.ledger.keys.verify_all``; other threads run meanwhile."""


def _sha256_addresses() -> tuple[int, int, int, int]:
    """Return where SHA-256 lies in memory: init, update and final of hashlib's library, or libsodium's whole one."""
    try:
        library = ctypes.CDLL(import_module("_hashlib").__file__)
        parts = [getattr(library, name) for name in ("SHA256_Init", "SHA256_Update", "SHA256_Final")]
    except (ImportError, OSError, AttributeError):
        return 0, 0, 0, _sodium_address("crypto_hash_sha256")  # a Python whose hashlib keeps its library to itself
    init, update, final = (ctypes.cast(part, ctypes.c_void_p).value or 0 for part in parts)
    return init, update, final, 0


def _sodium_address(name: str) -> int:
    return int(ffi.cast("uintptr_t", ffi.addressof(lib, name)))


def _load() -> Native | None:
    try:
        module = cast("Native", import_module("gridpool.ledger.native"))
    except ImportError:
        return None
    names = ("crypto_sign_open", "crypto_sign", "crypto_generichash_blake2b_salt_personal")
    module.use(*_sha256_addresses(), *(_sodium_address(name) for name in names))
    # A library of that name with another layout must not decide what the ledger's hashes are.
    message = bytes(range(150))
    return module if module.list_root([message]) == sha256(b"\0" + message).digest() else None


native = _load()
