"""A whole day: its figures, its books, its determinism, and what the scripted event does to settlement."""

import csv
import json
import os
import random
import re
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
from gridpool.contracts.slices.statements import violated_intervals
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
    return read_result(played)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same day without its event."""
    out = tmp_path_factory.mktemp("calm") / "day"
    play_day(small(events=[]), out)
    return out


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


def test_event_takes_links_down_and_changes_settlement(played: Path, calm: Path) -> None:
    with_event, without = read_result(played), read_result(calm)
    down = [row for row in with_event.intervals if row.event]
    assert [row.interval for row in down] == list(range(56, 64))
    assert all(row.observed < with_event.intervals[0].observed for row in down)
    assert not any(row.event for row in without.intervals)
    assert _bills(played) != _bills(calm)


def test_failed_sector_becomes_violated_intervals_and_penalties(result: DayResult) -> None:
    before, down = result.intervals[0], result.intervals[56]
    kept = {"metering": (down.observed, before.observed), "control": (down.controlled, before.controlled)}
    assert [one.name for one in result.slices] == ["metering", "control"]
    for told in result.slices:
        left, all_ = kept[told.name]
        assert len(told.nodes) == all_ > left
        assert [(one.segment, one.interval) for one in told.violations] == [("ran", k) for k in range(56, 64)]
        assert {one.basis for one in told.violations} == {"agreed"}
        assert {one.availability_ppm for one in told.violations} == {round(1_000_000 * left / all_)}
        assert told.penalties == sum(one.penalty for one in told.violations) > 0


def test_without_the_event_no_interval_is_violated(calm: Path) -> None:
    for told in read_result(calm).slices:
        assert (told.phase, told.judged, told.violated, told.penalties) == ("settled", 3 * 96, 0, 0)
        assert told.paid == sum(one.cost for one in told.offers if one.chosen)


def test_three_operators_offer_and_the_cheapest_feasible_offers_are_chosen(result: DayResult) -> None:
    for told in result.slices:
        assert {one.party for one in told.offers} == {"operator 1", "operator 2", "operator 3"}
        for segment in ("ran", "transport", "core"):
            costs = {one.cost: one.chosen for one in told.offers if one.segment == segment}
            assert [cost for cost, chosen in costs.items() if chosen] == [min(costs)]


def test_slices_are_settled_and_nothing_stays_in_escrow(played: Path, result: DayResult) -> None:
    for told in result.slices:
        assert told.phase == "settled"
        assert told.escrow_left == 0
        assert told.escrowed == told.paid + told.penalties + told.refunded
    with Ledger.open(played / "ledger", RULES, writable=False) as ledger, ledger.view() as view:
        assert violated_intervals(view.state) == sum(told.violated for told in result.slices)
        assert not any(escrow.label.startswith("slice ") for _, escrow in view.state.scan(coins.ESCROWS))


def test_story_names_transactions_that_are_on_the_ledger(played: Path, result: DayResult) -> None:
    told = [step for one in result.slices for step in one.steps]
    assert [step.step for step in told] == 2 * ["order", "offers", "choice", "delivery", "violations", "money"]
    assert all(step.transactions for step in told)
    named = {tx for step in told for tx in step.transactions}
    with Ledger.open(played / "ledger", RULES, writable=False) as ledger, ledger.view() as view:
        receipts = [view.receipt(bytes.fromhex(tx)) for tx in sorted(named)]
    assert all(receipt is not None and receipt.ok for receipt in receipts)
    quoted = {mark for _, text in result.story for mark in re.findall(r"\b[0-9a-f]{12}\b", text)}
    assert len(quoted) >= 12
    assert quoted <= {tx[:12] for tx in named}


def test_orders_below_every_price_expire_and_return_their_coins(tmp_path: Path) -> None:
    out = tmp_path / "cheap"
    result = play_day(small(slices__reserve=1_000), out)
    for told in result.slices:
        assert (told.phase, told.offers, told.judged, told.escrow_left) == ("expired", (), 0, 0)
        assert told.refunded == told.escrowed == 96 * 1_000
        assert "no offer for" in told.steps[-1].text
    assert result.conservation["coins_unaccounted_for"] == 0
    assert result.headline.verified


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


def read_result(folder: Path) -> DayResult:
    return msgspec.json.decode((folder / "results.json").read_bytes(), type=DayResult)


def _bills(folder: Path) -> dict[tuple[int, bytes], object]:
    with Ledger.open(folder / "ledger", RULES, writable=False) as ledger, ledger.view() as view:
        return dict(view.state.scan(BILLS))
