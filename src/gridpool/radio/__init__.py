"""Propagation, cells and the allocation of resource blocks."""

from gridpool.radio.allocation import METHODS, VARIANTS, Allocation, Grant, Method, Variant, allocate
from gridpool.radio.cells import Layout, zone_sizes
from gridpool.radio.instance import (
    STANDARD_NUMEROLOGY,
    STANDARD_REQUIREMENT,
    Instance,
    Interference,
    Link,
    Mvno,
    Numerology,
    Preemption,
    Requirement,
    Site,
    SliceKind,
    read_instance,
    write_instance,
)
from gridpool.radio.links import model_instance
from gridpool.radio.propagation import STANDARD_PROFILE, RadioProfile
from gridpool.radio.weights import BETAS, Beta, betweenness, node_weights

__all__ = [
    "BETAS",
    "METHODS",
    "STANDARD_NUMEROLOGY",
    "STANDARD_PROFILE",
    "STANDARD_REQUIREMENT",
    "VARIANTS",
    "Allocation",
    "Beta",
    "Grant",
    "Instance",
    "Interference",
    "Layout",
    "Link",
    "Method",
    "Mvno",
    "Numerology",
    "Preemption",
    "RadioProfile",
    "Requirement",
    "Site",
    "SliceKind",
    "Variant",
    "allocate",
    "betweenness",
    "model_instance",
    "node_weights",
    "read_instance",
    "write_instance",
    "zone_sizes",
]
