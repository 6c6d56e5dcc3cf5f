"""A validator gets another weight, and another key; a mempool is flooded at ten times its size."""

import base64
import http.client
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from faults_consortium import Consortium, engines_missing

from gridpool.agents.load import funded_wallets
from gridpool.agents.network_council import Council
from gridpool.contracts.coins import Transfer
from gridpool.contracts.validators import NameValidator
from gridpool.engines.cometbft_files import validator_address, validator_key
from gridpool.engines.cometbft_rpc import BroadcastResult, Rpc
from gridpool.engines.network import NodeFile, node_file_at
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.transaction import sign

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180), pytest.mark.slow]

MEMPOOL = 200
CONNECTIONS = 8
"""The 200 wallets divide by it, so that each wallet's transactions keep their order."""


def node_of(net: Consortium, number: int) -> NodeFile:
    node = node_file_at(net.home(number))
    assert node is not None
    return node


def powers(rpc: Rpc) -> dict[bytes, int]:
    listed = rpc.call("validators")["validators"]
    return {base64.b64decode(entry["pub_key"]["value"]): int(entry["voting_power"]) for entry in listed}


def post(node: NodeFile, wire: bytes) -> tuple[int, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", node.ports.http, timeout=10)
    body = msgspec.json.encode({"transaction": base64.b64encode(wire).decode()})
    connection.request("POST", "/tx", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers["Retry-After"]


def broadcast_by_many(node: NodeFile, wires: list[bytes]) -> list[BroadcastResult]:
    """Broadcast over many connections at once: the consortium takes as much as a single one hands over."""

    def broadcast(part: list[bytes]) -> list[BroadcastResult]:
        rpc = Rpc(node.ports.rpc)
        try:
            return rpc.broadcast(part)
        finally:
            rpc.close()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return [
            answer
            for answers in pool.map(broadcast, [wires[first::CONNECTIONS] for first in range(CONNECTIONS)])
            for answer in answers
        ]


def keep_full(node: NodeFile, wallets: list[KeyPair], stop: threading.Event) -> None:
    rpc = Rpc(node.ports.rpc)
    while not stop.is_set():
        nonce = time.time_ns() // 1_000
        rpc.broadcast(
            [sign(key, node.chain, nonce, 2**62, [Transfer(wallets[0].public, 1)]).wire for key in wallets[1:]]
        )
    rpc.close()


def resident_kb(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


def test_validator_is_reweighted_and_given_another_key(consortium: Consortium) -> None:
    council = Council(consortium.folder)
    old = validator_key(consortium.home(3) / "cometbft")
    organisation = council.organisation_of(old)
    rpc = Rpc(node_of(consortium, 0).ports.rpc)
    council.decide(NameValidator(old, organisation, 25))
    consortium.await_blocks(4, within_s=30)
    assert powers(rpc)[old] == 25
    # With 25 of 55 away nothing could be decided: a key is changed at a weight that the others can do without.
    council.decide(NameValidator(old, organisation, 10))
    consortium.await_blocks(4, within_s=30)
    consortium.end(3)
    new = KeyPair.generate()
    key = {
        "address": validator_address(new.public).hex().upper(),
        "pub_key": {"type": "tendermint/PubKeyEd25519", "value": base64.b64encode(new.public).decode()},
        "priv_key": {"type": "tendermint/PrivKeyEd25519", "value": base64.b64encode(new.seed + new.public).decode()},
    }
    config = consortium.home(3) / "cometbft" / "config"
    (config / "priv_validator_key.json").write_bytes(msgspec.json.encode(key))
    consortium.restart(3)
    consortium.await_blocks(2, within_s=40)
    council.decide(NameValidator(old, organisation, 0), NameValidator(new.public, organisation, 10))
    consortium.await_blocks(5, within_s=30)
    held = powers(rpc)
    assert set(held.values()) == {10}
    assert len(held) == 4
    assert new.public in held
    assert old not in held
    address = validator_address(new.public).hex().upper()
    signers: set[str] = set()
    end = time.monotonic() + 15
    while address not in signers and time.monotonic() < end:
        commit = rpc.call("commit")["signed_header"]["commit"]
        signers = {entry["validator_address"] for entry in commit["signatures"]}
        time.sleep(0.1)
    assert address in signers, "the new key does not vote"
    rpc.close()
    consortium.assert_sound()


def test_flood_at_ten_times_the_mempool_is_pushed_back_without_growth(tmp_path: Path) -> None:
    if engines_missing():
        pytest.skip(engines_missing())
    net = Consortium(tmp_path / "net", offset=11)
    for number in range(4):
        config = net.home(number) / "cometbft" / "config" / "config.toml"
        text = config.read_text()
        assert "\nsize = 20000\n" in text
        config.write_text(text.replace("\nsize = 20000\n", f"\nsize = {MEMPOOL}\n"))
    try:
        net.start()
        nodes = [node_of(net, number) for number in range(4)]
        wallets = funded_wallets(net.folder, nodes)
        rpc = Rpc(nodes[1].ports.rpc)
        (application,) = net.pids(1, "application")
        before = resident_kb(application)
        nonce = time.time_ns() // 1_000
        wires = [
            sign(
                wallets[i % len(wallets)], nodes[0].chain, nonce + i, 2**62, [Transfer(wallets[i % 7 - 8].public, 1)]
            ).wire
            for i in range(10 * MEMPOOL)
        ]
        answers = broadcast_by_many(nodes[1], wires)
        codes = {answer.codespace for answer in answers if answer.code}
        taken = sum(answer.code == 0 for answer in answers)
        assert "overloaded" in codes
        assert 0 < taken < len(wires)
        waiting = int(rpc.call("num_unconfirmed_txs")["total"])
        assert waiting <= MEMPOOL
        # The HTTP face passes the code on and says when to come again: one request while another floods.
        stop = threading.Event()
        flood = threading.Thread(target=keep_full, args=(nodes[1], wallets, stop), daemon=True)
        flood.start()
        end = time.monotonic() + 15
        status, retry = 0, None
        while status != 503 and time.monotonic() < end:
            wire = sign(
                wallets[0], nodes[0].chain, time.time_ns() // 1_000, 2**62, [Transfer(wallets[1].public, 1)]
            ).wire
            status, retry = post(nodes[1], wire)
        stop.set()
        flood.join()
        assert status == 503
        assert retry is not None
        assert resident_kb(application) - before < 100_000
        rpc.close()
        net.assert_sound()
        end = time.monotonic() + 30
        rpc = Rpc(nodes[1].ports.rpc)
        while int(rpc.call("num_unconfirmed_txs")["total"]):
            assert time.monotonic() < end, "the mempool does not empty"
            time.sleep(0.2)
        rpc.close()
    finally:
        net.stop()
