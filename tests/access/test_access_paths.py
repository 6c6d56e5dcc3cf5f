"""Shared paths under a header: in whatever order, what the light client accepts holds, and no false claim does."""

import base64
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from access_world import AccessWorld
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.agents.access_credential import banned_key, block_key, clock_key, wallet_key
from gridpool.agents.access_paths import FAULTS, FIRST_NOT_KEPT, KEPT_DEPTH, OtherLeaf, ProvedTree, StateProof
from gridpool.ledger import light
from gridpool.ledger.compiled import native
from gridpool.ledger.proof import state_proof

Proofs = tuple[bytes, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def proofs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proofs]:
    home = tmp_path_factory.mktemp("paths") / "home"
    with AccessWorld(home, "abcdefgh", each=8) as world, world.session._ledger.view() as view:
        wallets = [key.public for key in world.wallets.values()]
        keys = [make(wallet) for wallet in wallets for make in (wallet_key, banned_key, block_key)]
        made = [state_proof(view, key) for key in [*keys, clock_key()]]
        yield view.header(view.height).header.state_root, made


def verdict_of_light(root: bytes, proof: dict[str, Any]) -> bool:
    try:
        light.check_state(proof, {"state_root": root})
    except light.Invalid:
        return False
    return True


def verdict(tree: ProvedTree, proof: dict[str, Any]) -> bool:
    return not fault_of(tree, msgspec.json.decode(msgspec.json.encode(proof), type=StateProof))


def fault_of(tree: ProvedTree, proof: StateProof) -> str:
    """Check a proof in compiled and in plain form: same answer, same nodes kept; returns the fault."""
    plain = ProvedTree(tree.root)
    plain._nodes = dict(tree._nodes)
    faults = []
    for check in (tree.check, plain.plain_check):
        try:
            check(proof)
            faults.append("")
        except light.Invalid as error:
            faults.append(str(error))
    assert faults[0] == faults[1]
    assert list(tree._nodes.items()) == list(plain._nodes.items())
    return faults[0]


