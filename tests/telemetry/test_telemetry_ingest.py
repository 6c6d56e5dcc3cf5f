"""Ingesting readings: the commands as printed, bad lines refused one by one, both device modes."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from gridpool.agents.telemetry import ingest
from gridpool.agents.telemetry_file import make_readings
from gridpool.cli import main
from gridpool.ledger.keys import KeyPair


def call(capsys, *arguments) -> tuple[int, dict, str]:
    """Run a command; returns exit code, JSON (empty where none) and standard error."""
    capsys.readouterr()
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code or 0
    out, err = capsys.readouterr()
    return code, json.loads(out) if out.startswith("{") else {}, err


@pytest.fixture
def made(tmp_path, capsys) -> Path:
    """300 readings of 7 devices."""
    out = tmp_path / "readings.jsonl"
    make = ("telemetry", "make", "--readings", 300, "--devices", 7, "--seed", 1, "--out", out, "--json")
    code, answer, _ = call(capsys, *make)
    assert (code, answer["readings"], answer["devices"]) == (0, 300, 7)
    return out


def rewrite(path: Path, change) -> Path:
    """Write a changed copy: ``change`` takes and returns the list of lines as dictionaries."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    copy = path.with_name("changed.jsonl")
    copy.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in change(lines)))
    return copy


def test_all_of_a_sound_file_is_accepted_and_anchored_once(made, tmp_path, capsys):
    code, plain, _ = call(capsys, "telemetry", "ingest", made, "--json")
    assert code == 0
    assert (plain["readings"], plain["accepted"], plain["refused"], plain["refusals"]) == (300, 300, 0, [])
    assert plain["readings_per_s"] == pytest.approx(300 / plain["seconds"])
    assert plain["tx"] is None
    first = call(capsys, "telemetry", "ingest", made, "--home", tmp_path / "home", "--json")[1]
    again = call(capsys, "telemetry", "ingest", made, "--home", tmp_path / "home", "--json")[1]
    assert first["root"] == again["root"] == plain["root"]
    assert (first["tx"], first["number"]) == (again["tx"], again["number"])
    roots = call(capsys, "telemetry", "roots", "--home", tmp_path / "home", "--json")[1]["roots"]
    assert [(one["root"], one["count"], one["start"], one["end"]) for one in roots] == [
        (plain["root"], 300, plain["start"], plain["end"])
    ]
    assert call(capsys, "ledger", "verify", tmp_path / "home", "--json")[1]["ok"]


def test_a_seed_makes_the_same_bytes_and_both_formats_the_same_root(made, tmp_path, capsys):
    for name in ("again.jsonl", "same.parquet", "more.parquet"):
        call(capsys, "telemetry", "make", "--readings", 300, "--devices", 7, "--seed", 1, "--out", tmp_path / name)
    assert (tmp_path / "again.jsonl").read_bytes() == made.read_bytes()
    assert (tmp_path / "same.parquet").read_bytes() == (tmp_path / "more.parquet").read_bytes()
    answers = [call(capsys, "telemetry", "ingest", tmp_path / n, "--json")[1] for n in ("again.jsonl", "same.parquet")]
    assert answers[0]["root"] == answers[1]["root"]
    assert answers[1]["accepted"] == 300
    call(capsys, "telemetry", "make", "--readings", 300, "--devices", 7, "--seed", 2, "--out", tmp_path / "b.jsonl")
    assert call(capsys, "telemetry", "ingest", tmp_path / "b.jsonl", "--json")[1]["root"] != answers[0]["root"]


