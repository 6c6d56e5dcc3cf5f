"""Transactions: the documented layout made again by other means, one encoding only, crafted keys, cached signatures."""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import plain_ed25519 as plain
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings
from toy_contract import ALICE, BOB, CHAIN, TOY, Add, Remove, signed

from gridpool.contracts import RULES
from gridpool.engines.verifying import VerifyingThreads
from gridpool.ledger import keys, signatures
from gridpool.ledger.clock import AdvanceClock
from gridpool.ledger.compiled import native
from gridpool.ledger.keys import KeyPair, is_sound_key, plain_verify_all, verify, verify_all
from gridpool.ledger.signatures import SignatureChecker
from gridpool.ledger.transaction import (
    MAX_TRANSACTION_BYTES,
    Malformed,
    SignedMessage,
    Transaction,
    TransactionDecoder,
    delegate,
    sign,
)

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "transaction.md"
ONE, TWO = bytes([1]) * 32, bytes([2]) * 32
DECODER = TransactionDecoder(TOY)


def documented() -> dict[str, dict[str, str]]:
    parts = re.findall(r"### (\w+)\n.*?```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return {name: dict(line.split() for line in block.strip().splitlines()) for name, block in parts}


def by_other_means() -> dict[str, dict[str, str]]:
    """Make the documented vectors without any of gridpool's code."""
    one, two = plain.public(ONE), plain.public(TWO)
    carried = ["coins.transfer", one, 5, ""]
    message = b"gridpool/call/1\0" + plain.pack(["demo-1", two, 7, 90, carried])
    bodies = {
        "transfer": ["demo-1", one, 1, 100, "atomic", [["coins.transfer", two, 1_500_000, "rent"]]],
        "bundle": [
            "demo-1", one, 2, 100, "each",
            [["coins.transfer", two, 1, ""], ["ledger.advance_clock", 1_767_225_600_000]],
        ],
        "delegated": [
            "demo-1", one, 3, 100, "atomic", [["ledger.delegated", carried, two, 7, 90, plain.sign(TWO, message)]]
        ],
    }  # fmt: skip
    made = {}
    for name, content in bodies.items():
        body = plain.pack(content)
        message = b"gridpool/transaction/1\0" + body
        made[name] = {
            "body": body.hex(),
            "signature": plain.sign(ONE, message).hex(),
            "id": hashlib.sha256(message).hexdigest(),
        }
    return made


def test_documented_vectors_are_made_alike_by_other_means() -> None:
    assert documented() == by_other_means()


def test_documented_vectors_are_made_alike_in_another_language() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed (Debian: nodejs)")
    script = Path(__file__).with_name("sign_in_another_language.mjs")
    out = subprocess.run([node, str(script)], capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == documented()


def test_documented_vectors_are_accepted() -> None:
    decoder = TransactionDecoder(RULES)
    for vector in documented().values():
        decoded = decoder.decode(bytes.fromhex(vector["signature"] + vector["body"]))
        assert decoded.id.hex() == vector["id"]
        assert signatures.all_hold(decoded)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60), st.integers(0, 255), st.data())
def test_only_the_canonical_bytes_are_accepted(noise: bytes, byte: int, data: st.DataObject) -> None:
    wire = signed(ALICE, 5, Add("name", 200), Remove("x")).wire
    at = data.draw(st.integers(64, len(wire)))
    for changed in (wire[:at] + noise + wire[at:], wire[:at] + bytes([byte]) + wire[at + 1 :], wire[:at]):
        try:
            decoded = DECODER.decode(changed)
        except Malformed:
            continue
        assert msgspec.msgpack.encode(decoded.body) == changed[64:]


