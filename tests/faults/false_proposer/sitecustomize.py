"""On a node's PYTHONPATH: its application proposes what it must not, one kind of fault after the other."""

import itertools
import os
from typing import Any

from gridpool.engines.abci import abci_pb2 as pb
from gridpool.engines.abci.application import Application

KINDS = ("junk", "forged", "duplicate", "oversize", "reordered")
_kinds = itertools.cycle(KINDS)
_honest = Application._prepare_proposal


def _false(self: Application, request: Any) -> Any:
    sound = list(_honest(self, request).prepare_proposal.txs)
    if len(sound) < 2:
        return pb.Response(prepare_proposal=pb.ResponsePrepareProposal(txs=sound))
    kind = next(_kinds)
    forged = bytearray(sound[0])
    forged[5] ^= 1
    room = request.prepare_proposal.max_tx_bytes
    proposed = {
        "junk": [b"junk", *sound],
        "forged": [bytes(forged), *sound[1:]],
        "duplicate": [sound[0], sound[0]],
        # As much as the engine itself lets pass.
        "oversize": [b"\x93" * (room - 100)],
        "reordered": sound[::-1],
    }[kind]
    with open(os.environ["FALSE_PROPOSALS"], "a", encoding="ascii") as file:
        file.write(f"{kind} {request.prepare_proposal.height}\n")
    return pb.Response(prepare_proposal=pb.ResponsePrepareProposal(txs=proposed))


Application._prepare_proposal = _false  # type: ignore[method-assign]
