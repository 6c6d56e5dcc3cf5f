"""``gridpool spectrum`` as the manual prints it: registers, inquiries with proofs, leases, auctions, refusals."""

import base64
import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from gridpool.agents.spectrum_inquiry import Answer
from gridpool.cli import main
from gridpool.ledger.types import encode


def call(capsys, *arguments: object) -> tuple[int, dict, str]:
    """Run a command in this process; returns exit code, its JSON object, and what it complained about."""
    capsys.readouterr()
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code or 0
    out, err = capsys.readouterr()
    return code, json.loads(out) if out.startswith("{") else {}, err


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path, dict]:
    folder = tmp_path_factory.mktemp("register")
    file, home, extent = folder / "register.json", folder / "home", folder / "extent.json"
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("gridpool.cli.spectrum.emit", lambda result, **_: said.append(json.dumps(result)))
        main(["spectrum", "make", "--licences", "60", "--leases", "100", "--seed", "3", "--out", str(file), "--json"])
        main(["spectrum", "load", str(file), "--out", str(home), "--json"])
    extent.write_text(said[0])
    return file, home, json.loads(said[0])


@pytest.fixture
def home(made, tmp_path) -> Path:
    shutil.copytree(made[1], tmp_path / "home")
    return tmp_path / "home"


def inquire(capsys, home, extent, **changes):
    asked = {
        "lat": sum(extent["lat"]) / 2,
        "lon": sum(extent["lon"]) / 2,
        "uncertainty-m": 0,
        "height-m": 10,
        "low-hz": extent["low_hz"],
        "high-hz": extent["high_hz"],
        "bandwidth-hz": 10_000_000,
        "at": "2026-06-21T12:00:00Z",
    } | changes
    options = [part for name, value in asked.items() for part in (f"--{name}", value)]
    return call(capsys, "spectrum", "inquire", home, *options, "--json")


def test_make_is_repeatable_and_says_where_the_register_is(capsys, tmp_path):
    answers = []
    for name in ("a", "b"):
        code, answer, _ = call(
            capsys,
            "spectrum",
            "make",
            "--licences",
            30,
            "--leases",
            40,
            "--seed",
            5,
            "--out",
            tmp_path / name,
            "--json",
        )
        assert code == 0
        answers.append(answer)
    assert {k: v for k, v in answers[0].items() if k != "file"} == {k: v for k, v in answers[1].items() if k != "file"}
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert answers[0]["lat"][0] < answers[0]["lat"][1]
    assert answers[0]["lon"][0] < answers[0]["lon"][1]
    assert answers[0]["low_hz"] < answers[0]["high_hz"]


def test_inquiries_are_deterministic_and_inside_the_question(capsys, made):
    _, home, extent = made
    first, second = (inquire(capsys, home, extent)[1] for _ in range(2))
    assert first == second
    assert first["channels"]
    for channel in first["channels"]:
        assert extent["low_hz"] <= channel["low_hz"] < channel["high_hz"] <= extent["high_hz"]
        assert channel["high_hz"] - channel["low_hz"] >= 10_000_000
        assert channel["until"] > "2026-06-21T12:00:00Z"
    assert set(first["channels"][0]) >= {"low_hz", "high_hz", "max_eirp_mdbm_per_mhz", "price", "holder", "until"}
    assert all(set(part) == {"low_hz", "high_hz", "reason"} for part in first["refused"])
    assert first["proof"]["height"] == first["height"] == 0


def test_uncertainty_height_and_bandwidth_only_shrink_the_answer(capsys, made):
    _, home, extent = made

    def ask(**changes):
        return {
            (c["low_hz"], c["high_hz"], c["idle"]): c for c in inquire(capsys, home, extent, **changes)[1]["channels"]
        }

    steps = [ask(**{"uncertainty-m": u}) for u in (0, 200, 1_000, 4_000, 20_000)]
    for sure, unsure in pairwise(steps):
        assert set(unsure) <= set(sure)
        for key, channel in unsure.items():
            assert channel["max_eirp_mdbm_per_mhz"] <= sure[key]["max_eirp_mdbm_per_mhz"]
            assert channel["until"] <= sure[key]["until"]
    low, high = ask(**{"height-m": 5}), ask(**{"height-m": 25})
    assert set(high) <= set(low)
    assert not ask(**{"height-m": 40})
    assert set(ask(**{"bandwidth-hz": 20_000_000})) <= set(steps[0])
    assert not ask(**{"bandwidth-hz": 900_000_000})


@pytest.mark.parametrize(
    "changes",
    [
        {"lat": 91},
        {"lon": -180.5},
        {"lat": "nan"},
        {"uncertainty-m": -1},
        {"uncertainty-m": "inf"},
        {"height-m": -1},
        {"low-hz": 4_200_000_000, "high-hz": 3_400_000_000},
        {"low-hz": -5},
        {"bandwidth-hz": 0},
        {"at": "noon"},
        {"at": "2026-06-21T12:00:00"},
        {"at": "1969-06-21T12:00:00Z"},
    ],
)
def test_values_out_of_range_are_refused_in_one_line(capsys, made, changes):
    code, answer, complaint = inquire(capsys, made[1], made[2], **changes)
    assert (code, answer) == (1, {})
    assert complaint.startswith("gridpool: ")
    assert complaint.count("\n") == 1


