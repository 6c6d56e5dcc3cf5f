"""The spectrum contract: register, leases, access history, sensing and sales.

The rules stand in ``spectrum_register`` (classes, licences, protected uses, idle bands), ``spectrum_leases`` and
``spectrum_transfers`` (moved, divided, joined, passed on), ``spectrum_interference`` (who hears whom),
``spectrum_audit`` (the whole register judged), ``spectrum_access`` (fairness), ``spectrum_sensing`` (incidents) and
``spectrum_sales`` (auctions); importing this file registers all of them on ``spectrum``.
"""

from gridpool.contracts import (
    spectrum_access,
    spectrum_interference,
    spectrum_leases,
    spectrum_register,
    spectrum_sales,
    spectrum_sensing,
    spectrum_transfers,
)
from gridpool.contracts.spectrum_records import spectrum
from gridpool.contracts.spectrum_register import SpectrumParameters

__all__ = [
    "SpectrumParameters",
    "spectrum",
    "spectrum_access",
    "spectrum_interference",
    "spectrum_leases",
    "spectrum_register",
    "spectrum_sales",
    "spectrum_sensing",
    "spectrum_transfers",
]
