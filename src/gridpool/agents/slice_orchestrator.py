"""A tenant's slice orchestrator (W's SO): reads awards from the ledger, calls the winners' orchestrators, measures."""

from collections.abc import Mapping

import msgspec

from gridpool.agents.resource_orchestrator import Measurement, OrchestratorFault, ResourceOrchestrator, SubSliceOrder
from gridpool.contracts.slices.awards import asked_of, candidates, segment_offer, sub_slice_name
from gridpool.contracts.slices.orders import ORDERS, Request, SubSlice, sub_slices
from gridpool.contracts.slices.templates import Isolation
from gridpool.ledger.state import State
from gridpool.markets.slice_arbitration import OfferBook, arbitrate

__all__ = ["Award", "SliceOrchestrator", "awards_of", "choice_to_post"]


class Award(msgspec.Struct, frozen=True):
    """A segment's award as the orchestrator works on it."""

    segment: str
    party: bytes
    order: SubSliceOrder


class SliceOrchestrator:
    """Brings all segments of a slice into service, or none of them."""

    def __init__(self, orchestrators: Mapping[bytes, ResourceOrchestrator]) -> None:
        """``orchestrators`` maps a party's wallet to its network's driver."""
        self._orchestrators = orchestrators

    def reserve(self, awards: list[Award]) -> frozenset[str]:
        """Reserve every segment; returns those that could be, and leaves nothing reserved unless all could."""
        done: list[Award] = []
        for award in awards:
            try:
                self._of(award).reserve(award.order)
            except OrchestratorFault:
                continue
            done.append(award)
        if len(done) < len(awards):
            self.terminate(done)
        return frozenset(award.segment for award in done)

    def instantiate(self, awards: list[Award]) -> dict[str, bytes]:
        """Instantiate every reserved segment; returns their endpoints, and ends all again unless all came up."""
        endpoints: dict[str, bytes] = {}
        for award in awards:
            try:
                endpoints[award.segment] = self._of(award).instantiate(award.order.name)
            except OrchestratorFault:
                continue
        if len(endpoints) < len(awards):
            self.terminate(awards)
        return endpoints

    def metrics(self, award: Award, start_ms: int, end_ms: int, demand_kbps: int) -> Measurement:
        """Measure one segment over an interval."""
        return self._of(award).metrics(award.order.name, start_ms, end_ms, demand_kbps)

    def terminate(self, awards: list[Award]) -> None:
        """End every segment."""
        for award in awards:
            self._of(award).terminate(award.order.name)

    def _of(self, award: Award) -> ResourceOrchestrator:
        return self._orchestrators[award.party]


def choice_to_post(state: State, key: tuple[str, int], now: int) -> tuple[str, ...]:
    """Decide an order outside the ledger: the offers to post, one a segment, empty where no choice is feasible.

    The same decision as the contract's, for orders that are too large for it; ``now`` is market time in ms.
    """
    order = state.get(ORDERS, key)
    if order is None:
        return ()
    asked = asked_of(order.request)
    offers = [segment_offer(segment, name, offer) for segment, name, offer in candidates(state, key, now)]
    answer = arbitrate(asked, OfferBook(asked.segments, offers), objective=order.request.objective)
    return tuple(chosen.id for chosen in answer.chosen)


def awards_of(
    state: State,
    key: tuple[str, int],
    distances_m: Mapping[bytes, tuple[float, ...]],
    blocks: Mapping[bytes, tuple[int, ...]],
) -> list[Award]:
    """Read the awards of an order; ``distances_m`` and ``blocks`` describe its devices in each party's cell."""
    order = state.get(ORDERS, key)
    if order is None:
        return []
    return [
        _award(key, segment, sub, order.request, distances_m, blocks)
        for segment, sub in sub_slices(state, key).items()
        if sub.party
    ]


def _award(
    key: tuple[str, int],
    segment: str,
    sub: SubSlice,
    request: Request,
    distances_m: Mapping[bytes, tuple[float, ...]],
    blocks: Mapping[bytes, tuple[int, ...]],
) -> Award:
    isolation: Isolation = request.profile.isolation
    radio = segment == "ran"
    work = SubSliceOrder(
        name=sub_slice_name(key, segment),
        segment=segment,
        bandwidth_kbps=sub.bandwidth_kbps,
        delay_us=sub.delay_us,
        isolation=isolation,
        distances_m=distances_m.get(sub.party, ()) if radio else (),
        blocks=blocks.get(sub.party, ()) if radio else (),
    )
    return Award(segment, sub.party, work)
