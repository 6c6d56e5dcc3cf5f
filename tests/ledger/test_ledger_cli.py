"""``gridpool ledger`` as its users call it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_ledger_chain import alter, grow
from toy_contract import ALICE, BOB, GENESIS, NODE, TOY, Add, signed

from gridpool import contracts
from gridpool.cli import main
from gridpool.engines.embedded import Embedded

Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def ask(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Ask:
    monkeypatch.setattr(contracts, "RULES", TOY, raising=False)

    def call(*arguments: object) -> tuple[int, dict[str, Any]]:
        code = 0
        try:
            main(["ledger", *(str(a) for a in arguments), "--json"])
        except SystemExit as done:
            code = int(done.code or 0)
        out = capsysbinary.readouterr().out
        return code, msgspec.json.decode(out) if out else {}

    return call


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    with Embedded.create(path, GENESIS, TOY, key=NODE, interval_ms=None) as engine:
        engine.submit(signed(ALICE, 1, Add("a", 1)).wire)
        engine.submit(signed(BOB, 1, Add("b", 13)).wire)
        engine.seal(2_000)
        grow(engine.ledger, signed(ALICE, 2, Add("a", 4)).wire)
    return path


def test_verify_accepts_home_and_ledger(ask: Ask, home: Path) -> None:
    for path in (home, home / "ledger"):
        code, said = ask("verify", path)
        assert code == 0
        assert said["ok"] is True
        assert (said["height"], said["transactions"], len(said["app_hash"])) == (2, 3, 64)


def test_verify_exits_3_and_names_the_fault(ask: Ask, home: Path) -> None:
    alter(home / "ledger", "body", (1).to_bytes(8, "big"), b"\x90")
    code, said = ask("verify", home)
    assert code == 3
    assert said["ok"] is False
    assert said["fault"] == {"height": 1, "table": "body", "key": "1"}


def test_show_block_transaction_account(ask: Ask, home: Path) -> None:
    code, block = ask("show", home, "--height", 1)
    assert code == 0
    assert block["height"] == 1
    assert block["transactions"] == [signed(ALICE, 1, Add("a", 1)).id.hex(), signed(BOB, 1, Add("b", 13)).id.hex()]
    code, shown = ask("show", home, "--tx", block["transactions"][0])
    assert code == 0
    assert shown["calls"] == [{"type": "counter.add", "name": "a", "number": 1}]
    assert shown["events"] == [{"type": "counter.added", "name": "a", "number": 1}]
    code, account = ask("show", home, "--account", ALICE.public.hex())
    assert code == 0
    assert account["nonce"] == 2
    assert [t["height"] for t in account["transactions"]] == [1, 2]
    code, shown = ask("show", home)
    assert shown["height"] == 2
    assert shown["tables"]["counter.count"] == 1


@pytest.mark.parametrize(
    "arguments",
    [("show", "--height", 99), ("show", "--tx", "00"), ("show", "--account", "zz"), ("show", "--tx", "00" * 32)],
)
def test_bad_requests_exit_1(ask: Ask, home: Path, arguments: tuple[Any, ...]) -> None:
    assert ask(arguments[0], home, *arguments[1:]) == (1, {})


def test_missing_ledger_exits_1(ask: Ask, tmp_path: Path) -> None:
    assert ask("verify", tmp_path / "none") == (1, {})
    assert ask("show", tmp_path) == (1, {})
