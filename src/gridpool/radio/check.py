"""An independent check of an allocation: recomputes (7b)-(7f) from the instance alone, with none of its solvers."""

import math
from collections import Counter
from collections.abc import Iterable

import msgspec

from gridpool.radio.allocation import Grant, Variant
from gridpool.radio.instance import Instance, Link

__all__ = ["Violation", "violations"]


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint that an allocation breaks, and where."""

    constraint: str
    where: str


def violations(instance: Instance, grants: Iterable[Grant], *, variant: Variant = "package") -> list[Violation]:
    """Return every constraint of problem (7) that grants break, in order of the constraints; empty if feasible.

    (7b) one user a block, (7c) MVNO shares, (7d) power, (7e) zones, (7f) delay and connectivity; besides: the claimed
    rates are those of the links, packages are whole, URLLC holds every slot, budgets and guards are kept.
    """
    rows = list(grants)
    links = {link.node: link for link in instance.links}
    found = [
        *_claims(instance, rows, links),
        *_single_users(rows if instance.preemption is None else [row for row in rows if row.slice == "mmtc"]),
        *_shares(instance, rows),
        *_power(instance, rows),
        *_overflow(instance, rows),
        *_zones(instance, rows, links),
        *_delay(instance, rows, links, variant),
        *_packages(instance, rows, links, variant),
        *_guards(instance, rows),
    ]
    return [Violation(constraint=constraint, where=where) for constraint, where in found]


Finding = tuple[str, str]


def _name(row: Grant) -> str:
    return f"{row.node} {row.slice} slot {row.slot}"


def _rates(row: Grant, link: Link) -> list[int]:
    """Return the link's rate on each block of the row."""
    down = row.slice == "urllc"
    by_block = link.downlink_blocks_bps if down else link.uplink_blocks_bps
    if by_block is not None:
        return [by_block[block] for block in row.resource_blocks if 0 <= block < len(by_block)]
    return [link.downlink_bps if down else link.uplink_bps] * len(row.resource_blocks)


def _claims(instance: Instance, rows: list[Grant], links: dict[str, Link]) -> Iterable[Finding]:
    for row in rows:
        link = links.get(row.node)
        if link is None:
            yield "request", f"{row.node} has no link"
            continue
        if row.slice == "urllc" and not link.urllc:
            yield "request", f"{row.node} did not ask for URLLC"
        if (row.cell, row.zone, row.mvno) != (link.cell, link.zone, link.mvno):
            yield "link", f"{_name(row)}: cell, zone or MVNO differ from the link's"
        if not 0 <= row.slot < instance.slots:
            yield "slot", f"{_name(row)}: there are {instance.slots} slots"
        if row.rate_bps != sum(_rates(row, link)):
            yield "rate", f"{_name(row)}: claims {row.rate_bps} bit/s, the link gives {sum(_rates(row, link))}"


def _single_users(rows: list[Grant]) -> Iterable[Finding]:
    users = Counter((row.cell, row.slot, block) for row in rows for block in row.resource_blocks)
    for (cell, slot, block), count in users.items():
        if count > 1:
            yield "7b", f"block {block} of cell {cell} in slot {slot} has {count} users"


def _shares(instance: Instance, rows: list[Grant]) -> Iterable[Finding]:
    total: Counter[str] = Counter()
    used: Counter[tuple[int, int, str]] = Counter()
    for row in rows:
        if instance.preemption is not None and row.slice == "urllc":
            continue
        used[row.cell, row.slot, row.mvno] += len(row.resource_blocks)
        total[row.mvno] += len(row.resource_blocks)
    share = {one.name: math.floor(one.share * instance.resource_blocks + 1e-9) for one in instance.mvnos}
    if not instance.work_conserving:
        for (cell, slot, mvno), count in used.items():
            if count > share.get(mvno, 0):
                yield "7c", f"{mvno} uses {count} of {share.get(mvno, 0)} blocks of cell {cell} in slot {slot}"
    if instance.budget_blocks is not None:
        for mvno, count in total.items():
            if count > instance.budget_blocks:
                yield "budget", f"{mvno} uses {count} of {instance.budget_blocks} blocks over all cells"


def _power(instance: Instance, rows: list[Grant]) -> Iterable[Finding]:
    if instance.preemption is not None:
        return
    used: Counter[tuple[int, int, str]] = Counter()
    for row in rows:
        if row.slice == "urllc":
            used[row.cell, row.slot, row.mvno] += len(row.resource_blocks)
    for (cell, slot, mvno), count in used.items():
        if count > instance.urllc_blocks:
            yield "7d", f"{mvno} powers {count} of {instance.urllc_blocks} URLLC blocks of cell {cell} in slot {slot}"


