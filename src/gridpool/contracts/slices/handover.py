"""What a replaced wallet leaves to its successor: its networks, pools, orders, offers and contracts."""

from msgspec.structs import replace

from gridpool.contracts.members import recovery
from gridpool.contracts.slices.networks import NETWORKS
from gridpool.contracts.slices.offers import COMMITS, OFFERS, PLACED
from gridpool.contracts.slices.orders import (
    INVOLVED,
    PROGRESS,
    SLICES,
    SUBSLICES,
    SliceRecord,
    sub_slices,
    update,
)
from gridpool.contracts.slices.pools import POOLS
from gridpool.ledger.contract import Context

__all__ = ["hand_slices_over"]


@recovery
def hand_slices_over(ctx: Context, lost: bytes, wallet: bytes) -> None:
    """Let the new wallet act where the lost one could; coins that still reach the lost one follow by a sweep."""
    for name, network in list(ctx.scan(NETWORKS)):
        if network.operator == lost:
            ctx.put(NETWORKS, name, replace(network, operator=wallet))
    for name, pool in list(ctx.scan(POOLS)):
        if pool.operator == lost:
            ctx.put(POOLS, name, replace(pool, operator=wallet))
    for (_, slice_, generation), involved in list(ctx.scan(INVOLVED, (lost,))):
        key = (slice_, generation)
        ctx.put(INVOLVED, (wallet, *key), involved)
        _order(ctx, key, lost, wallet)
        for place, offer in list(ctx.scan(OFFERS, key)):
            if offer.party == lost:
                ctx.put(OFFERS, place, replace(offer, party=wallet))
        for place, commit in list(ctx.scan(COMMITS, key)):
            if commit.party == lost:
                ctx.put(COMMITS, place, replace(commit, party=wallet))


def _order(ctx: Context, key: tuple[str, int], lost: bytes, wallet: bytes) -> None:
    progress = ctx.require(PROGRESS, key, "no_order")
    if progress.tenant == lost:
        update(ctx, key, tenant=wallet)
    record = ctx.require(SLICES, key[0], "unknown_slice")
    if record.tenant == lost:
        ctx.put(SLICES, key[0], SliceRecord(wallet, record.generation))
    for segment, sub in sub_slices(ctx, key).items():
        if sub.party == lost:
            ctx.put(SUBSLICES, (*key, segment), replace(sub, party=wallet))
        counted = ctx.get(PLACED, (*key, segment, lost))
        if counted is not None:
            ctx.put(PLACED, (*key, segment, wallet), counted)
            ctx.delete(PLACED, (*key, segment, lost))
