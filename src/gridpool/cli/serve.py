"""``gridpool serve``: run a node and its HTTP face."""

import ipaddress
import signal
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gridpool.cli.output import note
from gridpool.errors import RefusedInput

__all__ = ["serve"]


def serve(
    *,
    home: Path,
    listen: str = "127.0.0.1:8470",
    interval_ms: int = 200,
    max_transactions: int = 2_000,
    read_model: str | None = None,
    application: Annotated[bool, Parameter(show=False, negative="")] = False,
) -> None:
    """Run a node until it is interrupted: its engine, and an HTTP face on loopback by default.

    Example: ``gridpool serve --home out/day --listen 127.0.0.1:8470``

    Parameters
    ----------
    home
        The node's home (a day's folder is one).
    listen
        Address and port of the HTTP face; port 0 takes a free one and prints it.
    interval_ms
        Most milliseconds between two blocks while transactions wait.
    max_transactions
        Most transactions in a block.
    read_model
        SQLAlchemy URL of the read model's database; by default SQLite in the home.
    application
        Run only the application of a consortium's node; its supervisor says so.
    """
    from gridpool.engines.network import node_file_at

    node = node_file_at(home)
    if node is not None:
        from gridpool.gateway.node_process import run_application, supervise

        (run_application if application else supervise)(home, node)
        return
    from gridpool import contracts
    from gridpool.engines.embedded import Embedded
    from gridpool.gateway.node_api import Node, build_app
    from gridpool.gateway.read_model import ReadModel
    from gridpool.gateway.server import build_server

    host, port = _address(listen)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the engine is closed on the way out
    if interval_ms < 1 or max_transactions < 1:
        raise RefusedInput("--interval-ms and --max-transactions are at least 1")
    with Embedded.open(home, contracts.RULES, interval_ms=interval_ms, max_transactions=max_transactions) as engine:
        url = read_model or f"sqlite:///{home / 'read-model.sqlite'}"
        projected = ReadModel(url, contracts.RULES)
        try:
            projected.follow(engine)
            app = build_app(Node(engine, contracts.RULES, home=home, read_model=projected))
            server = build_server(app, host=host, port=port)
            with server.config.bind_socket() as bound:
                bound.listen(2_048)  # from the line below on, a client may connect
                name, taken = bound.getsockname()[:2]
                note(f"gridpool node at http://{name}:{taken}, height {engine.height}; stop it with Ctrl-C")
                server.run(sockets=[bound])
        finally:
            projected.close()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or not 0 <= int(port) < 65_536:
        raise RefusedInput(f"--listen {text!r}: give HOST:PORT, such as 127.0.0.1:8470")
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise RefusedInput(f"--listen {text!r}: the host is an address or localhost") from None
    return host, int(port)