def test_bad_lines_are_refused_one_by_one_and_named(made, capsys):
    def harm(lines):
        lines[2]["value"] += 1
        lines[4]["signature"] = lines[5]["signature"]
        lines[6]["device"] = lines[7]["device"]
        lines[8]["start"] += 1
        lines[10] = "{not json"
        lines[11]["value"] = 1.5
        lines[12]["device"] = "zz" * 32
        lines[13]["signature"] = "00"
        lines[14] = '{"value":' * 600
        lines[15] = "[" * 3_000
        lines[16]["value"] = 2**63
        lines[17]["start"] = -1
        del lines[18]["value"]
        lines[19]["device"] = "00" * 32  # a key of low order verifies nothing
        lines[20] = '{"device":"' + "a" * 10_000 + '"}'
        return lines

    code, answer, _ = call(capsys, "telemetry", "ingest", rewrite(made, harm), "--json")
    bad = [3, 5, 7, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]
    assert code == 0
    assert [refusal["line"] for refusal in answer["refusals"]] == bad
    assert (answer["readings"], answer["accepted"], answer["refused"]) == (300, 300 - len(bad), len(bad))
    assert all(refusal["reason"] and "\n" not in refusal["reason"] for refusal in answer["refusals"])


def test_a_repetition_is_refused_at_its_later_line(made, capsys):
    root = call(capsys, "telemetry", "ingest", made, "--json")[1]["root"]
    copy = rewrite(made, lambda lines: [lines[0], lines[0], *lines[1:], lines[99], lines[0]])
    answer = call(capsys, "telemetry", "ingest", copy, "--json")[1]
    assert answer["refusals"] == [
        {"line": 2, "reason": "repeats line 1"},
        {"line": 302, "reason": "repeats line 101"},
        {"line": 303, "reason": "repeats line 1"},
    ]
    assert (answer["readings"], answer["accepted"], answer["root"]) == (303, 300, root)


def test_a_forged_copy_in_front_does_not_push_the_true_reading_out(made, capsys):
    root = call(capsys, "telemetry", "ingest", made, "--json")[1]["root"]
    copy = rewrite(made, lambda lines: [lines[0] | {"value": lines[0]["value"] + 1}, *lines])
    answer = call(capsys, "telemetry", "ingest", copy, "--json")[1]
    assert answer["refusals"] == [{"line": 1, "reason": "signature does not hold"}]
    assert answer["root"] == root


def test_order_and_refused_lines_do_not_change_the_root_and_empty_lines_count(made, capsys):
    root = call(capsys, "telemetry", "ingest", made, "--json")[1]["root"]

    def stir(lines):
        random.Random(3).shuffle(lines)
        return ["", *lines, "", "garbage"]

    answer = call(capsys, "telemetry", "ingest", rewrite(made, stir), "--json")[1]
    assert (answer["root"], [refusal["line"] for refusal in answer["refusals"]]) == (root, [303])
    fewer = call(capsys, "telemetry", "ingest", rewrite(made, lambda lines: lines[1:]), "--json")[1]
    assert fewer["root"] != root


def test_an_empty_file_has_no_readings_and_anchors_nothing(tmp_path, capsys):
    (tmp_path / "none.jsonl").write_text("")
    code, answer, _ = call(capsys, "telemetry", "ingest", tmp_path / "none.jsonl", "--home", tmp_path / "h", "--json")
    assert (code, answer["readings"], answer["accepted"], answer["tx"]) == (0, 0, 0, None)


def test_verifying_threads_decide_as_this_thread_does(made):
    copy = rewrite(
        made, lambda lines: [line | {"value": line["value"] + (n % 50 == 0)} for n, line in enumerate(lines)]
    )
    alone, beside = ingest(copy, threads=0), ingest(copy, threads=2)
    assert alone.gathered.tree.root == beside.gathered.tree.root
    assert alone.gathered.refusals == beside.gathered.refusals
    assert alone.gathered.refused == 6


# one signature a session and a chain of keys


@pytest.fixture
def sessions(tmp_path, capsys, made) -> tuple[Path, Path]:
    """The same readings under sessions: (file, the aggregator's wallet)."""
    hub, out = tmp_path / "hub", tmp_path / "sessions.jsonl"
    call(capsys, "wallet", "new", hub)
    make = ("telemetry", "make", "--readings", 300, "--devices", 7, "--seed", 1, "--out", out)
    assert call(capsys, *make, "--mode", "session", "--aggregator", hub)[0] == 0
    return out, hub


