"""A whole day: its figures, its books, its determinism, and what the scripted event does to settlement."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pyarrow.parquet
import pytest

from gridpool.cli import main
from gridpool.contracts import RULES, coins
from gridpool.contracts.energy_settlement import BILLS
from gridpool.day import play_day, read_scenario
from gridpool.day.results import DayResult
from gridpool.ledger.chain import Ledger

FIELDS = [
    "feeder",
    "seed",
    "intervals",
    "served_share",
    "score",
    "energy_traded_wh",
    "trades",
    "loans",
    "loans_late",
    "transactions",
    "height",
    "app_hash",
    "verified",
    "coins_minted",
    "coins_redeemed",
    "coins_held",
    "report",
]
SMALL = ["--prosumers", "6", "--seed", "5"]


def small(**chosen: object) -> object:
    return read_scenario(None, prosumers__count=6, seed=5, **chosen)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A day of six prosumers."""
    out = tmp_path_factory.mktemp("played") / "day"
    play_day(small(), out)
    return out


@pytest.fixture(scope="module")
def result(played: Path) -> DayResult:
    return msgspec.json.decode((played / "results.json").read_bytes(), type=DayResult)


def test_headline_has_every_field_and_the_books_balance(result: DayResult) -> None:
    head = msgspec.to_builtins(result.headline)
    assert set(FIELDS) <= set(head)
    assert head["verified"] is True
    assert head["intervals"] == 96
    assert 0 < head["served_share"] <= 1
    assert 0 < head["score"] <= 1
    assert head["coins_held"] == head["coins_minted"] - head["coins_redeemed"]
    assert len(bytes.fromhex(head["app_hash"])) == 32
    assert result.conservation["coins_unaccounted_for"] == 0
    assert result.conservation["wh_unaccounted_for"] == 0
    assert result.conservation["wh_metered_in_by_members"] > 0


def test_tables_are_tidy_and_agree_with_the_headline(played: Path, result: DayResult) -> None:
    rows = {name: list(csv.DictReader((played / f"{name}.csv").open())) for name in ("intervals", "trades", "accounts")}
    wanted = ["interval", "start", "demand_w", "served_w", "observed", "controlled", "traded_wh", "price"]
    assert list(rows["intervals"][0])[: len(wanted)] == wanted
    assert list(rows["trades"][0]) == ["interval", "buyer", "seller", "quantity_wh", "price"]
    assert list(rows["accounts"][0])[:4] == ["account", "role", "coins", "reserved"]
    assert sum(int(row["traded_wh"]) for row in rows["intervals"]) == result.headline.energy_traded_wh
    assert sum(int(row["quantity_wh"]) for row in rows["trades"]) == result.headline.energy_traded_wh
    assert sum(int(row["coins"]) for row in rows["accounts"]) == result.headline.coins_held
    for name, table in rows.items():
        assert pyarrow.parquet.read_table(played / f"{name}.parquet").num_rows == len(table)


def test_report_is_one_file_without_outside_references(played: Path) -> None:
    page = (played / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 5
    assert "src=" not in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )


def test_event_takes_links_down_and_changes_settlement(played: Path, tmp_path: Path) -> None:
    calm = play_day(small(events=[]), tmp_path / "calm")
    with_event = msgspec.json.decode((played / "results.json").read_bytes(), type=DayResult)
    down = [row for row in with_event.intervals if row.event]
    assert [row.interval for row in down] == list(range(56, 64))
    assert all(row.observed < with_event.intervals[0].observed for row in down)
    assert not any(row.event for row in calm.intervals)
    assert _bills(played) != _bills(tmp_path / "calm")


def test_unobserved_meter_reports_once_its_link_is_back(played: Path) -> None:
    """A reading of a bus that is down carries a later time than that of a bus that is up."""
    from gridpool.contracts.energy_readings import READINGS

    with Ledger.open(played / "ledger", RULES, writable=False) as ledger, ledger.view() as view:
        waits = [
            reading.at - interval
            for (interval, _), reading in view.state.scan(READINGS)
            if reading.quality == "measured"
        ]
    assert min(waits) == 20 * 60_000
    assert max(waits) > 2 * 3_600_000


def test_day_is_the_same_under_another_hash_seed(played: Path, result: DayResult, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONHASHSEED": "77", "LC_ALL": "C"}
    command = [sys.executable, "-m", "gridpool", "day", *SMALL, "--out", str(tmp_path / "again"), "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["app_hash"] == result.headline.app_hash
    for name in ("intervals.csv", "trades.csv", "accounts.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (played / name).read_bytes()


def test_killed_day_resumes_to_the_same_hash(result: DayResult, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "gridpool", "day", *SMALL, "--out", str(out), "--json", "--resume"]
    moments = random.Random(11)
    kills = 0
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (out / "ledger" / "data.mdb").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.8))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 1
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    again = json.loads(done.stdout)
    assert again["app_hash"] == result.headline.app_hash
    assert again["height"] == result.headline.height
    assert again["verified"] is True


def test_folder_with_another_day_or_other_files_is_left_alone(
    played: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep", encoding="utf-8")
    for arguments, complaint in (
        ([*SMALL, "--out", str(played)], "--resume continues it"),
        (["--prosumers", "7", "--out", str(played), "--resume"], "holds another day"),
        ([*SMALL, "--out", str(tmp_path / "mine")], "holds other files"),
        ([*SMALL, "--out", str(tmp_path / "mine"), "--overwrite"], "holds other files"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["day", *arguments])
        assert stop.value.code == 1
        assert complaint in capsys.readouterr().err
    assert (tmp_path / "mine" / "letter.txt").read_text(encoding="utf-8") == "keep"


def test_all_coins_of_a_day_stand_in_accounts_and_escrows(played: Path, result: DayResult) -> None:
    with Ledger.open(played / "ledger", RULES, writable=False) as ledger, ledger.view() as view:
        supply = view.state.get(coins.SUPPLY, "coins")
        held = sum(account.balance for _, account in view.state.scan(coins.ACCOUNTS))
        held += sum(escrow.balance for _, escrow in view.state.scan(coins.ESCROWS))
        assert supply is not None
        assert supply.minted - supply.redeemed == held == result.headline.coins_held
        assert RULES.broken_invariants(view.state) == []


def _bills(folder: Path) -> dict[tuple[int, bytes], object]:
    with Ledger.open(folder / "ledger", RULES, writable=False) as ledger, ledger.view() as view:
        return dict(view.state.scan(BILLS))
