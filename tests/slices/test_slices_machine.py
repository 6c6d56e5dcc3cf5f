"""Tenants, honest, cheating, late and silent parties play at random; every invariant holds after every block."""

from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from slice_market import (
    BAD,
    COINS,
    GOOD,
    MINUTE,
    NORTH,
    OPERATORS,
    PROBE,
    SOUTH,
    START,
    TENANT,
    UTILITY,
    WEST,
    Market,
    digest,
    offer_call,
    request,
)

from gridpool.contracts import coins
from gridpool.contracts.slices.awards import PostChoice
from gridpool.contracts.slices.changes import (
    AcceptExtension,
    BuySlice,
    EndForBreach,
    ExtendSlice,
    ReleaseSlice,
    SellSlice,
)
from gridpool.contracts.slices.deployment import ConfirmDeployment, ConfirmReservation
from gridpool.contracts.slices.offers import (
    AcceptTerms,
    CancelOrder,
    CommitOffer,
    RevealOffer,
    WithdrawOffer,
    commitment,
)
from gridpool.contracts.slices.orders import FINAL, ORDERS, PROGRESS, OrderSlice, sub_slices
from gridpool.contracts.slices.samples import sample_leaf, sample_path, sample_root
from gridpool.contracts.slices.supervision import (
    DISPUTES,
    VERDICTS,
    DemandSample,
    IntervalReport,
    Measure,
    ProveSample,
    ReportIntervals,
)
from gridpool.contracts.slices.terms import Kpis, Terms

KEYS = (TENANT, UTILITY, WEST, NORTH, SOUTH, PROBE)
NAMES = st.sampled_from(["a", "b"])
WHO = st.sampled_from(sorted(OPERATORS))
TENANTS = st.sampled_from([TENANT, UTILITY])
SEGMENTS = st.sampled_from(["ran", "core"])
KPIS = st.sampled_from([GOOD, BAD, Kpis(4_000, 3_500, 900, 0, 10**6), Kpis(4_000, 4_000, 5_000, 900_000, 0)])
SALT = b"s" * 32


