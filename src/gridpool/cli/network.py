"""``gridpool network``: set up and run a consortium of validators."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter

from gridpool.cli.output import emit, note, percent, progress, table
from gridpool.errors import VerificationFault

__all__ = ["app"]

app = App(name="network", help="Set up and run a consortium of validators.")
JsonFlag = Annotated[bool, Parameter(negative="")]


@app.command
def init(
    *,
    dir: Annotated[Path, Parameter(name="--dir")],
    validators: int = 4,
    engine: Literal["cometbft", "etcd"] = "cometbft",
    base_port: int = 26600,
    market_clock: Literal["block", "ticks"] = "block",
    json: JsonFlag = False,
) -> None:
    """Write keys, genesis and configuration of a consortium's nodes into a new folder.

    Example: ``gridpool network init --validators 4 --dir out/net``

    Parameters
    ----------
    dir
        New folder; the nodes' homes are node0, node1 and so on in it.
    validators
        How many organisations validate, 1 to 32.
    engine
        Who orders transactions: cometbft (tolerates faulty members) or etcd (tolerates crashes only).
    base_port
        First of the three ports a node takes on loopback.
    market_clock
        What contracts see as now: block time, or signed ticks.
    json
        Print one JSON object.
    """
    from gridpool.agents.consortium import init_network

    network = init_network(dir, validators=validators, engine=engine, base_port=base_port, market_clock=market_clock)
    emit(
        {"dir": str(dir), **msgspec.to_builtins(network)},
        json=json,
        text=f"{len(network.nodes)} nodes of chain {network.chain} in {dir}; start them: gridpool network start {dir}",
    )


@app.command
def prepare(
    *,
    keys: Path,
    organisation: str,
    host: str,
    port: int = 26600,
    json: JsonFlag = False,
) -> None:
    """Make one organisation's keys, and the card that it shows the other founders.

    Example: ``gridpool network prepare --keys my-keys --organisation "City Grid" --host 192.0.2.10``

    Parameters
    ----------
    keys
        New folder for the keys; keep it secret. Its card.json is what others get.
    organisation
        The organisation's name.
    host
        Address under which the others reach its node.
    port
        First of three ports: peers reach this one, the next two listen on loopback only.
    json
        Print one JSON object.
    """
    from gridpool.agents.ceremony import prepare_keys

    card = prepare_keys(keys, organisation, host, port)
    emit(msgspec.to_builtins(card), json=json, text=f"keys in {keys}; send {keys / 'card.json'} to the other founders")


@app.command
def found(
    cards: list[Path],
    /,
    *,
    keys: Path,
    home: Path,
    chain: str,
    time: datetime,
    json: JsonFlag = False,
) -> None:
    """Lay one organisation's node from the cards of all founders; everybody must get the same genesis hash.

    Example: ``gridpool network found cards/*.json --keys my-keys --home node --chain pool-1 --time 2026-07-01T12:00``

    Parameters
    ----------
    cards
        The cards of all founders, your own among them.
    keys
        The folder that network prepare made.
    home
        New folder for the node.
    chain
        Name of the chain, as agreed.
    time
        When the chain begins (UTC), as agreed.
    json
        Print one JSON object.
    """
    from gridpool.agents.ceremony import lay_node, read_cards

    moment = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    digest = lay_node(home, keys, read_cards(cards), chain, round(moment.timestamp() * 1000))
    emit(
        {"home": str(home), "chain": chain, "genesis": digest},
        json=json,
        text=f"genesis {digest}: compare it with the others, then gridpool serve --home {home}",
    )


@app.command
def start(dir: Path, /, *, json: JsonFlag = False) -> None:
    """Start every node of a network on this machine; returns when all accept transactions.

    Example: ``gridpool network start out/net``

    Parameters
    ----------
    dir
        The network's folder.
    json
        Print one JSON object.
    """
    from gridpool.engines.network import start_network

    note("starting; the nodes' logs are in DIR/node*/logs")
    start_network(dir)
    _show(dir, json=json)


@app.command
def stop(dir: Path, /, *, json: JsonFlag = False) -> None:
    """Stop every node; returns when no process is left.

    Example: ``gridpool network stop out/net``

    Parameters
    ----------
    dir
        The network's folder.
    json
        Print one JSON object.
    """
    from gridpool.engines.network import stop_network

    stop_network(dir)
    emit({"dir": str(dir), "stopped": True}, json=json, text=f"nothing of {dir} runs")


