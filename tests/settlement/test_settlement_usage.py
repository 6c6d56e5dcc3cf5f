"""Usage records: matching, rating by exact fractions, and the commands as printed."""

import json
from datetime import UTC, datetime
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.agents.roaming_example import AGREEMENT
from gridpool.cli import main
from gridpool.errors import RefusedInput
from gridpool.markets.usage_records import (
    Record,
    divide,
    invoice,
    match,
    read_agreement,
    read_records,
)

AT = 1_780_000_000_000
TERMS = read_agreement(AGREEMENT.encode(), "agreement")


def call(capsys, *arguments: object) -> tuple[int, dict, str]:
    capsys.readouterr()
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code or 0
    out, err = capsys.readouterr()
    return code, json.loads(out) if out.startswith("{") else {}, err


@given(st.integers(0, 10**30), st.integers(1, 10**20), st.sampled_from(("down", "up", "half_up", "half_even")))
def test_rounding_rules_against_fractions(numerator, denominator, rule):
    exact = Fraction(numerator, denominator)
    expected = {
        "down": floor(exact),
        "up": -floor(-exact),
        "half_up": floor(exact + Fraction(1, 2)),
        "half_even": round(exact),
    }[rule]
    assert divide(numerator, denominator, rule) == expected


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(("voice", "sms", "data", "slice")), st.integers(0, 10**10)), max_size=30),
    st.randoms(use_true_random=False),
)
def test_an_invoice_recomputes_from_its_records_in_any_order(uses, shuffler):
    records = [Record(f"r{i}", service, AT, quantity) for i, (service, quantity) in enumerate(uses)]
    lines = invoice(records, TERMS)
    shuffler.shuffle(records)
    assert invoice(records, TERMS) == lines
    net = 0
    for tariff in TERMS.tariffs:
        volume = sum(r.quantity for r in records if r.service == tariff.service)
        since = 0
        for tier in tariff.tiers:
            part = max(0, (volume if tier.up_to == 0 else min(volume, tier.up_to)) - since)
            rate = Fraction(TERMS.rate_numerator, TERMS.rate_denominator)
            net += round(Fraction(part * tier.price * 10**TERMS.decimals, tariff.per * 10**6) * rate)
            since = tier.up_to
    tax = round(Fraction(net * TERMS.tax_ppm, 10**6))
    assert [line.amount for line in lines[-2:]] == [tax, net + tax]


def test_pairs_are_matched_one_sided_or_disputed():
    def record(name: str, **changes) -> Record:
        base = {"id": name, "service": "voice", "start": AT, "quantity": 1_000}
        return Record(**(base | changes))

    home = {name: record(name) for name in ("same", "near", "far", "late", "kind", "mine", "old")}
    serving = {name: record(name) for name in home if name != "mine"} | {"theirs": record("theirs")}
    serving["near"] = record("near", quantity=1_010)
    serving["far"] = record("far", quantity=1_011)
    serving["late"] = record("late", start=AT + 2_001)
    serving["kind"] = record("kind", service="sms")
    home["old"] = serving["old"] = record("old", start=1_000)
    found = match(home, serving, TERMS)
    assert {one.id: one.quantity for one in found.matched} == {"same": 1_000, "near": 1_000}
    assert {one.id: one.reason for one in found.one_sided} == {"mine": "only_home", "theirs": "only_serving"}
    assert {one.id: one.reason for one in found.disputed} == {
        "far": "quantity",
        "late": "start",
        "kind": "service",
        "old": "outside_validity",
    }


def test_the_tolerance_holds_at_its_exact_boundary():
    for quantity, reason in ((10_000, None), (9_900, None), (9_899, "quantity")):
        home = {"a": Record("a", "data", AT, 10_000)}
        serving = {"a": Record("a", "data", AT, quantity)}
        found = match(home, serving, TERMS)
        assert [one.reason for one in found.disputed] == ([reason] if reason else [])


@pytest.mark.parametrize(
    "row",
    [
        "a,voice,2026-01-01T00:00:00Z,1.5",
        "a,voice,2026-01-01T00:00:00Z,-1",
        "a,voice,2026-01-01T00:00:00,1",
        "a,fax,2026-01-01T00:00:00Z,1",
        ",voice,2026-01-01T00:00:00Z,1",
        "a,voice,2026-01-01T00:00:00Z",
        "ok,voice,2026-01-01T00:00:00Z,1",
        'a,"voice,2026-01-01T00:00:00Z,1',
    ],
)
def test_a_bad_row_refuses_the_file(row):
    text = f"id,service,start,quantity\nok,voice,2026-01-01T00:00:00Z,1\n{row}\n"
    with pytest.raises(RefusedInput, match="home"):
        read_records(text.encode(), "home")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tax_ppm = 190000", "tax_ppm = -1"),
        ('rounding = "half_even"', 'rounding = "random"'),
        ('serving = "bravo"', 'serving = "alfa"'),
        ("up_to = 60000, price = 15000", "up_to = 0, price = 15000"),
        ("valid_until = 2027", "valid_until = 2025"),
        ("decimals = 2", "decimal = 2"),
        ('service = "sms"', 'service = "voice"'),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00"),
    ],
)
def test_a_bad_agreement_is_refused(old, new):
    assert old in AGREEMENT
    with pytest.raises(RefusedInput):
        read_agreement(AGREEMENT.replace(old, new, 1).encode(), "agreement")


