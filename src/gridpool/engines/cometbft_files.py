"""The files CometBFT wants in a node's home: configuration, genesis, keys."""

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gridpool.engines.abci.application import write_app_state
from gridpool.errors import RefusedInput
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair

__all__ = ["Ports", "node_id", "node_key_id", "validator_address", "validator_key", "write_files"]


class Ports(msgspec.Struct, frozen=True):
    """Where a node listens: for peers on ``host``; the engine's RPC and the HTTP face always on loopback."""

    p2p: int
    rpc: int
    http: int
    host: str = "127.0.0.1"


def validator_address(key: bytes) -> bytes:
    """Return the 20-byte address by which CometBFT knows a validator's Ed25519 key."""
    return hashlib.sha256(key).digest()[:20]


def node_id(key: bytes) -> str:
    """Return the identifier of a node by its Ed25519 key."""
    return validator_address(key).hex()


def validator_key(home: Path) -> bytes:
    """Return the public key with which a CometBFT home's validator signs."""
    return _secret(home / "config" / "priv_validator_key.json").public


def node_key_id(home: Path) -> str:
    """Return the node identifier of a CometBFT home."""
    return node_id(_secret(home / "config" / "node_key.json").public)


def write_files(
    home: Path,
    genesis: Genesis,
    *,
    validator: KeyPair | None,
    node: KeyPair,
    ports: Ports,
    peers: Sequence[str],
    socket: Path,
    state_sync: str = "",
) -> None:
    """Write ``home/config`` and ``home/data``; key files are readable by their owner alone.

    ``peers`` are ``id@host:port``. ``validator`` is None for a node that follows without a vote. ``state_sync`` is
    the body of the configuration's section of that name, where the node is to start from a snapshot.
    """
    (home / "config").mkdir(parents=True)
    (home / "data").mkdir()
    loopback = ports.host.startswith("127.") or ports.host == "localhost"
    (home / "config" / "config.toml").write_text(
        CONFIG.format(
            moniker=home.parent.name,
            proxy=f"unix://{socket}",
            rpc=f"tcp://127.0.0.1:{ports.rpc}",
            p2p=f"tcp://{ports.host if loopback else '0.0.0.0'}:{ports.p2p}",
            peers=",".join(peers),
            strict="false" if loopback else "true",
            duplicates="true" if loopback else "false",
            state_sync=state_sync or "enable = false",
        ),
        encoding="utf-8",
    )
    _write_json(home / "config" / "genesis.json", _genesis_document(genesis), mode=0o644)
    _write_json(home / "config" / "node_key.json", {"priv_key": _private(node)})
    # A node without a vote still needs a key file; it signs nothing, for no validator set holds its key.
    voter = validator or KeyPair.generate()
    document = {
        "address": validator_address(voter.public).hex().upper(),
        "pub_key": _public(voter.public),
        "priv_key": _private(voter),
    }
    _write_json(home / "config" / "priv_validator_key.json", document)
    _write_json(home / "data" / "priv_validator_state.json", {"height": "0", "round": 0, "step": 0})


def _secret(path: Path) -> KeyPair:
    try:
        document = msgspec.json.decode(path.read_bytes())
        return KeyPair(base64.b64decode(document["priv_key"]["value"])[:32])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RefusedInput(f"{path} is no key file of CometBFT: {error}") from None


def _genesis_document(genesis: Genesis) -> dict[str, object]:
    # With market time by ticks, genesis' own time is that of the market and says nothing of the engine's clock.
    moment = datetime.fromtimestamp(genesis.time_ms / 1000, tz=UTC) if genesis.market_clock == "block" else EPOCH
    return {
        "genesis_time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "chain_id": genesis.chain,
        "initial_height": "1",
        "consensus_params": {
            "block": {"max_bytes": str(4 << 20), "max_gas": "-1"},
            "evidence": {"max_age_num_blocks": "100000", "max_age_duration": "172800000000000", "max_bytes": "1048576"},
            "validator": {"pub_key_types": ["ed25519"]},
            "version": {"app": "0"},
            "abci": {"vote_extensions_enable_height": "0"},
        },
        "validators": [
            {
                "address": validator_address(key).hex().upper(),
                "pub_key": _public(key),
                "power": str(power),
                "name": "",
            }
            for key, power in genesis.validators
        ],
        "app_hash": "",
        "app_state": write_app_state(genesis),
    }


def _public(key: bytes) -> dict[str, str]:
    return {"type": "tendermint/PubKeyEd25519", "value": base64.b64encode(key).decode("ascii")}


def _private(pair: KeyPair) -> dict[str, str]:
    return {"type": "tendermint/PrivKeyEd25519", "value": base64.b64encode(pair.seed + pair.public).decode("ascii")}


def _write_json(path: Path, document: Mapping[str, object], mode: int = 0o600) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


EPOCH = datetime(2025, 1, 1, tzinfo=UTC)

CONFIG = """\
# Written by gridpool; keys that are left out have CometBFT's defaults.
proxy_app = "{proxy}"
moniker = "{moniker}"
db_backend = "goleveldb"
# At level info, consensus and state write 1.4 kB a block: 120 MB a day without any transaction.
log_level = "consensus:error,state:error,*:info"
log_format = "plain"
abci = "socket"
# The application says which peers are members' nodes.
filter_peers = true

[rpc]
laddr = "{rpc}"
max_open_connections = 200
max_body_bytes = 8000000
max_request_batch_size = 1000
timeout_broadcast_tx_commit = "10s"

[p2p]
laddr = "{p2p}"
persistent_peers = "{peers}"
addr_book_strict = {strict}
allow_duplicate_ip = {duplicates}
pex = false
flush_throttle_timeout = "10ms"
send_rate = 50000000
recv_rate = 50000000
max_packet_msg_payload_size = 10240

[mempool]
size = 20000
# Three times the mempool. Go's map of 100,000 entries that come and go grows by half again, and does so only after some
# three million transactions; one of 60,000 has its final size, which is less, after one million.
cache_size = 60000
max_txs_bytes = 67108864
max_tx_bytes = 524288
recheck = true

[statesync]
{state_sync}

[consensus]
timeout_commit = "200ms"
# How long a proposer that is down holds up its turn; each further round gives the next one more. Where a full block
# (4 MB) takes longer between two members, raise it on every node alike.
timeout_propose = "400ms"
timeout_propose_delta = "200ms"
timeout_prevote = "200ms"
timeout_prevote_delta = "200ms"
timeout_precommit = "100ms"
timeout_precommit_delta = "100ms"
# How often there is a block without transactions all the same is said by idle_s in node.json.
create_empty_blocks = false
peer_gossip_sleep_duration = "20ms"
peer_query_maj23_sleep_duration = "500ms"

[storage]
discard_abci_responses = false

[tx_index]
indexer = "null"

[instrumentation]
prometheus = false
"""