def spoil(data: st.DataObject, proof: dict[str, Any], others: list[dict[str, Any]]) -> dict[str, Any]:
    """Alter one part of a proof: a bit, the length, a part of another proof, presence for absence."""
    altered = dict(proof)
    kind = data.draw(st.sampled_from(("bit", "cut", "longer", "swap", "absent", "other")))
    siblings = base64.b64decode(proof["siblings"])
    if kind == "bit":
        name = data.draw(st.sampled_from([name for name in ("key", "value", "siblings") if proof[name]]))
        raw = bytearray(base64.b64decode(proof[name]))
        at = data.draw(st.integers(0, 8 * len(raw) - 1))
        raw[at // 8] ^= 1 << at % 8
        altered[name] = base64.b64encode(raw).decode()
    elif kind == "cut":
        altered["siblings"] = base64.b64encode(siblings[: data.draw(st.integers(0, len(siblings)))]).decode()
    elif kind == "longer":
        altered["siblings"] = base64.b64encode(siblings + bytes(data.draw(st.sampled_from((1, 32, 9_000))))).decode()
    elif kind == "swap":
        name = data.draw(st.sampled_from(("key", "value", "siblings", "other")))
        altered[name] = data.draw(st.sampled_from(others)).get(name)
        if altered[name] is None and name == "other":
            del altered["other"]
    elif kind == "absent":
        altered["value"] = None
        altered.pop("other", None)
    else:
        path = data.draw(st.binary(min_size=31, max_size=33))
        altered |= {"value": None, "other": {"path": base64.b64encode(path).decode(), "value_hash": "A" * 43 + "="}}
    return altered


@settings(max_examples=60)
@given(data=st.data())
def test_a_tree_that_remembers_accepts_what_holds_and_no_false_claim(proofs: Proofs, data: st.DataObject) -> None:
    """Siblings above a node that is known are not read, so they may be rubbish: what is claimed must be true."""
    root, made = proofs
    values = {proof["key"]: proof["value"] for proof in made}
    tree = ProvedTree(root)
    held = 0
    for _ in range(data.draw(st.integers(1, 12))):
        proof = data.draw(st.sampled_from(made))
        if data.draw(st.booleans()):
            proof = spoil(data, proof, made)
        right = verdict_of_light(root, proof)
        accepted = verdict(tree, proof)
        assert accepted or not right
        # A key with another bit is absent too, and a proof of absence may happen to prove that.
        assert not accepted or proof["value"] == values.get(proof["key"])
        held += accepted
    assert len(tree) <= min(FIRST_NOT_KEPT, 2 * 16 * held)


def test_every_true_proof_holds_after_all_the_others(proofs: Proofs) -> None:
    root, made = proofs
    tree = ProvedTree(root)
    for proof in made + made[::-1]:
        assert verdict(tree, proof)
    assert not verdict(ProvedTree(bytes(32)), made[0])


@st.composite
def made_up(draw: st.DrawFn) -> tuple[bytes, StateProof]:
    """Draw a proof of any depth and the root it leads to: presence, an empty place, or another leaf."""
    key = b"t\0" + draw(st.binary(max_size=4))
    path = sha256(key).digest()
    depth = draw(st.one_of(st.integers(0, 256), st.sampled_from((KEPT_DEPTH, KEPT_DEPTH + 1, 255, 256))))
    siblings = draw(st.binary(min_size=32, max_size=32)) * depth
    kind = draw(st.sampled_from(("value", "empty", "other")))
    value, other, leaf = None, None, light.EMPTY
    if kind == "value":
        value = draw(st.binary(max_size=80))
        leaf = sha256(b"\0" + path + sha256(value).digest()).digest()
    elif kind == "other" and depth < 256:
        apart = draw(st.integers(depth, 255))
        there = (int.from_bytes(path, "big") ^ 1 << (255 - apart)).to_bytes(32, "big")
        other = OtherLeaf(there, draw(st.binary(min_size=32, max_size=32)))
        leaf = sha256(b"\0" + there + other.value_hash).digest()
    bits = int.from_bytes(path, "big")
    for level in range(depth - 1, -1, -1):
        sibling = siblings[32 * level : 32 * level + 32]
        leaf = sha256(b"\1" + (sibling + leaf if bits >> (255 - level) & 1 else leaf + sibling)).digest()
    return leaf, StateProof(key=key, siblings=siblings, value=value, other=other)


@given(made=made_up(), data=st.data())
def test_a_path_of_any_depth_holds_in_both_forms_and_its_alterations_in_neither(
    made: tuple[bytes, StateProof], data: st.DataObject
) -> None:
    root, proof = made
    tree = ProvedTree(root)
    assert not fault_of(tree, proof)
    assert not fault_of(tree, proof)
    depth = len(proof.siblings) // 32
    assert len(tree) == 2 * min(depth, KEPT_DEPTH)
    replace = msgspec.structs.replace
    assert fault_of(tree, replace(proof, key=proof.key.replace(b"\0", b""))) == FAULTS[2]
    assert fault_of(tree, replace(proof, siblings=proof.siblings + bytes(data.draw(st.integers(1, 31))))) == FAULTS[1]
    assert fault_of(tree, replace(proof, siblings=bytes(32 * 257))) == FAULTS[1]
    assert fault_of(ProvedTree(sha256(root).digest()), proof) == FAULTS[5]
    if depth:
        at = data.draw(st.integers(0, len(proof.siblings) - 1))
        wrong = proof.siblings[:at] + bytes([proof.siblings[at] ^ 1]) + proof.siblings[at + 1 :]
        assert fault_of(ProvedTree(root), replace(proof, siblings=wrong)) == FAULTS[5]
    path = sha256(proof.key).digest()
    for there, value_hash, fault in (
        (path, bytes(32), FAULTS[3]),
        (path[:31], bytes(32), FAULTS[3]),
        (bytes([path[0] ^ 1]) + path[1:], bytes(33), FAULTS[3]),
        (bytes([path[0] ^ 128]) + path[1:], sha256(b"another").digest(), FAULTS[4] if depth else FAULTS[5]),
    ):
        assert fault_of(ProvedTree(root), replace(proof, value=None, other=OtherLeaf(there, value_hash))) == fault
    if proof.other is not None and depth:  # the last bit of the path that the other leaf must share
        at = depth - 1
        moved = (int.from_bytes(proof.other.path, "big") ^ 1 << (255 - at)).to_bytes(32, "big")
        assert fault_of(ProvedTree(root), replace(proof, other=OtherLeaf(moved, bytes(32)))) == FAULTS[4]


@pytest.mark.skipif(native is None, reason="not compiled here: get a C compiler, then make venv")
def test_the_compiled_check_takes_nothing_but_what_it_can_bound() -> None:
    assert native is not None
    check: Any = native.check_path
    root, key = bytes(32), b"t\0"
    right = ({}, 12, root, key, b"", b"v", None, None)
    assert check(*right) == 5
    for place, wrong in (
        (0, []),
        (1, "12"),
        (2, bytes(31)),
        (2, None),
        (3, "t\0"),
        (4, bytearray(32)),
        (5, 7),
        (6, "x"),
        (7, []),
    ):
        with pytest.raises(TypeError):
            check(*(wrong if at == place else one for at, one in enumerate(right)))
    for depth in (-1, 25, 2**70):
        with pytest.raises((ValueError, OverflowError)):
            check({}, depth, *right[2:])
    for few in range(8):
        with pytest.raises(TypeError):
            check(*right[:few])
    with pytest.raises(TypeError):
        check(*right, None)
    assert check({}, 12, root, key, b"", None, bytes([1]) * 32, None) == 3
    # What is kept may be no hash at all: then the path leads elsewhere.
    for held in (None, 7, bytes(31), "x" * 32):
        assert check({2: held, 3: held}, 12, root, key, bytes(32), b"v", None, None) == 5
