"""Our reading of the store's file against LMDB's own, on files that LMDB wrote; altered files never end the process."""

import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import lmdb
import pytest
from test_ledger_chain import grow
from toy_contract import ALICE, GENESIS, NODE, TOY, Add, signed

from gridpool.errors import RefusedInput
from gridpool.ledger import pages as pages_module
from gridpool.ledger.chain import Ledger
from gridpool.ledger.compiled import native
from gridpool.ledger.page_file import PageFile
from gridpool.ledger.pages import Damage, Pages, check_pages, read_metas
from gridpool.ledger.store import TABLES, Store
from gridpool.ledger.verification import verify_ledger

HERE = Path(__file__).parent


def key_of(moments: random.Random) -> bytes:
    if moments.random() < 0.5:
        return b"k%d" % moments.randrange(300)
    return moments.randbytes(moments.choice([1, 2, 3, 8, 33, 500]))


def played(path: Path, seed: int, rounds: int) -> dict[str, dict[bytes, bytes]]:
    """Write, overwrite and delete at random in many transactions; returns what must be stored."""
    moments = random.Random(seed)
    model: dict[str, dict[bytes, bytes]] = {name: {} for name in TABLES}
    store = Store.create(path)
    for _ in range(rounds):
        for _ in range(moments.randrange(1, 60)):
            name = moments.choice(TABLES[:4])
            held = model[name]
            if held and moments.random() < 0.4:
                key = moments.choice(list(held))
                if moments.random() < 0.6:
                    del held[key]
                    continue
            else:
                key = key_of(moments)
            held[key] = moments.randbytes(moments.choice([0, 1, 30, 600, 2_020, 5_000, 30_000]))
        if moments.random() < 0.1:
            model[moments.choice(TABLES[:4])].clear()

        def work(writer: object, before: dict[str, dict[bytes, bytes]] = model) -> None:
            for name, held in before.items():
                for key in [key for key, _ in writer.items(name) if key not in held]:  # type: ignore[attr-defined]
                    writer.delete(name, key)  # type: ignore[attr-defined]
                for key in moments.sample(sorted(held), len(held)):
                    if writer.read(name, key) != held[key]:  # type: ignore[attr-defined]
                        writer.put(name, key, held[key])  # type: ignore[attr-defined]

        store.write(work)  # type: ignore[arg-type]
    store.close()
    return model


@pytest.mark.parametrize("seed", range(4))
def test_pages_that_lmdb_wrote_are_sound_and_read_as_lmdb_reads_them(tmp_path: Path, seed: int) -> None:
    model = played(tmp_path / "s", seed, 25)
    moments = random.Random(seed)
    environment = lmdb.open(str(tmp_path / "s"), readonly=True, max_dbs=16, map_size=1 << 30)
    handles = {name: environment.open_db(name.encode(), create=False) for name in TABLES}
    with environment.begin() as transaction:
        check_pages(tmp_path / "s", transaction)
        pages = PageFile(tmp_path / "s", environment)
        with pages.begin() as reading:
            for name, held in model.items():
                handle = name.encode()
                wanted = sorted(held.items())
                stat = transaction.stat(handles[name])
                del stat["depth"]
                assert reading.stat(handle) == stat
                assert list(reading.cursor(handle).iternext()) == wanted
                assert list(reading.cursor(handle).iterprev()) == wanted[::-1]
                for key in [*held, *(key_of(moments) for _ in range(60))]:
                    assert reading.get(key, None, handle) == transaction.get(key, None, handles[name])
                    theirs, ours = transaction.cursor(handles[name]), reading.cursor(handle)
                    assert ours.set_range(key) == theirs.set_range(key)
                    if key <= max(held, default=b""):
                        assert (ours.key(), ours.value()) == theirs.item()
                        assert ours.prev() == theirs.prev()
    pages.close()


