"""Proofs, comparison, export, import, snapshots and pruning, in the library and on the command line."""

import base64
import contextlib
import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_ledger_chain import alter, grow, live_values
from test_ledger_cli import Ask, ask, home
from toy_contract import ALICE, BOB, COUNTS, GENESIS, NODE, TOY, Add, Remove, signed

from gridpool.errors import RefusedInput, VerificationFault
from gridpool.ledger import light
from gridpool.ledger.archive import export_ledger, import_ledger, prune_ledger
from gridpool.ledger.chain import Ledger
from gridpool.ledger.comparison import compare_ledgers
from gridpool.ledger.proof import key_proof, transaction_proof, trust
from gridpool.ledger.snapshots import Restoration, chunks, manifest, write_snapshot
from gridpool.ledger.verification import verify_ledger

__all__ = ["ask", "home"]


def fill(ledger: Ledger, first: int, last: int) -> None:
    for nonce in range(first, last + 1):
        calls = [Add(f"{nonce}-{i}", i) for i in range(8) if i != 13]
        grow(ledger, signed(ALICE, nonce, *calls).wire, signed(BOB, nonce, Add("b", nonce)).wire, b"rubbish")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Ledger.create(tmp_path / "ledger", GENESIS, TOY, signer=NODE) as ledger:
        fill(ledger, 1, 12)
        grow(ledger, signed(ALICE, 99, Remove("3-2")).wire)
    return tmp_path / "ledger"


@pytest.mark.parametrize(
    ("key", "present"),
    [(f"{ALICE.public.hex()}/7-3", True), (f"{ALICE.public.hex()}/3-2", False), (f"{'00' * 32}/x", False)],
)
def test_state_proof_holds_and_is_small(folder: Path, key: str, present: bool) -> None:
    with Ledger.open(folder, TOY) as ledger, ledger.view() as view:
        proof, trusted = key_proof(view, ledger.known, "counter.count", key), trust(view)
    answer = light.check(json.loads(json.dumps(proof)), trusted)
    assert answer["ok"] is True
    assert answer["present"] is present
    assert (answer["value"] is not None) is present
    assert bytes.fromhex(answer["key"]) == COUNTS.encode_key(COUNTS.parse_key(key))
    assert len(json.dumps({k: v for k, v in proof.items() if k not in {"header", "signature"}})) < 2_000


def test_transaction_proof_holds(folder: Path) -> None:
    wanted = signed(BOB, 5, Add("b", 5))
    with Ledger.open(folder, TOY) as ledger, ledger.view() as view:
        answer = light.check(transaction_proof(view, wanted.id), trust(view))
        with pytest.raises(RefusedInput, match="no transaction"):
            transaction_proof(view, bytes(32))
    assert (answer["present"], answer["tx"], answer["code"], answer["height"]) == (True, wanted.id.hex(), "ok", 5)


def test_a_senders_nonce_proves_that_a_transaction_was_not_carried_out(folder: Path) -> None:
    def proved(ledger: Ledger) -> int:
        with ledger.view() as view:
            proof = key_proof(view, ledger.known, "ledger.nonce", BOB.public.hex())
            answer = light.check(json.loads(json.dumps(proof)), trust(view))
        return 0 if answer["value"] is None else int(light._decode(base64.b64decode(answer["value"]))[0])

    with Ledger.open(folder, TOY, signer=NODE) as ledger:
        assert proved(ledger) == 12
        skipped, late, unlucky = (
            signed(BOB, nonce, Add("b", number)) for nonce, number in ((13, 1), (14, 1), (15, 13))
        )
        grow(ledger, late.wire)
        grow(ledger, skipped.wire)  # stands in a block, and is not carried out
        assert proved(ledger) == 14
        grow(ledger, unlucky.wire)  # refused by the contract, which uses the nonce up
        assert proved(ledger) == 15
        with ledger.view() as view:
            codes = [view.receipt(one.id) for one in (skipped, late, unlucky)]
            assert [receipt.code for receipt in codes if receipt] == ["stale_nonce", "ok", "unlucky"]


