"""Spectrum auctions: what is sold, who bids, who may not share a lot, and the five rules that decide.

Two bidders without a conflict may hold the same lot at once (they are far enough apart); a bidder wins at most one of
its bids. Prices are integers; ties go to the lower bidder id, then to the bid that stands first.
"""

from time import perf_counter
from typing import Annotated, Literal

import msgspec

from gridpool.errors import RefusedInput

__all__ = [
    "RULES",
    "Ask",
    "Auction",
    "Bid",
    "Bidder",
    "Id",
    "Outcome",
    "Rule",
    "Win",
    "read_auction",
    "run_auction",
]

Id = int | Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Amount = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
Rule = Literal["second_price", "vcg", "clock", "greedy", "double"]
RULES: tuple[Rule, ...] = ("second_price", "vcg", "clock", "greedy", "double")
MAX_BIDDERS = 1_000_000


class Bid(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of ``lots`` together, or nothing, for at most ``price``."""

    lots: tuple[Id, ...]
    price: Amount


class Bidder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bidder and its alternative bids, of which at most one wins."""

    id: Id
    bids: tuple[Bid, ...]


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A holder's least price for one unit of ``lot``.

    Several asks for a lot are several units of it: bidders in conflict never share a unit, but each may hold one.
    """

    id: Id
    lot: Id
    price: Amount


class Auction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sale: lots, bidders, the pairs of bidders that cannot share a lot, holders' asks and reserve prices.

    ``reserve`` maps the text form of a lot's id to the least price that each holder of the lot pays.
    """

    lots: tuple[Id, ...]
    bidders: tuple[Bidder, ...]
    conflicts: tuple[tuple[Id, Id], ...] = ()
    asks: tuple[Ask, ...] = ()
    reserve: dict[str, Amount] = {}

    def check(self) -> None:
        """Refuse an auction that contradicts itself; raises RefusedInput naming the place."""
        lots = _distinct(self.lots, "lots")
        bidders = _distinct((bidder.id for bidder in self.bidders), "bidders")
        _distinct((ask.id for ask in self.asks), "asks")
        if len(self.bidders) > MAX_BIDDERS:
            raise RefusedInput(f"an auction has at most {MAX_BIDDERS} bidders, not {len(self.bidders)}")
        for bidder in self.bidders:
            for position, bid in enumerate(bidder.bids):
                where = f"bid {position} of bidder {bidder.id!r}"
                if not bid.lots:
                    raise RefusedInput(f"{where} names no lot")
                if len(set(bid.lots)) != len(bid.lots):
                    raise RefusedInput(f"{where} names a lot twice")
                unknown = [lot for lot in bid.lots if lot not in lots]
                if unknown:
                    raise RefusedInput(f"{where} names lot {unknown[0]!r}, which is not for sale")
        for first, second in self.conflicts:
            if first == second:
                raise RefusedInput(f"conflict of bidder {first!r} with itself")
            for one in (first, second):
                if one not in bidders:
                    raise RefusedInput(f"a conflict names bidder {one!r}, who does not bid")
        for ask in self.asks:
            if ask.lot not in lots:
                raise RefusedInput(f"ask {ask.id!r} names lot {ask.lot!r}, which is not for sale")
        named = {str(lot) for lot in lots}
        for name in self.reserve:
            if name not in named:
                raise RefusedInput(f"reserve names lot {name!r}, which is not for sale")

    def floor(self, bid: Bid) -> int:
        """Return the sum of the reserve prices of a bid's lots."""
        reserve = self.reserve
        return sum(reserve.get(str(lot), 0) for lot in bid.lots) if reserve else 0

    def rivals(self) -> dict[Id, set[Id]]:
        """Return bidder -> the bidders with which it cannot share a lot."""
        rivals: dict[Id, set[Id]] = {bidder.id: set() for bidder in self.bidders}
        for first, second in self.conflicts:
            rivals[first].add(second)
            rivals[second].add(first)
        return rivals


class Win(msgspec.Struct, frozen=True):
    """A winning bid: its lots and price, and what the bidder pays."""

    bidder: Id
    lots: tuple[Id, ...]
    price: int
    payment: int


class Outcome(msgspec.Struct, frozen=True):
    """The decision of an auction.

    ``welfare`` is the sum of the winning bids, ``bound`` no allocation's welfare exceeds (for ``vcg`` with reserve
    prices: welfare less reserves is what is maximised, and the bound is for that, plus the reserves of the winners);
    ``exact`` means that the bound is reached. ``receipts`` maps asks to what their holders receive (``double``).
    """

    rule: Rule
    winners: tuple[Win, ...]
    welfare: int
    payments: dict[Id, int]
    bound: int
    exact: bool
    seconds: float = 0.0
    receipts: dict[Id, int] = {}


def read_auction(data: bytes, where: str) -> Auction:
    """Read an auction from JSON; raises RefusedInput naming ``where`` and what is wrong."""
    try:
        auction = msgspec.json.decode(data, type=Auction)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedInput(f"{where}: {error}") from None
    try:
        auction.check()
    except RefusedInput as error:
        raise RefusedInput(f"{where}: {error}") from None
    return auction


def run_auction(auction: Auction, rule: Rule) -> Outcome:
    """Decide a checked auction by one of ``RULES``; ``seconds`` is the time of the decision alone.

    Raises RefusedInput where the rule does not fit the auction (``second_price`` sells one lot).
    """
    from gridpool.markets import spectrum_clock, spectrum_double, spectrum_greedy, spectrum_vcg

    decide = {
        "second_price": second_price,
        "vcg": spectrum_vcg.vcg,
        "clock": spectrum_clock.clock,
        "greedy": spectrum_greedy.greedy,
        "double": spectrum_double.double,
    }[rule]
    start = perf_counter()
    outcome = decide(auction)
    return msgspec.structs.replace(outcome, seconds=perf_counter() - start)


def second_price(auction: Auction) -> Outcome:
    """Sell one lot to the highest bidder at the larger of the second bid and the reserve price.

    A bidder counts with its highest bid. Source: Vickrey, Journal of Finance 16(1), 1961.
    """
    if len(auction.lots) != 1:
        raise RefusedInput(f"second_price sells one lot, not {len(auction.lots)}; choose vcg, clock or greedy")
    reserve = auction.reserve.get(str(auction.lots[0]), 0)
    best = [(max(bid.price for bid in bidder.bids), bidder.id) for bidder in auction.bidders if bidder.bids]
    best.sort(key=lambda entry: (-entry[0], entry[1]))
    if not best or best[0][0] < reserve:
        return Outcome("second_price", (), 0, {}, 0, True)
    price, winner = best[0]
    payment = max(reserve, best[1][0] if len(best) > 1 else 0)
    return Outcome("second_price", (Win(winner, auction.lots, price, payment),), price, {winner: payment}, price, True)


def settle(rule: Rule, wins: list[Win], bound: int, *, receipts: dict[Id, int] | None = None) -> Outcome:
    """Put an outcome together from its winners, in order of bidder id."""
    wins.sort(key=lambda win: win.bidder)
    welfare = sum(win.price for win in wins)
    payments = {win.bidder: win.payment for win in wins}
    return Outcome(rule, tuple(wins), welfare, payments, bound, bound == welfare, 0.0, receipts or {})


def _distinct(ids: object, where: str) -> set[Id]:
    """Return ids as a set; refuse repetitions, also of a number and the same number as text, and mixed kinds."""
    listed = list(ids)  # type: ignore[call-overload]
    if len({type(one) for one in listed}) > 1:
        raise RefusedInput(f"the ids in {where} mix numbers and text")
    seen: set[Id] = set()
    for one in listed:
        if one in seen:
            raise RefusedInput(f"{one!r} stands twice in {where}")
        seen.add(one)
    return seen
