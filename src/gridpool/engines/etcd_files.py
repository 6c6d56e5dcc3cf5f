"""How an etcd member of a consortium is started."""

from pathlib import Path

from gridpool.engines.network import NodeFile

__all__ = ["etcd_command"]

QUOTA_BYTES = 8 << 30


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
        "--logger", "zap",
    )  # fmt: skip