def test_other_encodings_of_the_same_values_are_refused() -> None:
    body = ["demo", ALICE.public, 1, 2, "atomic", [["counter.add", "n", 5]]]
    good = plain.pack(body)
    assert DECODER.decode(bytes(64) + good).body.nonce == 1
    for bad in (
        good.replace(b"\x01\x02\xa6", b"\xcc\x01\x02\xa6"),  # an integer in a longer form
        good.replace(b"\xa4demo", b"\xd9\x04demo"),  # a text in a longer form
        good.replace(b"\xc4\x20", b"\xc5\x00\x20"),  # binary in a longer form
        b"\xdc\x00\x06" + good[1:],  # an array in a longer form
        good + b"\xc0",  # something after the end
        good[:-1] + b"\xcb" + bytes(8),  # a float
        good[:-1] + b"\xff",  # a negative number
        good[:-1] + b"\xcf" + b"\xff" * 8,  # beyond 63 bits
        plain.pack([*body, 1]),  # a field too many
        plain.pack(body[:-1]),  # a field too few
        plain.pack([*body[:-1], []]),  # no call
        plain.pack([*body[:-1], [["counter.other", 1]]]),  # no such call
        plain.pack(["a\0b", *body[1:]]),  # NUL in a name
        plain.pack([body[0], b"short", *body[2:]]),  # no wallet
    ):
        with pytest.raises(Malformed):
            DECODER.decode(bytes(64) + bad)
    with pytest.raises(Malformed, match="bytes"):
        DECODER.decode(bytes(MAX_TRANSACTION_BYTES + 1))
    with pytest.raises(Malformed, match="1 to 500"):
        DECODER.decode(sign(ALICE, CHAIN, 1, 1, [Add("n", 1)] * 501).wire)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300))
def test_decoder_survives_anything(noise: bytes) -> None:
    for wire in (noise, bytes(64) + noise, bytes(64) + b"\x96" + noise, bytes(64) + b"\x91" * 1000 + noise):
        try:
            DECODER.decode(wire)
        except Malformed:
            continue


def test_oracle_and_library_agree_on_honest_signatures() -> None:
    for seed, message in ((ONE, b""), (TWO, b"m" * 99)):
        pair = KeyPair(seed)
        assert pair.public == plain.public(seed)
        assert pair.sign(message) == plain.sign(seed, message)


def crafted(a: plain.Point, r: int, message: bytes, *, torsion: plain.Point = plain.ZERO, secret: int = 0) -> bytes:
    """A signature whose equation holds at least after multiplication by 8, for the key ``a`` (= secret B + torsion)."""
    start = plain.encode(plain.add(plain.times(r, plain.BASE), torsion))
    s = (r + plain.scalar(start + plain.encode(a) + message) * secret) % plain.L
    return start + s.to_bytes(32, "little")


def test_keys_of_small_order_sign_nothing_and_are_not_registered() -> None:
    for point in plain.torsion():
        key = plain.encode(point)
        assert not is_sound_key(key)
        for r in (0, 5):
            assert not verify(key, crafted(point, r, b"m"), b"m")


def test_keys_in_two_encodings_are_refused_in_the_second() -> None:
    # y + p still fits into 255 bits for y < 19: (0, 1) and the points with those y, written otherwise.
    for y in range(19):
        for sign_bit in (0, 1):
            point = plain.with_y(y, sign_bit)
            if point is None:
                continue
            key = (y + plain.P | sign_bit << 255).to_bytes(32, "little")
            assert not is_sound_key(key)
            assert not verify(key, crafted(point, 3, b"m"), b"m")
    assert not is_sound_key((1 | 1 << 255).to_bytes(32, "little"))  # x = 0 with the sign bit set


def test_keys_of_mixed_order_are_not_registered() -> None:
    a, _ = plain.secret(ONE)
    for twist in plain.torsion()[1:]:
        key = plain.add(plain.times(a, plain.BASE), twist)
        assert not is_sound_key(plain.encode(key))
        # Holds only for verifiers that multiply by the cofactor; ours does not, unless the hash cancels the twist.
        message = next(
            m for m in (bytes([i]) for i in range(99))
            if plain.times(plain.scalar(crafted(key, 7, m, secret=a)[:32] + plain.encode(key) + m), twist) != plain.ZERO
        )  # fmt: skip
        assert not verify(plain.encode(key), crafted(key, 7, message, secret=a), message)


