"""A content-addressed store of encrypted chunks: a folder by default, any fsspec address (S3 among them) if asked.

BASE/store holds one file a chunk, named by its SHA-256; BASE/records holds one list of chunk hashes a data set, named
by the root that they lead to. Nobody need trust the store: whatever it gives out is checked against root and name.
"""

import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import fsspec

from gridpool.errors import RefusedInput
from gridpool.ledger.merkle import list_root

__all__ = ["ChunkStore"]


class ChunkStore:
    """Chunks and their lists under one base."""

    def __init__(self, base: Path | str) -> None:
        """Use a folder or an fsspec address; a scheme that this installation lacks is refused."""
        try:
            self._files, root = fsspec.core.url_to_fs(str(base))
        except (ImportError, ValueError) as error:
            raise RefusedInput(f"no store at {base}: {error}") from None
        self._base = str(root).rstrip("/")

    def put(self, data: bytes) -> bytes:
        """Store a chunk; returns its hash."""
        digest = sha256(data).digest()
        self._write(f"{self._base}/store", digest.hex(), data)
        return digest

    def get(self, digest: bytes, *, most: int) -> bytes | None:
        """Return what is stored under a hash, altered or not; None where nothing is, or more than ``most`` bytes."""
        return self._read(f"{self._base}/store/{digest.hex()}", most)

    def put_list(self, hashes: list[bytes]) -> bytes:
        """Store a list of chunk hashes; returns the root that they lead to."""
        root = list_root(hashes)
        self._write(f"{self._base}/records", root.hex(), b"".join(hashes))
        return root

    def get_list(self, root: bytes, count: int) -> list[bytes] | None:
        """Return the list of ``count`` hashes that leads to ``root``, or None where the store has it no more."""
        data = self._read(f"{self._base}/records/{root.hex()}", 32 * count)
        if data is None or len(data) != 32 * count:
            return None
        hashes = [data[at : at + 32] for at in range(0, len(data), 32)]
        return hashes if list_root(hashes) == root else None

    def forget(self, hashes: list[bytes], root: bytes | None = None) -> None:
        """Remove chunks, and the list that leads to ``root``; what is not there is no matter."""
        names = [f"{self._base}/store/{digest.hex()}" for digest in hashes]
        if root is not None:
            names.append(f"{self._base}/records/{root.hex()}")
        for name in names:
            with suppress(OSError):
                self._files.rm_file(name)

    def _write(self, folder: str, name: str, data: bytes) -> None:
        self._files.makedirs(folder, exist_ok=True)
        if not isinstance(self._files, fsspec.implementations.local.LocalFileSystem):
            self._files.pipe_file(f"{folder}/{name}", data)  # an object appears whole or not at all
            return
        partial = Path(folder, f".{name}.partial")
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(Path(folder, name))
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _read(self, name: str, most: int) -> bytes | None:
        try:
            facts = self._files.info(name)
            if facts["type"] != "file" or not 0 <= (facts["size"] or 0) <= most:
                return None
            with self._files.open(name, "rb") as file:
                data: bytes = file.read(most + 1)
        except OSError:
            return None
        return data if len(data) <= most else None
