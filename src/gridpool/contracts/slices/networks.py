"""Registered radio networks: cells, zones, MVNO shares, and the attested rate of each node's link."""

from typing import Annotated

from msgspec import Meta

from gridpool.contracts import members
from gridpool.contracts.members import Role
from gridpool.contracts.slices.contract import Name, slices
from gridpool.ledger.contract import Context, Refused
from gridpool.ledger.keys import verify
from gridpool.ledger.types import Call, Event, Natural, Value, Wallet, encode

__all__ = [
    "LINKS",
    "NETWORKS",
    "AttestLinks",
    "Link",
    "LinkStatement",
    "LinksRegistered",
    "MvnoShare",
    "Network",
    "RegisterLinks",
    "RegisterNetwork",
    "link_message",
    "own_network",
]

ZONES = 4
MOST_BLOCKS = 275
"""Resource blocks of the widest carrier of TS 38.101-1, table 5.3.2-1 (106 at 20 MHz and 15 kHz)."""
MOST_SLOTS = 64
LINK_DOMAIN = b"gridpool/slices/link/1\0"
UNSIGNED = bytes(64)
NO_DEVICE = bytes(32)

Blocks = Annotated[int, Meta(ge=0, le=MOST_BLOCKS)]
Rate = Annotated[int, Meta(ge=0, le=10**10)]
Rates = Annotated[tuple[Rate, ...], Meta(min_length=1, max_length=MOST_BLOCKS)]
Cell = Annotated[int, Meta(ge=0, le=10**7)]
Zone = Annotated[int, Meta(ge=0, lt=ZONES)]
SignatureOrZero = Annotated[bytes, Meta(min_length=64, max_length=64)]


class MvnoShare(Value):
    """The most resource blocks that an MVNO may hold in one cell and slot."""

    mvno: Name
    blocks: Blocks


class Network(Value):
    """How an operator's cells are divided; zones are consecutive ranges of blocks, the inner zone's first.

    ``urllc_blocks`` bounds the URLLC blocks of a cell, slot and MVNO (transmit power), ``urllc_bps`` is the rate that
    a URLLC slice needs to hold its delay, ``mmtc_bps`` what an mMTC slice needs.
    """

    operator: Wallet
    resource_blocks: Annotated[int, Meta(ge=1, le=MOST_BLOCKS)]
    zones: tuple[Blocks, Blocks, Blocks, Blocks]
    slots: Annotated[int, Meta(ge=1, le=MOST_SLOTS)]
    urllc_blocks: Blocks
    urllc_bps: Rate
    mmtc_bps: Rate
    shares: Annotated[tuple[MvnoShare, ...], Meta(min_length=1, max_length=64)]


class RegisterNetwork(Call, tag="slices.register_network"):
    """Describe a network's carrier (operators; a name is taken once, its owner may describe it anew)."""

    network: Name
    resource_blocks: Annotated[int, Meta(ge=1, le=MOST_BLOCKS)]
    zones: tuple[Blocks, Blocks, Blocks, Blocks]
    slots: Annotated[int, Meta(ge=1, le=MOST_SLOTS)]
    urllc_blocks: Blocks
    urllc_bps: Rate
    mmtc_bps: Rate
    shares: Annotated[tuple[MvnoShare, ...], Meta(min_length=1, max_length=64)]


class LinkStatement(Value):
    """A node's link: where it is and the bit/s that one resource block carries each way.

    One rate where the channel is the same on all blocks, else one rate a block. ``device`` and ``signature`` are the
    node's own key and its word for it; zeros where a probe or the utility will attest instead.
    """

    node: Name
    cell: Cell
    zone: Zone
    mvno: Name
    uplink_bps: Rates
    downlink_bps: Rates
    device: Wallet = NO_DEVICE
    signature: SignatureOrZero = UNSIGNED


class RegisterLinks(Call, tag="slices.register_links"):
    """State the links of a network's nodes (its operator); each replaces what was stated before."""

    network: Name
    links: Annotated[tuple[LinkStatement, ...], Meta(min_length=1, max_length=500)]


class AttestLinks(Call, tag="slices.attest_links"):
    """Confirm links that no device signed (a member with role probe or utility, never the operator itself)."""

    network: Name
    nodes: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=500)]


