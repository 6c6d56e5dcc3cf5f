"""From places and sites to an instance: losses, zones, rates, fading, interference."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from gridpool.errors import RefusedInput
from gridpool.radio.cells import LARGEST_CARRIER, Layout, check_resource_blocks, nearest, place, zone_of, zone_sizes
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
    validate,
    within_bounds,
)
from gridpool.radio.propagation import STANDARD_PROFILE, RadioProfile, block_rate_bps, gain, path_loss_db
from gridpool.radio.weights import Beta, betweenness, node_weights

__all__ = ["Town", "build_town", "model_instance", "town_instance"]

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Town:
    """Nodes and sites with one draw of the channel: ``gains`` (nodes by sites) include shadowing.

    ``position_m`` and ``site_m`` are n by 2; ``site`` is each node's nearest site and ``zone`` its zone there;
    ``uplink_fading`` and ``downlink_fading`` (nodes by blocks, mean 1) are None where channels are flat.
    """

    profile: RadioProfile
    position_m: Floats
    site_m: Floats
    site: Ints
    zone: Ints
    gains: Floats
    uplink_fading: Floats | None = None
    downlink_fading: Floats | None = None


def build_town(
    parent: Sequence[int],
    *,
    resource_blocks: int,
    layout: Layout = "onecell",
    profile: RadioProfile = STANDARD_PROFILE,
    fading: Literal["none", "rayleigh"] = "none",
    rng: np.random.Generator,
) -> Town:
    """Place the nodes of a tree, draw shadowing (and Rayleigh fading by block), and find zones.

    The draws of places and shadowing do not depend on ``resource_blocks``.
    """
    places, shadows, fades = rng.spawn(3)
    position, sites = place(parent, layout, profile, places)
    site = nearest(position, sites)
    distance = np.hypot(*(position[:, None, :] - sites[None, :, :]).transpose(2, 0, 1))
    shadow = shadows.normal(0.0, 1.0, size=distance.shape) * profile.sigma_db
    loss = path_loss_db(distance, profile) + (shadow / 10.0 if profile.as_published else shadow)
    own = np.arange(len(position))
    zone = zone_of(position - sites[site], loss[own, site], profile)
    up = down = None
    if fading == "rayleigh":
        up = fades.exponential(1.0, size=(len(position), resource_blocks))
        down = fades.exponential(1.0, size=(len(position), resource_blocks))
    return Town(profile, position, sites, site, zone, gain(loss), up, down)


def model_instance(
    names: Sequence[str],
    parent: Sequence[int],
    power_w: Sequence[float],
    devices: Sequence[bool],
    *,
    resource_blocks: int,
    layout: Layout = "onecell",
    beta: Beta = "bc_endpoints_power",
    alpha_ratio: float = 3.0,
    requirement: Requirement = STANDARD_REQUIREMENT,
    profile: RadioProfile = STANDARD_PROFILE,
    mvnos: Sequence[Mvno] = (Mvno(name="utility", share=1.0),),
    slots: int = 1,
    fading: Literal["none", "rayleigh"] = "none",
    numerology: Numerology = STANDARD_NUMEROLOGY,
    preemption: Preemption | None = None,
    interference: Literal["none", "fixed", "fixed_point"] = "none",
    neighbour_load: float = 1.0,
    work_conserving: bool = False,
    rng: np.random.Generator,
) -> Instance:
    """Return the problem of a tree of nodes in a modelled town.

    Parameters
    ----------
    names, parent, power_w, devices
        For each node: its name, the index of its parent (-1 for the root), its real power in W, and whether a
        generator, switch, capacitor or regulator at it needs a URLLC slice.
    mvnos
        Nodes are dealt to several MVNOs in turn.
    interference
        ``fixed``: every other cell uses ``neighbour_load`` of the zone's blocks; ``fixed_point``: as much as its own
        greedy allocation uses.

    Raises RefusedInput for lists of unequal length, resource blocks outside 1..106 and everything `validate` refuses.
    """
    check_resource_blocks(resource_blocks)
    if not len(names) == len(parent) == len(power_w) == len(devices):
        raise RefusedInput("names, parents, powers and devices differ in number; give one of each a node")
    profile = within_bounds(profile, "radio profile")
    if not 0.0 <= neighbour_load <= 1.0:
        raise RefusedInput(f"a neighbour load of {neighbour_load:g} is no share; give 0 to 1")
    frame = within_bounds(
        Instance(
            resource_blocks=resource_blocks,
            zones=list(zone_sizes(resource_blocks)),
            links=[],
            mvnos=list(mvnos),
            slots=slots,
            urllc_blocks=min(profile.urllc_blocks, LARGEST_CARRIER),
            alpha_ratio=alpha_ratio,
            requirement=requirement,
            fading=fading,
            numerology=numerology,
            preemption=preemption,
            work_conserving=work_conserving,
        ),
        "radio instance",
    )
    town = build_town(parent, resource_blocks=resource_blocks, layout=layout, profile=profile, fading=fading, rng=rng)
    weights = node_weights(beta, parent, power_w)
    between = betweenness(parent)
    base = msgspec.structs.replace(
        frame,
        links=[
            Link(
                node=name,
                cell=int(town.site[i]),
                zone=int(town.zone[i]),
                uplink_bps=0,
                downlink_bps=0,
                urllc=bool(devices[i]),
                weight=float(weights[i]),
                betweenness=float(between[i]),
                mvno=mvnos[i % len(mvnos)].name,
                x_m=round(float(town.position_m[i, 0]), 3),
                y_m=round(float(town.position_m[i, 1]), 3),
            )
            for i, name in enumerate(names)
        ],
        sites=[Site(cell=c, x_m=round(float(x), 3), y_m=round(float(y), 3)) for c, (x, y) in enumerate(town.site_m)],
    )
    if interference == "fixed_point":
        from gridpool.radio.interference import fixed_point

        return validate(fixed_point(base, town), "instance")
    load = neighbour_load if interference == "fixed" else 0.0
    loads = np.full((len(town.site_m), 4), load)
    kind = Interference(kind=interference, load=load, loads=[tuple(row) for row in loads.tolist()])
    return validate(town_instance(base, town, loads, kind), "instance")


def town_instance(base: Instance, town: Town, loads: Floats, interference: Interference) -> Instance:
    """Return ``base`` with the rates that its links have while cells use ``loads`` (sites by zones) of their blocks.

    A downlink is disturbed by every other site on the zone's blocks, an uplink by a mean device of every other cell
    in the same zone.
    """
    profile, own = town.profile, np.arange(len(town.site))
    used = profile.block_power_w * loads.T[town.zone]
    used[own, town.site] = 0.0
    down_w = (used * town.gains).sum(axis=1)
    up_w = _uplink_interference(town, loads)[town.site, town.zone]
    serving = town.gains[own, town.site]

    def rates(fading: Floats | None, noise_figure_db: float, disturbance_w: Floats) -> Ints:
        received = serving if fading is None else serving[:, None] * fading
        other = disturbance_w if fading is None else disturbance_w[:, None]
        bps = block_rate_bps(received, profile, noise_figure_db=noise_figure_db, interference_w=other)
        return np.floor(bps).astype(np.int64)

    up = rates(town.uplink_fading, profile.gnb_noise_figure_db, up_w)
    down = rates(town.downlink_fading, profile.device_noise_figure_db, down_w)
    links = []
    for i, link in enumerate(base.links):
        if up.ndim == 1:
            links.append(msgspec.structs.replace(link, uplink_bps=int(up[i]), downlink_bps=int(down[i])))
        else:
            links.append(
                msgspec.structs.replace(
                    link,
                    uplink_bps=int(up[i].mean()),
                    downlink_bps=int(down[i].mean()),
                    uplink_blocks_bps=up[i].tolist(),
                    downlink_blocks_bps=down[i].tolist(),
                )
            )
    return msgspec.structs.replace(base, links=links, interference=interference)


def _uplink_interference(town: Town, loads: Floats) -> Floats:
    """Return the power in W that each gNB (rows) hears on a block of each zone from the other cells' devices."""
    heard = np.zeros((len(town.site_m), 4))
    for cell in range(len(town.site_m)):
        for zone in range(4):
            there = (town.site == cell) & (town.zone == zone)
            if there.any():
                mean_gain = town.gains[there].mean(axis=0)
                mean_gain[cell] = 0.0
                heard[:, zone] += town.profile.block_power_w * loads[cell, zone] * mean_gain
    return heard