def test_sessions_need_one_signature_each(sessions, capsys):
    path, hub = sessions
    answer = call(capsys, "telemetry", "ingest", path, "--wallet", hub, "--json")[1]
    assert (answer["readings"], answer["accepted"], answer["sessions"]) == (300, 300, 7)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sum("signature" in line for line in lines) == 7
    # nobody else can read the codes, and says so line by line
    stranger = call(capsys, "telemetry", "ingest", path, "--json")[1]
    assert (stranger["accepted"], stranger["refused"]) == (0, 300)


def test_forged_lost_and_replayed_codes(sessions, capsys):
    path, hub = sessions
    openings = {n for n, line in enumerate(path.read_text().splitlines()) if "aggregator" in line}
    codes = [n for n in range(307) if n not in openings]

    def harm(lines):
        lines[codes[10]]["value"] += 1  # the next of this session still stand
        lines[codes[20]]["mac"] = "00" * 16
        lines[codes[30]]["sequence"] += 3
        lines[codes[41]] = lines[codes[41]] | {"session": "00" * 16}
        del lines[codes[50]]  # lost
        return [*lines, lines[codes[5]]]  # replayed

    answer = call(capsys, "telemetry", "ingest", rewrite(path, harm), "--wallet", hub, "--json")[1]
    reasons = {refusal["line"]: refusal["reason"] for refusal in answer["refusals"]}
    assert reasons == {
        codes[10] + 1: "code does not hold",
        codes[20] + 1: "code does not hold",
        codes[30] + 1: "code does not hold",
        codes[41] + 1: "session was not opened",
        307: "repeats or comes late: the session has moved on",
    }
    assert answer["accepted"] == 300 - 4 - 1


def test_a_forged_opening_opens_nothing(sessions, capsys):
    path, hub = sessions

    def harm(lines):
        lines[0]["start"] += 1
        return lines

    answer = call(capsys, "telemetry", "ingest", rewrite(path, harm), "--wallet", hub, "--json")[1]
    assert answer["refusals"][0] == {"line": 1, "reason": "signature does not hold"}
    assert answer["refused"] == 43  # all readings of that device: 300 / 7, rounded up
    assert answer["accepted"] == 257


# proofs, comparison, registration


def test_a_device_proves_its_reading_against_the_ledger(made, tmp_path, capsys):
    call(capsys, "telemetry", "ingest", made, "--home", tmp_path / "home")
    line = json.loads(made.read_text().splitlines()[100])
    proof = tmp_path / "proof"
    device = ("--device", line["device"], "--start", line["start"], "--out", proof)
    code, answer, _ = call(capsys, "telemetry", "prove", made, *device, "--json")
    assert code == 0
    assert answer["bytes"] == proof.stat().st_size < 1_500
    code, held, _ = call(capsys, "telemetry", "check", proof, "--home", tmp_path / "home", "--json")
    assert code == 0
    assert (held["device"], held["start"], held["value"]) == (line["device"], line["start"], line["value"])
    # a proof of a tree that nobody anchored
    other = rewrite(made, lambda lines: lines[50:])
    call(capsys, "telemetry", "prove", other, *device)
    assert call(capsys, "telemetry", "check", proof, "--home", tmp_path / "home")[0] == 3
    for junk in ("", "{}", '{"format":"gridpool-reading-1","proof":"AAAA"}', "x" * 9_000):
        proof.write_text(junk)
        code, _, err = call(capsys, "telemetry", "check", proof, "--home", tmp_path / "home")
        assert (code, err.count("\n")) == (1, 1)
    absent = ("--device", line["device"], "--start", line["start"] + 1, "--out", tmp_path / "absent")
    assert call(capsys, "telemetry", "prove", made, *absent)[0] == 1
    assert not (tmp_path / "absent").exists()