class Link(Value):
    """A registered link; it carries nothing until ``attested_by`` is somebody else than its operator."""

    cell: Cell
    zone: Zone
    mvno: Name
    uplink_bps: Rates
    downlink_bps: Rates
    attested_by: Wallet


@slices.event
class LinksRegistered(Event, tag="slices.links_registered"):
    """So many links of a network were stated."""

    network: Name
    links: Natural


NETWORKS = slices.table("network", key=str, value=Network)
LINKS = slices.table("link", key=(str, str), value=Link)
"""(network, node) -> its link."""


def link_message(chain: str, network: str, link: LinkStatement) -> bytes:
    """Give the bytes that a node's device signs for its link."""
    figures = (link.node, link.cell, link.zone, link.mvno, link.uplink_bps, link.downlink_bps)
    return LINK_DOMAIN + encode((chain, network, *figures))


@slices.call(RegisterNetwork)
def register_network(ctx: Context, call: RegisterNetwork) -> None:
    """Store a network's carrier; refused where its zones do not add up or an MVNO stands twice."""
    members.require(ctx, Role.OPERATOR)
    known = ctx.get(NETWORKS, call.network)
    if known is not None and known.operator != ctx.sender:
        raise Refused("name_taken", f"network {call.network} is another operator's")
    if sum(call.zones) != call.resource_blocks:
        raise Refused("zones_do_not_add_up", f"{sum(call.zones)} of {call.resource_blocks} blocks")
    if len({share.mvno for share in call.shares}) != len(call.shares):
        raise Refused("mvno_twice")
    if sum(share.blocks for share in call.shares) > call.resource_blocks:
        raise Refused("shares_exceed_the_carrier")
    ctx.put(
        NETWORKS,
        call.network,
        Network(
            ctx.sender,
            call.resource_blocks,
            call.zones,
            call.slots,
            call.urllc_blocks,
            call.urllc_bps,
            call.mmtc_bps,
            call.shares,
        ),
    )


@slices.call(RegisterLinks)
def register_links(ctx: Context, call: RegisterLinks) -> None:
    """Store links, attested where the node's registered device signed them."""
    network = own_network(ctx, call.network)
    mvnos = {share.mvno for share in network.shares}
    for link in call.links:
        if link.mvno not in mvnos:
            raise Refused("unknown_mvno", f"{link.node}: {link.mvno}")
        if {len(link.uplink_bps), len(link.downlink_bps)} - {1, network.resource_blocks}:
            raise Refused("rates_do_not_fit", f"{link.node}: one rate, or {network.resource_blocks}")
        attested_by = NO_DEVICE
        if link.device != NO_DEVICE:
            device = ctx.get(members.WALLETS, link.device)
            if device is None or Role.SENSOR not in device.roles or ctx.now >= device.valid_until:
                raise Refused("unknown_device", f"{link.node}: not a registered sensor's key")
            if ctx.get(members.BANNED, link.device) is not None:
                raise Refused("banned_device", link.node)
            if not verify(link.device, link.signature, link_message(ctx.chain, call.network, link)):
                raise Refused("bad_device_signature", link.node)
            attested_by = link.device
        stored = Link(link.cell, link.zone, link.mvno, link.uplink_bps, link.downlink_bps, attested_by)
        ctx.put(LINKS, (call.network, link.node), stored)
    ctx.emit(LinksRegistered(call.network, len(call.links)))


@slices.call(AttestLinks)
def attest_links(ctx: Context, call: AttestLinks) -> None:
    """Mark links as confirmed by the sender."""
    witness = members.require(ctx, Role.PROBE, Role.UTILITY)
    network = ctx.require(NETWORKS, call.network, "unknown_network")
    operator = ctx.require(members.WALLETS, network.operator, "unknown_wallet")
    if network.operator == ctx.sender or operator.member == witness.member:
        raise Refused("own_links", "an operator's links are attested by somebody else")
    for node in call.nodes:
        link = ctx.require(LINKS, (call.network, node), "unknown_link")
        stored = Link(link.cell, link.zone, link.mvno, link.uplink_bps, link.downlink_bps, ctx.sender)
        ctx.put(LINKS, (call.network, node), stored)


def own_network(ctx: Context, name: str) -> Network:
    """Return the sender's network ``name``, or refuse."""
    network = ctx.require(NETWORKS, name, "unknown_network")
    if network.operator != ctx.sender:
        raise Refused("not_the_operator", f"network {name} is another operator's")
    return network
