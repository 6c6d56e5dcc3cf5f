"""Two new members go from no key to a settled trade and a repaid loan, by commands alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gridpool.cli import main

START = "2026-06-21T10:00:00Z"
AT = "2026-06-21T10:15:00Z"
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def call(text: str, **words: str) -> dict[str, Any]:
        arguments = [words.get(part, part) for part in text.split()]
        main([*arguments, "--json"])
        return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]

    return call


@pytest.fixture
def fails(tmp_path: Path, capsys: pytest.CaptureFixture[str], run: Run) -> Callable[..., str]:
    def call(text: str, **words: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main([words.get(part, part) for part in text.split()])
        error = capsys.readouterr().err
        assert stop.value.code == 1, error
        assert error.count("\n") == 1
        return error

    return call


@pytest.fixture
def consortium(run: Run) -> dict[str, str]:
    """Council, hub, bank, back-stop and grid; Ann and Bob are admitted and hold coins."""
    keys = {}
    for name in ("seat1", "seat2", "hub", "bank", "stop", "grid", "ann", "bob"):
        keys[name] = run(f"wallet new {name}.wallet")["certificate"]
    run(
        "council found home --seat seat1.wallet --seat seat2.wallet --threshold 2 --clock seat1.wallet "
        "--member Hub:aggregator:hub.wallet --member Bank:bank:bank.wallet --member Stop:back_stop:stop.wallet "
        f"--member Grid:utility:grid.wallet --auditor seat2.wallet --start {START}"
    )
    for name in ("ann", "bob"):
        run(f"wallet apply {name}.wallet --identity {name} --aggregator {keys['hub']} --out {name}.json --home home")
    proposed = run(
        f"council propose admit ann.json bob.json --aggregator {keys['hub']} --wallet seat1.wallet --home home"
    )
    assert (proposed["proposal"], proposed["status"]) == (1, "open")
    assert run("council sign 1 --wallet seat2.wallet --home home")["status"] == "done"
    run("wallet register ann.json bob.json --wallet hub.wallet --home home")
    for name in ("ann", "bob"):
        keys[name + "0"] = run(f"wallet show {name}.wallet --home home")["wallets"][0]["address"]
    for to, amount in (("ann0", 200_000), ("bob0", 200_000), ("bank", 90_000_000), ("stop", 90_000_000)):
        shown = run(f"council propose mint --to {keys[to]} --amount {amount} --wallet seat1.wallet --home home")
        run(f"council sign {shown['proposal']} --wallet seat2.wallet --home home")
    return keys


def test_from_no_key_to_a_settled_trade_and_a_repaid_loan(run: Run, consortium: dict[str, str]) -> None:
    assert len(run("council list --home home")["proposals"]) == 5
    # the bank lends to whoever had income: Ann sells something first
    run(f"energy tags --wallet hub.wallet --interval {AT} --home home")
    bought = run(
        f"energy order --wallet bob.wallet --side buy --quantity 500 --price 200000 --interval {AT} --home home"
    )
    sold = run(
        f"energy order --wallet ann.wallet --side sell --quantity 400 --price 150000 --interval {AT} --home home"
    )
    assert (bought["serial"], sold["serial"]) == (0, 1)
    run(f"energy replace --wallet bob.wallet --interval {AT} --serial 0 --quantity 400 --price 200000 --home home")
    assert [row["serial"] for row in run(f"energy orders --interval {AT} --home home")["orders"]] == [1, 2]
    run("council advance --to 2026-06-21T10:10:00Z --wallet seat1.wallet --home home")
    (trade,) = run("energy trades --home home")["trades"]
    assert (trade["quantity_wh"], trade["price"], trade["status"]) == (400, 175_000, "held")
    run("council advance --to 2026-06-21T10:30:00Z --wallet seat1.wallet --home home")
    Path("ann.csv").write_text(f"interval,import_wh,export_wh\n{AT},0,400\n")
    Path("bob.csv").write_text(f"interval,import_wh,export_wh\n{AT},400,0\n")
    for name in ("ann", "bob"):
        assert run(f"meter submit {name}.csv --wallet {name}.wallet --home home")["readings"] == 1
    run("council advance --to 2026-06-21T11:30:00Z --wallet seat1.wallet --home home")
    run(f"energy countersign --wallet bob.wallet --interval {AT} --home home")
    invoice = run("invoice --wallet ann.wallet --home home")
    assert [(line["line"], line["amount"], line["status"]) for line in invoice["lines"]] == [
        ("energy sold", -70_000, "paid")
    ]
    assert run("wallet show ann.wallet --home home")["wallets"][0]["coins"] == 270_000

    loan = run(f"loan request --wallet ann.wallet --bank {consortium['bank']} --demand 1000 --home home")["loan"]
    offered = run(f"loan offer {loan} --wallet bank.wallet --home home")
    assert offered["status"] == "offered"
    taken = run(f"loan accept {loan} --wallet ann.wallet --home home")
    assert taken["token_balance"] == taken["amount"] > 0
    run(f"loan pay {loan} --wallet ann.wallet --to {consortium['bob0']} --amount 1000 --home home")
    run(f"loan repay {loan} --wallet ann.wallet --from-token --home home")
    repaid = run(f"loan repay {loan} --wallet ann.wallet --home home")
    assert (repaid["status"], repaid["outstanding"]) == ("repaid", 0)
    assert repaid["paid"] == repaid["amount"] + repaid["interest"]
    assert run("loan show --wallet bank.wallet --home home")["loans"][0]["status"] == "repaid"
    run(f"wallet send ann.wallet --to {consortium['bob0']} --amount 5 --home home")
    assert run("ledger verify home")["ok"]


def test_backup_on_paper_brings_the_same_keys_back(run: Run, fails: Callable[..., str]) -> None:
    made = run("wallet new ann.wallet")
    rows = run("wallet backup ann.wallet")["rows"]
    Path("paper.txt").write_text("\n".join(rows))
    assert run("wallet restore again.wallet --rows paper.txt")["certificate"] == made["certificate"]
    assert "exists" in fails("wallet restore again.wallet --rows paper.txt")
    Path("paper.txt").write_text("\n".join([rows[0].replace(rows[0][2], "Z" if rows[0][2] != "Z" else "Y"), *rows[1:]]))
    assert "row 1" in fails("wallet restore third.wallet --rows paper.txt")
    assert not Path("third.wallet").exists()


def test_lost_wallet_is_recovered_and_a_member_banned(run: Run, consortium: dict[str, str]) -> None:
    shown = run(
        f"council propose ban --member {consortium['ann']} --until 2027-01-01T00:00:00Z --why unpaid "
        "--auditor seat2.wallet --wallet seat1.wallet --home home"
    )
    assert shown["decision"] == "members.ban_member"
    run(f"council sign {shown['proposal']} --wallet seat2.wallet --home home")
    assert run("wallet show ann.wallet --home home")["wallets"][0]["banned"]

    lost = consortium["bob0"]
    run("wallet new bob-new.wallet")
    run(f"wallet consent bob-new.wallet --lost {lost} --wallet hub.wallet --home home")
    shown = run(f"council propose recover --lost {lost} --wallet seat1.wallet --home home")
    run(f"council sign {shown['proposal']} --wallet seat2.wallet --home home")
    assert run("wallet show bob-new.wallet --home home")["wallets"][0]["coins"] == 200_000
    assert run("wallet show bob.wallet --home home")["wallets"][0]["coins"] == 0


def test_bad_input_is_one_line_and_changes_nothing(
    run: Run, fails: Callable[..., str], consortium: dict[str, str]
) -> None:
    assert "either --home DIR or --url URL" in fails("council list")
    assert "no node's home" in fails("wallet send ann.wallet --to " + consortium["bob0"] + " --amount 1 --home nowhere")
    assert "64 hexadecimal digits" in fails("wallet send ann.wallet --to 12 --amount 1 --home home")
    assert "no key that anybody" in fails("wallet send ann.wallet --to " + "0" * 64 + " --amount 1 --home home")
    send = f"wallet send ann.wallet --to {consortium['bob0']} --home home --amount "
    assert "not enough coins" in fails(send + "999999999")
    assert "out of range" in fails(send + "-5")
    order = f"energy order --wallet ann.wallet --side buy --quantity 1 --price 1 --home home --interval {AT}"
    assert "tag missing" in fails(order)
    assert "no time" in fails(order.replace(AT, "noon"))
    assert "no proposal 99" in fails("council sign 99 --wallet seat1.wallet --home home")
    assert "not of the council" in fails("council sign 1 --wallet ann.wallet --home home")
    assert "no loan" in fails("loan show " + "ab" * 32 + " --home home")
    assert "already" in fails("council found home --seat seat1.wallet")
    assert "no founding member" in fails("council found other --seat seat1.wallet --member Hub")
    assert "cannot decide" in fails("council found other --seat seat1.wallet --threshold 2")
    Path("bad.json").write_text('["members.nothing"]')
    assert "no decision" in fails("council propose file bad.json --wallet seat1.wallet --home home")
    Path("rule.json").write_text('["members.set_council_rule", 1, 604800000]')
    number = run("council propose file rule.json --wallet seat1.wallet --home home")["proposal"]
    run(f"council sign {number} --wallet seat2.wallet --home home")
    assert run("council list --home home")["threshold"] == 1
