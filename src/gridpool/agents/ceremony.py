"""The genesis ceremony: each organisation makes its keys at home, shows a card, and lays its node from all cards."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from gridpool.agents.consortium import Card, Organisation, consortium_genesis, lay_home, peer_of
from gridpool.agents.wallet_keys import WalletKeys, load_wallet, save_wallet
from gridpool.engines.cometbft_files import Ports
from gridpool.engines.network import NodeFile
from gridpool.errors import RefusedInput
from gridpool.ledger.genesis import Genesis, genesis_hash
from gridpool.ledger.keys import KeyPair, load_key, save_key

__all__ = ["agreed_genesis", "lay_node", "prepare_keys", "read_cards"]

KEYS = ("validator", "node")
LARGEST_CARD = 10_000


def prepare_keys(folder: Path, organisation: str, host: str, port: int) -> Card:
    """Make an organisation's keys in the new folder ``folder`` and return its card, also written as ``card.json``.

    Its council key is that of ``council.wallet``, with which ``gridpool council`` proposes and signs.
    """
    if folder.exists():
        raise RefusedInput(f"{folder} exists; choose a new folder for the keys")
    council = WalletKeys.generate()
    keys = {name: KeyPair.generate() for name in KEYS}
    made = Organisation(organisation, council.certificate, *keys.values()).card(
        Ports(p2p=port, rpc=port + 1, http=port + 2, host=host)
    )
    try:
        # Converting checks the fields as they will be checked when others read the card.
        card = msgspec.convert(msgspec.to_builtins(made), Card)
    except msgspec.ValidationError as error:
        raise RefusedInput(f"this cannot stand on a card: {error}") from None
    folder.mkdir(parents=True, mode=0o700)
    for name, key in keys.items():
        save_key(folder / f"{name}.key", key)
    save_wallet(folder / "council.wallet", council)
    (folder / "card.json").write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")
    return card


def read_cards(files: Sequence[Path]) -> list[Card]:
    """Read the cards of all founders; raises RefusedInput for a damaged card or a key that appears twice."""
    cards = []
    for file in files:
        try:
            data = file.read_bytes()
            if len(data) > LARGEST_CARD:
                raise RefusedInput(f"{file} is too large for a card")
            cards.append(msgspec.json.decode(data, type=Card))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RefusedInput(f"{file} is no card: {error}") from None
    keys = [key for card in cards for key in (card.council, card.validator, card.node)]
    names = [card.organisation for card in cards]
    if len(set(keys)) < len(keys) or len(set(names)) < len(names):
        raise RefusedInput("a key or an organisation appears on two cards")
    return sorted(cards, key=lambda card: card.organisation)


def agreed_genesis(cards: Sequence[Card], chain: str, time_ms: int) -> Genesis:
    """Return the genesis that the cards, a chain name and a time make; the same for whoever makes it."""
    if not cards:
        raise RefusedInput("no cards: give the cards of all founders, your own among them")
    return consortium_genesis(chain, cards, time_ms=time_ms)


def lay_node(home: Path, keys: Path, cards: Sequence[Card], chain: str, time_ms: int) -> str:
    """Lay the home of the organisation whose keys lie in ``keys``; returns the hash of genesis, to be compared."""
    if home.exists():
        raise RefusedInput(f"{home} exists; choose a new folder for the node")
    own = {name: load_key(keys / f"{name}.key") for name in KEYS}
    card = next((card for card in cards if card.validator == own["validator"].public.hex()), None)
    if card is None:
        raise RefusedInput(f"none of the cards is that of the keys in {keys}")
    genesis = agreed_genesis(cards, chain, time_ms)
    ports = Ports(p2p=card.port, rpc=card.port + 1, http=card.port + 2, host=card.host)
    node = NodeFile(engine="cometbft", name=home.name, chain=chain, ports=ports)
    partial = home.parent / f".{home.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        council = load_wallet(keys / "council.wallet").certificate
        organisation = Organisation(card.organisation, council, own["validator"], own["node"])
        lay_home(partial, home.parent, node, organisation, genesis, [peer_of(c) for c in cards if c is not card])
        (partial / home.name).rename(home)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return genesis_hash(genesis).hex()
