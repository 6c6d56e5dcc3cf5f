"""One call for every way to allocate resource blocks, and the result they share."""

from collections.abc import Sequence
from typing import Literal, get_args

import msgspec
import numpy as np

from gridpool.errors import RefusedInput
from gridpool.radio.bounds import upper_bound
from gridpool.radio.greedy import (
    bc_order,
    greedy,
    greedy_reference,
    in_order,
    random_order,
    top_k_order,
    value_density_order,
)
from gridpool.radio.instance import Instance, SliceKind
from gridpool.radio.occupancy import Choice
from gridpool.radio.packages import URLLC, Packages, packages

__all__ = ["METHODS", "VARIANTS", "Allocation", "Grant", "Method", "Variant", "allocate"]

Method = Literal["greedy", "greedy_reference", "exact", "milp", "bc", "top_k", "random", "value_density", "lagrangian"]
METHODS: tuple[Method, ...] = get_args(Method)

Variant = Literal["package", "literal", "conditional", "coverage"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)


ROUNDING = 1e-12
"""Relative difference of two sums of the same numbers in another order, at most."""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A slice's resource blocks in one slot; ``delay_outage`` is equation (8), for URLLC only."""

    node: str
    slice: SliceKind
    cell: int
    zone: int
    mvno: str
    slot: int
    resource_blocks: tuple[int, ...]
    rate_bps: int
    required_bps: int
    delay_outage: float | None


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """What was granted and how good that is.

    ``value`` is (7a) in bit/s/Hz: the sum over grants of alpha beta rate / (180 kHz N). ``bound`` is an upper bound on
    it under the same constraints and ``gap`` the relative distance. ``objective`` and its bound are what was maximised:
    the same, except under ``coverage``. ``how`` names the algorithm that finished the work.
    """

    method: Method
    variant: Variant
    how: str
    value: float
    bound: float
    gap: float
    objective: float
    objective_bound: float
    urllc_granted: int
    mmtc_granted: int
    urllc_requested: int
    mmtc_requested: int
    resource_blocks_used: int
    grants: list[Grant]

    @property
    def observed(self) -> tuple[str, ...]:
        """Nodes with a working mMTC slice, in node order of the grants."""
        return tuple(dict.fromkeys(grant.node for grant in self.grants if grant.slice == "mmtc"))

    @property
    def controlled(self) -> tuple[str, ...]:
        """Nodes with a working URLLC slice, in node order of the grants."""
        return tuple(dict.fromkeys(grant.node for grant in self.grants if grant.slice == "urllc"))


def allocate(
    instance: Instance,
    *,
    method: Method = "greedy",
    variant: Variant = "package",
    rng: np.random.Generator | None = None,
    time_limit_s: float = 60.0,
) -> Allocation:
    """Allocate the resource blocks of every cell and slot.

    With ``instance.preemption`` URLLC slices share blocks by a quantile (see `gridpool.radio.minislots`).

    Raises RefusedInput where ``literal`` is infeasible or the method does not cover the variant.

    Parameters
    ----------
    instance
        The problem; its links' weights need not be normalised.
    method
        ``greedy`` is Algorithm 1 of Farhadi et al. (2022); ``exact`` is optimal; ``milp`` is HiGHS; ``lagrangian``
        prices a budget over many cells; the others grant in a fixed order.
    variant
        ``package``: each slice gets nothing or exactly its k blocks. ``literal``: problem (7) as printed, (7f) for
        every URLLC slice, blocks beyond the need count too. ``conditional``: (7f) only for URLLC slices that are
        served, blocks beyond the need count too. ``coverage``: packages, maximising alpha beta without the rate.
    rng
        Needed by ``random`` only.
    time_limit_s
        Most time of the mixed-integer solver; what it has then is returned with its gap.
    """
    items = packages(instance, "coverage" if variant == "coverage" else "value")
    if instance.preemption is not None:
        return _preempting(items, method, variant, rng)
    if variant in ("literal", "conditional"):
        return _free_counts(items, method, variant, rng, time_limit_s)
    how, optimal = "one pass", False
    proven: float | None = None
    if method in ("exact", "milp", "lagrangian"):
        from gridpool.radio.optimal import optimum

        choices, how, proven, optimal = optimum(items, method, time_limit_s)
    else:
        choices = _ordered(items, method, rng)
        how = "Algorithm 1 step by step" if method == "greedy_reference" else how
    return _result(items, choices, method, variant, how, proven, optimal)


def _ordered(items: Packages, method: Method, rng: np.random.Generator | None) -> list[Choice]:
    if method == "greedy_reference":
        return greedy_reference(items)
    if method == "greedy":
        return greedy(items)
    return in_order(items, _order(items, method, rng))


def _order(items: Packages, method: Method, rng: np.random.Generator | None) -> Sequence[int]:
    if method == "bc":
        return bc_order(items)
    if method == "top_k":
        return top_k_order(items)
    if method == "value_density":
        return value_density_order(items)
    if method == "random":
        if rng is None:
            raise RefusedInput("method random draws nodes by chance; give a generator (a seed)")
        return random_order(items, rng)
    return [int(item) for item in np.argsort(-items.worth, kind="stable")]


