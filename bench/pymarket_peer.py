"""Run in pymarket's own environment: clear a book by its Huang auction and by MUDA, print seconds as JSON."""

import json
import sys
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")


def main(path: str) -> None:
    import pymarket  # type: ignore[import-not-found]

    book = json.loads(Path(path).read_text(encoding="utf-8"))
    market = pymarket.Market()
    for number, (quantity, price, buys) in enumerate(book):
        market.accept_bid(quantity, price, number, buys, 0)
    times = {}
    for mechanism in ("huang", "muda"):
        start = time.perf_counter()
        transactions, _ = market.run(mechanism)
        times[mechanism] = time.perf_counter() - start
        times[mechanism + "_wh"] = float(transactions.get_df()["quantity"].sum() / 2)
    print(json.dumps(times))


if __name__ == "__main__":
    main(sys.argv[1])
