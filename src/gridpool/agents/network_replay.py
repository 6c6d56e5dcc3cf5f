"""Replaying a network's blocks on the embedded core: the same bytes must give every node's application hashes."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec

from gridpool.contracts import RULES
from gridpool.engines.network import read_network
from gridpool.engines.verifying import VerifyingThreads
from gridpool.errors import RefusedInput
from gridpool.ledger.chain import Ledger
from gridpool.ledger.execution import Block
from gridpool.ledger.view import View, stored_genesis

__all__ = ["Difference", "Replay", "replay_network"]


class Difference(msgspec.Struct, frozen=True):
    """The first place where a node departs from the replay."""

    node: str
    height: int
    what: str


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome: how far the blocks were replayed, and the state they lead to."""

    ok: bool
    height: int
    app_hash: str
    state_root: str
    transactions: int
    nodes: dict[str, int]
    """Node -> height up to which its hashes were compared."""
    fault: Difference | None


def replay_network(folder: Path, *, advance: Callable[[int, int], None] = lambda _done, _total: None) -> Replay:
    """Replay the longest block stream in a network's homes and compare every node's hashes with it.

    Reads the stores side by side with running nodes. ``advance`` is told (heights done, heights in all). Raises
    RefusedInput where no node has a ledger, or none the whole chain (one that began with a snapshot does not).
    """
    network = read_network(folder)
    with ExitStack() as stack:
        views: dict[str, View] = {}
        for name in network.nodes:
            path = folder / name / "ledger"
            if path.is_dir():
                ledger = stack.enter_context(Ledger.open(path, RULES, writable=False))
                views[name] = stack.enter_context(ledger.view())
        if not views:
            raise RefusedInput(f"no node of {folder} has a ledger yet")
        whole = [view for view in views.values() if not view.base]
        if not whole:
            raise RefusedInput(f"no node of {folder} holds the chain from its beginning")
        source = max(whole, key=lambda view: view.height)
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="gridpool-replay-"))
        return _replay(Path(scratch) / "ledger", source, views, advance)


def _replay(path: Path, source: View, views: dict[str, View], advance: Callable[[int, int], None]) -> Replay:
    transactions = 0
    with (
        closing(VerifyingThreads()) as verifier,
        Ledger.create(path, stored_genesis(source.snapshot), RULES, verifier=verifier) as ledger,
    ):
        fault = _differences(views, 0, ledger.app_hash)
        following = source.transactions(1) if source.height else ()
        for height in range(1, source.height + 1):
            if fault is not None:
                break
            header = source.header(height).header
            wires, following = following, source.transactions(height + 1) if height < source.height else ()
            ledger.prepare(following)
            ledger.commit(ledger.execute(Block(height, header.time_ms, wires, header.misbehaving)))
            transactions += len(wires)
            fault = _differences(views, height, ledger.app_hash)
            advance(height, source.height)
        head = ledger.head.header
        return Replay(
            ok=fault is None,
            height=head.height,
            app_hash=head.app_hash.hex(),
            state_root=head.state_root.hex(),
            transactions=transactions,
            nodes={name: min(view.height, head.height) for name, view in views.items()},
            fault=fault,
        )


def _differences(views: dict[str, View], height: int, app_hash: bytes) -> Difference | None:
    for name, view in views.items():
        if view.height < height:
            continue
        found = view.header(height).header.app_hash
        if found != app_hash:
            return Difference(name, height, f"application hash {found.hex()}, replayed {app_hash.hex()}")
    return None
