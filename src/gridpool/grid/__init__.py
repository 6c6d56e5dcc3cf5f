"""Feeders, power flow, served power and outages.

Public names, kept stable: ``load_feeder`` gives a frozen ``Feeder`` (``nodes``, ``edges``, ``source``, ``coordinates``,
``loads``, ``devices``, ``node_power_w``, ``phases``, ``degree``, ``nominal_w``); ``served_power`` gives S(M, U) as
``ServedPower``; ``score`` gives S(M, U) / S(all, all); ``plcc_links``, ``draw_outage`` and ``serve_under_outage`` give
outages; ``solve_feeder`` the power flow as published.
"""

from gridpool.grid.feeder import FEEDERS, Feeder, load_feeder
from gridpool.grid.outages import control_centres, draw_outage, plcc_links, plcc_reach, serve_under_outage
from gridpool.grid.served import ServedPower, score, served_power
from gridpool.grid.solution import PowerFlow, solve_feeder

__all__ = [
    "FEEDERS",
    "Feeder",
    "PowerFlow",
    "ServedPower",
    "control_centres",
    "draw_outage",
    "load_feeder",
    "plcc_links",
    "plcc_reach",
    "score",
    "serve_under_outage",
    "served_power",
    "solve_feeder",
]
