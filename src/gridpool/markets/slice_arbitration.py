"""Choose one offer a segment for an end-to-end slice: exact, in integers, with offered or VCG payments."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from gridpool.errors import RefusedInput
from gridpool.markets.slice_arbitration_search import Limits, Triple, cheapest

if TYPE_CHECKING:
    from gridpool.markets.slice_arbitration_kernels import OfferColumns

__all__ = [
    "CONSTRAINTS",
    "LARGEST",
    "Arbitration",
    "Objective",
    "OfferBook",
    "Payment",
    "SegmentOffer",
    "SliceRequest",
    "arbitrate",
    "binding_constraints",
    "choice_key",
    "feasible_choice",
]

Objective = Literal["cost", "delay", "bandwidth", "availability"]
Payment = Literal["offer", "vcg"]
Constraint = Literal["max_delay_us", "min_bandwidth_kbps", "max_risk_nano", "reserve"]

CONSTRAINTS: tuple[Constraint, ...] = get_args(Constraint)
LARGEST = 10**15
"""Largest figure of a request or an offer: a sum over 1,000 segments still fits 64 bits."""

SEARCHED_PLAINLY = 192
"""Books up to this many offers are searched by plain Python; above, by compiled kernels with the same answer."""


class SliceRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a slice needs end to end: delay in us, bandwidth in kbit/s, risk as -ln(availability) in 1e-9, coins.

    ``budget`` bounds the sum of payments; without it the reserve does.
    """

    segments: tuple[str, ...]
    max_delay_us: int
    min_bandwidth_kbps: int
    max_risk_nano: int
    reserve: int
    budget: int | None = None

    @property
    def payable(self) -> int:
        """The most that all payments together may reach."""
        return self.reserve if self.budget is None else self.budget


class SegmentOffer(msgspec.Struct, frozen=True):
    """One party's offer for one segment, in the units of `SliceRequest`."""

    id: str
    segment: str
    party: str
    cost: int
    delay_us: int
    bandwidth_kbps: int
    risk_nano: int


class Arbitration(msgspec.Struct, frozen=True, kw_only=True):
    """The decision: the chosen offers in the request's order, their totals, who is paid what.

    ``candidates`` counts the offers read, ``pareto`` those on the fronts whose join gave the answer: of the offers that
    keep every limit beside the smallest figures of the other segments, those that no other of their segment undercuts
    in cost, delay and risk. Where nothing is feasible ``chosen`` is empty, the totals are None, ``binding`` is a
    smallest set of constraints without which something would be, and the fronts are those without them. Where a segment
    in ``missing`` has no offer at all, ``binding`` stays empty and there is nothing to join: ``pareto`` is 0.
    """

    feasible: bool
    objective: Objective
    chosen: tuple[SegmentOffer, ...]
    cost: int | None
    delay_us: int | None
    bandwidth_kbps: int | None
    risk_nano: int | None
    payments: dict[str, int]
    over_budget: bool
    candidates: int
    pareto: int
    binding: tuple[Constraint, ...] = ()
    missing: tuple[str, ...] = ()


class OfferBook:
    """Offers grouped by segment and ready to be searched; ids are distinct within a segment.

    Raises RefusedInput for a figure outside 0..10^15, an empty or repeated id.
    """

    def __init__(self, segments: Sequence[str], offers: Sequence[SegmentOffer]) -> None:
        groups: dict[str, list[SegmentOffer]] = {segment: [] for segment in segments}
        if not groups or len(groups) != len(segments):
            raise RefusedInput("segments: name each segment once, and at least one")
        for offer in offers:
            _check(offer)
            if offer.segment in groups:
                groups[offer.segment].append(offer)
        self.segments = tuple(segments)
        self.candidates = len(offers)
        self.groups = tuple(tuple(sorted(group, key=lambda o: o.id)) for group in groups.values())
        for group in self.groups:
            for one, other in pairwise(group):
                if one.id == other.id:
                    raise RefusedInput(f"offer {one.id!r} stands twice in segment {one.segment!r}; ids are distinct")
        self.bandwidths = sorted({o.bandwidth_kbps for group in self.groups for o in group})
        self.widest = min(max((o.bandwidth_kbps for o in group), default=0) for group in self.groups)
        self.columns = _columns(self.groups) if sum(map(len, self.groups)) > SEARCHED_PLAINLY else None


