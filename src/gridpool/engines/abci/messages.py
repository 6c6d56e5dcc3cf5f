"""The messages that come once a transaction, read and written by hand.

``abci.proto`` and its compiled module say what they are, serve every other message, and are the reference in the
tests. What is read here must be in the plain form in which CometBFT writes it; anything else goes the general way.
"""

from collections.abc import Iterable

from gridpool.engines.abci import abci_pb2 as pb
from gridpool.engines.abci.framing import varint

__all__ = ["CHECKED", "SOUND", "checked", "result", "transaction_to_check", "with_results"]

CHECK_TX = 0x42
"""Tag of ``Request.check_tx``: field 8, bytes."""
TX = 0x0A
"""Tag of ``RequestCheckTx.tx``: field 1, bytes."""
RECHECK = b"\x10\x01"
"""``RequestCheckTx.type = RECHECK``: field 2, a number."""
CHECKED = b"\x4a\x00"
"""A response that says of a transaction that it may wait for a block: field 9, an empty ``ResponseCheckTx``."""
SOUND = b"\x12\x00"
"""``ResponseFinalizeBlock.tx_results``, field 2, of a transaction that was carried out: an empty ``ExecTxResult``."""
FINALIZE_BLOCK = b"\xaa\x01"
"""Tag of ``Response.finalize_block``: field 21, bytes."""


def transaction_to_check(message: bytes) -> bytes | None:
    """Return the transaction of an encoded CheckTx request, be it a first check or a recheck.

    Returns None for any other message, and for a CheckTx that is not encoded as CometBFT does it.
    """
    size = len(message)
    if size < 4 or message[0] != CHECK_TX:
        return None
    length, at = _number(message, 1)
    if at + length != size or at == size or message[at] != TX:
        return None
    length, at = _number(message, at + 1)
    if at + length == size or message[at + length :] == RECHECK:
        return message[at : at + length]
    return None


def checked(code: int, codespace: str, log: str) -> bytes:
    """Return the encoded response that refuses a transaction."""
    answer = pb.ResponseCheckTx(code=code, codespace=codespace, log=log)
    return pb.Response(check_tx=answer).SerializeToString()


def result(code: int, codespace: str) -> bytes:
    """Return a field ``tx_results`` of a transaction that was refused by the ledger."""
    data = pb.ExecTxResult(code=code, codespace=codespace).SerializeToString()
    return b"\x12" + varint(len(data)) + data


def with_results(answer: pb.ResponseFinalizeBlock, results: Iterable[bytes]) -> bytes:
    """Return the encoded response to FinalizeBlock: ``answer``, which has no results of its own, and these."""
    body = b"".join(results) + answer.SerializeToString()
    return FINALIZE_BLOCK + varint(len(body)) + body


def _number(message: bytes, at: int) -> tuple[int, int]:
    """Return (number, position behind it); a number that is cut short or too long comes out larger than any message."""
    value = shift = 0
    while at < len(message) and shift < 35:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return 1 << 40, at
