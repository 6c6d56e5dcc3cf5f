"""A Python application that does nothing: ``python -m bench.noop_application SOCKET`` answers an engine's questions.

What an engine costs with it is the floor for any application in Python behind the same framing.
"""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from gridpool.engines.abci import abci_pb2 as pb
from gridpool.engines.abci.messages import CHECKED
from gridpool.engines.abci.server import Server
from gridpool.engines.collector import collect_seldom


def answer(request: pb.Request) -> pb.Response:
    """Accept everything, remember nothing."""
    kind = request.WhichOneof("value")
    if kind == "info":
        return pb.Response(info=pb.ResponseInfo(data="noop"))
    if kind == "init_chain":
        return pb.Response(init_chain=pb.ResponseInitChain())
    if kind == "prepare_proposal":
        chosen, size = [], 0
        for wire in request.prepare_proposal.txs:
            size += len(wire) + 6
            if size > request.prepare_proposal.max_tx_bytes:
                break
            chosen.append(wire)
        return pb.Response(prepare_proposal=pb.ResponsePrepareProposal(txs=chosen))
    if kind == "process_proposal":
        accepted = pb.ResponseProcessProposal(status=pb.ResponseProcessProposal.ACCEPT)
        return pb.Response(process_proposal=accepted)
    if kind == "finalize_block":
        results = [pb.ExecTxResult() for _ in request.finalize_block.txs]
        return pb.Response(finalize_block=pb.ResponseFinalizeBlock(app_hash=bytes(32), tx_results=results))
    if kind == "commit":
        return pb.Response(commit=pb.ResponseCommit())
    if kind == "query":
        return pb.Response(query=pb.ResponseQuery())
    return pb.Response(list_snapshots=pb.ResponseListSnapshots())


def check(wires: Sequence[bytes]) -> list[bytes]:
    """Let every transaction wait for a block."""
    return [CHECKED] * len(wires)


if __name__ == "__main__":
    server = Server(Path(sys.argv[1]), answer, check)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    collect_seldom()
    server.wait()
