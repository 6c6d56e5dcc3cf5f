"""The snapshots a node offers to others, and the one it starts from (state sync)."""

import shutil
import threading
import time
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path

import msgspec

from gridpool.engines.abci import abci_pb2 as pb
from gridpool.errors import RefusedInput, VerificationFault
from gridpool.ledger import snapshots
from gridpool.ledger.snapshots import Manifest, Restoration
from gridpool.ledger.types import decode, encode
from gridpool.ledger.view import KnownRules, View

__all__ = ["FORMAT", "Arrival", "FalseSnapshot", "Shelf"]

FORMAT = 1
KEEP = 2
LARGEST_MANIFEST = 4 << 20
MOST_SET_ASIDE = 1_000


class FalseSnapshot(VerificationFault):
    """Every chunk is the one that the manifest names, and together they are not the state that validators signed."""


class Shelf:
    """Snapshots on disk: one every ``interval`` heights, the last ``KEEP`` of them."""

    def __init__(self, folder: Path, *, interval: int) -> None:
        """Keep snapshots under ``folder``; an ``interval`` of 0 takes none."""
        self.folder = folder
        self._interval = interval
        self._worker: threading.Thread | None = None

    def committed(self, height: int, view: AbstractContextManager[View]) -> None:
        """Take a snapshot in the background where one is due and none is under way."""
        busy = self._worker is not None and self._worker.is_alive()
        if self._interval and height % self._interval == 0 and not busy:
            self._worker = threading.Thread(target=self._take, args=(view,), name="snapshot", daemon=True)
            self._worker.start()

    def wait(self) -> None:
        """Wait for a snapshot under way."""
        if self._worker is not None:
            self._worker.join()

    def offered(self) -> list[pb.Snapshot]:
        """Return the snapshots that others may fetch, the newest first."""
        offers = []
        for height in sorted(self._heights(), reverse=True):
            try:
                data = (self.folder / str(height) / "manifest").read_bytes()
            except FileNotFoundError:
                continue  # it has just given way to a newer one
            described = decode(data, Manifest)
            offers.append(
                pb.Snapshot(
                    height=height,
                    format=FORMAT,
                    chunks=len(described.chunks),
                    hash=sha256(data).digest(),
                    metadata=data,
                )
            )
        return offers

    def chunk(self, height: int, index: int) -> bytes:
        """Return a chunk, empty where there is none (the engine then asks another node)."""
        try:
            return (self.folder / str(height) / str(index)).read_bytes()
        except FileNotFoundError:
            return b""

    def _take(self, view: AbstractContextManager[View]) -> None:
        with view as held:
            target = self.folder / str(held.height)
            partial = self.folder / f"{held.height}.partial"
            for left in self.folder.glob("*.partial"):  # by a node that was ended meanwhile
                shutil.rmtree(left, ignore_errors=True)
            partial.mkdir(parents=True)
            digests = []
            for index, chunk in enumerate(snapshots.chunks(held)):
                (partial / str(index)).write_bytes(chunk)
                digests.append(sha256(chunk).digest())
            described = msgspec.structs.replace(snapshots.describe(held), chunks=tuple(digests))
            (partial / "manifest").write_bytes(encode(described))
            if not target.exists():
                partial.rename(target)
        for height in sorted(self._heights())[:-KEEP]:
            shutil.rmtree(self.folder / str(height), ignore_errors=True)

    def _heights(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return [int(entry.name) for entry in self.folder.iterdir() if entry.name.isdigit()]


class Arrival:
    """A snapshot that this node starts from, chunk by chunk."""

    def __init__(self, path: Path, known: KnownRules, offered: pb.Snapshot, app_hash: bytes) -> None:
        """Accept an offer whose manifest names the application hash that the engine's light client verified.

        Raises RefusedInput where it does not, or where the same snapshot was set aside before.
        """
        if offered.format != FORMAT or len(offered.metadata) > LARGEST_MANIFEST:
            raise RefusedInput(f"snapshot format {offered.format} is not known")
        try:
            described = decode(offered.metadata, Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RefusedInput(f"the snapshot's manifest cannot be read: {error}") from None
        named = (described.height, described.app_hash, len(described.chunks))
        if named != (offered.height, app_hash, offered.chunks):
            raise RefusedInput("the snapshot's manifest is not what the chain's headers say")
        self.height = described.height
        self._digest = sha256(offered.metadata).hexdigest()
        self._aside = path.with_name("snapshots-refused")
        if self._digest in self._set_aside():
            raise RefusedInput("no node could give this snapshot's chunks before")
        self._restoration = Restoration(path, described, known)
        self._left = len(described.chunks)
        self._refused: list[str] = []
        self._moved_s = time.monotonic()

    def apply(self, index: int, chunk: bytes, sender: str) -> bool:
        """Take in a chunk; returns whether it completed the ledger.

        Raises VerificationFault for a wrong chunk, FalseSnapshot where the right ones do not make the signed state.
        """
        try:
            self._restoration.apply(index, chunk)
        except VerificationFault:
            self._refused.append(sender)
            raise
        self._moved_s = time.monotonic()
        self._left -= 1
        if self._left:
            return False
        try:
            self._restoration.finish()
        except VerificationFault as error:
            self.set_aside()
            raise FalseSnapshot(str(error)) from None
        return True

    def stalled(self, patience_s: float) -> bool:
        """Tell whether a wrong chunk came, and for ``patience_s`` no right one."""
        return bool(self._refused) and time.monotonic() - self._moved_s > patience_s

    def set_aside(self) -> None:
        """Remove what has arrived, and refuse the snapshot when it is offered again, be it after a restart."""
        self.abandon()
        kept = [*self._set_aside(), self._digest][-MOST_SET_ASIDE:]
        self._aside.write_text("".join(f"{digest}\n" for digest in kept), encoding="ascii")

    def abandon(self) -> None:
        """Remove what has arrived."""
        self._restoration.abandon()

    def _set_aside(self) -> list[str]:
        return self._aside.read_text(encoding="ascii").split() if self._aside.exists() else []