@app.command
def status(dir: Path, /, *, json: JsonFlag = False) -> None:
    """Ask every node for its height and application hash.

    Example: ``gridpool network status out/net --json``

    Parameters
    ----------
    dir
        The network's folder.
    json
        Print one JSON object.
    """
    _show(dir, json=json)


@app.command
def load(
    dir: Path,
    /,
    *,
    rate: float,
    seconds: float,
    bundle: int = 1,
    json: JsonFlag = False,
) -> None:
    """Send signed transfers to a running network at a steady rate, and time them to their receipts.

    Example: ``gridpool network load out/net --rate 300 --seconds 20``

    Parameters
    ----------
    dir
        The network's folder.
    rate
        Transactions a second.
    seconds
        How long.
    bundle
        Calls in each transaction, 1 to 500.
    json
        Print one JSON object.
    """
    from gridpool.agents.load import load_network

    with progress("sending", max(1, round(rate * seconds))) as advance:
        result = load_network(dir, rate=rate, seconds=seconds, bundle=bundle, advance=advance, tell=note)
    emit(msgspec.to_builtins(result), json=json)


@app.command(name="add-validator")
def add_validator(dir: Path, /, *, organisation: str | None = None, power: int = 10, json: JsonFlag = False) -> None:
    """Lay and start one more node of a running network, and give it a vote through the council.

    Example: ``gridpool network add-validator out/net``

    Parameters
    ----------
    dir
        The network's folder.
    organisation
        Whom the validator votes for.
    power
        Its voting power; the founders have 10 each.
    json
        Print one JSON object.
    """
    from gridpool.agents.consortium import add_validator as add

    name = add(dir, organisation=organisation, power=power)
    emit({"node": name, "power": power}, json=json, text=f"{name} runs and votes with power {power}")


@app.command(name="remove-validator")
def remove_validator(dir: Path, node: str, /, *, json: JsonFlag = False) -> None:
    """Take a node's vote away through the council; the node goes on following the chain.

    Example: ``gridpool network remove-validator out/net node3``

    Parameters
    ----------
    dir
        The network's folder.
    node
        The node's name, as network status shows it.
    json
        Print one JSON object.
    """
    from gridpool.agents.consortium import remove_validator as remove

    remove(dir, node)
    emit({"node": node, "power": 0}, json=json, text=f"{node} votes no more")


@app.command(name="replace-member")
def replace_member(dir: Path, node: str, /, *, json: JsonFlag = False) -> None:
    """Start an etcd member anew that has lost its disk; it reads the chain from the others.

    Example: ``gridpool network replace-member out/domain node2``

    Parameters
    ----------
    dir
        The network's folder.
    node
        The member's name; it must not run.
    json
        Print one JSON object.
    """
    from gridpool.agents.consortium import replace_member as replace

    replace(dir, node)
    emit({"node": node, "joined": True}, json=json, text=f"{node} has joined again")


@app.command
def replay(dir: Path, /, *, json: JsonFlag = False) -> None:
    """Replay the network's block stream embedded and compare every node's application hashes; exit 3 on a difference.

    Example: ``gridpool network replay out/net --json``

    Parameters
    ----------
    dir
        The network's folder; it may be stopped.
    json
        Print one JSON object.
    """
    from gridpool.agents.network_replay import replay_network

    with percent("replaying") as tell:
        result = replay_network(dir, advance=tell)
    emit(msgspec.to_builtins(result), json=json)
    if result.fault is not None:
        fault = result.fault
        raise VerificationFault(f"{fault.node} differs from the replay at height {fault.height}: {fault.what}")


def _show(folder: Path, *, json: bool) -> None:
    from gridpool.engines.network import read_network, status_network

    network = read_network(folder)
    nodes = status_network(folder)
    emit(
        {"engine": network.engine, "nodes": msgspec.to_builtins(nodes)},
        json=json,
        text=table(
            ("node", "up", "height", "application hash"),
            [(n.name, "yes" if n.up else "no", n.height, n.app_hash) for n in nodes],
        ),
    )
