"""The same commands against a node's HTTP face, on loopback."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from gridpool.agents import wallet_remote
from gridpool.agents.wallet_founding import found_consortium
from gridpool.agents.wallet_keys import WalletKeys, save_wallet
from gridpool.agents.wallet_remote import RemoteSession
from gridpool.cli import main
from gridpool.contracts import RULES, coins, members
from gridpool.contracts.members import FoundingMember, Role
from gridpool.engines.embedded import Embedded
from gridpool.errors import RefusedInput
from gridpool.gateway.node_api import Node, build_app

SEAT, HUB, TEAM = (WalletKeys(bytes([i]) * 32) for i in (1, 2, 3))


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    founders = [FoundingMember(HUB.certificate.public, "Hub", (Role.AGGREGATOR,))]
    founders += [FoundingMember(TEAM.wallet(n).public, f"Team {n}", (Role.TENANT,)) for n in range(7)]
    found_consortium(
        tmp_path / "home",
        chain="remote",
        seats=(SEAT.certificate.public,),
        threshold=1,
        founders=tuple(founders),
        clock=SEAT.certificate.public,
        start_ms=1_782_000_000_000,
    )
    save_wallet(tmp_path / "seat.wallet", SEAT)
    save_wallet(tmp_path / "hub.wallet", HUB)
    with Embedded.open(tmp_path / "home", RULES, interval_ms=20) as engine:
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(build_app(Node(engine, RULES)), log_level="warning", lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def test_commands_reach_a_node_by_its_address(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wallet_remote, "PAGE", 3)
    seat, hub = str(tmp_path / "seat.wallet"), str(tmp_path / "hub.wallet")

    def run(*arguments: str) -> dict:  # type: ignore[type-arg]
        main([*arguments, "--url", url, "--json"])
        return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]

    hub_address = HUB.certificate.public.hex()
    minted = run("council", "propose", "mint", "--to", hub_address, "--amount", "500", "--wallet", seat)
    assert minted["status"] == "done"
    assert run("wallet", "show", hub)["wallets"][0]["coins"] == 500
    sent = run("wallet", "send", hub, "--to", TEAM.wallet(0).public.hex(), "--amount", "20")
    assert sent["left"] == 480
    assert run("council", "list")["proposals"][0]["decision"] == "coins.mint"
    with RemoteSession(url) as session:
        wallets = [key for key, _ in session.state.scan(members.WALLETS)]
        assert len(wallets) == 8
        assert wallets == sorted(wallets)
        assert [key for key, _ in session.state.scan(members.WALLETS, reverse=True, limit=5)] == wallets[::-1][:5]
        assert [key for key, _ in session.state.scan(members.WALLETS, start=wallets[2])] == wallets[2:]
        assert session.state.get(coins.ACCOUNTS, bytes(32)) is None
        with pytest.raises(RefusedInput, match="not enough coins"):
            session.submit(HUB.certificate, coins.Transfer(TEAM.wallet(0).public, 481))
    with pytest.raises(SystemExit):
        main(["council", "list", "--url", "http://127.0.0.1:9"])
    assert "no node answers" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["council", "list", "--url", "file:///etc/passwd"])
    assert "no address of a node" in capsys.readouterr().err
