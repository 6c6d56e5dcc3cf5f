"""Shared paths under a header: in whatever order, what the light client accepts holds, and no false claim does."""

import base64
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from access_world import AccessWorld
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.agents.access_credential import banned_key, block_key, clock_key, wallet_key
from gridpool.agents.access_paths import FIRST_NOT_KEPT, ProvedTree, StateProof
from gridpool.ledger import light
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
    try:
        tree.check(msgspec.json.decode(msgspec.json.encode(proof), type=StateProof))
    except light.Invalid:
        return False
    return True


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
    truths = {(proof["key"], proof["value"]) for proof in made}
    tree = ProvedTree(root)
    held = 0
    for _ in range(data.draw(st.integers(1, 12))):
        proof = data.draw(st.sampled_from(made))
        if data.draw(st.booleans()):
            proof = spoil(data, proof, made)
        right = verdict_of_light(root, proof)
        accepted = verdict(tree, proof)
        assert accepted or not right
        assert not accepted or (proof["key"], proof["value"]) in truths
        held += accepted
    assert len(tree) <= min(FIRST_NOT_KEPT, 2 * 16 * held)


def test_every_true_proof_holds_after_all_the_others(proofs: Proofs) -> None:
    root, made = proofs
    tree = ProvedTree(root)
    for proof in made + made[::-1]:
        assert verdict(tree, proof)
    assert not verdict(ProvedTree(bytes(32)), made[0])
