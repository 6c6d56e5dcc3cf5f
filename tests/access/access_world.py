"""A ledger on disk with an operator, an aggregator and prosumers' wallets: gates and devices take proofs from it."""

import hashlib
import time
from pathlib import Path
from types import TracebackType

from gridpool.agents.access_credential import Credentials
from gridpool.agents.access_issuance import credential_of
from gridpool.agents.wallet_session import HomeSession
from gridpool.contracts import RULES
from gridpool.contracts.coins import Mint, Payment
from gridpool.contracts.members import (
    Admit,
    Decision,
    FoundingMember,
    MemberParameters,
    NewMember,
    NewSeat,
    NewWallet,
    RegisterWallets,
    Role,
    commitment_of,
    propose,
)
from gridpool.engines.embedded import Embedded
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.proof import trust
from gridpool.ledger.types import Call, encode

CHAIN = "access"


def key(name: str) -> KeyPair:
    return KeyPair(hashlib.sha256(name.encode()).digest())


COUNCIL, DSO, HUB, OTHER = key("council"), key("dso"), key("hub"), key("other")


class AccessWorld:
    """Use as a context manager; ``wallets`` are prosumers' pseudonymous wallets by name, two for each name."""

    def __init__(self, home: Path, names: str = "ab", *, each: int = 2) -> None:
        founders = (
            FoundingMember(DSO.public, "Grid", (Role.UTILITY,)),
            FoundingMember(HUB.public, "Hub", (Role.AGGREGATOR,)),
            FoundingMember(OTHER.public, "Other", (Role.OPERATOR,)),
        )
        genesis = Genesis(
            chain=CHAIN,
            time_ms=time.time_ns() // 1_000_000 - 60_000,
            parameters=(
                ("members", encode(MemberParameters((NewSeat(COUNCIL.public, "council"),), founders=founders))),
            ),
        )
        Embedded.create(home, genesis, RULES, interval_ms=None).close()
        self.session = HomeSession(home, writable=True)
        people = {name: key(f"person {name}") for name in names}
        self.wallets = {f"{name}{i}": key(f"wallet {name}{i}") for name in names for i in range(each)}
        self.decide(Admit(tuple(NewMember(k.public, "", (Role.PROSUMER,), HUB.public) for k in people.values())))
        entries = [
            NewWallet(k.public, commitment_of(people[name[0]].public, k.public, bytes(32)))
            for name, k in self.wallets.items()
        ]
        self.submit(HUB, RegisterWallets(tuple(sorted(entries, key=lambda entry: entry.wallet))))
        self.decide(Mint(tuple(Payment(k.public, 1_000_000) for k in (*self.wallets.values(), DSO)), "test"))

    def __enter__(self) -> "AccessWorld":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.__exit__(kind, value, trace)

    def submit(self, signer: KeyPair, *calls: Call) -> None:
        self.session.submit(signer, *calls)

    def decide(self, decided: Decision) -> None:
        self.submit(COUNCIL, propose(decided))

    def credential(self, wallet: KeyPair, *more: bytes) -> bytes:
        with self.session._ledger.view() as view:
            return credential_of(view, wallet.public, more)

    def credentials(self) -> Credentials:
        with self.session._ledger.view() as view:
            return Credentials(trust(view))


def now() -> int:
    return time.time_ns() // 1_000_000
