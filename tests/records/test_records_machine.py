"""Owners, readers and a host that cheats play at random with records; a plain model says what must come of it.

Members join, move to another wallet and are banned; the store flips, cuts, swaps and loses chunks and lists, and now
and then restores them. After every step each data set opens for those who may read it, and for nobody else.
"""

import hashlib
import itertools
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import fsspec
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from nacl import bindings
from nacl.exceptions import CryptoError

from gridpool.agents.chunk_store import ChunkStore
from gridpool.agents.records import (
    audit_trail,
    get_data_set,
    grant_data_set,
    locate_altered,
    put_data_set,
    report_altered,
    revoke_data_set,
)
from gridpool.agents.wallet_keys import WalletKeys
from gridpool.agents.wallet_sealing import box_key_of
from gridpool.contracts import coins, members
from gridpool.contracts.members import (
    Admit,
    BanMember,
    MemberParameters,
    NewMember,
    NewSeat,
    Rekey,
    Role,
    propose,
)
from gridpool.contracts.records import records
from gridpool.contracts.records_data import DATA_SETS, GRANTS, Policy
from gridpool.errors import RefusedInput, VerificationFault
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rehearsal import Rehearsal
from gridpool.ledger.rules import Rules
from gridpool.ledger.types import encode

START = 1_767_225_600_000
HOUR = 3_600_000
CHUNK = 64
COUNCIL = KeyPair(hashlib.sha256(b"records council").digest())
CLOCK = KeyPair(hashlib.sha256(b"records clock").digest())
NAMES = "ABCD"
WHO = st.sampled_from(NAMES)
SERIAL = itertools.count()


class LedgerSession:
    """A rehearsal as a member's session."""

    def __init__(self, ledger: Rehearsal) -> None:
        self._ledger = ledger
        self.chain = ledger.genesis.chain

    @property
    def state(self):
        return self._ledger.state

    @property
    def now(self):
        return self._ledger.now

    def submit(self, key, *calls, mode="atomic"):
        receipt = self._ledger.submit(key, *calls, mode=mode)
        if not receipt.ok:
            raise RefusedInput(f"the ledger refused this: {receipt.code}")
        return receipt


@dataclass
class Person:
    """A member: its keys, its wallet now, and whether it may act."""

    keys: WalletKeys
    wallet: KeyPair
    member: bool = False
    banned: bool = False
    moved: bool = False


@dataclass
class Data:
    """What a data set must be: its bytes, who may read until when, its trail, and what the host did to its chunks."""

    owner: str
    plain: bytes
    readers: dict[bytes, int] = field(default_factory=dict)
    trail: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    version: int = 1