def arbitrate(
    request: SliceRequest, book: OfferBook, *, objective: Objective = "cost", payment: Payment = "offer"
) -> Arbitration:
    """Choose one offer a segment, minimising (objective, cost, delay, risk, then ids in segment order).

    Sums of delay, risk and cost stay within the request, every bandwidth reaches its minimum. ``bandwidth``
    maximises the smallest bandwidth, ``availability`` minimises the sum of risks. Payment ``vcg`` pays a winner its
    offered cost + C(without all its offers) - C*, with the reserve as C where nothing is feasible without it
    (Vickrey-Clarke-Groves, pivotal form); it exists for objective ``cost`` only.

    Raises RefusedInput for ``vcg`` with another objective, or a book of other segments.
    """
    if payment == "vcg" and objective != "cost":
        raise RefusedInput(f"vcg pays fairly for objective cost only, not {objective}; choose --payment offer")
    if book.segments != request.segments:
        raise RefusedInput("the offers were grouped for other segments than the request's")
    found, pareto = _choose(request, book, objective)
    if found is None:
        binding, pareto = _binding(request, book)
        return Arbitration(
            feasible=False,
            objective=objective,
            chosen=(),
            cost=None,
            delay_us=None,
            bandwidth_kbps=None,
            risk_nano=None,
            payments={},
            over_budget=False,
            candidates=book.candidates,
            pareto=pareto,
            binding=binding,
            missing=tuple(s for s, group in zip(book.segments, book.groups, strict=True) if not group),
        )
    cost = sum(o.cost for o in found)
    payments: dict[str, int] = {}
    for offer in found:
        payments[offer.party] = payments.get(offer.party, 0) + offer.cost
    if payment == "vcg":
        for party in payments:
            payments[party] += _cost_without(request, book, party) - cost
    return Arbitration(
        feasible=True,
        objective=objective,
        chosen=found,
        cost=cost,
        delay_us=sum(o.delay_us for o in found),
        bandwidth_kbps=min(o.bandwidth_kbps for o in found),
        risk_nano=sum(o.risk_nano for o in found),
        payments=payments,
        over_budget=sum(payments.values()) > request.payable,
        candidates=book.candidates,
        pareto=pareto,
    )


def binding_constraints(request: SliceRequest, book: OfferBook) -> tuple[Constraint, ...]:
    """Give a smallest set of constraints without which some choice is feasible (empty when none would help)."""
    return _binding(request, book)[0]


def choice_key(chosen: Sequence[SegmentOffer], objective: Objective) -> tuple[int | str, ...]:
    """Give the key that the decision minimises, for offers in the request's segment order."""
    cost, delay, risk = sum(o.cost for o in chosen), sum(o.delay_us for o in chosen), sum(o.risk_nano for o in chosen)
    first = {"cost": cost, "delay": delay, "availability": risk, "bandwidth": -min(o.bandwidth_kbps for o in chosen)}
    return first[objective], cost, delay, risk, *(o.id for o in chosen)


def feasible_choice(request: SliceRequest, chosen: Sequence[SegmentOffer]) -> str | None:
    """Check one offer a segment against the request; give None, or what is violated in a few words."""
    if tuple(o.segment for o in chosen) != request.segments:
        return "segments: not one offer a segment in the request's order"
    totals = (
        ("max_delay_us", sum(o.delay_us for o in chosen), request.max_delay_us),
        ("max_risk_nano", sum(o.risk_nano for o in chosen), request.max_risk_nano),
        ("reserve", sum(o.cost for o in chosen), request.reserve),
    )
    for name, total, limit in totals:
        if total > limit:
            return f"{name}: {total} is more than {limit}"
    least = min(o.bandwidth_kbps for o in chosen)
    if least < request.min_bandwidth_kbps:
        return f"min_bandwidth_kbps: {least} is less than {request.min_bandwidth_kbps}"
    return None


