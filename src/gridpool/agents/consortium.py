"""Founding a consortium: its members' keys, the genesis they agree on, and the homes of their nodes."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from gridpool.agents.network_council import Council
from gridpool.agents.wallet_remote import fetch
from gridpool.contracts.members import FoundingMember, MemberParameters, NewSeat, Role
from gridpool.contracts.validators import NamedKey, NamedNode, NameNode, NameValidator, ValidatorParameters
from gridpool.engines.cometbft_files import Ports, node_id, node_key_id, validator_key, write_files
from gridpool.engines.etcd_chain import EtcdChain
from gridpool.engines.etcd_client import EtcdClient
from gridpool.engines.network import (
    EngineName,
    NetworkFile,
    NodeFile,
    node_file_at,
    read_network,
    refuse_running,
    start_node,
    write_document,
)
from gridpool.errors import RefusedInput
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair, save_key
from gridpool.ledger.types import decode, encode

__all__ = [
    "Card",
    "Organisation",
    "add_validator",
    "consortium_genesis",
    "init_network",
    "lay_home",
    "peer_of",
    "remove_validator",
    "replace_member",
]

MOST_VALIDATORS = 32
PORTS_A_NODE = 3
POWER = 10
TICKS_BEGIN_MS = 631_152_000_000
"""1990-01-01."""
LONGEST_STEP_MS = 200 * 365 * 86_400_000


Key = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a founding organisation shows the others: its public keys (hex) and where its node listens."""

    organisation: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    council: Key
    validator: Key
    node: Key
    host: Annotated[str, msgspec.Meta(pattern="^[0-9A-Za-z.:-]{1,253}$")]
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class Organisation(msgspec.Struct, frozen=True):
    """A founding organisation: its council key, the key its validator signs with, and its node's network key."""

    name: str
    council: KeyPair
    validator: KeyPair
    node: KeyPair

    def card(self, ports: Ports) -> Card:
        """Return what the organisation shows the others: public keys and where its node listens."""
        return Card(
            organisation=self.name,
            council=self.council.public.hex(),
            validator=self.validator.public.hex(),
            node=self.node.public.hex(),
            host=ports.host,
            port=ports.p2p,
        )


def consortium_genesis(
    chain: str,
    cards: Sequence[Card],
    *,
    market_clock: Literal["block", "ticks"] = "block",
    clock_keeper: bytes = bytes(32),
    time_ms: int,
) -> Genesis:
    """Return the genesis that organisations agree on: a seat, a vote and a node each; two thirds of them decide."""
    members = MemberParameters(
        seats=tuple(NewSeat(bytes.fromhex(card.council), card.organisation) for card in cards),
        threshold=len(cards) * 2 // 3 + 1 if len(cards) > 1 else 1,
        founders=tuple(
            FoundingMember(bytes.fromhex(card.council), card.organisation, (Role.COUNCIL, Role.AGGREGATOR))
            for card in cards
        ),
    )
    named = ValidatorParameters(
        owners=tuple(NamedKey(bytes.fromhex(card.validator), card.organisation) for card in cards),
        nodes=tuple(NamedNode(node_id(bytes.fromhex(card.node)), card.organisation) for card in cards),
    )
    return Genesis(
        chain=chain,
        time_ms=time_ms,
        max_step_ms=LONGEST_STEP_MS,
        market_clock=market_clock,
        clock_keeper=clock_keeper,
        validators=tuple((bytes.fromhex(card.validator), POWER) for card in cards),
        parameters=(("members", encode(members)), ("validators", encode(named))),
    )


