"""Genesis: the facts a chain starts from."""

import hashlib
from typing import Literal

from gridpool.ledger.clock import appoint
from gridpool.ledger.contract import CLOCK, RULES, VALIDATORS, Context, Number, RulesVersion, ValidatorPower
from gridpool.ledger.rules import Rules
from gridpool.ledger.state import Layer, Reader
from gridpool.ledger.types import Event, Millis, Natural, Text, Value, Wallet, decode, encode

__all__ = ["Genesis", "apply_genesis", "genesis_hash"]

NOBODY = bytes(32)


class Genesis(Value, kw_only=True):
    """What all members agree on before the first block.

    ``market_clock`` says what contracts see as now: the block's own time, or the signed advances of ``clock_keeper``.
    ``parameters`` holds (contract, encoded parameters) for contracts that do not start with their defaults.
    """

    chain: Text
    time_ms: Millis
    market_clock: Literal["block", "ticks"] = "block"
    clock_keeper: Wallet = NOBODY
    max_step_ms: Millis = 86_400_000
    rules_version: Natural = 1
    validators: tuple[tuple[Wallet, Natural], ...] = ()
    parameters: tuple[tuple[Text, bytes], ...] = ()


def genesis_hash(genesis: Genesis) -> bytes:
    """Return the hash that stands as the application hash before genesis."""
    return hashlib.sha256(b"gridpool/genesis/1\0" + encode(genesis)).digest()


def apply_genesis(rules: Rules, genesis: Genesis, reader: Reader) -> Layer:
    """Set every contract up; returns the changes that make the state of height 0."""
    layer = Layer()
    events: list[Event] = []
    ctx = Context(
        reader,
        (layer,),
        chain=genesis.chain,
        height=0,
        block_time=genesis.time_ms,
        now=genesis.time_ms,
        sender=NOBODY,
        tx_id=bytes(32),
        events=events,
    )
    ctx.put(CLOCK, "now", Number(genesis.time_ms))
    ctx.put(RULES, 0, RulesVersion(genesis.rules_version))
    for key, power in genesis.validators:
        ctx.put(VALIDATORS, key, ValidatorPower(power))
    if genesis.market_clock == "ticks":
        appoint(ctx, genesis.clock_keeper, genesis.max_step_ms)
    given = dict(genesis.parameters)
    for contract in rules.contracts:
        if contract.begin is None or contract.parameters is None:
            continue
        data = given.pop(contract.name, None)
        contract.begin(ctx, contract.parameters() if data is None else decode(data, contract.parameters))
    if given:
        raise ValueError(f"genesis has parameters for contracts that the rules lack: {', '.join(sorted(given))}")
    return layer
