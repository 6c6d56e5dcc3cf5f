"""Arbitration of slice offers against HiGHS and brute force, in one run."""

import time
from collections.abc import Sequence
from itertools import product

import highspy
import numpy as np

from bench.harness import Row, best_time
from gridpool.markets.slice_arbitration import OfferBook, SegmentOffer, SliceRequest, arbitrate, choice_key

SEGMENTS = ("ran", "transport", "core")
REQUEST = SliceRequest(
    segments=SEGMENTS, max_delay_us=6_000, min_bandwidth_kbps=100_000, max_risk_nano=600_000, reserve=300_000
)


def random_offers(count: int, seed: int) -> list[SegmentOffer]:
    """Draw ``count`` offers a segment from 50 parties; dearer offers are faster and safer on average."""
    rng = np.random.default_rng(seed)
    offers = []
    for segment in SEGMENTS:
        delay = rng.integers(100, 10_000, count)
        risk = rng.integers(1_000, 1_000_000, count)
        cost = 2_000_000 // delay + 20_000_000 // risk + rng.integers(1_000, 100_000, count)
        bandwidth = rng.integers(1_000, 1_000_000, count)
        party = rng.integers(0, 50, count)
        offers += [
            SegmentOffer(f"{segment}-{i}", segment, f"p{party[i]}", int(cost[i]), int(delay[i]), int(bandwidth[i]),
                         int(risk[i]))
            for i in range(count)
        ]  # fmt: skip
    return offers


def highs_model(request: SliceRequest, offers: Sequence[SegmentOffer]) -> highspy.Highs:
    """Write the choice of the cheapest offers as a mixed-integer programme: one column an offer."""
    usable = [o for o in offers if o.bandwidth_kbps >= request.min_bandwidth_kbps]
    rows = {segment: row for row, segment in enumerate(request.segments)}
    first = len(rows)
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(usable), first + 3
    lp.col_cost_ = np.array([o.cost for o in usable], float)
    lp.col_lower_, lp.col_upper_ = np.zeros(len(usable)), np.ones(len(usable))
    lp.row_lower_ = np.array([1.0] * first + [-highspy.kHighsInf] * 3)
    lp.row_upper_ = np.array([1.0] * first + [request.max_delay_us, request.max_risk_nano, request.reserve], float)
    lp.integrality_ = [highspy.HighsVarType.kInteger] * len(usable)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = np.arange(0, 4 * len(usable) + 1, 4)
    lp.a_matrix_.index_ = np.array([[rows[o.segment], first, first + 1, first + 2] for o in usable]).ravel()
    lp.a_matrix_.value_ = np.array([[1, o.delay_us, o.risk_nano, o.cost] for o in usable], float).ravel()
    model = highspy.Highs()
    model.setOptionValue("output_flag", False)
    model.setOptionValue("threads", 1)
    model.setOptionValue("mip_rel_gap", 0.0)
    model.setOptionValue("mip_abs_gap", 0.5)
    model.passModel(lp)
    return model


def highs_cost(request: SliceRequest, offers: Sequence[SegmentOffer]) -> int | None:
    """Give the least cost by HiGHS, None where nothing is feasible."""
    model = highs_model(request, offers)
    model.run()
    if model.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    return round(model.getObjectiveValue())


def highs_seconds(offers: Sequence[SegmentOffer]) -> tuple[float, int]:
    """Time HiGHS's run alone (the model stands in memory), best of three; give its cost too."""
    best, cost = float("inf"), 0
    for _ in range(3):
        model = highs_model(REQUEST, offers)
        start = time.perf_counter()
        model.run()
        best = min(best, time.perf_counter() - start)
        cost = round(model.getObjectiveValue())
    return best, cost


def brute_force(offers: Sequence[SegmentOffer]) -> tuple[SegmentOffer, ...]:
    """Try every choice."""
    groups = [
        [o for o in offers if o.segment == s and o.bandwidth_kbps >= REQUEST.min_bandwidth_kbps] for s in SEGMENTS
    ]
    feasible = (
        c
        for c in product(*groups)
        if sum(o.delay_us for o in c) <= REQUEST.max_delay_us and sum(o.risk_nano for o in c) <= REQUEST.max_risk_nano
    )
    return min(feasible, key=lambda c: choice_key(c, "cost"))


def run() -> list[Row]:
    """Measure the decision at 10^3 and 10^5 offers a segment, with both payments."""
    thousand = random_offers(1_000, 1)
    book = OfferBook(SEGMENTS, thousand)
    decided = arbitrate(REQUEST, book)
    seconds = best_time(lambda: arbitrate(REQUEST, book), repeats=30)
    vcg_s = best_time(lambda: arbitrate(REQUEST, book, payment="vcg"), repeats=30)
    highs_s, highs = highs_seconds(thousand)
    if decided.cost != highs:
        raise AssertionError(f"HiGHS finds {highs}, the arbitration {decided.cost}")
    widest_s = best_time(lambda: arbitrate(REQUEST, book, objective="bandwidth"), repeats=30)
    large = OfferBook(SEGMENTS, random_offers(100_000, 2))
    large_s = best_time(lambda: arbitrate(REQUEST, large), repeats=5)
    few = random_offers(60, 3)
    few_book = OfferBook(SEGMENTS, few)
    start = time.perf_counter()
    tried = brute_force(few)
    brute_s = time.perf_counter() - start
    if arbitrate(REQUEST, few_book).chosen != tried:
        raise AssertionError("brute force chooses otherwise")
    few_s = best_time(lambda: arbitrate(REQUEST, few_book), repeats=20)
    return [
        Row(room="slices", figure="arbitration, 10^3 offers a segment", ratio=highs_s / seconds, target=300,
            sense="at least", peer="HiGHS, its run alone", detail={"highs_ms": 1e3 * highs_s}),
        Row(room="slices", figure="arbitration, 10^3 offers a segment, ms", ratio=1e3 * seconds, target=0.3,
            sense="at most", peer="wall clock"),
        Row(room="slices", figure="arbitration, 10^3, objective bandwidth, ms", ratio=1e3 * widest_s, target=0.3,
            sense="at most", peer="wall clock"),
        Row(room="slices", figure="arbitration, 10^5 offers a segment, ms", ratio=1e3 * large_s, target=40,
            sense="at most", peer="wall clock"),
        Row(room="slices", figure="VCG payments, 10^3 offers a segment, ms", ratio=1e3 * vcg_s, target=1,
            sense="at most", peer="wall clock"),
        Row(room="slices", figure="arbitration, 60 offers a segment", ratio=brute_s / few_s, target=100,
            sense="at least", peer="brute force in Python"),
    ]  # fmt: skip