def _overflow(instance: Instance, rows: list[Grant]) -> Iterable[Finding]:
    """Where slices share blocks: the chance that active ones need more than zone, power or share allow (7c, 7d)."""
    rule = instance.preemption
    if rule is None:
        return
    groups: dict[tuple[int, int | None], list[int]] = {}
    for row in rows:
        if row.slice == "urllc":
            if len(set(row.resource_blocks)) != len(row.resource_blocks):
                yield "7b", f"{_name(row)}: a block is listed twice"
            groups.setdefault((row.cell, row.zone), []).append(len(row.resource_blocks))
            groups.setdefault((row.cell, None), []).append(len(row.resource_blocks))
    share = min(math.floor(one.share * instance.resource_blocks + 1e-9) for one in instance.mvnos)
    for (cell, zone), loads in groups.items():
        limit = min(instance.urllc_blocks, share) if zone is None else instance.zones[zone]
        law = {0: 1.0}
        for k in loads:
            grown: dict[int, float] = {}
            for blocks, chance in law.items():
                grown[blocks] = grown.get(blocks, 0.0) + chance * (1.0 - rule.activity)
                grown[blocks + k] = grown.get(blocks + k, 0.0) + chance * rule.activity
            law = grown
        chance = sum(chance for blocks, chance in law.items() if blocks > limit)
        if chance > rule.overflow * (1.0 + 1e-9):
            where = f"cell {cell}" if zone is None else f"zone {zone} of cell {cell}"
            yield "overflow", f"{where}: active URLLC exceeds {limit} blocks with probability {chance:.3g}"


def _zones(instance: Instance, rows: list[Grant], links: dict[str, Link]) -> Iterable[Finding]:
    for row in rows:
        link = links.get(row.node)
        if link is None:
            continue
        first = sum(instance.zones[: link.zone])
        for block in row.resource_blocks:
            if not first <= block < first + instance.zones[link.zone]:
                yield "7e", f"{_name(row)}: block {block} is not one of zone {link.zone}"


def _delay(instance: Instance, rows: list[Grant], links: dict[str, Link], variant: Variant) -> Iterable[Finding]:
    need = instance.urllc_requirement
    served: Counter[str] = Counter()
    for row in rows:
        link = links.get(row.node)
        if link is None:
            continue
        rate = sum(_rates(row, link))
        if row.slice == "mmtc":
            if rate <= 0:
                yield "7f", f"{_name(row)}: no block that carries anything"
            continue
        served[row.node] += 1
        spare = rate / need.packet_bits - need.packets_per_s
        outage = math.exp(-spare * need.delay_s) if spare > 0 else 1.0
        if outage > need.outage * (1.0 + 1e-9):
            yield "7f", f"{_name(row)}: delay outage {outage:.3g} above {need.outage:.3g}"
    if variant == "literal":
        for link in links.values():
            if link.urllc and served[link.node] < instance.slots:
                yield "7f", f"{link.node}: URLLC is not served in every slot"


def _packages(instance: Instance, rows: list[Grant], links: dict[str, Link], variant: Variant) -> Iterable[Finding]:
    count = Counter((row.node, row.slice) for row in rows)
    slots = Counter((row.node, row.slice, row.slot) for row in rows)
    for (node, kind, slot), times in slots.items():
        if times > 1:
            yield "package", f"{node} {kind} is granted {times} times in slot {slot}"
    for (node, kind), times in count.items():
        if kind == "urllc" and times != instance.slots:
            yield "package", f"{node} urllc holds blocks in {times} of {instance.slots} slots"
    if variant in ("literal", "conditional"):
        return
    for (node, kind), times in count.items():
        if kind == "mmtc" and times > 1:
            yield "package", f"{node} mmtc is granted in {times} slots"
    for row in rows:
        link = links.get(row.node)
        if link is None:
            continue
        if row.slice == "mmtc" and len(row.resource_blocks) != 1:
            yield "package", f"{_name(row)}: {len(row.resource_blocks)} blocks where one is asked"
        if row.slice == "urllc" and len(row.resource_blocks) != _fewest(instance, link):
            yield (
                "package",
                f"{_name(row)}: {len(row.resource_blocks)} blocks where {_fewest(instance, link)} are asked",
            )


def _fewest(instance: Instance, link: Link) -> int:
    """Return the fewest blocks with which the link's URLLC need can be met, by counting up."""
    required, width = instance.urllc_requirement.required_bps, instance.numerology.width
    if link.downlink_blocks_bps is None:
        if link.downlink_bps == 0:
            return -1
        k = width
        while k * link.downlink_bps < required:
            k += width
        return k
    first = sum(instance.zones[: link.zone])
    rates = sorted(link.downlink_blocks_bps[first : first + instance.zones[link.zone]], reverse=True)
    for k in range(1, len(rates) + 1):
        if sum(rates[:k]) >= required:
            return k
    return -1


def _guards(instance: Instance, rows: list[Grant]) -> Iterable[Finding]:
    guard = instance.numerology.guard_blocks
    parts: dict[tuple[int, int, int], dict[str, list[int]]] = {}
    for row in rows:
        parts.setdefault((row.cell, row.slot, row.zone), {}).setdefault(row.slice, []).extend(row.resource_blocks)
    if instance.numerology.mu == 0 and guard == 0:
        return
    for (cell, slot, zone), part in parts.items():
        if "urllc" in part and "mmtc" in part and min(part["mmtc"]) - max(part["urllc"]) - 1 < guard:
            yield "guard", f"zone {zone} of cell {cell} in slot {slot}: parts closer than {guard} blocks"
