"""The plan of a feeder: a radio instance from its tree, an allocation, and the power that can then be served."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import msgspec
import numpy as np

from gridpool.errors import RefusedInput
from gridpool.grid import Feeder, ServedPower, served_power
from gridpool.radio import (
    STANDARD_NUMEROLOGY,
    STANDARD_PROFILE,
    STANDARD_REQUIREMENT,
    Allocation,
    Beta,
    Instance,
    Layout,
    Method,
    Mvno,
    Numerology,
    Preemption,
    RadioProfile,
    Requirement,
    Variant,
    allocate,
    model_instance,
    node_weights,
)
from gridpool.radio.instance import validate, within_bounds

__all__ = ["FeederTree", "Plan", "adopt_instance", "compare", "feeder_instance", "feeder_tree", "plan", "served_by"]


@dataclass(frozen=True, slots=True)
class FeederTree:
    """A feeder as radio sees it: nodes by name, the index of each one's parent, its power in W, and its devices."""

    names: tuple[str, ...]
    parent: tuple[int, ...]
    power_w: tuple[float, ...]
    devices: tuple[bool, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Who gets a slice on a feeder, and the load that can be served then.

    ``served_share`` is served / nominal power, ``score`` served power / served power at full connectivity.
    """

    feeder: str
    seed: int
    instance: Instance
    allocation: Allocation
    observed: tuple[str, ...]
    controlled: tuple[str, ...]
    served_power_w: float
    served_share: float
    score: float
    certified: str
    formulation: str
    assumptions: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Give the plan as plain JSON-ready data, the grants under ``allocation``."""
        done = self.allocation
        return {
            "feeder": self.feeder,
            "method": done.method,
            "variant": done.variant,
            "how": done.how,
            "seed": self.seed,
            "value": done.value,
            "bound": done.bound,
            "gap": done.gap,
            "objective": done.objective,
            "objective_bound": done.objective_bound,
            "urllc_granted": done.urllc_granted,
            "mmtc_granted": done.mmtc_granted,
            "urllc_requested": done.urllc_requested,
            "mmtc_requested": done.mmtc_requested,
            "resource_blocks": self.instance.resource_blocks,
            "resource_blocks_used": done.resource_blocks_used,
            "cells": len({link.cell for link in self.instance.links}),
            "zones": {str(zone): size for zone, size in enumerate(self.instance.zones)},
            "allocation": [msgspec.to_builtins(grant) for grant in done.grants],
            "observed": list(self.observed),
            "controlled": list(self.controlled),
            "served_power_w": self.served_power_w,
            "served_share": self.served_share,
            "score": self.score,
            "certified": self.certified,
            "formulation": self.formulation,
            "interference": {
                "kind": self.instance.interference.kind,
                "load": self.instance.interference.load,
                "converged": self.instance.interference.converged,
            },
            "assumptions": list(self.assumptions),
        }


def feeder_tree(feeder: Feeder, *, dg_share: float = 0.2) -> FeederTree:
    """Return a feeder's nodes in feeder order with parents, powers and devices.

    A node's power is its nominal demand plus its generators' size (``dg_share`` of the feeder's load, in equal parts).
    """
    index = {node: i for i, node in enumerate(feeder.nodes)}
    parent = [-1] * len(index)
    for above, below in feeder.edges:
        parent[index[below]] = index[above]
    power = [feeder.node_power_w(node) for node in feeder.nodes]
    generators = [device.node for device in feeder.devices if device.kind == "generator"]
    for node in generators:
        power[index[node]] += dg_share * feeder.nominal_w / len(generators)
    devices = set(feeder.device_nodes())
    return FeederTree(feeder.nodes, tuple(parent), tuple(power), tuple(node in devices for node in feeder.nodes))


def feeder_instance(
    feeder: Feeder,
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
    dg_share: float = 0.2,
    seed: int = 1,
) -> Instance:
    """Return the radio problem of a feeder in a modelled town (arguments as in `gridpool.radio.model_instance`)."""
    tree = feeder_tree(feeder, dg_share=dg_share)
    return model_instance(
        tree.names,
        tree.parent,
        tree.power_w,
        tree.devices,
        resource_blocks=resource_blocks,
        layout=layout,
        beta=beta,
        alpha_ratio=alpha_ratio,
        requirement=requirement,
        profile=profile,
        mvnos=mvnos,
        slots=slots,
        fading=fading,
        numerology=numerology,
        preemption=preemption,
        interference=interference,
        neighbour_load=neighbour_load,
        work_conserving=work_conserving,
        rng=np.random.default_rng(seed),
    )


def adopt_instance(
    instance: Instance,
    feeder: Feeder,
    *,
    resource_blocks: int | None = None,
    beta: Beta | None = None,
    alpha_ratio: float | None = None,
    packet_bits: int | None = None,
    dg_share: float = 0.2,
) -> Instance:
    """Return an instance from a file as a problem of this feeder, with what is given here in place of the file's.

    Raises RefusedInput where the instance names a node that the feeder lacks, or a value is out of bounds.
    """
    feeder.require_nodes(link.node for link in instance.links)
    if resource_blocks is not None:
        instance = instance.with_resource_blocks(resource_blocks)
    if beta is not None:
        tree = feeder_tree(feeder, dg_share=dg_share)
        weight = dict(zip(tree.names, node_weights(beta, tree.parent, tree.power_w).tolist(), strict=True))
        links = [msgspec.structs.replace(link, weight=weight[link.node]) for link in instance.links]
        instance = msgspec.structs.replace(instance, links=links)
    if alpha_ratio is not None:
        instance = msgspec.structs.replace(instance, alpha_ratio=alpha_ratio)
    if packet_bits is not None:
        requirement = msgspec.structs.replace(instance.requirement, packet_bits=packet_bits)
        instance = msgspec.structs.replace(instance, requirement=requirement)
    return validate(within_bounds(instance, "instance"), "instance")


def plan(
    feeder: Feeder,
    *,
    resource_blocks: int | None = None,
    method: Method = "greedy",
    variant: Variant = "package",
    layout: Layout = "onecell",
    beta: Beta = "bc_endpoints_power",
    alpha_ratio: float = 3.0,
    packet_bits: int = 2048,
    sigma_db: float = 8.0,
    dg_share: float = 0.2,
    blind_error: float = 0.5,
    instance: Instance | None = None,
    seed: int = 1,
) -> Plan:
    """Plan a feeder's slices and compute what can be served with them.

    Raises RefusedInput for resource blocks outside 1..106, an instance of another feeder, or an infeasible variant.

    Parameters
    ----------
    feeder
        From `gridpool.grid.load_feeder`.
    resource_blocks
        Blocks a cell, 1 to 106; left out where ``instance`` has them.
    method, variant
        As in `gridpool.radio.allocate`.
    layout, beta, alpha_ratio, packet_bits, sigma_db, dg_share
        The modelled town, the weights and the URLLC need, where no ``instance`` is given.
    blind_error
        Error of an unobserved node's demand, as a share of it.
    instance
        A radio problem to use as it is, e.g. with measured links (see `adopt_instance`).
    seed
        Of places, shadowing and the random method.
    """
    if instance is None:
        if resource_blocks is None:
            raise RefusedInput("the number of resource blocks is missing; give from 1 to 106 a cell")
        instance = feeder_instance(
            feeder,
            resource_blocks=resource_blocks,
            layout=layout,
            beta=beta,
            alpha_ratio=alpha_ratio,
            requirement=Requirement(packet_bits=packet_bits),
            profile=RadioProfile(sigma_db=sigma_db),
            dg_share=dg_share,
            seed=seed,
        )
    else:
        instance = adopt_instance(instance, feeder, resource_blocks=resource_blocks)
    allocation = _allocated(instance, method, variant, seed)
    return _certified(feeder, instance, allocation, seed=seed, dg_share=dg_share, blind_error=blind_error)


def compare(
    feeder: Feeder,
    instance: Instance,
    *,
    methods: Sequence[Method],
    variant: Variant = "package",
    seed: int = 1,
    dg_share: float = 0.2,
    blind_error: float = 0.5,
) -> Iterator[Plan]:
    """Plan one instance by several methods, one after the other."""
    for method in methods:
        allocation = _allocated(instance, method, variant, seed)
        yield _certified(feeder, instance, allocation, seed=seed, dg_share=dg_share, blind_error=blind_error)


@lru_cache(maxsize=256)
def served_by(
    feeder: Feeder, observed: frozenset[str], controlled: frozenset[str], blind_error: float, dg_share: float
) -> ServedPower:
    """Return S(M, U) at nominal demand, remembered by its arguments."""
    return served_power(feeder, observed, controlled, blind_error=blind_error, dg_share=dg_share)


def _allocated(instance: Instance, method: Method, variant: Variant, seed: int) -> Allocation:
    """Allocate; the random method has a stream of its own, apart from the one that placed the nodes."""
    return allocate(instance, method=method, variant=variant, rng=np.random.default_rng([seed, 1]))


def _certified(
    feeder: Feeder, instance: Instance, allocation: Allocation, *, seed: int, dg_share: float, blind_error: float
) -> Plan:
    seen, steered = frozenset(allocation.observed), frozenset(allocation.controlled)
    everyone = frozenset(feeder.nodes)
    served = served_by(feeder, seen, steered, blind_error, dg_share)
    full = served_by(feeder, everyone, everyone, blind_error, dg_share)
    return Plan(
        feeder=feeder.name,
        seed=seed,
        instance=instance,
        allocation=allocation,
        observed=tuple(node for node in feeder.nodes if node in seen),
        controlled=tuple(node for node in feeder.nodes if node in steered),
        served_power_w=served.served_w,
        served_share=served.served_share,
        score=1.0 if full.served_w <= 0.0 else min(1.0, served.served_w / full.served_w),
        certified=served.certified,
        formulation=served.formulation,
        assumptions=_assumptions(instance, dg_share, blind_error),
    )


def _assumptions(instance: Instance, dg_share: float, blind_error: float) -> tuple[str, ...]:
    need = instance.urllc_requirement
    return (
        f"an unobserved load lies within {blind_error:.0%} of its nominal demand",
        "without control: regulators neutral, capacitors and generators off",
        f"generators together have {dg_share:.0%} of the feeder's load",
        f"URLLC: {need.packet_bits} bit packets, {need.packets_per_s:g} a second, "
        f"P(delay >= {need.delay_s * 1e3:g} ms) <= {need.outage:g}",
        *(
            ()
            if instance.preemption is None
            else (
                f"mini-slots: a URLLC slice is active with probability {instance.preemption.activity:g} a slot; active "
                f"ones exceed the blocks there are with probability {instance.preemption.overflow:g} at most; the "
                "value counts mMTC before what it loses to them",
            )
        ),
        f"interference from other cells: {instance.interference.kind}",
        f"fading between blocks: {instance.fading}",
    )
