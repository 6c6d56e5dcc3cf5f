"""What a running node adds to a proof, so that a light client can follow it from the genesis validators."""

import base64
import time
from pathlib import Path
from typing import Any

from gridpool.engines.cometbft_rpc import Rpc, RpcError
from gridpool.engines.network import node_file_at
from gridpool.errors import RefusedInput
from gridpool.ledger.light_commit import BrokenTrust, application_hash_of

__all__ = ["steps_at", "trust_steps"]

PAGE = 100
PATIENCE_S = 10.0


def steps_at(home: Path, chain: str, genesis: dict[bytes, int], height: int) -> list[dict[str, Any]] | None:
    """Return the steps to ``height`` from the running node of a home; None where that node signs its own headers."""
    node = node_file_at(home)
    if node is None or node.engine != "cometbft":
        return None
    rpc = Rpc(node.ports.rpc)
    try:
        return trust_steps(rpc, chain, genesis, height)
    finally:
        rpc.close()


def trust_steps(rpc: Rpc, chain: str, genesis: dict[bytes, int], height: int) -> list[dict[str, Any]]:
    """Return the shortest steps that lead from the genesis validators to the application hash of ``height``.

    Asks the engine for headers, commits and validators; halves the way where the validators have changed too much for
    one step. Raises RefusedInput where the engine does not have them.
    """
    try:
        target = height + 1
        _await_height(rpc, target)
        found: list[dict[str, Any]] = []
        low, trusted = 0, genesis
        while low < target:
            step_height = target
            while True:
                step = _step(rpc, step_height)
                try:
                    application_hash_of([step], chain, trusted, step_height - 1)
                    break
                except BrokenTrust as error:
                    if step_height <= low + 1:
                        raise RefusedInput(f"the engine's headers do not lead to height {height}: {error}") from None
                    step_height = (low + step_height) // 2
            found.append(step)
            low = step_height
            trusted = {base64.b64decode(entry["key"]): entry["power"] for entry in step["validators"]}
        return found
    except RpcError as error:
        raise RefusedInput(f"the running engine is needed for this proof: {error}") from error


def _await_height(rpc: Rpc, height: int) -> None:
    """Wait for the engine to have the block that commits to the application hash of the one below."""
    end = time.monotonic() + PATIENCE_S
    while int(rpc.call("status")["sync_info"]["latest_block_height"]) < height:
        if time.monotonic() > end:
            raise RefusedInput(f"the engine has no block {height} yet; it makes one when transactions come")
        time.sleep(0.1)


def _step(rpc: Rpc, height: int) -> dict[str, Any]:
    signed = rpc.call("commit", height=str(height))["signed_header"]
    validators: list[dict[str, Any]] = []
    page = 1
    while True:
        answer = rpc.call("validators", height=str(height), page=str(page), per_page=str(PAGE))
        validators += [
            {"key": entry["pub_key"]["value"], "power": int(entry["voting_power"])} for entry in answer["validators"]
        ]
        if len(validators) >= int(answer["total"]):
            break
        page += 1
    commit = signed["commit"]
    kept = {name: commit[name] for name in ("height", "round", "block_id")}
    signatures = [
        {name: entry[name] for name in ("block_id_flag", "timestamp", "signature")} for entry in commit["signatures"]
    ]
    return {"header": signed["header"], "commit": kept | {"signatures": signatures}, "validators": validators}
