"""A toy contract for tests of the ledger: named counters, work that falls due, one call that breaks the promise."""

from gridpool.ledger.contract import Context, Contract
from gridpool.ledger.genesis import Genesis
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.rules import Rules
from gridpool.ledger.transaction import Transaction, sign
from gridpool.ledger.types import Call, Due, Event, Natural, Text, Value

counter = Contract("counter")


class Count(Value):
    number: Natural


class Add(Call, tag="counter.add"):
    name: Text
    number: Natural


class Remove(Call, tag="counter.remove"):
    name: Text


class AddLater(Call, tag="counter.add_later"):
    at: Natural
    number: Natural


class Fall(Due, tag="counter.fall"):
    number: Natural


class SetRules(Call, tag="counter.set_rules"):
    version: Natural
    height: Natural


class Fail(Call, tag="counter.fail"):
    pass


@counter.event
class Added(Event, tag="counter.added"):
    name: Text
    number: Natural


COUNTS = counter.table("count", key=(bytes, str), value=Count)


@counter.call(Add)
def add(ctx: Context, call: Add) -> None:
    if call.number == 13:
        ctx.refuse("unlucky")
    old = ctx.get(COUNTS, (ctx.sender, call.name))
    ctx.put(COUNTS, (ctx.sender, call.name), Count((old.number if old else 0) + call.number))
    ctx.emit(Added(call.name, call.number))


@counter.call(Remove)
def remove(ctx: Context, call: Remove) -> None:
    ctx.require(COUNTS, (ctx.sender, call.name), "no_such_counter")
    ctx.delete(COUNTS, (ctx.sender, call.name))


@counter.call(AddLater)
def add_later(ctx: Context, call: AddLater) -> None:
    ctx.schedule(call.at, Fall(call.number))


@counter.due(Fall)
def fall(ctx: Context, due: Fall) -> None:
    ctx.put(COUNTS, (bytes(32), str(due.number)), Count(ctx.now))


@counter.call(SetRules)
def set_rules(ctx: Context, call: SetRules) -> None:
    ctx.set_rules(call.version, call.height)


@counter.call(Fail)
def fail(ctx: Context, call: Fail) -> None:
    raise KeyError("bug")


CHAIN = "toy-1"
GENESIS = Genesis(chain=CHAIN, time_ms=1_000)
TOY = Rules([counter])
NODE, ALICE, BOB = (KeyPair(bytes([i]) * 32) for i in (9, 1, 2))


def signed(key: KeyPair, nonce: int, *calls: Call, until: int = 10_000) -> Transaction:
    return sign(key, CHAIN, nonce, until, calls)