def init_network(
    folder: Path,
    *,
    validators: int = 4,
    engine: EngineName = "cometbft",
    base_port: int = 26600,
    market_clock: Literal["block", "ticks"] = "block",
) -> NetworkFile:
    """Lay the homes of a consortium on this machine into the new folder ``folder``.

    Raises RefusedInput for a folder that exists, a number of validators outside 1..32, or ports out of range.
    """
    if folder.exists():
        raise RefusedInput(f"{folder} exists; choose a new folder for the network")
    if not 1 <= validators <= MOST_VALIDATORS:
        raise RefusedInput(f"--validators {validators}: give 1 to {MOST_VALIDATORS}")
    if not 1024 <= base_port <= 65_535 - PORTS_A_NODE * validators:
        raise RefusedInput(f"--base-port {base_port}: {PORTS_A_NODE} ports a node must lie within 1024 and 65535")
    organisations = [
        Organisation(f"organisation {i}", KeyPair.generate(), KeyPair.generate(), KeyPair.generate())
        for i in range(validators)
    ]
    clock = KeyPair.generate()
    chain = f"gridpool-{clock.public.hex()[:8]}"
    ports = [
        Ports(p2p=first, rpc=first + 1, http=first + 2)
        for first in range(base_port, base_port + PORTS_A_NODE * validators, PORTS_A_NODE)
    ]
    cards = [org.card(at) for org, at in zip(organisations, ports, strict=True)]
    genesis = consortium_genesis(
        chain,
        cards,
        market_clock=market_clock,
        clock_keeper=clock.public if market_clock == "ticks" else bytes(32),
        # Market time by ticks begins early enough for any day to be played.
        time_ms=int(time.time() * 1000) if market_clock == "block" else TICKS_BEGIN_MS,
    )
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        peers = [peer_of(card) for card in cards]
        for i, organisation in enumerate(organisations):
            others = [*peers[:i], *peers[i + 1 :]]
            node = _node_file(i, genesis.chain, engine, ports)
            lay_home(partial, folder, node, organisation, genesis, others)
        save_key(partial / "node0" / "clock.key", clock)
        network = NetworkFile(
            engine=engine,
            chain=chain,
            market_clock=market_clock,
            nodes=tuple(f"node{i}" for i in range(validators)),
        )
        write_document(partial / "network.json", network)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return network


def add_validator(folder: Path, *, organisation: str | None = None, power: int = POWER) -> str:
    """Lay and start one more node of a running network, and give it a vote through the council.

    Returns the node's name. Raises RefusedInput where the engine has no validators or the council refuses.
    """
    network = read_network(folder)
    if network.engine != "cometbft":
        raise RefusedInput(f"validators belong to cometbft; this network runs {network.engine}")
    files = [node for name in network.nodes if (node := node_file_at(folder / name)) is not None]
    number = 1 + max(int(name.removeprefix("node")) for name in network.nodes)
    name = f"node{number}"
    first = max(node.ports.p2p for node in files) + PORTS_A_NODE
    ports = Ports(p2p=first, rpc=first + 1, http=first + 2, host=files[0].ports.host)
    member = Organisation(
        organisation or f"organisation {number}", KeyPair.generate(), KeyPair.generate(), KeyPair.generate()
    )
    peers = [f"{node_key_id(folder / node.name / 'cometbft')}@{node.ports.host}:{node.ports.p2p}" for node in files]
    genesis = decode((folder / network.nodes[0] / "genesis").read_bytes(), Genesis)
    node = NodeFile(engine="cometbft", name=name, chain=genesis.chain, ports=ports)
    lay_home(folder, folder, node, member, genesis, peers)
    council = Council(folder)
    council.decide(NameNode(node_id(member.node.public), member.name))
    write_document(folder / "network.json", msgspec.structs.replace(network, nodes=(*network.nodes, name)))
    start_node(folder / name)
    council.decide(NameValidator(member.validator.public, member.name, power))
    return name


def remove_validator(folder: Path, name: str) -> None:
    """Take a node's vote away through the council; its processes go on and follow the chain."""
    network = read_network(folder)
    if name not in network.nodes:
        raise RefusedInput(f"no node {name!r} in {folder}; the nodes are {', '.join(network.nodes)}")
    key = validator_key(folder / name / "cometbft")
    council = Council(folder)
    council.decide(NameValidator(key, council.organisation_of(key), 0))