def test_match_command_on_its_example(capsys, tmp_path):
    folder = tmp_path / "roaming"
    assert call(capsys, "settle", "example", "--out", folder, "--records", 2_000, "--json")[0] == 0
    files = [folder / "home.csv", folder / "serving.csv", "--agreement", folder / "agreement.toml"]
    code, answer, _ = call(capsys, "settle", "match", *files, "--json")
    assert code == 0
    assert answer["matched"] + answer["disputed"] + answer["one_sided"] == 2_000
    assert min(answer["matched"], answer["one_sided"], answer["disputed"]) > 0
    assert answer["invoice"][-1]["amount"] == sum(line["amount"] for line in answer["invoice"][:-1])
    assert len(answer["exceptions"]) == answer["one_sided"] + answer["disputed"]
    final = call(capsys, "settle", "match", *files, "--final", "--json")[1]
    assert final["invoice"][-1]["amount"] > answer["invoice"][-1]["amount"]


def test_net_command_as_printed(capsys, tmp_path):
    file = tmp_path / "obligations.csv"
    file.write_text("debtor,creditor,amount\na,b,5\nb,c,7\nc,a,1\n")
    code, answer, _ = call(capsys, "settle", "net", file, "--json")
    assert code == 0
    assert answer == {
        "gross": 13,
        "net": 6,
        "positions": {"a": -4, "b": -2, "c": 6},
        "payments": [{"from": "a", "to": "c", "amount": 4}, {"from": "b", "to": "c", "amount": 2}],
    }
    code, answer, _ = call(capsys, "settle", "net", file, "--default", "a", "--deposit", 1, "--fund", 1, "--json")
    assert answer["waterfall"] == {
        "defaulter": "a",
        "owed": 4,
        "deposit": 1,
        "guarantee_fund": 1,
        "pro_rata": [{"id": "c", "loss": 2}],
        "receives": {"c": 4},
    }
    assert call(capsys, "settle", "net", file, "--default", "zed")[0] == 1
    for row in ("a,b,-5", "a,b,x", "a,b,1.0", "a,b", "a,a,5", ",b,5", "a,b,5,6"):
        file.write_text(f"debtor,creditor,amount\nb,c,7\n{row}\n")
        code, answer, complaint = call(capsys, "settle", "net", file, "--json")
        assert (code, answer, complaint.count("\n")) == (1, {}, 1), row
    file.write_text("debtor,amount\na,5\n")
    assert call(capsys, "settle", "net", file)[0] == 1
    file.write_text("debtor,creditor,amount\n")
    assert call(capsys, "settle", "net", file, "--json")[1]["payments"] == []


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2100, 1, 1)),
        min_size=1,
        max_size=12,
    )
)
def test_times_mean_the_same_however_they_are_written(moments):
    """A day's times are put together from their parts once the day was read; other forms are parsed one by one."""
    lines = ["id,service,start,quantity"]
    for number, at in enumerate(moments):
        whole = at.replace(microsecond=0).isoformat()
        lines += [f"a{number},sms,{whole}Z,1", f"b{number},sms,{whole}Z,1", f"c{number},sms,{whole}+00:00,1"]
    found = read_records("\n".join(lines).encode(), "records.csv")
    for number, at in enumerate(moments):
        expected = round(at.replace(microsecond=0, tzinfo=UTC).timestamp() * 1000)
        assert {found[f"{kind}{number}"].start for kind in "abc"} == {expected}


@pytest.mark.parametrize(
    "start", ["2026-06-01T24:00:00Z", "2026-06-01T23:59:60Z", "2026-06-31T00:00:00Z", "2026-06-01"]
)
def test_a_time_that_is_none_is_refused_on_a_day_that_was_read(start):
    data = f"id,service,start,quantity\na,sms,2026-06-01T00:00:00Z,1\nb,sms,{start},1\n"
    with pytest.raises(RefusedInput, match="line 3"):
        read_records(data.encode(), "records.csv")


def test_a_middle_tier_is_as_wide_as_its_ends_are_apart():
    text = (
        b'home="A"\nserving="B"\nvalid_from=2026-01-01T00:00:00Z\nvalid_until=2027-01-01T00:00:00Z\ndecimals=6\n'
        b'[[tariffs]]\nservice="sms"\nper=1\ntiers=[{up_to=10,price=5},{up_to=15,price=3},{up_to=0,price=1}]\n'
    )
    lines = invoice([Record("a", "sms", 1_767_225_600_000, 40)], read_agreement(text, "test"))
    assert [(line.quantity, line.amount) for line in lines[:3]] == [(10, 50), (5, 15), (25, 25)]
