"""Vickrey-Clarke-Groves: the allocation of greatest welfare, each winner paying what its presence costs the others.

The problem splits into groups of bids that exclude one another, directly or through others; small groups are searched
exactly in integers, larger ones go to HiGHS, and the dual bound says whether the answer is proven. With reserve
prices, welfare less reserves is maximised (the seller values an unsold lot at its reserve), which keeps truth the best
report also for bidders with several alternatives.
Source: Clarke, Public Choice 11, 1971; package bids with lots in use elsewhere: Zhou et al., MobiCom 2008.
"""

from collections.abc import Sequence
from math import floor
from typing import overload

import numpy as np

from gridpool.errors import RefusedInput
from gridpool.markets.spectrum_auction import Auction, Id, Outcome, Win, settle

__all__ = ["Offer", "best_choice", "independent_groups", "payment_without", "vcg", "vcg_in_integers"]

SEARCH_STEPS = 5_000
"""Steps of the integer search before a group goes to HiGHS."""
SEARCH_DEPTH = 200
"""Bidders in a group beyond which the integer search is not tried."""
EXACT_FLOAT = 2**50


class Offer:
    """A bid in the search: its bidder, place in the file, lots, and worth above the reserves."""

    __slots__ = ("bidder", "floor", "lots", "place", "price", "worth")

    def __init__(self, bidder: Id, place: int, lots: tuple[Id, ...], price: int, least: int) -> None:
        self.bidder, self.place, self.lots, self.price = bidder, place, frozenset(lots), price
        self.floor, self.worth = least, price - least


def vcg(auction: Auction) -> Outcome:
    """Choose the bids of greatest total worth and charge each winner W(without it) - (W - its worth) + reserves.

    Among equal allocations the one that lets the lower bidder ids win, with their earlier bids, is taken.
    """
    outcome = _decide(auction, integers_only=False)
    if outcome is None:
        raise AssertionError("only a search without the solver ends without an answer")
    return outcome


def vcg_in_integers(auction: Auction) -> Outcome | None:
    """Decide as ``vcg`` does without any float, for ledgers; None where the search would take too long."""
    return _decide(auction, integers_only=True)


def _decide(auction: Auction, *, integers_only: bool) -> Outcome | None:
    rivals = auction.rivals()
    offers = [
        Offer(bidder.id, place, bid.lots, bid.price, auction.floor(bid))
        for bidder in sorted(auction.bidders, key=lambda bidder: bidder.id)
        for place, bid in enumerate(bidder.bids)
        if bid.price >= auction.floor(bid)
    ]
    shown = {(bidder.id, place): bid.lots for bidder in auction.bidders for place, bid in enumerate(bidder.bids)}
    wins: list[Win] = []
    bound = 0
    for group in independent_groups(offers, rivals):
        if integers_only:
            found = _search(group, rivals, None)
            if found is None:
                return None
            worth = group_bound = sum(offer.worth for offer in found)
            chosen = found
        else:
            chosen, worth, group_bound = best_choice(group, rivals)
        bound += group_bound + sum(offer.floor for offer in chosen)
        for offer in chosen:
            payment = payment_without(offer, group, worth, rivals, integers_only=integers_only)
            if payment is None:
                return None
            wins.append(Win(offer.bidder, shown[offer.bidder, offer.place], offer.price, payment))
    return settle("vcg", wins, bound)


@overload
def payment_without(offer: Offer, group: list[Offer], worth: int, rivals: dict[Id, set[Id]]) -> int: ...
@overload
def payment_without(
    offer: Offer, group: list[Offer], worth: int, rivals: dict[Id, set[Id]], *, integers_only: bool
) -> int | None: ...
def payment_without(
    offer: Offer, group: list[Offer], worth: int, rivals: dict[Id, set[Id]], *, integers_only: bool = False
) -> int | None:
    """Return what the presence of a winner costs the others of its group, plus its reserve prices.

    None where ``integers_only`` and the search would take too long.
    """
    without = 0
    for part in independent_groups([other for other in group if other.bidder != offer.bidder], rivals):
        found = _search(part, rivals, None)
        if found is not None:
            without += sum(other.worth for other in found)
        elif integers_only:
            return None
        else:
            without += sum(other.worth for other in _highs(part, rivals)[0])
    return min(max(without - (worth - offer.worth), 0) + offer.floor, offer.price)


def _excludes(a: Offer, b: Offer, rivals: dict[Id, set[Id]]) -> bool:
    return a.bidder == b.bidder or (b.bidder in rivals[a.bidder] and not a.lots.isdisjoint(b.lots))


