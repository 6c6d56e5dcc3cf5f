"""How an etcd member of a consortium is started."""

from pathlib import Path

from gridpool.engines.network import NodeFile

__all__ = ["etcd_command"]

QUOTA_BYTES = 8 << 30
COMPACTED_AFTER = "10m"
"""Room of what was deleted is used again this long afterwards."""
HEARTBEAT_MS = 60
ELECTION_MS = 600
"""The members are hosts of one organisation, near each other: a dead leader costs less than etcd's own second."""


def etcd_command(binary: Path, home: Path, node: NodeFile) -> tuple[str, ...]:
    """Return the command that runs a node's etcd; all its data lies in ``home/etcd``."""
    own = f"http://{node.ports.host}"
    return (
        str(binary),
        "--name", node.name,
        "--data-dir", str(home / "etcd"),
        "--listen-client-urls", f"{own}:{node.ports.rpc}",
        "--advertise-client-urls", f"{own}:{node.ports.rpc}",
        "--listen-peer-urls", f"{own}:{node.ports.p2p}",
        "--initial-advertise-peer-urls", dict(node.cluster)[node.name],
        "--initial-cluster", ",".join(f"{name}={url}" for name, url in node.cluster),
        "--initial-cluster-token", node.chain,
        "--initial-cluster-state", "existing" if node.joins else "new",
        "--quota-backend-bytes", str(QUOTA_BYTES),
        "--auto-compaction-mode", "periodic",
        "--auto-compaction-retention", COMPACTED_AFTER,
        "--heartbeat-interval", str(HEARTBEAT_MS),
        "--election-timeout", str(ELECTION_MS),
        "--logger", "zap",
    )  # fmt: skip
