"""The commands of a consortium as its operator types them, from init to a day that it plays and its replay."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lmdb
import pytest
from faults_consortium import engines_missing, free_base_port

from gridpool.contracts import RULES
from gridpool.engines.network import read_network
from gridpool.ledger.chain import Ledger
from gridpool.ledger.view import height_key

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600), pytest.mark.slow]


def gridpool(*arguments: str | Path, code: int = 0, **environment: str) -> Any:
    """Run a command; returns what it prints as JSON, or its errors where it is to fail."""
    done = subprocess.run(
        [sys.executable, "-m", "gridpool", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


def processes_with(folder: Path) -> list[str]:
    """Return what runs with the folder on its command line, in its environment or as working directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            texts = [(entry / name).read_bytes() for name in ("cmdline", "environ")]
            here = os.fsencode(folder)
            if any(here in text for text in texts) or os.readlink(entry / "cwd").startswith(str(folder)):
                found.append(texts[0].replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def test_a_day_on_a_consortium_by_its_commands(tmp_path: Path) -> None:
    missing = engines_missing()
    if missing:
        pytest.skip(missing)
    net = tmp_path / "net"
    laid = ("--validators", "4", "--dir", net, "--base-port", str(free_base_port(12, 23)), "--market-clock", "ticks")
    assert gridpool("network", "init", *laid, "--json")["nodes"] == ["node0", "node1", "node2", "node3"]
    assert "exists" in gridpool("network", "init", *laid, code=1)
    try:
        started = gridpool("network", "start", net, "--json")
        assert started["engine"] == "cometbft"
        assert [(node["name"], node["up"]) for node in started["nodes"]] == [(f"node{i}", True) for i in range(4)]
        assert all(set(node) == {"name", "up", "height", "app_hash"} for node in started["nodes"])
        assert "running" in gridpool("network", "start", net, code=1)
        # Supervisor, application, engine, and what the application starts, each carries its home.
        assert len(processes_with(net)) >= 12
        loaded = gridpool("network", "load", net, "--rate", "20", "--seconds", "3", "--bundle", "5", "--json")
        assert set(loaded) >= {"submitted", "included", "refused", "tx_per_s", "calls_per_s", "p50_s", "p99_s"}
        assert loaded["included"] > 0
        day = tmp_path / "day"
        played = gridpool("day", "--network", net, "--prosumers", "12", "--out", day, "--json")
        assert played
        assert "measured from submission to receipt" in (day / "report.html").read_text()
        # Its clock keeper has signed a day's ticks; those of another would come out of order.
        again = ("--network", net, "--prosumers", "12", "--seed", "2", "--out", tmp_path / "again")
        assert "clock does not move: stale_delegation" in gridpool("day", *again, code=1)
        proof, trust = tmp_path / "proof.json", tmp_path / "trust.json"
        home = net / "node1"
        gridpool("ledger", "proof", home, "--key", "coins.supply", "coins", "--out", proof, "--json")
        gridpool("ledger", "trust", home, "--out", trust, "--json")
        assert gridpool("ledger", "check", proof, "--trust", trust, "--json")["ok"] is True
    finally:
        gridpool("network", "stop", net, "--json")
    assert processes_with(net) == []
    assert gridpool("ledger", "verify", net / "node2", "--json")["ok"] is True
    # The same blocks on the embedded core, under other seeds of hashing, another language and another time zone.
    replays = [
        gridpool("network", "replay", net, "--json", PYTHONHASHSEED=seed, LC_ALL=language, TZ=zone)
        for seed, language, zone in (("1", "C", "UTC"), ("4711", "tr_TR.UTF-8", "Pacific/Apia"))
    ]
    assert replays[0] == replays[1]
    assert replays[0]["ok"] is True
    assert set(replays[0]["nodes"]) == {"node0", "node1", "node2", "node3"}
    roots = set()
    for name in read_network(net).nodes:
        with Ledger.open(net / name / "ledger", RULES, writable=False) as ledger, ledger.view() as view:
            if view.height == replays[0]["height"]:
                roots.add(view.header(view.height).header.state_root.hex())
    assert roots == {replays[0]["state_root"]}
    alter_hash(net / "node2" / "ledger", 5)
    assert "node2 differs from the replay at height 5" in gridpool("network", "replay", net, code=3)


def alter_hash(path: Path, height: int) -> None:
    """Change a bit of the application hash that a stored header names."""
    with Ledger.open(path, RULES, writable=False) as ledger, ledger.view() as view:
        app_hash = view.header(height).header.app_hash
    environment = lmdb.open(str(path), max_dbs=32)
    headers = environment.open_db(b"header")
    with environment.begin(write=True) as transaction:
        data = transaction.get(height_key(height), db=headers)
        other = bytes([app_hash[0] ^ 1]) + app_hash[1:]
        transaction.put(height_key(height), data.replace(app_hash, other), db=headers)
    environment.close()
