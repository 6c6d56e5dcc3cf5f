"""Evidence of a validator that voted twice, as CometBFT's RPC takes it: for drills and tests of the consequences."""

import base64
from pathlib import Path
from typing import Any

import msgspec

from gridpool.engines.cometbft_files import validator_address
from gridpool.engines.cometbft_rpc import Rpc
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.light_commit import sign_bytes

__all__ = ["duplicate_vote"]

PRECOMMIT = 2


def duplicate_vote(rpc: Rpc, home: Path, chain: str) -> dict[str, Any]:
    """Sign two precommits of one height and round with the validator key in a CometBFT home; returns the evidence."""
    document = msgspec.json.decode((home / "config" / "priv_validator_key.json").read_bytes())
    key = KeyPair(base64.b64decode(document["priv_key"]["value"])[:32])
    height = int(rpc.call("status")["sync_info"]["latest_block_height"]) - 1
    moment = rpc.call("commit", height=str(height))["signed_header"]["header"]["time"]
    listed = rpc.call("validators", height=str(height), per_page="100")["validators"]
    address = validator_address(key.public).hex().upper()
    index = next(i for i, entry in enumerate(listed) if entry["address"] == address)
    total = sum(int(entry["voting_power"]) for entry in listed)

    def vote(mark: str) -> dict[str, Any]:
        block = {"hash": mark * 32, "parts": {"total": 1, "hash": mark * 32}}
        commit = {"height": str(height), "round": 0, "block_id": block}
        return {
            "type": PRECOMMIT,
            "height": str(height),
            "round": 0,
            "block_id": block,
            "timestamp": moment,
            "validator_address": address,
            "validator_index": index,
            "signature": base64.b64encode(key.sign(sign_bytes(commit, chain, moment))).decode("ascii"),
            "extension": None,
            "extension_signature": None,
        }

    return {
        "type": "tendermint/DuplicateVoteEvidence",
        "value": {
            "vote_a": vote("AA"),
            "vote_b": vote("BB"),
            "TotalVotingPower": str(total),
            "ValidatorPower": listed[index]["voting_power"],
            "Timestamp": moment,
        },
    }
