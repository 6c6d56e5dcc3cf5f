"""Length-prefixed messages survive any cutting of the stream, and hostile lengths end it."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridpool.engines.abci.framing import Deframer, FramingError, frame


@given(st.lists(st.binary(max_size=400), max_size=12), st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_messages_come_out_whole_however_they_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frame(message) for message in messages)
    deframer, received, position, turn = Deframer(), [], 0, 0
    while position < len(stream):
        step = cuts[turn % len(cuts)]
        received += deframer.feed(stream[position : position + step])
        position, turn = position + step, turn + 1
    assert received == messages


@given(st.binary(max_size=200))
def test_any_bytes_give_messages_or_a_framing_error(data: bytes) -> None:
    deframer = Deframer(limit=64)
    with contextlib.suppress(FramingError):
        assert all(len(message) <= 64 for message in deframer.feed(data))


def test_announced_length_beyond_the_limit_is_refused_before_the_bytes_come() -> None:
    with pytest.raises(FramingError, match="at most 64"):
        Deframer(limit=64).feed(b"\x80\x01")
    with pytest.raises(FramingError, match="at most 10 bytes"):
        Deframer().feed(b"\x80" * 10)
