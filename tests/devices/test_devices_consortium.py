"""Devices of a consortium: they trust the genesis validators and follow the engine's commits, no single node's word.

``cases/consortium`` was recorded from four real validators; the test marked ``engine`` plays the same on new ones.
"""

import base64
import copy
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gridpool.agents.access_credential import Credentials, Distrusted
from gridpool.agents.consortium import init_network
from gridpool.agents.device_channel import SocketStream, open_channel
from gridpool.agents.device_folder import open_device
from gridpool.agents.device_issuance import provision, settle_receipts
from gridpool.agents.device_service import Service, fetch_file
from gridpool.agents.device_units import FileUnits
from gridpool.agents.network_council import Council
from gridpool.agents.wallet_keys import WalletKeys, save_wallet
from gridpool.contracts.coins import Mint, Payment
from gridpool.contracts.members import Admit, NewMember, Role
from gridpool.engines.cometbft import find_cometbft
from gridpool.engines.network import start_network, stop_network
from gridpool.errors import MissingComponent, RefusedInput
from gridpool.ledger.keys import KeyPair

CASE = Path(__file__).parent / "cases" / "consortium"
DAY = 86_400_000
BASE_PORT = 26_100


def recorded(name: str) -> dict[str, Any]:
    return json.loads((CASE / name).read_bytes())  # type: ignore[no-any-return]


def checked(credential: dict[str, Any], trust: dict[str, Any]) -> Any:
    data = json.dumps(credential).encode()
    return Credentials(trust).check(data, bytes.fromhex(credential["wallet"]))


def test_a_device_follows_the_validators_from_the_genesis_to_a_wallet() -> None:
    trust, credential = recorded("trust.json"), recorded("ann.json")
    assert trust["signer"] is None
    assert "signature" not in credential
    standing = checked(credential, trust)
    assert (standing.roles, standing.wallet.hex()) == (("utility",), credential["wallet"])
    assert standing.check_now(standing.header_ms + 1_000, DAY) >= standing.market_ms
    with pytest.raises(Distrusted, match="s old"):
        standing.check_now(standing.header_ms + DAY + 1, DAY)


def false_hash(credential: dict[str, Any]) -> None:
    credential["steps"][-1]["header"]["app_hash"] = "00" * 32


def two_signatures_less(credential: dict[str, Any]) -> None:
    for entry in credential["steps"][-1]["commit"]["signatures"][:2]:
        entry["block_id_flag"] = 1


def own_validators(credential: dict[str, Any]) -> None:
    for entry in credential["steps"][-1]["validators"]:
        entry["key"] = base64.b64encode(KeyPair(os.urandom(32)).public).decode()


def another_height(credential: dict[str, Any]) -> None:
    height = credential["steps"][-1]["header"]["height"]
    credential["steps"][-1]["header"]["height"] = str(int(height) + 1)


def no_steps(credential: dict[str, Any]) -> None:
    del credential["steps"]


def a_signature_instead(credential: dict[str, Any]) -> None:
    del credential["steps"]
    credential["signature"] = base64.b64encode(bytes(64)).decode()


def another_header(credential: dict[str, Any]) -> None:
    raw = bytearray(base64.b64decode(credential["header"]))
    raw[-40] ^= 1
    credential["header"] = base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    "forge",
    [false_hash, two_signatures_less, own_validators, another_height, no_steps, a_signature_instead, another_header],
)
def test_forged_steps_prove_no_wallet(forge: Callable[[dict[str, Any]], None]) -> None:
    credential = copy.deepcopy(recorded("ann.json"))
    forge(credential)
    with pytest.raises(Distrusted, match="does not hold"):
        checked(credential, recorded("trust.json"))


def test_a_consortium_of_other_validators_proves_nothing() -> None:
    trust = recorded("trust.json")
    for entry in trust["validators"]:
        entry["key"] = base64.b64encode(KeyPair(os.urandom(32)).public).decode()
    with pytest.raises(Distrusted, match="third of the power trusted"):
        checked(recorded("ann.json"), trust)


