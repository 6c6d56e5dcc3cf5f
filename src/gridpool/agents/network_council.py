"""The council of a consortium whose homes lie on this machine: decisions signed by as many seats as they need."""

import hashlib
from pathlib import Path

from gridpool.agents.wallet_session import Session, open_session
from gridpool.contracts import members
from gridpool.contracts.members import Decision
from gridpool.contracts.validators import OWNERS
from gridpool.engines.home import genesis_at
from gridpool.engines.network import node_file_at, read_network
from gridpool.errors import RefusedInput
from gridpool.ledger.keys import KeyPair, load_key
from gridpool.ledger.types import decode

__all__ = ["Council", "council_of"]


def council_of(folder: Path) -> tuple[list[KeyPair], int]:
    """Return the council keys in a network's homes and how many of them decide, as its genesis has it."""
    homes = [folder / name for name in read_network(folder).nodes]
    genesis = genesis_at(homes[0])
    given = dict(genesis.parameters)["members"]
    founded = decode(given, members.MemberParameters)
    held = [load_key(home / "member.key") for home in homes if (home / "member.key").exists()]
    keys = {key.public: key for key in held}
    return [keys[seat.key] for seat in founded.seats if seat.key in keys], founded.threshold


class Council:
    """Decides on a running network with the council keys in its homes."""

    def __init__(self, folder: Path) -> None:
        network = read_network(folder)
        homes = [folder / name for name in network.nodes]
        self._keys = [load_key(home / "member.key") for home in homes if (home / "member.key").exists()]
        self._urls = [
            f"http://127.0.0.1:{node.ports.http}" for home in homes if (node := node_file_at(home)) is not None
        ]

    def decide(self, *decisions: Decision) -> None:
        """Propose each decision and sign it until it takes effect; raises RefusedInput where the ledger refuses."""
        with open_session(None, self.url()) as session:
            for decided in decisions:
                self._decide(session, decided)

    def organisation_of(self, validator: bytes) -> str:
        """Return the organisation that a validator votes for; raises RefusedInput where it is not known."""
        with open_session(None, self.url()) as session:
            owner = session.state.get(OWNERS, validator)
        if owner is None:
            raise RefusedInput(f"no validator {validator.hex()} is known to the ledger")
        return owner.organisation

    def _decide(self, session: Session, decided: Decision) -> None:
        proposal = members.propose(decided)
        digest = hashlib.sha256(proposal.data).digest()
        seated = [key for key in self._keys if session.state.get(members.SEATS, key.public) is not None]
        if not seated:
            raise RefusedInput("no home on this machine holds the key of a council seat")
        session.submit(seated[0], proposal)
        number = next(
            number
            for number, held in session.state.scan(members.PROPOSALS, reverse=True)
            if held.digest == digest and held.proposer == seated[0].public
        )
        for key in seated[1:]:
            held = session.state.get(members.PROPOSALS, number)
            if held is not None and held.status == "done":
                return
            session.submit(key, members.Approve(number, digest))
        held = session.state.get(members.PROPOSALS, number)
        if held is None or held.status != "done":
            raise RefusedInput(f"proposal {number} lacks signatures: the homes here hold {len(seated)} council keys")

    def url(self) -> str:
        """Return the address of the first node that answers; raises RefusedInput where none does."""
        for url in self._urls:
            try:
                with open_session(None, url) as session:
                    _ = session.chain
                return url
            except (RefusedInput, OSError):
                continue
        raise RefusedInput("no node answers; start the network first: gridpool network start DIR")
