"""Noticing an engine whose process lives on although it takes no part any more.

CometBFT ends its consensus on the first failure there (a write that fails, a block that cannot be) and keeps its
process, its peers and its RPC. Two signs tell: its log says so, and its height stands still while its peers go on. The
second one needs no log, which a full disk takes away too.
"""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gridpool.engines.cometbft_rpc import Rpc, RpcError

__all__ = ["EngineWatch"]

ASK_EVERY_S = 2.0
ANSWER_S = 1.0
STANDS_S = 20.0
"""A block takes a fraction of a second; even a lost proposer costs a few."""
CATCHES_UP_S = 45.0
"""A node that fetches blocks waits up to 30 s for a peer that went away before it asks another."""
AHEAD = 3
"""A peer that works on the third height from ours has decided the two before it."""
LOG_TAIL_BYTES = 1 << 20
LONGEST_CAUSE = 300
CAUSE = re.compile(r"(CONSENSUS FAILURE!!!|Error in validation) .*? ?err=(\"(?:[^\"\\]|\\.)*\"|\S+)")


class EngineWatch:
    """Call it again and again while the engine runs: it returns why the engine must be started anew, or ""."""

    def __init__(self, home: Path, rpc_port: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Watch the engine of a node's home by its RPC and ``home/logs/engine.log``."""
        self._log = home / "logs" / "engine.log"
        self._rpc = Rpc(rpc_port, timeout_s=ANSWER_S)
        self._clock = clock
        self._asked = self._moved = clock()
        self._read = 0
        self._cause = ""
        self.height = 0

    def begin(self) -> None:
        """Forget what was seen: the engine has just been started."""
        self._asked = self._moved = self._clock()
        self._read = self._log.stat().st_size if self._log.exists() else 0

    def __call__(self) -> str:
        """Ask, at most every two seconds."""
        now = self._clock()
        if now - self._asked < ASK_EVERY_S:
            return ""
        self._asked = now
        if self._ended_in_log():
            return f"the engine takes no part any more: {self._cause}"
        try:
            status, state = self._rpc.batch([("status", {}), ("dump_consensus_state", {})])
            height, ahead, peers = progress(status, state)
            patience = CATCHES_UP_S if status["sync_info"]["catching_up"] else STANDS_S
        except (RpcError, KeyError, TypeError, ValueError):
            # It replays blocks, or is stopped; its process is watched for its end.
            self._moved = now
            return ""
        if height > self.height or 2 * ahead <= peers:
            self.height, self._moved = max(height, self.height), now
        if now - self._moved < patience:
            return ""
        cause = f": {self._cause}" if self._cause else ""
        return (
            f"the engine answers but stands at height {height} for {patience:.0f} s while {ahead} of {peers} peers are "
            f"ahead{cause}"
        )

    def _ended_in_log(self) -> bool:
        """Read on in the engine's log and keep what it complains of; tells whether its consensus has ended."""
        try:
            with self._log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                start = max(self._read if self._read <= size else 0, size - LOG_TAIL_BYTES)
                file.seek(start)
                data = file.read(LOG_TAIL_BYTES)
        except OSError:
            return False
        # The last line may not be whole yet.
        whole = data[: data.rfind(b"\n") + 1]
        self._read = start + len(whole)
        for found in CAUSE.finditer(whole.decode("utf-8", errors="replace")):
            self._cause = found[2].strip('"')[:LONGEST_CAUSE]
            if found[1] != "Error in validation":
                return True
        return False


def progress(status: Any, state: Any) -> tuple[int, int, int]:
    """Return an engine's height, how many of its peers are ahead of it, and how many it has.

    Takes the answers to ``status`` and ``dump_consensus_state``; raises KeyError, TypeError or ValueError for others.
    """
    height = int(status["sync_info"]["latest_block_height"])
    heights = [int(peer["peer_state"]["round_state"]["height"]) for peer in state["peers"] or []]
    return height, sum(other >= height + AHEAD for other in heights), len(heights)