def test_two_recorded_devices_open_a_channel_offline() -> None:
    trust, names = recorded("trust.json"), ("ann", "bob")
    shown = {name: json.dumps(recorded(f"{name}.json")).encode() for name in names}
    keys = {name: KeyPair(bytes.fromhex(recorded("keys.json")[name])) for name in names}
    at = checked(recorded("ann.json"), trust).header_ms
    ends = dict(zip(names, socket.socketpair(), strict=True))
    peers: dict[str, bytes] = {}

    def side(name: str) -> None:
        stream = SocketStream(ends[name], timeout_s=10)
        channel = open_channel(
            stream, keys[name], shown[name], Credentials(trust), client=name == "ann", now_ms=at, max_age_ms=DAY
        )
        peers[name] = channel.peer.wallet

    threads = [threading.Thread(target=side, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for end in ends.values():
        end.close()
    assert peers == {"ann": keys["bob"].public, "bob": keys["ann"].public}


@pytest.fixture
def network(tmp_path: Path, worker_id: str) -> Iterator[Path]:
    try:
        find_cometbft()
    except MissingComponent as missing:
        pytest.skip(str(missing))
    folder = tmp_path / "net"
    offset = 0 if worker_id == "master" else 40 * int(worker_id.removeprefix("gw"))
    init_network(folder, base_port=BASE_PORT + offset)
    try:
        start_network(folder)
        yield folder
    finally:
        stop_network(folder)


@pytest.mark.engine
def test_devices_of_a_running_consortium_trade_offline_and_settle(network: Path, tmp_path: Path) -> None:
    """Credentials come from two nodes, one by HTTP and one from its home; then no node is asked until settling."""
    wallets = {name: WalletKeys.generate() for name in ("ann", "bob")}
    publics = {name: keys.certificate.public for name, keys in wallets.items()}
    for name, keys in wallets.items():
        save_wallet(tmp_path / f"{name}.wallet", keys)
    Council(network).decide(
        Admit(
            tuple(
                NewMember(public, name, (Role.UTILITY,), public_wallets=(public,)) for name, public in publics.items()
            )
        ),
        Mint((Payment(publics["ann"], 10_000),), "test"),
    )
    ports = [json.loads((network / f"node{i}" / "node.json").read_bytes())["ports"]["http"] for i in range(2)]
    url = f"http://127.0.0.1:{ports[0]}"
    car, charger = tmp_path / "car", tmp_path / "charger"
    made = provision(car, tmp_path / "ann.wallet", None, url=url, deposit=5_000, payee=publics["bob"].hex())
    assert (made.deposit, made.roles) == (1, ["utility"])
    provision(charger, tmp_path / "bob.wallet", None, home=network / "node1")
    trust = json.loads((car / "trust.json").read_bytes())
    assert (trust["signer"], len(trust["validators"])) == (None, 4)
    content = os.urandom(50_000)
    (tmp_path / "map.bin").write_bytes(content)
    units = {"map.bin": FileUnits(tmp_path / "map.bin", unit_bytes=10_000, price=7)}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        service = Service(open_device(charger), units, listener)
        serving = threading.Thread(target=service.run, args=(2,))
        serving.start()
        address = ("127.0.0.1", listener.getsockname()[1])
        done = fetch_file(open_device(car), address, tmp_path / "copy", pay_most=100)
        assert (tmp_path / "copy").read_bytes() == content
        assert done.exchanged.total == 35
        stranger = copy.deepcopy(trust)
        stranger["validators"] = trust["validators"][:1]
        stranger["validators"][0]["key"] = base64.b64encode(KeyPair(os.urandom(32)).public).decode()
        (car / "trust.json").write_text(json.dumps(stranger))
        with pytest.raises(RefusedInput, match="third of the power trusted"):
            open_device(car)
        (car / "trust.json").write_text(json.dumps(trust))
        with pytest.raises(RefusedInput, match="cost more"):
            fetch_file(open_device(car), address, tmp_path / "again", pay_most=1)
        serving.join(20)
    assert [row["total"] for row in settle_receipts(charger, url=url)] == [35]
