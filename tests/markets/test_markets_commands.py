"""``gridpool market clear`` and ``gridpool loan price`` as a user calls them."""

import json

import pytest

from gridpool.cli import main

HEADER = "id,side,quantity_wh,price,owner"
UNIT = [f"b{p},buy,1000,{p}000000,B{p}" for p in (10, 8, 6, 4)] + [
    f"s{p},sell,1000,{p}000000,S{p}" for p in (1, 3, 5, 7)
]
LOAN = {
    "lambda": "0.8",
    "gamma": "0.5",
    "d": "20000",
    "theta": "2300",
    "q-min": "0",
    "p": "1",
    "c": "0.15",
    "t": "5",
    "eta": "3.5",
}


@pytest.fixture
def call(capsys):
    def run(*arguments):
        try:
            main([str(a) for a in arguments])
            code = 0
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def book(tmp_path):
    def write(*rows, header=HEADER):
        path = tmp_path / "orders.csv"
        path.write_text("\n".join([header, *rows]) + "\n")
        return path

    return write


@pytest.mark.parametrize(
    ("rule", "volume", "price", "buy", "sell", "surplus", "deficit"),
    [
        ("uniform", 3000, 5_500_000, 5_500_000, 5_500_000, 0, 0),
        ("pay_as_bid", 3000, None, None, None, 15_000_000, 0),
        ("mcafee", 3000, 5_500_000, 5_500_000, 5_500_000, 0, 0),
        ("trade_reduction", 2000, None, 6_000_000, 5_000_000, 2_000_000, 0),
        ("vcg", 3000, None, 5_000_000, 6_000_000, 0, 3_000_000),
    ],
)
def test_every_rule_reports_its_fields(call, book, rule, volume, price, buy, sell, surplus, deficit):
    code, out, _ = call("market", "clear", book(*UNIT), "--rule", rule, "--k-ppm", 500000, "--tick", 1, "--json")
    result = json.loads(out)
    assert code == 0
    assert set(result) == {
        "volume_wh", "price", "buy_price", "sell_price", "trades", "payments", "surplus", "deficit",
    }  # fmt: skip
    assert (result["volume_wh"], result["price"]) == (volume, price)
    assert (result["buy_price"], result["sell_price"]) == (buy, sell)
    assert (result["surplus"], result["deficit"]) == (surplus, deficit)
    assert sum(result["payments"].values()) == surplus - deficit
    assert all(set(t) == {"buy_id", "sell_id", "quantity_wh", "price", "amount"} for t in result["trades"])
    assert all(result["payments"][o] > 0 for o in result["payments"] if o[0] == "B")
    assert all(result["payments"][o] < 0 for o in result["payments"] if o[0] == "S")


def test_an_empty_market_is_no_fault(call, book):
    for rows in ([], UNIT[:4], UNIT[4:]):
        code, out, _ = call("market", "clear", book(*rows), "--rule", "uniform", "--json")
        assert code == 0
        assert json.loads(out) == {
            "volume_wh": 0, "price": None, "buy_price": None, "sell_price": None, "trades": [], "payments": {},
            "surplus": 0, "deficit": 0,
        }  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        "b10,buy,5,5,X",
        "x,buy,5.5,5,X",
        "x,buy,5,1e3,X",
        "x,buy,-5,5,X",
        "x,buy,0,5,X",
        "x,buy,5,-1,X",
        "x,hold,5,5,X",
        "x,buy,5,5",
        "x,buy,5,5,X,Y",
        "x,buy,,5,X",
        ",buy,5,5,X",
        "x,buy,5,5,",
        "x,buy,9223372036854775808,5,X",
        "x,buy,5,99999999999999999999999999999999999999,X",
        "x,buy,9223372036854775807,9223372036854775807,X",
        "x,buy, 5,5,X",
        "x,buy,5_0,5,X",
        "x,buy,٥,5,X",
    ],
)
def test_one_bad_row_refuses_the_file_in_one_line(call, book, row):
    code, out, err = call("market", "clear", book(*UNIT, row), "--rule", "uniform", "--json")
    assert (code, out) == (1, "")
    assert len(err.strip().splitlines()) == 1


