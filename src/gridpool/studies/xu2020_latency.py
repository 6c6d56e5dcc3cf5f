"""How long a lease takes on this machine: submitted to a live embedded engine, until its receipt is durable."""

import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from gridpool.agents.spectrum_home import SpectrumHome, load_register
from gridpool.agents.spectrum_synthetic import make_register
from gridpool.contracts import RULES
from gridpool.contracts.spectrum_leases import RequestLease
from gridpool.contracts.spectrum_records import IDLE
from gridpool.engines.embedded import Embedded
from gridpool.engines.engine import Refusal
from gridpool.errors import RefusedInput
from gridpool.ledger.transaction import sign

__all__ = ["measured_latency"]

HOUR_MS = 3_600_000


def measured_latency(seed: int, *, leases: int = 12) -> float:
    """Return the median time in s from submitting a lease to its durable receipt, blocks every 200 ms."""
    register, _ = make_register(40, 0, np.random.default_rng(seed), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "register"
        file = Path(folder) / "register.json"
        file.write_bytes(msgspec.json.encode(register))
        load_register(file, home)
        with SpectrumHome(home, writable=False) as opened:
            key = opened.key("lessee-1")
            now = opened.now()
            with opened.ledger.view() as view:
                offers = [(n, o) for n, o in view.state.scan(IDLE) if o.pricing != "auction"][:leases]
        times = []
        with Embedded.open(home, RULES) as engine:
            chain = engine.ledger.genesis.chain
            for nonce, (number, offer) in enumerate(offers, 1):
                wish = RequestLease(number, offer.low, offer.high, offer.cells[:1], now, now + HOUR_MS, -5_000)
                wire = sign(key, chain, nonce, 2**62, [wish]).wire
                start = time.perf_counter()
                accepted = engine.submit(wire)
                if isinstance(accepted, Refusal):
                    raise RefusedInput(f"the ledger refused a lease: {accepted.code} {accepted.info}")
                if engine.wait(accepted.tx_id, timeout_s=30.0) is None:
                    raise RefusedInput("no receipt within 30 s; give latency_s in the parameters")
                times.append(time.perf_counter() - start)
    return float(np.median(times))
