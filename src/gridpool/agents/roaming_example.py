"""Two operators' usage records and their agreement, made up from a seed, to try matching and rating with."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from gridpool.errors import RefusedInput

__all__ = ["AGREEMENT", "write_example"]

AGREEMENT = """\
home = "alfa"
serving = "bravo"
valid_from = 2026-01-01T00:00:00Z
valid_until = 2027-01-01T00:00:00Z
currency = "EUR"
tariff_currency = "USD"
rate_numerator = 92
rate_denominator = 100
decimals = 2
rounding = "half_even"
tax_ppm = 190000
quantity_tolerance_ppm = 10000
start_tolerance_ms = 2000

# Prices are millionths of the tariff's currency for each `per` of the service's quantity.
[[tariffs]]
service = "voice"
per = 60
tiers = [{ up_to = 60000, price = 15000 }, { up_to = 0, price = 12000 }]

[[tariffs]]
service = "sms"
per = 1
tiers = [{ up_to = 0, price = 4000 }]

[[tariffs]]
service = "data"
per = 1000000
tiers = [{ up_to = 1000000000, price = 2500 }, { up_to = 0, price = 1800 }]

[[tariffs]]
service = "slice"
per = 60
tiers = [{ up_to = 0, price = 90000 }]
"""


def write_example(out: Path, records: int, rng: np.random.Generator) -> dict[str, str]:
    """Write ``agreement.toml``, ``home.csv`` and ``serving.csv`` into a new folder.

    About one record in a hundred is missing on a side or differs beyond the tolerance.
    """
    if not 1 <= records <= 5_000_000:
        raise RefusedInput(f"{records} records; choose 1 to 5000000")
    if out.exists():
        raise RefusedInput(f"{out} exists; choose another folder")
    out.mkdir(parents=True)
    (out / "agreement.toml").write_text(AGREEMENT, encoding="utf-8")
    begin = datetime(2026, 6, 1, tzinfo=UTC)
    services = ("voice", "sms", "data", "slice")
    kinds = rng.integers(0, 4, size=records)
    sizes = (rng.integers(1, 1800, size=records), np.ones(records, dtype=np.int64))
    data = rng.integers(10_000, 50_000_000, size=records)
    seconds = np.sort(rng.integers(0, 30 * 86_400, size=records))
    fate = rng.random(records)
    header = "id,service,start,quantity\n"
    with (out / "home.csv").open("w") as home, (out / "serving.csv").open("w") as serving:
        home.write(header)
        serving.write(header)
        for i in range(records):
            service = services[kinds[i]]
            quantity = int(sizes[1][i] if service == "sms" else data[i] if service == "data" else sizes[0][i])
            start = (begin + timedelta(seconds=int(seconds[i]))).isoformat().replace("+00:00", "Z")
            if fate[i] >= 0.004:
                home.write(f"r{i:07d},{service},{start},{quantity}\n")
            if fate[i] < 0.992:
                told = quantity * 2 + 1 if 0.004 <= fate[i] < 0.007 else quantity
                serving.write(f"r{i:07d},{service},{start},{told}\n")
    return {
        "agreement": str(out / "agreement.toml"),
        "home": str(out / "home.csv"),
        "serving": str(out / "serving.csv"),
    }
