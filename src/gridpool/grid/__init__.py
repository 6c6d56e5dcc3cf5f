"""Feeders, power flow, served power and outages.

Public names, kept stable: ``load_feeder`` gives a frozen ``Feeder`` (``nodes``, ``edges``, ``source``, ``coordinates``,
``loads``, ``devices``, ``node_power_w``, ``phases``, ``degree``, ``nominal_w``); ``served_power`` gives S(M, U) as
``ServedPower``; ``score`` gives S(M, U) / S(all, all).
"""

from gridpool.grid.feeder import FEEDERS, Feeder, load_feeder
from gridpool.grid.served import ServedPower, score, served_power

__all__ = ["FEEDERS", "Feeder", "ServedPower", "load_feeder", "score", "served_power"]
