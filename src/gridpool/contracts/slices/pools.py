"""Resource pools: what a party can give where and when, and what of it is already promised."""

from typing import Annotated, Literal

from msgspec import Meta

from gridpool.contracts import members
from gridpool.contracts.members import Role
from gridpool.contracts.slices.contract import Name, slices
from gridpool.ledger.contract import Context, Refused
from gridpool.ledger.state import State
from gridpool.ledger.types import Call, Millis, Value, Wallet

__all__ = [
    "CAPACITIES",
    "POOLS",
    "PROMISES",
    "Amount",
    "Amounts",
    "Pool",
    "Promise",
    "RegisterPool",
    "Segment",
    "SetCapacity",
    "fits",
    "peak",
    "promise",
    "shorten_promise",
]

Segment = Literal["ran", "transport", "core", "compute", "storage"]
Resource = Literal["resource_blocks", "kbps", "devices", "millicores", "mebibytes"]
Area = Annotated[str, Meta(min_length=1, max_length=32, pattern="^[^\\x00]*$")]


class Amount(Value):
    """So much of one resource."""

    resource: Resource
    amount: Annotated[int, Meta(ge=0, le=10**12)]


Amounts = Annotated[tuple[Amount, ...], Meta(max_length=5)]


class Pool(Value):
    """A party's pool (W's RP): its segment and the areas (H3 cells, buses) it serves; no area means everywhere."""

    operator: Wallet
    segment: Segment
    areas: Annotated[tuple[Area, ...], Meta(max_length=256)]


class Capacity(Value):
    """What a pool can give from a time on."""

    amounts: Amounts


class Promise(Value):
    """Capacity promised to a sub-slice until ``end``."""

    pool: Name
    start: Millis
    end: Millis
    amounts: Amounts


class RegisterPool(Call, tag="slices.register_pool"):
    """Open a pool with its capacity from now on (operators)."""

    pool: Name
    segment: Segment
    areas: Annotated[tuple[Area, ...], Meta(max_length=256)]
    amounts: Amounts


class SetCapacity(Call, tag="slices.set_capacity"):
    """Change a pool's capacity from a time on; never below what is promised (its operator)."""

    pool: Name
    start: Millis
    amounts: Amounts


POOLS = slices.table("pool", key=str, value=Pool)
CAPACITIES = slices.table("capacity", key=(str, int), value=Capacity)
"""(pool, time) -> capacity from then on."""
PROMISES = slices.table("promise", key=(str, int, str), value=Promise)
"""(pool, end, sub-slice) -> what is promised; by end, so that what is over need not be read."""
MOST_STEPS = 1_000
MOST_PROMISES = 1_000
"""Promises of a pool that end after a given time; beyond them it takes no further one."""


@slices.call(RegisterPool)
def register_pool(ctx: Context, call: RegisterPool) -> None:
    """Store a pool under a name of its own."""
    members.require(ctx, Role.OPERATOR)
    if ctx.get(POOLS, call.pool) is not None:
        raise Refused("name_taken", f"pool {call.pool} exists")
    _distinct(call.amounts)
    ctx.put(POOLS, call.pool, Pool(ctx.sender, call.segment, call.areas))
    ctx.put(CAPACITIES, (call.pool, 0), Capacity(call.amounts))


@slices.call(SetCapacity)
def set_capacity(ctx: Context, call: SetCapacity) -> None:
    """Add a step to a pool's capacity; refused where promises would no longer fit."""
    pool = ctx.require(POOLS, call.pool, "unknown_pool")
    if pool.operator != ctx.sender:
        raise Refused("not_the_operator")
    if call.start < ctx.now:
        raise Refused("in_the_past")
    _distinct(call.amounts)
    steps = list(ctx.scan(CAPACITIES, (call.pool,), start=(call.pool, ctx.now), limit=MOST_STEPS + 1))
    if len(steps) > MOST_STEPS:
        raise Refused("too_many_steps")
    ctx.put(CAPACITIES, (call.pool, call.start), Capacity(call.amounts))
    later = [time for (_, time), _ in steps if time > call.start]
    if not fits(ctx, call.pool, (), call.start, min(later, default=2**62)):
        raise Refused("already_promised", "capacity would fall below what is promised")


def peak(state: State, pool: str, start: int, end: int) -> dict[str, int]:
    """Return the least free amount of each resource of a pool over [start, end); negative where over-promised.

    Nothing is free where more promises than can be looked through end after ``start``.
    """
    ahead = list(state.scan(PROMISES, (pool,), start=(pool, start + 1, ""), limit=MOST_PROMISES))
    if len(ahead) == MOST_PROMISES:
        return {}
    changes: list[tuple[int, str, int]] = []
    free: dict[str, int] = {}
    current: dict[str, int] = {}
    for _, step in state.scan(CAPACITIES, (pool,), start=(pool, start), reverse=True, limit=1):
        current = {amount.resource: amount.amount for amount in step.amounts}
    free |= current
    for (_, time), step in state.scan(CAPACITIES, (pool,), start=(pool, start + 1)):
        if time >= end:
            break
        following: dict[str, int] = {amount.resource: amount.amount for amount in step.amounts}
        for resource in sorted({*current, *following}):
            changes.append((time, resource, following.get(resource, 0) - current.get(resource, 0)))
        current = following
    for _, held in ahead:
        for amount in held.amounts:
            if held.start <= start:
                free[amount.resource] = free.get(amount.resource, 0) - amount.amount
            elif held.start < end:
                changes.append((held.start, amount.resource, -amount.amount))
            if held.start < end and held.end < end:
                changes.append((held.end, amount.resource, amount.amount))
    least = dict(free)
    changes.sort()
    for at, (time, resource, change) in enumerate(changes):
        free[resource] = free.get(resource, 0) + change
        if at + 1 == len(changes) or changes[at + 1][:2] != (time, resource):
            least[resource] = min(least.get(resource, 0), free[resource])
    return least


def fits(state: State, pool: str, amounts: Amounts, start: int, end: int) -> bool:
    """Tell whether a pool can promise ``amounts`` over the whole of [start, end) besides what it has promised."""
    free = peak(state, pool, start, end)
    wanted = {amount.resource: amount.amount for amount in amounts}
    return all(amount >= 0 for amount in free.values()) and all(
        free.get(resource, 0) >= amount for resource, amount in wanted.items()
    )


def promise(ctx: Context, pool: str, name: str, amounts: Amounts, start: int, end: int) -> None:
    """Promise capacity to the sub-slice ``name``; refused where it is not free."""
    if not fits(ctx, pool, amounts, start, end):
        raise Refused("capacity_not_free", f"pool {pool}")
    ctx.put(PROMISES, (pool, end, name), Promise(pool, start, end, amounts))


def shorten_promise(ctx: Context, pool: str, name: str, old_end: int, new_end: int) -> None:
    """Let a promise end earlier (one that has not begun by then disappears)."""
    held = ctx.require(PROMISES, (pool, old_end, name), "unknown_promise")
    ctx.delete(PROMISES, (pool, old_end, name))
    if new_end > held.start:
        ctx.put(PROMISES, (pool, new_end, name), Promise(pool, held.start, new_end, held.amounts))


def _distinct(amounts: Amounts) -> None:
    if len({amount.resource for amount in amounts}) != len(amounts):
        raise Refused("resource_twice")