def test_commitments_of_small_order_and_second_forms_of_s_are_refused() -> None:
    pair = KeyPair(ONE)
    a, _ = plain.secret(ONE)
    point = plain.times(a, plain.BASE)
    for twist in plain.torsion():
        assert not verify(pair.public, crafted(point, 0, b"m", torsion=twist, secret=a), b"m")
    honest = pair.sign(b"m")
    assert verify(pair.public, honest, b"m")
    s = int.from_bytes(honest[32:], "little")
    for other in (s + plain.L, s + 2 * plain.L, s + 8 * plain.L):
        if other < 1 << 256:
            assert not verify(pair.public, honest[:32] + other.to_bytes(32, "little"), b"m")
    assert not verify(pair.public, honest[:-1], b"m")
    assert not verify(pair.public[:-1], honest, b"m")


def test_sound_keys_are_registered() -> None:
    for i in range(20):
        assert is_sound_key(KeyPair(hashlib.sha256(bytes([i])).digest()).public)
    assert not is_sound_key(bytes(31))
    assert bindings.crypto_core_ed25519_BYTES == 32


def test_a_signature_is_verified_once_and_a_forged_copy_never_profits(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def counting(messages: Sequence[SignedMessage]) -> bytes:
        nonlocal calls
        calls += len(messages)
        return keys.verify_all(messages)

    monkeypatch.setattr(signatures, "verify_all", counting)
    checker = SignatureChecker()
    good = signed(ALICE, 1, Add("n", 1), delegate(BOB, CHAIN, 1, 9, Add("n", 2)))  # type: ignore[arg-type]
    forged = Transaction(bytes(64) + good.wire[64:], good.id, good.body)
    assert checker.check([good, good, forged, good]) == [True, True, False, True]
    assert calls == 3  # two signatures once, and the forged one, which fails at once
    assert checker.check([good]) == [True]
    assert calls == 3


def test_memory_of_signatures_is_bounded() -> None:
    checker = SignatureChecker(remember=8)
    for nonce in range(40):
        assert checker.check([signed(ALICE, nonce, Add("n", 1))]) == [True]
    assert len(checker._verified) <= 8


def test_verifying_threads_give_the_same_answers() -> None:
    good = [signed(ALICE, n, Add("n", 1), delegate(BOB, CHAIN, n, 9, AdvanceClock(5))) for n in range(300)]  # type: ignore[arg-type]
    mixed = [Transaction(bytes(64) + t.wire[64:], t.id, t.body) if i % 7 == 0 else t for i, t in enumerate(good)]
    with closing(VerifyingThreads(2)) as verifier:
        assert SignatureChecker(verifier=verifier).check(mixed) == [i % 7 != 0 for i in range(300)]


@given(
    st.lists(
        st.tuples(
            st.just(ALICE.public) | st.binary(min_size=31, max_size=33),
            st.just(ALICE.sign(b"yes")) | st.binary(min_size=63, max_size=65),
            st.just(b"yes") | st.binary(max_size=70),
        ),
        max_size=12,
    )
)
def test_verifying_many_gives_the_answers_of_verifying_each(messages: list[SignedMessage]) -> None:
    assert verify_all(messages) == plain_verify_all(messages)


@given(seed=st.binary(min_size=32, max_size=32), size=st.sampled_from((0, 1, 250, 959, 960, 961, 5_000)))
def test_both_forms_sign_alike(seed: bytes, size: int) -> None:
    key, message = KeyPair(seed), bytes(size)
    signature = key.sign(message)
    assert signature == key.plain_sign(message)
    assert verify(key.public, signature, message)


@pytest.mark.skipif(native is None, reason="not compiled here: get a C compiler, then make venv")
def test_the_compiled_form_signs_with_whole_keys_alone() -> None:
    assert native is not None
    sign: Any = native.sign
    for wrong in ((b"", bytes(63)), (b"", bytes(65)), (b"",), (b"", bytes(64), b""), ("", bytes(64)), (b"", None)):
        with pytest.raises(TypeError):
            sign(*wrong)
