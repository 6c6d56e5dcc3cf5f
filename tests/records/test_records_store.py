"""Data sets in a store that nobody need trust: the commands as printed, and every way a host can cheat."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridpool.agents import records as members_records
from gridpool.agents.chunk_store import ChunkStore
from gridpool.agents.chunk_tree import altered_positions, tree_levels
from gridpool.agents.records import get_data_set, put_data_set
from gridpool.agents.records_home import member_keys
from gridpool.agents.slice_ledger import slice_session
from gridpool.cli import main
from gridpool.contracts.records_data import DATA_SETS
from gridpool.errors import RefusedInput
from gridpool.ledger.merkle import list_root

CHUNK = 1_000


def call(capsys, *arguments: str) -> tuple[int, dict, str]:
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
def stored(tmp_path, capsys):
    """A data set of 10 chunks: (home, its JSON, the plain bytes)."""
    plain = bytes(range(256)) * 37 + b"end"
    (tmp_path / "plain").write_bytes(plain)
    home = tmp_path / "home"
    code, made, _ = call(capsys, "records", "put", tmp_path / "plain", "--home", home, "--chunk-bytes", CHUNK, "--json")
    assert code == 0
    return home, made, plain


def chunk_files(home: Path, made: dict) -> list[Path]:
    """The stored chunks in their order."""
    listed = (home / "records" / made["root"]).read_bytes()
    return [home / "store" / listed[at : at + 32].hex() for at in range(0, len(listed), 32)]


def test_put_makes_a_ledger_and_one_file_a_chunk_named_by_its_hash(stored, capsys, tmp_path):
    home, made, plain = stored
    assert set(made) == {"id", "root", "size", "chunks", "chunk_bytes"}
    assert (made["size"], made["chunks"], made["chunk_bytes"]) == (len(plain), 10, CHUNK)
    files = list((home / "store").iterdir())
    assert len(files) == 10
    for file in files:
        assert file.name == sha256(file.read_bytes()).hexdigest()
        assert plain[:64] not in file.read_bytes()
    assert (home / "member.wallet").stat().st_mode & 0o077 == 0
    assert call(capsys, "records", "get", made["id"], "--home", home, "--out", tmp_path / "out")[0] == 0
    assert (tmp_path / "out").read_bytes() == plain
    assert call(capsys, "ledger", "verify", home, "--json")[1]["ok"]


def test_the_default_chunk_and_an_empty_file(tmp_path, capsys):
    for name, plain in (("empty", b""), ("exact", bytes(65_536)), ("more", bytes(65_537))):
        (tmp_path / name).write_bytes(plain)
        code, made, _ = call(capsys, "records", "put", tmp_path / name, "--home", tmp_path / "h", "--json")
        assert (code, made["chunks"], made["size"]) == (0, 2 if name == "more" else 1, len(plain))
        out = tmp_path / f"{name}.out"
        assert call(capsys, "records", "get", made["id"], "--home", tmp_path / "h", "--out", out)[0] == 0
        assert out.read_bytes() == plain


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def swell(file: Path) -> None:
    file.write_bytes(file.read_bytes() + bytes(10_000))


def remove(file: Path) -> None:
    file.unlink()


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("harm", [flip, cut, swell, remove, folder])
@pytest.mark.parametrize("number", [0, 4, 9])
def test_an_altered_chunk_is_named_and_nothing_is_written(stored, capsys, tmp_path, harm, number):
    home, made, _ = stored
    harm(chunk_files(home, made)[number])
    out = tmp_path / "out"
    code, _, err = call(capsys, "records", "get", made["id"], "--home", home, "--out", out)
    assert (code, err.count("\n")) == (1, 1)
    assert f"chunk {number} " in err
    assert ("was altered" if harm in (flip, cut) else "is missing or cut") in err
    assert not out.exists()
    assert list(tmp_path.glob(".out*")) == []
    code, found, err = call(capsys, "records", "locate", made["id"], "--home", home, "--json")
    assert (code, found["ok"], found["altered"]) == (3, False, [number])
    assert found["hashes"] <= 1 + 2 * 4
    assert err.count("\n") == 1


def test_a_host_that_swaps_chunks_is_found_out(stored, capsys, tmp_path):
    home, made, _ = stored
    files = chunk_files(home, made)
    second, seventh = files[2].read_bytes(), files[7].read_bytes()
    files[2].write_bytes(seventh)
    files[7].write_bytes(second)
    code, found, _ = call(capsys, "records", "locate", made["id"], "--home", home, "--json")
    assert (code, found["altered"]) == (3, [2, 7])
    code, _, err = call(capsys, "records", "get", made["id"], "--home", home, "--out", tmp_path / "out")
    assert code == 1
    assert f"chunk 2 of {made['id']} was altered" in err
    # the report goes on the trail, said by whom
    call(capsys, "records", "locate", made["id"], "--home", home, "--report", "--json")
    trail = call(capsys, "records", "audit", made["id"], "--home", home, "--json")[1]["entries"]
    assert (trail[-1]["kind"], trail[-1]["chunks"]) == ("altered", [2, 7])


def test_a_sound_store_takes_one_comparison(stored, capsys):
    home, made, _ = stored
    code, found, _ = call(capsys, "records", "locate", made["id"], "--home", home, "--json")
    assert (code, found) == (0, {"ok": True, "altered": [], "hashes": 1})


def test_a_lost_or_forged_list_is_found_out(stored, capsys, tmp_path):
    home, made, _ = stored
    listed = home / "records" / made["root"]
    data = listed.read_bytes()
    for forged in (data[32:64] + data[:32] + data[64:], data[:-32], b""):
        listed.write_bytes(forged)
        assert call(capsys, "records", "get", made["id"], "--home", home, "--out", tmp_path / "out")[0] == 1
        assert call(capsys, "records", "locate", made["id"], "--home", home, "--json")[0] == 3
        assert not (tmp_path / "out").exists()


def test_grant_read_revoke(stored, capsys, tmp_path):
    home, made, plain = stored
    for name in ("bob", "carol"):
        call(capsys, "wallet", "new", tmp_path / name, "--json")
    get = ("records", "get", made["id"], "--home", home, "--wallet", tmp_path / "bob", "--out", tmp_path / "b")
    assert call(capsys, *get)[0] == 1
    for name in ("bob", "carol"):
        code, granted, _ = call(
            capsys, "records", "grant", made["id"], "--to", tmp_path / name, "--home", home, "--json"
        )
        assert code == 0
    assert call(capsys, *get)[0] == 0
    assert (tmp_path / "b").read_bytes() == plain
    (tmp_path / "b").unlink()
    old = {file.name: file.read_bytes() for file in (home / "store").iterdir()}
    code, again, _ = call(capsys, "records", "revoke", made["id"], "--from", tmp_path / "bob", "--home", home, "--json")
    assert (code, again["id"], again["version"]) == (0, made["id"], 2)
    assert again["root"] != made["root"]
    assert {file.name for file in (home / "store").iterdir()}.isdisjoint(old)
    assert call(capsys, *get)[0] == 1
    assert not (tmp_path / "b").exists()
    for reader in (("--wallet", tmp_path / "carol"), ()):
        out = tmp_path / "again"
        assert call(capsys, "records", "get", made["id"], "--home", home, "--out", out, *reader)[0] == 0
        assert out.read_bytes() == plain
    code, trail, _ = call(capsys, "records", "audit", made["id"], "--home", home, "--json")
    assert [entry["kind"] for entry in trail["entries"]] == ["put", "grant", "grant", "read", "revoke", "read", "read"]
    assert [one["to"] for one in trail["grants"]] == [granted["to"]]
    assert trail["entries"][3]["who"] != trail["owner"]


def test_the_old_key_opens_nothing_that_is_written_after_the_revocation(stored, capsys, tmp_path):
    home, made, _ = stored
    call(capsys, "wallet", "new", tmp_path / "bob", "--json")
    bob = member_keys(home, tmp_path / "bob")
    call(capsys, "records", "grant", made["id"], "--to", bob.certificate.public.hex(), "--home", home, "--json")
    with slice_session(str(home)) as session:
        _, _, kept = members_records._open(session, bob, bytes.fromhex(made["id"]))
    call(capsys, "records", "revoke", made["id"], "--from", bob.certificate.public.hex(), "--home", home, "--json")
    with slice_session(str(home)) as session:
        data = session.state.get(DATA_SETS, bytes.fromhex(made["id"]))
        pieces = members_records._decrypt(ChunkStore(home), data, kept, bytes.fromhex(made["id"]))
        with pytest.raises(RefusedInput, match=r"chunk 0 .* does not open"):
            next(pieces)


class Failing:
    """A session whose ledger refuses, or takes a transaction and loses the answer."""

    def __init__(self, session, *, takes: bool) -> None:
        self._session, self._takes = session, takes
        self.chain = session.chain

    @property
    def state(self):
        return self._session.state

    @property
    def now(self):
        return self._session.now

    def submit(self, *arguments, **options):
        if self._takes:
            self._session.submit(*arguments, **options)
        raise RefusedInput("no answer")


def test_a_refused_put_leaves_nothing_and_a_lost_answer_loses_no_data(stored, tmp_path):
    home, _, plain = stored
    keys, store = member_keys(home, None), ChunkStore(home)
    before = {file.name for file in (home / "store").iterdir()}
    with slice_session(str(home), writable=True) as session:
        with pytest.raises(RefusedInput):
            put_data_set(Failing(session, takes=False), keys, store, tmp_path / "plain", chunk_bytes=CHUNK)
        assert {file.name for file in (home / "store").iterdir()} == before
        known = {key for key, _ in session.state.scan(DATA_SETS)}
        with pytest.raises(RefusedInput):
            put_data_set(Failing(session, takes=True), keys, store, tmp_path / "plain", chunk_bytes=CHUNK)
        (fresh,) = {key for key, _ in session.state.scan(DATA_SETS)} - known
        get_data_set(session, keys, store, fresh, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == plain


@pytest.mark.parametrize(
    "arguments",
    [
        ("records", "put", "{tmp}/nothing", "--home", "{tmp}/fresh"),
        ("records", "put", "{tmp}/plain", "--home", "{tmp}/fresh", "--chunk-bytes", "0"),
        ("records", "put", "{tmp}/plain", "--home", "{tmp}/fresh", "--role", "king"),
        ("records", "put", "{tmp}", "--home", "{tmp}/fresh"),
        ("records", "put", "{tmp}/plain", "--home", "{tmp}/home", "--keep-until", "2001-01-01"),
        ("records", "put", "{tmp}/plain", "--home", "{tmp}/home", "--store", "nosuch://bucket"),
        ("records", "put", "{tmp}/plain", "--home", "{tmp}/fresh", "--store", "nosuch://bucket"),
        ("records", "get", "{id}", "--home", "{tmp}/home", "--out", "{tmp}"),
        ("records", "get", "12", "--home", "{tmp}/home", "--out", "{tmp}/out"),
        ("records", "get", "00" * 32, "--home", "{tmp}/home", "--out", "{tmp}/out"),
        ("records", "get", "{id}", "--home", "{tmp}/nohome", "--out", "{tmp}/out"),
        ("records", "get", "{id}", "--home", "{tmp}/home", "--out", "{tmp}/no/out"),
        ("records", "locate", "00" * 32, "--home", "{tmp}/home"),
        ("records", "grant", "{id}", "--to", "zz", "--home", "{tmp}/home"),
        ("records", "revoke", "{id}", "--from", "{id}", "--home", "{tmp}/home"),
        ("records", "audit", "00" * 32, "--home", "{tmp}/home"),
    ],
)
def test_bad_input_is_one_line_and_makes_nothing(stored, capsys, tmp_path, arguments):
    _, made, _ = stored
    code, _, err = call(capsys, *[argument.format(tmp=tmp_path, id=made["id"]) for argument in arguments])
    assert (code, err.count("\n")) == (1, 1)
    assert not (tmp_path / "fresh").exists()
    assert not (tmp_path / "out").exists()


def test_a_store_elsewhere_by_its_address(tmp_path, capsys):
    (tmp_path / "plain").write_bytes(b"remote" * 1_000)
    store = "memory://records-test"
    home = tmp_path / "home"
    made = call(capsys, "records", "put", tmp_path / "plain", "--home", home, "--store", store, "--json")[1]
    assert not (home / "store").exists()
    out = tmp_path / "out"
    assert call(capsys, "records", "get", made["id"], "--home", home, "--store", store, "--out", out)[0] == 0
    assert out.read_bytes() == b"remote" * 1_000
    assert call(capsys, "records", "get", made["id"], "--home", home, "--out", tmp_path / "other")[0] == 1


@given(
    count=st.integers(1, 200),
    harmed=st.sets(st.integers(0, 199), max_size=5),
)
@settings(deadline=None)
def test_the_comparison_finds_what_brute_force_finds_within_its_bound(count, harmed):
    items = [number.to_bytes(4, "big") for number in range(count)]
    other = [b"x" + item if number in harmed else item for number, item in enumerate(items)]
    levels = tree_levels(items)
    assert levels[-1] == [list_root(items)]
    found, compared = altered_positions(levels, tree_levels(other))
    assert found == [number for number in range(count) if items[number] != other[number]]
    assert compared <= 1 + 2 * (count - 1).bit_length() * max(1, len(found))