@pytest.fixture
def proofs(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    with Ledger.open(folder, TOY) as ledger, ledger.view() as view:
        made = [key_proof(view, ledger.known, "counter.count", f"{ALICE.public.hex()}/{n}") for n in ("7-3", "no")]
        return [*made, transaction_proof(view, signed(BOB, 5, Add("b", 5)).id)], trust(view)


def test_forged_proofs_are_refused(proofs: tuple[list[dict[str, Any]], dict[str, Any]], folder: Path) -> None:
    made, trusted = proofs
    present, absent, transaction = made
    forged = [
        {**present, "value": absent["value"]},
        {**present, "value": base64.b64encode(b"\x91\x07").decode()},
        {**present, "key": absent["key"]},
        {**absent, "key": present["key"]},
        {**absent, "value": base64.b64encode(b"\x91\x07").decode()},
        {**present, "value": None, "other": None},
        {**transaction, "tx": "00" * 32},
        {**transaction, "position": 0},
        {**transaction, "count": 1},
        {**present, "siblings": present["siblings"][:-44]},
        {**present, "header": transaction["header"], "signature": transaction["signature"]},
    ]
    for proof in forged:
        with pytest.raises(light.Invalid):
            light.check(proof, trusted)
    for wrong in (
        {**trusted, "signer": base64.b64encode(ALICE.public).decode()},
        {**trusted, "chain": "x"},
        {},
        [],
        None,
    ):
        with pytest.raises(light.Invalid):
            light.check(present, wrong)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_changed_byte_of_a_proof_goes_unnoticed(
    proofs: tuple[list[dict[str, Any]], dict[str, Any]], data: st.DataObject
) -> None:
    made, trusted = proofs
    proof = copy.deepcopy(data.draw(st.sampled_from(made)))
    sound = light.check(proof, trusted)
    names = [name for name in ("header", "signature", "key", "value", "siblings") if proof.get(name)]
    name = data.draw(st.sampled_from(names))
    raw = bytearray(base64.b64decode(proof[name]))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    proof[name] = base64.b64encode(raw).decode()
    try:
        answer = light.check(proof, trusted)
    except light.Invalid:
        return
    # An absent key can be exchanged for another one that is absent just as well.
    assert name == "key"
    assert not sound["present"]
    assert not answer["present"]


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=40).map(lambda b: base64.b64encode(b).decode()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_proof_checker_survives_anything(
    proofs: tuple[list[dict[str, Any]], dict[str, Any]], data: st.DataObject
) -> None:
    made, trusted = proofs
    proof: Any = dict(data.draw(st.sampled_from(made)))
    for name in data.draw(st.lists(st.sampled_from(sorted(proof)), max_size=3)):
        proof[name] = data.draw(junk)
    changed = dict(trusted)
    for name in data.draw(st.lists(st.sampled_from(sorted(trusted)), max_size=1)):
        changed[name] = data.draw(junk)
    with contextlib.suppress(light.Invalid):
        light.check(proof, changed)
    with contextlib.suppress(light.Invalid):
        light.check(data.draw(junk), data.draw(junk))


def test_light_client_needs_only_the_standard_library_and_pynacl() -> None:
    code = (
        "import sys; before = set(sys.modules); import gridpool.ledger.light; "
        "print(*sorted({m.partition('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(out) <= {"gridpool", "nacl", "_sodium", "_cffi_backend"}


def test_light_client_runs_alone(proofs: tuple[list[dict[str, Any]], dict[str, Any]], tmp_path: Path) -> None:
    """In an interpreter that finds the standard library, PyNaCl and two files, nothing else."""
    import _cffi_backend
    import nacl

    made, trusted = proofs
    (tmp_path / "gridpool" / "ledger").mkdir(parents=True)
    for name in ("light.py", "light_commit.py"):
        shutil.copy(Path(light.__file__).with_name(name), tmp_path / "gridpool" / "ledger")
    for needed in (Path(nacl.__file__).parent, Path(_cffi_backend.__file__)):
        (tmp_path / needed.name).symlink_to(needed)
    (tmp_path / "p.json").write_text(json.dumps([made, trusted]))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import json; from gridpool.ledger import light; "
        "made, trusted = json.load(open(sys.argv[1] + '/p.json')); "
        "print([light.check(one, trusted)['present'] for one in made])"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "[True, False, True]\n", done.stderr


def test_equal_ledgers_are_equal(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    result = compare_ledgers(folder, tmp_path / "copy", TOY)
    assert (result.equal, result.height, result.keys) == (True, None, ())


def test_diff_finds_first_height_and_keys(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with Ledger.create(other, GENESIS, TOY, signer=NODE) as ledger:
        fill(ledger, 1, 7)
        grow(ledger, signed(ALICE, 50, Add("stray", 1)).wire)
    result = compare_ledgers(folder, other, TOY)
    assert not result.equal
    assert result.height == 8
    named = {(d.table, d.key) for d in result.keys}
    assert ("counter.count", f"{ALICE.public.hex()}/stray") in named
    assert ("counter.count", f"{ALICE.public.hex()}/8-1") in named
    assert ("counter.count", f"{ALICE.public.hex()}/1-1") not in named
    assert set(compare_ledgers(folder, other, TOY, deep=True).keys) == set(result.keys)


def test_deep_diff_finds_what_was_altered_without_its_tree(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    key = COUNTS.encode_key((BOB.public, "b"))
    alter(tmp_path / "copy", "state", key, b"\x91\x05")
    assert compare_ledgers(folder, tmp_path / "copy", TOY).equal
    deep = compare_ledgers(folder, tmp_path / "copy", TOY, deep=True)
    assert not deep.equal
    assert [(d.table, d.key) for d in deep.keys] == [("counter.count", f"{BOB.public.hex()}/b")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_export_and_import_give_the_same_ledger(folder: Path, tmp_path: Path, name: str) -> None:
    with Ledger.open(folder, TOY) as ledger, ledger.view() as view:
        export_ledger(view, tmp_path / name)
        wanted = ledger.head
    assert import_ledger(tmp_path / name, tmp_path / "copy", TOY) == wanted
    assert verify_ledger(tmp_path / "copy", TOY).ok
    assert live_values(folder) == live_values(tmp_path / "copy" / "ledger")


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "snapshot"])
@pytest.mark.parametrize(("seed", "rounds"), [(1, 60), pytest.param(2, 1_500, marks=pytest.mark.slow)])
def test_altered_archives_and_snapshots_are_refused_whole(tmp_path: Path, name: str, seed: int, rounds: int) -> None:
    with Ledger.create(tmp_path / "ledger", GENESIS, TOY, signer=NODE) as ledger:
        fill(ledger, 1, 4)
        with ledger.view() as view:
            if name == "snapshot":
                write_snapshot(view, tmp_path / name)
            else:
                export_ledger(view, tmp_path / name)
    script = Path(__file__).with_name("altered_archive.py")
    command = [sys.executable, str(script), str(tmp_path / name), str(seed), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 0.9 * rounds


def test_a_parquet_file_of_the_same_blocks_by_another_hand_is_refused(folder: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    with Ledger.open(folder, TOY) as ledger, ledger.view() as view:
        export_ledger(view, tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.num_rows == 14
    pq.write_table(table, tmp_path / "b.parquet", compression="zstd")
    with pytest.raises((RefusedInput, VerificationFault), match="SHA-256"):
        import_ledger(tmp_path / "b.parquet", tmp_path / "copy", TOY)


def test_snapshot_restores_and_goes_on(folder: Path, tmp_path: Path) -> None:
    with Ledger.open(folder, TOY, signer=NODE) as ledger:
        with ledger.view() as view:
            restoration = Restoration(tmp_path / "copy", manifest(view), TOY)
            parts = list(chunks(view))
        with pytest.raises(VerificationFault, match="not the one"):
            restoration.apply(0, parts[0][:-1] + b"x")
        for i, part in enumerate(parts):
            restoration.apply(i, part)
        assert restoration.finish() == ledger.head
        result = verify_ledger(tmp_path / "copy", TOY)
        assert result.ok
        assert result.height == 13
        with Ledger.open(tmp_path / "copy", TOY, signer=NODE) as copied:
            for one in (ledger, copied):
                fill(one, 200, 203)
            assert copied.app_hash == ledger.app_hash
    result = verify_ledger(tmp_path / "copy", TOY)
    assert result.ok
    assert (result.height, result.transactions) == (17, 12)


def test_pruned_ledger_proves_verifies_and_goes_on(folder: Path) -> None:
    before = verify_ledger(folder, TOY)
    prune_ledger(folder, TOY, keep=5)
    result = verify_ledger(folder, TOY)
    assert result.ok
    assert result.app_hash == before.app_hash
    assert result.transactions == 13
    with Ledger.open(folder, TOY, signer=NODE) as ledger:
        with ledger.view() as view:
            assert view.base == 8
            assert view.header(3).header.height == 3
            with pytest.raises(RefusedInput, match="pruned"):
                view.transactions(8)
            proof = key_proof(view, ledger.known, "counter.count", f"{ALICE.public.hex()}/7-3")
            assert light.check(proof, trust(view))["present"]
            with pytest.raises(RefusedInput, match="pruned"):
                export_ledger(view, folder.parent / "x.jsonl")
        fill(ledger, 300, 303)
    prune_ledger(folder, TOY, keep=2)
    assert verify_ledger(folder, TOY).ok


def test_verify_finds_changes_in_a_pruned_ledger(folder: Path) -> None:
    prune_ledger(folder, TOY, keep=3)
    for table, key, value in live_values(folder):
        alter(folder, table, key, value[:-1] + bytes([value[-1] ^ 1]))
        result = verify_ledger(folder, TOY)
        assert not result.ok, (table, key)
        assert result.fault is not None
        alter(folder, table, key, value)
    assert verify_ledger(folder, TOY).ok


def test_commands_as_printed(ask: Ask, home: Path, tmp_path: Path) -> None:
    code, listed = ask("keys", home, "--table", "counter.count")
    assert code == 0
    assert listed == {"table": "counter.count", "keys": [f"{ALICE.public.hex()}/a"]}
    assert ask("keys", home, "--table", "nothing") == (1, {})
    proof, trusted = tmp_path / "p.json", tmp_path / "t.json"
    assert ask("trust", home, "--out", trusted)[0] == 0
    code, said = ask("proof", home, "--key", "counter.count", listed["keys"][0], "--out", proof)
    assert (code, said["present"]) == (0, True)
    code, said = ask("check", proof, "--trust", trusted)
    assert code == 0
    assert said["ok"] is True
    assert (said["height"], said["present"]) == (2, True)
    assert (said["table"], said["key"]) == ("counter.count", listed["keys"][0])
    assert base64.b64decode(said["value"]) == b"\x91\x05"
    assert ask("proof", home, "--key", "counter.count", f"{BOB.public.hex()}/zz", "--out", proof)[0] == 0
    code, said = ask("check", proof, "--trust", trusted)
    assert (code, said["present"], said["value"]) == (0, False, None)
    tx = signed(ALICE, 1, Add("a", 1)).id.hex()
    assert ask("proof", home, "--tx", tx, "--out", proof)[0] == 0
    code, said = ask("check", proof, "--trust", trusted)
    assert (code, said["tx"], said["height"], said["present"]) == (0, tx, 1, True)
    text = json.loads(proof.read_text())
    text["position"] = 1
    proof.write_text(json.dumps(text))
    code, said = ask("check", proof, "--trust", trusted)
    assert (code, said["ok"]) == (3, False)
    assert ask("proof", home, "--tx", "00" * 32)[0] == 1
    assert ask("proof", home)[0] == 1

    head = {name: ask("show", home)[1][name] for name in ("height", "app_hash")}
    for name in ("a.jsonl", "a.parquet"):
        assert ask("export", home, "--out", tmp_path / name) == (0, head)
        assert ask("import", tmp_path / name, "--out", tmp_path / f"copy-{name}") == (0, head)
        assert ask("import", tmp_path / name, "--out", tmp_path / f"copy-{name}")[0] == 1
        assert ask("diff", home, tmp_path / f"copy-{name}") == (0, {"equal": True, "height": None, "keys": []})
    assert ask("snapshot", home, "--out", tmp_path / "s") == (0, head)
    assert ask("restore", tmp_path / "s", "--out", tmp_path / "restored") == (0, head)
    code, said = ask("verify", tmp_path / "restored")
    assert (code, said["ok"]) == (0, True)
    assert ask("prune", home, "--keep", "1") == (0, head)
    assert ask("verify", home)[1]["ok"] is True
    assert ask("prune", home, "--keep", "0")[0] == 1
    alter(tmp_path / "restored" / "ledger", "state", COUNTS.encode_key((ALICE.public, "a")), b"\x91\x07")
    code, said = ask("diff", home, tmp_path / "restored", "--deep")
    assert (code, said["equal"]) == (3, False)
    assert said["keys"] == [{"table": "counter.count", "key": f"{ALICE.public.hex()}/a"}]
    assert ask("verify", tmp_path / "restored")[0] == 3