def _columns(groups: Sequence[Sequence[SegmentOffer]]) -> "OfferColumns":
    # Numba is loaded for large books only: a ledger node that decides small ones never waits for it.
    from gridpool.markets.slice_arbitration_kernels import OfferColumns

    return OfferColumns(groups)


def _check(offer: SegmentOffer) -> None:
    if not offer.id or not offer.party:
        raise RefusedInput(f"offer {offer.id!r} of party {offer.party!r}: id and party must not be empty")
    for name in ("cost", "delay_us", "bandwidth_kbps", "risk_nano"):
        if not 0 <= getattr(offer, name) <= LARGEST:
            raise RefusedInput(f"offer {offer.id!r}: {name} must lie in 0..10^15, not {getattr(offer, name)}")


def _binding(request: SliceRequest, book: OfferBook) -> tuple[tuple[Constraint, ...], int]:
    """Give a smallest set of constraints to drop, and how many offers stood on the fronts without them."""
    for size in range(len(CONSTRAINTS) + 1):
        for dropped in combinations(CONSTRAINTS, size):
            found, pareto = _choose(_relaxed(request, dropped), book, "cost")
            if found is not None:
                return dropped, pareto
    return (), 0


def _relaxed(request: SliceRequest, dropped: Sequence[Constraint]) -> SliceRequest:
    loose = {name: 0 if name == "min_bandwidth_kbps" else len(request.segments) * LARGEST for name in dropped}
    return msgspec.structs.replace(request, **loose)


def _choose(
    request: SliceRequest, book: OfferBook, objective: Objective, without: str | None = None
) -> tuple[tuple[SegmentOffer, ...] | None, int]:
    """Give the best feasible choice (or None) and how many offers stood on the fronts."""
    floor = request.min_bandwidth_kbps
    if objective != "bandwidth":
        return _search(request, book, objective, floor, without)
    # The widest bottleneck is the largest threshold that leaves a feasible choice, and feasibility only shrinks as the
    # threshold rises; at that threshold every feasible choice has the same bottleneck, so cost and the rest decide.
    best = _search(request, book, "cost", floor, without)
    if best[0] is None:
        return best
    reached = min(o.bandwidth_kbps for o in best[0])
    steps = book.bandwidths
    low, high = bisect_right(steps, reached), bisect_right(steps, book.widest)
    stride = 1
    # From the widest downwards in growing strides: the best bottleneck is rarely far below what the segments offer.
    while low < high:
        middle = max(high - stride, (low + high) // 2 if stride > (high - low) // 2 else low)
        trial = _search(request, book, "cost", steps[middle], without)
        if trial[0] is None:
            high = middle
            stride *= 4
        else:
            best, low = trial, middle + 1
            stride = high
    return best


def _search(
    request: SliceRequest, book: OfferBook, objective: Objective, floor: int, without: str | None
) -> tuple[tuple[SegmentOffer, ...] | None, int]:
    places = {"cost": (0, 1, 2), "delay": (1, 0, 2), "availability": (2, 0, 1)}[objective]
    by_name = (request.reserve, request.max_delay_us, request.max_risk_nano)
    limits: Limits = (by_name[places[0]], by_name[places[1]], by_name[places[2]])
    if book.columns is not None:
        picks, pareto = book.columns.cheapest(places, limits, floor, without)
    else:
        picks, pareto = cheapest([_triples(group, places, floor, without) for group in book.groups], limits)
    if picks is None:
        return None, pareto
    return tuple(group[pick] for group, pick in zip(book.groups, picks, strict=True)), pareto


def _triples(
    group: Sequence[SegmentOffer], places: tuple[int, int, int], floor: int, without: str | None
) -> list[Triple]:
    first, second, third = places
    triples = []
    for index, offer in enumerate(group):
        if offer.bandwidth_kbps >= floor and offer.party != without:
            figures = (offer.cost, offer.delay_us, offer.risk_nano)
            triples.append((figures[first], figures[second], figures[third], index))
    return triples


def _cost_without(request: SliceRequest, book: OfferBook, party: str) -> int:
    found, _ = _choose(request, book, "cost", without=party)
    return request.reserve if found is None else sum(o.cost for o in found)
