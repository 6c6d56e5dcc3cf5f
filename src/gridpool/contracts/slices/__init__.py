"""Slices on the ledger: registered links, assignments, sub-slice resource contracts, offers, supervision, money."""

from gridpool.contracts.slices import assignments, networks
from gridpool.contracts.slices.contract import slices

__all__ = ["assignments", "networks", "slices"]
