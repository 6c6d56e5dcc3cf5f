"""Market clearing against one read of its columns, numpy's sort and pymarket."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import Row, best_time
from gridpool.bench.markets import run as measure
from gridpool.markets.order_columns import SideColumns, clear_columns

ROOT = Path(__file__).resolve().parent.parent
PEER = ROOT / ".tools" / "bench-markets"
REQUIREMENTS = ("numpy<2", "pandas<2.1", "pymarket==0.7.6")
TICKS = 10_000
BOOKS = (1_000, 10_000)


def run() -> list[Row]:
    """Measure the fast rules at a million orders, and the trade reduction at pymarket's sizes."""
    figures = measure()
    narrow = measure(dtype=np.int32)
    detail = {"wide": figures, "int32 quantities": narrow}
    rows = [
        Row(
            room="markets",
            figure=f"{rule} clearing of 1,000,000 orders, one core",
            ratio=figures[f"{rule}_ratio"],
            target=target,
            sense="at most",
            peer="one vectorised read of price and quantity",
            detail=detail,
        )
        for rule, target in (("uniform", 4.0), ("vcg", 40.0), ("trade_reduction", 40.0))
    ]
    rows.append(
        Row(
            room="markets",
            figure="uniform clearing of 1,000,000 orders, one core",
            ratio=figures["sort_s"] / figures["uniform_s"],
            target=1.0,
            sense="at least",
            peer="numpy sort of the price columns alone",
        )
    )
    python = peer_environment()
    return rows + [peer_row(python, size) for size in BOOKS]


def peer_environment() -> Path:
    """Build pymarket's environment once (it needs an older numpy and pandas) and give its interpreter."""
    python = PEER / "bin" / "python"
    ready = PEER / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEER)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        ready.touch()
    return python


def peer_row(python: Path, size: int) -> Row:
    """Clear one book by the same mechanism (Huang et al.) in both programs."""
    rng = np.random.default_rng(size)
    quantity = rng.integers(1, 5_000, size)
    price = rng.permutation(TICKS)[:size]  # distinct prices: pymarket merges equal ones before it clears
    buys = rng.random(size) < 0.5
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "book.json"
        path.write_text(json.dumps(list(zip(quantity.tolist(), price.tolist(), buys.tolist(), strict=True))))
        done = subprocess.run(
            [str(python), str(ROOT / "bench" / "pymarket_peer.py"), str(path)],
            check=True,
            capture_output=True,
            text=True,
        )
    peer: dict[str, Any] = json.loads(done.stdout)
    bids, asks = (SideColumns(price=price[side], quantity=quantity[side]) for side in (buys, ~buys))

    def ours() -> object:
        return clear_columns(bids, asks, rule="trade_reduction", ticks=TICKS)

    seconds = best_time(ours, repeats=50)
    volume = clear_columns(bids, asks, rule="trade_reduction", ticks=TICKS).volume_wh
    return Row(
        room="markets",
        figure=f"trade reduction of {size:,} orders",
        ratio=peer["huang"] / seconds,
        target=1_000.0,
        sense="at least",
        peer="pymarket 0.7.6, its Huang auction",
        detail=peer | {"ours_s": seconds, "ours_wh": volume},
    )
