"""The quick benchmark says what it promises, and its transactions are carried out."""

from gridpool.bench.ledger import measure_orders, order_ledger, run


def test_quick_benchmark_reports_its_fields() -> None:
    said = run(accounts=50, blocks=2)
    assert said["accounts"] == 50
    assert said["verify_per_s"] > 0
    assert said["transfer_per_s"] > 0
    assert abs(said["ratio"] - said["transfer_per_s"] / said["verify_per_s"]) < 0.01


def test_orders_of_the_benchmark_are_accepted() -> None:
    with order_ledger(40) as (ledger, keys):
        assert measure_orders(ledger, keys, blocks=1).ratio > 0
        assert ledger.height == 2