class SliceMachine(RuleBasedStateMachine):
    """Calls succeed or are refused; either way the market's books must stay right."""

    @initialize(serving=st.booleans(), segments=st.sampled_from([("ran",), ("ran", "core")]), minutes=st.integers(3, 8))
    def open_market(self, serving, segments, minutes):
        self.market = Market()
        self.serial = 0
        self.committed = {}
        if serving:
            terms = Terms(resale=True, breach_after=2, notice_ms=MINUTE, cap_ppm=600_000)
            self.market.order("a", segments=segments, end=START + minutes * MINUTE, terms=terms)
            self.market.offer_all("a")
            self.market.serve("a")
            self.market.advance(START)

    def key(self, name):
        record = [key for key, _ in self.market.scan(ORDERS, (name,))]
        return record[-1] if record else None

    @rule(
        name=NAMES,
        tenant=TENANTS,
        segments=st.sampled_from([("ran",), ("ran", "core")]),
        payment=st.sampled_from(["offer", "vcg"]),
        posted=st.booleans(),
        sealed=st.booleans(),
        minutes=st.integers(2, 8),
        lead=st.integers(2, 6),
        costs=st.tuples(st.integers(0, 600), st.integers(0, 600), st.integers(0, 600)),
    )
    def order(self, name, tenant, segments, payment, posted, sealed, minutes, lead, costs):
        now = self.market.now
        start = -(-(now + (lead + 3) * MINUTE) // MINUTE) * MINUTE
        changes = {"decision": "posted", "bond": 20} if posted else {"payment": payment, "fall_back": True}
        timing = {"offers_until": now + lead * MINUTE, "confirm_ms": 2 * MINUTE, "deploy_ms": 2 * MINUTE}
        timing |= {"reveal_ms": MINUTE if sealed else 0, "post_ms": 2 * MINUTE, "challenge_ms": MINUTE}
        call = request(
            segments,
            start=start,
            end=start + minutes * MINUTE,
            schedule=timing,
            terms=Terms(resale=True, breach_after=2, notice_ms=MINUTE, cap_ppm=600_000),
            **changes,
        )
        if not self.market.submit(tenant, OrderSlice(name, call)).ok:
            return
        for who, cost in zip(sorted(OPERATORS), costs, strict=True):
            for segment in segments:
                self.offer(name, who, segment, cost, False, sealed)

    @rule(name=NAMES, who=WHO, segment=SEGMENTS, cost=st.integers(0, 600), amended=st.booleans(), sealed=st.booleans())
    def one_more_offer(self, name, who, segment, cost, amended, sealed):
        self.offer(name, who, segment, cost, amended, sealed)

    def offer(self, name, who, segment, cost, amended, sealed):
        self.serial += 1
        offer = f"o{self.serial}"
        terms = Terms(cap_ppm=100_000) if amended else None
        call = offer_call(who, segment, cost, name, offer, terms=terms, valid_until=self.market.now + 40 * MINUTE)
        key = OPERATORS[who]
        if sealed:
            digest_ = commitment(call.figures, SALT, key.public)
            if self.market.submit(key, CommitOffer(name, segment, offer, digest_)).ok:
                self.committed[offer] = (key, RevealOffer(name, segment, offer, call.figures, SALT))
        elif self.market.submit(key, call).ok and amended and cost % 2:
            self.market.submit(TENANT, AcceptTerms(name, segment, offer))

    @precondition(lambda self: self.committed)
    @rule(data=st.data())
    def reveal(self, data):
        offer = data.draw(st.sampled_from(sorted(self.committed)))
        key, call = self.committed[offer]
        if self.market.submit(key, call).ok:
            del self.committed[offer]

    @precondition(lambda self: self.serial)
    @rule(name=NAMES, who=WHO, segment=SEGMENTS, back=st.integers(0, 5))
    def withdraw(self, name, who, segment, back):
        offer = f"o{max(1, self.serial - back)}"
        self.market.submit(OPERATORS[who], WithdrawOffer(name, segment, offer))

    @precondition(lambda self: self.serial)
    @rule(name=NAMES, poster=st.sampled_from([PROBE, SOUTH]), data=st.data())
    def post(self, name, poster, data):
        picks = data.draw(st.lists(st.integers(1, self.serial), min_size=1, max_size=2))
        self.market.submit(poster, PostChoice(name, tuple(f"o{pick}" for pick in picks)))

    @rule(minutes=st.integers(1, 4))
    def wait(self, minutes):
        self.market.advance(self.market.now + minutes * MINUTE)

    @rule(name=NAMES)
    def wait_for_the_deadline(self, name):
        progress = self.key(name) and self.market.get(PROGRESS, self.key(name))
        if progress:
            self.market.advance(max(progress.deadline, self.market.now))

    @rule(name=NAMES, kpis=st.tuples(KPIS | st.none(), KPIS | st.none()))
    def serve_a_minute(self, name, kpis):
        self.market.advance((self.market.now // MINUTE + 1) * MINUTE)
        self.report(name, *kpis, 0)

    @rule(name=NAMES, skip=st.sampled_from([None, None, None, "ran"]))
    def winners_act(self, name, skip):
        key = self.key(name)
        if key is None:
            return
        for segment, sub in sub_slices(self.market.state, key).items():
            party = next((k for k in OPERATORS.values() if k.public == sub.party), None)
            if party is not None and segment != skip:
                self.market.submit(party, ConfirmReservation(name, segment))
                self.market.submit(party, ConfirmDeployment(name, segment, digest(segment)))

    @rule(name=NAMES, party=KPIS | st.none(), tenant=KPIS | st.none(), back=st.integers(0, 1))
    def report_late(self, name, party, tenant, back):
        self.report(name, party, tenant, back)

    def report(self, name, party, tenant, back):
        key = self.key(name)
        if key is None:
            return
        order, progress = self.market.get(ORDERS, key), self.market.get(PROGRESS, key)
        interval = (self.market.now - order.request.start) // MINUTE - 1 - back
        if interval < 0:
            return
        for segment, sub in sub_slices(self.market.state, key).items():
            sides = [(sub.party, party), (progress.tenant, tenant)]
            for public, kpis in sides:
                signer = next((k for k in KEYS if k.public == public), None)
                if signer is not None and kpis is not None:
                    root = sample_root(self.leaves(key, segment, interval, signer))
                    one = IntervalReport(segment, interval, kpis, root, 3)
                    self.market.submit(signer, ReportIntervals(*key, (one,)))

    def leaves(self, key, segment, interval, signer):
        return [sample_leaf(*key, segment, interval, n, signer.public + bytes([n])) for n in range(3)]

    @rule(kpis=KPIS, what=st.sampled_from(["measure", "demand", "prove"]), side=st.sampled_from(["party", "tenant"]))
    def argue(self, kpis, what, side):
        for place, dispute in list(self.market.scan(DISPUTES)):
            key, segment, interval = place[:2], place[2], place[3]
            sub = sub_slices(self.market.state, key)[segment]
            tenant = self.market.get(PROGRESS, key).tenant
            signers = {"party": sub.party, "tenant": tenant}
            signer = next(k for k in KEYS if k.public == signers[side])
            other = next(k for k in KEYS if k.public == signers["tenant" if side == "party" else "party"])
            if what == "measure":
                report = IntervalReport(segment, interval, kpis, digest(place), 1)
                self.market.submit(PROBE, Measure(*key, report))
            elif what == "demand":
                self.market.submit(other, DemandSample(*key, segment, interval, side, 1))
            elif dispute.demands:
                leaves = self.leaves(key, segment, interval, signer)
                proof = ProveSample(*key, segment, interval, 1, signer.public + b"\1", sample_path(leaves, 1))
                self.market.submit(signer, proof)

    @rule(
        name=NAMES,
        tenant=TENANTS,
        what=st.sampled_from(["cancel", "release", "breach", "extend", "sell", "part"]),
        more=st.integers(1, 4),
    )
    def change_mind(self, name, tenant, what, more):
        key = self.key(name)
        until = START if key is None else self.market.get(PROGRESS, key).until
        other = UTILITY if tenant is TENANT else TENANT
        calls = {
            "cancel": CancelOrder(name),
            "release": ReleaseSlice(name),
            "breach": EndForBreach(name),
            "extend": ExtendSlice(name, until + more * MINUTE),
            "sell": SellSlice(name, other.public, 10),
            "part": SellSlice(name, other.public, 10, 300_000),
        }
        self.market.submit(tenant, calls[what])

    @rule(name=NAMES, who=WHO, buyer=TENANTS)
    def agree(self, name, who, buyer):
        self.market.submit(OPERATORS[who], AcceptExtension(name))
        self.market.submit(buyer, BuySlice(name))

    @invariant()
    def coins_are_conserved(self):
        if not hasattr(self, "market"):
            return
        held = sum(coins.balance(self.market.state, key.public) for key in KEYS)
        left = sum(progress.money.left for _, progress in self.market.scan(PROGRESS))
        assert held + left == len(KEYS) * COINS

    def teardown(self):
        if not hasattr(self, "market"):
            return
        for _ in range(25):
            self.market.advance(self.market.now + 10 * MINUTE)
        for _, progress in self.market.scan(PROGRESS):
            assert progress.phase in FINAL
            event(f"ended {progress.phase}")
            assert progress.money.left == 0
        for _, verdict in self.market.scan(VERDICTS):
            event(f"judged {verdict.basis}, severity {verdict.severity}")
        assert sum(coins.balance(self.market.state, key.public) for key in KEYS) == len(KEYS) * COINS


TestSlices = SliceMachine.TestCase
TestSlices.settings = settings(
    deadline=None,
    max_examples=40,
    stateful_step_count=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
