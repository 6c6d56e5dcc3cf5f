"""What a contract is: the tables it stores, the calls members may make, work that falls due, and what always holds.

A contract is a module with one ``Contract``; its functions are registered by decorators::

    coins = Contract("coins")
    ACCOUNTS = coins.table("account", key=bytes, value=Account)

    @coins.call(Transfer)
    def transfer(ctx: Context, call: Transfer) -> None: ...

    @coins.due(ReleaseEscrow)
    def release_escrow(ctx: Context, due: ReleaseEscrow) -> None: ...

    @coins.genesis(CoinParameters)
    def begin(ctx: Context, parameters: CoinParameters) -> None: ...

    @coins.invariant
    def coins_are_minted_less_burnt(state: State) -> bool: ...
"""

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, overload

import msgspec

from gridpool.ledger.state import Layer, Reader, State
from gridpool.ledger.table import Table
from gridpool.ledger.types import Call, Due, Event, Hash, Natural, Value, Wallet, encode

__all__ = [
    "CLOCK",
    "DELEGATED_NONCES",
    "DUE",
    "LEDGER_TABLES",
    "NONCES",
    "PARAMETERS",
    "RULES",
    "VALIDATORS",
    "Context",
    "Contract",
    "Number",
    "Refused",
    "RulesVersion",
    "ValidatorPower",
    "rules_at",
]

K = TypeVar("K")
V = TypeVar("V")
C = TypeVar("C", bound=Call)
D = TypeVar("D", bound=Due)
P = TypeVar("P", bound=Value)
A = TypeVar("A", int, bytes, str)
B = TypeVar("B", int, bytes, str)
E = TypeVar("E", int, bytes, str)
F = TypeVar("F", int, bytes, str)

Invariant = Callable[[State], bool]
Admission = Callable[["Context"], None]


class Refused(Exception):
    """A contract's refusal of a call: becomes the code of a receipt and undoes the call's writes."""

    def __init__(self, code: str, info: str = "") -> None:
        super().__init__(f"{code}: {info}" if info else code)
        self.code = code
        self.info = info


class ValidatorPower(Value):
    """Voting power of a validator; 0 removes it."""

    power: Natural


class Number(Value):
    """One integer."""

    number: Natural


class RulesVersion(Value):
    """The rules version in force from a height on."""

    version: Natural


class Parameters(Value):
    """The encoded genesis or council parameters of a contract."""

    data: bytes


NONCES = Table("ledger.nonce", key=bytes, value=Number)
"""Wallet -> the last nonce it used, of its own transactions."""
DELEGATED_NONCES = Table("ledger.delegated_nonce", key=bytes, value=Number)
"""Wallet -> the last nonce it used in calls that another carried for it."""
DUE: Table[tuple[int, str, bytes], Number] = Table("ledger.due", key=(int, str, bytes), value=Number)
"""(market time, tag, encoded work) -> nothing of interest: the key says it all, whatever block it came in."""
VALIDATORS = Table("ledger.validator", key=bytes, value=ValidatorPower)
"""Validator key -> voting power."""
RULES = Table("ledger.rules", key=int, value=RulesVersion)
"""Height -> the rules version in force from there on."""
CLOCK = Table("ledger.clock", key=str, value=Number)
"""``now`` -> market time in milliseconds."""
PARAMETERS = Table("ledger.parameters", key=str, value=Parameters)
"""Contract name -> its parameters."""

LEDGER_TABLES: tuple[Table[Any, Any], ...] = (NONCES, DELEGATED_NONCES, DUE, VALIDATORS, RULES, CLOCK, PARAMETERS)


class Context(State):
    """What a running call sees and may do. Contracts know no clock, no randomness and no file besides it."""

    __slots__ = ("_layer", "block_time", "chain", "events", "height", "now", "sender", "tx_id")

    def __init__(
        self,
        reader: Reader,
        layers: tuple[Layer, ...],
        *,
        chain: str,
        height: int,
        block_time: int,
        now: int,
        sender: Wallet,
        tx_id: Hash,
        events: list[Event],
    ) -> None:
        super().__init__(reader, layers)
        self._layer = layers[0]
        self.chain = chain
        self.height = height
        self.block_time = block_time
        """Time of the block in milliseconds; deadlines use ``now`` instead."""
        self.now = now
        """Market time in milliseconds."""
        self.sender = sender
        """The wallet that signed; 32 zero bytes at genesis and in work that falls due."""
        self.tx_id = tx_id
        self.events = events

    def put(self, table: Table[K, V], key: K, value: V) -> None:
        """Store ``value`` under ``key``."""
        self._layer.put(table, key, value)

    def delete(self, table: Table[K, V], key: K) -> None:
        """Remove ``key``."""
        self._layer.put(table, key, None)

    def require(self, table: Table[K, V], key: K, code: str) -> V:
        """Return the value under ``key``, or refuse the call with ``code``."""
        value = self.get(table, key)
        if value is None:
            raise Refused(code, table.key_text(key))
        return value

    def refuse(self, code: str, info: str = "") -> NoReturn:
        """Refuse the call; its writes are undone and the receipt carries ``code``."""
        raise Refused(code, info)

    def emit(self, event: Event) -> None:
        """Add an event to the receipt."""
        self.events.append(event)

    def schedule(self, at: int, due: Due) -> None:
        """Let ``due`` run at the end of the first block whose market time reaches ``at`` (ms); twice is once."""
        self.put(DUE, (at, _tag(type(due)), encode(due)), Number(0))

    def unschedule(self, at: int, due: Due) -> None:
        """Take back what ``schedule`` was told."""
        self.delete(DUE, (at, _tag(type(due)), encode(due)))

    def set_validator(self, key: bytes, power: int) -> None:
        """Give a validator voting power (0 removes it); the engine applies it two heights later."""
        self.put(VALIDATORS, key, ValidatorPower(power))

    def set_rules(self, version: int, height: int) -> None:
        """Let a new rules version take effect at a later height."""
        if height <= self.height:
            raise Refused("rules_in_the_past", f"height {height} is not above {self.height}")
        self.put(RULES, height, RulesVersion(version))

    def parameters(self, contract: str, kind: type[P]) -> P:
        """Return the parameters that genesis or the council gave a contract."""
        stored = self.get(PARAMETERS, contract)
        return kind() if stored is None else msgspec.msgpack.decode(stored.data, type=kind)

    def set_parameters(self, contract: str, value: Value) -> None:
        """Store a contract's parameters."""
        self.put(PARAMETERS, contract, Parameters(encode(value)))


