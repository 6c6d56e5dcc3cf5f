"""Receipts that two devices sign for what one gave the other, unit by unit; a device can carry this file."""

import hashlib

from gridpool.ledger.keys import KeyPair, verify
from gridpool.ledger.types import Coins, Natural, Signature, Text, Value, Wallet, encode

__all__ = ["CoSigned", "Receipt", "countersigned_by", "distinct_bytes", "receipt_bytes", "sign_receipt", "signed_by"]

PAYER_DOMAIN = b"gridpool/receipt/payer/1\0"
PAYEE_DOMAIN = b"gridpool/receipt/payee/1\0"
DISTINCT_DOMAIN = b"gridpool/distinct/1\0"


class Receipt(Value):
    """What ``payer`` has had from ``payee`` in all under deposit ``number``: units, and micro-coins owed for them."""

    chain: Text
    payer: Wallet
    payee: Wallet
    number: Natural
    units: Natural
    total: Coins


class CoSigned(Value):
    """A receipt with both signatures."""

    receipt: Receipt
    payer_signature: Signature
    payee_signature: Signature


def receipt_bytes(receipt: Receipt, *, payer: bool) -> bytes:
    """Return what the payer, or the payee, signs."""
    return (PAYER_DOMAIN if payer else PAYEE_DOMAIN) + encode(receipt)


def sign_receipt(key: KeyPair, receipt: Receipt, *, payer: bool) -> bytes:
    """Sign a receipt as its payer or its payee."""
    return key.sign(receipt_bytes(receipt, payer=payer))


def signed_by(receipt: Receipt, signature: bytes) -> bool:
    """Tell whether the payer signed."""
    return verify(receipt.payer, signature, receipt_bytes(receipt, payer=True))


def countersigned_by(receipt: Receipt, signature: bytes) -> bool:
    """Tell whether the payee signed."""
    return verify(receipt.payee, signature, receipt_bytes(receipt, payer=False))


def distinct_bytes(chain: str, payer: bytes, payee: bytes) -> bytes:
    """Return what an aggregator signs to say that two wallets of its pool are not of one member."""
    return DISTINCT_DOMAIN + hashlib.sha256(encode((chain, payer, payee))).digest()