def damage(register: dict, what: str) -> None:
    if what == "unknown field":
        register["licenses"] = []
    elif what == "format":
        register["format"] = "other"
    elif what == "negative":
        register["licences"][3]["low_hz"] = -1
    elif what == "outside the class":
        register["licences"][3]["high_hz"] = 5_000_000_000
    elif what == "power":
        register["licences"][3]["max_eirp_mdbm_per_mhz"] = 90_000
    elif what == "no such licence":
        register["idle"][0]["licence"] = 10_000
    elif what == "overlap":
        register["licences"].append(next(one for one in register["licences"] if one["kind"] == "exclusive"))
    elif what == "cell":
        register["licences"][0]["cells"][0] = "8828308281fffff"
    elif what == "no cell":
        register["licences"][0]["cells"][0] = "87ffffffffffffe"
    elif what == "time":
        register["leases"][0]["end"] = register["leases"][0]["start"]
    elif what == "leased twice":
        register["leases"].append(register["leases"][0])
    elif what == "too loud":
        lease = dict(register["leases"][0])
        licence = register["licences"][register["idle"][lease["idle"] - 1]["licence"] - 1]
        register["leases"][0]["eirp_mdbm_per_mhz"] = licence["max_eirp_mdbm_per_mhz"] + 1
    elif what == "zone":
        register["protected"][0]["schedule"]["timezone"] = "Nowhere/Land"
    elif what == "stranger":
        register["licences"][0]["holder"] = "nobody"
    elif what == "losses":
        register["classes"][0]["losses_mdb"] = [[1, 0], [1, 0]]
    else:
        raise AssertionError(what)


@pytest.mark.parametrize(
    "what",
    [
        "unknown field", "format", "negative", "outside the class", "power", "no such licence", "overlap", "cell",
        "no cell", "time", "leased twice", "too loud", "zone", "stranger", "losses",
    ],
)  # fmt: skip
def test_a_broken_register_is_refused_whole_with_nothing_left_behind(capsys, made, tmp_path, what):
    register = json.loads(made[0].read_bytes())
    damage(register, what)
    (tmp_path / "bad.json").write_text(json.dumps(register))
    code, answer, complaint = call(
        capsys, "spectrum", "load", tmp_path / "bad.json", "--out", tmp_path / "out", "--json"
    )
    assert (code, answer) == (1, {})
    assert complaint.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.json"]


@pytest.mark.parametrize("cut", [0, 1, 2_000])
def test_a_register_cut_short_is_refused(capsys, made, tmp_path, cut):
    (tmp_path / "cut.json").write_bytes(made[0].read_bytes()[:cut])
    assert call(capsys, "spectrum", "load", tmp_path / "cut.json", "--out", tmp_path / "out")[0] == 1
    assert not (tmp_path / "out").exists()


