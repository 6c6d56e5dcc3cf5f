"""Settlement: matching and rating 10^6 usage records, and netting, against reading the same files once."""

import csv
import io
import time

import numpy as np

from bench.harness import Row
from gridpool.agents.roaming_example import AGREEMENT
from gridpool.markets.netting import net, read_obligations
from gridpool.markets.usage_records import invoice, match, read_agreement, read_records

RECORDS = 1_000_000
OBLIGATIONS = 300_000
DAY_S = 86_400.0


def run() -> list[Row]:
    """Match a day's 10^6 records and net a period's obligations."""
    home, serving, owed = files(np.random.default_rng(1))
    start = time.process_time()
    terms = read_agreement(AGREEMENT.encode(), "agreement")
    found = match(read_records(home, "home"), read_records(serving, "serving"), terms)
    lines = invoice(found.matched, terms)
    matched_s = time.process_time() - start
    plain_s = read_once(home) + read_once(serving)
    start = time.process_time()
    netting = net(read_obligations(owed, "owed"))
    netted_s = time.process_time() - start
    detail = {
        "records": RECORDS,
        "seconds": matched_s,
        "matched": len(found.matched),
        "invoice_total": lines[-1].amount,
        "obligations": OBLIGATIONS,
        "payments": len(netting.payments),
        "netting_s": netted_s,
    }
    return [
        Row(
            room="settlement",
            figure="10^6 usage records matched and rated, records a second",
            ratio=RECORDS / matched_s,
            target=RECORDS / DAY_S,
            sense="at least",
            peer="10^6 a day",
            detail=detail,
        ),
        Row(
            room="settlement",
            figure="matching and rating",
            ratio=matched_s / plain_s,
            target=12.0,
            sense="at most",
            peer="reading both files with the csv module",
            detail=detail,
        ),
        Row(
            room="settlement",
            figure="netting 3 x 10^5 obligations",
            ratio=netted_s / read_once(owed),
            target=10.0,
            sense="at most",
            peer="reading the file with the csv module",
            detail=detail,
        ),
    ]


def files(rng: np.random.Generator) -> tuple[bytes, bytes, bytes]:
    """Return two operators' records, a few of them missing on a side, and obligations between 200 members."""
    services = ("voice", "sms", "data", "slice")
    kinds, sizes = rng.integers(0, 4, size=RECORDS), rng.integers(1, 10_000, size=RECORDS)
    fate = rng.random(RECORDS)
    header = "id,service,start,quantity\n"
    seconds = rng.integers(0, 86_400, size=RECORDS).tolist()
    rows = [
        f"r{i:07d},{services[kinds[i]]},2026-06-0{1 + i % 9}T"
        f"{at // 3_600:02}:{at // 60 % 60:02}:{at % 60:02}Z,{sizes[i]}\n"
        for i, at in enumerate(seconds)
    ]
    home = header + "".join(row for row, f in zip(rows, fate, strict=True) if f > 0.002)
    serving = header + "".join(row for row, f in zip(rows, fate, strict=True) if f < 0.998)
    pairs = rng.integers(0, 200, size=(OBLIGATIONS, 2))
    pairs[:, 1] = (pairs[:, 0] + 1 + pairs[:, 1] % 199) % 200
    amounts = rng.integers(1, 10**9, size=OBLIGATIONS)
    owed = "debtor,creditor,amount\n" + "".join(
        f"m{a},m{b},{amount}\n" for (a, b), amount in zip(pairs.tolist(), amounts.tolist(), strict=True)
    )
    return home.encode(), serving.encode(), owed.encode()


def read_once(data: bytes) -> float:
    """Return the CPU time of reading a file's rows with the csv module."""
    start = time.process_time()
    for _ in csv.reader(io.StringIO(data.decode())):
        pass
    return time.process_time() - start
