"""The authenticated tree against plain sorted recursion, and its compiled form against the plain one."""

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.ledger.compiled import native
from gridpool.ledger.merkle import list_root, plain_list_root
from gridpool.ledger.tree import (
    EMPTY,
    AlteredLeaf,
    branch,
    damaged_nodes,
    difference,
    inner_hash,
    leaf_hash,
    path_of,
    plain_update,
    reference_root,
    root_of,
    update,
)

keys = st.integers(0, 60).map(lambda i: b"t\0" + bytes([i]))
changes = st.dictionaries(keys, st.none() | st.binary(max_size=3), max_size=40)
histories = st.lists(changes, max_size=6)


def store(history: list[dict[bytes, bytes | None]]) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    nodes: dict[bytes, bytes] = {}
    model: dict[bytes, bytes] = {}
    for change in history:
        before = {key: model.get(key) for key in change}
        root, changed = update(nodes.get, change)
        if change:
            assert (root, changed) == plain_update(nodes.get, change)
            assert (root, changed) == update(nodes.get, change, before) == plain_update(nodes.get, change, before)
        for prefix, data in changed.items():
            if data is None:
                del nodes[prefix]
            else:
                nodes[prefix] = data
        for key, value in change.items():
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
        assert root == reference_root(model) == root_of(nodes.get)
    return nodes, model


@given(histories)
@settings(deadline=None)
def test_root_is_the_reference_and_nodes_depend_on_contents_alone(history: list[dict[bytes, bytes | None]]) -> None:
    nodes, model = store(history)
    again, _ = store([dict(model)])
    assert nodes == again
    assert not list(damaged_nodes(nodes.items()))


@given(histories, changes.filter(bool), st.dictionaries(keys, st.none() | st.binary(max_size=3), min_size=1))
@settings(deadline=None)
def test_nothing_is_built_on_a_leaf_that_is_not_what_the_store_holds(
    history: list[dict[bytes, bytes | None]], change: dict[bytes, bytes | None], rot: dict[bytes, bytes | None]
) -> None:
    nodes, model = store(history)
    before = {key: rot.get(key, model.get(key)) for key in change}
    altered = {key for key in change if before[key] != model.get(key)}
    for form in (update, plain_update):
        if not altered:
            form(nodes.get, change, before)
            continue
        with pytest.raises(AlteredLeaf) as raised:
            form(nodes.get, change, before)
        assert raised.value.key == min(altered, key=path_of)


@given(histories, keys)
@settings(deadline=None)
def test_branch_leads_from_leaf_or_empty_place_to_the_root(
    history: list[dict[bytes, bytes | None]], key: bytes
) -> None:
    nodes, model = store(history)
    found = branch(nodes.get, key)
    path = int.from_bytes(path_of(key), "big")
    digest = found.leaf or EMPTY
    for depth in range(len(found.siblings) - 1, -1, -1):
        sibling = found.siblings[depth]
        digest = inner_hash(sibling, digest) if path >> (255 - depth) & 1 else inner_hash(digest, sibling)
    assert digest == root_of(nodes.get)
    if key in model:
        assert found.key == key
        assert found.leaf == leaf_hash(path_of(key), model[key])
    else:
        assert found.key != key


@given(histories, changes)
@settings(deadline=None)
def test_difference_names_exactly_the_keys_that_differ(
    history: list[dict[bytes, bytes | None]], more: dict[bytes, bytes | None]
) -> None:
    nodes, model = store(history)
    other, changed = store([*history, more])
    assert sorted(difference(nodes.get, other.get)) == sorted(
        key for key in model.keys() | changed.keys() if model.get(key) != changed.get(key)
    )


def test_difference_reads_few_nodes() -> None:
    nodes, model = store([{b"t\0" + i.to_bytes(4, "big"): b"v" for i in range(20_000)}])
    other, _ = store([{**model, b"t\0" + bytes(4): b"w"}])
    reads = 0

    def counting(prefix: bytes) -> bytes | None:
        nonlocal reads
        reads += 1
        return nodes.get(prefix)

    assert list(difference(counting, other.get)) == [b"t\0" + bytes(4)]
    assert reads <= 6


def test_compiled_form_is_there() -> None:
    if native is None and "GRIDPOOL_REQUIRE_ENGINES" not in os.environ:
        pytest.skip("the compiled tree was not built: it needs a C compiler and Python's headers, then `make venv`")
    assert native is not None


def test_forms_agree_on_many_keys_that_come_and_go() -> None:
    choice = random.Random(1)
    nodes: dict[bytes, bytes] = {}
    keys = [b"t\0" + choice.randbytes(choice.randrange(60)) for _ in range(3_000)]
    for _ in range(12):
        picked = choice.sample(keys, choice.choice((1, 900)))
        change = {key: choice.choice((None, choice.randbytes(9))) for key in picked}
        root, changed = update(nodes.get, change)
        assert (root, changed) == plain_update(nodes.get, change)
        nodes.update({prefix: data for prefix, data in changed.items() if data is not None})
        for prefix in [prefix for prefix, data in changed.items() if data is None]:
            nodes.pop(prefix)
    last = dict.fromkeys(keys)
    assert update(nodes.get, last) == plain_update(nodes.get, last)
    assert update(nodes.get, last)[0] == EMPTY


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_forms_refuse_the_same_damaged_nodes_in_the_same_words(data: st.DataObject) -> None:
    nodes, model = store([{b"t\0" + bytes([i]): b"v" for i in range(data.draw(st.integers(1, 60)))}])
    prefix = data.draw(st.sampled_from(sorted(nodes)))
    whole = nodes[prefix]
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytes([whole[at] ^ data.draw(st.integers(1, 255))])
    nodes[prefix] = data.draw(st.sampled_from((whole[:at], whole[:at] + flipped + whole[at + 1 :])))
    change = dict.fromkeys(data.draw(st.sets(st.sampled_from(sorted(model)), min_size=1)), b"w")
    refusals: list[str | None] = []
    for form in (update, plain_update):
        try:
            form(nodes.get, change)
            refusals.append(None)  # an altered hash is no broken node: `ledger verify` finds it by hashing all again
        except ValueError as error:
            refusals.append(str(error))
    assert refusals[0] == refusals[1]


@given(st.lists(st.binary(max_size=200), max_size=40))
def test_list_roots_agree(items: list[bytes]) -> None:
    assert list_root(items) == plain_list_root(items)