def _preempting(items: Packages, method: Method, variant: Variant, rng: np.random.Generator | None) -> Allocation:
    from gridpool.radio.minislots import preempting, value_bound

    if method in ("greedy_reference", "exact", "milp", "lagrangian") or variant not in ("package", "coverage"):
        raise RefusedInput(
            "pre-emption admits packages in an order: choose method greedy, value_density, bc, top_k or random, "
            "and variant package or coverage"
        )
    choices = preempting(items, _order(items, method, rng))
    return _result(items, choices, method, variant, "quantile of active slices", value_bound(items), False)


def _free_counts(
    items: Packages, method: Method, variant: Variant, rng: np.random.Generator | None, time_limit_s: float
) -> Allocation:
    from gridpool.radio.counts import fill, refuse_infeasible
    from gridpool.radio.milp import best_counts

    if items.instance.numerology.mu > 0 or items.instance.numerology.guard_blocks > 0:
        raise RefusedInput(f"variant {variant} has one numerology; choose package or coverage")
    if method == "lagrangian":
        raise RefusedInput(f"method lagrangian allocates packages; choose milp or greedy for variant {variant}")
    if variant == "literal":
        refuse_infeasible(items)
    solved = best_counts(items, literal=variant == "literal", time_limit_s=time_limit_s)
    if method in ("exact", "milp"):
        return _result(items, solved.choices, method, variant, solved.how, solved.bound, solved.optimal)
    order = _order(items, method, rng)
    if variant == "literal":
        order = sorted(order, key=lambda item: items.slice[item] != URLLC)
    choices = fill(items, in_order(items, order))
    if variant == "literal" and sum(int(items.slice[choice.item]) for choice in choices) < int(items.slice.sum()):
        raise RefusedInput(
            f"method {method} finds no allocation that serves every URLLC slice, as variant literal asks; "
            "choose exact, or variant package"
        )
    return _result(items, choices, method, variant, "one pass, then block by block", solved.bound, False)


def _result(
    items: Packages,
    choices: list[Choice],
    method: Method,
    variant: Variant,
    how: str,
    proven: float | None,
    optimal: bool,
) -> Allocation:
    grants: list[Grant] = []
    value = 0.0
    for choice in choices:
        value += sum(_grant_value(items, choice))
        grants += _grants(items, choice)
    coverage = items.objective == "coverage"
    objective = float(sum(float(items.worth[choice.item]) for choice in choices)) if coverage else value
    objective_bound = objective if optimal else (proven if proven is not None else upper_bound(items))
    objective_bound = max(objective_bound, objective)
    bound = objective_bound
    if coverage and items.instance.preemption is not None:
        from gridpool.radio.minislots import value_bound

        bound = max(value_bound(packages(items.instance)), value)
    elif coverage:
        bound = max(upper_bound(packages(items.instance)), value)
    kinds = items.slice
    urllc = sum(1 for choice in choices if kinds[choice.item] == URLLC)
    return Allocation(
        method=method,
        variant=variant,
        how=how,
        value=value,
        bound=bound,
        gap=0.0 if bound - value <= ROUNDING * bound else (bound - value) / bound,
        objective=objective,
        objective_bound=objective_bound,
        urllc_granted=urllc,
        mmtc_granted=len(choices) - urllc,
        urllc_requested=int((kinds == URLLC).sum()),
        mmtc_requested=int((kinds != URLLC).sum()),
        resource_blocks_used=sum(len(grant.resource_blocks) for grant in grants),
        grants=grants,
    )


def _grant_value(items: Packages, choice: Choice) -> list[float]:
    return [
        float(items.block_value[choice.item]) * _rate(items, choice.item, blocks) for blocks in choice.resource_blocks
    ]


def _rate(items: Packages, item: int, blocks: tuple[int, ...]) -> int:
    if items.rates is None:
        return len(blocks) * int(items.rate[item])
    return int(items.rates[item, list(blocks)].sum())


def _grants(items: Packages, choice: Choice) -> list[Grant]:
    instance, item = items.instance, choice.item
    urllc = bool(items.slice[item] == URLLC)
    requirement = instance.urllc_requirement
    rows = []
    for slot, blocks in zip(choice.slots, choice.resource_blocks, strict=True):
        rate = _rate(items, item, blocks)
        rows.append(
            Grant(
                node=items.node(item),
                slice=items.slice_name(item),
                cell=items.cell_names[int(items.cell[item])],
                zone=int(items.zone[item]),
                mvno=instance.mvnos[int(items.mvno[item])].name,
                slot=slot,
                resource_blocks=blocks,
                rate_bps=rate,
                required_bps=requirement.required_bps if urllc else 0,
                delay_outage=requirement.delay_outage(rate) if urllc else None,
            )
        )
    return rows