def independent_groups(offers: Sequence[Offer], rivals: dict[Id, set[Id]]) -> list[list[Offer]]:
    """Split offers into groups between which nothing is exclusive, each in the order of ``offers``."""
    parent = list(range(len(offers)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    by_bidder: dict[Id, list[int]] = {}
    by_lot: dict[Id, dict[Id, int]] = {}
    for i, offer in enumerate(offers):
        by_bidder.setdefault(offer.bidder, []).append(i)
        for lot in offer.lots:
            by_lot.setdefault(lot, {})[offer.bidder] = i
    for indices in by_bidder.values():
        for i in indices[1:]:
            parent[root(i)] = root(indices[0])
    for holders in by_lot.values():
        for bidder, i in holders.items():
            near = rivals[bidder]
            for other in near if len(near) < len(holders) else holders:
                if other in holders and other in near:
                    parent[root(holders[other])] = root(i)
    groups: dict[int, list[Offer]] = {}
    for i, offer in enumerate(offers):
        groups.setdefault(root(i), []).append(offer)
    return list(groups.values())


def best_choice(group: list[Offer], rivals: dict[Id, set[Id]]) -> tuple[list[Offer], int, int]:
    """Return the chosen offers, their worth, and an upper bound on any choice's worth."""
    if not group:
        return [], 0, 0
    found = _search(group, rivals, None)
    if found is not None:
        worth = sum(offer.worth for offer in found)
        return found, worth, worth
    chosen, bound = _highs(group, rivals)
    worth = sum(offer.worth for offer in chosen)
    first = _search(group, rivals, worth) if bound <= worth else None
    return (chosen if first is None else first), worth, max(bound, worth)


def _search(group: list[Offer], rivals: dict[Id, set[Id]], target: int | None) -> list[Offer] | None:
    """Search depth first, lower ids and earlier bids first; None where the step limit ends the search.

    With ``target`` the first choice of that worth is returned, else the first of the greatest worth.
    """
    options: dict[Id, list[Offer]] = {}
    for offer in group:
        options.setdefault(offer.bidder, []).append(offer)
    choices = list(options.values())
    if len(choices) > SEARCH_DEPTH:
        return None
    rest = [0] * (len(choices) + 1)
    for i in range(len(choices) - 1, -1, -1):
        rest[i] = rest[i + 1] + max(offer.worth for offer in choices[i])
    best: list[Offer] = []
    best_worth = -1 if target is None else target - 1
    taken: list[Offer] = []
    steps = 0

    def descend(level: int, worth: int) -> bool:
        """Try every choice of the bidders from ``level`` on; False where the step limit is reached."""
        nonlocal best, best_worth, steps
        steps += 1
        if steps > SEARCH_STEPS:
            return False
        if level == len(choices):
            if worth > best_worth:
                best, best_worth = list(taken), worth
            return True
        for offer in choices[level]:
            if worth + offer.worth + rest[level + 1] <= best_worth:
                continue
            if any(_excludes(offer, other, rivals) for other in taken):
                continue
            taken.append(offer)
            finished = descend(level + 1, worth + offer.worth)
            taken.pop()
            if not finished or best_worth == target:
                return finished
        return worth + rest[level + 1] <= best_worth or descend(level + 1, worth)

    return best if descend(0, 0) else None


def _highs(group: list[Offer], rivals: dict[Id, set[Id]]) -> tuple[list[Offer], int]:
    """Solve a group as an integer programme; returns the choice and the integer upper bound that HiGHS proved."""
    import highspy

    rows = _cliques(group, rivals)
    largest = max(offer.worth for offer in group)
    scale = 1.0 if largest <= EXACT_FLOAT // len(group) else largest / 1e9
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(group), len(rows)
    model.col_cost_ = np.array([offer.worth / scale for offer in group])
    model.col_lower_, model.col_upper_ = np.zeros(len(group)), np.ones(len(group))
    model.row_lower_ = np.full(len(rows), -highspy.kHighsInf)
    model.row_upper_ = np.ones(len(rows))
    model.sense_ = highspy.ObjSense.kMaximize
    model.integrality_ = [highspy.HighsVarType.kInteger] * len(group)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.cumsum([0, *(len(row) for row in rows)])
    model.a_matrix_.index_ = np.array([i for row in rows for i in row], dtype=np.int32)
    model.a_matrix_.value_ = np.ones(sum(len(row) for row in rows))
    solver = highspy.Highs()  # type: ignore[no-untyped-call]
    solver.silent()
    for option, value in (("mip_rel_gap", 0.0), ("mip_abs_gap", 0.0), ("threads", 1), ("random_seed", 0)):
        solver.setOptionValue(option, value)
    solver.passModel(model)
    solver.run()
    values = solver.getSolution().col_value
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal or len(values) != len(group):
        raise RefusedInput("the winner determination did not finish; sell fewer lots at once or use rule greedy")
    chosen = [offer for offer, value in zip(group, values, strict=True) if value > 0.5]
    proven = float(solver.getInfo().mip_dual_bound) * scale
    return chosen, floor(proven + max(1e-6, abs(proven) * 1e-10, scale * 1e-6 if scale > 1 else 0.0))


def _cliques(group: list[Offer], rivals: dict[Id, set[Id]]) -> list[list[int]]:
    """Cover every exclusion between two offers of a group by sets of which at most one may win."""
    rows: list[list[int]] = []
    by_bidder: dict[Id, list[int]] = {}
    by_lot: dict[Id, list[int]] = {}
    for i, offer in enumerate(group):
        by_bidder.setdefault(offer.bidder, []).append(i)
        for lot in offer.lots:
            by_lot.setdefault(lot, []).append(i)
    rows += [indices for indices in by_bidder.values() if len(indices) > 1]
    for indices in by_lot.values():
        covered: set[tuple[int, int]] = set()
        for position, i in enumerate(indices):
            for j in indices[position + 1 :]:
                if (i, j) in covered or group[j].bidder not in rivals[group[i].bidder]:
                    continue
                clique = [i, j]
                for k in indices:
                    if k not in clique and all(
                        group[k].bidder in rivals[group[m].bidder] or group[k].bidder == group[m].bidder for m in clique
                    ):
                        clique.append(k)
                clique.sort()
                covered.update((a, b) for x, a in enumerate(clique) for b in clique[x + 1 :])
                rows.append(clique)
    return rows