class Contract:
    """A contract under construction: collects what the decorators register."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tables: list[Table[Any, Any]] = []
        self.calls: dict[type[Call], Callable[[Context, Any], None]] = {}
        self.dues: dict[type[Due], Callable[[Context, Any], None]] = {}
        self.events: list[type[Event]] = []
        self.invariants: list[Invariant] = []
        self.admissions: list[Admission] = []
        self.misbehaviours: list[Callable[[Context, bytes], None]] = []
        self.begin: Callable[[Context, Any], None] | None = None
        self.parameters: type[Value] | None = None

    def __repr__(self) -> str:
        return f"Contract({self.name!r})"

    @overload
    def table(self, name: str, *, key: type[A], value: type[V]) -> Table[A, V]: ...
    @overload
    def table(self, name: str, *, key: tuple[type[A], type[B]], value: type[V]) -> Table[tuple[A, B], V]: ...
    @overload
    def table(
        self, name: str, *, key: tuple[type[A], type[B], type[E]], value: type[V]
    ) -> Table[tuple[A, B, E], V]: ...
    @overload
    def table(
        self, name: str, *, key: tuple[type[A], type[B], type[E], type[F]], value: type[V]
    ) -> Table[tuple[A, B, E, F], V]: ...
    def table(self, name: str, *, key: Any, value: type[V]) -> Table[Any, V]:
        """Declare a table; its full name is ``contract.name``."""
        made: Table[Any, V] = Table(f"{self.name}.{name}", key, value)
        self.tables.append(made)
        return made

    def call(self, kind: type[C]) -> Callable[[Callable[[Context, C], None]], Callable[[Context, C], None]]:
        """Register the function that carries out a kind of call."""
        self._own(kind)

        def register(function: Callable[[Context, C], None]) -> Callable[[Context, C], None]:
            self.calls[kind] = function
            return function

        return register

    def due(self, kind: type[D]) -> Callable[[Callable[[Context, D], None]], Callable[[Context, D], None]]:
        """Register the function that carries out work that falls due."""
        self._own(kind)

        def register(function: Callable[[Context, D], None]) -> Callable[[Context, D], None]:
            self.dues[kind] = function
            return function

        return register

    def event(self, kind: type[Event]) -> type[Event]:
        """Declare a kind of event (a class decorator)."""
        self._own(kind)
        self.events.append(kind)
        return kind

    def genesis(self, kind: type[P]) -> Callable[[Callable[[Context, P], None]], Callable[[Context, P], None]]:
        """Register the function that sets the contract up; ``kind`` holds its parameters, all with defaults."""

        def register(function: Callable[[Context, P], None]) -> Callable[[Context, P], None]:
            self.begin, self.parameters = function, kind
            return function

        return register

    def invariant(self, function: Invariant) -> Invariant:
        """Register what must hold after every block."""
        self.invariants.append(function)
        return function

    def admission(self, function: Admission) -> Admission:
        """Register a check of the sender that runs before every transaction and in the mempool (bans, balances)."""
        self.admissions.append(function)
        return function

    def misbehaviour(self, function: Callable[[Context, bytes], None]) -> Callable[[Context, bytes], None]:
        """Register what happens when the engine proves that the validator with a key has misbehaved."""
        self.misbehaviours.append(function)
        return function

    def _own(self, kind: type) -> None:
        if not _tag(kind).startswith(self.name + "."):
            raise TypeError(f"{kind.__name__} needs a tag that begins with '{self.name}.'")


def rules_at(state: State, height: int) -> int:
    """Return the rules version in force at ``height``."""
    for _, rule in state.scan(RULES, start=height, reverse=True, limit=1):
        return rule.version
    return 1


def _tag(kind: type) -> str:
    tag: object = kind.__struct_config__.tag  # type: ignore[attr-defined]
    if not isinstance(tag, str):
        raise TypeError(f"{kind.__name__} needs a text tag")
    return tag