def test_a_reader_sees_one_height_while_a_writer_goes_on(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "l", GENESIS, TOY, signer=NODE) as ledger:
        grow(ledger, signed(ALICE, 1, Add("a", 1)).wire)
        code = f"""
import sys; sys.path.insert(0, {str(HERE)!r})
from toy_contract import *
from pathlib import Path
from gridpool.ledger.chain import Ledger
with Ledger.open(Path({str(tmp_path / "l")!r}), TOY, writable=False) as ledger:
    with ledger.view() as view:
        print(view.height, flush=True)
        sys.stdin.readline()
        print(view.height, sum(1 for _ in view.snapshot.items("state")), flush=True)
        from gridpool.ledger.tree import reference_root
        assert reference_root(dict(view.snapshot.items("state"))) == view.header(view.height).header.state_root
    with ledger.view() as view:
        print(view.height)
"""
        pipe = subprocess.PIPE
        with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as reader:
            assert reader.stdin is not None
            assert reader.stdout is not None
            assert reader.stdout.readline() == "1\n"
            for nonce in range(2, 40):
                grow(ledger, signed(ALICE, nonce, *(Add(f"{i}", 1) for i in range(40))).wire)
            out, _ = reader.communicate("go\n")
        assert reader.returncode == 0
        assert out.split() == ["1", "4", "39"]


def test_a_page_in_use_on_the_list_of_free_ones_is_noticed_before_it_is_written(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "l", GENESIS, TOY, signer=NODE) as ledger:
        for nonce in range(1, 9):
            grow(ledger, signed(ALICE, nonce, *(Add(f"{nonce}-{i}", 1) for i in range(40))).wire)
    environment = lmdb.open(str(tmp_path / "l"), max_dbs=16)
    page = environment.stat()["psize"]
    with environment.begin() as transaction:
        check_pages(tmp_path / "l", transaction)
    environment.close()
    data = bytearray((tmp_path / "l" / "data.mdb").read_bytes())
    newest = max((0, page), key=lambda at: int.from_bytes(data[at + 144 : at + 152], "little"))
    free_root = int.from_bytes(data[newest + 80 : newest + 88], "little")
    main_root = int.from_bytes(data[newest + 128 : newest + 136], "little")
    place = free_root * page + int.from_bytes(data[free_root * page + 16 : free_root * page + 18], "little")
    count = int.from_bytes(data[place + 16 : place + 24], "little")
    assert count
    data[place + 24 : place + 32] = main_root.to_bytes(8, "little")
    (tmp_path / "l" / "data.mdb").write_bytes(data)
    with pytest.raises(RefusedInput, match=r"used twice|not in order"):
        Ledger.open(tmp_path / "l", TOY, signer=NODE)
    assert verify_ledger(tmp_path / "l", TOY).ok  # what it holds is whole: a copy of it can be made


def test_two_places_for_one_node_are_noticed(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "l", GENESIS, TOY, signer=NODE) as ledger:
        grow(ledger, signed(ALICE, 1, *(Add(f"{i}", 1) for i in range(9))).wire)
    data = bytearray((tmp_path / "l" / "data.mdb").read_bytes())
    for page in range(2 * 4096, len(data), 4096):
        leaf_of_two_at_least = data[page + 10] == 2 and int.from_bytes(data[page + 12 : page + 14], "little") >= 20
        if leaf_of_two_at_least and b"counter.count\0" in data[page : page + 4096]:
            data[page + 18 : page + 20] = data[page + 16 : page + 18]
    (tmp_path / "l" / "data.mdb").write_bytes(data)
    with pytest.raises(RefusedInput):
        Ledger.open(tmp_path / "l", TOY)
    try:  # refused where the altered page is one that says where the tables are
        fault = verify_ledger(tmp_path / "l", TOY).fault
    except RefusedInput:
        return
    assert fault is not None
    assert fault.table == "store"


def verdict(path: Path, transaction: int) -> str:
    try:
        check_pages(path, SimpleNamespace(id=lambda: transaction))
    except Damage as damage:
        return str(damage)
    return "sound"