class RecordsMachine(RuleBasedStateMachine):
    """Every call succeeds exactly where the model says so, and a refused one changes nothing."""

    @initialize()
    def found(self):
        genesis = Genesis(
            chain="records",
            time_ms=START,
            market_clock="ticks",
            clock_keeper=CLOCK.public,
            parameters=(("members", encode(MemberParameters(seats=(NewSeat(COUNCIL.public, "council"),)))),),
        )
        self.ledger = Rehearsal(Rules([members.members, coins.coins, records]), genesis, clock_keeper=CLOCK)
        self.session = LedgerSession(self.ledger)
        self.folder = tempfile.TemporaryDirectory()
        self.place = Path(self.folder.name)
        self.base = f"records-machine-{next(SERIAL)}"
        self.files = fsspec.filesystem("memory")
        self.store = ChunkStore(f"memory://{self.base}")
        self.people = {}
        for name in NAMES:
            keys = WalletKeys(hashlib.sha256(f"person {name}".encode()).digest())
            self.people[name] = Person(keys, keys.certificate)
        self.data: dict[bytes, Data] = {}
        self.true: dict[str, bytes] = {}  # name in the store -> what was put there
        for name in "ABC":
            self.join(name)
        for owner, readers in (("A", "BC"), ("B", "A")):
            self.put(owner, 3 * CHUNK + 8)
            for reader in readers:
                self.give(list(self.data)[-1], reader, None)

    def teardown(self):
        if hasattr(self, "folder"):
            self.folder.cleanup()
            if self.files.exists(f"/{self.base}"):
                self.files.rm(f"/{self.base}", recursive=True)

    # Members

    @rule(who=WHO)
    def join(self, who):
        person = self.people[who]
        if not person.member:
            public = person.wallet.public
            admitted = Admit((NewMember(public, who, (Role.PROSUMER,), public_wallets=(public,)),))
            self.ledger.expect(COUNCIL, propose(admitted))
            person.member = True

    @rule(who=WHO)
    def move(self, who):
        """A member replaces its wallet; what it owns goes along, what was granted to the old wallet does not."""
        person = self.people[who]
        if person.member and not person.moved and not person.banned:
            successor = person.keys.wallet(0)
            self.ledger.expect(person.wallet, Rekey(successor.public, bytes(32)))
            person.wallet, person.moved = successor, True
            event("moved")

    @precondition(lambda self: not any(person.banned for person in self.people.values()))
    @rule(who=WHO)
    def leave(self, who):
        person = self.people[who]
        if person.member:
            self.ledger.expect(
                COUNCIL, propose(BanMember(person.keys.certificate.public, 2**62, "council", "test", ()))
            )
            person.banned = True
            event("banned")

    @rule(hours=st.integers(1, 30))
    def wait(self, hours):
        self.ledger.advance(self.ledger.now + hours * HOUR)

    # Records

    @rule(who=WHO, size=st.integers(0, 4 * CHUNK))
    def put(self, who, size):
        person = self.people[who]
        plain = hashlib.shake_256(f"{len(self.data)}".encode()).digest(size)
        (self.place / "plain").write_bytes(plain)
        before = self.held()

        def store():
            return put_data_set(
                self.session,
                person.keys,
                self.store,
                self.place / "plain",
                chunk_bytes=CHUNK,
                policy=Policy(keep_until=START + 1_000 * HOUR),
                number=0 if person.moved else None,
            )

        if not self.acts(who) or self.ledger.now >= START + 1_000 * HOUR:
            self.refused(store)
            assert self.held() == before
            return
        made = store()
        self.data[bytes.fromhex(made.id)] = Data(who, plain, trail=[("put", person.wallet.public, b"")])
        self.learn()

    @rule(data=st.data(), to=WHO, hours=st.none() | st.integers(1, 40))
    def grant(self, data, to, hours):
        self.give(self.pick(data), to, hours)

    def give(self, key, to, hours):
        record, reader = self.data[key], self.people[to].wallet.public
        owner = self.people[record.owner]
        until = START + 1_000 * HOUR if hours is None else self.ledger.now + hours * HOUR

        def call():
            grant_data_set(self.session, owner.keys, key, reader, until=until)

        if not self.acts(record.owner) or to == record.owner or not self.ledger.now < until <= START + 1_000 * HOUR:
            self.refused(call)
            return
        call()
        record.readers[reader] = until
        record.trail.append(("grant", owner.wallet.public, reader))

    @rule(data=st.data(), stranger=st.integers(0, 5))
    def revoke(self, data, stranger):
        """A revocation encrypts anew; the key that was taken back opens nothing of what is stored from then on."""
        key = self.pick(data)
        record, before = self.data[key], self.held()
        owner, reader = self.people[record.owner], COUNCIL.public
        if record.readers and stranger:
            reader = list(record.readers)[data.draw(st.integers(0, len(record.readers) - 1))]
        old_key = self.opened(key, reader) if reader in record.readers else b""

        def take_back():
            revoke_data_set(self.session, owner.keys, self.store, key, reader)

        if not self.acts(record.owner) or reader not in record.readers or self.damage(key):
            self.refused(take_back)
            assert self.held() == before
            return
        take_back()
        record.readers = {one: until for one, until in record.readers.items() if one != reader}
        record.readers = {one: until for one, until in record.readers.items() if until > self.ledger.now}
        record.trail.append(("revoke", owner.wallet.public, reader))
        record.version += 1
        self.learn()
        first = self.held()[f"store/{self.chunks(key)[0].hex()}"]
        self.cannot_open(first, old_key)
        event("revoked")

    @rule(data=st.data(), who=WHO)
    def read(self, data, who):
        key = self.pick(data)
        record, out = self.data[key], self.place / "out"
        out.unlink(missing_ok=True)

        def fetch():
            get_data_set(self.session, self.people[who].keys, self.store, key, out)

        if not self.may_read(key, who) or self.damage(key):
            said = self.refused(fetch)
            numbers = [number for number in self.damage(key) if number >= 0]
            if self.may_read(key, who) and numbers and -1 not in self.damage(key):
                assert f"chunk {numbers[0]} of" in said
            assert not out.exists()
            return
        fetch()
        assert out.read_bytes() == record.plain
        record.trail.append(("read", self.people[who].wallet.public, b""))
        event("read")

    @rule(data=st.data(), who=WHO)
    def report(self, data, who):
        key = self.pick(data)
        numbers = [number for number in self.damage(key) if number >= 0]
        if not numbers:
            return

        def say():
            report_altered(self.session, self.people[who].keys, key, numbers)

        if not self.may_read(key, who):
            self.refused(say)
            return
        say()
        self.data[key].trail.append(("altered", self.people[who].wallet.public, b""))
        event("reported")

    # The host

    @rule(data=st.data(), how=st.sampled_from(["flip", "cut", "lose", "grow", "swap", "list"]))
    def spoil(self, data, how):
        key = self.pick(data)
        names = [f"store/{digest.hex()}" for digest in self.chunks(key)]
        name, partner = (names[data.draw(st.integers(0, len(names) - 1))] for _ in range(2))
        held = self.held()
        if how == "list":
            root = self.session.state.get(DATA_SETS, key).root
            self.files.rm_file(f"/{self.base}/records/{root.hex()}") if f"records/{root.hex()}" in held else None
        elif how == "lose":
            self.files.rm_file(f"/{self.base}/{name}") if name in held else None
        elif name in held:
            other, raw = held.get(partner, b""), held[name]
            new = {"flip": raw[:-1] + bytes([raw[-1] ^ 1]) if raw else b"x", "cut": raw[:-1], "grow": raw + b"x"}
            self.files.pipe_file(f"/{self.base}/{name}", new.get(how, other))
        event(f"host: {how}")

    @rule()
    def restore(self):
        """The host brings all back from a copy."""
        for name, raw in self.true.items():
            self.files.pipe_file(f"/{self.base}/{name}", raw)

    # What must hold

    @invariant()
    def the_store_holds_nothing_that_no_data_set_stands_on(self):
        if hasattr(self, "ledger"):
            assert set(self.held()) <= set(self.true)

    @invariant()
    def located_is_what_the_host_did(self):
        for key in getattr(self, "data", {}):
            damage = self.damage(key)
            if -1 in damage:
                try:
                    locate_altered(self.session.state, self.store, key)
                except VerificationFault:
                    continue
                raise AssertionError("a lost list was not noticed")
            _, found = locate_altered(self.session.state, self.store, key)
            assert (found.ok, found.altered) == (not damage, damage)

    @invariant()
    def the_ledger_says_what_happened(self):
        for key, record in getattr(self, "data", {}).items():
            trail = [(entry.kind, entry.who, entry.whom) for entry in audit_trail(self.session.state, key)]
            assert trail == record.trail
            held = self.session.state.get(DATA_SETS, key)
            assert (held.version, held.size) == (record.version, len(record.plain))
            grants = {reader: grant.until for (_, reader), grant in self.session.state.scan(GRANTS, (key,))}
            assert grants == record.readers

    def pick(self, data):
        """Choose a data set by its number: ids and chunk names are random, so drawing among them would be too."""
        return list(self.data)[data.draw(st.integers(0, len(self.data) - 1))]

    def acts(self, who):
        return self.people[who].member and not self.people[who].banned

    def may_read(self, key, who):
        """An owner reads; a reader does, member or not, by the wallet it has now, while its grant stands."""
        record, person = self.data[key], self.people[who]
        if person.banned:
            return False
        if who == record.owner:
            return True
        return record.readers.get(person.wallet.public, 0) > self.ledger.now

    def refused(self, call):
        """Call what must be refused; return what was said."""
        height = self.ledger.height
        before = dict(self.ledger.reader.items())
        try:
            call()
        except RefusedInput as error:
            after = {k: v for k, v in self.ledger.reader.items() if not k.startswith((b"ledger.", b"coins."))}
            assert after == {k: v for k, v in before.items() if not k.startswith((b"ledger.", b"coins."))}
            assert self.ledger.height - height <= 1
            return str(error)
        raise AssertionError("this should have been refused")

    def held(self):
        """Return what the store holds by name."""
        root = f"/{self.base}"
        if not self.files.exists(root):
            return {}
        return {name.removeprefix(f"{root}/"): self.files.cat_file(name) for name in self.files.find(root)}

    def learn(self):
        """Note what the members put into the store: the names that stand now, with their true bytes."""
        held, wanted = self.held(), {}
        for key in self.data:
            root = self.session.state.get(DATA_SETS, key).root
            list_name = f"records/{root.hex()}"
            raw = self.true.get(list_name, held.get(list_name, b""))
            wanted[list_name] = raw
            for at in range(0, len(raw), 32):
                name = f"store/{raw[at : at + 32].hex()}"
                wanted[name] = self.true.get(name, held.get(name, b""))
        for name, raw in wanted.items():
            digest = hashlib.sha256(raw).hexdigest()
            assert name.startswith("records/") or name == f"store/{digest}"
        self.true = wanted

    def chunks(self, key):
        raw = self.true[f"records/{self.session.state.get(DATA_SETS, key).root.hex()}"]
        return [raw[at : at + 32] for at in range(0, len(raw), 32)]

    def damage(self, key):
        """Return the numbers of chunks that are not as they were put; -1 stands for the list."""
        held = self.held()
        root = self.session.state.get(DATA_SETS, key).root
        names = [f"store/{digest.hex()}" for digest in self.chunks(key)]
        altered = [number for number, name in enumerate(names) if held.get(name) != self.true[name]]
        return ([] if held.get(f"records/{root.hex()}") == self.true[f"records/{root.hex()}"] else [-1]) + altered

    def opened(self, key, reader):
        """Return the secret key that a reader's grant holds."""
        grant = self.session.state.get(GRANTS, (key, reader))
        wallets = [wallet for one in self.people.values() for wallet in (one.wallet, one.keys.certificate)]
        wallet = next(wallet for wallet in wallets if wallet.public == reader)
        return bindings.crypto_box_seal_open(grant.wrapped, *box_key_of(wallet))

    def cannot_open(self, chunk, secret):
        size = bindings.crypto_secretstream_xchacha20poly1305_HEADERBYTES
        state = bindings.crypto_secretstream_xchacha20poly1305_state()
        bindings.crypto_secretstream_xchacha20poly1305_init_pull(state, chunk[:size], secret)
        bound = b"gridpool/chunk/1\0" + bytes(8)
        try:
            bindings.crypto_secretstream_xchacha20poly1305_pull(state, chunk[size:], bound)
        except (CryptoError, RuntimeError, ValueError):
            return
        raise AssertionError("the key that was taken back opens what was stored since")


TestRecordsMachine = RecordsMachine.TestCase
TestRecordsMachine.settings = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