def test_bad_files_and_settings_are_refused(call, book, tmp_path):
    path = book(*UNIT)
    for header in ("id,side,quantity_wh,price", "id,side,quantity_wh,price,owner,colour", "id,id,side,price,owner"):
        code, _, err = call("market", "clear", book(*UNIT, header=header), "--rule", "vcg")
        assert (code, len(err.strip().splitlines())) == (1, 1)
    path = book(*UNIT)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    for arguments in (
        [tmp_path / "none.csv", "--rule", "vcg"],
        [binary, "--rule", "vcg"],
        [path, "--rule", "uniform", "--k-ppm", 1_000_001],
        [path, "--rule", "uniform", "--tick", 0],
        [path, "--rule", "vcg", "--certificate"],
        [path, "--rule", "uniform", "--fee", "A:B:1"],
        [path, "--rule", "uniform", "--coupling", "fee", "--fee", "A:B"],
    ):
        code, out, err = call("market", "clear", *arguments)
        assert (code, out, len(err.strip().splitlines())) == (1, "", 1), (arguments, err)
    assert call("market", "clear", path, "--rule", "guess")[0] == 2


def test_a_self_trade_names_both_orders(call, book):
    code, _, err = call("market", "clear", book(*UNIT, "mine,sell,10,8000000,B8"), "--rule", "pay_as_bid")
    assert code == 1
    assert "'b8'" in err
    assert "'mine'" in err


def test_the_certificate_proves_the_clearing(call, book):
    from gridpool.markets.certificate import Certificate, Proposal, verify_certificate
    from gridpool.markets.double_auction import clear
    from gridpool.markets.order_file import read_orders

    path = book(*UNIT)
    _, out, _ = call("market", "clear", path, "--rule", "uniform", "--certificate", "--json")
    given = json.loads(out)["certificate"]
    orders = read_orders(path)
    certificate = Certificate(given["prices"], given["welfare"], given["volume_wh"])
    verify_certificate(orders, Proposal(clear(orders), certificate))


def test_areas_are_coupled_by_fees(call, book):
    path = book("b,buy,1000,9,B,north", "s,sell,1000,4,S,south", header=HEADER + ",area")
    _, out, _ = call("market", "clear", path, "--coupling", "fee", "--fee", "south:north:5", "--json")
    result = json.loads(out)
    assert result["area_prices"] == {"north": 9, "south": 4}
    assert (result["fees"], result["surplus"], result["payments"]) == (5, 5, {"B": 9, "S": -4})
    _, out, _ = call("market", "clear", path, "--coupling", "none", "--json")
    assert json.loads(out)["volume_wh"] == 0
    # without coupling areas do not matter
    _, out, _ = call("market", "clear", path, "--json")
    assert json.loads(out)["price"] == 6


def loan(**changes):
    return [word for key, value in (LOAN | changes).items() for word in (f"--{key}", value)]


def test_a_loan_is_priced(call):
    code, out, _ = call("loan", "price", *loan(), "--json")
    result = json.loads(out)
    assert code == 0
    assert {"k", "alpha", "beta", "loan", "bank_profit", "borrower_utility", "traded", "published"} <= set(result)
    assert set(result["published"]) == {"alpha", "loan", "bank_profit", "limit"}
    # by hand: a_be = .5*5*.15/(.5/3.5+.5), a_ch = .8*20000/(2300*(.8+3.5-2.8)/3.5)
    assert result["alpha"] == pytest.approx((0.375 / (0.5 / 3.5 + 0.5) * 16000 / (2300 * 1.5 / 3.5)) ** 0.5)
    assert result["k"] == -2300
    assert result["traded"] is True


def test_a_loan_that_does_not_pay_is_null(call):
    code, out, _ = call("loan", "price", *loan(), "--alpha-max", "0.1", "--json")
    result = json.loads(out)
    assert (code, result["traded"]) == (0, False)
    assert [result[key] for key in ("alpha", "beta", "loan", "bank_profit", "borrower_utility")] == [None] * 5


def test_a_positive_k_needs_a_highest_rate(call):
    arguments = loan(**{"q-min": "2400"})
    code, out, err = call("loan", "price", *arguments, "--json")
    assert (code, out) == (1, "")
    assert "alpha-max" in err
    _, out, _ = call("loan", "price", *arguments, "--alpha-max", "4", "--json")
    result = json.loads(out)
    assert (result["alpha"], result["published"]["alpha"], result["published"]["limit"]) == (4.0, 0.0, "-inf")


@pytest.mark.parametrize("change", [{"gamma": "0"}, {"lambda": "1.5"}, {"c": "nan"}, {"eta": "0.5"}, {"t": "-1"}])
def test_bad_loans_are_refused_in_one_line(call, change):
    code, out, err = call("loan", "price", *loan(**change), "--json")
    assert (code, out, len(err.strip().splitlines())) == (1, "", 1)
