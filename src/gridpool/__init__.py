"""Pool spectrum, 5G network slices and energy on a consortium ledger, and know beforehand what the pool is worth.

What the commands do, as functions, each loaded when it is first used::

    import gridpool

    feeder = gridpool.load_feeder("ieee13")
    plan = gridpool.plan(feeder, resource_blocks=20)
    served = gridpool.served_power(feeder, plan.observed, plan.controlled)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gridpool.version import __version__

if TYPE_CHECKING:
    from gridpool.day import play_day, read_scenario
    from gridpool.grid import load_feeder, score, served_power, solve_feeder
    from gridpool.lab import (
        Access,
        Attack,
        attack_success,
        latency_report,
        plan_access,
        simulate_attack,
        simulate_latency,
    )
    from gridpool.ledger.verification import verify_ledger
    from gridpool.markets.double_auction import clear
    from gridpool.markets.loans import Borrower, price_loan
    from gridpool.markets.orders import Order
    from gridpool.planner import plan
    from gridpool.studies import run_study

_HOMES = {
    "Access": "gridpool.lab",
    "Attack": "gridpool.lab",
    "Borrower": "gridpool.markets.loans",
    "Order": "gridpool.markets.orders",
    "attack_success": "gridpool.lab",
    "clear": "gridpool.markets.double_auction",
    "latency_report": "gridpool.lab",
    "load_feeder": "gridpool.grid",
    "plan": "gridpool.planner",
    "plan_access": "gridpool.lab",
    "play_day": "gridpool.day",
    "price_loan": "gridpool.markets.loans",
    "read_scenario": "gridpool.day",
    "run_study": "gridpool.studies",
    "score": "gridpool.grid",
    "served_power": "gridpool.grid",
    "simulate_attack": "gridpool.lab",
    "simulate_latency": "gridpool.lab",
    "solve_feeder": "gridpool.grid",
    "verify_ledger": "gridpool.ledger.verification",
}

__all__ = [
    "Access",
    "Attack",
    "Borrower",
    "Order",
    "__version__",
    "attack_success",
    "clear",
    "latency_report",
    "load_feeder",
    "plan",
    "plan_access",
    "play_day",
    "price_loan",
    "read_scenario",
    "run_study",
    "score",
    "served_power",
    "simulate_attack",
    "simulate_latency",
    "solve_feeder",
    "verify_ledger",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'gridpool' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return __all__