def test_the_device_on_which_two_aggregators_differ_is_named(made, tmp_path, capsys):
    call(capsys, "telemetry", "ingest", made, "--home", tmp_path / "home")

    def harm(lines):
        lines[123]["value"] = 7
        del lines[200]
        return lines

    lines = [json.loads(line) for line in made.read_text().splitlines()]
    other = rewrite(made, harm)
    code, answer, err = call(capsys, "telemetry", "locate", made, other, "--home", tmp_path / "home", "--json")
    assert (code, err.count("\n")) == (3, 1)
    assert {(one["device"], one["start"]) for one in answer["differences"]} == {
        (lines[n]["device"], lines[n]["start"]) for n in (123, 200)
    }
    altered = next(one for one in answer["differences"] if one["second"] == 7)
    assert (altered["first"], altered["first_signed"], altered["second_signed"]) == (lines[123]["value"], True, False)
    assert answer["agrees_with_ledger"] == [True, False]
    code, answer, _ = call(capsys, "telemetry", "locate", made, made, "--json")
    assert (code, answer["ok"], answer["hashes"]) == (0, True, 1)


def test_only_registered_devices_where_asked(made, tmp_path, capsys):
    home = tmp_path / "home"
    answer = call(capsys, "telemetry", "ingest", made, "--home", home, "--registered", "--json")[1]
    assert (answer["accepted"], answer["refused"], answer["tx"]) == (0, 300, None)
    assert "not registered" in answer["refusals"][0]["reason"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("ingest", "{tmp}/nothing.jsonl"),
        ("ingest", "{tmp}"),
        ("ingest", "{tmp}/bad.parquet"),
        ("ingest", "{tmp}/short.parquet"),
        ("ingest", "{tmp}/bad.parquet", "--home", "{tmp}/fresh"),
        ("ingest", "{tmp}/twice.parquet"),
        ("ingest", "{tmp}/bomb.parquet"),
        ("ingest", "{tmp}/text.parquet"),
        ("ingest", "{tmp}/readings.jsonl", "--registered"),
        ("ingest", "{tmp}/readings.jsonl", "--home", "{tmp}/readings.jsonl"),
        ("ingest", "{tmp}/nothing.jsonl", "--home", "{tmp}/fresh"),
        ("make", "--readings", "0", "--devices", "1", "--seed", "1", "--out", "{tmp}/out.jsonl"),
        ("make", "--readings", "1", "--devices", "0", "--seed", "1", "--out", "{tmp}/out.jsonl"),
        ("make", "--readings", "1", "--devices", "1", "--seed", "-1", "--out", "{tmp}/out.jsonl"),
        ("make", "--readings", "1", "--devices", "1", "--seed", "1", "--out", "{tmp}/out.csv"),
        ("make", "--readings", "1", "--devices", "1", "--seed", "1", "--out", "{tmp}/no/out.jsonl"),
        ("make", "--readings", "1", "--devices", "1", "--seed", "1", "--out", "{tmp}/out.jsonl", "--mode", "session"),
        ("scale", "--devices", "0"),
        ("scale", "--devices", "10", "--aggregators", "11"),
    ],
)
def test_bad_input_is_one_line_and_makes_nothing(made, tmp_path, capsys, arguments):
    import pyarrow as pa
    from pyarrow import parquet

    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing PAR1")
    parquet.write_table(pa.table({"device": ["x"], "value": [1]}), tmp_path / "short.parquet")
    one = {"device": ["x"], "start": [1], "value": [1]}
    parquet.write_table(pa.table(one | {"signature": ["0" * 20_000_000]}), tmp_path / "bomb.parquet")
    arrays = [pa.array(column) for column in one.values()]
    twice = pa.Table.from_arrays([*arrays, arrays[2]], names=["device", "start", "value", "value"])
    parquet.write_table(twice, tmp_path / "twice.parquet")
    broken = pa.StringArray.from_buffers(1, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe"))
    parquet.write_table(pa.table(one | {"signature": broken}), tmp_path / "text.parquet")
    code, _, err = call(capsys, "telemetry", *[argument.format(tmp=tmp_path) for argument in arguments])
    assert (code, err.count("\n")) == (1, 1)
    assert not list(tmp_path.glob("*out*"))
    assert not (tmp_path / "fresh").exists()


def test_parquet_with_text_and_odd_columns_is_read_row_by_row(made, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    lines = [json.loads(line) for line in made.read_text().splitlines()]
    parquet.write_table(pa.Table.from_pylist([{**line, "comment": "x"} for line in lines]), tmp_path / "text.parquet")
    assert ingest(tmp_path / "text.parquet").gathered.tree.root == ingest(made).gathered.tree.root
    lines[3]["device"] = None
    lines[4]["value"] = None
    parquet.write_table(pa.Table.from_pylist(lines), tmp_path / "holes.parquet")
    assert [refusal.line for refusal in ingest(tmp_path / "holes.parquet").gathered.refusals] == [4, 5]


@pytest.mark.slow
def test_fifty_thousand_readings_in_both_modes_have_one_root(tmp_path):
    hub = KeyPair(b"h" * 32)
    roots = set()
    for name, key in (("a.jsonl", None), ("b.jsonl", hub.public), ("c.parquet", hub.public)):
        make_readings(tmp_path / name, readings=50_000, devices=500, generator=np.random.default_rng(5), aggregator=key)
        gathered = ingest(tmp_path / name, key=hub).gathered
        assert (gathered.accepted, gathered.refused) == (50_000, 0)
        roots.add((name != "a.jsonl", gathered.tree.root))
    assert len(roots) == 2  # sessions draw other random bytes, so that later values differ between the modes


def test_a_difference_between_two_aggregators_is_established_on_the_ledger(made, tmp_path, capsys):
    from gridpool.agents.records_home import MEMBER_FILE
    from gridpool.agents.wallet_founding import found_consortium
    from gridpool.agents.wallet_keys import WalletKeys, save_wallet
    from gridpool.contracts.members import FoundingMember, Role

    home = tmp_path / "home"
    home.mkdir()
    north, south = WalletKeys(b"n" * 32), WalletKeys(b"s" * 32)
    save_wallet(home / MEMBER_FILE, north)
    save_wallet(tmp_path / "south", south)
    founders = tuple(
        FoundingMember(keys.certificate.public, name, (Role.AGGREGATOR,))
        for name, keys in (("north", north), ("south", south))
    )
    found_consortium(
        home,
        chain="two",
        seats=(north.certificate.public,),
        threshold=1,
        founders=founders,
        clock=None,
        start_ms=1_767_225_600_000,
    )
    fewer = rewrite(made, lambda lines: [*lines[:40], *lines[41:]])  # the south leaves a reading out
    report = ("telemetry", "locate", made, fewer, "--home", home, "--report", "--json")
    call(capsys, "telemetry", "ingest", made, "--home", home)
    assert call(capsys, *report)[0] == 1  # the south's root is not anchored yet
    call(capsys, "telemetry", "ingest", fewer, "--home", home, "--wallet", tmp_path / "south")
    code, answer, _ = call(capsys, *report)
    assert (code, len(answer["transactions"])) == (3, 1)
    (one,) = answer["differences"]
    assert (one["second"], one["first_signed"], answer["agrees_with_ledger"]) == (None, True, [True, True])
    stored = call(capsys, "ledger", "keys", home, "--table", "records.difference", "--json")
    assert stored[0] == 0
    assert one["device"] in json.dumps(stored[1])
    assert call(capsys, *report)[0] == 1  # it is shown already
