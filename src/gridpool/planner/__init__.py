"""From a feeder to a radio instance, an allocation, the served power and what it is worth."""

from gridpool.planner.plan import FeederTree, Plan, adopt_instance, compare, feeder_instance, feeder_tree, plan
from gridpool.planner.record import (
    AssignmentRow,
    LinkRow,
    NetworkRow,
    SharingRow,
    assignment_rows,
    link_rows,
    network_row,
    sharing_row,
)

__all__ = [
    "AssignmentRow",
    "FeederTree",
    "LinkRow",
    "NetworkRow",
    "Plan",
    "SharingRow",
    "adopt_instance",
    "assignment_rows",
    "compare",
    "feeder_instance",
    "feeder_tree",
    "link_rows",
    "network_row",
    "plan",
    "sharing_row",
]
