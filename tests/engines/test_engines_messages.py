"""Messages written by hand say what the compiled protocol says, and leave everything unusual to it."""

import contextlib

from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from gridpool.engines.abci import abci_pb2 as pb
from gridpool.engines.abci.messages import CHECKED, SOUND, checked, result, transaction_to_check, with_results

CODES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)


@given(st.binary(min_size=1, max_size=40_000), st.booleans())
def test_check_is_read_as_the_reference_reads_it(wire: bytes, again: bool) -> None:
    request = pb.RequestCheckTx(tx=wire, type=pb.RECHECK if again else pb.NEW)
    assert transaction_to_check(pb.Request(check_tx=request).SerializeToString()) == wire


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda rest: b"\x42" + bytes([len(rest)]) + rest))
def test_any_bytes_are_read_as_the_reference_does_or_left_to_it(data: bytes) -> None:
    read = transaction_to_check(data)
    if read is not None:
        request = pb.Request.FromString(data)
        assert request.WhichOneof("value") == "check_tx"
        assert request.check_tx.tx == read


def test_other_requests_are_left_to_the_reference() -> None:
    for request in (
        pb.Request(flush=pb.RequestFlush()),
        pb.Request(check_tx=pb.RequestCheckTx()),
        pb.Request(check_tx=pb.RequestCheckTx(type=pb.RECHECK)),
        pb.Request(finalize_block=pb.RequestFinalizeBlock(txs=[b"x" * 300], height=7)),
        pb.Request(commit=pb.RequestCommit()),
        pb.Request(),
    ):
        assert transaction_to_check(request.SerializeToString()) is None
    for cut in range(8):
        whole = pb.Request(check_tx=pb.RequestCheckTx(tx=b"abcde")).SerializeToString()
        with contextlib.suppress(DecodeError):
            pb.Request.FromString(whole[:cut])
        assert transaction_to_check(whole[:cut]) is None


@given(st.integers(1, 9), CODES, CODES)
def test_answers_to_checks_are_those_of_the_reference(code: int, codespace: str, log: str) -> None:
    assert pb.Response.FromString(CHECKED) == pb.Response(check_tx=pb.ResponseCheckTx())
    told = pb.ResponseCheckTx(code=code, codespace=codespace, log=log)
    assert checked(code, codespace, log) == pb.Response(check_tx=told).SerializeToString()


@given(st.lists(st.none() | CODES, max_size=300), st.lists(st.integers(0, 2**40), max_size=3))
def test_answer_to_a_block_is_that_of_the_reference(codes: list[str | None], powers: list[int]) -> None:
    updates = [pb.ValidatorUpdate(pub_key=pb.PublicKey(ed25519=bytes(32)), power=power) for power in powers]
    answer = pb.ResponseFinalizeBlock(app_hash=b"h" * 32, validator_updates=updates)
    written = with_results(answer, (SOUND if code is None else result(1, code) for code in codes))
    for code in codes:
        answer.tx_results.add(code=0 if code is None else 1, codespace=code or "")
    assert written == pb.Response(finalize_block=answer).SerializeToString()
