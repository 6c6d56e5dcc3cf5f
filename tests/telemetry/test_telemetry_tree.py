"""The tree over readings: no history, provable both ways, compared in few hashes; brute force is the oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.agents.telemetry_tree import ROW_BYTES, ReadingTree, _branchings, plain_merge_rows, sorted_order
from gridpool.contracts.records_tree import (
    KEY_BYTES,
    NO_READINGS,
    Reading,
    ReadingProof,
    leaf_hash,
    node_hash,
    reading_key,
    reading_row,
    root_of_proof,
    top_hash,
)
from gridpool.ledger.compiled import native
from gridpool.ledger.types import encode

devices = st.integers(0, 30).map(lambda number: bytes([number % 3]) * 31 + bytes([number]))
starts = st.one_of(st.integers(0, 20), st.integers(0, 2**62))
readings = st.dictionaries(st.tuples(devices, starts), st.integers(-(2**62), 2**62), max_size=40)


def table(content: dict) -> np.ndarray:
    rows = b"".join(reading_row(Reading(device, start, value)) for (device, start), value in content.items())
    return np.frombuffer(rows, np.uint8).reshape(-1, ROW_BYTES)


def slow_node(rows: list[bytes]) -> bytes:
    """The definition, word for word: split at the first bit in which keys differ."""
    if len(rows) == 1:
        return leaf_hash(rows[0])
    bits = [f"{int.from_bytes(row[:KEY_BYTES], 'big'):0320b}" for row in rows]
    depth = next(at for at in range(320) if len({one[at] for one in bits}) == 2)
    sides = [[row for row, one in zip(rows, bits, strict=True) if one[depth] == side] for side in "01"]
    return node_hash(depth, slow_node(sides[0]), slow_node(sides[1]))


def slow_root(content: dict) -> bytes:
    rows = [bytes(row) for row in table(content)]
    return top_hash(len(rows), slow_node(rows)) if rows else NO_READINGS


@given(content=readings, shuffle=st.randoms())
def test_the_root_is_that_of_the_definition_whatever_the_order(content, shuffle):
    items = list(content.items())
    shuffle.shuffle(items)
    assert ReadingTree(table(dict(items))).root == slow_root(content)


@given(content=readings.filter(bool), device=devices, start=starts)
def test_proofs_prove_presence_and_absence(content, device, start):
    tree = ReadingTree(table(content))
    for (owner, at), value in content.items():
        proof = tree.prove(reading_key(owner, at))
        assert proof.reading == Reading(owner, at, value)
        assert root_of_proof(proof, reading_key(owner, at)) == tree.root
    key = reading_key(device, start)
    proof = tree.prove(key)
    assert root_of_proof(proof, key) == tree.root
    assert (reading_row(proof.reading).startswith(key)) == ((device, start) in content)


@given(content=readings.filter(lambda c: len(c) > 1), data=st.data())
def test_no_altered_proof_leads_to_the_root(content, data):
    tree = ReadingTree(table(content))
    device, start = data.draw(st.sampled_from(sorted(content)))
    key = reading_key(device, start)
    proof = tree.prove(key)
    change = data.draw(st.sampled_from(["value", "sibling", "depth", "count", "drop", "order"]))
    reading, count, depths, siblings = proof.reading, proof.count, list(proof.depths), list(proof.siblings)
    at = data.draw(st.integers(0, len(depths) - 1))
    if change == "value":
        reading = Reading(device, start, reading.value + 1)
    elif change == "sibling":
        siblings[at] = bytes(32)
    elif change == "depth":
        depths[at] = (depths[at] + 1) % 320
    elif change == "count":
        count += 1
    elif change == "drop":
        del depths[at], siblings[at]
    else:
        depths.reverse(), siblings.reverse()
        if len(depths) == 1:
            return
    forged = type(proof)(reading, count, tuple(depths), tuple(siblings))
    assert root_of_proof(forged, key) != tree.root


@given(content=readings, drop=st.sets(st.integers(0, 39)), change=st.sets(st.integers(0, 39)), more=readings)
@settings(max_examples=200)
def test_differences_are_those_of_the_two_dictionaries(content, drop, change, more):
    other = {
        key: value + (number in change) for number, (key, value) in enumerate(content.items()) if number not in drop
    } | more
    a, b = ReadingTree(table(content)), ReadingTree(table(other))
    missing = object()
    expected = sorted(
        reading_key(*key)
        for key in content.keys() | other.keys()
        if content.get(key, missing) != other.get(key, missing)
    )
    assert a.differences(b)[0] == b.differences(a)[0] == expected


@pytest.mark.parametrize("count", [1_000, 8_000, 64_000])
def test_one_difference_costs_logarithmically_many_hashes(count):
    rows = np.random.default_rng(count).integers(0, 256, (count, ROW_BYTES), dtype=np.uint8)
    tree = ReadingTree(rows)
    altered = rows.copy()
    altered[count // 3, KEY_BYTES] ^= 1
    lacking = np.delete(rows, count // 3, axis=0)
    for other in (altered, lacking):
        found, compared = tree.differences(ReadingTree(other))
        assert found == [rows[count // 3, :KEY_BYTES].tobytes()]
        assert compared <= 4 * np.log2(count)
    assert tree.differences(ReadingTree(rows)) == ([], 1)
    deepest = max(len(encode(tree.prove(tree.row(at)[:KEY_BYTES]))) for at in range(0, count, 97))
    assert deepest < 1_500


def test_a_tree_that_branches_twice_at_one_bit_proves_nothing():
    # an aggregator that could hide two values of one key in such a tree would show each the one it wants to see
    rows = [reading_row(Reading(bytes(32), 1, value)) for value in (1, 2)]
    inner = node_hash(319, leaf_hash(rows[0]), leaf_hash(rows[1]))
    root = top_hash(3, node_hash(319, inner, inner))
    siblings = (leaf_hash(rows[0]), inner)
    key = rows[0][:KEY_BYTES]
    sound = ReadingProof(Reading(bytes(32), 1, 2), 3, (319, 319), siblings)
    digest = leaf_hash(rows[1])
    for sibling in siblings:  # the hashes do lead to the root; it is the two branchings at one bit that are refused
        digest = node_hash(319, sibling, digest)
    assert top_hash(3, digest) == root
    assert root_of_proof(sound, key) is None


def test_repeated_keys_are_an_error():
    with pytest.raises(ValueError, match="one key"):
        ReadingTree(np.zeros((2, ROW_BYTES), np.uint8))


@given(content=readings.filter(bool))
def test_the_compiled_tree_is_the_plain_one_node_by_node(content):
    rows = table(content)
    rows = np.ascontiguousarray(rows[sorted_order(rows)])
    levels = _branchings(rows).tobytes()
    plain = plain_merge_rows(rows.tobytes(), levels)
    assert len(plain[1]) == 32 * (len(content) - 1)
    if native is not None:
        assert native.merge_rows(rows.tobytes(), levels) == plain


def test_the_deepest_tree_there_can_be():
    """Each key leaves the way of all ones one bit later than the one before: 320 branchings stand open at once."""
    keys = [(((1 << at) - 1) << (320 - at)).to_bytes(40, "big") for at in range(321)]
    rows = np.frombuffer(b"".join(key + bytes(8) for key in keys), np.uint8).reshape(-1, ROW_BYTES)
    levels = _branchings(rows).tobytes()
    assert np.frombuffer(levels, np.uint16).tolist() == [0, *range(320)]
    plain = plain_merge_rows(rows.tobytes(), levels)
    if native is not None:
        assert native.merge_rows(rows.tobytes(), levels) == plain
    assert ReadingTree(rows).root == top_hash(321, plain[1][-32:])


@pytest.mark.skipif(native is None, reason="not compiled here: get a C compiler, then make venv")
@given(count=st.integers(1, 400), data=st.data())
def test_the_compiled_tree_takes_no_depths_that_rows_in_order_cannot_have(count, data):
    rows = bytes(ROW_BYTES * count)
    levels = np.array(data.draw(st.lists(st.integers(0, 65_535), min_size=count, max_size=count)), np.uint16)
    try:
        top, hashes, depths, left, right = native.merge_rows(rows, levels.tobytes())
    except ValueError:
        return
    assert (len(hashes), len(depths), len(left), len(right)) == tuple(size * (count - 1) for size in (32, 2, 8, 8))
    assert top == (count - 2 if count > 1 else -1)
    assert levels[1:].max(initial=0) < 320


@pytest.mark.skipif(native is None, reason="not compiled here: get a C compiler, then make venv")
@pytest.mark.parametrize(("rows", "levels"), [(0, 0), (47, 2), (48, 0), (48, 3), (96, 2), (48, 4)])
def test_the_compiled_tree_takes_no_rows_of_another_size(rows, levels):
    with pytest.raises(ValueError, match="48 bytes"):
        native.merge_rows(bytes(rows), bytes(levels))