def test_a_taken_folder_is_refused_and_kept(capsys, made, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    assert call(capsys, "spectrum", "load", made[0], "--out", tmp_path / "out")[0] == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


def test_a_loaded_register_verifies(capsys, made):
    code, answer, _ = call(capsys, "ledger", "verify", made[1], "--json")
    assert code == 0
    assert answer["ok"]


def test_an_inquirys_proof_holds_and_no_altered_one_does(capsys, made, tmp_path):
    proof, trust = tmp_path / "answer.proof", tmp_path / "trust.json"
    span = {"high-hz": made[2]["low_hz"] + 200_000_000}
    assert inquire(capsys, made[1], made[2], proof=proof, **span)[0] == 0
    assert call(capsys, "ledger", "trust", made[1], "--out", trust)[0] == 0
    code, answer, _ = call(capsys, "spectrum", "check", proof, "--trust", trust, "--json")
    assert (code, answer["ok"]) == (0, True)
    data = json.loads(proof.read_bytes())
    left_out = data | {"keys": data["keys"][:-1]}
    moved = data | {"question": data["question"] | {"latitude": data["question"]["latitude"] + 0.01}}
    empty = data | {"answer": base64.b64encode(encode(Answer((), (), 1))).decode()}
    absent = json.loads(json.dumps(data))
    next(part for part in absent["keys"] if part["value"])["value"] = None
    for forged in (left_out, moved, empty, absent):
        proof.write_text(json.dumps(forged))
        code, answer, _ = call(capsys, "spectrum", "check", proof, "--trust", trust, "--json")
        assert code == 3, forged["question"]
    proof.write_text("{}")
    assert call(capsys, "spectrum", "check", proof, "--trust", trust)[0] == 1


def test_a_band_is_leased_beaten_recalled_and_gone(capsys, made, home):
    extent = made[2]
    asked = inquire(capsys, home, extent)[1]
    channel = next(one for one in asked["channels"] if one["pricing"] == "payg")
    place = ["--lat", sum(extent["lat"]) / 2, "--lon", sum(extent["lon"]) / 2]
    lease = [
        "spectrum", "lease", home, "--as", "lessee-1", "--idle", channel["idle"], *place, "--eirp-mdbm",
        channel["max_eirp_mdbm_per_mhz"], "--low-hz", channel["low_hz"], "--high-hz", channel["high_hz"],
        "--until", channel["until"], "--at", "2026-06-21T12:00:00Z", "--json",
    ]  # fmt: skip
    code, granted, complaint = call(capsys, *lease)
    assert (code, complaint) == (0, "")
    assert granted["standing"] == "granted"
    code, _, complaint = call(capsys, *lease)
    assert code == 1
    assert "leased_already" in complaint
    again = inquire(capsys, home, extent)[1]
    assert channel["idle"] not in {one["idle"] for one in again["channels"]}
    number = granted["lease"]
    code, beat, _ = call(capsys, "spectrum", "heartbeat", home, number, "--as", "lessee-1", "--json")
    assert (code, beat["standing"], beat["authorized_until"]) == (0, "authorized", "2026-06-21T12:04:00Z")
    assert beat["charged"] == channel["price"] * 20
    assert call(capsys, "spectrum", "recall", home, number, "--as", "lessee-1")[0] == 1
    code, recalled, _ = call(capsys, "spectrum", "recall", home, number, "--as", channel["holder"], "--json")
    assert (code, recalled["recalled_at"]) == (0, "2026-06-21T13:00:00Z")
    late = ["--as", "lessee-1", "--at", "2026-06-21T13:00:00Z"]
    assert call(capsys, "spectrum", "heartbeat", home, number, *late)[0] == 1
    code, history, _ = call(capsys, "spectrum", "history", home, "--json")
    assert (code, history["uses"][0]["used_ms"], history["jain_ppm"]) == (0, 240_000, 1_000_000)
    assert call(capsys, "spectrum", "incidents", home, "--json")[1] == {"incidents": []}
    assert call(capsys, "ledger", "verify", home, "--json")[1]["ok"]


def test_relinquish_frees_the_band_and_time_only_runs_forward(capsys, made, home):
    channel = next(one for one in inquire(capsys, home, made[2])[1]["channels"] if one["kind"] == "exclusive")
    place = ["--lat", sum(made[2]["lat"]) / 2, "--lon", sum(made[2]["lon"]) / 2, "--eirp-mdbm", 0]
    common = ["spectrum", "lease", home, "--as", "lessee-2", "--idle", channel["idle"], *place]
    code, granted, _ = call(capsys, *common, "--until", channel["until"], "--at", "2026-06-21T12:00:00Z", "--json")
    assert code == 0
    assert call(capsys, "spectrum", "relinquish", home, granted["lease"], "--as", "lessee-2", "--json")[0] == 0
    assert channel["idle"] in {one["idle"] for one in inquire(capsys, home, made[2])[1]["channels"]}
    assert call(capsys, *common, "--until", channel["until"], "--at", "2026-06-20T12:00:00Z")[0] == 1
    assert call(capsys, "spectrum", "heartbeat", home, 99_999, "--as", "lessee-2")[0] == 1
    assert call(capsys, "spectrum", "heartbeat", home, 1, "--as", "nobody")[0] == 1


BIDS = {
    "lots": ["a", "b"],
    "bidders": [
        {"id": "x", "bids": [{"lots": ["a"], "price": 10}, {"lots": ["a", "b"], "price": 16}]},
        {"id": "y", "bids": [{"lots": ["a"], "price": 9}]},
        {"id": "z", "bids": [{"lots": ["b"], "price": 5}]},
    ],
    "conflicts": [["x", "y"], ["x", "z"]],
    "asks": [{"id": "h", "lot": "a", "price": 4}, {"id": "i", "lot": "b", "price": 6}],
    "reserve": {"a": 1},
}


@pytest.mark.parametrize("rule", ["vcg", "clock", "greedy", "double"])
def test_auctions_answer_in_the_promised_form(capsys, tmp_path, rule):
    (tmp_path / "bids.json").write_text(json.dumps(BIDS))
    code, answer, _ = call(capsys, "spectrum", "auction", tmp_path / "bids.json", "--rule", rule, "--json")
    assert code == 0
    assert set(answer) >= {"winners", "welfare", "payments", "bound", "exact", "seconds"}
    assert answer["welfare"] == sum(win["price"] for win in answer["winners"])
    assert {win["bidder"]: win["payment"] for win in answer["winners"]} == answer["payments"]


def test_auction_refuses_a_bad_file_and_a_wrong_rule(capsys, tmp_path):
    (tmp_path / "bids.json").write_text(json.dumps(BIDS))
    assert call(capsys, "spectrum", "auction", tmp_path / "bids.json", "--rule", "second_price")[0] == 1
    assert call(capsys, "spectrum", "auction", tmp_path / "bids.json", "--rule", "dutch")[0] == 2
    assert call(capsys, "spectrum", "auction", tmp_path / "none.json", "--rule", "vcg")[0] == 1