@pytest.mark.skipif(native is None, reason="not compiled here: get a C compiler, then make venv")
@pytest.mark.parametrize("seed", range(3))
def test_the_compiled_walk_counts_what_lmdb_counts_and_marks_each_page_once(tmp_path: Path, seed: int) -> None:
    assert native is not None
    played(tmp_path / "s", seed, 25)
    with (tmp_path / "s" / "data.mdb").open("rb") as file:
        size, metas = read_metas(file.fileno())
        meta = max(metas)
        main = Pages(file.fileno(), size, meta).page(meta.main.root, True)
        tables = [Pages(file.fileno(), size, meta).record(main, at) for at in range(len(main.keys))]
        used = bytearray(meta.last_page + 1)
        for tree in tables:
            assert tree is not None
            counted = native.walk_table(file.fileno(), size, used, tree.root, tree.depth)
            assert counted == (tree.branches, tree.leaves, tree.overflows, tree.entries)
            if tree.depth:
                assert native.walk_table(file.fileno(), size, used, tree.root, tree.depth) is None  # used twice
        assert sum(used) == sum(tree.branches + tree.leaves + tree.overflows for tree in tables if tree)
        for wrong in ((100, used), (1 << 16, used), (size, bytearray())):
            with pytest.raises(ValueError, match="bytes"):
                native.walk_table(file.fileno(), *wrong, 2, 1)
        with pytest.raises(ValueError, match="levels"):
            native.walk_table(file.fileno(), size, used, 2, 33)
        for root in (0, 1, meta.last_page + 1, 2**64 - 1):
            assert native.walk_table(file.fileno(), size, used, root, 32) is None


@pytest.mark.skipif(native is None, reason="not compiled here: get a C compiler, then make venv")
@pytest.mark.parametrize(
    ("seed", "rounds"), [(5, 400), *(pytest.param(seed, 4_000, marks=pytest.mark.slow) for seed in range(20, 24))]
)
def test_compiled_and_plain_walk_say_the_same_of_altered_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, rounds: int
) -> None:
    played(tmp_path / "s", seed, 6)
    data = tmp_path / "s" / "data.mdb"
    whole = data.read_bytes()
    with data.open("rb") as file:
        size, metas = read_metas(file.fileno())
    transaction, last = max(metas).transaction, max(metas).last_page
    moments = random.Random(seed)
    found = set()
    for _ in range(rounds):
        altered = bytearray(whole)
        for _ in range(moments.choice([1, 1, 1, 2, 8])):
            page = moments.randrange(2, last + 1) * size
            lower = int.from_bytes(altered[page + 12 : page + 14], "little")
            places = range(page, page + max(16, min(lower, size)))
            if moments.random() < 0.5 and lower >= 18:  # the head of a node
                node = page + int.from_bytes(altered[page + 16 : page + 18], "little")
                places = range(node, node + 24)
            at = min(moments.choice(places), len(altered) - 1)
            altered[at] = moments.choice([altered[at] ^ 1 << moments.randrange(8), moments.randrange(256), 0, 255])
        data.write_bytes(altered)
        compiled = verdict(tmp_path / "s", transaction)
        with monkeypatch.context() as plainly:
            plainly.setattr(pages_module, "native", None)
            assert verdict(tmp_path / "s", transaction) == compiled
        found.add(compiled.split(" ")[0] if compiled == "sound" else "damaged")
    assert found == {"sound", "damaged"}


@pytest.mark.parametrize(
    ("seed", "rounds"), [(2, 150), *(pytest.param(seed, 500, marks=pytest.mark.slow) for seed in range(10, 14))]
)
def test_altered_pages_are_whole_refused_or_faulty_and_never_end_the_process(
    tmp_path: Path, seed: int, rounds: int
) -> None:
    folder = tmp_path / "ledger"
    with Ledger.create(folder, GENESIS, TOY, signer=NODE) as ledger:
        for nonce in range(1, 11):
            grow(ledger, signed(ALICE, nonce, *(Add(f"{nonce}-{i}", 1) for i in range(12))).wire)
    command = [sys.executable, str(HERE / "altered_store.py"), str(folder), str(seed), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for outcome in ("look refused", "verify refused", "write refused", "verify fault", "look whole", "write whole"):
        assert outcome in done.stdout
