"""A plan as rows of integers and names, in the form that a ledger's contract registers and checks."""

from typing import NamedTuple

from gridpool.radio import Allocation, Instance, SliceKind
from gridpool.radio.packages import share_blocks

__all__ = [
    "AssignmentRow",
    "LinkRow",
    "NetworkRow",
    "SharingRow",
    "assignment_rows",
    "link_rows",
    "network_row",
    "sharing_row",
]

NANO = 10**9


class NetworkRow(NamedTuple):
    """What limits an allocation; ``shares`` are (MVNO, most blocks a cell and slot)."""

    resource_blocks: int
    zones: tuple[int, int, int, int]
    slots: int
    urllc_blocks: int
    urllc_bps: int
    mmtc_bps: int
    shares: tuple[tuple[str, int], ...]


class LinkRow(NamedTuple):
    """A node's link: whole bit/s of a resource block each way, one rate or one for each block."""

    node: str
    cell: int
    zone: int
    mvno: str
    uplink_bps: tuple[int, ...]
    downlink_bps: tuple[int, ...]


class AssignmentRow(NamedTuple):
    """The resource blocks of a node's slice in one slot."""

    node: str
    slice: SliceKind
    cell: int
    zone: int
    mvno: str
    slot: int
    blocks: tuple[int, ...]
    rate_bps: int


class SharingRow(NamedTuple):
    """By what rule slices share blocks in mini-slots: probabilities in 1e-9."""

    activity_nano: int
    overflow_nano: int


def sharing_row(instance: Instance) -> SharingRow | None:
    """Return the rule of an instance with mini-slots, None for one without: the activity to the next 1e-9.

    ``overflow`` below 1e-9 becomes 1e-9, the least that a ledger records.
    """
    rule = instance.preemption
    if rule is None:
        return None
    return SharingRow(max(1, round(rule.activity * NANO)), max(1, round(rule.overflow * NANO)))


def network_row(instance: Instance) -> NetworkRow:
    """Return the limits (7b)-(7f) of an instance as integers."""
    inner, first, second, third = instance.zones
    shares = tuple(zip((one.name for one in instance.mvnos), share_blocks(instance).tolist(), strict=True))
    return NetworkRow(
        resource_blocks=instance.resource_blocks,
        zones=(inner, first, second, third),
        slots=instance.slots,
        urllc_blocks=instance.urllc_blocks,
        urllc_bps=instance.urllc_requirement.required_bps,
        mmtc_bps=1,
        shares=shares,
    )


def link_rows(instance: Instance) -> list[LinkRow]:
    """Return the link table: what operator and device attest, before any allocation is claimed."""
    return [
        LinkRow(
            link.node,
            link.cell,
            link.zone,
            link.mvno,
            (link.uplink_bps,) if link.uplink_blocks_bps is None else tuple(link.uplink_blocks_bps),
            (link.downlink_bps,) if link.downlink_blocks_bps is None else tuple(link.downlink_blocks_bps),
        )
        for link in instance.links
    ]


def assignment_rows(allocation: Allocation) -> list[AssignmentRow]:
    """Return the claims of an allocation, one row a grant."""
    return [
        AssignmentRow(
            grant.node,
            grant.slice,
            grant.cell,
            grant.zone,
            grant.mvno,
            grant.slot,
            grant.resource_blocks,
            grant.rate_bps,
        )
        for grant in allocation.grants
    ]