def replace_member(folder: Path, name: str) -> None:
    """Start an etcd member anew that has lost its disk: it joins under its name and reads the chain from the others.

    Its etcd data and ledger, if anything of them is left, are set aside beside its home. Where the chain's beginning
    is no longer in etcd, it begins with a copy of another member's ledger. Raises RefusedInput for a network without
    etcd, a member that runs, or where no other member of this folder can be copied; EtcdUnavailable where the others
    have no leader.
    """
    network = read_network(folder)
    home = folder / name
    node = node_file_at(home) if name in network.nodes else None
    if node is None or node.engine != "etcd":
        raise RefusedInput(f"no etcd member {name!r} in {folder}; the nodes are {', '.join(network.nodes)}")
    refuse_running(home)
    client = EtcdClient(node.peers[1:])
    try:
        copy = _backup_of_another(folder, network, name) if EtcdChain(client, node.chain, name).trimmed() else None
        client.replace_member(name, dict(node.cluster)[name])
    finally:
        client.close()
    aside = folder / f"{name}.lost-{time.time_ns()}"
    for part in ("etcd", "ledger", "read-model.sqlite"):
        if (home / part).exists():
            aside.mkdir(exist_ok=True)
            (home / part).rename(aside / part)
    if copy is not None:
        shutil.copytree(copy, home / "ledger.partial", dirs_exist_ok=True)
        (home / "ledger.partial").rename(home / "ledger")
    write_document(home / "node.json", msgspec.structs.replace(node, joins=True))
    start_node(home)


def _backup_of_another(folder: Path, network: NetworkFile, name: str) -> Path:
    """Let another member of the network on this machine copy its ledger; returns the copy's folder."""
    reasons = []
    for other in network.nodes:
        node = node_file_at(folder / other)
        if other == name or node is None:
            continue
        try:
            made = msgspec.json.decode(fetch(f"http://127.0.0.1:{node.ports.http}/backup", b""), type=dict[str, Any])
            return Path(made["path"])
        except (RefusedInput, msgspec.DecodeError, KeyError) as error:
            reasons.append(f"{other}: {error}")
    raise RefusedInput(
        f"the beginning of the chain is no longer in etcd, and no other member gave a copy of its ledger "
        f"({'; '.join(reasons)})"
    )


def peer_of(card: Card) -> str:
    """Return how CometBFT addresses a card's node."""
    return f"{node_id(bytes.fromhex(card.node))}@{card.host}:{card.port}"


def _node_file(number: int, chain: str, engine: EngineName, ports: list[Ports]) -> NodeFile:
    if engine == "cometbft":
        return NodeFile(engine=engine, name=f"node{number}", chain=chain, ports=ports[number])
    clients = [f"http://{at.host}:{at.rpc}" for at in ports]
    return NodeFile(
        engine=engine,
        name=f"node{number}",
        chain=chain,
        ports=ports[number],
        peers=(clients[number], *clients[:number], *clients[number + 1 :]),
        cluster=tuple((f"node{i}", f"http://{at.host}:{at.p2p}") for i, at in enumerate(ports)),
    )


def lay_home(
    partial: Path, folder: Path, node: NodeFile, organisation: Organisation, genesis: Genesis, peers: list[str]
) -> None:
    """Write a node's home under ``partial``, which will be ``folder``; ``peers`` are the others' addresses."""
    home = partial / node.name
    home.mkdir(parents=True, mode=0o700)
    (home / "genesis").write_bytes(encode(genesis))
    save_key(home / "member.key", organisation.council)
    write_document(home / "node.json", node)
    if node.engine == "cometbft":
        write_files(
            home / "cometbft",
            genesis,
            validator=organisation.validator,
            node=organisation.node,
            ports=node.ports,
            peers=peers,
            socket=folder.resolve() / node.name / "abci.sock",
        )
