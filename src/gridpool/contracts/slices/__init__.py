"""Slices on the ledger: registered links, assignments, sub-slice resource contracts, offers, supervision, money."""

from gridpool.contracts.slices import (
    assignments,
    awards,
    changes,
    deployment,
    handover,
    networks,
    offers,
    orders,
    pools,
    sharing,
    statements,
    supervision,
)
from gridpool.contracts.slices.contract import slices

__all__ = [
    "assignments",
    "awards",
    "changes",
    "deployment",
    "handover",
    "networks",
    "offers",
    "orders",
    "pools",
    "sharing",
    "slices",
    "statements",
    "supervision",
]
