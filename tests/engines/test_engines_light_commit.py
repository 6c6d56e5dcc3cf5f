"""The light client over CometBFT's headers: what real validators signed holds, and no forgery of it does."""

import base64
import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridpool.ledger import light
from gridpool.ledger.keys import KeyPair
from gridpool.ledger.light_commit import (
    BrokenTrust,
    application_hash_of,
    header_hash,
    milliseconds,
    sign_bytes,
    validators_hash,
)

CASE = Path(__file__).parent / "cases" / "light_commit"
PROOF: dict[str, Any] = json.loads((CASE / "proof.json").read_text())
OTHER_HASHES = ("last_commit_hash", "data_hash", "next_validators_hash", "consensus_hash", "last_results_hash")
TRUST: dict[str, Any] = json.loads((CASE / "trust.json").read_text())


def test_what_real_validators_signed_holds() -> None:
    answer = light.check(PROOF, TRUST)
    assert answer["ok"]
    assert answer["present"]
    assert answer["table"] == "coins.supply"


def test_header_and_validator_hashes_are_the_engines_own() -> None:
    step = PROOF["steps"][-1]
    assert header_hash(step["header"]).hex().upper() == step["commit"]["block_id"]["hash"]
    validators = [(base64.b64decode(entry["key"]), entry["power"]) for entry in step["validators"]]
    assert validators_hash(validators).hex().upper() == step["header"]["validators_hash"]


def forged(change: Any) -> dict[str, Any]:
    proof = copy.deepcopy(PROOF)
    change(proof["steps"][-1])
    return proof


def other_hash(step: dict[str, Any]) -> None:
    step["header"]["app_hash"] = "00" * 32


def fewer_signatures(step: dict[str, Any]) -> None:
    for entry in step["commit"]["signatures"][:2]:
        entry["block_id_flag"] = 1


def altered_signature(step: dict[str, Any]) -> None:
    signed = next(entry for entry in step["commit"]["signatures"] if entry["block_id_flag"] == 2)
    data = bytearray(base64.b64decode(signed["signature"]))
    data[0] ^= 1
    signed["signature"] = base64.b64encode(data).decode()


def other_height(step: dict[str, Any]) -> None:
    step["header"]["height"] = str(int(step["header"]["height"]) + 1)


def heavier_validator(step: dict[str, Any]) -> None:
    step["validators"][0]["power"] += 1


def own_validators(step: dict[str, Any]) -> None:
    """An attacker's own set signs a header of its own making."""
    keys = [KeyPair(bytes([i]) * 32) for i in range(1, 5)]
    step["validators"] = [{"key": base64.b64encode(key.public).decode(), "power": 10} for key in keys]
    step["header"]["app_hash"] = "11" * 32
    step["header"]["validators_hash"] = validators_hash([(key.public, 10) for key in keys]).hex()
    step["commit"]["block_id"]["hash"] = header_hash(step["header"]).hex()
    chain = step["header"]["chain_id"]
    step["commit"]["signatures"] = [
        {
            "block_id_flag": 2,
            "timestamp": "2026-01-01T00:00:00Z",
            "signature": base64.b64encode(key.sign(sign_bytes(step["commit"], chain, "2026-01-01T00:00:00Z"))).decode(),
        }
        for key in keys
    ]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (other_hash, "commit is not that of the header"),
        (fewer_signatures, "two thirds"),
        (altered_signature, "has not signed"),
        (other_height, "commit is not that of the header"),
        (heavier_validator, "not those that the header names"),
        (own_validators, "third of the power trusted"),
    ],
)
def test_forged_steps_are_refused(change: Any, complaint: str) -> None:
    with pytest.raises(light.Invalid, match=complaint):
        light.check(forged(change), TRUST)


def test_stale_set_without_a_third_of_the_trusted_power_is_refused() -> None:
    strangers = copy.deepcopy(TRUST)
    for i, entry in enumerate(strangers["validators"]):
        entry["key"] = base64.b64encode(hashlib.sha256(bytes([i])).digest()).decode()
    with pytest.raises(light.Invalid, match="third of the power trusted"):
        light.check(PROOF, strangers)


def test_steps_follow_a_change_of_validators_by_overlap() -> None:
    """Sets A -> B -> C share two of four keys each; nobody of A signs what C does."""
    keys = [KeyPair(bytes([i]) * 32) for i in range(1, 9)]
    sets = [keys[0:4], keys[2:6], keys[4:8]]
    trusted = {key.public: 10 for key in sets[0]}
    steps = [signed_step(signers, height) for signers, height in zip(sets[1:], (5, 9), strict=True)]
    assert application_hash_of(steps, "c", trusted, 8) == bytes([9]) * 32
    with pytest.raises(BrokenTrust, match="third"):
        application_hash_of(steps[1:], "c", trusted, 8)
    with pytest.raises(BrokenTrust, match="upwards"):
        application_hash_of([*steps, steps[0]], "c", trusted, 8)
    with pytest.raises(BrokenTrust, match="stands in the next one"):
        application_hash_of(steps, "c", trusted, 9)


def signed_step(signers: list[KeyPair], height: int) -> dict[str, Any]:
    moment = f"2026-01-01T00:00:{height:02d}.5Z"
    validators = [(key.public, 10) for key in signers]
    header = (
        {
            "version": {"block": "11"},
            "chain_id": "c",
            "height": str(height),
            "time": moment,
            "last_block_id": {"hash": "22" * 32, "parts": {"total": 1, "hash": "33" * 32}},
            "app_hash": bytes([height]).hex() * 32,
            "validators_hash": validators_hash(validators).hex(),
        }
        | dict.fromkeys(OTHER_HASHES, "44" * 32)
        | {"evidence_hash": "55" * 32, "proposer_address": "66" * 20}
    )
    commit: dict[str, Any] = {
        "height": str(height),
        "round": 0,
        "block_id": {"hash": header_hash(header).hex(), "parts": {"total": 1, "hash": "77" * 32}},
    }
    commit["signatures"] = [
        {
            "block_id_flag": 2,
            "timestamp": moment,
            "signature": base64.b64encode(key.sign(sign_bytes(commit, "c", moment))).decode(),
        }
        for key in signers
    ]
    listed = [{"key": base64.b64encode(key).decode(), "power": power} for key, power in validators]
    return {"header": header, "commit": commit, "validators": listed}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.sampled_from(["header", "commit", "validators"]))
def test_any_json_is_refused_cleanly(junk: Any, part: str) -> None:
    proof = copy.deepcopy(PROOF)
    proof["steps"][-1][part] = junk
    with pytest.raises(light.Invalid):
        light.check(proof, TRUST)


def test_proof_cannot_be_made_younger() -> None:
    header = light._decode(base64.b64decode(PROOF["header"]))
    later = milliseconds(PROOF["steps"][-1]["header"]["time"])
    for time_ms, sound in ((later, True), (later + 1, False), (later + 86_400_000, False)):
        claim = PROOF | {
            "header": base64.b64encode(msgspec.msgpack.encode([*header[:2], time_ms, *header[3:]])).decode()
        }
        if sound:
            assert light.check(claim, TRUST)["ok"]
        else:
            with pytest.raises(light.Invalid, match="time lies after"):
                light.check(claim, TRUST)
