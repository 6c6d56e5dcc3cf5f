"""Latency, security and consensus models."""

from gridpool.lab.access import Access
from gridpool.lab.attack import Attack, attack_success, published_success, race_blocks
from gridpool.lab.latency import LatencyReport, exact_latency, latency_report
from gridpool.lab.planning import AccessPlan, plan_access
from gridpool.lab.simulation import Simulated, simulate_attack, simulate_latency, simulate_latency_curve

__all__ = [
    "Access",
    "AccessPlan",
    "Attack",
    "LatencyReport",
    "Simulated",
    "attack_success",
    "exact_latency",
    "latency_report",
    "plan_access",
    "published_success",
    "race_blocks",
    "simulate_attack",
    "simulate_latency",
    "simulate_latency_curve",
]
