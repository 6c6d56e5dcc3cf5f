"""A device's rare moments online: its folder is laid or renewed, deposits are opened, receipts are settled."""

import json
from pathlib import Path
from typing import Any

import msgspec

from gridpool.agents.access_credential import Credentials, Distrusted, deposit_key
from gridpool.agents.access_issuance import fetch_credential
from gridpool.agents.aggregator import links
from gridpool.agents.device_folder import CREDENTIAL, KEY, TRUST, open_device, write_whole
from gridpool.agents.receipts import Held
from gridpool.agents.wallet_keys import load_wallet
from gridpool.agents.wallet_session import open_session, signer_of
from gridpool.agents.wallet_text import parse_address, parse_amount
from gridpool.contracts.device_receipts import distinct_bytes
from gridpool.contracts.devices import DEPOSITS, MOST_LIFE_MS, NUMBERS, OpenDeposit, Settle
from gridpool.errors import RefusedInput
from gridpool.ledger.keys import KeyPair, load_key, save_key
from gridpool.ledger.state import State
from gridpool.ledger.transaction import Receipt

__all__ = ["Provisioned", "attest_distinct", "provision", "settle_receipts"]

SHOWN_DEPOSITS = 12
"""Deposits that a credential proves: the newest."""


class Provisioned(msgspec.Struct, frozen=True):
    """What a device was given: wallet in hex, chain, height of its credential, and the number of a new deposit."""

    wallet: str
    chain: str
    height: int
    roles: list[str]
    deposit: int | None


def provision(
    folder: Path,
    wallet: Path | None,
    number: int | None,
    *,
    home: Path | None = None,
    url: str | None = None,
    deposit: int | None = None,
    payee: str | None = None,
    expires_ms: int = 30 * 86_400_000,
) -> Provisioned:
    """Lay or renew a device's folder; with ``deposit``, first open one for ``payee``. Raises RefusedInput."""
    if (deposit is None) != (payee is None):
        raise RefusedInput("--deposit and --payee belong together: how much, and for which device")
    target = None if payee is None else parse_address(payee)
    if not 1 <= expires_ms <= MOST_LIFE_MS:
        raise RefusedInput("a deposit stays open for 1 to 366 days; give --days")
    opened = None
    with open_session(home, url, writable=deposit is not None) as session:
        if (folder / KEY).exists():
            key = load_key(folder / KEY)
            if wallet is not None and signer_of(session, load_wallet(wallet), number).public != key.public:
                raise RefusedInput(f"{folder} carries another wallet; choose another folder")
        elif wallet is None:
            raise RefusedInput("the first time, say whose device this is: give --wallet FILE")
        else:
            key = signer_of(session, load_wallet(wallet), number)
        if target is not None and deposit is not None:
            session.submit(key, OpenDeposit(target, parse_amount(deposit), session.now + expires_ms))
            numbers = session.state.get(NUMBERS, key.public)
            opened = None if numbers is None else numbers.last
        shown = [n for (_, n), _ in session.state.scan(DEPOSITS, (key.public,))][-SHOWN_DEPOSITS:]
    credential, trust = fetch_credential(home, url, key.public, [deposit_key(key.public, n) for n in shown])
    try:
        standing = Credentials(trust).check(credential, key.public)
    except Distrusted as error:
        raise RefusedInput(f"this ledger gives no credential: {error}") from None
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / KEY).exists():
        save_key(folder / KEY, key)
    write_whole(folder / TRUST, json.dumps(trust, indent=1).encode())
    write_whole(folder / CREDENTIAL, credential)
    return Provisioned(key.public.hex(), str(trust["chain"]), standing.height, list(standing.roles), opened)


def settle_receipts(
    folder: Path, *, home: Path | None = None, url: str | None = None, pool: str = "", distinct: str = ""
) -> list[dict[str, Any]]:
    """Settle what a device's book holds with both signatures under open deposits; returns a row each."""
    device = open_device(folder)
    try:
        word = bytes.fromhex(distinct)
    except ValueError:
        word = b"?"
    if len(word) not in (0, 64):
        raise RefusedInput("--distinct is the aggregator's signature: 128 hexadecimal digits")
    rows = []
    with open_session(home, url) as session:
        if session.chain != device.chain:
            raise RefusedInput(f"the device is of chain {device.chain!r}, the ledger of {session.chain!r}")
        for held in device.book.all():
            receipt, both = held.receipt, held.co_signed
            if held.settled or both is None or receipt.number == 0:
                continue
            pays = receipt.payer == device.key.public
            deposit = session.state.get(DEPOSITS, (receipt.payer, receipt.number))
            if deposit is None:
                device.book.keep(_settled(held))
                continue
            if pays and deposit.state == "closing" and deposit.total >= receipt.total:
                continue
            call = Settle(both) if pays else Settle(both, pool, word)
            sent = session.submit(device.key, call)
            if not pays:
                device.book.keep(_settled(held))
            rows.append(
                {
                    "role": "payer" if pays else "payee",
                    "deposit": receipt.number,
                    "payer": receipt.payer.hex(),
                    "payee": receipt.payee.hex(),
                    "units": receipt.units,
                    "total": receipt.total,
                    "reward": _reward(sent),
                    "tx": sent.tx.hex(),
                }
            )
    return rows


def attest_distinct(state: State, chain: str, aggregator: KeyPair, payer: bytes, payee: bytes) -> bytes:
    """Sign, as the aggregator of both wallets, that they are of two members; raises RefusedInput where they are not."""
    pool = links(state, aggregator, aggregator=aggregator.public)
    if payer not in pool or payee not in pool:
        raise RefusedInput("both wallets must be of this aggregator's pool")
    if pool[payer].member == pool[payee].member:
        raise RefusedInput("both wallets are of one member, who earns nothing from itself")
    return aggregator.sign(distinct_bytes(chain, payer, payee))


def _reward(receipt: Receipt) -> int | None:
    """Return the reward that a settlement brought, None where the node told no events."""
    for raw in receipt.events:
        event = msgspec.msgpack.decode(raw)
        if event[0] == "devices.settled":
            return int(event[-1])
    return None


def _settled(held: Held) -> Held:
    return Held(held.receipt, held.payer_signature, held.payee_signature, True)
